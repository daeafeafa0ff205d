"""Flexibility of a fleet: demand-response events, their baselines, and the member that calls them."""
