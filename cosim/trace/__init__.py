"""HDF5 traces: read back, written so that no kill tears them, sealed, rescued, compared; `cosim trace`."""

from cosim.trace.reader import FORMAT, SCHEMA_VERSION, Trace
from cosim.trace.supervised import DAMAGE

__all__ = ["DAMAGE", "FORMAT", "SCHEMA_VERSION", "Trace"]
