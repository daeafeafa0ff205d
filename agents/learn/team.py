"""A team that acts, records, learns, and can be saved: the one door to everything that uses torch.

Arrays in, arrays out (float32 unless noted). Axes as in `cosim.agents.learn.spec`: B environments, n agents,
O, C, A.

Rows: L01, L06, L07, L11, U16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from cosim.agents.learn import checkpoint
from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks import network as networks
from cosim.agents.learn.networks.distributions import Noise
from cosim.agents.learn.networks.make import make_network
from cosim.agents.learn.peers import Alone, Peers
from cosim.agents.learn.ppo import ValueScale, criticism, explained, imitation, improve, prepare, rng_state
from cosim.agents.learn.rollout import Rollout, TeamStep
from cosim.agents.learn.spec import TeamSpec, spec_from_dict, spec_to_dict
from cosim.errors import ScenarioError, first_line
from cosim.params import validate
from cosim.seeds import stream

T = TypeVar("T")
_STREAMS = ("sampling", "order", "minibatches")
_ADAM = ("step", "exp_avg", "exp_avg_sq")


class Team:
    """Policies of all agents of a spec, and their learner.

    The same spec, config and seed give the same weights, and with the same calls the same numbers, bit for bit on CPU.
    Every random number comes from `cosim.seeds` under the name 'agents'. device: cpu, cuda or what else torch names;
    float32 on each, on a GPU without TF32, as torch has it by default. peers: with whom it learns, on CPU; what it is
    given and gives is of the environments that are played here, and all draw the same random numbers. terms: by which
    the environments split rewards (`cosim.agents.learn.spec.credit_terms`), for a critic that has an output for each;
    ScenarioError where it needs them and there are none. Values are then (B, n, K).
    """

    def __init__(self, spec: TeamSpec, config: Learning | None = None, seed: int = 0, device: str = "cpu",
                 peers: Peers | None = None, terms: Sequence[str] = ()):
        torch.set_num_threads(1)  # layers are small: a second thread waits at barriers, 50 times slower on a busy core
        self.spec, self.config, self.seed, self.peers = spec, config or Learning(), seed, peers or Alone()
        self.terms = tuple(terms) if self.config.critic == "terms" else ()
        if self.config.critic == "terms" and not self.terms:
            raise ScenarioError("learn.critic = terms: these environments do not split their reward by term, or no "
                                "term of it has a weight; leave learn.critic out")
        self.device = _device(device)
        weights = int(stream(seed, 0, "agents", "weights").integers(2**62))
        self.network = make_network(spec, self.config, weights, len(self.terms)).to(self.device)
        if self.config.torch_compile:
            self.network.compile_scores()
        self.optimizer = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad],
                                          lr=self.config.learning_rate, eps=self.config.adam_eps, fused=True)
        self.scale, self.usual = (ValueScale(self.config.value_memory, len(self.terms)) for _ in range(2))
        self.terminates = False
        self.rng = {purpose: stream(seed, 0, "agents", purpose) for purpose in _STREAMS}
        self._held: dict[str, tuple[int, Any]] = {}
        self.updates = 0

    @property
    def method(self) -> str:
        """Name of the policy it is, see `cosim.agents.learn.config`."""
        return self.config.method

    @property
    def history_steps(self) -> int:
        """How many steps its agents observe, see `cosim.agents.learn.history`."""
        return self.config.history_steps

    def begin(self, observation: np.ndarray, order: np.ndarray | None = None, deterministic: bool = False
              ) -> TeamDecision:
        """Begin a decision on observations (B, n, O).

        order (B, n): agent at each position, leaders at their own; None: random followers for a policy to which the
        order matters (as long as it explores and `permute` is set), else the team's order. deterministic: the modes.
        """
        return TeamDecision(self, observation, self._order(order, len(observation), deterministic), deterministic)

    def act(self, observation: np.ndarray, context: Callable[[np.ndarray], np.ndarray],
            order: np.ndarray | None = None, deterministic: bool = False) -> tuple[TeamStep, np.ndarray]:
        """(step, context): a whole decision; `context` is called with the leaders' actions, as in `VectorEnv`."""
        decoding = self.begin(observation, order, deterministic)
        told = context(decoding.lead())
        return decoding.follow(told), told

    def value(self, observation: np.ndarray) -> np.ndarray:
        """(B, n) or (B, n, K) value of a state by each agent's critic, in units of the reward."""
        with torch.inference_mode():
            return self.worth(self.network.value(self.tensor(observation)))

    def rollout(self, n_envs: int, twins: int = 1) -> Rollout:
        """Empty storage for one update, which begins with noise of its own; twins: see
        `cosim.agents.learn.spec.VectorEnv`."""
        self._held.clear()
        return Rollout(self.spec, self.config.rollout_steps, n_envs, self.network.n_raw, twins,
                       self.config.credit == "team", self.peers, len(self.terms))

    def taught(self, observation: np.ndarray, action: np.ndarray) -> TeamStep:
        """A step (B, n, A) that another decided, as if it were this team's; who decides first is drawn as ever."""
        raw = np.zeros((*action.shape[:2], self.network.n_raw), np.float32)
        with torch.inference_mode():
            for k, actions in enumerate(self.network.actions):
                at, mine = self.network.groups.select(k), self.tensor(action)
                raw[:, at, :actions.n_raw] = actions.raw(mine[:, at, :actions.n_action]).cpu().numpy()
        none = np.zeros(action.shape[:2], np.float32)
        return TeamStep(action, raw, none, self.value(observation), self._order(None, len(action), deterministic=False))

    def learn(self, rollout: Rollout, progress: float = 0.0, taught: bool = False) -> dict[str, float]:
        """One update from a full rollout; `progress` 0..1 of the whole training sets learning rate and exploration.

        taught: what was done is what to do, however it ended: likelihood is raised, exploration left as it is; the
        critic learns as ever. Returns losses, kl, clipped share, entropy, gradient norm, learning rate, explained
        variance (with terms also of each), mean std; of values the mean (of the sum of terms) and the spread.
        """
        config, progress = self.config, min(max(progress, 0.0), 1.0)
        rate = config.learning_rate * (1.0 - (1.0 - config.learning_rate_end) * progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = prepare(rollout, config, self.scale, self.network, self.device, self._usual_reward(rollout))
        value, target = batch.value.cpu().numpy(), batch.target.cpu().numpy()
        fits = {"explained_variance": explained(value, target)} | {
            f"explained_variance/{name}": explained(value[..., k], target[..., k])
            for k, name in enumerate(self.terms)}
        if taught:
            before = [actions.log_std.detach().clone() for actions in self.network.actions]
            stats = improve(self.network, self.optimizer, batch, replace(config, kl_limit=None),
                            self.rng["minibatches"], self.peers, imitation)
            with torch.no_grad():
                for actions, log_std in zip(self.network.actions, before, strict=True):
                    actions.log_std.copy_(log_std)
        else:
            stats = improve(self.network, self.optimizer, batch, config, self.rng["minibatches"], self.peers,
                            criticism if self.updates < config.critic_first else None)
        if config.std_end is not None and not taught:
            for actions in self.network.actions:
                actions.limit_std(config.std_start * (config.std_end / config.std_start) ** progress)
        self.updates += 1
        stds = torch.cat([a.std()[0].detach().flatten() for a in self.network.actions])
        mean, spread = self.scale.mean_spread
        return {**stats, "learning_rate": rate, **fits, "std": float(stds.mean()) if len(stds) else 0.0,
                "value_mean": float((mean.sum(axis=1) if self.terms else mean).mean()),
                "value_spread": float(spread.mean())}

    def save(self, path: str | Path, arrays: Mapping[str, np.ndarray] | None = None,
             facts: Mapping[str, Any] | None = None, resumable: bool = True) -> None:
        """Write a checkpoint; `arrays` and `facts` of the caller come back from `extras`.

        resumable: with the optimizer's memory, needed to go on learning; without it a third of the size.
        """
        held = {f"network/{name}": x.detach().cpu().numpy() for name, x in self.network.state_dict().items()}
        if resumable:
            held.update(self._optimizer_arrays())
        held.update({f"extra/{name}": x for name, x in (arrays or {}).items()})
        own = {"spec": spec_to_dict(self.spec), "config": asdict(self.config), "seed": self.seed,
               "updates": self.updates, "value_scale": self.scale.state(), "terminates": self.terminates,
               "usual_reward": self.usual.state(), "credit_terms": list(self.terms), "resumable": resumable,
               "rng": {k: rng_state(v) for k, v in self.rng.items()}, "extra": dict(facts or {})}
        checkpoint.write(path, held, own)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", peers: Peers | None = None) -> Team:
        """The team of a checkpoint, ready to act and, where it is resumable, to go on learning. ScenarioError."""
        arrays, facts = checkpoint.read(path)
        try:
            config = validate(Learning, facts["config"], "learn")
            spec = spec_from_dict(facts["spec"])
            learner = checkpoint.learner_facts(path, facts, len(spec.agents), _STREAMS)
            if bool(learner.credit_terms) != (config.critic == "terms"):
                raise ScenarioError(f"checkpoint '{path}' has credit_terms = {list(learner.credit_terms)} and "
                                    f"learn.critic = {config.critic}")
            team = cls(spec, config, learner.seed, device, peers, learner.credit_terms)
            weights = {n.removeprefix("network/"): x for n, x in arrays.items() if n.startswith("network/")}
            checkpoint.check_weights(path, weights, {n: tuple(x.shape) for n, x in team.network.state_dict().items()})
            team._check_optimizer(path, arrays)
            team.network.load_state_dict({n: torch.from_numpy(x) for n, x in weights.items()})
            team.scale.restore(learner.value_scale)
            team.usual.restore(learner.usual_reward)
            team.terminates, team.updates = learner.terminates, learner.updates
            for purpose, state in learner.rng.items():
                team.rng[purpose].bit_generator.state = state
        except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, OverflowError) as err:
            raise ScenarioError(f"checkpoint '{path}' does not fit this version: {err}") from None
        team._restore_optimizer(arrays)
        return team

    def begin_from(self, path: str | Path) -> None:
        """Take over what the team of a checkpoint has learned: weights and the scale of returns, not its exploration,
        its seed or its optimizer. ScenarioError for a team of another shape."""
        arrays, facts = checkpoint.read(path, "network/")
        learner = checkpoint.learner_facts(path, facts, len(self.spec.agents), _STREAMS)
        if learner.credit_terms != self.terms:
            raise ScenarioError(f"checkpoint '{path}' has a critic of {_named(learner.credit_terms)}, this team one of "
                                f"{_named(self.terms)}; begin with one that has the same learn.critic and weights of "
                                "the reward that are 0")
        own = self.network.state_dict()
        checkpoint.check_weights(path, arrays, {n: tuple(x.shape) for n, x in own.items()})
        stds = {n for n in own if n.endswith("log_std")}
        self.network.load_state_dict({n: own[n] if n in stds else torch.from_numpy(x) for n, x in arrays.items()})
        self.scale.restore(learner.value_scale)
        self.usual.restore(learner.usual_reward)

    @staticmethod
    def extras(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, facts) that the caller of `save` gave."""
        arrays, facts = checkpoint.read(path, "extra/")
        return arrays, facts["extra"]

    def tensor(self, x: np.ndarray) -> torch.Tensor:
        """A float32 tensor on the team's device."""
        return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(self.device)

    def worth(self, value: torch.Tensor) -> np.ndarray:
        """Normalised values in units of the reward."""
        mean, spread = self.scale.mean_spread
        return value.cpu().numpy() * spread.astype(np.float32) + mean.astype(np.float32)

    def noise(self, n_envs: int) -> Noise:
        """Everything random of one step, drawn at once, or that of the step before as long as it is held."""
        return self._drawn("noise", lambda: self._new_noise(n_envs))

    def _drawn(self, what: str, draw: Callable[[], T]) -> T:
        """What was drawn last, or anew after `noise_steps`."""
        steps, value = self._held.get(what, (0, None))
        if steps % self.config.noise_steps == 0:
            value = draw()
        self._held[what] = (steps + 1, value)
        return cast(T, value)

    def _new_noise(self, n_envs: int) -> Noise:
        rng, shape, rows = self.rng["sampling"], (self.peers.all_envs(n_envs), len(self.spec.agents)), self.peers.rows
        normal = rng.standard_normal((*shape, max(a.n_normal for a in self.network.actions)), np.float32)
        gumbel = rng.gumbel(size=(*shape, max(a.n_gumbel for a in self.network.actions)))
        return Noise(self.tensor(normal[rows]), self.tensor(gumbel[rows]), rng)

    def _order(self, order: np.ndarray | None, n_envs: int, deterministic: bool) -> np.ndarray:
        """(B, n) index of the agent that decides at each position."""
        n, leaders = len(self.spec.agents), self.spec.leaders
        fixed = np.broadcast_to(np.arange(n), (n_envs, n))
        if not self.network.autoregressive:
            return fixed
        if order is not None:
            _check_order(order, n_envs, n, leaders)
            return np.asarray(order, np.int64)
        if deterministic or not self.config.permute or n - leaders < 2:
            return fixed

        def draw() -> np.ndarray:
            drawn = np.tile(np.arange(n), (self.peers.all_envs(n_envs), 1))
            drawn[:, leaders:] = self.rng["order"].permuted(drawn[:, leaders:], axis=1)
            return drawn[self.peers.rows]

        return self._drawn("order", draw)

    def _usual_reward(self, rollout: Rollout) -> np.ndarray | float:
        """(n,) running mean of what agents are credited with; 0 where episodes terminate or it is not requested."""
        self.usual.update(rollout.credit)
        self.terminates = self.terminates or bool(rollout.terminated.any())
        return 0.0 if self.terminates or not self.config.center_reward else self.usual.mean_spread[0]

    def _optimizer_arrays(self) -> dict[str, np.ndarray]:
        return {f"optimizer/{name}/{key}": self.optimizer.state[p][key].detach().cpu().numpy()
                for name, p in self.network.named_parameters() if p in self.optimizer.state for key in _ADAM}

    def _check_optimizer(self, path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
        """ScenarioError for an optimizer's state of another shape than its parameters."""
        held = {n: x for n, x in arrays.items() if n.startswith("optimizer/")}
        named = {name: p for name, p in self.network.named_parameters() if f"optimizer/{name}/step" in held}
        checkpoint.check_weights(path, held, {f"optimizer/{name}/{key}": () if key == "step" else tuple(p.shape)
                                              for name, p in named.items() for key in _ADAM})

    def _restore_optimizer(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, p in self.network.named_parameters():
            if f"optimizer/{name}/step" in arrays:
                self.optimizer.state[p] = {
                    key: torch.from_numpy(arrays[f"optimizer/{name}/{key}"].copy()).to(self.device) for key in _ADAM}


class TeamDecision:
    """A decision in the making: `lead`, then `follow`."""

    def __init__(self, team: Team, observation: np.ndarray, order: np.ndarray, deterministic: bool):
        self.team, self.order = team, order
        permuted = bool((order != np.arange(order.shape[1])).any())
        with torch.inference_mode():
            noise = None if deterministic else team.noise(len(observation))
            told = torch.from_numpy(order).to(team.device) if permuted else None
            self.inner: networks.Decoding = team.network.start(team.tensor(observation), told, noise)

    def lead(self) -> np.ndarray:
        """(B, leaders, A) the leaders' actions."""
        with torch.inference_mode():
            return self.inner.lead().cpu().numpy()

    def follow(self, context: np.ndarray) -> TeamStep:
        """The whole decision, given the followers' context (B, n, C)."""
        with torch.inference_mode():
            drawn = self.inner.follow(self.team.tensor(context))
            return TeamStep(drawn.action.cpu().numpy(), drawn.raw.cpu().numpy(), drawn.log_prob.cpu().numpy(),
                        self.team.worth(drawn.value), self.order)


def _named(terms: Sequence[str]) -> str:
    """Outputs of a critic, in words."""
    return f"the terms {', '.join(terms)}" if terms else "their sum"


def _check_order(order: np.ndarray, n_envs: int, n: int, leaders: int) -> None:
    ok = np.shape(order) == (n_envs, n) and (np.sort(order, 1) == np.arange(n)).all()
    if not ok or (np.asarray(order)[:, :leaders] != np.arange(leaders)).any():
        raise ScenarioError(f"order must hold every agent 0..{n - 1} once in each of {n_envs} rows, the {leaders} "
                            "leaders first")


def _device(name: str) -> torch.device:
    """ScenarioError for a device that is not there."""
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ScenarioError(f"device '{name}' is neither cpu nor cuda (cuda:1 for the second); use cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise ScenarioError(f"device '{name}' cannot be used: {first_line(err, 300)}; use cpu") from None
    return device
