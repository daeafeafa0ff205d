"""`ieee33_gpus` as a whole, with limits, caps and GPUs awake that another member commands: both drivers, conservation
laws, receipts, summary and page."""

import numpy as np
import pytest

from cosim.drivers.resolve import resolve
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import Link, Member, override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.gpu_states import by_state, type_figures
from cosim.simulators.analysis.job_carbon import job_footprints
from cosim.simulators.analysis.metrics import preflight, summary
from cosim.simulators.controller.params import facts_of
from cosim.simulators.reporting import gpus
from cosim.simulators.reporting.data import FleetRun
from cosim.trace import Trace
from cosim.trace.compare import first_difference

UNTIL_S = 660.0
SAID = {"limits_kw": [[-1, -1], [0.5, -1], [0.4, 0.3], [0.1, -1]], "awake": [[-1, -1]] * 7 + [[150, 20]],
        "cap_kw": [-1, -1, -1, -1, -1, 330.0, 200.0, 200.0]}


def scenario():
    base = override(find("ieee33_gpus"), {
        "grid.ac_check": False, "aidc.sleep.after_s": 120, "workload.train_rate_scale": 8.0,
        **{f"shared.sites.aidc{k}.gpu_types.{t}.wake_s": 45 for k in (1, 2, 3) for t in ("H100", "A100")}})
    said = Member(simulator="gpu_commander:Commander", step_s=60, entities={"Site": "sites"}, params=SAID)
    return base.replace(members={**base.members, "said": said}, links=(*base.links, *(
        Link(source=f"said.{port}", target=f"aidc.{port}") for port in (
            "gpu_limit_set_kw", "awake_set_gpus", "p_cap_kw"))))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpus") / "day.h5"
    Experiment(scenario(), "native", UNTIL_S, path).run()
    with Trace(path) as trace:
        yield trace


def test_laws_hold_and_those_of_gpu_types_are_checked(run):
    digest = verify(run)
    assert not digest.broken
    held = {row[0] for row in digest.tables[0].rows if row[3] == "holds"}
    for law in ("GPUs in states", "work = GPUs on their types", "power limits", "GPU time of the jobs", "IT power",
                "chiller (22)", "beyond a cap"):
        assert any(name.startswith(law) for name in held), law


def test_every_state_occurs_and_limits_and_caps_slow(run):
    gpus = by_state(run, "state_gpus")
    assert (gpus.sum(axis=(0, 1, 2)) > 0.0).all()
    assert run["aidc/Site/slowed_s"].sum() > 0.0
    assert run["aidc/Site/cap_slowed_s"].sum() > 0.0
    # what is said stands in the minute in which it is said; 0.1 kW is below what a H100 can keep
    limit = run["aidc/Site/gpu_limit_kw"]
    assert limit[1, 0].tolist() == [0.5, 0.4]
    assert limit[3, 0, 0] == pytest.approx(0.497 * 0.7)
    assert "outside what the GPU types can keep" in run.attrs["notes"]


@pytest.mark.parametrize("where", ["state_gpus", "state_kw", "work_dynamic_kw", "work_gpus", "gpu_limit_kw"])
def test_a_wrong_number_breaks_a_law(run, where):
    class Bent(Trace):
        """The trace, but for one number."""

        def __init__(self, trace):
            self.__dict__ |= trace.__dict__
            self._trace = trace

        def __getitem__(self, path):
            values = self._trace[path]
            if path.endswith(f"/{where}"):
                values = values.copy()
                values[5, 0, 0] += 1.0
            return values

    assert verify(Bent(run)).broken


@pytest.mark.long
def test_mosaik_and_the_plain_loop_give_one_trace(run, tmp_path):
    Experiment(scenario(), "mosaik", UNTIL_S, tmp_path / "bus.h5").run()
    assert first_difference(run.path, tmp_path / "bus.h5") is None


def test_receipts_add_up_to_the_sites_energy(run):
    energy = 0.0
    for account in job_footprints(run):
        energy += account.energy_kwh.sum()
        assert (account.dynamic_kwh[:-1] > 0.0).all() == (account.gpu_s[:-1] > 0.0).all()
        assert abs(account.dynamic_kwh[-1]) < 1e-6  # what GPUs draw above idle is all of jobs
    assert energy == pytest.approx(run["aidc/Site/p_kw"].sum() / 60.0)


def test_summary_and_page_say_energy_by_state(run):
    figures = summary(run).figures
    everything = type_figures(run)[-1]
    assert sum(everything.energy_kwh.values()) == pytest.approx(figures["it_energy_kwh"])  # nothing is drawn beside
    assert sum(everything.gpu_h.values()) == pytest.approx(1200 * UNTIL_S / 3600)
    assert figures["gpu_asleep_kwh"] == pytest.approx(0.02 * everything.gpu_h["asleep"])
    assert figures["cap_slowed_h"] == pytest.approx(run["aidc/Site/cap_slowed_s"].sum() / 3600)
    page = FleetRun(run, "run", {})
    states, limits = gpus.states(page), gpus.limits(page)
    assert len(states.panels) == 3
    assert "for a cap of the site" in limits.says
    drawn = sum(series.y for series in states.panels[2].series)
    assert drawn == pytest.approx(run["aidc/Site/it_kw"].sum(axis=1))


def test_the_studys_gpus_as_a_type_are_the_study(tmp_path):
    """The closed loop with one published type, `study`, none asleep: power, waits and carbon as without types."""
    plain = override(find("ieee33"), {"controller.policy": "nci_priority", "grid.ac_check": False})
    typed = override(plain, {
        "aidc.simulator": "cosim.simulators.aidc.gpus.adapter:GpuDataCenters",
        **{f"shared.sites.aidc{k}.gpu_types": {"study": {"count": 400}} for k in (1, 2, 3)}})
    for name, one in (("plain", plain), ("typed", typed)):
        Experiment(one, "native", 300.0, tmp_path / f"{name}.h5").run()
    with Trace(tmp_path / "plain.h5") as a, Trace(tmp_path / "typed.h5") as b:
        for path in (f"aidc/Site/{port}" for port in ("p_kw", "work_to", "busy_gpus", "queued_jobs", "slack_min")):
            np.testing.assert_allclose(b[path], a[path], rtol=1e-9, atol=1e-6, err_msg=path)
        np.testing.assert_allclose(b["grid/Bus/nci_kg_per_kwh"], a["grid/Bus/nci_kg_per_kwh"], rtol=1e-6)
        theirs, mine = ({k: times_s for k, *times_s in zip(*(rows[c] for c in ("id", "start_s", "end_s")), strict=True)}
                        for rows in (a.table("jobs"), b.table("jobs")))
        assert theirs.keys() == mine.keys()
        for job, times_s in theirs.items():
            np.testing.assert_allclose(mine[job], times_s, atol=1e-6)


def test_the_load_before_a_run_counts_gpus_by_their_speed():
    rows = preflight(resolve(scenario())).tables[0].rows
    assert {row[4] for row in rows} == {f"{3 * (300 + 100 * 0.315):.0f}"}


def test_a_class_that_needs_more_memory_goes_where_it_is():
    wide = {"H100": {"count": 300}, "B200": {"count": 100}}
    changed = override(scenario(), {"shared.sites.aidc2.gpu_types": wide, "shared.job_classes.search.memory_gb": 100.0})
    given = resolve(changed).params["controller"]
    facts = facts_of(given, "controller", 60.0)
    assert facts.eligible[list(given.job_classes).index("search")] == (False, True, False)
    assert np.all(facts.eligible[0])
    # policies plan with the mean speed of the GPUs that a class may run on
    llm = given.job_classes["llm"].to_per_gpu_min
    assert facts.to_per_gpu_min[0] == pytest.approx(llm * (900 + 200 * 0.315 + 100 * 2.275) / 1200)
    assert facts.to_per_gpu_min[3] == pytest.approx(given.job_classes["search"].to_per_gpu_min * 2.275)
