"""cosim new FILE --from SCENARIO: a scenario file of one's own, to be changed by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cosim.console import command_parser, plain_console, run_command, say
from cosim.errors import ScenarioError, unknown
from cosim.request import CODE, shipped
from cosim.scenario import Scenario, leaves
from cosim.trust import SCENARIOS, available

_LONGEST = 60
"""Characters of a value that is worth a line of the file."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("new")
    p.add_argument("file", type=Path, metavar="FILE", help="where to write it, a .py file; what is there is never "
                   "overwritten")
    p.add_argument("--from", dest="source", default="ieee33", metavar="SCENARIO",
                   help="a name from cosim run --list (default: ieee33)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _new, argv)


def _new(args: argparse.Namespace) -> int:
    if args.file.suffix != CODE:
        raise ScenarioError(f"{args.file}: a scenario of one's own ends in {CODE}")
    if args.source not in (names := available()):
        raise ScenarioError(unknown("scenario", args.source, names))
    _write(args.file, as_code(args.source, args.file.stem))
    say(plain_console(), f"wrote {args.file}; run it: cosim run {args.file}")
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
