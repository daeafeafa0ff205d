"""What steers a fleet of data centers: observations, decisions, rules, the oracle, rewards, trained teams."""
