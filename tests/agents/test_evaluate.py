"""Metrics of Table II: figures by hand, intervals against tables of Student's t, and the command as a user runs it."""

import json
import math

import pytest

from cosim.agents.evaluate import METRICS, compare, main, metrics
from cosim.campaign.statistics import interval

KINDS = {"llm": "train", "search": "inf"}
FIGURES = {
    "energy_kwh": 60_000.0, "it_energy_kwh": 48_000.0, "cost_usd": 8_000.0, "co2_attributed_kg": 30_000.0,
    "co2_system_kg": 64_000.0, "co2_marginal_kg": 66_000.0, "throughput_to_per_min": 50e6,
    "lost_missed_to": 1.2e9, "lost_failed_to": 0.3e9, "served_to": 140e9, "unfinished_llm_to": 2.5e9,
    "unfinished_search_to": 0.5e9, "cost_usd_per_gto": 8_000 / 140, "co2_attributed_kg_per_gto": 30_000 / 140,
    "dropped_llm_jobs": 3.0, "dropped_search_jobs": 8.0, "unfinished_llm_jobs": 5.0, "unfinished_search_jobs": 2.0,
}


@pytest.mark.rows("I32", "K01-06", "U20", "X06")
def test_metrics_by_hand():
    """Two days: 60 MWh and 30 t are 30 MWh and 15 t a day, 2 MWh/t; PUE 60/48; 140e9 TO of the 144e9
    that 50e6 x 2880 min are were served."""
    got = metrics(FIGURES, KINDS, days=2.0)
    assert set(got) == {m.name for m in METRICS}
    assert got == pytest.approx({
        "throughput": 50.0, "cost_usd": 4000.0, "co2_t": 15.0, "system_co2_t": 32.0,
        "marginal_co2_t": 33.0, "dropped_train": 1.5,
        "dropped_inf": 4.0, "mwh_per_t": 2.0, "pue": 1.25, "energy_mwh": 30.0, "unfinished": 7.0,
        "unfinished_gto": 3.0, "lost_gto": 0.75, "served_gto": 70.0, "kg_per_gto": 30_000 / 140,
        "usd_per_gto": 8_000 / 140,
    })


def test_a_run_that_serves_nothing_and_emits_nothing_has_no_ratios():
    nothing = {name: value for name, value in FIGURES.items() if not name.endswith("_per_gto")}
    got = metrics(nothing | {"served_to": 0.0, "co2_attributed_kg": 0.0}, KINDS, 1.0)
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
    digest = compare(results, (0, 1), 1.0)
    line = next(r for r in digest.tables[1].rows if r[0].startswith("PUE"))
    assert line[1] == "+1.000 +- 0.000"
    assert digest.figures["pue of b"] == 52.0


@pytest.fixture
def brief(monkeypatch):
    """A warm-up of 18 min where a day would say no more."""
    monkeypatch.setattr("cosim.agents.evaluate.WARMUP_DAYS", 0.0125)


@pytest.mark.usefixtures("brief")
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


@pytest.mark.rows("X10")
@pytest.mark.usefixtures("brief")
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
])
def test_nonsense_is_one_line(argv, says, capsys):
    assert main([*argv, "--jobs", "1", "--days", "0.0125"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
