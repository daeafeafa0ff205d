"""The training loop: decide, step, record, learn; a log of every update, checkpoints that a killed run goes on from.

Rows: L02, L04, L17, L20.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cosim.agents.learn.checkpoint import BEST, LAST, LOG, complete_lines
from cosim.agents.learn.rollout import Rollout, TeamStep
from cosim.agents.learn.spec import Stepped, TaughtEnv, VectorEnv, credit_terms
from cosim.agents.learn.team import Team
from cosim.errors import ScenarioError, first_line, shown

_ENVIRONMENT = "environment/"


@dataclass(frozen=True)
class TrainingPlan:
    """How long and where to.

    episodes: ended episodes of all environments together after which training ends; updates: the same in updates, None:
    no such end, 0: a team that has learned nothing is saved; save_every: updates between checkpoints; request: the
    run's request, kept in every checkpoint
    """

    out: Path
    episodes: int
    updates: int | None = None
    save_every: int = 10
    request: Mapping[str, Any] | None = None


class Tracker:
    """Sums over open episodes, and the last episodes that ended; plain arrays, so that a resumed run has the same."""

    def __init__(self, n_envs: int, window: int):
        self.n_envs, self.window = n_envs, window
        self.open, self.ended, self.steps, self.episodes = np.zeros(n_envs), np.zeros(0), 0, 0
        self.best = -np.inf

    def add_all(self, reward: np.ndarray, over: np.ndarray) -> None:
        """Some steps of all environments: rewards (T, B), and where an episode ended."""
        for of_step, ends in zip(reward, over, strict=True):
            self.add(of_step, ends)

    def add(self, reward: np.ndarray, over: np.ndarray) -> None:
        """One step of all environments, (B,) each."""
        self.open = self.open + np.asarray(reward, np.float64)
        if over.any():
            self.ended = np.concatenate((self.ended, self.open[over]))[-self.window:]
            self.open[over] = 0.0
            self.episodes += int(over.sum())
        self.steps += self.n_envs

    @property
    def episode_reward(self) -> float | None:
        """Mean reward of the last episodes; None before one ended."""
        return float(self.ended.mean()) if len(self.ended) else None

    def improved(self) -> bool:
        """Whether the window is full and its mean the best so far, which is then stored."""
        if len(self.ended) < self.window or self.ended.mean() <= self.best:
            return False
        self.best = float(self.ended.mean())
        return True

    def state(self) -> dict[str, np.ndarray]:
        """As plain arrays."""
        return {"open": self.open, "ended": self.ended, "counts": np.array([self.steps, self.episodes]),
                "best": np.array([self.best])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """From `state()`."""
        want = {"open": (self.n_envs,), "counts": (2,), "best": (1,), "ended": state["ended"].shape[:1]}
        for name, shape in want.items():
            x = state[name]
            finite = np.isfinite(x) | (x == -np.inf) if name == "best" else np.isfinite(x)
            if x.shape != shape or not finite.all() or (name == "counts" and ((x < 0) | (x > 2**53)).any()):
                raise ScenarioError(f"'tracker/{name}' is {shown(x.tolist())}; no run has that")
        self.open, self.ended = state["open"].copy(), state["ended"].copy()
        self.steps, self.episodes = (int(x) for x in state["counts"])
        self.best = float(state["best"][0])


class _Lesson:
    """A decision that a teacher makes, in the place of a `TeamDecision`."""

    def __init__(self, team: Team, teacher: TaughtEnv, observation: np.ndarray):
        self._team, self._teacher, self._observation = team, teacher, observation
        self._lead = teacher.lesson_lead()

    def lead(self) -> np.ndarray:
        """(B, leaders, A) the leaders' actions."""
        return self._lead

    def follow(self, context: np.ndarray) -> TeamStep:
        """The whole decision."""
        return self._team.taught(self._observation, self._teacher.lesson(self._lead))


class Training:
    """A team on a vector environment. `run` goes on until the plan is fulfilled; `step` is one update. Where the
    environment has a teacher (`cosim.agents.learn.spec.TaughtEnv`), it decides, and the team learns to do the same.

    Where several processes learn the team (`Team.peers`), all do the same and the first writes log and checkpoints;
    `env` has the environments that are played here.
    """

    def __init__(self, team: Team, env: VectorEnv, plan: TrainingPlan):
        if team.spec != env.spec:
            raise ScenarioError("the team was made for another environment: agents, columns or actions differ")
        if team.terms and team.terms != credit_terms(env):
            raise ScenarioError(f"the team's critic has an output for each of {', '.join(team.terms)}, and the "
                                f"environment's reward has {', '.join(credit_terms(env)) or 'no terms'}; begin anew "
                                "with another --out")
        self.team, self.env, self.plan, self.peers = team, env, plan, team.peers
        self.n_envs = self.peers.all_envs(env.n_envs)
        self.tracker = Tracker(self.n_envs, window=2 * self.n_envs)
        self.observation: np.ndarray = np.empty(0)
        self.stop = False
        self.teacher: TaughtEnv | None = env if isinstance(env, TaughtEnv) else None
        try:
            plan.out.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ScenarioError(f"cannot make the folder {plan.out}: {err.strerror}; choose another --out") from err

    def begin(self) -> None:
        """Start anew. ScenarioError where a run has been already."""
        if self.leads:
            if (self.plan.out / LAST).exists():
                raise ScenarioError(f"{self.plan.out} holds a training run; go on with --resume, or choose another "
                                    "--out")
            (self.plan.out / LOG).write_text("")
        self.observation = self.env.reset()

    def resume(self) -> None:
        """Go on from the last checkpoint, whose team this training was given: environments, counts, log."""
        path = self.plan.out / LAST
        arrays, _ = Team.extras(path)
        try:
            self.tracker.restore({k.removeprefix("tracker/"): v for k, v in arrays.items() if k.startswith("tracker/")})
            self.observation = self.env.restore(
                {k.removeprefix(_ENVIRONMENT): v for k, v in arrays.items() if k.startswith(_ENVIRONMENT)})
        except ScenarioError as err:
            raise ScenarioError(f"checkpoint '{path}': {err}") from err
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as err:
            raise ScenarioError(f"checkpoint '{path}' holds a state that this run cannot go on from: "
                                f"{type(err).__name__}: {first_line(err, 150)}") from err
        if self.leads:
            try:
                lines = complete_lines(self.plan.out / LOG)
                kept = [line for line in lines if json.loads(line)["update"] <= self.team.updates]
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
                raise ScenarioError(f"{self.plan.out / LOG} is no log of a training: {first_line(err, 150)}; move it "
                                    "away to go on with an empty one") from None
            (self.plan.out / LOG).write_text("".join(f"{line}\n" for line in kept))

    @property
    def leads(self) -> bool:
        """Whether this process writes log and checkpoints."""
        return self.peers.rank == 0

    @property
    def progress(self) -> float:
        """0..1 of the plan."""
        parts = [self.tracker.episodes / self.plan.episodes]
        if self.plan.updates is not None:
            parts.append(self.team.updates / self.plan.updates if self.plan.updates else 1.0)
        return min(1.0, max(parts))

    def run(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Until the end of the plan, or until `stop` is set in the process that leads; `report` gets the record of
        every update."""
        saved, ending = self.team.updates, self.stop
        while self.progress < 1.0 and not ending:
            record, ending = self._update()
            if self.leads:
                with (self.plan.out / LOG).open("a") as log:
                    log.write(json.dumps(record) + "\n")
            if self.tracker.improved() and self.leads:
                self.save(BEST, resumable=False)
            if self.team.updates % self.plan.save_every == 0:
                self.save(LAST)
                saved = self.team.updates
            report(record)
        if saved != self.team.updates or not self.team.updates:
            self.save(LAST)

    def step(self) -> dict[str, Any]:
        """One rollout and the update on it; what happened, with the seconds spent in environment, decode and update,
        and in waiting for other processes between these two."""
        return self._update()[0]

    def _update(self) -> tuple[dict[str, Any], bool]:
        """`step`, and whether the run is to end with it."""
        begin = perf_counter()
        rollout = self.team.rollout(self.env.n_envs, self.env.twins)
        terms: dict[str, float] = {}
        spent = {"environment": 0.0, "decode": 0.0}
        for _ in range(rollout.steps):
            outcome = self._minute(rollout, spent)
            for name, value in outcome.terms.items():
                terms[name] = terms.get(name, 0.0) + float(np.sum(value)) / (rollout.steps * self.n_envs)
        rollout.end(self.team.value(self.observation))
        t0 = perf_counter()
        said = self.peers.meet({"terms": terms, "stop": self.stop})
        t1 = perf_counter()
        self.tracker.add_all(rollout.reward, rollout.terminated | rollout.truncated)
        reward = float(rollout.reward.mean())
        stats = self.team.learn(rollout, self.progress, self.teacher is not None)
        now = perf_counter()
        spent |= {"waiting": t1 - t0, "update": now - t1}
        steps = rollout.steps * self.n_envs
        terms = {name: sum(one["terms"][name] for one in said) for name in terms}
        return {"update": self.team.updates, "steps": self.tracker.steps, "episodes": self.tracker.episodes,
                "reward": reward, "episode_reward": self.tracker.episode_reward, "terms": terms, **stats,
                "steps_per_s": steps / (now - begin), **{f"{k}_s": v for k, v in spent.items()}}, said[0]["stop"]

    def _minute(self, rollout: Rollout, spent: dict[str, float]) -> Stepped:
        """One step of all environments."""
        t0 = perf_counter()
        decoding = (self.team.begin(self.observation) if self.teacher is None
                    else _Lesson(self.team, self.teacher, self.observation))
        lead = decoding.lead()
        t1 = perf_counter()
        context = self.env.context(lead)
        t2 = perf_counter()
        step = decoding.follow(context)
        t3 = perf_counter()
        outcome = self.env.step(step.action)
        t4 = perf_counter()
        final = self.team.value(outcome.final_observation) if np.any(outcome.truncated) else None
        rollout.add(self.observation, context, step, outcome, final)
        self.observation = np.array(outcome.observation)
        spent["environment"] += t2 - t1 + t4 - t3
        spent["decode"] += t1 - t0 + t3 - t2 + perf_counter() - t4
        return outcome

    def save(self, name: str, resumable: bool = True) -> None:
        """Write a checkpoint; a resumable one also holds the environments' and the counters' state, and is a barrier
        of all processes."""
        arrays: dict[str, np.ndarray] = {}
        if resumable:
            arrays = {f"{_ENVIRONMENT}{k}": v for k, v in self.peers.gathered(self.env.state()).items()}
            arrays.update({f"tracker/{k}": v for k, v in self.tracker.state().items()})
        if not self.leads:
            return
        facts = {"request": dict(self.plan.request or {}), "steps": self.tracker.steps,
                 "episodes": self.tracker.episodes, "episode_reward": self.tracker.episode_reward}
        self.team.save(self.plan.out / name, arrays, facts, resumable)
