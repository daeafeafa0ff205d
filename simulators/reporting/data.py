"""One trace as the study's report reads it: sites, job classes, intensities and prices, by the names of the ports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cosim.reporting.data import Run
from cosim.simulators.analysis.paths import PRICE, SITE
from cosim.simulators.analysis.site_series import ended_jobs, intensity_of
from cosim.trace.series import over_counted, port_ref


@dataclass
class FleetRun(Run):
    """A trace of data centers on a grid. `colours` gives each site its colour."""

    @property
    def coloured(self) -> list[str]:
        """The sites."""
        return self.sites

    @cached_property
    def classes(self) -> list[str]:
        """Job classes of the data centers."""
        return self.trace.names(SITE, "job_class") if self.has(f"{SITE}/busy_gpus") else []

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """'training' and 'inference' -> positions of their classes; all are 'jobs' where the scenario does not give
        them."""
        table = self.scenario["shared"].get("job_classes", {})
        words = {"train": "training", "inf": "inference", "llm": "inference"}
        out: dict[str, list[int]] = {}
        for k, name in enumerate(self.classes):
            out.setdefault(words.get(table.get(name, {}).get("kind", ""), "jobs"), []).append(k)
        return dict(sorted(out.items(), reverse=True))

    @cached_property
    def sites(self) -> list[str]:
        """The data centers; [] when the trace has none."""
        return self.trace.names(SITE) if SITE in self.models else []

    def dropped_jobs(self) -> np.ndarray:
        """Jobs dropped in what counts of each sample of the sites, (time, site, class)."""
        out = np.zeros_like(self.get(f"{SITE}/dropped_jobs"))
        out[self.counts(SITE).use] = ended_jobs(self.trace, SITE, "dropped")
        return out

    def intensity_of(self, site: str, port: str = "nci_kg_per_kwh") -> tuple[str, int] | None:
        """(path, column) of a carbon intensity at a site's bus, from where the run's wiring took its NCI."""
        found = intensity_of(self.trace, site, port)
        return found if found and self.has(found[0]) else None

    def bus_of(self, site: str) -> str | None:
        """Entity name of the bus where a site draws its power."""
        for source, target in self.wiring:
            (member, eid, port), to = port_ref(source), port_ref(target)
            if member == "aidc" and eid == site and port.startswith("p_") and to.member == "grid":
                return to.entity
        found = self.intensity_of(site)
        return self.trace.names(found[0].rpartition("/")[0])[found[1]] if found else None

    def nci(self, site: str) -> np.ndarray:
        """NCI of a site over the samples of the sites that count, (k,); NaN where the trace has none."""
        found = self.intensity_of(site)
        return (np.full(len(self.counts(SITE).hours), np.nan) if found is None else
                over_counted(self.trace, found[0], SITE)[:, found[1]])

    def prices(self) -> np.ndarray:
        """The price over the samples of the sites that count, (k,), USD/kWh."""
        return over_counted(self.trace, PRICE, SITE)[:, 0]

    @cached_property
    def jobs(self) -> dict[str, np.ndarray]:
        """The job table, {} when no row was written."""
        return self.trace.table("jobs")
