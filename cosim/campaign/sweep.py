"""A sweep: a scenario at points of its fields, each with the same seeds, so that points differ by their settings alone
(common random numbers)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cosim.campaign.cells import Cell, CellState, digest_of, files_of
from cosim.campaign.files import make_folders, write_whole
from cosim.campaign.mirror import mirrored
from cosim.campaign.point_run import CALL, SCENARIOS, scenario_file
from cosim.campaign.points import MOST_CELLS, Point, checked_seeds, different, grid, plain
from cosim.campaign.runner import exit_code, nobody, run_cells, said_of
from cosim.campaign.sweep_table import frame_of, runs_of, statistics_of, write_tables
from cosim.console import plain_console, say
from cosim.errors import ModelError, ScenarioError, cut, shown
from cosim.experiment import Experiment
from cosim.plaintext import file_name
from cosim.progress import working
from cosim.request import changed, find
from cosim.scenario import Scenario
from cosim.units import parse_duration

if TYPE_CHECKING:
    import pandas as pd

File = str | os.PathLike[str]
_PROBE_SHARE, _PROBE_LEAST_S = 1 / 24, 3600.0
_LONGEST_SLUG = 60


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep computes: `points` in their order, each a scenario that has been resolved once.

    until_s  horizon; None: that of each scenario
    files    of each point: path or import string in its scenario -> SHA-256 of the content
    warnings of the scenarios' checks before a run, with the points that have them
    """

    name: str
    points: Sequence[Point]
    scenarios: Sequence[Scenario]
    seeds: Sequence[int]
    until_s: float | None
    driver: str
    keep_traces: bool
    warnings: Sequence[str] = ()
    texts: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", [scenario.to_json() for scenario in self.scenarios])

    @property
    def fields(self) -> list[str]:
        """Names of the fields that are set, in their order."""
        return list(self.points[0])

    @property
    def varied(self) -> list[str]:
        """Fields that have more than one value."""
        return [name for name in self.fields if len({repr(point[name]) for point in self.points}) > 1]

    def label(self, point: Point) -> str:
        """What distinguishes a point, in words: 'lambda_kw_per_kg_h=0.1 policy=uniform'."""
        last = [name.rpartition(".")[2] for name in self.varied]
        names = self.varied if len(set(last)) < len(last) else last
        return " ".join(f"{name}={_short(point[path])}" for name, path in zip(names, self.varied, strict=True)) or "all"

    def cells(self) -> list[Cell]:
        """A cell per point and seed, seed after seed of a point."""
        out = []
        for point, scenario, text in zip(self.points, self.scenarios, self.texts, strict=True):
            digest, files = digest_of(text), files_of(scenario.model_dump(mode="json"))
            # of content, so that a sweep that grows keeps what it has
            mark = digest_of(f"{digest} {self.until_s} {self.driver} {self.keep_traces}")[:10]
            values = "_".join(_short(point[path]) for path in self.varied)
            slug = re.sub(r"[^A-Za-z0-9._=,+@~-]+", "-", values)[:_LONGEST_SLUG].lstrip("._=,+@~-") or "point"
            for seed in self.seeds:
                out.append(Cell(f"{slug}.{mark}.s{seed}", CALL, {
                    "scenario": digest, "seed": seed, "until_s": self.until_s, "driver": self.driver,
                    "keep_trace": self.keep_traces, "settings": _json(point), "files": dict(files)}))
        return out

    def write_scenarios(self, out: Path) -> None:
        """Put the points' scenarios where their cells read them."""
        make_folders(out, (SCENARIOS,))
        for text in self.texts:
            path = scenario_file(out, digest_of(text))
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_whole(path, text)


def planned(scenario: Scenario, points: Sequence[Point], seeds: Sequence[int], *, until_s: float | None = None,
            driver: str = "native", keep_traces: bool = False, use: Mapping[str, str] | None = None,
            replays: Mapping[str, File] | None = None, names: Mapping[str, str] | None = None) -> SweepPlan:
    """A sweep whose every point can run: all of them are resolved, and each value of a field is started once.
    ScenarioError with what `cosim run --set` would print, naming the point."""
    if len(points) * len(seeds) > MOST_CELLS:
        raise ScenarioError(f"{len(points)} points with {len(seeds)} seeds are {len(points) * len(seeds)} cells; a "
                            f"sweep has at most {MOST_CELLS}")
    scenarios, started, warnings = [], set[tuple[str, str]](), dict[str, list[int]]()
    for number, point in enumerate(points, 1):
        try:
            settings = {name: json.dumps(value) if isinstance(value, str) else value for name, value in point.items()}
            asked = changed(scenario, use=use, settings=settings, replays=replays, names=names)
            experiment = Experiment(asked, driver, until_s)
            for text in experiment.preflight().warnings:
                warnings.setdefault(text, []).append(number)
            values = {(name, repr(value)) for name, value in point.items()} or {("", "")}
            if not values <= started:
                experiment.plan()
                started |= values
        except ScenarioError as err:
            if len(points) == 1:
                raise
            raise ScenarioError(f"point {number} of {len(points)}: {err.args[0]}") from None
        if not asked.summary:
            raise ScenarioError(f"{asked.name} has no summary, so a sweep of it has no figures; give its scenario file "
                                "summary: package.module:function")
        scenarios.append(asked)
    said = [f"{text}{_of_points(where, len(points))}" for text, where in warnings.items()]
    pinned = [f"{name} keeps its own seed {seed}, whatever --seeds are" for name, seed in scenario.seeds.items()]
    return SweepPlan(scenario.name, points, scenarios, seeds, until_s, driver, keep_traces, [*said, *pinned])


def with_measured_rate(sweep: SweepPlan, cells: Sequence[Cell]) -> list[Cell]:
    """The cells with estimates, from a short run of the first point in this process: seconds to start, and per
    simulated second."""
    whole = Experiment(sweep.scenarios[0], sweep.driver, sweep.until_s)
    warmup_s = whole.scenario.warmup_s
    horizon_s = whole.resolved.clock.seconds(whole.resolved.until)
    probe_s = min(horizon_s - warmup_s, max(_PROBE_SHARE * horizon_s, _PROBE_LEAST_S))
    wall = Experiment(sweep.scenarios[0].replace(warmup_s=0.0), sweep.driver, probe_s).run().wall_s
    each_s = wall["start"] + (wall["total"] - wall["start"]) * horizon_s / probe_s
    return [replace(cell, estimate_s=round(each_s, 3)) for cell in cells]


def default_folder(scenario: Scenario) -> Path:
    """results/<scenario>/sweep."""
    return Path("results") / file_name(scenario.name) / "sweep"


def compute(sweep: SweepPlan, out: Path, *, jobs: int, engine: Literal["local", "ray"] = "local",
            address: str | None = None, progress: bool = True, ended: Callable[[str], None] = nobody
            ) -> dict[str, CellState]:
    """Run what is not done, and write the tables of what is; states by cell. ended: as of `run_cells`."""
    sweep.write_scenarios(out)
    states = run_cells(sweep.cells(), out, jobs=jobs, engine=engine, address=address, progress=progress, ended=ended)
    write_tables(out, sweep.name, sweep.fields, runs_of(sweep.points, sweep.seeds, list(states.values())))
    return states


def run_sweep(scenario: str | os.PathLike[str] | Scenario, *, set: Mapping[str, Any] | None = None,
              points: Sequence[Mapping[str, Any]] = (), seeds: Sequence[int] | None = None,
              until: str | float | None = None, out: File | None = None, jobs: int = 1,
              engine: Literal["local", "ray"] = "local", address: str | None = None, copy_to: str | None = None,
              driver: str = "native", keep_traces: bool = False, use: Mapping[str, str] | None = None,
              replay: Mapping[str, File] | None = None, map: Mapping[str, str] | None = None,
              trust: File | Collection[File] = (), per_seed: bool = False, progress: bool = True) -> pd.DataFrame:
    """Run a scenario at points of its fields with the same seeds at each, and return the figures as one table.

    set          field -> value, or a list of values; all combinations are points
    points       field -> value of further points, at each of which those combinations are taken
    seeds        of every point (default: the scenario's)
    until        simulated time: '2h', or seconds (default: the scenario's)
    out          folder of the sweep (default: results/<scenario>/sweep); what it holds already is not run again
    jobs         runs at a time
    engine       'local' or 'ray'; address: of a running Ray cluster
    copy_to      URL of fsspec to which the folder is copied, each run as it ends (extra 'store')
    keep_traces  keep each run's trace in its cell's folder
    per_seed     return a row per run and figure, not per point and figure
    use, replay, map, driver, trust, progress: as of `cosim.simulate`

    Rows are points times figures, with the columns point, a column per field, figure, unit, runs, mean, mean_low and
    mean_high (95 % t interval over seeds), difference, difference_low and difference_high (to the first point, seed by
    seed). A field whose value is a list takes [[...], [...]]. Raises as `cosim.simulate`; ModelError that names the
    runs that failed, after all others have ended.
    """
    trusted = [trust] if isinstance(trust, str | os.PathLike) else list(trust)
    with working("checking the points", quiet=not progress):
        found = scenario if isinstance(scenario, Scenario) else find(
            scenario if isinstance(scenario, str) else Path(scenario), [Path(file) for file in trusted],
            [*(use or {}), *(replay or {})])
        axes = {name: different(name, [plain(v) for v in value] if isinstance(value, list | tuple) else [value])
                for name, value in ((name, plain(value)) for name, value in (set or {}).items())}
        listed = [{name: plain(value) for name, value in point.items()} for point in points]
        sweep = planned(found, grid(axes, listed), checked_seeds(seeds if seeds is not None else [found.seed]),
                        until_s=parse_duration(until) if isinstance(until, str) else until, driver=driver,
                        keep_traces=keep_traces, use=use, replays=replay, names=map)
    folder = Path(out) if out is not None else default_folder(found)
    if progress:
        for warning in sweep.warnings:
            say(plain_console(stderr=True), f"warning: {warning}", "yellow")
    with mirrored(folder, copy_to, progress) as ended:
        states = compute(sweep, folder, jobs=jobs, engine=engine, address=address, progress=progress, ended=ended)
    if exit_code(states.values()):
        raise ModelError(f"{'; '.join(said_of(states))}; the others are done in {folder}")
    runs = runs_of(sweep.points, sweep.seeds, list(states.values()))
    return frame_of(runs if per_seed else statistics_of(runs))


def _json(point: Point) -> dict[str, Any]:
    """Settings for people to read in the manifest: what JSON has no number for as text."""
    return {name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in point.items()}


def _short(value: Any) -> str:
    return cut(value if isinstance(value, str) else shown(value), 24)


def _of_points(numbers: Sequence[int], total: int) -> str:
    if len(numbers) == total:
        return ""
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return f" (point {', '.join(map(str, numbers[:3]))}{more})"
