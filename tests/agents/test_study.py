"""A study of the paper: verdicts by hand, the cells of each tier, and a small one from cells to the page."""

import csv
import math
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from cosim.agents.learn.checkpoint import LAST
from cosim.agents.study import measures
from cosim.agents.study.claims import CLAIMS, TABLE2, TABLE3
from cosim.agents.study.command import main
from cosim.agents.study.data import Results
from cosim.agents.study.measures import verdict_on
from cosim.agents.study.paper import digest_of_study, verdict_columns, write_paper
from cosim.agents.study.plan import (
    FIRST_SEED,
    PARTS,
    RATIOS,
    ROWS,
    SIZES,
    STAND_INS,
    TEAMS,
    TIERS,
    WORLDS,
    Actors,
    Case,
    Tier,
    cells_of,
    training_key,
)
from cosim.agents.study.statistics import rank_correlation, spread
from cosim.agents.study.verdicts import HOLDS, IMPOSSIBLE, NOT_COMPARABLE, NOT_RUN, NOT_SEEN, REVERSED, ClaimPart, judge
from cosim.agents.study.work import TRAINING, sites_of, trained
from cosim.campaign.cells import states_of
from cosim.campaign.runner import run_cells
from cosim.errors import ModelError

# --- statistics and verdicts ------------------------------------------------------------------------------------------


def test_the_interquartile_mean_drops_a_quarter_at_each_end():
    """Of 1, 2, 3, 100: (2 + 3) / 2. The interval of three values is their range, as all three are drawn alike in 1 of
    27; equal values have no width; one value has no interval."""
    assert spread([100.0, 1.0, 3.0, 2.0]).iqm == 2.5
    assert (spread([1.0, 2.0, 6.0]).low, spread([1.0, 2.0, 6.0]).high) == (1.0, 6.0)
    assert (spread([5.0] * 4).low, spread([5.0] * 4).high) == (5.0, 5.0)
    assert spread([7.0]).iqm == 7.0
    assert math.isnan(spread([7.0]).low)
    assert math.isnan(spread([1.0, math.nan]).iqm)
    assert math.isnan(spread([]).iqm)


def test_ranks_share_their_mean_where_values_are_equal():
    x, y = [3.0, 1.0, 1.0, 2.0, 5.0], [1.0, 2.0, 2.0, 7.0, 0.0]
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-14)
    assert math.isnan(rank_correlation([1.0, 1.0], [1.0, 2.0]))


@pytest.mark.parametrize(("part", "verdict"), [
    (ClaimPart("", (1.0, 2.0, 3.0), sign=+1), HOLDS), (ClaimPart("", (1.0, 2.0, 3.0), sign=-1), REVERSED),
    (ClaimPart("", (-1.0, 2.0, 3.0), sign=+1), NOT_SEEN),
    (ClaimPart("", (0.01, 0.02, 0.03), sign=+1, nothing=0.1), NOT_SEEN),
    (ClaimPart("", (0.0, 0.0, 0.0), sign=-1), NOT_SEEN), (ClaimPart("", (2.0,), sign=+1), NOT_SEEN),
    (ClaimPart("", (2.0,), sign=+1, exact=True), HOLDS), (ClaimPart("", (), sign=+1), NOT_RUN),
    (ClaimPart("", (1.0, math.nan), sign=+1), NOT_RUN), (ClaimPart("", (0.2, 0.3), band=(0.0, 0.5)), HOLDS),
    (ClaimPart("", (0.2, 0.6), band=(0.0, 0.5)), NOT_SEEN), (ClaimPart("", (0.6, 0.7), band=(0.0, 0.5)), REVERSED)])
def test_a_part_is_judged_by_its_interval(part, verdict):
    assert judge([part]).verdict == verdict


def test_a_claim_holds_or_is_reversed_as_a_whole():
    up, down, flat = (ClaimPart("", values, sign=+1) for values in ((1.0, 2.0), (-2.0, -1.0), (-1.0, 1.0)))
    assert [judge(parts).verdict for parts in ([up, up], [down, down], [up, down], [up, flat], [])] == [
        HOLDS, REVERSED, NOT_SEEN, NOT_SEEN, NOT_RUN]


# --- claims and cells -------------------------------------------------------------------------------------------------


def test_claims_name_what_there_is():
    worlds = {*WORLDS, *SIZES, "formulas", "load 1", "load 0.75", "load 0.4"}
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS) > 35
    assert {claim.where for claim in CLAIMS} == set(PARTS)
    for claim in CLAIMS:
        assert set(claim.worlds) <= worlds
        assert claim.measure == "printed_day" or callable(getattr(measures, claim.measure))
        assert not (claim.apart or claim.measure == "printed_day") or claim.why


def test_the_paper_has_54_trainings_and_rules_need_none():
    """Four methods in two modes; MAT with 4 and 5 sites in both; two with fixed shares; four more ratios c2/c3; three
    seeds of each."""
    trained = {name: [c for c in cells_of(PARTS, tier) if c.key.startswith("train")] for name, tier in TIERS.items()}
    assert {name: len(cells) for name, cells in trained.items()} == {"rules": 0, "short": 54, "full": 54}
    assert 3 * (4 * 2 + 2 * 2 + 2 + len(RATIOS) - 1) == 54
    assert {cell.arguments["episodes"] for cell in trained["full"]} == {1000}
    assert {cell.arguments["seed"] for cell in trained["short"]} == {0, 1, 2}
    for name, tier in TIERS.items():
        cells = cells_of(PARTS, tier)
        assert set(states_of(cells)) == {cell.key for cell in cells}, name  # keys and needs are in order


def test_rules_are_run_in_every_tier_alike():
    """So that a folder of rules goes on as one of trained teams."""
    rules = {cell.key: cell for cell in cells_of(PARTS, TIERS["rules"])}
    short = {cell.key: cell for cell in cells_of(PARTS, TIERS["short"])}
    assert all(short[key] == cell for key, cell in rules.items())


def results_of(metrics, tier=TIERS["rules"], sites=None):
    """Results of runs: (row, mode, world) -> a figure's name and its values per seed."""
    found = {}
    for (row, mode, world), figures in metrics.items():
        for k in range(tier.seeds):
            cell = {"metrics": {name: values[k] for name, values in figures.items()}, "sites": sites or {}}
            found[Case(row, mode, world).key(FIRST_SEED + k)] = cell
    return Results(found, Path("nowhere"), tier)


def claim(key):
    return next(c for c in CLAIMS if c.key == key)


def test_modes_are_compared_seed_by_seed():
    """Joint less power: -1 each time, whatever the seeds are; -100/12 % of power mode's mean of 12."""
    results = results_of({("myopic_oracle", "joint", "ieee33"): {"co2_t": (10.0, 20.0, 3.0)},
                          ("myopic_oracle", "power", "ieee33"): {"co2_t": (11.0, 21.0, 4.0)}})
    found = verdict_on(claim("modes-carbon"), results, STAND_INS, "ieee33")
    assert found.verdict == HOLDS
    assert found.parts[0].spread.values == pytest.approx([-100.0 / 12.0] * 3)
    assert verdict_on(claim("modes-carbon"), results, STAND_INS, "table2").verdict == NOT_RUN
    assert verdict_on(claim("best-carbon"), results, STAND_INS, "ieee33").verdict == NOT_RUN  # no learners to compare
    assert verdict_on(claim("magnitudes"), results, STAND_INS, "table2").verdict == NOT_COMPARABLE


def test_what_is_the_same_for_everyone_has_no_order():
    """No drops in any row: impossible here. One row that drops brings the claim back."""
    none, some = {"dropped_train": (0.0,) * 3, "dropped_inf": (0.0,) * 3}, {"dropped_train": (2.0,) * 3,
                                                                          "dropped_inf": (0.0,) * 3}
    joint, power = ("myopic_oracle", "joint", "ieee33"), ("myopic_oracle", "power", "ieee33")
    found = verdict_on(claim("modes-drops"), results_of({joint: none, power: none}), STAND_INS, "ieee33")
    assert found.verdict == IMPOSSIBLE
    assert "dropped is 0 in all 2 rows" in found.why
    found = [verdict_on(claim("modes-drops"), results_of({joint: a, power: b}), STAND_INS, "ieee33").verdict
             for a, b in ((some, none), (none, some))]
    assert found == [HOLDS, REVERSED]


def test_savings_by_number_of_sites_are_percents_of_power_mode():
    """10 of 100, 30 of 100 and 20 of 100: saved throughout, but not more and more."""
    figures = {}
    for world, joint in zip(SIZES["arrivals fixed"], (90.0, 70.0, 80.0), strict=True):
        figures[("myopic_oracle", "joint", world)] = {"co2_t": (joint,) * 3}
        figures[("myopic_oracle", "power", world)] = {"co2_t": (100.0,) * 3}
    results = results_of(figures)
    saved = verdict_on(claim("benefit-carbon"), results, STAND_INS, "arrivals fixed")
    assert [part.spread.iqm for part in saved.parts] == [10.0, 30.0, 20.0]
    assert saved.verdict == HOLDS
    grows = verdict_on(claim("benefit-carbon-grows"), results, STAND_INS, "arrivals fixed")
    assert [part.verdict for part in grows.parts] == [HOLDS, REVERSED]
    assert grows.verdict == NOT_SEEN


def test_the_printed_tables_are_whole():
    assert len(TABLE2) == 8
    assert {len(row) for row in TABLE2.values()} == {6}
    assert verdict_on(claim("sizes"), results_of({}), STAND_INS, "formulas").verdict == HOLDS
    assert set(TABLE3) == {2, 3, 4, 5}


def test_what_sites_get_is_read_off_their_quarters():
    """Two sites, two quarters. Site a is sent 3 of 4 training jobs; jobs go where NCI is lower. One of two jobs that
    arrive at the peak (hour 0) starts at the lowest price (hour 1)."""
    quarters = {"site": ["a", "b"] * 2, "hour": [0.0, 0.0, 1.0, 1.0], "nci_kg_per_kwh": [0.2, 0.8, 0.3, 0.7],
                "price_usd_per_kwh": [0.3, 0.3, 0.1, 0.1], "train_jobs": [2.0, 0.0, 1.0, 1.0],
                "inf_jobs": [2.0, 1.0, 1.0, 1.0], "p_kw": [100.0, 50.0, 110.0, 60.0], "it_kw": [80.0, 40.0, 88.0, 48.0]}
    starts = {"site": ["a", "b", "a"], "arrival_hour": [0.2, 0.5, 1.5], "start_hour": [0.7, 1.9, 1.6],
              "wait_h": [0.5, 1.4, 0.1]}
    found = sites_of(quarters, starts)
    assert found["train_jobs_share"] == [0.75, 0.25]
    assert found["inf_jobs_share"] == [0.6, 0.4]
    assert found["nci_kg_per_kwh"] == [0.25, 0.75]
    assert found["p_kw"] == [105.0, 55.0]
    assert found["pue"] == [1.25, 1.25]
    shares = [0.8, 0.2, 0.5, 0.5]
    assert found["nci_share_rank_correlation"] == pytest.approx(
        spearmanr(quarters["nci_kg_per_kwh"], shares).statistic)
    assert found["peak_to_off_peak"] == 0.5
    assert found["wait_h"] == [pytest.approx(0.3), 1.4]
    assert found["wait_variance_h2"] == [pytest.approx(0.04), 0.0]


# --- a small study ----------------------------------------------------------------------------------------------------

SMALL = Tier("small", "a method, two seeds, half an hour", 1, seeds=2, days=1.0 / 48.0, warmup_days=0.0,
             actors=(Actors("small teams", "mat", ("mat",), ("s-mat1", "s-mat2")),),
             training={"envs": 4, "updates": 1, "engine": "simpy"})
QUICK = {"learn.rollout_steps": "4", "learn.epochs": "1", "learn.width": "8"}


def small_cells():
    """Cells of Fig. 6 without all of its rules, with networks and rollouts that cost little."""
    return [replace(c, arguments={**c.arguments, "settings": {**c.arguments["settings"], **QUICK}})
            if c.key.startswith("train") else c for c in cells_of(("fig6", "table3"), SMALL)
            if not any(rule in c.key for rule in ("nci_priority", "tou_shift", "mpc"))]


def contents(folder):
    """Every file of a study but logs and times, with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
            and path.suffix in (".csv", ".svg", ".html", ".safetensors", ".json") and path.parent.name != "states"
            and path.name != "manifest.json"}


@pytest.mark.rows("X05", "X06")
def test_a_small_study_from_cells_to_its_page(tmp_path):
    """A trained method beside a rule: page, pictures, numbers, verdicts. Again: the same bytes, nothing anew."""
    pytest.importorskip("torch")
    drawn = find_spec("matplotlib") is not None
    cells = small_cells()
    states = run_cells(cells, tmp_path, progress=False)
    assert {key: state.error for key, state in states.items() if state.error} == {}
    made, ruled = write_paper(states, ("fig6", "table3"), SMALL, tmp_path, "a test")
    text = made.read_text(encoding="utf-8")
    assert text.count('src="data:image/svg+xml;base64,') == (3 if drawn else 0)
    assert "src=\"http" not in text
    assert "<script" not in text
    assert {path.name for path in tmp_path.glob("figures/*")} == {
        f"{name}.{ending}" for name in ("fig6-evaluated", "fig6-learning", "table3") for ending in ("svg", "png")
        if drawn}
    with (tmp_path / "data" / "fig6.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["policy"] for row in rows} == {"MAT", "uniform"}
    assert {row["seed"] for row in rows} == {str(FIRST_SEED), str(FIRST_SEED + 1)}
    by_key = {r.claim.key: r.verdict for r in ruled}
    assert by_key["sizes"].verdict == HOLDS
    assert by_key["reward-autoregressive"].verdict == NOT_RUN
    before = contents(tmp_path)
    again = run_cells(cells, tmp_path, progress=False)
    assert all(state.reused for state in again.values())
    write_paper(again, ("fig6", "table3"), SMALL, tmp_path, "a test")
    assert contents(tmp_path) == before
    assert digest_of_study(ruled, again).figures["verdicts: holds"] == 1.0
    team = Case("mat", "joint", "ieee33")
    assert training_key(team, 1) == "train-mat-joint-ieee33-s1"
    assert training_key(team, 1) in again


def test_a_failed_cell_is_named_and_its_claims_are_not_judged(tmp_path):
    cells = [replace(c, arguments={**c.arguments, "policy": "nobody"}) for c in cells_of(("fig6",), TIERS["rules"])
             if "uniform" in c.key][:1]
    states = run_cells(cells, tmp_path, progress=False)
    made, ruled = write_paper(states, ("fig6",), TIERS["rules"], tmp_path, "a test")
    assert f"{cells[0].key} failed" in made.read_text(encoding="utf-8")
    assert {r.verdict.verdict for r in ruled} == {NOT_RUN}
    assert verdict_columns(ruled)["verdict"] == [NOT_RUN] * len(ruled)


def test_without_matplotlib_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("cosim.agents.study.paper.find_spec", lambda name: None)
    made, _ = write_paper({}, ("table3",), TIERS["rules"], tmp_path, "a test")
    assert "matplotlib is not installed (extra &#x27;plot&#x27;)" in made.read_text(encoding="utf-8")
    assert not (tmp_path / "figures").exists()
    assert (tmp_path / "data" / "table3.csv").exists()


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_dry_run_lists_cells_with_their_time_and_computes_nothing(tmp_path, capsys):
    out = tmp_path / "study"
    assert main(["paper", "--only", "fig11a,fig11b", "--dry-run", "--jobs", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^run-myopic_oracle-joint-ieee33", said, re.M)) == 3 * len(RATIOS)
    assert "16 of 16 cells to compute" in said
    assert "unknown" not in said
    assert not out.exists()


@pytest.mark.parametrize(("words", "says"), [
    (["paper", "--only", "fig99"], "unknown table or figure 'fig99'"),
    (["paper", "--jobs", "0", "--dry-run"], "--jobs 0"),
    (["paper", "--tier", "long"], "--tier"), ([], "paper")])
def test_what_cannot_be_is_one_line(words, says, capsys, tmp_path):
    assert main([*words, "--out", str(tmp_path / "s")] if words else words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_actors_are_rows():
    for actors in (TEAMS, STAND_INS):
        assert {actors.team, *actors.methods, *actors.fixed} <= set(ROWS)
    assert np.all([RATIOS[k] < RATIOS[k + 1] for k in range(len(RATIOS) - 1)])


@pytest.mark.long
def test_a_training_that_was_cut_off_goes_on_to_the_same_team(tmp_path, monkeypatch):
    """Cut off in the seventh of eight updates, after the checkpoint of the fifth: the cell's second call ends with the
    bytes of a training that was never cut."""
    training = pytest.importorskip("cosim.agents.learn.training")
    asked = {"scenario": "ieee33", "mode": "joint", "method": "mappo", "seed": 3, "episodes": 1, "envs": 4,
             "updates": 8, "engine": "simpy", "settings": QUICK}
    folders = [tmp_path / "whole", tmp_path / "cut"]
    assert trained(folders[0], **asked) == {"updates": 8}
    step, steps = training.Training._update, []

    def cut(self):
        steps.append(len(steps))
        if len(steps) == 7:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "_update", cut)
        with pytest.raises(ModelError, match="ended with exit code 130"):
            trained(folders[1], **asked)
    assert trained(folders[1], **asked) == {"updates": 8}
    whole, resumed = ((folder / TRAINING / LAST).read_bytes() for folder in folders)
    assert whole == resumed
