"""Scenario files of data, YAML or JSON, read and written without loss.

YAML is read by the rules of YAML 1.2's JSON schema, so that a text is what it looks like: `no`, `1:30`, 010 and
2026-01-01 are texts, 1e-3 is a number. What cannot be a scenario's data is refused with its place: a key that stands
twice, anchors, tags of programs, a second document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cosim.errors import ScenarioError, cut, first_line, shown
from cosim.limits import MOST_DEPTH, is_file

FORMATS = ("yaml", "json")
ENDINGS = (".yaml", ".yml", ".json")
MOST_BYTES = 64 << 20
"""A scenario with a network of thousands of buses in it has some MB."""
_STR, _MAP = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"
_PLAIN = {
    "tag:yaml.org,2002:null": (r"(?:null|~|)", ["n", "~", ""]),
    "tag:yaml.org,2002:bool": (r"(?:true|false)", list("tf")),
    "tag:yaml.org,2002:int": (r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    "tag:yaml.org,2002:float": (r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
}
"""What plain scalars are: tag -> (form, first characters). All else is text."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node; refused where it is an alias, or deeper than a scenario's data may be."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _problem("anchors and aliases (&, *) are not read; write the value out", event.start_mark)
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > MOST_DEPTH + 8:
            raise _problem(f"it is nested deeper than {MOST_DEPTH} levels", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_yaml_map(self, node: Any) -> Any:
        """A mapping whose keys are texts as they are written, each once."""
        data: dict[str, Any] = {}
        yield data
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _problem("a key is a text", key_node.start_mark)
            if key_node.value in data:
                raise _problem(f"'{cut(key_node.value)}' stands twice", key_node.start_mark)
            data[key_node.value] = self.construct_object(value_node)

    def construct_yaml_float(self, node: Any) -> float:
        """A number; one that overflows is refused."""
        value = float(node.value)
        if not math.isfinite(value):
            raise _problem(f"{cut(node.value)} is too large a number", node.start_mark)
        return value

    def construct_yaml_int(self, node: Any) -> int:
        """A whole number."""
        try:
            return int(node.value)
        except ValueError:  # of more digits than Python reads
            raise _problem(f"{cut(node.value)} is too large a number", node.start_mark) from None


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader`, or a reader by YAML 1.1, would not read as a text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Values that are there twice are written twice."""
        return True

    def represent_str(self, data: str) -> Any:
        """A text; with every character that is not printed as it stands escaped."""
        return self.represent_scalar(_STR, data, None if data.isprintable() else '"')


for _kind in (_Loader, _Dumper):
    for _tag, (_form, _first) in _PLAIN.items():
        _kind.add_implicit_resolver(_tag, re.compile(f"^{_form}$"), _first)
_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.yaml_constructors = {
    _MAP: _Loader.construct_yaml_map, _STR: _Loader.construct_yaml_str,
    "tag:yaml.org,2002:seq": _Loader.construct_yaml_seq, "tag:yaml.org,2002:null": _Loader.construct_yaml_null,
    "tag:yaml.org,2002:bool": _Loader.construct_yaml_bool, "tag:yaml.org,2002:int": _Loader.construct_yaml_int,
    "tag:yaml.org,2002:float": _Loader.construct_yaml_float, None: _Loader.construct_undefined}


def read(path: Path, what: str = "scenario", form: str = "an object with name, members, ... or with base"
         ) -> dict[str, Any]:
    """The data of a YAML or JSON file. ScenarioError, with the place, for what is no object of plain data; what, form:
    the kind of the file and its content in words."""
    if not is_file(path):
        raise ScenarioError(f"no {what} file at {path}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ScenarioError(f"{path} has more than {MOST_BYTES >> 20} MiB; a {what} file names large tables by "
                                "their path")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ScenarioError(f"{path} cannot be read: {err.strerror or err}") from None
    except UnicodeDecodeError as err:
        raise ScenarioError(f"{path} is no UTF-8 text (byte {err.start})") from None
    try:
        data = _from_json(text) if path.suffix.lower() == ".json" else yaml.load(text, _Loader)
    except RecursionError:
        raise ScenarioError(f"{path} is nested deeper than {MOST_DEPTH} levels") from None
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ScenarioError(f"{path}{where}: {err.problem or first_line(err)}") from None
    except (yaml.YAMLError, ValueError) as err:
        raise ScenarioError(f"{path}: {first_line(err)}") from None
    if not isinstance(data, dict):
        raise ScenarioError(f"{path} holds {shown(data)}; a {what} is {form}")
    return data


def dump(data: Mapping[str, Any], kind: str) -> str:
    """Plain data as the text of a file of a format, which `read` reads back as the same data."""
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        raise ScenarioError("a number of this scenario is not finite, which no file of data can say") from None
    if kind == "json":
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Twice(dict):
    """An object of a JSON file with a key that stands twice in it."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


def _from_json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in pairs:
            if key in data:
                return _Twice(key)
            data[key] = value
        return data

    def no_number(word: str) -> float:
        raise ValueError(f"{word} is no number of JSON")

    def finite(word: str) -> float:
        value = float(word)
        return value if math.isfinite(value) else no_number(word)

    data = json.loads(text, object_pairs_hook=once, parse_constant=no_number, parse_float=finite)
    waiting = [("", data)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _Twice):
            raise ValueError(f"'{cut(value.key)}' stands twice in {path or 'the file'}")
        waiting += ([(f"{path}.{k}" if path else k, v) for k, v in value.items()] if isinstance(value, dict) else
                    [(f"{path}.{k}", v) for k, v in enumerate(value)] if isinstance(value, list) else [])
    return data


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)
