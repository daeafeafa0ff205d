"""Ports: what a model takes and gives, typed once; META, trace layout and checks are derived from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any, Literal

from cosim.units import unit_of

Batch = dict[str, list[Any]]
"""A table in transit: column name -> plain list, all of one length. Empty batch: {}."""


@dataclass(frozen=True, slots=True)
class Port:
    """One named value of a model.

    name    the attribute on the bus; its suffix is its unit
    flow    'in' or 'out', seen from the model; 'both': not given in mosaik's META (foreign simulators)
    about   one phrase for people (the trace's `long_name`)
    kind    'level' holds until the next value; 'event' is a batch that happens once and is consumed once
    reduce  how several sources meet at an input: 'one' allows a single source, 'sum' adds (events: concatenates)
    sign    what a positive value means, in words
    dims    names of the axes of a vector value, e.g. ('job_class',); () is a scalar
    default value of an input without a link; None: a link is required
    window  name of the member's field that must equal the consumer's step (for values averaged over it)
    table   an event output is appended to this table of the trace, row by row
    record  False keeps an output out of the trace
    nullable  may be NaN, meaning 'not computed'
    """

    name: str
    flow: Literal["in", "out", "both"]
    about: str
    kind: Literal["level", "event"] = "level"
    reduce: Literal["one", "sum"] = "one"
    sign: str = ""
    dims: tuple[str, ...] = ()
    default: float | None = None
    window: str | None = None
    table: str | None = None
    record: bool = True
    nullable: bool = False

    @property
    def unit(self) -> str:
        """Unit symbol, from the name's suffix."""
        return unit_of(self.name).symbol

    def to_json(self) -> dict[str, Any]:
        """Plain dict for a describe() answer over the wire."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "dims": list(self.dims)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Port:
        """The inverse of `to_json`."""
        return cls(**{**data, "dims": tuple(data.get("dims", ()))})


def values_of(names: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """What reads the values of these names out of a mapping, in their order; quicker than to read one by one."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda given: [given[name] for name in names]


def batch_length(batch: Mapping[str, list]) -> int:
    """Rows of a batch; 0 for an empty one."""
    return len(next(iter(batch.values()))) if batch else 0


def concat(batches: Iterable[Mapping[str, list]]) -> Batch:
    """One fresh batch with the rows of all, in order. Raises ValueError when their columns differ."""
    out: Batch = {}
    for batch in batches:
        if not batch_length(batch):
            continue
        if not out:
            out = {name: list(values) for name, values in batch.items()}
        elif out.keys() != batch.keys():
            raise ValueError(f"batches with columns {sorted(out)} and {sorted(batch)} cannot be joined")
        else:
            for name, values in batch.items():
                out[name].extend(values)
    return out
