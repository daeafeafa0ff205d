"""Splits of an evaluation: what each changes, by hand; tables on made-up results; the command."""

import csv
import json

import pytest

from cosim.agents import evaluate
from cosim.agents.comparison import METRICS
from cosim.agents.evaluate import main
from cosim.agents.splits import (
    Split,
    compare_splits,
    kinds_of,
    parameter,
    scenario_of,
    splits_of,
    write_splits,
)
from cosim.errors import ModelError, ScenarioError
from cosim.imports import load
from cosim.request import find
from cosim.scenario import override

SAMPLE = "tests/data/azure_llm_sample.csv"


def shifted(scenario, **traces):
    found, lacking = splits_of(scenario, ["shifted"], 500, traces)
    assert len({split.name for split in found}) == len(found)
    return {split.name: split for split in found}, lacking


def test_every_shift_changes_one_thing_of_ieee33():
    scenario = find("ieee33")
    found, lacking = shifted(scenario)
    assert lacking == ["renewables x0.3", "carbon 6 h later"]  # its sources are the same all day
    assert {name: dict(split.settings) for name, split in found.items() if name != "load by the hour"} == {
        "load x0.8": {"workload.rate_scale": 0.8}, "load x1.15": {"workload.rate_scale": 1.15},
        "prices 3 h earlier": {"tariff.windows": [
            {"start_h": 8.0, "end_h": 12.0, "price_usd_per_kwh": 0.3},
            {"start_h": 16.0, "end_h": 20.0, "price_usd_per_kwh": 0.03}]},
        "feeder x1.15": {"profile.scale": 1.15}, "lambda 0.1": {"grid.lambda_kw_per_kg_h": 0.1},
        "aidc3 small": {"shared.sites.aidc3.racks": 5}}
    factors = found["load by the hour"].settings["workload.day_factors"]
    assert sum(factors) / len(factors) == pytest.approx(1.0)
    for split in found.values():
        made = scenario_of(scenario, split)
        for path, value in split.settings.items():
            if not path.startswith("shared."):
                assert parameter(made, path) == value
    assert scenario_of(scenario, found["aidc3 small"]).shared["sites"]["aidc3"]["racks"] == 5


def test_a_scenario_says_which_shifts_it_has_nothing_for():
    found, lacking = shifted(find("ieee33_living"))
    assert "lambda 0.01" in found  # it has 0.1 itself
    assert not lacking
    found, lacking = shifted(find("two_bus"))
    assert lacking == ["renewables x0.3", "carbon 6 h later", "one site small"]


def test_dark_weeks_and_another_season_change_what_goes_over_the_day():
    """Both plants have three tenths of what they had; upstream is cleanest at 19:00 and not at 13:00, on average and at
    the margin, and nothing else of the sources is another."""
    scenario = find("ieee33_living")
    found, _ = shifted(scenario)
    before, dark, later = (scenario_of(scenario, split).members["grid"].params["sources"] for split in (
        found["load x0.8"], found["renewables x0.3"], found["carbon 6 h later"]))
    noon = 12 * 4 + 2
    for name, row in before.items():
        same = {k: v for k, v in dark[name].items() if k != "p_max_kw"}
        assert same == {k: v for k, v in row.items() if k != "p_max_kw"}
        assert (dark[name].get("p_max_kw") != row.get("p_max_kw")) == name.startswith("pv")
        for field in ("kg_per_kwh", "marginal_kg_per_kwh"):
            was, now = row.get(field), later[name].get(field)
            assert (now != was) == (name == "substation")
            if name == "substation":
                assert now[(noon + 24) % 96] == was[noon]
                assert sorted(now) == sorted(was)
    assert dark["pv14"]["p_max_kw"][noon] == pytest.approx(0.3 * before["pv14"]["p_max_kw"][noon]) != 0


def offered(scenario):
    kind = load(scenario.members["workload"].simulator, "workload")
    return kind.offered_jobs_per_min(kind.PARAMS(job_classes=scenario.shared["job_classes"],
                                                 **scenario.members["workload"].params))


def test_real_requests_are_the_same_load():
    """As many jobs a minute with as much work as the class that they replace, and the others stay."""
    scenario = find("ieee33")
    found, _ = shifted(scenario, requests=SAMPLE)
    before, after = offered(scenario), offered(scenario_of(scenario, found["real requests"]))
    assert set(before) == set(after)
    for name, mine in before.items():
        assert after[name] == pytest.approx(mine, rel=1e-9), name


def test_real_tasks_are_all_the_training_and_as_much_work(tmp_path):
    """Two tasks, 9000 and 3000 GPU-h, in two hours, and one five weeks before them that is not played: they are jobs of
    the class with most GPUs, with the GPU time that they had, so often that training's work a minute stays."""
    rows = [(0.0, 1, 3600.0), (3.1e6, 80, 112.5 * 3600.0), (3.1e6 + 7200.0, 10, 300 * 3600.0)]
    file = tmp_path / "tasks.csv"
    file.write_text("num_gpu,gpu_milli,creation_time,scheduled_time,deletion_time\n" + "".join(
        f"{gpus},1000,{at},{at},{at + run}\n" for at, gpus, run in rows))
    scenario = find("ieee33")
    found, _ = shifted(scenario, tasks=str(file))
    before, after = offered(scenario), offered(scenario_of(scenario, found["real tasks"]))
    assert set(after) == {"llm", "deep_research", "search"}
    assert after["search"] == before["search"]
    assert after["llm"][1] == pytest.approx(6000 * 60 * 6.0e4)  # 6000 GPU-h on average
    training = [before[name] for name in ("llm", "vae")]
    assert after["llm"][0] * after["llm"][1] == pytest.approx(sum(n * to for n, to in training), rel=1e-3)


def test_windows_move_around_the_clock():
    scenario = override(find("ieee33"), {
        "tariff.windows": '[{"start_h": 2.0, "end_h": 3.0, "price_usd_per_kwh": 0.2}]'})
    assert shifted(scenario)[0]["prices 3 h earlier"].settings["tariff.windows"] == [
        {"start_h": 23.0, "end_h": 24.0, "price_usd_per_kwh": 0.2}]


def test_tables_are_split_by_split_and_paired(tmp_path):
    """b is 1 below a on both seeds of test and 2 and 4 above on those of train: differences -1 +- 0 and +3."""
    row = dict.fromkeys((m.name for m in METRICS), 0.0)
    found = {"train": {"a": [row, row], "b": [row | {"objective": 2.0}, row | {"objective": 4.0}]},
             "test": {"a": [row | {"objective": 5.0}, row | {"objective": 9.0}],
                      "b": [row | {"objective": 4.0}, row | {"objective": 8.0}]}}
    splits = [Split("train", "train", 1000), Split("test", "test", 500)]
    digest = compare_splits(found, "as run")
    rows = {line[0]: line[1:] for line in digest.tables[0].rows}
    assert rows["test"][1] == "6.000 +- 25.412"  # s = 2 sqrt(2), t(0.975, 1) = 12.7062
    assert rows["test"][2] == "-1.000 +- 0.000"
    assert rows["train"][2].startswith("+3.000")
    assert digest.figures["objective of b on train"] == 3.0
    about = {"scenario": "s", "days": 1.0, "runs": 2, "note": "as run"}
    for ending in ("csv", "json", "tex"):
        write_splits(tmp_path / f"t.{ending}", found, splits, about)
    lines = [r for r in csv.DictReader((tmp_path / "t.csv").open()) if r["metric"] == "objective"]
    assert [(r["split"], r["first_seed"], r["policy"], r["value_1"]) for r in lines] == [
        ("train", "1000", "a", "0.0"), ("train", "1000", "b", "2.0"), ("test", "500", "a", "5.0"),
        ("test", "500", "b", "4.0")]
    assert json.loads((tmp_path / "t.json").read_text())["metrics"]["test"]["b"][0]["objective"] == 4.0
    assert r"\toprule" in (tmp_path / "t.tex").read_text()


def test_kinds_come_in_their_order_and_others_are_refused():
    assert kinds_of("shifted, train") == ["train", "shifted"]
    with pytest.raises(ScenarioError, match="unknown split 'tests'.*test"):
        kinds_of("tests")


def test_the_command_runs_each_split(capsys):
    assert main(["uniform", "--scenario", "two_bus", "--seeds", "1", "--days", "0.0125", "--jobs", "1", "--splits",
                 "train,test"]) == 0
    said = capsys.readouterr().out
    assert "\ntrain " in said
    assert "\ntest " in said
    assert "of train 1000..1000" in said


def test_splits_that_ended_before_a_failure_are_in_the_file(tmp_path, monkeypatch, capsys):
    """The second one's runs fail."""
    run_all = evaluate._run_all

    def failing(what, policies, seeds, jobs, said):
        if said.startswith("test"):
            raise ModelError("grid: no solution")
        return run_all(what, policies, seeds, jobs, said)

    monkeypatch.setattr(evaluate, "_run_all", failing)
    out = tmp_path / "t.json"
    assert main(["uniform", "--scenario", "two_bus", "--seeds", "1", "--days", "0.0125", "--jobs", "1", "--splits",
                 "train,test", "--out", str(out)]) == 3
    assert "grid: no solution" in capsys.readouterr().err
    kept = json.loads(out.read_text())
    assert list(kept["metrics"]) == [split["name"] for split in kept["splits"]] == ["train"]


@pytest.mark.parametrize(("argv", "said"), [
    (["--splits", "test", "--bound"], "--splits goes with none of"),
    (["--requests", "x.csv"], "--requests goes with --splits shifted"),
    (["--splits", "nothing"], "unknown split 'nothing'"),
])
def test_what_does_not_go_together_is_refused(capsys, argv, said):
    assert main(["uniform", "--scenario", "two_bus", *argv]) == 2
    assert said in capsys.readouterr().err
