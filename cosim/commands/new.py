"""cosim new FILE --from SCENARIO: a scenario file of one's own, to be changed by hand."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cosim.console import add_trust, command_parser, plain_console, run_command, say
from cosim.datafile import ENDINGS, dump
from cosim.errors import ScenarioError, unknown
from cosim.request import CODE, find, shipped
from cosim.scenario import Scenario, leaves
from cosim.trust import SCENARIOS, available

_LONGEST = 60
"""Characters of a value that is worth a line of the file."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("new")
    p.add_argument("file", type=Path, metavar="FILE", help="where to write it, a .py, .yaml or .json file; what is "
                   "there is never overwritten")
    p.add_argument("--from", dest="source", default="ieee33", metavar="SCENARIO",
                   help="a name from cosim run --list (default: ieee33); for .yaml and .json also a file or a trace")
    add_trust(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _new, argv)


def _new(args: argparse.Namespace) -> int:
    file, source = args.file, args.source
    ending = file.suffix.lower()
    if ending not in (CODE, *ENDINGS):
        raise ScenarioError(f"{file}: a scenario of one's own ends in {', '.join((CODE, *ENDINGS))}")
    listed = source in (names := available())
    if ending == CODE and not listed:
        raise ScenarioError(f"{unknown('scenario', source, names)}; to start from a file, write a .yaml")
    scenario = shipped(source) if listed else find(source, args.trust)
    if listed and ending == CODE:
        text = as_code(source, file.stem)
    elif listed and ending != ".json":
        text = _as_yaml(source, file.stem)
    else:
        text = dump(scenario.replace(name=file.stem).model_dump(mode="json"), "json" if ending == ".json" else "yaml")
    _write(file, text)
    say(plain_console(), f"wrote {file}; run it: cosim run {file}")
    return 0


def as_code(source: str, name: str) -> str:
    """Text of a Python file whose SCENARIO is the shipped scenario `source` under another name, with its fields as
    comments that become settings."""
    lines = [f'    # "{path}": {value!r},' for path, value in _fields(shipped(source))]
    return "\n".join([
        f'"""{source}, with changes of your own: take the # from a line and change its value."""', "",
        "from cosim.scenario import override", f"from {SCENARIOS}.{source} import SCENARIO as {source}", "",
        f"SCENARIO = override({source}, {{", *lines,
        f"}}).replace(name={name!r}, about={f'{source} with changes of my own'!r})", ""])


def _as_yaml(source: str, name: str) -> str:
    """The same as a YAML file with `source` as its base."""
    lines = [f"  # {path}: {json.dumps(value)}" for path, value in _fields(shipped(source))]
    head = dump({"base": source, "name": name, "about": f"{source} with changes of my own"}, "yaml")
    return "\n".join([f"# {source}, with changes of your own: take the # from a line and change its value.",
                      f"{head}set:", *lines, ""])


def _fields(scenario: Scenario) -> list[tuple[str, object]]:
    """Fields that `override` reaches, with what they are in the scenario: those whose value is short."""
    data = scenario.model_dump(mode="json")
    frame = [(name, data[name]) for name in ("until_s", "warmup_s", "seed", "start")]
    shared = [(f"shared.{path}", value) for path, value in leaves(data["shared"])]
    members = [(f"{name}.{path}", value) for name, member in data["members"].items()
               for path, value in (("step_s", member["step_s"]), *leaves(member["params"])) if path]
    return [(path, value) for path, value in (*frame, *members, *shared) if len(repr(value)) <= _LONGEST]


def _write(path: Path, text: str) -> None:
    """ScenarioError for a file that is there, or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ScenarioError(f"{path} exists and is left as it is; choose another name") from None
    except OSError as err:
        raise ScenarioError(f"cannot write {path}: {err.strerror or err}") from None


if __name__ == "__main__":
    sys.exit(main())
