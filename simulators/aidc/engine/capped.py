"""A site that keeps its power below a cap: who is held back for it, and what of that which runs is touched.

Power at the meter rises with IT power, so that a cap leaves a budget for busy GPUs: the most busy power at which IT,
cooling and losses together are within it, at the present supply air and outside temperature, by the plant in balance.
In a room that takes time to warm, cooling follows the IT power later, and what it draws beyond the cap until then
shows. The budget is handed out anew at every instant at which something happens, to those first who give way last, so
that the site is within its cap at every instant at which nothing that runs and may not be touched exceeds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from cosim.errors import ModelError, ScenarioError, unknown
from cosim.params import params
from cosim.simulators.aidc.engine.events import Cohort
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.inference import InferenceQueue
from cosim.simulators.aidc.engine.offer import Offer, OfferRules, offer
from cosim.simulators.aidc.engine.training import TrainingPool
from cosim.simulators.aidc.equations import cooling_curve, distribution_loss_kw, inlet_factor
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.fleet import JobClass, Site
from cosim.units import ROUNDING

NO_CAP_KW = math.inf
SLACK_KW = 1e-6
"""Above a cap by less than this is rounding."""
_KINDS = ("train", "inf")
_HALVINGS = 60


@params
class CapRules:
    """How a site keeps a power cap."""

    gives_way: Annotated[tuple[str, ...], Field(
        description="who is held back for the cap, first to last: train, inf (language models too) or names of job "
        "classes; who is not in it never is")] = _KINDS
    running: Annotated[Literal["keep", "pause", "stop"], Field(
        description="what may happen to what runs. keep: nothing, only new blocks and jobs are held back; pause: "
        "training gives blocks back and keeps its progress; stop: running inference, too, is stopped where all else "
        "is not enough, the last started first: it loses what was done and goes to the end of its line")] = "pause"

    def ranked(self, job_classes: Mapping[str, JobClass], where: str) -> list[int]:
        """Rank of each class, in the classes' order: who gives way first has 0, who never does the number of entries.

        ScenarioError for a name that is no class, and for a class named twice."""
        said = list(self.gives_way)
        for name in said:
            if name not in job_classes and name not in _KINDS:
                raise ScenarioError(f"{where}.gives_way: {unknown('kind or job class', name, [*_KINDS, *job_classes])}")
            if said.count(name) > 1:
                raise ScenarioError(f"{where}.gives_way names '{name}' twice")
        kinds = {name: "inf" if c.kind == "llm" else c.kind for name, c in job_classes.items()}
        return [said.index(name) if name in said else said.index(kind) if kind in said else len(said)
                for name, kind in kinds.items()]


class PowerBudget:
    """Power beyond the site's `idle_kw` that a cap leaves, kW, by the plant in balance: of busy GPUs, of all of them
    where they have types. The last answer is remembered."""

    def __init__(self, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling) -> None:
        self._idle_kw, self._cooling = site.idle_kw, cooling
        self._most_kw = site.above_idle_kw(job_classes.values())
        self._asked: tuple[float, float, float | None] | None = None
        self._budget_kw = NO_CAP_KW

    def site_kw(self, supply_temp_degc: float, outside_degc: float | None) -> Callable[[float], float]:
        """Busy power -> what the site draws at the meter, kW."""
        curve, factor = cooling_curve(supply_temp_degc, self._cooling, outside_degc), inlet_factor(supply_temp_degc,
                                                                                                  self._cooling)

        def drawn_kw(busy_kw: float) -> float:
            it_kw = (self._idle_kw + busy_kw) * factor
            _, chiller_kw, tower_kw = curve(it_kw)
            return it_kw + chiller_kw + tower_kw + distribution_loss_kw(it_kw, self._cooling)
        return drawn_kw

    def of(self, cap_kw: float, supply_temp_degc: float, outside_degc: float | None) -> float:
        """The most busy power within the cap; 0 where the idle site is above it, infinite where the full one is within
        it."""
        asked = cap_kw, supply_temp_degc, outside_degc
        if asked != self._asked:
            self._asked, self._budget_kw = asked, self._search(cap_kw, self.site_kw(supply_temp_degc, outside_degc))
        return self._budget_kw

    def _search(self, cap_kw: float, drawn_kw: Callable[[float], float]) -> float:
        if cap_kw == NO_CAP_KW or drawn_kw(self._most_kw) <= cap_kw:
            return NO_CAP_KW
        low, high = 0.0, self._most_kw
        if drawn_kw(low) >= cap_kw:
            return 0.0
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if drawn_kw(middle) <= cap_kw else (low, middle)
        return low


class CappedFacility(Facility):
    """A facility with a power cap, set by `cap`; without one it is a `Facility` in every respect.

    budget_kw  busy power that the cap leaves; infinite: no cap, or one that the full site is within
    """

    def __init__(self, name: str, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling,
                 supply_temp_degc: float, rules: CapRules, where: str = "cap", **how: Any) -> None:
        self.budget_kw, self._cap_kw = NO_CAP_KW, NO_CAP_KW
        self._outside_degc: float | None = None
        self._budget = PowerBudget(site, job_classes, cooling)
        self._rules = rules
        self._busy_kw_per_gpu = [c.busy_kw_per_gpu for c in job_classes.values()]
        self._gpus_per_block = [c.gpus_per_block for c in job_classes.values()]
        rank = rules.ranked(job_classes, where)
        self._first_served = sorted(range(len(rank)), key=lambda k: -rank[k])  # stable: within a rank, class order
        self._never = [k for k in range(len(rank)) if rank[k] == len(rules.gives_way)]
        super().__init__(name, site, job_classes, cooling, supply_temp_degc, **how)

    def cap(self, cap_kw: float, outside_degc: float | None = None) -> None:
        """From now on the cap at the meter, kW, NO_CAP_KW for none, and the outside temperature that the plant has.
        ModelError for a negative cap."""
        if not cap_kw >= 0.0:
            raise ModelError(f"{self.name}: p_cap_kw = {cap_kw:g}; a cap is 0 or more, and NaN where there is none")
        self._cap_kw, self._outside_degc = cap_kw, outside_degc
        self._look_at_cap()

    def command(self, gpus: Sequence[float], supply_temp_degc: float) -> None:
        """As `Facility`; other supply air leaves another budget."""
        super().command(gpus, supply_temp_degc)
        self._look_at_cap()

    def held_gpus(self) -> list[float]:
        """GPUs that each class would take now and does not because of the cap: what it has jobs for within its grant,
        on GPUs that are free, inference first."""
        if self.budget_kw == NO_CAP_KW:
            return [0.0] * len(self._classes)
        free = self._free_gpus()
        held = dict.fromkeys(range(len(self._classes)), 0.0)
        for k in sorted(held, key=lambda k: isinstance(self._classes[k], TrainingPool)):
            block = self._gpus_per_block[k]
            more = min(self._wanted_blocks(k), free // block) * block
            held[k] = float(more)
            free -= more
        return list(held.values())

    def _wanted_blocks(self, k: int) -> int:
        """Blocks that a class would take now beside what it holds, within its grant."""
        one = self._classes[k]
        if isinstance(one, TrainingPool):
            return max(one.wanted_blocks - one.held_blocks, 0)
        return max(min(one.queued_jobs, (one.granted_gpus - one.busy_gpus) // self._gpus_per_block[k]), 0)

    def _free_gpus(self) -> int:
        """GPUs that jobs could take at once."""
        return self._up_gpus - sum([c.busy_gpus for c in self._classes])

    def _look_at_cap(self) -> None:
        budget_kw = self._budget.of(self._cap_kw, self.supply_temp_degc, self._outside_degc)
        if budget_kw != self.budget_kw:
            self.budget_kw = budget_kw
            self._regroup = self._news = True

    def offer(self, rules: OfferRules) -> Offer:
        """What could be drawn less from now on; see `engine.offer`."""
        pools, queues = ({c.name: c for c in self._classes if isinstance(c, kind)}
                         for kind in (TrainingPool, InferenceQueue))
        return offer(pools, queues, self._job_classes, self.gpus, self._up_gpus, self.now_s, rules)  # type: ignore

    # --- one instant --------------------------------------------------------------------------------------------

    def _is_plain(self) -> bool:
        return self.budget_kw == NO_CAP_KW and super()._is_plain()

    def _hand_out(self, now_s: float, regroup: bool) -> None:
        """Steps 4 to 7 within the budget. Whatever ends leaves power to other jobs, so that training always has a part
        in it."""
        if self.budget_kw == NO_CAP_KW:
            super()._hand_out(now_s, regroup)
            return
        wanted = {k: c.wanted_blocks for k, c in enumerate(self._classes) if isinstance(c, TrainingPool)}
        for k, blocks in wanted.items():
            pool = self._pool(k)
            pool.hold(min(pool.held_blocks, blocks))
        free = self._up_gpus - sum([c.busy_gpus for c in self._classes])
        room_kw, may = self._share_out(wanted, free, now_s)
        if room_kw < -ROUNDING and self._rules.running == "stop":
            self._stop_inference(-room_kw, now_s)
        for k, blocks in may.items():
            self._pool(k).hold(min(self._pool(k).held_blocks, blocks))
        free = self._up_gpus - sum([c.busy_gpus for c in self._classes])
        for k, blocks in may.items():
            pool = self._pool(k)
            more = min(blocks - pool.held_blocks, free // pool.gpus_per_block)
            pool.hold(pool.held_blocks + more)
            free -= more * pool.gpus_per_block
            pool.allot(now_s)
        self._regroup = True

    def _share_out(self, wanted: Mapping[int, int], free: int, now_s: float) -> tuple[float, dict[int, int]]:
        """Inference is started within the budget; (what of it is left, kW, and below 0 what runs beyond it; blocks that
        each training class may hold). Who gives way last is served first."""
        untouched = self._rules.running == "keep"
        kept = {k: self._pool(k).held_blocks if untouched or k in self._never else 0 for k in wanted}
        room_kw = self.budget_kw - sum([self._kw(k, kept[k]) if k in kept else self._running_kw(k)
                                        for k in range(len(self._classes))])
        may = {}
        for k in self._first_served:
            block = self._gpus_per_block[k]
            blocks = NO_CAP_KW if k in self._never else self._within(room_kw, k)
            if k not in wanted:
                taken = self._start(k, min(free, blocks * block), now_s)
                free -= taken
                room_kw -= taken * self._busy_kw_per_gpu[k]
            else:
                can = min(wanted[k], self._pool(k).held_blocks + free // block)
                more = int(min(max(can - kept[k], 0), blocks))
                may[k] = kept[k] + more
                room_kw -= self._kw(k, more)
        return room_kw, {k: may[k] for k in wanted}

    def _start(self, k: int, gpus: float, now_s: float) -> int:
        """Begin work of a class other than training on at most so many GPUs; how many it takes."""
        queue = self._classes[k]
        before = queue.busy_gpus
        self._expect(queue.start(now_s, gpus))
        return queue.busy_gpus - before

    def _expect(self, cohorts: Sequence[Cohort]) -> None:
        for cohort in cohorts:
            self._clock.expect(cohort)

    def _stop_inference(self, beyond_kw: float, now_s: float) -> None:
        """Stop running inference that gives way, the last started first, until so much less is drawn."""
        for k in reversed(self._first_served):
            queue, each = self._classes[k], self._gpus_per_block[k]
            if beyond_kw <= ROUNDING or k in self._never or not isinstance(queue, InferenceQueue):
                continue
            per_job_kw = self._kw(k, 1)
            jobs = min(math.ceil(beyond_kw / per_job_kw - ROUNDING), queue.busy_gpus // each) if per_job_kw else 0
            if jobs > 0:
                queue.strike(queue.busy_gpus - jobs * each, queue.busy_gpus, now_s)
                queue.expire(now_s)  # who was in time when it started may not be any more
                queue.start(now_s, 0.0)  # nobody starts, but the deadlines of who waits now are looked at
                beyond_kw -= jobs * per_job_kw

    def _kw(self, k: int, blocks: int) -> float:
        """Busy power of so many blocks, or inference jobs, of a class."""
        return blocks * self._gpus_per_block[k] * self._busy_kw_per_gpu[k]

    def _running_kw(self, k: int) -> float:
        """Busy power of what runs of a class."""
        return self._classes[k].busy_gpus * self._busy_kw_per_gpu[k]

    def _within(self, room_kw: float, k: int) -> float:
        """Whole blocks, or jobs, of a class for which there is room."""
        each_kw = self._kw(k, 1)
        return max(math.floor(room_kw / each_kw + ROUNDING), 0) if each_kw else NO_CAP_KW

    def _pool(self, k: int) -> TrainingPool:
        pool = self._classes[k]
        assert isinstance(pool, TrainingPool), "only these have blocks"
        return pool
