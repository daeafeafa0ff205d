"""A table in a member's place plays what it says: by hand, as another run's export, and never by guessing."""

import csv
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import boxes, run

from cosim import limits
from cosim.errors import ScenarioError
from cosim.replay.exchange import replay
from cosim.run import find, main
from cosim.scenario import Link, Member, Scenario, override
from cosim.tables.files import parquet_rows, read_columns
from cosim.tables.table import DataTable, TableOptions, split_name
from cosim.trace import Trace
from cosim.trace.command import main as trace_main
from cosim.trace.compare import first_difference

START = "2026-01-01T00:00:00"


def written(folder, text, name="t.csv"):
    path = folder / name
    path.write_text(text)
    return str(path)


def played(folder, text, member="src", **settings):
    return override(replay(boxes(), member, written(folder, text)), settings)


def test_a_row_holds_until_the_next_on_both_drivers(tmp_path):
    """Rows at 0, 90 and 120 min, in MW: the source's port is in kW, and has two entities that share the column."""
    scenario = played(tmp_path, "time_min,p_mw\n0,0.001\n90,0.0025\n120,-0.004\n", **{"src.overflow": "hold"})
    paths = [run(scenario, tmp_path / f"{d}.h5", d).path for d in ("native", "mosaik")]
    assert first_difference(*paths) is None
    with Trace(paths[0]) as trace:
        want = np.repeat([1.0, 2.5, -4.0], [90, 30, 60])
        assert trace["src/Source/p_kw"] == pytest.approx(np.stack([want, want], axis=1), rel=1e-15)
        assert trace.about("src/Source/p_kw")[1] == "kW"
        assert trace["store/Store/p_seen_kw"][8:, 0] - 0.1 * trace["store/Store/p_seen_kw"][7:-1, 1] == pytest.approx(
            [-4.0] * 4, rel=1e-12), "120 min is the store's eighth step"


def test_an_export_plays_as_the_run_it_came_from(tmp_path):
    recorded = run(boxes(), tmp_path / "r.h5").path
    assert trace_main(["export", str(recorded), "--out", str(tmp_path / "csv")]) == 0
    again = run(replay(boxes(), "src", str(tmp_path / "csv" / "src.Source.csv")), tmp_path / "a.h5").path
    with Trace(recorded) as a, Trace(again) as b:
        for port in ("src/Source/p_kw", "store/Store/e_kwh", "late/Store/p_seen_kw"):
            assert a[port].tobytes() == b[port].tobytes()


@pytest.mark.long
def test_vectors_and_what_was_not_computed_play_too(tmp_path):
    """The study's tariff with its forecast, and a grid whose marginal intensities are NaN, from its export."""
    study = find("ieee33")
    recorded = run(study, tmp_path / "r.h5", until_s=1800.0).path
    assert trace_main(["export", str(recorded), "--out", str(tmp_path / "csv")]) == 0
    tables = {"tariff": "tariff.Tariff.csv", "grid": "grid.Bus.csv", "profile": "profile.Load.csv"}
    for member, table in tables.items():
        study = replay(study, member, str(tmp_path / "csv" / table))
    assert "network" in study.shared, "cosim.run leaves out tables that nobody uses any more"
    again = run(study.replace(shared={k: v for k, v in study.shared.items() if k != "network"}), tmp_path / "a.h5",
                until_s=1800.0).path
    with Trace(recorded) as a, Trace(again) as b:
        models = set(b.models()) & set(a.models())
        assert {"tariff/Tariff", "grid/Bus", "aidc/Site", "controller/Agent"} & models
        for model in models:
            for port in b.ports(model):
                assert a[f"{model}/{port}"].tobytes() == b[f"{model}/{port}"].tobytes(), f"{model}/{port}"
        assert b.names("tariff/Tariff", "lead") == a.names("tariff/Tariff", "lead")


@pytest.mark.parametrize(("overflow", "tail"), [("hold", [7.0] * 60), ("wrap", [5.0] * 60)])
def test_overflow(tmp_path, overflow, tail):
    """Rows at 0 and 60 min end at 120 min: a last row lasts as long as the one before it."""
    text = "time_s,p_kw\n0,5\n3600,7\n"
    with pytest.raises(ScenarioError, match="ends 02:00 after the run's start, the run lasts 03:00; shorten"):
        run(played(tmp_path, text), None)
    path = run(played(tmp_path, text, **{"src.overflow": overflow}), tmp_path / "t.h5").path
    with Trace(path) as trace:
        assert trace["src/Source/p_kw"][:, 0].tolist() == [5.0] * 60 + [7.0] * 60 + tail


def test_dates_are_read_against_the_start_of_the_run(tmp_path):
    """Two zones, one instant; a table that began the day before is cut in at the start."""
    text = "Time;p_kw\n2026-03-01T00:00:00+01:00;1\n2026-03-01T01:30:00+02:00;2\n2026-03-01T02:00:00Z;3\n"
    table = DataTable(written(tmp_path, text), TableOptions("src.", "2026-03-01T00:00:00"))
    assert table.times_s.tolist() == [-3600.0, -1800.0, 7200.0]
    out = tmp_path / "t.h5"
    (tmp_path / "b.py").write_text("from worlds import boxes\nSCENARIO = boxes()\n")
    assert main([str(tmp_path / "b.py"), "--replay", f"src={tmp_path / 't.csv'}", "--set", "start=2026-03-01", "--out",
                 str(out), "--driver", "native", "--quiet"]) == 0
    with Trace(out) as trace:
        assert trace["src/Source/p_kw"][:, 0].tolist() == [2.0] * 120 + [3.0] * 60
    again = ["--trust", str(out), "--out", str(tmp_path / "again.h5"), "--driver", "native"]
    assert main([str(out), *again]) == 0, "and runs again"


def test_local_times_that_repeat_are_the_same_on_both_drivers(tmp_path):
    """The autumn's 25 hours of Berlin, numbered; a run two days later, from midnight UTC, 01:00 there."""
    walls = [0, 1, 2, 2, *range(3, 24)]
    text = "\n".join(["time,p_kw", *(f"2025-10-26T{h:02d}:00,{k}" for k, h in enumerate(walls))])
    scenario = override(replay(boxes(), "src", written(tmp_path, text)), {
        "src.overflow": "wrap", "src.time_zone": "Europe/Berlin", "start": "2025-10-28"})
    results = [run(scenario, tmp_path / f"{d}.h5", d) for d in ("native", "mosaik")]
    assert first_difference(*(r.path for r in results)) is None
    with Trace(results[0].path) as trace:
        assert trace["src/Source/p_kw"][:, 0].tolist() == [1.0] * 60 + [2.0] * 60 + [4.0] * 60
    for result in results:
        assert any("repeated every 1d 00:00: the time of day is kept" in note for note in result.notes)


def test_what_is_not_heard_is_said(tmp_path):
    study = replay(find("two_bus"), "profile", written(tmp_path, "time_s,p_mw,weekday\n0,0.09,Mo\n30,0.2,Mo\n"))
    result = run(override(study, {"profile.overflow": "hold"}), tmp_path / "t.h5", until_s=1800.0)
    said = "\n".join(result.notes)
    assert "no column for link profile.q_kvar -> grid.q_load_kvar" in said
    assert "nobody plays its columns weekday" in said
    assert "has rows 30 s apart, and is read every 900 s" in said
    with Trace(result.path) as trace:
        assert trace["profile/Load/p_kw"][:, 0].tolist() == [pytest.approx(90.0), pytest.approx(200.0)]


def test_a_column_of_one_bus_loads_that_bus(tmp_path):
    """Not every bus, though it is the only source; whom the table leaves out, and what of it nobody plays, is said."""
    study = find("two_bus")
    entities = study.members["profile"].model_copy(update={"entities": {"Load": ("bus0", "bus1", "houses")}})
    study = study.replace(members={**study.members, "profile": entities})
    path = written(tmp_path, "time_s,bus1.p_kw,bus1.q_kvar,buss1.p_kw\n0,100,0,7\n900,100,0,7\n")
    result = run(replay(study, "profile", path), tmp_path / "t.h5", until_s=900.0)
    with Trace(result.path) as trace:
        wiring = trace.table("wiring")
        assert [t for s, t in zip(wiring["source"], wiring["target"], strict=True) if s == "profile.bus1.p_kw"] == [
            "grid.bus1.p_load_kw"]
        before = dict(zip(trace.table("initial")["source"], trace.table("initial")["value"], strict=True))
        drawn = trace["grid/Grid/p_source_kw"][0, 0].sum() - trace["grid/Grid/loss_kw"][0, 0]
        assert drawn == pytest.approx(100.0 + before["aidc.aidc1.p_window_kw"], abs=1e-6)
    said = "\n".join(result.notes)
    assert "has no column of bus0, houses: whom they served keeps its default" in said
    assert "nobody plays its columns buss1.p_kw" in said


def test_prices_alone_bring_their_forecast(tmp_path):
    """The tariff itself plays a table without one, and knows what comes: 0.3 USD/kWh from 6 h on."""
    path = written(tmp_path, "time_h,price_usd_per_mwh\n0,90\n6,300\n12,90\n")
    study = override(find("ieee33"), {"controller.policy": "tou_shift"})
    result = run(replay(study, "tariff", path), tmp_path / "t.h5", until_s=120.0)
    with Trace(result.path) as trace:
        assert trace["tariff/Tariff/price_usd_per_kwh"][:, 0].tolist() == [pytest.approx(0.09)] * 2
        assert trace["tariff/Tariff/forecast_usd_per_kwh"][0, 0] == pytest.approx([0.09, 0.09, 0.09, 0.3, 0.3, 0.3])
    with pytest.raises(ScenarioError, match="ends 18:00 after the run's start, .*1d 00:00; .*prices_overflow=hold"):
        run(replay(study, "tariff", path), None)


def test_a_grid_of_carbon_intensities_alone(tmp_path):
    """Enough for the controller; that nothing is known of the feeder is said."""
    path = written(tmp_path, "time_s,nci_kg_per_kwh\n0,0.3\n900,0.5\n")
    study = override(find("ieee33"), {"controller.policy": "nci_priority"})
    result = run(replay(study, "grid", path), tmp_path / "t.h5", until_s=1800.0)
    assert any("no column of Grid: what the summary takes from there is left out" in note for note in result.notes)
    with Trace(result.path) as trace:
        assert trace["grid/Bus/nci_kg_per_kwh"][:, 8].tolist() == [0.3, 0.5]
        assert "grid/Grid" not in trace.models()


@pytest.mark.parametrize(("text", "says"), [
    ("p_kw\n1\n", "has no column of times; call it time_s"),
    ("time_s,p_kw\n", "has no rows"),
    ("", "has no column of times"),
    ("time_s,p_kw\n0,1\n0,2\n", "has two rows for 00:00; keep one"),
    ("time_s,p_kw\n0,1\n60\n", "row 2 has 1 cells, its header 2; cells are separated by a comma"),
    ("time_s,p_kw\n0,nan\n", "row 1: p_kw = 'nan' is not a finite number"),
    ("time_s,p_kw\n0,\n", "row 1: p_kw = '' is not a finite number"),
    ("time_s;p_kw\n0;1,5\n", "p_kw = '1,5' is not a finite number; write decimals with a point"),
    ("time,p_kw\n0,1\n", "row 1: time = '0' is no ISO 8601 date such as 2026-01-31T14:00; a column of numbers"),
    ("time,p_kw\n1767225600,1\n", "time = '1767225600' is no ISO 8601 date such as 2026-01-31T14:00; it looks like"),
    ("time_s,B.p_kw\n0,1\n", "unknown entity of src 'B'; did you mean 'b'? allowed: a, b"),
    ("time_s,p_kw,p_kw\n0,1,2\n", "two columns called 'p_kw'"),
    ("time_s,p_kw\n60,1\n", "begins 00:01 after the run does"),
    ("time_s,p_kv\n0,1\n", "no column of it is an output of src; it has p_kv; wanted: p_kw"),
    ("time_s,a.p_kw\n0,1\n", "t.csv, which has no column of b, whom link src.p_kw -> store.p_kw needs; it has a.p_kw"),
    ("time_s,a.p_kw.x,b.p_kw.x\n0,1,1\n", "p_kw needs columns called ENTITY.p_kw"),
])
def test_what_does_not_fit_is_refused(tmp_path, text, says):
    with pytest.raises(ScenarioError) as err:
        run(played(tmp_path, text, **{"src.overflow": "raise" if "begins" in says else "hold"}), None)
    assert says in str(err.value)


def test_lines_without_a_cell_are_no_rows(tmp_path):
    path = written(tmp_path, "time_s,p_kw\n0,1\n\n60,2\n   \n,\n")
    assert DataTable(path, TableOptions("src.", None)).values("p_kw", ["x"])[:, 0].tolist() == [1.0, 2.0]


def test_events_are_no_table(tmp_path):
    with pytest.raises(ScenarioError, match="workload.jobs are events, .*replay who hears them .controller"):
        replay(find("ieee33"), "workload", written(tmp_path, "time_s,arrived_jobs\n0,1\n"))
    with pytest.raises(ScenarioError, match="cannot read table .*none.csv: No such file"):
        replay(boxes(), "src", str(tmp_path / "none.csv"))


def test_a_member_of_ones_own_from_a_table(tmp_path):
    """In a scenario file: every column a port of the one model Table."""
    path = written(tmp_path, "time_s,feed.p_kw,feed.share\n0,4,0.5\n120,6,0.25\n")
    scenario = Scenario(name="own", about="t", until_s="4min", members={
        "feed": Member(simulator="cosim.replay.members:TablePlayer", step_s=60, entities={"Table": ["feed"]},
                       params={"path": path}),
        "store": Member(simulator="boxes:Store", step_s=60, entities={"Store": ["s"]})},
        links=[Link(source="feed.p_kw", target="store.p_kw")])
    with Trace(run(scenario, tmp_path / "t.h5").path) as trace:
        assert trace["store/Store/p_seen_kw"][:, 0].tolist() == [4, 4, 6, 6]
        assert trace["feed/Table/share"][:, 0].tolist() == [0.5, 0.5, 0.25, 0.25]


def test_a_parquet_file_that_unfolds_beyond_memory_is_refused_before(tmp_path, monkeypatch):
    """A million equal cells take a few hundred bytes."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bomb.parquet"
    parquet.write_table(arrow.table({"time_s": np.zeros(1_000_000), "p_kw": np.zeros(1_000_000)}), path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(limits, "free_bytes", lambda: 1 << 26)  # 64 MiB
    with pytest.raises(ScenarioError, match=r"bomb.parquet: 2e\+06 numbers take 0.0745 GiB of memory"):
        read_columns(path)
    assert sum(len(column) for _, (column,) in parquet_rows(path, ["p_kw"], 65536)) == 1_000_000


def test_parquet(tmp_path):
    """With pyarrow the same numbers as from CSV; without it a line that says what to install."""
    path = str(tmp_path / "t.parquet")
    recorded = str(run(boxes(), tmp_path / "r.h5").path)
    export = ["export", recorded, "--out", str(tmp_path), "--parquet"]
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        (tmp_path / "t.parquet").write_bytes(b"PAR1")
        with pytest.raises(ScenarioError, match="Parquet needs pyarrow; install it"):
            replay(boxes(), "src", path)
        assert trace_main(export) == 2
        return
    assert trace_main(export) == 0
    again = run(replay(boxes(), "src", str(tmp_path / "src.Source.parquet")), tmp_path / "a.h5").path
    with Trace(recorded) as a, Trace(again) as b:
        assert a["store/Store/e_kwh"].tobytes() == b["store/Store/e_kwh"].tobytes()
    pyarrow.parquet.write_table(pyarrow.table({"time_s": [0, 60], "p_kw": [1.5, 2.5]}), path)
    scenario = override(replay(boxes(), "src", path), {"src.overflow": "hold"})
    with Trace(run(scenario, tmp_path / "t.h5").path) as trace:
        assert trace["src/Source/p_kw"][:3, 1].tolist() == [1.5, 2.5, 2.5]
    (tmp_path / "t.pq").write_bytes(b"PAR1 and more")
    with pytest.raises(ScenarioError, match="is no Parquet file"):
        replay(boxes(), "src", str(tmp_path / "t.pq"))


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.integers(-10**6, 10**6).map(float), st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12),
       st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_rows_in_any_order_give_the_numbers_that_were_written(tmp_path_factory, rows, random):
    """Written by the csv module in a shuffled order, read back ascending and bit for bit."""
    first = min(rows)
    order = list(rows)
    random.shuffle(order)
    path = tmp_path_factory.mktemp("h") / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["time_s", "a.p_kw", "b.p_kw"], *([t - first, *rows[t]] for t in order)])
    table = DataTable(path, TableOptions("src.", START))
    assert table.times_s.tolist() == sorted(t - first for t in rows)
    assert table.values("p_kw", ["b", "a"]).tolist() == [[rows[t][1], rows[t][0]] for t in sorted(rows)]
    assert math.isclose(table.match("p_mw")[1], 1e-3)


def test_names_of_columns():
    assert split_name("p_kw") == (None, "p_kw", None)
    assert split_name("Bus-3.Vm[p.u.]") == ("Bus-3", "Vm[p.u.]", None)
    assert split_name("grid.p_source_kw.gt6.a") == ("grid", "p_source_kw", "gt6.a")
