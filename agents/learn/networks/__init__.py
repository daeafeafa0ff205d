"""The policies as torch modules: the multi-agent transformer (MAT), MAT-Dec, Transformer, MAPPO."""
