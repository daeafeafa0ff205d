"""OpenDSS as a grid: its power flow against pandapower's, an unbalanced circuit by hand, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import run

from cosim.compare import first_difference
from cosim.errors import ScenarioError
from cosim.run import find
from cosim.trace import Trace
from simulators.grid.network import read_feeder
from simulators.grid.opendss import OpenDss
from simulators.grid.powerflow import AcCheck

pytest.importorskip("opendssdirect", reason="OpenDSS is not installed (extra opendss)")

UNBALANCED = """clear
new circuit.small bus1=head basekv=10 pu=1 phases=3 r1=0 x1=1e-7 r0=0 x0=1e-7
new line.trunk bus1=head bus2=mid phases=3 r1=0.5 x1=0.5 r0=0.5 x0=0.5 c1=0 c0=0 length=1 units=none
new line.spur bus1=mid.2 bus2=end.2 phases=1 r1=1 x1=1 r0=1 x0=1 c1=0 c0=0 length=1 units=none
new load.own bus1=mid phases=3 conn=wye model=1 kv=10 kw=300 kvar=0 vminpu=0.1
set voltagebases=[10]
calcvoltagebases
"""


def started(buses: list[str], **params) -> OpenDss:
    grid = OpenDss()
    grid.init("grid", 60.0, step_s=900.0, seed=1, **params)
    grid.create(len(buses), "Bus", names=buses)
    grid.create(1, "Grid", names=["grid"])
    grid.describe()
    return grid


def tick(grid: OpenDss, loads: dict[str, tuple[float, float]]) -> dict:
    grid.step(0, {b: {"p_load_kw": {"x": p}, "q_load_kvar": {"x": q}} for b, (p, q) in loads.items()}, 15)
    return grid.get_data({eid: [p.name for p in grid.MODELS[model] if p.flow == "out"]
                          for model, eids in grid.entities.items() for eid in eids})


def test_ieee33_equals_pandapower():
    feeder = read_feeder("case33bw")
    sources = {"substation": {"bus": "bus0", "kg_per_kwh": 0.3},
               "gt25": {"bus": "bus25", "kg_per_kwh": 0.65, "p_set_kw": 400.0, "q_set_kvar": 150.0}}
    grid = started(feeder.bus_names, sources=sources)
    out = tick(grid, {b: (feeder.p_kw[k], feeder.q_kvar[k]) for k, b in enumerate(feeder.bus_names)})
    flow = AcCheck("case33bw", [25], 1.0).run(feeder.p_kw, feeder.q_kvar, np.array([400.0]), np.array([150.0]))
    assert [out[b]["vm_pu"] for b in feeder.bus_names] == pytest.approx(flow.vm_pu, abs=1e-6)
    assert out["grid"]["loss_kw"] == pytest.approx(flow.loss_kw, abs=2e-3)
    assert out["grid"]["p_from_kw"] == pytest.approx(flow.p_from_kw, abs=5e-3)
    assert out["grid"]["p_source_kw"] == pytest.approx([flow.p_substation_kw, 400.0], abs=5e-3)
    assert grid.labels()["line"] == feeder.line_names
    # carbon: generated = drawn + lost at the sender's intensity
    nci = np.array([out[b]["nci_kg_per_kwh"] for b in feeder.bus_names])
    p_from, p_to = np.array(out["grid"]["p_from_kw"]), np.array(out["grid"]["p_to_kw"])
    sender = np.where(p_from > 0.0, feeder.parent, feeder.child)
    accounted = nci @ feeder.p_kw + nci[sender] @ (p_from + p_to)
    assert out["grid"]["emission_kg_per_h"] == pytest.approx(accounted, abs=1e-2)


def test_phases_add_up_in_the_users_own_circuit(tmp_path):
    # 300 kW of the file's own at mid, 90 of ours at end on phase 2, where a source feeds 60 at 0.9:
    # mid is at 0.3; end mixes 60 at 0.9 with 30 (and nearly no loss) at 0.3: 0.7.
    path = tmp_path / "small.dss"
    path.write_text(UNBALANCED)
    sources = {"up": {"bus": "head", "kg_per_kwh": 0.3},
               "gt": {"bus": "end", "kg_per_kwh": 0.9, "p_set_kw": 60.0}}
    out = tick(started(["mid", "end"], master=str(path), sources=sources), {"end": (90.0, 0.0), "mid": (0.0, 0.0)})
    assert out["mid"]["nci_kg_per_kwh"] == pytest.approx(0.3, abs=1e-6)
    assert out["end"]["nci_kg_per_kwh"] == pytest.approx(0.7, abs=1e-4)
    # |I|^2 r: 100 kW a phase at 10 kV / sqrt(3) is 17.3 A; phase 2 of the trunk carries 130 kW, the spur 30.
    ampere = [p / (10.0 / 3.0**0.5) for p in (100.0, 130.0, 100.0, 30.0)]
    loss = (0.5 * sum(i * i for i in ampere[:3]) + ampere[3] ** 2) / 1000.0
    assert out["grid"]["loss_kw"] == pytest.approx(loss, rel=0.02)
    assert out["grid"]["p_source_kw"][0] == pytest.approx(330.0 + out["grid"]["loss_kw"], abs=1e-3)
    fed = tick(started(["mid", "end"], master=str(path), sources={"up": sources["up"]}), {"end": (-30.0, 0.0)})
    # what is fed in at end without carbon reaches mid: (270 + loss) x 0.3 / 300
    assert fed["end"]["nci_kg_per_kwh"] == 0.0
    assert fed["mid"]["nci_kg_per_kwh"] == pytest.approx(0.27, abs=1e-3)


def test_the_scenario_runs_alike_under_both_drivers(tmp_path):
    paths = [run(find("ieee33_opendss"), tmp_path / f"{d}.h5", driver=d, until_s=3600.0).path
             for d in ("mosaik", "native")]
    assert first_difference(*paths) is None
    with Trace(paths[0]) as trace:
        assert trace["grid/Grid/p_source_kw"][0, 0, 1:].tolist() == [250.0] * 3
        assert 0.29 < trace["grid/Bus/nci_kg_per_kwh"].min() < trace["grid/Bus/nci_kg_per_kwh"].max() < 0.91


@pytest.mark.parametrize(("params", "message"), [
    ({"master": "gone.dss", "sources": {"s": {"bus": "a", "kg_per_kwh": 0.1}}}, "no file at gone.dss"),
    ({"sources": {"s": {"bus": "bus1", "kg_per_kwh": 0.1}}}, "no source stands at bus0"),
    ({"sources": {"s": {"bus": "bus0", "kg_per_kwh": 0.1}, "t": {"bus": "bus77", "kg_per_kwh": 0.1}}},
     "unknown bus of grid.sources.t 'bus77'"),
])
def test_wrong_requests_are_named(params: dict, message: str):
    with pytest.raises(ScenarioError, match=message):
        started(["bus1"], **params)


def test_a_file_that_opendss_refuses_is_named(tmp_path):
    (tmp_path / "bad.dss").write_text("new circuit.c bus1=a\nnew nonsense.x\n")
    with pytest.raises(ScenarioError, match="OpenDSS refuses the circuit"):
        started(["a"], master=str(tmp_path / "bad.dss"), sources={"s": {"bus": "a", "kg_per_kwh": 0.1}})
