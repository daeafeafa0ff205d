"""One trace as the report reads it: sites, classes, intensities and means, all by the names of the ports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cosim.trace import Trace
from cosim.units import HOUR_S, MIN_S

SITE, BUS, GRID, PRICE = "aidc/Site", "grid/Bus", "grid/Grid", "tariff/Tariff/price_usd_per_kwh"
_BINS_S = (60, 300, 900, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)
_MOST_BINS = 200


@dataclass
class Run:
    """A trace, read on demand. `colours` gives each site its colour, the same in all runs of a report."""

    trace: Trace
    label: str
    colours: dict[str, str]

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Root attributes."""
        return self.trace.attrs

    @cached_property
    def scenario(self) -> dict[str, Any]:
        """The scenario as data."""
        return json.loads(self.attrs["scenario"])

    def params(self, member: str) -> dict[str, Any]:
        """Parameters of a member, {} when there is none."""
        return self.scenario["members"].get(member, {}).get("params", {})

    @cached_property
    def classes(self) -> list[str]:
        """Job classes of the data centers."""
        return self.trace.names(SITE, "job_class") if self.has(f"{SITE}/busy_gpus") else []

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """'training' and 'inference' -> positions of their classes; all are 'jobs' where the scenario does not say."""
        table = self.scenario["shared"].get("job_classes", {})
        words = {"train": "training", "inf": "inference"}
        out: dict[str, list[int]] = {}
        for k, name in enumerate(self.classes):
            out.setdefault(words.get(table.get(name, {}).get("kind", ""), "jobs"), []).append(k)
        return dict(sorted(out.items(), reverse=True))

    @cached_property
    def sites(self) -> list[str]:
        """The data centers; [] when the trace has none."""
        return self.trace.names(SITE) if SITE in self.models else []

    @cached_property
    def models(self) -> list[str]:
        """Recorded models that hold at least one sample."""
        return [m for m in self.trace.models() if len(self.trace.time_s(m))]

    def has(self, path: str) -> bool:
        """Whether a port was recorded and has samples."""
        return path.rpartition("/")[0] in self.models and self.trace.has(path)

    def get(self, path: str) -> np.ndarray:
        """A port's values."""
        return self.trace[path]

    def first(self, *paths: str) -> str | None:
        """The first of several ports that is there."""
        return next((p for p in paths if self.has(p)), None)

    def time_s(self, path: str) -> np.ndarray:
        """Times of a model, or of a port's model."""
        return self.trace.time_s(path if path in self.models else path.rpartition("/")[0])

    def step_s(self, path: str) -> float:
        """How long a sample holds: the member's step."""
        member = path.split("/")[0]
        return float(self.scenario["members"][member]["step_s"])

    @cached_property
    def end_s(self) -> float:
        """Up to where the trace reaches."""
        return max((float(self.trace.time_s(m)[-1]) + self.step_s(m) for m in self.models), default=0.0)

    @cached_property
    def warmup_s(self) -> float:
        """Time before the counted part."""
        return float(self.scenario.get("warmup_s", 0.0))

    def counted(self, path: str) -> np.ndarray:
        """Mask of the samples that count: after the warm-up, or all of them when the run did not get that far."""
        use = self.time_s(path) >= self.warmup_s
        return use if use.any() else ~use

    def hours(self, path: str) -> float:
        """Hours a sample stands for."""
        return self.step_s(path) / HOUR_S

    # --- means --------------------------------------------------------------------------------------------------------

    def bin_s(self, path: str) -> float:
        """Width of the means that are drawn: the sample's own step where there are few."""
        step, span = self.step_s(path), self.end_s
        return next((float(b) for b in _BINS_S if b >= step and b % step == 0 and span / b <= _MOST_BINS), step)

    def means(self, path: str, values: np.ndarray | None = None, width_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(times, values) as means over `bin_s`, along the first axis."""
        values = self.get(path) if values is None else values
        time, width = self.time_s(path), width_s or self.bin_s(path)
        if width <= self.step_s(path):
            return time.astype(float), values
        which = time // width
        first = np.flatnonzero(np.r_[True, np.diff(which) > 0])
        sizes = np.diff(np.r_[first, len(time)])
        total = np.add.reduceat(values, first, axis=0)
        return which[first] * width, total / sizes.reshape(-1, *[1] * (values.ndim - 1))

    def averaging(self, path: str) -> str:
        """A sentence about the means, '' when samples are drawn as they are."""
        width = self.bin_s(path)
        if width <= self.step_s(path):
            return ""
        return (f"Drawn as means over {width / MIN_S:g} min so that it stays readable; figures in the text use every "
                "sample.")

    # --- who is connected to what -------------------------------------------------------------------------------------

    @cached_property
    def wiring(self) -> list[tuple[str, str]]:
        """(source, target) of all connections, each member.entity.port."""
        table = self.trace.table("wiring")
        return list(zip(table.get("source", ()), table.get("target", ()), strict=True))

    def intensity_of(self, site: str, port: str = "nci_kg_per_kwh") -> tuple[str, int] | None:
        """(path, column) of a carbon intensity at a site's bus, from where the run's wiring took its NCI."""
        for source, target in self.wiring:
            member, eid, name = source.split(".", 2)
            if name == "nci_kg_per_kwh" and target.split(".")[1] == site:
                for model in self.models:
                    path, names = f"{model}/{port}", self.trace.names(model)
                    if model.startswith(f"{member}/") and eid in names and self.has(path):
                        return path, names.index(eid)
        return None

    def bus_of(self, site: str) -> str | None:
        """Entity name of the bus where a site draws its power."""
        for source, target in self.wiring:
            member, eid, port = source.split(".", 2)
            if member == "aidc" and eid == site and port.startswith("p_") and target.startswith("grid."):
                return target.split(".")[1]
        found = self.intensity_of(site)
        return self.trace.names(found[0].rpartition("/")[0])[found[1]] if found else None

    def nci(self, site: str) -> np.ndarray:
        """NCI of a site as it stood at every sample of the sites, (time,); NaN where the trace has none."""
        time = self.time_s(SITE)
        found = self.intensity_of(site)
        return np.full(len(time), np.nan) if found is None else self.held(found[0], time)[:, found[1]]

    def held(self, path: str, time_s: np.ndarray) -> np.ndarray:
        """Values as they stood at `time_s` (NaN before the first)."""
        at = np.searchsorted(self.time_s(path), time_s, side="right") - 1
        values = self.get(path)[np.maximum(at, 0)]
        values[at < 0] = np.nan
        return values

    @cached_property
    def jobs(self) -> dict[str, np.ndarray]:
        """The job table, {} when no row was written."""
        return self.trace.table("jobs")
