"""The command that measures: its parts add up, its floors are floors, its comparison warns. No figure is judged."""

import json
import time

import h5py
import numpy as np
import pytest

from benchmarks import learn, record
from benchmarks.__main__ import main
from benchmarks.day import PARTS, one_day
from benchmarks.floors import Arrays, Problems, events_of, noted_dispatches, simpy_s
from benchmarks.measure import Found, child_s, cpu_clock, exponent, number
from cosim import experiment
from cosim.run import find
from cosim.simulators.grid.dispatch.clarabel_solver import ClarabelSolver
from cosim.trace import Trace


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """An hour of two_bus: (trace, split, dispatches)."""
    path = tmp_path_factory.mktemp("hour") / "hour.h5"
    with noted_dispatches() as noted:
        split = one_day(find("two_bus"), "native", 3600.0, path)
    return path, split, noted


def test_the_parts_of_a_day_are_its_total(hour):
    _, split, _ = hour
    assert sum(split[part] for part in PARTS) == pytest.approx(split["total"], rel=1e-9)
    assert all(split[part] >= 0.0 for part in PARTS)


def test_the_clock_is_put_back():
    wall = experiment.perf_counter
    with cpu_clock():
        assert experiment.perf_counter is time.process_time
    assert experiment.perf_counter is wall is time.perf_counter
    with pytest.raises(KeyError), cpu_clock():
        raise KeyError
    assert experiment.perf_counter is wall


def test_simpy_has_an_event_per_arrival_and_one_per_end(hour):
    path, _, _ = hour
    with Trace(path) as trace:
        jobs, until_s = trace.table("jobs"), trace.attrs["until_s"]
    arrival_s, end_s = events_of(path)
    _, events = simpy_s(arrival_s, end_s)
    assert events == len(jobs["id"]) + int((jobs["end_s"] <= until_s).sum()) > len(jobs["id"]) > 0
    assert simpy_s(np.array([5.0, 61.0]), np.array([500.0, np.nan]))[1] == 3
    assert simpy_s(np.zeros(0), np.zeros(0))[1] == 0


def test_the_bare_solver_meets_the_problems_of_the_run(hour):
    path, _, noted = hour
    problems = Problems(noted)
    with Trace(path) as trace:
        p_source_kw = trace["grid/Grid/p_source_kw"][:, 0]
    assert len(problems.rhs) == len(p_source_kw) == 4
    assert problems.solve_s("clarabel") > 0.0
    bare, problem = ClarabelSolver(problems.problem), problems.problem
    for rhs, p_kw in zip(problems.rhs, p_source_kw, strict=True):
        x = bare.solve(rhs).x
        np.testing.assert_allclose(x[problem.at.p_source] * noted[0][0].feeder.base_kw, p_kw, atol=0.1)


def test_h5py_writes_the_same_arrays(hour, tmp_path):
    path, _, _ = hour
    arrays = Arrays(path)
    arrays.write_s(tmp_path / "floor.h5")
    with h5py.File(path) as theirs, h5py.File(tmp_path / "floor.h5") as ours:
        for name in arrays.data:
            assert np.array_equal(theirs[name][()], ours[name][()], equal_nan=theirs[name].dtype.kind == "f"), name
            assert (theirs[name].chunks, theirs[name].compression) == (ours[name].chunks, ours[name].compression)


def test_exponents_of_power_laws():
    assert exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx((2.0, 1.0))
    assert exponent([1, 10, 100], [7.0, 7.0, 7.0]) == pytest.approx((0.0, 1.0))
    slope, fits = exponent([1, 2, 4, 8], [1.0, 2.5, 3.5, 9.0])
    assert 0.9 < slope < 1.1
    assert fits < 0.99


@pytest.mark.parametrize(("value", "text"), [(1234.4, "1,234"), (12.34, "12.3"), (0.5, "0.500"), (0.00012, "1.2e-04"),
                                             (0, "0")])
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def section(**ratios):
    return {"day": record.record(Found(ratios=ratios), "python -m benchmarks day", 1.0)}


def test_a_ratio_a_quarter_above_the_baseline_is_warned_of_and_nothing_is_left_out():
    table, warnings = record.compare(section(same=4.0, slower=5.04, within=4.99, new=1.0, faster=2.0, tiny=0.04),
                                     section(same=4.0, slower=4.0, within=4.0, gone=1.0, faster=4.0, tiny=0.01))
    says = {row[0].removeprefix("day: "): row[-1] for row in table.rows}
    assert says == {"same": "ok", "slower": "SLOWER", "within": "ok", "new": "not in the baseline", "faster": "ok",
                    "tiny": "ok", "gone": "not measured now"}
    assert len(warnings) == 1
    assert "slower is 5.04, +26 % of the baseline's 4" in warnings[0]


@pytest.mark.long
def test_a_section_is_measured_stored_shown_and_compared(tmp_path, capsys):
    out = tmp_path / "f.json"
    asked = ["day", "--quick", "--scenario", "two_bus", "--until", "30min", "--out", str(out)]
    assert main(asked) == 0
    stored = json.loads(out.read_text())["quick"]["day"]
    assert stored["ratios"]["two_bus 30min rule native: times its floors"] > 0.0
    assert stored["command"] == "python -m benchmarks day --quick --scenario two_bus --until 30min"
    assert "warming up" in capsys.readouterr().err
    record.write(out, "quick", {"other": stored})
    assert json.loads(out.read_text())["quick"].keys() == {"day", "other"}
    assert main(["day", "--quick", "--read", str(out), "--compare", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "two_bus 30min rule: CPU s, least of 1 runs" in printed
    assert "+0 %" in printed
    assert "SLOWER" not in printed
    assert "left out: team (ieee33_mat): " in printed


@pytest.mark.long
def test_processes_that_learn_together_are_measured():
    """Two updates of two processes, the first of which is not counted."""
    pytest.importorskip("torch")
    (update,) = learn.updates_together("two_bus", learn.Row("simpy", "cpu", 8, 2, 16), 1)
    assert update["update"] == 2
    assert update["steps"] == 32


def test_rows_of_a_compiled_network_say_so():
    rows = [learn.Row("compiled", "cpu", 64, 2, 1440, compiled) for compiled in (False, True)]
    assert [row.name for row in rows] == ["compiled, cpu, B = 64, 2 workers, 1440 steps an update",
                                          "compiled, cpu, torch_compile, B = 64, 2 workers, 1440 steps an update"]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("asked", "says"), [
    (["dya"], "unknown section 'dya'; did you mean 'day'?"), (["--quick", "--full"], "exclude each other"),
    (["--repeat", "0"], "must be >= 1"), (["--read", "nowhere.json"], "cannot read nowhere.json"),
    (["--read", __file__], "holds no figures of this command"), (["--compare", "nowhere.json"], "cannot read"),
    (["day", "--quick", "--scenario", "nine_bus"], "nine_bus"), (["--until"], "expected one argument"),
    (["--out", "figures.txt"], "must end in .json"), (["learn", "--quick", "--device", "tpu"], "neither cpu nor cuda")])
def test_wrong_requests_are_one_line(asked, says, capsys):
    assert main(asked) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in err if line.startswith("cosim: ")]) == 1
    assert says in err[-1]


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="ended with 3: ValueError: 7"):
        child_s(["-c", "import sys, traceback\ntry:\n raise ValueError(7)\nexcept ValueError:\n traceback.print_exc()\n"
                       "sys.exit(3)"])


def test_the_committed_baseline_is_one_and_says_how_it_was_made():
    for size, sections in record.read(record.BASELINE).items():
        for name, held in sections.items():
            assert held["ratios"] or name == "peers", name
            assert held["command"].startswith("python -m benchmarks"), size
            assert all(np.isfinite(list(held["ratios"].values())))
