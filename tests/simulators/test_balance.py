"""Power and carbon of every bus from a trace: one number changed is found, and nothing honest is accused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandapower
import pytest
from rewritten import rewritten

from cosim.errors import TraceError
from cosim.experiment import Experiment
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import Member, Scenario, override
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace
from cosim.trace import writer as recorder

SUBSTATION = {"node": 0, "kg_per_kwh": 0.3}


def run(scenario: Scenario, out: Path, until_s: float = 2700.0) -> Path:
    return Experiment(scenario, "native", out=out, until_s=until_s).run().path


def rows(path: Path) -> dict[str, str]:
    """Law -> what is said of it."""
    with Trace(path) as trace:
        return {row[0]: row[3] for row in verify(trace).tables[0].rows}


def broken(path: Path) -> list[str]:
    with Trace(path) as trace:
        return verify(trace).broken


def unchecked(path: Path) -> str:
    with Trace(path) as trace:
        return verify(trace).tables[0].note


@pytest.fixture(scope="module")
def meshed(tmp_path_factory) -> Path:
    """AC power flow of a transformer, a ring behind it, a second source, and 30 kW of local generation at bus 3."""
    folder = tmp_path_factory.mktemp("meshed")
    net = pandapower.create_empty_network()
    for kv in (20.0, 0.4, 0.4, 0.4):
        pandapower.create_bus(net, vn_kv=kv)
    pandapower.create_ext_grid(net, 0)
    pandapower.create_transformer(net, 0, 1, "0.63 MVA 20/0.4 kV")
    net.trafo["shift_degree"] = 0.0
    for a, b in ((1, 2), (2, 3), (1, 3)):
        pandapower.create_line(net, a, b, 0.05, "NAYY 4x150 SE")
    pandapower.to_json(net, str(folder / "net.json"))
    (folder / "base.csv").write_text("time_s,bus2.p_kw,bus2.q_kvar,bus3.p_kw,bus3.q_kvar\n"
                                     "0,60,10,-30,0\n900,90,10,-30,0\n1800,40,10,-100,0\n2700,40,10,-100,0\n")
    two, buses = find("two_bus"), ["bus0", "bus1", "bus2", "bus3"]
    grid = Member(simulator="cosim.simulators.grid.ac:AcPowerFlow", step_s=900,
                  entities={"Bus": buses, "Grid": ["grid"]},
                  params={"sources": {"up": SUBSTATION, "gt": {"node": 2, "kg_per_kwh": 0.9, "p_set_kw": 20.0}}})
    base = Member(simulator="cosim.simulators.profile:Profile", step_s=900, entities={"Load": ["bus2", "bus3"]})
    scenario = two.replace(
        members={**two.members, "grid": grid, "profile": base}, links=[x for x in two.links if "mci" not in x.source],
        shared={**two.shared, "network": str(folder / "net.json"),
                "sites": {"aidc1": {**two.shared["sites"]["aidc1"], "node": 2}}})
    return run(replay(scenario, "profile", str(folder / "base.csv")), folder / "t.h5")


@pytest.mark.long
@pytest.mark.rows("E02", "E04", "E09-10", "U18")
def test_a_meshed_grid_with_a_transformer_keeps_all_laws(meshed):
    said = rows(meshed)
    assert broken(meshed) == []
    for law in ("power at every bus", "demand at every bus", "carbon at every bus", "emitted", "carbon generated"):
        assert [v for k, v in said.items() if k.startswith(law)] == ["holds"]
    with Trace(meshed) as trace:
        assert trace.table("grid.branches")["name"].tolist()[-1].startswith("trafo")
        assert trace["grid/Grid/p_local_bus_kw"][:, 0, 3].tolist() == [30.0, 30.0, 100.0]


def changed(path: Path, tmp_path: Path, dataset: str, change) -> Path:
    other = tmp_path / "changed.h5"
    with rewritten(other, path) as file:
        values = file[dataset][...]
        file[dataset][...] = change(values)
    return other


def added(value: float, *index: int):
    def change(values):
        values[index] += value
        return values
    return change


def swapped(a: int, b: int):
    def change(values):
        values[:, [a, b]] = values[:, [b, a]]
        return values
    return change


def silenced(branch: int):
    def change(values):
        values[..., branch] = 0.0
        return values
    return change


@pytest.mark.long(after=6)
@pytest.mark.parametrize(("dataset", "change", "law"), [
    ("aidc/Site/p_window_kw", added(1.0, 20, 0), "power told"),
    ("aidc/Site/q_kvar", added(0.1, 20, 0), "reactive power = ratio"),
    ("aidc/Site/q_window_kvar", added(0.1, 20, 0), "reactive power = ratio"),
    ("aidc/Site/pue_cooling", added(0.01, 20, 0), "PUE"),
    ("grid/Bus/vm_pu", added(0.2, 1, 2), "voltages of buses"),
    ("grid/Grid/vm_min_pu", added(0.05, 1, 0), "voltages of buses"),
    *(("grid/Bus/nci_kg_per_kwh", added(1e-3, k, bus), "carbon at every bus") for k in (0, 2) for bus in range(4)),
    ("grid/Bus/nci_kg_per_kwh", swapped(2, 3), "carbon at every bus"),
    *(("grid/Grid/p_from_kw", added(1e-3, 1, 0, branch), "power at every bus") for branch in range(4)),
    *(("grid/Grid/p_to_kw", added(-1e-3, 2, 0, branch), "power at every bus") for branch in range(4)),
    ("grid/Grid/p_from_kw", silenced(3), "power at every bus"),
    ("grid/Grid/p_source_kw", added(1e-3, 0, 0, 1), "emitted"),
    ("grid/Grid/p_source_kw", lambda v: v[..., ::-1], "power at every bus"),
    ("grid/Grid/emission_kg_per_h", added(1e-3, 1, 0), "emitted"),
    ("grid/Grid/p_drawn_bus_kw", added(1e-3, 1, 0, 2), "demand at every bus"),
    ("grid/Grid/p_local_bus_kw", added(1e-3, 1, 0, 3), "power at every bus"),
    ("profile/Load/p_kw", added(1e-3, 0, 0), "demand at every bus"),
    ("profile/Load/p_kw", swapped(0, 1), "demand at every bus"),
    ("aidc/Site/p_window_kw", added(1e-3, 29, 0), "demand at every bus"),
    ("initial/value", lambda v: v + 1e-3, "demand at every bus"),
    ("grid.branches/to_bus", lambda v: np.roll(v, 1), "power at every bus"),
    ("grid.sources/kg_per_kwh", lambda v: v + 1e-3, "emitted"),
])
@pytest.mark.rows("E02", "E09-10")
def test_one_number_changed_is_found(meshed, tmp_path, dataset, change, law):
    assert any(line.startswith(law) for line in broken(changed(meshed, tmp_path, dataset, change)))


def test_a_branch_that_the_flows_do_not_have_is_found(meshed, tmp_path):
    """As of a grid whose carbon flow does not see a switch or an impedance: both of its ends are missing."""
    other = changed(meshed, tmp_path, "grid/Grid/p_from_kw", silenced(0))
    with rewritten(other) as file:
        values = file["grid/Grid/p_to_kw"][...]
        values[..., 0] = 0.0
        file["grid/Grid/p_to_kw"][...] = values
    assert any(line.startswith("power at every bus") for line in broken(other))


@pytest.mark.long(after=1)
@pytest.mark.parametrize("settings", [
    {"shared.sites.aidc1.idle_kw": "0", "workload.rate_scale": "0.0001"},
    {"grid.sources.turbine.p_max_kw": "500"},
    {"profile.mean": "0"},
    {"grid.forecast_sigma_ratio": "0.2"},
    {"grid.sources.turbine.p_min_kw": "500", "grid.sources.turbine.p_max_kw": "500",
     "grid.sources.substation.p_min_kw": "-900"},
])
def test_the_unusual_is_not_accused(tmp_path, settings):
    path = run(override(find("two_bus"), settings), tmp_path / "t.h5")
    assert broken(path) == []
    assert rows(path)["power at every bus, (2), (4) (kW)"] == "holds"


def test_opendss_keeps_all_laws(tmp_path):
    pytest.importorskip("opendssdirect", reason="OpenDSS is not installed (extra opendss)")
    path = run(find("ieee33_opendss"), tmp_path / "t.h5", 1800.0)
    assert broken(path) == []
    assert rows(path)["power at every bus, (2), (4) (kW)"] == "holds"


@pytest.mark.long
def test_a_recorded_grid_is_checked_in_itself_and_not_against_this_runs_demand(tmp_path):
    first = run(find("two_bus"), tmp_path / "first.h5")
    path = run(replay(find("two_bus"), "grid", str(first)), tmp_path / "t.h5")
    said = rows(path)
    assert broken(path) == []
    assert said["carbon at every bus: what arrives, mixed, (9) (kg/kWh)"] == "holds"
    assert said["demand at every bus = what its links brought, (4) (kW)"] == "not checked"
    assert "the grid is a recording" in unchecked(path)


def test_a_trace_of_a_grid_without_flows_says_which_laws_nobody_checked(tmp_path):
    path = run(find("two_bus"), tmp_path / "t.h5")
    with rewritten(path) as file:
        del file["grid/Grid/p_from_kw"]
    said = rows(path)
    for law in ("power at every bus", "carbon at every bus", "carbon generated", "demand at every bus"):
        assert [v for k, v in said.items() if k.startswith(law)] == ["not checked"]
    assert "the grid exports no p_from_kw" in unchecked(path)


def test_a_trace_killed_before_its_first_flush_has_nothing_to_check(tmp_path):
    path = run(find("two_bus"), tmp_path / "t.h5")
    with rewritten(path) as file:
        file.attrs["status"] = "running"
        for group in ("jobs", "gpu_runs"):
            del file[group]
        for member in ("workload", "tariff", "profile", "grid", "controller", "aidc"):
            for model in file[member].values():
                for data in model.values():
                    if data.maxshape[0] is None:
                        data.resize(0, axis=0)
    said = rows(path)
    assert broken(path) == []
    assert set(said.values()) == {"not checked", "nothing is played from a trace", "no CarbonFlow beside a grid",
                                  "no site has a cap", "no demand response", "no battery on the grid",
                                  "no battery behind a data center's meter", "nothing is forecast",
                                  "the grid records flows", "no GPU has a type"}


def test_a_run_stopped_inside_a_minute_is_not_accused(tmp_path):
    """A second Ctrl-C: jobs of a minute that is not recorded are in the table."""
    path = run(find("two_bus"), tmp_path / "t.h5")
    with rewritten(path) as file:
        file.attrs["status"], file.attrs["error"] = "failed", "KeyboardInterrupt"
        for data in file["aidc/Site"].values():
            if data.maxshape[0] is None:
                data.resize(len(data) - 1, axis=0)
    assert broken(path) == []
    assert rows(path)["job rows = counted outcomes, per site and class"] == "holds"
    assert "stopped inside a minute" in unchecked(path)


def test_a_trace_that_a_full_disk_cut_off_is_not_accused(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=0)
    flushes, real = iter(range(100)), shutil.disk_usage
    monkeypatch.setattr(recorder.shutil, "disk_usage", lambda p: real(p) if next(flushes) < 3 else free)
    with pytest.raises(TraceError, match="the disk has"):
        run(find("two_bus").replace(flush_s=600.0), tmp_path / "t.h5")
    path = tmp_path / "t.h5"
    assert broken(path) == []
    assert "rows are missing (the disk was full)" in unchecked(path)
