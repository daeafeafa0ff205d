"""A recorded workload begins with the run, or at its own dates."""

from __future__ import annotations

import pytest

from cosim.errors import ScenarioError
from cosim.simulators.workload.azure_llm import AzureLlm
from cosim.simulators.workload.cluster import ClusterTrace
from cosim.simulators.workload.origin import check_cover
from cosim.tables.dates import instant

CLASSES = {"task": {"kind": "train", "work_to": 1e3, "deadline_s": 600.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 1e-3},
           "chat": {"kind": "inf", "work_to": 1.0, "deadline_s": 30.0, "to_per_gpu_min": 60.0, "kw_per_to_s": 1e-3}}
LAYOUTS = {
    "azure": (AzureLlm, "TIMESTAMP,ContextTokens,GeneratedTokens", "{at},10,5", {"trace_class": "chat"}),
    "csv": (ClusterTrace, "submit_s,run_s,gpus", "{at},60,1", {"trace_class": "task", "format": "csv"}),
}
TIMES = ("2026-01-02 01:04:30+01:00", "2026-01-02 00:06:30", "2026-01-02 00:07:30")


def written(folder, kind, times=TIMES):
    simulator, head, row, params = LAYOUTS[kind]
    path = folder / "trace.csv"
    path.write_text("\n".join([head, *(row.format(at=at) for at in times)]) + "\n")
    return simulator, {"job_classes": CLASSES, "path": str(path), **params}


def arrivals_min(simulator, params, worlds=1, minutes=20) -> tuple[list[float], list[str]]:
    """Minutes of all arrivals since the first world began, in worlds one after the other; and the notes."""
    found, carry = [], None
    for k in range(worlds):
        member = simulator()
        member.init("workload", 1.0, step_s=60.0, **params)
        member.create(1, "Arrivals", names=["workload"])
        member.setup_done()
        if carry is not None:
            member.resume(carry)
        for minute in range(minutes // worlds):
            batch = member.advance(60.0 * minute, {})["workload"]["jobs"]
            found += [round(t / 60.0 + k * (minutes // worlds), 6) for t in batch.get("arrival_s", ())]
        carry = member.carry()
    return found, member.notes()


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("worlds", [1, 4])
def test_dates_are_read_against_the_start_where_that_is_asked_for(tmp_path, kind, worlds):
    simulator, params = written(tmp_path, kind)
    first, said = arrivals_min(simulator, {**params, "scenario_start": "2026-01-02"}, worlds)
    assert first == [0.0, 2.0, 3.0]
    assert "of 2026-01-02T00:04:30Z, comes at the run's start, 2026-01-02T00:00Z; --set workload.origin=date" in said[0]
    dated, said = arrivals_min(simulator, {**params, "scenario_start": "2026-01-02", "origin": "date"}, worlds)
    assert dated == [4.5, 6.5, 7.5]
    assert not any("comes at the run's start" in note for note in said)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_trace_that_began_before_the_run_is_cut_and_repeats_in_step(tmp_path, kind):
    late = ("2026-01-01 23:58:30", *TIMES[1:])  # 6.5, 7.5 min; one pass is 10 min: 23:58:30 to 00:08:30
    simulator, params = written(tmp_path, kind, late)
    dated = {**params, "origin": "date"}
    assert arrivals_min(simulator, {**dated, "scenario_start": "2026-01-02"})[0] == [6.5, 7.5]
    for start in ("2026-01-01", "2026-01-02", "2026-01-03"):  # a day is 144 passes
        again = {**dated, "scenario_start": start, "repeat": True}
        assert arrivals_min(simulator, again)[0] == [6.5, 7.5, 8.5, 16.5, 17.5, 18.5]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_trace_of_another_time_is_refused(tmp_path, kind):
    simulator, given = written(tmp_path, kind)
    for start in ("2026-01-03", "2026-01-01"):
        params = simulator.PARAMS(**{**given, "scenario_start": start, "origin": "date"})
        with pytest.raises(ScenarioError, match="covers 2026-01-02T00:04:30Z to .*: no row is of its time; --set"):
            simulator.check_horizon("workload", params, 60.0, 3600.0)
    params = simulator.PARAMS(**{**given, "scenario_start": "2026-01-02", "origin": "date"})
    simulator.check_horizon("workload", params, 60.0, 3600.0)
    assert simulator.natural_horizon_s(params) == 60.0 * (9 + 1), "from 00:04:30 four whole minutes, and one more"


def test_counts_have_no_dates(tmp_path):
    simulator, given = written(tmp_path, "csv", (0, 60))
    with pytest.raises(ScenarioError, match="workload.origin = date, and the times of .* are counts"):
        arrivals_min(simulator, {**given, "scenario_start": "2026-01-02", "origin": "date"})


def test_the_start_that_a_refusal_names_is_one_that_helps():
    """A run begins at midnight: where the first row is hours later, it says how long the run must be to reach it."""
    first = instant("2024-10-27T00:59:50Z")
    for start, until_s, says in (("2026-01-01", 300.0, "start=2024-10-27 and --until 2h or more"),
                                 ("2024-10-27", 300.0, "start=2024-10-27 and --until 2h or more"),
                                 ("2026-01-01", 7200.0, "start=2024-10-27, or")):
        with pytest.raises(ScenarioError, match=says):
            check_cover("t.csv", first - instant(start), 60.0, start, until_s)
    check_cover("t.csv", first - instant("2024-10-27"), 60.0, "2024-10-27", 7200.0)
