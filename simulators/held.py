"""What stood when, from a trace: values held until the next sample, intensities at sites, the time that counts."""

from __future__ import annotations

import json

import numpy as np

from cosim.trace import Trace
from cosim.units import HOUR_S


def nci_at_site(trace: Trace, site: str, time_s: np.ndarray) -> np.ndarray:
    """NCI at a site's bus at the given times, kg/kWh; NaN where the grid exports none."""
    return intensity_at_site(trace, site, time_s, "nci_kg_per_kwh")


def intensity_at_site(trace: Trace, site: str, time_s: np.ndarray, port: str) -> np.ndarray:
    """A carbon intensity of a site's bus (nci_kg_per_kwh, mci_kg_per_kwh) at the given times; NaN where there is none.

    Which bus that is comes from the run's own wiring: where the site's NCI came from.
    """
    wiring = trace.table("wiring")
    for source, target in zip(wiring.get("source", ()), wiring.get("target", ()), strict=True):
        member, eid, linked = source.split(".", 2)
        if linked == "nci_kg_per_kwh" and target.split(".")[1] == site:
            model = next(m for m in trace.models() if m.startswith(f"{member}/") and eid in trace.names(m))
            return at_times(trace, model, port, time_s, eid)
    return np.full(time_s.shape, np.nan)


def at_times(trace: Trace, model: str, port: str, time_s: np.ndarray, entity: str | None = None) -> np.ndarray:
    """Values of a level port as they stood at `time_s` (held since their last sample), shape (time,)."""
    if not trace.has(f"{model}/{port}"):
        return np.full(time_s.shape, np.nan)
    column = trace.names(model).index(entity) if entity else 0
    at = np.searchsorted(trace.time_s(model), time_s, side="right") - 1
    return trace[f"{model}/{port}"][at, column]


def counted(trace: Trace, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(mask of the samples that count, hours that each of those stands for).

    A sample holds until the next one; what counts of it lies between the end of the warm-up and the end of the run.
    """
    scenario = json.loads(trace.attrs["scenario"])
    times = trace.time_s(model).astype(float)
    step_s = scenario["members"][model.split("/")[0]]["step_s"]
    ends = np.append(times[1:], times[-1:] + step_s)
    begin, end = scenario.get("warmup_s", 0.0), float(trace.attrs.get("until_s", np.inf))
    hours = (np.minimum(ends, end) - np.maximum(times, begin)) / HOUR_S
    return hours > 0, hours[hours > 0]
