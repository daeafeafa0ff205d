"""Conservation laws checked from a trace alone: no job, work, energy or carbon appears or is lost.

Each law is one function of the trace that gives the largest deviation from it; a law whose data the trace does not
hold (of a foreign grid, say) is named as not checked, with the reason, and so is what was recorded and is part of no
law. The laws themselves are in `balance` (power and carbon at buses), `instants` (air, single jobs), `derived` (figures
that follow from others), `carbon_beside` (a `CarbonFlow`) and here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cosim.digest import Digest, Table
from cosim.errors import TraceError, first_line
from cosim.replay.recording import end_s
from cosim.simulators.aidc.equations import air_kw_per_k, air_temperatures_degc, it_at_inlet_kw
from cosim.simulators.analysis import network
from cosim.simulators.analysis.air_and_times import air, cooling_parts, deadlines, job_times
from cosim.simulators.analysis.balance import (
    Finding,
    NothingToCheck,
    bus_carbon,
    bus_demand,
    bus_power,
    carbon_total,
    curtailed,
    dead_buses,
    emission,
    line_ends,
    voltages,
    within_what_is_there,
)
from cosim.simulators.analysis.bill import bill
from cosim.simulators.analysis.carbon_flow import carbon_beside
from cosim.simulators.analysis.cooling import coolings, has_inertia, needs_sites, room_degc, served_degc
from cosim.simulators.analysis.declared import declared_carbon, declared_power, declared_range
from cosim.simulators.analysis.derived import (
    backlog,
    cost,
    missed_work,
    plant,
    realised,
    site_ratios,
    unserved,
    violations,
)
from cosim.simulators.analysis.flexibility import calls, caps
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.forecasts import forecasts
from cosim.simulators.analysis.gpu_states import above_idle_kw, has_types, limits, states, work_done
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.secondary import base_load, gpu_time, marginal, waiting_jobs
from cosim.simulators.analysis.serving_laws import gaps, request_times, serving_energy, tokens
from cosim.simulators.analysis.serving_limits import power_limits
from cosim.simulators.analysis.site_batteries import facility_kw, site_battery_energy
from cosim.simulators.analysis.storage import battery_carbon, battery_energy
from cosim.simulators.analysis.tracked_trace import TrackedTrace
from cosim.simulators.fleet import JobClass, Site
from cosim.trace import Trace
from cosim.trace.series import PLAYERS, played_from_s, scenario_of, standing, step_s

RELATIVE, EXACT = 1e-9, 0.0


def verify(trace: Trace) -> Digest:
    """All laws: a table (law, largest deviation, tolerance, holds), what could not be checked and why, and the names of
    the laws that are broken."""
    digest = Digest()
    rows: list[tuple[str, ...]] = []
    silent: dict[str, list[str]] = {}
    watched = TrackedTrace(trace)
    for name, tolerance, law in LAWS:
        try:
            found = law(watched)
        except NothingToCheck as err:
            watched.keep()
            rows.append((name, "-", "-", str(err)))
            continue
        except TraceError as err:
            watched.forget()
            silent.setdefault(str(err).removeprefix(f"{trace.path}: "), []).append(name)
            rows.append((name, "-", "-", "not checked"))
            continue
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as err:
            watched.forget()  # of numbers that no run writes: a scenario of other sites, a text in a column of numbers
            reason = f"what it needs does not fit together ({type(err).__name__}: {first_line(err, 60)})"
            silent.setdefault(reason, []).append(name)
            rows.append((name, "-", "-", "not checked"))
            continue
        watched.forget() if law is _summary else watched.keep()
        if not isinstance(found, Finding):
            found = Finding(found, tolerance)
        holds = found.worst <= found.allowed  # NaN does not
        rows.append((name, f"{found.worst:.1e}", f"{found.allowed:.0e}", "holds" if holds else "BROKEN"))
        for reason in found.left_out:
            silent.setdefault(reason, [])
        if not holds:
            digest.broken.append(f"{name}: off by {found.worst:.3g}, allowed {found.allowed:.3g}"
                                 + (f" ({found.where})" if found.where else ""))
    if unread := watched.unread():
        silent.setdefault(f"recorded, and part of no law: {unread}", [])
    digest.tables.append(Table("Conservation laws", ("law", "deviation", "allowed", ""), rows, note="\n".join(
        "not checked: " + (f"{' | '.join(laws)}: {reason}" if laws else reason) for reason, laws in silent.items())))
    return digest


def _jobs_every_minute(trace: Trace) -> float:
    needs_sites(trace)
    change = trace[f"{SITE}/received_jobs"] - trace[f"{SITE}/finished_jobs"] - trace[f"{SITE}/dropped_jobs"]
    inside = sum(trace[f"{SITE}/{k}_jobs"] for k in ("queued", "deferred", "running"))
    return largest(change.cumsum(axis=0) - inside)


def _jobs_reach_a_site(trace: Trace) -> float:
    needs_sites(trace)
    arrived = trace["workload/Arrivals/arrived_jobs"][:, 0]
    received = trace[f"{SITE}/received_jobs"].sum(axis=1)
    both = min(len(arrived), len(received))
    return largest(arrived[:both] - received[:both])


def _rows_match_counts(trace: Trace) -> float:
    """Rows of the job table against the minutes' counts, per site, class and outcome."""
    jobs, minutes = _whole_jobs(trace)
    worst = 0.0
    counts = {outcome: trace[f"{SITE}/{outcome}_jobs"][:minutes].sum(axis=0) for outcome in ("finished", "dropped")}
    if minutes == len(trace.time_s(SITE)):
        counts["unfinished"] = sum(trace[f"{SITE}/{k}_jobs"][-1] for k in ("queued", "deferred", "running"))
    for outcome, per_site in counts.items():
        for s, site in enumerate(trace.names(SITE)):
            for c, job_class in enumerate(trace.names(SITE, "job_class")):
                rows = ((jobs["outcome"] == outcome) & (jobs["site"] == site) & (jobs["job_class"] == job_class)).sum()
                worst = max(worst, abs(float(rows) - float(per_site[s, c])))
    return worst


def _work(trace: Trace) -> float:
    jobs = _jobs_to_the_end(trace)
    done = trace[f"{SITE}/work_to"].sum()
    undone = trace[f"{SITE}/failed_work_to"].sum() if trace.has(f"{SITE}/failed_work_to") else 0.0
    return abs(done - undone - jobs["done_to"].sum()) / max(done, 1.0)


def _finished_work(trace: Trace) -> float:
    jobs = _jobs(trace)
    finished = jobs["outcome"] == "finished"
    if not finished.any():
        raise NothingToCheck("no job has finished")
    return _relative(jobs["done_to"][finished], jobs["work_to"][finished])


def _served_work(trace: Trace) -> float:
    jobs, minutes = _whole_jobs(trace)
    if not trace.has(f"{SITE}/finished_work_to"):
        raise NothingToCheck("the trace has no finished_work_to")
    whole = jobs["work_to"][jobs["outcome"] == "finished"].sum()
    return abs(trace[f"{SITE}/finished_work_to"][:minutes].sum() - whole) / max(whole, 1.0)


def _missed_work(trace: Trace) -> float:
    return missed_work(trace, *_whole_jobs(trace))


def _left_work(trace: Trace) -> float:
    """Work taken on = work of finished jobs + of dropped jobs + done of unfinished ones + left of them at the end."""
    jobs = _jobs_to_the_end(trace)
    left = sum(trace[f"{SITE}/{name}_work_to"][-1].sum() for name in ("pending", "deferred"))
    over = jobs["outcome"] != "unfinished"
    accounted = jobs["work_to"][over].sum() + jobs["done_to"][~over].sum() + left
    return abs(accounted - jobs["work_to"].sum()) / max(jobs["work_to"].sum(), 1.0)


def _it_energy(trace: Trace) -> float:
    """(13): idle power all the time, and a busy GPU's power (alpha x its speed) for as long as it is busy, of language
    models what their replicas draw, with GPU types what these draw by their states; more where inlets are warm."""
    needs_sites(trace)
    shared = scenario_of(trace)["shared"]
    classes = [JobClass(**shared["job_classes"][n]) for n in trace.names(SITE, "job_class")]
    idle_kw = np.array([Site(**shared["sites"][n]).idle_kw for n in trace.names(SITE)])
    by_hand = idle_kw + trace[f"{SITE}/busy_gpus"] @ np.array([0.0 if c.kind == "llm" else c.busy_kw_per_gpu
                                                             for c in classes])
    if has_types(trace):
        by_hand = idle_kw + above_idle_kw(trace)
    if trace.has(f"{SITE}/llm_dynamic_kw"):
        by_hand = by_hand + trace[f"{SITE}/llm_dynamic_kw"].sum(axis=2)
    supply_degc = served_degc(trace)
    for k, cooling in enumerate(coolings(trace)):
        by_hand[:, k] = it_at_inlet_kw(by_hand[:, k], supply_degc[:, k], cooling)
    return _relative(trace[f"{SITE}/it_kw"], by_hand)


def _heat(trace: Trace) -> float:
    """Heat given off = heat removed + heat stored in the room, every tick, over the heat given off."""
    needs_sites(trace)
    removed_kw, it_kw = trace[f"{SITE}/heat_removed_kw"], trace[f"{SITE}/it_kw"]
    warmer_k = np.diff(room_degc(trace), axis=0) if has_inertia(trace) else np.zeros_like(it_kw)
    worst = 0.0
    for k, cooling in enumerate(coolings(trace)):
        given_kw = air_kw_per_k(cooling) * air_temperatures_degc(it_kw[:, k], 0.0, cooling)[1]
        given_kw = np.maximum(given_kw, 0.0)
        stored_kw = cooling.heat_capacity_kj_per_k * warmer_k[:, k] / step_s(trace, "aidc")
        worst = max(worst, largest((removed_kw[:, k] + stored_kw - given_kw) / np.maximum(given_kw, 1.0)))
    return worst


def _power_adds_up(trace: Trace) -> float:
    needs_sites(trace, simulated=False)
    parts = trace[f"{SITE}/it_kw"] + trace[f"{SITE}/cooling_kw"]
    if trace.has(f"{SITE}/loss_kw"):
        parts = parts + trace[f"{SITE}/loss_kw"]
    return _relative(facility_kw(trace), parts)


def _windows(trace: Trace) -> float:
    """Power passed to the grid against the mean of the minutes of its step, in every minute that has so many before
    it."""
    needs_sites(trace)
    members = scenario_of(trace)["members"]
    if "grid" not in members:
        raise TraceError(f"{trace.path}: no grid in the scenario")
    window_s = float(members["aidc"]["params"].get("window_s") or step_s(trace, "grid"))
    count = round(window_s / step_s(trace, "aidc"))
    p_kw = trace[f"{SITE}/p_kw"]
    if len(p_kw) < count:
        raise TraceError(f"{trace.path}: the run is shorter than a step of the grid")
    means = sliding_window_view(p_kw, count, axis=0).mean(axis=-1)
    return _relative(trace[f"{SITE}/p_window_kw"][count - 1:], means)


def _reactive(trace: Trace) -> float:
    """(5): reactive power, of the minute and of the window, is each site's ratio times its active power."""
    needs_sites(trace, simulated=False)
    shared = scenario_of(trace)["shared"]
    ratio = np.array([Site(**shared["sites"][n]).q_per_p_ratio for n in trace.names(SITE)])
    return max(_relative(trace[f"{SITE}/q{of}_kvar"], ratio * trace[f"{SITE}/p{of}_kw"]) for of in ("", "_window"))


def _pue(trace: Trace) -> float:
    needs_sites(trace, simulated=False)
    it_kw = trace[f"{SITE}/it_kw"]
    on = it_kw > 0.0
    return _relative(trace[f"{SITE}/pue_cooling"][on], 1.0 + trace[f"{SITE}/cooling_kw"][on] / it_kw[on])


def _capacity(trace: Trace) -> float:
    needs_sites(trace)
    shared = scenario_of(trace)["shared"]
    gpus = np.array([Site(**shared["sites"][n]).gpus for n in trace.names(SITE)])
    return max(0.0, float((trace[f"{SITE}/busy_gpus"].sum(axis=2) / gpus - 1.0).max(initial=0.0)))


def _summary(trace: Trace) -> Finding:
    """Figures of the run's summary against those of its series, relative."""
    hook = scenario_of(trace).get("summary")
    ended = trace.attrs["status"] == "completed" and "summary" in trace.attrs
    if not ended or hook != f"{summary.__module__}:{summary.__name__}":
        raise TraceError(f"{trace.path}: the run has no summary by {summary.__module__}")
    said, found = Digest.from_json(str(trace.attrs["summary"])).figures, summary(trace).figures
    off = {name: abs(said[name] - found[name]) / max(abs(found[name]), 1e-9) for name in said.keys() & found.keys()
           if not (np.isnan(said[name]) and np.isnan(found[name]))}
    other = sorted(said.keys() ^ found.keys())
    left_out = (f"{', '.join(other)} of the summary, which another version works out",) if other else ()
    return Finding(max(off.values(), default=0.0), RELATIVE, max(off, key=off.__getitem__, default=""), left_out)


def _recordings(trace: Trace) -> Finding:
    """Outputs of each played member against its recording at the instants from which it is played."""
    scenario, off = scenario_of(trace), {}
    played = {name: spec["params"] for name, spec in scenario["members"].items() if spec["simulator"] == PLAYERS[0]}
    if not played:
        raise NothingToCheck("nothing is played from a trace")
    for name, given in played.items():
        with Trace(str(given["path"])) as then:
            from_s = played_from_s(then, float(scenario.get("warmup_s", 0.0)))
            for model in (m for m in trace.models() if m.split("/")[0] == name):
                theirs = f"{given['member']}/{model.split('/')[1]}"
                times = trace.time_s(model) + from_s
                there = times < end_s(then, theirs, step_s(trace, name))
                at = [then.names(theirs).index(eid) for eid in trace.names(model)]
                for port in trace.ports(model):
                    expected = standing(then, f"{theirs}/{port}", times[there])[:, at]
                    found = trace[f"{model}/{port}"][there]
                    same = np.isnan(found) & np.isnan(expected)
                    off[f"{model}/{port}"] = largest(np.where(same, 0.0, found - expected))
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], EXACT, worst)


def _whole_jobs(trace: Trace) -> tuple[dict[str, np.ndarray], int]:
    """The job table, and how many of the minutes it goes with; TraceError where rows of these are missing.

    A run that was stopped inside a step has jobs of a minute that is not recorded: its last recorded one, and rows that
    end later, are left out.
    """
    needs_sites(trace, simulated=False)
    if trace.attrs["status"] == "running":
        raise TraceError(f"{trace.path}: the run was cut off before its last jobs were written")
    if trace.attrs.get("lost"):
        raise TraceError(f"{trace.path}: rows are missing ({trace.attrs['lost']})")
    times, jobs = trace.time_s(SITE), _jobs(trace)
    if trace.attrs["status"] == "completed":
        return jobs, len(times)
    whole, ended_s = len(times) - 1, float(times[-1])
    early = (jobs["outcome"] == "unfinished") | (jobs["end_s"] <= ended_s)
    return {name: column[early] for name, column in jobs.items()}, whole


def _jobs_to_the_end(trace: Trace) -> dict[str, np.ndarray]:
    """The job table of a run whose last recorded minute is its end; TraceError for any other."""
    jobs, minutes = _whole_jobs(trace)
    if minutes < len(trace.time_s(SITE)):
        raise TraceError(f"{trace.path}: the run was stopped inside a minute, whose work is part of the jobs' alone")
    return jobs


def _jobs(trace: Trace) -> dict[str, np.ndarray]:
    jobs = trace.table("jobs")
    if not jobs:
        raise TraceError(f"{trace.path}: no job table")
    return jobs


def _relative(value: np.ndarray, by_hand: np.ndarray) -> float:
    """The largest deviation, over what it should be; of what should be next to nothing, as it is."""
    if not value.size:
        raise TraceError("nothing to compare")
    return largest((value - by_hand) / np.maximum(np.abs(by_hand), 1e-3))


LAWS: tuple[tuple[str, float, Callable[[Trace], float | Finding]], ...] = (
    ("arrived = queued + deferred + running + finished + dropped, every minute", EXACT, _jobs_every_minute),
    ("every arrival reaches one site in its minute", EXACT, _jobs_reach_a_site),
    ("job rows = counted outcomes, per site and class", EXACT, _rows_match_counts),
    ("work of the minutes = work of the jobs + undone by failures (relative)", RELATIVE, _work),
    ("a finished job has all its work done (relative)", RELATIVE, _finished_work),
    ("work served in the minutes = work of the finished jobs (relative)", RELATIVE, _served_work),
    ("work missed in the minutes = done of the dropped jobs (relative)", RELATIVE, _missed_work),
    ("work taken on = of ended jobs + done and left of unfinished (relative)", RELATIVE, _left_work),
    ("IT power = idle + busy GPUs x their power, (13) (relative)", RELATIVE, _it_energy),
    ("power = IT + cooling + losses, (12) (relative)", RELATIVE, _power_adds_up),
    ("heat given off = removed + stored in the room, (19)-(21) (relative)", RELATIVE, _heat),
    ("inlets, outlets and return air at supply air and IT power, (19)-(21) (K)", EXACT, air),
    ("cooling = chiller + tower (relative)", EXACT, cooling_parts),
    ("chiller (22), tower (23), losses, water, heat imbalance (relative)", RELATIVE, plant),
    ("PUE = power / IT; shares and GPUs up within their range (relative)", RELATIVE, site_ratios),
    ("backlog = queued + deferred", EXACT, backlog),
    ("deadline = arrival + the time its class allows (relative)", RELATIVE, deadlines),
    ("jobs arrive, are released, start, end in order, and keep deadlines (s)", EXACT, job_times),
    ("power told to the grid = mean of its minutes (relative)", RELATIVE, _windows),
    ("reactive power = ratio x active power, (5) (relative)", RELATIVE, _reactive),
    ("PUE of cooling = (IT + cooling) / IT (relative)", RELATIVE, _pue),
    ("busy GPUs <= capacity (relative excess)", RELATIVE, _capacity),
    ("GPU time of the jobs = busy GPUs x time, every minute (relative)", RELATIVE, gpu_time),
    ("late and urgent jobs are jobs at the site", EXACT, waiting_jobs),
    ("GPUs in states = those of the type; each draws its state's power (relative)", EXACT, states),
    ("work = GPUs on their types x their speed, less where slowed (relative)", EXACT, work_done),
    ("power limits: kept, within the type's; what is slowed is said (relative)", EXACT, limits),
    ("tokens of answers and prompts, preemptions: ticks = LLM requests", EXACT, tokens),
    ("tokens with a latency to the one before = all but first ones of LLM requests", EXACT, gaps),
    ("LLM requests arrive, start, give a first token and end in order (s)", EXACT, request_times),
    ("power of replicas = shares of their requests + without work (relative)", RELATIVE, serving_energy),
    ("power limits of replicas: kept, and what they draw is within (relative)", EXACT, power_limits),
    ("network: ticks = transfers; energy of its data, carbon of its energy (relative)", RELATIVE, network.account),
    ("jobs and answers take their way through the network (s)", EXACT, network.ways),
    ("jobs on their way = sent and not yet there; they wait", EXACT, network.under_way),
    ("base load: all buses follow one shape, both powers (relative)", RELATIVE, base_load),
    ("cost in the summary = energy x price + peaks x charge (relative)", EXACT, bill),
    ("beyond a cap: what is drawn above it; the cap is the one called (kW)", EXACT, caps),
    ("called = announced; baseline = what had been drawn before (kW, min)", EXACT, calls),
    ("line ends differ by the losses, (1) (kW)", EXACT, line_ends),
    ("power at every bus, (2), (4) (kW)", EXACT, bus_power),
    ("demand at every bus = what its links brought, (4) (kW)", EXACT, bus_demand),
    ("voltages of buses within the lowest and the highest (p.u.)", EXACT, voltages),
    ("voltage violations = distances outside the limits (p.u.)", EXACT, violations),
    ("unserved demand = that of the buses; status (kW)", EXACT, unserved),
    ("cost = price x power of the sources (USD/h)", EXACT, cost),
    ("realised: imbalance and emission of the interval that ended (kWh, kg/h)", EXACT, realised),
    ("generation: what is there = given + curtailed (kW)", EXACT, curtailed),
    ("no source gives more than it has (kW)", EXACT, within_what_is_there),
    ("what was played = what was recorded", EXACT, _recordings),
    ("summary = figures of the series (relative)", RELATIVE, _summary),
    ("emitted = what the sources give at their intensity (kg/h)", EXACT, emission),
    ("carbon at every bus: what arrives, mixed, (9) (kg/kWh)", EXACT, bus_carbon),
    ("carbon without power: that of a nearest bus (kg/kWh)", EXACT, dead_buses),
    ("declared sources give what is drawn and lost (kW)", EXACT, declared_power),
    ("declared sources emit what is attributed, losses within their range (kg/h)", EXACT, declared_carbon),
    ("intensity of buses between those of the declared sources (kg/kWh)", EXACT, declared_range),
    ("beside a foreign grid: substation = demand + losses; emission (kW, kg/h)", EXACT, carbon_beside),
    ("marginal intensity: a derivative has one value (kg/kWh)", EXACT, marginal),
    ("energy in batteries follows their power, inside their limits (kWh, kW)", EXACT, battery_energy),
    ("batteries behind meters: energy follows power, inside limits (kWh, kW)", EXACT, site_battery_energy),
    ("carbon in batteries: in at the bus's intensity, out at the stored one (kg)", EXACT, battery_carbon),
    ("forecasts: now is as it is, what their kind repeats or knows is so (relative)", EXACT, forecasts),
    ("carbon generated = loads + losses at the sender's intensity, (10) (kg/h)", EXACT, carbon_total),
)
"""Name, largest deviation allowed (None: the law has its own), law."""
