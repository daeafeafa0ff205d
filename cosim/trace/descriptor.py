"""Descriptors of exported tables for who publishes them: a Frictionless Data Package, or Croissant (JSON-LD)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosim.plaintext import cell


def _cr(name: str) -> str:
    """A name of Croissant's vocabulary."""
    return f"cr:{name}"


def _sc(name: str) -> str:
    """A name of schema.org's vocabulary."""
    return f"sc:{name}"


_MEDIA = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet"}
_KINDS = {"b": ("boolean", _sc("Boolean")), "i": ("integer", _sc("Integer")), "u": ("integer", _sc("Integer")),
          "f": ("number", _sc("Float"))}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class TableColumn:
    """A column of a file: its name, values, unit and meaning, '' where they are not known."""

    name: str
    values: np.ndarray
    unit: str
    about: str


@dataclass(frozen=True)
class FileAbout:
    """A written file: the table in it, where it is, its columns."""

    name: str
    path: Path
    columns: Sequence[TableColumn]

    @property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal."""
        found = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
        return found.hexdigest()


def frictionless(facts: dict[str, str], files: Sequence[FileAbout]) -> tuple[str, dict[str, Any]]:
    """('datapackage.json', its content) by the Data Package specification."""
    resources = []
    for one in files:
        fields = []
        for column in one.columns:
            kind = "datetime" if column.name == "time_utc" else _kind(column)[0]
            field = {"name": _written(column, one), "type": kind, "unit": column.unit, "description": column.about}
            fields.append({key: value for key, value in field.items() if value})
        resources.append({"name": _slug(one.name), "path": one.path.name, "format": one.path.suffix[1:],
                          "mediatype": _MEDIA[one.path.suffix], "encoding": "utf-8", "bytes": one.path.stat().st_size,
                          "hash": f"sha256:{one.sha256}", "profile": "tabular-data-resource",
                          "schema": {"fields": fields, "missingValues": ["", "nan"]}})
    return "datapackage.json", {"profile": "data-package", "name": _slug(facts["name"]), "title": facts["name"],
                                "description": _description(facts), "created": facts["created"],
                                "resources": resources}


def croissant(facts: dict[str, str], files: Sequence[FileAbout]) -> tuple[str, dict[str, Any]]:
    """('croissant.json', its content) by Croissant 1.0. Licence, creators and address are for who publishes to add."""
    objects, records = [], []
    for one in files:
        place = f"file-{_slug(one.name)}"
        objects.append({"@type": _cr("FileObject"), "@id": place, "name": one.path.name, "contentUrl": one.path.name,
                        "encodingFormat": _MEDIA[one.path.suffix], "sha256": one.sha256,
                        "contentSize": f"{one.path.stat().st_size} B"})
        fields = []
        for column in one.columns:
            unit = f", {column.unit}" if column.unit else ""
            fields.append({"@type": _cr("Field"), "@id": f"{_slug(one.name)}/{column.name}", "name": column.name,
                           "description": f"{column.about}{unit}".strip(", "),
                           "dataType": _sc("DateTime") if column.name == "time_utc" else _kind(column)[1],
                           "source": {"fileObject": {"@id": place}, "extract": {"column": _written(column, one)}}})
        records.append({"@type": _cr("RecordSet"), "@id": _slug(one.name), "name": _slug(one.name), "field": fields})
    return "croissant.json", {"@context": _CONTEXT, "@type": _sc("Dataset"), "name": facts["name"],
                              "description": _description(facts), "conformsTo": "http://mlcommons.org/croissant/1.0",
                              "datePublished": facts["created"][:10], "distribution": objects, "recordSet": records}


DESCRIPTORS: dict[str, Callable[[dict[str, str], Sequence[FileAbout]], tuple[str, dict[str, Any]]]] = {
    "frictionless": frictionless, "croissant": croissant}


def _kind(column: TableColumn) -> tuple[str, str]:
    return _KINDS.get(column.values.dtype.kind, ("string", _sc("Text")))


def _written(column: TableColumn, file: FileAbout) -> str:
    """A column's name as it stands in the file: a CSV has no name that begins like a formula."""
    return cell(column.name) if file.path.suffix == ".csv" else column.name


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "table"


def _description(facts: dict[str, str]) -> str:
    versions = json.loads(facts["versions"])
    made = f" by aidc-cosim {versions['aidc-cosim']}" if "aidc-cosim" in versions else ""
    return f"{facts['about']}. Simulated{made}, seed {facts['seed']}, {facts['status']}."


_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "column": _cr("column"), "data": {"@id": _cr("data"), "@type": "@json"},
    "dataType": {"@id": _cr("dataType"), "@type": "@vocab"}, "extract": _cr("extract"), "field": _cr("field"),
    "fileObject": _cr("fileObject"), "recordSet": _cr("recordSet"), "source": _cr("source")}
