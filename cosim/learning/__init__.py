"""Many copies of a scenario to learn on: side by side, in worker processes, as a PettingZoo environment."""
