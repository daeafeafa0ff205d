"""What follows from a trace: figures, conservation laws, waits, cooling, carbon of single jobs, voltages between
dispatches."""
