"""Demand in another unit is refused with the likely one; an overload is not."""

from __future__ import annotations

import pandapower
import pytest

from cosim.errors import ModelError, SolverError
from cosim.simulators.grid.ac import AcPowerFlow
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.network.radial import read_feeder


@pytest.fixture
def network(tmp_path):
    """A transformer of 630 kVA over a line of 0.27 kA at 0.4 kV; the network's own load is 100 kW."""
    net = pandapower.create_empty_network()
    for kv in (20.0, 0.4, 0.4):
        pandapower.create_bus(net, vn_kv=kv)
    pandapower.create_ext_grid(net, 0)
    pandapower.create_transformer(net, 0, 1, "0.63 MVA 20/0.4 kV")
    pandapower.create_line(net, 1, 2, 0.02, "NAYY 4x150 SE")
    pandapower.create_load(net, 2, p_mw=0.1)
    pandapower.to_json(net, str(tmp_path / "net.json"))
    return str(tmp_path / "net.json")


def started(kind, network: str):
    grid = kind()
    grid.init("grid", 60.0, step_s=900.0, network=network, sources={"up": {"node": 0, "kg_per_kwh": 0.3}})
    grid.create(2, "Bus", names=["bus1", "bus2"])
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    return grid


@pytest.mark.long
@pytest.mark.parametrize("kind", [AcPowerFlow, CefDispatch])
def test_watts_given_as_kilowatts_are_named(network, kind):
    grid = started(kind, network)
    grid.step(0, {"bus2": {"p_load_kw": {"x": 100.0}}}, 15)
    with pytest.raises(ModelError, match=r"00:15: 1.001e\+05 kW are drawn, 159 times the 630 kW .* at bus2 "
                                         r"\(1e\+05 kW\); it looks like W given as kW"):
        grid.step(15, {"bus1": {"p_load_kw": {"x": 100.0}}, "bus2": {"p_load_kw": {"x": 100e3}}}, 15)


def test_an_overload_is_not_another_unit(network):
    grid = started(CefDispatch, network)
    grid.step(0, {"bus2": {"p_load_kw": {"x": 3000.0}}}, 15)
    assert grid.get_data({"grid": ["status"]})["grid"]["status"] == 1.0


def test_a_network_without_ratings_says_what_it_is_out_of_proportion_to():
    assert read_feeder("case33bw").rated_kw is None
    grid = AcPowerFlow()
    grid.init("grid", 60.0, step_s=900.0, network="case33bw", sources={"up": {"node": 0, "kg_per_kwh": 0.3}})
    grid.create(1, "Bus", names=["bus8"])
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    with pytest.raises(SolverError, match=r"demand is 1000 times the network's own loads \(3715 kW\), as if W"):
        grid.step(0, {"bus8": {"p_load_kw": {"x": 3715e3}}}, 15)
    with pytest.raises(SolverError, match=r"impedances$"):
        grid.step(15, {"bus8": {"p_load_kw": {"x": 50e3}}}, 15)


