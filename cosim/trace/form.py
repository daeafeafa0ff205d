"""What a trace is made of: which root attributes, groups, axes and columns, and of what kind each is.

Checked where a file is opened, so that no reader meets a number in the place of a text, or a scenario that is none.
Every function returns what is wrong as a phrase, '' for what a run could have written; what a trace has beyond that
(further attributes, ports, tables) is not checked. `cosim.trace.reader` has the layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from cosim.digest import Digest
from cosim.errors import cut, first_line
from cosim.limits import refuse_odd

_TEXTS = ("format", "status", "error", "name", "driver", "created", "start", "lost", "scenario", "summary", "versions",
          "notes")
_NUMBERS = ("seed", "until_s")
_OF_A_MEMBER: Mapping[str, type | tuple[type, ...]] = {"simulator": str, "step_s": (int, float), "params": dict}
NUMBER, TEXT, FIXED_TEXT = "numbers", "text", "text of a fixed length"


def odd_attribute(name: str, value: Any) -> str:
    """What is wrong with a root attribute."""
    if name in _NUMBERS and not (getattr(value, "ndim", 0) == 0 and _is_finite(value)):
        return "is no finite number"
    if name not in _TEXTS:
        return ""
    if not isinstance(value, str):
        return "is no text"
    if any("\ud800" <= c <= "\udfff" for c in value):
        return "is no UTF-8 text"
    try:
        return {"scenario": _odd_scenario, "summary": _odd_summary, "versions": _odd_versions, "notes": _odd_notes}.get(
            name, lambda _: "")(value)
    except RecursionError:
        return "is nested too deep"
    except (ValueError, KeyError, TypeError) as err:
        return f"is not what a run writes ({first_line(err, 150)})"


def odd_dataset(path: str, kind: str, shape: tuple[int, ...]) -> str:
    """What is wrong with a dataset: its place, its dimensions, or what it holds (NUMBER, TEXT, FIXED_TEXT).

    path: '/member/Model/port', '/table/column'
    """
    depth, name = path.count("/"), path.rpartition("/")[2]
    if depth < 2:
        return "is a dataset that belongs to no model and no table"
    if depth == 2 or name in ("time_s", "entity"):
        if len(shape) != 1:
            return f"has {len(shape)} dimensions, and a column or an axis has one"
        wanted = {"time_s": (NUMBER,), "entity": (TEXT,)}.get(name) if depth > 2 else (NUMBER, FIXED_TEXT)
        return "" if wanted is None or kind in wanted else f"holds {kind}, and this place has {' or '.join(wanted)}"
    if len(shape) == 1:
        return "" if kind == TEXT else f"holds {kind} in one dimension: neither names along an axis nor a port"
    if len(shape) < 2 or kind != NUMBER:
        return f"holds {kind} in {len(shape)} dimensions, and a port numbers over time and entity"
    return ""


def odd_group(path: str, inside: Mapping[str, tuple[int, ...] | None]) -> str:
    """What is wrong with a group as a whole. inside: shapes of its datasets by name, None for a group."""
    groups = [name for name, shape in inside.items() if shape is None]
    if path.count("/") == 1 and groups and len(groups) < len(inside):
        return "has both models and columns"
    if path.count("/") != 2:
        return ""
    if groups:
        return f"is a model in which a group stands, {cut(groups[0])}"
    if missing := {"time_s", "entity"} - inside.keys():
        return f"is a model without {' and '.join(sorted(missing))}"
    entities = inside["entity"]
    wrong = [name for name, shape in inside.items() if shape is not None and len(shape) > 1 and shape[1:2] != entities]
    return f"has {entities[0] if entities else 0} entities, but its port {cut(wrong[0])} has others" if wrong else ""


def _odd_scenario(text: str) -> str:
    scenario = refuse_odd(json.loads(text))
    if not isinstance(scenario, dict):
        return "is no scenario"
    for name, kind in (("name", str), ("members", dict), ("shared", dict)):
        if not isinstance(scenario.get(name), kind):
            return f"is no scenario: it has no {name}"
    for name, member in scenario["members"].items():
        for field, wanted in _OF_A_MEMBER.items():
            if not (isinstance(member, dict) and isinstance(member.get(field), wanted)):
                return f"is no scenario: its member {cut(name)} has no {field}"
        if not (_is_finite(member["step_s"]) and member["step_s"] > 0):
            return f"is no scenario: step_s of its member {cut(name)} is no time"
    wrong = [name for name in ("warmup_s", "until_s") if not _is_finite(scenario.get(name) or 0.0)]
    return f"is no scenario: its {wrong[0]} is no time" if wrong else ""


def _odd_summary(text: str) -> str:
    Digest.from_json(text)
    return ""


def _odd_versions(text: str) -> str:
    said = json.loads(text)
    right = isinstance(said, dict) and all(isinstance(version, str) for version in said.values())
    return "" if right else "is no list of versions"


def _odd_notes(text: str) -> str:
    said = json.loads(text)
    return "" if isinstance(said, list) and all(isinstance(note, str) for note in said) else "is no list of texts"


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, str | bytes | bool) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
