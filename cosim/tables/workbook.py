"""One Excel workbook of many tables, a sheet each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosim.imports import optional

MOST_ROWS = 1_048_575
"""Rows of a sheet below its head."""
_LONGEST = 31


class Workbook:
    """A workbook that is being written, to be used in a `with` statement. Text is text: no cell is a formula or a link.

    Raises ScenarioError where the extra 'excel' is missing, OSError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with optional(str(path), "excel"):
            import xlsxwriter
            import xlsxwriter.exceptions
        self._failed = xlsxwriter.exceptions.FileCreateError
        self._book = xlsxwriter.Workbook(str(path), {
            "constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False,
            "strings_to_numbers": False})
        self._head = self._book.add_format({"bold": True})
        self._taken: set[str] = set()

    def __enter__(self) -> Workbook:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._book.close()
        except self._failed as err:
            if kind is None:
                raise OSError(str(err)) from None

    def add(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """A sheet with a head and a row per value; what is no number is a blank cell."""
        sheet = self._book.add_worksheet(self._free(name))
        sheet.freeze_panes(1, 1)
        for k, head in enumerate(columns):
            sheet.write_string(0, k, head, self._head)
        for number, row in enumerate(zip(*columns.values(), strict=True), 1):
            for k, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(number, k, value)
                elif math.isfinite(value):
                    sheet.write_number(number, k, float(value))

    def _free(self, name: str) -> str:
        """A sheet's name: 31 characters without []:*?/\\, unlike all others whatever their case."""
        plain = "".join("_" if c in "[]:*?/\\'" else c for c in name) or "table"
        tries = (plain[:_LONGEST] if n == 1 else f"{plain[:_LONGEST - len(str(n)) - 1]}~{n}" for n in range(1, 10_000))
        found = next(t for t in tries if t.casefold() not in self._taken)
        self._taken.add(found.casefold())
        return found
