"""What a request waited, used and emitted: sums are the site's, single jobs are as worked out by hand."""

from __future__ import annotations

import csv
import math
from statistics import quantiles

import numpy as np
import pytest
from rewritten import rewritten

from cosim.errors import TraceError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.equations import inlet_factor
from cosim.simulators.analysis.cooling import coolings
from cosim.simulators.analysis.job_carbon import job_footprints
from cosim.simulators.analysis.jobs import waits
from cosim.simulators.analysis.metrics import site_figures, summary
from cosim.simulators.analysis.receipts import main
from cosim.simulators.fleet import JobClass
from cosim.trace import Trace
from cosim.trace.series import scenario_of

STRESS = {"controller.policy": "random", "workload.rate_scale": 1.6, "workload.inf_size_scale": 0.05,
          "shared.job_classes.llm.deadline_s": "100min", "shared.job_classes.vae.deadline_s": "50min",
          "shared.deferrals_s": [0.0, 1800.0], "shared.job_classes.search.deadline_s": "2min",
          "shared.job_classes.search.slo_wait_s": "1min", "shared.job_classes.llm.order": "llf",
          "shared.job_classes.vae.speedup_exponent": 0.7}
PLANT = {"aidc.thermal": "first_order",
         "aidc.ambient": {"wet_bulb_mean_degc": 9.0, "wet_bulb_swing_k": 6.0, "peak_h": 2},
         "aidc.cooling": {"server_leakage_per_k": 0.008, "server_fan_ratio": 0.1, "server_fan_speed_per_k": 0.04,
                          "loss_no_load_ratio": 0.01, "loss_square_ratio": 0.04, "auxiliary_kw": 3.0}}
"""All that makes power depend on more than jobs; the literal plant does not balance and is as warm."""
SCENARIOS = {"calm": ("ieee33", {"controller.policy": "nci_priority", "shared.job_classes.search.slo_wait_s": 80}),
             "stress": ("ieee33", STRESS), "slots": ("paper_literal", {}),
             "plant": ("ieee33", {"controller.policy": "nci_priority", **PLANT}),
             "slots in a room": ("paper_literal", PLANT)}


@pytest.fixture(scope="module", params=["calm", "stress", pytest.param("slots", marks=pytest.mark.long),
                                        pytest.param("plant", marks=pytest.mark.long), "slots in a room"])
def trace(request, tmp_path_factory):
    name, settings = SCENARIOS[request.param]
    path = tmp_path_factory.mktemp("t") / "t.h5"
    Experiment(override(find(name), settings), "native", 2 * 3600.0, path).run()
    with Trace(path) as opened:
        yield opened


@pytest.mark.long(after=2)
def test_gpus_of_a_job_are_logged_once(trace):
    """Begun inference has those of its class in its row, or runs in `gpu_runs` (slots); training only runs."""
    jobs, runs = trace.table("jobs"), trace.table("gpu_runs")
    begun, of_runs = np.isfinite(jobs["start_s"]), np.isin(jobs["id"], runs["id"])
    assert np.array_equal(np.isfinite(jobs["gpus"]), begun & ~of_runs)
    classes = scenario_of(trace)["shared"]["job_classes"]
    for name, row in classes.items():
        held = jobs["gpus"][jobs["job_class"] == name]
        held = held[np.isfinite(held)]
        assert (held == JobClass(**row).gpus_per_block).all()
        assert row["kind"] == "inf" or not held.size


def test_a_trace_without_logged_gpus_gives_the_same(trace, tmp_path):
    old = tmp_path / "old.h5"
    with rewritten(old, trace.path) as file:
        del file["jobs/gpus"]
    with Trace(old) as opened:
        for then, now in zip(job_footprints(opened), job_footprints(trace), strict=True):
            assert np.array_equal(then.gpu_s, now.gpu_s)


@pytest.mark.long(after=2)
def test_the_command_prints_sums_single_jobs_and_a_table(trace, tmp_path, capsys):
    """Every job once and each site's rest; rows of the file add up to the sites' energy; a job is what `of` says."""
    out = tmp_path / "jobs.csv"
    assert main([str(trace.path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("unallocated") == len(trace.names("aidc/Site"))
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == len(trace.table("jobs")["id"]) + len(trace.names("aidc/Site"))
    energy_kwh = sum(figures.energy_kwh for figures in site_figures(trace))
    assert sum(float(row["energy_kwh"]) for row in rows) == pytest.approx(energy_kwh, rel=1e-9)
    account = job_footprints(trace)[0]
    job = int(account.job_id[0])
    assert main([str(trace.path), "--job", str(job)]) == 0
    assert f"{account.of(job)['energy_kwh']:.6g}" in capsys.readouterr().out
    assert main([str(trace.path), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([str(trace.path), "--job", "-1"]) == 2


def test_a_job_table_without_rows_is_no_error(trace, tmp_path):
    """As a kill may leave it: nobody began, and there are no quantiles."""
    bare = tmp_path / "bare.h5"
    with rewritten(bare, trace.path) as file:
        for column in file["jobs"].values():
            column.resize(0, axis=0)
    with Trace(bare) as opened:
        got = waits(opened)
        assert {len(column) for column in opened.table("jobs").values()} == {0}
    assert len(got) == 4 * (1 + 3)
    assert all(w.began_jobs == 0 and math.isnan(w.p99_s) for w in got)


def test_jobs_and_the_unallocated_add_up_to_the_site(trace):
    accounts, step_h = job_footprints(trace), 1 / 60
    for k, (account, figures) in enumerate(zip(accounts, site_figures(trace), strict=True)):
        assert account.energy_kwh.sum() == pytest.approx(figures.energy_kwh, rel=1e-9)
        assert account.co2_kg.sum() == pytest.approx(figures.co2_kg, rel=1e-9)
        assert (account.dynamic_kwh + account.idle_kwh).sum() == pytest.approx(figures.it_kwh, rel=1e-9)
        bus = {"aidc1": 8, "aidc2": 28, "aidc3": 32}[account.site]
        mci = np.repeat(trace["grid/Bus/mci_kg_per_kwh"][:, bus], 15)
        kg = (trace["aidc/Site/p_kw"][:, k] * mci).sum() * step_h
        assert account.co2_marginal_kg.sum() == pytest.approx(kg, rel=1e-9)
        # what nobody carries is idle and cooling only: all that GPUs drew above idle is some job's
        assert account.dynamic_kwh[-1] == pytest.approx(0.0, abs=1e-9 * figures.energy_kwh)
        assert account.gpu_s.sum() == pytest.approx(400 * 7200, rel=1e-12)
        for column in (account.gpu_s, account.energy_kwh, account.co2_kg):
            assert (column >= -1e-9).all()
        idle = account.gpu_s[-1] / (400 * 7200)
        factor = inlet_factor(23.0, coolings(trace)[k])  # all of them keep the supply air at its warmest
        assert account.idle_kwh[-1] == pytest.approx(idle * 100.0 * 2 * factor, rel=1e-9)
    rows = [(job_id, a.site) for a in accounts for job_id in a.job_id[:-1]]
    jobs = trace.table("jobs")
    assert sorted(rows) == sorted(zip(jobs["id"], jobs["site"], strict=True))


def test_dynamic_energy_is_that_of_the_work_at_linear_speed(trace):
    jobs = trace.table("jobs")
    for account in job_footprints(trace):
        here = jobs["site"] == account.site
        for name, kw_per_to_s in (("llm", 7.0e-4), ("deep_research", 1.68e-4), ("search", 1.68e-4)):
            mine = jobs["job_class"][here] == name
            kwh = kw_per_to_s * jobs["done_to"][here][mine] / 3600 * inlet_factor(23.0, coolings(trace)[0])
            assert account.dynamic_kwh[:-1][mine] == pytest.approx(kwh, rel=1e-6, abs=1e-9)
        used = (account.gpu_s[:-1] > 0) == (jobs["done_to"][here] > 0)
        assert used.all()


def test_waits_are_those_of_the_job_table(trace):
    jobs = trace.table("jobs")
    rows = list(zip(*(jobs[c] for c in ("job_class", "site", "arrival_s", "release_s", "start_s", "outcome")),
                    strict=True))
    for w in waits(trace):
        mine = [r for r in rows if r[0] == w.job_class and w.site in (None, r[1])]
        since = 2 if w.job_class in ("search", "deep_research") else 3
        times = [r[4] - r[since] for r in mine if not math.isnan(r[4])]
        assert w.began_jobs == len(times)
        if len(times) > 1:
            cuts = quantiles(times, n=100, method="inclusive")
            assert (w.p50_s, w.p95_s, w.p99_s) == pytest.approx((cuts[49], cuts[94], cuts[98]), rel=1e-12)
        if w.slo_missed_jobs is not None:
            assert w.job_class == "search"
            slo_s = 60.0 if any(r[5] == "dropped" for r in rows) else 80.0
            assert w.slo_missed_jobs == sum(r[5] == "dropped" or r[4] - r[2] > slo_s for r in mine)
            assert w.slo_missed_jobs > 0 or w.site


def test_the_summary_tells_lost_work_and_waits_of_every_site(trace):
    jobs, digest = trace.table("jobs"), summary(trace)
    dropped = jobs["outcome"] == "dropped"
    lost_to, served_to = jobs["done_to"][dropped].sum(), jobs["work_to"][jobs["outcome"] == "finished"].sum()
    assert digest.figures["lost_missed_to"] == pytest.approx(lost_to, rel=1e-9, abs=1e-3)
    (work,) = (t for t in digest.tables if t.title == "Work, 1e9 TO")
    sums_to = (trace["aidc/Site/work_to"].sum(), served_to, lost_to)
    assert work.rows[-1][:4] == ("all", *(f"{to / 1e9:.3f}" for to in sums_to))
    assert len(work.rows) == len(trace.names("aidc/Site", "job_class")) + 1
    (by_site,) = (t for t in digest.tables if t.title == "Waits by site")
    of_sites = [w for w in waits(trace) if w.site]
    assert [row[:3] for row in by_site.rows] == [(w.job_class, w.site, str(w.began_jobs)) for w in of_sites]
    for w in of_sites:
        if w.began_jobs:
            assert digest.figures[f"wait_p95_{w.job_class}_{w.site}_s"] == w.p95_s
        if w.slo_missed_jobs is not None:
            assert digest.figures[f"slo_missed_{w.job_class}_{w.site}_jobs"] == w.slo_missed_jobs


def test_a_query_of_the_smallest_loop(tmp_path):
    # one GPU for one minute: 1 kWmin above idle, 1/80 of 20 kW idle, and 1/80 of the cooling of the minutes it ran in:
    # a quarter of 32 kW, 12 GPUs being busy from minute 2 on
    path = tmp_path / "t.h5"
    Experiment(find("two_bus"), "native", 1800.0, path).run()
    with Trace(path) as trace:
        (account,) = job_footprints(trace)
        jobs = trace.table("jobs")
        late = np.flatnonzero((jobs["job_class"] == "query") & (jobs["start_s"] == 600.0))
        assert late.size == 10
        nci = float(trace["grid/Bus/nci_kg_per_kwh"][0, 1])
        for row in late:
            found = account.of(int(jobs["id"][row]))
            assert (found["gpu_s"], found["dynamic_kwh"]) == (60.0, pytest.approx(1 / 60))
            assert found["idle_kwh"] == pytest.approx(20 / 80 / 60)
            assert found["cooling_kwh"] == pytest.approx(8 / 80 / 60)
            assert found["co2_kg"] == pytest.approx(nci * found["energy_kwh"], rel=1e-12)
        with pytest.raises(KeyError, match="job 99999 was not at aidc1"):
            account.of(99999)


def test_a_trace_without_its_jobs_is_refused(tmp_path):
    path = tmp_path / "t.h5"
    Experiment(find("ieee33"), "native", 1800.0, path).run()
    with Trace(path) as trace:
        whole = trace.table
        trace.table = lambda name: {} if name == "jobs" else whole(name)
        with pytest.raises(TraceError, match="no job table"):
            job_footprints(trace)
        trace.table = lambda name: {} if name == "gpu_runs" else whole(name)
        with pytest.raises(TraceError, match="needs the trace of a run that ended"):
            job_footprints(trace)
