"""Job arrivals on the bus, stochastic by (39).

Rows: I01, I02, M06.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from cosim.adapter import Adapter, Values, serve
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.ports import Batch, Port
from cosim.simulators.fleet import BATCH_COLUMNS, ORIGIN, TOKEN_COLUMNS, JobClass, Routing
from cosim.simulators.wan import Network
from cosim.simulators.workload.arrivals import (
    ArrivalRate,
    Counts,
    JobBlock,
    JobRows,
    PhaseUnit,
    Source,
    arrivals_of,
    merge,
)
from cosim.simulators.workload.lengths import TokenLengths, requests_to
from cosim.simulators.workload.origins import Origins
from cosim.simulators.workload.shapes import WEEK_DAYS, BurstPath, Bursts, shape_factors
from cosim.units import Seconds

JOB_NAMES = Port("job_names", "out", "ids, classes and priorities of the jobs that arrived, as the file has them that "
                 "they are from; columns NAME_COLUMNS", kind="event", table="job_names")
NAME_COLUMNS = ("id", "name", "source_class", "priority")

Scale = Annotated[float, Field(ge=0, le=1e12)]
SizeScale = Annotated[float, Field(ge=1e-6, le=1e6)]
BLOCK_STEPS = 240
"""Steps drawn at once. Part of the random numbers' definition: another value gives other arrivals."""

_MOST_JOBS_PER_MIN = 1e5
"""Of one class: ten times ten million jobs a day. A block holds `BLOCK_STEPS` minutes of them in memory."""


@params(kw_only=True)
class ArrivalsParams:
    """Parameters of `Arrivals`. The scales multiply Table I's figures, so that a study is a change of two numbers."""

    job_classes: Annotated[dict[str, JobClass], Field(min_length=1)]
    arrivals: Annotated[dict[str, ArrivalRate], Field(description="rates of (39) of some or all classes")]
    rate_scale: Annotated[Scale, Field(description="times mean, amplitude and sigma of every class")] = 1.0
    train_rate_scale: Annotated[Scale, Field(description="the same for training classes, on top")] = 1.0
    inf_size_scale: Annotated[SizeScale, Field(description="times the work of an inference job")] = 1.0
    train_size_scale: Annotated[SizeScale, Field(description="times the work of a training job")] = 1.0
    counts: Annotated[Counts, Field(description="whole jobs from rates")] = "poisson"
    phase_unit: Annotated[PhaseUnit, Field(description="unit of the rates' phase")] = "rad"
    day_factors: Annotated[
        tuple[Scale, ...], Field(max_length=86_400, description="times the rate, in equal parts of a day from "
                                   "midnight; 24: hours")
    ] = ()
    week_factors: Annotated[
        tuple[Scale, ...], Field(description="times the rate, on each of seven days from that of the start on")
    ] = ()
    bursts: Annotated[dict[str, Bursts], Field(description="bursts of some classes; none by default")] = Field(
        default_factory=dict)
    routing: Routing = "handover"
    wan: Network = None
    lengths: Annotated[dict[str, TokenLengths], Field(description="how tokens of the requests of classes of kind llm "
                                                      "spread, where not as usual")] = Field(default_factory=dict)
    arrivals_end_s: Annotated[Seconds | None, Field(ge=0, description="no job arrives from then on; null: for ever")
                              ] = None

    @field_validator("week_factors")
    @classmethod
    def _seven_days(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (0, WEEK_DAYS):
            raise ValueError(f"week_factors has {len(value)} entries; give seven, one per day")
        return value


class Arrivals(Adapter):
    """Jobs that arrived since the last tick: at t those of [t - step, t), at the first tick those carried over. With
    routing = arrival those of the tick that begins, [t, t + step), which a site lets in as they arrive.

    Each class has streams of its own for noise, counts and instants: adding a class or changing its rate leaves the
    others' arrivals as they are.
    """

    PARAMS: ClassVar[Any] = ArrivalsParams
    REPLAYED_BY = "cosim.simulators.workload.recorded:RecordedJobs"
    MODELS = {
        "Arrivals": (
            Port("jobs", "out", "jobs that arrived since the last tick, or with routing = arrival will in this one, in "
                 "arrival order", kind="event"),
            Port("arrived_jobs", "out", "jobs that arrived since the last tick", dims=("job_class",)),
        )
    }

    @classmethod
    def natural_horizon_s(cls, params: Any) -> float | None:
        """How long the workload lasts, s; None: for ever."""
        return None

    @classmethod
    def offered_jobs_per_min(cls, params: Any) -> dict[str, tuple[float, float]]:
        """Mean rate (jobs/min) and mean work (TO/job) of every class that has arrivals."""
        shape = 1.0
        for factors in (params.day_factors, params.week_factors):
            shape *= sum(factors) / len(factors) if factors else 1.0
        return {name: (rate.mean_per_min * shape, _work_to(params, name)) for name, rate in _rates(params).items()}

    @classmethod
    def rate_fields(cls, params: Any, job_class: str | None) -> dict[str, float]:
        """Fields that the offered rate of a class (None: of all) goes with in proportion, all of them together, and
        what they are."""
        stochastic = params.arrivals if job_class is None else job_class in params.arrivals
        return {"rate_scale": params.rate_scale} if stochastic else {}

    def setup(self) -> None:
        """Rates and streams per class; ScenarioError for rates of a class that is not there."""
        p = self.params
        if len(self.entities["Arrivals"]) != 1:
            raise ScenarioError(f"{self.sid} has one stream of jobs; create one entity of Arrivals, not "
                                f"{len(self.entities['Arrivals'])}")
        self._names = list(p.job_classes)
        self._name = np.array(self._names, dtype=object)
        self._deadline_s = np.array([c.deadline_s for c in p.job_classes.values()])
        self._patience = {m: (c.deadline_s, self.stream(f"patience of {name}"))
                          for m, (name, c) in enumerate(p.job_classes.items()) if c.patience == "exponential"}
        self._work_to = [_work_to(p, name) for name in self._names]
        self._rates = {self._names.index(name): rate for name, rate in _rates(p).items()}
        self._streams = {m: tuple(self.stream(f"{purpose} of {self._names[m]}")
                                  for purpose in ("noise", "counts", "instants")) for m in self._rates}
        for name in p.bursts:
            if name not in p.arrivals:
                raise ScenarioError(f"{self.sid}.bursts: {unknown('class with arrivals', name, p.arrivals)}")
        self._bursts = {self._names.index(name): BurstPath(bursts, self.stream(f"bursts of {name}"))
                        for name, bursts in p.bursts.items()}
        for name in p.lengths:
            if name not in p.job_classes or p.job_classes[name].serving is None:
                llm = [m for m, c in p.job_classes.items() if c.serving is not None]
                raise ScenarioError(f"{self.sid}.lengths: {unknown('class of kind llm', name, llm)}")
        self._served = {m: (c.serving, p.lengths.get(name, TokenLengths()), self.stream(f"tokens of {name}"))
                        for m, (name, c) in enumerate(p.job_classes.items()) if c.serving is not None}
        self._origins = Origins(p.wan, self._names, self.stream) if p.wan is not None else None
        self._cut = dict.fromkeys(self._rates, 0)
        self._block_cut: dict[int, np.ndarray] = {}
        self._steps = self._next_id = 0
        self._origin_s = 0.0  # all time before this world, see `carry`
        self._carried: Batch = {}

    def labels(self) -> dict[str, list[str]]:
        """Names of the job classes."""
        return {"job_class": list(self.params.job_classes)}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The jobs of the step that ends now."""
        if time_s <= 0.0 and self.params.routing == "handover":
            batch = self._carried
            names = batch.get("job_class", [])
            arrived = [float(names.count(name)) for name in self._names]
        else:
            batch, arrived = self._take(self._steps)
            self._steps += 1
        return {eid: {"jobs": batch, "arrived_jobs": arrived} for eid in self.entities["Arrivals"]}

    def rows_at(self, time_s: float) -> JobRows:
        """The jobs of the step that ends now, as arrays: what `advance` gives, for stepping many worlds at once. Each
        step is taken once, by one of the two."""
        if time_s > 0.0:
            rows, _ = self._rows(self._steps)
            self._steps += 1
            return rows
        kept, index = self._carried, {name: m for m, name in enumerate(self._names)}
        columns = [np.array(kept.get(name, ()), float) for name in BATCH_COLUMNS[2:]]
        return JobRows(np.array(kept.get("id", ()), int), np.array([index[n] for n in kept.get("job_class", ())], int),
                       *columns)

    def carry(self) -> dict[str, np.ndarray]:
        """The jobs of the last step, which were not handed out yet, times relative to now; how much time has gone by,
        for shapes and traces, and which classes burst."""
        now_s = self._steps * self.step_s
        batch: Batch = {}
        if self.params.routing == "handover":
            now_s += self.step_s
            batch, _ = self._take(self._steps)
        columns = {name: np.array(values) for name, values in batch.items() if name != "id"}
        columns |= {name: columns[name] - now_s for name in ("arrival_s", "deadline_s") if columns}
        bursts = {"bursts": np.array([path.on for path in self._bursts.values()])} if self._bursts else {}
        return columns | bursts | {"origin_s": np.array(self._origin_s + now_s)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Hand the jobs that are carried over out at the first tick, with the first ids; go on in time."""
        if not carry:
            return
        self._origin_s = float(carry.get("origin_s", 0.0))
        for path, on in zip(self._bursts.values(), carry.get("bursts", ()), strict=False):
            path.resume(bool(on))
        if "arrival_s" in carry:
            columns = {name: carry[name].tolist() for name in (*BATCH_COLUMNS, *TOKEN_COLUMNS, ORIGIN)
                       if name != "id" and name in carry}
            self._next_id = len(columns["arrival_s"])
            self._carried = {"id": list(range(self._next_id)), **columns}

    def notes(self) -> list[str]:
        """How often a rate was below 0 and counted as 0."""
        used = self._steps % BLOCK_STEPS or BLOCK_STEPS
        said = []
        for m, earlier in self._cut.items():
            count = earlier + int(self._block_cut[m][:used].sum()) if self._steps else 0
            if count:
                said.append(f"{self.sid}: the arrival rate of {self._names[m]} was below 0 in {count} of "
                            f"{self._steps} steps and counted as 0 there")
        return said

    def _take(self, step: int) -> tuple[Batch, list[float]]:
        """Batch and jobs per class of one step; steps are taken in order."""
        rows, per_class = self._rows(step)
        if not len(rows.id):
            return {}, per_class
        columns = (rows.id.tolist(), self._name[rows.class_index].tolist(), rows.arrival_s.tolist(),
                   rows.work_to.tolist(), rows.deadline_s.tolist())
        batch = dict(zip(BATCH_COLUMNS, columns, strict=True))
        if self._served:
            tokens = np.zeros((len(rows.id), 2), np.int64) if rows.tokens is None else rows.tokens
            batch |= dict(zip(TOKEN_COLUMNS, tokens.T.tolist(), strict=True))
        if self._origins is not None and rows.origin is not None:
            batch[ORIGIN] = self._origins.names[rows.origin].tolist()
        return batch, per_class

    def _rows(self, step: int) -> tuple[JobRows, list[float]]:
        """The same as arrays."""
        k = step % BLOCK_STEPS
        if k == 0:
            self._block = self._draw(step)
        block: JobBlock = self._block
        begin, end = block.bounds[k], block.bounds[k + 1]
        first = self._next_id
        self._next_id += end - begin
        index, arrival_s = block.class_index[begin:end], block.arrival_s[begin:end]
        lasts_s = self._deadline_s[index]
        for m, (mean_s, stream) in self._patience.items():
            mine = index == m
            lasts_s[mine] = stream.exponential(mean_s, np.count_nonzero(mine))
        return JobRows(np.arange(first, self._next_id), index, arrival_s, block.work_to[begin:end], arrival_s + lasts_s,
                       None if block.tokens is None else block.tokens[begin:end],
                       None if self._origins is None else self._origins.of(index)), block.per_class[k]

    def _draw(self, step: int) -> JobBlock:
        """The jobs of the block that starts with `step`."""
        for m, cut in self._block_cut.items():
            self._cut[m] += int(cut.sum())
        first_s = step * self.step_s
        sources = self._sources(first_s)
        if (end_s := self.params.arrivals_end_s) is not None:
            last_s = end_s - self._origin_s
            sources = [(m, times[times < last_s], *(column[times < last_s] for column in rest))
                       for m, times, *rest in sources]
        return merge(sources, len(self._names), first_s, BLOCK_STEPS, self.step_s)

    def _sources(self, first_s: float) -> list[Source]:
        """Everything that arrives in the block that starts at `first_s`, class by class."""
        sources = []
        for m, rate in self._rates.items():
            times, self._block_cut[m] = arrivals_of(rate, first_s, BLOCK_STEPS, self.step_s, self.params.counts,
                                                    self.params.phase_unit, self._streams[m],
                                                    self._factors(m, first_s), self._origin_s)
            sources.append((m, times, np.full(len(times), self._work_to[m])) if m not in self._served else
                           (m, times, *self._requests_of(m, len(times))))
        return sources

    def _requests_of(self, m: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Works and tokens of the next stochastic requests of a class of kind llm."""
        serving, lengths, stream = self._served[m]
        tokens = lengths.draw(number, serving, stream)
        return requests_to(tokens, serving), tokens

    def _factors(self, m: int, first_s: float) -> np.ndarray | None:
        """What shape and bursts make of the rate of a class in each step of a block; None: nothing."""
        p, factors = self.params, None
        if p.day_factors or p.week_factors:
            time_s = self._origin_s + first_s + self.step_s * np.arange(BLOCK_STEPS)
            factors = shape_factors(time_s, p.day_factors, p.week_factors)
        if m in self._bursts:
            path = self._bursts[m].factors(first_s, BLOCK_STEPS, self.step_s)
            factors = path if factors is None else factors * path
        return factors


def _work_to(p: ArrivalsParams, name: str) -> float:
    """Work of one stochastic job of a class, TO; of kind llm, of a typical request."""
    job_class = p.job_classes[name]
    if job_class.kind == "llm":
        return job_class.work_to
    return job_class.work_to * (p.train_size_scale if job_class.kind == "train" else p.inf_size_scale)


def _rates(p: ArrivalsParams) -> dict[str, ArrivalRate]:
    """Rates of (39) with all scales applied; ScenarioError for a class that is not there."""
    for name in p.arrivals:
        if name not in p.job_classes:
            raise ScenarioError(f"arrivals: {unknown('job class', name, p.job_classes)}")
    train = {name: p.train_rate_scale if p.job_classes[name].kind == "train" else 1.0 for name in p.arrivals}
    rates = {name: rate.scaled(p.rate_scale * train[name]) for name, rate in p.arrivals.items()}
    for name, rate in rates.items():
        if rate.mean_per_min > _MOST_JOBS_PER_MIN:
            raise ScenarioError(f"arrivals: {rate.mean_per_min:g} jobs of {name} a minute on average, more than the "
                                f"{_MOST_JOBS_PER_MIN:g} that fit into memory; lower workload.rate_scale or "
                                f"workload.arrivals.{name}.mean_per_min")
    return rates


if __name__ == "__main__":
    serve(Arrivals)
