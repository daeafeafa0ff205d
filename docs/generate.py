"""The parts of the docs that are made from the code: references, port tables, and which row of the model stands where.

A page asks for one by a line `<!-- made: NAME -->`; mkdocs (as its hook) puts it there when the site is built, and
`python docs/generate.py NAME` prints it. Nothing that is made is stored, so nothing can go stale.

Rows of the model: X01.
"""

from __future__ import annotations

import ast
import csv
import importlib
import importlib.util
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = ("cosim", "agents", "simulators", "scenarios")
TAGGED = (*PACKAGES, "docs")
MARK = re.compile(r"^<!-- made: (\w+) -->$", re.MULTILINE)
SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)
_EQUATIONS = 39
_TAG = re.compile(r"\b([EUPMSARLTBKXZI])(\d\d)(?:(?:-|\.\.)(?:\1)?(\d\d))?\b")
_NUMBER = re.compile(r"\((\d{1,2})\)(?:-\((\d{1,2})\))?")


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


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


# --- the command lines ------------------------------------------------------------------------------------------------


def parsers() -> dict[str, Any]:
    """Module -> its argparse parser, of every module that has `parser()`: each is a command line."""
    out = {}
    for package in PACKAGES:
        for path in _modules(package):
            text = path.read_text(encoding="utf-8")
            if "\ndef parser()" in text:
                out[_name(path)] = importlib.import_module(_name(path)).parser()
    return out


def cli() -> str:
    """Every command, its arguments and its exit codes, from the parsers."""
    out = []
    for made in parsers().values():
        out += [f"## {made.prog}", "", str(made.description), ""]
        for action in made._actions:
            if type(action).__name__ != "_SubParsersAction":
                continue
            about = {a.dest: a.help for a in action._choices_actions}
            out += [_table(("command", "what it does"), [(f"`{made.prog} {_usage(name, p)}`", about.get(name, ""))
                                                         for name, p in action.choices.items()]), ""]
        rows = [(_argument(a), (a.help or "") % {"default": a.default, "prog": made.prog})
                for a in made._actions if a.dest not in ("help", "command")]
        out += [_table(("argument", "what it does"), rows), ""] if rows else []
        out += [str(made.epilog), ""] if made.epilog else []
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
    found = [(path.stem, importlib.import_module(_name(path)).SCENARIO) for path in _modules("scenarios")
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
    if module.split(".")[0] not in PACKAGES:
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
    for package in ("simulators.grid", "simulators.aidc", "simulators.controller", "simulators.workload", "simulators"):
        for path in sorted((ROOT / package.replace(".", "/")).glob("*.py")):
            module = importlib.import_module(_name(path)) if "Adapter)" in path.read_text(encoding="utf-8") else None
            for cls in vars(module).values() if module else ():
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
    for package in PACKAGES:
        paths = sorted(_modules(package), key=lambda p: (order.get(_name(p), 0), _name(p)))
        rows = [(f"`{_name(p)}`", " ".join((ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or "")
                                           .split("\n\n")[0].split())) for p in paths]
        out += [f"### {package}", "", _table(("module", "what it is"), rows), ""]
    return "\n".join(out)


def _floors() -> list[set[str]]:
    """FLOORS of tests/test_layers.py."""
    for node in ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FLOORS":
            return ast.literal_eval(node.value)
    return []


# --- rows of the model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of the model: its ID, a short name, why it is not built ('' when it is), and who holds it."""

    id: str
    name: str
    not_built: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


@cache
def rows() -> tuple[Row, ...]:
    """All rows of docs/rows.csv with the modules and tests whose docstrings or comments name them."""
    modules, tests = _tagged(TAGGED), _tagged(("tests",))
    with (DOCS / "rows.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Row(r["id"], r["name"], r["not_built"] or "", tuple(modules.get(r["id"], ())),
                         tuple(tests.get(r["id"], ()))) for r in csv.DictReader(file))


def coverage() -> str:
    """The table of all rows of the model with the modules and tests that hold them."""
    shown = []
    for row in rows():
        held = bool(row.modules and row.tests)
        shown.append((row.id, row.name,
                      _listed(row.modules) if held else f"not built: {row.not_built}" if row.not_built else "open",
                      _listed(row.tests) if held else ""))
    return _table(("ID", "what", "module", "test"), shown)


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"`{name}`" for name in names[:most]) + more


def _tagged(folders: tuple[str, ...]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for tag in sorted(tags(path.read_text(encoding="utf-8"), _cites_equations(path))):
                out.setdefault(tag, []).append(_name(path).removeprefix("tests."))
    return out


def _cites_equations(path: Path) -> bool:
    """Whether a number in parentheses is an equation there: in the models, not in the frame, in tests or in layers."""
    parts = path.relative_to(ROOT).parts
    return parts[0] == "simulators" or (parts[0] == "agents" and len(parts) == 2)


def tags(source: str, equations: bool = True) -> set[str]:
    """IDs that a module's docstrings and comments name: a letter and two digits, or a range of them; with `equations`
    also the number of an equation in parentheses, or a range of those."""
    text, found = _prose(source), set()
    for letter, first, last in _TAG.findall(text):
        found |= {f"{letter}{k:02d}" for k in range(int(first), int(last or first) + 1)}
    for first, last in _NUMBER.findall(text) if equations else ():
        found |= {f"E{k:02d}" for k in range(int(first), int(last or first) + 1) if 1 <= k <= _EQUATIONS}
    return found


def _prose(source: str) -> str:
    """Comments and docstrings of a module; other strings are data."""
    tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    parts = [ast.get_docstring(node, clean=False) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    parts += [node.value.value for node in ast.walk(tree) if isinstance(node, ast.Expr)
              and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    parts += [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    return "\n".join(parts)


MAKERS = {"cli": cli, "scenarios": scenarios, "ports": ports, "floors": floors, "coverage": coverage}


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
