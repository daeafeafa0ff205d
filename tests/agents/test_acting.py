"""What acts on numpy is the network that learned: the same modes as torch, for every method and shape."""

import json

import kernels
import numpy as np
import pytest
import torch

from cosim.agents.learn import checkpoint
from cosim.agents.learn.config import METHODS, Learning
from cosim.agents.learn.history import with_history
from cosim.agents.learn.numpy_actor import ActingTeam
from cosim.agents.learn.spec import AgentType, Choice, Column, Interval, Simplex, TeamSpec
from cosim.agents.learn.team import Team
from cosim.agents.learn.weight_shapes import LEARNERS, acting_shapes
from cosim.errors import ScenarioError


def columns(n: int, name: str) -> tuple[Column, ...]:
    return tuple(Column(f"{name} {k}") for k in range(n))


SPEC = TeamSpec(
    (("wm", "manager"), ("a", "site"), ("b", "site")),
    {"manager": AgentType("manager", columns(7, "seen"), (Simplex("x", 2), Simplex("y", 2, (True, False)))),
     "site": AgentType("site", columns(5, "seen"), (Simplex("z", 4, (True, True, False, True), (0.6, 0.3, 0.0, 0.1)),
                                                    Interval("t", 18.0, 23.0, 22.0)), columns(3, "told"))},
    leaders=1)


BLIND = AgentType("blind", (), (Simplex("one", 1), Simplex("y", 3)), columns(2, "told"))
TYPES = {**SPEC.types, "blind": BLIND}
OTHERS = {
    "alone": TeamSpec((("wm", "manager"),), {"manager": TYPES["manager"]}, leaders=1),
    "without a leader": TeamSpec((("a", "site"), ("b", "site")), {"site": TYPES["site"]}, leaders=0),
    "types in turn": TeamSpec((("wm", "manager"), ("a", "site"), ("x", "blind"), ("b", "site"), ("y", "blind")), TYPES,
                              1),
    "a leader of the followers' type": TeamSpec((("a", "site"), ("wm", "manager"), ("b", "site"), ("c", "site")),
                                                SPEC.types, 2)}


def shaken(config: Learning, path, seed: int = 1, spec: TeamSpec = SPEC) -> Team:
    """A team whose weights are far from their small start, saved."""
    team, generator = Team(with_history(spec, config.history_steps), config, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in team.network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    team.save(path, resumable=False)
    return team


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [{}, {"heads": 2, "blocks": 2, "width": 32}, {"frozen_leaders": (1.0, 3.0)},
                                   {"identity": False}, {"context_for_all": True}],
                         ids=["default", "deep", "frozen", "anonymous", "context for all"])
def test_it_acts_as_torch_does(method, shape, tmp_path):
    path, rng = tmp_path / "team.safetensors", np.random.default_rng(2)
    team, acting = shaken(Learning(method=method, **shape), path), ActingTeam(path)
    for _ in range(5):
        seen, told = (rng.uniform(-1, 1, (1, 3, n)).astype(np.float32) for n in (7, 3))
        slow, fast = team.begin(seen, deterministic=True), acting.begin(seen)
        np.testing.assert_allclose(fast.lead(), slow.lead(), atol=1e-5)
        np.testing.assert_allclose(fast.follow(told).action, slow.follow(told).action, atol=1e-4)  # degC: of 23
    assert acting.method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_teams_of_other_makes_act_as_torch_does(spec, method, tmp_path):
    path, rng, agents = tmp_path / "team.safetensors", np.random.default_rng(2), len(spec.agents)
    team = shaken(Learning(method=method, width=16, heads=2, blocks=2), path, spec=spec)
    seen, told = (rng.uniform(-1, 1, (1, agents, n)).astype(np.float32) for n in spec.widths[:2])
    slow, fast = team.begin(seen, deterministic=True), ActingTeam(path).begin(seen)
    np.testing.assert_allclose(fast.lead(), slow.lead(), atol=1e-4)
    np.testing.assert_allclose(fast.follow(told).action, slow.follow(told).action, atol=1e-4)


@pytest.mark.parametrize("shape", [{}, {"heads": 2, "blocks": 2, "width": 32}, {"context_for_all": True}])
def test_a_past_is_read_as_torch_reads_it(shape, tmp_path):
    path, rng = tmp_path / "team.safetensors", np.random.default_rng(2)
    team, acting = shaken(Learning(method="transformer", history_steps=4, **shape), path), ActingTeam(path)
    assert acting_shapes(team.spec, team.config) == {
        n: tuple(x.shape) for n, x in team.network.state_dict().items() if not n.startswith(LEARNERS)}
    for _ in range(3):
        seen, told = (rng.uniform(-1, 1, (1, 3, n)).astype(np.float32) for n in (28, 3))
        slow, fast = team.begin(seen, deterministic=True), acting.begin(seen)
        np.testing.assert_allclose(fast.lead(), slow.lead(), atol=1e-5)
        np.testing.assert_allclose(fast.follow(told).action, slow.follow(told).action, atol=1e-4)


@pytest.mark.long
def test_it_acts_alike_whatever_the_kernel(tmp_path):
    """Bit for bit under other BLAS kernels and without the processor's later vector instructions: a share that differs
    in its last bit may send a job elsewhere."""
    if not kernels.that_matter():
        pytest.skip("numpy's linear algebra has one kernel here")
    paths = [str(tmp_path / f"{method}.safetensors") for method in METHODS]
    for method, path in zip(METHODS, paths, strict=True):
        shaken(Learning(method=method, blocks=2), path)
    usual, *others = (kernels.said([kernels.__file__, *paths], e) for e in ({}, *kernels.here()))
    assert len(usual.split()) == len(METHODS)
    assert others == [usual] * len(others)


def test_it_says_what_it_cannot_do(tmp_path):
    path = tmp_path / "team.safetensors"
    shaken(Learning(simplex="dirichlet"), path)
    with pytest.raises(ScenarioError, match="need torch"):
        ActingTeam(path)
    spec = TeamSpec((("a", "x"),), {"x": AgentType("x", columns(2, "seen"), (Choice("c", 3),))})
    Team(spec, Learning(), 0).save(path, resumable=False)
    with pytest.raises(ScenarioError, match="choices"):
        ActingTeam(path)
    shaken(Learning(), path)
    with pytest.raises(ScenarioError, match="one observation and its modes"):
        ActingTeam(path).begin(np.zeros((2, 3, 7), np.float32))
    (tmp_path / "other.safetensors").write_bytes(b"no")
    with pytest.raises(ScenarioError, match="cannot be read"):
        ActingTeam(tmp_path / "other.safetensors")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [{}, {"heads": 2, "blocks": 3, "width": 32}, {"context_for_all": True}])
def test_the_shapes_of_what_acts_are_those_of_the_network(method, shape):
    config = Learning(method=method, **shape)
    held = {n: tuple(x.shape) for n, x in Team(SPEC, config, 0).network.state_dict().items()}
    assert acting_shapes(SPEC, config) == {n: x for n, x in held.items() if not n.startswith(LEARNERS)}


def put(name, change):
    return lambda arrays, facts: arrays.__setitem__(f"network/{name}", change(arrays[f"network/{name}"]))


FIRST = "outs.0.first.weight"
DAMAGES = {
    "nan": (put(FIRST, lambda x: np.full_like(x, np.nan)), f"tensor '{FIRST}' holds what is no finite number"),
    "inf": (put("who", lambda x: x / np.float32(0.0)), "tensor 'who' holds what is no finite number"),
    "integers": (put(FIRST, lambda x: x.astype(np.int32)), f"tensor '{FIRST}' holds what is no finite number"),
    "turned": (put("shown.0.weight", lambda x: x.T), r"tensor 'shown.0.weight' has the shape \(4, 64\), its"),
    "one number": (put("begin", lambda x: x[:, :1]), r"tensor 'begin' has the shape \(1, 1\)"),
    "missing": (lambda arrays, facts: arrays.pop(f"network/{FIRST}"), f"lacks the tensor '{FIRST}'"),
    "extra": (lambda arrays, facts: arrays.update({"network/blocks.7.x": np.zeros(1)}), "has a tensor 'blocks.7.x'"),
    "no blocks": (lambda arrays, facts: facts["config"].update(blocks=-1), "blocks"),
    "more blocks": (lambda arrays, facts: facts["config"].update(blocks=2), "lacks the tensor"),
    "heads": (lambda arrays, facts: facts["config"].update(heads=7), "multiple of heads"),
    "method": (lambda arrays, facts: facts["config"].update(method="x"), "method"),
    "spec": (lambda arrays, facts: facts["spec"]["types"]["site"]["action"][0].update(size=10**7), "at most 4096"),
    "no spec": (lambda arrays, facts: facts.update(spec=[]), "does not fit this version"),
    "no config": (lambda arrays, facts: facts.update(config=7), "does not fit this version"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", [ActingTeam, Team.load], ids=["numpy", "torch"])
def test_a_checkpoint_that_is_not_its_team_is_refused(damage, reader, tmp_path):
    path = tmp_path / "team.safetensors"
    shaken(Learning(), path)
    arrays, facts = checkpoint.read(path)
    change, message = DAMAGES[damage]
    change(arrays, facts)
    checkpoint.write(path, arrays, facts)
    with pytest.raises(ScenarioError, match=message):
        reader(path)


@pytest.mark.parametrize("reader", [ActingTeam, Team.load], ids=["numpy", "torch"])
@pytest.mark.parametrize("whole", [True, False], ids=["with a hole of 4 TiB", "a header alone"])
def test_a_checkpoint_larger_than_any_memory_is_refused_before_it_is_read(reader, whole, tmp_path):
    path, size = tmp_path / "team.safetensors", 2**42
    shaken(Learning(), path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header = {"__metadata__": header["__metadata__"],
              "network/who": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    try:
        with path.open("r+b") as file:
            file.truncate(8 + len(head) + size * whole)
    except OSError:
        pytest.skip("the file system takes no file of 4 TiB")
    with pytest.raises(ScenarioError, match="4.1e.03 GiB of memory" if whole else "cannot be read as a check"):
        reader(path)
