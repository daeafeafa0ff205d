"""cosim new FILE --from SCENARIO: a scenario file of one's own, to be changed by hand; with --network, one on a network
of one's own."""

from __future__ import annotations

import argparse
import json
import os
import pprint
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosim.commands.names import ON_NETWORK
from cosim.console import add_trust, command_parser, plain_console, run_command, say
from cosim.datafile import ENDINGS, dump
from cosim.errors import ModelError, ScenarioError, SolverError, unknown
from cosim.experiment import Experiment
from cosim.imports import load
from cosim.progress import working
from cosim.request import CODE, find, is_code, shipped
from cosim.scenario import Scenario, leaves, override
from cosim.trust import SCENARIOS, available

_LONGEST = 60
"""Characters of a value that is worth a line of the file."""
_WIDTH = 110


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("new")
    p.add_argument("file", type=Path, metavar="FILE", help="where to write it, a .py, .yaml or .json file; what is "
                   "there is never overwritten")
    p.add_argument("--from", dest="source", metavar="SCENARIO",
                   help="a name from cosim run --list (default: ieee33; with a .dss network ieee13_opendss); for .yaml "
                   "and .json also a file or a trace")
    p.add_argument("--network", metavar="NETWORK", help="put it on this network: a pandapower .json or .xlsx file, a "
                   ".yaml with a list of lines, an OpenDSS .dss file, a name of pandapower.networks, or simbench:CODE")
    p.add_argument("--site", action="append", default=[], dest="sites", metavar="NAME=BUS:GPUS",
                   help="a data center on it: its name, its bus and its size, a whole number of GPUs (each draws up to "
                   "about 1 kW with its share of the rest); may be given several times")
    add_trust(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _new, argv)


def _new(args: argparse.Namespace) -> int:
    file, console = args.file, plain_console()
    source = args.source or ("ieee13_opendss" if str(args.network).endswith(".dss") else "ieee33")
    ending = file.suffix.lower()
    if ending not in (CODE, *ENDINGS):
        raise ScenarioError(f"{file}: a scenario of one's own ends in {', '.join((CODE, *ENDINGS))}")
    if args.sites and args.network is None:
        raise ScenarioError("--site goes with --network; --set shared.sites... changes the data centers of a scenario")
    if file.exists():
        raise _exists(file)
    listed = source in (names := available())
    if ending == CODE and not listed:
        raise ScenarioError(f"{unknown('scenario', source, names)}; to start from a file, write a .yaml")
    scenario = shipped(source) if listed else find(source, args.trust)
    if args.network is not None:
        text, lines = _on_network(args, scenario, source, listed)
    elif listed and ending == CODE:
        text, lines = as_code(source, file.stem), []
    elif listed and ending != ".json":
        text, lines = _as_yaml(source, file.stem), []
    else:
        text, lines = dump(scenario.replace(name=file.stem).model_dump(mode="json"),
                           "json" if ending == ".json" else "yaml"), []
    _write(file, text)
    for line in lines:
        say(console, line)
    say(console, f"wrote {file}; run it: cosim run {file}")
    return 0


def _on_network(args: argparse.Namespace, base: Scenario, source: str, listed: bool) -> tuple[str, list[str]]:
    """Text of the file, and lines to print; the scenario's first step was run."""
    file, ending = args.file, args.file.suffix.lower()
    with working(f"reading {args.network}"):
        made = load(ON_NETWORK, "command")(base, source, args.network, args.sites)
        about = f"{source} on {args.network}"
        scenario = override(base, {s.path: json.dumps(s.value) for s in made.settings})
        scenario = scenario.replace(name=file.stem, about=about, links=[*scenario.model_dump()["links"], *made.links])
        _try(scenario)
    if ending == ".json":
        return dump(scenario.model_dump(mode="json"), "json"), list(made.lines)
    head = [*_comment(f"{about}. Each setting says where it comes from.", "# "),
            *(line for text in made.lines for line in _comment(text, "# "))]
    if ending == CODE:
        return _network_as_code(made, source, file.stem, about, head), list(made.lines)
    if not listed and is_code(source):
        raise ScenarioError(f"--from {source} is code, which a {ending} file cannot start from; write a .json")
    where = source if listed else os.path.relpath(source, file.parent)
    body = [line for s in made.settings for line in (*_comment(s.why, "  # "), f"  {s.path}: {json.dumps(s.value)}")]
    links = dump({"links": list(made.links)}, "yaml") if made.links else ""
    start = dump({"base": where, "name": file.stem, "about": about}, "yaml")
    return "\n".join([*head, f"{start}set:", *body, links]), list(made.lines)


def _try(scenario: Scenario) -> None:
    """Run the first step of every member; ScenarioError where one fails, so that no file is written that does not
    run."""
    first_s = max(member.step_s for member in scenario.members.values())
    try:
        Experiment(scenario.replace(warmup_s=0.0), "native", first_s).run()
    except (ModelError, SolverError) as err:
        raise ScenarioError(f"nothing is written, as its first step fails: {err}") from None


def _network_as_code(made: Any, source: str, name: str, about: str, head: Sequence[str]) -> str:
    body = []
    for s in made.settings:
        value = pprint.pformat(s.value, width=_WIDTH - 8, sort_dicts=False)
        body += [*_comment(s.why, "    # "), f"    {s.path!r}: {textwrap.indent(value, ' ' * 8).strip()},"]
    links = [f"    Link(source={link['source']!r}, target={link['target']!r})," for link in made.links]
    return "\n".join([
        *head, "", f"from cosim.scenario import {'Link, ' * bool(links)}override",
        f"from {SCENARIOS}.{source} import SCENARIO as {source}", "", f"SCENARIO = override({source}, {{", *body,
        f"}}).replace(name={name!r}, about={about!r}" + ("" if links else ")"),
        *([f"            , links=(*{source}.links,", *links, "))"] if links else []), ""])


def _comment(text: str, mark: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=mark)


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
        raise _exists(path) from None
    except OSError as err:
        raise ScenarioError(f"cannot write {path}: {err.strerror or err}") from None


def _exists(path: Path) -> ScenarioError:
    return ScenarioError(f"{path} exists and is left as it is; choose another name")


if __name__ == "__main__":
    sys.exit(main())
