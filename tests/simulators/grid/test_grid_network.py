"""Reading networks, refusing those that the model cannot represent, and pandapower's power flow with kept matrices."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import numpy as np
import pandapower as pp
import pandapower.networks
import pytest

from cosim.errors import ScenarioError
from cosim.simulators.grid.ac import AcPowerFlow
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.equations import radial_power_flow
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.elements import Generator
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import feeder_of, read_feeder
from cosim.simulators.grid.network.tables import radial_data

THREE_LINES = LineList(
    base_kv=10.0,
    lines=(Line(4, 2, 0.5, 0.3), Line(4, 7, 0.4, 0.2), Line(7, 9, 1.0, 0.5)),
    loads=(BaseLoad(2, 200.0, 50.0), BaseLoad(9, 100.0, 20.0), BaseLoad(9, 10.0)),
    substation=4,
)


@pytest.fixture(scope="module")
def plain_net():
    """0 -1- 2 - 3 and 0 - 4 at 12.66 kV, with a load at bus 3."""
    net = pp.create_empty_network()
    pp.create_buses(net, 5, vn_kv=12.66)
    for a, b in ((0, 1), (2, 1), (2, 3), (0, 4)):
        pp.create_line_from_parameters(net, a, b, 2.0, 0.1, 0.05, 0.0, 1.0)
    pp.create_load(net, 3, p_mw=0.3, q_mvar=0.1)
    pp.create_ext_grid(net, 0)
    return net


@pytest.mark.rows("I25", "P07", "Z07")
def test_the_33_bus_feeder():
    feeder = read_feeder("case33bw")
    assert (feeder.n_bus, len(feeder.parent), feeder.substation, feeder.base_mva) == (33, 32, 0, 1.0)
    assert feeder.p_kw.sum() == pytest.approx(3715.0)  # Baran and Wu: 3715 kW, 2300 kvar
    assert feeder.q_kvar.sum() == pytest.approx(2300.0)
    assert feeder.r_pu[0] == pytest.approx(0.0922 / 12.66**2)
    parents = dict(zip(feeder.child.tolist(), feeder.parent.tolist(), strict=True))
    assert {bus: parents[bus] for bus in (6, 8, 25, 28, 30, 32)} == {6: 5, 8: 7, 25: 5, 28: 27, 30: 29, 32: 31}
    assert feeder.line_names[:2] == ["0-1", "1-2"]


@pytest.mark.rows("Z07")
def test_nominal_load_without_other_sources():
    # The published base case of the feeder: 202.68 kW lost, 0.9131 p.u. at the 18th bus.
    feeder, none = read_feeder("case33bw"), np.zeros(0)
    flow = AcCheck("case33bw", [], 1.0).run(feeder.p_kw, feeder.q_kvar, none, none)
    assert flow.loss_kw == pytest.approx(202.68, abs=0.1)
    assert int(flow.vm_pu.argmin()) == 17
    assert flow.vm_pu[17] == pytest.approx(0.9131, abs=1e-4)
    assert flow.p_substation_kw == pytest.approx(3715.0 + flow.loss_kw, abs=1e-4)


def test_a_line_list_is_read_as_written():
    feeder = read_feeder(THREE_LINES)
    assert feeder.bus_ids == (2, 4, 7, 9)
    assert feeder.bus_names == ["bus2", "bus4", "bus7", "bus9"]
    assert feeder.line_names == ["4-2", "4-7", "7-9"]
    assert feeder.r_pu == pytest.approx([0.005, 0.004, 0.01])  # 1 p.u. is 10^2 / 1 = 100 ohm
    assert feeder.x_pu == pytest.approx([0.003, 0.002, 0.005])
    assert feeder.p_kw == pytest.approx([200, 0, 0, 110])
    assert feeder.q_kvar == pytest.approx([50, 0, 0, 20])


@pytest.mark.long(after=1)
@pytest.mark.parametrize("v0_pu", [1.0, 1.03])
def test_recycled_runs_equal_plain_runs_of_the_untouched_network(v0_pu: float):
    feeder, ac = read_feeder("case33bw"), AcCheck("case33bw", [6, 25, 30], v0_pu)
    net = pandapower.networks.case33bw()
    net.ext_grid["vm_pu"] = v0_pu
    for bus in (6, 25, 30):
        pp.create_sgen(net, bus, p_mw=0.0)
    rng = np.random.default_rng(3)
    for _ in range(5):
        scale = rng.uniform(0.3, 1.0)
        p_gen, q_gen = rng.uniform(0, 500, 3), rng.uniform(-300, 300, 3)
        plain = copy.deepcopy(net)
        plain.load[["p_mw", "q_mvar"]] *= scale
        plain.sgen["p_mw"], plain.sgen["q_mvar"] = p_gen / 1e3, q_gen / 1e3
        pp.runpp(plain, numba=False, tolerance_mva=1e-10)
        flow = ac.run(feeder.p_kw * scale, feeder.q_kvar * scale, p_gen, q_gen)
        served = plain.line.in_service.to_numpy()
        assert np.abs(flow.vm_pu - plain.res_bus.vm_pu.to_numpy()).max() <= 1e-9
        assert np.abs(flow.p_from_kw - plain.res_line.p_from_mw[served] * 1e3).max() <= 1e-6  # 1e-9 MW
        assert np.abs(flow.p_to_kw - plain.res_line.p_to_mw[served] * 1e3).max() <= 1e-6
        assert flow.p_substation_kw == pytest.approx(plain.res_ext_grid.p_mw[0] * 1e3, abs=1e-6)
        assert flow.loss_kw == pytest.approx(plain.res_line.pl_mw.sum() * 1e3, abs=1e-6)


def test_a_run_does_not_depend_on_the_runs_before():
    feeder, none = read_feeder("case33bw"), np.zeros(0)
    ac = AcCheck("case33bw", [], 1.0)
    first = ac.run(feeder.p_kw, feeder.q_kvar, none, none)
    assert ac.run(20 * feeder.p_kw, 20 * feeder.q_kvar, none, none) is None  # beyond what the feeder can carry
    ac.run(0.3 * feeder.p_kw, 0.3 * feeder.q_kvar, none, none)
    again = ac.run(feeder.p_kw, feeder.q_kvar, none, none)
    assert again.vm_pu.tobytes() == first.vm_pu.tobytes()
    assert again.p_from_kw.tobytes() == first.p_from_kw.tobytes()


def test_a_good_start_saves_newton_steps_and_changes_nothing():
    feeder, none = read_feeder("case33bw"), np.zeros(0)
    ac = AcCheck("case33bw", [], 1.0)
    flat = ac.run(feeder.p_kw, feeder.q_kvar, none, none)
    start = radial_power_flow(feeder.tree, (feeder.p_kw + 1j * feeder.q_kvar) / feeder.base_kw, 1.0).v_pu
    warm = ac.run(feeder.p_kw, feeder.q_kvar, none, none, start)
    assert warm.vm_pu == pytest.approx(flat.vm_pu, abs=1e-12)
    assert warm.p_from_kw == pytest.approx(flat.p_from_kw, abs=1e-8)
    wrong = ac.run(feeder.p_kw, feeder.q_kvar, none, none, 1.02 * start)  # a start is no answer
    assert wrong.vm_pu == pytest.approx(flat.vm_pu, abs=1e-12)


def test_charging_parallel_lines_and_odd_numbers_agree_with_pandapower(plain_net):
    net = copy.deepcopy(plain_net)
    net.line["c_nf_per_km"] = 3000.0
    net.line.loc[2, "parallel"] = 2
    net.load["scaling"] = 1.5
    pp.runpp(net, numba=False, tolerance_mva=1e-11)
    feeder = feeder_of(radial_data(net, "charged"))
    flow = radial_power_flow(feeder.tree, (feeder.p_kw + 1j * feeder.q_kvar) / feeder.base_kw, 1.0)
    assert np.abs(np.abs(flow.v_pu) - net.res_bus.vm_pu.to_numpy()).max() <= 1e-10
    ends = feeder.line_names
    assert ends == ["0-1", "1-2", "2-3", "0-4"]  # line 1 is stored as 2-1
    p_from = np.where([True, False, True, True], net.res_line.p_from_mw, net.res_line.p_to_mw)
    assert flow.s_parent_pu.real == pytest.approx(p_from, abs=1e-9)


def test_what_is_out_of_service_or_behind_an_open_switch_is_left_out(plain_net, tmp_path):
    net = copy.deepcopy(plain_net)
    pp.create_line_from_parameters(net, 3, 4, 1.0, 0.1, 0.05, 0.0, 1.0)  # would close a loop
    pp.create_switch(net, 3, 4, et="l", closed=False)
    pp.create_switch(net, 1, 4, et="b", closed=False)
    pp.create_sgen(net, 3, p_mw=1.0, in_service=False)
    pp.create_load(net, 4, p_mw=9.0, in_service=False)
    path = tmp_path / "net.json"
    pp.to_json(net, str(path))
    feeder = read_feeder(str(path))
    # The line behind the open switch hangs on bus 4 by its other end, with its (here no) charging.
    assert feeder.line_names == ["0-1", "1-2", "2-3", "0-4", "4-line4end"]
    assert feeder.bus_names[5:] == ["line4end"]
    assert feeder.p_kw == pytest.approx([0, 0, 0, 300, 0, 0])
    flow = AcCheck(str(path), [], 1.0).run(feeder.p_kw, feeder.q_kvar, np.zeros(0), np.zeros(0))
    pp.runpp(plain_net, numba=False, tolerance_mva=1e-11)
    assert flow.vm_pu[:5] == pytest.approx(plain_net.res_bus.vm_pu.to_numpy(), abs=1e-10)


def test_an_excel_file_is_the_network_that_was_written(plain_net, tmp_path):
    pytest.importorskip("openpyxl", reason="reading Excel files needs the extra 'excel'")
    pytest.importorskip("xlsxwriter", reason="writing Excel files needs the extra 'excel'")
    path = str(tmp_path / "net.xlsx")
    pp.to_excel(plain_net, path)
    read, made = read_feeder(path), feeder_of(radial_data(plain_net, "plain"))
    assert (read.line_names, read.bus_ids, read.substation) == (made.line_names, made.bus_ids, made.substation)
    for name in ("r_pu", "x_pu", "b_pu", "p_kw", "q_kvar"):
        assert getattr(read, name) == pytest.approx(getattr(made, name), rel=1e-12)
    (tmp_path / "bad.xlsx").write_text("nothing of the kind")
    with pytest.raises(ScenarioError, match="bad.xlsx' is not understood .*; write it by pandapower.to_excel"):
        read_feeder(str(tmp_path / "bad.xlsx"))


def set_line(column: str, value: float) -> Callable:
    return lambda net: net.line.loc.__setitem__((1, column), value)


def add_trafo(**other) -> Callable:
    """At bus 3, to a new bus of 0.4 kV."""
    given = {"sn_mva": 0.63, "vn_hv_kv": 12.66, "vn_lv_kv": 0.4, "vk_percent": 4.0, "vkr_percent": 1.0, "pfe_kw": 0.0,
             "i0_percent": 0.0} | other
    return lambda net: pp.create_transformer_from_parameters(net, 3, pp.create_bus(net, 0.4), **given)


WRONG: dict[str, tuple[Callable, str]] = {
    "loop": (lambda n: pp.create_line_from_parameters(n, 3, 4, 1.0, 0.1, 0.05, 0.0, 1.0), r"line \d \(.*closes a loop"),
    "island": (set_line("in_service", False), r"island: buses 2, 3 are not connected"),
    "lone bus": (lambda n: pp.create_bus(n, 12.66), r"island: bus 5 is not connected"),
    "no line": (lambda n: n.line.__setitem__("in_service", False), "no line in service"),
    "no grid": (lambda n: n.ext_grid.__setitem__("in_service", False), "0 external grids"),
    "two grids": (lambda n: pp.create_ext_grid(n, 3), "2 external grids"),
    "dead end": (lambda n: n.bus.loc.__setitem__((4, "in_service"), False), "line 3 .*bus 4, which is out of service"),
    "r < 0": (set_line("r_ohm_per_km", -0.1), r"line 1 \(2-1\) has r \+ jx = -0.00125.* needs both finite and >= 0"),
    "x nan": (set_line("x_ohm_per_km", np.nan), r"line 1 \(2-1\) has x_ohm_per_km = nan"),
    "c < 0": (set_line("c_nf_per_km", -1.0), "line 1 .*c_nf_per_km = -1"),
    "voltages": (lambda n: n.bus.loc.__setitem__((4, "vn_kv"), 20.0), r"line 3 \(0-4\) joins buses of 12.66 and 20 kV"),
    "ext. ward": (lambda n: pp.create_xward(n, 3, 0.1, 0.0, 0.0, 0.0, 0.01, 0.02, 1.0), "xward 0 in service: an ext"),
    "dc line": (lambda n: pp.create_dcline(n, 0, 4, 0.1, 1.0, 0.0, 1.0, 1.0), "dcline 0 in service: a DC line"),
    "svc": (lambda n: pp.create_svc(n, 3, 1.0, -10.0, 1.0, 90.0), "svc 0 in service, which is not modelled"),
    "circulating": (lambda n: (add_trafo()(n), pp.create_transformer_from_parameters(
        n, 3, 5, 0.63, 12.66, 0.41, 1.0, 4.0, 0.0, 0.0)), "trafo 0 and trafo 1 join the same buses at different"),
    "tap nan": (lambda n: (add_trafo(tap_pos=0, tap_neutral=0, tap_step_percent=2.5, tap_side="hv",
                                     tap_changer_type="Ratio")(n), n.trafo.__setitem__("tap_pos", np.nan)),
                r"trafo 0 \(3-5\) has tap_pos = nan and a tap changer at tap_side"),
    "two ways": (lambda n: pp.create_impedance(n, 3, pp.create_bus(n, 12.66), 0.01, 0.02, 1.0, rtf_pu=0.03),
                 r"impedance 0 \(3-5\) has another impedance in each direction"),
    "nothing between": (lambda n: pp.create_impedance(n, 3, pp.create_bus(n, 12.66), 0.0, 0.0, 1.0),
                        r"impedance 0 \(3-5\) has no impedance"),
    "load off": (lambda n: pp.create_load(n, pp.create_bus(n, 12.66, in_service=False), 0.1),
                 r"load 1 \(bus 5\) stands at bus 5, which is out of service"),
    "sgen nan": (lambda n: pp.create_sgen(n, 3, p_mw=np.nan), r"sgen 0 \(bus 3\) has p_mw = nan"),
    "motor nan": (lambda n: pp.create_motor(n, 3, 0.1, cos_phi=np.nan), r"motor 0 \(bus 3\) has cos_phi = nan"),
    "bus nan": (lambda n: n.bus.loc.__setitem__((4, "vn_kv"), np.nan), "bus 4 has vn_kv = nan"),
    "vk": (add_trafo(vk_percent=0.5), "trafo 0 .*has vk_percent = 0.5, vkr_percent = 1"),
    "gen off": (lambda n: pp.create_gen(n, pp.create_bus(n, 12.66, in_service=False), 0.1),
                r"gen 0 \(bus 5\) stands at bus 5, which is out of service"),
    "ring of switches": (lambda n: pp.create_switch(n, 3, 4, et="b"), r"line \d \(\d-\d\) closes a loop"),
    "short circuit": (lambda n: pp.create_switch(n, 2, 3, et="b"), r"line 2 \(2-2\) joins two buses that closed"),
    "const z": (lambda n: n.load.__setitem__("const_z_p_percent", 20.0), "load 0 has const_z_p_percent = 20"),
    "load nan": (lambda n: n.load.__setitem__("p_mw", np.nan), r"load 0 \(bus 3\) has p_mw = nan; it must be a finite"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_networks_are_refused_by_the_elements_name(plain_net, what: str):
    net = copy.deepcopy(plain_net)
    spoil, message = WRONG[what]
    spoil(net)
    with pytest.raises(ScenarioError, match=message):
        feeder_of(radial_data(net, "spoilt"))


def test_a_line_without_impedance_is_refused():
    with pytest.raises(ScenarioError, match=r"line 0 \(0-1\) has no impedance"):
        read_feeder(LineList(base_kv=10.0, lines=(Line(0, 1, 0.0, 0.0),)))


def test_wrong_names_and_files_are_refused(tmp_path):
    with pytest.raises(ScenarioError, match="did you mean 'case33bw'"):
        read_feeder("case33")
    with pytest.raises(ScenarioError, match="gone.json' does not exist"):
        read_feeder(str(tmp_path / "gone.json"))
    (tmp_path / "text.json").write_text("nothing of the kind")
    with pytest.raises(ScenarioError, match="is not understood"):
        read_feeder(str(tmp_path / "text.json"))


@pytest.mark.parametrize(("change", "message"), [
    ({"substation": 5}, "substation = 5 is the end of no line"),
    ({"loads": (BaseLoad(3, 1.0),)}, "bus 3 is the end of no line"),
])
def test_line_lists_that_name_other_buses_are_refused(change: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        read_feeder(LineList(base_kv=10.0, lines=(Line(0, 1, 0.1, 0.1),), **change))


@pytest.fixture
def stepped_down(plain_net):
    """`plain_net` with two parallel transformers at bus 3, a 0.4 kV line behind them, and a load at its end."""
    net = copy.deepcopy(plain_net)
    add_trafo(parallel=2, shift_degree=150.0, tap_pos=0, tap_neutral=0, tap_step_percent=2.5, tap_side="hv",
              tap_changer_type="Ratio")(net)
    pp.create_line_from_parameters(net, 5, pp.create_bus(net, 0.4), 0.1, 0.2, 0.08, 200.0, 1.0)
    pp.create_load(net, 6, p_mw=0.2, q_mvar=0.05)
    return net


def test_a_transformer_is_a_branch_as_in_pandapower(stepped_down, tmp_path):
    feeder = feeder_of(radial_data(stepped_down, "stepped down"))
    assert feeder.line_names == ["0-1", "1-2", "2-3", "0-4", "5-6", "3-5"]
    # 4 % at 0.63 MVA, two of them, on 1 MVA: |z| = 0.04 / 0.63 / 2, and r a quarter of it
    assert abs(feeder.r_pu[5] + 1j * feeder.x_pu[5]) == pytest.approx(0.04 / 0.63 / 2)
    assert feeder.r_pu[5] == pytest.approx(0.01 / 0.63 / 2)
    assert feeder.r_pu[4] == pytest.approx(0.02 / 0.16)  # 0.4 kV: 1 p.u. is 0.16 ohm
    assert feeder.left_out == ()
    pp.runpp(stepped_down, numba=False, tolerance_mva=1e-11)
    flow = radial_power_flow(feeder.tree, (feeder.p_kw + 1j * feeder.q_kvar) / feeder.base_kw, 1.0)
    assert np.abs(np.abs(flow.v_pu) - stepped_down.res_bus.vm_pu.to_numpy()).max() <= 1e-10
    assert flow.s_parent_pu[5].real == pytest.approx(stepped_down.res_trafo.p_hv_mw[0], abs=1e-9)
    assert flow.s_child_pu[5].imag == pytest.approx(stepped_down.res_trafo.q_lv_mvar[0], abs=1e-9)
    pp.to_json(stepped_down, str(tmp_path / "net.json"))
    check, none = AcCheck(str(tmp_path / "net.json"), [], 1.0), np.zeros(0)
    ac = check.run(feeder.p_kw, feeder.q_kvar, none, none, flow.v_pu)
    assert ac.vm_pu == pytest.approx(stepped_down.res_bus.vm_pu.to_numpy(), abs=1e-10)
    assert ac.p_to_kw[5] == pytest.approx(1e3 * stepped_down.res_trafo.p_lv_mw[0], abs=1e-6)


def test_open_switches_part_transformers(stepped_down):
    pp.create_switch(stepped_down, 3, 0, et="t", closed=False)
    with pytest.raises(ScenarioError, match="island: buses 5, 6 are not connected"):
        feeder_of(radial_data(stepped_down, "parted"))


def test_own_generators_become_sources_behind_a_transformer(stepped_down, tmp_path):
    pp.create_sgen(stepped_down, 6, p_mw=0.1, q_mvar=0.0, max_p_mw=0.15, controllable=True, name="PV")
    pp.create_gen(stepped_down, 3, p_mw=0.08, min_q_mvar=-0.02, max_q_mvar=0.03, scaling=1.0)
    path = str(tmp_path / "net.json")
    pp.to_json(stepped_down, path)
    assert read_feeder(path).generators == (Generator("PV", 6, 0.0, 150.0, 0.0, 0.0, 100.0, "sgen", 0),
                                            Generator("gen0", 3, 80.0, 80.0, -20.0, 30.0, 80.0, "gen", 0))
    grid = CefDispatch()
    sources = {"upstream": {"node": 0, "kg_per_kwh": 0.5}}
    grid.init("grid", 60.0, step_s=900.0, network=path, sources=sources, network_sources={"PV": 0.0, "gen0": 0.7})
    grid.create(7, "Bus")
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    loads = {"bus3": (300.0, 100.0), "bus6": (200.0, 50.0)}
    drawn = {b: {"p_load_kw": {"profile.x": p}, "q_load_kvar": {"profile.x": q}} for b, (p, q) in loads.items()}
    grid.step(0, drawn, 15)
    out = grid.get_data({"grid": [p.name for p in grid.MODELS["Grid"] if p.flow == "out"], "bus6": ["nci_kg_per_kwh"]})
    # Losses have a price and so has carbon, so the sun gives all it has: 150 kW of 0 reach bus 6, and 50 of
    # the rest; voltages, losses and NCI are those of pandapower's power flow.
    assert grid.labels()["source"] == ["upstream", "PV", "gen0"]
    assert out["grid"]["p_source_kw"][1] == pytest.approx(150.0)
    assert max(out["grid"][k] for k in ("ac_dvm_pu", "ac_dloss_kw", "ac_dnci_kg_per_kwh")) < 1e-6
    assert out["bus6"]["nci_kg_per_kwh"] < 0.25 * 0.7
    for given, message in (({"PV": 0.0}, r"has generator 'gen0' \(bus 3, 80 kW\) in service; give the kg/kWh"),
                           ({"PV": 0.0, "gen0": 0.7, "gt": 1.0}, "unknown generator of")):
        with pytest.raises(ScenarioError, match=message):
            CefDispatch().init("grid", 60.0, step_s=900.0, network=path, sources=sources, network_sources=given)


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("way", "solver"), [(CefDispatch, {"solver": "clarabel"}), (AcPowerFlow, {})])
def test_narrower_voltage_limits_of_a_file_are_said(plain_net, tmp_path, way, solver):
    """With the narrowest bus; not of a bus that the external grid holds, or that is out of service, nor wider ones."""
    up = {"up": {"node": 0, "kg_per_kwh": 0.3}}

    def notes(name, **params):
        grid = way()
        grid.init("grid", 60.0, step_s=900.0, network=name, sources=up, **solver, **params)
        grid.create(1, "Grid", ["grid"])
        grid.setup_done()
        return [note for note in grid.notes() if "vm_pu" in note]

    net, path = copy.deepcopy(plain_net), str(tmp_path / "net.json")
    others = [b for b in net.bus.index if b not in set(net.ext_grid.bus)]
    net.bus["min_vm_pu"], net.bus["max_vm_pu"] = 0.9, np.nan
    net.bus.loc[net.ext_grid.bus, ["min_vm_pu", "max_vm_pu"]] = 1.0
    pp.to_json(net, path)
    assert notes(path) == []
    net.bus.loc[others[:2], "min_vm_pu"] = [0.95, 0.97]
    net.bus.loc[others[1], "max_vm_pu"] = 1.05
    pp.to_json(net, path)
    assert notes(path) == [
        f"grid: network {path}: the file's min_vm_pu of 2 buses (bus {others[1]}: 0.97 p.u.) is not kept; vm_min_pu = "
        "0.9 of the scenario holds at all of them: --set vm_min_pu of this member",
        f"grid: network {path}: the file's max_vm_pu of 1 bus (bus {others[1]}: 1.05 p.u.) is not kept; vm_max_pu = "
        "1.1 of the scenario holds at all of them: --set vm_max_pu of this member"]
    assert notes(path, vm_min_pu=0.97, vm_max_pu=1.05) == []
    assert notes("case33bw") == []


def test_a_generator_and_a_source_of_one_name_are_told_apart(plain_net, tmp_path):
    net = copy.deepcopy(plain_net)
    pp.create_sgen(net, 3, p_mw=0.1, name="upstream")
    pp.to_json(net, str(tmp_path / "net.json"))
    with pytest.raises(ScenarioError, match="grid.sources.upstream and a generator of .* have one name"):
        CefDispatch().init("grid", 60.0, step_s=900.0, network=str(tmp_path / "net.json"),
                           sources={"upstream": {"node": 0, "kg_per_kwh": 0.5}}, network_sources={"upstream": 0.1})


@pytest.mark.long
def test_lines_of_half_a_milliohm_are_checked_as_well_as_rounding_allows():
    # At 1e-11 MVA, which long lines allow, Newton's method never ends on these.
    lines = tuple(Line(k, k + 1, 0.0005 if k % 3 else 0.4, 0.0012 if k % 3 else 0.3) for k in range(30))
    feeder = read_feeder(net := LineList(base_kv=12.66, lines=lines,
                                         loads=tuple(BaseLoad(k + 1, 100.0, 70.0) for k in range(30))))
    flow = AcCheck(net, []).run(feeder.p_kw, feeder.q_kvar, np.zeros(0), np.zeros(0))
    sweep = radial_power_flow(feeder.tree, (feeder.p_kw + 1j * feeder.q_kvar) / feeder.base_kw, 1.0)
    assert flow.vm_pu == pytest.approx(np.abs(sweep.v_pu), abs=1e-9)
    assert flow.loss_kw == pytest.approx(1e3 * (sweep.s_parent_pu + sweep.s_child_pu).real.sum(), abs=1e-5)


def dispatched(path: str, loads_kw: dict[str, float], **params) -> tuple[CefDispatch, dict]:
    grid = CefDispatch()
    grid.init("grid", 60.0, step_s=900.0, network=path, **params)
    grid.create(len(loads_kw), "Bus", names=list(loads_kw))
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    grid.step(0, {b: {"p_load_kw": {"x": p}} for b, p in loads_kw.items()}, 15)
    outs = {"grid": [p.name for p in grid.MODELS["Grid"] if p.flow == "out"]}
    return grid, grid.get_data(outs | {b: ["nci_kg_per_kwh", "vm_pu"] for b in loads_kw})


def test_what_is_fixed_in_the_file_stays_fixed_and_what_draws_draws(plain_net, tmp_path):
    # 50 kW of PV whose max_p_mw is 250, a storage that charges with 20, a ward of 10 and a shunt of 5 kW at 1 p.u.; the
    # dispatch would take all the sun it gets, for it is cleaner.
    net, path = copy.deepcopy(plain_net), str(tmp_path / "net.json")
    pp.create_sgen(net, 3, p_mw=0.05, controllable=False, max_p_mw=0.25, name="PV")
    pp.create_storage(net, 3, p_mw=0.02, max_e_mwh=1.0)
    pp.create_ward(net, 2, 0.01, 0.0, 0.0, 0.0)
    pp.create_shunt(net, 4, q_mvar=0.0, p_mw=0.005)
    net.ext_grid["vm_pu"] = 1.05
    pp.to_json(net, path)
    given = {"sources": {"up": {"node": 0, "kg_per_kwh": 0.3}}, "network_sources": {"PV": 0.05}}
    loads = {"bus0": 0.0, "bus3": 300.0, "bus4": 0.0}
    grid, out = dispatched(path, loads, **given)
    net.load["q_mvar"] = 0.0
    pp.runpp(net, numba=False, tolerance_mva=1e-11)
    got = out["grid"]
    assert got["p_source_kw"] == pytest.approx([1e3 * net.res_ext_grid.p_mw[0], 50.0], abs=1e-6)
    assert got["emission_kg_per_h"] == pytest.approx(0.3 * got["p_source_kw"][0] + 2.5)
    assert out["bus0"]["vm_pu"] == pytest.approx(1.05)
    drawn = dict(zip(grid.labels()["bus"], got["p_drawn_bus_kw"], strict=True))
    assert drawn == pytest.approx({"bus0": 0.0, "bus1": 0.0, "bus2": 10.0, "bus3": 320.0,
                                   "bus4": 5.0 * net.res_bus.vm_pu[4] ** 2}, abs=1e-6)
    assert grid.tables()["own"]["bus"] == ["bus2", "bus3", "bus4"]
    assert not any("v0_pu" in note for note in grid.notes())
    other, out = dispatched(path, loads, **given, v0_pu=1.0)
    assert out["bus0"]["vm_pu"] == 1.0
    assert any("v0_pu = 1 of the scenario, not 1.05 p.u. as the network has it" in note for note in other.notes())


def test_caps_do_not_pass_over_iron_losses(stepped_down, tmp_path):
    stepped_down.trafo["pfe_kw"] = 1.2
    pp.to_json(stepped_down, str(tmp_path / "net.json"))
    with pytest.raises(ScenarioError, match="nci_cap_kg_per_kwh: .* has transformers with iron losses"):
        dispatched(str(tmp_path / "net.json"), {"bus6": 10.0}, sources={"up": {"node": 0, "kg_per_kwh": 0.3}},
                   nci_cap_kg_per_kwh={"bus6": 0.4})


def test_a_simbench_that_does_not_go_with_pandapower_is_not_called_absent(tmp_path, monkeypatch):
    (tmp_path / "simbench.py").write_text("from pandapower import no_longer_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "simbench", raising=False)
    with pytest.raises(ScenarioError, match="SimBench cannot be loaded .*no_longer_there.*pip install --upgrade"):
        read_feeder("simbench:1-LV-rural1--0-no")
