"""cosim evaluate POLICY [POLICY ...]: the metrics of Table II for learned policies and rules, with
confidence intervals over seeds.

Every policy meets the same arrivals, after a day of warm-up, and totals stand beside figures per served
work, since a policy that drops or postpones work also saves power.

Rows: I32, K04-06, U20, X06, X10.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from cosim.agents.probe import show
from cosim.campaign.statistics import interval
from cosim.console import (
    add_settings,
    add_trust,
    command_parser,
    plain_console,
    print_digest,
    run_command,
    settings_of,
)
from cosim.digest import Digest, Table
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.progress import working
from cosim.request import find
from cosim.scenario import Scenario, override, rows_of
from cosim.units import DAY_S, KG_PER_T, KW_PER_MW, TO_PER_GTO

WARMUP_DAYS = 1


@dataclass(frozen=True)
class Metric:
    """One row of the table: where it comes from is `metrics`. digits: after the point."""

    name: str
    about: str
    digits: int


METRICS = (
    Metric("throughput", "throughput, M TO/min (R1)", 2),
    Metric("cost_usd", "electricity cost, USD/day (R2)", 0),
    Metric("co2_t", "attributed CO2, t/day (R3)", 3),
    Metric("system_co2_t", "CO2 of all sources, t/day", 3),
    Metric("marginal_co2_t", "the same at marginal intensities of the sources, t/day", 3),
    Metric("dropped_train", "dropped training jobs per day (R4)", 2),
    Metric("dropped_inf", "dropped inference jobs per day (R5)", 1),
    Metric("mwh_per_t", "carbon efficiency, MWh/t", 3),
    Metric("pue", "PUE, energy-weighted", 3),
    Metric("energy_mwh", "energy, MWh/day", 2),
    Metric("unfinished", "jobs inside at the end", 1),
    Metric("unfinished_gto", "work left of them, 1e9 TO", 2),
    Metric("lost_gto", "work lost: begun and missed, or undone, 1e9 TO/day", 3),
    Metric("served_gto", "work of the jobs that finished, 1e9 TO/day", 2),
    Metric("kg_per_gto", "attributed kg CO2 per 1e9 TO served", 4),
    Metric("usd_per_gto", "USD per 1e9 TO served", 4),
)


def metrics(figures: Mapping[str, float], kinds: Mapping[str, str], days: float) -> dict[str, float]:
    """Table II's metrics per day from a summary's figures.

    figures: of `cosim.simulators.analysis.metrics.summary` over `days` counted days; kinds: class -> 'train' or 'inf'.
    NaN where the scenario's grid gives no carbon.
    """
    energy, co2 = figures["energy_kwh"], figures["co2_attributed_kg"]
    dropped = {kind: sum(figures[f"dropped_{name}_jobs"] for name, k in kinds.items() if k == kind)
               for kind in ("train", "inf")}
    return {
        "throughput": figures["throughput_to_per_min"] / 1e6,
        "cost_usd": figures["cost_usd"] / days,
        "co2_t": co2 / KG_PER_T / days,
        "system_co2_t": figures.get("co2_system_kg", math.nan) / KG_PER_T / days,
        "marginal_co2_t": figures.get("co2_marginal_kg", math.nan) / KG_PER_T / days,
        "dropped_train": dropped["train"] / days,
        "dropped_inf": dropped["inf"] / days,
        "mwh_per_t": energy / co2 if co2 else math.nan,
        "pue": figures.get("facility_energy_kwh", energy) / figures["it_energy_kwh"],
        "energy_mwh": energy / KW_PER_MW / days,
        "unfinished": sum(figures[f"unfinished_{name}_jobs"] for name in kinds),
        "unfinished_gto": sum(figures.get(f"unfinished_{name}_to", math.nan) for name in kinds) / TO_PER_GTO,
        "lost_gto": (figures.get("lost_missed_to", 0.0) + figures.get("lost_failed_to", 0.0)) / TO_PER_GTO / days,
        "served_gto": figures.get("served_to", math.nan) / TO_PER_GTO / days,
        "kg_per_gto": figures.get("co2_attributed_kg_per_gto", math.nan),
        "usd_per_gto": figures.get("cost_usd_per_gto", math.nan),
    }


def _as_run(scenario: Scenario, policy: str, seed: int) -> Scenario:
    """A scenario as it is evaluated: a day of warm-up, without the AC check, which changes nothing."""
    settings = {"controller.policy": policy, "seed": seed, "warmup_s": WARMUP_DAYS * DAY_S}
    if "grid" in scenario.members and scenario.members["grid"].simulator.endswith(":CefDispatch"):
        settings["grid.ac_check"] = False
    return override(scenario, settings)


def _run_one(scenario_json: str, policy: str, seed: int, days: float) -> dict[str, float]:
    """Metrics of one policy on one seed: a day of warm-up, then `days` that count, natively."""
    scenario = _as_run(Scenario.from_json(scenario_json), policy, seed)
    kinds = {name: "train" if row["kind"] == "train" else "inf"
             for name, row in rows_of(scenario.shared["job_classes"], "job_classes").items()}
    with tempfile.TemporaryDirectory() as folder:
        result = Experiment(scenario, "native", days * DAY_S, Path(folder) / "run.h5").run()
    return metrics(result.digest.figures, kinds, days)


def compare(results: Mapping[str, Sequence[Mapping[str, float]]], seeds: Sequence[int], days: float) -> Digest:
    """Two tables: every policy's metrics with 95 % intervals, and each policy less the first, seed by seed."""
    names = list(results)
    digest = Digest()
    spread = (f"{days:g} days after {WARMUP_DAYS} of warm-up, seeds {seeds[0]}..{seeds[-1]}; mean +- half of a 95 % t "
              "interval")
    rows = [(m.about, *(_cell([r[m.name] for r in results[n]], m.digits) for n in names)) for m in METRICS]
    digest.tables.append(Table("Policies", ("", *names), rows, spread))
    for name in names:
        for m in METRICS:
            digest.figures[f"{m.name} of {name}"], _ = interval([r[m.name] for r in results[name]])
    if len(names) > 1:
        rows = []
        for m in METRICS:
            base = [r[m.name] for r in results[names[0]]]
            rows.append((m.about, *(_cell([r[m.name] - b for r, b in zip(results[n], base, strict=True)], m.digits, "+")
                                    for n in names[1:])))
        digest.tables.append(Table(f"Difference from {names[0]}, same arrivals", ("", *names[1:]), rows,
                                   "an interval without 0 tells the two apart"))
    return digest


def _cell(values: Sequence[float], digits: int, sign: str = "") -> str:
    mean, half = interval(values)
    if math.isnan(mean):
        return "-"
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(half) else f" +- {half:.{digits}f}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("evaluate")
    p.add_argument("policies", nargs="+", metavar="POLICY", help="a checkpoint (.safetensors), a rule's name, or "
                   "package.module:Class; the others are compared with the first")
    p.add_argument("--scenario", default="ieee33", help="a name or a file (default: ieee33)")
    p.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds FIRST to FIRST + N - 1 (default: 5)")
    p.add_argument("--first-seed", type=int, default=500, metavar="FIRST",
                   help="below 1000, where no training is (default: 500)")
    p.add_argument("--days", type=float, default=2.0, help="days that count, after one of warm-up (default: 2)")
    add_settings(p)
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)")
    add_trust(p)
    p.add_argument("--out", type=Path, metavar="FILE.json", help="every seed's metrics")
    p.add_argument("--probe", nargs="?", const="", metavar="SCENARIO", help="instead: what carbon, price and deadlines "
                   "cause each policy to do, shown otherwise at the same arrivals, and whether it may be called "
                   "carbon-aware (scenario: that of --scenario; some ten runs per policy and seed)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _evaluate, argv)


def _evaluate(args: argparse.Namespace) -> int:
    if args.seeds < 1 or args.days <= 0 or args.jobs < 1 or args.first_seed < 0:
        raise ScenarioError(f"--seeds {args.seeds}, --days {args.days:g} and --jobs {args.jobs} must be > 0, "
                            f"--first-seed {args.first_seed} >= 0")
    policies = list(dict.fromkeys(args.policies))
    args.scenario = args.probe or args.scenario
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    with working(f"loading {args.scenario}"):
        scenario = override(find(args.scenario, args.trust), settings_of(args.settings))
        if "controller" not in scenario.members or "job_classes" not in scenario.shared:
            raise ScenarioError(f"{scenario.name} has no member 'controller' that a policy could run, or no shared "
                                "job_classes to count by")
        if args.out:
            _writable(args.out)
        for policy in policies:  # before the first of them has run for minutes
            resolve(_as_run(scenario, policy, args.first_seed), args.days * DAY_S)
    if args.probe is not None:
        return show(scenario, policies, seeds, args.days, args.jobs, args.out)
    with working(f"running {len(policies) * len(seeds)} evaluations", len(policies) * len(seeds)) as progress:
        results = _run_all(scenario, policies, seeds, args.days, args.jobs, progress.at)
    if args.out:
        args.out.write_text(json.dumps({"scenario": scenario.name, "days": args.days, "seeds": list(seeds),
                                        "metrics": results}, indent=1))
    print_digest(plain_console(), compare(results, seeds, args.days))
    return 0


def _writable(out: Path) -> None:
    """ScenarioError now rather than after all the runs."""
    try:
        out.open("a").close()
    except OSError as err:
        raise ScenarioError(f"--out {out} cannot be written: {err.strerror}") from None


def _run_all(scenario: Scenario, policies: Sequence[str], seeds: Sequence[int], days: float, jobs: int,
             on_progress: Callable[[int], None]) -> dict[str, list[dict[str, float]]]:
    """policy -> metrics per seed; runs spread over `jobs` processes. on_progress: called with the runs done."""
    def counted(coming: Iterable[dict[str, float]]) -> list[dict[str, float]]:
        done = []
        for result in coming:
            done.append(result)
            on_progress(len(done))
        return done

    text, cells = scenario.to_json(), [(policy, seed) for policy in policies for seed in seeds]
    if jobs == 1 or len(cells) == 1:
        done = counted(_run_one(text, policy, seed, days) for policy, seed in cells)
    else:
        with ProcessPoolExecutor(min(jobs, len(cells)), get_context("spawn")) as pool:
            done = counted(pool.map(_run_one, *zip(*[(text, policy, seed, days) for policy, seed in cells],
                                                  strict=True)))
    return {policy: done[k * len(seeds):(k + 1) * len(seeds)] for k, policy in enumerate(policies)}


if __name__ == "__main__":
    sys.exit(main())
