"""Which limits bind, where and how long, from a trace alone: branches, voltages, sources, ramps, batteries, NCI caps.

A limit binds in an interval whose figures lie on it, or beyond it. A source at no power is not at a limit: that is how
a dispatch turns it off. Intervals that repeat the one before have no limits of their own.

Rows: E08, U18, Z03.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.errors import TraceError
from cosim.simulators.analysis.balance import NothingToCheck
from cosim.simulators.analysis.flows import MEMBER, grid_params, held, substation
from cosim.simulators.analysis.paths import BATTERY, BUS, GRID
from cosim.simulators.analysis.storage import read_batteries
from cosim.simulators.grid.dispatch.branch_limits import BINDING_RATIO
from cosim.trace import Trace
from cosim.trace.series import CountedSamples, scenario_of, step_s
from cosim.units import HOUR_S, MIN_S, format_time

AT_VOLTAGE_PU = 1e-5
"""A voltage this near a limit is at it."""
AT_KW, AT_RATIO = 0.05, 1e-4
"""A power this near a limit is at it: set points that all but touch one are put on it, the substation's is what is
left over."""
AT_KG_PER_KWH = 1e-5
_MOST_LIMITS = 6
DISPATCH = "cosim.simulators.grid.adapter:CefDispatch"


@dataclass(frozen=True, eq=False)
class Limit:
    """A limit that binds at times.

    words     which, and where: 'current of branch 0-1'
    at        (interval,) whether it binds, of all intervals of the trace
    enforced  whether the grid keeps it: ratings that are only reported, and voltages of a power flow, it does not
    """

    words: str
    at: np.ndarray
    enforced: bool


def limits(trace: Trace) -> list[Limit]:
    """The limits that bind at times, those that bind longest first; [] for a grid that has none of them."""
    if GRID not in trace.models() or not len(trace.time_s(GRID)):
        return []
    own = ~held(trace)
    found = [Limit(words, at & own, enforced) for words, at, enforced in (
        *_branches(trace), *_voltages(trace), *_sources(trace), *_batteries(trace), *_caps(trace))]
    return sorted((one for one in found if one.at.any()), key=lambda one: -int(one.at.sum()))


def _is_dispatched(trace: Trace) -> bool:
    return scenario_of(trace)["members"].get(MEMBER, {}).get("simulator") == DISPATCH


def _branches(trace: Trace) -> Iterator[tuple[str, np.ndarray, bool]]:
    table = trace.table(f"{MEMBER}.limits")
    if not len(table.get("name", ())) or not trace.has(f"{GRID}/loading_ratio"):
        return
    names, loading = trace.names(GRID, "line"), trace[f"{GRID}/loading_ratio"][:, 0]
    enforced = grid_params(trace).get("line_limits", "ratings") == "ratings"
    for name, most, kva in zip(table["name"], table["limit_ratio"], table["rated_kva"], strict=True):
        what = "current" if math.isnan(kva) else "apparent power"
        yield f"{what} of branch {name}", loading[:, names.index(name)] >= most - BINDING_RATIO, enforced


def _voltages(trace: Trace) -> Iterator[tuple[str, np.ndarray, bool]]:
    given = grid_params(trace)
    if not trace.has(f"{BUS}/vm_pu") or "vm_min_pu" not in given or "vm_max_pu" not in given:
        return
    table = trace.table(f"{MEMBER}.buses")
    bus_of = dict(zip(table.get("entity", ()), table.get("bus", ()), strict=True))
    vm, seen = trace[f"{BUS}/vm_pu"][: len(trace.time_s(GRID))], {_root(trace)}
    for k, entity in enumerate(trace.names(BUS)):
        bus = str(bus_of.get(entity, entity))
        if bus in seen:  # the substation holds its voltage; closed switches make several entities one bus
            continue
        seen.add(bus)
        yield f"lowest voltage, {bus}", vm[:, k] <= given["vm_min_pu"] + AT_VOLTAGE_PU, _is_dispatched(trace)
        yield f"highest voltage, {bus}", vm[:, k] >= given["vm_max_pu"] - AT_VOLTAGE_PU, _is_dispatched(trace)


def _root(trace: Trace) -> str:
    try:
        return str(trace.table(f"{MEMBER}.sources")["bus"][substation(trace)])
    except TraceError:
        return ""


def _sources(trace: Trace) -> Iterator[tuple[str, np.ndarray, bool]]:
    """P and Q at a limit, and ramps; of the network's own generators by the table that a dispatch gives."""
    if not _is_dispatched(trace) or not trace.has(f"{GRID}/p_source_kw"):
        return
    given, table = grid_params(trace).get("sources", {}), trace.table(f"{MEMBER}.own_limits")
    own = {str(name): {column: None if math.isnan(values[k]) else float(values[k])
                       for column, values in table.items() if column != "name"}
           for k, name in enumerate(table.get("name", ()))}
    p_kw, q_kvar = trace[f"{GRID}/p_source_kw"][:, 0], trace[f"{GRID}/q_source_kvar"][:, 0]
    varying = trace[f"{GRID}/source_p_max_kw"][:, 0] if trace.has(f"{GRID}/source_p_max_kw") else None
    for k, name in enumerate(trace.names(GRID, "source")):
        row: Mapping[str, Any] = given.get(name) or own.get(name) or {}
        most = row.get("p_max_kw") if varying is None else varying[:, k]
        yield from _at_limits(f"P of {name}", p_kw[:, k], row.get("p_min_kw"), most)
        yield from _at_limits(f"Q of {name}", q_kvar[:, k], row.get("q_min_kvar"), row.get("q_max_kvar"))
        if (ramp := row.get("ramp_kw_per_min")) is not None:
            yield f"ramp of {name}", _ramping(trace, p_kw[:, k], float(ramp)), True


def _at_limits(what: str, value: np.ndarray, low: Any, high: Any) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Of one that may move; a limit of 0 is that of a source that is off."""
    least = np.full(len(value), np.nan if low is None else low, float)
    known = isinstance(high, int | float | np.ndarray)  # what varies is a port of its own
    most = np.broadcast_to(np.asarray(high if known else np.nan, float), value.shape)
    room = ~(most - least <= _near(most))
    yield f"most {what}", room & (value >= most - _near(most)) & (most != 0.0), True
    yield f"least {what}", room & (value <= least + _near(least)) & (least != 0.0), True


def _near(limit: np.ndarray) -> np.ndarray:
    return np.maximum(AT_KW, AT_RATIO * np.abs(limit))


def _ramping(trace: Trace, p_kw: np.ndarray, kw_per_min: float) -> np.ndarray:
    """(interval,) whether a source moved as far as its ramp lets it, since the last interval that was solved."""
    solved = np.flatnonzero(~held(trace))
    step_kw = kw_per_min * step_s(trace, MEMBER) / MIN_S * np.diff(solved)
    at = np.zeros(len(p_kw), bool)
    at[solved[1:]] = np.abs(np.diff(p_kw[solved])) >= step_kw - _near(step_kw)
    return at


def _batteries(trace: Trace) -> Iterator[tuple[str, np.ndarray, bool]]:
    if not trace.has(f"{BATTERY}/p_kw"):
        return
    try:
        series = read_batteries(trace)
    except (TraceError, NothingToCheck):
        return
    after = series.soc_kwh + series.change_kwh
    count = len(trace.time_s(GRID))
    for k, name in enumerate(trace.names(BATTERY)):
        p, of = series.p_kw[:count, k], {column: values[k] for column, values in series.of.items()}
        for words, at in (("charging power", -p >= of["p_charge_max_kw"] - _near(of["p_charge_max_kw"])),
                          ("discharging power", p >= of["p_discharge_max_kw"] - _near(of["p_discharge_max_kw"])),
                          ("most energy", (p < 0.0) & (after[:count, k] >= of["energy_max_kwh"] - AT_KW)),
                          ("least energy", (p > 0.0) & (after[:count, k] <= of["energy_min_kwh"] + AT_KW))):
            yield f"{words} of {name}", at, True


def _caps(trace: Trace) -> Iterator[tuple[str, np.ndarray, bool]]:
    names = trace.names(BUS) if trace.has(f"{BUS}/nci_kg_per_kwh") else []
    for bus, cap in (grid_params(trace).get("nci_cap_kg_per_kwh") or {}).items():
        if bus in names:
            nci = trace[f"{BUS}/nci_kg_per_kwh"][: len(trace.time_s(GRID)), names.index(bus)]
            yield f"cap on NCI, {bus}", nci >= cap - AT_KG_PER_KWH, True


# --- rows of the summary --------------------------------------------------------------------------------------------


def loading_rows(trace: Trace, what: CountedSamples, figures: dict[str, float]) -> list[tuple[str, str]]:
    """How full the fullest branch was, as dispatched and as realised; none for a grid that shows no loading."""
    table = trace.table("grid.limits")
    if not trace.has(f"{GRID}/loading_ratio") or not len(table.get("name", ())) or not what.use.any():
        return []
    names = trace.names(GRID, "line")
    at = [names.index(name) for name in table["name"]]
    loading = trace[f"{GRID}/loading_ratio"][what.use][:, 0][:, at]
    when, top = np.unravel_index(int(loading.argmax()), loading.shape)
    figures["loading_max_ratio"] = float(loading[when, top])
    rows = [("fullest branch", f"{names[at[top]]} at {100 * loading[when, top]:.4g} % of its rating, at "
             f"{format_time(trace.time_s(GRID)[what.use][when])}")]
    figures["limited_intervals"] = float(np.count_nonzero(
        (loading >= np.asarray(table["limit_ratio"]) - BINDING_RATIO).any(axis=1)))
    port = f"{GRID}/loading_realised_ratio"
    later = np.full_like(loading, np.nan)
    if trace.has(port):
        came = trace[port][1:, 0][:, at]
        later = np.vstack([came, np.full((1, len(at)), np.nan)])[what.use]
    if np.isfinite(later).any():
        when, top = np.unravel_index(int(np.nan_to_num(later, nan=-1.0).argmax()), later.shape)
        figures["loading_realised_max_ratio"] = float(later[when, top])
        rows.append(("the same at the demand that came", f"{names[at[top]]} at {100 * later[when, top]:.4g} %, in the "
                     f"interval from {format_time(trace.time_s(GRID)[what.use][when])}"))
    return rows


def limit_rows(trace: Trace, what: CountedSamples, figures: dict[str, float]) -> list[tuple[str, str]]:
    """What limits, where and how long; none for a grid of which no limits are known."""
    found = [(one, int(one.at[what.use].sum())) for one in limits(trace)]
    rows = []
    for words, enforced in (("limiting here", True), ("beyond a limit that nothing keeps", False)):
        bind = [one for one, count in sorted(found, key=lambda pair: -pair[1]) if count and one.enforced == enforced]
        for one in bind[:_MOST_LIMITS]:
            at = one.at[what.use]
            rows.append((f"{words}: {one.words}", f"{intervals(at, what)}, {what.hours @ at:.4g} h"))
        if len(bind) > _MOST_LIMITS:
            rows.append((f"{words}: {len(bind) - _MOST_LIMITS} more", "at times"))
        if enforced:
            figures["binding_limits"] = float(len(bind))
            if not bind and "limited_intervals" in figures:
                rows.append((words, "nothing"))
    return rows


def intervals(flags: np.ndarray, what: CountedSamples) -> str:
    """'2 of 96', with the time that these stand for where an end of the counted time cuts an interval."""
    text = f"{np.count_nonzero(flags)} of {len(flags)}"
    return text if (what.share == 1.0).all() else (
        f"{text} ({what.hours @ (flags != 0) * HOUR_S / MIN_S:.4g} of {what.hours.sum() * HOUR_S / MIN_S:.4g} min)")
