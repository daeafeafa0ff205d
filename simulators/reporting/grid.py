"""Pictures of the network: the map's data, voltages, line loading, and how far the dispatch can be trusted.

Rows: X04.
"""

from __future__ import annotations

import re

import numpy as np

from cosim.reporting.chart import (
    MARKS,
    Fact,
    Heat,
    Mark,
    Network,
    NodeLevel,
    Panel,
    Picture,
    Readout,
    Rule,
    Series,
    missing,
)
from cosim.reporting.text import highest, listing, number, quantity, strong
from cosim.simulators.analysis.paths import BUS, GRID, SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.feeder import layout, parse
from cosim.simulators.reporting.sites import warmup
from cosim.trace.series import weighted_mean

_MAP_NOTE = ("The dashed ring is a data center, the square a power source; a line is as wide as the power it carries, "
             "and the arrow says where to.")
_LEVELS = (("nci_kg_per_kwh", "Carbon intensity", "NCI", "kg/kWh", 3),
           ("mci_kg_per_kwh", "Marginal intensity", "MCI", "kg/kWh", 3), ("vm_pu", "Voltage", "", "p.u.", 4))
"""What nodes are coloured by: port, title, short name, unit, digits."""
_MOST_ROWS = 16
_MOST_CELLS = 120_000


def feeder_map(run: FleetRun) -> tuple[Picture, Network | None]:
    """The sentence of the map, and the map; None when the trace does not hold the lines."""
    key = "map"
    flow = f"{GRID}/p_from_kw"
    if not run.has(flow):
        have = f" It does have NCI for {len(run.trace.names(BUS))} nodes, shown below." if run.has(
            f"{BUS}/nci_kg_per_kwh") else ""
        return missing(key, f"No map: the trace does not say what flows in the grid's lines ({flow}).{have}"), None
    lines = _lines_of(run)
    if lines is None:
        return missing(key, "No map: the lines are not named after the two nodes that they join, as in '0-1', and the "
                            "trace has no table of branches."), None
    every = 1 + int(run.get(flow).size // _MOST_CELLS)
    pick = slice(None, None, every)
    places = layout(lines, _root(run, lines))
    ids = list(places)
    index = {name: k for k, name in enumerate(ids)}
    levels = tuple(NodeLevel(port, title, short, unit, values, digits) for port, title, short, unit, digits in _LEVELS
                   if (values := _per_node(run, port, ids, pick)) is not None)
    sites, sources = _sites_on(run, index, pick), _sources_on(run, index, pick)
    network = Network(run.time_s(GRID)[pick].astype(float), [(n, x, y) for n, (x, y) in places.items()],
                      [(index[a], index[b]) for a, b in lines], run.get(flow)[pick, 0], levels, (*sites, *sources),
                      _readouts(run, sites, sources, pick))
    shown = f" One in {every} dispatches is shown." if every > 1 else ""
    return Picture(key, _says_map(run, network) + shown, note=_MAP_NOTE + run.played("grid")), network


def _readouts(run: FleetRun, sites: list[Mark], sources: list[Mark], pick: slice) -> tuple[Readout, ...]:
    """Sums over the feeder, and the grid's own totals."""
    out = [Readout(words, "kW", np.sum([mark.power_kw for mark in marks], axis=0))
           for words, marks in (("sources", sources), ("data centers", sites)) if marks]
    for words, port, unit in (("losses", "loss_kw", "kW"), ("emitting", "emission_kg_per_h", "kg/h")):
        if run.has(f"{GRID}/{port}"):
            out.append(Readout(words, unit, run.get(f"{GRID}/{port}")[pick, 0]))
    return tuple(out)


def _lines_of(run: FleetRun) -> list[tuple[str, str]] | None:
    """The two nodes of each line: as the grid's table has them, or else by the lines' names. Where both agree, the
    nodes have the shorter names of the lines ('0-1' joins bus0 and bus1)."""
    names = run.trace.names(GRID, "line")
    by_name, table = parse(names), run.trace.table("grid.branches")
    if list(table.get("name", ())) != names:
        return by_name
    lines = [(str(a), str(b)) for a, b in zip(table["from_bus"], table["to_bus"], strict=True)]
    agree = by_name is not None and all(
        short in (bus, _number(bus)) for pair, line in zip(by_name, lines, strict=True)
        for short, bus in zip(pair, line, strict=True)) and len({*sum(by_name, ())}) == len({*sum(lines, ())})
    return by_name if agree else lines


def _root(run: FleetRun, lines: list[tuple[str, str]]) -> str:
    ends = {b for _, b in lines}
    return next((a for a, _ in lines if a not in ends), lines[0][0])


def _node(name: str, index: dict[str, int]) -> int | None:
    """Position of a node by an entity's name: itself, or the number in it ('bus8' -> '8')."""
    return index[name] if name in index else index.get(_number(name))


def _number(name: str) -> str:
    """The number at the end of a name; '' without one."""
    return found.group(1) if (found := re.search(r"(\d+)$", name)) else ""


def _bus_model(run: FleetRun, port: str) -> str | None:
    return next((m for m in run.models if run.has(f"{m}/{port}") and m.endswith("/Bus")), None)


def _per_node(run: FleetRun, port: str, ids: list[str], pick: slice) -> np.ndarray | None:
    model = _bus_model(run, port)
    if model is None:
        return None
    time = run.time_s(GRID)[pick]
    values = run.held(f"{model}/{port}", time)
    out = np.full((len(time), len(ids)), np.nan)
    index = {name: k for k, name in enumerate(ids)}
    for column, name in enumerate(run.trace.names(model)):
        k = _node(name, index)
        if k is not None:
            out[:, k] = values[:, column]
    return out


def _sites_on(run: FleetRun, index: dict[str, int], pick: slice) -> list[Mark]:
    out = []
    path = run.first(f"{SITE}/p_window_kw", f"{SITE}/p_kw")
    for k, site in enumerate(run.sites):
        node = _node(run.bus_of(site) or "", index)
        if node is not None and path:
            # the window that ends with the dispatch interval is what the grid met in it
            until = run.time_s(GRID)[pick] + run.step_s(GRID) - run.step_s(SITE)
            out.append(Mark(site, node, run.held(path, until)[:, k], run.colours[site], "ring"))
    return out


def _sources_on(run: FleetRun, index: dict[str, int], pick: slice) -> list[Mark]:
    path = f"{GRID}/p_source_kw"
    if not run.has(path):
        return []
    known, out, table = run.params("grid").get("sources", {}), [], run.trace.table("grid.sources")
    bus_of = dict(zip(table.get("name", ()), table.get("bus", ()), strict=True))
    for k, name in enumerate(run.trace.names(GRID, "source")):
        about = known.get(name, {})
        node = _node(str(bus_of.get(name, about.get("node", name))), index)
        if node is not None:
            out.append(Mark(name, node, run.get(path)[pick, 0, k]))
    return out


def _says_map(run: FleetRun, network: Network) -> str:
    path = f"{_bus_model(run, 'nci_kg_per_kwh')}/nci_kg_per_kwh"
    mean = np.full(1, np.nan) if network.level("nci_kg_per_kwh") is None else _means_of_nodes(
        run, path, [name for name, _, _ in network.nodes])
    if np.isfinite(mean).any():
        low, high = int(np.nanargmin(mean)), int(np.nanargmax(mean))
        best, worst = (network.nodes[k][0] for k in (low, high))
        text = (f"The feeder through the run: mean carbon intensity goes from {number(mean[low])} kg/kWh at node "
                f"{best} to {strong(f'{number(mean[high])} kg/kWh')} at node {worst}.")
    else:
        text = "The feeder through the run; the trace gives no carbon intensity of its nodes."
    if any(mark.shape == "square" for mark in network.marks):
        path = f"{GRID}/p_source_kw"
        kw = run.of_counted(path)[:, 0]
        main = int(np.nan_to_num(run.counts(path).hours @ kw).argmax())
        top = highest(kw[:, main])
        text += (f" The largest source, {run.trace.names(GRID, 'source')[main]}, peaks at "
                 f"{quantity(kw[top, main], 'kW')} at {run.at(run.time_s(path)[run.counts(path).use][top])}.")
    return text


def _means_of_nodes(run: FleetRun, path: str, ids: list[str]) -> np.ndarray:
    """Mean over the counted time of a bus's port at each node of the map; NaN where there is none."""
    out, index = np.full(len(ids), np.nan), {name: k for k, name in enumerate(ids)}
    values, hours = run.of_counted(path), run.counts(path).hours
    for column, name in enumerate(run.trace.names(path.rpartition("/")[0])):
        k = _node(name, index)
        if k is not None:
            out[k] = weighted_mean(values[:, column], hours)
    return out


def intensities(run: FleetRun) -> Picture:
    """NCI of all nodes as a table of colours: what is left of the map for a grid without line data."""
    path = f"{BUS}/nci_kg_per_kwh"
    if not run.has(path):
        return missing("nodes", "The trace holds no carbon intensity of the grid's nodes (grid/Bus/nci_kg_per_kwh).")
    time, z = run.means(path)
    names = run.trace.names(BUS)
    keep = np.unique(np.linspace(0, len(names) - 1, min(len(names), 40)).astype(int))
    counted = run.of_counted(path)
    says = (f"Carbon intensity of the nodes: from {number(np.nanmin(counted))} to "
            f"{strong(f'{number(np.nanmax(counted))} kg/kWh')}.")
    heat = Heat(time, tuple(names[k] for k in keep), z[:, keep].T, "kg/kWh", run.end_s)
    return Picture("nodes", says, (Panel("Nodal carbon intensity", heat=heat, size=1.8),), run.played("grid").strip())


# --- voltages and lines -----------------------------------------------------------------------------------------------


def voltages(run: FleetRun) -> Picture:
    """Lowest and highest voltage, and that at the sites."""
    path, key = f"{BUS}/vm_pu", "voltages"
    if not run.has(path):
        return missing(key, f"The trace holds no voltages ({path}).")
    vm, counted_s = run.of_counted(path), run.time_s(path)[run.counts(path).use]
    time, y = run.means(path)
    series = [Series("highest node", time, y.max(axis=1), "muted", run.end_s, mark="dot", label="highest"),
              Series("lowest node", time, y.min(axis=1), "ink", run.end_s, mark="dash", label="lowest")]
    names = run.trace.names(BUS)
    for k, site in enumerate(run.sites):
        bus = run.bus_of(site)
        if bus in names:
            series.append(Series(f"{site} ({bus})", time, y[:, names.index(bus)], run.colours[site], run.end_s,
                                 mark=MARKS[k % 3], label=site))
    grid, low, high = run.params("grid"), float(np.nanmin(vm)), float(np.nanmax(vm))
    limits = [float(grid[n]) for n in ("vm_min_pu", "vm_max_pu") if isinstance(grid.get(n), (int, float))]
    near = [v for v in limits if min(abs(v - low), abs(v - high)) <= 2.0 * max(high - low, 0.01)]
    where, when = names[int(np.nanmin(vm, axis=0).argmin())], counted_s[int(np.nanmin(vm, axis=1).argmin())]
    says = (f"Voltages: lowest {strong(f'{number(low, 5)} p.u.')} at {where}, {run.at(when)}; highest "
            f"{number(high, 5)} p.u.")
    if len(limits) == 2:
        room = min(low - limits[0], limits[1] - high)
        says += (f" No node comes closer than {number(room, 2)} p.u. to a limit." if room >= 0 else
                 f" A limit is passed by {number(-room, 2)} p.u.")
    off = [f"{v:g}" for v in limits if v not in near]
    note = (f"The limit{'s' if off[1:] else ''} {listing(off)} p.u. {'lie' if off[1:] else 'lies'} outside the picture."
            if off else "")
    rules = tuple(Rule(v, f"limit {v:g}") for v in near)
    panel = Panel("Voltage magnitude", "p.u.", tuple(series), rules=rules, axis="vm", zero=False,
                  bands=warmup(run), size=1.3)
    return Picture(key, says, (panel,), (note + run.played("grid")).strip(),
                   (Fact("lowest voltage", low, "p.u."), Fact("highest voltage", high, "p.u.")))


def loading(run: FleetRun) -> Picture:
    """Loading of the heaviest lines in per cent of their ratings, or their power where the grid has no ratings.

    Per cent come from `loading_ratio`, or else from the larger apparent power of a line's two ends over `rating_kva`.
    """
    key, flow = "lines", f"{GRID}/p_from_kw"
    path = run.first(f"{GRID}/loading_ratio", flow)
    if path is None:
        return missing(key, f"The trace does not say what flows in the lines ({flow}).")
    values, rated = run.get(path)[:, 0], path != flow
    if not rated and run.has(f"{GRID}/rating_kva"):
        values, rated = np.sign(values) * _apparent(run) / run.get(f"{GRID}/rating_kva")[:, 0], True
    names, known = run.trace.names(GRID, "line"), np.isfinite(values).any(axis=0)
    if not known.any():
        return missing(key, "No line of the grid has a rating.")
    names, values = [name for name, has in zip(names, known, strict=True) if has], values[:, known]
    values = values * (100.0 if rated else 1.0)
    use = run.counts(path).use
    drawn, values, counted_s = np.abs(values), values[use], run.time_s(path)[use]
    size = np.abs(values)
    heavy = np.argsort(-size.max(axis=0), kind="stable")[:_MOST_ROWS]
    time, z = run.means(path, drawn)
    top, unit = heavy[0], "%" if rated else "kW"
    when = int(size[:, top].argmax())
    says = (f"{'Loading of' if rated else 'Power in'} {_lines(len(heavy))}: most is "
            f"{strong(quantity(size[when, top], unit))} in line {names[top]} at {run.at(counted_s[when])}.")
    back = [names[k] for k in range(len(names)) if (values[:, k] < -1e-6).any()]
    says += f" Power runs back toward the substation at times in {len(back)} of {len(names)} lines." if back else ""
    came = f"{GRID}/loading_realised_ratio"
    if path.endswith("loading_ratio") and run.has(came) and np.isfinite(run.get(came)).any():
        most = 100.0 * float(np.nanmax(run.get(came)))
        says += f" At the demand that came in the intervals it is {quantity(most, '%')} at most."
    heat = Heat(time, tuple(names[k] for k in heavy[::-1]), z[:, heavy[::-1]].T, unit, run.end_s)
    note = "" if rated else (f"The grid names no ratings ({GRID}/loading_ratio or {GRID}/rating_kva), so this is "
                             "active power, not per cent.")
    note += "" if known.all() else f" Lines without a rating ({int((~known).sum())} of {len(known)}) are left out."
    return Picture(key, says, (Panel("Loading" if rated else "Active power entering the line", heat=heat, size=1.8),),
                   (note + run.played("grid")).strip(), (Fact("heaviest line", float(size[when, top]), unit),))


def _apparent(run: FleetRun) -> np.ndarray:
    """(time, line) apparent power at the fuller end of each line, kVA; active power alone where none is reactive."""
    ends = []
    for end in ("from", "to"):
        p, q = (f"{GRID}/{kind}_{end}_{unit}" for kind, unit in (("p", "kw"), ("q", "kvar")))
        if run.has(p):
            ends.append(np.hypot(run.get(p)[:, 0], run.get(q)[:, 0] if run.has(q) else 0.0))
    return np.maximum.reduce(ends)


def _lines(shown: int) -> str:
    return "the only line" if shown == 1 else f"the {shown} heaviest lines"


# --- trust ------------------------------------------------------------------------------------------------------------

_CHECKS = (
    ("relaxation_gap_pu", "Gap of the conic relaxation", "p.u.", 1e-5),
    ("ac_dvm_pu", "Voltage: dispatch against AC power flow", "p.u.", 1e-3),
    ("ac_dloss_kw", "Losses: dispatch against AC power flow", "kW", None),
    ("ac_dnci_kg_per_kwh", "NCI: dispatch against AC power flow", "kg/kWh", 2e-3),
)
_FAR_BELOW = 1e-2
"""Share of its tolerance (without one: of 1 kW) below which a deviation is rounding, and no curve."""


def trust(run: FleetRun) -> Picture:
    """Relaxation gap and deviation from the AC power flow, on a logarithmic scale."""
    key, panels, facts, said = "trust", [], [], []
    for port, title, unit, tolerance in _CHECKS:
        path = f"{GRID}/{port}"
        if not run.has(path) or not np.isfinite(run.of_counted(path)).any():
            continue
        values, counted = run.get(path)[:, 0], run.of_counted(path)[:, 0]
        at = highest(counted)
        if counted[at] > _FAR_BELOW * (tolerance or 1.0):
            line = Series(title, run.time_s(path).astype(float), np.where(values > 0, values, np.nan), "ink", run.end_s)
            rules = (Rule(tolerance, f"tolerance {number(tolerance, 1)}"),) if tolerance else ()
            panels.append(Panel(title, unit, (line,), rules=rules, axis=port, log=True, zero=False, size=0.8))
        facts.append(Fact(title.lower() + ", worst", float(counted[at]), unit))
        said.append((title, float(counted[at]), unit, tolerance))
    if not said:
        return missing(key, "The trace does not say how exact the grid's solution is (grid/Grid/relaxation_gap_pu, "
                            "ac_*).")
    path = f"{GRID}/imbalance_kwh"
    if run.has(path) and np.isfinite(run.get(path)).any():
        begins = run.time_s(path) - run.step_s(path)  # of the interval that a sample is about
        line = Series("imbalance", begins[begins >= 0.0], run.get(path)[begins >= 0.0, 0], "ink", run.end_s)
        panels.append(Panel("Substation: energy beyond what was dispatched", "kWh", (line,), axis="imbalance",
                            size=0.8))
        told = np.append(run.get(path)[1:], np.zeros_like(run.get(path)[:1]), axis=0)  # an interval's, one step later
        total = float(run.total(path, np.nan_to_num(np.abs(told))).sum())
        facts.append(Fact("imbalance at the substation", total, "kWh"))
    title, worst, unit, tolerance = said[0]
    says = (f"How far the numbers can be trusted: {title[0].lower() + title[1:]} is at worst "
            f"{strong(quantity(worst, unit))}")
    says += f" ({'above' if worst > tolerance else 'below'} {number(tolerance, 1)})" if tolerance else ""
    others = [f"{t.split(':')[0].lower() if t[:3] != 'NCI' else 'NCI'} by {quantity(w, u)}" for t, w, u, _ in said[1:]]
    says += f"; an AC power flow at the same set points differs in {', '.join(others)} at most." if others else "."
    note = "The tolerances are usual ones for each quantity."
    note += " Deviations are on logarithmic scales." if any(p.log for p in panels) else ""
    calm = len(said) - sum(p.log for p in panels)
    note += f" What is below {100 * _FAR_BELOW:g} % of its tolerance is rounding and not drawn." if calm else ""
    note += run.played("grid")
    return Picture(key, says, tuple(panels), note, tuple(facts), columns=True)
