"""Public tasks as `--env` takes them."""

from mpe2 import simple_spread_v3


def short_spread():
    """Three agents, three landmarks, six steps."""
    return simple_spread_v3.parallel_env(N=3, max_cycles=6, continuous_actions=True)
