"""Your own learner on a scenario: random search for the best constant action of every agent.

    python examples/own_learner.py
"""

import numpy as np

from cosim.learning.environment import parallel_env


def total(env, actions: dict) -> tuple[float, float]:
    """(reward, energy in kWh) of a day of the same arrivals."""
    env.reset(seed=1)
    reward = energy_kwh = 0.0
    while env.agents:
        _, rewards, _, _, infos = env.step(actions)
        reward += rewards["manager"]
        energy_kwh += infos["manager"]["energy_kwh"]
    return reward, energy_kwh


env, rng = parallel_env("two_bus"), np.random.default_rng(0)
first = best = {agent: np.full(env.action_space(agent).shape, 0.5) for agent in env.possible_agents}
for _ in range(30):
    tried = {agent: np.clip(a + rng.normal(0.0, 0.3, a.shape), 0.0, 1.0) for agent, a in best.items()}
    best = max(best, tried, key=lambda actions: total(env, actions)[0])
for name, actions in (("equal shares", first), ("found", best)):
    print("{}: reward {:.4f}, {:.2f} kWh".format(name, *total(env, actions)))
env.close()
