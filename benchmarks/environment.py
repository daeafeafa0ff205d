"""Speed of learning environments: `python -m benchmarks.environment [SCENARIO] [--minutes 1440] [--envs 8]`.

Prints what one simulated minute costs in CPU time, by part, and what many environments give per second of wall clock,
in this process and in workers. Actions are those of a fresh policy. CPU time is compared with a loop of the interpreter
timed beside it, because machines, and how busy they are, differ.
"""

import argparse
from time import perf_counter, process_time

import numpy as np

from cosim.drivers.resolve import resolve
from cosim.learning.environment import scenario_of, vector_env
from cosim.learning.vector import Environment, learning_scenario
from cosim.scenario import override


def loop_ms() -> float:
    """A million additions in the interpreter, ms of CPU."""
    begin, total = process_time(), 0
    for k in range(1_000_000):
        total += k
    return (process_time() - begin) * 1e3


def parts(scenario, minutes: int) -> dict[str, float]:
    """CPU ms a minute of one environment, by part."""
    env = Environment(resolve(learning_scenario(scenario)), seed=1)
    spent = dict.fromkeys(("context", "world", "outcome and observation"), 0.0)
    for _ in range(minutes):
        action = env.steering.start()
        a = process_time()
        env.steering.context(action[:1])
        b = process_time()
        env.steering.decide(action)
        time = env._world.run_to("controller", env._resolved.until)
        c = process_time()
        if time is None:
            break
        env.steering.outcome()
        env.steering.observe(60.0 * time)
        d = process_time()
        for name, seconds in zip(spent, (b - a, c - b, d - c), strict=True):
            spent[name] += seconds * 1e3 / minutes
    return spent


def rate(scenario, n_envs: int, workers: int, steps: int) -> float:
    """Environment steps per second of wall clock, contexts included."""
    env = vector_env(scenario, n_envs=n_envs, workers=workers)
    try:
        env.reset()
        start = Environment(resolve(learning_scenario(scenario)), seed=1).steering.start()
        action = np.repeat(start[None], n_envs, axis=0)
        for _ in range(5):
            env.step(action)
        begin = perf_counter()
        for _ in range(steps):
            env.context(action[:, :1])
            env.step(action)
        return steps * n_envs / (perf_counter() - begin)
    finally:
        env.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="ieee33")
    parser.add_argument("--minutes", type=int, default=1440)
    parser.add_argument("--envs", type=int, default=8)
    args = parser.parse_args()
    scenario = scenario_of(args.scenario)
    for solver in ("clarabel", "gurobi"):
        loops = [loop_ms()]
        spent = parts(override(scenario, {"grid.solver": solver}), args.minutes)
        loops.append(loop_ms())
        split = ", ".join(f"{name} {ms:.3f}" for name, ms in spent.items())
        print(f"{solver}: {sum(spent.values()):.3f} ms CPU a minute ({split}); "
              f"a million additions take {min(loops):.1f} to {max(loops):.1f} ms")
    for workers in (0, 1, 2):
        print(f"{args.envs} environments, {workers} workers: "
              f"{rate(scenario, args.envs, workers, max(20, args.minutes // args.envs)):.0f} steps/s")


if __name__ == "__main__":
    main()
