"""What no policy can beat on the arrivals of a run: lower bounds of cost, carbon and energy, and an upper one of (32).

From a trace: its jobs, prices, base load and sources, with perfect knowledge of all of them (the linear program of
`cosim.agents.fleet.bounding`). Two kinds of what is known of carbon:

open loop     the grid was played: NCI is as recorded, whatever the load, and the bound counts it
closed loop   NCI answers to load. It is a mix of the sources' intensities, so no lower than that of the cleanest source
              that has power to give; this alone is counted. Of all sources: no kWh is cleaner than what is taken from
              upstream in its place, so that a kWh less saves at most the substation's intensity

Not counted: what waits cost (c6), which only makes (32) less; and intervals that a grid without a solution repeats from
the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cosim.agents.fleet.bounding import FluidJobs, least_cost
from cosim.agents.fleet.fluid import lower_hull, possible_gpu_h, required_gpu_h, thinned
from cosim.agents.fleet.planning import Fleet
from cosim.agents.fleet.rewards import OBJECTIVE, RewardWeights
from cosim.agents.fleet.worth import worth_of_kwh
from cosim.errors import ModelError, ScenarioError
from cosim.params import validate
from cosim.simulators.aidc.adapter import AidcParams
from cosim.simulators.aidc.equations import cooling_power_kw, distribution_loss_kw
from cosim.simulators.aidc.plant.cooling import Cooling, cop, supply_limits_degc
from cosim.simulators.analysis.flows import demand, read_flows
from cosim.simulators.analysis.paths import GRID, PRICE, SITE, SITE_PRICE
from cosim.simulators.analysis.site_series import intensity_of
from cosim.simulators.fleet import JobClass, may_run
from cosim.trace import Trace
from cosim.trace.series import PLAYERS, rows_at, scenario_of
from cosim.units import HOUR_S, KG_PER_T, KW_PER_MW, MIN_PER_H

SLOT_S = 900.0
CLOCK_S = 1.0
"""What the clock of the data centers may round a deadline by, and more."""
_POINTS = 4001
_SOLVER_RATIO = 1e-6
_GIVEN = (*PLAYERS, "cosim.simulators.grid.series:IntensitySeries")
"""Grids whose intensities do not answer to load."""
_KNOWN = (":DataCenters", ":CappedDataCenters")


@dataclass(frozen=True)
class _Relaxed:
    """hours (T,), begin_s (T,) of the slots; the fleet, and classes without their costs."""

    hours: np.ndarray
    begin_s: np.ndarray
    fleet: Fleet
    classes: Mapping[str, tuple[JobClass, FluidJobs, float]]


def check(members: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """ScenarioError for data centers and classes of other kinds than the bound is for. members: of a scenario, by
    name; rows: its job classes."""
    kind = members["aidc"].simulator if "aidc" in members else "not there"
    if not kind.endswith(_KNOWN):
        raise ScenarioError(f"--bound knows the work of {' and '.join(k[1:] for k in _KNOWN)}, and member 'aidc' is "
                            f"{kind}; leave it out")
    llm = [name for name, row in rows.items() if row.get("kind") == "llm"]
    if llm:
        raise ScenarioError(f"--bound counts no serving of language models, and {llm[0]} is of kind llm; leave it out")
    if members["aidc"].params.get("batteries"):
        raise ScenarioError("--bound counts no battery behind a meter, and aidc.batteries has some: --set "
                            "aidc.batteries={}, or leave it out")


def bounds(trace: Trace, open_loop: bool, days: float) -> dict[str, float]:
    """Metric of `cosim.agents.comparison` -> bound per day of arrivals, of those that have one; NaN where none is known
    or not all jobs can be done. Call `check` before."""
    world, scenario = _world(trace), scenario_of(trace)
    open_loop = open_loop or str(scenario["members"].get("grid", {}).get("simulator")) in _GIVEN
    n = len(world.fleet.gpus)
    price = np.broadcast_to(_least(trace, PRICE, world, 0), (n, len(world.hours)))
    carbon = _carbon(trace, world, open_loop, "nci_kg_per_kwh")
    given = scenario["members"]["controller"]["params"]
    weights = validate(RewardWeights, given.get("reward", {}), "controller.reward", bounded=False)
    joint = given.get("mode", "joint") == "joint" and weights.c3_per_t > 0.0
    counted = carbon if weights.carbon == "attributed" else (
        _carbon(trace, world, True, "mci_kg_per_kwh") if weights.carbon == "marginal" and open_loop else None)
    found = dict.fromkeys((OBJECTIVE, "cost_usd", "co2_t", "system_co2_t", "energy_mwh"), math.nan)
    if not joint or counted is not None:
        worth = worth_of_kwh(weights, price, counted if joint and counted is not None else np.zeros(price.shape))
        found[OBJECTIVE] = -_least_cost(world, worth, weights) / days
    for name, worth, per in (("cost_usd", _site_prices(trace, world, price), 1.0), ("co2_t", carbon, KG_PER_T),
                             ("energy_mwh", np.ones(price.shape), KW_PER_MW)):
        if worth is not None:
            found[name] = _least_cost(world, worth, None) / per / days
    if not open_loop and (system := _upstream(trace, world)) is not None:
        kg_per_kwh, rest_kg = system
        found["system_co2_t"] = (_least_cost(world, np.broadcast_to(kg_per_kwh, price.shape), None) + rest_kg
                                 ) / KG_PER_T / days
    return found


# --- the jobs and the fleet -----------------------------------------------------------------------------------------


def _world(trace: Trace) -> _Relaxed:
    scenario = scenario_of(trace)
    member = scenario["members"]["aidc"]
    shared = {name: scenario["shared"][name] for name in ("job_classes", "sites")}
    aidc = validate(AidcParams, {**shared, **member["params"]}, "aidc", bounded=False)
    end_s = float(trace.attrs["until_s"])
    edges = np.append(np.arange(0.0, end_s, SLOT_S), end_s)
    hours, end_h = np.diff(edges) / HOUR_S, edges[1:] / HOUR_S
    top_kw = max(c.busy_kw_per_gpu for c in aidc.job_classes.values())
    fleet = _fleet(aidc, top_kw)
    jobs = trace.table("jobs")
    classes = {}
    for name, c in aidc.job_classes.items():
        mine = jobs["job_class"] == name
        speeds = [c.top_to_per_s(s.gpus) for site, s in aidc.sites.items() if may_run(c, site)]
        gpus = max(speeds, default=0.0) * 60.0 / c.to_per_gpu_min
        if mine.any() and gpus:
            classes[name] = (c, *_class(jobs, mine, c, gpus, end_h, [may_run(c, site) for site in aidc.sites]))
    return _Relaxed(hours, edges[:-1], fleet, classes)


def _class(jobs: Mapping[str, np.ndarray], mine: np.ndarray, c: JobClass, gpus: float, end_h: np.ndarray,
           eligible: list[bool]) -> tuple[FluidJobs, float]:
    """The jobs of a class, and the largest of them, GPU-h."""
    work = jobs["work_to"][mine] / (c.to_per_gpu_min * MIN_PER_H)
    most = np.full(len(work), gpus)
    due_h = (jobs["deadline_s"][mine] + CLOCK_S) / HOUR_S
    if c.kind == "inf":  # it need only start by then
        due_h = due_h + work / gpus
    tiny = 1e-9 * work.sum()
    possible = possible_gpu_h(work, most, jobs["arrival_s"][mine] / HOUR_S, end_h) + tiny
    required = np.maximum(required_gpu_h(work, most, due_h, end_h) - tiny, 0.0)
    return FluidJobs(c.busy_kw_per_gpu, eligible, possible, required), float(work.max())


def _fleet(aidc: AidcParams, top_kw: float) -> Fleet:
    """Sites with power from below: at the supply air at which the plant draws least, without what servers need more as
    it is warm; of a plant that depends on outside air, or a room that takes time, no less than IT power and losses."""
    gpus, idle, cuts, full = [], [], [], []
    for name, site in aidc.sites.items():
        cooling = aidc.site_cooling.get(name, aidc.cooling)
        steady = (aidc.thermal == "static" and aidc.ambient is None and name not in aidc.site_ambient
                  and cooling.wet_bulb_degc is None)
        high_kw = site.idle_kw + site.gpus * top_kw
        it = np.linspace(site.idle_kw, high_kw, _POINTS)
        least = _least_kw(it, cooling) if steady else it + distribution_loss_kw(it, cooling)
        below = np.append(least[0], least[:-1])  # at most what is drawn anywhere between a point and the one before
        gpus.append(float(site.gpus))
        idle.append(site.idle_kw)
        cuts.append(thinned(*lower_hull(it, below)) if high_kw > site.idle_kw else [(0.0, float(least[0]))])
        full.append(_most_kw(high_kw, cooling))
    return Fleet(np.array(gpus), np.array(idle), cuts, np.array(full))


def _least_kw(it_kw: np.ndarray, cooling: Cooling) -> np.ndarray:
    """What a plant without outside air draws at the highest COP that the supply air allows."""
    a, b, _ = cooling.cop
    low, high = supply_limits_degc(cooling)
    inner = [t for t in ((-b / (2.0 * a),) if a else ()) if low < t < high]
    best = max((low, high, *inner), key=lambda t: cop(t, cooling.cop))
    plain = replace(cooling, server_leakage_per_k=0.0, server_fan_ratio=0.0)
    _, chiller_kw, tower_kw = cooling_power_kw(it_kw, best, plain)
    return it_kw + chiller_kw + tower_kw + distribution_loss_kw(it_kw, plain)


def _most_kw(it_kw: float, cooling: Cooling) -> float:
    """More than a site can draw at full IT power; it counts where energy is worth less than nothing."""
    worst = 1.0 + cooling.server_leakage_per_k * 100.0 + cooling.server_fan_ratio * (
        1.0 + 100.0 * cooling.server_fan_speed_per_k) ** 3
    it_kw = it_kw * worst
    low, high = supply_limits_degc(cooling)
    cooled = [sum(cooling_power_kw(it_kw, t, cooling)[1:]) for t in np.linspace(low, high, 21).tolist()]
    return 2.0 * (it_kw + max(cooled) + distribution_loss_kw(it_kw, cooling))


# --- the signals ----------------------------------------------------------------------------------------------------


def _least(trace: Trace, path: str, world: _Relaxed, column: int) -> np.ndarray:
    """(T,) the lowest value of a port in each slot."""
    times, values = trace.time_s(path.rpartition("/")[0]), np.nan_to_num(trace[path][:, column])
    ends = world.begin_s + world.hours * HOUR_S
    first, last = np.maximum(rows_at(times, world.begin_s), 0), np.searchsorted(times, ends, side="left")
    return np.array([values[a:max(b, a + 1)].min() for a, b in zip(first, last, strict=True)])


def _site_prices(trace: Trace, world: _Relaxed, common: np.ndarray) -> np.ndarray:
    """(N, T) lowest price at each site in each slot; the common one where sites have none of their own."""
    model = SITE_PRICE.rpartition("/")[0]
    if model not in trace.models() or not trace.has(SITE_PRICE):
        return common
    theirs = trace.names(model)
    return np.array([_least(trace, SITE_PRICE, world, theirs.index(name)) if name in theirs else common[k]
                     for k, name in enumerate(trace.names(SITE))])


def _carbon(trace: Trace, world: _Relaxed, open_loop: bool, port: str) -> np.ndarray | None:
    """(N, T) an intensity that no kWh of a site is below in a slot, kg/kWh; None where it is not known."""
    if open_loop:
        places = [intensity_of(trace, name, port) for name in trace.names(SITE)]
        if any(place is None for place in places):
            return None
        return np.array([_least(trace, place[0], world, place[1]) for place in places if place is not None])
    sources = _sources(trace)
    if sources is None:
        return None
    kg_per_kwh, p_max_kw = sources
    cleanest = np.where(p_max_kw > 0.0, kg_per_kwh, np.inf).min(axis=1)
    if _batteries(trace):  # what they give is a mix of all that they took
        starts = [b.get("start_kg_per_kwh", 0.0) or 0.0 for b in _batteries(trace).values()]
        cleanest = np.minimum(np.minimum.accumulate(cleanest), min(starts))
    return np.broadcast_to(_at_slots(trace, world, cleanest), (len(world.fleet.gpus), len(world.hours)))


def _upstream(trace: Trace, world: _Relaxed) -> tuple[np.ndarray, float] | None:
    """(T,) intensity of the substation, and the least emission of all sources beyond that of the data centers' energy
    at it, kg: the base load at the substation's, less what cleaner sources could spare. None where it is not known."""
    sources = _sources(trace)
    if sources is None or _batteries(trace):
        return None
    kg_per_kwh, p_max_kw = sources
    unlimited = np.flatnonzero(np.isinf(p_max_kw).all(axis=0))
    base = demand(trace)
    if len(unlimited) != 1 or base.error.any() or not base.known.all() or np.isinf(p_max_kw).sum() != len(p_max_kw):
        return None
    here = kg_per_kwh[:, unlimited[0]]
    if (here < 0.0).any():
        return None
    spared, most_kw = (np.delete(x, unlimited, axis=1) for x in (here[:, None] - kg_per_kwh, p_max_kw))
    others = (np.maximum(spared, 0.0) * most_kw).sum(axis=1)
    rest_kg_per_h = here * (base.total - base.of_sites).sum(axis=1) - others
    time_s = np.append(trace.time_s(GRID), float(trace.attrs["until_s"]))
    return _at_slots(trace, world, here), float(rest_kg_per_h @ np.diff(time_s) / HOUR_S)


def _sources(trace: Trace) -> tuple[np.ndarray, np.ndarray] | None:
    """(interval, source) intensities, and the most each can give, kW, infinite where it has no limit; None for another
    grid than the dispatch of a run."""
    member = scenario_of(trace)["members"].get("grid", {})
    if not str(member.get("simulator", "")).endswith(":CefDispatch"):
        return None
    flows = read_flows(trace)
    names = [str(x) for x in trace.table("grid.sources")["name"]][: flows.n_source]
    kg_per_kwh = flows.kg_per_kwh[:, : flows.n_source]
    if trace.has(f"{GRID}/source_p_max_kw"):
        p_max = trace[f"{GRID}/source_p_max_kw"][:, 0]
        return kg_per_kwh, np.where(np.isnan(p_max), np.inf, p_max)
    given: Mapping[str, Any] = member["params"].get("sources", {})
    p_max_kw = [given[name].get("p_max_kw") if name in given else math.inf for name in names]
    most = np.array([math.inf if p is None else float(p) for p in p_max_kw])
    return kg_per_kwh, np.broadcast_to(most, kg_per_kwh.shape)


def _batteries(trace: Trace) -> Mapping[str, Any]:
    found = scenario_of(trace)["members"]["grid"]["params"].get("batteries", {})
    return found if isinstance(found, Mapping) else {}


def _at_slots(trace: Trace, world: _Relaxed, values: np.ndarray) -> np.ndarray:
    """(T,) the lowest of values by the grid's interval (interval,) in each slot."""
    times, ends = trace.time_s(GRID), world.begin_s + world.hours * HOUR_S
    first, last = np.maximum(rows_at(times, world.begin_s), 0), np.searchsorted(times, ends, side="left")
    return np.array([values[a:max(b, a + 1)].min() for a, b in zip(first, last, strict=True)])


def _least_cost(world: _Relaxed, worth: np.ndarray, weights: RewardWeights | None) -> float:
    """The bound; weights: of drops and work done, None: all has to be done. NaN where it cannot be."""
    classes = []
    for c, jobs, largest in world.classes.values():
        if weights is not None:
            drop = weights.c4_per_train_job if c.kind == "train" else weights.c5_per_inf_job
            done = weights.c1_per_reference * c.to_per_gpu_min * MIN_PER_H / weights.reference_to_per_min
            jobs = replace(jobs, drop_cost=drop / largest, done_worth=done)
        classes.append(jobs)
    try:
        cost = least_cost(world.hours, worth, world.fleet, classes)
    except ModelError:
        return math.nan
    return cost - _SOLVER_RATIO * abs(cost)
