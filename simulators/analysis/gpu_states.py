"""GPUs of several types in a trace: their states and what these drew, power limits, the laws and figures of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
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

ALLOWED_RATIO = 1e-9
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
            off[f"{name}, {label}: busy"] = largest(gpus[:, k, t, _AT[BUSY]] - work[:, k, t].sum(axis=1)) / max(count, 1)
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
    """Busy GPUs draw above idle at most what their class does without a limit and, together, what the mean power limit
    of the tick leaves; limits are within what the type can keep; nothing is slowed where no limit binds. Relative."""
    if not has_types(trace):
        raise NothingToCheck("no GPU has a type")
    needs_sites(trace)
    work, dynamic = by_work(trace, "work_gpus"), by_work(trace, "work_dynamic_kw")
    limit, slowed = trace[f"{SITE}/gpu_limit_kw"], trace[f"{SITE}/slowed_s"]
    off: dict[str, float] = {}
    for k, (name, works) in enumerate(zip(trace.names(SITE), _works(trace), strict=True)):
        for label, of_class in works.items():
            t, one = gpu_types(trace).index(label), of_class[0].figures
            each = np.array([w.unlimited_kw - one.idle_kw for w in of_class])
            most = np.minimum(work[:, k, t] * each, np.inf)
            off[f"{name}, {label}: beyond its class"] = largest(np.maximum(dynamic[:, k, t] - most, 0.0)) / one.peak_kw
            free = slowed[:, k, t] == 0.0
            off[f"{name}, {label}: slowed and not said"] = largest((dynamic[:, k, t] - most)[free]) / max(
                largest(most), 1e-3)
            off[f"{name}, {label}: limit"] = largest(np.maximum(np.maximum(
                one.least_limit_kw - limit[:, k, t], limit[:, k, t] - one.peak_kw), 0.0)) / one.peak_kw
    off["slowed longer than a tick"] = largest(np.maximum(slowed / step_s(trace, "aidc") - 1.0, 0.0))
    cap_s = trace[f"{SITE}/cap_slowed_s"]
    off["slowed for a cap and by no limit"] = largest(np.where(
        (cap_s > 0.0) & (trace[f"{SITE}/busy_gpus"].sum(axis=2) > 0.0),
        np.maximum(0.0 - slowed.max(axis=2), 0.0), 0.0))
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], ALLOWED_RATIO, worst, ("how a power limit changes the speed inside a tick, which the "
                                                      "work of the jobs shows in sum",))


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
    digest.figures["cap_slowed_h"] = float((trace[f"{SITE}/cap_slowed_s"][what.use] * what.share[:, None]).sum()) / HOUR_S
    digest.tables.append(Table("GPUs by type and state", (
        "type", *STATES, *(f"MWh {s}" for s in STATES), "slowed h"), rows,
        "share of the time, and energy of GPUs with their hosts; slowed h: hours of the sites in which a power limit "
        "slowed jobs on the type"))
