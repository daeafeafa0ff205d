"""Names and shapes of the weights that a team acts with, from its spec and config alone: what a checkpoint must hold.

The layers are those of `cosim.agents.learn.networks`, by the names that torch gives them.
"""

from __future__ import annotations

from collections.abc import Iterator

from cosim.agents.learn.action_maps import ActionTables
from cosim.agents.learn.config import Learning
from cosim.agents.learn.spec import AgentType, TeamSpec, smooth

LEARNERS = ("value_output.", "critic.", "actions.")
"""Prefixes of the names of weights that only training uses; a team acts without them."""

Shaped = Iterator[tuple[str, tuple[int, ...]]]


def acting_shapes(spec: TeamSpec, config: Learning) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight that acting needs, for a team whose continuous actions are Gaussian and which has
    no discrete choices."""
    width, kinds = config.width, [spec.types[name] for name in dict.fromkeys(kind for _, kind in spec.agents)]
    out: dict[str, tuple[int, ...]] = {}
    for k, kind in enumerate(kinds):
        out.update(_output(f"outs.{k}", width, _gaussians(kind)))
    seen = [len(kind.observation) for kind in kinds]
    if config.method == "mat" or config.context_for_all:
        out.update(_contexts(kinds, width))
    if config.method == "mappo":
        out["who"] = (len(spec.agents), width)
        for k, n_in in enumerate(seen):
            for b in range(config.blocks + 1):
                out.update(_linear(f"actors.{k}.layers.{b}", width if b else n_in, width))
                out.update(_norm(f"actors.{k}.norms.{b}", width))
        return out
    if config.history_steps > 1:
        seen = [n_in // config.history_steps for n_in in seen]
        out["actor.when"] = (config.history_steps, width)
    out.update(_encoder("actor" if config.method == "transformer" else "encoder", spec, seen, config))
    if config.method == "mat-dec":
        for k in range(len(kinds)):
            for b in range(config.blocks):
                out.update(_feed(f"decoders.{k}.{b}", width))
    if config.method == "mat":
        out.update(_autoregressive(kinds, len(spec.agents), config))
    return out


def _autoregressive(kinds: list[AgentType], agents: int, config: Learning) -> Shaped:
    """What `mat` has beyond its encoder."""
    width = config.width
    yield "begin", (1, width)
    yield "who", (agents, width)
    yield from _norm("token_norm", width)
    for k, kind in enumerate(kinds):
        yield from _linear(f"shown.{k}", kind.action_width, width)
    for b in range(config.blocks):
        yield from _decoder(f"blocks.{b}", width)


def _contexts(kinds: list[AgentType], width: int) -> Shaped:
    for k, kind in enumerate(kinds):
        if kind.context:
            yield from _linear(f"told.{k}", len(kind.context), width)


def _gaussians(kind: AgentType) -> int:
    tables = ActionTables(kind.action_width, kind.observation)
    for part in smooth(kind.action):
        tables.add(part, dirichlet=False)
    return len(tables.rows)


def _linear(name: str, n_in: int, n_out: int) -> Shaped:
    yield f"{name}.weight", (n_out, n_in)
    yield f"{name}.bias", (n_out,)


def _norm(name: str, width: int) -> Shaped:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _feed(name: str, width: int) -> Shaped:
    yield from _linear(f"{name}.first", width, width)
    yield from _linear(f"{name}.second", width, width)
    yield from _norm(f"{name}.norm", width)


def _output(name: str, width: int, n_out: int) -> Shaped:
    yield from _linear(f"{name}.first", width, width)
    yield from _norm(f"{name}.norm", width)
    yield from _linear(f"{name}.last", width, n_out)


def _attention(name: str, width: int) -> Shaped:
    yield from _linear(f"{name}.qkv", width, 3 * width)
    yield from _linear(f"{name}.out", width, width)
    yield from _norm(f"{name}.norm", width)


def _encoder(name: str, spec: TeamSpec, seen: list[int], config: Learning) -> Shaped:
    for k, n_in in enumerate(seen):
        yield from _linear(f"{name}.embed.{k}", n_in, config.width)
    yield f"{name}.identity", (len(spec.agents), config.width)
    yield from _norm(f"{name}.norm", config.width)
    for b in range(config.blocks):
        yield from _attention(f"{name}.blocks.{b}.0", config.width)
        yield from _feed(f"{name}.blocks.{b}.1", config.width)


def _decoder(name: str, width: int) -> Shaped:
    yield from _attention(f"{name}.own", width)
    yield from _linear(f"{name}.query", width, width)
    yield from _linear(f"{name}.out", width, width)
    yield from _linear(f"{name}.key_value", width, 2 * width)
    yield from _norm(f"{name}.norm", width)
    yield from _feed(f"{name}.feed", width)
