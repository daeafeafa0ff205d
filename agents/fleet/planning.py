"""The planner's linear program: what training works where and when, and where what arrives is sent.

Fluid work of groups of classes at sites over slots of time (`cosim.agents.fleet.fluid`): what is at a site stays there,
what is to come is placed. Least worth of energy, price and carbon as (32) weighs them, with power a convex function of
IT power, within GPUs and announced caps. What would be late costs, so that there is always a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosim.agents.fleet.fluid import Cuts
from cosim.agents.fleet.linear_program import Indices, LinearProgram, Terms, before

Floats = NDArray[np.float64]
LATE_FACTOR = 10.0
"""Work past its time costs so much more than a drop, by the hour: the guard, then late jobs, stand behind it."""


@dataclass(frozen=True)
class TrainingGroup:
    """A group of training classes: GPUs of one power, jobs of one deadline, the same sites.

    busy_kw     of a busy GPU
    eligible    (N,) sites
    possible, required   (N, T) what can and has to be done of the jobs at each site by the end of each slot, GPU-h
    coming      (T,) what is expected to arrive in each slot, GPU-h
    lag, due    slots after which what arrives can be done, and after which it has to be
    late_cost   of a GPU-h that is an hour late
    """

    busy_kw: float
    eligible: Sequence[bool]
    possible: Floats
    required: Floats
    coming: Floats
    lag: int
    due: int
    late_cost: float


@dataclass(frozen=True)
class InferenceGroup:
    """A group of inference classes, worked off as it comes: GPUs of one power, the same sites.

    gpus   (T,) that it is expected to keep busy, at all sites together
    """

    busy_kw: float
    eligible: Sequence[bool]
    gpus: Floats


@dataclass(frozen=True)
class Fleet:
    """gpus (N,) to count on; idle_kw (N,); cuts: each site's power by its IT power; full_kw (N,): its most."""

    gpus: Floats
    idle_kw: Floats
    cuts: Sequence[Cuts]
    full_kw: Floats


@dataclass(frozen=True)
class FleetPlan:
    """GPUs busy with each training group (K, N, T) and inference group (L, N, T), slot by slot; share (K, N) of what
    comes next in a training group that each site gets; power_kw (N, T), and the least cost."""

    training_gpus: Floats
    inference_gpus: Floats
    training_share: Floats
    power_kw: Floats
    cost: float


def plan(hours: Floats, worth: Floats, fleet: Fleet, training: Sequence[TrainingGroup],
         inference: Sequence[InferenceGroup], cap_kw: Floats, wait_ratio: float) -> FleetPlan:
    """The plan of least cost.

    hours (T,) lengths of the slots; worth (N, T) of a kWh; cap_kw (N, T), infinite where there is none; wait_ratio:
    what an hour's wait of a GPU-hour costs, of its energy's mean worth, which settles when what costs the same is done.
    """
    n, slots = worth.shape
    lp = LinearProgram()
    mean = np.abs(worth).mean()
    power = lp.variables((n, slots), worth * hours, high=fleet.full_kw[:, None])
    above = lp.variables((n, slots), LATE_FACTOR * max(mean, np.abs(worth).max()) * hours)
    lp.at_most([(power, 1.0), (above, -1.0)], cap_kw)
    slope = float(np.mean([max(s for s, _ in cuts) for cuts in fleet.cuts]))
    busy: list[tuple[Terms, float]] = []  # GPUs of each group, and what one draws
    done, placed = [], []
    for group in training:
        kwh = slope * group.busy_kw
        x, g = _training(lp, hours, group, kwh * (worth.mean(axis=1) + wait_ratio * mean), kwh * wait_ratio * mean)
        done.append(x)
        placed.append(g)
        busy.append(([(x, 1.0 / hours), (before(x), -1.0 / hours)], group.busy_kw))
    serving = [_inference(lp, group, n, slots, LATE_FACTOR * slope * group.busy_kw * np.abs(worth).max(axis=0) * hours)
               for group in inference]
    busy += [([(y, 1.0)], group.busy_kw) for y, group in zip(serving, inference, strict=True)]
    lp.at_most([term for terms, _ in busy for term in terms] or [(power, 0.0)], fleet.gpus[:, None])
    for i, cuts in enumerate(fleet.cuts):
        for line, intercept in cuts:
            terms: list[tuple[Indices, np.ndarray]] = [
                (index[i], line * kw * np.broadcast_to(factor, slots)) for terms, kw in busy for index, factor in terms]
            lp.at_most([*terms, (power[i], -np.ones(slots))], -intercept - line * fleet.idle_kw[i])
    found = lp.solve()
    value = found.values
    return FleetPlan(
        np.array([np.diff(value[index], axis=-1, prepend=0.0) / hours for index in done]).reshape(-1, n, slots),
        np.array([value[index] for index in serving]).reshape(-1, n, slots),
        np.array([_first_shares(value[g], group.eligible) for g, group in zip(placed, training, strict=True)]
                 ).reshape(-1, n), value[power], found.cost)


def _training(lp: LinearProgram, hours: Floats, group: TrainingGroup, left_cost: Floats, wait_cost: float
              ) -> tuple[Indices, Indices]:
    """Work done and work placed until the end of each slot, (N, T) each, as variables. left_cost (N,) of a GPU-h that
    is not done at the end of all slots."""
    n, slots = group.possible.shape
    earlier = np.cumsum(hours[::-1])[::-1] * wait_cost  # done a slot sooner, it waits less in this one and all after
    gain = np.append(earlier[:-1] - earlier[1:], earlier[-1])
    cost = np.repeat(-gain[None, :], n, axis=0)
    cost[:, -1] -= left_cost
    x = lp.variables((n, slots), cost)
    sent_cost = np.zeros((n, slots))
    sent_cost[:, -1] = left_cost
    g = lp.variables((n, slots), sent_cost, high=np.where(np.array(group.eligible)[:, None], np.inf, 0.0))
    late = lp.variables((n, slots), group.late_cost * hours)
    for index in (x, g):
        lp.at_most([(before(index), 1.0), (index, -1.0)], 0.0)
    lp.at_most([(x, 1.0), (before(g, group.lag), -1.0)], group.possible)
    lp.at_most([(before(g, group.due), 1.0), (x, -1.0), (late, -1.0)], -group.required)
    lp.equal([(g[i], 1.0) for i in range(n)], np.cumsum(group.coming))
    return x, g


def _inference(lp: LinearProgram, group: InferenceGroup, n: int, slots: int, missing_cost: Floats) -> Indices:
    """GPUs busy at each site in each slot, (N, T), as variables."""
    y = lp.variables((n, slots), high=np.where(np.array(group.eligible)[:, None], np.inf, 0.0))
    missing = lp.variables((slots,), missing_cost)
    lp.equal([*((y[i], 1.0) for i in range(n)), (missing, 1.0)], group.gpus)
    return y


def _first_shares(placed: Floats, eligible: Sequence[bool]) -> Floats:
    """(N,) shares of what is placed in the first slot in which anything is."""
    for column in np.diff(placed, axis=-1, prepend=0.0).T:
        total = column.clip(min=0.0).sum()
        if total > 1e-9:
            return column.clip(min=0.0) / total
    return np.array(eligible, float) / sum(eligible)
