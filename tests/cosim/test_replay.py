"""A recorded member plays its own part so well that nobody notices; what does not fit is refused with the reason."""

import shutil

import h5py
import pytest
from test_plug import foreign, town
from worlds import boxes, run

from cosim.errors import ModelError, ScenarioError, TraceError
from cosim.replay.exchange import replay
from cosim.run import find, main
from cosim.scenario import Link, override, rename
from cosim.trace import Trace


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return run(boxes(), tmp_path_factory.mktemp("r") / "r.h5").path


CARBON_RULE = override(find("ieee33"), {"controller.policy": "nci_priority"})


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """40 min of ieee33 under the carbon rule."""
    return run(CARBON_RULE, tmp_path_factory.mktemp("l") / "l.h5", until_s=2400.0).path


def same(a, b):
    """Every level both traces recorded is equal, byte for byte."""
    with Trace(a) as x, Trace(b) as y:
        models = set(x.models()) & set(y.models())
        assert models
        return all(x[f"{m}/{p}"].tobytes() == y[f"{m}/{p}"].tobytes() for m in models for p in y.ports(m))


@pytest.mark.parametrize("member", ["src", "store"])
@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_played_member_changes_nothing(tmp_path, recorded, member, driver):
    assert same(recorded, run(replay(boxes(), member, recorded), tmp_path / "t.h5", driver).path)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("member", ["grid", "aidc", "workload", "tariff", "profile"])
def test_a_played_member_of_the_study_changes_nothing(tmp_path, loop, member):
    path = run(replay(CARBON_RULE, member, loop), tmp_path / "t.h5", until_s=2400.0).path
    assert same(loop, path)


def chained():
    """A store tells another, two minutes later, what it sees."""
    links = boxes().links
    return boxes().replace(until_s=1800.0, links=[links[0], links[2], Link(
        source="store.p_seen_kw", target="late.p_kw", pairs={"s1": "x"}, shift_s=120)])


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_what_a_shifted_link_started_with_is_played(tmp_path, driver):
    """It is in no sample: the store stands at 0 before the run and sees something else at its first step."""
    live = run(chained(), tmp_path / "live.h5", driver).path
    with Trace(live) as trace:
        before = trace.table("initial")
        assert dict(zip(before["source"], before["value"], strict=True))["store.s1.p_seen_kw"] == 0.0
        assert trace["store/Store/p_seen_kw"][0, 0] != 0.0
        assert trace["late/Store/e_kwh"][0, 0] == 0.0
    assert same(live, run(replay(chained(), "store", live), tmp_path / "t.h5", driver).path)


@pytest.mark.parametrize("driver", ["native", "mosaik"])
def test_a_table_that_begins_before_the_run_says_what_was(tmp_path, driver):
    """A shifted link starts with the row that held just before the run."""
    table = tmp_path / "t.csv"
    table.write_text("time_s,s1.p_seen_kw,s2.p_seen_kw,s1.e_kwh,s2.e_kwh\n-900,7,8,0,0\n0,1,2,0,0\n900,3,4,0,0\n")
    path = run(replay(chained(), "store", str(table)), tmp_path / "t.h5", driver).path
    with Trace(path) as trace:
        before = trace.table("initial")
        assert dict(zip(before["source"], before["value"], strict=True))["store.s1.p_seen_kw"] == 7.0


def test_yesterdays_carbon_against_another_policy(tmp_path, loop):
    """Uniform placement cannot move a recorded NCI, and meets the same jobs."""
    played = replay(replay(find("ieee33"), "grid", loop), "workload", loop)
    scenario = override(played, {"controller.policy": "uniform"})
    path = run(scenario, tmp_path / "t.h5", until_s=2400.0).path
    with Trace(loop) as a, Trace(path) as b:
        assert a["grid/Bus/nci_kg_per_kwh"].tobytes() == b["grid/Bus/nci_kg_per_kwh"].tobytes()
        assert a["workload/Arrivals/arrived_jobs"].tobytes() == b["workload/Arrivals/arrived_jobs"].tobytes()
        assert a["aidc/Site/p_kw"].tobytes() != b["aidc/Site/p_kw"].tobytes()
        assert sorted(a.table("jobs")["id"]) == sorted(b.table("jobs")["id"])


def test_overflow(tmp_path, recorded):
    scenario = replay(boxes(), "src", recorded)
    with pytest.raises(ScenarioError, match="holds src for 03:00, the run lasts 04:00; shorten it by --until, or"):
        run(scenario, None, until_s=4 * 3600.0)
    held = run(override(scenario, {"src.overflow": "hold"}), tmp_path / "h.h5", until_s=4 * 3600.0).path
    wrapped = run(override(scenario, {"src.overflow": "wrap"}), tmp_path / "w.h5", until_s=4 * 3600.0).path
    with Trace(recorded) as r, Trace(held) as h, Trace(wrapped) as w:
        assert (h["src/Source/p_kw"][180:] == r["src/Source/p_kw"][-1]).all()
        assert w["src/Source/p_kw"][180:].tobytes() == r["src/Source/p_kw"][:60].tobytes()


def test_what_does_not_fit_is_refused(tmp_path, recorded, loop):
    with pytest.raises(ScenarioError, match="unknown member 'sorce'"):
        replay(boxes(), "sorce", recorded)
    with pytest.raises(TraceError, match="unknown recorded member 'src'"):
        replay(boxes(), "src", loop)
    with pytest.raises(TraceError, match="no trace at"):
        replay(boxes(), "src", tmp_path / "none.h5")
    with pytest.raises(ScenarioError, match=r"controller.jobs are events, .*; replay who hears them \(aidc\)"):
        replay(find("ieee33"), "controller", loop)
    other = boxes().replace(shared={"rows": {"a": {"n": 1}, "c": {"n": 2}}})
    with pytest.raises(ScenarioError, match="whose Source entities are not .*; only there: b; only here: c"):
        run(replay(other, "src", recorded), None)
    with pytest.raises((ScenarioError, ModelError), match="unknown job class"):
        run(override(replay(find("two_bus"), "workload", loop), {"workload.overflow": "hold"}), None)


def test_jobs_of_a_killed_run_are_refused(tmp_path, loop):
    """Its table lacks what was inside when it was killed."""
    killed = tmp_path / "killed.h5"
    shutil.copy(loop, killed)
    with h5py.File(killed, "r+") as file:
        file.attrs["status"] = "running"
    with pytest.raises(ScenarioError, match="did not end .status running.: jobs that were inside are not in its table"):
        run(replay(CARBON_RULE, "workload", str(killed)), None, until_s=600.0)


def test_what_only_replaced_members_needed_goes_with_them(tmp_path, loop, capsys):
    """The network is the grid's and the profile's; with both played, nobody uses it, and that is no error."""
    arguments = ["ieee33", "--replay", f"grid={loop}", "--replay", f"profile={loop}", "--until", "40min", "--out",
                 str(tmp_path / "t.h5"), "--driver", "native", "--quiet", "--set", "controller.policy=nci_priority"]
    assert main(arguments) == 0
    assert same(loop, tmp_path / "t.h5")
    assert main(["ieee33", "--replay", "grid"]) == 2
    assert "write member=FILE" in capsys.readouterr().err


def test_a_foreign_members_names_come_with_its_recording(tmp_path):
    """Recorded under the names of its own, played in a scenario that says ours."""
    names = {"grid.p_kw": "P_load[MW]", "grid.p_seen_kw": "P_load[MW]", "grid.bus*": "Bus-*"}
    live = run(rename(foreign(town()), names), tmp_path / "live.h5").path
    again = run(replay(town(), "grid", str(live)), tmp_path / "again.h5").path
    with Trace(live) as a, Trace(again) as b:
        assert a["meter/Store/e_kwh"].tobytes() == b["meter/Store/e_kwh"].tobytes()


def test_a_trace_is_a_scenario(tmp_path, capsys, recorded):
    trusted = [str(recorded), "--trust", str(recorded)]
    assert main([*trusted, "--out", str(tmp_path / "again.h5")]) == 0
    assert f"identical to {recorded}" in capsys.readouterr().out
    assert main([*trusted, "--out", str(tmp_path / "b.h5"), "--set", "src.slope_kw=2"]) == 0
    assert "identical" not in capsys.readouterr().out


def test_a_trace_that_comes_out_otherwise_is_said(tmp_path, capsys, recorded):
    """The recorded file is altered by one value, as another version or machine might."""
    import shutil

    import h5py
    altered = tmp_path / "altered.h5"
    shutil.copy(recorded, altered)
    with h5py.File(altered, "r+") as f:
        f["store/Store/e_kwh"][3, 1] += 1e-9
    assert main([str(altered), "--trust", str(altered), "--out", str(tmp_path / "c.h5")]) == 1
    assert "differs from" in (said := capsys.readouterr().out)
    assert "store/Store/e_kwh at 00:45, s2:" in said
