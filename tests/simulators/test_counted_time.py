"""What counts lies between the end of the warm-up and the end of the run, whatever the steps; and summary, page, job
accounts and checks show the same figures of it.

The right values are recounted in pieces of half a minute, in which nothing changes.
"""

import dataclasses

import numpy as np
import pytest
from worlds import run

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.job_carbon import job_footprints
from cosim.simulators.analysis.metrics import site_figures, summary
from cosim.simulators.analysis.voltages import minute_voltages
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sections import maps, sections
from cosim.trace import Trace
from cosim.trace.series import counted, counted_time, over_counted, standing

WARMUP_S, COUNTED_S, PIECE_S, GPUS = 2250.0, 4110.0, 30.0, 11
"""37.5 min, and 68.5 min: begin inside a minute and an interval of the grid; the end, 106 min, inside an interval."""

CROWDED = {
    "warmup_s": WARMUP_S, "profile.shape": [1.0, 1.6, 0.7, 1.3] * 24, "shared.sites.aidc1.racks": 1,
    "shared.sites.aidc1.gpus_per_rack": GPUS, "workload.counts": "poisson",
    "shared.job_classes.train.deadline_s": "20min", "shared.job_classes.query.deadline_s": 330,
    "tariff.windows": [{"start_h": 0.7, "end_h": 1.1, "price_usd_per_kwh": 0.35}], "grid.vm_min_pu": 0.99842,
    "grid.ac_check": True,
}
"""Fewer GPUs than the jobs want; intensities, prices and voltages that change within the counted time."""


@pytest.fixture(scope="module", params=["minutes", "steps of 7 min"])
def trace(request, tmp_path_factory):
    """With data centers that step by minutes; and by seven, across the grid's intervals and beyond the run's end."""
    slow = {} if request.param == "minutes" else {"aidc.step_s": 420, "aidc.window_s": 840, "grid.step_s": 840,
                                                  "profile.step_s": 840, "controller.step_s": 420,
                                                  "workload.step_s": 420}
    path = tmp_path_factory.mktemp("t") / "t.h5"
    run(override(find("two_bus"), {**CROWDED, **slow}), path, until_s=COUNTED_S)
    with Trace(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def figures(trace):
    return summary(trace).figures


@pytest.fixture(scope="module")
def facts(trace):
    page = FleetRun(trace, "", dict.fromkeys(trace.names("aidc/Site"), "site0"))
    found = {}
    for section in sections([page]):
        found |= {fact.name: fact.value for row in section.pictures for picture in row for fact in picture.facts}
    maps([page])
    return found


def pieces():
    return np.arange(WARMUP_S, WARMUP_S + COUNTED_S, PIECE_S)


def at(trace, path, entity=0):
    """A port's value in every piece, looked up one by one."""
    times, values = trace.time_s(path.rpartition("/")[0]), trace[path]
    return np.array([values[max(k for k, t in enumerate(times) if t <= piece)][entity] for piece in pieces()])


def settled(trace, port, dispatched):
    """What the grid says of an interval one step later; as dispatched where it has not said."""
    times, later, first = trace.time_s("grid/Grid"), trace[f"grid/Grid/{port}"][:, 0], trace[f"grid/Grid/{dispatched}"]
    out = []
    for piece in pieces():
        k = max(k for k, t in enumerate(times) if t <= piece)
        known = k + 1 < len(times) and np.isfinite(later[k + 1])
        out.append(later[k + 1] if known else first[k, 0])
    return np.array(out)


HOURS = PIECE_S / 3600.0


@pytest.mark.long
@pytest.mark.rows("K01", "K02", "K03", "K08", "M07")
def test_totals_are_those_of_a_recount(trace, figures):
    p_kw, nci = at(trace, "aidc/Site/p_kw"), at(trace, "grid/Bus/nci_kg_per_kwh", 1)
    tick_s, step_s = (np.diff(trace.time_s(m))[0] for m in ("aidc/Site", "grid/Grid"))
    assert np.ptp(nci) > 0.01
    assert np.ptp(at(trace, "tariff/Tariff/price_usd_per_kwh")) > 0.1
    expected = {
        "energy_kwh": p_kw.sum() * HOURS, "it_energy_kwh": at(trace, "aidc/Site/it_kw").sum() * HOURS,
        "cost_usd": (p_kw * at(trace, "tariff/Tariff/price_usd_per_kwh")).sum() * HOURS,
        "co2_attributed_kg": (p_kw * nci).sum() * HOURS,
        "co2_system_kg": settled(trace, "emission_realised_kg_per_h", "emission_kg_per_h").sum() * HOURS,
        "co2_dispatched_kg": at(trace, "grid/Grid/emission_kg_per_h").sum() * HOURS,
        "loss_kwh": settled(trace, "loss_realised_kw", "loss_kw").sum() * HOURS,
        "throughput_to_per_min": at(trace, "aidc/Site/work_to").sum() * PIECE_S / tick_s / (COUNTED_S / 60.0),
        "lost_missed_to": at(trace, "aidc/Site/missed_work_to").sum() * PIECE_S / tick_s,
        "water_kg": at(trace, "aidc/Site/water_kg_per_h").sum() * HOURS,
        "heat_removed_kwh": at(trace, "aidc/Site/heat_removed_kw").sum() * HOURS,
        "mci_mean_kg_per_kwh": np.nanmean([at(trace, "grid/Bus/mci_kg_per_kwh", k) for k in (0, 1)]),
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-9), name
    times, excess = trace.time_s("grid/Grid"), trace["grid/Grid/imbalance_kwh"][:, 0]
    settled_kwh = [abs(excess[k + 1]) * PIECE_S / step_s for piece in pieces()
                   if (k := max(k for k, t in enumerate(times) if t <= piece)) + 1 < len(times)]
    assert figures["imbalance_kwh"] == pytest.approx(sum(settled_kwh), rel=1e-9)
    assert figures["imbalance_kwh"] > 0


def test_means_are_over_time(trace):
    (site,) = site_figures(trace)
    nci = at(trace, "grid/Bus/nci_kg_per_kwh", 1)
    assert site.nci == pytest.approx((nci.mean(), nci.min(), nci.max()), rel=1e-9)
    busy = np.array([row.sum() for row in at(trace, "aidc/Site/busy_gpus")])
    assert site.gpu_use_ratio == pytest.approx(busy.mean() / GPUS, rel=1e-12)


@pytest.mark.rows("K04", "M07")
def test_jobs_count_by_their_instants(trace, figures):
    """Received at the begin of a tick; finished or dropped when the job table says so, up to the last instant."""
    jobs, end_s = trace.table("jobs"), WARMUP_S + COUNTED_S
    ticks = trace.time_s("aidc/Site")
    row = {name: cells for name, *cells in summary(trace).tables[0].rows}
    for k, name in enumerate(trace.names("aidc/Site", "job_class")):
        mine = jobs["job_class"] == name
        received = trace["aidc/Site/received_jobs"][:, 0, k][(ticks >= WARMUP_S) & (ticks < end_s)].sum()
        assert row[name][0] == f"{received:.0f}"
        for outcome in ("finished", "dropped"):
            when = jobs["end_s"][mine & (jobs["outcome"] == outcome)]
            assert figures[f"{outcome}_{name}_jobs"] == ((when > WARMUP_S) & (when <= end_s)).sum(), (outcome, name)
        left = mine & (jobs["submit_s"] < end_s) & ~(jobs["end_s"] <= end_s)
        assert figures[f"unfinished_{name}_jobs"] == left.sum() > 0
        begun = mine & (jobs["arrival_s"] >= WARMUP_S) & np.isfinite(jobs["start_s"])
        wait_s = jobs["start_s"][begun] - jobs["arrival_s" if name == "query" else "release_s"][begun]
        assert figures.get(f"wait_p50_{name}_s") == (pytest.approx(np.quantile(wait_s, 0.5)) if begun.any() else None)
    assert figures["dropped_train_jobs"] > 0


def test_work_is_served_dropped_or_unfinished(trace, figures):
    """Whole jobs: those inside as the counted time begins and those that come in it, each ends as one of three."""
    jobs, end_s = trace.table("jobs"), WARMUP_S + COUNTED_S
    over = jobs["end_s"] <= end_s
    mine = (jobs["submit_s"] < end_s) & ~(jobs["end_s"] <= WARMUP_S)
    work_to = {outcome: jobs["work_to"][mine & over & (jobs["outcome"] == outcome)].sum()
               for outcome in ("finished", "dropped")}
    unfinished_to = jobs["work_to"][mine & ~over].sum()
    assert figures["served_to"] == pytest.approx(work_to["finished"], rel=1e-12)
    assert figures["served_to"] + work_to["dropped"] + unfinished_to == pytest.approx(jobs["work_to"][mine].sum())
    assert min(work_to["dropped"], unfinished_to, jobs["work_to"][mine & (jobs["submit_s"] < WARMUP_S)].sum()) > 0
    assert figures["cost_usd_per_gto"] == pytest.approx(figures["cost_usd"] / work_to["finished"] * 1e9)
    assert figures["co2_attributed_kg_per_gto"] == pytest.approx(
        figures["co2_attributed_kg"] / work_to["finished"] * 1e9)
    if trace.time_s("aidc/Site")[1] == 60.0:  # the run ends with a minute
        left = {name: figures[f"unfinished_{name}_to"] for name in ("train", "query")}
        for name, left_to in left.items():
            rows = mine & ~over & (jobs["job_class"] == name)
            assert left_to == pytest.approx((jobs["work_to"] - jobs["done_to"])[rows].sum(), rel=1e-9)


def test_minutes_outside_a_limit_are_counted_minutes(trace, figures):
    minutes = minute_voltages(trace)
    outside = minutes.outside()
    ticks = trace.time_s(minutes.clock)
    expected = sum(outside[max(k for k, t in enumerate(ticks) if t <= piece)] for piece in pieces()) * PIECE_S / 60.0
    assert figures["voltage_violation_min"] == pytest.approx(expected)
    assert 0 < expected < COUNTED_S / 60.0
    rows = {row[0]: row[-1] for table in summary(trace).tables if table.title == "Grid" for row in table.rows}
    assert rows["minutes with a voltage outside its limits"] == f"{expected:g} of 68.5"
    flagged = (at(trace, "grid/Grid/status") > 0).sum() * PIECE_S / 60.0
    intervals = counted(trace, "grid/Grid").use
    assert rows["flagged intervals"] == (f"{(trace['grid/Grid/status'][intervals] > 0).sum()} of {intervals.sum()} "
                                         f"({flagged:g} of 68.5 min)")


def test_the_page_says_what_the_summary_says(trace, figures, facts):
    (site,) = site_figures(trace)
    same = {
        "carbon emitted by all sources": figures["co2_system_kg"],
        "carbon attributed to the data centers": figures["co2_attributed_kg"],
        "carbon per kWh drawn": figures["co2_attributed_kg"] / figures["energy_kwh"],
        "energy of the data centers": figures["energy_kwh"],
        "price of a kWh drawn": figures["cost_usd"] / figures["energy_kwh"],
        "GPU use": 100 * site.gpu_use_ratio,
        "dropped jobs in events": figures["dropped_query_jobs"] + figures["dropped_train_jobs"],
        "imbalance at the substation": figures["imbalance_kwh"],
        "lowest voltage": figures["vm_min_pu"], "highest voltage": figures["vm_max_pu"],
        "gap of the conic relaxation, worst": figures["relaxation_gap_pu"],
        "inlets above their limit": figures["inlet_alarm_s"] / 60.0,
        "water": figures["water_kg"] / 1000.0,
        "cooled without the chiller": 100 * figures["free_cooling_kwh"] / figures["heat_removed_kwh"],
    }
    for name, value in same.items():
        assert facts[name] == pytest.approx(value, rel=1e-9), name


def test_accounts_add_up_to_the_summary(trace, figures):
    (account,), (site,) = job_footprints(trace), site_figures(trace)
    assert account.energy_kwh.sum() == pytest.approx(figures["energy_kwh"], rel=1e-9)
    assert account.co2_kg.sum() == pytest.approx(figures["co2_attributed_kg"], rel=1e-9)
    assert account.gpu_s.sum() == pytest.approx(GPUS * COUNTED_S, rel=1e-12)
    assert account.gpu_s[:-1].sum() == pytest.approx(site.gpu_use_ratio * GPUS * COUNTED_S, rel=1e-9)
    assert (account.gpu_s >= -1e-9).all()
    assert (account.energy_kwh[:-1] >= 0).all()
    (whole,) = job_footprints(trace, warmup=True)
    assert whole.energy_kwh.sum() > account.energy_kwh.sum()
    assert len(whole.job_id) > len(account.job_id)


def test_the_laws_hold_and_the_trace_says_what_its_series_say(trace):
    digest = verify(trace)
    assert not digest.broken
    (law,) = [row for row in digest.tables[0].rows if row[0].startswith("summary = ")]
    assert law[-1] == "holds"


def test_a_run_that_ends_in_its_warm_up_says_so_everywhere(tmp_path):
    """Stopped after 20 of 37.5 min: summary and page count these twenty, and name them."""
    experiment = Experiment(override(find("two_bus"), {"warmup_s": WARMUP_S, "flush_s": 600}), "native",
                            out=tmp_path / "t.h5", until_s=COUNTED_S)
    experiment.control.on_progress = lambda time: setattr(experiment.control, "stop", time >= 20)
    with pytest.raises(Exception, match="stopped by the user"):
        experiment.run()
    with Trace(tmp_path / "t.h5") as trace:
        time = counted_time(trace)
        assert dataclasses.astuple(time) == (0.0, 1260.0, True)
        digest = summary(trace)
        assert any("did not get beyond its warm-up" in w for w in digest.warnings)
        page = FleetRun(trace, "", {"aidc1": "site0"})
        (picture,) = [p for s in sections([page]) if s.key == "carbon" for row in s.pictures[:1] for p in row]
        assert {f.name: f.value for f in picture.facts} == {
            "carbon attributed to the data centers": pytest.approx(digest.figures["co2_attributed_kg"], rel=1e-12),
            "carbon emitted by all sources": pytest.approx(digest.figures["co2_system_kg"], rel=1e-12)}


def test_nothing_stands_before_the_first_sample(trace):
    values = standing(trace, "aidc/Site/p_kw", np.array([-1.0, 0.0]))
    assert np.isnan(values[0, 0])
    assert values[1, 0] == trace["aidc/Site/p_kw"][0, 0]
    own = over_counted(trace, "aidc/Site/p_kw", "aidc/Site")
    assert np.array_equal(own, trace["aidc/Site/p_kw"][counted(trace, "aidc/Site").use]), "itself, unrounded"
