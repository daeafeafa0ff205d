"""What the simulators share: the job classes and the sites of a fleet, and the columns of a job batch.

Both are data of a scenario (`shared.job_classes`, `shared.sites`), validated here, read by workload, aidc,
controller and metrics.

Rows: M13.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ArgsKwargs

from cosim.params import params
from cosim.simulators.aidc.gpus.types import GpuType, filled
from cosim.simulators.aidc.llm.serving import Serving
from cosim.units import MIN_S, Seconds

BATCH_COLUMNS = ("id", "job_class", "arrival_s", "work_to", "deadline_s")
"""Columns of a batch as it leaves the workload: int, str, s, TO, s (absolute). The controller adds `release_s`
(absolute, s). `deadline_s` is the last start of an inference job or an LLM request and the last finish of a training
job. Where there are classes of kind `llm`, TOKEN_COLUMNS come with them."""
TOKEN_COLUMNS = ("input_tokens", "output_tokens")
"""Tokens of a request's prompt and of its answer, 0 for jobs of other kinds."""
ORIGIN = "origin"
"""Column of a batch: the region, or the site, from which a job comes. There where a network is given (`wan`)."""


Routing = Annotated[Literal["handover", "arrival"], Field(
    description="when jobs reach a site. handover: with the decision after their arrival; arrival: as they arrive, by "
    "the shares that are in force then. The same for workload, controller and aidc, so an entry of the shared data")]


@runtime_checkable
class OffersLoad(Protocol):
    """A workload whose offered load is known before a run. A class meets it as its objects do, so it has methods
    alone: an attribute that objects get would be missing of the class."""

    @classmethod
    def offered_jobs_per_min(cls, params: Any) -> dict[str, tuple[float, float]]:
        """Class -> (jobs/min, TO/job) in the mean. ScenarioError for a trace that cannot be read."""
        ...


@runtime_checkable
class HasRates(Protocol):
    """A workload whose load can be set; one that plays a recording has none."""

    @classmethod
    def rate_fields(cls, params: Any, job_class: str | None) -> dict[str, float]:
        """Path of the field -> its value, of what scales the load of a class (None: of all)."""
        ...


@runtime_checkable
class PlaysFile(Protocol):
    """A workload from a file, of which a line before the run states what was found in it."""

    @classmethod
    def found_in_file(cls, params: Any) -> str:
        """The file, its layout, how many jobs and from when to when. ScenarioError for one that cannot be read."""
        ...


@params
class JobClass:
    """One class of AI jobs (Table I).

    A training job may use 1 to `max_blocks` blocks of `gpus_per_block` GPUs at once, and its blocks can be taken
    away and given back; an inference job takes `gpus_per_block` GPUs from start to finish. On k blocks a training job
    is s(k) times as fast as on one: k by default, k^speedup_exponent, or as tabled. Its GPUs draw full power whatever
    s(k) is, unless a `power_table` has it, so energy per unit of work rises as s(k)/k falls. A request of kind `llm`
    shares replicas of `gpus_per_block` GPUs with others, see `serving`; its work and speed follow from there, as plans
    for policies.
    """

    kind: Literal["train", "inf", "llm"]
    work_to: Annotated[float, Field(ge=1e-6, le=1e15, description="size j of one job, TO")]
    deadline_s: Annotated[Seconds, Field(gt=0, description="tau: latest finish (train) or start (inf) after arrival")]
    to_per_gpu_min: Annotated[float, Field(ge=1e-6, le=1e9, description="xi: work of one busy GPU, TO/(GPU min)")]
    kw_per_to_s: Annotated[float, Field(ge=0, le=1e6, description="alpha of (13): power per throughput, kW/(TO/s)")]
    gpus_per_block: Annotated[int, Field(ge=1, le=1_000_000, description="b of (30), GPUs")] = 1
    max_blocks: Annotated[int, Field(ge=1, le=1_000_000, description="most blocks one job uses at once")] = 1
    eligible_sites: Annotated[tuple[str, ...] | None, Field(description="sites that may run it; null: all")] = None
    patience: Annotated[
        Literal["fixed", "exponential"],
        Field(description="each job gives up after deadline_s, or after a time drawn with that mean (inf; Erlang-A)")
    ] = "fixed"
    slo_wait_s: Annotated[
        Seconds | None, Field(ge=0, description="a longer wait misses the service level (inf); null: none is set")
    ] = None
    order: Annotated[
        Literal["edf", "llf"], Field(description="who gets blocks first (train): earliest deadline or least laxity")
    ] = "edf"
    speedup_exponent: Annotated[float, Field(gt=0, le=1, description="s(k) = k^this on k blocks; 1 is linear")] = 1.0
    speedup_table: Annotated[
        tuple[float, ...] | None, Field(description="s(1) = 1, s(2), ... s(max_blocks), if not a power; null: it is")
    ] = None
    checkpoint_interval_s: Annotated[
        Seconds | None, Field(ge=0.001, description="work between two checkpoints (train); null: nothing done is "
                              "ever lost")
    ] = None
    checkpoint_cost_s: Annotated[Seconds, Field(ge=0, description="time to write one, at full power, no work done")] = 0
    restart_s: Annotated[
        Seconds, Field(ge=0, description="time at full power without work when a job that held no block goes on")
    ] = 0

    serving: Annotated[Serving | None, Field(description="model, GPUs and batching of a class of kind llm")] = None
    memory_gb: Annotated[float | None, Field(
        gt=0, le=100_000, description="memory that each of its GPUs must have, where sites have gpu_types; null: any"
    )] = None
    power_table: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...] | None, Field(
        description="power above idle of each of its GPUs on 1, 2, ... max_blocks blocks over that on one (train), "
        "where sites have gpu_types; null: always 1")] = None
    gpu_speed_ratio: Annotated[dict[str, Annotated[float, Field(gt=0, le=1000)]], Field(
        description="speed on GPU types over to_per_gpu_min, where it is not the type's speed_ratio")] = field(
        default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: Any) -> Any:
        """Of a class of kind `llm`, what follows from `serving`; given beside it, it must agree."""
        fields = given.kwargs if isinstance(given, ArgsKwargs) else given
        if not isinstance(fields, dict) or fields.get("kind") != "llm":
            return given
        if fields.get("serving") is None:
            raise ValueError("a class of kind llm needs `serving`: model, gpu and gpus of a replica")
        try:
            serving = TypeAdapter(Serving).validate_python(fields["serving"])
        except ValidationError:  # the field says it, with its place, if no other is missing
            filled = {**dict.fromkeys(("work_to", "to_per_gpu_min", "kw_per_to_s"), 1.0), **fields}
            return ArgsKwargs(given.args, filled) if isinstance(given, ArgsKwargs) else filled
        follows = {"work_to": serving.request_to(serving.input_tokens, serving.output_tokens),
                   "to_per_gpu_min": serving.to_per_gpu_min,
                   "kw_per_to_s": serving.busy_kw_per_gpu * MIN_S / serving.to_per_gpu_min,
                   "gpus_per_block": serving.gpus}
        for name, value in follows.items():
            if fields.get(name) is not None and abs(float(fields[name]) - value) > 1e-9 * value:
                raise ValueError(f"{name} = {fields[name]} of a class of kind llm follows from `serving` "
                                 f"({value:.6g}); leave it out")
        fields = {**fields, **follows, "serving": serving}
        return ArgsKwargs(given.args, fields) if isinstance(given, ArgsKwargs) else fields

    @model_validator(mode="after")
    def _kind_fits(self) -> JobClass:
        if self.kind != "llm" and self.serving is not None:
            raise ValueError(f"serving is of classes of kind llm, and kind is '{self.kind}'; leave one of them out")
        if self.kind == "llm":
            odd = [name for name, usual in (("patience", "fixed"), ("slo_wait_s", None), ("order", "edf"),
                                            ("max_blocks", 1), ("speedup_exponent", 1.0), ("speedup_table", None),
                                            ("checkpoint_interval_s", None), ("restart_s", 0), ("memory_gb", None),
                                            ("power_table", None),
                                            ("gpu_speed_ratio", {}))
                   if getattr(self, name) != usual]
            if odd:
                raise ValueError(f"a class of kind llm has no {', '.join(odd)}; leave it out (service levels: "
                                 "serving.slo_ttft_s and serving.slo_tpot_s)")
            return self
        if self.kind == "inf" and self.max_blocks != 1:
            raise ValueError("max_blocks of an inference class is 1; give it more GPUs by gpus_per_block")
        if self.kind == "inf" and self.order != "edf":
            raise ValueError(f"order of an inference class is '{self.order}', but inference is first in, first out; "
                             "leave it out")
        if self.kind == "train" and self.slo_wait_s is not None:
            raise ValueError(f"slo_wait_s of a training class is {self.slo_wait_s:g}; only inference has one")
        if self.kind == "train" and self.patience != "fixed":
            raise ValueError(f"patience of a training class is '{self.patience}', but training has a deadline; leave "
                             "it out")
        if self.kind == "inf" and (self.checkpoint_interval_s is not None or self.restart_s):
            raise ValueError("an inference class has no checkpoints and no restart_s; leave them out")
        if self.kind == "inf" and self.power_table is not None:
            raise ValueError("an inference class has no power_table, as it has no blocks; leave it out")
        if self.power_table is not None and (len(self.power_table) != self.max_blocks or self.power_table[0] != 1.0):
            raise ValueError(f"power_table = {list(self.power_table)} must start with 1 and have max_blocks = "
                             f"{self.max_blocks} entries")
        if self.checkpoint_interval_s is None and self.checkpoint_cost_s:
            raise ValueError(f"checkpoint_cost_s is {self.checkpoint_cost_s:g} without a checkpoint_interval_s; give "
                             "both")
        return self

    @model_validator(mode="after")
    def _table_is_a_speedup(self) -> JobClass:
        table = self.speedup_table
        if table is None:
            return self
        if len(table) != self.max_blocks or table[0] != 1.0:
            raise ValueError(f"speedup_table = {list(table)} must start with 1 and have max_blocks = {self.max_blocks} "
                             "entries")
        if any(not a <= b <= a * (k + 1) / k for k, (a, b) in enumerate(zip(table, table[1:], strict=False), 1)):
            raise ValueError(f"speedup_table = {list(table)} must not fall, and s(k)/k must not rise")
        return self

    def speedup(self, blocks: int) -> float:
        """s(k) of a training job on 0 to `max_blocks` blocks, in units of its speed on one; s(0) = 0."""
        if self.speedup_table is not None:
            return self.speedup_table[blocks - 1] if blocks else 0.0
        return float(blocks) if self.speedup_exponent == 1.0 else blocks**self.speedup_exponent

    def power_ratio(self, blocks: int) -> float:
        """Power above idle of each GPU of a job on so many blocks over that on one."""
        return 1.0 if self.power_table is None or not blocks else self.power_table[blocks - 1]

    def speed_to_per_s(self, blocks: int) -> float:
        """Work per s of a job that runs on so many blocks, checkpoints counted, TO/s; of inference on 0 or 1."""
        return self.speedup(blocks) * self._block_to_per_s * self.checkpoint_speed_ratio

    def most_blocks(self, site_gpus: int) -> int:
        """Blocks that one job can use at a site of so many GPUs; 0 where none fits."""
        return min(self.max_blocks, site_gpus // self.gpus_per_block)

    def top_to_per_s(self, site_gpus: int) -> float:
        """Work per s of a job on all the blocks it can use at a site of so many GPUs; 0 where none fits.

        The one measure of the shortest run, work / this: of deferrals, of slack and late jobs, and of the oracle.
        """
        return self.speed_to_per_s(self.most_blocks(site_gpus))

    @property
    def _block_to_per_s(self) -> float:
        return self.gpus_per_block * self.to_per_gpu_min / MIN_S

    @property
    def least_blocks(self) -> int:
        """Blocks that the rules grant the class at every site, with and without jobs: 0, of kind llm `min_replicas`."""
        return 0 if self.serving is None else self.serving.min_replicas

    @property
    def jobs_per_block(self) -> int:
        """Jobs that one block serves at once, as the rules plan: 1, of kind llm `Serving.planned_batch`."""
        return 1 if self.serving is None else self.serving.planned_batch

    @property
    def checkpoint_speed_ratio(self) -> float:
        """Share of the time a running job works, the rest it writes checkpoints: interval / (interval + cost), <= 1.

        The overhead of periodic checkpoints of J. W. Young, Comm. ACM 17 (1974) 530; spread evenly here.
        """
        interval_s = self.checkpoint_interval_s
        return 1.0 if interval_s is None else interval_s / (interval_s + self.checkpoint_cost_s)

    @property
    def busy_kw_per_gpu(self) -> float:
        """Power of one busy GPU above idle, kW (0.700 for every class of Table I)."""
        return self.kw_per_to_s * self.to_per_gpu_min / MIN_S

    @property
    def most_kw_per_gpu(self) -> float:
        """The most that a busy GPU draws above idle, kW: of kind llm in the batch, or the prefill, that draws most."""
        return self.busy_kw_per_gpu if self.serving is None else self.serving.most_kw_per_gpu

    def speed_on(self, gpu_type: str, figures: GpuType) -> float:
        """Speed on a GPU type over `to_per_gpu_min`, without a power limit."""
        return self.gpu_speed_ratio.get(gpu_type, figures.speed_ratio)


@params
class Site:
    """One AI data centre: where it stands on the feeder and how large it is (Table I)."""

    node: Annotated[
        Annotated[int, Field(ge=0, le=1_000_000)] | Annotated[str, Field(min_length=1, max_length=40)],
        Field(union_mode="left_to_right", description="number of its bus, counted from 0; in OpenDSS the bus's name")]
    racks: Annotated[int, Field(ge=1, le=100_000, description="racks")] = 50
    gpus_per_rack: Annotated[int, Field(ge=1, le=10_000, description="GPUs in a rack")] = 8
    idle_kw: Annotated[float, Field(ge=0, description="P_idle of (13), always drawn, kW; with gpu_types what is drawn "
                                    "beside GPUs and their hosts, 0 if it is left out")] = 100.0
    q_per_p_ratio: Annotated[float, Field(ge=-100, le=100, description="eta of (5): kvar drawn per kW")] = 0.2
    gpu_types: Annotated[dict[str, GpuType], Field(
        description="GPUs by type, racks x gpus_per_rack in sum; {}: all are alike, and idle_kw has their idle power")
    ] = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Published figures of GPU types; with types, no idle power beside them unless it is given."""
        fields = given.kwargs if isinstance(given, ArgsKwargs) else given
        if not isinstance(fields, dict) or not fields.get("gpu_types"):
            return given
        fields = {"idle_kw": 0.0, **fields, "gpu_types": filled(fields["gpu_types"])}
        return ArgsKwargs(given.args, fields) if isinstance(given, ArgsKwargs) else fields

    @model_validator(mode="after")
    def _counts_add_up(self) -> Site:
        typed = sum(t.count for t in self.gpu_types.values())
        if self.gpu_types and typed != self.gpus:
            raise ValueError(f"gpu_types have {typed} GPUs in sum, and racks x gpus_per_rack = {self.racks} x "
                             f"{self.gpus_per_rack} = {self.gpus}; make them agree")
        return self

    @property
    def gpus(self) -> int:
        """G = racks x GPUs per rack."""
        return self.racks * self.gpus_per_rack

    @property
    def reference_gpus(self) -> float:
        """GPUs of speed ratio 1 that the site's are worth."""
        return sum(t.count * t.speed_ratio for t in self.gpu_types.values()) if self.gpu_types else self.gpus

    @property
    def rest_kw(self) -> float:
        """IT power of the site without jobs, all GPUs awake, kW."""
        return self.idle_kw + sum(t.count * t.awake_kw for t in self.gpu_types.values())

    @property
    def least_kw(self) -> float:
        """The least IT power there can be, all GPUs asleep where they have types, kW."""
        return self.idle_kw + sum(t.count * min(t.asleep_kw, t.waking) for t in self.gpu_types.values())

    def above_idle_kw(self, job_classes: Iterable[JobClass]) -> float:
        """The most that GPUs draw beyond `idle_kw`, before what warm inlets add, kW."""
        if self.gpu_types:
            return sum(t.count * t.most_kw for t in self.gpu_types.values())
        return self.gpus * max((c.most_kw_per_gpu for c in job_classes), default=0.0)

    def most_kw(self, job_classes: Iterable[JobClass]) -> float:
        """The most IT power there can be, before what warm inlets add, kW."""
        return self.idle_kw + self.above_idle_kw(job_classes)

    def fitting_types(self, job_class: JobClass) -> dict[str, GpuType]:
        """GPU types whose memory is enough for a class; {} also where GPUs have no types."""
        least_gb = job_class.memory_gb or 0.0
        return {name: t for name, t in self.gpu_types.items() if t.memory_gb >= least_gb}

    def has_type_for(self, job_class: JobClass) -> bool:
        """Whether there is a type with the class's memory and a block of GPUs; True where GPUs have no types."""
        return not self.gpu_types or self.usable_gpus(job_class) > 0

    def top_to_per_s(self, job_class: JobClass) -> float:
        """Work per s of a training job on all the blocks it can use here, of GPU types on the one where it is fastest
        without a power limit; 0 where none fits, TO/s."""
        if not self.gpu_types:
            return job_class.top_to_per_s(self.gpus)
        return max((job_class.top_to_per_s(t.count) * job_class.speed_on(name, t)
                    for name, t in self.fitting_types(job_class).items()), default=0.0)

    def usable_gpus(self, job_class: JobClass) -> float:
        """GPUs of the speed that a class's `to_per_gpu_min` is for, which the site's are worth to it: those of types
        that it fits on and that have a block of it, by their speeds."""
        if not self.gpu_types:
            return self.gpus if self.gpus >= job_class.gpus_per_block else 0
        return sum(t.count * job_class.speed_on(name, t) for name, t in self.roomy_types(job_class).items())

    def eligible_gpus(self, job_class: JobClass) -> int:
        """How many these are, whatever their speed."""
        if not self.gpu_types:
            return self.gpus if self.gpus >= job_class.gpus_per_block else 0
        return sum(t.count for t in self.roomy_types(job_class).values())

    def roomy_types(self, job_class: JobClass) -> dict[str, GpuType]:
        """Types that a class fits on and that have a block of it."""
        return {name: t for name, t in self.fitting_types(job_class).items() if t.count >= job_class.gpus_per_block}


def may_run(job_class: JobClass, site: str) -> bool:
    """Whether `site` is eligible for the class."""
    return job_class.eligible_sites is None or site in job_class.eligible_sites
