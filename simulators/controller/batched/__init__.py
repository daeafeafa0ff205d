"""The controllers of many environments at once, compiled: placement, releases, grants, observations and rewards."""
