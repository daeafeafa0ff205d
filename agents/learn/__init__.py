"""Teams that learn, of any environment: specification, rollouts, PPO, networks, checkpoints; acting on numpy alone."""
