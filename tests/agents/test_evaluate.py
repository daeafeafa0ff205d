"""Metrics of policies: figures by hand, intervals against tables of Student's t, and the command as a user runs it."""

import csv
import json
import math

import pytest

from cosim.agents.comparison import METRICS, columns_of, compare, metrics, rows_of, write
from cosim.agents.evaluate import Evaluation, decided_s, main, teams_of
from cosim.campaign.statistics import interval
from cosim.errors import ScenarioError
from cosim.request import find
from cosim.tables.files import read_columns

KINDS = {"llm": "train", "search": "inf"}
FIGURES = {
    "energy_kwh": 60_000.0, "it_energy_kwh": 48_000.0, "cost_usd": 8_000.0, "co2_attributed_kg": 30_000.0,
    "co2_system_kg": 64_000.0, "co2_marginal_kg": 66_000.0, "throughput_to_per_min": 50e6,
    "lost_missed_to": 1.2e9, "lost_failed_to": 0.3e9, "served_to": 140e9, "objective": -50.0, "peak_kw": 1500.0,
    "unfinished_llm_to": 2.5e9, "unfinished_search_to": 0.5e9,
    "wait_p50_search_s": 60.0, "wait_p99_search_s": 90.0, "slo_missed_search_jobs": 6.0,
    "dropped_llm_jobs": 3.0, "dropped_search_jobs": 8.0, "unfinished_llm_jobs": 5.0, "unfinished_search_jobs": 2.0,
}


@pytest.mark.rows("I32", "K01-06", "U20", "X06")
def test_metrics_by_hand():
    """Two days of arrivals in a run of three: 60 MWh and 30 t are 30 MWh and 15 t a day, 2 MWh/t; PUE 60/48; 50e6 a
    minute over three days are 75e6 over two."""
    got = metrics(FIGURES, KINDS, 2.0, 3.0)
    assert {m.name for m in METRICS} <= set(got)
    assert got == pytest.approx({
        "objective": -25.0, "throughput": 75.0, "cost_usd": 4000.0, "co2_t": 15.0, "system_co2_t": 32.0,
        "marginal_co2_t": 33.0, "dropped_train": 1.5, "peak_kw": 1500.0,
        "dropped_inf": 4.0, "mwh_per_t": 2.0, "pue": 1.25, "energy_mwh": 30.0, "unfinished": 7.0,
        "unfinished_gto": 3.0, "lost_gto": 0.75, "served_gto": 70.0, "kg_per_gto": 30_000 / 140,
        "usd_per_gto": 8_000 / 140, "wait_p50_search_min": 1.0, "wait_p99_search_min": 1.5, "slo_missed_search": 3.0,
    })
    events = {"dr_events": 1.0, "dr_compliance_ratio": 0.9, "dr_rebound_kwh": 40.0, "dr_penalty_usd": 10.0}
    called = metrics(FIGURES | events, KINDS, 2.0, 3.0)
    assert (called["dr_compliance_percent"], called["dr_rebound_kwh"], called["dr_penalty_usd"]) == (90.0, 20.0, 5.0)
    names = [m.name for m in rows_of({"a": [got], "b": [called]})]
    assert names[len(METRICS):] == ["wait_p50_search_min", "wait_p99_search_min", "slo_missed_search",
                                    "dr_compliance_percent", "dr_rebound_kwh", "dr_penalty_usd"]


def test_a_run_that_serves_nothing_and_emits_nothing_has_no_ratios():
    got = metrics(FIGURES | {"served_to": 0.0, "co2_attributed_kg": 0.0}, KINDS, 1.0, 1.0)
    assert math.isnan(got["kg_per_gto"])
    assert math.isnan(got["mwh_per_t"])


@pytest.mark.rows("X06")
def test_interval_is_students():
    """Values 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.30265 (any table), so the half width is 4.30265 / sqrt(3)."""
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert math.isnan(interval([5.0])[1])


@pytest.mark.rows("X06")
def test_differences_are_taken_seed_by_seed():
    """b is 1 above a on every seed, though the seeds differ by 100: the paired interval has width 0."""
    row = dict.fromkeys((m.name for m in METRICS), 0.0)
    results = {"a": [row | {"pue": 1.0}, row | {"pue": 101.0}], "b": [row | {"pue": 2.0}, row | {"pue": 102.0}]}
    digest = compare(results, "as run")
    line = next(r for r in digest.tables[1].rows if r[0].startswith("PUE"))
    assert line[1] == "+1.000 +- 0.000"
    assert digest.figures["pue of b"] == 52.0


def test_a_methods_interval_is_over_its_teams():
    """Teams of means 2 and 4 over two seeds, first rule of means 1: mean 3 +- 12.7062, and 2 above; a policy beside a
    method comes seed by seed, 1 less 2.5 and 3 less 3.5."""
    row = dict.fromkeys((m.name for m in METRICS), 0.0)

    def of(*values):
        return [row | {"pue": value} for value in values]

    results = {"rule": of(0.0, 2.0), "a": of(1.0, 3.0), "b": of(4.0, 4.0)}
    methods = {"mat": ["a", "b"]}
    digest = compare(results, "as run", methods)
    assert digest.tables[0].columns == ("", "rule", "mat")
    line = next(r for r in digest.tables[0].rows if r[0].startswith("PUE"))
    assert line[2] == "3.000 +- 12.706"
    assert next(r for r in digest.tables[1].rows if r[0].startswith("PUE"))[1] == "+2.000 +- 12.706"
    assert digest.figures["pue of mat"] == 3.0
    turned = compare({name: results[name] for name in ("a", "b", "rule")}, "as run", methods)
    assert turned.tables[1].columns == ("", "rule")
    assert next(r for r in turned.tables[1].rows if r[0].startswith("PUE"))[1] == "-2.000 +- 6.353"
    columns = columns_of(results, ["seed_0", "seed_1"], methods)
    of_mat = {name: column[k] for k, policy in enumerate(columns["policy"]) for name, column in columns.items()
              if policy == "mat" and columns["metric"][k] == "pue"}
    assert (of_mat["mean"], of_mat["seed_0"], of_mat["seed_1"]) == (3.0, 2.5, 3.5)


def test_methods_are_named_with_their_teams():
    assert teams_of(["uniform", "mat=a,b", "c"]) == (["uniform", "a", "b", "c"], {"mat": ["a", "b"]})
    assert teams_of(["uniform", "uniform"]) == (["uniform"], {})
    for given, said in ((["mat=a"], "two training seeds or more"), (["=a,b"], "NAME=A,B,C"),
                        (["mat=a,b", "a"], "'a' is given twice"), (["mat=a,b", "mat"], "'mat' is given twice")):
        with pytest.raises(ScenarioError, match=said):
            teams_of(given)


def test_tables_are_files(tmp_path):
    """A row for each metric and policy: mean, half width, the difference from the first, every seed."""
    results = {"a_1": [{"pue": 1.0}, {"pue": 3.0}], "b": [{"pue": 2.0}, {"pue": 5.0}]}
    about = {"scenario": "s", "days": 1.0, "seeds": [7, 8], "note": "as run"}
    write(tmp_path / "t.csv", results, about)
    rows = {(r["metric"], r["policy"]): r for r in csv.DictReader((tmp_path / "t.csv").open())}
    b = rows["pue", "b"]
    assert (float(b["mean"]), float(b["difference_mean"])) == (3.5, 1.5)
    assert float(b["difference_half_95"]) == pytest.approx(12.7062 * 0.5, rel=1e-4)  # t(0.975, 1) s / sqrt(2)
    assert (b["seed_7"], b["seed_8"]) == ("2.0", "5.0")
    write(tmp_path / "t.tex", results, about)
    text = (tmp_path / "t.tex").read_text()
    assert r"a\_1" in text
    assert r"PUE, energy-weighted & +1.500 $\pm$ 6.353 \\" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    pytest.importorskip("pyarrow")
    write(tmp_path / "t.parquet", results, about)
    columns = read_columns(tmp_path / "t.parquet")
    assert len(columns) == len(rows)
    assert columns.numbers("seed_8", gaps=True).tolist() == pytest.approx(
        [float(r["seed_8"]) for r in rows.values()], nan_ok=True)


def test_a_run_lasts_until_the_last_job_is_decided():
    """ieee33: 12 h of training, and a quarter for the grid's step; two_bus: 60 min of training, with two steps 62."""
    assert decided_s(find("ieee33", [])) == 12.25 * 3600.0
    two_bus = find("two_bus", [])
    assert decided_s(two_bus) == 75 * 60.0
    what = Evaluation(two_bus.to_json(), 0.5, 43200.0 + 4500.0, False, False, "")
    ran = what.run_scenario("random", 3)
    assert (ran.seed, ran.warmup_s, ran.members["workload"].params["arrivals_end_s"]) == (3, 0.0, 43200.0)


@pytest.mark.long
def test_the_command_prints_tables_and_writes_every_seed(tmp_path, capsys):
    out = tmp_path / "metrics.json"
    code = main(["uniform", "random", "--scenario", "two_bus", "--seeds", "2", "--days", "0.0125", "--jobs", "1",
                 "--out", str(out)])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "Difference from uniform, same arrivals" in said
    stored = json.loads(out.read_text())
    assert stored["seeds"] == [500, 501]
    assert len(stored["metrics"]["random"]) == 2
    work = [[one["served_gto"] for one in stored["metrics"][p]] for p in ("uniform", "random")]
    assert work[0] == work[1]  # the same jobs, all decided, none dropped
    assert all(one["unfinished"] == one["dropped_train"] == 0.0 for p in ("uniform", "random")
               for one in stored["metrics"][p])


@pytest.mark.long(after=1)
@pytest.mark.parametrize("loop", [[], ["--open-loop"]])
def test_nobody_beats_the_bound(loop, tmp_path):
    """A quarter of an hour of two sites whose price falls: objective above, cost, carbon, energy below all that ran."""
    (tmp_path / "p.csv").write_text("time_h,price_usd_per_kwh\n0,0.3\n0.2,0.05\n3,0.05\n")
    out = tmp_path / "m.json"
    sets = [f"tariff.prices={tmp_path / 'p.csv'}", "shared.job_classes.train.deadline_s=20min",
            "shared.sites.aidc2.node=1", "shared.deferrals_s=[0,300,600,900]", "controller.guard_slack_min=null",
            "controller.planner.slot_s=300", "controller.planner.horizon_s=1h"]
    assert main(["uniform", "mpc", "random", "--scenario", "two_bus", "--seeds", "1", "--days", "0.01", "--jobs", "1",
                 "--bound", *loop, "--out", str(out), *(f"--set={text}" for text in sets)]) == 0
    found = json.loads(out.read_text())["metrics"]
    best = found.pop("bound")[0]
    assert len(found) == 3
    for (one,) in found.values():
        assert one["objective"] <= best["objective"]
        for name in ("cost_usd", "co2_t", "energy_mwh", *([] if loop else ["system_co2_t"])):
            assert one[name] >= best[name] > 0.0
    assert found["mpc"][0]["cost_usd"] < found["uniform"][0]["cost_usd"]
    assert math.isnan(best["system_co2_t"]) is bool(loop)


@pytest.mark.rows("X10")
def test_fixed_shares_stand_beside_a_rule_that_follows_the_carbon(capsys):
    """Two sites at one bus: 1:3 stays 1:3 whatever it costs, and the table has carbon and drops of both."""
    assert main(["static", "nci_priority", "--scenario", "two_bus", "--seeds", "1", "--days", "0.0125", "--jobs", "1",
                 "--set", "shared.sites.aidc2.node=1", "--set", "controller.weights=1:3"]) == 0
    said = capsys.readouterr().out
    for row in ("attributed CO2, t/day", "CO2 of all sources, t/day", "dropped training jobs per day"):
        assert sum(line.strip().startswith(row) for line in said.splitlines()) == 2, said


@pytest.mark.parametrize(("argv", "says"), [
    (["uniform", "--seeds", "0"], "--seeds 0"),
    (["best"], "best"),
    (["uniform", "--scenario", "nowhere"], "nowhere"),
    (["uniform", "--scenario", "ieee33", "--set", "x"], "--set x"),
    (["uniform", "--scenario", "paper_literal", "--bound"], "--bound knows the work of DataCenters and Capped"),
    (["uniform", "--set", "warmup_s=1d"], "--set warmup_s=1d: an evaluation has no warm-up"),
    (["uniform", "--set", "workload.arrivals_end_s=1h"], "arrivals end by --days"),
    (["uniform", "--days", "inf"], "--days inf"),
    (["uniform", "--out", "t.txt"], "must end in .csv, .parquet, .tex, .json"),
])
def test_nonsense_is_one_line(argv, says, capsys):
    assert main([*["--days", "0.0125"], *argv, "--jobs", "1"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
