"""A site that serves language models and keeps a power cap, by the power limits of its replicas' GPUs first.

A cap leaves a budget for what is busy (`engine.capped`). Replicas have as much of it as they can draw with the requests
that they have, under their power limits. When a request comes and this is more than the budget, the limits of all are
lowered alike at that instant, from those that are set towards the lowest that their classes keep, as far as it takes,
in whole watts; they are raised with the commands of the next tick. Work is withheld, by `gives_way`, only where even
the lowest do not keep the cap: training gives its blocks back, other inference waits, replicas are not switched on, and
those for which there is no power take no new request and go off with their last one (of `running: keep`, none of those
that are on). There replicas count by the most that they could draw when this was looked at, in this tick and the last
one, and one that is switched on by what it can draw at all.

A limit acts from a replica's next iteration on, so that a cap is kept once the iterations under way have ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cosim.errors import ModelError
from cosim.simulators.aidc.engine.capped import NO_CAP_KW, CappedFacility, CapRules
from cosim.simulators.aidc.engine.interval import SiteInterval
from cosim.simulators.aidc.engine.offer import Offer, OfferRules
from cosim.simulators.aidc.engine.training import TrainingPool
from cosim.simulators.aidc.gpus.equations import kept_limit_kw, level_within, limit_at_kw
from cosim.simulators.aidc.llm.facility import ServingFacility
from cosim.simulators.aidc.llm.pool import ServingPool
from cosim.simulators.aidc.llm.replica import Replica
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.fleet import JobClass, Site
from cosim.units import ROUNDING

_STEPS_PER_KW = 1000
"""Limits that a cap needs are whole watts, as `nvidia-smi` takes them."""


class LimitTick(NamedTuple):
    """Of an interval. By class of the site: limit_kw, power limit of a GPU, mean, 0 of those without replicas, and
    slowed_s, for how long a limit slowed a replica. capped_s: for how long the site's cap lowered limits."""

    limit_kw: list[float]
    slowed_s: list[float]
    capped_s: float


class CappedServingFacility(ServingFacility, CappedFacility):
    """A facility with classes of kind `llm`, their power limits and a power cap; see the module.

    clipped_limits  power limits commanded that a class cannot keep, and were set to the nearest that it can
    was_capped      whether there has been a cap that the full site is not within
    limits          what limits did in the interval that was read last; before, as they stand
    """

    def __init__(self, name: str, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling,
                 supply_temp_degc: float, rules: CapRules, where: str = "cap", slow_for_cap: bool = True, **how: Any
                 ) -> None:
        if rules.running == "stop":
            raise ModelError(f"{name}: replicas are slowed for a cap, not stopped; set cap.running to keep or pause")
        super().__init__(name, site, job_classes, cooling, supply_temp_degc, rules=rules, where=where, **how)
        self._slows, self._capped, self.was_capped, self.clipped_limits = slow_for_cap, False, False, 0
        self._pool_at = {self._index[pool.name]: pool for pool in self.served}
        self._set_kw = {k: pool.serving.own_limit_kw for k, pool in self._pool_at.items()}
        self._limits_kw = dict(self._set_kw)
        self._fresh = True  # whether limits may be raised
        self._drawn_kw = 0.0  # at most what can be drawn, when the limits were looked at last and since
        self._peaks_kw = {k: [0.0, 0.0] for k in self._pool_at}  # see the module: this tick, the last one
        for pool in self.served:
            pool.joined = self._look_at_draws
        self._most_on: dict[int, float] = dict.fromkeys(self._pool_at, math.inf)  # replicas, as the cap allows
        self._since_s, self._capped_s = self.now_s, 0.0
        self._limit_kws = dict.fromkeys(self._pool_at, 0.0)
        self._reserve()
        self.limits = LimitTick([self._said_kw(k) for k in range(len(self._classes))], [0.0] * len(self._classes), 0.0)

    # --- what comes from outside ------------------------------------------------------------------------------------

    def command(self, gpus: Sequence[float], supply_temp_degc: float) -> None:
        """As `ServingFacility`; a new tick begins, in which limits may be raised."""
        super().command(gpus, supply_temp_degc)
        self._fresh = True
        for peaks in self._peaks_kw.values():
            peaks[:] = 0.0, peaks[0]

    def limit_power(self, limits_kw: Sequence[float]) -> None:
        """From their next iterations on, the power limit of a GPU of each class's replicas, kW; NaN: the class's own.

        A limit that a class cannot keep is set to the nearest that it can, and counted. ModelError for a class whose
        speed under a limit is not known."""
        found = {}
        for k, pool in self._pool_at.items():
            given, serving = limits_kw[k], pool.serving
            if math.isnan(given):
                found[k] = serving.own_limit_kw
                continue
            if (why := serving.not_limited) is not None:
                raise ModelError(f"{self.name}: gpu_limit_set_kw = {given:g} commanded of {pool.name}: {why}, or "
                                 "command NaN")
            found[k] = kept_limit_kw(given, serving.own_limit_kw, serving.least_limit_kw, serving.tdp_kw)
            self.clipped_limits += found[k] != given
        if found != self._set_kw:
            self._set_kw = found
            self._reserve()
            self._news = self._regroup = True

    def offer(self, rules: OfferRules) -> Offer:
        """ModelError: it is not worked out for replicas."""
        raise ModelError(f"{self.name}: what could be drawn less is not worked out for replicas; leave offer out")

    def read_interval(self) -> SiteInterval:
        """As `ServingFacility`; see `limits`."""
        now_s, seconds = self.now_s, self.now_s - self._read_s
        self._integrate(now_s)
        did = super().read_interval()
        slowed = [self.ticks[name].slowed_s if name in self.ticks else 0.0 for name in self.names]
        limit_kw = [self._limit_kws[k] / seconds if k in self._limit_kws else 0.0 for k in range(len(self.names))]
        self.limits = LimitTick(limit_kw, slowed, self._capped_s)
        self._limit_kws, self._capped_s = dict.fromkeys(self._pool_at, 0.0), 0.0
        return did

    # --- one instant ------------------------------------------------------------------------------------------------

    def _hand_out(self, now_s: float, regroup: bool) -> None:
        """Steps 4 to 7; under a cap within its budget. Then the limits in force."""
        if self.budget_kw == NO_CAP_KW:
            self._most_on = dict.fromkeys(self._pool_at, math.inf)
            super()._hand_out(now_s, regroup)
        else:
            self.was_capped = True
            self._draws()
            self._withhold_replicas(now_s)
            CappedFacility._hand_out(self, now_s, regroup)
        self._slow_down(now_s)

    def _withhold_replicas(self, now_s: float) -> None:
        """How many replicas the cap leaves power for at the lowest limits, who gives way last first; beyond that they
        go off with their last request."""
        if self._rules.running == "keep":
            return
        room_kw = self.budget_kw - sum([self._running_kw(k) for k, c in enumerate(self._classes)
                                        if not isinstance(c, (TrainingPool, ServingPool))])
        for k in self._first_served:
            one = self._classes[k]
            if isinstance(one, TrainingPool):
                blocks = math.inf if k in self._never else self._within(room_kw, k)
                room_kw -= self._kw(k, int(min(blocks, one.wanted_blocks)))
            elif isinstance(one, ServingPool):
                on, running_kw = one.group.on, self._running_kw(k)
                beyond_kw = 0.0 if k in self._never else running_kw - room_kw
                if beyond_kw > ROUNDING:
                    off = beyond_kw / running_kw * len(one.group) if running_kw else 0.0
                    most = max(on - math.ceil(off), 0)
                    self._most_on[k] = most
                    one.withhold(most, now_s)
                    room_kw = 0.0
                    continue
                self._most_on[k] = on + (math.inf if k in self._never else self._within(-beyond_kw, k))
                more = int(min(self._most_on[k] - on, one.wanted_replicas))
                room_kw -= running_kw + self._kw(k, more)

    def _start(self, k: int, gpus: float, now_s: float) -> int:
        pool = self._classes[k]
        if isinstance(pool, ServingPool):
            return pool.switch_on(now_s, max(gpus, 0), max(self._most_on[k] - pool.group.on, 0))
        return super()._start(k, gpus, now_s)

    def _look_at_draws(self, pool: ServingPool, replica: Replica) -> None:
        """A request has come: what replicas can draw now may be more than the cap leaves. Replicas are looked at where
        what they could draw last and what came since is."""
        if self.budget_kw == NO_CAP_KW:
            return
        k, gpus = self._index[pool.name], pool.serving.gpus
        most_kw = gpus * (self._limits_kw[k] - self._idle_kw(k))
        now_kw, before_kw = (min(pool.draw_kw(n, prompts), most_kw) for n, prompts in (
            (replica.outstanding, replica.has_prompts), (replica.outstanding - 1, False)))
        self._drawn_kw += now_kw - before_kw
        if self._drawn_kw > self.budget_kw + ROUNDING:
            self._drawn_kw = self._could_draw_kw(self._draws())
            if self._drawn_kw > self.budget_kw + ROUNDING:
                self._news = self._regroup = True

    def _could_draw_kw(self, draws: Sequence[tuple[int, float, int]]) -> float:
        """What is busy beside replicas, and what these can draw under the limits in force."""
        return self._beside_kw() + sum([gpus * min(kw, self._limits_kw[k] - self._idle_kw(k)) for k, kw, gpus in draws])

    def _slow_down(self, now_s: float) -> None:
        """The power limits in force, as low as the cap of the site needs them."""
        limits, spans = self._set_kw, {k: self._span_kw(k) for k in self._pool_at}
        draws = self._draws() if self.budget_kw < NO_CAP_KW else []
        if self.budget_kw < NO_CAP_KW and self._slows:
            level = level_within(self.budget_kw - self._beside_kw(), [
                (gpus, kw, spans[k][0] - self._idle_kw(k), spans[k][1] - self._idle_kw(k)) for k, kw, gpus in draws])
            if level < 1.0:
                limits = {k: _whole_watts(level, *span) for k, span in spans.items()}
            if not self._fresh:
                limits = {k: min(limit, self._limits_kw[k]) for k, limit in limits.items()}
        self._fresh = False
        capped = any(limits[k] < most for k, (_, most) in spans.items() if self._pool_at[k].busy_gpus)
        if limits != self._limits_kw or capped is not self._capped:
            self._integrate(now_s)
            before, self._limits_kw, self._capped = self._limits_kw, limits, capped
            for k, pool in self._pool_at.items():
                if limits[k] != before[k]:
                    pool.limit_power(limits[k], now_s)
        self._drawn_kw = self._could_draw_kw(draws)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _span_kw(self, k: int) -> tuple[float, float]:
        """From the lowest limit that a cap may need to the one that is set, or without one to what is drawn, kW."""
        serving = self._pool_at[k].serving
        most = min(self._set_kw[k], serving.draw_kw)
        return (min(serving.least_limit_kw, most) if serving.not_limited is None else most), most

    def _idle_kw(self, k: int) -> float:
        return self._pool_at[k].serving.the_gpu.idle_w / 1e3

    def _reserve(self) -> None:
        """What a GPU of a replica that is switched on has of the budget."""
        for k, pool in self._pool_at.items():
            limit_kw = self._span_kw(k)[0 if self._slows else 1]
            self._busy_kw_per_gpu[k] = min(pool.serving.draw_kw, limit_kw) - self._idle_kw(k)

    def _beside_kw(self) -> float:
        """What is busy beside replicas."""
        return sum([self._running_kw(k) for k in range(len(self._classes)) if k not in self._pool_at])

    def _draws(self) -> list[tuple[int, float, int]]:
        """Class, the most that a GPU draws above idle without a limit until another request comes, how many do; brings
        the peaks up to date."""
        found = []
        for k, pool in self._pool_at.items():
            draws = pool.draws()
            found += [(k, kw, gpus) for kw, gpus in draws.items()]
            kept_kw = self._busy_kw_per_gpu[k]
            peaks = self._peaks_kw[k]
            peaks[0] = max(peaks[0], sum([gpus * min(kw, kept_kw) for kw, gpus in draws.items()]))
        return found

    def _running_kw(self, k: int) -> float:
        return max(self._peaks_kw[k]) if k in self._pool_at else super()._running_kw(k)

    def _wanted_blocks(self, k: int) -> int:
        return self._pool_at[k].wanted_replicas if k in self._pool_at else super()._wanted_blocks(k)

    def _said_kw(self, k: int) -> float:
        """The limit in force of a class, as the trace has it."""
        if k not in self._pool_at:
            return 0.0
        return min(self._limits_kw[k], self._pool_at[k].serving.tdp_kw)

    def _integrate(self, now_s: float) -> None:
        seconds = now_s - self._since_s
        for k in self._limit_kws:
            self._limit_kws[k] += self._said_kw(k) * seconds
        self._capped_s += seconds if self._capped else 0.0
        self._since_s = now_s


def _whole_watts(level: float, least_kw: float, most_kw: float) -> float:
    """The limit at a level, rounded down, but not below the lowest."""
    return max(math.floor(limit_at_kw(level, least_kw, most_kw) * _STEPS_PER_KW) / _STEPS_PER_KW, least_kw)
