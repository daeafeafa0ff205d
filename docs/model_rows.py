"""Rows of the model: which module claims a row in its docstring, and which test asserts it.

Rows: X01.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = ("cosim", "agents", "simulators", "scenarios")
TAGGED = (*PACKAGES, "docs")
_CLAIM = re.compile(r"^Rows: ([^.]*)\.\s*\Z", re.MULTILINE)
_TAG = re.compile(r"([A-Z])(\d\d)(?:-(\d\d))?")

STATES = {"": "holds", "part": "in part", "none": "not built"}


def name_of(path: Path) -> str:
    """The name a module is imported by; a test or a page has its path's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("cosim", *parts) if parts[0] in PACKAGES[1:] else parts)


@dataclass(frozen=True)
class Row:
    """One row of the model.

    id, name   of docs/rows.csv
    state      a key of STATES
    says       how it is read here, or what of it is missing; '' where there is nothing to add
    modules    those whose docstring claims it in its line "Rows: ..."
    tests      "module::function" of the tests marked with it, `@pytest.mark.rows(...)`
    """

    id: str
    name: str
    state: str
    says: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


@cache
def rows() -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """(rows of docs/rows.csv, what is wrong with their tags, a sentence each)."""
    claims, asserts = {}, {}
    for folder in TAGGED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            claims[name_of(path)] = claimed(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test, ids in asserted(path.read_text(encoding="utf-8")).items():
            asserts[f"{name_of(path).removeprefix('tests.')}::{test}"] = ids
    with (DOCS / "rows.csv").open(encoding="utf-8", newline="") as file:
        return joined(list(csv.DictReader(file)), claims, asserts)


def joined(table: Iterable[Mapping[str, str]], claims: Mapping[str, Sequence[str]],
           asserts: Mapping[str, Sequence[str]]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rows with those that name them, and what is wrong.

    table: id, name, state, says of every row; claims: module -> IDs; asserts: test -> IDs. Wrong are a name that is no
    row, a row that is built and has no module or no test, one that is not and has either, and a gap that says nothing.
    """
    def naming(tags: Mapping[str, Sequence[str]], row: str) -> tuple[str, ...]:
        return tuple(name for name, ids in tags.items() if row in ids)

    out = tuple(Row(r["id"], r["name"], r["state"] or "", r["says"] or "", naming(claims, r["id"]),
                    naming(asserts, r["id"])) for r in table)
    known = {row.id for row in out}
    wrong = [f"{who} names {row}, which is no row of docs/rows.csv"
             for tags in (claims, asserts) for who, ids in tags.items() for row in ids if row not in known]
    for row in out:
        if row.state not in STATES:
            wrong.append(f"{row.id} has state '{row.state}'; there are {', '.join(map(repr, STATES))}")
        elif row.state and not row.says:
            wrong.append(f"{row.id} is {STATES[row.state]}; say what is missing")
        if row.state == "none":
            wrong += [f"{who} names {row.id}, which is not built" for who in (*row.modules, *row.tests)]
        else:
            where = ", ".join(row.modules) or "no module"
            wrong += [f"{row.id} ({row.name}) is in {where} and no test asserts it"] * (not row.tests)
            wrong += [f"{row.id} ({row.name}) has no module that claims it"] * (not row.modules)
    return out, tuple(wrong)


def claimed(source: str) -> list[str]:
    """IDs in the line "Rows: E01-03, U18." of a module's docstring; ValueError where it says else."""
    about = ast.get_docstring(ast.parse(source)) or ""
    return [row for line in _CLAIM.findall(about) for row in ids_of(line)]


def asserted(source: str) -> dict[str, list[str]]:
    """Test function -> the IDs it is marked with, `@pytest.mark.rows("E01-03", "U18")`."""
    tests = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    marks = {test.name: [m for m in test.decorator_list if isinstance(m, ast.Call)
                         and ast.unparse(m.func) == "pytest.mark.rows"] for test in tests}
    return {name: [row for mark in found for word in mark.args for row in ids_of(ast.literal_eval(word))]
            for name, found in marks.items() if found and name.startswith("test_")}


def ids_of(text: str) -> list[str]:
    """The IDs that "E01-03, U18" stands for; ValueError for what is none."""
    out = []
    for word in text.replace("\n", " ").split(","):
        if (found := _TAG.fullmatch(word.strip())) is None:
            raise ValueError(f"'{word.strip()}' is no row of the model: write E01, or E01-03")
        letter, first, last = found.groups()
        out += [f"{letter}{k:02d}" for k in range(int(first), int(last or first) + 1)]
    return out
