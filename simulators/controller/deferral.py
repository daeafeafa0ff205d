"""When training jobs are released: shares of the permitted deferrals become release times.

A release counts from the decision, a deadline from the arrival. A job that is released so late that less time is left
than its shortest run takes, on all the blocks that it can use at its site, is dropped for certain; what becomes of
such deferrals, `LongDeferrals` states, and it is applied here alone, to all sources: rules, learned teams and
environments alike.

Rows: I13, U10, U15.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, NamedTuple

from cosim.agents.fleet.allocation import largest_remainder, largest_remainder_carry, project_simplex
from cosim.agents.fleet.decision import FleetFacts
from cosim.errors import ScenarioError
from cosim.ports import Batch
from cosim.units import HOUR_S, MIN_S, format_time

LongDeferrals = Literal["clip", "mask", "refuse", "as_printed"]
"""Of deferrals that leave a job less than its shortest run. clip: the job is released one step before its latest start;
mask: no class has such deferrals, nor is one chosen by a learner, and a longer one becomes the longest that the class
has; refuse: the scenario is; as_printed: they are used, and their jobs are dropped. With mask and refuse, which go by
the classes' nominal jobs, larger jobs are still clipped."""

Counts = list[list[list[int]]]
Waiting = list[tuple[float, int]]
"""(release time, s, number of the deferral) of jobs that are still to be released."""


def latest_release_s(deadline_s: float, work_to: float, top_to_per_s: float, step_s: float) -> float:
    """Latest time at which a job can be released and be in time if it gets all it can use at the next decision, one
    step later at most, s; minus infinity where no block fits. top_to_per_s: see `JobClass.top_to_per_s`."""
    return deadline_s - work_to / top_to_per_s - step_s if top_to_per_s else -math.inf


def too_long(facts: FleetFacts, step_s: float) -> dict[tuple[int, int], int]:
    """(training class, deferral) -> the slowest site, if a job of nominal size, decided on as it arrives, cannot meet
    it there; by their indices. Sites where no block fits, and those that may not run a class, do not count."""
    found: dict[tuple[int, int], int] = {}
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


class ReleaseSchedule(NamedTuple):
    """What becomes of a site's new training jobs.

    release_s        (row of the batch, release time, s) of each
    owed             (Mtrain, H) what rounding owes after them
    waiting          (Mtrain,) those whose release is still to come
    mean_deferral_s  NaN without any
    clipped, moved   jobs released earlier than chosen; classes whose choice they do not have
    """

    release_s: list[tuple[int, float]]
    owed: list[list[float]]
    waiting: list[Waiting]
    mean_deferral_s: float
    clipped: int
    moved: int


class DeferralRules:
    """How chosen deferrals become release times; constant once made."""

    def __init__(self, facts: FleetFacts, mode: LongDeferrals, rounding: str, step_s: float) -> None:
        self._facts, self._mode, self._carries, self._step_s = facts, mode, rounding == "carry", step_s
        self._all, self._train = [True] * len(facts.deferrals_s), facts.train

    def release(self, i: int, shares: Sequence[Sequence[float]], rows: Sequence[Sequence[int]], batch: Batch,
                time_s: float, owed: Sequence[list[float]]) -> ReleaseSchedule:
        """Release times of a site's training jobs, earlier arrivals first.

        shares: (Mtrain, H); rows: per class, those of the batch that the site gets; owed: (Mtrain, H) by rounding
        """
        times, still, total_s, clipped, moved = [], list(owed), 0.0, 0, 0
        waiting: list[Waiting] = [[] for _ in owed]
        for t, m in enumerate(self._train):
            jobs = rows[m]
            if not jobs:
                continue
            share, strange = self._within(t, project_simplex(shares[t], self._all))
            moved += strange
            if self._carries:
                counts, still[t] = largest_remainder_carry(len(jobs), share, still[t])
            else:
                counts = largest_remainder(len(jobs), share)
            chosen = [h for h, n in enumerate(counts) for _ in range(n)]
            given_s = [self._deferral_s(i, m, h, k, batch, time_s) for k, h in zip(jobs, chosen, strict=True)]
            for k, h, lead_s in zip(jobs, chosen, given_s, strict=True):
                times.append((k, time_s + lead_s))
                clipped += lead_s != self._facts.deferrals_s[h]
                if lead_s:
                    waiting[t].append((time_s + lead_s, h))
            total_s += math.fsum(given_s)
        return ReleaseSchedule(times, still, waiting, total_s / len(times) if times else math.nan, clipped, moved)

    def notes(self, sid: str, clipped: int, moved: int) -> list[str]:
        """How often another deferral was given than was chosen."""
        said = []
        if clipped:
            jobs = "1 training job was" if clipped == 1 else f"{clipped} training jobs were"
            said.append(f"{sid}: {jobs} to be released too late to finish in time and released "
                        f"{format_time(self._step_s)} before the latest start instead, or at once where that was past "
                        f"({sid}.long_deferrals = {self._mode})")
        if moved:
            said.append(f"{sid}: {moved} times the policy chose a deferral that a class cannot meet; its jobs "
                        f"got the longest that it can ({sid}.long_deferrals = mask)")
        return said

    # --- inside -------------------------------------------------------------------------------------------------

    def _within(self, t: int, share: list[float]) -> tuple[list[float], bool]:
        """The shares with what a class does not have moved to the longest deferral that it has; whether any was."""
        if not self._facts.deferrable or all(self._facts.deferrable[t]):
            return share, False
        has = self._facts.deferrable[t]
        beyond = math.fsum(x for x, ok in zip(share, has, strict=True) if not ok)
        if not beyond:
            return share, False
        share = [x if ok else 0.0 for x, ok in zip(share, has, strict=True)]
        share[max(h for h, ok in enumerate(has) if ok)] += beyond
        return share, True

    def _deferral_s(self, i: int, m: int, h: int, k: int, batch: Batch, time_s: float) -> float:
        """Deferral of row k of the batch, sent to site i with deferral h, s; less than chosen if it is clipped."""
        lead_s = self._facts.deferrals_s[h]
        if not lead_s or self._mode == "as_printed":
            return lead_s
        latest_s = latest_release_s(batch["deadline_s"][k], batch["work_to"][k], self._facts.top_to_per_s[i][m],
                                    self._step_s)
        return lead_s if time_s + lead_s <= latest_s else max(latest_s - time_s, 0.0)


def waiting_jobs(waiting: Sequence[Sequence[Waiting]], deferrals_s: Sequence[float], time_s: float
                 ) -> tuple[Counts, Counts]:
    """(N, Mtrain, H) counts of the jobs whose release is still to come: by deferral, by time left."""
    leads = len(deferrals_s)
    by_lead, by_time = ([[[0] * leads for _ in of_site] for of_site in waiting] for _ in range(2))
    for i, of_site in enumerate(waiting):
        for t, jobs in enumerate(of_site):
            for release_s, lead in jobs:
                if release_s > time_s:
                    by_lead[i][t][lead] += 1
                    by_time[i][t][bisect_left(deferrals_s, release_s - time_s)] += 1
    return by_lead, by_time
