"""Equal where machine and versions are the same; elsewhere within a stated tolerance, which covers no other choice."""

import json

import h5py
import kernels
import numpy as np
import pytest
from rewritten import rewritten
from worlds import boxes, run

from cosim.run import main
from cosim.trace import Trace
from cosim.trace.command import main as inspect
from cosim.trace.compare import compare
from cosim.trace.machine import OTHER_MACHINE, OTHER_VERSIONS, Tolerance, tolerance, versions

HERE = versions()


def attrs(**other):
    return {"versions": json.dumps({**HERE, **other})}


@pytest.mark.parametrize(("made", "share", "why"), [
    (attrs(cpu="x86_64 Other X86_V3"), OTHER_MACHINE, "cpu x86_64 Other X86_V3 and x86_64"),
    (attrs(blas="openblas"), OTHER_MACHINE, "blas openblas and "),
    (attrs(numpy="1.0"), OTHER_VERSIONS, f"numpy 1.0 and {HERE['numpy']}"),
    (attrs(blas="openblas", gurobipy="1"), OTHER_VERSIONS, "gurobipy 1 and "),
    (attrs(elsewhere="3"), OTHER_VERSIONS, "elsewhere 3 and unknown"),
    ({}, OTHER_VERSIONS, "does not say"),
    ({"versions": "{"}, OTHER_VERSIONS, "does not say"),
    ({"versions": "[1]"}, OTHER_VERSIONS, "does not say"),
])
def test_what_may_be_otherwise_follows_from_what_is(made, share, why):
    found = tolerance(made, attrs())
    assert found.share == share
    assert why in found.why


def test_the_same_machine_and_versions_have_no_tolerance():
    assert tolerance(attrs(), attrs()) is None


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """20 min of small simulators, of which one counts."""
    return run(boxes(), tmp_path_factory.mktemp("m") / "m.h5", until_s=7200.0).path


@pytest.fixture
def altered(loop, tmp_path):
    """Copies of it that another machine might have made, changed by a function of the open file."""
    def copy(change=lambda file: None, **made):
        path = tmp_path / "altered.h5"
        with rewritten(path, loop) as file:
            file.attrs.update(attrs(**made))
            change(file)
        return path
    return copy


def add(name, at, by):
    def change(file):
        file[name][at] += by
    return change


def again(path, capsys):
    """(exit code, what was said) of running a trace again."""
    out = path.with_name("again.h5")
    code = main([str(path), "--trust", str(path), "--out", str(out), "--driver", "native", "--quiet", "--force"])
    return code, capsys.readouterr().out


def test_elsewhere_a_small_deviation_agrees_and_is_said(altered, capsys):
    path = altered(add("store/Store/e_kwh", (3, 1), 2e-10), cpu="x86_64 Other")
    code, said = again(path, capsys)
    assert code == 0
    assert f"within the tolerance of {path}" in said
    assert "not made alike (cpu x86_64 Other and x86_64" in said
    assert "numbers may differ by 1e-09 of their value or of their unit" in said
    assert "largest deviation: store/Store/e_kwh at 00:45, s2: 2e-10 kWh, " in said


def test_elsewhere_a_large_one_is_a_difference(altered, capsys):
    path = altered(add("store/Store/e_kwh", (3, 1), 1e-3), numpy="1.0")
    code, said = again(path, capsys)
    assert code == 1
    assert f"differs from {path}: store/Store/e_kwh at 00:45, s2:" in said
    assert "numbers may differ by 1e-06" in said
    assert "largest deviation: store/Store/e_kwh at 00:45, s2: 0.001 kWh" in said


def test_other_versions_alone_change_nothing(altered, capsys):
    code, said = again(altered(numpy="1.0"), capsys)
    assert code == 0
    assert said.startswith("identical to"), said
    assert "tolerance" not in said


def test_here_any_deviation_is_a_difference(altered, capsys):
    code, said = again(altered(add("store/Store/e_kwh", (3, 1), 2e-10)), capsys)
    assert code == 1
    assert "differs from" in said
    assert "tolerance" not in said


def not_a_number(file):
    file["store/Store/e_kwh"][3, 1] = float("nan")


def no_end(file):
    file["store/Store/e_kwh"][3, 1] = float("inf")


def renamed(file):
    file["ticks/who"][0] = b"z"


@pytest.mark.parametrize(("change", "said"), [
    (not_a_number, "store/Store/e_kwh at 00:45, s2: nan and "), (no_end, "s2: inf and "),
    (renamed, "ticks/who at row 0")])
def test_what_is_no_number_agrees_with_none(altered, loop, change, said):
    found = compare(altered(change), loop, Tolerance(0.9))
    assert said in found.difference
    assert not found.equal


def counted(path, *rows):
    """A trace with a model of counts and states."""
    with h5py.File(path, "w") as file:
        file.attrs.update(format="aidc-cosim trace", schema_version=1, status="completed", error="", versions="{}")
        names = ("queued_jobs", "busy_gpus", "status", "free_gpu_ratio", "p_kw")
        file["aidc/Site/time_s"] = np.arange(len(rows))
        file["aidc/Site/entity"] = ["a"]
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            file[f"aidc/Site/{name}"] = [[float(value)] for value in values]
    return path


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("other", "first"), [
    ((1001, 64, 1, 0.25, 8.0), "queued_jobs"), ((1000, 65, 1, 0.25, 8.0), "busy_gpus"),
    ((1000, 64, 2, 0.25, 8.0), "status"), ((1000, 64, 1, 0.75, 8.0), None), ((1000, 64, 1, 0.25, 9.0), None)])
def test_a_count_or_a_state_is_never_nearly_equal(tmp_path, other, first):
    """Each of them is nearer to the first than the half that a number may differ by."""
    a = counted(tmp_path / "a.h5", (0, 0, 0, 0.5, 1.0), (1000, 64, 1, 0.25, 8.0))
    found = compare(a, counted(tmp_path / "b.h5", (0, 0, 0, 0.5, 1.0), other), Tolerance(0.7))
    assert (found.difference or "").startswith(f"aidc/Site/{first}" if first else "")
    assert bool(found.difference) == bool(first)
    assert not found.equal


def test_diff_takes_a_tolerance(altered, loop, capsys):
    path = str(altered(add("store/Store/e_kwh", (3, 1), 2e-10), blas="other"))
    assert inspect(["diff", path, str(loop)]) == 1
    said = capsys.readouterr().out
    assert "--rtol 1e-09 compares what should agree then" in said
    assert "blas other and" in said
    assert inspect(["diff", path, str(loop), "--rtol", "1e-9"]) == 0
    assert "largest deviation: store/Store/e_kwh at 00:45, s2: 2e-10 kWh" in capsys.readouterr().out
    assert inspect(["diff", path, str(loop), "--rtol", "1e-13"]) == 1
    assert "store/Store/e_kwh at 00:45, s2" in capsys.readouterr().out
    assert inspect(["diff", str(loop), str(loop), "--rtol", "0"]) == 0
    assert capsys.readouterr().out == "identical\n"
    for wrong in ("-1", "nan", "1", "x"):
        assert inspect(["diff", path, str(loop), f"--rtol={wrong}"]) == 2
        assert "is no tolerance; write a number from 0 to below 1" in capsys.readouterr().err


@pytest.mark.long
def test_a_closed_loop_of_another_kernel_agrees(tmp_path, capsys):
    """The shipped team on the feeder, made by another kernel and run again by the usual one: the grid's bits differ,
    jobs and decisions do not."""
    others = kernels.that_matter()
    if not others:
        pytest.skip("numpy's linear algebra has one kernel here")
    path, out = tmp_path / "kernel.h5", tmp_path / "again.h5"
    kernels.said(["-m", "cosim.run", "ieee33", "--until", "30min", "--driver", "native", "--quiet", "--out", str(path)],
                 others[0])
    assert main([str(path), "--driver", "native", "--quiet", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"within the tolerance of {path}" in said
    assert f"blas {kernels.blas(others[0])} and {HERE['blas']}" in said
    assert "largest deviation: grid/" in said
    with Trace(path) as a, Trace(out) as b:
        one, other = a.datasets(), b.datasets()
        assert all(one[n][()].tobytes() == other[n][()].tobytes() for n in one
                   if n.startswith(("jobs/", "aidc/", "controller/Agent/")) and not one[n].dtype.hasobject)
    with rewritten(path) as file:
        file["grid/Bus/nci_kg_per_kwh"][1, 5] *= 1.0 + 1e-8
    assert main([str(path), "--driver", "native", "--quiet", "--out", str(out), "--force"]) == 1
    assert f"differs from {path}: grid/Bus/nci_kg_per_kwh at 00:15, bus5: " in capsys.readouterr().out
