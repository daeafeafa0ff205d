"""Jobs that arrive: synthetic streams, traces of LLM services and of GPU clusters, another run's jobs."""
