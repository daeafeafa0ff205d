"""Objects that a network file would construct, found in its text before it is decoded.

pandapower writes objects as `{"_module": ..., "_class": ..., "_object": ...}`, also inside of strings, and its decoder
imports the module that the file names before it checks whether the class is one of its own. Here nothing is imported.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import pandas

from cosim.errors import ScenarioError, cut

MOST_CELLS = 5_000_000
"""Of a sheet of an Excel file, the empty ones between others included."""
LARGEST_MB = 256
"""Of a network file's text; of an Excel file's, unpacked. A network of 10 000 buses takes some 10 MB."""
DEEPEST = 64
"""Objects, lists and strings of JSON within each other; pandapower's own files stay below 20."""
_MODULE, _CLASS, _OBJECT = "_module", "_class", "_object"
_SHAPE = frozenset({_MODULE, _CLASS, _OBJECT, "_state", "orient", "dtype", "typ", "name", "names", "crs", "columns",
                    "index_name", "index_names", "column_name", "column_names", "is_multiindex", "is_multicolumn"})
"""What pandapower writes beside an object's content; other keys would reach constructors as arguments."""
_TEXTS = frozenset({"DataFrame", "Series", "GeoDataFrame", "pandapowerNet"})
"""Types whose content, where it is a text, is JSON; pandas would open a file of that name otherwise."""


class UnsafeFile(ValueError):
    """A file contains what no file of a network needs; the message names it."""


@dataclass(frozen=True, slots=True)
class ConstructedObject:
    """An object that decoding the file would construct."""

    module: str
    name: str


class _Pairs(list):
    """A JSON object as its (key, value) pairs: a key that stands twice stays to be seen."""


def read_text(path: Path) -> str:
    """Text of a JSON file. UnsafeFile if it is larger than `LARGEST_MB`."""
    _check_size(path.stat().st_size)
    return path.read_text(encoding="utf-8")


def read_cells(path: Path) -> Iterator[str]:
    """All texts in an Excel file, titles of columns included. UnsafeFile if it unpacks to more than `LARGEST_MB`, or
    a sheet spans more than `MOST_CELLS`."""
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        _check_size(sum(part.file_size for part in packed.infolist()))
        for part in packed.infolist():
            with packed.open(part) as opened:
                _check_extent(opened)
    sheets = pandas.read_excel(io.BytesIO(content), sheet_name=None, index_col=0, engine="openpyxl")
    for table in sheets.values():
        for cells in (table.columns, table.index, *(table.iloc[:, k] for k in range(table.shape[1]))):
            yield from (cell for cell in cells if isinstance(cell, str))


def constructed_objects(text: str, must: bool = True) -> Iterator[ConstructedObject]:
    """Every object that a text of JSON would construct, those inside of its strings included.

    must: the text has to be JSON, else ValueError. UnsafeFile for ambiguous objects, what nests too deep, and
    arguments to constructors.
    """
    waiting: list[tuple[Any, int]] = [(_plain(text) if must else _parsed(text, False), 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise UnsafeFile(f"it nests deeper than {DEEPEST} levels")
        if isinstance(value, _Pairs):
            yield from _of_object(value)
            waiting += [(inner, depth + 1) for _, inner in value]
            waiting += [(_parsed(key, False), depth + 1) for key, _ in value]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        elif isinstance(value, str):
            waiting.append((_parsed(value, False), depth + 1))


def _of_object(pairs: _Pairs) -> Iterator[ConstructedObject]:
    keys = [key for key, _ in pairs]
    if _MODULE not in keys and _CLASS not in keys:
        return
    given = dict(pairs)
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise UnsafeFile(f"an object says '{twice[0]}' twice")
    module, name = given.get(_MODULE), given.get(_CLASS)
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnsafeFile(f"an object has the {_MODULE} {cut(str(module))} and the {_CLASS} {cut(str(name))}: names are "
                         "both")
    yield ConstructedObject(module, name)
    if _OBJECT in given and (others := sorted(set(keys) - _SHAPE)):
        raise UnsafeFile(f"an object {module}.{name} is given the argument '{cut(others[0])}'")
    if name in _TEXTS and isinstance(given.get(_OBJECT), str):
        _parsed(given[_OBJECT], True)


def _parsed(text: str, must: bool) -> Any:
    """A text of JSON as lists and `_Pairs`; None for a text that is none and need not be one."""
    if not must and text.lstrip()[:1] not in ("{", "[", '"'):
        return None
    try:
        return _plain(text)
    except UnsafeFile:
        raise
    except ValueError as err:
        if must or _MODULE in text:  # a more lenient decoder may read it otherwise
            raise UnsafeFile(f"a part of it that should be JSON is none: {err}") from None
        return None


def _plain(text: str) -> Any:
    """A text of JSON as lists and `_Pairs`. ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except RecursionError:
        raise UnsafeFile(f"it nests deeper than {DEEPEST} levels") from None


def _check_extent(opened: IO[bytes]) -> None:
    """UnsafeFile for a sheet that spans more than `MOST_CELLS`: two cells far apart are as much as all between them."""
    here, most = [0, 0], [0, 0]

    def start(name: str, attributes: dict[str, str]) -> None:
        kind = name.rpartition(":")[2]
        if kind not in ("row", "c"):
            return
        given = attributes.get("r", "").upper()
        digits, column = "".join(filter(str.isdecimal, given))[:9], 0
        for letter in (x for x in given[:9] if "A" <= x <= "Z"):
            column = 26 * column + ord(letter) - ord("A") + 1
        if kind == "row":
            here[:] = int(digits or here[0] + 1), 0
        else:
            here[:] = int(digits or here[0]), column or here[1] + 1
        most[:] = map(max, most, here)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    with suppress(expat.ExpatError):  # a picture, say; whoever reads it as a sheet fails alike
        parser.ParseFile(opened)
    if most[0] * most[1] > MOST_CELLS:
        raise UnsafeFile(f"a sheet of it spans {most[0]} rows and {most[1]} columns, at most {MOST_CELLS} cells "
                         "are read")


def _check_size(n_bytes: int) -> None:
    if n_bytes > LARGEST_MB * 1_000_000:
        raise UnsafeFile(f"it is {n_bytes / 1e6:.0f} MB large, at most {LARGEST_MB} are read")


def refuse(network: str, why: object) -> ScenarioError:
    """Error for a file that would construct more than a network."""
    return ScenarioError(f"network file '{network}' is refused: {why}; nothing of it was loaded. What "
                         "pandapower.to_json and pandapower.to_excel write of a network is read")
