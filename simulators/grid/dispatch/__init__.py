"""Optimal dispatch of a radial feeder: conic problem, solvers, intensity limits, ramps, marginal intensities."""
