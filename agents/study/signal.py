"""The study of a signal from finished cells: what following each one saves, where following NCI raises emissions, how
much load swings, and the page that shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.study.page import Chapter, page
from cosim.agents.study.paper import FIGURES, FORMATS, NUMBERS, PAGE, versions_said
from cosim.agents.study.plan import FIRST_SEED
from cosim.agents.study.showing import cell, number, panels_of
from cosim.agents.study.signal_plan import FEEDERS, SIGNALS, Point, SignalTier, points, signal_key
from cosim.agents.study.statistics import SeedSpread, spread
from cosim.campaign.cells import CellState
from cosim.campaign.runner import said_of
from cosim.digest import Digest, Table
from cosim.progress import working
from cosim.tables.files import write_table
from cosim.units import KG_PER_T

BASE = next(iter(SIGNALS))
SYSTEM, MARGINAL = "system_co2_t", "marginal_co2_t"
ACCOUNTS = {SYSTEM: "CO2 of all sources", MARGINAL: "the same at marginal intensities of the sources",
            "co2_t": "attributed CO2"}
WORK_RATIO = 1e-3
"""Runs of a point whose served work differs by more than this share are not compared in silence."""


@dataclass(frozen=True)
class SignalResults:
    """What finished cells returned, by key."""

    results: Mapping[str, Mapping[str, Any]]
    tier: SignalTier

    def of(self, point: Point, signal: str) -> list[Mapping[str, Any]]:
        """One per seed; [] where one is missing."""
        found = [self.results.get(signal_key(point, signal, seed)) for seed in self.seeds]
        return [] if None in found else [one for one in found if one is not None]

    @property
    def seeds(self) -> range:
        """Of the arrivals."""
        return range(FIRST_SEED, FIRST_SEED + self.tier.seeds)

    def metric(self, point: Point, signal: str, name: str) -> np.ndarray:
        """(seeds,) a metric; (0,) where it was not run."""
        return np.array([_number(one["metrics"][name]) for one in self.of(point, signal)])

    def saved_kg(self, point: Point, signal: str, account: str) -> np.ndarray:
        """(seeds,) kg a day that following a signal saves of what no signal emits; (0,) where one was not run."""
        ours, base = self.metric(point, signal, account), self.metric(point, BASE, account)
        return (base - ours) * KG_PER_T if len(ours) and len(base) else np.zeros(0)

    def possible_kg(self, point: Point) -> np.ndarray:
        """(seeds,) kg a day of all sources' CO2 that no policy can save more of; NaN where no bound is known."""
        return np.array([(_number(one["metrics"][SYSTEM]) - _number(one["bounds"].get(SYSTEM))) * KG_PER_T
                         for one in self.of(point, BASE)])

    def numbers(self, point: Point, signal: str, name: str) -> np.ndarray:
        """(seeds,) of a figure beside the metrics."""
        return np.array([_number(one[name]) for one in self.of(point, signal)])


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def signal_results(states: Mapping[str, CellState], tier: SignalTier) -> SignalResults:
    """The results of a campaign's cells."""
    return SignalResults({key: state.result for key, state in states.items() if state.result is not None}, tier)


def raises(results: SignalResults, signal: str, account: str = SYSTEM) -> list[Point]:
    """The points at which following a signal emits more than no signal does, on every seed."""
    return [point for point in points(results.tier)
            if len(saved := results.saved_kg(point, signal, account)) and (saved < 0.0).all()]


def unequal(results: SignalResults) -> list[str]:
    """Runs whose served work differs from that of no signal at their point, a sentence each."""
    out = []
    for point in points(results.tier):
        base = results.metric(point, BASE, "served_gto")
        for signal in results.tier.signals:
            ours = results.metric(point, signal, "served_gto")
            if len(ours) and len(base) and (worst := float(np.abs(ours / base - 1.0).max())) > WORK_RATIO:
                out.append(f"{point.label}: {SIGNALS[signal].label} serves work that differs by {100 * worst:.2f} % "
                           "from that of no signal; what it saves is in part work that was dropped")
    return out


def findings(results: SignalResults) -> list[str]:
    """What the tables come to, in sentences whose numbers are worked out."""
    run = [point for point in points(results.tier) if results.of(point, BASE)]
    out = []
    for signal in results.tier.signals[1:]:
        saved = {point: float(np.mean(x)) for point in run if len(x := results.saved_kg(point, signal, SYSTEM))}
        if saved:
            worse = raises(results, signal)
            least, most = min(saved.values()), max(saved.values())
            out.append(f"{SIGNALS[signal].label}: saves {least:,.0f} to {most:,.0f} kg a day "
                       f"of all sources' CO2 over {len(saved)} points; it emits more than no signal at "
                       + (f"{len(worse)}: {'; '.join(point.label for point in worse)}" if worse else "none"))
    return out


# --- tables and pictures ----------------------------------------------------------------------------------------------


def _saved_table(results: SignalResults, account: str, title: str) -> Table:
    signals = results.tier.signals[1:]
    rows = []
    for point in points(results.tier):
        if not results.of(point, BASE):
            continue
        cells = [cell(spread(results.saved_kg(point, signal, account)), 0) for signal in signals]
        rows.append((point.label, number(float(np.mean(results.metric(point, BASE, account))), 2), *cells))
    return Table(title, ("point", "no signal, t/day", *(f"{SIGNALS[s].label}, kg/day saved" for s in signals)), rows,
                 "> 0: less is emitted than with no signal; same arrivals, from an empty fleet to an empty fleet"
                 + (f"; interquartile mean over {results.tier.seeds} seeds" if results.tier.seeds > 1
                    else "; one seed"))


def _share_table(results: SignalResults) -> Table:
    signals = results.tier.signals[1:]
    rows = []
    for point in points(results.tier):
        possible = results.possible_kg(point)
        if len(possible) and np.isfinite(possible).all() and (possible > 0.0).all():
            rows.append((point.label, cell(spread(possible), 0), *(
                number(100 * float(np.mean(saved / possible)), 1)
                if len(saved := results.saved_kg(point, signal, SYSTEM)) else "-" for signal in signals)))
    return Table("share of what a bound leaves to be saved of all sources' CO2, %",
                 ("point", "no policy saves more than, kg/day", *(SIGNALS[s].label for s in signals)), rows,
                 "the bound knows all arrivals and counts every kWh of a data center at the cleanest intensity that "
                 "upstream has: what no policy can beat, and perhaps none can reach")


def _swing_table(results: SignalResults) -> Table:
    rows = [(point.label, *(cell(spread(100 * results.numbers(point, signal, "moved_ratio")), 2)
                            for signal in results.tier.signals),
             cell(spread(results.numbers(point, BASE, "rank_agreement")), 2))
            for point in points(results.tier) if results.of(point, BASE)]
    return Table("load that changes its site from one quarter of an hour to the next, % of the fleet's power",
                 ("point", *(SIGNALS[s].label for s in results.tier.signals), "rank correlation of NCI and MCI"), rows,
                 "a fleet that follows a signal which its own load turns round swings; the last column is at no signal")


def _cost_table(results: SignalResults) -> Table:
    rows = []
    for point in points(results.tier):
        for signal in results.tier.signals:
            if results.of(point, signal):
                rows.append((point.label, SIGNALS[signal].label, *(
                    number(float(np.mean(results.metric(point, signal, name))), digits)
                    for name, digits in (("cost_usd", 0), ("energy_mwh", 2), ("served_gto", 2), ("dropped_train", 2),
                                         ("dropped_inf", 1)))))
    return Table("what it costs", ("point", "signal", "USD/day", "MWh/day", "work served, 1e9 TO/day",
                                   "dropped training jobs/day", "dropped inference jobs/day"), rows, "means over seeds")


def _long(results: SignalResults) -> dict[str, list[Any]]:
    """Everything as a tidy table."""
    names = ("feeder", "lambda_kw_per_kg_h", "load", "fleet", "battery", "jobs", "signal", "seed", "figure",
             "value")
    rows = []
    for point in points(results.tier):
        for signal in results.tier.signals:
            for seed, one in zip(results.seeds, results.of(point, signal), strict=False):
                head = (point.feeder, point.lambda_kw_per_kg_h, point.load, point.fleet, int(point.battery),
                        point.jobs or "synthetic", SIGNALS[signal].label, seed)
                figures = {**one["metrics"], "moved_ratio": one["moved_ratio"], "rank_agreement": one["rank_agreement"],
                           **{f"bound_{name}": value for name, value in one["bounds"].items()}}
                rows += [(*head, name, value) for name, value in figures.items() if value is not None]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}


def _picture(results: SignalResults, feeder: str, folder: Path) -> Path:
    """Saved kg a day at every point of a feeder, a panel per account, a line per point and signal."""
    panels = panels_of()
    here = [point for point in points(results.tier) if point.feeder == feeder and results.of(point, BASE)]
    shown = []
    for account, about in ((SYSTEM, "all sources"), (MARGINAL, "at marginal intensities")):
        lines = []
        for point in here:
            for k, signal in enumerate(results.tier.signals[1:]):
                over: SeedSpread = spread(results.saved_kg(point, signal, account))
                if math.isfinite(over.iqm):
                    lines.append(panels.SeededFigure(f"{point.change}: {SIGNALS[signal].label}", over.values, over.iqm,
                                                     over.low, over.high, k))
        if lines:
            shown.append((f"CO2 saved, kg/day: {about}", lines))
    panels.seeds(folder / f"signal-{feeder}.svg", shown, FORMATS, 2)
    return folder / f"signal-{feeder}.svg"


# --- the page ---------------------------------------------------------------------------------------------------------


def write_signal(states: Mapping[str, CellState], tier: SignalTier, out: Path, command: str
                 ) -> tuple[Path, SignalResults]:
    """Write page, pictures and numbers into `out`; returns the page and the results."""
    results = signal_results(states, tier)
    (out / NUMBERS).mkdir(exist_ok=True)
    write_table(out / NUMBERS / "signal.csv", _long(results))
    warnings, pictures = [*said_of(states), *unequal(results)], []
    if find_spec("matplotlib") is None:
        warnings.append("matplotlib is not installed (extra 'plot'), so that there are no pictures")
    else:
        (out / FIGURES).mkdir(exist_ok=True)
        with working("drawing", len(tier.feeders)) as progress:
            for k, feeder in enumerate(tier.feeders):
                if any(results.of(point, BASE) for point in points(tier) if point.feeder == feeder):
                    pictures.append((_picture(results, feeder, out / FIGURES), f"what signals save on {feeder}"))
                progress.at(k + 1)
    files = [f"{NUMBERS}/signal.csv"]
    files += [f"{FIGURES}/{path.stem}.{ending}" for path, _ in pictures for ending in FORMATS]
    chapters = [
        Chapter("saved", "What following a signal saves", tables=[
            _saved_table(results, SYSTEM, ACCOUNTS[SYSTEM]), _share_table(results),
            _saved_table(results, MARGINAL, ACCOUNTS[MARGINAL]), _saved_table(results, "co2_t", ACCOUNTS["co2_t"])],
                pictures=pictures, notes=findings(results), files=files),
        Chapter("swings", "Swings", "Load that follows a signal changes it.", tables=[_swing_table(results)]),
        Chapter("cost", "Cost and work", tables=[_cost_table(results)]),
        Chapter("how", "How it was done", notes=list(ABOUT), tables=[
            Table("Feeders", ("feeder", "scenario", "what it is"), [
                (name, feeder.scenario, feeder.about) for name, feeder in FEEDERS.items() if name in tier.feeders]),
            Table("Signals", ("signal", "who follows it", "what is set"), [
                (signal.label, signal.policy, " ".join(f"{k.removeprefix('controller.')}={v}" for k, v in
                                                       signal.settings.items()))
                for name, signal in SIGNALS.items() if name in tier.signals]),
            *([Table("Recorded jobs", ("of", "file"), [(what, Path(path).name) for what, path in tier.traces.items()])]
              if tier.traces else [])])]
    text = page("What a carbon signal is worth", (
        f"Tier '{tier.name}': {tier.about}. The same jobs, all of them served, with one rule that follows a different "
        "signal each time.", f"Made by: {command}"), warnings, [], chapters,
        f"Made by cosim study signal. {versions_said(states)} Nothing on this page is loaded from elsewhere.")
    made = out / PAGE
    made.write_text(text, encoding="utf-8", newline="\n")
    return made, results


ABOUT = (
    "One rule, the myopic oracle, follows every signal but the forecast: where jobs go and when training runs. A "
    "kWh at the usual level of a signal is worth the same to it, whatever the signal is, so that nothing else differs.",
    "Each run begins and ends with an empty fleet: all jobs of the day are decided, and what is saved is no work "
    "put off.",
    "Arrivals are the study's synthetic ones, except where a point says that some are recorded: those have their real "
    "sizes and times, at the load of the jobs whose place they take. Upstream series of two of the feeders are made by "
    "formulas and are no measured data.",
    "Forecast of MCI: the planner mpc, with intensities as they were the day before.",
    "MCI and own effect: each site learns from its own changes of power how its marginal intensity answers to them, "
    "and the sites are compared at equal power.")


def digest_of_signal(results: SignalResults, states: Mapping[str, CellState]) -> Digest:
    """What the command prints."""
    digest = Digest([_saved_table(results, SYSTEM, ACCOUNTS[SYSTEM]), _swing_table(results)],
                    [*said_of(states), *unequal(results)])
    lines = findings(results)
    if lines:
        digest.tables.append(Table("Found", ("signal", ""), [tuple(line.split(": ", 1)) for line in lines]))
    for signal in results.tier.signals[1:]:
        digest.figures[f"points at which {SIGNALS[signal].label} emits more than no signal"] = float(
            len(raises(results, signal)))
    return digest

