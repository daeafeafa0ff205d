"""Distributions that live on the sets of a type's action parts, and their way between a network and an environment.

An action exists in four forms, side by side for all parts of a type:
params  output of a network's head: means of the Gaussians, concentrations (Dirichlet), logits of choices;
raw     what is drawn, stored and scored: the Gaussians' values *before* they are mapped, Dirichlet shares, the index of
        a choice. Scoring before the map is exact: the map's Jacobian cancels in every importance ratio;
unit    what later agents are shown: shares, positions in an interval (0..1), choices as one-hot;
action  what an environment executes, in the parts' order and units.

Simplex of k eligible shares: k - 1 Gaussians, taken to k logits that sum to 0 by an orthonormal basis, then softmax
(the logistic-normal distribution in isometric log-ratio coordinates: Aitchison and Shen 1980, Egozcue et al. 2003).
k free logits would hold one direction that changes nothing but adds noise to every ratio; k - 1 with the last logit
fixed at 0 would explore the last share differently from the others. Interval: sigmoid of one Gaussian. Choice:
categorical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cosim.agents.learn.action_maps import CONCENTRATION_MIN, LOGIT_MAX, ActionTables, places_of
from cosim.agents.learn.spec import AgentType, Choice, before_edge, width

_LOG_2PI = float(np.log(2.0 * np.pi))
_SHARE_MIN = 1e-5
_TAUGHT_MIN = 0.01
"""Least share of an action that is learned from: the logarithm of none at all is nothing to aim at."""


@dataclass(frozen=True)
class Noise:
    """Everything random in one step: normal (B, n, G), gumbel (B, n, L), and a generator for what needs the
    parameters first (Dirichlet). None: no randomness, the modes."""

    normal: Tensor
    gumbel: Tensor
    rng: np.random.Generator

    def at(self, rows: Tensor | slice, position: int | slice | Sequence[int]) -> Noise:
        """Of some rows at one position, or at some."""
        return Noise(self.normal[rows, position], self.gumbel[rows, position], self.rng)


class Actions(nn.Module):
    """The distribution of one agent type; its only parameter is `log_std` (G,), independent of the state.

    n_params, n_raw, n_unit, n_action: widths of the four forms; n_normal (G) and n_gumbel (L): of the noise.
    Raw is laid out as Gaussians, Dirichlet shares, choices; params alike with the choices' logits; unit as the columns
    of simplexes and intervals in the parts' order, then one-hots.
    """

    basis: Tensor
    within: Tensor
    extra: Tensor
    free: Tensor
    low: Tensor
    span: Tensor
    scatter: Tensor
    start: Tensor
    places: Tensor
    edge: Tensor
    count: Tensor
    members: Tensor
    single: Tensor
    around: Tensor | None

    def __init__(self, kind: AgentType, simplex: str = "gaussian", std_start: float = 0.5, std_min: float = 0.02):
        super().__init__()
        self.kind, self.log_std_min = kind, float(np.log(std_min))
        smooth = [p for p in kind.action if not isinstance(p, Choice)]
        self.choices = [p.size for p in kind.action if isinstance(p, Choice)]
        columns = sum(map(width, smooth))
        tables = ActionTables(columns, kind.observation)
        for part in smooth:
            tables.add(part, dirichlet=simplex == "dirichlet")
        self.n_normal, shares = len(tables.rows), len(tables.scatter)
        self.dirichlets = [slice(self.n_normal + k, self.n_normal + k + count) for k, count in tables.dirichlets]
        self.n_gumbel = sum(self.choices)
        self.n_params = self.n_normal + shares + self.n_gumbel
        self.n_raw = self.n_normal + shares + len(self.choices)
        self.n_unit, self.n_action = columns + self.n_gumbel, kind.action_width
        start = [*tables.start, *tables.concentration, *[0.0] * self.n_gumbel]
        for name, value in (("basis", np.reshape(tables.rows, (self.n_normal, columns))), ("within", tables.within),
                            ("extra", tables.extra), ("free", tables.free), ("low", tables.low), ("span", tables.span),
                            ("scatter", np.reshape(tables.scatter, (shares, columns))), ("start", np.asarray(start)),
                            ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)
        self.edged = bool(tables.edge.any())
        for name, value in (("edge", tables.edge), ("count", tables.count), ("members", tables.members),
                            ("single", tables.count == 0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)
        self.register_buffer("places", torch.tensor(places_of(kind.action, columns)), persistent=False)
        around = None if tables.around is None else torch.tensor(
            np.pad(tables.around, ((0, 0), (0, self.n_params - self.n_normal))), dtype=torch.float32)
        self.register_buffer("around", around, persistent=False)
        self.masked = bool((tables.free == 0).any())
        self.log_std = nn.Parameter(torch.full((self.n_normal,), float(np.log(std_start))))

    def std(self) -> tuple[Tensor, Tensor]:
        """(std, log std) of the Gaussians."""
        log_std = self.log_std.clamp(min=self.log_std_min)
        return log_std.exp(), log_std

    def limit_std(self, ceiling: float) -> None:
        """Bring the Gaussians' std down to `ceiling` where it is larger."""
        with torch.no_grad():
            self.log_std.clamp_(max=float(np.log(ceiling)))

    def placed(self, params: Tensor, observation: Tensor) -> Tensor:
        """A head's params (..., P) moved to where the scaled observation (..., O) points, see `Simplex.around`."""
        return params if self.around is None else params + observation @ self.around

    def sample(self, params: Tensor, noise: Noise | None) -> Tensor:
        """(..., n_raw) draws, or modes (Gaussians and choices) and means (Dirichlet) where there is no noise."""
        g = self.n_normal
        parts = []
        if g:
            mean = params[..., :g]
            parts.append(mean if noise is None else torch.addcmul(mean, self.std()[0], noise.normal[..., :g]))
        for place in self.dirichlets:
            parts.append(_shares(_concentration(params[..., place]), noise))
        if self.choices:
            logits = params[..., self.n_params - self.n_gumbel:]
            scores = logits if noise is None else logits + noise.gumbel[..., :self.n_gumbel]
            parts += [s.argmax(-1, keepdim=True).to(params.dtype) for s in scores.split(self.choices, -1)]
        return torch.cat(parts, -1) if parts else params[..., :0]

    def log_prob(self, params: Tensor, raw: Tensor) -> Tensor:
        """(...) log density of raw draws, summed over the type's own dimensions."""
        g = self.n_normal
        total = params.new_zeros(params.shape[:-1])
        if g:
            std, log_std = self.std()
            z = (raw[..., :g] - params[..., :g]) / std
            total = total - 0.5 * (z * z).sum(-1) - (log_std.sum() + 0.5 * g * _LOG_2PI)
        for place in self.dirichlets:
            a = _concentration(params[..., place])
            total = total + (((a - 1.0) * raw[..., place].log()).sum(-1)
                             + torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1))
        for k, logits in enumerate(self._logits(params)):
            chosen = raw[..., self.n_raw - len(self.choices) + k].long().unsqueeze(-1)
            total = total + functional.log_softmax(logits, -1).gather(-1, chosen).squeeze(-1)
        return total

    def entropy(self, params: Tensor) -> Tensor:
        """(...) entropy of what is drawn, summed over the type's own dimensions."""
        total = params.new_zeros(params.shape[:-1])
        if self.n_normal:
            total = total + (self.std()[1].sum() + 0.5 * self.n_normal * (1.0 + _LOG_2PI))
        for place in self.dirichlets:
            a = _concentration(params[..., place])
            whole, k = a.sum(-1), a.shape[-1]
            total = total + (torch.lgamma(a).sum(-1) - torch.lgamma(whole) + (whole - k) * torch.digamma(whole)
                             - ((a - 1.0) * torch.digamma(a)).sum(-1))
        for logits in self._logits(params):
            log_p = functional.log_softmax(logits, -1)
            total = total - (log_p.exp() * log_p).sum(-1)
        return total

    def unit(self, raw: Tensor) -> Tensor:
        """(..., n_unit) what other agents are shown."""
        if not self.choices and not self.dirichlets:
            return self._smooth(raw)
        parts = [self._smooth(raw)] if self.n_unit > self.n_gumbel else []
        for k, size in enumerate(self.choices):
            parts.append(functional.one_hot(raw[..., self.n_raw - len(self.choices) + k].long(), size).to(raw.dtype))
        return torch.cat(parts, -1)

    def action(self, raw: Tensor, unit: Tensor) -> Tensor:
        """(..., n_action) what is executed; `unit` of the same draws."""
        columns = self.n_unit - self.n_gumbel
        smooth = torch.addcmul(self.low, unit[..., :columns], self.span)
        if not self.choices:
            return smooth
        return torch.cat((smooth, raw[..., self.n_raw - len(self.choices):]), -1)[..., self.places]

    def raw(self, action: Tensor) -> Tensor:
        """(..., n_raw) draws that `action` would make the action (..., n_action), which is kept off the edges of its
        sets, where no finite draw is: positions in an interval, and shares without an edge, are at least _TAUGHT_MIN;
        shares of 0 that have one are drawn below it."""
        columns = self.n_unit - self.n_gumbel
        listed = torch.empty_like(action)
        listed[..., self.places] = action
        position = (listed[..., :columns] - self.low) / self.span
        position = position.clamp(max=1.0).maximum(_TAUGHT_MIN * (self.edge == 0))
        if self.edged:
            zeros = ((position == 0) * self.free) @ self.members
            position = before_edge(position, self.count, self.edge, zeros)
        inside, alone = position.clamp(max=1.0 - _TAUGHT_MIN), self.extra * self.free > 0.0  # intervals
        drawn = [torch.where(alone, torch.logit(inside), position.log()) @ self.basis.T]
        for place in self.dirichlets:
            shares = position @ self.scatter[place.start - self.n_normal:place.stop - self.n_normal].T
            drawn.append(shares / shares.sum(-1, keepdim=True))
        return torch.cat([*drawn, listed[..., columns:]], -1)

    def _smooth(self, raw: Tensor) -> Tensor:
        """Columns of simplexes and intervals in 0..1: exp(logit) over the sum of its simplex; of itself + 1."""
        e = (raw[..., :self.n_normal] @ self.basis).clamp(-LOGIT_MAX, LOGIT_MAX).exp()
        if self.masked:
            e = e * self.free
        y = e / (e @ self.within + self.extra)
        if self.edged:
            y = (y - self.edge).clamp(min=0.0)
            y = y / (y @ self.members + self.single)
        if self.dirichlets:
            y = y + raw[..., self.n_normal:self.n_normal + len(self.scatter)] @ self.scatter
        return y

    def _logits(self, params: Tensor) -> tuple[Tensor, ...]:
        return params[..., self.n_params - self.n_gumbel:].split(self.choices, -1) if self.choices else ()


def _concentration(params: Tensor) -> Tensor:
    """Of a Dirichlet; its floor keeps the density finite where a head's output is near 0."""
    return functional.softplus(params) + CONCENTRATION_MIN


def _shares(concentration: Tensor, noise: Noise | None) -> Tensor:
    """Draws of a Dirichlet by gamma variates, kept off the edges where its density is infinite; means without noise."""
    if noise is None:
        return concentration / concentration.sum(-1, keepdim=True)
    g = noise.rng.standard_gamma(concentration.detach().cpu().numpy().astype(np.float64)) + 1e-30
    share = np.maximum(g / g.sum(-1, keepdims=True), _SHARE_MIN)
    return torch.from_numpy((share / share.sum(-1, keepdims=True)).astype(np.float32)).to(concentration.device)
