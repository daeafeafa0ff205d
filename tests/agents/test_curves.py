"""Learning curves from logs: windows by hand, seeds as one curve, what cannot be drawn."""

import csv
import json

import numpy as np
import pytest

from cosim.agents.curves import main, read_run, together
from cosim.agents.learn import checkpoint
from cosim.agents.learn.checkpoint import LAST, LOG

STEP = {"steps": 720, "envs": 2}
"""Two environments for six hours: a day of every environment is 4 updates."""


def write_run(folder, costs, seed=0, method="mat", scenario="ieee33", **learn):
    """A run whose updates cost so many USD a minute, at 2e9 TO served, 3e9 done, and 1 t each."""
    request = {"scenario": scenario, "env": None if scenario else "package.module:make", "mode": None, "settings": {},
               "learn": {"method": method, **learn}, "seed": seed, "envs": STEP["envs"]}
    checkpoint.write(folder / LAST, {}, {"extra": {"request": request}})
    terms = {"work_to": 3e9, "served_to": 2e9, "attributed_t": 1.0, "dropped_train_jobs": 0.5, "objective": 0.25}
    lines = [{"update": k + 1, "steps": STEP["steps"] * (k + 1), "episodes": k // 2, "episode_reward": float(k) or None,
              "terms": {"cost_usd": cost, **terms} if scenario else {}} for k, cost in enumerate(costs)]
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.rows("X05")
def test_figures_are_ratios_of_sums_over_a_day_of_every_environment(tmp_path):
    """Windows of 4 updates: (1 + 2 + 3 + 6) / 4 USD to 2e9 TO; 1440 minutes a day; 1000 kg to 2e9 TO."""
    run = read_run(write_run(tmp_path / "a", (1, 2, 3, 6, 9)))
    assert run.steps.tolist() == [2880, 3600]
    assert run.episodes.tolist() == [1, 2]
    assert {name: x.tolist() for name, x in run.figures.items()} == {
        "objective (32) per day": [360.0, 360.0], "USD per 1e9 TO served": [1.5, 2.5],
        "attributed kg CO2 per 1e9 TO served": [500.0, 500.0], "dropped training jobs per day": [720.0, 720.0]}


@pytest.mark.rows("X05", "Z05")
def test_seeds_make_one_curve_as_long_as_the_shortest_of_them(tmp_path):
    """Costs of 1 and 3 USD per 1e9 TO: mean 2, standard deviation sqrt(2). Methods stay apart, and settings."""
    folders = [write_run(tmp_path / "a", [2.0] * 5), write_run(tmp_path / "b", [6.0] * 4, seed=1),
               write_run(tmp_path / "c", [8.0] * 4, method="mappo"),
               write_run(tmp_path / "d", [8.0] * 4, method="mappo", epochs="10")]
    mat, mappo, longer = together([read_run(f) for f in folders])
    assert (mat.name, mat.seeds, mat.steps.tolist()) == ("mat", (0, 1), [2880])
    assert mat.mean["USD per 1e9 TO served"].tolist() == [2.0]
    assert mat.spread["USD per 1e9 TO served"].tolist() == pytest.approx([2.0**0.5])
    assert (mappo.name, longer.name) == ("mappo", "mappo, learn.epochs=10")
    frozen = read_run(write_run(tmp_path / "e", [8.0] * 4, frozen_leaders=["1", "2", "7"]))
    assert [curve.name for curve in together([read_run(folders[0]), frozen])] == ["mat", "learn.frozen_leaders=1:2:7"]
    assert mappo.spread["USD per 1e9 TO served"].tolist() == [0.0]


def test_a_foreign_world_has_the_reward_of_its_episodes(tmp_path):
    run = read_run(write_run(tmp_path / "a", [0.0] * 20, scenario=None))
    assert run.figures["reward of ended episodes"].tolist() == [15.0, 16.0, 17.0, 18.0, 19.0]


def test_table_csv_and_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    runs = [str(write_run(tmp_path / name, costs, seed)) for name, costs, seed in
            (("a", [2.0] * 5, 0), ("b", [6.0] * 5, 1))]
    assert main([*runs, "--out", str(tmp_path / "c.svg"), "--out", str(tmp_path / "c.csv")]) == 0
    assert "2.00 +- 1.41" in capsys.readouterr().out
    with (tmp_path / "c.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["figure"] == "USD per 1e9 TO served"]
    assert [(row["curve"], row["seeds"], row["steps"], row["mean"]) for row in rows] == [
        ("mat", "2", "2880", "2.0"), ("mat", "2", "3600", "2.0")]
    assert "USD per 1e9 TO served" in (tmp_path / "c.svg").read_text()


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    folder = write_run(tmp_path / "a", [1.0] * 5)
    with (folder / LOG).open("a") as log:
        log.write('{"update": 6, "ste')
    assert read_run(folder).steps.tolist() == [2880, 3600]


def test_less_than_a_day_is_drawn_and_said(tmp_path, capsys):
    assert main([str(write_run(tmp_path / "a", (1.0, 3.0)))]) == 0
    said = capsys.readouterr().out
    assert "1.00" in said
    assert "less than a day of every environment" in said


def test_a_log_without_work_served_has_no_figures_per_it(tmp_path, capsys):
    """Work done is no substitute: it counts what was dropped later."""
    old = write_run(tmp_path / "a", [2.0] * 5)
    (old / LOG).write_text((old / LOG).read_text().replace('"served_to": 2000000000.0, ', ""))
    assert list(read_run(old).figures) == ["objective (32) per day", "dropped training jobs per day"]
    assert main([str(old), str(write_run(tmp_path / "b", [2.0] * 5, seed=1))]) == 0
    said = capsys.readouterr().out
    assert "its log knows no work served" in said
    assert "per 1e9 TO" not in said


def test_windows_in_which_nothing_was_served_have_no_ratio(tmp_path):
    idle = write_run(tmp_path / "a", [2.0] * 4)
    (idle / LOG).write_text((idle / LOG).read_text().replace('"served_to": 2000000000.0', '"served_to": 0.0'))
    assert np.isnan(read_run(idle).figures["USD per 1e9 TO served"]).all()


@pytest.mark.parametrize(("arguments", "says"), [
    (["nowhere"], "there is no checkpoint 'nowhere/last.safetensors'"),
    (["empty"], "empty/log.jsonl is empty: nothing has been learned yet"),
    (["same", "again"], "'mat' is given with seeds 0, 0; each once"),
    (["same", "--out", "curves.gif"], "must end in .png, .svg, .pdf, .csv"),
])
def test_what_cannot_be_drawn_is_said_in_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, updates in (("empty", 0), ("same", 4), ("again", 4)):
        write_run(tmp_path / name, [1.0] * updates)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
