"""The fleet's controller on the bus: what policies observe and decide becomes commands; releases of postponed jobs."""
