"""A site some of whose classes are served by replicas of language models, beside all that a `Facility` does.

Replicas are a class's GPUs as blocks are training's: they are switched on after training has given back what it holds
above its grant, and before new jobs of other inference start and training grows. What their iterations change is power;
it goes to the meter at the instant at which it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cosim.errors import ModelError
from cosim.ports import Batch
from cosim.simulators.aidc.engine.commands import admitted
from cosim.simulators.aidc.engine.facility import Facility
from cosim.simulators.aidc.engine.interval import Segment, SiteInterval
from cosim.simulators.aidc.engine.jobs import batch_of, reach_times
from cosim.simulators.aidc.engine.meter import Meter
from cosim.simulators.aidc.engine.site_state import SiteState
from cosim.simulators.aidc.llm.pool import ServingPool
from cosim.simulators.aidc.llm.records import GAP_COLUMNS, REQUEST_COLUMNS, USE_COLUMNS, ServingTick
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.fleet import JobClass, Site
from cosim.units import MIN_S


class ServingMeter(Meter):
    """A meter whose `note` takes, after the GPUs in use per class, the power of each class of kind `llm`, kW."""

    def __init__(self, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling, supply_temp_degc: float,
                 start_s: float, segments: bool) -> None:
        served = [c.kind == "llm" for c in job_classes.values()]
        super().__init__(site, job_classes, cooling, supply_temp_degc, start_s, segments)
        self._classes, more = len(served), sum(served)
        self._kw_per_to_s = [0.0 if llm else kw for kw, llm in zip(self._kw_per_to_s, served, strict=True)]
        self._kw_per_to_s += [1.0] * more  # a power is its own throughput
        self._to_per_gpu_min += [MIN_S] * more
        self.busy = (0,) * (self._classes + more)
        self._reset()

    def read(self, now_s: float) -> tuple[list[float], list[float], tuple[Segment, ...]]:
        """As `Meter`: GPU time of classes alone."""
        energy_kws, gpu_s, segments = super().read(now_s)
        return energy_kws, gpu_s[:self._classes], segments


class ServingFacility(Facility):
    """A facility with classes of kind `llm`.

    names   of all classes
    served  engines of those of kind `llm`, in the order of the classes
    ticks   what they did in the interval that was read last, by class
    """

    def __init__(self, name: str, site: Site, job_classes: Mapping[str, JobClass], cooling: Cooling,
                 supply_temp_degc: float, **how: Any) -> None:
        if how.get("racks") is not None:
            raise ModelError(f"{name}: racks do not fail at a site that serves language models; leave rack_mean_up_s "
                             "out")
        self.names = list(job_classes)
        self.served: list[ServingPool] = []
        self.ticks: dict[str, ServingTick] = {}
        super().__init__(name, site, job_classes, cooling, supply_temp_degc, **how)
        self._meter = ServingMeter(site, job_classes, cooling, self.supply_temp_degc, self.now_s,
                                   how.get("resolve_power", False))

    def submit(self, batch: Mapping[str, list]) -> None:
        """As `Facility`, for requests of language models too; `return_s` is how long their answers travel back."""
        now_s, reaches = self.now_s, reach_times(batch)
        returns = dict(zip(batch["id"], batch["return_s"], strict=True)) if "return_s" in batch else {}
        tokens: Mapping[int, tuple[int, int]] = {}
        if "input_tokens" in batch and "output_tokens" in batch:
            pairs = zip(batch["input_tokens"], batch["output_tokens"], strict=True)
            tokens = dict(zip(batch["id"], pairs, strict=True))
        for name, jobs in admitted(batch, self.name, self._job_classes, now_s).items():
            k = self._index[name]
            engine = self._classes[k]
            self._received[k] += len(jobs)
            if isinstance(engine, ServingPool):
                engine.put(jobs, now_s, tokens, self._at_arrival, reaches, returns)
            elif jobs := self._coming.put_off(k, jobs, now_s, reaches) if self._at_arrival or reaches else jobs:
                engine.put(jobs, now_s)
        self._news = True

    def command(self, gpus: Sequence[float], supply_temp_degc: float) -> None:
        """As `Facility`; replicas beyond the grant are switched off in time."""
        super().command(gpus, supply_temp_degc)
        for pool in self.served:
            pool.command(self.now_s)

    def limit_batches(self, batches: Sequence[float]) -> None:
        """From now on so many sequences in a batch at most, per class; NaN: the class's own; of others no matter.

        ModelError for one that is no whole number from 1 to the class's own.
        """
        for pool in self.served:
            pool.limit_batch(batches[self._index[pool.name]], self.now_s)

    def read_interval(self) -> SiteInterval:
        """As `Facility`; see `ticks`."""
        now_s = self.now_s
        if now_s > self._read_s:
            self.ticks = {pool.name: pool.count(now_s) for pool in self.served}
        return super().read_interval()

    def kept_tokens(self) -> list[tuple[int, int]]:
        """Tokens of the jobs that `keep` gives, class by class; 0 of those that are no requests."""
        return [pair for engine, jobs in zip(self._classes, self.keep().jobs, strict=True) for pair in (
            engine.kept_tokens() if isinstance(engine, ServingPool) else [(0, 0)] * len(jobs))]

    def restore(self, memory: SiteState, tokens: Mapping[int, tuple[int, int]] | None = None) -> None:
        """As `Facility`; requests wait for the replicas that the next grant switches on, which are ready at once.

        tokens: of prompt and answer, by id; what was computed of a request is lost.
        """
        served = {k for k, engine in enumerate(self._classes) if isinstance(engine, ServingPool)}
        others = [[] if k in served else jobs for k, jobs in enumerate(memory.jobs)]
        super().restore(replace(memory, jobs=others))
        for k in served:
            self._classes[k].granted_gpus = memory.granted_gpus[k]
            self._classes[k].restore(memory.jobs[k], self.now_s, tokens or {})
        self._regroup = self._news = True

    def request_rows(self) -> Batch:
        """Rows of the requests that left since the last call, see REQUEST_COLUMNS."""
        return self._taken([pool.requests for pool in self.served], REQUEST_COLUMNS)

    def use_rows(self) -> Batch:
        """Rows of what requests used since the last call, see USE_COLUMNS."""
        return self._taken([pool.uses for pool in self.served], USE_COLUMNS)

    def gap_rows(self) -> Batch:
        """Rows of inter-token latencies since the last call, see GAP_COLUMNS."""
        return self._taken([pool.gaps for pool in self.served], GAP_COLUMNS)

    def unfinished_requests(self) -> Batch:
        """Rows of the requests inside."""
        if self._rows is None:
            return {}
        return batch_of([row for pool in self.served for row in pool.unfinished_requests(self.now_s)], REQUEST_COLUMNS)

    # --- inside -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _taken(lists: Sequence[list[tuple] | None], names: tuple[str, ...]) -> Batch:
        rows = [row for of_class in lists if of_class for row in of_class]
        for of_class in lists:
            if of_class:
                of_class.clear()
        return batch_of(rows, names) if rows else {}

    def _class_of(self, name: str, job_class: JobClass) -> Any:
        if job_class.kind != "llm":
            return super()._class_of(name, job_class)
        pool = ServingPool(name, self.name, job_class, self._rows, self._clock, self._changed, self._freed)
        self.served.append(pool)
        return pool

    def _busy(self) -> tuple[float, ...]:
        return tuple([c.busy_gpus for c in self._classes] + [pool.group.kw for pool in self.served])

    def _is_plain(self) -> bool:
        """Never: what the end of a cohort leaves may be a replica's."""
        return False

    def _changed(self, now_s: float) -> None:
        self._meter.note(self._busy(), now_s)

    def _freed(self) -> None:
        self._regroup = self._news = True

    def _hand_out(self, now_s: float, regroup: bool) -> None:
        """Steps 4 to 7, with replicas switched on after step 4."""
        for pool in self._pools if regroup else ():
            pool.hold(min(pool.held_blocks, pool.wanted_blocks))
        free = self._up_gpus - sum([c.busy_gpus for c in self._classes])
        for served in self.served:
            free -= served.switch_on(now_s, max(free, 0))
        super()._hand_out(now_s, regroup)
        if any(served.wanted_replicas for served in self.served):
            self._regroup = True  # GPUs that come free are theirs
