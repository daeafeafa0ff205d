"""Traces and tables as members: what a recording holds from when on, and the simulators that play it."""
