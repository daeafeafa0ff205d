"""What is measured for each claim: figures per seed, and what of them is claimed.

A measure is a function of the results, who plays the paper's parts, the world, and what its claim takes. It returns the
parts that `cosim.agents.study.verdicts` judges; [] where runs are missing. Differences are taken seed by seed: all
policies met the same arrivals. Percents are of the mean of the figure that is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cosim.agents.fleet.spaces import cardinalities, truncated
from cosim.agents.study.claims import SMALL, TABLE3, Claim
from cosim.agents.study.data import Results
from cosim.agents.study.plan import RATIOS, ROWS, RULES, SIZES, Actors, Case
from cosim.agents.study.verdicts import IMPOSSIBLE, NOT_COMPARABLE, NOT_RUN, ClaimPart, Verdict, judge

Values = Sequence[float]
BAND = 0.05
"""How far from a third a share is that hardly changes."""
CORRELATED = 0.1
"""A rank correlation up to which two things count as unrelated."""
_ALIKE_H = 0.5


def verdict_on(claim: Claim, results: Results, actors: Actors, world: str) -> Verdict:
    """The verdict on a claim in a world."""
    if claim.trained and not ROWS[actors.team].method:
        return Verdict(NOT_RUN, why="it compares learners with one another, and none was trained")
    if claim.measure == "printed_day":
        return Verdict(NOT_COMPARABLE, why=claim.why)
    parts = _MEASURES[claim.measure](results, actors, world, claim)
    if parts and claim.apart and (said := _same(claim, results, actors, world)):
        return Verdict(IMPOSSIBLE, judge(parts).parts, f"{said}: {claim.why}")
    return judge(parts)


def _same(claim: Claim, results: Results, actors: Actors, world: str) -> str:
    """How alike all rows of the world (and all sites, of a figure of theirs) are in what the claim orders; '' where
    they differ by more than it takes."""
    assert claim.apart is not None
    metric, percent = claim.apart
    found: list[float] = []
    for case in (Case(name, mode, world) for name in (*actors.methods, *actors.fixed, *RULES) for mode in
                 ROWS[name].modes):
        if "figure" in claim.takes:
            found += results.sites(case, metric).mean(axis=0).tolist() if results.of(case) else []
        elif values := results.metric(case, metric):
            found.append(float(np.mean(values)))
    low, high = min(found), max(found)
    what = f"all {len(found)} {'sites of all rows' if 'figure' in claim.takes else 'rows'}"
    if not high:
        return f"{metric} is 0 in {what}"
    return f"{what} have {metric} {low:.3f} to {high:.3f}" if 100.0 * (high - low) / high <= percent else ""


def _percent(a: Values, b: Values) -> tuple[float, ...]:
    """(a - b), seed by seed, in percent of the mean of b."""
    base = abs(float(np.mean(b))) if len(b) else 0.0
    return tuple(float(x - y) * 100.0 / base if base else float(x - y) for x, y in zip(a, b, strict=True))


def _difference(results: Results, case: Case, other: Case, metric: str, sign: int) -> list[ClaimPart]:
    a, b = results.metric(case, metric), results.metric(other, metric)
    if not a or not b:
        return []
    scaled = bool(np.mean(b))
    what = f"{_name(case, other)} less {_name(other, case)}"
    return [ClaimPart(what, _percent(a, b), "%" if scaled else "", sign, nothing=SMALL if scaled else 0.0)]


def _name(case: Case, other: Case) -> str:
    """By what a case differs from another one."""
    apart = [ROWS[case.row].label] + [case.mode] * (case.mode != other.mode)
    return " ".join(apart + [case.world] * (case.world != other.world))


def _all(parts: Sequence[list[ClaimPart]]) -> list[ClaimPart]:
    """All of them; [] where one is missing, since the claim is about all."""
    return [part for some in parts for part in some] if all(parts) else []


# --- Table II and III, Fig. 6 -----------------------------------------------------------------------------------------


def joint_less_power(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """Each method in joint mode less itself in power mode."""
    return _all([_difference(results, Case(name, "joint", world), Case(name, "power", world), claim.takes["metric"],
                             claim.takes["sign"]) for name in actors.methods])


def team_less_others(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """The proposed method in joint mode less each other method."""
    team = Case(actors.team, "joint", world)
    return _all([_difference(results, team, Case(name, "joint", world), claim.takes["metric"], claim.takes["sign"])
                 for name in actors.methods if name != actors.team])


def team_less_all(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """The proposed method in joint mode less every other cell of the table."""
    team = Case(actors.team, "joint", world)
    others = [Case(name, mode, world) for name in actors.methods for mode in ROWS[name].modes]
    return _all([_difference(results, team, other, claim.takes["metric"], claim.takes["sign"])
                 for other in others if other != team])


def objective_order(results: Results, _: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """(32) of some methods less that of others."""
    return _all([_difference(results, Case(good, "joint", world), Case(bad, "joint", world), "objective", +1)
                 for good in claim.takes["better"] for bad in claim.takes["worse"]])


def action_spaces(*_: object) -> list[ClaimPart]:
    """How many of the printed numbers of Table III are what the formulas give, cut to three digits."""
    right = [ours == printed for n, row in TABLE3.items() for ours, printed in zip(table3_row(n), row, strict=True)]
    return [ClaimPart("printed numbers that the formulas give", (float(sum(right)),), f"of {len(right)}",
                 band=(len(right), len(right)), exact=True)]


def table3_row(n: int) -> tuple[str, str, str]:
    """Flat, hierarchical and ratio for n sites, as the paper prints numbers."""
    size = cardinalities(n)
    return (truncated(size["flat"]), truncated(size["hierarchical"]), truncated(size["flat"], size["hierarchical"]))


# --- Fig. 7 to 9: what the sites get ----------------------------------------------------------------------------------


def site_order(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """A figure of site 1 less site 2, and of site 2 less site 3."""
    x = results.sites(Case(actors.team, "joint", world), claim.takes["figure"])
    if not len(x):
        return []
    return [ClaimPart(f"AIDC {k + 1} less AIDC {k + 2}", tuple(x[:, k] - x[:, k + 1]),
                      _UNITS.get(claim.takes["figure"], ""),
                      claim.takes["sign"], nothing=claim.takes.get("nothing", 0.0)) for k in range(x.shape[1] - 1)]


_UNITS = {"nci_kg_per_kwh": "kg/kWh", "peak_to_off_peak": "of the jobs"}


def site_figure(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """One figure of the fleet, with a sign or a band."""
    return _figure(results, Case(actors.team, "joint", world), claim)


def site_figure_open(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """The same under intensities that were recorded."""
    return _figure(results, Case(actors.team, "joint", world, signal_of="uniform"), claim)


def _figure(results: Results, case: Case, claim: Claim) -> list[ClaimPart]:
    x = results.sites(case, claim.takes["figure"])
    if not len(x):
        return []
    return [ClaimPart(_WORDS[claim.takes["figure"]], tuple(x), _UNITS.get(claim.takes["figure"], ""),
                 claim.takes.get("sign", 0), claim.takes.get("band", (-np.inf, np.inf)),
                      CORRELATED if "correlation" in claim.takes["figure"] else 0.0)]


_WORDS = {"nci_power_rank_correlation": "rank correlation of NCI and power, sites and quarters of an hour together",
          "nci_share_rank_correlation": "rank correlation of NCI and share of the jobs, sites and quarters together",
          "peak_to_off_peak": "of what arrives at the peak, started at the lowest price"}


def site_less_uniform(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """A figure of the team's run less that of `uniform` at the same arrivals."""
    figure = claim.takes["figure"]
    x, y = (results.sites(Case(name, "joint", world), figure) for name in (actors.team, "uniform"))
    if not len(x) or not len(y):
        return []
    return [ClaimPart(f"{_WORDS[figure]}, less that of uniform", tuple(x - y), "", claim.takes["sign"],
                      nothing=CORRELATED)]


def within_site(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """Rank correlation within each site; claimed below zero at all."""
    case = Case(actors.team, "joint", world)
    x = results.sites(case, claim.takes["figure"])
    return [ClaimPart(f"rank correlation at {name}", tuple(x[:, k]), "", -1, nothing=CORRELATED)
            for k, name in enumerate(results.names(case))]


def site_shares(results: Results, actors: Actors, world: str, _: Claim) -> list[ClaimPart]:
    """Shares of the first and the last site, less an equal one."""
    x = results.sites(Case(actors.team, "joint", world), "train_jobs_share")
    if not len(x):
        return []
    return [ClaimPart(f"share of AIDC {k + 1} less a third", tuple(x[:, k] - 1.0 / 3.0), "", sign)
            for k, sign in ((0, +1), (2, -1))]


def middle_share(results: Results, actors: Actors, world: str, _: Claim) -> list[ClaimPart]:
    """Share of the second site, less an equal one."""
    x = results.sites(Case(actors.team, "joint", world), "train_jobs_share")
    if not len(x):
        return []
    return [ClaimPart("share of AIDC 2 less a third", tuple(x[:, 1] - 1.0 / 3.0), "", band=(-BAND, BAND))]


def waits_alike(results: Results, actors: Actors, world: str, _: Claim) -> list[ClaimPart]:
    """How far the longest mean wait of the sites is from the shortest."""
    x = results.sites(Case(actors.team, "joint", world), "wait_h")
    if not len(x):
        return []
    return [ClaimPart("longest less shortest mean wait of a site", tuple(x.max(axis=1) - x.min(axis=1)), "h",
                 band=(0.0, _ALIKE_H))]


# --- Fig. 10 to 13 ----------------------------------------------------------------------------------------------------


def team_less_fixed(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """The team less each team whose shares are fixed."""
    return _all([_difference(results, Case(actors.team, "joint", world), Case(name, "joint", world),
                             claim.takes["metric"], claim.takes["sign"]) for name in actors.fixed])


def fixed_order(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """The more imbalanced fixed shares less the others."""
    less, more = (Case(name, "joint", world) for name in actors.fixed)
    return _difference(results, more, less, claim.takes["metric"], claim.takes["sign"])


def over_ratio(results: Results, actors: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """Rise from the smallest to the largest c2/c3, along the line of least squares over the logarithm of the ratio."""
    rows = [results.metric(Case(actors.team, "joint", world, ratio), claim.takes["metric"]) for ratio in RATIOS]
    if not all(rows):
        return []
    return [ClaimPart(f"from c2/c3 = {RATIOS[0]:g} to {RATIOS[-1]:g}", _rise(np.log(RATIOS), np.array(rows)), "%",
                 claim.takes["sign"], nothing=SMALL)]


def _rise(x: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """(seeds,) rise of y (points, seeds) over all of x (points,) along the line of least squares, % of the mean."""
    slope = np.polyfit(x, y, 1)[0]
    return tuple((slope * (x[-1] - x[0]) * 100.0 / np.abs(y.mean(axis=0))).tolist())


def _level(world: str) -> float:
    return float(world.removeprefix("load "))


def _swept(results: Results, world: str, name: str) -> np.ndarray | None:
    """(lambdas,) of the sweep at a load."""
    if results.sweep is None:
        return None
    return np.array(results.sweep[name][results.sweep["means"].index(_level(world))])


def loss_growth(results: Results, _: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """Losses at a lambda beyond those at 0."""
    loss = _swept(results, world, "loss_mwh")
    if loss is None or results.sweep is None:
        return []
    at = results.sweep["lambdas"].index(claim.takes["at"])
    return [ClaimPart(f"losses at lambda = {claim.takes['at']:g}, beyond those at 0",
                 (float(loss[at] / loss[0] - 1.0) * 100.0,), "%", band=claim.takes["band"], exact=True)]


def lambda_trade(results: Results, _: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """What emission and losses do between two lambdas."""
    loss, emission = _swept(results, world, "loss_mwh"), _swept(results, world, "emission_t")
    if loss is None or emission is None or results.sweep is None:
        return []
    low, high = (results.sweep["lambdas"].index(claim.takes[end]) for end in ("low", "high"))
    return [ClaimPart(f"{what} from lambda = {claim.takes['low']:g} to {claim.takes['high']:g}",
                 (float(x[high] / x[low] - 1.0) * 100.0,), "%", sign, nothing=1.0, exact=True)
            for what, x, sign in (("emission", emission, -1), ("losses", loss, +1))]


def lambda_threshold(results: Results, _: Actors, world: str, claim: Claim) -> list[ClaimPart]:
    """The lambda from which a tenth is saved of what the largest one saves."""
    if results.sweep is None:
        return []
    found = results.sweep["thresholds"][results.sweep["means"].index(_level(world))]
    return [ClaimPart("threshold", (float("nan") if found is None else found,), "kW per kg/h", band=claim.takes["band"],
                 exact=True)]


def over_sites(results: Results, actors: Actors, load: str, claim: Claim) -> list[ClaimPart]:
    """(32) with one site more, less without it."""
    three, four, five = (Case(actors.team, "joint", world) for world in SIZES[load])
    return _all([_difference(results, four, three, "objective", claim.takes["sign"]),
                 _difference(results, five, four, "objective", claim.takes["sign"])])


def saving(results: Results, name: str, world: str, metric: str) -> tuple[float, ...]:
    """What joint mode saves of power mode's figure, per seed, %."""
    joint, power = (results.metric(Case(name, mode, world), metric) for mode in ("joint", "power"))
    return tuple(-x for x in _percent(joint, power)) if joint and power else ()


def benefit(results: Results, actors: Actors, load: str, claim: Claim) -> list[ClaimPart]:
    """What joint mode saves with 3, 4 and 5 sites."""
    return _all([[ClaimPart(f"saved with {n} sites", x, "%", +1, nothing=SMALL)]
                 if (x := saving(results, actors.team, world, claim.takes["metric"])) else []
                 for n, world in enumerate(SIZES[load], 3)])


def benefit_grows(results: Results, actors: Actors, load: str, claim: Claim) -> list[ClaimPart]:
    """What one site more adds to that."""
    found = [saving(results, actors.team, world, claim.takes["metric"]) for world in SIZES[load]]
    if not all(found):
        return []
    x = np.array(found)
    return [ClaimPart(f"saved with {n + 4} sites less with {n + 3}", tuple(x[n + 1] - x[n]), "points", +1,
                      nothing=SMALL) for n in range(2)]


_MEASURES: dict[str, Callable[..., list[ClaimPart]]] = {
    function.__name__: function for function in (
        joint_less_power, team_less_others, team_less_all, objective_order, action_spaces, site_order, site_figure,
        site_figure_open, site_less_uniform, within_site, site_shares, middle_share, waits_alike, team_less_fixed,
        fixed_order, over_ratio, loss_growth, lambda_trade, lambda_threshold, over_sites, benefit, benefit_grows)}
