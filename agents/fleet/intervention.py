"""A policy that is shown something else than what is: interventions on its observation, minute by minute.

What a policy does under another signal, at the same arrivals and with everything else as it is, is what the signal
causes it to do. Its own effect on a signal (a site that is sent more work draws more, from dearer or dirtier sources)
is cut by showing it a recorded signal, which no decision changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cosim.agents.fleet.decision import Matrix, Observation, Operation, Policy
from cosim.units import DAY_S, MIN_S

Change = Callable[[int, Observation], Observation]
"""(number of the decision, what is) -> what the policy is shown."""
INTENSITIES = ("nci_kg_per_kwh", "mci_kg_per_kwh")


@dataclass(frozen=True)
class Signals:
    """What a policy saw, T decisions: carbon intensities (T, N) average and marginal, NaN where there was none; price
    (T,) and its forecast (T, H)."""

    nci_kg_per_kwh: np.ndarray
    mci_kg_per_kwh: np.ndarray
    price_usd_per_kwh: np.ndarray
    forecast_usd_per_kwh: np.ndarray


class Intervened:
    """`policy`, shown `change` of what is; `seen` is what was, `shown` what it was shown."""

    needs_nci = False

    def __init__(self, policy: Policy, change: Change) -> None:
        self._policy, self._change = policy, change
        self.seen: list[Observation] = []
        self.shown: list[Observation] = []

    def place(self, observation: Observation) -> Matrix:
        """The manager's shares under what it is shown."""
        shown = self._change(len(self.seen), observation)
        self.seen.append(observation)
        self.shown.append(shown)
        return self._policy.place(shown)

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """The sites' actions under what they are shown."""
        return self._policy.operate(self.shown[-1], allocated_jobs, allocated_work_to)

    def signals(self, shown: bool = False) -> Signals:
        """What was, or what the policy was shown, so far."""
        rows = self.shown if shown else self.seen
        nothing = [np.nan] * len(rows[0].power_kw)
        return Signals(np.array([o.nci_kg_per_kwh or nothing for o in rows], float),
                       np.array([o.mci_kg_per_kwh or nothing for o in rows], float),
                       np.array([o.price_usd_per_kwh for o in rows], float),
                       np.array([o.forecast_usd_per_kwh for o in rows], float))


def what_is(step: int, seen: Observation) -> Observation:
    """No intervention."""
    return seen


def exchanged(one: int, other: int, fields: Sequence[str] = INTENSITIES) -> Change:
    """The intensities of two sites the wrong way round."""
    def change(step: int, seen: Observation) -> Observation:
        changed: dict[str, Any] = {}
        for name in fields:
            row = getattr(seen, name)
            if row is not None:
                changed[name] = turned = list(row)
                turned[one], turned[other] = row[other], row[one]
        return replace(seen, **changed)
    return change


def recorded(signals: Signals, order: np.ndarray | None = None, fields: Sequence[str] = INTENSITIES) -> Change:
    """The intensities of a recording, which the policy's own load does not change; at step t those of order[t]. Where
    the policy is shown none it is shown none."""
    def change(step: int, seen: Observation) -> Observation:
        at = step if order is None else int(order[step])
        return replace(seen, **{name: getattr(signals, name)[at].tolist() for name in fields
                                if getattr(seen, name) is not None})
    return change


def constant(signals: Signals) -> Change:
    """At every site and time the mean of a recording's intensities."""
    return recorded(replace(signals, **{name: np.full_like(x, x.mean()) for name in INTENSITIES
                                        for x in [getattr(signals, name)]}))


def other_prices(signals: Signals, order: np.ndarray) -> Change:
    """Price and forecast of a recording, at step t those of order[t]."""
    return lambda step, seen: replace(seen, price_usd_per_kwh=float(signals.price_usd_per_kwh[order[step]]),
                                      forecast_usd_per_kwh=signals.forecast_usd_per_kwh[order[step]].tolist())


def flat_prices(signals: Signals) -> Change:
    """The mean price of a recording now and later."""
    mean = float(signals.price_usd_per_kwh.mean())
    return lambda step, seen: replace(seen, price_usd_per_kwh=mean,
                                      forecast_usd_per_kwh=[mean] * len(seen.forecast_usd_per_kwh))


def no_deadlines(step: int, seen: Observation) -> Observation:
    """No training job is late or urgent, and all could stand still for a day."""
    nobody = [[0.0] * len(row) for row in seen.late_jobs]
    return replace(seen, late_jobs=nobody, urgent_jobs=nobody, slack_min=[DAY_S / MIN_S] * len(seen.slack_min))


def all_urgent(step: int, seen: Observation) -> Observation:
    """No training job is late, all that are queued or run can wait for less than an hour, and none can stand still."""
    inside = [[q + r for q, r in zip(*rows, strict=True)]
              for rows in zip(seen.queued_jobs, seen.running_jobs, strict=True)]
    return replace(seen, late_jobs=[[0.0] * len(row) for row in seen.late_jobs], urgent_jobs=inside,
                   slack_min=[0.0] * len(seen.slack_min))


def both(first: Change, then: Change) -> Change:
    """Two interventions, one after the other."""
    return lambda step, seen: then(step, first(step, seen))

