"""The data behind a panel as columns, for a table beside its picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from cosim.reporting.chart import Panel, Series

Cells = Sequence[Any] | np.ndarray
"""Of one column."""


def data_of(panel: Panel, start: datetime | None) -> dict[str, Cells]:
    """Columns of what a panel draws: times in s since the start and, where `start` has the date of t = 0, as time
    stamps, UTC; then a column per line with its unit, blank (NaN) where a line has no sample."""
    if panel.series:
        return _lines(panel, start)
    if panel.heat:
        heat = panel.heat
        if heat.y_s is None:
            rows = {_with_unit(name, heat.unit): z for name, z in zip(heat.rows, heat.z, strict=True)}
            return {**_times(heat.x_s, start), **rows}
        row, column = np.nonzero(np.isfinite(heat.z))
        return {f"{heat.y_says}_s": heat.y_s[row], f"{heat.x_says}_s": heat.x_s[column],
                heat.unit or "value": heat.z[row, column]}
    if panel.spreads:
        quantiles = [name for name, _ in panel.spreads[0].quantiles]
        return {"name": [s.name for s in panel.spreads], "what": [s.about for s in panel.spreads],
                **{f"{name} [min]": [dict(s.quantiles)[name] for s in panel.spreads] for name in quantiles},
                "limit [min]": [s.limit_min for s in panel.spreads]}
    return {**_times(np.array([e.time_s for e in panel.events]), start), "kind": [e.kind for e in panel.events],
            "where": [e.where for e in panel.events], "count": [e.count for e in panel.events],
            "what": [e.text for e in panel.events]}


def _lines(panel: Panel, start: datetime | None) -> dict[str, Cells]:
    time_s = np.unique(np.concatenate([s.time_s for s in panel.series]))
    out = _times(time_s, start)
    for s in panel.series:
        for name, y in ((s.name, s.y), *zip((f"{s.name}, lowest", f"{s.name}, highest"), s.reach or (), strict=False)):
            out[_free(_with_unit(name, panel.unit), out)] = _spread(s, y, time_s)
    return out


def _spread(series: Series, y: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    values = np.full(len(time_s), np.nan)
    values[np.searchsorted(time_s, series.time_s)] = y
    return values


def _times(time_s: np.ndarray, start: datetime | None) -> dict[str, Cells]:
    out: dict[str, Cells] = {"time_s": np.asarray(time_s, float)}
    if start is not None:
        out["time_utc"] = [f"{start + timedelta(seconds=float(t)):%Y-%m-%dT%H:%M:%SZ}" for t in time_s]
    return out


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _free(name: str, taken: dict[str, Cells]) -> str:
    return next(f for n in range(1, len(taken) + 2) if (f := name if n == 1 else f"{name} ({n})") not in taken)
