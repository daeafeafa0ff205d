"""Forecasts of intensities, price, base load and renewables as a member: ports with the horizon as an axis."""
