"""What lambda of (11) buys, over a day and per load level: cosim lambda-sweep ieee33 (Fig. 11(b)).

Every level is the day's 96 load factors at another mean; data centers draw a constant power. Per lambda it prints J1
(MWh lost) and J2 (t emitted by all sources), per level the threshold: the lambda from which a tenth of what can be
saved is.

Rows: E11, K08, P06, X12.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cosim.console import PICTURES, add_trust, command_parser, file_type, run_command
from cosim.errors import ScenarioError
from cosim.imports import optional
from cosim.params import field_names, validate
from cosim.progress import working
from cosim.request import find
from cosim.scenario import Scenario
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.sources import all_sources
from cosim.simulators.grid.equations import Floats
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.params import GridParams
from cosim.simulators.profile import SLOT_S, ProfileParams
from cosim.units import HOUR_S, KG_PER_T

LAMBDAS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.5, 1.0)
MEANS = (0.5, 0.75, 1.0)
THRESHOLD_SHARE = 0.1
"""Of the emission that the largest lambda saves: from here on carbon counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """A day's losses and emission, (n_mean, n_lambda) each, and how many intervals were not optimal."""

    lambdas: tuple[float, ...]
    means: tuple[float, ...]
    loss_mwh: Floats
    emission_t: Floats
    flagged: int

    def thresholds(self) -> list[float]:
        """Per load level the lambda, interpolated, where `THRESHOLD_SHARE` of what can be saved is; NaN if nothing."""
        out = []
        for emission in self.emission_t:
            saved = emission[0] - emission
            share = saved / saved[-1] if saved[-1] > 0.0 else np.full(len(saved), np.nan)
            out.append(float(np.interp(THRESHOLD_SHARE, np.maximum.accumulate(share), self.lambdas)))
        return out


def sweep(params: GridParams, profile: ProfileParams, site_kw: float, lambdas: Sequence[float],
          means: Sequence[float], on_progress: Callable[[int], None] | None = None) -> Sweep:
    """Dispatch a day at every lambda (ascending) and mean load factor, `site_kw` at every data center of `params`.

    on_progress: called after each day with how many of the len(lambdas) * len(means) days are done.
    """
    feeder = read_feeder(params.network, params.batteries)
    sources = all_sources(params.sources, feeder, params.network_sources, "grid")
    at_sites = feeder.own_p_kw + 1j * feeder.own_q_kvar
    for name, site in params.sites.items():
        at_sites[feeder.position(site.node, f"sites.{name}.node")] += site_kw * (1.0 + 1j * site.q_per_p_ratio)
    shapes = [replace(profile, mean=mean, scale=1.0).factors for mean in means]
    loss, emission, flagged = np.zeros((len(means), len(lambdas))), np.zeros((len(means), len(lambdas))), 0
    hours = SLOT_S / HOUR_S
    for j, weight in enumerate(lambdas):
        limits = Limits(feeder.voltage(params.v0_pu), params.vm_min_pu, params.vm_max_pu, weight, params.loss_weight,
                        params.cost_kw_per_usd_h)
        dispatch = Dispatch(feeder, sources, limits, "clarabel")
        for i, factors in enumerate(shapes):
            for factor in factors:
                demand = factor * (feeder.p_kw + 1j * feeder.q_kvar) + at_sites
                got = dispatch.solve(demand.real, demand.imag)
                loss[i, j] += got.loss_kw * hours / KG_PER_T
                emission[i, j] += got.emission_kg_per_h * hours / KG_PER_T
                flagged += bool(got.status or got.inexact)
            if on_progress:
                on_progress(j * len(means) + i + 1)
    return Sweep(tuple(lambdas), tuple(means), loss, emission, flagged)


def cell(_: Path, *, scenario: str, lambdas: Sequence[float], means: Sequence[float], site_kw: float) -> dict[str, Any]:
    """The sweep of a scenario as plain data, for a study: a threshold that is not there is None."""
    found = find(scenario)
    result = sweep(_given(found, "grid", GridParams), _given(found, "profile", ProfileParams), site_kw, lambdas, means)
    return {"lambdas": list(result.lambdas), "means": list(result.means), "loss_mwh": result.loss_mwh.tolist(),
            "emission_t": result.emission_t.tolist(), "flagged": result.flagged,
            "thresholds": [lam if np.isfinite(lam) else None for lam in result.thresholds()]}


def table(result: Sweep, site_kw: float) -> str:
    """The sweep as text: a row per lambda, two columns per load level."""
    head = "".join(f"   mean load {mean:<9g}" for mean in result.means)
    lines = [f"{'lambda':>8}{head}", f"{'':8}" + "   J1 MWh    J2 t     " * len(result.means)]
    for j, weight in enumerate(result.lambdas):
        lines.append(f"{weight:8g}" + "".join(
            f"{result.loss_mwh[i, j]:9.3f}{result.emission_t[i, j]:9.2f}   " for i in range(len(result.means))))
    lines.append("threshold" + "".join(f"{lam:17.3f}    " for lam in result.thresholds()))
    lines.append(f"A day of 96 intervals, {site_kw:g} kW at every data center; threshold: lambda that saves "
                 f"{THRESHOLD_SHARE:.0%} of what the largest does; {result.flagged} intervals elastic or inexact")
    return "\n".join(lines)


def figure(result: Sweep, path: Path) -> Path:
    """Fig. 11(b): J1 and J2 over lambda, a curve per load level, its threshold dotted. Needs matplotlib."""
    names = [f"mean load {mean:g}" for mean in result.means]
    quantities = (("losses, MWh per day", result.loss_mwh), ("emission, t per day", result.emission_t))
    panels = [(label, [(name, result.lambdas, y.tolist()) for name, y in zip(names, values, strict=True)])
              for label, values in quantities]
    with optional("--figure", "plot"):
        from cosim.reporting.panels import curves
    return curves(path, "lambda, kW per kg/h", panels, result.thresholds())


def _numbers(text: str) -> tuple[float, ...]:
    values = tuple(sorted(float(v) for v in text.split(",")))
    if not values or values[0] < 0.0:
        raise argparse.ArgumentTypeError(f"'{text}' are not numbers >= 0, separated by commas")
    return values


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("lambda-sweep")
    p.add_argument("scenario", nargs="?", default="ieee33", metavar="SCENARIO",
                   help="a scenario with a CefDispatch, a name or a file (default: ieee33)")
    add_trust(p)
    p.add_argument("--lambda", dest="lambdas", type=_numbers, default=LAMBDAS, help="kW per kg/h, e.g. 0,0.01,0.1")
    p.add_argument("--mean", dest="means", type=_numbers, default=MEANS, help="mean load factors, e.g. 0.5,1")
    p.add_argument("--site-kw", type=float, default=230.0, help="what every data center draws (default 230)")
    p.add_argument("--figure", type=file_type(*PICTURES), metavar="FILE", help="draw it, too: .png, .svg or .pdf")
    return p


T = TypeVar("T")


def _given(scenario: Scenario, member: str, kind: type[T]) -> T:
    shared = {name: table for name, table in scenario.shared.items() if name in field_names(kind)}
    return validate(kind, {**shared, **scenario.members[member].params}, member)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _sweep, argv)


def _sweep(args: argparse.Namespace) -> int:
    """Read a scenario's grid and profile, sweep, print."""
    if args.figure and find_spec("matplotlib") is None:
        raise ScenarioError("--figure needs matplotlib; install it with: pip install 'aidc-cosim[plot]'")
    scenario = find(args.scenario, args.trust)
    members = scenario.members
    if "grid" not in members or not members["grid"].simulator.endswith(":CefDispatch"):
        raise ScenarioError(f"scenario {args.scenario} has no CefDispatch to sweep; try ieee33")
    params, profile = _given(scenario, "grid", GridParams), _given(scenario, "profile", ProfileParams)
    with working("dispatching days", len(args.lambdas) * len(args.means)) as progress:
        result = sweep(params, profile, args.site_kw, args.lambdas, args.means, progress.at)
        drawn = figure(result, args.figure) if args.figure else None
    print(table(result, args.site_kw))
    if drawn:
        print(f"figure: {drawn}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
