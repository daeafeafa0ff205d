"""Tables and figures of a study: each as a table of numbers, as it is shown, and as pictures.

A table of numbers is tidy: a row per value, with the seed it is of. What is shown has the interquartile mean over seeds
and the ends of its bootstrap interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosim.agents.curves import read_run, together
from cosim.agents.study.claims import FURTHER_METRICS, TABLE2, TABLE2_METRICS, TABLE3
from cosim.agents.study.data import Results
from cosim.agents.study.days import fig7, fig8, fig9
from cosim.agents.study.measures import saving, table3_row
from cosim.agents.study.plan import RATIOS, ROWS, SIZES, TABLE2_WORLDS, WORLDS, Case, training_key
from cosim.agents.study.showing import HUES, NOTE, Draw, Exhibit, cell, number, panels_of, ran_of
from cosim.agents.study.statistics import SeedSpread, spread
from cosim.agents.study.work import TRAINING
from cosim.digest import Table

METRICS = {**TABLE2_METRICS, **FURTHER_METRICS}
TITLES = {
    "table2": "Table II: methods and modes", "table3": "Table III: sizes of action spaces",
    "fig6": "Fig. 6: rewards of the methods", "fig7": "Fig. 7: jobs and power under NCI",
    "fig8": "Fig. 8: shifting over sites and hours", "fig9": "Fig. 9: NCI and shares",
    "fig10": "Fig. 10: static and dynamic shares", "fig11a": "Fig. 11(a): the weight of cost against carbon",
    "fig11b": "Fig. 11(b): the weight of carbon in the dispatch", "fig12": "Fig. 12: reward by number of sites",
    "fig13": "Fig. 13: what joint mode saves by number of sites",
}


def exhibit(part: str, results: Results) -> Exhibit:
    """The table or figure of a part, of what was run of it."""
    made = Exhibit(part, TITLES[part])
    _MAKERS[part](made, results)
    return made


# --- figures over seeds -----------------------------------------------------------------------------------------------


def _named(case: Case) -> str:
    label = ROWS[case.row].label
    return label if case.mode == "joint" else f"{label}, power"


def _long(made: Exhibit, results: Results, ran: Sequence[Case], metrics: Mapping[str, Any]) -> None:
    """The figures of runs as a tidy table."""
    rows = [(case.world, WORLDS[case.world].scenario, ROWS[case.row].label, ROWS[case.row].kind, case.mode, case.ratio,
             metric, metrics[metric][0], seed, value)
            for case in ran for metric in metrics
            for seed, value in zip(results.seeds, results.metric(case, metric), strict=True)]
    names = ("world", "scenario", "policy", "kind", "mode", "c2_per_c3", "figure", "name_and_unit", "seed", "value")
    made.numbers = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {n: [] for n in names}


def _lines(results: Results, ran: Sequence[Case], metric: str, name: Callable[[Case], str] = _named) -> list[Any]:
    out = []
    for case in ran:
        over = spread(results.metric(case, metric))
        out.append(panels_of().SeededFigure(name(case), over.values, over.iqm, over.low, over.high,
                                      HUES[ROWS[case.row].kind]))
    return out


def _seeds(results: Results, ran: Sequence[Case], metrics: Mapping[str, Any],
           name: Callable[[Case], str] = _named, columns: int = 3) -> Draw:
    """What draws a panel per figure, a line per run."""
    def draw(path: Path, formats: Sequence[str]) -> Path:
        return panels_of().seeds(path, [(about, _lines(results, ran, metric, name))
                                       for metric, (about, _) in metrics.items()], formats, columns)
    return draw


def _shown(results: Results, title: str, ran: Sequence[Case], metrics: Mapping[str, Any],
           name: Callable[[Case], str] = _named, more: Sequence[tuple[str, ...]] = ()) -> Table:
    rows = [(name(case), ROWS[case.row].kind, *(cell(spread(results.metric(case, metric)), digits)
                                                for metric, (_, digits) in metrics.items())) for case in ran]
    return Table(title, ("", "", *(about for about, _ in metrics.values())), [*rows, *more],
                 NOTE.format(n=results.tier.seeds))


def _table2(made: Exhibit, results: Results) -> None:
    ran = ran_of("table2", results)
    _long(made, results, ran, METRICS)
    printed = [(f"{ROWS[method].label}{', power' if mode == 'power' else ''}", "printed",
                *(number(x, digits) for x, (_, digits) in zip(row, TABLE2_METRICS.values(), strict=True)))
               for (method, mode), row in TABLE2.items()]
    for world in dict.fromkeys(case.world for case in ran):
        here = [case for case in ran if case.world == world]
        title = f"{world}: {WORLDS[world].about}"
        made.shown += [_shown(results, title, here, TABLE2_METRICS, more=printed if world == "table2" else ()),
                       _shown(results, f"{world}, further figures", here, FURTHER_METRICS)]
        made.pictures[f"table2-{world}"] = _seeds(results, here, METRICS)


    if rows := [(world, *(cell(spread(results.bounded(world, metric, of)), digits) for metric, digits in
                          (("cost_usd", 0), ("co2_t", 2)) for of in ("metrics", "bounds")))
                for world in TABLE2_WORLDS if results.bounded(world, "co2_t", "bounds")]:
        made.shown.append(Table(
            "What no policy can beat", ("world", "uniform, USD/day", "bound, USD/day", "uniform, t CO2/day",
                                        "bound, t CO2/day"), rows,
            "of runs from an empty fleet to an empty fleet, hours of working off included: not to be set beside the "
            "tables above, whose day follows a day; each bound is the best for itself"))


def _table3(made: Exhibit, _: Results) -> None:
    rows = [(n, kind, ours, printed) for n in TABLE3 for kind, ours, printed in
            zip(("flat", "hierarchical", "ratio"), table3_row(n), TABLE3[n], strict=True)]
    made.numbers = dict(zip(("sites", "structure", "here", "printed"), map(list, zip(*rows, strict=True)), strict=True))
    made.shown = [Table("exact numbers, cut to three digits as printed", ("sites", "structure", "here", "printed"),
                        [(str(n), kind, ours, printed) for n, kind, ours, printed in rows])]

    def draw(path: Path, formats: Sequence[str]) -> Path:
        sites = list(TABLE3)
        of = {kind: [float(row[2]) for row in rows if row[1] == kind] for kind in ("flat", "hierarchical")}
        return panels_of().sizes(path, "number of sites", "actions",
                               [(kind, sites, values) for kind, values in of.items()], formats)

    made.pictures["table3"] = draw


def _fig6(made: Exhibit, results: Results) -> None:
    ran = ran_of("fig6", results)
    chosen = {"objective": METRICS["objective"], "usd_per_gto": METRICS["usd_per_gto"],
              "kg_per_gto": METRICS["kg_per_gto"]}
    _long(made, results, ran, chosen)
    made.shown = [_shown(results, "after training, in joint mode, on ieee33", ran, chosen)]
    made.pictures["fig6-evaluated"] = _seeds(results, ran, chosen)
    _curves(made, results, "fig6", [case for case in ran if ROWS[case.row].method])


def _curves(made: Exhibit, results: Results, name: str, taught: Sequence[Case]) -> None:
    """Learning curves of the teams, over environment steps."""
    if not taught:
        return

    def draw(path: Path, formats: Sequence[str]) -> Path:
        runs = [read_run(results.cells / training_key(case, k) / TRAINING) for case in taught
                for k in range(results.tier.seeds)]
        found = together(runs)
        figures = list(dict.fromkeys(figure for curve in found for figure in curve.mean))
        panels = [(figure, [(c.name, (c.steps / 1000.0).tolist(), c.mean[figure].tolist(), c.spread[figure].tolist())
                            for c in found if figure in c.mean]) for figure in figures]
        return panels_of().bands(path, "environment steps, thousands", panels, formats)

    made.pictures[f"{name}-learning"] = draw


# --- sweeps -----------------------------------------------------------------------------------------------------------


def _fig10(made: Exhibit, results: Results) -> None:
    ran = [case for case in ran_of("fig10", results)]
    chosen = {name: METRICS[name] for name in ("co2_t", "dropped", "throughput", "cost_usd", "kg_per_gto",
                                               "served_gto")}
    _long(made, results, ran, chosen)
    for world in dict.fromkeys(case.world for case in ran):
        here = [case for case in ran if case.world == world]
        made.shown.append(_shown(results, f"{world}: {WORLDS[world].about}", here, chosen))
        made.pictures[f"fig10-{world}"] = _seeds(results, here, chosen)


def _fig11a(made: Exhibit, results: Results) -> None:
    ran = sorted(ran_of("fig11a", results), key=lambda case: (case.row, RATIOS.index(case.ratio)))
    chosen = {name: METRICS[name] for name in ("cost_usd", "co2_t", "usd_per_gto", "kg_per_gto", "served_gto")}
    _long(made, results, ran, chosen)

    def name(case: Case) -> str:
        return f"{ROWS[case.row].label}, c2/c3 = {case.ratio:g}"

    made.shown = [_shown(results, "joint mode, ieee33", ran, chosen, name)]
    made.pictures["fig11a"] = _seeds(results, ran, chosen, name, 2)


def _fig11b(made: Exhibit, results: Results) -> None:
    sweep = results.sweep
    if sweep is None:
        return
    lambdas, means = sweep["lambdas"], sweep["means"]
    rows = [(mean, lam, sweep["loss_mwh"][i][j], sweep["emission_t"][i][j]) for i, mean in enumerate(means)
            for j, lam in enumerate(lambdas)]
    made.numbers = dict(zip(("mean_base_load", "lambda_kw_per_kg_h", "loss_mwh", "emission_t"),
                            map(list, zip(*rows, strict=True)), strict=True))
    made.shown = [Table("losses and emission of a day", ("lambda", *(f"load {m:g}: {what}" for m in means
                                                                     for what in ("MWh lost", "t"))),
                        [(f"{lam:g}", *(number(sweep[key][i][j], 2) for i in range(len(means))
                                        for key in ("loss_mwh", "emission_t"))) for j, lam in enumerate(lambdas)],
                        "thresholds (a tenth of what can be saved): " + ", ".join(
                            f"{lam:.3f} at load {m:g}" if lam is not None else f"none at load {m:g}"
                            for m, lam in zip(means, sweep["thresholds"], strict=True)) +
                        f"; every data center draws 230 kW; {sweep['flagged']} intervals elastic or inexact")]

    def draw(path: Path, formats: Sequence[str]) -> Path:
        panels = [(about, [(f"mean load {m:g}", lambdas, sweep[key][i]) for i, m in enumerate(means)])
                  for about, key in (("losses, MWh per day", "loss_mwh"), ("emission, t per day", "emission_t"))]
        marks = [math.nan if lam is None else lam for lam in sweep["thresholds"]]
        return panels_of().curves(path, "lambda, kW per kg/h", panels, marks, formats)

    made.pictures["fig11b"] = draw


def _by_load(ran: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    for load, worlds in SIZES.items():
        yield load, [case for case in ran if case.world in worlds]


def _with_sites(case: Case) -> str:
    sites = next(n for worlds in SIZES.values() for n, world in enumerate(worlds, 3) if world == case.world)
    return f"{_named(case)}, N = {sites}"


def _fig12(made: Exhibit, results: Results) -> None:
    ran = ran_of("fig12", results)
    chosen = {name: METRICS[name] for name in ("objective", "cost_usd", "co2_t", "served_gto")}
    _long(made, results, ran, chosen)
    for load, here in _by_load(ran):
        by_row = sorted(here, key=lambda case: (case.row, _with_sites(case)))
        made.shown.append(_shown(results, load, by_row, chosen, _with_sites))
        made.pictures[f"fig12-{load.replace(' ', '-').lower()}"] = _seeds(results, by_row, chosen, _with_sites, 2)
    _curves(made, results, "fig12", [case for case in ran if ROWS[case.row].method and "grown" not in case.world])


def _fig13(made: Exhibit, results: Results) -> None:
    ran = ran_of("fig13", results)
    rows, shown = [], []
    lines: dict[tuple[str, str], list[tuple[str, SeedSpread, int]]] = {}
    for load, here in _by_load(ran):
        for name in dict.fromkeys(case.row for case in here):
            for n, world in enumerate(SIZES[load], 3):
                cells = []
                for metric in ("cost_usd", "co2_t"):
                    found = saving(results, name, world, metric)
                    rows += [(load, ROWS[name].label, n, metric, seed, value)
                             for seed, value in zip(results.seeds, found, strict=False)]
                    cells.append(cell(spread(found), 2))
                    lines.setdefault((load, metric), []).append((f"{ROWS[name].label}, N = {n}", spread(found),
                                                                 HUES[ROWS[name].kind]))
                shown.append((ROWS[name].label, load, str(n), *cells))
    made.numbers = dict(zip(("arrivals", "policy", "sites", "figure", "seed", "saved_percent"),
                            map(list, zip(*rows, strict=True)) if rows else [[]] * 6, strict=True))
    made.shown = [Table("saved by joint mode, % of power mode's", ("", "arrivals", "sites", "cost", "CO2"), shown,
                        NOTE.format(n=results.tier.seeds))]

    def draw(path: Path, formats: Sequence[str]) -> Path:
        panels = panels_of()
        words = {"cost_usd": "cost saved, %", "co2_t": "CO2 saved, %"}
        return panels.seeds(path, [(f"{words[metric]}: {load}", [
                panels.SeededFigure(name, s.values, s.iqm, s.low, s.high, hue) for name, s, hue in of])
                            for (load, metric), of in lines.items()], formats, 2)

    made.pictures["fig13"] = draw


_MAKERS = {"table2": _table2, "table3": _table3, "fig6": _fig6, "fig7": fig7, "fig8": fig8, "fig9": fig9,
           "fig10": _fig10, "fig11a": _fig11a, "fig11b": _fig11b, "fig12": _fig12, "fig13": _fig13}
