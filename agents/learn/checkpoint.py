"""Arrays and facts in one file: safetensors with JSON metadata, nothing in it that could run.

Written beside its place and moved there when complete, so that a killed process leaves the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cosim.errors import ScenarioError, cut
from cosim.limits import check_memory, is_file
from cosim.params import fields_of, params, validate

FORMAT = "aidc-cosim team 1"
LAST, BEST, LOG = "last.safetensors", "best.safetensors", "log.jsonl"
"""What is in the folder of a training run."""
_FACTS = "facts"
_LENGTH = 8
"""Bytes of a safetensors file before its header: the length of it."""
_Scale = tuple[Annotated[float, Field(strict=True, ge=0, le=1)], list[float], list[float]]


@params(kw_only=True)
class LearnerFacts:
    """How far a team has learned: all of its checkpoint's facts that are no specification."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63, description="of everything random")]
    updates: Annotated[int, Field(strict=True, ge=0, le=2**53, description="made so far")]
    terminates: Annotated[bool, Field(strict=True, description="whether an episode has ever terminated")]
    value_scale: Annotated[_Scale, Field(description="weight, means and mean squares of returns")]
    usual_reward: Annotated[_Scale, Field(description="the same of rewards")]
    rng: Annotated[dict[str, dict[str, Any]], Field(description="states of the random numbers, by purpose")]
    credit_terms: Annotated[tuple[str, ...], Field(description="terms of the reward of which the critic has an output "
                                                   "each; none: one output of their sum")] = ()


def learner_facts(path: str | Path, facts: Mapping[str, Any], agents: int, purposes: Collection[str]) -> LearnerFacts:
    """The facts of a team of so many agents, one stream of random numbers per purpose. ScenarioError naming the first
    that no team has."""
    names = fields_of(LearnerFacts)
    try:
        found = validate(LearnerFacts, {k: v for k, v in facts.items() if k in names}, "facts", bounded=False)
    except ScenarioError as err:
        raise ScenarioError(f"checkpoint '{path}': {err}") from None
    terms = len(found.credit_terms) or 1
    for name in ("value_scale", "usual_reward"):
        for row in getattr(found, name)[1:]:
            if len(row) not in (terms, agents * terms):
                raise ScenarioError(f"checkpoint '{path}': {name} has {len(row)} numbers, its team {agents} agents"
                                    + (f" and {terms} terms" if found.credit_terms else ""))
    if set(found.rng) != set(purposes):
        raise ScenarioError(f"checkpoint '{path}': rng has {cut(', '.join(sorted(found.rng))) or 'nothing'}, its team "
                            f"draws {', '.join(sorted(purposes))}")
    return found


def write(path: str | Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Replace the file at `path`. Arrays of numbers, truth values or text; facts of plain JSON data."""
    texts: dict[str, str] = {}
    plain = {name: _plain(name, np.asarray(x), texts) for name, x in arrays.items()}
    metadata = {"format": FORMAT, _FACTS: json.dumps({"texts": texts, **facts})}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(_in_order(save(plain, metadata)))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _in_order(file: bytes) -> bytes:
    """The same safetensors file with its metadata sorted by name: the library writes them in another order every time,
    and equal teams are to be equal files. The header is filled up with spaces to a multiple of 8 bytes, as the format
    has it."""
    end = _LENGTH + int.from_bytes(file[:_LENGTH], "little")
    header = json.loads(file[_LENGTH:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text + file[end:]


def read(path: str | Path, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays whose names begin with `prefix`, without it; facts). ScenarioError for a file that is no checkpoint."""
    if not is_file(path):
        raise ScenarioError(f"there is no checkpoint '{path}'")
    check_memory(f"checkpoint '{path}'", Path(path).stat().st_size / 4, 4, "fetch it anew, or free memory")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ScenarioError(f"'{path}' is no checkpoint of a team: format is {metadata.get('format')}, not "
                                    f"'{FORMAT}'")
            facts = json.loads(metadata[_FACTS])
            texts = facts.pop("texts")
            arrays = {name.removeprefix(prefix): _as_was(file.get_tensor(name), texts.get(name))
                      for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118 - no iterator
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            MemoryError) as err:
        raise ScenarioError(f"'{path}' cannot be read as a checkpoint: {err}") from None
    return arrays, facts


def check_weights(path: str | Path, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]],
                  ignored: tuple[str, ...] = ()) -> None:
    """ScenarioError that names the first array that is missing, unexpected, of another shape, or not finite floats.

    shapes: by name, all that must be there; ignored: beginnings of names whose shapes do not matter
    """
    if missing := sorted(set(shapes) - set(arrays)):
        raise ScenarioError(f"checkpoint '{path}' lacks the tensor '{missing[0]}'; train it again or fetch it anew")
    for name, x in arrays.items():
        if name not in shapes and not name.startswith(ignored):
            raise ScenarioError(f"checkpoint '{path}' has a tensor '{name[:80]}' that its team has no place for")
        if name in shapes and x.shape != tuple(shapes[name]):
            raise ScenarioError(f"checkpoint '{path}': tensor '{name}' has the shape {x.shape}, its team needs "
                                f"{tuple(shapes[name])}")
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise ScenarioError(f"checkpoint '{path}': tensor '{name}' holds what is no finite number ({x.dtype})")


def complete_lines(path: Path) -> list[str]:
    """Lines of a training log whose last one may have been cut off; none where there is no log."""
    text = path.read_text() if path.exists() else ""
    return text[:text.rfind("\n") + 1].splitlines()


def _plain(name: str, x: np.ndarray, texts: dict[str, str]) -> np.ndarray:
    """Text goes in as bytes; its type is noted."""
    if x.dtype.kind in "US" and x.dtype.itemsize:
        texts[name] = json.dumps([x.dtype.str, list(x.shape)])
        return np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8)
    if x.dtype.kind not in "biuf":
        raise ScenarioError(f"'{name}' of a checkpoint holds {x.dtype}; it takes numbers, truth values and text")
    return np.ascontiguousarray(x).reshape(x.shape)


def _as_was(x: np.ndarray, text: str | None) -> np.ndarray:
    if text is None:
        return x
    kind, shape = json.loads(text)
    return np.frombuffer(x.tobytes(), np.dtype(kind)).reshape(shape).copy()
