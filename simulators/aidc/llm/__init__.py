"""Serving of large language models: equations, curves, replicas, a site of them, and its ports."""
