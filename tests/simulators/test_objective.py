"""(32) over a run, from its trace: by hand, and as the sum of what a learner's environment logs."""

import pytest
from worlds import run

from cosim.run import find
from cosim.scenario import override
from cosim.trace import Trace


def figures(tmp_path, until_s=1800.0, **settings):
    scenario = override(find("two_bus"), {k.replace("__", "."): v for k, v in settings.items()})
    return run(scenario, tmp_path / "t.h5", until_s=until_s, overwrite=True).digest.figures


@pytest.mark.rows("E32", "R01-06")
def test_the_objective_is_the_weighted_sum_of_the_summary(tmp_path):
    """Minutes of 60 s: R1 is work over the reference, R2 the cost, R3 attributed carbon, R4 and R5 drops."""
    given = {"controller__reward": {"c1_per_reference": 2.0, "c2_per_usd": 0.5, "c3_per_t": 3.0,
                                    "reference_to_per_min": 1e6}}
    got = figures(tmp_path, **given)
    work_to = got["throughput_to_per_min"] * 30.0
    assert got["objective"] == pytest.approx(
        2.0 * work_to / 1e6 - 0.5 * got["cost_usd"] - 3.0 * got["co2_attributed_kg"] / 1000.0, rel=1e-9)


def test_waits_cost_what_c6_says(tmp_path):
    """Each inference job that is queued at the end of a minute has waited for it."""
    free, priced = (figures(tmp_path, controller__drain_min=60.0, controller__reward={"c6_per_inf_wait_min": c6})
                    for c6 in (0.0, 0.25))
    with Trace(tmp_path / "t.h5") as trace:
        names = trace.names("aidc/Site", "job_class")
        queued = trace["aidc/Site/queued_jobs"][:, 0, names.index("query")].sum()
    assert queued > 0
    assert priced["objective"] == pytest.approx(free["objective"] - 0.25 * queued)


@pytest.mark.long
def test_marginal_carbon_counts_where_the_weights_say_so_and_none_in_power_mode(tmp_path):
    power = figures(tmp_path, controller__mode="power", grid__lambda_kw_per_kg_h=0.0)
    work_to = power["throughput_to_per_min"] * 30.0
    assert power["objective"] == pytest.approx(0.05 * work_to / 72e6 - 0.02 * power["cost_usd"], rel=1e-9)
    joint, marginal = figures(tmp_path), figures(tmp_path, controller__reward={"carbon": "marginal"})
    assert marginal["objective"] != joint["objective"]
    assert "objective" not in figures(tmp_path, controller__reward={"carbon": "system_difference"})


def test_the_peak_is_the_highest_quarter_of_an_hour(tmp_path):
    """25 kW idle at first, 40 kW once 12 GPUs of 1 kW are busy, cooling included: all of the second quarter."""
    got = figures(tmp_path)
    assert 39.0 < got["peak_kw"] <= 40.5
    assert figures(tmp_path, until_s=60.0)["peak_kw"] == pytest.approx(25.0, abs=0.5)
