"""A trace that keeps which of its ports and columns were read, so that a check can name what it did not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from cosim.trace import Trace

_SETTINGS = ("wiring", "initial")
"""Tables of how a run was set up. So are '<member>.<name>'."""


class TrackedTrace(Trace):
    """An open trace, read through this; it stays open when this one is gone.

    `keep` counts what was read since the last call as checked, `forget` does not. A table is read from the file once:
    most laws of jobs go through the same one.
    """

    def __init__(self, trace: Trace) -> None:
        self.__dict__ |= trace.__dict__
        self._trace = trace
        self._tables: dict[str, dict[str, np.ndarray]] = {}
        self._since: set[str] = set()
        self._kept: set[str] = set()

    def __getitem__(self, path: str) -> np.ndarray:
        self._since.add(path)
        return self._trace[path]

    def table(self, name: str) -> dict[str, np.ndarray]:
        """As of `Trace`; columns count as read one by one."""
        return _WatchedTable(self._columns(name), name, self._since)

    def blocks(self, name: str, columns: Iterable[str] | None = None, rows: int | None = 1 << 16
               ) -> Iterator[dict[str, np.ndarray]]:
        """As of `Trace`; columns count as read one by one."""
        for block in self._trace.blocks(name, columns, rows):
            yield _WatchedTable(block, name, self._since)

    def keep(self) -> None:
        """What was read since the last call was looked at."""
        self._kept |= self._since
        self._since.clear()

    def forget(self) -> None:
        """What was read since the last call was not looked at."""
        self._since.clear()

    def unread(self) -> str:
        """Ports and columns that were not looked at, 'member/Model: port, port; table: column'; '' if there are
        none."""
        groups = groupby(sorted(set(self._recorded()) - self._kept), key=lambda path: path.rpartition("/")[0])
        return "; ".join(f"{group}: {', '.join(path.rpartition('/')[2] for path in paths)}" for group, paths in groups)

    def _recorded(self) -> Iterator[str]:
        for model in self.models():
            yield from (f"{model}/{port}" for port in self.ports(model))
        for name in self.tables():
            if name not in _SETTINGS and "." not in name:
                yield from (f"{name}/{column}" for column in next(self._trace.blocks(name, rows=1), ()))

    def _columns(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._tables:
            self._tables[name] = self._trace.table(name)
        return self._tables[name]


class _WatchedTable(dict[str, np.ndarray]):
    """A table; reading a column is noted."""

    def __init__(self, columns: dict[str, np.ndarray], table: str, read: set[str]) -> None:
        super().__init__(columns)
        self._table, self._read = table, read

    def __getitem__(self, name: str) -> np.ndarray:
        self._read.add(f"{self._table}/{name}")
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(f"{self._table}/{name}")
        return super().get(name, default)

    def items(self) -> Any:
        self._read |= {f"{self._table}/{name}" for name in self}
        return super().items()
