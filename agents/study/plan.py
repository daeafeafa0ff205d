"""What a study of the paper computes: the rows of its tables, the worlds they are run in, and the cells of a tier.

A row is a team, a rule that stands in for one, a rule, or a bound: all of them are rows of one table. A world is a
scenario with settings. Where a claim of the paper depends on a choice that the paper does not state, there is a world
for each way to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from cosim.agents.learn.config import METHODS
from cosim.agents.presets import PRESETS
from cosim.campaign.cells import Cell
from cosim.errors import ScenarioError, unknown

FIRST_SEED = 500
"""Seeds of evaluations: below 1000, where no training is."""
RATIOS = (0.002, 0.006, 0.02, 0.06, 0.2)
"""c2/c3 of Fig. 11(a), USD and t; 0.02 is the default's."""
DEFAULT_RATIO = 0.02
WARMUP_DAYS = 1.0
"""Before an evaluation."""
LAMBDAS = (0.0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.5, 1.0)
LOADS = (0.4, 0.75, 1.0)
"""Mean base load of Fig. 11(b), of the network's own: `ieee33` has the first."""
MODES = ("joint", "power")
Kind = Literal["team", "stand-in", "rule", "bound"]


@dataclass(frozen=True, slots=True)
class StudyWorld:
    """Where policies are run: a scenario and what is set in it; about: what it differs by."""

    scenario: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def _grown(n: int) -> dict[str, Any]:
    return {"workload.rate_scale": n / 3.0}


WORLDS = {
    "ieee33": StudyWorld("ieee33", "77 % of the GPUs needed, base load 0.40 of the feeder's own, constant intensities"),
    "table2": StudyWorld("table2", "40 % of the GPUs needed, base load 0.45, another reading of the cooling: near the "
                    "magnitudes of Table II"),
    "living": StudyWorld("ieee33_living", "52 % of the GPUs needed, intensities that move over the day, two PV plants, "
                    "lambda 0.1"),
    "n4": StudyWorld("ieee33_4", "as ieee33, four sites, the arrivals of three"),
    "n5": StudyWorld("ieee33_5", "as ieee33, five sites, the arrivals of three"),
    "n4_grown": StudyWorld("ieee33_4", "as ieee33, four sites, 4/3 of the arrivals", _grown(4)),
    "n5_grown": StudyWorld("ieee33_5", "as ieee33, five sites, 5/3 of the arrivals", _grown(5)),
}
TABLE2_WORLDS = ("ieee33", "table2")
SIZES = {"arrivals fixed": ("ieee33", "n4", "n5"), "arrivals grow with N": ("ieee33", "n4_grown", "n5_grown")}
"""Fig. 12 and 13: what happens to the load -> the worlds with 3, 4 and 5 sites."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the tables.

    label   as it is shown
    kind    what it is
    policy  a rule's name or an import string; '' for a team
    method  of the learner; '' for what is not trained
    modes   of (11) and (32) that it can be run in
    settings  of its run (a rule) or of its training (a team)
    """

    label: str
    kind: Kind
    policy: str = ""
    method: str = ""
    modes: tuple[str, ...] = MODES
    settings: Mapping[str, Any] = field(default_factory=dict)


_FIXED = "cosim.agents.study.fixed_shares:FixedShares"
ROWS = {
    "mat": TableRow("MAT", "team", method="mat"),
    "mat-dec": TableRow("MAT-Dec", "team", method="mat-dec"),
    "transformer": TableRow("Transformer", "team", method="transformer"),
    "mappo": TableRow("MAPPO", "team", method="mappo"),
    "s-mat1": TableRow("S-MAT1 (1:2:7)", "team", method="mat", modes=("joint",),
                       settings={"learn.frozen_leaders": "1:2:7"}),
    "s-mat2": TableRow("S-MAT2 (1:1:8)", "team", method="mat", modes=("joint",),
                       settings={"learn.frozen_leaders": "1:1:8"}),
    "myopic_oracle": TableRow("myopic_oracle", "stand-in", "myopic_oracle"),
    "fixed1": TableRow("myopic_oracle, 1:2:7", "stand-in", _FIXED, modes=("joint",),
                  settings={"controller.weights": "1:2:7"}),
    "fixed2": TableRow("myopic_oracle, 1:1:8", "stand-in", _FIXED, modes=("joint",),
                  settings={"controller.weights": "1:1:8"}),
    "nci_priority": TableRow("nci_priority", "rule", "nci_priority", modes=("joint",)),
    "uniform": TableRow("uniform", "rule", "uniform"),
    "tou_shift": TableRow("tou_shift", "rule", "tou_shift"),
    "mpc": TableRow("mpc", "rule", "mpc"),
}


@dataclass(frozen=True, slots=True)
class Actors:
    """Who plays the paper's parts. label: in words; team: its proposed method; methods: all it compares; fixed: the
    teams whose shares are fixed, the less imbalanced first."""

    label: str
    team: str
    methods: tuple[str, ...]
    fixed: tuple[str, str]


TEAMS = Actors("trained teams (MAT)", "mat", METHODS, ("s-mat1", "s-mat2"))
STAND_INS = Actors("stand-in (myopic_oracle)", "myopic_oracle", ("myopic_oracle",), ("fixed1", "fixed2"))
RULES = tuple(name for name, row in ROWS.items() if row.kind in ("rule", "bound"))


@dataclass(frozen=True, slots=True)
class Tier:
    """How much is computed.

    name, about  what it is called, and what it is
    episodes     days of a training; 0: nothing is trained
    seeds        of trainings and of evaluations
    days, warmup_days  of an evaluation: that count, and before that
    actors       who plays the paper's parts, each with their own verdicts
    training     further arguments of `cosim.agents.study.work.trained`
    preset       of `cosim train`, which teams are trained by and run with
    """

    name: str
    about: str
    episodes: int = 0
    seeds: int = 3
    days: float = 1.0
    warmup_days: float = 1.0
    actors: tuple[Actors, ...] = (STAND_INS,)
    training: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "ours"


TIERS = {tier.name: tier for tier in (
    Tier("rules", "no training: rules stand in for the teams"),
    Tier("short", "54 trainings of 160 days", 160, actors=(TEAMS, STAND_INS)),
    Tier("full", "54 trainings of 1000 days, as in the paper", 1000, actors=(TEAMS, STAND_INS)))}


@dataclass(frozen=True, slots=True)
class Case:
    """One policy in one world: which runs of the study a figure is made of. ratio: c2/c3 of (32); signal_of: see
    `cosim.agents.study.work.evaluated`."""

    row: str
    mode: str
    world: str
    ratio: float = DEFAULT_RATIO
    signal_of: str = ""

    def key(self, seed: int) -> str:
        """Key of its cell."""
        return "-".join(["run", self.row, self.mode, self.world, *_apart(self), f"s{seed}"])


def _apart(case: Case) -> list[str]:
    return ([f"c2_{case.ratio:g}"] if case.ratio != DEFAULT_RATIO else []) + (
        [f"signal_of_{case.signal_of}"] if case.signal_of else [])


PARTS = ("table2", "table3", "fig6", "fig7", "fig8", "fig9", "fig10", "fig11a", "fig11b", "fig12", "fig13")


def cases(part: str, tier: Tier) -> Iterator[Case]:
    """The runs that a table or a figure is made of."""
    if part not in PARTS:
        raise ScenarioError(unknown("part of the study", part, PARTS))
    for actors in tier.actors:
        yield from _CASES.get(part, lambda _: iter(()))(actors)


def _table2(actors: Actors) -> Iterator[Case]:
    for world in TABLE2_WORLDS:
        for name in (*actors.methods, *RULES):
            yield from (Case(name, mode, world) for mode in ROWS[name].modes)


def _fig6(actors: Actors) -> Iterator[Case]:
    yield from (Case(name, "joint", "ieee33") for name in (*actors.methods, *RULES))


def _day(actors: Actors) -> Iterator[Case]:
    for world in ("ieee33", "table2", "living"):
        yield from (Case(name, "joint", world) for name in (actors.team, "uniform", "nci_priority"))


def _fig7(actors: Actors) -> Iterator[Case]:
    yield from _day(actors)
    yield Case(actors.team, "joint", "ieee33", signal_of="uniform")


def _fig10(actors: Actors) -> Iterator[Case]:
    for world in ("ieee33", "table2"):
        yield from (Case(name, "joint", world) for name in (actors.team, *actors.fixed, *RULES))


def _fig11a(actors: Actors) -> Iterator[Case]:
    yield from (Case(actors.team, "joint", "ieee33", ratio) for ratio in RATIOS)


def _fig12(actors: Actors) -> Iterator[Case]:
    for worlds in SIZES.values():
        yield from (Case(name, "joint", world) for world in worlds for name in (actors.team, "uniform"))


def _fig13(actors: Actors) -> Iterator[Case]:
    for worlds in SIZES.values():
        yield from (Case(actors.team, mode, world) for world in worlds for mode in MODES)


_CASES = {"table2": _table2, "fig6": _fig6, "fig7": _fig7, "fig8": _day, "fig9": _day, "fig10": _fig10,
          "fig11a": _fig11a, "fig12": _fig12, "fig13": _fig13}


# --- cells ------------------------------------------------------------------------------------------------------------

_WORK = "cosim.agents.study.work"
LAMBDA_CELL = "lambda"


def bound_key(world: str, seed: int) -> str:
    """Key of the cell that works out what no policy can beat."""
    return f"bound-{world}-s{seed}"


def training_key(case: Case, seed: int) -> str:
    """Key of the cell that trains the team of a case: by the number of sites, whatever world it is run in."""
    return "-".join(["train", case.row, case.mode, WORLDS[_learned_in(case.world)].scenario, *_apart(
        Case(case.row, case.mode, case.world, case.ratio)), f"s{seed}"])


def _learned_in(world: str) -> str:
    """A team learns on `ieee33`, or with as many sites as it has to steer: 54 trainings are the paper's."""
    return {"n4_grown": "n4", "n5_grown": "n5", "n4": "n4", "n5": "n5"}.get(world, "ieee33")


def cells_of(parts: tuple[str, ...], tier: Tier) -> list[Cell]:
    """The cells of some tables and figures, each once, trainings first."""
    found: dict[str, Cell] = {}
    if "fig11b" in parts:
        found[LAMBDA_CELL] = Cell(LAMBDA_CELL, "cosim.simulators.analysis.lambda_sweep:cell", {
            "scenario": "ieee33", "lambdas": list(LAMBDAS), "means": list(LOADS), "site_kw": 230.0})
    if "table2" in parts:
        for world, k in product(TABLE2_WORLDS, range(tier.seeds)):
            found[bound_key(world, FIRST_SEED + k)] = Cell(
                bound_key(world, FIRST_SEED + k), "cosim.agents.study.followed:followed", {
                    "scenario": WORLDS[world].scenario, "policy": "uniform", "settings": dict(WORLDS[world].settings),
                    "seed": FIRST_SEED + k, "days": tier.days, "bound": True})
    for part in parts:
        for case in cases(part, tier):
            for k in range(tier.seeds):
                for cell in _cells_of(case, k, tier):
                    found.setdefault(cell.key, cell)
    return sorted(found.values(), key=lambda cell: not cell.key.startswith("train"))


def _cells_of(case: Case, k: int, tier: Tier) -> Iterator[Cell]:
    row, world = ROWS[case.row], WORLDS[case.world]
    weights = {} if case.ratio == DEFAULT_RATIO else {"controller.reward.c2_per_usd": case.ratio}
    arguments: dict[str, Any] = {"scenario": world.scenario, "mode": case.mode, "seed": FIRST_SEED + k,
                                 "days": tier.days, "settings": {**world.settings, **weights}}
    if tier.warmup_days != WARMUP_DAYS:
        arguments["warmup_days"] = tier.warmup_days
    needs: tuple[str, ...] = ()
    if row.method:
        team = training_key(case, k)
        texts: dict[str, Any] = {path: str(value) for path, value in {**weights, **row.settings}.items()}
        yield Cell(team, f"{_WORK}:trained", {
            "scenario": WORLDS[_learned_in(case.world)].scenario, "mode": case.mode, "method": row.method, "seed": k,
            "episodes": tier.episodes, "settings": texts,
            **({"preset": tier.preset} if tier.preset != "ours" else {}), **tier.training})
        arguments["team"], needs = team, (team,)
        arguments["settings"] |= PRESETS[tier.preset].settings
    else:
        arguments["policy"] = row.policy
        arguments["settings"] |= row.settings
    if case.signal_of:
        arguments["signal_of"] = case.signal_of
    yield Cell(case.key(FIRST_SEED + k), f"{_WORK}:evaluated", arguments, needs)
