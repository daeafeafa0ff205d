"""The study's scenarios as something to learn on: contexts, rewards and states against the closed loop itself."""

import numpy as np
import pytest
from test_vector import random_actions

from cosim.agents.fleet.heuristics import PolicyOptions
from cosim.agents.fleet.policies import make_policy
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.learning.environment import vector_env
from cosim.learning.vector import Environment, learning_scenario
from cosim.scenario import override
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.scenarios.ieee33_power import SCENARIO as POWER
from cosim.scenarios.two_bus import SCENARIO as TWO_BUS
from cosim.trace import Trace


def environment(scenario, lean=True):
    return Environment(resolve(learning_scenario(scenario, lean)), seed=0)


@pytest.mark.parametrize("rounding", ["carry", "stateless"])
@pytest.mark.rows("L08", "L10", "U22")
def test_the_context_is_what_the_step_then_executes(rounding):
    env, rng = environment(override(IEEE33, {"controller.rounding": rounding})), np.random.default_rng(0)
    controller, differs = env.steering.controller, False
    for _ in range(40):
        action = random_actions(env.steering.spec, 1, rng)[0]
        first = env.steering.context(action[:1])
        other = env.steering.context(random_actions(env.steering.spec, 1, rng)[0][:1])
        assert np.array_equal(env.steering.context(action[:1]), first)
        told, work = controller.pipeline.place(env.steering._situation, action[0, :12].reshape(4, 3).tolist()).totals
        env.step(action)
        sent = controller.get_data({site: ["allocated_jobs", "jobs"] for site in ("aidc1", "aidc2", "aidc3")})
        assert [sent[site]["allocated_jobs"] for site in sent] == told
        assert [sum(sent[site]["jobs"].get("work_to", [])) for site in sent] == pytest.approx(list(map(sum, work)))
        differs = differs or not np.array_equal(first, other)
    assert differs  # other shares, another context
    assert not first[0].any()


def test_what_is_left_out_in_training_changes_nothing():
    """AC check, mci and job log off and on: the same observations, contexts and rewards, two dispatches long."""
    scenario, rng = override(IEEE33, {"grid.solver": "clarabel"}), np.random.default_rng(1)
    lean, whole = environment(scenario), environment(scenario, lean=False)
    assert lean._world.simulators["grid"].params.ac_check is False
    assert whole._world.simulators["grid"].params.ac_check is True
    for _ in range(31):
        action = random_actions(lean.steering.spec, 1, rng)[0]
        assert np.array_equal(lean.steering.context(action[:1]), whole.steering.context(action[:1]))
        assert lean.step(action) == whole.step(action)
        assert np.array_equal(lean.observation, whole.observation)


@pytest.mark.rows("L05", "L15", "R03")
def test_a_rule_steered_by_its_own_decisions_is_the_run_itself(tmp_path):
    """With the rule in the place of the learner, the environment is the run: the terms are those of its trace."""
    scenario = override(IEEE33.replace(until_s="1h"), {"grid.solver": "clarabel", "controller.policy": "nci_priority"})
    out = tmp_path / "run.h5"
    Experiment(scenario, "native", out=out).run()
    env = Environment(resolve(learning_scenario(scenario)), seed=scenario.seed)
    controller = env.steering.controller
    controller.policy = make_policy("nci_priority", controller.facts, PolicyOptions(), np.random.default_rng(0))
    terms = []
    for _ in range(60):
        _, values, *_ = env.step(np.zeros(env.shape, np.float32))
        terms.append(dict(zip(env.steering.terms, values, strict=True)))
    with Trace(out) as trace:
        p_kw, work, nci, price, emission = (trace[path] for path in (
            "aidc/Site/p_kw", "aidc/Site/work_to", "grid/Bus/nci_kg_per_kwh", "tariff/Tariff/price_usd_per_kwh",
            "grid/Grid/emission_kg_per_h"))
    nci, price, emission = nci[:, [8, 28, 32]].repeat(15, axis=0), price[:, 0], emission[:, 0].repeat(15)
    expected = {"energy_kwh": p_kw.sum(1) / 60, "cost_usd": p_kw.sum(1) / 60 * price, "work_to": work.sum((1, 2)),
                "carbon_t": (p_kw * nci).sum(1) / 60 / 1000, "system_t": emission / 60 / 1000}
    for name, values in expected.items():
        np.testing.assert_allclose([t[name] for t in terms], values, rtol=1e-12, err_msg=name)


@pytest.mark.rows("B08", "I22")
def test_power_mode_sees_and_pays_no_carbon():
    env = environment(POWER)
    spec = env.steering.spec
    assert not [c.name for kind in spec.types.values() for c in kind.observation if "nci" in c.name]
    rng = np.random.default_rng(2)
    for _ in range(3):  # until there is work
        _, values, *_ = env.step(random_actions(spec, 1, rng)[0])
    terms, weights = dict(zip(env.steering.terms, values, strict=True)), env.steering.params.reward
    assert min(terms["carbon_t"], terms["throughput_ratio"]) > 0.0
    assert terms["objective"] == pytest.approx(
        weights.c1_per_reference * terms["throughput_ratio"] - 0.02 * terms["cost_usd"])


def test_the_system_difference_is_a_dispatch_less_one_without_data_centers():
    """By hand on two_bus, first interval: one data center of 20 kW idle, whose cooling adds a quarter: 25 kW, 5 kvar.
    The turbine (0.2 kg/kWh) gives 50 of the 60 + 25 kW, so all of the 25 kW and their loss come from the substation
    at 0.3 kg/kWh: about 7.5 kg/h, 0.125 kg in the minute."""
    env = environment(override(TWO_BUS, {"controller.reward.carbon": "system_difference"}))
    _, values, *_ = env.step(random_actions(env.steering.spec, 1, np.random.default_rng(0))[0])
    terms = dict(zip(env.steering.terms, values, strict=True))
    assert terms["carbon_t"] == pytest.approx(0.3 * 25.0 / 60 / 1000, rel=0.01)
    base = env._world.simulators["grid_without_aidc"].get_data({"grid": ["p_source_kw"]})["grid"]["p_source_kw"]
    assert sum(base) == pytest.approx(60.0, rel=1e-3)


def test_marginal_carbon_shows_and_charges_mci():
    """two_bus: the next kWh comes from the substation, 0.3 kg, and a little loss; the site's own is 0.25 on average."""
    env = environment(override(TWO_BUS, {"controller.reward.carbon": "marginal"}))
    assert "mci_kg_per_kwh" in [c.name for c in env.steering.spec.types["site"].observation]
    _, values, *_ = env.step(random_actions(env.steering.spec, 1, np.random.default_rng(0))[0])
    terms = dict(zip(env.steering.terms, values, strict=True))
    assert terms["carbon_t"] == pytest.approx(0.3 * terms["energy_kwh"] / 1000, rel=0.01)
    assert terms["attributed_t"] < 0.9 * terms["carbon_t"]


@pytest.mark.rows("M02")
def test_weights_and_states_are_settings():
    """With c1 = 0 and c2 = 1 the reward is the cost; the paper's states have 22 and 18 columns (time takes two)."""
    env = environment(override(IEEE33, {"controller.reward.c1_per_reference": 0, "controller.reward.c2_per_usd": 1,
                                        "controller.reward.c3_per_t": 0, "controller.observation": "paper",
                                        "controller.reward.relative": False}))
    assert [len(kind.observation) for kind in env.steering.spec.types.values()] == [22, 18]
    reward, values, *_ = env.step(env.steering.start())
    terms = dict(zip(env.steering.terms, values, strict=True))
    assert reward == terms["objective"] == -terms["cost_usd"]


def test_what_is_learned_from_is_relative_to_the_hour():
    """Offered: 925.5 GPUs of 0.7 kW and 300 kW idle, with a quarter for cooling 1185 kW; at midnight's 0.1 USD/kWh a
    minute of it costs 1.975 USD, 0.0395 of the reward's units, which every policy is given back."""
    env = environment(IEEE33)
    reward, values, *_ = env.step(env.steering.start())
    assert reward - dict(zip(env.steering.terms, values, strict=True))["objective"] == pytest.approx(0.0395, rel=2e-3)


def test_what_is_charged_for_looming_drops_is_what_looms():
    """An hour in which all training jobs get the longest deferral, 600 of the 720 minutes from their arrival, and need
    120: decided up to a minute later they are late at once, and the rewards differ from (32) by c4 each."""
    env = environment(override(IEEE33, {"controller.reward.relative": False, "controller.reward.c4_per_train_job": 2,
                                        "controller.long_deferrals": "as_printed"}))
    late, deferred, charged = an_hour_of_the_longest_deferral(env)
    assert late == deferred > 0
    assert charged == pytest.approx(2 * late)


def test_a_learner_that_always_takes_the_longest_deferral_makes_no_job_late():
    """They are released just in time, and so are urgent: a tenth of c4 each."""
    late, deferred, charged = an_hour_of_the_longest_deferral(
        environment(override(IEEE33, {"controller.reward.relative": False})))
    assert late == 0 < deferred
    assert charged == pytest.approx(0.1 * deferred)


def test_what_is_charged_for_slack_is_what_training_is_short_of():
    """An hour in which all training waits: from 1440 minutes, where there is none, to what is left at each site, of
    which 1300 are asked for; a job of mean size takes 400 GPUs 20 minutes (llm 11 517 GPU-minutes, vae 4800)."""
    env = environment(override(IEEE33, {"controller.reward.relative": False, "controller.reward.loom_slack_min": 1300,
                                        "controller.guard_slack_min": "null"}))
    late, deferred, charged = an_hour_of_the_longest_deferral(env)
    facts, slack_min = env.steering.facts, env.steering._seen.slack_min
    job_gpu_min = np.mean([facts.work_to[m] / facts.to_per_gpu_min[m] for m in facts.train])
    short = sum(gpus / job_gpu_min * (1300.0 - left) for gpus, left in zip(facts.gpus, slack_min, strict=True))
    assert late == 0
    assert max(slack_min) < 1300.0
    assert charged == pytest.approx(0.1 * deferred + short, rel=1e-6)


@pytest.mark.parametrize(("fields", "without", "says"), [
    ({"controller.reward.looming": False}, (), "loom_slack_min = 60 is a part of what looms"),
    ({}, ("controller.slack_min",), "needs slack_min of aidc, which is not linked"),
])
def test_slack_that_looms_has_to_be_known(fields, without, says):
    links = tuple(link for link in IEEE33.links if link.target not in without)
    with pytest.raises(ScenarioError, match=says):
        environment(override(IEEE33.replace(links=links), {"controller.reward.loom_slack_min": 60, **fields}))


def test_drops_that_nobody_tells_the_controller_of_do_not_loom():
    """They were charged anew in every minute: after it they were known to the reward, before it not to the agents."""
    links = tuple(link for link in IEEE33.links if not link.target.endswith((".late_jobs", ".urgent_jobs")))
    env = environment(override(IEEE33.replace(links=links), {"controller.reward.relative": False}))
    late, deferred, charged = an_hour_of_the_longest_deferral(env)
    assert charged == pytest.approx(0.0)
    assert late == 0 < deferred


def an_hour_of_the_longest_deferral(env):
    """Late and deferred jobs after it, and what the rewards differ from (32) by."""
    action = env.steering.start()
    action[1:, :12] = 0.0
    action[1:, [5, 11]] = 1.0
    charged = 0.0
    for _ in range(60):
        reward, values, *_ = env.step(action)
        charged += dict(zip(env.steering.terms, values, strict=True))["objective"] - reward
    seen = env.steering._seen
    return *(sum(sum(row) for row in rows) for rows in (seen.late_jobs, seen.deferred_jobs)), charged


@pytest.mark.parametrize("fields", [{}, {"controller.mode": "power", "grid.lambda_kw_per_kg_h": 0.0},
                                    {"controller.reward.carbon": "marginal"},
                                    {"controller.reward.relative": False, "controller.reward.looming": False}])
def test_what_sites_are_credited_with_is_the_whole_reward(fields):
    """The manager is credited with all of it, the sites with parts that sum to it, drops and what looms included; each
    is the sum of its terms, and no carbon counts where none is shown."""
    env, rng = environment(override(IEEE33, fields)), np.random.default_rng(3)
    for _ in range(40):
        reward, _, credit, _ = env.step(random_actions(env.steering.spec, 1, rng)[0])
        assert credit[0] == reward
        assert sum(credit[1:]) == pytest.approx(reward, rel=1e-9, abs=1e-12)
        split = np.array(env.steering.by_term())
        assert split.sum(axis=1) == pytest.approx([reward, *credit], rel=1e-9, abs=1e-12)
        assert split.shape == (5, len(env.steering.credit_terms))
    assert ("carbon_t" in env.steering.credit_terms) == ("controller.mode" not in fields)


def test_a_manager_credited_with_what_it_sends_pays_for_it_then_and_not_when_it_is_done():
    """Beyond the reward: a third of what arrived at each site, less what each did, both at what a TO is worth there and
    then: c1 = 0.05 per 72e6 TO less its energy, 1.25 kw_per_to_s / 3600, at 0.02 per USD and 1 per t."""
    env = environment(override(IEEE33, {"controller.reward.manager_credit": "sent"}))
    action, steering = env.steering.start(), env.steering
    classes, sites = steering.params.job_classes.values(), list(steering.params.sites)
    for _ in range(30):
        seen, nci = steering._seen, steering._intensities[0]
        reward, _, credit, _ = env.step(action)
        did = env._world.simulators["aidc"].get_data({site: ["work_to"] for site in sites})
        beyond = sum((seen.arrivals_work_to[m] / 3 - did[site]["work_to"][m])
                     * (0.05 / 72e6 - 1.25 * of_class.kw_per_to_s / 3600
                        * (0.02 * seen.price_usd_per_kwh + nci[i] / 1e3))
                     for i, site in enumerate(sites) for m, of_class in enumerate(classes))
        assert credit[0] - reward == pytest.approx(beyond, rel=1e-6, abs=1e-9)


def test_no_site_is_credited_with_what_the_whole_system_emits():
    env = environment(override(IEEE33, {"controller.reward.carbon": "system_difference"}))
    assert env.step(env.steering.start())[2] is None


def test_mci_priority_runs_and_sends_jobs_where_the_margin_is_clean():
    scenario = override(IEEE33, {"controller.policy": "mci_priority"})
    controllers = resolve(scenario).params["controller"]
    assert controllers.policy == "mci_priority"
    with pytest.raises(Exception, match="hears none: --set grid.mci=true"):
        Experiment(override(scenario, {"grid.mci": False}), "native", until_s=60).run()
    Experiment(scenario, "native", until_s=60).run()


def test_what_cannot_be_steered_is_said():
    with pytest.raises(ScenarioError, match="has no members controller and aidc"):
        vector_env(TWO_BUS.replace(members={"profile": TWO_BUS.members["profile"]}, links=[]), workers=0)
    foreign = TWO_BUS.members["grid"].model_copy(update={"simulator": "cosim.simulators.grid.ac:AcPowerFlow"})
    with pytest.raises(ScenarioError, match="needs the dispatch with and without data centers"):
        vector_env(override(TWO_BUS.replace(members={**TWO_BUS.members, "grid": foreign}),
                            {"controller.reward.carbon": "system_difference"}), workers=0)
    with pytest.raises(ScenarioError, match="controller.mode = power leaves carbon out, .*lambda_kw_per_kg_h=0"):
        vector_env(override(TWO_BUS, {"controller.mode": "power"}), workers=0)
    with pytest.raises(ScenarioError, match="reward.carbon"):
        vector_env(override(TWO_BUS, {"controller.reward.carbon": "average"}), workers=0)
