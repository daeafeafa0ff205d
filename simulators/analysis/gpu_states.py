"""GPUs of several types in a trace: their states and what these drew, power limits, the laws and figures of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.aidc.gpus.numbers import WorkOnType, work_table
from cosim.simulators.aidc.gpus.states import ASLEEP, BUSY, IDLE, STATES, WAKING
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.cooling import needs_sites
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.fleet import JobClass, Site
from cosim.trace import Trace
from cosim.trace.series import counted, scenario_of, step_s
from cosim.units import HOUR_S, KW_PER_MW

ALLOWED_RATIO, ALLOWED_WORK = 1e-9, 1e-6
_AT = {state: k for k, state in enumerate(STATES)}


def has_types(trace: Trace) -> bool:
    """Whether the GPUs of the sites have types."""
    return SITE in trace.models() and trace.has(f"{SITE}/state_kw")


def gpu_types(trace: Trace) -> list[str]:
    """The axis of types."""
    return trace.names(SITE, "gpu_type")


def by_state(trace: Trace, port: str) -> np.ndarray:
    """(time, site, type, state) of `state_gpus` or `state_kw`."""
    values = trace[f"{SITE}/{port}"]
    return values.reshape(*values.shape[:2], -1, len(STATES))


def by_work(trace: Trace, port: str) -> np.ndarray:
    """(time, site, type, class) of `work_gpus` or `work_dynamic_kw`."""
    values = trace[f"{SITE}/{port}"]
    return values.reshape(*values.shape[:2], len(gpu_types(trace)), -1)


def above_idle_kw(trace: Trace) -> np.ndarray:
    """(time, site) what GPUs and their hosts drew beside the sites' `idle_kw`."""
    return trace[f"{SITE}/state_kw"].sum(axis=2)


def _works(trace: Trace) -> list[dict[str, list[WorkOnType]]]:
    """Of each site by type: what each class does and draws on it."""
    shared = scenario_of(trace)["shared"]
    classes = {name: JobClass(**shared["job_classes"][name]) for name in trace.names(SITE, "job_class")}
    out = []
    for name in trace.names(SITE):
        site = Site(**shared["sites"][name])
        rows = work_table(site, classes)
        out.append({t: [of_class[k] for of_class in rows] for k, t in enumerate(site.gpu_types)})
    return out


def site_of(trace: Trace, name: str) -> Site:
    """A site as the scenario has it."""
    return Site(**scenario_of(trace)["shared"]["sites"][name])


# --- laws -----------------------------------------------------------------------------------------------------------


def states(trace: Trace) -> Finding:
    """GPUs in their states are the site's, of each type; busy ones are those of the classes; and each draws what its
    state draws: relative to the type's count, to the classes' GPUs, to the power."""
    if not has_types(trace):
        raise NothingToCheck("no GPU has a type")
    needs_sites(trace)
    gpus, kw = by_state(trace, "state_gpus"), by_state(trace, "state_kw")
    work, dynamic = by_work(trace, "work_gpus"), by_work(trace, "work_dynamic_kw")
    off: dict[str, float] = {}
    for k, name in enumerate(trace.names(SITE)):
        here = site_of(trace, name).gpu_types
        for t, label in enumerate(gpu_types(trace)):
            count = here[label].count if label in here else 0
            off[f"{name}, {label}: count"] = largest(gpus[:, k, t].sum(axis=1) - count) / max(count, 1)
            apart = gpus[:, k, t, _AT[BUSY]] - work[:, k, t].sum(axis=1)
            off[f"{name}, {label}: busy"] = largest(apart) / max(count, 1)
            if label in here:
                one = here[label]
                by_hand = np.stack([gpus[:, k, t, _AT[BUSY]] * one.awake_kw + dynamic[:, k, t].sum(axis=1),
                                    gpus[:, k, t, _AT[IDLE]] * one.awake_kw, gpus[:, k, t, _AT[WAKING]] * one.waking,
                                    gpus[:, k, t, _AT[ASLEEP]] * one.asleep_kw], axis=1)
                off[f"{name}, {label}: power"] = largest(by_hand - kw[:, k, t]) / max(largest(by_hand), 1e-3)
        off[f"{name}: classes"] = largest(work[:, k].sum(axis=1) - trace[f"{SITE}/busy_gpus"][:, k]) / max(
            sum(t.count for t in here.values()), 1)
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_RATIO, worst)


def limits(trace: Trace) -> Finding:
    """Busy GPUs draw above idle what their classes do without a power limit, and less only in ticks in which one slowed
    them; limits are within what the type can keep. Relative."""
    if not has_types(trace):
        raise NothingToCheck("no GPU has a type")
    needs_sites(trace)
    work, dynamic = by_work(trace, "work_gpus"), by_work(trace, "work_dynamic_kw")
    limit, slowed, cap_s = (trace[f"{SITE}/{port}"] for port in ("gpu_limit_kw", "slowed_s", "cap_slowed_s"))
    classes, off = scenario_of(trace)["shared"]["job_classes"], {}
    wide = [m for m, name in enumerate(trace.names(SITE, "job_class")) if classes[name].get("power_table")]
    for k, (name, works) in enumerate(zip(trace.names(SITE), _works(trace), strict=True)):
        for label, of_class in works.items():
            t, one = gpu_types(trace).index(label), of_class[0].figures
            most = work[:, k, t] * np.array([w.unlimited_kw - one.idle_kw for w in of_class])
            apart, free = dynamic[:, k, t] - most, slowed[:, k, t] == 0.0
            apart[:, wide] = np.maximum(apart[:, wide], 0.0)
            full_kw = one.count * one.peak_kw
            off[f"{name}, {label}: beyond its class"] = largest(np.maximum(apart, 0.0)) / full_kw
            off[f"{name}, {label}: slowed and not said"] = largest(apart[free]) / full_kw
            outside = np.maximum(one.least_limit_kw - limit[:, k, t], limit[:, k, t] - one.peak_kw)
            off[f"{name}, {label}: limit"] = largest(np.maximum(outside, 0.0)) / one.peak_kw
    for what, seconds in (("a limit", slowed), ("a cap", cap_s)):
        off[f"slowed by {what} for longer than a tick"] = largest(np.maximum(
            seconds / step_s(trace, "aidc") - 1.0, 0.0))
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_RATIO, worst, ("by how much the site's cap needed GPUs to be slowed", *(
        ["power of classes with a power_table, which depends on the blocks of each job"] if wide else [])))


def work_done(trace: Trace) -> Finding:
    """Work of each class is at most what its GPUs do on their types at full speed, and of inference just that in ticks
    in which no limit slows any type of the site; relative to the site's full speed."""
    if not has_types(trace):
        raise NothingToCheck("no GPU has a type")
    needs_sites(trace)
    gpus, done = by_work(trace, "work_gpus"), trace[f"{SITE}/work_to"] / step_s(trace, "aidc")
    slowed, shared = trace[f"{SITE}/slowed_s"].sum(axis=2), scenario_of(trace)["shared"]
    off: dict[str, float] = {}
    for k, (name, works) in enumerate(zip(trace.names(SITE), _works(trace), strict=True)):
        for m, class_name in enumerate(trace.names(SITE, "job_class")):
            job_class = JobClass(**shared["job_classes"][class_name])
            speeds = np.array([works[t][m].speed_ratio if t in works else 0.0 for t in gpu_types(trace)])
            most = gpu_throughput_to_per_s(gpus[:, k, :, m] @ speeds, job_class.to_per_gpu_min)
            full = gpu_throughput_to_per_s(site_of(trace, name).gpus * speeds.max(), job_class.to_per_gpu_min)
            apart = (done[:, k, m] - most) / full
            off[f"{name}, {class_name}: beyond its GPUs"] = largest(np.maximum(apart, 0.0))
            if job_class.kind == "inf":
                off[f"{name}, {class_name}"] = largest(apart[slowed[:, k] == 0.0])
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_WORK, worst, (
        "speed under a power limit, and of training below linear speed-up",))


# --- figures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TypeFigures:
    """One type over all sites, or all types (None), over the counted time: GPU-hours and energy by state, kWh; time for
    which a power limit slowed busy GPUs, GPU-type hours of the sites."""

    gpu_type: str | None
    gpu_h: dict[str, float]
    energy_kwh: dict[str, float]
    slowed_h: float


def type_figures(trace: Trace) -> list[TypeFigures]:
    """By type, then in sum; energy is that of GPUs and hosts, before what warm inlets add."""
    what = counted(trace, SITE)
    hours = what.hours
    gpus, kw = (by_state(trace, port)[what.use] for port in ("state_gpus", "state_kw"))
    slowed_s = trace[f"{SITE}/slowed_s"][what.use] * what.share[:, None, None]
    out = []
    for t, label in (*enumerate(gpu_types(trace)), (slice(None), None)):
        gpu_h, kwh = (np.tensordot(hours, x[:, :, t].reshape(len(hours), -1, len(STATES)).sum(axis=1), axes=1)
                      for x in (gpus, kw))
        out.append(TypeFigures(label, dict(zip(STATES, gpu_h.tolist(), strict=True)),
                               dict(zip(STATES, kwh.tolist(), strict=True)),
                               float(slowed_s[:, :, t].sum()) / HOUR_S))
    return out


def gpus_table(trace: Trace, digest: Digest) -> None:
    """GPU time and energy by type and state."""
    if not has_types(trace):
        return
    rows = []
    for f in type_figures(trace):
        hours = max(sum(f.gpu_h.values()), 1e-300)
        rows.append((f.gpu_type or "all", *(f"{100 * f.gpu_h[s] / hours:.1f} %" for s in STATES),
                     *(f"{f.energy_kwh[s] / KW_PER_MW:.3f}" for s in STATES), f"{f.slowed_h:.1f}"))
        if f.gpu_type is None:
            digest.figures |= {f"gpu_{s}_kwh": f.energy_kwh[s] for s in STATES}
            digest.figures["gpu_slowed_h"] = f.slowed_h
    what = counted(trace, SITE)
    cap_s = trace[f"{SITE}/cap_slowed_s"][what.use] * what.share[:, None]
    digest.figures["cap_slowed_h"] = float(cap_s.sum()) / HOUR_S
    digest.tables.append(Table("GPUs by type and state", (
        "type", *STATES, *(f"MWh {s}" for s in STATES), "slowed h"), rows,
        "share of the time, and energy of GPUs with their hosts; slowed h: hours of the sites in which a power limit "
        f"slowed jobs on the type, {cap_s.sum() / HOUR_S:.1f} h of a site for its cap"))
