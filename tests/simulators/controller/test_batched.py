"""Many worlds at once against one after the other: the same seeds and actions, the same numbers."""

import json
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
from test_vector import random_actions

from cosim.agents.fleet.allocation import (
    deal,
    gpu_blocks,
    largest_remainder,
    largest_remainder_carry,
    project_shares,
    project_simplex,
)
from cosim.agents.fleet.decision import FleetFacts
from cosim.agents.fleet.heuristics import GpuRule, share_blocks
from cosim.agents.fleet.pooling import divide, groups, per_class, pool, sharers
from cosim.agents.learn.team import Team
from cosim.agents.learn.training import LAST, LOG
from cosim.agents.presets import PRESETS
from cosim.agents.train import main
from cosim.errors import ModelError, ScenarioError
from cosim.learning.batch import BatchEnvironments, lacking
from cosim.learning.environment import engine_of, vector_env
from cosim.learning.vector import Environments, learning_scenario
from cosim.scenario import Link, Member, override
from cosim.scenarios.ieee33 import SCENARIO as IEEE33
from cosim.scenarios.ieee33_climate import SCENARIO as CLIMATE
from cosim.scenarios.ieee33_economic import SCENARIO as ECONOMIC
from cosim.scenarios.ieee33_living import SCENARIO as LIVING
from cosim.scenarios.ieee33_power import SCENARIO as POWER
from cosim.scenarios.paper_literal import SCENARIO as LITERAL
from cosim.scenarios.two_bus import SCENARIO as TWO_BUS
from cosim.simulators.controller.batched import decisions, shares
from cosim.simulators.tariff import TimeOfUse

# --- whole things from ratios -----------------------------------------------------------------------------------------

# the parts as plain Python: what they compile to is held to the controller by whole worlds below
_SPACE = dict(vars(shares))
_SPACE |= {name: FunctionType(part.py_func.__code__, _SPACE) for name, part in vars(shares).items()
           if hasattr(part, "py_func")}
compiled = SimpleNamespace(**_SPACE)
pools_of = FunctionType(decisions._pools.py_func.__code__, vars(decisions) | _SPACE)
RNG = [np.random.default_rng(seed) for seed in range(40)]


@pytest.mark.parametrize("rng", RNG)
def test_placement_is_that_of_the_controller(rng):
    n = int(rng.integers(1, 6))
    carry, kept = [0.0] * n, np.zeros(n)
    for _ in range(30):
        raw = rng.choice([0.0, 0.25, 0.5, 1.0, -1.0, 0.1], n) if rng.random() < 0.5 else rng.random(n)
        eligible = rng.random(n) < 0.8
        eligible[rng.integers(n)] = True
        mine, counts = np.empty(n), np.empty(n, np.int64)
        compiled.project_simplex(raw, eligible, mine)
        share = project_simplex(raw.tolist(), eligible.tolist())
        assert mine.tolist() == share
        total = int(rng.choice([1, 2, 3, 7, 131]))
        fresh = np.zeros(n)
        compiled.largest_remainder(total, mine, fresh, counts)
        assert counts.tolist() == largest_remainder(total, share)
        compiled.largest_remainder(total, mine, kept, counts)
        wanted, carry = largest_remainder_carry(total, share, carry)
        assert counts.tolist() == wanted
        assert kept.tolist() == carry
        order = np.empty(total, np.int64)
        compiled.deal(counts, order)
        assert order.tolist() == deal(wanted)


@pytest.mark.parametrize("rng", RNG)
def test_gpus_are_those_of_the_rules(rng):
    n, capacity = int(rng.integers(1, 6)), int(rng.integers(1, 500))
    blocks = rng.choice([1, 2, 3, 8, 16], n)
    given = np.empty(n, np.int64)
    for _ in range(20):
        raw = rng.uniform(-0.2, 1.0, n) * rng.choice([0.2, 1.0])
        compiled.gpu_blocks(raw, capacity, blocks, given)
        assert given.tolist() == gpu_blocks(project_shares(raw.tolist()), capacity, blocks.tolist())
        room = blocks * rng.integers(0, 40, n)
        weights = rng.choice([0.0, 1.0, 2.0, 5.0], n) if rng.random() < 0.5 else rng.random(n)
        compiled.share_blocks(capacity, blocks, room, weights, given)
        assert given.tolist() == share_blocks(capacity, blocks.tolist(), room.tolist(), weights.tolist())


@pytest.mark.parametrize("rng", RNG)
def test_the_split_of_a_site_is_the_rule(rng):
    facts = FleetFacts(
        kinds=("train", "inf", "inf", "train"), gpus=(400,), to_per_gpu_min=(6e4, 2.5e5, 1e5, 6e4),
        work_to=(1.0,) * 4, deadline_s=(43200.0, 1800.0, 60.0, 43200.0), gpus_per_block=(16, 1, 3, 8),
        max_blocks=(6, 1, 1, 5), eligible=((True,),) * 4, deferrals_s=(0.0,))
    rule, train, inf = GpuRule(facts, 2.0), np.array([0, 3]), np.array([1, 2])
    drain_to = np.array([x * min(2.0, t / 120.0) * b for x, t, b in zip(
        facts.to_per_gpu_min, facts.deadline_s, facts.gpus_per_block, strict=True)])
    for _ in range(20):
        busy = rng.choice([3, 30, 150])
        running = rng.integers(0, busy, 4).astype(float)
        jobs, work_to = running + rng.integers(0, busy, 4), rng.uniform(0, 1e7, 4) * busy
        share = np.empty(4)
        compiled.rule_gpus(400, inf, train, np.array(facts.gpus_per_block), np.array(facts.max_blocks),
                           np.array(facts.to_per_gpu_min), drain_to, running, jobs, work_to, share)
        assert share.tolist() == rule(400, running.tolist(), jobs.tolist(), work_to.tolist())


@pytest.mark.parametrize("rng", RNG)
def test_a_kinds_gpus_are_divided_by_the_rule(rng):
    kinds = tuple(rng.choice(["train", "inf"], 5))
    inf = np.array([kind == "inf" for kind in kinds])
    facts = FleetFacts(
        kinds=kinds, gpus=(400,), to_per_gpu_min=tuple(rng.uniform(6e4, 2.5e5, 5)), work_to=(1.0,) * 5,
        deadline_s=(43200.0,) * 5, gpus_per_block=tuple(rng.choice([1, 3, 8, 16], 5).tolist()),
        max_blocks=tuple(np.where(inf, 1, rng.integers(1, 7, 5)).tolist()), eligible=((True,),) * 5, deferrals_s=(0.0,))
    about = [np.array(x) for x in (facts.gpus_per_block, facts.max_blocks, facts.to_per_gpu_min)]
    for _ in range(20):
        running = rng.integers(0, rng.choice([2, 40]), 5)
        jobs = running + rng.integers(0, rng.choice([2, 40]), 5)
        work_to = jobs * (rng.choice([0.0, 1e5, 2e5], 5) if rng.random() < 0.3 else rng.uniform(1e4, 1e7, 5))
        train, serve = (int(g) for g in rng.integers(0, 250, 2))
        given = np.zeros(5, np.int64)
        for gpus, members, stops in ((train, facts.train, True), (serve, facts.inf, False)):
            compiled.divide(gpus, np.array(members, int), stops, *about, running, jobs, work_to, given)
        pools = [g for g, members in ((train, facts.train), (serve, facts.inf)) if members]
        assert given.tolist() == divide(facts, pools, running.tolist(), jobs.tolist(), work_to.tolist())


@pytest.mark.parametrize("rng", RNG)
@pytest.mark.parametrize("how", ["pooled", "kinds"])
def test_a_kind_has_the_gpus_that_were_decided_for_it(how, rng):
    """Also where all classes are of one kind."""
    kinds = tuple(rng.choice(["train", "inf"] if rng.random() < 0.7 else [rng.choice(["train", "inf"])], 4))
    blocks = rng.choice([1, 3, 8, 16], 4)
    facts = FleetFacts(
        kinds=kinds, gpus=(400,), to_per_gpu_min=(6e4,) * 4, work_to=(1.0,) * 4, deadline_s=(43200.0,) * 4,
        gpus_per_block=tuple(blocks.tolist()), max_blocks=(1,) * 4, eligible=((True,),) * 4, deferrals_s=(0.0,),
        gpu_shares=how)
    rules = SimpleNamespace(train=np.array(facts.train, int), inf=np.array(facts.inf, int), blocks=blocks,
                            per_kind=how == "kinds")
    width = len(sharers(facts, kinds))
    for _ in range(20):
        row = np.append(rng.uniform(-0.2, 1.0, width) * rng.choice([0.2, 1.0]), [0.1, 21.0])  # unused, temperature
        wanted = dict(zip([kinds[g[0]] for g in groups(facts)],
                          pool(facts, per_class(facts, row[:width].tolist()), 400), strict=True))
        assert pools_of(rules, row, 400, np.zeros(4, np.int64)) == (wanted.get("train", 0), wanted.get("inf", 0))


# --- worlds -----------------------------------------------------------------------------------------------------------


def short(scenario, minutes=20, **settings):
    """A day of so many minutes, as it is learnt on."""
    return learning_scenario(override(scenario, settings).replace(until_s=60.0 * minutes))


def agree(one, other, context):
    """Of two steps, or observations: the same numbers, to 1e-9 of their size; contexts as well."""
    for name in ("observation", "reward", "credit", "by_term"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-7, err_msg=name)  # float32 has 7 digits
    for name, a in one.terms.items():
        np.testing.assert_allclose(other.terms[name], a, rtol=1e-9, atol=1e-12, err_msg=name)
    assert np.array_equal(one.truncated, other.truncated)
    np.testing.assert_allclose(context[1], context[0], rtol=1e-9, atol=1e-7)


FORECASTS = Member(simulator="cosim.simulators.forecast.adapter:Forecasts", step_s=900, entities={
    "Site": "sites", "Feeder": ["feeder"]}, params={"nci": {"kind": "day_ahead"}, "price": {"kind": "persistence"},
                                                    "load": {"kind": "persistence"}})
FORESEEN = LIVING.replace(
    shared={**LIVING.shared, "horizon_s": "12h", "horizon_step_s": "15min"}, members={
        **LIVING.members, "forecast": FORECASTS, "profile": LIVING.members["profile"].model_copy(update={
            "simulator": "cosim.simulators.profile:ForecastProfile",
            "entities": {**LIVING.members["profile"].entities, "Feeder": ["feeder"]}})},
    links=(*LIVING.links, Link(source="grid.nci_kg_per_kwh", target="forecast.nci_kg_per_kwh", pairs="sites:bus{node}"),
           Link(source="tariff.price_usd_per_kwh", target="forecast.price_usd_per_kwh"),
           Link(source="profile.p_all_kw", target="forecast.p_load_kw"),
           *(Link(source=f"forecast.{port}", target=f"controller.{port}") for port in (
               "nci_forecast_kg_per_kwh", "p_load_forecast_kw", "price_forecast_usd_per_kwh"))))
"""Forecasts of intensity, price and base load."""

CROWDED = {"controller.guard_slack_min": "null", "workload.train_rate_scale": "30"}
"""So many training jobs that each minute some are sent for now and some for later, and GPUs are short."""

VARIANTS = {
    "as it is": (IEEE33, {}),
    "fuel prices": (ECONOMIC, {}),
    "power": (POWER, {}),
    "shares of kinds": (IEEE33, {"controller.gpu_shares": "kinds", **CROWDED}),
    "two buses": (TWO_BUS, {}),
    "no memory of rounding": (IEEE33, {"controller.rounding": "stateless"}),
    "masked deferrals": (IEEE33, {"controller.long_deferrals": "mask"}),
    "deferrals as printed": (IEEE33, {"controller.long_deferrals": "as_printed"}),
    "what the paper sees": (IEEE33, {"controller.observation": "paper"}),
    "always guarded": (IEEE33, {"controller.guard_slack_min": "1440"}),
    "never guarded": (IEEE33, {"controller.guard_slack_min": "null"}),
    "all emissions": (IEEE33, {"controller.reward.carbon": "system_difference"}),
    "marginal": (IEEE33, {"controller.reward.carbon": "marginal", "grid.mci": "true"}),
    "not every site": (IEEE33, {"shared.job_classes.llm.eligible_sites": '["aidc1", "aidc3"]'}),
    "least laxity, patience": (IEEE33, {"shared.job_classes.vae.order": "llf",
                                        "shared.job_classes.search.patience": "exponential"}),
    "sources that change": (LIVING, {"controller.reward.carbon": "system_difference"}),
    "signals, sent work": (LIVING, {"controller.observation": "signals", "controller.reward.manager_credit": "sent",
                                    "controller.reward.c6_per_inf_wait_min": "1e-4",
                                    "controller.usual_shares": "clean"}),
    "marginal signals": (IEEE33, {"controller.observation": "signals", "controller.reward.manager_credit": "sent",
                                  "controller.reward.carbon": "marginal", "grid.mci": "true"}),
    "forecasts observed": (FORESEEN, {"controller.observed_forecasts": ["nci", "load"]}),
    "forecasts linked": (FORESEEN, {}),
    "around the myopic rule": (LIVING, {"controller.base_policy": "myopic_oracle",
                                        "controller.observation": "signals"}),
    "around a plan, marginal": (IEEE33, {"controller.base_policy": "mpc", "controller.reward.carbon": "marginal",
                                         "grid.mci": "true", "controller.observation": "paper",
                                         "controller.gpu_shares": "kinds"}),
    "pooled by kind": (IEEE33, {"controller.gpu_shares": "pooled", **CROWDED}),
    "pooled, guarded at times": (IEEE33, {"controller.gpu_shares": "pooled", "controller.guard_slack_min": "700"}),
    "shares of kinds, power": (POWER, {"controller.gpu_shares": "kinds", "controller.observation": "paper"}),
    "shares of kinds around a rule": (IEEE33, {"controller.gpu_shares": "kinds", "controller.base_policy": "uniform"}),
    "the study's own": (IEEE33, {**PRESETS["paper"].settings, "workload.train_rate_scale": "30"}),
    "slack that looms": (IEEE33, {"controller.reward.loom_slack_min": "800", "workload.train_rate_scale": "30"}),
    "as printed in (32)": (IEEE33, {"controller.reward.looming": "false", "controller.reward.relative": "false"}),
}


@pytest.mark.long(after=4)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.rows("L08", "L15")
def test_the_numbers_are_those_of_one_world_after_the_other(variant):
    """Over two midnights, random actions and those of a fresh policy in turn."""
    scenario, settings = VARIANTS[variant]
    scenario = short(scenario, **settings)
    one, all_at_once = (made(scenario, range(2), seed=5, split=True) for made in (Environments, BatchEnvironments))
    assert one.spec == all_at_once.spec
    assert one.credit_terms == all_at_once.credit_terms
    np.testing.assert_allclose(all_at_once.reset(), one.reset(), rtol=1e-9, atol=1e-7)
    rng, start = np.random.default_rng(0), np.repeat(one.envs[0].steering.start()[None], 2, axis=0)
    for k in range(45):
        action = start if k % 3 else random_actions(one.spec, 2, rng)
        context = [env.context(action[:, :1]) for env in (one, all_at_once)]
        step = one.step(action)
        agree(step, all_at_once.step(action), context)
        credits = np.repeat(step.reward[:, None], step.by_term.shape[1] - 1, 1) if step.credit is None else step.credit
        np.testing.assert_allclose(step.by_term.sum(axis=2), np.column_stack([step.reward, credits]), rtol=1e-5,
                                   atol=1e-7)
    one.close()
    all_at_once.close()
    compiled_for = [len(entry.signatures) for entry in (decisions.place, decisions.operate, decisions.look)]
    assert compiled_for == [1, 1, 1], "arrays of another type or order in memory, for which all is compiled again"


@pytest.mark.parametrize("scenario", [IEEE33, LIVING], ids=["ieee33", "sources that change"])
def test_staggered_twins_are_those_of_one_world_after_the_other(scenario):
    """Over a midnight, and with what they meet from outside taken up again from a state."""
    scenario = short(scenario)
    given = {"indices": range(1, 5), "seed": 2, "stagger_over": 4, "twins": 2}  # the first has its twin elsewhere
    one, all_at_once = Environments(scenario, **given), BatchEnvironments(scenario, **given)
    np.testing.assert_allclose(all_at_once.reset(), one.reset(), rtol=1e-9, atol=1e-7)
    rng = np.random.default_rng(1)
    for k in range(25):
        action = random_actions(one.spec, 4, rng)
        agree(one.step(action), all_at_once.step(action), [env.context(action[:, :1]) for env in (one, all_at_once)])
        if k in (8, 16):
            state = all_at_once.state()
            all_at_once.close()
            all_at_once = BatchEnvironments(scenario, **given)
            all_at_once.restore(state)
    one.close()
    all_at_once.close()


def test_twins_ask_once_for_what_they_meet_from_outside(monkeypatch):
    asked = []
    advance = TimeOfUse.advance
    monkeypatch.setattr(TimeOfUse, "advance", lambda self, *given: asked.append(given[0]) or advance(self, *given))
    env = BatchEnvironments(short(IEEE33), range(6), seed=3, twins=3)
    env.reset()
    asked.clear()
    env.step(np.repeat(env._batch.steering.start()[None], 6, axis=0))
    assert asked == [60.0, 60.0]
    env.close()


@pytest.mark.long(after=1)
@pytest.mark.parametrize("steps", [0, 7, 33])
def test_a_saved_state_goes_on_bit_for_bit_whoever_shares_the_environments(steps):
    """In the first day or the second; into one set of environments, and into two with an odd one each."""
    scenario, rng = short(IEEE33), np.random.default_rng(3)
    env = BatchEnvironments(scenario, range(3), seed=1, stagger_over=3)
    seen = env.reset()
    for _ in range(steps):
        seen = env.step(random_actions(env.spec, 3, rng)).observation
    state = env.state()
    assert all(array.dtype.kind in "biuf" for array in state.values())
    others = [BatchEnvironments(scenario, indices, seed=9) for indices in (range(3), range(0, 3, 2), range(1, 3, 2))]
    for other in others:
        assert np.array_equal(other.restore(state), seen[other._indices])
    for _ in range(25):
        action = random_actions(env.spec, 3, rng)
        wanted = env.step(action)
        for other in others:
            got = other.step(action[other._indices])
            assert np.array_equal(got.observation, wanted.observation[other._indices])
            assert np.array_equal(got.reward, wanted.reward[other._indices])
    state.pop("2/sent")
    with pytest.raises(ScenarioError, match="no environment 2"):
        others[0].restore(state)


@pytest.mark.long
def test_workers_share_them_out():
    scenario = override(IEEE33, {}).replace(until_s=1200.0)
    alone, shared = (vector_env(scenario, 3, workers, seed=4, engine="compiled", split=True) for workers in (0, 2))
    try:
        assert np.array_equal(alone.reset(), shared.reset())
        rng = np.random.default_rng(2)
        for k in range(24):
            action = random_actions(alone.spec, 3, rng)
            assert np.array_equal(alone.context(action[:, :1]), shared.context(action[:, :1]))
            a, b = alone.step(action), shared.step(action)
            assert np.array_equal(a.observation, b.observation)
            assert np.array_equal(a.reward, b.reward)
            assert np.array_equal(a.by_term, b.by_term)
            if k == 10:
                assert np.array_equal(shared.restore(alone.state()), a.observation)
    finally:
        shared.close()


@pytest.mark.long
def test_training_gives_the_same_log_and_goes_on(tmp_path):
    def rewards(folder):
        return [json.loads(line)["reward"] for line in (folder / LOG).read_text().splitlines()]

    given = ["two_bus", "--envs", "2", "--workers", "0", "--set", "learn.rollout_steps=4", "--set", "learn.width=16"]
    for engine, count in (("simpy", 2), ("auto", 1)):
        assert main([*given, "--engine", engine, "--updates", str(count), "--out", str(tmp_path / engine)]) == 0
    assert main(["--resume", str(tmp_path / "auto"), "--updates", "2"]) == 0
    assert rewards(tmp_path / "auto") == pytest.approx(rewards(tmp_path / "simpy"), rel=1e-6)
    assert Team.extras(tmp_path / "auto" / LAST)[1]["request"]["engine"] == "compiled"


# --- what it cannot do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "settings", "what"), [
    (LITERAL, {}, "aidc is no DataCenters"), (CLIMATE, {}, "aidc.thermal = first_order"),
    (IEEE33, {"controller.spare_gpus": "inference"}, "controller.spare_gpus = inference"),
    (IEEE33, {"aidc.rack_mean_up_s": "10d"}, "aidc.rack_mean_up_s = 864000"),
    (IEEE33, {"aidc.ambient": '{"wet_bulb_mean_degc": 15}'}, "aidc.ambient")])
def test_what_is_beyond_it_is_named(scenario, settings, what):
    scenario = override(scenario, settings)
    assert lacking(learning_scenario(scenario))[0].startswith(what)
    assert engine_of(scenario)[0] == "simpy"
    assert engine_of(scenario)[1].startswith(what)
    with pytest.raises(ScenarioError, match=f"cannot be learnt on many worlds at once: {what}.*simpy"):
        vector_env(scenario, 2, workers=0, engine="compiled")


def test_forecasts_that_only_a_base_policy_reads_are_named():
    scenario = override(FORESEEN, {"controller.base_policy": "mpc"})
    assert lacking(learning_scenario(scenario))[0] == (
        "controller.nci_forecast_kg_per_kwh is linked, of which controller.base_policy has no use there")


def test_a_link_that_it_does_not_know_is_named():
    links = tuple(link for link in IEEE33.links if link.target != "controller.slack_min")
    assert lacking(learning_scenario(IEEE33.replace(links=links))) == ["controller.slack_min is not linked"]
    assert engine_of(IEEE33) == ("compiled", "")


def test_an_engine_that_does_not_exist_is_named():
    with pytest.raises(ScenarioError, match="unknown engine 'compile'; did you mean 'compiled'"):
        vector_env(TWO_BUS, 1, workers=0, engine="compile")


def test_actions_that_are_no_numbers_are_refused():
    env = BatchEnvironments(short(TWO_BUS), range(1), seed=0)
    env.reset()
    action = env._batch.steering.start()[None].copy()
    action[0, -1, 0] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        env.step(action)
    with pytest.raises(ModelError, match="not finite"):
        env.context(np.full((1, 1, action.shape[2]), np.inf))
