"""cosim evaluate POLICY [POLICY ...]: policies on the same arrivals, with confidence intervals over seeds, and a bound.

Every run begins with an empty fleet, takes in jobs for some days and goes on until all are decided, so that there is
no warm-up to guess and nothing left inside at the end (`cosim.agents.comparison`).

Rows: I32, K04-06, U20, X06, X10.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cosim.agents.comparison import Results, compare, metrics, write
from cosim.agents.probe import show
from cosim.agents.recorded_jobs import add_recorded, recorded_of
from cosim.agents.splits import KINDS, compare_splits, kinds_of, scenario_of, splits_of, write_splits
from cosim.console import (
    USE,
    add_names,
    add_settings,
    add_trust,
    add_use,
    assignments,
    command_parser,
    file_type,
    names_of,
    plain_console,
    print_digest,
    run_command,
    settings_of,
)
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.imports import load
from cosim.params import field_names
from cosim.progress import working
from cosim.replay.exchange import replay
from cosim.request import changed, find
from cosim.scenario import Scenario, override, rows_of
from cosim.tables.files import write_table
from cosim.trace import Trace
from cosim.units import DAY_S, MIN_S, parse_duration

BOUND = "bound"
_BOUNDS, _CHECK_BOUND = "cosim.simulators.analysis.bound:bounds", "cosim.simulators.analysis.bound:check"
"""By name, as models stand above the agents."""
_OURS = {"controller.policy": "policies are named after evaluate", "seed": "seeds are set by --first-seed and --seeds",
         "warmup_s": "an evaluation has no warm-up", "workload.arrivals_end_s": "arrivals end by --days"}
"""Fields that an evaluation sets itself, and by what."""
_OUT = (".csv", ".parquet", ".tex", ".json")


@dataclass(frozen=True)
class Evaluation:
    """What all policies are run on.

    scenario   as JSON text
    days       of arrivals; end_s: when the run ends, s
    open_loop  every policy meets the intensities of the first one's run of the seed
    bound      also work out what none can beat
    folder     where the first policy's traces are kept
    """

    scenario: str
    days: float
    end_s: float
    open_loop: bool
    bound: bool
    folder: str

    @property
    def length_days(self) -> float:
        """Of a run."""
        return self.end_s / DAY_S

    def run_scenario(self, policy: str, seed: int) -> Scenario:
        """The scenario as it is run: arrivals end, nothing is warm-up, no AC check, which changes nothing."""
        scenario = Scenario.from_json(self.scenario)
        settings: dict[str, Any] = {"controller.policy": policy, "seed": seed, "warmup_s": 0.0}
        if takes_arrivals_end(scenario):
            settings["workload.arrivals_end_s"] = self.days * DAY_S
        if "grid" in scenario.members and scenario.members["grid"].simulator.endswith(":CefDispatch"):
            settings["grid.ac_check"] = False
        return override(scenario, settings)


def takes_arrivals_end(scenario: Scenario) -> bool:
    """Whether the workload has a parameter for when arrivals end."""
    member = scenario.members.get("workload")
    if member is None or member.simulator.startswith(("cmd:", "connect:")):
        return False
    kind = getattr(load(member.simulator, "member 'workload'"), "PARAMS", None)
    return kind is not None and "arrivals_end_s" in field_names(kind)


def decided_s(scenario: Scenario) -> float:
    """How long after their arrival all jobs are decided: the longest deadline, of inference with the time that a
    nominal job runs, and what the controller's step adds; in whole steps of all members, s."""
    longest_s = 0.0
    for row in rows_of(scenario.shared["job_classes"], "job_classes").values():
        deadline_s = row["deadline_s"]
        due_s = parse_duration(deadline_s) if isinstance(deadline_s, str) else float(deadline_s)
        if row["kind"] != "train" and "work_to" in row:
            due_s += MIN_S * row["work_to"] / (row["to_per_gpu_min"] * row.get("gpus_per_block", 1))
        longest_s = max(longest_s, due_s)
    step_s = max(member.step_s for member in scenario.members.values())
    return step_s * math.ceil((longest_s + 2.0 * scenario.members["controller"].step_s) / step_s)


def _run_one(what: Evaluation, policy: str, seed: int, first: str) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of one policy on one seed, natively, and of the first policy (`first` is empty) the bounds, if
    `what.bound`. first: trace whose grid is played."""
    scenario = what.run_scenario(policy, seed)
    kinds = {name: "train" if row["kind"] == "train" else "inf"
             for name, row in rows_of(scenario.shared["job_classes"], "job_classes").items()}
    if first and what.open_loop:
        scenario = replay(scenario, "grid", first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5" if first else Path(what.folder) / f"{seed}.h5"
        result = Experiment(scenario, "native", what.end_s, path).run()
        bounds: dict[str, float] = {}
        if what.bound and not first:
            with Trace(path) as trace:
                bounds = load(_BOUNDS, "bound")(trace, what.open_loop, what.days)
    return metrics(result.digest.figures, kinds, what.days, what.length_days), bounds


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("evaluate")
    p.add_argument("policies", nargs="+", metavar="POLICY", help="a checkpoint (.safetensors), a rule's name, or "
                   "package.module:Class; the others are compared with the first. NAME=A,B,C: a method, by the teams "
                   "of its training seeds, with the interval over them")
    p.add_argument("--scenario", default="ieee33", help="a name or a file (default: ieee33)")
    p.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds FIRST to FIRST + N - 1 (default: 5)")
    p.add_argument("--first-seed", type=int, default=500, metavar="FIRST",
                   help="below 1000, where no training is (default: 500)")
    p.add_argument("--days", type=float, default=2.0, help="days of arrivals, from an empty fleet on; the run then "
                   "goes on until all jobs are decided (default: 2)")
    p.add_argument("--bound", action="store_true", help="also a bound that no policy can beat, from perfect knowledge "
                   "of arrivals and prices; of carbon it counts what holds whatever the load does, see --open-loop")
    p.add_argument("--open-loop", action="store_true", help="every policy meets the carbon intensities of the first "
                   "one's run of the seed: the bound then knows them, too")
    add_settings(p)
    add_use(p, "another simulator in a member's place, as in cosim run")
    add_names(p, "as in cosim run")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)")
    add_trust(p)
    p.add_argument("--splits", metavar="KINDS", help=f"on each of some kinds of days, with commas: {', '.join(KINDS)}; "
                   "train: the first days of a training with --seed 0; test: seeds from --first-seed on; shifted: "
                   "those, with load, its hours, prices, feeder, lambda or a site changed, one at a time")
    add_recorded(p, "with --splits shifted also: ")
    p.add_argument("--out", type=file_type(*_OUT), metavar="FILE", help="the tables, with every seed's metrics: .csv, "
                   ".parquet (extra `parquet`), .tex (without the seeds) or .json")
    p.add_argument("--probe", nargs="?", const="", metavar="SCENARIO", help="instead: what carbon, price and deadlines "
                   "cause each policy to do, shown otherwise at the same arrivals, and whether it may be called "
                   "carbon-aware (scenario: that of --scenario; some ten runs per policy and seed)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _evaluate, argv)


def _evaluate(args: argparse.Namespace) -> int:
    kinds = _check_options(args)
    policies, methods = teams_of(args.policies)
    args.scenario = args.probe or args.scenario
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    with tempfile.TemporaryDirectory() as folder:
        with working(f"loading {args.scenario}"):
            settings = settings_of(args.settings)
            for path, instead in _OURS.items():
                if path in settings:
                    raise ScenarioError(f"--set {path}={settings[path]}: {instead}; leave it out")
            use = assignments(args.use, "--use", USE)
            scenario = changed(find(args.scenario, args.trust, use), use=use, settings=settings,
                               names=names_of(args.names))
            _check(scenario, args.open_loop)
            what = Evaluation(scenario.to_json(), args.days, _end_s(scenario, args.days), args.open_loop, args.bound,
                              folder)
            if args.bound:
                load(_CHECK_BOUND, "bound")(scenario.members, rows_of(scenario.shared["job_classes"], "job_classes"))
            if args.out:
                _writable(args.out)
            for policy in policies:  # before the first of them has run for minutes
                resolve(what.run_scenario(policy, args.first_seed), what.end_s)
        if kinds:
            return _on_splits(args, what, policies, kinds, methods)
        if args.probe is not None:
            return show(scenario, policies, seeds, args.days, args.jobs, args.out)
        results, bounds = _run_all(what, policies, seeds, args.jobs)
    if args.bound:
        results[BOUND] = bounds
    note = _note(what, scenario, seeds)
    if args.out:
        write(args.out, results, {"scenario": scenario.name, "days": args.days, "seeds": seeds, "note": note}, methods)
    digest = compare(results, note + _about_methods(methods), methods)
    if args.bound:
        digest.warnings.append(_about_bound(args.open_loop))
    digest.warnings += _left(results)
    print_digest(plain_console(), digest)
    return 0


def _check_options(args: argparse.Namespace) -> list[str]:
    """The kinds of --splits, [] without; ScenarioError for options that are wrong or do not go together."""
    if args.seeds < 1 or not 0.0 < args.days < math.inf or args.jobs < 1 or args.first_seed < 0:
        raise ScenarioError(f"--seeds {args.seeds}, --days {args.days:g} and --jobs {args.jobs} must be > 0, "
                            f"--first-seed {args.first_seed} >= 0")
    if args.probe is not None and (args.bound or args.open_loop or (args.out and args.out.suffix != ".json")):
        raise ScenarioError("--probe goes with none of --bound and --open-loop, and its --out is a .json")
    kinds = kinds_of(args.splits) if args.splits is not None else []
    if kinds and (args.bound or args.open_loop or args.probe is not None):
        raise ScenarioError("--splits goes with none of --bound, --open-loop and --probe")
    if (traces := recorded_of(args)) and "shifted" not in kinds:
        raise ScenarioError(f"--{next(iter(traces))} goes with --splits shifted")
    return kinds


def teams_of(given: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """(policies to run, method -> its teams). ScenarioError."""
    policies, methods = [], {}
    for text in given:
        name, equals, teams = text.partition("=")
        found = list(dict.fromkeys(filter(None, teams.split(","))))
        if equals and (not name or len(found) < 2):
            raise ScenarioError(f"'{text}': a method is NAME=A,B,C, its name and the teams of two training seeds or "
                                "more; name a single team without '='")
        if equals:
            methods[name] = found
        policies += found if equals else [text]
    twice = sorted({policy for policy in policies if policies.count(policy) > 1}) if methods else []
    if twice or set(methods) & set(policies):
        raise ScenarioError(f"'{(twice or sorted(set(methods) & set(policies)))[0]}' is given twice; a team is of one "
                            "method, and a method's name no policy's")
    return list(dict.fromkeys(policies)), methods


def _on_splits(args: argparse.Namespace, what: Evaluation, policies: Sequence[str], kinds: Sequence[str],
               methods: Mapping[str, Sequence[str]]) -> int:
    """`--splits`: the policies on each of them, and the tables."""
    scenario = Scenario.from_json(what.scenario)
    splits, lacking = splits_of(scenario, kinds, args.first_seed, recorded_of(args))
    each = [replace(what, scenario=scenario_of(scenario, split).to_json(), folder=f"{what.folder}/{k}")
            for k, split in enumerate(splits)]
    for one, split in zip(each, splits, strict=True):  # before the first has run for minutes
        Path(one.folder).mkdir()
        for policy in policies:
            resolve(one.run_scenario(policy, split.first_seed), one.end_s)
    note = _note(what, scenario, range(args.first_seed, args.first_seed + args.seeds))
    if "train" in kinds:
        note += f"; of train {splits[0].first_seed}..{splits[0].seeds(args.seeds)[-1]}"
    about = {"scenario": scenario.name, "days": args.days, "runs": args.seeds, "note": note}
    found: dict[str, Results] = {}
    for k, (one, split) in enumerate(zip(each, splits, strict=True), 1):
        found[split.name] = _run_all(one, policies, split.seeds(args.seeds), args.jobs, f"{split.name}: ")[0]
        if args.out:  # each as it ends: a run that is stopped keeps those before
            write_splits(args.out, found, splits[:k], about, methods)
    digest = compare_splits(found, f"{note}; mean +- half of a 95 % t interval, differences seed by seed"
                            f"{', a method team by team' if methods else ''}", methods)
    if lacking:
        digest.warnings.append(f"left out, as {scenario.name} has nothing that could be changed so: "
                               f"{', '.join(lacking)}")
    for name, results in found.items():
        digest.warnings += [f"{name}: {text}" for text in _left(results)]
    print_digest(plain_console(), digest)
    return 0


def _check(scenario: Scenario, open_loop: bool) -> None:
    if "controller" not in scenario.members or "job_classes" not in scenario.shared:
        raise ScenarioError(f"{scenario.name} has no member 'controller' that a policy could run, or no shared "
                            "job_classes to count by")
    if open_loop and "grid" not in scenario.members:
        raise ScenarioError(f"--open-loop plays the grid of the first policy's run, and {scenario.name} has no member "
                            "'grid'; leave it out")


def _end_s(scenario: Scenario, days: float) -> float:
    step_s = max(member.step_s for member in scenario.members.values())
    return step_s * math.ceil(days * DAY_S / step_s - 1e-9) + decided_s(scenario)


def _note(what: Evaluation, scenario: Scenario, seeds: Sequence[int]) -> str:
    after = (what.end_s - what.days * DAY_S) / 3600.0
    ends = (f"then {after:.4g} h in which the jobs inside are decided" if takes_arrivals_end(scenario) else
            f"and {after:.4g} h more: this workload has no arrivals_end_s and goes on")
    loop = "; intensities of the first policy's runs" if what.open_loop else ""
    return (f"{scenario.name}, {what.days:g} days of arrivals from an empty fleet on, {ends}{loop}; seeds {seeds[0]}.."
            f"{seeds[-1]}")


def _about_methods(methods: Mapping[str, Sequence[str]]) -> str:
    return "".join(f"; {name}: {len(teams)} teams, over which its interval is" for name, teams in methods.items())


def _about_bound(open_loop: bool) -> str:
    known = ("the intensities that all policies met" if open_loop else
             "of carbon only what holds whatever the load does: no NCI is below that of the cleanest source there is, "
             "and no kWh saves more in the system than one from upstream")
    return (f"{BOUND} is a relaxation with perfect knowledge of arrivals and prices, and {known}; each row is the best "
            "for itself, and no schedule need reach any; cost, CO2 and energy are bounds where nothing is dropped")


def _left(results: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[str]:
    for policy, found in results.items():
        if left := sum(one.get("unfinished", 0.0) for one in found):
            yield (f"{left:g} jobs were inside at the end under {policy}, in all seeds: what they would have used is "
                   "not in its figures")


def _writable(out: Path) -> None:
    """ScenarioError now rather than after all the runs."""
    try:
        if out.suffix == ".parquet":  # also where its library is missing
            write_table(out, {"metric": []})
        out.open("a").close()
    except OSError as err:
        raise ScenarioError(f"--out {out} cannot be written: {err.strerror}") from None


@dataclass
class _Progress:
    """Counts runs as they end."""

    at: Callable[[float], None]
    done: int = field(default=0)

    def counted(self, coming: Iterable[Any]) -> list[Any]:
        """All that comes."""
        found = []
        for one in coming:
            found.append(one)
            self.done += 1
            self.at(self.done)
        return found


def _run_all(what: Evaluation, policies: Sequence[str], seeds: Sequence[int], jobs: int, about: str = ""
             ) -> tuple[dict[str, list[dict[str, float]]], list[dict[str, float]]]:
    """Metrics per policy and seed, and bounds per seed; the first policy's runs, then all others, over `jobs`
    processes."""
    first = [(what, policies[0], seed, "") for seed in seeds]
    others = [(what, policy, seed, str(Path(what.folder) / f"{seed}.h5")) for policy in policies[1:] for seed in seeds]
    total = len(first) + len(others)
    with working(f"{about}running {total} evaluations", total) as shown:
        progress = _Progress(shown.at)
        if jobs == 1 or total == 1:
            done = progress.counted(_run_one(*cell) for cell in (*first, *others))
        else:
            with ProcessPoolExecutor(min(jobs, total), get_context("spawn")) as pool:
                done = []
                for cells in (first, others) if what.open_loop else ([*first, *others],):
                    done += progress.counted(pool.map(_run_one, *zip(*cells, strict=True)) if cells else ())
    n = len(seeds)
    return ({policy: [found for found, _ in done[k * n:(k + 1) * n]] for k, policy in enumerate(policies)},
            [bounds for _, bounds in done[:n]])


if __name__ == "__main__":
    sys.exit(main())
