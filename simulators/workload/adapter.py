"""Job arrivals on the bus: stochastic by (39), and a real trace of LLM requests.

Rows: I01, I02, M06.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from cosim.simulators.fleet import BATCH_COLUMNS, JobClass
from cosim.simulators.workload.arrivals import ArrivalRate, Counts, JobBlock, JobRows, PhaseUnit, arrivals_of, merge
from cosim.simulators.workload.origin import Origin, ScenarioStart, check_cover, lead_s, note, pass_s
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, LeftOutRatio, gap_note
from cosim.simulators.workload.shapes import WEEK_DAYS, BurstPath, Bursts, shape_factors
from cosim.simulators.workload.traces import Requests, TokenTrace, TokenWork, read_azure_llm
from pydantic import Field, field_validator

from cosim.adapter import Adapter, Values, serve
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.ports import Batch, Port
from cosim.units import MIN_S, format_time

Scale = Annotated[float, Field(ge=0, le=1e12)]
SizeScale = Annotated[float, Field(ge=1e-6, le=1e6)]
Source = tuple[int, np.ndarray, np.ndarray]
"""Class index, arrival times (s, ascending), works (TO)."""

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

    @field_validator("week_factors")
    @classmethod
    def _seven_days(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (0, WEEK_DAYS):
            raise ValueError(f"week_factors has {len(value)} entries; give seven, one per day")
        return value


class Arrivals(Adapter):
    """Jobs that arrived since the last tick: at t those of [t - step, t), at the first tick those carried over.

    Each class has streams of its own for noise, counts and instants: adding a class or changing its rate leaves the
    others' arrivals as they are.
    """

    PARAMS = ArrivalsParams
    REPLAYED_BY = "cosim.simulators.workload.recorded:RecordedJobs"
    MODELS = {
        "Arrivals": (
            Port("jobs", "out", "jobs that arrived since the last tick, in arrival order", kind="event"),
            Port("arrived_jobs", "out", "jobs that arrived since the last tick", dims=("job_class",)),
        )
    }

    @classmethod
    def natural_horizon_s(cls, params: ArrivalsParams) -> float | None:
        """How long the workload lasts, s; None: for ever."""
        return None

    @classmethod
    def offered_jobs_per_min(cls, params: ArrivalsParams) -> dict[str, tuple[float, float]]:
        """Mean rate (jobs/min) and mean work (TO/job) of every class that has arrivals."""
        shape = 1.0
        for factors in (params.day_factors, params.week_factors):
            shape *= sum(factors) / len(factors) if factors else 1.0
        return {name: (rate.mean_per_min * shape, _work_to(params, name)) for name, rate in _rates(params).items()}

    @classmethod
    def rate_fields(cls, params: ArrivalsParams, job_class: str | None) -> dict[str, float]:
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
        if time_s <= 0.0:
            batch = self._carried
            names = batch.get("job_class", [])
            arrived = [float(names.count(name)) for name in self._names]
        else:
            batch, arrived = self._take(self._steps)
            self._steps += 1
        return {eid: {"jobs": batch, "arrived_jobs": arrived} for eid in self.entities["Arrivals"]}

    def rows_at(self, time_s: float) -> JobRows:
        """The jobs of the step that ends now, as arrays: what `advance` gives, for who steps many worlds at once. Each
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
        now_s = self._steps * self.step_s + self.step_s
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
            columns = {name: carry[name].tolist() for name in BATCH_COLUMNS if name != "id"}
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
        return dict(zip(BATCH_COLUMNS, columns, strict=True)), per_class

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
        return JobRows(np.arange(first, self._next_id), index, arrival_s, block.work_to[begin:end],
                       arrival_s + lasts_s), block.per_class[k]

    def _draw(self, step: int) -> JobBlock:
        """The jobs of the block that starts with `step`."""
        for m, cut in self._block_cut.items():
            self._cut[m] += int(cut.sum())
        first_s = step * self.step_s
        return merge(self._sources(first_s), len(self._names), first_s, BLOCK_STEPS, self.step_s)

    def _sources(self, first_s: float) -> list[Source]:
        """Everything that arrives in the block that starts at `first_s`, class by class."""
        sources = []
        for m, rate in self._rates.items():
            times, self._block_cut[m] = arrivals_of(rate, first_s, BLOCK_STEPS, self.step_s, self.params.counts,
                                                    self.params.phase_unit, self._streams[m],
                                                    self._factors(m, first_s), self._origin_s)
            sources.append((m, times, np.full(len(times), self._work_to[m])))
        return sources

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
    """Work of one stochastic job of a class, TO."""
    job_class = p.job_classes[name]
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


@params(kw_only=True)
class TracedParams(ArrivalsParams):
    """Parameters that all traces have: those of `Arrivals`, and the trace. `arrivals` are those beside it."""

    arrivals: Annotated[dict[str, ArrivalRate], Field(description="rates of (39) beside the trace")] = Field(
        default_factory=dict)
    path: Annotated[str, Field(min_length=1, description="file of the trace")]
    trace_class: Annotated[str, Field(min_length=1, description="class that the trace's jobs belong to")]
    repeat: Annotated[bool, Field(description="start the trace again when it ends")] = False
    time_scale: Annotated[SizeScale, Field(description="times the trace's time axis")] = 1.0
    trace_rate_scale: Annotated[Scale, Field(description="mean number of times a job of the trace occurs")] = 1.0
    trace_work_scale: Annotated[SizeScale, Field(description="times the work of every job of the trace")] = 1.0
    max_left_out_ratio: LeftOutRatio = LEFT_OUT_RATIO
    origin: Origin = "first"
    scenario_start: ScenarioStart = None


class Traced(Arrivals):
    """Base of recorded workloads: the jobs of a trace as those of one class, beside stochastic arrivals of others."""

    @classmethod
    def placed(cls, params: TracedParams) -> tuple[float, float]:
        """When the first job of the trace comes, s after t = 0, and how long one pass of the trace is, s.
        ScenarioError for a trace that cannot be read."""
        raise NotImplementedError

    @classmethod
    def natural_horizon_s(cls, params: TracedParams) -> float | None:
        """Length of the trace in whole minutes and one more, in which its last jobs are handed over, s; None if it
        repeats. ScenarioError as for the trace itself."""
        if params.repeat:
            return None
        lead, length_s = cls.placed(params)
        check_cover(params.path, lead, length_s, params.scenario_start, None)
        return MIN_S * math.ceil((lead + length_s) / MIN_S) + MIN_S

    @classmethod
    def check_horizon(cls, member: str, given: TracedParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a trace of which nothing falls into the run."""
        if not given.repeat:
            check_cover(given.path, *cls.placed(given), given.scenario_start, until_s)

    @classmethod
    def rate_fields(cls, params: TracedParams, job_class: str | None) -> dict[str, float]:
        """As of `Arrivals`, and the trace's."""
        mine = {"trace_rate_scale": params.trace_rate_scale} if job_class in (None, params.trace_class) else {}
        return super().rate_fields(params, job_class) | mine

    def _class_of_trace(self, name: str, kind: str, why: str) -> int:
        """Index of the class that a trace's jobs are of; ScenarioError if it is none, or of the other kind."""
        classes = self.params.job_classes
        if name not in classes:
            raise ScenarioError(f"{self.sid}.trace_class: {unknown('job class', name, classes)}")
        if classes[name].kind != kind:
            other = "a training" if kind == "inf" else "an inference"
            raise ScenarioError(f"{self.sid}.trace_class = '{name}' is {other} class; {why}")
        return self._names.index(name)

    def _in_world(self, times_s: np.ndarray, first_s: float) -> np.ndarray:
        """Times of a trace in the block that starts at `first_s`, on this world's clock."""
        if not self._origin_s:
            return times_s
        last_s = np.nextafter(first_s + BLOCK_STEPS * self.step_s, 0.0)
        return np.clip(times_s - self._origin_s, first_s, last_s)  # the difference is rounded


@params(kw_only=True)
class AzureLlmParams(TracedParams):
    """Parameters of `AzureLlm`."""

    path: Annotated[str, Field(min_length=1, description="CSV of the trace")]
    trace_class: Annotated[str, Field(description="inference class that the requests belong to")]
    time_scale: Annotated[SizeScale, Field(description="times the trace's time axis; 24: an hour becomes a day")] = 1
    trace_rate_scale: Annotated[Scale, Field(description="mean number of times a request occurs")] = 1.0
    trace_work_scale: Annotated[SizeScale, Field(description="times a request's work (one for many)")] = 1.0
    tokens: TokenWork = Field(default_factory=TokenWork)


class AzureLlm(Traced):
    """Requests of an Azure LLM inference trace as the jobs of one class, beside stochastic arrivals of others.

    The first request comes at t = 0, or at its date (`origin`). `time_scale` stretches the time between requests.
    `trace_rate_scale` = k lets each request occur floor(k) times, and once more with the probability of the fraction:
    0.1 is a sample of a tenth; repeated ones lie anywhere in the request's minute. Both leave the mix of requests as it
    is. With `repeat` the trace starts again at the next whole minute, each time with the same requests. The size scales
    do not apply to requests; their work comes from their tokens (`tokens`), times `trace_work_scale`. The run's t = 0
    is the start of its warm-up: with `warmup_s` the first requests are played in it and are not counted, and a run
    without an end of its own is that much shorter; `repeat` avoids it.
    """

    PARAMS = AzureLlmParams

    @classmethod
    def placed(cls, params: AzureLlmParams) -> tuple[float, float]:
        """As of `Traced`."""
        trace = read_azure_llm(params.path, params.max_left_out_ratio)
        lead = lead_s(params.origin, params.path, trace.first_unix_s, params.scenario_start)
        return lead, pass_s(trace.offset_s[-1] * params.time_scale)

    @classmethod
    def offered_jobs_per_min(cls, params: AzureLlmParams) -> dict[str, tuple[float, float]]:
        """Those of the stochastic arrivals, and the trace's own while it lasts. ScenarioError as for the trace."""
        offered = super().offered_jobs_per_min(params)
        trace = read_azure_llm(params.path, params.max_left_out_ratio)
        minutes = pass_s(trace.offset_s[-1] * params.time_scale) / MIN_S
        rate = params.trace_rate_scale * len(trace.offset_s) / minutes
        work = float(_request_work_to(trace, params).mean())
        beside, its_work = offered.get(params.trace_class, (0.0, 0.0))
        total = rate + beside
        offered[params.trace_class] = (total, (rate * work + beside * its_work) / total if total else work)
        return offered

    def setup(self) -> None:
        """Read the trace. ScenarioError if the class is not an inference class, or the trace cannot be read."""
        super().setup()
        p = self.params
        self._trace_class = self._class_of_trace(p.trace_class, "inf", "LLM requests are inference")
        self._trace = read_azure_llm(p.path, p.max_left_out_ratio)
        self._requests = Requests.of(self._trace.offset_s * p.time_scale, _request_work_to(self._trace, p),
                                     p.trace_rate_scale, self.stream("copies of requests"))
        self._lead_s, _ = self.placed(p)

    def notes(self) -> list[str]:
        """Rows left out, requests that came, and whether the trace ran dry."""
        trace, requests, p = self._trace, self._requests, self.params
        said = super().notes()
        said += [f"{self.sid}: {text}" for text in note(p.origin, p.path, trace.first_unix_s, p.scenario_start)]
        if trace.left_out.rows:
            said.append(f"{self.sid}: {trace.left_out.rows} rows of {p.path} were left out: {trace.left_out.about()}")
        apart_s = np.diff(trace.offset_s, prepend=0.0)
        if gap := gap_note(apart_s.max(), trace.offset_s[apart_s.argmax() - 1], trace.offset_s[-1]):
            said.append(f"{self.sid}: {p.path}: {gap}")
        reached_s = self._origin_s + self._steps * self.step_s - self._lead_s
        if not p.repeat and reached_s > requests.length_s:
            over = format_time(requests.length_s + self._lead_s)
            said.append(f"{self.sid}: the trace ended at {over}; the remaining "
                        f"{(reached_s - requests.length_s) / MIN_S:g} min had no requests from it")
        elif not p.repeat:
            came = int(np.searchsorted(requests.offset_s, reached_s))
            said.append(f"{self.sid}: {came} of the trace's {len(requests.offset_s)} requests had arrived by the last "
                        "step")
        return said

    def _sources(self, first_s: float) -> list[Source]:
        begin_s = self._origin_s + first_s - self._lead_s
        times, works = self._requests.between(begin_s, begin_s + BLOCK_STEPS * self.step_s, self.params.repeat)
        at_s = self._in_world(times + self._lead_s if self._lead_s else times, first_s)
        return [*super()._sources(first_s), (self._trace_class, at_s, works)]


def _request_work_to(trace: TokenTrace, p: AzureLlmParams) -> np.ndarray:
    """Work of each request, TO."""
    return p.tokens.work_to(trace.context_tokens, trace.generated_tokens) * p.trace_work_scale


if __name__ == "__main__":
    serve(Arrivals)
