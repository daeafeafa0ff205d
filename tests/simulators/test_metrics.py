"""Figures count what lies between the end of the warm-up and the end of the run, whatever the steps."""

import pytest
from worlds import run

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override

PER_HOUR = ("co2_system_kg", "loss_kwh", "energy_kwh", "cost_usd", "co2_attributed_kg")


def figures(tmp_path, until_s, **settings):
    scenario = override(find("two_bus"), {k.replace("__", "."): v for k, v in settings.items()})
    return run(scenario, tmp_path / "t.h5", until_s=until_s, overwrite=True).digest.figures


def test_a_run_that_ends_inside_an_interval_counts_no_further(tmp_path):
    """At t = 0 the substation gives 35 kW and the losses, the turbine 50 kW: 20.5056 kg/h, for one minute."""
    minute = figures(tmp_path, 60.0)
    assert minute["co2_dispatched_kg"] == pytest.approx(20.505559 / 60, rel=1e-6)
    assert minute["energy_kwh"] == pytest.approx(25.0 / 60, rel=1e-12)


@pytest.mark.long
@pytest.mark.rows("M07")
def test_a_warm_up_cuts_an_interval_where_it_ends(tmp_path):
    """Warm-up of 10 min, then 20: the whole 30 minutes less the first 10."""
    whole, first, rest = (figures(tmp_path, s, warmup_s=w) for s, w in ((1800.0, 0), (600.0, 0), (1200.0, 600.0)))
    assert rest["co2_dispatched_kg"] == pytest.approx(whole["co2_dispatched_kg"] - first["co2_dispatched_kg"], rel=1e-9)
    for name in ("energy_kwh", "cost_usd", "co2_attributed_kg"):
        assert rest[name] == pytest.approx(whole[name] - first[name], rel=1e-9)


def test_a_class_that_can_run_nowhere_is_announced():
    scenario = override(find("ieee33"), {"shared.job_classes.llm.gpus_per_block": 1000})
    (warning,) = Experiment(scenario, "native").preflight().warnings
    assert "class llm can run nowhere: no eligible site has a block of 1000 GPUs" in warning


@pytest.mark.rows("I01", "I02", "P17", "P22")
def test_too_much_work_is_announced_before_the_run():
    digest = Experiment(override(find("ieee33"), {"workload.inf_size_scale": 1.0}), "native").preflight()
    gpus = 0.7 * (673.7 + 403.2) + 1986.6 + 6600.0  # model: GPUs needed per class, training at 0.7 of its rate
    assert digest.figures["offered_load_ratio"] == pytest.approx(gpus / 1200, rel=1e-3)
    assert any("search" in w and "above 95 %" in w for w in digest.warnings)


def test_the_summary_names_its_policy(tmp_path):
    result = run(find("two_bus"), tmp_path / "t.h5")
    assert result.digest.tables[0].title == "Jobs under policy uniform"


@pytest.mark.rows("I05", "K01", "K06")
@pytest.mark.parametrize(("blocks", "says"), [
    (5, ["class llm needs 144 min on all the GPUs that one job can use, and is due 130 min after its arrival"]),
    (6, []),  # 119.97 min
])
def test_a_class_that_nothing_can_finish_in_time_is_said_before_the_run(blocks, says):
    scenario = override(find("ieee33"), {"controller.policy": "uniform", "shared.deferrals_s": [0.0],
                                         "shared.job_classes.llm.deadline_s": "130min",
                                         "shared.job_classes.llm.max_blocks": blocks})
    warnings = Experiment(scenario, "native").preflight().warnings
    assert [warning.split(";")[0] for warning in warnings] == says


@pytest.mark.parametrize(("deadline_s", "says"), [
    (30, "its jobs will be dropped"), (60, "its jobs will be dropped"), (120, None),
    (90, "with a decision every 1 min, 50 % of its jobs will be dropped")])
def test_a_deadline_that_the_wait_for_a_decision_uses_up_is_said(deadline_s, says):
    """One job of two_bus trains for one minute, from the minute after its arrival on."""
    scenario = override(find("two_bus"), {"shared.job_classes.train.deadline_s": deadline_s})
    warnings = Experiment(scenario, "native").preflight().warnings
    assert len(warnings) == (says is not None)
    assert says is None or warnings[0].endswith(f"after its arrival; {says}")


def test_throughput_and_pue_are_told(tmp_path):
    """44 minutes of 7.2e5 TO in 45 are 0.704 M TO/min. Cooling takes a quarter of IT at all times; with
    10 kW of auxiliaries beside it PUE is 35/20 in the first minute and 50/32 from then on."""
    result = run(find("two_bus"), tmp_path / "t.h5")
    every = next(row for row in result.digest.tables[0].rows if row[0] == "all")
    assert every[6] == "0.70"
    assert result.digest.figures["pue_mean"] == pytest.approx(1.25)
    more = figures(tmp_path, None, aidc__cooling__auxiliary_kw=10.0)
    assert more["pue_mean"] == pytest.approx((35 / 20 + 44 * 50 / 32) / 45)
    assert more["energy_kwh"] / more["it_energy_kwh"] == pytest.approx((35 + 44 * 50) / (20 + 44 * 32))
