"""Points of a sweep: which values fields take, as a grid or as a list, from a command line, Python or a plan file."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosim.datafile import ENDINGS, read
from cosim.errors import ScenarioError, cut, shown, unknown
from cosim.limits import reading_text

MOST_CELLS = 100_000
"""Of a sweep: points times seeds."""
_PLAN_FIELDS = ("grid", "points")
_OPEN = {"[": "]", "{": "}"}
_SEEDS = "write FIRST:END (0:5 is 0, 1, 2, 3, 4) or a list, as 1,5,9"

Point = dict[str, Any]
"""Field -> value, as `cosim.scenario.override` takes them."""


def values_of(field: str, text: str) -> list[Any]:
    """The values in 'V1,V2,...': a comma within brackets, braces or double quotes separates none. Each is JSON where it
    parses, else the text itself. ScenarioError for what does not close, an empty value, and one that is there twice."""
    parts, part, open_, quoted = [], "", [], False
    for k, c in enumerate(text):
        if c == '"' and text[k - 1:k] != "\\":
            quoted = not quoted
        elif c in _OPEN and not quoted:
            open_.append(_OPEN[c])
        elif c in _OPEN.values() and not quoted and (not open_ or open_.pop() != c):
            raise ScenarioError(f"--set {cut(field)}={cut(text)}: '{c}' closes nothing; write a text with brackets in "
                                'double quotes, as \'"a]"\'')
        if c == "," and not quoted and not open_:
            parts.append(part.strip())
            part = ""
        else:
            part += c
    if quoted or open_:
        raise ScenarioError(f"--set {cut(field)}={cut(text)}: {open_[-1] if open_ else 'a double quote'} is missing; "
                            "values are separated by commas, of which those in [], {} and \"\" are parts of a value")
    parts.append(part.strip())
    if "" in parts:
        raise ScenarioError(f"--set {cut(field)}={cut(text)} has an empty value; write '\"\"' for an empty text, and a "
                            "text with a comma in double quotes, as '\"a,b\"'")
    return different(field, [plain(p) for p in parts])


def different(field: str, values: Iterable[Any]) -> list[Any]:
    """Values of a field. ScenarioError where there is none, or one twice."""
    found, texts = list(values), set()
    if not found:
        raise ScenarioError(f"{cut(field)} has no value; a sweep takes one or more of each field")
    for value in found:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        text = json.dumps(float(value) if number else value, sort_keys=True, default=repr)
        if text in texts:
            raise ScenarioError(f"{cut(field)} has the value {shown(value)} twice; each point is computed once")
        texts.add(text)
    return found


def grid(axes: Mapping[str, Sequence[Any]], points: Sequence[Mapping[str, Any]] = ()) -> list[Point]:
    """All combinations of the values of `axes`, the last field changing fastest, at each of `points` (none: at one
    point without settings). ScenarioError for a field in both, and for points that have not the same fields."""
    fields = list(points[0]) if points else []
    for number, point in enumerate(points, 1):
        if set(point) != set(fields):
            missing = sorted(set(fields) ^ set(point))
            raise ScenarioError(f"point {number} of the plan and the first differ in their fields: {cut(missing[0])}; "
                                "each point states the same ones")
    if twice := [field for field in fields if field in axes]:
        raise ScenarioError(f"{cut(twice[0])} stands among the points and in the grid; state it once")
    for field in (*axes, *fields):
        if field == "seed":
            raise ScenarioError(f"seed is no field of a sweep: every point meets the same seeds; {_SEEDS}: --seeds")
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [{**point, **combination} for point in (points or [{}]) for combination in combinations]


def seeds_of(text: str) -> list[int]:
    """Seeds of 'FIRST:END', END not among them, or of 'A,B,C'. ScenarioError."""
    first, colon, end = text.partition(":")
    try:
        found = list(range(int(first), int(end))) if colon else [int(part) for part in text.split(",")]
    except (ValueError, OverflowError, MemoryError):
        raise ScenarioError(f"--seeds {cut(text)}: {_SEEDS}") from None
    if not found:
        raise ScenarioError(f"--seeds {cut(text)} are none; {_SEEDS}")
    return checked_seeds(found)


def checked_seeds(seeds: Iterable[int]) -> list[int]:
    """Seeds that can be. ScenarioError."""
    found = [seed.item() if hasattr(seed, "item") else seed for seed in seeds]  # of numpy
    for seed in found:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ScenarioError(f"seed {shown(seed)} must be a whole number from 0 to 2**63 - 1")
    if len(set(found)) < len(found) or not found:
        raise ScenarioError("seeds are different whole numbers, at least one")
    return found


def plan_of(path: Path) -> tuple[dict[str, list[Any]], list[Point]]:
    """(grid, points) of a plan file. ScenarioError.

    CSV: a column per field, a row per point; cells as --set takes them. YAML or JSON: `grid`, field -> list of values,
    `points`, a list of field -> value, or both.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        return {}, _rows(path)
    if ending not in ENDINGS:
        raise ScenarioError(f"plan {path}: a plan ends in .csv, {', '.join(ENDINGS)}")
    data = read(path, "plan", "grid: {field: [values]}, points: [{field: value}], or both")
    if wrong := [key for key in data if key not in _PLAN_FIELDS]:
        raise ScenarioError(f"{path}: {unknown('field of a plan', wrong[0], _PLAN_FIELDS)}")
    axes, points = data.get("grid") or {}, data.get("points") or []
    if not isinstance(axes, dict) or not all(isinstance(values, list) for values in axes.values()):
        raise ScenarioError(f"{path}: grid = {shown(axes)}; write field: [value, value], a line each")
    if not isinstance(points, list) or not all(isinstance(point, dict) and point for point in points):
        raise ScenarioError(f"{path}: points = {shown(points)}; write a list of {{field: value}}")
    if not axes and not points:
        raise ScenarioError(f"{path} has no point; write grid: {{field: [values]}}, points: [{{field: value}}], or "
                            "both")
    different(f"{path}: the list of points", points or [{}])
    return {field: different(field, values) for field, values in axes.items()}, points


def _rows(path: Path) -> list[Point]:
    with reading_text(path):
        rows = [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if any(row)]
    if len(rows) < 2:
        raise ScenarioError(f"{path} has no point; its first row names fields, as grid.lambda_kw_per_kg_h, and each "
                            "row below is a point")
    names = [name.strip() for name in rows[0]]
    if "" in names or len(set(names)) < len(names):
        raise ScenarioError(f"{path}: the first row, {shown(rows[0])}, names a field twice or not at all")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(names):
            raise ScenarioError(f"{path}, row {number} has {len(row)} cells, its header {len(names)}; put a value with "
                                "a comma in double quotes")
        if any(not cell.strip() for cell in row):
            raise ScenarioError(f"{path}, row {number} has an empty cell; write the value that the field takes there")
    return different(f"{path}: the list of points",
                     [dict(zip(names, map(plain, row), strict=True)) for row in rows[1:]])


def plain(text: Any) -> Any:
    """A value as `--set` takes it: of a text the JSON where it parses, else the text; of an array of numpy a list."""
    if not isinstance(text, str):
        return text.tolist() if hasattr(text, "tolist") else text
    try:
        return json.loads(text.strip())
    except (ValueError, RecursionError):
        return text.strip()
