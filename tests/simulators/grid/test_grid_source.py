"""Networks that need no library, beside what pandapower makes of the same; and the check that needs no solver."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandapower as pp
import pytest

from cosim.errors import ScenarioError
from cosim.simulators.grid.equations import radial_power_flow
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.files import stored
from cosim.simulators.grid.network.powerflow import AcNetwork
from cosim.simulators.grid.network.radial import feeder_of, read_feeder
from cosim.simulators.grid.network.source import SHIPPED, RadialData, listed, name_of
from cosim.simulators.grid.network.tables import loads_of, radial_data

ODD = LineList(10.5, (Line(7, 3, 0.31, 0.17), Line(9, 7, 0.0, 0.4), Line(3, 40, 0.2, 0.01), Line(7, 3, 0.9, 1.1)),
               (BaseLoad(3, 35.0, -3.7), BaseLoad(40, 0.1, 0.3), BaseLoad(3, 12.3)), base_mva=0.7, substation=9)
"""Numbers with gaps, two loads at a bus, parallel lines, a base of its own."""


def same(ours: RadialData, theirs: RadialData) -> None:
    """Equal in all that is read; what pandapower computes itself, within rounding."""
    for name in ("name", "base_mva", "base_kv", "root_bus", "v0_pu", "generators", "left_out", "rated_kw"):
        assert getattr(ours, name) == getattr(theirs, name), name
    np.testing.assert_array_equal(ours.voltage_limits, theirs.voltage_limits)
    assert ours.loads.bus_ids == theirs.loads.bus_ids
    np.testing.assert_allclose(ours.loads.p_kw, theirs.loads.p_kw, rtol=1e-15)
    np.testing.assert_allclose(ours.loads.q_kvar, theirs.loads.q_kvar, rtol=1e-15)
    assert ours.z_pu.tobytes() == theirs.z_pu.tobytes()
    for name in ("base_mva", "row_of", "kind", "index"):
        assert getattr(ours.solver, name) == getattr(theirs.solver, name), name
    for name in ("isolated", "y_bus_pu", "p_bus_kw", "q_bus_kvar", "row", "from_row", "to_row", "z_pu", "y_from_pu",
                 "y_to_pu", "skewed", "ratio"):
        np.testing.assert_allclose(getattr(ours.solver, name), getattr(theirs.solver, name), rtol=1e-14, err_msg=name)


@pytest.mark.rows("I25", "Z07")
@pytest.mark.parametrize("network", [*sorted(SHIPPED), ODD], ids=str)
def test_what_needs_no_library_is_what_pandapower_gives(network: str | LineList):
    net, ours = stored(network), listed(network)
    base_mva = network.base_mva if isinstance(network, LineList) else 1.0
    same(ours, radial_data(net, name_of(network), base_mva))
    assert loads_of(network).bus_ids == ours.loads.bus_ids


@pytest.mark.rows("E03", "Z03")
@pytest.mark.parametrize("network", ["case33bw", ODD], ids=["case33bw", "lines"])
def test_a_confirmed_start_is_what_runpp_finds(network: str | LineList):
    """Branch by branch within 1e-8 of the power, of random loads and sources."""
    feeder, net = read_feeder(network), stored(network)
    at = feeder.bus_ids[-1]
    check, solving = AcCheck(network, [at], 1.02), AcNetwork(network, [at], 1.02, generators_stay=False)
    rng = np.random.default_rng(5)
    for _ in range(5):
        p, q = feeder.p_kw * rng.uniform(0.2, 1.1), feeder.q_kvar * rng.uniform(0.2, 1.1)
        p_source, q_source = rng.uniform(0.0, 20.0, 1), rng.uniform(-10.0, 10.0, 1)
        s_net = p + 1j * q
        s_net[feeder.nodes.of_bus[at]] -= p_source[0] + 1j * q_source[0]
        start = radial_power_flow(feeder.tree, s_net / feeder.base_kw, 1.02).v_pu
        ours, theirs = check.run(p, q, p_source, q_source, start), solving.run(p, q, p_source, q_source)
        assert "_solving" not in vars(check)  # nothing was solved
        assert ours.vm_pu == pytest.approx(theirs.vm_pu, abs=1e-8)
        assert ours.p_substation_kw == pytest.approx(theirs.p_substation_kw, rel=1e-8, abs=1e-8)
        assert float(ours.q_slack_kvar[0]) == pytest.approx(float(theirs.q_slack_kvar[0]), rel=1e-8, abs=1e-8)
        assert ours.loss_kw == pytest.approx(theirs.loss_kw, rel=1e-8, abs=1e-8)
    assert len(net.bus) == feeder.n_bus


def test_elements_of_all_kinds_are_confirmed(tmp_path):
    """A transformer off its nominal ratio with iron losses, parallel lines of two directions, charging, a shunt."""
    net = pp.create_empty_network(sn_mva=2.0)
    for kv in (20.0, 10.0, 10.0, 10.0):
        pp.create_bus(net, kv)
    pp.create_ext_grid(net, 0, vm_pu=1.01, va_degree=7.0)
    pp.create_transformer_from_parameters(net, 0, 1, 4.0, 20.0, 10.4, vkr_percent=1.0, vk_percent=6.0, pfe_kw=5.0,
                                          i0_percent=0.4, shift_degree=150.0)
    for a, b in ((1, 2), (2, 1), (2, 3)):
        pp.create_line_from_parameters(net, a, b, 1.3, 0.3, 0.2, 300.0, 0.4, g_us_per_km=9.0)
    pp.create_load(net, 3, 0.8, 0.3)
    pp.create_shunt(net, 2, q_mvar=-0.2, p_mw=0.05)
    pp.to_json(net, str(tmp_path / "net.json"))
    network = str(tmp_path / "net.json")
    feeder, check = read_feeder(network), AcCheck(network, [])
    demand = (feeder.p_kw + 1j * feeder.q_kvar + feeder.own_p_kw + 1j * feeder.own_q_kvar) / feeder.base_kw
    start = radial_power_flow(feeder.tree, demand, 1.01).v_pu
    flow = check.run(feeder.p_kw, feeder.q_kvar, np.zeros(0), np.zeros(0), start)
    assert "_solving" not in vars(check)
    pp.runpp(net, numba=False, tolerance_mva=1e-11, calculate_voltage_angles=True)
    assert flow.vm_pu == pytest.approx(net.res_bus.vm_pu.to_numpy(), abs=1e-9)
    assert flow.p_substation_kw == pytest.approx(net.res_ext_grid.p_mw[0] * 1e3, abs=1e-6)
    assert flow.loss_kw == pytest.approx(1e3 * (net.res_line.pl_mw.sum() + net.res_trafo.pl_mw.sum()), abs=1e-6)
    assert flow.p_drawn_kw[2] == pytest.approx(1e3 * net.res_shunt.p_mw[0], abs=1e-6)


def test_a_start_that_is_no_power_flow_is_not_confirmed():
    feeder, none = read_feeder("case33bw"), np.zeros(0)
    check = AcCheck("case33bw", [], 1.0)
    start = radial_power_flow(feeder.tree, (feeder.p_kw + 1j * feeder.q_kvar) / feeder.base_kw, 1.0).v_pu
    for wrong in (start * (1.0 + 1e-8 * np.arange(33)), np.full(33, np.nan + 0j)):
        flow = check.run(feeder.p_kw, feeder.q_kvar, none, none, wrong)
        assert "_solving" in vars(check)
        assert flow.vm_pu == pytest.approx(np.abs(start), abs=1e-11)
        del check._solving
    assert AcCheck("case33bw", [], 1.05).run(feeder.p_kw, feeder.q_kvar, none, none, start).vm_pu[0] == 1.05


@pytest.mark.parametrize(("change", "words"), [
    ({"lines": (Line(0, 1, 0.0, 0.0),)}, "line 0 (0-1) has no impedance"),
    ({"lines": (Line(0, 1, 1.0, 0.0), Line(2, 3, 1.0, 0.0))}, "has an island: buses 2, 3 are not connected"),
    ({"lines": (Line(0, 1, 1.0, 0.0), Line(1, 2, 1.0, 0.0), Line(2, 0, 1.0, 0.0))}, "closes a loop"),
    ({"lines": (Line(1, 1, 1.0, 0.0), Line(0, 1, 1.0, 0.0))}, "joins two buses that closed switches make one"),
    ({"substation": 5}, "substation = 5 is the end of no line"),
    ({"loads": (BaseLoad(5, 1.0),)}, "loads: bus 5 is the end of no line"),
])
def test_lines_that_make_no_feeder_are_refused(change: dict, words: str):
    with pytest.raises(ScenarioError) as err:
        read_feeder(LineList(**({"base_kv": 10.0, "lines": (Line(0, 1, 1.0, 0.0),)} | change)))
    assert words in str(err.value)


def test_a_feeder_of_lines_is_oriented_as_before():
    assert feeder_of(listed(ODD)).line_names == ["7-3", "9-7", "3-40"]


@pytest.mark.long
@pytest.mark.parametrize("what", [
    "cosim.run.main(['ieee33', '--until', '1min', '--quiet', '--out', sys.argv[1]])",
    "cosim.run.main(['two_bus', '--show'])"])
def test_a_run_of_what_ships_imports_no_network_library(what: str, tmp_path):
    code = f"import sys, cosim.run; assert {what} == 0; print(sorted({{'pandapower', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.h5")], capture_output=True, text=True,
                          check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
