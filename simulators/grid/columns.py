"""A column of a received table in a unit that is stated: by its name, by the scenario, and the same by both.

Rows: Z04.
"""

from __future__ import annotations

from cosim.errors import ScenarioError, unknown
from cosim.plausible import foreign_currency, impossible, is_marginal, stated_unit
from cosim.tables.table import DataTable
from cosim.units import SUFFIXES, unit_of


def read_column(table: DataTable, column: str, suffix: str | None, name: str, field: str, factor: float = 1.0
                ) -> list[float]:
    """A column in order of time, in the unit of `name`, which has what is measured, times `factor`.

    suffix  the column's unit as the scenario gives it; None: as the column's name does
    field   the scenario's field of the unit, for errors
    ScenarioError for a column that is not there, that is in another unit or of another kind, or without any.
    """
    if column not in table.columns:
        raise ScenarioError(f"{table.path}: {unknown('column', column, table.columns)}")
    kind = unit_of(name)
    said = stated_unit(column, kind.dimension)
    if suffix is None and said is None:
        raise ScenarioError(f"{table.path}: column '{column}' does not say its unit; give it by --set {field}=..., one "
                            f"of {', '.join(s for s, u in SUFFIXES.items() if u.dimension == kind.dimension)}")
    unit = said if suffix is None else SUFFIXES[suffix]
    assert unit is not None, "one of the two states it"
    if unit.dimension != kind.dimension:
        raise ScenarioError(f"{field} = {suffix} is a unit of {unit.dimension}, and {name} is {kind.dimension}")
    if said is not None and said.factor != unit.factor:
        meant = next(name for name, known in SUFFIXES.items() if known == said)
        raise ScenarioError(f"{table.path}: column '{column}' is in {said.symbol}, and {field} = {suffix}; "
                            f"--set {field}={meant}, or rename the column")
    money = foreign_currency(column) if kind.dimension == "price" else None
    if money and factor == 1.0:
        raise ScenarioError(f"{table.path}: column '{column}' is in {money}; --set {field.removesuffix('unit')}factor="
                            f"RATE, USD per {money}, converts it")
    by_column = kind.dimension == "carbon intensity" and not is_marginal(name)
    values = table.numbers(column, unit, column if by_column else name)
    values = values * unit.factor / kind.factor * factor
    if (wrong := impossible(name, values)) is not None:
        raise ScenarioError(f"{table.path}: column '{column}': {wrong}")
    return values.tolist()
