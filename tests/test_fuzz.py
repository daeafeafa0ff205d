"""Some two thousand hostile inputs: each is taken, or refused by an error of ours in one short line; none hangs, none
leaves a file behind. The same ones every time; COSIM_FUZZ=10 tries ten times as many.
"""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandapower
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from cosim.agents.fleet.policies import shipped
from cosim.agents.learn.numpy_actor import ActingTeam
from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld
from cosim.drivers.resolve import resolve
from cosim.errors import LONGEST, CosimError
from cosim.experiment import Experiment
from cosim.limits import check_steps
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import Scenario, override
from cosim.simulators.grid.network.radial import read_feeder
from cosim.trace import Trace
from cosim.trace.command import main as inspect_main
from cosim.units import parse_duration

pytestmark = pytest.mark.long

TIMES = int(os.environ.get("COSIM_FUZZ", "1"))
LONGEST_S = 30
"""Of one input; what takes longer hangs."""


def tries(examples: int) -> Callable:
    return settings(max_examples=examples * TIMES, derandomize=True, deadline=None, database=None,
                    phases=[Phase.generate], report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck))


@contextmanager
def only_ours(doing: str) -> Iterator[None]:
    """Nothing but an error of ours, in one short line, comes out; it takes no longer than LONGEST_S."""
    def too_long(*_: Any) -> None:
        raise AssertionError(f"{doing} takes longer than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST_S)
    said = "-"
    try:
        yield
    except CosimError as err:
        said = str(err)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < len(said.encode().decode()) <= LONGEST


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory) -> Iterator[Path]:
    """Where the inputs are written. The working folder is another one, and stays empty."""
    here, work = Path.cwd(), tmp_path_factory.mktemp("work")
    os.chdir(work)
    yield tmp_path_factory.mktemp("inputs")
    os.chdir(here)
    assert list(work.iterdir()) == []


# --- what is hostile ------------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", " ", "x", "0", "-1", "1e300", "nan", "\x00", "\ud800", "../../x", "/dev/null", "a" * 5000,
                         "a.b.c", "{node}", "{0.__class__}", "%s", "[/b]", "=1+1", "\u202e", "sites:bus{node}", "bus1",
                         "cosim.simulators.tariff:TimeOfUse", "no:such", "1e9d", "-5min", "1e-300s", "null"])
NUMBERS = (st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e300, -1e300, 1e-300, 5e-324, 0.1, -0.0])
           | st.floats() | st.integers(-10, 10**7))
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
                      max_leaves=6)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = VALUES | st.sampled_from([30, 33, 200, 900]).map(deep)


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a tree of dicts and lists."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(p for key, value in inner for p in places(value, (*path, key)))] if path else [
        p for key, value in inner for p in places(value, (key,))]


def changed(draw: Callable, tree: Any, values: st.SearchStrategy = HOSTILE, most: int = 2) -> Any:
    """A copy of a tree in which something is replaced, left out, or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        *way, last = draw(st.sampled_from(places(tree)))
        where = tree
        for key in way:
            where = where[key]
        how = draw(st.sampled_from(["replace", "replace", "leave out", "add"]))
        if how == "leave out":
            del where[last]
        elif how == "add" and isinstance(where, dict):
            where[draw(TEXTS)] = draw(values)
        else:
            where[last] = draw(values)
    return tree


def scribbled(draw: Callable, data: bytes) -> bytes:
    """Bytes with some of them changed, left out, repeated, or the end cut off."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at, count = draw(st.integers(0, max(0, len(out) - 1))), draw(st.sampled_from([1, 1, 8, 64, 4096]))
        how = draw(st.sampled_from(["change", "change", "zero", "leave out", "repeat", "cut"]))
        if how == "change":
            out[at:at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "zero":
            out[at:at + count] = bytes(len(out[at:at + count]))
        elif how == "leave out":
            del out[at:at + count]
        elif how == "repeat":
            out[at:at] = out[at:at + count]
        else:
            del out[at:]
    return bytes(out)


# --- scenarios and settings -----------------------------------------------------------------------------------------

NAMES = ("two_bus", "ieee33")
WRITTEN = {name: find(name).to_json() for name in NAMES}


@given(st.data())
@tries(300)
def test_scenario_json(data):
    text = WRITTEN[data.draw(st.sampled_from(NAMES))]
    if data.draw(st.booleans()):
        text = json.dumps(changed(data.draw, json.loads(text)))
    else:
        text = scribbled(data.draw, text.encode()).decode(errors="surrogateescape")
    with only_ours("Scenario.from_json"):
        resolve(Scenario.from_json(text), 3600.0)


def fields(name: str) -> list[str]:
    """Everything that --set reaches in a scenario, and what it does not."""
    whole = json.loads(resolve(find(name), 3600.0).scenario.to_json())
    members = [(member, *path) for member, of in whole["members"].items() for path in places(of["params"])]
    frame = [path for path in places(whole) if path[0] not in ("members", "links", "name", "about")]
    own = [(member, key) for member, of in whole["members"].items() for key in of if key != "params"]
    return [".".join(map(str, path)) for path in (*members, *frame, *own)]


FIELDS = {name: fields(name) for name in NAMES}
SETTINGS = HOSTILE.map(json.dumps) | TEXTS


@given(st.data())
@tries(800)
def test_settings(data):
    name = data.draw(st.sampled_from(NAMES))
    asked = {data.draw(st.sampled_from(FIELDS[name])): data.draw(SETTINGS) for _ in range(data.draw(st.integers(1, 2)))}
    with only_ours(f"--set {asked}"):
        resolve(override(find(name), asked), 3600.0)


@given(st.data())
@tries(40)
def test_settings_of_a_run(data):
    """What resolves is started, and takes two steps: there, too, an error is one of ours."""
    asked = {data.draw(st.sampled_from(FIELDS["two_bus"])): data.draw(NUMBERS.map(json.dumps))}
    with only_ours(f"--set {asked}"):
        Experiment(override(find("two_bus"), asked), "native", 120.0).run()


@given(st.floats().map(repr) | st.integers().map(str) | TEXTS,
       st.sampled_from(["s", "min", "h", "d", "D", "w", "", " s"]))
@tries(250)
def test_durations(number, unit):
    with only_ours(number + unit):
        seconds = parse_duration(number + unit)
        assert 0.0 <= seconds < 4e10
        check_steps(RESOLVED.clock.steps(seconds), 60.0)


RESOLVED = resolve(find("two_bus"), 3600.0)


# --- files ----------------------------------------------------------------------------------------------------------

CLOCKS = st.sampled_from(["time_s", "time_min", "time_h", "time", "date", "timestamp", "TIME", "t", ""])
COLUMNS = st.sampled_from(["price_usd_per_kwh", "price_usd_per_mwh", "tariff.price_usd_per_kwh", "nci_g_per_kwh",
                           "bus1.nci_kg_per_kwh", "factor", "wet_bulb_degc", "x", "", "a.b.c.d", "P[MW]", "\ud800"[:0]])
CELLS = st.sampled_from(["0", "1", "60", "0.1", "-1", "1e300", "-1e300", "nan", "inf", "", "x", "2026-01-01",
                         "2026-01-01T01:00", "2026-03-29T02:30", "2026-01-01T00:00+02:00", "0001-01-01", "9999-12-31",
                         "2026-13-01", "1_0", "\x00", '"', "1,5", "True", "9" * 400, "00:30"])


def used(path: Path, how: str) -> None:
    """A table in the place where a scenario takes it."""
    if how == "replay":
        resolve(replay(find("two_bus"), "tariff", str(path)), 3600.0)
    elif how == "shape":
        resolve(override(find("two_bus"), {"profile.shape": str(path)}), 3600.0)
    elif how == "weather":
        resolve(override(find("two_bus"), {"aidc.ambient": {"table": str(path)}}), 3600.0)
    elif how == "series":
        resolve(override(find("intensity_series"), {"grid.path": str(path)}), 3600.0)
    else:
        scenario = override(find("two_bus"), {"tariff.prices": str(path), "tariff.prices_overflow": "wrap"})
        world = NativeWorld(resolve(scenario, 3600.0), Control(RESOLVED.clock, 60))
        world.start()
        world.close()


USES = st.sampled_from(["replay", "shape", "weather", "series", "prices"])


@given(st.lists(COLUMNS, max_size=3), CLOCKS, st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=4),
       st.sampled_from([",", ";", "\t"]), USES, st.data())
@tries(250)
def test_csv(folder, columns, clock, rows, comma, how, data):
    rows = [[*row, *row, *row, *row][:len(columns) + 1] for row in rows] if data.draw(st.booleans()) else rows
    text = "\n".join(comma.join(row) for row in [[clock, *columns], *rows]).encode()
    path = folder / "table.csv"
    path.write_bytes(scribbled(data.draw, text) if data.draw(st.integers(0, 3)) == 0 else text)
    with only_ours(f"{how} of {path.read_bytes()!r}"):
        used(path, how)


@given(CLOCKS, COLUMNS, USES, st.data())
@tries(60)
def test_parquet(folder, clock, column, how, data):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kinds = {"float64": [0.0, 1.0, None], "int64": [0, 60, 120], "int8": [1, 2, 3], "bool": [True, False, True],
             "string": ["2026-01-01", "x", None], "binary": [b"1", b"2", b"3"], "date32": [1, 20454, 20455],
             "timestamp[us]": [0, 2**60, -2**60], "timestamp[ns]": [1, 2, 2**62], "time64[us]": [1, 2, 3],
             "duration[s]": [0, 60, 120], "null": [None, None, None]}
    pick = st.sampled_from(sorted(kinds))

    def filled(kind: str) -> Any:
        made = arrow.type_for_alias(kind) if kind != "binary" else arrow.binary()
        return arrow.array(kinds[kind], made)

    names = [clock, column] if clock != column else [clock]
    path = folder / "table.parquet"
    parquet.write_table(arrow.Table.from_arrays([filled(data.draw(pick)) for _ in names], names), path)
    if data.draw(st.integers(0, 3)) == 0:
        path.write_bytes(scribbled(data.draw, path.read_bytes()))
    with only_ours(f"{how} of Parquet"):
        used(path, how)


def network() -> str:
    net = pandapower.create_empty_network(sn_mva=1.0)
    for _ in range(3):
        pandapower.create_bus(net, vn_kv=12.66)
    for a, b in ((0, 1), (1, 2)):
        pandapower.create_line_from_parameters(net, a, b, length_km=1.0, r_ohm_per_km=0.1, x_ohm_per_km=0.1,
                                               c_nf_per_km=0.0, max_i_ka=1.0)
    pandapower.create_load(net, 2, p_mw=0.1, q_mvar=0.05)
    pandapower.create_sgen(net, 1, p_mw=0.05)
    pandapower.create_ext_grid(net, 0)
    return pandapower.to_json(net)


@pytest.fixture(scope="module")
def net_json() -> dict:
    return json.loads(network())


@given(st.data())
@tries(35)
def test_networks(folder, net_json, data):
    """Any of its tables, and what is in them; or bytes of the file."""
    path = folder / "net.json"
    if data.draw(st.integers(0, 4)) == 0:
        path.write_bytes(scribbled(data.draw, json.dumps(net_json).encode()))
    else:
        whole = copy.deepcopy(net_json)
        tables = whole["_object"]
        kind = data.draw(st.sampled_from(["bus", "line", "load", "sgen", "ext_grid"]))
        inside = json.loads(tables[kind]["_object"])
        tables[kind]["_object"] = json.dumps(changed(data.draw, inside, LEAVES))
        if data.draw(st.integers(0, 3)) == 0:
            whole["_object"] = changed(data.draw, tables, LEAVES, most=1)
        path.write_text(json.dumps(whole))
    os.utime(path, (data.draw(st.integers(1, 2**31)),) * 2)  # another file for whoever keeps what was read
    with only_ours("a network"):
        read_feeder(str(path))


@pytest.fixture(scope="module")
def team() -> tuple[dict, dict, bytes]:
    path = next(iter(shipped().values()))
    with safe_open(str(path), framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata(), path.read_bytes()  # noqa: SIM118


@given(st.data())
@tries(110)
def test_checkpoints(folder, team, data):
    """Its facts, and its bytes: the header above all."""
    arrays, metadata, whole = team
    path = folder / "team.safetensors"
    if data.draw(st.booleans()):
        facts = changed(data.draw, json.loads(metadata["facts"]))
        save_file(arrays, path, {**metadata, "facts": json.dumps(facts)})
    else:
        head = data.draw(st.sampled_from([len(whole), 4000, 16]))
        path.write_bytes(scribbled(data.draw, whole[:head]) + whole[head:])
    with only_ours("a checkpoint"):
        ActingTeam(path)


@pytest.fixture(scope="module")
def trace_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("trace") / "run.h5"
    Experiment(find("two_bus"), "native", 300.0, out=path).run()
    return path.read_bytes()


@given(st.data())
@tries(110)
def test_traces(folder, trace_bytes, data):
    path = folder / "run.h5"
    path.write_bytes(scribbled(data.draw, trace_bytes))
    os.utime(path, (data.draw(st.integers(1, 2**31)),) * 2)
    sealed = path.read_bytes()[-8:] == trace_bytes[-8:] and len(path.read_bytes()) == len(trace_bytes)
    with only_ours("a trace"):
        if sealed:
            Trace(path).attrs  # noqa: B018 - it is read


def test_a_trace_without_its_seal(folder, trace_bytes, capsys):
    """HDF5 itself may crash or hang on these, and a child process reads them first."""
    path = folder / "cut.h5"
    path.write_bytes(trace_bytes[: len(trace_bytes) // 2])
    assert inspect_main(["ls", str(path)]) == 5
    assert capsys.readouterr().err.count("\n") == 1
