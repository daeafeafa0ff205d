"""Which rows of a table are meant, and which of its columns has the figures: of a service's export, and as chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosim.errors import ScenarioError, listed, unknown
from cosim.tables.files import Columns
from cosim.tables.services import NO_FIGURE, Service, service_of


@dataclass(frozen=True)
class Selected:
    """What is left of a table.

    columns  its rows that are meant; service: whose export it is, None for none that is known
    figure   column of the figures of an export, whose name states their unit; None of other tables
    `said`   which rows were taken, in words
    """

    columns: Columns
    service: Service | None
    figure: str | None
    said: tuple[str, ...]

    def sentence(self, clock: str, zone: str | None) -> list[str]:
        """What the table was taken as, for people; [] where nothing was chosen."""
        if self.service is None:
            return [", ".join(self.said)] if self.said else []
        of = f" ({zone})" if zone else ""
        figure = self.service.figure + (f" as {self.figure}" if self.figure != self.service.figure else "")
        more = f"; {', '.join(self.service.others)} would be another choice" if self.service.others else ""
        return [", ".join([f"read as {self.service.name}: times {clock}{of}, figures {figure}", *self.said]) + more]


def select(whole: Columns, where: Mapping[str, str], owner: str) -> Selected:
    """The rows that are meant: those of `where` (column -> value), and of a known service those that its exports mean.

    owner: what stands before `where` in the name of its field. ScenarioError for a column or value that is not there,
    and where the export has several of what it has to be one of (a zone, a node).
    """
    service, names = service_of(whole.names), {name.lower(): name for name in whole.names}
    wanted = dict(service.rows) if service else {}
    for column, value in where.items():
        if column.lower() not in names:
            raise ScenarioError(f"{whole.path}: {unknown('column', column, whole.names)}; --set {owner}where")
        wanted[names[column.lower()]] = value
    kept, said = [True] * len(whole), []
    for column, value in wanted.items():
        cells = [text.strip() for text in whole.texts(column)]
        kept = [k and text == value for k, text in zip(kept, cells, strict=True)]
        if not any(kept):
            raise ScenarioError(f"{whole.path}: no row has {column} = {value}; there are {listed(sorted(set(cells)))}")
        said.append(f"rows of {column} = {value}")
    if service is None:
        return Selected(whole.rows(kept, {}) if wanted else whole, None, None, tuple(said))
    for column in service.choices:
        found = _values(whole, column, kept)
        if len(found) > 1:
            raise ScenarioError(f"{whole.path}, {service.name}, has rows of several {column}: {listed(found)}; --set "
                                f"'{owner}where={{\"{column}\": \"{found[0]}\"}}' takes those of one")
        said += [f"{column} {found[0]}"] if found and column not in wanted else []
    empty = [k and text.strip().lower() in NO_FIGURE
             for text, k in zip(whole.texts(service.figure), kept, strict=True)]
    if any(empty):
        said.append(f"{sum(empty)} rows without a figure left out")
        kept = [k and not e for k, e in zip(kept, empty, strict=True)]
    label = _label(service, whole, kept)
    return Selected(whole.rows(kept, {service.figure: label}), service, label, tuple(said))


def _values(whole: Columns, column: str, kept: Sequence[bool]) -> list[str]:
    """What a column has in the rows that are kept, once each."""
    return sorted({text.strip() for text, k in zip(whole.texts(column), kept, strict=True) if k} - {""})


def _label(service: Service, whole: Columns, kept: Sequence[bool]) -> str:
    """What the column of figures is called: with the unit that other columns state."""
    if service.currency:
        found = _values(whole, service.currency, kept)
        if len(found) > 1:
            raise ScenarioError(f"{whole.path}, {service.name}, has prices in {listed(found)}; take the rows of one")
        return f"Price ({found[0] if found else '?'}/MWh)"
    units = [name for name in whole.names if name.strip().lower() in ("unit", "units")]
    said = _values(whole, units[0], kept) if units else []
    return f"{service.label} ({said[0].replace('_', ' ')})" if len(said) == 1 else service.label
