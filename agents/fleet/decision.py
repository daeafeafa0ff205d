"""Facts about the fleet, observations and decisions of a policy: plain data, arrays as nested sequences.

Axes: M job classes (training and inference, in the scenario's order), Mtrain training classes (same order), N sites,
H permitted deferrals, K entries of a forecast over the horizon: horizon_steps + 1, of which entry k is what holds
k x horizon_step_s after the last multiple of horizon_step_s, and entry 0 what does now. Rows are sequences of floats; a
policy that computes with arrays converts them itself. Values are read only.

Rows: U14, U15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Vector = Sequence[float]
Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """What does not change during a run.

    kinds                  (M,) 'train' or 'inf'
    gpus                   (N,) GPUs per site
    to_per_gpu_min         (M,) work of one busy GPU, TO/(GPU min)
    work_to                (M,) nominal size of one job, TO (jobs of a scaled or traced workload differ)
    deadline_s             (M,) latest finish (train) or start (inf) after arrival, s
    gpus_per_block         (M,) GPUs per block (train) or per job (inf)
    max_blocks             (M,) blocks one job uses at most
    eligible               (M, N) which site may run which class
    deferrals_s            (H,) permitted deferrals of training jobs, ascending, s
    supply_temp_low_degc, supply_temp_high_degc   box of (24), degC
    classes, sites         (M,), (N,) their names; () if not given
    top_to_per_s           (N, M) work per s of a job on all the blocks it can use at a site, 0 where none fits, TO/s;
                           () if not given
    deferrable             (Mtrain, H) which deferrals a class has; (): all
    jobs_per_block         (M,) jobs that one block serves at once: 1, or requests of a replica of a language model;
                           (): 1 each
    least_blocks           (N, M) blocks that the rules grant a class at a site whatever there is to do; (): none
    horizon_steps, horizon_step_s   how many steps forecasts reach ahead, of which length; 0 where there are none
    gpu_shares             what learned teams decide of a site's GPUs, and who uses them: see
                           `cosim.agents.fleet.pooling`
    """

    kinds: tuple[str, ...]
    gpus: tuple[int, ...]
    to_per_gpu_min: tuple[float, ...]
    work_to: tuple[float, ...]
    deadline_s: tuple[float, ...]
    gpus_per_block: tuple[int, ...]
    max_blocks: tuple[int, ...]
    eligible: tuple[tuple[bool, ...], ...]
    deferrals_s: tuple[float, ...]
    supply_temp_low_degc: float = 18.0
    supply_temp_high_degc: float = 23.0
    classes: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    top_to_per_s: tuple[tuple[float, ...], ...] = ()
    deferrable: tuple[tuple[bool, ...], ...] = ()
    jobs_per_block: tuple[int, ...] = ()
    least_blocks: tuple[tuple[int, ...], ...] = ()
    horizon_steps: int = 0
    horizon_step_s: float = 0.0
    gpu_shares: str = "classes"

    @property
    def n_sites(self) -> int:
        """N."""
        return len(self.gpus)

    @property
    def train(self) -> tuple[int, ...]:
        """Indices of the training classes among all classes; position in it is the axis Mtrain."""
        return tuple(m for m, kind in enumerate(self.kinds) if kind == "train")

    @property
    def inf(self) -> tuple[int, ...]:
        """Indices of the inference classes among all classes."""
        return tuple(m for m, kind in enumerate(self.kinds) if kind == "inf")


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """What work costs in power, for policies with access to a model of the plant; powers are drawn (>= 0), kW.

    busy_kw_per_gpu  (M,) of one busy GPU above idle
    idle_kw          (N,) IT power that is always drawn
    site_kw          (site, IT power, supply temperature in degC) -> what the site draws; takes an array of temperatures
    """

    busy_kw_per_gpu: Vector
    idle_kw: Vector
    site_kw: Callable[[int, float, Any], Any]


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at the start of a minute, before any action.

    time_s                  start of the minute, s
    price_usd_per_kwh       electricity price now
    forecast_usd_per_kwh    (H,) price at now + each deferral
    nci_kg_per_kwh          (N,) nodal carbon intensity at each site, or None: the policy must do without
    power_kw                (N,) mean power of each site in the last minute, kW
    arrivals                (M,) jobs that arrived in the last minute
    arrivals_work_to        (M,) their work, TO
    queued_jobs, deferred_jobs, running_jobs   (N, M) jobs waiting, not yet released, running
    pending_work_to         (N, M) unfinished work of queued and running jobs, TO
    deferred_work_to        (N, M) work of jobs not yet released, TO
    late_jobs, urgent_jobs  (N, M) training jobs that miss their deadline whatever they get, and those that can wait for
                            less than an hour and still make it
    slack_min               (N,) time that training could stand still and meet its deadlines; < 0: some will be late
    free_gpu_ratio          (N,) share of idle GPUs in the last minute, 0..1
    site_carry              (M, N) jobs each site is owed by rounding; zeros when rounding keeps no state
    deferral_carry          (N, Mtrain, H) the same for release times
    deferred_by_lead        (N, Mtrain, H) jobs sent that are not yet released, by the deferral they were given
    deferred_by_time        (N, Mtrain, H) the same jobs by the time left, each in the first deferral that covers it
    mci_kg_per_kwh          (N,) marginal carbon intensity at each site; None: hidden, or not computed
    event_start_min, event_end_min   (N,) time until a site's announced demand-response event starts (0: it lasts) and
                            is over; NaN: none is announced
    event_cap_kw            (N,) what the site may draw in that event; NaN: none
    nci_forecast_kg_per_kwh, mci_forecast_kg_per_kwh   (N, K) intensities at each site over the horizon; (): hidden, or
                            none is linked
    price_forecast_usd_per_kwh, load_forecast_kw, renewable_forecast_kw   (K,) price, the feeder's base load, and what
                            renewable plants together can give over the horizon; (): none is linked
    base                    what a rule decides here, around which a team decides; None: there is no such rule
    """

    time_s: float
    price_usd_per_kwh: float
    forecast_usd_per_kwh: Vector
    nci_kg_per_kwh: Vector | None
    power_kw: Vector
    arrivals: Sequence[int]
    arrivals_work_to: Vector
    queued_jobs: Matrix
    deferred_jobs: Matrix
    running_jobs: Matrix
    pending_work_to: Matrix
    deferred_work_to: Matrix
    free_gpu_ratio: Vector
    site_carry: Matrix
    deferral_carry: Sequence[Matrix]
    mci_kg_per_kwh: Vector | None = None
    late_jobs: Matrix = ()
    urgent_jobs: Matrix = ()
    slack_min: Vector = ()
    deferred_by_lead: Sequence[Matrix] = ()
    deferred_by_time: Sequence[Matrix] = ()
    event_start_min: Vector = ()
    event_end_min: Vector = ()
    event_cap_kw: Vector = ()
    nci_forecast_kg_per_kwh: Matrix = ()
    mci_forecast_kg_per_kwh: Matrix = ()
    price_forecast_usd_per_kwh: Vector = ()
    load_forecast_kw: Vector = ()
    renewable_forecast_kw: Vector = ()
    base: Decision | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Decisions of the sites' agents after the jobs have been placed, (28).

    deferral_share    (N, Mtrain, H) share of this minute's training jobs per release time, rows sum to 1
    gpu_share         (N, M) share of the site's GPUs per class, rows sum to at most 1 (29)
    supply_temp_degc  (N,) supply air temperature, degC
    """

    deferral_share: Sequence[Matrix]
    gpu_share: Matrix
    supply_temp_degc: Vector


@dataclass(frozen=True, slots=True)
class Decision:
    """A whole joint action: the manager's shares (26) and the sites' operation (28).

    site_share   (M, N) share of each class's jobs per site, rows on the simplex over eligible sites
    operation    see Operation
    """

    site_share: Matrix
    operation: Operation


class Policy(Protocol):
    """Interface of a policy. Decisions follow the paper's order: the manager's first, then the sites', given the
    manager's.

    Jobs are whole, shares are not: between the two calls the caller turns shares into jobs.
    """

    needs_nci: bool
    """Whether the policy requires carbon intensities."""

    def place(self, observation: Observation) -> Matrix:
        """(M, N) share of each class's jobs per site, rows on the simplex over eligible sites."""
        ...

    def operate(self, observation: Observation, allocated_jobs: Sequence[Sequence[float]],
                allocated_work_to: Matrix) -> Operation:
        """The sites' actions, given the jobs (N, M) and their work (N, M), TO, that the manager sent them."""
        ...


def decide(policy: Policy, observation: Observation) -> Decision:
    """Both stages with fractions of jobs instead of whole ones: share times arrivals goes to each site."""
    share = policy.place(observation)
    n_sites = len(observation.power_kw)
    jobs = [[row[i] * n for row, n in zip(share, observation.arrivals, strict=True)] for i in range(n_sites)]
    work = [[row[i] * w for row, w in zip(share, observation.arrivals_work_to, strict=True)] for i in range(n_sites)]
    return Decision(share, policy.operate(observation, jobs, work))
