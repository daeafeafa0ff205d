"""Voltages at one-minute power, read from a trace, against pandapower's AC power flow of the same minutes."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import run

from cosim.experiment import Result
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.voltages import minute_voltages
from cosim.simulators.grid.equations import radial_power_flow, radial_tree, radial_voltages
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.radial import read_feeder
from cosim.trace import Trace

AT = {"aidc1": 8, "aidc2": 28, "aidc3": 32}


@pytest.mark.rows("M09")
def test_every_minute_is_a_power_flow_of_what_was_drawn_in_it(tmp_path):
    path = run(find("ieee33"), tmp_path / "t.h5", driver="native", until_s=3600.0).path
    with Trace(path) as trace:
        got = minute_voltages(trace)
        assert got.vm_pu.shape == (60, 33)
        check = AcCheck("case33bw", [6, 25, 30], 1.0)
        for minute in (0, 7, 14, 15, 44, 59):
            p, q = trace["profile/Load/p_kw"][minute // 15].copy(), trace["profile/Load/q_kvar"][minute // 15].copy()
            for k, node in enumerate(AT.values()):
                p[node] += trace["aidc/Site/p_kw"][minute, k]
                q[node] += trace["aidc/Site/q_kvar"][minute, k]
            p_source, q_source = (trace[f"grid/Grid/{port}"][minute // 15, 0, 1:]
                                  for port in ("p_source_kw", "q_source_kvar"))
            assert got.vm_pu[minute] == pytest.approx(check.run(p, q, p_source, q_source).vm_pu, abs=1e-9)
        assert not got.outside().any()


@pytest.fixture(scope="module")
def heavy(tmp_path_factory) -> Result:
    """The first interval of a heavy load: it is dispatched at idle power, and the data centres start to work inside."""
    scenario = override(find("ieee33"), {"profile.scale": 2.0, "grid.vm_min_pu": 0.96})
    return run(scenario, tmp_path_factory.mktemp("heavy") / "t.h5", driver="native", until_s=900.0)


@pytest.mark.rows("E07")
def test_minutes_outside_the_limits_are_counted_that_no_dispatch_saw(heavy):
    with Trace(heavy.path) as trace:
        minutes = minute_voltages(trace)
        count = np.count_nonzero(minutes.outside())
        low = trace["grid/Grid/vm_min_pu"][0, 0]
        assert low > 0.96
        assert 0 < count < 15
        assert (minutes.vm_pu.min(axis=1) < 0.96).sum() == count
        assert heavy.digest.figures["voltage_violation_min"] == count


@pytest.mark.rows("E07")
def test_links_that_scale_demand_scale_it_in_every_minute(heavy, tmp_path):
    """The same heavy load, once as the profile's and once of its links."""
    scenario = override(find("ieee33"), {"grid.vm_min_pu": 0.96})
    links = tuple(link.model_copy(update={"scale": 2.0}) if link.source.startswith("profile.") else link
                  for link in scenario.links)
    scaled = run(scenario.replace(links=links), tmp_path / "t.h5", driver="native", until_s=900.0)
    with Trace(heavy.path) as one, Trace(scaled.path) as other:
        assert (other["grid/Grid/vm_min_pu"] == one["grid/Grid/vm_min_pu"]).all()
        assert minute_voltages(other).vm_pu == pytest.approx(minute_voltages(one).vm_pu, abs=1e-12)


@pytest.mark.rows("P01")
def test_buses_that_come_near_a_limit_are_named(heavy):
    """Those below 0.97 p.u. at any minute where 0.96 is the limit; the limit of 1.1 is far from all."""
    with Trace(heavy.path) as trace:
        minutes = minute_voltages(trace)
    lowest = minutes.vm_pu.min(axis=0)
    near = [f"bus{k}" for k in range(33) if lowest[k] < 0.97]
    assert 0 < len(near) < 33
    assert minutes.near(0.01, np.ones(15, bool)) == near
    assert minutes.near(0.01, np.zeros(15, bool)) == []
    assert heavy.digest.figures["buses_near_limit"] == len(near)
    (row,) = (row for table in heavy.digest.tables for row in table.rows if row[0].startswith("buses that came"))
    assert row[1].startswith(f"{len(near)}: {near[0]}")


def test_another_grid_has_no_minutes(tmp_path):
    with Trace(run(find("ieee33_meshed"), tmp_path / "t.h5", driver="native", until_s=900.0).path) as trace:
        assert minute_voltages(trace) is None


def test_many_states_at_once_are_each_its_own():
    feeder, rng = read_feeder("case33bw"), np.random.default_rng(1)
    states = (feeder.p_kw + 1j * feeder.q_kvar)[:, None] / 1000.0 * rng.uniform(0.1, 1.4, (33, 40))
    together = radial_voltages(feeder.tree, states, 1.0)
    for k in range(40):
        assert together[:, k] == pytest.approx(radial_power_flow(feeder.tree, states[:, k], 1.0).v_pu, abs=1e-10)


def test_a_state_that_cannot_be_carried_is_nan_and_the_others_are_not():
    # At unity power factor over r = 0.1 p.u. at most 2.5 p.u. arrive.
    tree = radial_tree(2, np.array([0]), np.array([1]), np.array([0.1 + 0j]), np.zeros(2), 0)
    v = radial_voltages(tree, np.array([[0.0, 0.0], [2.4, 2.6]]), 1.0)
    assert abs(v[1, 0]) == pytest.approx((1 + np.sqrt(1 - 4 * 0.24)) / 2, abs=1e-6)
    assert np.isnan(v[:, 1]).all()
