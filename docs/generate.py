"""The parts of the docs that are made from the code: references, port tables, and which row of the model stands where.

A page has one where its line `<!-- made: NAME -->` or `<!-- made: NAME PART -->` stands; mkdocs (as its hook) puts it
there when the site is built, and `python docs/generate.py NAME` or `NAME:PART` prints it. Nothing that is made is
stored, so nothing can go stale.

Rows: X01.
"""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def _beside(name: str) -> Any:
    """A module of this folder, which is no package: mkdocs and the tests load this file by its path."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{DOCS / name}.py is not there")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model_rows = _beside("model_rows")
field_tables = _beside("field_tables")
name_of, _table = model_rows.name_of, field_tables.table
MARK = re.compile(r"^<!-- made: (\w+)(?: (\w+))? -->$", re.MULTILINE)
POINT = ("feeder", "lambda_kw_per_kg_h", "load", "fleet", "battery", "jobs")
SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)


def on_config(config: Any, **_: Any) -> Any:
    """mkdocs' hook, before its plugins': where mkdocstrings finds the source, which lies in four folders here and is
    one package once installed. A temporary folder has it by links."""
    _SOURCE.append(folder := tempfile.TemporaryDirectory(prefix="docs-"))
    package = Path(folder.name) / "cosim"
    package.mkdir()
    for path in (*(ROOT / "cosim").iterdir(), *(ROOT / name for name in model_rows.PACKAGES[1:])):
        (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [folder.name]
    return config


on_config.mkdocs_priority = 100  # type: ignore[attr-defined]
_SOURCE: list[tempfile.TemporaryDirectory[str]] = []


def on_post_build(**_: Any) -> None:
    """mkdocs' hook: the temporary folder of `on_config` goes."""
    while _SOURCE:
        _SOURCE.pop().cleanup()


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """mkdocs' hook: a page with its marks replaced by what is made for them. Tables that are made are wide and have the
    place of the list of headings; commands have no prompt, without which the highlighter takes a console's for output.
    A file that the reader is to write has its name above it.
    """
    if MARK.search(markdown) and page.file.name not in _WITH_HEADINGS:
        page.meta.setdefault("hide", ["toc"])
    text = _GIVEN.sub(r'```\2 title="\1"', filled(markdown))
    return text.replace("```console\n", "```bash\n")


_GIVEN = re.compile(r"^<!-- given: (\S+) -->\n```(\w*)$", re.MULTILINE)
_WITH_HEADINGS = ("trace", "model", "paper", "house", "speed")


def filled(markdown: str) -> str:
    """Text with every mark replaced: what is made for NAME, and the files that `<!-- source: FILE -->` shows.

    Raises KeyError for a name that nothing is made for, OSError for a file that is not there.
    """
    text = SOURCE.sub(lambda found: _shown(ROOT / found.group(1)), markdown)
    return MARK.sub(lambda found: MAKERS[found.group(1)](*filter(None, found.groups()[1:])), text)


def _shown(path: Path) -> str:
    kind = {".py": "python", ".sh": "bash"}.get(path.suffix, "text")
    return f"```{kind}\n{path.read_text(encoding='utf-8').rstrip()}\n```"


def _modules(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if p.stem != "__init__")


# --- the command lines ------------------------------------------------------------------------------------------------


def parsers() -> dict[str, Any]:
    """Module -> its argparse parser, of every module that has `parser()`: `cosim` and its subcommands, in the order of
    its help. A command whose parser stands in a module beside its own has it under its own."""
    commands = importlib.import_module("cosim.commands.names").COMMANDS
    modules = {f"cosim {name}": command.module for name, command in commands.items()}
    found = [name_of(path) for package in model_rows.PACKAGES for path in _modules(package)
             if "\ndef parser()" in path.read_text(encoding="utf-8")]
    made = [(name, importlib.import_module(name).parser()) for name in found]
    named = {modules.get(parser.prog, name): parser for name, parser in made}
    order = list(modules.values())
    return dict(sorted(named.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


def cli() -> str:
    """Every command, its arguments and its exit codes, from the parsers."""
    commands = importlib.import_module("cosim.commands.names").COMMANDS
    out = [_table(("command", "what it does"), [(f"[`cosim {name}`](#cosim-{name})", command.about)
                                                for name, command in commands.items()]), ""]
    for made in parsers().values():
        out += [f"## {made.prog}", "", str(made.description), ""]
        for action in made._actions:
            if type(action).__name__ != "_SubParsersAction":
                continue
            about = {a.dest: a.help for a in action._choices_actions}
            out += [_table(("command", "what it does"), [(f"`{made.prog} {_usage(name, p)}`", about.get(name, ""))
                                                         for name, p in action.choices.items()]), ""]
        rows = [(_argument(a), (a.help or "") % {"default": a.default, "prog": made.prog})
                for a in made._actions if a.dest not in ("help", "command") and a.help != "==SUPPRESS=="]
        out += [_table(("argument", "what it does"), rows), ""] if rows else []
        out += [str(made.epilog), ""] if made.epilog and made.prog != "cosim" else []  # its list is above
    return "\n".join(out)


def _usage(name: str, parser: Any) -> str:
    return " ".join([name, *(_words(a) for a in parser._actions if a.dest != "help")])


def _words(action: Any) -> str:
    flag = action.option_strings[-1] if action.option_strings else ""
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    return f"{flag} {value}".strip()


def _argument(action: Any) -> str:
    return f"`{_words(action)}`"


# --- the rooms -----------------------------------------------------------------------------------------------------


ROOMS = {"cosim": ("cosim",), "agents": ("agents", "scenarios"),
         "sites": ("simulators/aidc", "simulators/controller", "simulators/flexibility", "simulators/workload"),
         "simulators": ("simulators",)}
"""Page `reference/modules-NAME.md` -> the rooms on it; the first that fits has a room."""


def modules(page: str) -> str:
    """Every module on a page with the first paragraph of its docstring, a table a room, in the order of floors.
    KeyError for a page that is not in ROOMS."""
    if page not in ROOMS:
        raise KeyError(page)
    every = [path for package in model_rows.PACKAGES for path in _modules(package)]
    order = {name: k for k, floor in enumerate(_floors()) for name in floor}
    out = []
    for room in dict.fromkeys(path.parent for path in every if _page_of(path) == page):
        paths = sorted((p for p in every if p.parent == room),
                       key=lambda p: (order.get(name_of(p), 0), name_of(p)))
        rows = [(f"`{name_of(p)}`", " ".join((ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or "")
                                           .split("\n\n")[0].split())) for p in paths]
        out += [f"## {room.relative_to(ROOT).as_posix()}", "", _table(("module", "what it is"), rows), ""]
    return "\n".join(out)


def _page_of(path: Path) -> str:
    inside = f"{path.parent.relative_to(ROOT).as_posix()}/"
    return next(page for page, rooms in ROOMS.items() if any(inside.startswith(f"{room}/") for room in rooms))


def house() -> str:
    """Every room with what its door says, the modules in it, and in brackets the heavy libraries that they own."""
    owners: dict[str, set[str]] = {}
    for library, modules in _layers("OWNERS").items():
        for module in modules:
            owners.setdefault(module.rpartition(".")[0], set()).add(library)
    out = ["```"]
    for package in model_rows.PACKAGES:
        for door in sorted((ROOT / package).rglob("__init__.py"), key=lambda p: p.parent):
            room, names = door.parent, sorted(p.stem for p in door.parent.glob("*.py") if not p.stem.startswith("__"))
            about = (ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
            heavy = sorted(owners.get(name_of(door).removesuffix(".__init__"), ()))
            says = f"{' '.join(about.split())}{f' [{chr(44).join(heavy)}]'.replace(',', ', ') if heavy else ''}"
            shown = f"{room.relative_to(ROOT).as_posix()}/"
            out += textwrap.wrap(says, 118, initial_indent=f"{shown:26s}", subsequent_indent=" " * 26)
            out += textwrap.wrap(", ".join(names), 118, initial_indent=" " * 28, subsequent_indent=" " * 28)
    return "\n".join([*out, "```"])


def _floors() -> list[set[str]]:
    return _layers("FLOORS")


def _layers(name: str) -> Any:
    """A constant of tests/test_layers.py."""
    for node in ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


# --- rows of the model ------------------------------------------------------------------------------------------------


def coverage(part: str) -> str:
    """The table of the rows of the model whose IDs begin with these letters: whether each holds, the modules that have
    it, the tests that assert it."""
    found, wrong = model_rows.rows()
    if wrong:
        raise ValueError("; ".join(wrong))
    shown = [(row.id, row.name, model_rows.STATES[row.state], _listed(row.modules), _listed(row.tests), row.says)
             for row in found if row.id[0] in part]
    return _table(("ID", "what", "state", "modules", "tests", "to know"), shown)


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + more


# --- speed ------------------------------------------------------------------------------------------------------------


def speed() -> str:
    """The tables of benchmarks/baseline.json, with the command, the machine and the day of each section; of a section
    that was measured in several sizes the largest."""
    record = importlib.import_module("benchmarks.record")
    held = record.read(record.BASELINE)
    out = []
    for name in dict.fromkeys(name for size in ("full", "normal", "quick") for name in held.get(size, {})):
        section = next(held[size][name] for size in ("full", "normal", "quick") if name in held.get(size, {}))
        out += [f"### {name}", "", f"`{section['command']}`, {section['measured']}, {section['machine']}", ""]
        for table in record.tables(section):
            out += [f"**{table.title}**", "", _table(table.columns, table.rows), ""]
            out += [table.note, ""] if table.note else []
        out += [f"Left out: {text}\n" for text in section["skipped"]]
    return "\n".join(out)


def verdicts() -> str:
    """Claims of the paper with the verdicts on them, from the file that `cosim study paper` wrote, a row per claim: the
    verdict in each world, and the figures that it rests on, an interquartile mean with the ends of its interval."""
    with (DOCS / "study" / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    out = []
    for key, who in dict.fromkeys((row["claim"], row["who"]) for row in rows):
        of = [row for row in rows if (row["claim"], row["who"]) == (key, who)]
        by_world = {row["world"]: row["verdict"] for row in of}
        same = len(set(by_world.values())) == 1
        verdict = of[0]["verdict"] if same else "; ".join(f"{world}: {what}" for world, what in by_world.items())
        by_part = {world: [_found(row) for row in of if row["world"] == world and row["iqm"] not in ("", "nan")]
                   for world in by_world}
        found = "; ".join(f"{world}: {', '.join(values)}" for world, values in by_part.items() if values)
        who = "stand-in" if who.startswith("stand-in") else "trained" if who.startswith("trained") else who
        out.append((of[0]["part"], of[0]["claimed_in_our_words"], who, verdict, found or of[0]["why"]))
    return _table(("where", "claim", "who", "verdict", "what was found"), out)


def signal() -> str:
    """CO2 that following a signal saves, from the file that `cosim study signal` wrote, a row per point: t a day with
    no signal, then kg a day saved by each, with its share of what the bound leaves to be saved where there is one."""
    points: dict[tuple[str, ...], dict[str, dict[str, list[float]]]] = {}
    with (DOCS / "study" / "signal.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            held = points.setdefault(tuple(row[name] for name in POINT), {}).setdefault(row["signal"], {})
            held.setdefault(row["figure"], []).append(float(row["value"]))
    signals = list(dict.fromkeys(name for by_signal in points.values() for name in by_signal))
    rows = []
    for point, by_signal in points.items():
        tonnes = {name: fmean(held["system_co2_t"]) for name, held in by_signal.items()}
        none = tonnes.pop("none")
        bound = by_signal["none"].get("bound_system_co2_t")
        saved = {name: 1000.0 * (none - t) for name, t in tonnes.items()}
        share = {name: f" ({kg / 10.0 / (none - fmean(bound)):.0f} %)" if bound else "" for name, kg in saved.items()}
        where = (point[0], *(f"{float(x):g}" for x in point[1:-2]), "yes" if point[-2] == "1" else "", point[-1])
        rows.append((*where, f"{none:.2f}", *(f"{saved[name]:.0f}{share[name]}" for name in signals[1:])))
    return _table(("feeder", "lambda", "load", "fleet", "battery", "jobs", "none, t", *signals[1:]), rows)


def _found(row: Mapping[str, str]) -> str:
    value, low, high = (f"{float(row[name]):.3g}" for name in ("iqm", "low", "high"))
    unit = f" {row['unit']}" if row["unit"] else ""
    return f"{value}{unit}" if low == "nan" else f"{value} [{low}, {high}]{unit}"


def renamed() -> str:
    """Names of version 0.1 and those of today: modules that changed more than the package they are in, and objects,
    by the name of their module today."""
    names = importlib.import_module("cosim.old_names")
    return "\n\n".join(_table(("version 0.1", "today"), [(f"`{then}`", f"`{now}`") for then, now in sorted(of.items())])
                       for of in (names.MODULES, names.OBJECTS))


MAKERS: dict[str, Callable[..., str]] = {
    "cli": cli, "scenarios": field_tables.scenarios, "fields": field_tables.of_page, "ports": field_tables.ports,
    "modules": modules, "house": house, "coverage": coverage, "speed": speed, "renamed": renamed, "verdicts": verdicts,
    "signal": signal}


def main(words: list[str]) -> int:
    """Print the parts that are named, or say which there are."""
    unknown = [word for word in words if word.partition(":")[0] not in MAKERS]
    if unknown or not words:
        print(f"name one or more of: {', '.join(MAKERS)} (some as NAME:PART)", file=sys.stderr)
        return 2
    for word in words:
        name, _, part = word.partition(":")
        print(MAKERS[name](*filter(None, [part])))
    return 0


if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
