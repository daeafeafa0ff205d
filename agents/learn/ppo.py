"""Proximal policy optimisation (Schulman et al. 2017) of a team's network on one rollout.

Rows: L19, T05, T08.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cosim.agents.learn.config import Learning
from cosim.agents.learn.networks.network import PolicyNetwork
from cosim.agents.learn.peers import Alone, Peers
from cosim.agents.learn.rollout import Rollout

_SPREAD_MIN = 1e-4
_ROUNDING = 1e-6
"""Of a float32 advantage, in units of the returns: some ten of their last digits."""
FIGURES = ("policy_loss", "value_loss", "entropy", "kl", "clipped")
"""What is seen of every minibatch."""
T = TypeVar("T")
R = TypeVar("R")
Objective = Callable[[PolicyNetwork, "Batch", Learning], tuple[Tensor, dict[str, Tensor]]]
"""(what is descended, FIGURES) of a minibatch."""


class ValueScale:
    """Running mean and spread of each agent's returns: its critic learns (return - mean) / spread. Where the critic has
    an output for each of some terms of the reward, each term of an agent has a scale of its own.

    `memory` is what a rollout leaves of the past; the start is not counted (its weight is divided out).
    """

    def __init__(self, memory: float, terms: int = 0):
        self.memory, self.weight, self.terms = memory, 0.0, terms
        self.sums = np.zeros((2, 1, terms) if terms else (2, 1))

    @property
    def mean_spread(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) or (n, terms) each; 0 and 1 before the first update."""
        if self.weight == 0.0:
            return np.zeros(1), np.ones(1)
        mean, square = self.sums / self.weight
        return mean, np.sqrt(np.maximum(square - mean * mean, _SPREAD_MIN**2))

    def update(self, returns: np.ndarray) -> None:
        """Take in the returns (..., n) or (..., n, terms) of one rollout."""
        x = returns.astype(np.float64).reshape(-1, *returns.shape[-2 if self.terms else -1:])
        m = self.memory
        self.sums = m * self.sums + (1.0 - m) * np.stack([x.mean(axis=0), (x * x).mean(axis=0)])
        self.weight = m * self.weight + (1.0 - m)

    def state(self) -> list[Any]:
        """As plain numbers: the weight, then two rows, agent by agent and term by term."""
        return [self.weight, *self.sums.reshape(2, -1).tolist()]

    def restore(self, state: Sequence[Any]) -> None:
        """From `state()`."""
        self.weight, self.sums = state[0], np.array(state[1:])
        if self.terms:
            self.sums = self.sums.reshape(2, -1, self.terms)


@dataclass(frozen=True)
class Batch:
    """Samples of a rollout as tensors, (S, n, ...); order None: the team's order. Values and returns normalised, (S, n)
    or (S, n, K).

    Samples of twins follow each other. apart: spread of the returns of twins about their mean, in normalised units, of
    each term (K,) where there are some
    """

    observation: Tensor
    context: Tensor
    raw: Tensor
    order: Tensor | None
    log_prob: Tensor
    advantage: Tensor
    value: Tensor
    target: Tensor
    twins: int = 1
    apart: float | Tensor = 1.0

    def __len__(self) -> int:
        return len(self.observation)

    def part(self, groups: Tensor) -> Batch:
        """The samples of some groups of twins."""
        if len(groups) * self.twins == len(self):
            return self
        index = (groups[:, None] * self.twins + torch.arange(self.twins, device=groups.device)).flatten()
        taken: dict[str, Any] = {name: x[index] for name, x in vars(self).items()
                                 if isinstance(x, Tensor) and name != "apart"}
        return replace(self, **taken)


def prepare(rollout: Rollout, config: Learning, scale: ValueScale, network: PolicyNetwork, device: torch.device,
            usual: np.ndarray | float = 0.0) -> Batch:
    """Advantages (normalised over the rollout, agent by agent), returns of what agents are credited with less `usual`,
    and the value's scale brought up to date with them."""
    advantage, target = rollout.advantages(config.discount, config.gae_lambda, config.value_lambda, usual)
    scale.update(target)  # no PopArt: early returns grow, and the large errors of kept outputs starve the policy
    mean, spread = (x.astype(np.float32) for x in scale.mean_spread)
    advantage = normalised(advantage, np.abs(target).sum(axis=3) if rollout.terms else target)

    def tensor(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]))).to(device)

    permuted = network.autoregressive and bool((rollout.order != np.arange(rollout.order.shape[-1])).any())
    goal = tensor((target - mean) / spread)
    return Batch(tensor(rollout.observation), tensor(rollout.context), tensor(rollout.raw),
                 tensor(rollout.order) if permuted else None, tensor(rollout.log_prob), tensor(advantage),
                 tensor((rollout.value - mean) / spread), goal, rollout.twins, _apart(goal, rollout.twins))


def normalised(advantage: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(T, B, n) each agent's advantages less their mean, in units of their spread, but not of less than the rounding of
    the returns that they are differences of: where all are equal, dividing what float32 makes of nothing by itself
    gave every action of a rollout an advantage of +-1, and half of the time taught a team to leave what had just won.
    """
    exact = advantage.astype(np.float64)
    rounding = _ROUNDING * np.abs(target).max(axis=(0, 1)) + 1e-8
    spread = np.maximum(exact.std(axis=(0, 1)), rounding)
    return ((exact - exact.mean(axis=(0, 1))) / spread).astype(np.float32)


def improve(network: PolicyNetwork, optimizer: torch.optim.Optimizer, batch: Batch, config: Learning,
            rng: np.random.Generator, peers: Peers | None = None, objective: Objective | None = None
            ) -> dict[str, float]:
    """All epochs and minibatches, or until the policy has moved by `kl_limit`; returns the means of what was seen on
    the way, and how many epochs there were. objective: what is descended, None: `loss`."""
    count, descent = len(batch) // batch.twins, MinibatchGradient(network, config, peers, objective)
    seen: list[Tensor] = []
    for _ in range(config.epochs):
        moved: list[Tensor] = []
        shuffled = torch.from_numpy(rng.permutation(count)).to(batch.observation.device)
        for groups in shuffled.tensor_split(min(config.minibatches, count)):
            figures = descent.gradient(batch, groups)
            norm = torch.nn.utils.clip_grad_norm_(descent.weights, config.max_grad_norm)
            optimizer.step()
            seen.append(torch.stack([*figures.values(), norm]))
            moved.append(figures["kl"])
        if config.kl_limit is not None and float(torch.stack(moved).mean()) > config.kl_limit:
            break
    means = torch.stack(seen).mean(0).tolist()
    return dict(zip([*figures, "grad_norm"], means, strict=True)) | {"epochs": len(seen) / len(moved)}


class MinibatchGradient:
    """The gradient of the loss of a minibatch, as the sum over pieces of it that threads or processes share.

    What a piece gives does not depend on who computes it, and sums are made in the pieces' order: the numbers depend
    on how many pieces there are (`config.pieces`, at least one for each process), not on the number of cores. On a GPU
    a minibatch is one piece.
    """

    def __init__(self, network: PolicyNetwork, config: Learning, peers: Peers | None = None,
                 objective: Objective | None = None):
        self.network, self.config, self._peers, self._loss = network, config, peers or Alone(), objective or loss
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self._length = sum(p.numel() for p in self.weights) + len(FIGURES)

    def gradient(self, batch: Batch, groups: Tensor) -> dict[str, Tensor]:
        """Leaves the gradient at `groups` of twins in the weights; returns the figures of `loss`."""
        peers = self._peers
        pieces = min(max(self.config.pieces, peers.count), len(groups)) if groups.is_cpu else 1
        if pieces == 1 and peers.count == 1:
            return self._whole(batch.part(groups))
        parts, own = groups.tensor_split(pieces), range(peers.rank, pieces, peers.count)

        def piece(k: int) -> np.ndarray:
            return self._piece(batch.part(parts[k]), len(parts[k]) / len(groups))

        found = beside(piece, own) if peers.count == 1 else [piece(k) for k in own]
        total = torch.from_numpy(peers.summed(dict(zip(own, found, strict=True)), pieces, self._length))
        *slopes, figures = total.split([*(p.numel() for p in self.weights), len(FIGURES)])
        for weight, slope in zip(self.weights, slopes, strict=True):
            weight.grad = slope.view_as(weight)
        return dict(zip(FIGURES, figures, strict=True))

    def _whole(self, batch: Batch) -> dict[str, Tensor]:
        total, figures = self._loss(self.network, batch, self.config)
        for weight, slope in zip(self.weights, torch.autograd.grad(total, self.weights, allow_unused=True),
                                 strict=True):
            weight.grad = slope
        return figures

    def _piece(self, batch: Batch, share: float) -> np.ndarray:
        """(length,) gradient, weight by weight, and figures."""
        total, figures = self._loss(self.network, batch, self.config)
        slopes = torch.autograd.grad(total * share, self.weights, allow_unused=True)
        return torch.cat([*(torch.zeros(p.numel()) if x is None else x.flatten()
                            for x, p in zip(slopes, self.weights, strict=True)),
                          torch.stack([figures[name] * share for name in FIGURES])]).numpy()


def beside(do: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """[do(x) for x in items], the first in this thread and the others beside it where there are cores."""
    threads = _threads()
    if len(items) == 1 or threads is None:
        return [do(x) for x in items]
    rest = [threads.submit(do, x) for x in items[1:]]
    return [do(items[0]), *(x.result() for x in rest)]


@cache
def _threads() -> ThreadPoolExecutor | None:
    """A thread for every core that this process may use but one; they wait without spinning, other than torch's own at
    their barriers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(cores - 1, "cosim-learn") if cores > 1 else None


def loss(network: PolicyNetwork, batch: Batch, config: Learning) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped objective, with one ratio per agent, the value's loss and the entropy; figures are detached."""
    log_prob, entropy, value = network.scores(batch.observation, batch.context, batch.raw, batch.order)
    weight = network.learned / (network.learned.sum() * len(value))
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
    policy = -(torch.minimum(ratio * batch.advantage, clipped * batch.advantage) * weight).sum()
    spread = (entropy * weight).sum()
    error = value_loss(value, batch, config)
    with torch.no_grad():
        figures = dict(zip(FIGURES, (
            policy.detach(), error.detach(), spread.detach(), ((ratio - 1.0 - log_ratio) * weight).sum(),
            (((ratio - 1.0).abs() > config.clip) * weight).sum()), strict=True))
    return policy + config.value_weight * error - config.entropy * spread, figures


def imitation(network: PolicyNetwork, batch: Batch, config: Learning) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log likelihood of what was done (behaviour cloning), and the value's loss; figures as of `loss`,
    with the likelihood as policy_loss, of which there is no clipping and no divergence."""
    log_prob, entropy, value = network.scores(batch.observation, batch.context, batch.raw, batch.order)
    weight = network.learned / (network.learned.sum() * len(value))
    missing, error = -(log_prob * weight).sum(), value_loss(value, batch, config)
    none = torch.zeros(())
    figures = dict(zip(FIGURES, (missing.detach(), error.detach(), (entropy * weight).sum().detach(), none, none),
                       strict=True))
    return missing + config.value_weight * error, figures


def criticism(network: PolicyNetwork, batch: Batch, config: Learning) -> tuple[Tensor, dict[str, Tensor]]:
    """The value's loss alone; figures as of `loss`, of which the policy's are 0."""
    error = value_loss(network.value(batch.observation), batch, config)
    none = torch.zeros((), device=error.device)
    return error, dict(zip(FIGURES, (none, error.detach(), none, none, none), strict=True))


def value_loss(value: Tensor, batch: Batch, config: Learning) -> Tensor:
    """Huber's or squared error of the normalised value, or the mean over terms; clipped like the ratio, the worse of
    both counts.

    Twins share the exogenous noise: as in generalised least squares, their common error and what they differ
    from it by count by a spread each, so that the critic learns from the differences what a decision was worth.
    """
    error = _error(value - batch.target, batch, config)
    if config.value_clip:
        near = batch.value + (value - batch.value).clamp(-config.clip, config.clip)
        error = torch.maximum(error, _error(near - batch.target, batch, config))
    return error.mean()


def _error(error: Tensor, batch: Batch, config: Learning) -> Tensor:
    if batch.twins == 1:
        return _penalty(error, config)
    grouped = error.unflatten(0, (-1, batch.twins))
    common = grouped.mean(1, keepdim=True)
    return (_penalty(common, config) + _penalty((grouped - common) / batch.apart, config)).flatten(0, 1)


def _penalty(error: Tensor, config: Learning) -> Tensor:
    if config.value_loss == "mse":
        return 0.5 * error ** 2
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=config.huber_delta)


def _apart(target: Tensor, twins: int) -> float | Tensor:
    """Spread of twins' returns (S, n) about their mean; of each term's, (K,) of (S, n, K)."""
    if twins == 1:
        return 1.0
    grouped = target.unflatten(0, (-1, twins))
    within = grouped - grouped.mean(1, keepdim=True)
    return (max(float(within.std()), _SPREAD_MIN) if target.dim() == 2 else
            within.flatten(0, -2).std(0).clamp(min=_SPREAD_MIN))


def rng_state(rng: np.random.Generator) -> dict[str, Any]:
    """A generator's state as JSON data."""
    return dict(rng.bit_generator.state)


def explained(value: np.ndarray, target: np.ndarray) -> float:
    """Share of the returns' variance that the critic explains; 1 is all, below 0 is worse than a constant."""
    variance = float(np.var(target))
    return 1.0 - float(np.var(target - value)) / variance if variance > 0 else 0.0
