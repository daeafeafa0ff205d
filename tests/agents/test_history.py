"""Observations with a past: the columns, what a window holds over the ends of episodes, exact resume, the preset."""

import numpy as np
import pytest
from teams import Follow, site_team

from cosim.agents.learn.config import Learning
from cosim.agents.learn.history import WithHistory, with_history, without_history
from cosim.agents.learn.team import Team
from cosim.agents.learn.training import LAST, Training, TrainingPlan
from cosim.agents.train_request import parser, request_of
from cosim.errors import ScenarioError
from cosim.params import validate


def test_columns_are_those_of_each_step():
    spec = site_team()
    found = with_history(spec, 3)
    names = [c.name for c in found.types["site"].observation]
    assert names[:8] == ["o0", "o1", "o2", "o3", "o4", "o5", "o6", "o0 -1"]
    assert (len(names), names[-1]) == (21, "o6 -2")
    assert without_history(found, 3) == spec
    assert with_history(spec, 1) == spec
    with pytest.raises(ScenarioError, match="history_steps = 2"):
        without_history(found, 2)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_window_is_the_last_steps_of_each_environment(goes_on):
    """Days of seven steps that begin staggered: where they go on, the past is that of the walk; else that of the day.
    The observation that ends a day has the past of its day in either case."""
    plain, env = Follow(), WithHistory(Follow(), 3, [4, 5, 6], goes_on)
    first = plain.reset()
    seen = [first, first, first]
    rng, begun = np.random.default_rng(0), np.zeros(3, int)

    def rows(past):
        out = np.zeros((3, 3, 3 * first.shape[2]), np.float32)
        for i, width in enumerate((5, 7, 7)):
            out[:, i, :3 * width] = np.concatenate([x[:, i, :width] for x in past], axis=1)
        return out

    assert np.array_equal(env.reset(), rows(seen))
    for _ in range(16):
        action = rng.uniform(0, 1, (3, 3, 4)).astype(np.float32)
        bare, found = plain.step(action), env.step(action)
        final = rows([bare.final_observation, *seen[:2]])
        seen = [bare.observation, *seen[:2]]
        if not goes_on:
            seen = [np.where(bare.truncated[:, None, None], bare.observation, x) for x in seen]
        begun += bare.truncated
        assert np.array_equal(found.observation, rows(seen))
        assert np.array_equal(found.final_observation[bare.truncated], final[bare.truncated])
    assert begun.min() >= 2


def test_a_training_with_a_past_goes_on_as_if_it_had_not_stopped(tmp_path):
    config = Learning(method="transformer", history_steps=3, rollout_steps=5, learning_rate_end=1.0, std_end=None,
                      minibatches=2, width=16)

    def run(out, updates):
        env, plan = WithHistory(Follow(), 3, range(3), goes_on=False), TrainingPlan(out, 10**6, updates, save_every=2)
        resumed = (out / LAST).exists()
        training = Training(Team.load(out / LAST) if resumed else Team(env.spec, config, 3), env, plan)
        training.resume() if resumed else training.begin()
        training.run(lambda record: None)
        return training

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "part", 2)
    part = run(tmp_path / "part", 4)
    assert np.array_equal(whole.observation, part.observation)
    for a, b in zip(whole.team.network.parameters(), part.team.network.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())
    state = part.env.state()
    with pytest.raises(ScenarioError, match="no 3 past observations"):
        part.env.restore({k: v for k, v in state.items() if k != "1/history"})


def test_the_papers_transformer_attends_over_time_and_no_other_does():
    steps = {}
    for method in ("mat", "mat-dec", "transformer", "mappo"):
        asked = request_of(parser().parse_args(["ieee33", "--preset", "paper", "--method", method]))
        steps[method] = validate(Learning, asked["learn"], "learn").history_steps
    assert steps == {"mat": 1, "mat-dec": 1, "transformer": 16, "mappo": 1}
    with pytest.raises(ScenarioError, match="needs method = transformer"):
        validate(Learning, {"method": "mat", "history_steps": 2}, "learn")
