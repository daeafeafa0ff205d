"""The data centers for many environments at once, compiled: arrays in and out; the engine of SimPy is the reference."""
