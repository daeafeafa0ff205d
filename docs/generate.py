"""The parts of the docs that are made from the code: references, port tables, and which row of the model stands where.

A page asks for one by a line `<!-- made: NAME -->`; mkdocs (as its hook) puts it there when the site is built, and
`python docs/generate.py NAME` prints it. Nothing that is made is stored, so nothing can go stale.

Rows: X01.
"""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

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
name_of = model_rows.name_of
MARK = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)
SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs' hook: a page with its marks replaced by what is made for them."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """Text with every mark replaced: what is made for NAME, and the files that `<!-- source: FILE -->` shows.

    Raises KeyError for a name that nothing is made for, OSError for a file that is not there.
    """
    text = SOURCE.sub(lambda found: _shown(ROOT / found.group(1)), markdown)
    return MARK.sub(lambda found: MAKERS[found.group(1)](), text)


def _shown(path: Path) -> str:
    kind = {".py": "python", ".sh": "bash"}.get(path.suffix, "text")
    return f"```{kind}\n{path.read_text(encoding='utf-8').rstrip()}\n```"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _modules(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if p.stem != "__init__")


# --- the command lines ------------------------------------------------------------------------------------------------


def parsers() -> dict[str, Any]:
    """Module -> its argparse parser, of every module that has `parser()`: `cosim` and its subcommands, in the order of
    its help."""
    found = [name_of(path) for package in model_rows.PACKAGES for path in _modules(package)
             if "\ndef parser()" in path.read_text(encoding="utf-8")]
    order = [command.module for command in importlib.import_module("cosim.commands.names").COMMANDS.values()]
    found.sort(key=lambda name: order.index(name) if name in order else -1)
    return {name: importlib.import_module(name).parser() for name in found}


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


# --- the scenarios ----------------------------------------------------------------------------------------------------


def scenarios() -> str:
    """Every scenario, and every field of every simulator of ours: type, default, meaning, from the dataclasses."""
    found = [(path.stem, importlib.import_module(name_of(path)).SCENARIO) for path in _modules("scenarios")
             if not path.stem.startswith("_")]
    out = [_table(("scenario", "what it is"), [(f"`{name}`", scenario.about) for name, scenario in found]), ""]
    used: dict[str, list[str]] = {}
    for name, scenario in found:
        for member in scenario.members.values():
            used.setdefault(member.simulator, []).append(name)
    out += ["## Fields of the frame", "", _fields(importlib.import_module("cosim.scenario").Scenario), "",
            "### Member", "", _fields(importlib.import_module("cosim.scenario").Member), "",
            "### Link", "", _fields(importlib.import_module("cosim.scenario").Link), ""]
    for simulator, names in sorted(used.items()):
        cls = _ours(simulator)
        if cls is not None:
            by = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
            out += [f"## {simulator}", "", _first(cls), "", f"Used by {by}.", "", *_all_fields(cls.PARAMS), ""]
    return "\n".join(out)


def _ours(simulator: str) -> Any:
    """The class behind 'package.module:Class' when it is built on our adapter; None for anybody else's."""
    module, _, name = simulator.partition(":")
    if module.split(".")[0] not in model_rows.PACKAGES:
        return None
    cls = getattr(importlib.import_module(module), name)
    return cls if getattr(cls, "PARAMS", None) is not None else None


def _all_fields(kind: type) -> Iterator[str]:
    """The table of a dataclass, then those of the dataclasses its fields hold."""
    waiting, seen = [kind], set()
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.add(one)
        yield f"### {one.__name__}"
        yield ""
        yield _first(one)
        yield ""
        yield _fields(one)
        yield ""
        waiting += [held for hint in get_type_hints(one).values() for held in _held(hint)]


def _held(hint: Any) -> list[type]:
    if is_dataclass(hint):
        return [hint]
    return [held for inner in get_args(hint) for held in _held(inner)]


def _fields(kind: type) -> str:
    declared = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "model_fields", {})
    rows = []
    for name, info in declared.items():
        bounds = ", ".join(filter(None, map(_bound, info.metadata)))
        default = "required" if info.is_required() else _short(info.get_default(call_default_factory=True))
        rows.append((f"`{name}`", _kind(info.annotation), default, "; ".join(filter(None, (info.description, bounds)))))
    return _table(("field", "type", "default", "meaning"), rows) if rows else "No fields."


def _bound(limit: Any) -> str:
    """'> 0' for a limit that pydantic checks, '' for other metadata."""
    name = type(limit).__name__
    if name == "MinLen":
        return "not empty"
    sign = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}.get(name)
    return f"{sign} {getattr(limit, name.lower()):g}" if sign else ""


def _kind(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return "`" + re.sub(r"\b(?:typing|collections\.abc|[a-z_]+(?:\.[a-z_]+)+)\.", "", _plain(text))[:70] + "`"


def _plain(text: str) -> str:
    return re.sub(r"Annotated\[([^,\[\]]+),[^\]]*\]", r"\1", text)


def _short(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__} as below" if fields(value) else type(value).__name__
    text = repr(value)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


def _first(thing: Any) -> str:
    """The first paragraph of a docstring; '' for a dataclass that has none but its signature."""
    text = (thing.__doc__ or "").strip()
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else " ".join(text.split("\n\n")[0].split())


# --- ports and floors -------------------------------------------------------------------------------------------------


def ports() -> str:
    """What every simulator of ours records, from its ports: the content of a trace."""
    out = []
    for folder in ("grid", "aidc", "controller", "workload", "."):
        for path in sorted((ROOT / "simulators" / folder).glob("*.py")):
            if "Adapter)" not in path.read_text(encoding="utf-8"):
                continue
            module = importlib.import_module(name_of(path))
            for cls in vars(module).values():
                if isinstance(cls, type) and cls.__module__ == module.__name__ and hasattr(cls, "MODELS"):
                    out += _ports_of(cls)
    return "\n".join(out)


def _ports_of(cls: Any) -> list[str]:
    out = []
    models = cls.MODELS if isinstance(cls.MODELS, Mapping) else {}
    for model, declared in models.items():
        recorded = [p for p in declared if p.flow == "out" and p.kind == "level" and p.record]
        rows = [(f"`{p.name}`", p.unit, " x ".join(("time", "entity", *p.dims)),
                 "; ".join(filter(None, (p.about, p.sign)))) for p in recorded]
        if rows:
            out += [f"### {model} of {cls.__module__}:{cls.__name__}", "",
                    _table(("port", "unit", "axes", "what"), rows), ""]
    return out


def floors() -> str:
    """Every module with the first sentence of its docstring, in the order of the floors."""
    order = {name: k for k, floor in enumerate(_floors()) for name in floor}
    out = []
    for package in model_rows.PACKAGES:
        paths = sorted(_modules(package), key=lambda p: (order.get(name_of(p), 0), name_of(p)))
        rows = [(f"`{name_of(p)}`", " ".join((ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or "")
                                           .split("\n\n")[0].split())) for p in paths]
        out += [f"### {package}", "", _table(("module", "what it is"), rows), ""]
    return "\n".join(out)


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


def coverage() -> str:
    """The table of all rows of the model: whether each holds, the modules that have it, the tests that assert it."""
    found, wrong = model_rows.rows()
    if wrong:
        raise ValueError("; ".join(wrong))
    shown = [(row.id, row.name, model_rows.STATES[row.state], _listed(row.modules), _listed(row.tests), row.says)
             for row in found]
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
        out.append((of[0]["part"], of[0]["claimed_in_our_words"], verdict, found or of[0]["why"]))
    return _table(("where", "claim", "verdict", "what was found"), out)


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


MAKERS = {"cli": cli, "scenarios": scenarios, "ports": ports, "floors": floors, "house": house, "coverage": coverage,
          "speed": speed, "renamed": renamed, "verdicts": verdicts}


def main(words: list[str]) -> int:
    """Print the parts that are named, or say which there are."""
    unknown = [word for word in words if word not in MAKERS]
    if unknown or not words:
        print(f"name one or more of: {', '.join(MAKERS)}", file=sys.stderr)
        return 2
    for word in words:
        print(MAKERS[word]())
    return 0


if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
