"""What a site draws and how long its GPUs are busy: integrals over the time between two events, in which both stand.

Only how long each combination of busy GPUs stood is noted at an event. Power is worked out once an interval, and once
for each combination at the same supply air.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cosim.simulators.aidc.engine.interval import Segment
from cosim.simulators.aidc.equations import (
    Cooling,
    Numbers,
    cooling_curve,
    distribution_loss_kw,
    gpu_throughput_to_per_s,
    has_losses,
    inlet_factor,
    it_power_kw,
)
from cosim.simulators.fleet import JobClass, Site

Busy = tuple[float, ...]
"""GPUs in use per class."""

_MEMO_SIZE, _MANY = 16384, 64


class Meter:
    """Energy and GPU time of one site; exact, for power is constant while the busy GPUs are.

    busy              GPUs in use per class since the last `note`
    supply_temp_degc  supply air, within its limits; set by `supply`
    """

    def __init__(self, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling, supply_temp_degc: float,
                 start_s: float, segments: bool) -> None:
        self._site, self._cooling = site, cooling
        self._to_per_gpu_min = [c.to_per_gpu_min for c in job_classes.values()]
        self._kw_per_to_s = [c.kw_per_to_s for c in job_classes.values()]
        self._loses = has_losses(cooling)
        self._blow(supply_temp_degc)
        self.busy: Busy = (0,) * len(job_classes)
        self._memo: dict[Busy, tuple[float, ...]] = {}
        self._segments: list[Segment] | None = [] if segments else None
        self._since_s = start_s  # accounted for up to here
        self._dwell_s: dict[Busy, float] = {}  # seconds at each combination of busy GPUs
        self._reset()

    def note(self, busy: Busy, now_s: float) -> None:
        """From now on so many GPUs are in use."""
        self._stood(now_s)
        self.busy = busy

    def supply(self, supply_temp_degc: float, now_s: float) -> None:
        """From now on other supply air."""
        self._integrate(now_s)
        self._memo.clear()
        self._blow(supply_temp_degc)

    def read(self, now_s: float) -> tuple[list[float], list[float], tuple[Segment, ...]]:
        """Since the last read: energy of IT, chiller, tower and losses, kW s; GPU time per class, s; the segments."""
        self._integrate(now_s)
        energy_kws, gpu_s, segments = self._energy_kws, self._busy_gpu_s, tuple(self._segments or ())
        self._reset()
        return energy_kws, gpu_s, segments

    # --- inside -------------------------------------------------------------------------------------------------

    def _blow(self, supply_temp_degc: float) -> None:
        """What depends on the supply air alone."""
        self.supply_temp_degc = supply_temp_degc
        self._inlet_factor = inlet_factor(supply_temp_degc, self._cooling)
        self._cooling_kw = cooling_curve(supply_temp_degc, self._cooling)

    def _reset(self) -> None:
        self._energy_kws = [0.0] * 4
        self._busy_gpu_s = [0.0] * len(self.busy)
        if self._segments:
            self._segments.clear()

    def _stood(self, now_s: float) -> None:
        """The busy GPUs of the last instant stood until now."""
        since_s, busy = self._since_s, self.busy
        if now_s > since_s:
            dwell_s = self._dwell_s
            dwell_s[busy] = dwell_s.get(busy, 0.0) + (now_s - since_s)
            if self._segments is not None:
                self._segments.append((since_s, now_s, *self._remembered_kw(busy)))
            self._since_s = now_s

    def _integrate(self, now_s: float) -> None:
        self._stood(now_s)
        if not self._dwell_s:
            return
        memo, loses = self._memo, self._loses
        unknown = [busy for busy in self._dwell_s if busy not in memo]
        if len(unknown) >= _MANY:
            self._remember(unknown)
        it_kws, chiller_kws, tower_kws, loss_kws = self._energy_kws
        gpu_s = self._busy_gpu_s
        for busy, seconds in self._dwell_s.items():
            kw = memo.get(busy) or self._remembered_kw(busy)
            it_kws += kw[0] * seconds
            chiller_kws += kw[1] * seconds
            tower_kws += kw[2] * seconds
            if loses:
                loss_kws += kw[3] * seconds
            gpu_s = [total + gpus * seconds for total, gpus in zip(gpu_s, busy)]  # noqa: B905
        self._energy_kws, self._busy_gpu_s = [it_kws, chiller_kws, tower_kws, loss_kws], gpu_s
        self._dwell_s.clear()

    def _remembered_kw(self, busy: Busy) -> tuple[float, ...]:
        """`_power_kw`, cached."""
        if busy not in self._memo:
            if len(self._memo) >= _MEMO_SIZE:
                self._memo.clear()
            self._memo[busy] = self._power_kw(busy)
        return self._memo[busy]

    def _remember(self, states: list[Busy]) -> None:
        """Power at many combinations of busy GPUs at once; the same numbers, for arrays are computed like floats."""
        if len(self._memo) + len(states) > _MEMO_SIZE:
            self._memo.clear()
        powers = self._power_kw(tuple(np.array(states, dtype=np.float64).T))
        self._memo.update(zip(states, zip(*(kw.tolist() for kw in powers), strict=True), strict=True))

    def _power_kw(self, busy: Busy | tuple[np.ndarray, ...]) -> tuple[Numbers, ...]:
        """IT, chiller and tower power, and losses if there are any, at these busy GPUs and the present supply air."""
        throughput = list(map(gpu_throughput_to_per_s, busy, self._to_per_gpu_min))
        it_kw = it_power_kw(self._site.idle_kw, throughput, self._kw_per_to_s) * self._inlet_factor
        _, chiller_kw, tower_kw = self._cooling_kw(it_kw)
        if self._loses:
            return it_kw, chiller_kw, tower_kw, distribution_loss_kw(it_kw, self._cooling)
        return it_kw, chiller_kw, tower_kw
