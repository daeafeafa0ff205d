"""Days of the sites: what each was sent and drew, hour by hour, as figures (Fig. 7 to 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosim.agents.study.data import Results
from cosim.agents.study.plan import ROWS, WORLDS, Case
from cosim.agents.study.showing import NOTE, Columns, Draw, Exhibit, cell, number, panels_of, ran_of
from cosim.agents.study.statistics import spread
from cosim.digest import Table


def _days(part: str, results: Results) -> list[Case]:
    return [case for case in ran_of(part, results) if not case.signal_of]


def _hourly(results: Results, case: Case, column: str, k: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(hours (q,), values (q, sites)) of the quarters of a day of the k-th seed."""
    table = results.table(case, "quarters", k)
    assert table is not None, "the case was run"
    n = len(results.names(case))
    return table.numbers("hour")[::n], table.numbers(column).reshape(-1, n)


def _long_quarters(made: Exhibit, results: Results, ran: Sequence[Case]) -> None:
    """All quarters of the first seed, a row each."""
    out: Columns = {}
    for case in ran:
        table = results.table(case, "quarters")
        assert table is not None, "the case was run"
        names = results.names(case)
        texts = {"world": case.world, "policy": ROWS[case.row].label, "seed": results.seeds[0]}
        for name, value in texts.items():
            out.setdefault(name, []).extend([value] * len(table))
        out.setdefault("site", []).extend(names * (len(table) // len(names)))
        for column in table.names[1:]:
            out.setdefault(column, []).extend(round(x, 6) for x in table.numbers(column).tolist())
    made.numbers = out


_QUANTITIES = (("NCI, kg/kWh", "nci_kg_per_kwh"), ("training jobs / h", "train_jobs"),
               ("inference jobs / h", "inf_jobs"), ("power, kW", "p_kw"))


def _smooth(hour: np.ndarray, values: np.ndarray, per_hour: bool) -> tuple[np.ndarray, np.ndarray]:
    """By the hour: the mean of its quarters, or their sum."""
    whole = len(hour) // 4 * 4
    blocks = values[:whole].reshape(-1, 4, values.shape[1])
    return hour[:whole:4], blocks.sum(axis=1) if per_hour else blocks.mean(axis=1)


def fig7(made: Exhibit, results: Results) -> None:
    ran = _days("fig7", results)
    _long_quarters(made, results, ran)
    made.shown = [_site_table(results, world, [c for c in ran if c.world == world])
                  for world in dict.fromkeys(case.world for case in ran)]
    for world in dict.fromkeys(case.world for case in ran):
        made.pictures[f"fig7-{world}"] = _hours_of(results, [c for c in ran if c.world == world], _QUANTITIES)


def _hours_of(results: Results, ran: Sequence[Case], quantities: Sequence[tuple[str, str]]) -> Draw:
    def draw(path: Path, formats: Sequence[str]) -> Path:
        panels = []
        for about, column in quantities:
            row = []
            for case in ran:
                x, y = _smooth(*_hourly(results, case, column), per_hour=column.endswith("_jobs"))
                row.append((about, [(name, x, y[:, k]) for k, name in enumerate(results.names(case))]))
            panels.append(row)
        return panels_of().hours(path, [ROWS[case.row].label for case in ran], panels, formats)
    return draw


def _site_table(results: Results, world: str, ran: Sequence[Case]) -> Table:
    """What each site gets, per policy, means over seeds."""
    rows = []
    for case in ran:
        for k, name in enumerate(results.names(case)):
            def at(figure: str, k: int = k, case: Case = case) -> float:
                return float(results.sites(case, figure)[:, k].mean())
            rows.append((ROWS[case.row].label if not k else "", name, number(at("nci_kg_per_kwh"), 3),
                         number(100 * at("train_jobs_share"), 1), number(100 * at("inf_jobs_share"), 1),
                         number(at("p_kw"), 0), number(at("pue"), 3), number(at("wait_h"), 2),
                         number(at("wait_variance_h2"), 2)))
    return Table(f"{world}: {WORLDS[world].about}", ("", "site", "NCI, kg/kWh", "training jobs, %", "inference jobs, %",
                                                    "power, kW", "PUE", "mean wait of training, h",
                                                    "variance, h2"), rows,
                 f"means over {results.tier.seeds} seeds")


def fig8(made: Exhibit, results: Results) -> None:
    ran = [case for case in _days("fig8", results)]
    made.numbers = _starts(results, ran)
    made.shown = [Table("training jobs that arrive at the peak price", ("", "world", "start at the lowest price, %"),
                        [(ROWS[case.row].label, case.world,
                          cell(spread(100 * results.sites(case, "peak_to_off_peak")), 1)) for case in ran],
                        NOTE.format(n=results.tier.seeds))]
    for case in ran:
        if ROWS[case.row].kind in ("team", "stand-in"):
            made.pictures[f"fig8-{case.row}-{case.world}"] = _heat(results, case)


def _starts(results: Results, ran: Sequence[Case]) -> Columns:
    """How many training jobs arrived in one hour and started in another, all seeds together."""
    out: Columns = {name: [] for name in ("world", "policy", "site", "arrival_hour", "start_hour", "jobs")}
    for case in ran:
        for site, counts in _counts(results, case).items():
            for arrived, started in zip(*np.nonzero(counts), strict=True):
                for name, value in zip(out, (case.world, ROWS[case.row].label, site, int(arrived), int(started),
                                             int(counts[arrived, started])), strict=True):
                    out[name].append(value)
    return out


def _counts(results: Results, case: Case) -> dict[str, np.ndarray]:
    """Site -> (24, 24) training jobs by hours of arrival and start, all seeds together."""
    counts = {name: np.zeros((24, 24)) for name in results.names(case)}
    for k in range(results.tier.seeds):
        table = results.table(case, "starts", k)
        assert table is not None, "the case was run"
        if len(table):
            hours = [np.floor(table.numbers(name)).astype(int) for name in ("arrival_hour", "start_hour")]
            for site, arrived, started in zip(table.texts("site"), *hours, strict=True):
                counts[site][arrived, started] += 1.0
    return counts


def _heat(results: Results, case: Case) -> Draw:
    def draw(path: Path, formats: Sequence[str]) -> Path:
        edges = (np.arange(25.0), np.arange(25.0))
        panels = [(name, np.where(z.T > 0, z.T, np.nan)) for name, z in _counts(results, case).items()]
        return panels_of().grids(path, "hour of arrival", "hour of start", panels, edges, "training jobs", formats)
    return draw


def fig9(made: Exhibit, results: Results) -> None:
    ran = _days("fig9", results)
    _long_quarters(made, results, ran)
    rows = [(ROWS[case.row].label, case.world, cell(spread(results.sites(case, "nci_share_rank_correlation")), 2),
             *(cell(spread(x), 2) for x in results.sites(case, "nci_share_within_site").T[:3])) for case in ran]
    made.shown = [Table("rank correlation of NCI and share of the jobs, by quarters of an hour",
                        ("", "world", "all sites", "AIDC 1", "AIDC 2", "AIDC 3"), rows,
                        NOTE.format(n=results.tier.seeds))]
    for actors in results.tier.actors:
        made.pictures[f"fig9-{actors.team}"] = _cloud(results, [c for c in ran if c.row == actors.team])


def _cloud(results: Results, ran: Sequence[Case]) -> Draw:
    def draw(path: Path, formats: Sequence[str]) -> Path:
        panels = []
        for case in ran:
            _, nci = _smooth(*_hourly(results, case, "nci_kg_per_kwh"), per_hour=False)
            sent = sum(_smooth(*_hourly(results, case, column), per_hour=True)[1]
                       for column in ("train_jobs", "inf_jobs"))
            share = sent / np.maximum(np.sum(sent, axis=1, keepdims=True), 1.0)
            panels.append((f"{ROWS[case.row].label}, {case.world}",
                           [(name, nci[:, k], share[:, k]) for k, name in enumerate(results.names(case))]))
        return panels_of().clouds(path, "NCI, kg/kWh", "share of the jobs of an hour", panels, formats)
    return draw
