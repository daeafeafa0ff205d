"""Work served by hand: what begins in the warm-up, what is dropped half done, what is unfinished at the end.

One training job a minute, of 5 min on its 2 GPUs, sent at 1, 2, ... min; ten queries a minute, of a minute each, sent
at the same times. The warm-up ends at 3 min and the run at 13. The GPUs suffice for all.
"""

import pytest
from worlds import run

from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.jobs import served_to, unfinished_to
from cosim.trace import Trace

JOB_TO, QUERY_TO, GTO = 6e5, 6e4, 1e9
WORLD = {"warmup_s": 180.0, "shared.job_classes.train.work_to": JOB_TO}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """'all in time'; 'dropped': training has 4 min; 'lean': without a job table."""
    folder, out = tmp_path_factory.mktemp("t"), {}
    for name, more in (("all in time", {}), ("dropped", {"shared.job_classes.train.deadline_s": "4min"}),
                       ("lean", {"aidc.job_log": False})):
        digest = run(override(find("two_bus"), {**WORLD, **more}), folder / f"{name}.h5", until_s=600.0).digest
        out[name] = folder / f"{name}.h5", digest
    return out


@pytest.mark.parametrize("name", ["all in time", "lean"])
@pytest.mark.rows("K01", "M08")
def test_a_job_counts_whole_where_it_finishes(runs, name):
    """Jobs sent at 1 to 8 min end at 6 to 13; the first three began in the warm-up. Those sent at 9 to 12 are
    unfinished with 1, 2, 3 and 4 of 5 min left. Queries end at 4 to 13 min."""
    path, digest = runs[name]
    queries_to = 100 * QUERY_TO
    with Trace(path) as trace:
        assert served_to(trace) == pytest.approx([8 * JOB_TO, queries_to])
        assert unfinished_to(trace) == pytest.approx([JOB_TO * 10 / 5, 0.0])
    figures = digest.figures
    assert figures["served_to"] == pytest.approx(8 * JOB_TO + queries_to)
    assert (figures["unfinished_train_jobs"], figures["unfinished_train_to"]) == (4, pytest.approx(2 * JOB_TO))
    done_to = figures["throughput_to_per_min"] * 10
    # jobs run in the counted time for 3, 4, 5 x 6 and then 4, 3, 2, 1 min, less what was done at 1 and 2 min
    assert done_to == pytest.approx(JOB_TO / 5 * (3 + 4 + 5 * 6 + 4 + 3 + 2 + 1) + queries_to)
    assert figures["cost_usd_per_gto"] == pytest.approx(figures["cost_usd"] / figures["served_to"] * GTO)
    table = next(t for t in digest.tables if t.title == "Per 1e9 TO served")
    assert table.rows == [tuple(f"{figures[f'{name}_per_gto']:.4g}" for name in (
        "energy_kwh", "cost_usd", "co2_attributed_kg"))]


@pytest.mark.rows("M15")
def test_nothing_of_a_dropped_job_is_served(runs):
    """With 4 min from its arrival no job is done; what was done of it is work, but not served."""
    path, digest = runs["dropped"]
    figures = digest.figures
    with Trace(path) as trace:
        assert served_to(trace) == pytest.approx([0.0, 100 * QUERY_TO])
    assert figures["finished_train_jobs"] == 0 < figures["dropped_train_jobs"]
    assert figures["lost_missed_to"] > 0
    assert figures["throughput_to_per_min"] * 10 > figures["served_to"] == pytest.approx(100 * QUERY_TO)
    assert figures["cost_usd_per_gto"] == pytest.approx(figures["cost_usd"] / (100 * QUERY_TO) * GTO)


class Tampered(Trace):
    """Each minute says one per cent more work was served than was."""

    def __getitem__(self, name):
        return super().__getitem__(name) * (1.01 if name.endswith("finished_work_to") else 1.0)


def test_the_laws_hold_and_find_what_was_tampered_with(runs):
    path, _ = runs["dropped"]
    with Trace(path) as trace:
        rows = {law: deviation for law, deviation, *_ in verify(trace).tables[0].rows}
    assert {law for law in rows if "work served" in law or "taken on" in law} == {
        "work served in the minutes = work of the finished jobs (relative)",
        "work taken on = of ended jobs + done and left of unfinished (relative)"}
    with Tampered(path) as trace:
        broken = verify(trace).broken
    assert [law.split(" = ")[0] for law in broken] == ["work served in the minutes", "summary"]
