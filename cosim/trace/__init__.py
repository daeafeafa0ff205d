"""HDF5 traces: read back, written so that no kill tears them, sealed, rescued, compared; `cosim trace`."""

from cosim.trace.reader import DAMAGE, FORMAT, SCHEMA_VERSION, Trace

__all__ = ["DAMAGE", "FORMAT", "SCHEMA_VERSION", "Trace"]
