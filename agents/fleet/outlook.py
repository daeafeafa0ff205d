"""What is known to a policy of times to come, from what has been observed.

Where forecasts over a horizon are linked, they are it. Else prices are known at the leads of their forecast, and
remembered: a price seen ten hours ahead is known until it holds. Beyond that, and for carbon intensities, a time is
expected to be as at the same time of the day before, and, where that has not been seen, as now
(`cosim.agents.fleet.forecasting`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosim.agents.fleet.decision import Observation, Vector
from cosim.agents.fleet.forecasting import day_ahead
from cosim.units import DAY_S

Floats = NDArray[np.float64]


class Outlook:
    """Price and intensities over slots of equal length, the first of which holds now; `see` first, once a step.

    slot_s must divide a day. What is observed last in a slot stands for it. horizon_step_s: of linked forecasts, 0
    where there are none.
    """

    def __init__(self, slot_s: float, leads_s: Vector, horizon_step_s: float = 0.0) -> None:
        self._slot_s, self._leads_s, self._horizon_step_s = slot_s, leads_s, horizon_step_s
        self._time_s = 0.0
        self._linked: dict[str, Floats] = {}
        self._per_day = round(DAY_S / slot_s)
        self._slot = self._first = -1
        self._prices: dict[int, float] = {}
        self._past: dict[str, list[Floats]] = {"nci": [], "mci": []}

    def see(self, observation: Observation) -> None:
        """Keep what this step shows."""
        slot, self._time_s = int(observation.time_s // self._slot_s), observation.time_s
        self._linked = {name: np.array(values, float) for name, values in (
            ("price", observation.price_forecast_usd_per_kwh), ("nci", observation.nci_forecast_kg_per_kwh),
            ("mci", observation.mci_forecast_kg_per_kwh)) if len(values)}
        if self._first < 0:
            self._first = self._slot = slot
        for lead_s, price in zip(self._leads_s, observation.forecast_usd_per_kwh, strict=True):
            self._prices[int((observation.time_s + lead_s) // self._slot_s)] = price
        self._prices[slot] = observation.price_usd_per_kwh
        for gone in [known for known in self._prices if known < slot - self._per_day]:
            del self._prices[gone]
        for name, values in (("nci", observation.nci_kg_per_kwh), ("mci", observation.mci_kg_per_kwh)):
            past = self._past[name]
            if values is None and not past:
                continue
            now = past[-1] if values is None else np.array(values, float)  # none in this interval: the last there was
            if past and slot == self._slot:
                past[-1] = now
            else:
                past += [now] * max(slot - self._slot, 1)  # also of slots in which nothing was observed
            del past[:-self._per_day]
        self._slot = slot

    def price_usd_per_kwh(self, count: int) -> Floats:
        """(count,) from the slot of now on."""
        known, out = self._prices, []
        last = known[self._slot]
        for slot in range(self._slot, self._slot + count):
            last = known.get(slot, known.get(slot - self._per_day, last))
            out.append(last)
        return self._with_linked("price", np.array(out))

    def intensity_kg_per_kwh(self, name: str, count: int) -> Floats | None:
        """(N, count) NCI or MCI (`nci`, `mci`) at the sites from the slot of now on; None where it is not shown."""
        past = self._past[name]
        if not past:
            return None
        later = day_ahead(np.array(past).T, np.arange(1, count), self._per_day)
        return self._with_linked(name, np.concatenate([past[-1][:, None], later], axis=1))

    def _with_linked(self, name: str, expected: Floats) -> Floats:
        """(..., count) with a linked forecast in the place of what is expected, as far as it reaches; the slot of now
        keeps what is observed."""
        linked = self._linked.get(name)
        if linked is None or not self._horizon_step_s:
            return expected
        starts_s = (self._slot + np.arange(expected.shape[-1])) * self._slot_s
        first_s = self._time_s // self._horizon_step_s * self._horizon_step_s
        entry = np.floor((starts_s - first_s) / self._horizon_step_s + 1e-9).astype(int)
        known = (entry >= 0) & (entry < linked.shape[-1]) & (starts_s > self._time_s)
        out = expected.copy()
        values = linked[..., entry[known]]
        out[..., known] = np.where(np.isfinite(values), values, expected[..., known])
        return out
