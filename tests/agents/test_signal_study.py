"""The study of a signal: points and cells, what is saved by hand, swings, and slopes that a site learns of itself."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cosim.agents.fleet.rewards import RewardWeights
from cosim.agents.recorded_jobs import settings_with
from cosim.agents.study.command import main
from cosim.agents.study.followed import moved_ratio
from cosim.agents.study.own_effect import CarbonAtEqualLoad
from cosim.agents.study.plan import FIRST_SEED
from cosim.agents.study.signal import SignalResults, findings, raises, unequal
from cosim.agents.study.signal_plan import (
    FEEDERS,
    SIGNAL_TIERS,
    SIGNALS,
    Point,
    SignalTier,
    points,
    settings_at,
    signal_cells,
    signal_key,
)
from cosim.campaign.cells import states_of
from cosim.errors import ScenarioError
from cosim.request import find
from cosim.scenario import override

SAMPLE = "tests/data/azure_llm_sample.csv"
TIER = SignalTier("test", "two seeds", ("ieee33",), 2, signals=("none", "nci", "mci"))
POINT = Point("ieee33", 0.01)


def result(system_t, served=10.0, bound=None, moved=0.1):
    metrics = {"system_co2_t": system_t, "marginal_co2_t": None, "co2_t": system_t, "served_gto": served}
    return {"metrics": metrics, "bounds": {} if bound is None else {"system_co2_t": bound}, "moved_ratio": moved,
            "rank_agreement": 0.5}


def results(**emitted):
    """Tonnes of all sources per signal and seed at POINT; the bound is a tonne below no signal."""
    return SignalResults({signal_key(POINT, signal, FIRST_SEED + k): result(t, bound=t - 1.0)
                          for signal, values in emitted.items() for k, t in enumerate(values)}, TIER)


def test_what_is_saved_is_counted_from_no_signal_at_the_same_arrivals():
    found = results(none=(30.0, 40.0), nci=(30.5, 41.0), mci=(29.75, 39.5))
    assert found.saved_kg(POINT, "nci", "system_co2_t").tolist() == [-500.0, -1000.0]
    assert found.saved_kg(POINT, "mci", "system_co2_t").tolist() == [250.0, 500.0]
    assert found.possible_kg(POINT).tolist() == [1000.0, 1000.0]
    assert raises(found, "nci") == [POINT]
    assert raises(found, "mci") == []
    assert findings(found)[0].startswith("NCI: saves -750 to -750 kg a day of all sources' CO2 over 1 points; it emits "
                                         "more than no signal at 1: ieee33")
    assert not found.saved_kg(Point("ieee33", 0.1), "nci", "system_co2_t").size


def test_one_seed_without_a_rise_is_no_region():
    assert raises(results(none=(30.0, 40.0), nci=(30.5, 39.0), mci=(30.0, 40.0)), "nci") == []


def test_work_that_was_not_served_is_named():
    found = results(none=(30.0, 40.0), nci=(30.0, 40.0), mci=(30.0, 40.0))
    assert unequal(found) == []
    found.results[signal_key(POINT, "mci", FIRST_SEED)]["metrics"]["served_gto"] = 9.9
    assert unequal(found) == ["ieee33: MCI serves work that differs by 1.00 % from that of no signal; what it saves is "
                              "in part work that was dropped"]


def test_moved_power_is_half_of_what_the_shares_change():
    """Two sites that swap 100 and 300 kW of 400 kW: half the power moves each time; nothing moves at equal shares."""
    swap = np.repeat([[100.0, 300.0], [300.0, 100.0], [100.0, 300.0]], 15, axis=0)
    assert moved_ratio(swap, 15) == 0.5
    assert moved_ratio(np.repeat([[50.0, 50.0], [80.0, 80.0]], 15, axis=0), 15) == 0.0
    assert np.isnan(moved_ratio(swap[:15], 15))


def test_points_vary_one_factor_or_all():
    quick, full = (list(points(SIGNAL_TIERS[name])) for name in ("quick", "full"))
    usual = {name: Point(name, feeder.lambda_kw_per_kg_h) for name, feeder in FEEDERS.items()}
    for name, point in usual.items():
        assert point in quick
        changes = [sum(getattr(p, f) != getattr(point, f) for f in ("lambda_kw_per_kg_h", "load", "fleet", "battery"))
                   for p in quick if p.feeder == name]
        assert sorted(changes) == [0] + [1] * (len(changes) - 1)
    assert len([p for p in full if p.feeder == "ieee33"]) == 3 * 2 * 3
    assert set(quick) <= set(full)
    assert len({p.key for p in full}) == len(full)


def test_cells_are_in_order_and_their_settings_are_fields():
    cells = signal_cells(SIGNAL_TIERS["quick"])
    assert set(states_of(cells)) == {cell.key for cell in cells}
    assert len(cells) == len(list(points(SIGNAL_TIERS["quick"]))) * len(SIGNALS)
    for cell in cells:
        if cell.arguments["policy"] == "myopic_oracle" and cell.arguments["scenario"] != "cigre_living":
            override(find(cell.arguments["scenario"]), cell.arguments["settings"])


def test_recorded_jobs_are_a_point_of_each_feeder():
    """At the usual lambda; crossed, at every one. What differs from the usual point's cells are the jobs alone."""
    quick, full = (replace(SIGNAL_TIERS[name], feeders=("ieee33", "living"), traces={"requests": SAMPLE})
                   for name in ("quick", "full"))
    for tier, count in ((quick, 1), (full, 3)):
        assert [len([p for p in points(tier) if p.jobs and p.feeder == name]) for name in tier.feeders] == [count] * 2
    point = Point("living", 0.1, jobs="requests")
    assert point.label == "living, recorded requests"
    cells = {cell.key: cell.arguments for cell in signal_cells(quick)}
    usual, recorded = (cells[signal_key(p, "mci", FIRST_SEED)] for p in (Point("living", 0.1), point))
    apart = {name for name, value in recorded["settings"].items() if usual["settings"].get(name) != value}
    assert apart == {f"workload.{name}" for name in ("simulator", "path", "trace_class", "time_scale", "repeat",
                                                     "arrivals", "trace_rate_scale", "trace_work_scale")}
    assert {**recorded, "settings": 0} == {**usual, "settings": 0}


def test_a_feeder_without_jobs_to_replace_is_refused():
    with pytest.raises(ScenarioError, match="jobs has no arrivals whose place the requests of x could take; leave "
                       "--requests out"):
        settings_with(find("jobs"), "requests", "x")


def test_a_larger_fleet_has_all_of_it():
    settings = settings_at(Point("ieee33", 0.01, fleet=2.0))
    assert settings["shared.sites.aidc1.racks"] == 100
    assert settings["shared.sites.aidc3.idle_kw"] == 200.0
    assert settings["aidc.cooling"] == settings["controller.cooling"] == {
        "fan_flow_m3_per_s": 43.0, "tower_ref_kw": 12.0, "tower_flow_m3_per_s": 22.0}
    assert settings["workload.rate_scale"] == 2.0


def test_a_site_learns_what_its_own_power_does_to_its_intensity():
    """True slope of -0.001 kg/kWh a kW at the first site, none at the second: with a ridge of (100 kW)^2, changes of
    +-100 kW teach -0.001 n / (n + 1) after n of them at most. At the mean power the sites are compared."""
    rule = CarbonAtEqualLoad(RewardWeights(carbon="marginal"), 2)
    for k in range(200):
        power = np.array([400.0, 200.0]) + (100.0 if k % 2 else 0.0)
        mci = [0.9 - 0.001 * power[0], 0.4 + 1e-9 * k]
        seen = rule.now(SimpleNamespace(mci_kg_per_kwh=mci, nci_kg_per_kwh=mci, power_kw=power.tolist()))
    assert rule.slopes[0] == pytest.approx(-0.001, rel=0.05)
    assert rule.slopes[1] == pytest.approx(0.0, abs=1e-6)
    assert seen[0] == pytest.approx(mci[0] - rule.slopes[0] * 100.0)
    assert seen[1] == pytest.approx(mci[1] + rule.slopes[1] * 100.0)


def test_a_dry_run_of_one_feeder(tmp_path, capsys):
    assert main(["signal", "--feeder", "living", "--dry-run", "--out", str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    assert "living-lambda0.1-load1-fleet1-battery-mci_own-s500" in said
    assert "ieee33-" not in said
    assert not (tmp_path / "s").exists()
