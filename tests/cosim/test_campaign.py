"""Campaigns of cells: what is skipped, goes on, is computed again, fails; kill -9 at any point."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cosim.campaign.cells import Cell, digest_of, states_of
from cosim.campaign.files import make_folders, only_campaign
from cosim.campaign.perform import current_versions, perform
from cosim.campaign.runner import estimated, exit_code, listing, look_up, run_cells, said_of
from cosim.errors import ModelError, ScenarioError

SQUARES = [Cell(f"x{k}", "small_cells:square", {"x": k, "seed": k}) for k in range(3)]
SUM = Cell("sum", "small_cells:sum_of", {"keys": ["x1", "x2"]}, needs=("x1", "x2"))


def files_in(out):
    """What the cells of a campaign wrote."""
    return {str(path.relative_to(out)): path.read_bytes() for path in (out / "cells").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("campaign")
    return out, run_cells([SUM, *SQUARES], out, progress=False)


def test_cells_are_computed_after_those_they_need(finished):
    out, states = finished
    assert list(states) == ["sum", "x0", "x1", "x2"]
    assert states["sum"].result == {"sum": 3.0}
    assert states["x2"].result == {"square": 4, "seed": 2}
    assert {s.state for s in states.values()} == {"done"}
    assert exit_code(states.values()) == 0
    row = json.loads((out / "manifest.json").read_text())["cells"]["x2"]
    assert (row["state"], row["call"], row["arguments"], row["seed"]) == (
        "done", "small_cells:square", {"x": 2, "seed": 2}, 2)
    assert row["wall_s"] >= 0
    assert row["cpu_s"] >= 0
    assert row["versions"]["python"]
    assert (out / "states" / "x2.log").read_text() == "the square of 2\n"


def test_finished_cells_are_skipped_and_changed_ones_computed_again(finished):
    out, before = finished
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if path.name != "manifest.json"}
    cells = [SUM, *SQUARES]
    states = run_cells(cells, out, progress=False)
    assert all(s.reused and s.result == before[s.key].result for s in states.values())
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    changed = [replace(cell, arguments={**cell.arguments, "x": 5}) if cell.key == "x1" else cell for cell in cells]
    seen = look_up(changed, out)
    assert [key for key, s in seen.items() if s.state == "waiting"] == ["sum", "x1"]
    (said,) = said_of(seen)
    assert "computed again: sum, x1, because their arguments" in said
    states = run_cells(changed, out, progress=False)
    assert states["sum"].result == {"sum": 7.0}
    assert [key for key, s in states.items() if s.reused] == ["x0", "x2"]
    assert run_cells(cells, out, progress=False)["sum"].result == {"sum": 3.0}


def test_what_makes_a_finished_cell_untrue_makes_it_again(finished, tmp_path):
    out = tmp_path / "again"
    table = tmp_path / "table.csv"
    table.write_text("1")
    cells = [Cell("a", "small_cells:square", {"x": 3}), Cell("b", "small_cells:square", {"x": 2, "seed": str(table)})]
    run_cells(cells, out, progress=False)
    (out / "cells" / "a" / "result.json").write_text("{}")
    table.write_text("2")
    seen = look_up(cells, out)
    assert "changed" in seen["a"].again
    assert "files that these name" in seen["b"].again
    path = out / "states" / "a.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "versions": {**stored["versions"], "numpy": "0.1"}}))
    assert "numpy 0.1, now" in look_up(cells, out)["a"].again
    path.write_text(json.dumps({**stored, "versions": {**stored["versions"], "source": "other"}, "result_digest":
                                digest_of("{}")}))
    seen = look_up(cells, out)
    assert seen["a"].state == "done"
    assert "kept though another source of this version of aidc-cosim computed it: a" in said_of(seen)[1]
    path.write_text('{"state": "done", "versions": 7}')
    assert look_up(cells, out)["a"].state == "waiting"
    assert run_cells(cells, out, progress=False)["a"].result == {"square": 9, "seed": 0}


def test_a_failed_cell_is_named_and_the_rest_goes_on(tmp_path):
    cells = [Cell("a", "small_cells:wrong", {"how": "refused"}), Cell("b", "small_cells:wrong", {"how": "internal"}),
             Cell("c", "small_cells:wrong", {"how": "nan"}), Cell("d", "small_cells:square", {"x": 2}),
             Cell("e", "small_cells:sum_of", {"keys": ["a"]}, needs=("a",)), Cell("f", "small_cells:missing")]
    states = run_cells(cells, tmp_path, progress=False)
    assert {k: s.state for k, s in states.items()} == {
        "a": "failed", "b": "failed", "c": "failed", "d": "done", "e": "waiting", "f": "failed"}
    assert states["a"].error == "x = 1 is refused; take 2"
    assert "ZeroDivisionError" in states["b"].error
    assert "1 / 0" in (tmp_path / "states" / "b.log").read_text()
    assert "no JSON data" in states["c"].error
    assert states["e"].error == "it needs a, which failed"
    assert "small_cells:missing" in states["f"].error
    assert exit_code(states.values()) == 2
    assert any(line.startswith("not computed, as what they need failed: e") for line in said_of(states))
    assert look_up(cells, tmp_path)["a"].state == "waiting"  # the next run tries again


@pytest.mark.long
def test_a_killed_process_is_replaced(tmp_path):
    cells = [Cell("once", "small_cells:killed_once"), Cell("always", "small_cells:always_killed"),
             Cell("other", "small_cells:square", {"x": 2})]
    states = run_cells(cells, tmp_path, progress=False)
    assert states["once"].result == {"fine": True}
    assert states["other"].state == "done"
    assert states["always"].state == "failed"
    assert "signal 9" in states["always"].error
    assert "tried 2 times" in states["always"].error
    assert exit_code(states.values()) == 3


STEPS = [Cell(f"c{k}", "small_cells:in_steps", {"count": 4, "pause_s": 0.02}) for k in range(3)]
PROGRAM = """
import sys
from pathlib import Path
from cosim.campaign.cells import Cell
from cosim.campaign.runner import run_cells
cells = [Cell(f"c{k}", "small_cells:in_steps", {"count": 4, "pause_s": 0.02}) for k in range(3)]
run_cells(cells, Path(sys.argv[1]), jobs=2, progress=False)
"""


def test_kill_9_and_again_gives_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    run_cells(STEPS, whole, progress=False)
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(torn)]) as driver:
        log = torn / "steps.log"
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            time.sleep(0.01)
            assert driver.poll() is None
        with pytest.raises(ScenarioError, match=f"is being worked on by process {driver.pid} on"):
            run_cells(SQUARES, torn, progress=False)
        driver.send_signal(signal.SIGKILL)
    assert len(files_in(torn)) < len(files_in(whole))
    run_cells(STEPS, torn, progress=False)
    assert files_in(torn) == files_in(whole)
    steps = log.read_text().splitlines()
    assert 12 <= len(steps) <= 14  # what had ended was not computed again: at most two steps were torn
    assert files_in(torn)["cells/c2/result.json"] == b'{\n "total": 6\n}\n'


@pytest.mark.parametrize(("cell", "words"), [
    (Cell("../a", "m:f"), "a key is a file's name"), (Cell("", "m:f"), "a key is a file's name"),
    (Cell("X0", "m:f"), "two cells are called x0 and X0"), (Cell("b", "m.f"), "write package.module:function"),
    (Cell("b", "m:f", {"x": float("nan")}), "no JSON data"), (Cell("b", "m:f", {"x": {1, 2}}), "no JSON data"),
    (Cell("b", "m:f", needs=("x9",)), "unknown cell 'x9'"), (Cell("b", "m:f", needs=("b",)), "in a circle")])
def test_what_no_cell_can_be_is_refused(cell, words):
    with pytest.raises(ScenarioError, match=words):
        states_of([SQUARES[0], cell])


@pytest.mark.parametrize(("options", "words"), [
    ({"jobs": 0}, "jobs = 0"), ({"engine": "dask"}, "unknown engine 'dask'"),
    ({"address": "10.0.0.1:6379"}, "goes with the engine 'ray'"),
    ({"address": "ray://10.0.0.1:10001", "engine": "ray"}, "write HOST:PORT")])
def test_what_no_campaign_can_be_is_refused(options, words, tmp_path):
    with pytest.raises(ScenarioError, match=words):
        run_cells(SQUARES, tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("link", ["cells", "cells/x0", "lock", "manifest.json", "states/x0.log", "states"])
def test_a_folder_with_links_that_lead_out_is_refused(link, tmp_path):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "kept").write_text("kept")
    place = tmp_path / "out" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "else" / ("" if link in ("cells", "cells/x0", "states") else "kept"))
    with pytest.raises(ScenarioError, match="is a link"):
        run_cells(SQUARES[:1], tmp_path / "out", progress=False)
    assert [(p.name, p.read_text()) for p in (tmp_path / "else").iterdir()] == [("kept", "kept")]


def test_a_link_in_a_half_done_cell_is_refused(tmp_path):
    out = tmp_path / "out"
    make_folders(out)
    (out / "cells" / "x0").mkdir()
    (out / "cells" / "x0" / "x.txt").symlink_to(tmp_path / "else")
    order = {"out": str(out), "key": "x0", "call": "small_cells:square", "arguments": {"x": 1}, "identity": "i"}
    (out / "states" / "x0.json").write_text(json.dumps(
        {"identity": "i", "state": "running", "versions": current_versions(), "wall_s": None, "cpu_s": None,
         "error": "", "exit_code": 0, "result_digest": ""}))
    with pytest.raises(ScenarioError, match="x.txt is a link"):
        perform(order)
    assert not (tmp_path / "else").exists()


def test_times_come_from_finished_cells_or_the_cell(finished):
    out, states = finished
    cells = [*SQUARES, Cell("x9", "small_cells:square", {"x": 9}), Cell("y", "small_cells:in_steps", estimate_s=60.0),
             Cell("z", "small_cells:wrong")]
    seen = look_up(cells, out)
    estimate = estimated(cells, seen)
    mean = sum(states[f"x{k}"].wall_s for k in range(3)) / 3
    assert estimate.each_s == {"x9": pytest.approx(mean, abs=0.05), "y": 60.0, "z": None}
    assert estimate.unknown == 1
    table = listing(cells, seen, jobs=2).tables[0]
    assert [row[:2] for row in table.rows[2:]] == [("x2", "done"), ("x9", "waiting"), ("y", "waiting"),
                                                   ("z", "waiting")]
    assert "3 of 6 cells to compute: 1 min 0 s of one process, about 30 s on 2; 1 of them" in table.note


def test_the_folder_is_free_again(finished):
    with only_campaign(finished[0]):
        pass


@pytest.mark.parametrize("place", ["s3://bucket/sweep", "gs://bucket", "memory://x"])
def test_an_object_store_is_refused_by_name(place):
    with pytest.raises(ScenarioError, match=f"an object store \\({place.partition(':')[0]}\\) has neither locks"):
        run_cells(SQUARES, place, progress=False)
    assert not Path(place).parent.exists()


def test_ray_is_refused_in_one_line_where_it_is_not_or_does_not_answer(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("cosim.campaign.ray_engine.find_spec", lambda name: True)
    with pytest.raises(ModelError, match=f"no Ray cluster answers at {address}"):
        run_cells(SQUARES, tmp_path, engine="ray", address=address, progress=False)
    monkeypatch.setattr("cosim.campaign.ray_engine.find_spec", lambda name: None)
    with pytest.raises(ScenarioError, match=r"pip install 'aidc-cosim\[ray\]'"):
        run_cells(SQUARES, tmp_path, engine="ray", progress=False)
