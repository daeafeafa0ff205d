"""Networks with everything that stands in real ones, against pandapower.runpp of the same file and a tracer of its own.

`tests/networksweep.py` runs over all networks that pandapower brings; here is a quick part of them, and one small
network for each kind of element.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import networkrun
import pandapower as pp
import pandapower.networks
import pytest

from cosim.errors import ScenarioError
from cosim.simulators.grid.network.files import stored
from cosim.simulators.grid.network.radial import feeder_of
from cosim.simulators.grid.network.tables import radial_data

NUMBERS = itertools.count()
SMALL = {"vm_pu": 1e-7, "loss_kw": 1e-4, "nci_kg_per_kwh": 1e-6, "fed_kw": 1e-3, "own_check": 1e-4}
"""pandapower's own result is as good as 1e-8 MVA of mismatch on lines of some milliohms."""


def beyond(name: str, way: str, **params: Any) -> dict[str, float]:
    """The differences that are larger than rounding; NaN is."""
    found = networkrun.difference(name, way, **params)
    return {quantity: value for quantity, most in SMALL.items() if not (value := getattr(found, quantity)) <= most}


@pytest.mark.long(after=1)
@pytest.mark.rows("E03", "E09")
@pytest.mark.parametrize("name", ["case118", "create_cigre_network_mv", "example_multivoltage", "mv_oberrhein"])
def test_networks_of_pandapower_by_ac_power_flow(name: str):
    assert beyond(name, "ac") == {}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("name", ["create_cigre_network_mv", "create_cigre_network_lv",
                                  "create_kerber_landnetz_freileitung_2"])
def test_networks_of_pandapower_by_the_dispatch(name: str):
    assert beyond(name, "dispatch") == {}


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("simbench") is None, reason="SimBench is not installed (extra simbench)")
@pytest.mark.parametrize(("code", "ways"), [("1-LV-rural1--0-sw", ("ac", "dispatch")), ("1-MV-rural--0-sw", ("ac",))])
def test_networks_of_simbench(code: str, ways: tuple[str, ...]):
    for way in ways:
        assert beyond(f"simbench:{code}", way) == {}


def test_without_simbench_its_networks_are_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "simbench", None)
    with pytest.raises(ScenarioError, match=r"SimBench is not installed; pip install 'aidc-cosim\[simbench\]'"):
        stored("simbench:1-LV-rural1--0-no")


# --- one element at a time -------------------------------------------------------------------------------------------

def feeder() -> Any:
    """10 kV: external grid at 0, lines 0 - 1 - 2 and 0 - 3; loads at 1, 2, 3, and 100 kW of sgen at 1."""
    net = pp.create_empty_network()
    pp.create_buses(net, 4, vn_kv=10.0)
    for a, b in ((0, 1), (1, 2), (0, 3)):
        line(net, a, b)
    for bus, p in ((1, 0.05), (2, 0.3), (3, 0.2)):
        pp.create_load(net, bus, p_mw=p, q_mvar=0.3 * p)
    pp.create_sgen(net, 1, p_mw=0.1, q_mvar=0.02)
    pp.create_ext_grid(net, 0, vm_pu=1.02)
    return net


def line(net: Any, a: int, b: int, **more: Any) -> int:
    return pp.create_line_from_parameters(net, a, b, 2.0, 0.3, 0.2, 250.0, 1.0, **more)


def further(net: Any, kv: float = 10.0) -> int:
    """A new bus with a load."""
    bus = pp.create_bus(net, kv)
    pp.create_load(net, bus, p_mw=0.04, q_mvar=0.01)
    return bus


def trafo(net: Any, at: int, to: int, **more: Any) -> int:
    given = {"sn_mva": 0.4, "vn_hv_kv": 10.0, "vn_lv_kv": 0.4, "vk_percent": 6.0, "vkr_percent": 1.4, "pfe_kw": 1.35,
             "i0_percent": 0.34, "shift_degree": 150.0}
    return pp.create_transformer_from_parameters(net, at, to, **(given | more))


TAP = {"tap_side": "hv", "tap_neutral": 0, "tap_min": -2, "tap_max": 2, "tap_step_percent": 2.5, "tap_pos": 2,
       "tap_changer_type": "Ratio"}


def three_windings(net: Any) -> None:
    pp.create_transformer3w_from_parameters(
        net, 2, further(net, 1.0), further(net, 0.4), 10.0, 1.0, 0.4, 1.0, 0.6, 0.4, 6.0, 5.0, 4.0, 1.0, 0.9, 0.8, 2.0,
        0.3, shift_mv_degree=30.0, shift_lv_degree=150.0)


def two_transformers_alike(net: Any) -> None:
    low = further(net, 0.4)
    trafo(net, 2, low, **TAP)
    trafo(net, 2, low, **TAP, sn_mva=0.25, vk_percent=4.0)


def half_open_cable(net: Any) -> None:
    pp.create_switch(net, 3, line(net, 2, 3), et="l", closed=False)


def resistive_switch(net: Any) -> None:
    pp.create_switch(net, 2, further(net), et="b", z_ohm=0.5)


def chain_of_switches(net: Any) -> None:
    a, b = further(net), further(net)
    pp.create_switch(net, 2, a, et="b")
    pp.create_switch(net, a, b, et="b")
    line(net, b, further(net))
    pp.create_sgen(net, b, p_mw=0.15)


def wards(net: Any) -> None:
    pp.create_ward(net, 2, 0.02, 0.01, 0.03, -0.02)
    pp.create_shunt(net, 3, q_mvar=-0.1, p_mw=0.01, step=2)
    pp.create_motor(net, 2, 0.05, cos_phi=0.9, efficiency_percent=93.0, loading_percent=80.0)


def storage(net: Any) -> None:
    pp.create_storage(net, 2, p_mw=0.08, max_e_mwh=1.0, q_mvar=0.01)
    pp.create_storage(net, 3, p_mw=-0.06, max_e_mwh=1.0, scaling=0.5)


def phases(net: Any) -> None:
    pp.create_asymmetric_load(net, 2, 0.02, 0.01, 0.0, 0.005, 0.0, 0.001)
    pp.create_asymmetric_sgen(net, 3, 0.01, 0.03, 0.0, 0.0, 0.002, 0.0)


def drawing_sgen(net: Any) -> None:
    pp.create_sgen(net, 2, p_mw=-0.05)
    net.load["scaling"] = 1.3


def fed_from_its_low_side(net: Any) -> None:
    high = further(net, 20.0)
    trafo(net, high, 2, vn_hv_kv=20.0, vn_lv_kv=10.0)


BOTH: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "lines and switches": (lambda n: line(n, 1, 2, parallel=2), lambda n: line(n, 2, 1), chain_of_switches,
                           resistive_switch, half_open_cable, lambda n: line(n, 2, further(n), g_us_per_km=40.0)),
    "transformers": (three_windings, two_transformers_alike, lambda n: trafo(n, 1, further(n, 0.4), **TAP),
                     lambda n: trafo(n, 1, further(n, 0.4), **(TAP | {"tap_side": "lv", "tap_pos": -1})),
                     lambda n: trafo(n, 3, further(n, 0.42), vn_hv_kv=10.5, parallel=2), fed_from_its_low_side),
    "what draws and feeds": (wards, storage, phases, drawing_sgen,
                             lambda n: pp.create_impedance(n, 2, further(n), 0.02, 0.03, 1.0)),
}
"""What both grids take, some elements in one network."""


@pytest.fixture
def named(monkeypatch) -> Callable[[Any], str]:
    """Gives a network in memory a name, as one of pandapower's own: their files take a second to read."""
    def name_it(net: Any) -> str:
        def maker() -> Any:
            return net

        maker.__module__, name = "pandapower.networks.made_here", f"made_{next(NUMBERS)}"
        monkeypatch.setattr(pandapower.networks, name, maker, raising=False)
        return name

    return name_it


@pytest.mark.rows("E03", "E09")
@pytest.mark.parametrize("what", BOTH)
def test_elements_are_what_pandapower_makes_of_them(what: str, named):
    net = feeder()
    for add in BOTH[what]:
        add(net)
    name = named(net)
    assert beyond(name, "ac") == {}
    assert beyond(name, "dispatch") == {}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("base_mva", [1e-4, 100.0])
def test_a_power_base_of_any_size_is_solved(base_mva: float, named):
    net = feeder()
    trafo(net, 1, further(net, 0.4), **TAP)
    net.sn_mva = base_mva
    name = named(net)
    assert beyond(name, "ac") == {}
    assert beyond(name, "dispatch") == {}


def dc_line(net: Any) -> None:
    pp.create_dcline(net, 1, 3, 0.05, 2.0, 0.001, 1.0, 1.01)


MESHED: dict[str, Callable[[Any], Any]] = {
    "ring": lambda n: line(n, 2, 3), "dc line": dc_line,
    "two external grids": lambda n: pp.create_ext_grid(n, 3, vm_pu=1.01),
    "slack generator": lambda n: pp.create_gen(n, 2, p_mw=0.0, vm_pu=1.01, slack=True),
    "extended ward": lambda n: pp.create_xward(n, 2, 0.02, 0.01, 0.01, 0.0, 0.5, 1.0, 1.01),
    "two ways": lambda n: pp.create_impedance(n, 2, further(n), 0.02, 0.03, 1.0, rtf_pu=0.03, xtf_pu=0.02),
    "phase shifter in a ring": lambda n: (trafo(n, 2, b := further(n), vn_lv_kv=10.0, shift_degree=2.0),
                                          line(n, b, 3)),
}


@pytest.mark.long(after=2)
@pytest.mark.parametrize("what", MESHED)
def test_what_no_radial_dispatch_holds_is_refused_there_by_the_way_to_go(what: str):
    net = feeder()
    MESHED[what](net)
    with pytest.raises(ScenarioError, match="cosim.simulators.grid.ac:AcPowerFlow"):
        feeder_of(radial_data(net, "meshed"))


def condenser(net: Any) -> None:
    end = further(net)
    line(net, 3, end)
    pp.create_gen(net, end, p_mw=0.0, vm_pu=1.0)


def second_grid_of_a_busbar(net: Any) -> None:
    bus = further(net)
    pp.create_switch(net, 0, bus, et="b")
    pp.create_ext_grid(net, bus, vm_pu=1.02)


HELD: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "meshed": tuple(MESHED[k] for k in ("ring", "phase shifter in a ring", "two ways")),
    "held voltages": (MESHED["extended ward"], lambda n: pp.create_gen(n, 1, p_mw=0.2, vm_pu=1.01, scaling=0.5),
                      condenser),
    "several external grids": (MESHED["two external grids"], MESHED["slack generator"], second_grid_of_a_busbar),
    "dc line": (dc_line,),
}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("what", HELD)
def test_ac_power_flow_takes_what_the_dispatch_does_not(what: str, named):
    net = feeder()
    for add in HELD[what]:
        add(net)
    assert beyond(named(net), "ac") == {}
