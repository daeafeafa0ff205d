"""Metrics of policies that were run on the same arrivals: rows, 95 % intervals over seeds, paired differences, and the
tables of them as CSV, Parquet and LaTeX.

Every run starts with an empty fleet, takes in jobs for some days and goes on until all of them are decided. So all
that a policy uses and emits is for the same jobs, and work that is put off, or left inside when a day ends, is no
saving. Totals are per day of arrivals.

Rows: I32, K04-06, U20, X06.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.agents.fleet.rewards import OBJECTIVE
from cosim.campaign.statistics import interval
from cosim.digest import Digest, Table
from cosim.tables.files import write_table
from cosim.units import KG_PER_T, KW_PER_MW, TO_PER_GTO

Results = Mapping[str, Sequence[Mapping[str, float]]]
"""Policy -> metrics of each seed."""
Methods = Mapping[str, Sequence[str]]
"""Method -> the policies that are its teams, one for each seed of its training."""


@dataclass(frozen=True)
class Metric:
    """One row of the table: where it comes from is `metrics`. digits: after the point."""

    name: str
    about: str
    digits: int


METRICS = (
    Metric(OBJECTIVE, "objective (32) per day, higher is better", 3),
    Metric("cost_usd", "electricity cost, USD/day", 0),
    Metric("co2_t", "attributed CO2, t/day", 3),
    Metric("system_co2_t", "CO2 of all sources, t/day", 3),
    Metric("marginal_co2_t", "the same at marginal intensities of the sources, t/day", 3),
    Metric("energy_mwh", "energy, MWh/day", 2),
    Metric("peak_kw", "peak of the fleet's power, kW (15 min)", 0),
    Metric("pue", "PUE, energy-weighted", 3),
    Metric("mwh_per_t", "carbon efficiency, MWh/t", 3),
    Metric("throughput", "throughput, M TO/min", 2),
    Metric("served_gto", "work of the jobs that finished, 1e9 TO/day", 2),
    Metric("usd_per_gto", "USD per 1e9 TO served", 4),
    Metric("kg_per_gto", "attributed kg CO2 per 1e9 TO served", 4),
    Metric("dropped_train", "dropped training jobs per day", 2),
    Metric("dropped_inf", "dropped inference jobs per day", 1),
    Metric("lost_gto", "work lost: begun and missed, or undone, 1e9 TO/day", 3),
    Metric("unfinished", "jobs inside at the end", 1),
    Metric("unfinished_gto", "work left of them, 1e9 TO", 2),
)
EVENTS = (
    Metric("dr_compliance_percent", "demand response delivered of called, %", 1),
    Metric("dr_rebound_kwh", "rebound energy, kWh/day", 0),
    Metric("dr_penalty_usd", "demand response penalty, USD/day", 0),
)


def metrics(figures: Mapping[str, float], kinds: Mapping[str, str], days: float,
            length_days: float | None = None) -> dict[str, float]:
    """Metrics from a summary's figures, totals per day of arrivals.

    figures: of `cosim.simulators.analysis.metrics.summary` over a whole run of `length_days` (None: `days`) with `days`
    days of arrivals; kinds: class -> 'train' or 'inf'. NaN where the run gives none. Beside METRICS, waits of each
    class, and jobs that missed its service level where it has one, and EVENTS where there were any.
    """
    energy, co2 = figures["energy_kwh"], figures["co2_attributed_kg"]
    dropped = {kind: sum(figures[f"dropped_{name}_jobs"] for name, k in kinds.items() if k == kind)
               for kind in ("train", "inf")}
    served = figures.get("served_to", math.nan) / TO_PER_GTO
    found = {
        OBJECTIVE: figures.get(OBJECTIVE, math.nan) / days,
        "throughput": figures["throughput_to_per_min"] / 1e6 * (length_days or days) / days,
        "cost_usd": figures["cost_usd"] / days,
        "co2_t": co2 / KG_PER_T / days,
        "system_co2_t": figures.get("co2_system_kg", math.nan) / KG_PER_T / days,
        "marginal_co2_t": figures.get("co2_marginal_kg", math.nan) / KG_PER_T / days,
        "dropped_train": dropped["train"] / days,
        "dropped_inf": dropped["inf"] / days,
        "mwh_per_t": energy / co2 if co2 else math.nan,
        "pue": figures.get("facility_energy_kwh", energy) / figures["it_energy_kwh"],
        "energy_mwh": energy / KW_PER_MW / days,
        "peak_kw": figures.get("peak_kw", math.nan),
        "unfinished": sum(figures[f"unfinished_{name}_jobs"] for name in kinds),
        "unfinished_gto": sum(figures.get(f"unfinished_{name}_to", math.nan) for name in kinds) / TO_PER_GTO,
        "lost_gto": (figures.get("lost_missed_to", 0.0) + figures.get("lost_failed_to", 0.0)) / TO_PER_GTO / days,
        "served_gto": served / days,
        "kg_per_gto": co2 / served if served else math.nan,
        "usd_per_gto": figures["cost_usd"] / served if served else math.nan,
    }
    for name in kinds:
        found |= {f"wait_p{p}_{name}_min": figures[f"wait_p{p}_{name}_s"] / 60.0 for p in (50, 99)
                  if f"wait_p{p}_{name}_s" in figures}
        if f"slo_missed_{name}_jobs" in figures:
            found[f"slo_missed_{name}"] = figures[f"slo_missed_{name}_jobs"] / days
    if "dr_events" in figures:
        found |= {"dr_compliance_percent": 100.0 * figures["dr_compliance_ratio"],
                  **{name: figures[name] / days for name in ("dr_rebound_kwh", "dr_penalty_usd")}}
    return found


def rows_of(results: Results) -> list[Metric]:
    """The rows that any of the results has, in their order: METRICS, waits and service levels by class, events."""
    names = dict.fromkeys(name for of_policy in results.values() for found in of_policy for name in found)
    rows = list(METRICS)
    for name in names:
        if name.startswith("wait_p"):
            quantile, _, of_class = name.removeprefix("wait_").removesuffix("_min").partition("_")
            rows.append(Metric(name, f"wait of {of_class}, {quantile}, min", 1))
        elif name.startswith("slo_missed_"):
            of_class = name.removeprefix("slo_missed_")
            rows.append(Metric(name, f"{of_class} jobs that missed their service level, per day", 1))
    return rows + [m for m in EVENTS if m.name in names]


def compare(results: Results, note: str, methods: Methods | None = None) -> Digest:
    """Two tables: every policy's metrics with 95 % intervals, and each policy less the first, seed by seed.

    methods: a column each in the place of their teams; its interval is over its teams, each a mean over the seeds
    """
    named = methods or {}
    names, digest = columns_in(results, named), Digest()
    metrics_here = rows_of(results)
    rows = [(m.about, *(cell(spread(results, named, n, m), m.digits) for n in names)) for m in metrics_here]
    digest.tables.append(Table("Policies", ("", *names), rows, f"{note}; mean +- half of a 95 % t interval"))
    for name in names:
        for m in metrics_here:
            digest.figures[f"{m.name} of {name}"], _ = interval(spread(results, named, name, m))
    if len(names) > 1:
        rows = [(m.about, *(cell(difference(results, named, n, names[0], m), m.digits, "+") for n in names[1:]))
                for m in metrics_here]
        digest.tables.append(Table(f"Difference from {names[0]}, same arrivals", ("", *names[1:]), rows,
                                   "seed by seed, a method team by team; an interval without 0 tells the two apart"
                                   if named else "seed by seed; an interval without 0 tells the two apart"))
    return digest


def of(results: Results, policy: str, metric: Metric) -> list[float]:
    """A metric of a policy, seed by seed; NaN where it has none."""
    return [found.get(metric.name, math.nan) for found in results[policy]]


def columns_in(results: Results, methods: Methods) -> list[str]:
    """What a table compares: policies, and methods where the first of their teams stands."""
    whose = {team: method for method, teams in methods.items() for team in teams}
    return list(dict.fromkeys(whose.get(policy, policy) for policy in results))


def spread(results: Results, methods: Methods, name: str, metric: Metric) -> list[float]:
    """What an interval is of: a policy's values seed by seed, or a method's team by team, each the mean over seeds."""
    if name not in methods:
        return of(results, name, metric)
    return [_mean(of(results, team, metric)) for team in methods[name]]


def difference(results: Results, methods: Methods, name: str, first: str, metric: Metric) -> list[float]:
    """The same of a difference from the first policy or method, whose mean over teams counts: of a policy seed by seed,
    of a method team by team."""
    base = by_seed(results, methods, first, metric)
    if name in methods:
        return [x - _mean(base) for x in spread(results, methods, name, metric)]
    return [x - y for x, y in zip(of(results, name, metric), base, strict=True)]


def by_seed(results: Results, methods: Methods, name: str, metric: Metric) -> list[float]:
    """A policy's values, or a method's means over its teams, seed by seed."""
    teams = methods.get(name, [name])
    return [_mean(values) for values in zip(*(of(results, team, metric) for team in teams), strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def write(path: Path, results: Results, about: Mapping[str, Any], methods: Methods | None = None) -> None:
    """The tables as a file, by its ending.

    .csv, .parquet   a row for each metric and policy: mean and half width, the same of the difference from the first
                     policy, and every seed's value; methods, whose values are means over teams, after all policies
    .tex             the two tables in LaTeX, with the rules of booktabs
    .json            every seed's metrics, and what was run
    """
    if path.suffix == ".json":
        teams = {"methods": methods} if methods else {}
        path.write_text(json.dumps({**about, **teams, "metrics": results}, indent=1))
    elif path.suffix == ".tex":
        path.write_text(latex(compare(results, str(about["note"]), methods).tables))
    else:
        write_table(path, columns_of(results, [f"seed_{seed}" for seed in about["seeds"]], methods))


def columns_of(results: Results, runs: Sequence[str], methods: Methods | None = None) -> dict[str, list[Any]]:
    """Columns of the table for files; runs: names of those with the single values."""
    columns: dict[str, list[Any]] = {name: [] for name in (
        "metric", "about", "policy", "mean", "half_95", "difference_mean", "difference_half_95",
        *runs)}
    named = methods or {}
    first = columns_in(results, named)[0]
    for metric in rows_of(results):
        for policy in [*results, *named]:
            row = (metric.name, metric.about, policy, *interval(spread(results, named, policy, metric)),
                   *interval(difference(results, named, policy, first, metric)),
                   *by_seed(results, named, policy, metric))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns


_LATEX = str.maketrans({c: rf"\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
                                                          "\\": r"\textbackslash{}"})


def latex(tables: Sequence[Table]) -> str:
    """Tables with the rules of booktabs."""
    lines = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        lines += [f"% {table.title}: {table.note}", rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
                  r"\toprule", " & ".join(name.translate(_LATEX) for name in table.columns) + r" \\", r"\midrule",
                  *(" & ".join(cell.translate(_LATEX).replace("+-", r"$\pm$") for cell in row) + r" \\"
                    for row in table.rows), r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def cell(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean and half width as text; '-' where there is no mean."""
    mean, half = interval(values)
    if math.isnan(mean):
        return "-"
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(half) else f" +- {half:.{digits}f}")
