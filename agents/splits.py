"""cosim evaluate --splits: the same policies on days of a training, on days that none saw, and on days of another kind.

    train    the arrivals of the first days of a training with --seed 0
    test     seeds below 1000, where no training is
    shifted  those, with one thing changed at a time: load, its hours, prices, the feeder, lambda, what renewable plants
             have, when sources are clean, a site, a real trace

What a policy loses from one split to the next is how far what it does holds outside of what it was made on. Rules are
made on nothing; they show what of a loss is the day's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import mul
from pathlib import Path
from typing import Any

from cosim.agents.comparison import (
    METRICS,
    Methods,
    Results,
    cell,
    columns_in,
    columns_of,
    difference,
    latex,
    spread,
)
from cosim.agents.fleet.rewards import OBJECTIVE
from cosim.agents.recorded_jobs import RECORDED
from cosim.campaign.statistics import interval
from cosim.digest import Digest, Table
from cosim.errors import ScenarioError, unknown
from cosim.imports import load
from cosim.learning.vector import SEEDS_PER_RUN
from cosim.params import default_at, field_names
from cosim.scenario import Scenario, override, rows_of
from cosim.tables.files import write_table

KINDS = ("train", "test", "shifted")
SHOWN = (OBJECTIVE, "usd_per_gto", "kg_per_gto", "dropped_train")
"""What is printed; files have every metric."""
_PRICES_EARLIER_H, _OTHER_LAMBDAS, _LEFT_OF_SITE = 3.0, (0.1, 0.01), 0.1
_LEFT_OF_RENEWABLES, _CARBON_LATER_H = 0.3, 6.0
"""A dark week for the one, another season for the other."""
_SWING = tuple(1.0 + 0.5 * math.cos(2.0 * math.pi * (hour - 14.5) / 24.0) for hour in range(24))
"""Of arrivals by the hour: highest in the middle of the afternoon, three times what comes at night; mean 1."""


@dataclass(frozen=True)
class Split:
    """name and about: for tables; kind: one of KINDS; first_seed: of its runs; settings: what differs from the
    scenario."""

    name: str
    kind: str
    first_seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def seeds(self, count: int) -> list[int]:
        """Of its runs."""
        return list(range(self.first_seed, self.first_seed + count))


def kinds_of(text: str) -> list[str]:
    """The kinds in a list with commas, in the order of KINDS. ScenarioError."""
    given = [name.strip() for name in text.split(",")]
    for name in given:
        if name not in KINDS:
            raise ScenarioError(unknown("split", name, KINDS))
    return [name for name in KINDS if name in given]


def splits_of(scenario: Scenario, kinds: Sequence[str], first_seed: int, traces: Mapping[str, str] | None = None
              ) -> tuple[list[Split], list[str]]:
    """(the splits, which shifts this scenario has no parameter for). traces: what a trace is of -> its file, as in
    `cosim.agents.recorded_jobs`."""
    found, lacking = [], []
    if "train" in kinds:
        found.append(Split("train", "train", SEEDS_PER_RUN))
    if "test" in kinds:
        found.append(Split("test", "test", first_seed))
    if "shifted" in kinds:
        for about, settings in _shifts(scenario, traces or {}):
            if settings is None:
                lacking.append(about)
            else:
                found.append(Split(about, "shifted", first_seed, settings))
    if not found:
        raise ScenarioError(f"{scenario.name} has no parameter that a shift changes ({', '.join(lacking)}); leave "
                            "shifted out of --splits")
    return found, lacking


def _shifts(scenario: Scenario, traces: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """(about, settings), None where the scenario has no such parameter."""

    def changed(path: str, change: Callable[[Any], Any]) -> Mapping[str, Any] | None:
        now = parameter(scenario, path)
        return None if now is None or now == "" else {path: change(now)}

    for factor in (0.8, 1.15):
        yield f"load x{factor:g}", changed("workload.rate_scale", partial(mul, factor))
    swings = parameter(scenario, "workload.day_factors")
    yield "load by the hour", None if swings is None or len(swings) else {"workload.day_factors": list(_SWING)}
    windows = parameter(scenario, "tariff.windows") if not parameter(scenario, "tariff.prices") else None
    yield (f"prices {_PRICES_EARLIER_H:g} h earlier",
           {"tariff.windows": [_earlier(window) for window in windows]} if windows else None)
    yield "feeder x1.15", changed("profile.scale", lambda now: now * 1.15)
    other = next(x for x in _OTHER_LAMBDAS if x != parameter(scenario, "grid.lambda_kw_per_kg_h"))
    yield f"lambda {other:g}", changed("grid.lambda_kw_per_kg_h", lambda now: other)
    sources = rows_of(parameter(scenario, "grid.sources"), "grid.sources")
    yield f"renewables x{_LEFT_OF_RENEWABLES:g}", _sources(sources, _darker)
    yield f"carbon {_CARBON_LATER_H:g} h later", _sources(sources, _later)
    yield _smaller(scenario)
    for what, path in traces.items():
        yield f"real {what}", RECORDED[what](scenario, path)


def parameter(scenario: Scenario, path: str) -> Any:
    """What a member's parameter is, its default where the scenario has none; None without such a parameter."""
    name, _, field_name = path.partition(".")
    member = scenario.members.get(name)
    if member is None or member.simulator.startswith(("cmd:", "connect:")):
        return None
    if field_name in member.params:
        return member.params[field_name]
    kind = getattr(load(member.simulator, f"member '{name}'"), "PARAMS", None)
    return default_at(kind, (field_name,)) if kind is not None and field_name in field_names(kind) else None


def _sources(rows: Mapping[str, Mapping[str, Any]], change: Callable[[Mapping[str, Any]], dict[str, Any]]
             ) -> Mapping[str, Any] | None:
    """Settings with the fields that `change` gives for each source; None where it gives none."""
    changes = {name: change(row) for name, row in rows.items()}
    if not any(changes.values()):
        return None
    return {"grid.sources": {name: {**row, **changes[name]} for name, row in rows.items()}}


def _darker(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a renewable plant can give, if that is a number, or numbers over a day."""
    most_kw = row.get("p_max_kw")
    if not row.get("renewable") or isinstance(most_kw, (str, Mapping, type(None))):
        return {}
    numbers = [most_kw] if isinstance(most_kw, (int, float)) else most_kw
    less = [round(x * _LEFT_OF_RENEWABLES, 6) for x in numbers]
    return {"p_max_kw": less[0] if numbers == [most_kw] else less}


def _later(row: Mapping[str, Any]) -> dict[str, Any]:
    """Intensities that go over a day, moved around the clock by whole points."""
    moved = {}
    for name in ("kg_per_kwh", "marginal_kg_per_kwh"):
        over_day = row.get(name)
        if isinstance(over_day, (list, tuple)) and len(over_day) > 1:
            by = round(len(over_day) * _CARBON_LATER_H / 24.0)
            moved[name] = [*over_day[len(over_day) - by:], *over_day[:len(over_day) - by]]
    return moved


def _earlier(window: Mapping[str, Any]) -> dict[str, Any]:
    """A price's hours, moved around the clock; an end at midnight is 24."""
    start_h, end_h = ((float(window[key]) - _PRICES_EARLIER_H) % 24.0 for key in ("start_h", "end_h"))
    return {**window, "start_h": start_h, "end_h": end_h or 24.0}


def _smaller(scenario: Scenario) -> tuple[str, Mapping[str, Any] | None]:
    """The last site at a tenth of its racks; where it is the only one, or has no ten, it stays."""
    sites = rows_of(scenario.shared.get("sites"), "sites")
    if len(sites) < 2 or "aidc" not in scenario.members:
        return "one site small", None
    last, row = list(sites.items())[-1]
    fleet = load(scenario.members["aidc"].simulator, "member 'aidc'")
    racks = row["racks"] if "racks" in row else default_at(fleet.PARAMS, ("sites", last, "racks"))
    return (f"{last} small", {f"shared.sites.{last}.racks": max(1, round(racks * _LEFT_OF_SITE))} if racks >= 10 else
            None)


def scenario_of(scenario: Scenario, split: Split) -> Scenario:
    """The scenario of a split."""
    return override(scenario, split.settings)


def compare_splits(found: Mapping[str, Results], note: str, methods: Methods | None = None) -> Digest:
    """A table per shown metric: a row for each split, the policies, and each less the first on the same seeds; methods
    as in `cosim.agents.comparison.compare`."""
    named = methods or {}
    names, digest = columns_in(next(iter(found.values())), named), Digest()
    for metric in [m for name in SHOWN for m in METRICS if m.name == name]:
        rows = [(split, *(cell(spread(results, named, name, metric), metric.digits) for name in names),
                 *(cell(difference(results, named, name, names[0], metric), metric.digits, "+") for name in names[1:]))
                for split, results in found.items()]
        digest.tables.append(Table(metric.about, ("", *names, *(f"{name} - {names[0]}" for name in names[1:])), rows,
                                   note))
        digest.figures |= {f"{metric.name} of {name} on {split}": interval(spread(results, named, name, metric))[0]
                           for split, results in found.items() for name in names}
    return digest


def write_splits(path: Path, found: Mapping[str, Results], splits: Sequence[Split], about: Mapping[str, Any],
                 methods: Methods | None = None) -> None:
    """All metrics of all splits as a file, by its ending: see `cosim.agents.comparison.write`; rows have their split,
    its kind and the first of its seeds, whose runs are value_1 and so on."""
    if path.suffix == ".json":
        told = [{"name": s.name, "kind": s.kind, "first_seed": s.first_seed, "settings": s.settings} for s in splits]
        teams = {"methods": methods} if methods else {}
        path.write_text(json.dumps({**about, **teams, "splits": told, "metrics": found}, indent=1))
    elif path.suffix == ".tex":
        path.write_text(latex(compare_splits(found, str(about["note"]), methods).tables))
    else:
        columns: dict[str, list[Any]] = {}
        for split in splits:
            one = columns_of(found[split.name], [f"value_{k + 1}" for k in range(about["runs"])], methods)
            rows = len(one["metric"])
            one = {"split": [split.name] * rows, "kind": [split.kind] * rows, "first_seed": [split.first_seed] * rows,
                   **one}
            for name, values in one.items():
                columns.setdefault(name, []).extend(values)
        write_table(path, columns)
