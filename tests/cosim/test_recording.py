"""A recording is played from where its counted time begins, at its own instants, by members of the same names; and what
it says is said to be the recorded run's.
"""

import shutil

import h5py
import numpy as np
import pytest
from worlds import run

from cosim.errors import CosimError, ScenarioError
from cosim.replay.exchange import replay
from cosim.run import find, main
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sections import sections
from cosim.trace import Trace
from cosim.trace import command as inspection
from cosim.trace.series import standing

WARMUP_S, COUNTED_S = 2220.0, 2700.0
"""37 min and 45 min: the counted time begins inside an interval of the grid."""

LOOP = override(find("two_bus"), {"profile.shape": [1.0, 1.6, 0.7, 1.3] * 24, "workload.counts": "poisson",
                                  "shared.job_classes.train.work_to": 3.0e5})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("r") / "r.h5"
    run(override(LOOP, {"warmup_s": WARMUP_S}), path, until_s=COUNTED_S)
    return str(path)


def played(member, recorded, out, until_s=1800.0, driver="native", **settings):
    scenario = override(replay(LOOP, member, recorded), {k.replace("__", "."): v for k, v in settings.items()})
    return run(scenario, out, driver, until_s=until_s)


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("warmup_s", "from_s"), [(0.0, 2220.0), (1320.0, 900.0), (2220.0, 0.0), (2700.0, 0.0)])
@pytest.mark.rows("M07")
def test_counted_time_meets_counted_time(tmp_path, recorded, warmup_s, from_s):
    """Every half minute the grid says what it said then; a longer warm-up begins with the recording's."""
    result = played("grid", recorded, tmp_path / "t.h5", warmup_s=warmup_s)
    with Trace(tmp_path / "t.h5") as here, Trace(recorded) as there:
        at = np.arange(0.0, warmup_s + 1800.0, 30.0)
        for port in ("Bus/nci_kg_per_kwh", "Grid/emission_kg_per_h", "Grid/p_from_kw"):
            path = f"grid/{port}"
            assert np.array_equal(standing(here, path, at), standing(there, path, at + from_s), equal_nan=True)
        assert np.ptp(standing(here, "grid/Bus/nci_kg_per_kwh", at)[:, 1]) > 0.01
    said = [note for note in result.notes if note.startswith("grid plays")]
    assert len(said) == (warmup_s != WARMUP_S)
    if from_s:
        assert "its counted time begins with this run's" in said[0]
    if warmup_s > WARMUP_S:
        assert "whose warm-up is shorter: the first 00:08 of what was counted there are warm-up here" in said[0]


@pytest.mark.long
def test_both_drivers_play_it_alike(tmp_path, recorded):
    for driver in ("native", "mosaik"):
        played("grid", recorded, tmp_path / f"{driver}.h5", driver=driver)
    assert main_trace("diff", tmp_path / "native.h5", tmp_path / "mosaik.h5") == 0
    with Trace(tmp_path / "native.h5") as trace:
        assert trace.time_s("grid/Grid").tolist() == [0, 480, 1380], "its own instants, 37 min earlier"


def main_trace(*arguments):
    return inspection.main([str(a) for a in arguments])


def test_jobs_of_the_counted_time_alone_arrive(tmp_path, recorded):
    """As many and the same, 37 min earlier; what the warm-up left inside is counted and left out."""
    result = played("workload", recorded, tmp_path / "t.h5")
    with Trace(tmp_path / "t.h5") as here, Trace(recorded) as there:
        jobs, then = here.table("jobs"), there.table("jobs")
        came = (then["arrival_s"] >= WARMUP_S) & (then["arrival_s"] < WARMUP_S + 1740.0)
        order, before = np.argsort(jobs["id"]), np.argsort(then["id"][came])
        for name in ("id", "work_to"):
            assert np.array_equal(jobs[name][order], then[name][came][before])
        for name in ("arrival_s", "deadline_s"):
            assert jobs[name][order] == pytest.approx(then[name][came][before] - WARMUP_S, abs=1e-9)
        left = ((then["arrival_s"] < WARMUP_S) & ~(then["end_s"] <= WARMUP_S)).sum()
    assert left > 0
    assert any(f"{left} jobs that arrived in the recording's warm-up and were unfinished" in n for n in result.notes)


def test_jobs_of_other_works_are_said(tmp_path, recorded):
    result = played("workload", recorded, tmp_path / "t.h5", until_s=300.0, shared__job_classes__train__deadline_s="2h")
    assert any("jobs of train have deadline_s of the recording" in note for note in result.notes)


def test_a_recording_too_short_for_the_counted_time_is_refused(recorded):
    with pytest.raises(ScenarioError, match="holds grid for 00:53, the run lasts 01:00"):
        played("grid", recorded, None, until_s=3600.0)
    with pytest.raises(ScenarioError, match="holds jobs for 00:45, the run lasts 01:00"):
        played("workload", recorded, None, until_s=3600.0)


@pytest.mark.long
def test_what_begins_again_begins_after_the_warm_up(tmp_path, recorded):
    played("tariff", recorded, tmp_path / "a.h5", until_s=4000.0, tariff__overflow="wrap", resolution_s=20)
    played("grid", recorded, tmp_path / "t.h5", until_s=6000.0, grid__overflow="wrap")
    said = played("workload", recorded, None, until_s=3600.0, workload__overflow="hold").notes
    assert any(note.endswith("r.h5, which ends at 00:45 of this run; from then on no jobs arrive") for note in said)
    with Trace(tmp_path / "t.h5") as here, Trace(recorded) as there:
        length_s = 5400.0 - WARMUP_S  # to the end of the last interval
        at = np.arange(0.0, 6000.0, 60.0)
        nci = "grid/Bus/nci_kg_per_kwh"
        assert np.array_equal(standing(here, nci, at), standing(there, nci, WARMUP_S + at % length_s))


@pytest.mark.parametrize(("how", "says"), [("hold", "its last sample is held, and what was counted in it"),
                                           ("wrap", "it begins again, after its warm-up"), ("raise", None)])
def test_a_recording_that_is_over_is_said(recorded, how, says):
    until_s = 6000.0 if says else 1800.0
    said = "".join(played("grid", recorded, None, until_s=until_s, grid__overflow=how).notes)
    assert (f"which ends at 00:53 of this run; from then on {says}" in said) == (says is not None)
    assert ("which ends" in said) == (says is not None)


def test_played_data_centers_pay_this_runs_prices_and_intensities(tmp_path, recorded):
    """Their energy is the recorded one; cost and carbon are not, and the warning says so."""
    figures = []
    for name, price in (("a", 0.1), ("b", 0.5)):
        result = played("aidc", recorded, tmp_path / f"{name}.h5", tariff__base_usd_per_kwh=price)
        figures.append(result.digest.figures)
        assert any("their cost and CO2 are that energy at this run's prices" in w for w in result.digest.warnings)
    assert figures[0]["energy_kwh"] == figures[1]["energy_kwh"]
    assert figures[1]["cost_usd"] == pytest.approx(5.0 * figures[0]["cost_usd"])


def test_a_recording_keeps_its_step_and_needs_bus_steps_for_its_instants(recorded):
    with pytest.raises(ScenarioError, match="r.h5 has grid every 00:15, grid.step_s = 60 s; --set grid.step_s=900"):
        played("grid", recorded, None, grid__step_s=60)
    with pytest.raises(CosimError, match="values between two bus steps of 60 s; --set resolution_s=30"):
        played("grid", recorded, None, warmup_s=30.0, until_s=1830.0)
    played("grid", recorded, None, warmup_s=30.0, until_s=1830.0, resolution_s=30.0)


def test_other_dates_are_said(tmp_path, recorded):
    result = played("grid", recorded, tmp_path / "t.h5", until_s=600.0, start="2026-07-01")
    assert any("begins on 2026-01-01, in a run that begins on 2026-07-01: by time since the begin" in note
               for note in result.notes)


def test_other_buses_sites_and_places_are_refused_by_name(recorded):
    with pytest.raises(ScenarioError, match="whose Bus entities are not .*only there: none; only here: bus2, bus3, b"):
        run(replay(find("ieee33"), "grid", recorded), None, until_s=600.0)
    with pytest.raises(ScenarioError, match="whose Site entities are not .*only here: aidc2, aidc3"):
        run(replay(find("ieee33"), "aidc", recorded), None, until_s=600.0)
    with pytest.raises(ScenarioError, match="recorded with other sites: aidc1 at bus1 there, bus0 here"):
        played("grid", recorded, None, shared__sites__aidc1__node=0)


def test_other_tables_are_said(tmp_path, recorded):
    result = played("grid", recorded, tmp_path / "t.h5", until_s=600.0, shared__sites__aidc1__racks=5)
    assert any(note.endswith("recorded with sites.aidc1.racks = 10 (here 5)") for note in result.notes)


def test_a_played_grid_has_no_system_account_of_this_run(tmp_path, recorded):
    """The account is that of the recorded half hour, and summary, page and checks say whose it is."""
    result = played("grid", recorded, tmp_path / "t.h5", shared__sites__aidc1__idle_kw=60.0)
    figures = result.digest.figures
    assert "co2_system_kg" not in figures
    assert "loss_kwh" not in figures
    assert any("grid is played from" in w and "did not have this run's load" in w for w in result.digest.warnings)
    with Trace(recorded) as there:
        at = WARMUP_S + np.arange(0.0, 1800.0, 30.0)
        dispatched = standing(there, "grid/Grid/emission_kg_per_h", at)[:, 0].sum() * 30.0 / 3600.0
        settled = standing(there, "grid/Grid/emission_realised_kg_per_h", at + 900.0)[:, 0]
        last = at >= 3600.0  # its settlement would come after this run's end
        settled[last] = standing(there, "grid/Grid/emission_kg_per_h", at[last])[:, 0]
    assert figures["recorded_co2_dispatched_kg"] == pytest.approx(dispatched, rel=1e-9)
    assert figures["recorded_co2_system_kg"] == pytest.approx(settled.sum() * 30.0 / 3600.0, rel=1e-9)
    with Trace(tmp_path / "t.h5") as trace:
        energy_kwh = trace["aidc/Site/p_kw"][:, 0] / 60.0
        nci = standing(trace, "grid/Bus/nci_kg_per_kwh", trace.time_s("aidc/Site"))[:, 1]
        assert figures["co2_attributed_kg"] == pytest.approx(float(energy_kwh @ nci), rel=1e-9)
        page = FleetRun(trace, "", {"aidc1": "site0"})
        pictures = [p for section in sections([page]) for row in section.pictures for p in row]
        facts = {fact.name: fact.value for picture in pictures for fact in picture.facts}
        assert facts["carbon emitted by all sources in the recorded run"] == figures["recorded_co2_system_kg"]
        assert "carbon emitted by all sources" not in facts
        notes = {picture.key: picture.note for picture in pictures}
        for key in ("carbon", "voltages", "lines", "trust", "events"):
            assert "did not answer to this run" in notes[key], key
        laws = {row[0]: row[-1] for row in verify(trace).tables[0].rows}
    assert laws["what was played = what was recorded"] == "holds"
    assert laws["demand at every bus = what its links brought, (4) (kW)"] == "not checked"
    assert not [law for law, said in laws.items() if said == "BROKEN"]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("member", ["grid", "aidc"])
def test_a_played_member_that_is_not_its_recording_is_found(tmp_path, recorded, member):
    played(member, recorded, tmp_path / "t.h5")
    with Trace(tmp_path / "t.h5") as trace:
        assert not verify(trace).broken
        assert any(f"{member} is played from" in warning for warning in summary(trace).warnings)
    altered = tmp_path / "a.h5"
    shutil.copy(tmp_path / "t.h5", altered)
    with h5py.File(altered, "r+") as file:
        data = file["grid/Bus/nci_kg_per_kwh" if member == "grid" else "aidc/Site/p_window_kw"]
        data[1] = data[1] * (1.0 + 1e-12)
    with Trace(altered) as trace:
        assert any(law.startswith("what was played = what was recorded") for law in verify(trace).broken)


def test_a_marginal_intensity_is_linked_to_no_average_one():
    links = [link.model_copy(update={"source": "grid.mci_kg_per_kwh"}) if link.target == "controller.nci_kg_per_kwh"
             else link for link in LOOP.links]
    with pytest.raises(ScenarioError, match="mci_kg_per_kwh is a marginal intensity, nci_kg_per_kwh an average one"):
        run(LOOP.replace(links=links), None, until_s=60.0)


def test_from_the_command_line(tmp_path, recorded, capsys):
    """The note and whose account it is are printed."""
    assert main(["two_bus", "--replay", f"grid={recorded}", "--until", "15min", "--driver", "native", "--out",
                 str(tmp_path / "t.h5")]) == 0
    said = capsys.readouterr().out
    assert "Grid, of the recorded run" in said
    assert "what was at 00:37 there is at 00:00 here" in said


def test_jobs_cannot_be_held(tmp_path, recorded):
    """The same jobs would arrive, finish and be dropped in every step again; from a table as from a trace."""
    says = (r"aidc plays .*, which {} this run; its work_to, received_jobs, .* cannot be held: shorten the run by "
            r"--until, record a longer one, or --set aidc.overflow=wrap")
    with pytest.raises(ScenarioError, match=says.format("ends at 00:45 of")):
        played("aidc", recorded, None, until_s=3600.0, aidc__overflow="hold")
    played("aidc", recorded, None, until_s=600.0, aidc__overflow="hold")
    assert inspection.main(["export", recorded, "--out", str(tmp_path)]) == 0
    with pytest.raises(ScenarioError, match=says.format("does not cover")):
        played("aidc", str(tmp_path / "aidc.Site.csv"), None, until_s=6000.0, aidc__overflow="hold")


def test_a_forecast_of_other_leads_is_refused_before_the_run(tmp_path):
    other = tmp_path / "other.h5"
    run(override(LOOP, {"shared.deferrals_s": [0, 3600]}), other, until_s=300.0)
    with pytest.raises(ScenarioError, match=r"lead is 0h, 1h \(2\) of tariff, 0h \(1\) of controller; they have to be "
                                            r"the same; make them so by shared.deferrals_s \(here controller.deferr"):
        played("tariff", str(other), tmp_path / "t.h5", until_s=300.0)
    assert not (tmp_path / "t.h5").exists()


@pytest.mark.parametrize("leads", ["[36000]", "[0,1]", "[3600]"])
def test_leads_that_one_member_alone_has_are_refused_before_the_run(tmp_path, capsys, leads):
    """Another number of them, and as many others."""
    out = tmp_path / "t.h5"
    assert main(["two_bus", "--set", f"tariff.deferrals_s={leads}", "--until", "5min", "--out", str(out)]) == 2
    assert "make them so by controller.deferrals_s and tariff.deferrals_s" in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()


def test_a_grid_table_that_lacks_a_sites_bus_is_named_with_its_columns(tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text("time_s,bus8.nci_kg_per_kwh\n0,0.4\n900,0.5\n")
    assert main(["ieee33", "--replay", f"grid={path}", "--until", "20min", "--out", str(tmp_path / "t.h5")]) == 2
    said = capsys.readouterr().err
    assert f"{path}, which has no column of bus28, bus32, whom link grid.nci_kg_per_kwh" in said
    assert "it has bus8.nci_kg_per_kwh" in said
