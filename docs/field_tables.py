"""The tables of every field of every simulator: one table per dataclass, on the page of the part that it belongs to.

Rows: X01.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = {"inputs": ("simulators.profile", "simulators.tariff", "simulators.grid.renewables", "simulators.grid.network",
                    "simulators.grid.series", "cosim.tables"),
         "grid": ("simulators.grid", "simulators.own_network"),
         "workload": ("simulators.workload",),
         "gpus": ("simulators.aidc.gpus", "simulators.aidc.llm", "simulators.aidc.capped"),
         "control": ("simulators.controller", "simulators.flexibility", "simulators.forecast", "agents"),
         "sites": ("simulators",)}
"""Page `reference/fields-NAME.md` -> the rooms whose simulators and dataclasses it has; the first that fits."""


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; bars and line ends in cells do not end them."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        cells = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def first(thing: Any) -> str:
    """The first paragraph of a docstring; '' for a dataclass that has none but its signature."""
    text = (thing.__doc__ or "").strip()
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else " ".join(text.split("\n\n")[0].split())


def shipped() -> list[tuple[str, Any]]:
    """(name, Scenario) of every scenario that ships."""
    return [(path.stem, importlib.import_module(f"cosim.scenarios.{path.stem}").SCENARIO)
            for path in sorted((ROOT / "scenarios").glob("[!_]*.py"))]


def simulators() -> dict[str, tuple[Any, list[str]]]:
    """'package.module:Class' of every simulator of ours that a scenario has -> (its class, those scenarios)."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for name, scenario in shipped():
        for member in scenario.members.values():
            if (kind := ours(member.simulator)) is not None:
                users = found.setdefault(member.simulator, (kind, []))[1]
                users += [name] if name not in users else []
    return dict(sorted(found.items()))


def ours(simulator: str) -> Any:
    """The class behind 'package.module:Class' when it is built on our adapter; None for anybody else's."""
    module, _, name = simulator.partition(":")
    if not module.startswith("cosim."):
        return None
    kind = getattr(importlib.import_module(module), name)
    return kind if getattr(kind, "PARAMS", None) is not None else None


def page_of(module: str) -> str:
    """The page that has what a module of ours declares; KeyError where none does."""
    for page, rooms in PAGES.items():
        if any(f"{module}.".startswith(f"cosim.{room}.") for room in rooms):
            return page
    raise KeyError(module)


def scenarios() -> str:
    """Every scenario, the fields of the frame, and where those of each simulator are."""
    out = [table(("scenario", "what it is"), [(f"`{name}`", scenario.about) for name, scenario in shipped()]), "",
           "## Simulators", "",
           table(("simulator", "what it is", "fields", "used by"), [
               (f"`{name}`", first(kind), link(kind.PARAMS, "reference/"), ", ".join(f"`{user}`" for user in users))
               for name, (kind, users) in simulators().items()]), "", "## Fields of the frame", ""]
    module = importlib.import_module("cosim.scenario")
    for name in ("Scenario", "Member", "Link"):
        out += [f"### {name}", "", of_class(getattr(module, name)), ""]
    return "\n".join(out)


def of_page(page: str) -> str:
    """The fields of the simulators of a page and of what they hold: type, default, meaning, from the dataclasses.
    A class that another page has is linked to. KeyError for a page that is not in PAGES."""
    if page not in PAGES:
        raise KeyError(page)
    out: list[str] = []
    for name, (kind, users) in simulators().items():
        if page_of(name.partition(":")[0]) == page:
            out += [f"**`{name}`** {first(kind)} Its fields: {link(kind.PARAMS)}. "
                    f"Used by {', '.join(f'`{user}`' for user in users)}.", ""]
    for kind in every_class():
        if page_of(kind.__module__) == page:
            out += [f"## {kind.__name__}", "", first(kind), "", of_class(kind), ""]
    return "\n".join(out)


def every_class() -> list[type]:
    """The dataclasses of all simulators' fields, each once: what simulators take, then what those hold."""
    waiting = [kind.PARAMS for kind, _ in simulators().values()]
    found: dict[type, None] = {}
    while waiting:
        kind = waiting.pop(0)
        if kind not in found:
            found[kind] = None
            waiting += [inner for hint in get_type_hints(kind).values() for inner in held(hint)]
    return list(found)


def held(hint: Any) -> list[type]:
    """The dataclasses in a type hint."""
    if is_dataclass(hint):
        return [hint]
    return [inner for part in get_args(hint) for inner in held(part)]


def link(kind: type, folder: str = "") -> str:
    """A link to a class's table, from a page beside it or from one that has it in a folder."""
    return f"[{kind.__name__}]({folder}fields-{page_of(kind.__module__)}.md#{kind.__name__.lower()})"


def of_class(kind: type) -> str:
    """A table with a row per field."""
    declared = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "model_fields", {})
    hints = get_type_hints(kind)
    rows = []
    for name, info in declared.items():
        bounds = ", ".join(filter(None, map(bound, info.metadata)))
        default = "required" if info.is_required() else short(info.get_default(call_default_factory=True))
        links = ", ".join(map(link, dict.fromkeys(held(hints[name]))))
        rows.append((f"`{name}`", written(info.annotation), default,
                     "; ".join(filter(None, (info.description, bounds, f"see {links}" if links else "")))))
    return table(("field", "type", "default", "meaning"), rows) if rows else "No fields."


def bound(limit: Any) -> str:
    """'> 0' for a limit that pydantic checks, '' for other metadata."""
    name = type(limit).__name__
    if name == "MinLen":
        return "not empty"
    sign = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}.get(name)
    return f"{sign} {getattr(limit, name.lower()):g}" if sign else ""


def written(annotation: Any) -> str:
    """A type as code, without the modules of its parts."""
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    text = re.sub(r"Annotated\[([^,\[\]]+),[^\]]*\]", r"\1", text)
    return "`" + re.sub(r"\b(?:typing|collections\.abc|[a-z_]+(?:\.[a-z_]+)+)\.", "", text)[:70] + "`"


def short(value: Any) -> str:
    """A default as code; of a dataclass its name."""
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__} as there" if fields(value) else type(value).__name__
    text = repr(value)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


def ports(page: str) -> str:
    """What the simulators of a page record, from their ports: the content of a trace. One that is built on another has
    the ports that it adds. KeyError for a page that is not in PAGES."""
    if page not in PAGES:
        raise KeyError(page)
    return "\n".join(line for kind in recorders() if page_of(kind.__module__) == page for line in of_ports(kind))


def recorders() -> Iterator[Any]:
    """Every class of ours with tables of ports of its own, those it is built on first."""
    found: dict[Any, None] = {}
    for path in sorted((ROOT / "simulators").rglob("*.py")):
        if "MODELS" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(".".join(("cosim", *path.relative_to(ROOT).with_suffix("").parts)))
            found |= {kind: None for kind in vars(module).values() if isinstance(kind, type)
                      and kind.__module__ == module.__name__ and "MODELS" in vars(kind)}
    yield from sorted(found, key=lambda kind: (page_of(kind.__module__), len(kind.__mro__)))


def of_ports(kind: Any) -> list[str]:
    """A table per model of a simulator, with a row per port that is recorded."""
    base = next((above for above in kind.__mro__[1:] if isinstance(vars(above).get("MODELS"), dict)), None)
    out = []
    for model, declared in (kind.MODELS if isinstance(kind.MODELS, dict) else {}).items():
        has = {port.name for port in base.MODELS.get(model, ())} if base else set()
        rows = [(f"`{p.name}`", p.unit, " x ".join(("time", "entity", *p.dims)),
                 "; ".join(filter(None, (p.about, p.sign)))) for p in declared
                if p.flow == "out" and p.kind == "level" and p.record and p.name not in has]
        beside = f"Beside those of `{base.__module__}:{base.__name__}`:" if has else ""
        if rows:
            out += [f"## {model} of {kind.__module__}:{kind.__name__}", "", *[beside, ""] * bool(beside),
                    table(("port", "unit", "axes", "what"), rows), ""]
    return out
