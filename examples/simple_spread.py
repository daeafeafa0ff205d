"""A public multi-agent task for the same learners: mpe2's simple_spread, with forces instead of five moves.

    cosim train --env examples.simple_spread:continuous --method mat --envs 32 --episodes 24000 \
        --set learn.rollout_steps=25

Needs the packages pettingzoo and mpe2. Three agents are to cover three landmarks without bumping into each other; every
agent's reward is half its own collisions and half the distances of all landmarks to their nearest agent. An episode is
25 steps and truncates. The log's `episode_reward` is the mean over agents of the reward summed over an episode.
"""

from mpe2 import simple_spread_v3


def continuous():
    """Three agents, 25 steps, forces in 0..1 along four directions."""
    return simple_spread_v3.parallel_env(N=3, max_cycles=25, continuous_actions=True)
