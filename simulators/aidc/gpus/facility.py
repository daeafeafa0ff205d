"""A site whose GPUs are of several types, have power limits and sleep, beside all that a capped site does.

Everything of one instant happens in the order of `engine.facility`. Jobs take free GPUs that are awake, of the best
type first; who finds none within its grant wakes some up. Under a cap of the site all busy GPUs are slowed alike, from
the limits in force towards the lowest that their types have, as far as it takes; work is withheld only where even the
lowest do not keep the cap, by the rules of `engine.capped`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from cosim.errors import ModelError
from cosim.ports import Batch
from cosim.simulators.aidc.engine.capped import NO_CAP_KW, CappedFacility, CapRules
from cosim.simulators.aidc.engine.interval import Segment, SiteInterval
from cosim.simulators.aidc.engine.jobs import RUN_COLUMNS, batch_of
from cosim.simulators.aidc.engine.meter import Meter
from cosim.simulators.aidc.engine.offer import Offer, OfferRules
from cosim.simulators.aidc.engine.site_state import SiteState
from cosim.simulators.aidc.gpus.account import GpuAccount, GpuTick
from cosim.simulators.aidc.gpus.equations import kept_limit_kw, level_within
from cosim.simulators.aidc.gpus.inference import TypedQueue
from cosim.simulators.aidc.gpus.numbers import limits_at, preferred, work_table
from cosim.simulators.aidc.gpus.states import GpuGroup, SleepRules
from cosim.simulators.aidc.gpus.training import NOWHERE, Offered, Share, TypedPool
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.fleet import JobClass, Site
from cosim.units import MIN_S, ROUNDING

Placement = Literal["fastest", "efficient"]
_MANY = 10**9


class GpuMeter(Meter):
    """A meter whose `note` takes, after the GPUs in use per class, what all GPUs draw, kW."""

    def __init__(self, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling, supply_temp_degc: float,
                 start_s: float, segments: bool) -> None:
        super().__init__(site, job_classes, cooling, supply_temp_degc, start_s, segments)
        self._classes = len(job_classes)
        self._kw_per_to_s = [0.0] * self._classes + [1.0]  # a power is its own throughput
        self._to_per_gpu_min += [MIN_S]
        self.busy = (0,) * (self._classes + 1)
        self._reset()

    def read(self, now_s: float) -> tuple[list[float], list[float], tuple[Segment, ...]]:
        """As `Meter`: GPU time of classes alone."""
        energy_kws, gpu_s, segments = super().read(now_s)
        return energy_kws, gpu_s[:self._classes], segments


class GpuFacility(CappedFacility):
    """A facility with GPU types; see the module.

    types   figures of each type, in the site's order
    tick    what GPUs did in the interval that was read last
    clipped_limits  power limits commanded that a type cannot keep, and were set to the nearest that it can
    """

    RUNS = (*RUN_COLUMNS, "gpu_type")

    def __init__(self, name: str, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling,
                 supply_temp_degc: float, rules: CapRules, where: str = "cap", placement: Placement = "fastest",
                 sleep: SleepRules | None = None, slow_for_cap: bool = True, **how: Any) -> None:
        if how.get("racks") is not None:
            raise ModelError(f"{name}: racks do not fail at a site with GPU types; leave rack_mean_up_s out")
        if rules.running == "stop":
            raise ModelError(f"{name}: with GPU types running inference is slowed for a cap, not stopped; set "
                             "cap.running to keep or pause")
        start_s = how.get("start_s", 0.0)
        self.type_names, self.types = list(site.gpu_types), list(site.gpu_types.values())
        self._works, self._placement = work_table(site, job_classes), placement
        self._groups = [GpuGroup(t, sleep, start_s) for t in self.types]
        self._set_kw = self._own_kw = [t.peak_kw if t.limit_kw is None else t.limit_kw for t in self.types]
        self._limits_kw, self._slows, self._capped, self.clipped_limits = self._set_kw, slow_for_cap, False, 0
        self._account = GpuAccount(len(self.types), len(job_classes), start_s)
        super().__init__(name, site, job_classes, cooling, supply_temp_degc, rules, where, **how)
        self._meter = GpuMeter(site, job_classes, cooling, self.supply_temp_degc, self.now_s,
                               how.get("resolve_power", False))
        self._rank()
        self._apply_limits(self.now_s)
        self._note_power(self.now_s)
        self.tick = GpuTick([], [], [], [], [], [], 0.0)
        self._set_alarm(self.now_s)

    # --- what comes from outside --------------------------------------------------------------------------------

    def set_gpus(self, limits_kw: Iterable[float], awake: Iterable[float]) -> None:
        """From now on the power limit of a GPU, kW, and how many are awake, of each type; NaN: by the parameters.

        A limit that the type cannot keep is set to the nearest that it can, and counted. ModelError for a number awake
        that is not whole, negative or more than there are."""
        limits, targets = [], []
        for given, own, t in zip(limits_kw, self._own_kw, self.types, strict=True):
            kept = kept_limit_kw(given, own, t.least_limit_kw, t.peak_kw)
            self.clipped_limits += not math.isnan(given) and kept != given
            limits.append(kept)
        for given, name, t in zip(awake, self.type_names, self.types, strict=True):
            if not math.isnan(given) and not (0 <= given <= t.count and given == int(given)):
                raise ModelError(f"{self.name}: {given:g} {name} commanded to be awake; a whole number from 0 to "
                                 f"{t.count}, or NaN for the rules to decide")
            targets.append(None if math.isnan(given) else int(given))
        if limits != self._set_kw:
            self._set_kw = limits
            self._rank()
            self._news = self._regroup = True
        for group, target in zip(self._groups, targets, strict=True):
            if target != group.target:
                group.target = target
                self._news = self._regroup = True

    def offer(self, rules: OfferRules) -> Offer:
        """ModelError: it is not worked out for GPU types."""
        raise ModelError(f"{self.name}: what could be drawn less is not worked out for GPU types; leave offer out")

    # --- what can be read ---------------------------------------------------------------------------------------

    @property
    def gpu_kw(self) -> float:
        """What all GPUs and their hosts draw now."""
        return self._account.gpu_kw

    def read_interval(self) -> SiteInterval:
        """As `Facility`; see `tick`."""
        now_s = self.now_s
        for queue in self._queues:
            self._queue(queue).count(now_s)
        if now_s > self._read_s:
            self.tick = self._account.read(now_s)
        return super().read_interval()

    def open_runs(self) -> Batch:
        """GPUs that jobs hold now, since when, as runs that end now."""
        if self._rows is None:
            return {}
        return batch_of(chain.from_iterable(c.open_runs(self.now_s) for c in self._classes), self.RUNS)

    # --- from one world to the next -----------------------------------------------------------------------------

    def kept_gpus(self) -> list[tuple[int, list[list[float]], list[list[float]]]]:
        """Of each type who sleeps, is idle and wakes up, as `restore` takes it."""
        return [group.keep() for group in self._groups]

    def restore(self, memory: SiteState, gpus: Sequence[tuple[int, list[list[float]], list[list[float]]]] = ()) -> None:
        """As `Facility`, and go on with the GPUs in the states that `kept_gpus` gave, times of this world."""
        super().restore(memory)
        now_s = self.now_s
        for t, (group, (asleep, idle, waking)) in enumerate(zip(self._groups, gpus, strict=True)):
            group.restore(sum([c.busy_of[t] for c in self._classes]), asleep, idle, waking, now_s)
        self._note_power(now_s)
        self._regroup = self._news = True
        self._set_alarm(now_s)

    # --- one instant --------------------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        """Never: the end of a job may leave a GPU to another class, or to sleep."""
        return False

    def _settle(self, now_s: float) -> None:
        self._account.integrate(now_s)
        for engine in self._classes:
            engine.count(now_s)
        for queue in self._queues:
            self._queue(queue).finish_due(now_s)
        self._settle_all(now_s)
        self._note_power(now_s)
        if self._watch is not None:
            self._watch(now_s, tuple([c.busy_gpus for c in self._classes]))

    def _hand_out(self, now_s: float, regroup: bool) -> None:
        """Steps 4 to 7; then who wakes up and who goes to sleep, and how fast the GPUs run."""
        regroup |= any([group.ready(now_s) for group in self._groups]) or self.budget_kw < NO_CAP_KW
        pools = {k: c for k, c in enumerate(self._classes) if isinstance(c, TypedPool)} if regroup else {}
        own = {k: self._own_blocks(pool, k, now_s) for k, pool in pools.items()}
        free = [group.awake - sum([c.busy_of[t] for c in self._classes]) for t, group in enumerate(self._groups)]
        for k, pool in pools.items():
            free = [n + held - blocks * pool.gpus_per_block
                    for n, held, blocks in zip(free, pool.busy_of, own[k], strict=True)]
        room_kw, least_kw = self._room(own)
        plans: dict[int, list[Share]] = {}
        for k in self._served(pools):
            engine, each_kw = self._classes[k], least_kw[k]
            if k in pools:
                plans[k], room_kw = self._plan(k, own[k], free, room_kw, each_kw, now_s)
            elif isinstance(engine, TypedQueue) and engine.queued_jobs:
                for t in self._order[k]:
                    gpus = free[t]
                    if room_kw < NO_CAP_KW and k not in self._never:
                        block = self._gpus_per_block[k]
                        gpus = min(gpus, _whole(room_kw, each_kw[t] * block) * block)
                    taken = engine.start_on(t, gpus, now_s)
                    free[t] -= taken
                    room_kw -= taken * each_kw[t]
                engine.look(now_s)
        for k, shares in plans.items():
            self._pool_of(k).assign(shares, now_s)
        for t, group in enumerate(self._groups):
            group.hold(sum([c.busy_of[t] for c in self._classes]), now_s)
        self._wake_up(free, room_kw, least_kw, now_s)
        for group in self._groups:
            group.doze(now_s)
        self._slow_down(now_s)
        self._regroup = self.budget_kw < NO_CAP_KW or any(
            pool.held_blocks < pool.wanted_blocks for pool in self._pools)

    def _own_blocks(self, pool: TypedPool, k: int, now_s: float) -> list[int]:
        """Blocks by type that a pool keeps: what it holds, within its grant and its need."""
        held = [gpus // pool.gpus_per_block for gpus in pool.busy_of]
        if pool.wanted_blocks >= pool.held_blocks:
            return held
        return _by_type(pool.shares(Offered(held, self._order[k], pool.wanted_blocks), now_s), len(held))

    def _served(self, pools: Mapping[int, TypedPool]) -> list[int]:
        """Classes in the order in which they are served: inference, then training; under a cap who gives way last
        first."""
        if self.budget_kw < NO_CAP_KW:
            return self._first_served
        return [k for k, c in enumerate(self._classes) if not isinstance(c, TypedPool)] + list(pools)

    def _room(self, own: Mapping[int, Sequence[int]]) -> tuple[float, list[list[float]]]:
        """Power for what is not running yet, or need not, at the least limits; and that of a busy GPU above idle, by
        class and type, at those."""
        if self.budget_kw == NO_CAP_KW:
            return NO_CAP_KW, [[0.0] * len(self.types) for _ in self._classes]
        least = limits_at(0.0 if self._slows else 1.0, self.types, self._set_kw)
        each_kw = [[work.kw(limit) - work.figures.idle_kw for work, limit in zip(works, least, strict=True)]
                   for works in self._works]
        drawn_kw = self._standing_kw(idle=True)
        for k, engine in enumerate(self._classes):
            if k in own and not self._keeps(k):
                continue
            drawn_kw += sum([gpus * kw for gpus, kw in zip(engine.busy_of, each_kw[k], strict=True)])
        return self.budget_kw - drawn_kw, each_kw

    def _keeps(self, k: int) -> bool:
        """Whether what runs of a training class is not touched for a cap."""
        return self._rules.running == "keep" or k in self._never

    def _plan(self, k: int, own: Sequence[int], free: list[int], room_kw: float, each_kw: Sequence[float], now_s: float
              ) -> tuple[list[Share], float]:
        """Who of a training class is to hold what, and the room that is left; `free` follows."""
        pool = self._pool_of(k)
        block = pool.gpus_per_block
        blocks = [mine + n // block for mine, n in zip(own, free, strict=True)]
        offered = Offered(blocks, self._order[k], pool.wanted_blocks,
                          NO_CAP_KW if k in self._never else room_kw, [kw * block for kw in each_kw], self._keeps(k))
        shares = pool.shares(offered, now_s)
        taken = _by_type(shares, len(own))
        for t, (mine, now) in enumerate(zip(own, taken, strict=True)):
            free[t] += (mine - now) * block
            room_kw -= (now - (mine if self._keeps(k) else 0)) * block * each_kw[t]
        return shares, room_kw

    def _slow_down(self, now_s: float) -> None:
        """The power limits in force, as low as the cap of the site needs them."""
        level = 1.0
        if self.budget_kw < NO_CAP_KW and self._slows:
            busy = [(n, work.draws_kw(ratio), min(work.figures.least_limit_kw, most), most)
                    for works, engine in zip(self._works, self._classes, strict=True)
                    for t, (work, most) in enumerate(zip(works, self._set_kw, strict=True))
                    for n, ratio in engine.uses_of(t) if n]
            level = level_within(self.budget_kw - self._standing_kw(idle=False), busy)
        limits = limits_at(level, self.types, self._set_kw)
        self._capped = level < 1.0
        if limits != self._limits_kw:
            self._limits_kw = limits
            self._apply_limits(now_s)

    def _standing_kw(self, idle: bool) -> float:
        """Power of GPUs that do no work; of busy ones that of their hosts, and with `idle` their idle power."""
        total_kw = 0.0
        for t, group in zip(self.types, self._groups, strict=True):
            busy, free, waking, asleep = group.levels()
            total_kw += busy * (t.awake_kw if idle else t.host_kw) + free * t.awake_kw + waking * t.waking + (
                asleep * t.asleep_kw)
        return total_kw

    def _wake_up(self, free: Sequence[int], room_kw: float, each_kw: Sequence[Sequence[float]], now_s: float) -> None:
        """Wake up what is commanded to be awake, and what jobs could use within their grants and do not find awake."""
        for group in self._groups:
            group.wake(group.short_of_target(), now_s)
        if not any(group.asleep for group in self._groups):
            return
        ready = [n + group.waking for n, group in zip(free, self._groups, strict=True)]
        for k, engine in enumerate(self._classes):
            block = self._gpus_per_block[k]
            if isinstance(engine, TypedPool):
                wants = engine.wants()
            else:
                wants = [(NOWHERE, max(min(engine.queued_jobs * block, engine.granted_gpus - engine.busy_gpus), 0))]
            for at, need in wants:
                for t in self._order[k] if at == NOWHERE else (at,):
                    group, figures = self._groups[t], self.types[t]
                    asleep = 0 if group.target is not None else group.asleep
                    got = min(need, ready[t] + asleep) // block * block
                    more = max(got - ready[t], 0)
                    if more and room_kw < NO_CAP_KW:
                        within = _whole(room_kw, figures.waking - figures.asleep_kw + each_kw[k][t])
                        more = min(-(-more // group.unit), within // group.unit) * group.unit
                    woken = group.wake(more, now_s)
                    room_kw -= woken * (figures.waking - figures.asleep_kw)
                    ready[t] = max(ready[t] + woken - got, 0)
                    need -= got
                    if need < block or (got and isinstance(engine, TypedPool)):
                        break

    def _next_s(self) -> float:
        return min(super()._next_s(), *[group.next_s for group in self._groups],
                   *[self._queue(queue).end_s for queue in self._queues])

    # --- inside -------------------------------------------------------------------------------------------------

    def _class_of(self, name: str, job_class: JobClass) -> Any:
        if job_class.kind == "train":
            return TypedPool(name, self.name, job_class, self._rows, self._site, self._placement == "fastest")
        return TypedQueue(name, self.name, job_class, self._rows, self.type_names, self.now_s)

    def _rank(self) -> None:
        """Which type each class takes first, at the limits that are set."""
        self._order = [preferred(works, self._placement, self._set_kw) for works in self._works]

    def _apply_limits(self, now_s: float) -> None:
        for works, engine in zip(self._works, self._classes, strict=True):
            engine.set_speeds(engine.speeds(works, self._limits_kw), now_s)

    def _note_power(self, now_s: float) -> None:
        uses = [[engine.uses_of(t) for t in range(len(self.types))] for engine in self._classes]
        self._account.note(self._groups, self._works, uses, self._limits_kw, self._capped)
        busy = self._busy()
        if busy != self._meter.busy:
            self._meter.note(busy, now_s)

    def _busy(self) -> tuple[float, ...]:
        return (*super()._busy(), self._account.gpu_kw)

    def _free_gpus(self) -> int:
        return sum([group.idle for group in self._groups])

    def _pool_of(self, k: int) -> TypedPool:
        pool = self._classes[k]
        assert isinstance(pool, TypedPool), "only these have blocks"
        return pool

    @staticmethod
    def _queue(queue: Any) -> TypedQueue:
        assert isinstance(queue, TypedQueue), "_class_of makes these"
        return queue


def _by_type(shares: Sequence[Share], types: int) -> list[int]:
    blocks = [0] * types
    for _, t, n in shares:
        if n:
            blocks[t] += n
    return blocks


def _whole(room_kw: float, each_kw: float) -> int:
    """How many there is room for."""
    return max(math.floor(room_kw / each_kw + ROUNDING), 0) if each_kw > 0.0 else _MANY
