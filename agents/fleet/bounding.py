"""The least cost of doing given jobs, from below: a linear program with perfect knowledge that relaxes every schedule.

Jobs are a fluid that any eligible site does in part, whole GPUs and blocks, moves, restarts and queues cost nothing,
power is a convex function below the site's, and dropping a part of a job costs that part of it. Whatever a policy does
is a point of this program that costs no more than it really did, so that its optimum is a lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosim.agents.fleet.linear_program import Indices, LinearProgram, before
from cosim.agents.fleet.planning import Fleet

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FluidJobs:
    """All jobs of a class.

    busy_kw      of a busy GPU above idle
    eligible     (N,) sites
    possible, required   (T,) what can, and what has to be done by the end of each slot, GPU-h
    drop_cost    of each GPU-h that is not done, no more than a drop costs by the GPU-h of the largest job; infinite:
                 all has to be done
    done_worth   of each GPU-h that is done
    """

    busy_kw: float
    eligible: Sequence[bool]
    possible: Floats
    required: Floats
    drop_cost: float = np.inf
    done_worth: float = 0.0


def least_cost(hours: Floats, worth: Floats, fleet: Fleet, classes: Sequence[FluidJobs]) -> float:
    """A lower bound of worth of energy, and of drops, less the worth of work done, over all schedules.

    hours (T,); worth (N, T) of a kWh, no more than it is at any time in the slot; fleet: GPUs there are, convex power
    from below (`cuts`), and from above (`full_kw`), which counts where a kWh is worth less than nothing. ModelError
    where all has to be done and cannot be.
    """
    n, slots = worth.shape
    lp = LinearProgram()
    power = lp.variables((n, slots), worth * hours, high=fleet.full_kw[:, None])
    done = [_class(lp, jobs, n, slots) for jobs in classes]
    rates = [(index, factor, jobs.busy_kw) for x, jobs in zip(done, classes, strict=True)
             for index, factor in ((x, 1.0), (before(x), -1.0))]
    lp.at_most([(index, factor) for index, factor, _ in rates], fleet.gpus[:, None] * hours)
    for i, cuts in enumerate(fleet.cuts):
        for line, intercept in cuts:
            lp.at_most([*((index[i], line * kw * factor / hours) for index, factor, kw in rates),
                        (power[i], -np.ones(slots))], -intercept - line * fleet.idle_kw[i])
    return lp.solve().cost


def _class(lp: LinearProgram, jobs: FluidJobs, n: int, slots: int) -> Indices:
    """Work of a class done at each site until the end of each slot, (N, T), as variables."""
    cost = np.zeros((n, slots))
    cost[:, -1] = -jobs.done_worth
    x = lp.variables((n, slots), cost, high=np.where(np.array(jobs.eligible)[:, None], np.inf, 0.0))
    lp.at_most([(before(x), 1.0), (x, -1.0)], 0.0)
    everywhere = [(x[i], 1.0) for i in range(n)]
    lp.at_most(everywhere, jobs.possible)
    falling = [(x[i], -1.0) for i in range(n)]
    if np.isinf(jobs.drop_cost):
        lp.at_most(falling, -jobs.required)
        return x
    left_cost = np.zeros(slots)
    left_cost[-1] = jobs.drop_cost
    left = lp.variables((slots,), left_cost)
    lp.at_most([(before(left), 1.0), (left, -1.0)], 0.0)
    lp.at_most([*falling, (left, -1.0)], -jobs.required)
    return x
