"""When training jobs are released: shares of the permitted deferrals become release times (U10, U15).

A release counts from the decision, a deadline from the arrival. A job that is released so late that less time is left
than its shortest run takes, on all the blocks that it can use at its site, is dropped for certain; what becomes of
such deferrals, `LongDeferrals` says, and it is decided here alone, whoever asks for them: rules, learned teams and
environments alike.

Rows of the model: I13, U10, U15.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from cosim.agents.fleet.allocation import largest_remainder, largest_remainder_carry, project_simplex
from cosim.agents.fleet.decision import FleetFacts

from cosim.errors import ScenarioError
from cosim.ports import Batch
from cosim.units import HOUR_S, MIN_S, format_time

LongDeferrals = Literal["clip", "mask", "refuse", "as_printed"]
"""Of deferrals that leave a job less than its shortest run. clip: the job is released one step before its latest start;
mask: no class has such deferrals, nor is one chosen by a learner, and who asks for one gets the longest that the class
has; refuse: the scenario is; as_printed: they are used, and their jobs are dropped. With mask and refuse, which go by
the classes' nominal jobs, larger jobs are still clipped."""

Counts = list[list[list[int]]]


def latest_release_s(deadline_s: float, work_to: float, top_to_per_s: float, step_s: float) -> float:
    """Latest time at which a job can be released and be in time if it gets all it can use at the next decision, one
    step later at most, s; minus infinity where no block fits. top_to_per_s: see `JobClass.top_to_per_s`."""
    return deadline_s - work_to / top_to_per_s - step_s if top_to_per_s else -math.inf


def too_long(facts: FleetFacts, step_s: float) -> dict[tuple[int, int], int]:
    """(training class, deferral) -> the slowest site, if a job of nominal size, decided on as it arrives, cannot meet
    it there; by their indices. Sites where no block fits, and those that may not run a class, do not count."""
    found = {}
    for m in facts.train:
        speed_to_per_s = {i: facts.top_to_per_s[i][m] for i in range(facts.n_sites)
                          if facts.eligible[m][i] and facts.top_to_per_s[i][m]}
        if speed_to_per_s:
            slowest = min(speed_to_per_s, key=speed_to_per_s.__getitem__)
            latest_s = latest_release_s(facts.deadline_s[m], facts.work_to[m], speed_to_per_s[slowest], step_s)
            found |= {(m, h): slowest for h, lead_s in enumerate(facts.deferrals_s) if lead_s > latest_s}
    return found


def permitted(facts: FleetFacts, mode: LongDeferrals, step_s: float, sid: str) -> tuple[tuple[bool, ...], ...]:
    """(Mtrain, H) which deferrals a class has, the shortest in any case. ScenarioError for what `refuse` refuses."""
    found = too_long(facts, step_s) if mode in ("mask", "refuse") else {}
    if found and mode == "refuse":
        (m, h), i = next(iter(found.items()))
        lead_s, top = facts.deferrals_s[h], facts.top_to_per_s[i][m]
        left_min, run_min = (facts.deadline_s[m] - lead_s) / MIN_S, facts.work_to[m] / top / MIN_S
        advice = "leave it out, or set" if lead_s else "give the class a longer deadline or more blocks, or set"
        raise ScenarioError(
            f"{sid}.deferrals_s holds {lead_s:g} s ({lead_s / HOUR_S:g} h), which leaves a job of {facts.classes[m]} "
            f"{left_min:g} min, less up to {step_s / MIN_S:g} min until the decision; its shortest run at "
            f"{facts.sites[i]} takes {run_min:.2f} min. {advice[0].upper()}{advice[1:]} {sid}.long_deferrals=clip")
    return tuple(tuple(h == 0 or (m, h) not in found for h in range(len(facts.deferrals_s))) for m in facts.train)


class Deferrals:
    """Release times of the jobs that the sites are sent, what rounding owes, and who is still to be released.

    owed  (N, Mtrain, H) what rounding owes; zeros at the start
    """

    def __init__(self, facts: FleetFacts, mode: LongDeferrals, rounding: str, step_s: float) -> None:
        self._facts, self._mode, self._carries, self._step_s = facts, mode, rounding == "carry", step_s
        self._all = [True] * len(facts.deferrals_s)
        self._clipped, self._moved = 0, 0
        self._waiting: list[list[list[tuple[float, int]]]] = [[[] for _ in facts.train] for _ in range(facts.n_sites)]
        self.owed = [[[0.0] * len(facts.deferrals_s) for _ in facts.train] for _ in range(facts.n_sites)]

    def release(self, i: int, shares: Sequence[Sequence[float]], rows: Sequence[Sequence[int]], batch: Batch,
                time_s: float, release_s: list[float]) -> float:
        """Write the release times of a site's training jobs (U10), earlier arrivals first; their mean deferral, s.

        shares: (Mtrain, H); rows: per class, those of the batch that the site gets; release_s: one per row of the batch
        """
        total_s, number = 0.0, 0
        for t, m in enumerate(self._facts.train):
            jobs = rows[m]
            if not jobs:
                continue
            share = self._within(t, project_simplex(shares[t], self._all))
            if self._carries:
                counts, self.owed[i][t] = largest_remainder_carry(len(jobs), share, self.owed[i][t])
            else:
                counts = largest_remainder(len(jobs), share)
            asked = [h for h, n in enumerate(counts) for _ in range(n)]
            given_s = [self._deferral_s(i, m, h, k, batch, time_s) for k, h in zip(jobs, asked, strict=True)]
            for k, h, lead_s in zip(jobs, asked, given_s, strict=True):
                release_s[k] = time_s + lead_s
                if lead_s:
                    self._waiting[i][t].append((time_s + lead_s, h))
            total_s += math.fsum(given_s)
            number += len(jobs)
        return total_s / number if number else math.nan

    def waiting(self, time_s: float) -> tuple[Counts, Counts]:
        """(N, Mtrain, H) counts of the jobs whose release is still to come: by deferral, by time left."""
        leads = self._facts.deferrals_s
        by_lead, by_time = ([[[0] * len(leads) for _ in self._facts.train] for _ in self._waiting] for _ in range(2))
        for i, of_site in enumerate(self._waiting):
            for t, jobs in enumerate(of_site):
                of_site[t] = jobs = [job for job in jobs if job[0] > time_s]
                for release_s, lead in jobs:
                    by_lead[i][t][lead] += 1
                    by_time[i][t][bisect_left(leads, release_s - time_s)] += 1
        return by_lead, by_time

    def carry(self, now_s: float) -> np.ndarray:
        """(jobs, 4) site, training class, time from now to the release, s, and deferral of who is still to be
        released."""
        rows = [(i, t, release_s - now_s, lead) for i, of_site in enumerate(self._waiting)
                for t, jobs in enumerate(of_site) for release_s, lead in jobs]
        return np.array(rows, float).reshape(-1, 4)

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on, at time 0, from `deferral_carry` and what `carry` gave as `deferred`."""
        self.owed = carry["deferral_carry"].tolist()
        for i, t, release_s, lead in carry.get("deferred", np.empty((0, 4))).tolist():
            self._waiting[int(i)][int(t)].append((release_s, int(lead)))

    def notes(self, sid: str) -> list[str]:
        """How often another deferral was given than was asked for."""
        said = []
        if self._clipped:
            jobs = "1 training job was" if self._clipped == 1 else f"{self._clipped} training jobs were"
            said.append(f"{sid}: {jobs} to be released too late to finish in time and released "
                        f"{format_time(self._step_s)} before the latest start instead, or at once where that was past "
                        f"({sid}.long_deferrals = {self._mode})")
        if self._moved:
            said.append(f"{sid}: {self._moved} times the policy chose a deferral that a class cannot meet; its jobs "
                        f"got the longest that it can ({sid}.long_deferrals = mask)")
        return said

    # --- inside -------------------------------------------------------------------------------------------------

    def _within(self, t: int, share: list[float]) -> list[float]:
        """The shares with what a class does not have moved to the longest deferral that it has."""
        if not self._facts.deferrable or all(self._facts.deferrable[t]):
            return share
        has = self._facts.deferrable[t]
        beyond = math.fsum(x for x, ok in zip(share, has, strict=True) if not ok)
        if not beyond:
            return share
        self._moved += 1
        share = [x if ok else 0.0 for x, ok in zip(share, has, strict=True)]
        share[max(h for h, ok in enumerate(has) if ok)] += beyond
        return share

    def _deferral_s(self, i: int, m: int, h: int, k: int, batch: Batch, time_s: float) -> float:
        """Deferral of row k of the batch, sent to site i with deferral h, s."""
        lead_s = self._facts.deferrals_s[h]
        if not lead_s or self._mode == "as_printed":
            return lead_s
        latest_s = latest_release_s(batch["deadline_s"][k], batch["work_to"][k], self._facts.top_to_per_s[i][m],
                                    self._step_s)
        if time_s + lead_s <= latest_s:
            return lead_s
        self._clipped += 1
        return max(latest_s - time_s, 0.0)
