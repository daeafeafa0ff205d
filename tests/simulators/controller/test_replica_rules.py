"""Rules that act on replicas: the autoscaler's grants by hand, and by intervention on days that differ in it alone."""


from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.agents.fleet.autoscaling import replicas_wanted, with_replicas
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.serving import serving_figures
from cosim.trace import Trace

QUIET = {"grid.ac_check": False, "workload.day_factors": [1.0], "workload.train_rate_scale": 0.0,
         "controller.policy": "uniform"}
UNTIL_S = 300.0


@pytest.mark.parametrize(("requests", "batch", "target", "least", "replicas"), [
    (0, 10, 0.5, 0, 0), (0, 10, 0.5, 2, 2), (1, 10, 0.5, 0, 1), (5, 10, 0.5, 0, 1), (6, 10, 0.5, 0, 2),
    (100, 10, 1.0, 0, 10), (101, 10, 1.0, 0, 11)])
def test_replicas_by_hand(requests, batch, target, least, replicas):
    assert replicas_wanted(requests, batch, target, least) == replicas


def test_what_replicas_leave_goes_to_the_others():
    """40 GPUs: 16 for replicas of 4, then an inference class, then training of which two blocks of 8 fit no more."""
    assert with_replicas([4, 6, 24], {0: 16}, 40, [4, 1, 8], [2]) == [16.0, 6.0, 16.0]
    assert with_replicas([4, 6, 24], {0: 400}, 40, [4, 1, 8], [2]) == [40.0, 0.0, 0.0]
    assert with_replicas([4, 6, 24], {0: 0}, 40, [4, 1, 8], [2]) == [0.0, 6.0, 24.0]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 200), st.lists(st.integers(0, 12), min_size=3, max_size=3), st.integers(0, 30))
def test_no_gpu_is_given_twice(capacity, granted, wanted):
    blocks = [4, 1, 8]
    gpus = [float(n * b) for n, b in zip(granted, blocks, strict=True)]
    out = with_replicas(gpus, {0: 4 * wanted}, capacity, blocks, [2])
    assert sum(out) <= capacity
    assert all(g % b == 0 for g, b in zip(out, blocks, strict=True))
    assert out[0] == min(4 * wanted, 4 * (capacity // 4))
    assert out[1] <= gpus[1]
    assert out[2] <= gpus[2]


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Replicas filled to a twentieth and to nine tenths, and batches of two at most."""
    folder = tmp_path_factory.mktemp("rules")
    given = {"idle": {"controller.autoscale.target_ratio": 0.05}, "full": {"controller.autoscale.target_ratio": 0.9},
             "small": {"controller.autoscale.target_ratio": 0.9, "controller.max_batch": {"chat": 2}}}
    for name, more in given.items():
        Experiment(override(find("llm_day"), QUIET | more), "native", UNTIL_S, folder / f"{name}.h5").run()
    with ExitStack() as open_ones:
        yield {name: open_ones.enter_context(Trace(folder / f"{name}.h5")) for name in given}


def figure(trace, name="reasoning"):
    return next(f for f in serving_figures(trace) if (f.job_class, f.site) == (name, None))


@pytest.mark.long
def test_a_lower_target_keeps_more_replicas_on_for_faster_tokens(days):
    """The same requests: more replicas at a lower target, and emptier ones: tokens come faster and cost more."""
    idle, full = figure(days["idle"]), figure(days["full"])
    assert idle.requests == full.requests > 0
    mean = {name: trace["aidc/Site/replicas"][:, :, 1].mean() for name, trace in days.items()}
    assert mean["idle"] > 1.5 * mean["full"]
    assert idle.tpot_s[0] < full.tpot_s[0]
    assert idle.joules_per_token > full.joules_per_token


def test_grants_are_the_rule_s(days):
    """Every minute's grant is the least number of replicas that the requests seen before it fill to the target."""
    trace, m, block = days["idle"], 1, 8
    serving = resolve(find("llm_day"), 60.0).params["aidc"].job_classes["reasoning"].serving
    inside = trace["aidc/Site/queued_jobs"][:-1, :, m] + trace["aidc/Site/running_jobs"][:-1, :, m]
    wanted = np.maximum(np.ceil(inside / (0.05 * serving.full_batch) - 1e-9), 1)
    granted = trace["controller/Agent/gpus"][1:, :, m] / block
    assert (granted == np.minimum(wanted, 128 // block)).mean() > 0.9  # where the three classes fit on the site
    assert (granted <= wanted).all()


def test_batches_are_as_commanded(days):
    """At most two requests of chat run on a replica, at no minute's end more; other classes are as they were."""
    trace = days["small"]
    assert (trace["aidc/Site/running_jobs"][:, :, 0] <= 2 * trace["aidc/Site/replicas"][:, :, 0]).all()
    assert trace["aidc/Site/replicas"][:, :, 0].sum() > days["full"]["aidc/Site/replicas"][:, :, 0].sum()
    commanded = trace["controller/Agent/max_batch"]
    assert (commanded[:, :, 0] == 2).all()
    assert np.isnan(commanded[:, :, 1:]).all()
    assert not days["full"].has("controller/Agent/max_batch")
    assert not verify(trace).broken


def test_the_largest_batch_within_the_service_level():
    """Of an iteration with typical requests; a request more in the batch breaks it, or the class has no more."""
    scenario = override(find("llm_day"), {"controller.max_batch": {"reasoning": "slo", "code": "slo"}})
    classes = resolve(scenario, 60.0).params["controller"].job_classes
    for name in ("reasoning", "code"):
        serving = classes[name].serving
        context, batch = serving.input_tokens + serving.output_tokens / 2, serving.slo_batch
        assert serving.the_curve.iteration_s(batch, context) <= serving.slo_tpot_s
        assert batch == serving.max_batch or serving.the_curve.iteration_s(batch + 1, context) > serving.slo_tpot_s


@pytest.mark.parametrize(("scenario", "given", "said"), [
    ("ieee33", {"controller.autoscale.target_ratio": 0.5}, "no class is of kind llm"),
    ("llm_day", {"controller.autoscale.target_ratio": 0.0}, "greater than 0"),
    ("llm_day", {"controller.max_batch": {"chat": 1000}}, "more than the class's own max_batch = 256"),
    ("llm_day", {"controller.max_batch": {"chat": 0}}, "max_batch.chat"),
    ("llm_day", {"controller.max_batch": {"fine_tuning": 4}}, "'fine_tuning'"),
    ("llm_day", {"controller.max_batch": {"chat": "slo"}, "shared.job_classes.chat.serving.slo_tpot_s": None},
     "has no slo_tpot_s"),
])
def test_rules_that_cannot_be_are_refused_in_one_line(scenario, given, said):
    with pytest.raises(ScenarioError) as refused:
        resolve(override(find(scenario), given), 60.0)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
