import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import STORE_CMD, boxes, remote, run

from cosim.drivers.instrument import Stopped
from cosim.errors import CosimError, ModelError, ScenarioError
from cosim.experiment import Experiment
from cosim.scenario import override
from cosim.trace import Trace
from cosim.trace.compare import first_difference


def test_both_drivers_write_the_same_bytes(tmp_path):
    results = [run(boxes(), tmp_path / f"{d}.h5", d) for d in ("native", "mosaik")]
    assert first_difference(*(r.path for r in results)) is None
    with Trace(results[0].path) as trace:
        assert trace.attrs["status"] == "completed"
        assert len(trace.time_s("src/Source")) == 180
        assert len(trace.time_s("grid/Bus")) == 12


def test_same_seed_same_trace_other_seed_other_trace(tmp_path):
    a = run(boxes(), tmp_path / "a.h5").path
    b = run(boxes(), tmp_path / "b.h5").path
    c = run(boxes().replace(seed=1), tmp_path / "c.h5").path
    d = run(boxes().replace(seed=1, seeds={"src": 0}), tmp_path / "d.h5").path
    assert first_difference(a, b) is None
    assert first_difference(a, c) is not None
    assert first_difference(a, d) is None, "a pinned stream keeps its numbers whatever the seed"


def test_values_arrive_when_the_wiring_says(tmp_path):
    """src: p = step (no noise). The store steps every 15 min and sees the newest value of the same minute; the shifted
    mirror is the other store's power one grid step ago; the foreign grid's voltage reaches 'late' 2 min later."""
    path = run(override(boxes(), {"src.noise_kw": 0}), tmp_path / "t.h5").path
    with Trace(path) as trace:
        seen = trace["store/Store/p_seen_kw"]
        want = [0.0]
        for k in range(1, 12):
            want.append(15.0 * k + 0.1 * want[-1])
        assert seen[:, 0] == pytest.approx(want, rel=1e-12)
        assert trace["store/Store/e_kwh"][-1, 0] == pytest.approx(sum(want) * 0.25, rel=1e-12)
        voltage = trace["grid/Bus/Vm[pu]"][:, 0]
        assert voltage == pytest.approx([1.0 - 0.1 * (2 * 15 * k) * 1e-3 for k in range(12)], rel=1e-12)
        late = trace["late/Store/p_seen_kw"][:, 0]
        assert late[:2].tolist() == [1.5, 1.5]
        assert late[2:] == pytest.approx(3.0 * np.repeat(voltage, 15)[:178], rel=1e-12)


def test_a_member_in_another_process_gives_the_same_numbers(tmp_path):
    far = run(remote(), tmp_path / "far.h5", "mosaik").path
    near = run(override(remote(), {"store.simulator": "boxes:Store"}), tmp_path / "near.h5").path
    assert first_difference(far, near) is None


def test_native_refuses_remote_members():
    with pytest.raises(ScenarioError, match="--driver mosaik"):
        run(remote(), None)


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_failing_member_is_named_and_nothing_is_lost(tmp_path, driver):
    path = tmp_path / "t.h5"
    with pytest.raises(ModelError) as err:
        run(boxes(fail_at_s=3600), path, driver)
    assert str(err.value) == "member 'store' (boxes:Store) failed at 01:00: RuntimeError: the store is full"
    with Trace(path) as trace:
        assert trace.attrs["status"] == "failed"
        assert trace.attrs["error"] == str(err.value)
        assert len(trace.time_s("store/Store")) == 4


@pytest.mark.long(after=2)
@pytest.mark.parametrize(("fault", "says"), [
    ({"fail_at_s": 600}, "RuntimeError: the store is full"),
    ({"die_at_s": 600}, "its process ended"),
    ({"hang_at_s": 600}, "no answer within"),
])
def test_a_failing_remote_member_is_named_and_nothing_is_lost(tmp_path, fault, says):
    path = tmp_path / "t.h5"
    for patience_s in (2, 10, 50) if "hang_at_s" in fault else (300,):  # a process may take longer to start than that
        with pytest.raises(CosimError) as err:
            run(override(remote(**fault), {"store.timeout_s": patience_s}), path, "mosaik", overwrite=True)
        if "did not connect" not in str(err.value):
            break
    assert "member 'store'" in str(err.value)
    assert "failed at 00:10" in str(err.value)
    assert says in str(err.value)
    with Trace(path) as trace:
        assert trace.attrs["status"] == "failed"
        assert len(trace.time_s("store/Store")) == 10


@pytest.mark.parametrize("driver", ["native", "mosaik"])
@pytest.mark.parametrize(("fault", "says"), [("no progress", "step\\(\\) returned 30"),
                                             ("forgets", "gave no value for Bus-0")])
def test_foreign_simulators_that_break_the_contract_are_named(tmp_path, driver, fault, says):
    scenario = override(boxes(), {"grid.fault": fault})
    with pytest.raises(ModelError, match=f"member 'grid'.*{says}"):
        run(scenario, tmp_path / "t.h5", driver)


def test_a_command_that_cannot_start_is_named(tmp_path):
    scenario = override(remote(), {"store.simulator": "cmd: no-such-program %(addr)s"})
    with pytest.raises(CosimError, match="member 'store'.*no-such-program"):
        run(scenario, tmp_path / "t.h5", "mosaik")
    scenario = override(remote(), {"store.simulator": 'cmd: %(python)s -c "raise SystemExit(3)" %(addr)s'})
    with pytest.raises(ModelError, match="member 'store'.*ended with exit code 3 before it connected"):
        run(scenario, tmp_path / "t2.h5", "mosaik")


def test_stop_ends_between_two_steps_and_keeps_what_was_computed(tmp_path):
    for driver in ("native", "mosaik"):
        path = tmp_path / f"{driver}.h5"
        experiment = Experiment(boxes(), driver, out=path)
        experiment.on_progress = None
        experiment.control.on_progress = lambda t, e=experiment: setattr(e.control, "stop", t >= 40)
        with pytest.raises(Stopped, match="stopped by the user at 00:41"):
            experiment.run()
        with Trace(path) as trace:
            assert trace.attrs["status"] == "failed"
            assert len(trace.time_s("src/Source")) == 41


def test_native_does_not_import_mosaik():
    code = ("import sys; sys.modules['mosaik'] = None\n"
            "from worlds import boxes, run\nrun(boxes(), None)\nprint('ran')")
    here = Path(__file__).parent
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False,
                         env={"PYTHONPATH": f"{here}:{here.parent}:{here.parents[1]}", "PATH": "/usr/bin:/bin"})
    assert out.stdout == "ran\n", out.stderr


@pytest.mark.long
def test_hash_seed_does_not_matter(tmp_path):
    """mosaik wires attributes from a set: order must not reach the trace."""
    here = Path(__file__).parent
    paths = []
    for seed in ("1", "2"):
        paths.append(tmp_path / f"{seed}.h5")
        code = f"from pathlib import Path\nfrom worlds import *\nrun(boxes(), Path({str(paths[-1])!r}), 'mosaik')"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=600, env={
            "PYTHONPATH": f"{here}:{here.parent}:{here.parents[1]}", "PATH": "/usr/bin:/bin", "PYTHONHASHSEED": seed})
    assert first_difference(*paths) is None


def test_remote_command_is_quoted():
    assert STORE_CMD.startswith('cmd: "')
