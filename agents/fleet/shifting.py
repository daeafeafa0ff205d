"""Rules that shift training in time by a signal: price, or average or marginal carbon intensity.

They place jobs as `uniform` does, and differ in when training works:

lowest_window   a job is put off to the start of the window, as long as its shortest run, in which the signal is
                expected to be lowest; the lowest slot of the price alone is `tou_shift` (both as in P. Wiesner et al.,
                Let's Wait Awhile: How Temporal Workload Shifting Can Reduce Carbon Emissions in the Cloud, Middleware
                2021)
carbon_time     to the start of the window that saves most per hour until the job is done (W. A. Hanafy et al., Going
                Green for Less Green: Optimizing the Cost of Reducing Cloud Carbon Emissions, ASPLOS 2024: carbon saving
                per completion time)
wait_below      training starts when the signal is at or below a quantile of its last 24 h, and is not stopped again
suspend_resume  training works only then, and is suspended when the signal rises above it (progress is kept)

Prices to come are the forecast's; intensities are expected as at the same time of the day before, on the first day as
now (`cosim.agents.fleet.outlook`). The threshold is of what has been seen, 24 h at most. Who would miss a deadline by
waiting is given GPUs by the controller's guard, whatever these rules decide.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation, Operation, Vector
from cosim.agents.fleet.heuristics import PolicyOptions, Uniform
from cosim.agents.fleet.outlook import Outlook
from cosim.errors import ModelError, ScenarioError
from cosim.units import DAY_S, MIN_S

SLOT_S = 15 * MIN_S
"""Intensities of the day before are remembered by slots of this length."""


def signal_of(kind: str, observation: Observation, n_sites: int, last: Vector | None = None) -> list[float]:
    """(N,) price, NCI or MCI (`price`, `nci`, `mci`) at each site now; `last` where there is no marginal intensity in
    this interval. ScenarioError, ModelError where it is hidden or has not been computed."""
    if kind == "price":
        return [observation.price_usd_per_kwh] * n_sites
    if kind == "nci":
        if observation.nci_kg_per_kwh is None:
            raise ScenarioError("controller.signal = nci, and power mode hides it: --set controller.signal=price")
        return list(observation.nci_kg_per_kwh)
    found = last if observation.mci_kg_per_kwh is None else observation.mci_kg_per_kwh
    if found is None:
        raise ModelError("controller.signal = mci, and none is known: --set grid.mci=true, or "
                         "--set controller.signal=price")
    return list(found)


class LowestWindow(Uniform):
    """Uniform in space; training waits for the window of the length of its run in which the signal is lowest.

    Between two leads what is expected is that of the earlier one; past the last lead it is that one's.
    """

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        super().__init__(facts, options, rng)
        has = facts.deferrable
        self._permitted = [h for h in range(len(facts.deferrals_s)) if all(of_class[h] for of_class in has)]
        self._run_s = max((facts.work_to[m] / facts.top_to_per_s[i][m] for m in facts.train
                           for i in range(facts.n_sites)
                           if facts.top_to_per_s and facts.eligible[m][i] and facts.top_to_per_s[i][m]), default=0.0)
        self._weights = [_overlaps(facts.deferrals_s, lead_s, lead_s + self._run_s) for lead_s in facts.deferrals_s]
        self._last: Vector | None = None
        self._outlook = Outlook(SLOT_S, facts.deferrals_s, facts.horizon_step_s)

    def lead(self, observation: Observation) -> int:
        """Index of the deferral at the first site; of the price it is that of all."""
        return self.leads(observation)[0]

    def leads(self, observation: Observation) -> list[int]:
        """(N,) index of the deferral whose window is best at each site, the earliest of equals."""
        return [self.best(means) for means in self._means(observation)]

    def best(self, means: Sequence[float]) -> int:
        """Index of the lowest of the windows' means (H,), of those that every class has."""
        return min(self._permitted, key=means.__getitem__)

    def _means(self, observation: Observation) -> list[list[float]]:
        """(N, H) mean of the signal expected in the window that starts at each lead, at each site."""
        ahead = self._ahead(observation)
        return [[round(math.fsum(w * p for w, p in zip(weights, row, strict=True)), 12) for weights in self._weights]
                for row in ahead]

    def _ahead(self, observation: Observation) -> list[Vector]:
        """(N, H) the signal expected at each lead."""
        facts, kind = self.facts, self.options.signal
        self._last = signal_of(kind, observation, facts.n_sites, self._last)
        if kind == "price":
            return [observation.forecast_usd_per_kwh] * facts.n_sites
        self._outlook.see(observation)
        slots = [int(lead_s // SLOT_S) for lead_s in facts.deferrals_s]
        expected = self._outlook.intensity_kg_per_kwh(kind, max(slots) + 1)
        assert expected is not None, "signal_of has shown it"
        return [row[slots].tolist() for row in expected]


class CarbonTime(LowestWindow):
    """As `LowestWindow`, but training waits for the window that saves most per hour until it is done.

    The saving is what the run would have beyond it in the window that starts now; the time is lead and run together.
    A window that saves little more is not worth hours of waiting.
    """

    def best(self, means: Sequence[float]) -> int:
        """Index of the largest saving per hour, 0 where nothing is saved."""
        leads_s = self.facts.deferrals_s

        def saved_per_s(h: int) -> float:
            return (means[self._permitted[0]] - means[h]) / max(leads_s[h] + self._run_s, MIN_S)
        return max(self._permitted, key=saved_per_s)


def _overlaps(leads_s: Sequence[float], begin_s: float, end_s: float) -> list[float]:
    """Share of a window that lies after each lead and before the next; all of the last where it has no length."""
    ends = [*leads_s[1:], math.inf]
    if end_s <= begin_s:
        return [float(lead_s <= begin_s < stop_s) for lead_s, stop_s in zip(leads_s, ends, strict=True)]
    return [max(min(stop_s, end_s) - max(lead_s, begin_s), 0.0) / (end_s - begin_s)
            for lead_s, stop_s in zip(leads_s, ends, strict=True)]


class SuspendResume(Uniform):
    """Uniform in space; training works while its site's signal is at or below a quantile of its last 24 h."""

    keeps_running = False

    def __init__(self, facts: FleetFacts, options: PolicyOptions, rng: np.random.Generator) -> None:
        super().__init__(facts, options, rng)
        self._seen: deque[tuple[float, list[float]]] = deque()

    def works(self, observation: Observation) -> list[bool]:
        """(N,) whether training may work at each site; the signal of this minute is kept."""
        seen = self._seen
        now = signal_of(self.options.signal, observation, self.facts.n_sites, seen[-1][1] if seen else None)
        if not seen or seen[-1][0] < observation.time_s:
            seen.append((observation.time_s, now))
        while seen[0][0] <= observation.time_s - DAY_S:
            seen.popleft()
        thresholds = np.quantile(np.array([values for _, values in seen]), self.options.signal_quantile, axis=0)
        return [x <= limit + 1e-12 for x, limit in zip(now, thresholds.tolist(), strict=True)]

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """As `uniform`; where training may not work it has no GPUs, or those of who runs."""
        usual, facts = super().operate(observation, allocated_jobs, allocated_work_to), self.facts
        shares = []
        for i, (row, works) in enumerate(zip(usual.gpu_share, self.works(observation), strict=True)):
            mine = list(row)
            for m in facts.train if not works else ():
                most = (observation.running_jobs[i][m] * facts.max_blocks[m] * facts.gpus_per_block[m]
                        if self.keeps_running else 0.0)
                mine[m] = min(mine[m], most / facts.gpus[i])
            shares.append(mine)
        return Operation(usual.deferral_share, shares, usual.supply_temp_degc)


class WaitBelow(SuspendResume):
    """As `SuspendResume`, but who runs is not suspended."""

    keeps_running = True
