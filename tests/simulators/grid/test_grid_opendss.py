"""OpenDSS as a grid: its power flow against pandapower's, an unbalanced circuit by hand, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from worlds import run

from cosim.errors import ScenarioError
from cosim.run import find
from cosim.simulators.grid.network.check import AcCheck
from cosim.simulators.grid.network.radial import read_feeder
from cosim.simulators.grid.opendss import OpenDss
from cosim.trace import Trace
from cosim.trace.compare import first_difference

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


@pytest.mark.long
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


def test_the_process_stays_in_its_folder(tmp_path):
    """Also at the first circuit after the library was imported elsewhere: traces are written where a user is."""
    code = (f"import os, opendssdirect; os.chdir({str(tmp_path)!r});"
            "from cosim.simulators.grid.opendss_circuit import Circuit;"
            "Circuit('New Circuit.a basekv=20 bus1=x\\nSolve', 'grid'); print(os.getcwd())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path)


def test_a_file_that_opendss_refuses_is_named(tmp_path):
    (tmp_path / "bad.dss").write_text("new circuit.c bus1=a\nnew nonsense.x\n")
    with pytest.raises(ScenarioError, match="OpenDSS refuses the circuit"):
        started(["a"], master=str(tmp_path / "bad.dss"), sources={"s": {"bus": "a", "kg_per_kwh": 0.1}})


DELTA = """clear
new circuit.delta bus1=src basekv=10 pu=1 phases=3 r1=0 x1=1e-6 r0=0 x0=1e-6
new transformer.sub phases=3 windings=2 xhl=4
~ wdg=1 bus=src conn=delta kv=10 kva=1000 %r=0.5
~ wdg=2 bus=a conn=delta kv=4.8 kva=1000 %r=0.5
new line.l1 bus1=a.1.2.3 bus2=b.1.2.3 phases=3 r1=0.3 x1=0.2 r0=0.6 x0=0.5 c1=0 c0=0 length=1 units=none
new line.l2 bus1=b.1.2 bus2=c.1.2 phases=2 r1=0.3 x1=0.2 r0=0.6 x0=0.5 c1=0 c0=0 length=1 units=none
new line.l3 bus1=b.3 bus2=d.3 phases=1 r1=0.3 x1=0.2 r0=0.3 x0=0.2 c1=0 c0=0 length=1 units=none
new load.own bus1=b.1.2 phases=1 conn=delta model=1 kv=4.8 kw=100 kvar=40
set voltagebases=[10 4.8]
calcvoltagebases
"""
SOURCE = {"up": {"bus": "src", "kg_per_kwh": 0.3}}


def written(tmp_path, text: str) -> str:
    (tmp_path / "circuit.dss").write_text(text)
    return str(tmp_path / "circuit.dss")


def by_hand(path: str, load: str) -> tuple[float, bool]:
    """What OpenDSS itself delivers with one more load, and whether it converges."""
    import opendssdirect
    dss = opendssdirect.dss.NewContext()
    dss.Basic.AllowChangeDir(False)
    for line in ("clear", f'redirect "{path}"', f"new load.x {load} model=1 vminpu=0.1 vmaxpu=2", "set tolerance=1e-9",
                 "set maxiterations=200"):
        dss.Text.Command(line)
    dss.Solution.Solve()
    return -dss.Circuit.TotalPower()[0], bool(dss.Solution.Converged())


def imbalance_kw(grid: OpenDss, out: dict) -> float:
    """Largest |sources + local - drawn - what enters branches| of any bus."""
    at = {name: k for k, name in enumerate(grid.labels()["bus"])}
    tables, grid_out = grid.tables(), out["grid"]
    net = np.array(grid_out["p_local_bus_kw"]) - grid_out["p_drawn_bus_kw"]
    for bus, p in zip(tables["sources"]["bus"], grid_out["p_source_kw"], strict=True):
        net[at[bus]] += p
    for end in ("from", "to"):
        for bus, p in zip(tables["branches"][f"{end}_bus"], grid_out[f"p_{end}_kw"], strict=True):
            net[at[bus]] -= p
    return float(np.abs(net).max())


@pytest.mark.parametrize(("bus", "connection"), [
    ("b", "bus1=b.1.2.3 phases=3 conn=delta kv=4.8"), ("c", "bus1=c.1.2 phases=1 conn=delta kv=4.8")])
@pytest.mark.parametrize("p_kw", [1.0, 10.0, 100.0])
def test_a_site_hangs_between_phases_where_there_is_no_ground(tmp_path, bus, connection, p_kw):
    path = written(tmp_path, DELTA)
    grid = started([bus], master=path, sources=SOURCE)
    out = tick(grid, {bus: (p_kw, 0.0)})
    delivered, converged = by_hand(path, f"{connection} kw={p_kw} kvar=0")
    assert converged
    assert out["grid"]["p_source_kw"] == pytest.approx([delivered], abs=1e-5)
    assert out["grid"]["p_source_kw"] == pytest.approx([100.0 + p_kw + out["grid"]["loss_kw"]], abs=1e-4)
    assert out[bus]["nci_kg_per_kwh"] == pytest.approx(0.3, abs=1e-9)
    assert imbalance_kw(grid, out) < 1e-4


def test_one_phase_without_ground_is_refused_by_name(tmp_path):
    with pytest.raises(ScenarioError, match="bus d has phase 3 alone and no way to ground"):
        started(["d"], master=written(tmp_path, DELTA), sources=SOURCE)


def test_no_voltage_base_is_refused_by_name(tmp_path):
    text = DELTA.replace("set voltagebases=[10 4.8]\ncalcvoltagebases\n", "")
    with pytest.raises(ScenarioError, match="bus b has no voltage base"):
        started(["b"], master=written(tmp_path, text), sources=SOURCE)


FOUR_WIRES = """clear
new circuit.four bus1=head basekv=0.4 pu=1 phases=3 r1=0 x1=1e-7 r0=0 x0=1e-7
new linecode.w4 nphases=4 r1=0.5 x1=0.1 r0=0.5 x0=0.1 c1=0 c0=0 units=none
new line.l bus1=head.1.2.3.4 bus2=end.1.2.3.4 linecode=w4 length=1 units=none
new line.single bus1=end.2.4 bus2=house.2.4 phases=2 r1=0.5 x1=0.1 r0=0.5 x0=0.1 c1=0 c0=0 length=1 units=none
new reactor.earth bus1=head.4 bus2=head.0 phases=1 r=0.001 x=0
set voltagebases=[0.4]
calcvoltagebases
"""


def test_a_neutral_of_its_own_carries_the_current_back(tmp_path):
    """5 kW from phase 2 at 231 V through 1 ohm there and 1 ohm back: 2 R I^2, and not R I^2 as to ground."""
    path = written(tmp_path, FOUR_WIRES)
    grid = started(["house"], master=path, sources={"up": {"bus": "head", "kg_per_kwh": 0.3}})
    out = tick(grid, {"house": (5.0, 0.0)})
    delivered, _ = by_hand(path, "bus1=house.2.4 phases=1 conn=wye kv=0.2309401 kw=5 kvar=0")
    assert out["grid"]["p_source_kw"] == pytest.approx([delivered], abs=1e-5)
    to_ground, _ = by_hand(path, "bus1=house.2 phases=1 conn=wye kv=0.2309401 kw=5 kvar=0")
    assert out["grid"]["loss_kw"] > 1.5 * (to_ground - 5.0)
    assert min(out["house"]["vm_pu"], out["grid"]["vm_min_pu"]) > 0.8  # of phases: a neutral's is next to 0
    assert imbalance_kw(grid, out) < 1e-4


def test_what_joins_three_buses_is_a_star_that_carries_carbon(tmp_path):
    text = UNBALANCED.replace("set voltagebases=[10]", """new transformer.t3 phases=3 windings=3 xhl=4 xht=4 xlt=4
~ wdg=1 bus=mid conn=wye kv=10 kva=1000 %r=0.5
~ wdg=2 bus=low conn=wye kv=0.4 kva=500 %r=0.5
~ wdg=3 bus=third conn=wye kv=3 kva=500 %r=0.5
new load.third bus1=third phases=3 kv=3 kw=200 kvar=0
set voltagebases=[10 0.4 3]""")
    grid = started(["low"], master=written(tmp_path, text), sources={"up": {"bus": "head", "kg_per_kwh": 0.3}})
    out = tick(grid, {"low": (100.0, 0.0)})
    assert [n for n in grid.labels()["line"] if n.startswith("Transformer.t3")] == [
        "Transformer.t3.mid", "Transformer.t3.low", "Transformer.t3.third"]
    assert out["low"]["nci_kg_per_kwh"] == pytest.approx(0.3, abs=1e-9)
    assert imbalance_kw(grid, out) < 1e-4
    assert out["grid"]["p_source_kw"] == pytest.approx([600.0 + out["grid"]["loss_kw"]], abs=0.1)


def test_own_generation_beside_own_demand_is_counted_at_nothing(tmp_path):
    """60 of the 300 kW at mid come from a generator there: 240 at 0.3 kg/kWh and 60 at 0."""
    text = UNBALANCED.replace("set voltagebases", "new generator.pv bus1=mid phases=3 kv=10 kw=60 kvar=0 model=1\n"
                              "set voltagebases")
    grid = started(["mid"], master=written(tmp_path, text), sources={"up": {"bus": "head", "kg_per_kwh": 0.3}})
    out = tick(grid, {"mid": (0.0, 0.0)})
    assert out["mid"]["nci_kg_per_kwh"] == pytest.approx(0.3 * 240.0 / 300.0, abs=1e-5)
    at = grid.labels()["bus"].index("mid")
    assert out["grid"]["p_local_bus_kw"][at] == pytest.approx(60.0, abs=1e-4)
    assert [line for line in grid.notes() if "Generator.pv of the circuit" in line and "0 kg/kWh" in line]


def test_a_second_source_is_refused_by_name(tmp_path):
    other = "new vsource.other bus1=mid basekv=10 pu=1 phases=3\nset voltagebases"
    text = UNBALANCED.replace("set voltagebases", other)
    with pytest.raises(ScenarioError, match=r"a second source, Vsource.other"):
        started(["mid"], master=written(tmp_path, text), sources={"up": {"bus": "head", "kg_per_kwh": 0.3}})
