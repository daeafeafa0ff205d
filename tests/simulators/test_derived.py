"""Figures that follow from other figures: one changed is found, nothing honest is accused, the rest is named."""


import numpy as np
import pytest
from rewritten import rewritten

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.equations import cooling_power_kw
from cosim.simulators.aidc.plant.cooling import BALANCED, LITERAL, Cooling
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.derived import _tower_bounds_kw
from cosim.trace import Trace


def run(folder, name="two_bus", until_s=3600.0, **settings):
    given = {"workload.rate_scale": "12", **{k.replace("__", "."): v for k, v in settings.items()}}
    path = folder / "run.h5"
    Experiment(override(find(name), given), "native", until_s, path).run()
    return path


def checked(path):
    with Trace(path) as trace:
        return verify(trace)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A grid with prices, voltages outside of their limits and demand that is settled."""
    return run(tmp_path_factory.mktemp("honest"), grid__mci="false", grid__vm_min_pu="0.9995",
               grid__sources__substation__usd_per_kwh="0.2", grid__sources__turbine__usd_per_kw2h="0.001",
               grid__sources__turbine__usd_per_kwh="0.1", aidc__cooling__loss_square_ratio="0.05")


def test_honest_figures_hold_and_what_no_law_looks_at_is_named(honest):
    digest = checked(honest)
    assert digest.broken == []
    with Trace(honest) as trace:
        assert (trace["grid/Grid/voltage_violation_pu"] > 0.0).all()
        assert (trace["grid/Grid/cost_usd_per_h"] > 0.0).all()
    line = next(text for text in digest.tables[0].note.splitlines() if "part of no law" in text)
    assert "grid/Grid: ac_dloss_kw" in line
    for covered in ("chiller_kw", "cost_usd_per_h", "pue", "p_window_kw", "imbalance_kwh", "work_to", "outcome"):
        assert f" {covered}" not in line.replace(";", ","), covered


@pytest.mark.long(after=5)
@pytest.mark.parametrize(("dataset", "at", "by", "law"), [
    ("grid/Grid/cost_usd_per_h", (1, 0), 0.01, "cost ="),
    ("grid/Grid/voltage_violation_pu", (1, 0), 1e-4, "voltage violations"),
    ("grid/Grid/voltage_violation_realised_pu", (1, 0), 1e-4, "voltage violations"),
    ("grid/Grid/voltage_slack_bus_pu", (1, 0, 1), 1e-4, "voltage violations"),
    ("grid/Grid/unserved_kw", (1, 0), 0.1, "unserved demand"), ("grid/Grid/status", (1, 0), -1.0, "unserved demand"),
    ("grid/Grid/imbalance_kwh", (2, 0), 0.1, "realised"),
    ("grid/Grid/emission_realised_kg_per_h", (2, 0), 0.1, "realised"),
    ("grid/Grid/curtailed_kw", (1, 0), 0.1, "generation"),
    ("aidc/Site/pue", (9, 0), 0.01, "PUE = power"), ("aidc/Site/up_gpus", (9, 0), 1.0, "PUE = power"),
    ("aidc/Site/free_gpu_ratio", (9, 0), 1.1, "PUE = power"),
    ("aidc/Site/backlog_jobs", (9, 0, 0), 1.0, "backlog"), ("aidc/Site/missed_work_to", (9, 0, 0), 1e6, "work missed"),
    ("aidc/Site/heat_imbalance_kw", (9, 0), 0.01, "chiller (22)"),
    ("aidc/Site/water_kg_per_h", (9, 0), 0.1, "chiller (22)"), ("aidc/Site/loss_kw", (9, 0), 5.0, "chiller (22)"),
    ("aidc/Site/chiller_kw", (9, 0), 0.01, "chiller (22)"), ("aidc/Site/tower_kw", (9, 0), 2.0, "chiller (22)"),
    ("jobs/deadline_s", 5, 30.0, "deadline ="), ("jobs/gpus", 5, 1.0, "GPU time"),
    ("jobs/submit_s", 5, 1e4, "jobs arrive"), ("aidc/Site/late_jobs", (9, 0, 0), 1e4, "late and urgent"),
    ("aidc/Site/urgent_jobs", (9, 0, 0), -1e4, "late and urgent"),
    ("profile/Load/q_kvar", (1, 0), 0.1, "base load"), ("grid/Bus/mci_status", (1, 0), 3.0, "marginal intensity"),
])
def test_one_figure_changed_is_found(honest, tmp_path, dataset, at, by, law):
    path = tmp_path / "t.h5"
    with rewritten(path, honest) as file:
        file[dataset][at] += by
    assert any(text.startswith(law) for text in checked(path).broken), checked(path).broken


@pytest.mark.long(after=3)
@pytest.mark.parametrize(("status", "down", "broken"), [
    (0.0, 0.3, False), (2.0, 0.3, False), (1.0, 0.2, False), (0.0, 0.3001, True), (0.0, np.nan, True),
    (2.0, 0.2, True), (4.0, 0.3, True)])
def test_a_derivative_has_two_equal_sides(honest, tmp_path, status, down, broken):
    with rewritten(tmp_path / "t.h5", honest) as file:
        for port, value in (("mci_status", status), ("mci_kg_per_kwh", 0.3), ("mci_down_kg_per_kwh", down)):
            file[f"grid/Bus/{port}"][...] = value
    assert any(text.startswith("marginal intensity") for text in checked(tmp_path / "t.h5").broken) == broken


def test_shifts_between_chiller_and_tower_are_found_although_their_sum_holds(honest, tmp_path):
    path = tmp_path / "t.h5"
    with rewritten(path, honest) as file:
        file["aidc/Site/chiller_kw"][9, 0] += 0.5
        file["aidc/Site/tower_kw"][9, 0] -= 0.5
    broken = checked(path).broken
    assert any(text.startswith("chiller (22)") for text in broken)
    assert not any(text.startswith("cooling = chiller") for text in broken)


@pytest.mark.long(after=2)
@pytest.mark.parametrize("settings", [
    {"shared__sites__aidc1__idle_kw": "0"}, {"grid__sources__turbine__p_max_kw": "500"},
    {"grid__v0_pu": "1.06", "grid__vm_max_pu": "1.05"},
    {"aidc__rack_mean_up_s": "600", "aidc__rack_mean_down_s": "300"},
    {"aidc__cooling__tower_ref_kw": "20", "aidc__cooling__tower_flow_m3_per_s": "0.3"},
    {"aidc__ambient__wet_bulb_mean_degc": "12", "aidc__ambient__wet_bulb_swing_k": "8",
     "aidc__cooling__cop_outside_degc": "25", "shared__job_classes__query__patience": "exponential"}])
def test_other_worlds_are_not_accused(tmp_path, settings):
    assert checked(run(tmp_path, grid__mci="false", **settings)).broken == []


@pytest.mark.parametrize("cooling", [BALANCED, LITERAL, Cooling(tower_flow_m3_per_s=0.3)])
def test_the_mean_of_the_tower_is_between_its_bounds(cooling):
    """Any course of the IT power between two ends, its tower power averaged by hand."""
    rng = np.random.default_rng(1)
    low, high, supply = np.array([40.0]), np.array([400.0]), np.array([21.0])
    for _ in range(200):
        course = rng.choice([40.0, 400.0, *rng.uniform(40.0, 400.0, 3)], 8)
        removed, chiller, tower = (kw.mean(keepdims=True) for kw in cooling_power_kw(course, np.full(8, 21.0), cooling))
        least, most = _tower_bounds_kw(removed, chiller, low, high, supply, cooling, None)
        assert least[0] - 1e-9 <= tower[0] <= most[0] + 1e-9


@pytest.mark.long
def test_a_carbon_flow_beside_a_foreign_grid(tmp_path):
    pytest.importorskip("mosaik_components.pandapower")
    path = tmp_path / "run.h5"
    Experiment(override(find("plug_pandapower"), {"workload.rate_scale": "0.01"}), "native", 1800.0, path).run()
    assert checked(path).broken == []
    law = "beside a foreign grid"
    assert next(row for row in checked(path).tables[0].rows if row[0].startswith(law))[3] == "holds"
    for dataset, by in (("Carbon/loss_kw", 0.1), ("Carbon/emission_kg_per_h", 0.1), ("Carbon/p_substation_kw", 0.1),
                        ("Bus/nci_kg_per_kwh", 2.0)):
        other = tmp_path / "t.h5"
        with rewritten(other, path) as file:
            file[f"carbon/{dataset}"][1, 0] += by
        assert any(text.startswith(law) for text in checked(other).broken), dataset
