"""Distribution grids on the bus: dispatch with carbon emission flow, AC power flow, OpenDSS, intensities alone."""
