"""Learning: environment steps a second, learning included, and what of it environment, decoding and update take.

On a CPU: CPU seconds of this process, so steps per second of one core. With workers, which learn together on a CPU and
only play for a GPU, or on a GPU: seconds of wall clock, since others compute at the same time; such rows say so and are
compared with no baseline.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Found, Say, Size, cpu_clock, least, number, timing
from cosim.agents.learn.spec import Outcome
from cosim.digest import Table
from cosim.imports import load
from cosim.learning.environment import engine_of, some_of, vector_env
from cosim.learning.vector import learning_scenario
from cosim.run import find

SAMPLES = 1440
"""Environment steps between two updates: a day, as `cosim.agents.train` has by default."""
PARTS = ("environment", "decode", "update")
BATCHES = {"quick": ((16, SAMPLES // 4),), "normal": ((16, SAMPLES), (64, SAMPLES)),
           "full": ((16, SAMPLES), (64, SAMPLES), (256, SAMPLES), (256, 16 * SAMPLES))}
"""(environments, steps of all of them together between two updates)."""
MOST_SLOW = SAMPLES
"""Environments on SimPy get no longer rollouts."""
TWINS = 4


def engines(scenario: str, skipped: list[str]) -> list[str]:
    """The engines of `vector_env` that can play a scenario; which cannot goes into `skipped`, with why."""
    best, why = engine_of(scenario)
    if best == "compiled":
        return ["compiled", "simpy"]
    skipped.append(f"learning on the compiled engine: {why}")
    return ["simpy"]


def additions_s() -> float:
    """A million additions of the interpreter: what environment steps on different machines are compared by."""
    return least(_additions, 3).least_s


def _additions() -> None:
    total = 0
    for k in range(1_000_000):
        total += k


def updates(env: Any, row: Row, count: int) -> list[dict[str, float]]:
    """Steps a second and seconds by part of some updates of a fresh MAT, after one that is not counted."""
    team_of, training_of, plan_of, learning = (load(path, "learner") for path in (
        "cosim.agents.learn.team:Team", "cosim.agents.learn.training:Training",
        "cosim.agents.learn.training:TrainingPlan", "cosim.agents.learn.config:Learning"))
    with tempfile.TemporaryDirectory() as out:
        config = learning(twins=env.twins, rollout_steps=max(row.samples // row.n_envs, 1),
                          torch_compile=row.torch_compile)
        training = training_of(team_of(env.spec, config, device=row.device), env, plan_of(Path(out), 10**9))
        training.begin()
        with nullcontext() if row.wall else cpu_clock():
            training.step()
            return [training.step() for _ in range(count)]


def updates_together(scenario: str, row: Row, count: int) -> list[dict[str, float]]:
    """The same of `row.workers` processes that learn together."""
    team_of, training_of, plan_of, learning, others_of, shares_of = (load(path, "learner") for path in (
        "cosim.agents.learn.team:Team", "cosim.agents.learn.training:Training",
        "cosim.agents.learn.training:TrainingPlan", "cosim.agents.learn.config:Learning",
        "cosim.agents.together:OtherProcesses", "cosim.agents.learn.peers:shares_of"))
    prepared, worlds = learning_scenario(find(scenario)), {"engine": row.kind, "seed": 0, "twins": TWINS}
    numbers = shares_of(row.n_envs, TWINS, row.workers)
    config = learning(twins=TWINS, rollout_steps=max(row.samples // row.n_envs, 1), torch_compile=row.torch_compile)
    taken: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as out, closing(some_of(prepared, numbers[0], **worlds)) as env:
        plan = plan_of(Path(out), 10**9, count + 1, save_every=10**9)
        with closing(others_of(prepared, worlds, numbers, config, plan, resume=False)) as others:
            training = training_of(team_of(env.spec, config, 0, "cpu", others.peers), env, plan)
            training.begin()
            training.run(taken.append)
    return taken[1:]


def measure(size: Size, say: Say) -> Found:
    """A row per engine and number of environments; the learner alone beside them."""
    if importlib.util.find_spec("torch") is None:
        return Found(skipped=["learn: torch is not installed (extra 'learn')"])
    found, rows = Found(), []
    kinds = ("nothing", *engines(size.scenario, found.skipped))
    unit_s = additions_s()
    found.figures["a million additions of the interpreter, CPU s"] = unit_s
    for device in dict.fromkeys((size.device, "cpu")):  # one that is not there is refused at once
        for n_envs, samples in BATCHES[size.name]:
            for kind in kinds:
                if kind == "simpy" and samples > MOST_SLOW:
                    continue
                for workers, compiled in product(
                        (0,) if kind == "nothing" else tuple(dict.fromkeys((0, size.workers))),
                        (False, True) if size.torch_compile else (False,)):
                    row = Row(kind, device, n_envs, workers, samples, compiled)
                    say(row.name)
                    rows.append(_measured(row, size, unit_s, found))
    found.tables.append(Table(
        f"Learning {size.scenario} by MAT: environment steps a second, learning included, and us a step",
        ("environments", "device", "B", "workers", "steps an update", "steps/s", *PARTS, "clock", "spread"), rows,
        "'nothing': environments that always show the same and cost nothing, so the learner alone; "
        f"a million additions of the interpreter take {number(1e3 * unit_s)} ms" + _gpu(size.device)))
    return found


def _gpu(device: str) -> str:
    return "" if device == "cpu" else f"; {device}: {importlib.import_module('torch').cuda.get_device_name(device)}"


@dataclass(frozen=True)
class Row:
    """What is learned on: the kind of environments, their number, and how many steps of all make an update."""

    kind: str
    device: str
    n_envs: int
    workers: int
    samples: int
    torch_compile: bool = False

    @property
    def wall(self) -> bool:
        """Whether CPU seconds of this process would not tell."""
        return bool(self.workers) or self.device != "cpu"

    @property
    def name(self) -> str:
        """In words."""
        workers = f", {self.workers} workers" if self.workers else ""
        return f"{self.kind}, {self.network}, B = {self.n_envs}{workers}, {self.samples} steps an update"

    @property
    def network(self) -> str:
        """What the network is on."""
        return self.device + ", torch_compile" * self.torch_compile


def _measured(row: Row, size: Size, unit_s: float, found: Found) -> tuple[str, ...]:
    """The row of the table; figures and ratios are added to what was found."""
    count = 1 if size.quick or row.samples > SAMPLES else 2
    if row.workers > 1 and row.device == "cpu":
        taken = updates_together(size.scenario, row, 4 * count)
    else:
        env: Any = Nothing(size.scenario, row.n_envs) if row.kind == "nothing" else vector_env(
            size.scenario, n_envs=row.n_envs, workers=row.workers, twins=TWINS, engine=row.kind)
        with closing(env):
            taken = updates(env, row, count)
    steps = max(row.samples // row.n_envs, 1) * row.n_envs
    best = max(taken, key=lambda one: one["steps_per_s"])
    spread = timing([1.0 / one["steps_per_s"] for one in taken]).spread
    us = {part: 1e6 * best[f"{part}_s"] / steps for part in PARTS}
    clock = "wall" if row.wall else "CPU"
    found.figures[f"{row.name}: steps per {clock} s"] = best["steps_per_s"]
    found.figures |= {f"{row.name}: {part}, us of {clock} a step": value for part, value in us.items()}
    if not row.wall:
        found.ratios[f"{row.name}: a thousand steps, in millions of additions"] = 1e3 / best["steps_per_s"] / unit_s
    return (row.kind, row.network, str(row.n_envs), str(row.workers), str(row.samples),
            number(best["steps_per_s"]), *(number(us[part]) for part in PARTS), clock, f"{spread:.2f}")


class Nothing:
    """Environments of a scenario's team that always show the same and cost nothing: a `VectorEnv`."""

    def __init__(self, scenario: str, n_envs: int) -> None:
        one = vector_env(scenario, n_envs=1, workers=0)
        self.spec, self.n_envs, self.twins = one.spec, n_envs, TWINS
        one.close()
        seen, told, _ = self.spec.widths
        agents = len(self.spec.agents)
        generator = np.random.default_rng(0)
        self._seen = generator.standard_normal((n_envs, agents, seen)).astype(np.float32)
        self._told = generator.standard_normal((n_envs, agents, told)).astype(np.float32)
        self._reward, self._no = generator.standard_normal(n_envs).astype(np.float32), np.zeros(n_envs, bool)

    def reset(self) -> np.ndarray:
        """See `VectorEnv`."""
        return self._seen

    def context(self, leaders_action: np.ndarray) -> np.ndarray:
        """See `VectorEnv`."""
        return self._told

    def step(self, action: np.ndarray) -> Outcome:
        """See `VectorEnv`."""
        return Outcome(self._seen, self._reward, {}, self._no, self._no, self._seen)

    def close(self) -> None:
        """Nothing was opened."""
