"""A team that learns what a policy does: lessons are that policy's decisions, taught draws make the taught actions,
likelihood rises and nothing of exploration does; and a training that begins where another team is."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teams import Follow, mixed_team

from cosim.agents.fleet.actions import decision_of, leader_row, site_rows
from cosim.agents.learn.config import Learning
from cosim.agents.learn.ppo import imitation, prepare
from cosim.agents.learn.team import Team
from cosim.agents.learn.training import Training, TrainingPlan
from cosim.agents.together import begun
from cosim.agents.train import main
from cosim.errors import ScenarioError
from cosim.learning.environment import some_of, vector_env
from cosim.learning.vector import learning_scenario
from cosim.request import find
from cosim.scenario import override


class Taught(Follow):
    """`Follow` with a teacher that always does the same."""

    LEAD = (0.25, 0.0, 0.75, 0.1, 0.2, 0.3, 0.4)
    SITE = (0.2, 0.3, 0.5, 22.0, 2.0)

    def lesson_lead(self):
        return np.tile(np.array(self.LEAD, np.float32), (self.n_envs, 1, 1))

    def lesson(self, leaders_action):
        rows = np.zeros((self.n_envs, 3, 7), np.float32)
        rows[:, 0] = leaders_action[:, 0]
        rows[:, 1:, :5] = self.SITE
        return rows


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), simplex=st.sampled_from(["gaussian", "dirichlet"]))
def test_taught_draws_are_those_of_the_action(seed, simplex):
    """What a team draws makes an action, and that action leads back to the draw, of every kind of part."""
    team = Team(mixed_team(), Learning(simplex=simplex, std_start=0.3), seed)
    rng = np.random.default_rng(seed)
    seen = 0.05 * rng.normal(size=(3, 5, 7)).astype(np.float32)  # so that no share is below a hundredth
    step, _ = team.act(seen, lambda lead: np.zeros((3, 5, 2), np.float32))
    back = team.taught(seen, step.action)
    assert back.raw == pytest.approx(step.raw, abs=2e-3)
    assert np.array_equal(back.action, step.action)


def test_shares_of_nothing_are_taken_for_a_hundredth():
    """Of (1, 0): logits log 1 and log 0.01, apart by 4.6, over sqrt 2 in the basis; an interval's end is 99 %."""
    team = Team(mixed_team(), Learning(), 0)
    action = np.zeros((1, 5, 7), np.float32)
    action[0, 0, :7] = (1.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25)
    action[0, 2, 0] = 1.0  # the shed's level, from -1 to 1
    raw = team.taught(np.zeros((1, 5, 7), np.float32), action).raw
    assert abs(raw[0, 0, 0]) == pytest.approx(np.log(100.0) / np.sqrt(2.0), rel=1e-5)
    assert raw[0, 2, 0] == pytest.approx(np.log(99.0), rel=1e-4)


def test_a_lesson_makes_what_was_taught_likelier_and_leaves_exploration(tmp_path):
    env = Taught(n_envs=4)
    team = Team(env.spec, Learning(rollout_steps=8, twins=1, learning_rate=1e-3), 0)
    training = Training(team, env, TrainingPlan(tmp_path, 1000, updates=6))
    training.begin()
    stds = [a.log_std.detach().clone() for a in team.network.actions]
    losses = []

    def seen(record):
        losses.append(record["policy_loss"])

    training.run(seen)
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(a.log_std, std) for a, std in zip(team.network.actions, stds, strict=True))


def test_the_gradient_of_a_lesson_is_that_of_the_likelihood():
    """Against differences: a step along the gradient of one weight changes the loss by as much."""
    env = Taught(n_envs=2)
    team = Team(env.spec, Learning(rollout_steps=3, twins=1, value_weight=0.0), 1)
    rollout, seen = team.rollout(2), env.reset()
    for _ in range(3):
        lead = env.lesson_lead()
        step, told = team.taught(seen, env.lesson(lead)), env.context(lead)
        outcome = env.step(step.action)
        rollout.add(seen, told, step, outcome, team.value(outcome.final_observation))
        seen = outcome.observation
    rollout.end(team.value(seen))
    batch = prepare(rollout, team.config, team.scale, team.network, team.device)
    total, figures = imitation(team.network, batch, team.config)
    log_prob, _, _ = team.network.scores(batch.observation, batch.context, batch.raw, batch.order)
    assert total.item() == pytest.approx(-log_prob.mean().item(), rel=1e-6)
    assert figures["policy_loss"].item() == total.item()


@pytest.mark.parametrize("policy", ["uniform", "nci_priority", "myopic_oracle"])
def test_lessons_are_the_policys_decisions(policy):
    """Minute by minute, what a second policy of that name decides from what the controller observes."""
    scenario = learning_scenario(override(find("ieee33"), {"until_s": 600.0, "controller.policy": "uniform"}))
    env = some_of(scenario, range(1), "simpy", seed=3, teacher=policy)
    try:
        env.reset()
        steering = env.envs[0].steering
        other = steering.teacher(policy)
        for _ in range(9):
            lead = env.lesson_lead()
            action = env.lesson(lead)
            share = other.place(steering._seen)
            assert lead[0, 0, :12] == pytest.approx(leader_row(share), abs=1e-6)
            placed = steering.controller.pipeline.place(steering._situation, steering._split_shares(
                lead[0, 0].tolist()))
            operation = other.operate(steering._seen, *placed.totals)
            decision = decision_of(steering.facts, action[0].tolist())
            assert np.allclose(decision.operation.gpu_share, operation.gpu_share, atol=1e-6)
            assert np.allclose(decision.operation.deferral_share, operation.deferral_share, atol=1e-6)
            assert np.allclose(decision.operation.supply_temp_degc, operation.supply_temp_degc, atol=1e-5)
            assert [sum(row[12:17]) for row in site_rows(steering.facts, operation)] == pytest.approx([1.0] * 3)
            env.step(action)
    finally:
        env.close()


def test_a_team_begins_where_another_is(tmp_path):
    spec = mixed_team()
    first, second = Team(spec, Learning(std_start=0.4), 0), Team(spec, Learning(std_start=0.2, std_end=0.1), 5)
    first.scale.update(np.full((4, 2, 5), 3.0, np.float32))
    first.save(tmp_path / "first.safetensors")
    seen = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)

    def acts(team):
        return team.act(seen, lambda lead: np.zeros((2, 5, 2), np.float32), deterministic=True)[0]

    assert not np.allclose(acts(first).action, acts(second).action, atol=1e-3)
    begun(second, str(tmp_path / "first.safetensors"))
    assert np.array_equal(acts(first).action, acts(second).action)
    assert np.array_equal(acts(first).value, acts(second).value)
    assert [a.std()[0].mean().item() for a in second.network.actions] == pytest.approx([0.2] * 3)
    wider = Team(spec, Learning(width=32), 0)
    with pytest.raises(ScenarioError):
        begun(wider, str(tmp_path / "first.safetensors"))
    with pytest.raises(ScenarioError, match="does not fit: it has the agents"):
        begun(Team(Follow().spec, Learning(), 0), str(tmp_path / "first.safetensors"))


@pytest.mark.parametrize(("options", "said"), [
    (["--teacher", "ieee33_mat"], "is a team; a training begins where one is by --start"),
    (["--teacher", "uniform", "--engine", "compiled"], "decides on SimPy; leave --engine out"),
    (["--teacher", "unifrm", "--envs", "4"], "unknown policy 'unifrm'; did you mean 'uniform'"),
    (["--start", "uniform"], "is no checkpoint and no team that ships"),
    (["--teacher", "uniform", "--method", "transformer", "--set", "learn.history_steps=4"],
     "leave learn.history_steps at 1")])
def test_a_teacher_or_a_start_that_cannot_be_is_one_line(options, said, capsys, tmp_path):
    assert main(["two_bus", *options, "--updates", "1", "--workers", "0", "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.long
def test_taught_then_trained_by_one_command_each(tmp_path, capsys):
    taught, own = tmp_path / "taught", tmp_path / "own"
    small = ["two_bus", "--envs", "4", "--set", "learn.rollout_steps=8", "--updates", "2"]
    assert main([*small, "--teacher", "nci_priority", "--workers", "2", "--out", str(taught)]) == 0
    assert main([*small, "--start", str(taught / "last.safetensors"), "--workers", "0", "--out", str(own)]) == 0
    lines = [json.loads(line) for line in (own / "log.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2]
    capsys.readouterr()
    assert main(["--resume", str(taught), "--updates", "3"]) == 2
    said = capsys.readouterr().err
    assert "what a teacher remembers is not saved" in said
    assert f"--start {taught / 'last.safetensors'}" in said
    env = vector_env("two_bus", n_envs=4, workers=0)
    try:
        assert begun(Team(env.spec, Learning(), 0), str(taught / "last.safetensors")).updates == 0
    finally:
        env.close()
