"""Batteries: energy and carbon by hand and by property, plans against a brute force, and runs from end to end."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.errors import ScenarioError, SolverError
from cosim.params import validate
from cosim.simulators.grid.batteries import Batteries, battery_buses, dispatched
from cosim.simulators.grid.battery import Battery, Store, reach_kw, stored_kw
from cosim.simulators.grid.dispatch.branch_limits import branch_limits
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.horizon import Ramps, StoredNow
from cosim.simulators.grid.dispatch.mci import DERIVATIVE, MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import Injection
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.network.feeder import BaseLoad, Line, LineList
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.params import GridParams

GIVEN = {"node": 1, "energy_max_kwh": 200.0, "p_charge_max_kw": 100.0, "p_discharge_max_kw": 80.0,
         "energy_start_kwh": 50.0, "start_kg_per_kwh": 0.2, "charge_efficiency_ratio": 0.9,
         "discharge_efficiency_ratio": 0.8}
BATTERY = Battery(**GIVEN)
NET = LineList(base_kv=11.0, lines=(Line(0, 1, 0.3, 0.3), Line(1, 2, 0.3, 0.3)),
               loads=(BaseLoad(1, 300.0), BaseLoad(2, 300.0)))


# --- energy and carbon ----------------------------------------------------------------------------------------------

def test_carbon_of_a_charge_a_hold_and_a_discharge_by_hand():
    store = Store.begin(BATTERY)
    assert (store.energy_kwh, store.carbon_kg) == (50.0, 10.0)
    store = store.after(BATTERY, -100.0, 0.5, 1.0)  # 90 kWh arrive at 0.5, and 10 kWh are lost at 0.5
    assert store.energy_kwh == pytest.approx(140.0, abs=1e-12)
    assert store.carbon_kg == pytest.approx(10.0 + 45.0, abs=1e-12)
    assert store.kg_per_kwh == pytest.approx(55.0 / 140.0, abs=1e-15)
    held = store.after(BATTERY, 0.0, 0.9, 5.0)
    assert held == store
    after = store.after(BATTERY, 80.0, 0.9, 1.0)  # 100 kWh are taken out, 80 arrive at the bus, all at 55 / 140
    assert after.energy_kwh == pytest.approx(40.0, abs=1e-12)
    assert after.carbon_kg == pytest.approx(40.0 * 55.0 / 140.0, abs=1e-12)
    assert after.kg_per_kwh == pytest.approx(store.kg_per_kwh, abs=1e-15)


def test_the_intensity_is_the_mix_of_what_went_in_in_any_order():
    empty = Store.of(0.0, 0.0, 0.0)
    for first, second in ((0.3, 0.5), (0.5, 0.3)):
        store = empty.after(BATTERY, -100.0, first, 1.0).after(BATTERY, -100.0, second, 1.0)
        assert store.kg_per_kwh == pytest.approx(0.4, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-100.0, 80.0), st.floats(0.0, 1.0)), min_size=1, max_size=40),
       st.floats(0.3, 1.0), st.floats(0.3, 1.0))
def test_carbon_is_conserved_over_any_commands(steps, into, out):
    battery = Battery(**{**GIVEN, "charge_efficiency_ratio": into, "discharge_efficiency_ratio": out})
    store, hours = Store.begin(battery), 0.25
    drawn = fed = lost = 0.0
    for wanted, nci in steps:
        low, high = reach_kw(battery, store.energy_kwh, hours)
        p_kw = min(max(wanted, low), high)
        kwh, change, before = abs(p_kw) * hours, stored_kw(battery, p_kw) * hours, store
        store = store.after(battery, p_kw, nci, hours)
        if p_kw < 0.0:
            drawn, lost = drawn + kwh * nci, lost + (kwh - change) * nci
        else:
            fed, lost = fed + kwh * before.kg_per_kwh, lost + (-change - kwh) * before.kg_per_kwh
        assert battery.energy_min_kwh - 1e-9 <= store.energy_kwh <= battery.energy_max_kwh + 1e-9
        assert -1e-9 <= store.kg_per_kwh <= 1.0 + 1e-9
    assert 10.0 + drawn == pytest.approx(store.carbon_kg + fed + lost, abs=1e-9)


def batteries_on(given, feeder, hours):
    return Batteries(given, battery_buses(given, feeder, "grid"), feeder.n_bus, hours)



# --- in a dispatch --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def feeder():
    return read_feeder(NET)


def dispatch_of(feeder, sources=None, solver="clarabel", **weights):
    limits = Limits(1.0, 0.9, 1.1, **{"lambda_kw_per_kg_h": 1.0, **weights})
    return Dispatch(feeder, sources or {"up": Source(0, 0.4)}, limits, solver)


def injection(p_kw: float, kg_per_kwh: float, bus: int = 2) -> Injection:
    return Injection(np.array([0.0, p_kw, 0.0]) if bus == 1 else np.array([0.0, 0.0, p_kw]), np.array([bus]),
                     np.array([p_kw]), np.array([kg_per_kwh]))


@pytest.mark.parametrize("solver", ["clarabel", "gurobi"])
def test_a_battery_that_discharges_is_a_source_at_its_stored_intensity(feeder, solver):
    try:
        d = dispatch_of(feeder, solver=solver)
    except SolverError as err:
        pytest.skip(str(err))
    d.inject(injection(100.0, 0.1))
    got = d.solve(feeder.p_kw, feeder.q_kvar)
    arrives_kw = -got.p_to_kw[1]  # at bus 2, from bus 1
    assert got.p_source_kw[0] == pytest.approx(500.0 + got.loss_kw, abs=1e-6)
    assert got.nci_kg_per_kwh[2] == pytest.approx((arrives_kw * 0.4 + 100.0 * 0.1) / (arrives_kw + 100.0), abs=1e-9)
    assert got.emission_kg_per_h == pytest.approx(0.4 * got.p_source_kw[0], abs=1e-9)  # it emits nothing itself
    d.inject(injection(-100.0, 0.1))
    got = d.solve(feeder.p_kw, feeder.q_kvar)
    assert got.p_source_kw[0] == pytest.approx(700.0 + got.loss_kw, abs=1e-6)
    assert got.nci_kg_per_kwh == pytest.approx([0.4] * 3, abs=1e-12)


def test_mci_with_a_battery_is_the_difference_of_dispatches_with_it_held(feeder):
    sources = {"up": Source(0, 0.4), "g": Source(2, 0.5, 0.0, 400.0, 0.0, 0.0, usd_per_kwh=0.1, usd_per_kw2h=0.001)}
    how = {"loss_weight": 1.0, "cost_kw_per_usd_h": 1.0}
    d = dispatch_of(feeder, sources, **how)
    m = MciOfDispatch(feeder, sources, d.limits, np.zeros(3), [])
    for one in (d, m):
        one.inject(injection(120.0, 0.1, bus=1))
    mci = m.of(d.solve(feeder.p_kw, feeder.q_kvar))
    for at in (1, 2):
        found = []
        for step in (-1.0, 1.0):
            p_kw = feeder.p_kw.copy()
            p_kw[at] += step
            found.append(d.solve(p_kw, feeder.q_kvar).emission_kg_per_h)
        assert mci.status[at] == DERIVATIVE
        assert mci.up_kg_per_kwh[at] == pytest.approx((found[1] - found[0]) / 2.0, abs=1e-4)


# --- plans ----------------------------------------------------------------------------------------------------------

PRICES = [0.05, 0.30, 0.10, 0.40]


def plan(feeder, prices, battery=BATTERY, energy_kwh=None, sources=None, fixed=math.nan, load=1.0):
    d = dispatch_of(feeder, sources or {"up": Source(0, 0.4)}, lambda_kw_per_kg_h=0.0, cost_kw_per_usd_h=10.0)
    ramps = Ramps(d, 60.0, len(prices), [battery], np.array([1]))
    d.reprice(np.array([prices[0]]))
    later = [replace(d.sources, usd_per_kwh=np.array([price])) for price in prices[1:]]
    now = StoredNow(np.array([battery.energy_start_kwh if energy_kwh is None else energy_kwh]), np.array([fixed]),
                    len(prices) - 1)
    _, _, planned = ramps.boxes(None, 1, [(load * feeder.p_kw, feeder.q_kvar)] * len(prices), later, now)
    return ramps, planned


def cost_of(d, feeder, prices, p_kw) -> float:
    """(11) with energy cost of a sequence of battery powers, interval by interval."""
    total = 0.0
    for price, p in zip(prices, p_kw, strict=True):
        d.reprice(np.array([price]))
        d.inject(injection(p, 0.0, bus=1))
        total += d.solve(feeder.p_kw, feeder.q_kvar).objective_kw
    return total


def test_a_plan_is_as_good_as_the_best_of_a_grid_of_sequences(feeder):
    d = dispatch_of(feeder, lambda_kw_per_kg_h=0.0, cost_kw_per_usd_h=10.0)
    best, best_first = math.inf, 0.0
    for p_kw in itertools.product(np.linspace(-100.0, 80.0, 7), repeat=3):
        energy = np.cumsum([stored_kw(BATTERY, p) for p in p_kw]) + 50.0
        if energy.min() < 0.0 or energy.max() > 200.0:
            continue
        last = min((energy[-1] - 50.0) * 0.8, 80.0) if energy[-1] >= 50.0 else (energy[-1] - 50.0) / 0.9
        if last < -100.0:
            continue
        worth = sum(10.0 * price * -p for price, p in zip(PRICES, [*p_kw, last], strict=True))  # losses aside
        if worth < best:
            best, best_first = worth, p_kw[0]
    ramps, planned = plan(feeder, PRICES)
    assert planned
    assert ramps.proven
    assert best_first == -100.0  # cheap now: charge at full power
    assert ramps.battery_kw[0] == pytest.approx(-100.0, abs=1e-2)
    idle = cost_of(d, feeder, PRICES, [0.0] * 4)
    assert best < 0.0
    assert cost_of(d, feeder, PRICES, [-100.0, 80.0, -11.1, 0.0]) < idle


def test_a_full_battery_burns_nothing_at_a_negative_price(feeder):
    """To draw 100 kW and feed 72 at once would be paid for, and cannot be: it is full, and stands still."""
    ramps, planned = plan(feeder, [-0.2, 0.3], energy_kwh=200.0)
    assert planned
    assert ramps.proven
    assert ramps.battery_kw[0] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("energy_kwh", [200.0, 150.0])
def test_at_two_negative_prices_it_makes_room_for_all_that_it_can_draw(feeder, energy_kwh):
    """It is paid 0.2 for each of 100 kWh drawn in the second interval, which need room for 90."""
    ramps, _ = plan(feeder, [-0.2, -0.2, 0.3], energy_kwh=energy_kwh)
    assert ramps.battery_kw[0] == pytest.approx((energy_kwh - 110.0) * 0.8, abs=0.05)


def test_a_plan_ends_with_what_it_has_to(feeder):
    empty = Battery(**{**GIVEN, "energy_end_kwh": 0.0})
    flat = [0.2, 0.2]
    assert plan(feeder, flat)[0].battery_kw[0] == pytest.approx(0.0, abs=0.5)
    ramps, _ = plan(feeder, flat, empty)
    assert ramps.battery_kw[0] > 1.0  # nothing keeps it from giving all


def test_a_command_is_part_of_the_plan_of_the_others(feeder):
    ramps, planned = plan(feeder, PRICES, fixed=30.0)
    assert planned
    assert ramps.battery_kw[0] == pytest.approx(30.0, abs=0.1)


def test_local_generation_is_stored_where_there_is_no_plan(feeder):
    batteries = batteries_on({"b": BATTERY}, feeder, 1.0)
    p_kw = np.array([0.0, -60.0, 0.0])
    d = dispatch_of(feeder)
    now = batteries.now({"b": {"p_set_kw": math.nan}}, 4, 4)
    assert batteries.decided(now, None, p_kw, d.sources, feeder.base_kw).tolist() == [-60.0]
    now = batteries.now({"b": {"p_set_kw": 80.0}}, 4, 4)  # and nobody could draw what it is told to feed
    assert batteries.decided(now, None, p_kw, d.sources, feeder.base_kw).tolist() == [0.0]


@pytest.mark.parametrize(("wanted_kw", "ran_kw", "findings"), [(-100.0, 0.0, ["relieved"]), (-20.0, -20.0, [])])
def test_no_battery_charges_while_power_goes_unserved(feeder, wanted_kw, ran_kw, findings):
    limits = branch_limits(feeder, {"0-1": 35.0}, {}, "grid", own=True)  # 667 kW
    d = Dispatch(feeder, {"up": Source(0, 0.4)}, Limits(1.0, 0.9, 1.1, 1.0, branches=limits), "clarabel")
    batteries, said = batteries_on({"b": BATTERY}, feeder, 0.25), []
    now = batteries.now({"b": {"p_set_kw": wanted_kw}}, 4, 1)
    got = dispatched(batteries, now, None, (d, None), feeder.p_kw, feeder.q_kvar, lambda *note: said.append(note[0]))
    assert batteries.p_kw.tolist() == [ran_kw]
    assert not got.unserved_kw.any()
    assert said == findings


def test_without_a_solution_a_battery_stands_still(feeder):
    d = dispatch_of(feeder, {"up": Source(0, 0.4), "must": Source(2, 0.5, 5000.0, 5000.0)})
    batteries = batteries_on({"b": BATTERY}, feeder, 0.25)
    now = batteries.now({"b": {"p_set_kw": -40.0}}, 4, 1)
    with pytest.raises(SolverError):
        dispatched(batteries, now, None, (d, None), feeder.p_kw, feeder.q_kvar, lambda *note: None)
    assert batteries.energy_kwh.tolist() == [50.0]
    assert d.injection is None


# --- bad data --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("change", "message"), [
    ({"p_charge_max_kw": 0.0}, "p_charge_max_kw.* 0"), ({"p_discharge_max_kw": 0.0}, "p_discharge_max_kw.* 0"),
    ({"charge_efficiency_ratio": 1.1}, "charge_efficiency_ratio.* 1"),
    ({"discharge_efficiency_ratio": 0.0}, "discharge_efficiency_ratio.* 0"),
    ({"energy_start_kwh": 300.0}, "energy_start_kwh = 300 is not between"),
    ({"energy_end_kwh": 300.0}, "energy_end_kwh = 300 is not between"),
    ({"energy_min_kwh": 200.0}, "must be below energy_max_kwh"), ({"start_kg_per_kwh": -0.1}, "start_kg_per_kwh")])
def test_batteries_that_cannot_be_are_refused(change, message):
    with pytest.raises(ScenarioError, match=message):
        validate(GridParams, {"sources": {"up": {"node": 0, "kg_per_kwh": 0.3}},
                              "batteries": {"b": {**GIVEN, **change}}}, "grid")


def test_a_battery_at_no_bus_is_refused(feeder):
    with pytest.raises(ScenarioError, match="grid.batteries.b.node = 9 is not a bus"):
        batteries_on({"b": Battery(**{**GIVEN, "node": 9})}, feeder, 0.25)
