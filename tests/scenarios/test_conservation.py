"""Laws that hold in every trace: no job, no work, no energy and no carbon appears or is lost."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from worlds import run

from cosim.run import find
from cosim.scenario import override
from cosim.trace import Trace
from cosim.trace.compare import first_difference

STRESS = {"controller.policy": "random", "workload.rate_scale": 1.6, "workload.inf_size_scale": 0.05,
          "shared.job_classes.llm.deadline_s": "150min", "shared.job_classes.vae.deadline_s": "140min",
          "shared.deferrals_s": [0.0, 3600.0, 7200.0], "shared.job_classes.search.deadline_s": "2min",
          "shared.job_classes.llm.eligible_sites": ["aidc1", "aidc2"]}
"""Random commands and too much work: many drops, paused training, long queues."""


@pytest.fixture(scope="module", params=["calm", "stress"])
def trace(request, tmp_path_factory):
    scenario = override(find("ieee33"), STRESS if request.param == "stress" else {})
    result = run(scenario, tmp_path_factory.mktemp("t") / "t.h5", until_s=4 * 3600.0)
    with Trace(result.path) as opened:
        yield opened


def site(trace, port):
    return trace[f"aidc/Site/{port}"]


@pytest.mark.rows("U11", "X03")
def test_jobs_are_conserved_every_minute(trace):
    total = {k: site(trace, f"{k}_jobs").cumsum(axis=0) for k in ("received", "finished", "dropped")}
    inside = sum(site(trace, f"{k}_jobs") for k in ("queued", "deferred", "running"))
    assert np.array_equal(total["received"], total["finished"] + total["dropped"] + inside)
    arrived = trace["workload/Arrivals/arrived_jobs"][:, 0]
    assert np.array_equal(arrived, site(trace, "received_jobs").sum(axis=1)), "every arrival reaches one site at once"


@pytest.mark.rows("M08", "X03")
def test_every_job_has_one_row(trace):
    jobs = trace.table("jobs")
    arrived = trace["workload/Arrivals/arrived_jobs"].sum()
    assert len(jobs["id"]) == arrived
    assert np.array_equal(np.sort(jobs["id"]), np.arange(arrived))
    names = trace.names("aidc/Site", "job_class")
    inside = sum(site(trace, f"{k}_jobs")[-1] for k in ("queued", "deferred", "running"))
    counted = {"finished": site(trace, "finished_jobs").sum(axis=0), "dropped": site(trace, "dropped_jobs").sum(axis=0),
               "unfinished": inside}
    for outcome, counts in counted.items():
        for s, where in enumerate(trace.names("aidc/Site")):
            for c, name in enumerate(names):
                mine = (jobs["outcome"] == outcome) & (jobs["site"] == where) & (jobs["job_class"] == name)
                assert mine.sum() == counts[s, c]


@pytest.mark.rows("X03")
def test_work_is_conserved(trace):
    jobs = trace.table("jobs")
    assert site(trace, "work_to").sum() == pytest.approx(jobs["done_to"].sum(), rel=1e-9)
    finished = jobs["outcome"] == "finished"
    assert jobs["done_to"][finished] == pytest.approx(jobs["work_to"][finished], rel=1e-9)
    assert (jobs["done_to"] <= jobs["work_to"] * (1 + 1e-9)).all()
    for s, where in enumerate(trace.names("aidc/Site")):
        mine = jobs["site"] == where
        left = (jobs["work_to"] - jobs["done_to"])[mine & (jobs["outcome"] == "unfinished")].sum()
        inside = site(trace, "pending_work_to")[-1, s].sum() + site(trace, "deferred_work_to")[-1, s].sum()
        assert inside == pytest.approx(left, rel=1e-9)
        whole = jobs["work_to"][mine & finished].sum()
        assert site(trace, "finished_work_to")[:, s].sum() == pytest.approx(whole, rel=1e-9)


@pytest.mark.rows("E12", "E13", "L13", "M09")
def test_energy_is_the_integral_of_power(trace):
    """IT energy from work alone, (13): idle power all the time plus alpha per TO done; total = IT + cooling."""
    alpha = np.array([7.0e-4, 7.0e-4, 1.68e-4, 1.68e-4])
    minutes = len(trace.time_s("aidc/Site"))
    it_kwh = site(trace, "it_kw").sum(axis=0) / 60.0
    by_hand = 100.0 * minutes / 60.0 + (site(trace, "work_to") * alpha).sum(axis=(0, 2)) / 3600.0
    assert it_kwh == pytest.approx(by_hand, rel=1e-9)
    assert site(trace, "p_kw") == pytest.approx(site(trace, "it_kw") + site(trace, "cooling_kw"), rel=1e-12)
    assert site(trace, "cooling_kw") == pytest.approx(site(trace, "chiller_kw") + site(trace, "tower_kw"), rel=1e-12)
    windows = site(trace, "p_window_kw")[14::15]
    means = site(trace, "p_kw").reshape(-1, 15, windows.shape[1]).mean(axis=1)
    assert windows == pytest.approx(means, rel=1e-9)


@pytest.mark.rows("E14", "E30", "U12")
def test_gpus_in_use_stay_within_capacity_and_blocks_are_whole(trace):
    assert site(trace, "busy_gpus").sum(axis=2).max() <= 400 * (1 + 1e-12)
    assert site(trace, "granted_gpus").sum(axis=2).max() <= 400
    assert (site(trace, "granted_gpus")[..., 0] % 16 == 0).all()
    assert (site(trace, "granted_gpus")[..., 1] % 8 == 0).all()


def test_nothing_runs_before_its_release_or_after_its_deadline(trace):
    jobs = trace.table("jobs")
    started = np.isfinite(jobs["start_s"])
    assert (jobs["start_s"][started] >= jobs["release_s"][started]).all()
    training = np.isin(jobs["job_class"], ["llm", "vae"])
    done = jobs["outcome"] == "finished"
    assert (jobs["end_s"][training & done] <= jobs["deadline_s"][training & done]).all()
    assert (jobs["start_s"][~training & done] <= jobs["deadline_s"][~training & done]).all()
    dropped = jobs["outcome"] == "dropped"
    assert (jobs["end_s"][dropped] >= jobs["deadline_s"][dropped] - 1e-6).all()


@pytest.mark.rows("M13", "U14")
def test_ineligible_sites_get_no_job(trace):
    if "eligible_sites\":[" in trace.attrs["scenario"]:
        jobs = trace.table("jobs")
        assert set(jobs["site"][jobs["job_class"] == "llm"]) == {"aidc1", "aidc2"}
        assert set(jobs["site"][jobs["job_class"] == "vae"]) == {"aidc1", "aidc2", "aidc3"}


@pytest.mark.rows("E10", "U18")
def test_carbon_is_conserved(trace):
    """Generated = loads + losses at the sending node's intensity, at every interval, from the trace alone.

    A line that carries almost nothing may take its loss from both ends: each part then has its own end's intensity."""
    intensity = np.array([0.30, 0.35, 0.65, 0.90])
    p_source = trace["grid/Grid/p_source_kw"][:, 0]
    nci, p_from, p_to = (trace[f"grid/{x}"] for x in ("Bus/nci_kg_per_kwh", "Grid/p_from_kw", "Grid/p_to_kw"))
    lines = [tuple(map(int, name.split("-"))) for name in trace.names("grid/Grid", "line")]
    times = trace.time_s("grid/Grid")
    for k, t in enumerate(times[1:], start=1):
        load = trace["profile/Load/p_kw"][k].copy()
        for s, bus in enumerate((8, 28, 32)):
            load[bus] += site(trace, "p_window_kw")[int(t // 60) - 1, s]
        loss = sum(p_from[k, 0, b] * nci[k, i if p_from[k, 0, b] > 0 else j]
                   + p_to[k, 0, b] * nci[k, j if p_to[k, 0, b] > 0 else i] for b, (i, j) in enumerate(lines))
        generated = float(p_source[k] @ intensity)
        assert generated == pytest.approx(float(load @ nci[k]) + loss, abs=1e-6)
        assert generated == pytest.approx(trace["grid/Grid/emission_kg_per_h"][k, 0], abs=1e-9)


def test_both_drivers_and_two_processes_agree_to_the_byte(tmp_path):
    """An hour and a quarter: jobs that were deferred by an hour are back."""
    scenario = override(find("ieee33"), STRESS)
    paths = [run(scenario, tmp_path / f"{d}.h5", d, until_s=4500.0).path for d in ("native", "mosaik")]
    assert first_difference(*paths) is None
    elsewhere = tmp_path / "process.h5"
    settings = [f"--set={path}={json.dumps(value)}" for path, value in STRESS.items()]
    subprocess.run([sys.executable, "-m", "cosim.run", "ieee33", "--until", "75min", "--out", elsewhere, "--quiet",
                    *settings], check=True, timeout=600, env={**os.environ, "PYTHONHASHSEED": "77"})
    assert first_difference(paths[0], elsewhere) is None
    with Trace(paths[0]) as one, Trace(run(scenario.replace(seed=1), tmp_path / "1.h5", until_s=900.0).path) as other:
        assert one["workload/Arrivals/arrived_jobs"][:15].tolist() != other["workload/Arrivals/arrived_jobs"].tolist()
