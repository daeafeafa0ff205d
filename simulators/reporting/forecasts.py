"""Pictures of forecasts: what came beside what had been forecast for it hours before."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import Fact, Panel, Picture, Series, missing
from cosim.reporting.text import listing, number, strong
from cosim.simulators.analysis.forecasts import Forecast, read_forecasts
from cosim.simulators.reporting.data import FleetRun
from cosim.units import HOUR_S, unit_of

_KEY = "forecasts"
_LEADS_H = (1.0, 6.0)
_MARKS = ("dash", "dot")
_WORDS = {"nci": "NCI", "mci": "MCI", "price": "price", "load": "base load", "available": "available"}


def any_made(run: FleetRun) -> bool:
    """Whether a run has forecasts that can be shown."""
    return next(read_forecasts(run.trace), None) is not None


def forecasts(run: FleetRun) -> Picture:
    """Each signal as it came, and as it was forecast an hour and six hours before."""
    found = list(read_forecasts(run.trace))
    if not found:
        return missing(_KEY, "This run made no forecasts (or plays them, and how they were made is not known).")
    panels, facts = [], []
    said: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        unit = unit_of(one.path.rpartition("/")[2]).symbol
        came = Series("as it came", one.time_s, one.values[:, 0], run.colours.get(one.entity, "ink"), run.end_s,
                      label="came")
        lines = [came, *_before(one, run.end_s)]
        panels.append(Panel(f"{_WORDS[one.signal]}, {one.entity}: {one.rules['kind'].replace('_', ' ')}", unit,
                            tuple(lines), axis=f"forecast {one.signal}"))
        accuracy = one.accuracy(run.trace)
        off, count = float(np.nansum(accuracy.mae * accuracy.compared)), float(accuracy.compared.sum())
        said.setdefault(one.signal, []).append((off, count))
    errors = []
    for signal, of in said.items():
        count = sum(c for _, c in of)
        unit = next(unit_of(one.path.rpartition("/")[2]).symbol for one in found if one.signal == signal)
        if count:
            off = sum(o for o, _ in of) / count
            errors.append(f"{_WORDS[signal]} by {strong(f'{number(off, 2)} {unit}')}")
            facts.append(Fact(f"forecast of {_WORDS[signal]}: mean absolute error", off, unit))
    says = (f"What was forecast missed what came, over all leads: {listing(errors)}." if errors else
            "The run is too short for anything that was forecast to come.")
    note = ("Dashed: as forecast an hour before; dotted: six hours before. Each point stands at the time that it is "
            "about.")
    return Picture(_KEY, says, tuple(panels), note, tuple(facts), columns=True)


def _before(one: Forecast, end_s: float) -> list[Series]:
    """What had been forecast for each time, so many hours before it."""
    out = []
    for hours, mark in zip(_LEADS_H, _MARKS, strict=True):
        ahead = round(hours * HOUR_S / one.step_s)
        if 1 <= ahead < one.values.shape[1] and ahead < len(one.values):
            out.append(Series(f"{hours:g} h before", one.time_s[ahead:], one.values[:-ahead, ahead], "muted", end_s,
                              mark=mark, label=f"{hours:g} h before"))  # type: ignore[arg-type]
    return out
