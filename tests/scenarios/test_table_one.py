"""Table I of the study, value by value (X16), as `paper_literal` runs it: rows P01-P42.

The numbers are those of the table; where the default differs on purpose, that is said too.
"""

import math

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.drivers.resolve import resolve
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.metrics import preflight
from cosim.simulators.grid.network.radial import read_feeder

MEMBERS = resolve(find("paper_literal")).params
GRID, AIDC, WORK, CONTROL, TARIFF = (MEMBERS[m] for m in ("grid", "aidc", "workload", "controller", "tariff"))
COOLING = MEMBERS["aidc"].cooling
CLASSES = AIDC.job_classes


def of_classes(field, *names):
    return [getattr(CLASSES[name], field) for name in names]


def arrivals(field, *names):
    return [getattr(WORK.arrivals[name], field) for name in names]


@pytest.mark.rows("I25", "P01-04", "P06", "P08", "X16", "B08")
def test_grid():
    """P01-P04, P06, P08; node 0 is the substation (I25)."""
    assert (GRID.vm_min_pu, GRID.vm_max_pu) == (0.9, 1.1)
    turbines = {name: s for name, s in GRID.sources.items() if s.node}
    assert {s.node for s in turbines.values()} == {6, 25, 30}
    assert {(s.p_min_kw, s.p_max_kw) for s in turbines.values()} == {(0.0, 500.0)}
    assert {(s.q_min_kvar, s.q_max_kvar) for s in turbines.values()} == {(-300.0, 300.0)}
    assert {s.node: s.kg_per_kwh for s in GRID.sources.values()} == {0: 0.30, 6: 0.35, 25: 0.65, 30: 0.90}
    assert GRID.lambda_kw_per_kg_h == 0.01
    assert find("ieee33_power").members["grid"].params["lambda_kw_per_kg_h"] == 0.0
    power = {"controller.mode": "power", "controller.policy": "uniform", "grid.lambda_kw_per_kg_h": 0.0}
    assert override(find("ieee33"), power).members == find("ieee33_power").members
    assert {site.q_per_p_ratio for site in AIDC.sites.values()} == {0.2}


@pytest.mark.rows("P05", "P09", "X16")
def test_tariff_and_clocks():
    """P05, P09: 0.1 USD/kWh, 0.3 from 11 to 15, 0.03 from 19 to 23; agents every minute, the grid every 15."""
    assert TARIFF.base_usd_per_kwh == 0.1
    assert [(w.start_h, w.end_h, w.price_usd_per_kwh) for w in TARIFF.windows] == [(11, 15, 0.3), (19, 23, 0.03)]
    members, clock = find("paper_literal").members, Clock(60.0)
    assert clock.steps(members["grid"].step_s) == 15
    assert {clock.steps(members[m].step_s) for m in ("aidc", "controller", "workload")} == {1}


@pytest.mark.rows("P10-12", "X16", "Z08")
def test_sites():
    """P10-P12, Z08: three data centers of 50 racks with 8 GPUs, 100 kW idle; four and five need other data only."""
    assert [site.node for site in AIDC.sites.values()] == [8, 28, 32]
    assert {site.gpus for site in AIDC.sites.values()} == {50 * 8}
    assert {site.idle_kw for site in AIDC.sites.values()} == {100.0}
    assert [s["node"] for s in find("ieee33_5").shared["sites"].values()] == [8, 28, 32, 20, 23]


@pytest.mark.rows("P13-19", "P21", "X16")
def test_job_classes():
    """P13-P19, P21, and that a busy GPU draws 0.7 kW in training and in inference."""
    train, inf = ("llm", "vae"), ("deep_research", "search")
    assert of_classes("kw_per_to_s", *train, *inf) == [7.0e-4, 7.0e-4, 1.68e-4, 1.68e-4]
    assert of_classes("to_per_gpu_min", *train, *inf) == [6.0e4, 6.0e4, 2.5e5, 2.5e5]
    assert of_classes("work_to", *train, *inf) == [6.91e8, 2.88e8, 3.01e7, 1.5e7]
    assert of_classes("gpus_per_block", *train) == [16, 8]
    assert of_classes("deadline_s", *train, *inf) == [720 * 60, 720 * 60, 30 * 60, 15 * 60]
    for one in CLASSES.values():
        assert one.kw_per_to_s * one.to_per_gpu_min / 60.0 == pytest.approx(0.7, abs=1e-3)


@pytest.mark.rows("P20", "U15", "X16")
def test_deferrals():
    """P20: 0 to 10 h in steps of two, each a whole minute and within the deadline of 12 h (U15)."""
    assert find("paper_literal").shared["deferrals_s"] == [h * 3600.0 for h in (0, 2, 4, 6, 8, 10)]


@pytest.mark.rows("P22-31", "X16")
def test_arrivals():
    """P22-P31; the noise is far below the Poisson spread, sqrt(mean) (I14)."""
    train, inf = ("llm", "vae"), ("deep_research", "search")
    assert arrivals("mean_per_min", *train, *inf) == [0.0585, 0.0840, 16.5, 110.0]
    assert arrivals("amplitude_per_min", *train, *inf) == [0.0117, 0.0210, 1.65, 8.25]
    assert arrivals("period_min", *train, *inf) == [120, 90, 60, 30]
    assert arrivals("phase", *train, *inf) == [0, 0, 10.0, 5.0]
    assert arrivals("sigma_per_min", *train, *inf) == [0.0062, 0.0168, 0.825, 2.75]
    assert all(a.sigma_per_min < 0.3 * math.sqrt(a.mean_per_min) for a in WORK.arrivals.values())


@pytest.mark.rows("I07-09", "I11", "P32-42", "X16")
def test_cooling():
    """P32-P42 as printed, and what the default corrects in P33, P35, P39, P42 (I07-I09); the COP keeps 0.008 (I11)."""
    assert (COOLING.supply_offset_degc, COOLING.return_approach_degc) == (4.0, 3.7)
    assert (CONTROL.supply_temp_min_degc, CONTROL.supply_temp_max_degc) == (18.0, 23.0)
    assert (COOLING.tower_air_rise_degc, COOLING.inlet_max_degc) == (1.0, 27.0)
    assert (COOLING.air_heat_capacity_j_per_kg_k, COOLING.air_density_kg_per_m3) == (1006.0, 1.225)
    assert COOLING.fan_flow_m3_per_s == 6.0
    assert tuple(COOLING.cop) == (0.0068, 0.008, 0.458)
    assert (COOLING.tower_ref_kw, COOLING.tower_flow_m3_per_s) == (6.0, 8.5)
    mended = resolve(find("ieee33")).params["aidc"].cooling
    assert (mended.return_approach_degc, mended.fan_flow_m3_per_s) == (-4.0, 21.5)
    assert (mended.tower_air_rise_degc, mended.tower_flow_m3_per_s, mended.tower_clamp) == (40.0, 11.0, True)
    assert mended.cop == COOLING.cop


@pytest.mark.rows("I34")
def test_the_setting_near_table_two_is_offered_forty_per_cent_of_the_gpus():
    """I34: training x 0.27 and inference sizes x 0.0225 need 484 of 1200 GPUs: 0.27 x 1076.9 + 0.0225 x 8586.6."""
    figures = preflight(resolve(find("table2"))).figures
    assert figures["offered_load_ratio"] * 1200 == pytest.approx(0.27 * 1076.9 + 0.0225 * 8586.6, rel=1e-3)


@pytest.mark.rows("Z02", "Z03")
def test_the_grid_tells_the_agents_intensities_and_nothing_else():
    """Z03: the operator keeps the grid within its limits and commands no data center; Z02: no site hears another."""
    links = find("paper_literal").links
    heard = {link.target for link in links if link.source.startswith("grid.")}
    assert "controller.nci_kg_per_kwh" in heard
    assert heard <= {"controller.nci_kg_per_kwh", "controller.mci_kg_per_kwh"}
    assert not [link for link in links if link.source.startswith("aidc.") and link.target.startswith("aidc.")]


@pytest.mark.rows("M03", "M04")
def test_the_substation_feeds_only_at_nominal_voltage():
    """M03, M04: 1.0 p.u. at node 0, no power back into the network above, no limit on what it gives."""
    substation = GRID.sources["substation"]
    assert (read_feeder(GRID.network).voltage(GRID.v0_pu), substation.node, substation.p_min_kw) == (1.0, 0, 0.0)
    assert (substation.p_max_kw, substation.q_min_kvar, substation.q_max_kvar) == (None, None, None)


@pytest.mark.rows("I24", "M01", "P07", "Z07")
def test_base_load():
    """P07, Z07, M01: the 33-node feeder's 3715 kW and 2300 kvar times a profile of 96 values of mean 0.40 (I24)."""
    profile, feeder = MEMBERS["profile"], read_feeder(GRID.network)
    assert (feeder.n_bus, feeder.p_kw.sum(), feeder.q_kvar.sum()) == (33, pytest.approx(3715.0), pytest.approx(2300.0))
    shape = np.asarray(profile.factors)
    assert len(shape) == 96
    assert shape.mean() == pytest.approx(0.40, abs=5e-3)
