"""Picture of the wide-area network: what it carries, and jobs on their way.

Rows: X08.
"""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import MARKS, Fact, Panel, Picture, Series, missing
from cosim.reporting.text import number, strong
from cosim.simulators.analysis.network import network_figures, wan_of
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sites import lines, warmup
from cosim.trace.series import step_s
from cosim.units import HOUR_S


def there(run: FleetRun) -> bool:
    """Whether jobs come through a network."""
    return wan_of(run.trace) is not None


def network(run: FleetRun) -> Picture:
    """Power of the network's equipment per class, and jobs that are on their way to each site."""
    key, wan = "wan", wan_of(run.trace)
    if wan is None:
        return missing(key, "Jobs of this run are at their site at once.")
    hours = step_s(run.trace, "aidc") / HOUR_S
    time, kw = run.means(SITE, run.get(f"{SITE}/network_kwh").sum(axis=1) / hours, 0.0)
    series = tuple(Series(name, time, kw[:, m], ("ink", "muted", "muted/45")[m % 3], run.end_s, mark=MARKS[m % 3],
                          label=name) for m, name in enumerate(run.classes) if np.any(kw[:, m] > 0.0))
    panels = [Panel("Power of the network for the jobs sent", "kW", series, axis="network", bands=warmup(run)),
              Panel("Jobs on their way", "jobs", lines(run, SITE, run.get(f"{SITE}/transit_jobs").sum(axis=2),
                                                       run.sites), axis="transit", size=0.8, bands=warmup(run))]
    figures = network_figures(run.trace)
    gb, kwh, kg = (sum(getattr(f, what) for f in figures) for what in ("gb", "kwh", "co2_kg"))
    facts = (Fact("data moved over the network", gb, "GB"), Fact("energy of the network", kwh, "kWh"),
             Fact("CO2 of the network", kg, "kg"))
    says = (f"The network moved {strong(number(gb) + ' GB')}, for {number(kwh)} kWh and {number(kg)} kg CO2, which are "
            "in no other figure.")
    note = (f"{wan.energy_kwh_per_gb:g} kWh/GB at {wan.carbon_kg_per_kwh:g} kg/kWh, drawn by no site and no bus. "
            f"{run.averaging(SITE)}")
    return Picture(key, says, tuple(panels), note, facts, columns=True)
