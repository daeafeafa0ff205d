"""cosim evaluate POLICY ... --probe [SCENARIO]: what carbon, price and deadlines cause a policy to do, by intervention.

A policy is run again and again on the same arrivals, with everything as it is but what it is shown. Each answer is the
difference that this makes, seed by seed; the accounts are always those of what really is.

**The rule.** A policy is called carbon-aware if, shown recorded intensities, which its own load cannot move, it

    routes   sends a site less work the higher its intensity: two sites' intensities exchanged, the slope of what the
             sites' shares change on what their intensities change is below -ROUTES per 0.1 kg/kWh, or
    waits    draws less the higher all intensities are: quarters of an hour in a random order, the slope of what the
             fleet's power changes on what the mean intensity changes is below -WAITS of its mean power per 0.1 kg/kWh,

in both cases with the whole interval of the mean over seeds. `price-aware` is `waits` for a tariff half a run later;
`deadline-aware` is giving training more GPUs where all of it is urgent than where nothing is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.comparison import cell
from cosim.agents.fleet import intervention as act
from cosim.campaign.statistics import interval
from cosim.console import plain_console, print_digest
from cosim.digest import Digest, Table
from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.progress import working
from cosim.scenario import Scenario, override, rows_of
from cosim.units import DAY_S, HOUR_S, KG_PER_T, MIN_S, TO_PER_GTO

ROUTES = 0.01
"""Least share of the work that 0.1 kg/kWh more must drive away from a site."""
WAITS = 0.01
"""Least part of the fleet's mean power that 0.1 kg/kWh (or 0.1 USD/kWh) more must take away."""
TENTH = 0.1
QUARTER_S = 900.0
RECORDED_UNDER = "uniform"
"""Under this policy intensities are recorded that are then shown to all."""
SIGNALS = ("nci", "mci")
CONTROLLER, FLEET, GRID = "controller", "aidc", "grid"

Answers = dict[str, tuple[float, int]]
"""What is compared: about -> (value, digits)."""


@dataclass(frozen=True)
class Span:
    """How long a run of the probe is: `days` that count after `warmup_days`."""

    days: float = 1.0
    warmup_days: float = 1.0


@dataclass(frozen=True)
class Minutes:
    """Per counted minute, T of them: share (T, N) of the work that is sent to each site; power_kw (T, N);
    train_gpus (T,) granted; shown: what the policy was shown."""

    share: np.ndarray
    power_kw: np.ndarray
    train_gpus: np.ndarray
    shown: act.Signals


@dataclass(frozen=True)
class Ran:
    """One run: what was seen in all of its minutes, the counted ones, what the policy did in them, what came of it."""

    seen: act.Signals
    minutes: Minutes
    does: Answers
    brings: Answers


@dataclass(frozen=True)
class Slope:
    """What a change of a signal causes, a number per seed: its mean, half the interval's width, and the verdict's
    threshold, which the whole interval must lie beyond (below, or above where it is positive)."""

    values: tuple[float, ...]
    least: float

    @property
    def mean_half(self) -> tuple[float, float]:
        """See the class; NaN of one seed."""
        return interval(self.values)

    @property
    def beyond_doubt(self) -> bool:
        """Whether it is there beyond doubt."""
        mean, half = self.mean_half
        return bool(mean + half < self.least if self.least < 0 else mean - half > self.least)


@dataclass(frozen=True)
class Responses:
    """Of one policy: name -> slope. routes, waits by each of SIGNALS that is known; price; deadlines."""

    slopes: Mapping[str, Slope]
    correlation: Mapping[str, tuple[float, ...]]
    """Signal -> within-site correlation with the shares under the recording, one per seed; NaN where shares stay."""


def carbon_aware(found: Responses) -> bool:
    """The rule of the module: whether it routes by carbon or waits for it, beyond doubt."""
    return any(slope.beyond_doubt for name, slope in found.slopes.items() if name.split()[0] in ("routes", "waits"))


def words(found: Responses) -> str:
    """The verdict."""
    ways = [name for name, slope in found.slopes.items() if slope.beyond_doubt]
    carbon = [name for name in ways if name.split()[0] in ("routes", "waits")]
    others = [f"{name}-aware" for name in ("price", "deadline") if any(w.startswith(name) for w in ways)]
    seeds = len(next(iter(found.slopes.values())).values)
    first = f"carbon-aware ({', '.join(carbon)})" if carbon else "not carbon-aware"
    return "; ".join([first, *others]) + (", undecided: one seed has no interval" if seeds < 2 else "")


def run_one(scenario: Scenario, span: Span, shown: act.Change) -> Ran:
    """One run under an intervention, natively, without a trace."""
    settings: dict[str, Any] = {"warmup_s": span.warmup_days * DAY_S}
    if scenario.members[GRID].simulator.endswith(":CefDispatch"):
        settings["grid.ac_check"] = False
    resolved = resolve(override(scenario, settings), span.days * DAY_S)
    control = Control(resolved.clock, resolved.until)
    kept: dict[str, list[Mapping[str, Any]]] = {CONTROLLER: [], FLEET: [], GRID: []}

    def keep(member: str, data: Mapping[str, Mapping[str, Any]]) -> None:
        if member in kept:
            kept[member].append({eid: dict(ports) for eid, ports in data.items()})

    world = NativeWorld(resolved, control)
    try:
        world.start()
        controller: Any = world.simulators[CONTROLLER]
        controller.policy = policy = act.Intervened(controller.policy, shown)
        control.on_record = keep
        world.run(resolved.until)
    finally:
        world.close()
    warm = round(span.warmup_days * DAY_S / controller.step_s)
    return _ran(kept, policy, controller, warm)


def _ran(kept: Mapping[str, Sequence[Mapping[str, Any]]], policy: act.Intervened, controller: Any, warm: int) -> Ran:
    """The counted minutes of what members gave, and the figures of them."""
    facts, hours, sites = controller.facts, controller.step_s / HOUR_S, controller.facts.sites
    train, inf = list(facts.train), list(facts.inf)

    def of(member: str, port: str) -> np.ndarray:
        return np.array([[step[site][port] for site in sites] for step in kept[member][warm:]], float)

    share, gpus = of(CONTROLLER, "site_share"), of(CONTROLLER, "gpus")
    power_kw, queued = of(FLEET, "p_kw"), of(FLEET, "queued_jobs")
    dispatches = [step["grid"]["emission_kg_per_h"] for step in kept[GRID]]
    emission = np.repeat(dispatches, math.ceil(len(kept[CONTROLLER]) / len(dispatches)))[warm:len(kept[CONTROLLER])]
    work = np.array([seen.arrivals_work_to for seen in policy.seen[warm:]]).sum(axis=0)
    arrived = np.array([seen.arrivals for seen in policy.seen[warm:]]).sum(axis=0)
    seen, shown, days = policy.signals(), policy.signals(shown=True), len(share) * hours * HOUR_S / DAY_S

    def sent(classes: Sequence[int]) -> np.ndarray:
        return (share[..., classes] * work[classes]).sum(axis=2) / work[classes].sum()

    energy = power_kw * hours
    usd = float((energy.sum(axis=1) * seen.price_usd_per_kwh[warm:]).sum()) / days
    attributed_kg = float((energy * seen.nci_kg_per_kwh[warm:]).sum()) / days
    served_gto = float(of(FLEET, "finished_work_to").sum()) / TO_PER_GTO / days
    overall = sent([*train, *inf])
    does: Answers = {f"share {site}": (float(x), 3) for site, x in zip(sites, overall.mean(axis=0), strict=True)}
    deferred_s = of(CONTROLLER, "mean_deferral_s")
    deferred_s = deferred_s[~np.isnan(deferred_s)]  # of the decisions that sent a training job
    does |= {"deferral, min": (float(deferred_s.mean()) / MIN_S if len(deferred_s) else math.nan, 1),
             "training GPUs": (float(gpus[..., train].sum(axis=(1, 2)).mean()), 1),
             "supply, degC": (float(of(CONTROLLER, "supply_temp_degc").mean()), 2),
             "power, kW": (float(power_kw.sum(axis=1).mean()), 1)}
    brings: Answers = {
        "wait, min": (float(queued[..., inf].sum()) * hours * HOUR_S / MIN_S / float(arrived[inf].sum()), 2),
        "served, GTO/day": (served_gto, 2), "USD/day": (usd, 0), "USD/GTO": (usd / served_gto, 2),
        "attributed kg/GTO": (attributed_kg / served_gto, 2), "attributed t/day": (attributed_kg / KG_PER_T, 3),
        "all sources t/day": (float(emission.mean()) * DAY_S / HOUR_S / KG_PER_T, 3)}
    counted = act.Signals(*(x[warm:] for x in vars(shown).values()))
    return Ran(seen, Minutes(overall, power_kw, gpus[..., train].sum(axis=(1, 2)), counted), does, brings)


def interventions(signals: act.Signals, seed: int, quarter: int) -> dict[str, act.Change]:
    """By name, from what was seen under RECORDED_UNDER. quarter: decisions in a quarter of an hour."""
    count = len(signals.price_usd_per_kwh)
    blocks = np.array_split(np.arange(count), range(quarter, count, quarter))
    shuffled = np.concatenate([blocks[k] for k in np.random.default_rng(seed).permutation(len(blocks))])
    later = np.roll(np.arange(count), count // 2)
    pair = farthest(signals.nci_kg_per_kwh)
    replayed = act.recorded(signals)

    def also(then: act.Change) -> act.Change:
        return act.both(replayed, then)

    found = {"true": act.what_is, "swapped": act.exchanged(*pair), "constant": act.constant(signals),
             "replayed": replayed}
    for name in act.INTENSITIES:
        if not np.isnan(getattr(signals, name)).any():
            found |= {f"{name[:3]} swapped": also(act.exchanged(*pair, [name])),
                      f"{name[:3]} shuffled": also(act.recorded(signals, shuffled, [name]))}
    return found | {"prices later": also(act.other_prices(signals, later)),
                    "prices flat": also(act.flat_prices(signals)), "no deadlines": also(act.no_deadlines),
                    "all urgent": also(act.all_urgent)}


def farthest(nci_kg_per_kwh: np.ndarray) -> tuple[int, int]:
    """The two sites whose intensities (T, N) are farthest apart on average."""
    apart = np.abs(nci_kg_per_kwh[:, :, None] - nci_kg_per_kwh[:, None, :]).mean(axis=0)
    one, other = np.unravel_index(int(apart.argmax()), apart.shape)
    return int(min(one, other)), int(max(one, other))


BASE = dict.fromkeys(("swapped", "constant", "replayed"), "true")
"""Which run an answer is the difference from; else the replayed one."""


def probe_one(text: str, policy: str, seed: int, span: Span, names: Sequence[str] | None = None) -> dict[str, Ran]:
    """Intervention -> run, of one policy on one seed. names: those to make; None: all. text: the scenario as JSON."""
    scenario = override(Scenario.from_json(text), {"seed": seed})
    reference = run_one(override(scenario, {f"{CONTROLLER}.policy": RECORDED_UNDER}), span, act.what_is)
    if np.isnan(reference.seen.nci_kg_per_kwh).any():
        raise _nothing_to_show(scenario)
    mine = override(scenario, {f"{CONTROLLER}.policy": policy})
    quarter = max(1, round(QUARTER_S / scenario.members[CONTROLLER].step_s))
    made = interventions(reference.seen, seed, quarter)
    return {name: run_one(mine, span, made[name]) for name in names or made}


def _nothing_to_show(scenario: Scenario) -> ScenarioError:
    return ScenarioError(f"{scenario.name} has no two sites whose carbon intensities its controller sees: there is "
                         "nothing to show a policy otherwise; probe in joint mode, on two sites or more")


def responses(runs: Sequence[Mapping[str, Ran]]) -> Responses:
    """What follows from the runs of some seeds, as far as they were made."""
    slopes: dict[str, Slope] = {}

    def add(name: str, least: float, shown: str, of: Callable[[Minutes, Minutes], float],
            base: str = "replayed") -> None:
        if all({base, shown} <= set(of_seed) for of_seed in runs):
            found = tuple(of(of_seed[base].minutes, of_seed[shown].minutes) for of_seed in runs)
            if not any(map(math.isnan, found)):
                slopes[name] = Slope(found, least)

    for signal in SIGNALS:
        add(f"routes by {signal}", -ROUTES, f"{signal} swapped", partial(_routes, signal))
        add(f"waits by {signal}", -WAITS, f"{signal} shuffled", partial(_waits, signal))
    add("price", -WAITS, "prices later", lambda a, b: _relative(
        a, b, b.shown.price_usd_per_kwh - a.shown.price_usd_per_kwh))
    add("deadlines", WAITS, "all urgent", lambda a, b: float(
        (b.train_gpus - a.train_gpus).mean() / max(a.train_gpus.mean(), 1.0)), "no deadlines")
    correlation = {s: tuple(within(of_seed["replayed"].minutes.share, _shown(of_seed["replayed"].minutes, s))
                            for of_seed in runs) for s in SIGNALS if all("replayed" in of_seed for of_seed in runs)}
    return Responses(slopes, correlation)


def within(share: np.ndarray, signal: np.ndarray) -> float:
    """Mean over sites of the correlation of share and signal (T, N) in time; NaN where no share moves."""
    moves = share.std(axis=0) > 1e-9
    if not moves.any() or np.isnan(signal).any():
        return math.nan
    each = [np.corrcoef(share[:, i], signal[:, i])[0, 1] for i in np.flatnonzero(moves) if signal[:, i].std() > 0]
    return float(np.mean(each)) if each else math.nan


def _shown(minutes: Minutes, signal: str) -> np.ndarray:
    return getattr(minutes.shown, f"{signal}_kg_per_kwh")


def _routes(signal: str, one: Minutes, other: Minutes) -> float:
    """Slope of the shares on what sites' intensities changed from one run to the other."""
    return _slope(other.share - one.share, _shown(other, signal) - _shown(one, signal))


def _waits(signal: str, one: Minutes, other: Minutes) -> float:
    """The same of the fleet's power, as part of it, on what the mean intensity changed."""
    return _relative(one, other, (_shown(other, signal) - _shown(one, signal)).mean(axis=1))


def _slope(answer: np.ndarray, change: np.ndarray) -> float:
    """Of an answer on what a signal changed, per TENTH: least squares through the origin. NaN where nothing changed."""
    size = float((change * change).sum())
    return TENTH * float((answer * change).sum()) / size if size > 0 else math.nan


def _relative(one: Minutes, other: Minutes, change: np.ndarray) -> float:
    """Slope of the fleet's power, as part of its mean."""
    power_kw = one.power_kw.sum(axis=1)
    return _slope(other.power_kw.sum(axis=1) - power_kw, change) / float(power_kw.mean())


def _answers_row(runs: Sequence[Mapping[str, Ran]], name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """What an intervention changes, seed by seed, or what the true run comes to."""
    base, cells = None if name == "true" else BASE.get(name, "replayed"), []
    for about in columns:
        of_seeds = [{shown: (run.does | run.brings)[about] for shown, run in of_seed.items()} for of_seed in runs]
        digits = of_seeds[0][name][1]
        cells.append(cell([r[name][0] - (r[base][0] if base else 0.0) for r in of_seeds], digits, "+" if base else ""))
    return (f"{name} - {base}" if base else name, *cells)


def tables(found: Mapping[str, Sequence[Mapping[str, Ran]]], note: str) -> Digest:
    """Per policy the answers to every intervention; then what all policies respond to, and the verdicts."""
    digest = Digest()
    for policy, runs in found.items():
        does = runs[0]["true"].does
        for title, columns in (("what it does", does), ("what comes of it", runs[0]["true"].brings)):
            digest.tables.append(Table(f"{policy}: {title}", ("shown", *columns), [
                _answers_row(runs, name, list(columns)) for name in runs[0]], note))
    answers = {policy: responses(runs) for policy, runs in found.items()}
    names = list(dict.fromkeys(name for one in answers.values() for name in one.slopes))
    rows = [(name, *(cell(a.slopes[name].values, 4, "+") if name in a.slopes else "-" for a in answers.values()))
            for name in names]
    rows += [(f"correlation of share and {s} within a site, replayed",
              *(cell(a.correlation[s], 2, "+") for a in answers.values())) for s in SIGNALS]
    rows.append(("verdict", *map(words, answers.values())))
    digest.tables.append(Table("Responses", ("", *answers), rows, (
        f"routes: change of a share per {TENTH:g} kg/kWh; waits, price: of the fleet's power, as part of it, per "
        f"{TENTH:g} kg/kWh or USD/kWh; deadlines: of training's GPUs, as part of them, from nothing urgent to all. A "
        f"verdict needs the whole interval beyond -{ROUTES:g}, -{WAITS:g}, -{WAITS:g} and {WAITS:g}")))
    for policy, one in answers.items():
        digest.figures |= {f"{name} of {policy}": slope.mean_half[0] for name, slope in one.slopes.items()}
        digest.figures[f"{policy} is carbon-aware"] = float(carbon_aware(one))
    return digest


def probe(scenario: Scenario, policies: Sequence[str], seeds: Sequence[int], span: Span, jobs: int,
          on_progress: Callable[[int], None]) -> dict[str, list[dict[str, Ran]]]:
    """policy -> per seed, intervention -> run; spread over `jobs` processes. on_progress: called with how many of
    these are done."""
    text, cells = scenario.to_json(), [(policy, seed) for policy in policies for seed in seeds]
    done: list[dict[str, Ran]] = []
    given = [[text] * len(cells), *zip(*cells, strict=True), [span] * len(cells)]
    with (ProcessPoolExecutor(min(jobs, len(cells)), get_context("spawn")) if jobs > 1 else nullcontext()) as pool:
        for one in (pool.map if pool else map)(probe_one, *given):
            done.append(one)
            on_progress(len(done))
    return {policy: done[k * len(seeds):(k + 1) * len(seeds)] for k, policy in enumerate(policies)}


def show(scenario: Scenario, policies: Sequence[str], seeds: Sequence[int], days: float, jobs: int, out: Path | None
         ) -> int:
    """`cosim evaluate --probe`: its exit code. out: a JSON file for the tables and figures."""
    if len(rows_of(scenario.shared.get("sites"), "sites")) < 2 or (
            scenario.members[CONTROLLER].params.get("mode") == "power") or GRID not in scenario.members:
        raise _nothing_to_show(scenario)
    count = len(policies) * len(seeds)
    with working(f"probing {count} times", count) as progress:
        found = probe(scenario, policies, seeds, Span(days), jobs, progress.at)
    digest = tables(found, f"{scenario.name}: {days:g} days after {Span().warmup_days:g} of warm-up, seeds {seeds[0]}.."
                    f"{seeds[-1]}; mean +- half of a 95 % t interval")
    if out:
        out.write_text(json.dumps({"tables": [asdict(table) for table in digest.tables], "figures": digest.figures},
                                  indent=1))
    print_digest(plain_console(), digest)
    return 0
