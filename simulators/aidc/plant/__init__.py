"""Cooling plants of a data center: parameters, weather, temperatures."""
