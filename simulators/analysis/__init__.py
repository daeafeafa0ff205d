"""What a trace says: figures, conservation laws, waits, cooling, carbon of single jobs, voltages between dispatches."""
