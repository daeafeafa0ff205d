"""Carbon flow and power flow against values worked out by hand, and against conservation on random networks."""

from __future__ import annotations

import numpy as np
import pandapower
import pandapower.networks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networktruth import branch_carbon

from cosim.simulators.grid.equations import (
    SPARSE_ABOVE_BUSES,
    generated_carbon,
    nodal_carbon_intensity,
    radial_power_flow,
    radial_tree,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@pytest.mark.rows("E09")
def test_two_sources_mix_where_they_meet():
    # 0 (100 kW at 0.3) -> 1 (50 kW at 0.9, draws 30) -> 2 (draws 120), no losses.
    # w1 = (0.3 * 100 + 0.9 * 50) / 150 = 0.5, and bus 2 receives nothing but bus 1's mix.
    nci = nodal_carbon_intensity(3, ints(0, 1), ints(1, 2), floats(100, 120), floats(-100, -120),
                                 ints(0, 1), floats(100, 50), floats(0.3, 0.9))
    assert nci == pytest.approx([0.3, 0.5, 0.5], abs=1e-15)


@pytest.mark.rows("U18")
def test_losses_carry_the_senders_intensity():
    # 0 generates 110 at 0.3, line 0-1 loses 10; 1 generates 50 at 0.9, draws 30; line 1-2 takes 120, loses 6.
    # Bus 1 mixes 100 received at 0.3 with 50 at 0.9: 0.5. Generated 33 + 45 = 78 kg/h;
    # drawn 0.5 * (30 + 114) = 72; lost 0.3 * 10 + 0.5 * 6 = 6.
    frm, to, p_from, p_to = ints(0, 1), ints(1, 2), floats(110, 120), floats(-100, -114)
    p_gen, intensity = floats(110, 50), floats(0.3, 0.9)
    nci = nodal_carbon_intensity(3, frm, to, p_from, p_to, ints(0, 1), p_gen, intensity)
    assert nci == pytest.approx([0.3, 0.5, 0.5], abs=1e-15)
    assert sum(branch_carbon(nci, frm, to, p_from, p_to)) == pytest.approx([3.0, 3.0], abs=1e-12)
    assert nci @ floats(0, 30, 114) == pytest.approx(72.0, abs=1e-12)
    assert generated_carbon(p_gen, intensity) == pytest.approx(78.0, abs=1e-12)


def test_a_mesh_of_four_buses():
    # 0 (120 at 0.2) -> 1 (60) and -> 2 (60); 1 (30 at 0.8) -> 3 (90); 2 draws 20 -> 3 (40). No losses.
    # w1 = (60 * 0.2 + 30 * 0.8) / 90 = 0.4; w2 = 0.2; w3 = (90 * 0.4 + 40 * 0.2) / 130 = 44 / 130.
    # Branch 3-1 is given from its receiving end, so its power enters at `to_bus`.
    nci = nodal_carbon_intensity(4, ints(0, 0, 3, 2), ints(1, 2, 1, 3), floats(60, 60, -90, 40),
                                 floats(-60, -60, 90, -40), ints(0, 1), floats(120, 30), floats(0.2, 0.8))
    assert nci == pytest.approx([0.2, 0.4, 0.2, 44 / 130], abs=1e-15)


def test_power_that_circulates_is_counted_once():
    # 0 (100 at 0.6) -> 1 (100); the ring 1 -> 2 -> 3 -> 1 carries 50, and 2 draws 100 of the 150 that reach it.
    # All of it stems from bus 0, so every bus is at 0.6.
    nci = nodal_carbon_intensity(4, ints(0, 1, 2, 3), ints(1, 2, 3, 1), floats(100, 150, 50, 50),
                                 floats(-100, -150, -50, -50), ints(0), floats(100), floats(0.6))
    assert nci == pytest.approx([0.6] * 4, abs=1e-14)


@pytest.mark.rows("U01")
def test_a_line_fed_from_both_ends_delivers_nothing():
    # 3 kW enter at bus 0 (0.3) and 1 kW at bus 1 (0.9) and are all lost: 0.3 * 3 + 0.9 * 1 = 1.8 kg/h.
    nci = nodal_carbon_intensity(2, ints(0), ints(1), floats(3), floats(1), ints(0, 1), floats(5, 6), floats(0.3, 0.9))
    assert nci == pytest.approx([0.3, 0.9], abs=1e-15)
    assert sum(branch_carbon(nci, ints(0), ints(1), floats(3), floats(1))) == pytest.approx([1.8], abs=1e-15)


def test_several_generators_at_a_bus_and_one_that_takes_power():
    # 0.3 * 30 + 0.9 * 10 = 18 kg/h over 40 kW: 0.45. The third takes 15 kW, which is drawn at that mix.
    nci = nodal_carbon_intensity(2, ints(0), ints(1), floats(25), floats(-25), ints(0, 0, 0), floats(30, 10, -15),
                                 floats(0.3, 0.9, 5.0))
    assert nci == pytest.approx([0.45, 0.45], abs=1e-15)


@pytest.mark.parametrize("noise", [0.0, 1e-13, -1e-13])
@pytest.mark.rows("I29")
def test_a_dead_lateral_inherits_its_parents_intensity(noise: float):
    # 0 (10 at 0.3) -> 1 (20 at 0.6, draws 30: w = 0.5); laterals 1-2-3 and 0-4 carry nothing but rounding noise.
    nci = nodal_carbon_intensity(
        5, ints(0, 1, 2, 0), ints(1, 2, 3, 4), floats(10, noise, noise, -noise), floats(-10, -noise, -noise, noise),
        ints(0, 1), floats(10, 20), floats(0.3, 0.6),
    )
    assert nci == pytest.approx([0.3, 0.5, 0.5, 0.5, 0.3], abs=1e-12)


def test_a_dead_bus_between_two_live_ones_takes_the_first_branch():
    nci = nodal_carbon_intensity(3, ints(2, 0), ints(1, 1), floats(0, 0), floats(0, 0), ints(0, 2), floats(1, 1),
                                 floats(0.3, 0.9))
    assert nci == pytest.approx([0.3, 0.9, 0.9], abs=0)


def test_buses_without_any_source_have_intensity_zero():
    # Buses 1-2-3 are a ring that nobody feeds, with a flow that only rounding can cause; bus 4 is on its own.
    nci = nodal_carbon_intensity(5, ints(1, 2, 3), ints(2, 3, 1), floats(7, 7, 7), floats(-7, -7, -7), ints(0),
                                 floats(5), floats(0.4))
    assert nci.tolist() == [0.4, 0.0, 0.0, 0.0, 0.0]


def random_network(seed: int, n_bus: int, n_extra: int):
    """A connected, meshed, lossy network with arbitrary flows, and the generation and load that balance it."""
    rng = np.random.default_rng(seed)
    frm = np.array([rng.integers(0, b) for b in range(1, n_bus)] + rng.integers(0, n_bus, n_extra).tolist())
    to = np.array([*range(1, n_bus), *((frm[n_bus - 1:] + rng.integers(1, n_bus, n_extra)) % n_bus).tolist()])
    sent = rng.uniform(0.0, 100.0, len(frm)) * (rng.random(len(frm)) > 0.1)
    received = sent * rng.uniform(0.8, 1.0, len(frm))
    forward = rng.random(len(frm)) > 0.4
    p_from, p_to = np.where(forward, sent, -received), np.where(forward, -received, sent)
    need = np.bincount(frm, p_from, n_bus) + np.bincount(to, p_to, n_bus)  # what must be injected at each bus
    drawn = np.maximum(-need, 0.0) + rng.uniform(0.0, 20.0, n_bus) * (rng.random(n_bus) > 0.5)
    injected = need + drawn
    share = rng.random(n_bus)
    # Bus 0 is the substation: what is drawn there is export, a source that takes power.
    gen_bus = np.concatenate([np.arange(n_bus), np.arange(n_bus), [0]])
    p_gen = np.concatenate([injected * share, injected * (1.0 - share), -drawn[:1]])
    drawn[0] = 0.0
    return frm, to, p_from, p_to, gen_bus, p_gen, rng.uniform(0.0, 1.0, 2 * n_bus + 1), drawn


def assert_carbon_is_conserved(n_bus: int, network) -> None:
    """Generated = drawn + lost + exported, in total and at every bus; no mix is cleaner or dirtier than its sources."""
    frm, to, p_from, p_to, gen_bus, p_gen, intensity, drawn = network
    nci = nodal_carbon_intensity(n_bus, frm, to, p_from, p_to, gen_bus, p_gen, intensity)
    exported = nci[0] * -p_gen[-1]
    out = nci @ drawn + np.sum(branch_carbon(nci, frm, to, p_from, p_to)) + exported
    assert out == pytest.approx(generated_carbon(p_gen, intensity), rel=1e-10, abs=1e-9)
    assert nci.min() >= -1e-12
    assert nci.max() <= intensity.max() + 1e-12
    at_from, at_to = branch_carbon(nci, frm, to, p_from, p_to)
    leaves = np.bincount(frm, at_from, n_bus) + np.bincount(to, at_to, n_bus) + nci * drawn
    leaves[0] += exported
    made = np.bincount(gen_bus, np.maximum(p_gen, 0.0) * intensity, n_bus)
    assert leaves == pytest.approx(made, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(0, 30))
@pytest.mark.rows("E10")
def test_carbon_is_conserved_on_any_meshed_lossy_network(seed: int, n_bus: int, n_extra: int):
    assert_carbon_is_conserved(n_bus, random_network(seed, n_bus, n_extra))


def test_large_networks_are_solved_alike():
    n_bus = 3 * SPARSE_ABOVE_BUSES
    assert_carbon_is_conserved(n_bus, random_network(7, n_bus, 200))


def test_reverse_flow_at_the_substation():
    # 2 makes 300 at 0.9, 250 leave for 1 (loss 10, draws 140), 95 arrive at 0 (loss 5) and go upstream, all at 0.9.
    frm, to, p_from, p_to = ints(0, 1), ints(1, 2), floats(-95, -240), floats(100, 250)
    p_gen, gen_bus = floats(-95, 300), ints(0, 2)
    nci = nodal_carbon_intensity(3, frm, to, p_from, p_to, gen_bus, p_gen, floats(0.3, 0.9))
    assert nci == pytest.approx([0.9] * 3, abs=1e-15)
    at_from, at_to = branch_carbon(nci, frm, to, p_from, p_to)
    assert at_from == pytest.approx([-85.5, -216.0])
    assert at_to == pytest.approx([90.0, 225.0])


def test_bialeks_four_buses():
    # The lossy, meshed example of J. Bialek, Tracing the flow of electricity, IEE Proc. GTD 143(4), 1996, in MW:
    # generators of 400 at bus 1 and 114 at 2, loads of 300 at 3 and 200 at 4. From the first one stem
    #   bus 2: 59 / 173,   bus 4: (112 + 171 * 59 / 173) / 283,   bus 3: (218 + 82 * [bus 4]) / 300.
    frm, to = ints(0, 0, 0, 1, 3), ints(1, 2, 3, 3, 2)
    p_from, p_to = floats(60, 225, 115, 173, 83), -floats(59, 218, 112, 171, 82)
    gen_bus, p_gen = ints(0, 1), floats(400, 114)
    second = 59 / 173
    fourth = (112 + 171 * second) / 283
    nci = nodal_carbon_intensity(4, frm, to, p_from, p_to, gen_bus, p_gen, floats(1.0, 0.0))
    assert nci == pytest.approx([1.0, second, (218 + 82 * fourth) / 300, fourth], abs=1e-14)


def test_fourteen_buses_by_the_matrix_of_zhou_and_kang():
    # Zhou, Kang et al., Automation of Electric Power Systems 36(11), 2012: IEEE 14-bus system, DC power flow, units
    # of 120, 40, 60, 19 and 20 MW with 875, 525, 0, 520 and 0 g/kWh; E = (P_N - P_B')^-1 P_G' E_G there, where
    # P_B[h, i] flows from h to i, P_G holds what units inject and P_N the sum that enters a bus.
    net = pandapower.networks.case14()
    made, intensity = floats(120, 40, 60, 19, 20), floats(875, 525, 0, 520, 0)
    gen_bus = np.array([net.ext_grid.bus.iloc[0], *net.gen.bus], dtype=np.int64)
    net.gen["p_mw"] = made[1:]
    pandapower.rundcpp(net)
    frm = np.concatenate([net.line.from_bus, net.trafo.hv_bus]).astype(np.int64)
    to = np.concatenate([net.line.to_bus, net.trafo.lv_bus]).astype(np.int64)
    p_from = np.concatenate([net.res_line.p_from_mw, net.res_trafo.p_hv_mw])
    assert net.res_ext_grid.p_mw.iloc[0] == pytest.approx(120.0, abs=1e-6)
    branch, injected = np.zeros((14, 14)), np.zeros((5, 14))
    np.add.at(branch, (frm, to), np.maximum(p_from, 0.0))
    np.add.at(branch, (to, frm), np.maximum(-p_from, 0.0))
    injected[np.arange(5), gen_bus] = made
    through = np.diag(np.ones(19) @ np.vstack([branch, injected]))
    expected = np.linalg.solve(through - branch.T, injected.T @ intensity)
    nci = nodal_carbon_intensity(14, frm, to, p_from, -p_from, gen_bus, made, intensity)
    assert nci == pytest.approx(expected, rel=1e-9)
    assert (nci[0], nci[7]) == (pytest.approx(875.0), pytest.approx(0.0, abs=1e-9))  # fed by their own unit alone
    drawn = np.bincount(net.load.bus, net.load.p_mw, 14)
    assert nci @ drawn == pytest.approx(made @ intensity, rel=1e-9)


# --- power flow -------------------------------------------------------------------------------------------------------

def one_line(r: float, x: float):
    return radial_tree(2, ints(0), ints(1), np.array([r + 1j * x]), np.zeros(2), 0)


@pytest.mark.rows("E01-03")
def test_two_buses_in_closed_form():
    # u = v^2 at the load solves u^2 - u (v0^2 - 2 (r P + x Q)) + (r^2 + x^2)(P^2 + Q^2) = 0; the high root is physical.
    r, x, p, q = 0.02, 0.04, 0.5, 0.2
    b = 1.0 - 2 * (r * p + x * q)
    u = (b + np.sqrt(b * b - 4 * (r * r + x * x) * (p * p + q * q))) / 2
    flow = radial_power_flow(one_line(r, x), np.array([0, p + 1j * q]), 1.0)
    assert flow.converged
    assert abs(flow.v_pu[1]) == pytest.approx(np.sqrt(u), abs=1e-12)
    assert flow.s_child_pu[0] == pytest.approx(-(p + 1j * q), abs=1e-12)
    loss = (r + 1j * x) * (p * p + q * q) / u
    assert flow.s_parent_pu[0] + flow.s_child_pu[0] == pytest.approx(loss, abs=1e-12)


def test_more_than_the_line_can_carry_is_told():
    # At unity power factor over r = 0.1 p.u. at most v0^2 / (4 r) = 2.5 p.u. arrive.
    assert radial_power_flow(one_line(0.1, 0.0), np.array([0, 2.4]), 1.0).converged
    assert not radial_power_flow(one_line(0.1, 0.0), np.array([0, 2.6]), 1.0).converged


def test_line_charging_feeds_reactive_power():
    # Without load, b = 0.1 p.u. at the far end of x = 0.2 raises its voltage to 1 / (1 - x b) = 1 / 0.98.
    tree = radial_tree(2, ints(0), ints(1), np.array([0.2j]), floats(0.0, 0.1), 0)
    flow = radial_power_flow(tree, np.zeros(2, complex), 1.0)
    assert abs(flow.v_pu[1]) == pytest.approx(1 / 0.98, abs=1e-12)
