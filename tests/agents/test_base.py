"""A team around a rule: shares reach 0 and 1, a fresh team does what the rule does, and what cannot be is one line."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.agents.fleet.allocation import gpu_blocks
from cosim.agents.fleet.base import BaseColumns, BaseRule, _decide, rule_in
from cosim.agents.fleet.decision import Decision, FleetFacts, Observation, Operation
from cosim.agents.fleet.learned import LearnedPolicy
from cosim.agents.learn.action_maps import ActionTables
from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.distributions import Actions
from cosim.agents.learn.numpy_actor import _Map
from cosim.agents.learn.spec import (
    BELOW,
    AgentType,
    Column,
    Interval,
    Simplex,
    TeamSpec,
    before_edge,
    spec_from_dict,
    spec_to_dict,
)
from cosim.agents.learn.team import Team
from cosim.agents.train import main
from cosim.errors import ScenarioError
from cosim.learning.batch import BatchEnvironments
from cosim.learning.environment import some_of
from cosim.learning.vector import learning_scenario
from cosim.request import find
from cosim.scenario import override
from cosim.simulation import simulate

DAY = 86400.0
FACTS = FleetFacts(
    kinds=("train", "inf"), gpus=(400, 400), to_per_gpu_min=(6e4, 2.5e5), work_to=(6.912e8, 3e5),
    deadline_s=(43200.0, 900.0), gpus_per_block=(16, 1), max_blocks=(6, 1), eligible=((True, True),) * 2,
    deferrals_s=(0.0, 7200.0), top_to_per_s=((96e3, 2.5e5 / 60),) * 2)
NONE = [[0.0, 0.0], [0.0, 0.0]]
MINUTE = Observation(
    time_s=0.0, price_usd_per_kwh=0.1, forecast_usd_per_kwh=[0.1, 0.1], nci_kg_per_kwh=[0.3, 0.8], power_kw=[100.0] * 2,
    arrivals=[0, 0], arrivals_work_to=[0.0, 0.0], queued_jobs=NONE, deferred_jobs=NONE, running_jobs=NONE,
    pending_work_to=NONE, deferred_work_to=NONE, free_gpu_ratio=[1.0] * 2, site_carry=NONE,
    deferral_carry=[NONE[:1]] * 2)


def edged(edge, eligible=None, size=4):
    seen = tuple(Column(f"u{k}", np.log((1.0 - BELOW) * edge), 0.0) for k in range(size)) + (Column("t", -6.0, 6.0),)
    return AgentType("one", seen, (Simplex("to", size, eligible, None, tuple(f"u{k}" for k in range(size)), edge),
                                   Interval("degc", 18.0, 23.0, None, "t")))


def maps(kind, seen):
    """Actions of torch and of numpy whose networks say nothing: means are where the observation points."""
    torch_map, numpy_map = Actions(kind), _Map(kind)
    place = torch_map.start[None] + torch.tensor(seen) @ torch_map.around
    unit = torch_map.unit(torch_map.sample(place, None))
    logits = np.asarray(torch_map.start) @ numpy_map.logits
    other = numpy_map.unit(logits.astype(np.float32), seen[0].astype(np.float32))
    return torch_map.action(place, unit)[0].numpy(), numpy_map.low + other * numpy_map.span


@settings(deadline=None, max_examples=60)
@given(raw=st.lists(st.one_of(st.just(0.0), st.floats(0.001, 1.0)), min_size=4, max_size=4).filter(any),
       edge=st.sampled_from([0.01, 0.02, 0.1]), ineligible=st.booleans(), place=st.floats(0.01, 0.99))
def test_a_team_that_says_nothing_acts_as_its_columns_say(raw, edge, ineligible, place):
    """Also where a share is 0 or 1, which no softmax reaches."""
    eligible = (True, True, True, not ineligible)
    share = np.array(raw) * eligible
    if not share.any():
        share[0] = 1.0
    share /= share.sum()
    logs = np.log(before_edge(share, sum(eligible), edge, sum(eligible) - (share > 0.0).sum()))
    low = np.log((1.0 - BELOW) * edge)
    scaled = 2.0 * (logs - low) / -low - 1.0
    seen = np.array([[*scaled, np.log(place / (1.0 - place)) / 6.0]], np.float32)
    for action in maps(edged(edge, eligible), seen):
        assert action[:4] == pytest.approx(share, abs=2e-5)
        assert action[:4].sum() == pytest.approx(1.0, abs=1e-6)
        assert action[4] == pytest.approx(18.0 + 5.0 * place, abs=1e-4)
        if ineligible:
            assert action[3] == 0.0


def test_shares_below_the_edge_are_0_and_the_rest_is_scaled():
    """Of (0.5, 0.45, 0.04, 0.01) and an edge of 0.02: 0.48, 0.43, 0.02 and nothing, of 0.93."""
    kind = AgentType("one", (Column("o"),), (Simplex("to", 4, None, None, None, 0.02),))
    actions = Actions(kind)
    shares = torch.log(torch.tensor([[0.5, 0.45, 0.04, 0.01]])) @ actions.basis.T
    wanted = np.array([0.48, 0.43, 0.02, 0.0]) / 0.93
    assert actions.unit(shares)[0].numpy() == pytest.approx(wanted, abs=1e-6)
    assert _Map(kind).unit(shares[0].numpy() @ _Map(kind).logits) == pytest.approx(wanted, abs=1e-6)
    taught = actions.raw(torch.tensor([[0.7, 0.3, 0.0, 0.0]]))
    assert actions.unit(taught)[0].numpy() == pytest.approx([0.7, 0.3, 0.0, 0.0], abs=0.01)
    assert (actions.unit(taught)[0, 2:] == 0.0).all(), "what is taught as 0 is done as 0"
    assert spec_from_dict(spec_to_dict(team := TeamSpec((("a", "one"),), {"one": kind}))) == team




def test_an_edge_leaves_room_and_needs_gaussians():
    tables = ActionTables(4)
    with pytest.raises(ScenarioError, match="must be from 0 to less than 0.25"):
        tables.add(Simplex("to", 4, edge=0.25), dirichlet=False)
    with pytest.raises(ScenarioError, match="learn.simplex=gaussian"):
        ActionTables(4).add(Simplex("to", 4, edge=0.02), dirichlet=True)
    with pytest.raises(ScenarioError, match="share_edge = 0.2 of 3 parts"):
        BaseColumns(FACTS, "uniform", 0.2, ["t", "i"], ["a", "b"])


def test_columns_are_logarithms_of_what_the_rule_decides():
    columns = BaseColumns(FACTS, "myopic_oracle", 0.02, ["t", "i"], ["a", "b"])
    decision = Decision([[1.0, 0.0], [0.25, 0.75]], Operation(
        [[[1.0, 0.0]], [[0.5, 0.5]]], [[0.0, 0.6], [0.4, 0.6]], [18.0, 20.5]))
    share, release, gpus, degc = columns.of([decision])
    assert np.exp(share[0]) == pytest.approx(np.array([[0.988, 0.012], [0.26, 0.74]]))
    assert np.exp(release[0, :, 0]) == pytest.approx(np.array([[0.988, 0.012], [0.5, 0.5]]))
    half = 0.5 / 400  # of an inference class's block of 1 GPU, taken from the 160 unused; a full site has none
    assert np.exp(gpus[0]) == pytest.approx(np.array([
        [0.012, 0.948 * (0.6 + half) + 0.02, 0.948 * (0.4 - half) + 0.02],
        [0.948 * 0.4 + 0.02, 0.948 * 0.6 + 0.02, 0.012]]))
    assert degc[0] == pytest.approx([-6.0, 0.0])
    assert rule_in([name for row in columns.manager for name in row]) == "myopic_oracle"
    assert rule_in(["usual_share a"]) == ""


def test_the_rules_clock_goes_on_over_midnight():
    """It is asked once for a moment, and the next day's first minute is later than the last of the one before."""
    class Clock:
        needs_nci = False

        def __init__(self):
            self.times = []

        def place(self, observation):
            self.times.append(observation.time_s)
            return [[0.5, 0.5]] * 2

        def operate(self, observation, jobs, work_to):
            return Operation([[[1.0, 0.0]]] * 2, [[0.5, 0.5]] * 2, [20.0] * 2)

    clock = Clock()
    rule = BaseRule(clock)
    for time_s in (DAY - 120.0, DAY - 60.0, DAY - 60.0, 0.0, 60.0, DAY - 60.0, 0.0):
        assert rule.shown(replace(MINUTE, time_s=time_s)).base.site_share == [[0.5, 0.5]] * 2
    assert clock.times == [DAY - 120.0, DAY - 60.0, DAY, DAY + 60.0, 2 * DAY - 60.0, 2 * DAY]


def test_sites_are_given_the_whole_jobs_that_rounding_may_send_them():
    """7 requests in shares of 0.25 and 0.75, 1.75 and 5.25, are 2 and 6; of their 14 TO, 4 and 12."""
    seen = []

    class Told:
        needs_nci = False

        def place(self, observation):
            return [[1.0, 0.0], [0.25, 0.75]]

        def operate(self, observation, jobs, work_to):
            seen.append((jobs, work_to))
            return Operation([[[1.0, 0.0]]] * 2, [[0.5, 0.5]] * 2, [20.0] * 2)

    BaseRule(Told()).decide(replace(MINUTE, arrivals=[0, 7], arrivals_work_to=[0.0, 14.0]))
    assert seen == [([[0, 2], [0, 6]], [[0.0, 4.0], [0.0, 12.0]])]


AROUND = {"until_s": 1200.0, "controller.base_policy": "myopic_oracle"}


def silent(spec):
    """A team whose heads add nothing."""
    team = Team(spec, Learning(width=16), 0)
    with torch.no_grad():
        for name, weights in team.network.named_parameters():
            if ".last.weight" in name and "critic" not in name and "value" not in name:
                weights.zero_()
    return team


def test_a_team_that_adds_nothing_does_what_the_rule_does():
    """On the learning environment, minute by minute."""
    scenario = learning_scenario(override(find("ieee33_living"), AROUND))
    env = some_of(scenario, range(1), "simpy", seed=3)
    try:
        seen, steering = env.reset(), env.envs[0].steering
        team, other = silent(env.spec), steering.teacher("myopic_oracle")
        for _ in range(15):
            wanted = _decide(other, steering._seen)
            action = team.act(seen, env.context, deterministic=True)[0].action
            n, classes = 3, 4
            shares = action[0, 0, :n * classes].reshape(classes, n)
            assert shares == pytest.approx(np.array(wanted.site_share), abs=1e-4)
            trains = np.array(wanted.operation.deferral_share).reshape(n, -1)
            assert action[0, 1:, :trains.shape[1]] == pytest.approx(trains, abs=1e-4)
            did = action[0, 1:, trains.shape[1]:trains.shape[1] + classes].astype(float)
            for row, gpus, capacity in zip(did, wanted.operation.gpu_share, steering.facts.gpus, strict=True):
                sizes = steering.facts.gpus_per_block
                assert gpu_blocks(row, capacity, sizes) == gpu_blocks(gpus, capacity, sizes), "no block is lost"
            degc = np.array(wanted.operation.supply_temp_degc)
            assert action[0, 1:, trains.shape[1] + classes + 1] == pytest.approx(degc, abs=0.02)
            seen = env.step(action).observation
        assert steering.has_memory
        with pytest.raises(ScenarioError, match="remembers is not saved"):
            env.restore(env.state())
    finally:
        env.close()


@pytest.mark.long
def test_it_runs_on_the_bus_and_has_its_rule_from_the_checkpoint(tmp_path):
    scenario = override(find("ieee33_living"), AROUND)
    batch = BatchEnvironments(learning_scenario(scenario), range(1), seed=0)
    with pytest.raises(ScenarioError, match="remembers is not saved"):
        batch.restore({})
    team = silent(batch.spec)
    team.save(path := tmp_path / "team.safetensors", resumable=False)
    batch.close()
    facts = batch._batch.steering.facts
    with pytest.raises(ScenarioError, match="decides around myopic_oracle, and cannot without it"):
        LearnedPolicy(path, facts, True)
    powers = []
    for k, policy in enumerate((str(path), "myopic_oracle")):
        run = simulate("ieee33_living", set={"controller.policy": policy}, until="20min", driver="native",
                       out=tmp_path / f"{k}.h5", progress=False)
        with h5py.File(run.path) as trace:
            powers.append(trace["aidc/Site/p_kw"][:])
    assert powers[0].sum() == pytest.approx(powers[1].sum(), rel=0.02), "but for fractions of jobs"


@pytest.mark.parametrize(("options", "said"), [
    (["controller.base_policy=myopic"], "controller.base_policy: unknown rule 'myopic'"),
    (["controller.base_policy=random"], "controller.base_policy: unknown rule 'random'"),
    (["controller.base_policy=uniform", "controller.usual_shares=clean"], "leave one of them out"),
    (["controller.base_policy=uniform", "controller.share_edge=0"], "leaves a rule's shares of 0 without a logarithm"),
    (["controller.share_edge=0.1"], "share_edge = 0.1 of 6 parts leaves less than half"),
    (["controller.share_edge=0.01", "learn.simplex=dirichlet"], "use learn.simplex=gaussian")])
def test_what_cannot_be_is_one_line(options, said, capsys, tmp_path):
    settings = [x for option in options for x in ("--set", option)]
    assert main(["ieee33", *settings, "--updates", "0", "--envs", "4", "--workers", "0", "--out",
                 str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
