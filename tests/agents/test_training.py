"""Training from the command line and by hand: exact resume, logs, checkpoints, other people's environments."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from teams import Follow, Split, mixed_team, site_team

from cosim.agents import together
from cosim.agents.learn import checkpoint
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.parallel_env import ParallelEnvs, team_of
from cosim.agents.learn.ppo import FIGURES
from cosim.agents.learn.spec import Choice, Interval, credit_terms, spec_from_dict, spec_to_dict
from cosim.agents.learn.team import Team
from cosim.agents.learn.training import BEST, LAST, LOG, Training, TrainingPlan
from cosim.agents.request import scenario_of, stored
from cosim.agents.train import main
from cosim.agents.train_request import parser, request_of
from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.experiment import Experiment
from cosim.learning.environment import engine_of
from cosim.learning.vector import Environment, learning_scenario
from cosim.params import validate
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace

ROOT = Path(__file__).parents[2]
TIMES = ("steps_per_s", "environment_s", "decode_s", "waiting_s", "update_s")


def trained(out, updates, env, team=None, episodes=10**6, **options):
    """A training of `Follow` up to so many updates; from its last checkpoint where there is one."""
    plan = TrainingPlan(out, episodes, updates, save_every=2, request={"seed": 3})
    if (out / LAST).exists():
        training = Training(Team.load(out / LAST), env, plan)
        training.resume()
    else:
        config = Learning(rollout_steps=5, learning_rate_end=1.0, std_end=None, minibatches=2, width=16, **options)
        training = Training(team or Team(env.spec, config, 3, terms=credit_terms(env)), env, plan)
        training.begin()
    training.run(lambda record: None)
    return training


def log_of(out):
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def test_equal_teams_are_equal_files(tmp_path):
    """The library orders metadata by a hash that differs from file to file, one of two ways for two names."""
    arrays, facts = {"b": np.arange(3.0), "t": np.array(["x", "\u00fc"])}, {"n": "\u00fc", "a": [1, 2]}
    for k in range(20):
        checkpoint.write(tmp_path / str(k), arrays, facts)
    assert len({(tmp_path / str(k)).read_bytes() for k in range(20)}) == 1
    found, said = checkpoint.read(tmp_path / "0")
    assert said == facts
    assert {name: x.tolist() for name, x in found.items()} == {name: x.tolist() for name, x in arrays.items()}


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("method", "options"), [("mat", {}), ("mat", {"noise_steps": 3}), ("mappo", {}),
                                                 ("mappo", {"critic": "terms"})])
@pytest.mark.rows("M11")
def test_resume_after_a_kill_is_exact(method, options, tmp_path):
    """6 updates at once, and 4 + a line that a kill cut off and updates after the checkpoint + 2: the same bits."""
    def env(seed=0):
        return Split(("near", "far"), seed=seed)

    trained(tmp_path / "a", 6, env(), method=method, **options)
    trained(tmp_path / "b", 4, env(), method=method, **options)
    with (tmp_path / "b" / LOG).open("a") as log:
        log.write(json.dumps({"update": 5, "reward": 9.0}) + "\n" + '{"update": 6, "rew')
    trained(tmp_path / "b", 6, env(seed=99), method=method)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    (a, facts_a), (b, facts_b) = (checkpoint.read(tmp_path / k / LAST) for k in "ab")
    assert facts_a == facts_b
    assert set(a) == set(b)
    assert all((a[k] == b[k]).all() for k in a)


@pytest.mark.rows("L02", "L17", "L20", "X05")
def test_log_and_checkpoints(tmp_path):
    """3 environments with days of 7 steps that begin at 0, 1, 2: the first ends at steps 7,
    14, the second at 6, 13, 20, the third at 5, 12, 19."""
    training = trained(tmp_path, 4, Follow())
    log = log_of(tmp_path)
    assert [line["steps"] for line in log] == [15, 30, 45, 60]
    assert [line["episodes"] for line in log] == [1, 3, 6, 8]
    assert log[-1]["terms"]["distance"] == pytest.approx(-log[-1]["reward"], rel=1e-5)
    assert training.tracker.episodes == 8
    assert Team.load(tmp_path / LAST).updates == 4
    assert Team.extras(tmp_path / LAST)[1]["request"] == {"seed": 3}
    assert not Team.extras(tmp_path / BEST)[0]
    with pytest.raises(ScenarioError, match="--resume"):
        Training(training.team, training.env, training.plan).begin()


@pytest.mark.rows("L02")
def test_ends_after_the_episodes_asked_for(tmp_path):
    assert trained(tmp_path, None, Follow(), episodes=5).team.updates == 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.rows("L01", "M11")
def test_a_team_is_saved_whole(method, tmp_path):
    spec = mixed_team()
    team = Team(spec, Learning(method=method), seed=5)
    team.save(tmp_path / "t", {"text": np.array(["a", "bcd"]), "x": np.arange(3), "none": np.zeros((0, 2))}, {"k": [1]})
    again = Team.load(tmp_path / "t")
    arrays, facts = Team.extras(tmp_path / "t")
    assert arrays["text"].tolist() == ["a", "bcd"]
    assert arrays["none"].shape == (0, 2)
    assert facts == {"k": [1]}
    assert again.spec == spec
    assert again.config == team.config
    rng = np.random.default_rng(0)
    seen, told = rng.standard_normal((4, 5, 7)), rng.standard_normal((4, 5, 2))
    one, two = (t.act(seen, lambda _: told)[0] for t in (team, again))
    for name in ("action", "raw", "log_prob", "value", "order"):
        assert (getattr(one, name) == getattr(two, name)).all()
    other = Team(spec, Learning(method=method), seed=6).act(seen, lambda _: told)[0]
    assert (other.action != one.action).any()


def test_specs_survive_json():
    for spec in (mixed_team(), site_team()):
        assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "x").write_bytes(b"no such thing")
    for path, says in (("x", "cannot be read"), ("y", "there is no checkpoint")):
        with pytest.raises(ScenarioError, match=says):
            Team.load(tmp_path / path)


@pytest.mark.parametrize(("argv", "says"), [
    ([], "name either a scenario or --env"),
    (["ieee33", "--set", "learn.widht=3"], "did you mean 'width'"),
    (["ieee33", "--set", "learn.clip=2"], "less than 1"),
    (["ieee33", "--set", "learn.heads=3"], "must be a multiple of heads"),
    (["ieee33", "--method", "mta"], "invalid choice"),
    (["ieee33", "--episodes", "0"], "must be >= 1"),
    (["--env", "nowhere:make"], "cannot be imported"),
    (["--env", "mpe2.simple_spread_v3:parallel_env", "--mode", "power"], "do not go with --env"),
    (["--env", "nowhere:make", "--set", "learn.critic=terms"], "critic = terms does not go with --env"),
    (["--resume", "nowhere"], "there is no checkpoint"),
    (["--resume", "nowhere", "--method", "mat"], "leave out method"),
    (["--env", "nowhere:make", "--vary", "a.b=1:2"], "--vary draws a scenario's fields"),
    (["ieee33", "--vary", "profile.scale=1:2", "--set", "profile.scale=1"], "profile.scale is set and varied"),
    (["two_bus", "--vary", "profile.scale=2:1"], "--vary profile.scale=2:1: give LOW:HIGH"),
    (["ieee33", "--device", "cuda:99", "--envs", "1", "--workers", "0"], "device 'cuda:99' cannot be used"),
])
def test_mistakes_are_told_in_one_line(argv, says, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A folder of a training run from the command line: one update of three minutes in two environments."""
    out = tmp_path_factory.mktemp("run") / "asked"
    settings = [f"learn.{k}" for k in ("twins=2", "rollout_steps=3", "width=16")]
    assert main(["two_bus", "--envs", "2", "--updates", "1", "--workers", "1", "--engine", "simpy", "--out", str(out),
                 *(word for setting in settings for word in ("--set", setting))]) == 0
    return out


NONSENSE = {
    "seed": (None, -1, 0.5, "x", [], True, 10**30, math.nan), "updates": (None, -1, "x", [], {}, math.nan, 10**30),
    "terminates": (None, 1, "x"), "value_scale": (None, [], {}, 1.0, ["x", [0.0], [1.0]], [0.5, [math.nan], [1.0]],
                                                  [0.5, [0.0] * 5, [1.0] * 5], [-1.0, [0.0], [0.0]], [0.5, [0.0], []]),
    "credit_terms": (None, 1, "x", ["x"], [1]),
    "rng": (None, [], {}, {"sampling": {}}, {"x": {}}), "extra": (None, [], {}, 1),
    "rng.order": (None, {}, {"bit_generator": "PCG64"}), "rng.order.bit_generator": ("MT19937", None, 1),
    "rng.order.state.state": (-5, "x", None, 2**200), "rng.order.uinteger": (2**70, "x"),
    "extra.request": (None, [], {}, 1, "x"), "extra.request.scenario": (None, 1, [], "nowhere", "\0", "x" * 5000),
    "extra.request.env": ("no:such", 1, []), "extra.request.engine": (None, "x", 1, []),
    "extra.request.mode": ("x", 1, []), "extra.request.learn": (None, [], {"x": 1}, {"twins": "1"}, {"width": 32}),
    "extra.request.settings": (None, [], {"x": "1"}, {"grid.x": "1"}, {"x": [1]}, {"grid.lambda_kw_per_kg_h": "x"}),
    "extra.request.seed": (None, -1, 1, "x", True, 10**30), "extra.request.envs": (None, 0, 4, 3, "x", 10**9),
    "extra.request.episodes": (None, 0, "x", math.nan), "extra.request.updates": (-1, "x", [], math.nan),
    "extra.request.vary": (None, [], {"x": "1:2"}, {"grid.x": "1:2"}, {"profile.scale": 1}, {"profile.scale": "2:1"}),
    "config.twins": (1,), "config.rollout_steps": (10**12, None)}
STATES = {"tracker/open": np.full(2, np.nan), "tracker/counts": np.array([-1, 0]), "tracker/best": None,
          "environment/0/seed": np.array(["a", "b"]), "environment/0/episode": None,
          "environment/1/actions": np.zeros((3, 9, 9))}


def refused(folder, capsys, command=main, args=("--updates", "2", "--workers", "1")):
    """What a command said of a run: one short line."""
    capsys.readouterr()
    code = command(["--resume", str(folder), *args])
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("passed")]
    assert (code, len(said)) == (2, 1)
    assert len(said[0]) <= 407
    return said[0]


@pytest.mark.long(after=2)
@pytest.mark.parametrize("place", NONSENSE)
def test_a_run_whose_facts_no_run_has_does_not_go_on(place, asked, tmp_path, capsys):
    """Received from another user, perhaps: a wrong value in any of a checkpoint's facts is one line."""
    (tmp_path / LOG).write_bytes((asked / LOG).read_bytes())
    *way, last = place.split(".")
    for value in NONSENSE[place]:
        arrays, facts = checkpoint.read(asked / LAST)
        inner = facts
        for key in way:
            inner = inner[key]
        inner[last] = value
        checkpoint.write(tmp_path / LAST, arrays, facts)
        if place.startswith(("extra", "config")):
            refused(tmp_path, capsys)
        else:  # looked at after the environments are made, which takes a second
            with pytest.raises(ScenarioError, match=str(tmp_path)):
                Team.load(tmp_path / LAST)
    assert sorted(p.name for p in tmp_path.iterdir()) == [LAST, LOG]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("name", STATES)
def test_a_run_whose_state_no_run_has_does_not_go_on(name, asked, tmp_path, capsys):
    (tmp_path / LOG).write_bytes((asked / LOG).read_bytes())
    arrays, facts = checkpoint.read(asked / LAST)
    key = f"extra/{name}"
    now = {**arrays, key: STATES[name]}
    checkpoint.write(tmp_path / LAST, {k: v for k, v in now.items() if v is not None}, facts)
    assert str(tmp_path / LAST) in refused(tmp_path, capsys)


@pytest.mark.parametrize("log", [b"\xff\xfe\n", b"[1]\n", b"{}\n", b"no\n", b'{"update": "x"}\n', b"[" * 99999 + b"\n"])
def test_a_log_that_no_run_writes_is_not_gone_on_with(log, tmp_path):
    trained(tmp_path, 1, Follow())
    (tmp_path / LOG).write_bytes(log)
    with pytest.raises(ScenarioError, match="is no log of a training"):
        trained(tmp_path, 2, Follow())


def spread():
    """A public task, short: three agents cover three landmarks."""
    return pytest.importorskip("mpe2.simple_spread_v3").parallel_env(N=3, max_cycles=6, continuous_actions=True)


@pytest.mark.long
def test_a_pettingzoo_environment_trains_and_resumes(tmp_path, monkeypatch):
    """simple_spread: 18 numbers seen, 5 continuous forces; 4 copies of 6 steps: an episode each per 6 steps."""
    pytest.importorskip("mpe2")
    monkeypatch.syspath_prepend(ROOT / "tests")
    args = ["--env", "public_tasks:short_spread", "--envs", "4", "--set", "learn.rollout_steps=9", "--set",
            "learn.width=16", "--set", "learn.learning_rate_end=1", "--save-every", "1"]
    for out, updates in (("a", 4), ("b", 2)):
        assert main([*args, "--out", str(tmp_path / out), "--updates", str(updates)]) == 0
    assert main(["--resume", str(tmp_path / "b"), "--updates", "4"]) == 2, "its environment is nobody's that is known"
    assert main(["--resume", str(tmp_path / "b"), "--updates", "4", "--trust", str(tmp_path / "b")]) == 0
    a, b = log_of(tmp_path / "a"), log_of(tmp_path / "b")
    assert [line["episodes"] for line in a] == [4, 12, 16, 24]
    assert [line["reward"] for line in a] == [line["reward"] for line in b]


def test_spaces_become_parts():
    spec = team_of(spread())
    kind = spec.type_of(0)
    assert len(spec.types) == 1
    assert len(kind.observation) == 18
    assert kind.action == tuple(Interval(f"a{k}", 0.0, 1.0) for k in range(5))
    discrete = pytest.importorskip("mpe2.simple_spread_v3").parallel_env(N=2)
    assert team_of(discrete).type_of(1).action == (Choice("a", 5),)


def test_copies_are_independent_of_each_other_and_restore():
    rng = np.random.default_rng(0)
    actions = rng.random((10, 2, 3, 5), np.float32)
    env = ParallelEnvs(spread, 2, seed=1)
    first = env.reset()
    assert (first[0] != first[1]).any()
    seen = [env.step(a).observation for a in actions[:8]]
    state = env.state()
    later = env.step(actions[8])
    again = ParallelEnvs(spread, 2, seed=1)
    assert (again.restore(state) == seen[-1]).all()
    outcome = again.step(actions[8])
    assert (outcome.observation == later.observation).all()
    assert (outcome.reward == later.reward).all()


def test_rule_policies_need_no_torch(tmp_path):
    """The list of scenarios and a run with a rule import none of it."""
    code = ("import sys; from cosim.run import main; main(['--list']); "
            "assert main([sys.argv[1], '--until', '15min', '--quiet', '--out', sys.argv[2]]) == 0; "
            "sys.exit('torch' in sys.modules)")
    args = [sys.executable, "-c", code, str(ROOT / "tests" / "gridless.py"), str(tmp_path / "t.h5")]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SMALL = ["two_bus", "--envs", "4", "--engine", "simpy", "--set", "learn.rollout_steps=6", "--set", "learn.width=16",
         "--set", "learn.twins=2", "--set", "learn.learning_rate_end=1"]


@pytest.mark.long
def test_two_processes_learn_what_one_does(tmp_path):
    """The same steps, rewards and updates but for the order of sums; and a run that two of them go on with has the same
    bits as one that was not interrupted. With a critic of every term, whose rollouts have one axis more."""
    for out, workers, updates in (("one", 1, 2), ("two", 2, 2), ("part", 2, 1)):
        assert main([*SMALL, "--workers", str(workers), "--updates", str(updates), "--set", "learn.kl_limit=",
                     "--set", "learn.std_end=", "--set", "learn.critic=terms", "--out", str(tmp_path / out),
                     "--save-every", "2"]) == 0
    assert main(["--resume", str(tmp_path / "part"), "--updates", "2", "--workers", "2"]) == 0
    one, two, part = (log_of(tmp_path / out) for out in ("one", "two", "part"))
    for a, b in zip(one, two, strict=True):
        assert [a[k] for k in ("update", "steps", "episodes")] == [b[k] for k in ("update", "steps", "episodes")]
        assert b["terms"] == pytest.approx(a["terms"], rel=1e-4)
        assert [b[k] for k in FIGURES] == pytest.approx([a[k] for k in FIGURES], rel=2e-3, abs=2e-4)
    assert part == two
    states = [checkpoint.read(tmp_path / out / LAST)[0] for out in ("two", "part")]
    assert states[0].keys() == states[1].keys()
    assert all(np.array_equal(states[0][k], states[1][k], equal_nan=states[0][k].dtype.kind == "f") for k in states[0])


@pytest.mark.long
def test_no_update_saves_the_team_as_it_starts_and_its_request(tmp_path):
    """What a training with the same settings starts from, whatever its worlds; two processes make the same."""
    vary = {"workload.rate_scale": "0.5:2", "tariff.base_usd_per_kwh": "0.05|0.2"}
    for out, workers in (("one", 1), ("two", 2)):
        assert main([*SMALL, "--workers", str(workers), "--updates", "0", "--seed", "3", "--out", str(tmp_path / out),
                     *(word for path, text in vary.items() for word in ("--vary", f"{path}={text}"))]) == 0
    one, two = (Team.load(tmp_path / out / LAST) for out in ("one", "two"))
    fresh = Team(one.spec, one.config, 3)
    assert one.updates == 0
    for name, weight in fresh.network.state_dict().items():
        assert torch.equal(one.network.state_dict()[name], weight)
        assert torch.equal(two.network.state_dict()[name], weight)
    assert stored(tmp_path / "one" / LAST)["vary"] == vary
    assert log_of(tmp_path / "one") == []


@pytest.mark.long
def test_a_process_that_learns_beside_is_named_when_it_fails(tmp_path, monkeypatch, capsys):
    """Where it dies, and where its environments cannot be made."""
    given = [*SMALL, "--workers", "2", "--out", str(tmp_path)]
    real = together.OtherProcesses.__init__

    def killed(self, *args):
        real(self, *args)
        self._children[0]._process.kill()
    with monkeypatch.context() as patch:
        patch.setattr(together.OtherProcesses, "__init__", killed)
        assert main([*given, "--updates", "1"]) == 3
    err = capsys.readouterr().err
    assert "process 1 (environments 2, 3) ended by itself with signal 9; go on from the last checkpoint" in err
    send = together.Child.send

    def garbled(self, message):
        send(self, message.replace(b'"engine": "simpy"', b'"engine": "compiled"'))
    monkeypatch.setattr(together.Child, "send", garbled)
    assert main([*given, "--updates", "1", "--set", "aidc.rack_mean_up_s=10d"]) == 2
    assert "cannot be learnt on many worlds at once: aidc.rack_mean_up_s" in capsys.readouterr().err


def test_tensorboard_has_the_figures_of_the_log(tmp_path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                reason="needs the extra 'learn' (tensorboard)")
    assert main(["two_bus", "--envs", "1", "--workers", "0", "--set", "learn.rollout_steps=4", "--set",
                 "learn.width=16", "--out", str(tmp_path), "--updates", "2"]) == 0
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    events = board.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("reward", "entropy"):
        assert [e.step for e in events.Scalars(name)] == [r["steps"] for r in log]
        assert [e.value for e in events.Scalars(name)] == pytest.approx([r[name] for r in log], rel=1e-6)


def test_the_papers_preset_is_its_states_and_its_reward_for_everyone():
    """(25) and (27) have 21 and 17 numbers, of which the time takes two; what --set names holds instead."""
    asked = parser().parse_args(["ieee33", "--preset", "paper", "--method", "mappo", "--set", "learn.epochs=5", "--set",
                                 "controller.rounding=carry"])
    request = request_of(asked)
    learning = validate(Learning, request["learn"], "learn")
    assert (learning.method, learning.credit, learning.twins, learning.epochs, learning.std_end, learning.kl_limit
            ) == ("mappo", "team", 1, 5, None, None)
    scenario = scenario_of(request)
    assert engine_of(scenario) == ("compiled", "")
    steering = Environment(resolve(learning_scenario(scenario)), 0).steering
    assert [len(kind.observation) for kind in steering.spec.types.values()] == [22, 18]
    assert (steering.params.guard_slack_min, steering.params.rounding) == (None, "carry")
    assert (steering.params.gpu_shares, steering.spec.widths[2]) == ("pooled", 18)
    assert (steering.params.reward.relative, steering.params.reward.looming) == (False, False)
    ours, plain = (request_of(parser().parse_args(["ieee33", *more])) for more in (["--preset", "ours"], []))
    assert ours == plain


@pytest.mark.parametrize(("words", "steps"), [
    ([], None), (["--envs", "8"], None), (["--envs", "64"], 22), (["--envs", "32"], 45), (["--envs", "4096"], 1),
    (["--envs", "64", "--set", "learn.rollout_steps=90"], "90")])
def test_more_environments_have_as_many_fewer_steps(words, steps):
    assert request_of(parser().parse_args(["ieee33", *words]))["learn"].get("rollout_steps") == steps


def test_a_preset_goes_with_a_scenario(capsys):
    assert main(["--env", "simple_spread:continuous", "--preset", "paper"]) != 0
    assert "--preset paper sets a scenario's fields" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("shares", ["pooled", "kinds"])
@pytest.mark.rows("E14")
def test_what_the_papers_preset_trains_runs_on_the_bus(tmp_path, shares):
    """Two updates on the compiled engine, and ten minutes on the bus; all jobs and their GPUs add up there."""
    more = {"pooled": [], "kinds": ["--set", "controller.gpu_shares=kinds"]}[shares]
    assert main(["ieee33", "--preset", "paper", "--method", "mappo", "--envs", "2", "--workers", "0", "--updates", "2",
                 "--set", "learn.rollout_steps=3", "--set", "learn.width=16", "--out", str(tmp_path), *more]) == 0
    request = stored(tmp_path / LAST)
    assert (request["engine"], request["settings"]["controller.gpu_shares"]) == ("compiled", shares)
    policy = {"controller.policy": str(tmp_path / LAST), "grid.ac_check": False}
    done = Experiment(override(scenario_of(request), policy), "native", 600.0, tmp_path / "run.h5").run()
    assert any("policy mappo" in note for note in done.notes)
    with Trace(tmp_path / "run.h5") as trace:
        assert verify(trace).broken == []
