"""Batteries behind data centers' meters in a trace: what the facilities used, the law of their energy, their figures.

The meter shows facility - battery, so that cost, demand charge, carbon account and demand response are those of the
metered power. The carbon of what a battery stores is its site's when it charges; when it discharges the site draws that
much less at the intensity of that time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cosim.digest import Digest, Table
from cosim.simulators.aidc.plant.battery import SiteBattery
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.cooling import needs_sites
from cosim.simulators.analysis.flows import largest, where
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.site_series import intensity_of
from cosim.simulators.grid.battery import stored_kw
from cosim.trace import Trace
from cosim.trace.series import counted, over_counted, scenario_of, step_s
from cosim.units import HOUR_S, KW_PER_MW

POWER, ENERGY = f"{SITE}/battery_kw", f"{SITE}/battery_soc_kwh"
ALLOWED = 1e-9
"""kWh and kW per unit of the largest figure."""


def any_behind_meters(trace: Trace) -> bool:
    """Whether sites have batteries behind their meters."""
    return SITE in trace.models() and trace.has(POWER)


def facility_kw(trace: Trace) -> np.ndarray:
    """(time, site) what the facilities drew: what the meters show, and what batteries behind them gave."""
    metered = trace[f"{SITE}/p_kw"]
    return metered + trace[POWER] if any_behind_meters(trace) else metered


def given_batteries(trace: Trace) -> dict[str, SiteBattery]:
    """Batteries of the scenario, by their sites."""
    params: dict[str, Any] = scenario_of(trace)["members"]["aidc"]["params"]
    return {name: SiteBattery(**row) for name, row in params.get("batteries", {}).items()}


def site_battery_energy(trace: Trace) -> Finding:
    """Energy follows power by the efficiencies, both are inside their limits, nothing is exported; kWh and kW."""
    if not any_behind_meters(trace):
        raise NothingToCheck("no battery behind a data center's meter")
    needs_sites(trace)
    hours, p_kw, soc = step_s(trace, "aidc") / HOUR_S, trace[POWER], trace[ENERGY]
    off, given = np.abs(p_kw) + np.abs(soc), given_batteries(trace)
    for k, name in enumerate(trace.names(SITE)):
        battery = given.get(name)
        if battery is None:
            continue
        change = np.array([stored_kw(battery, p) for p in p_kw[:, k].tolist()]) * hours
        moved = np.abs(np.diff(soc[:, k], prepend=np.nan) - change)
        moved[0] = abs(soc[0, k] - battery.energy_start_kwh - change[0])
        off[:, k] = np.maximum.reduce([
            moved, battery.energy_min_kwh - soc[:, k], soc[:, k] - battery.energy_max_kwh,
            p_kw[:, k] - battery.p_discharge_max_kw, -battery.p_charge_max_kw - p_kw[:, k],
            np.where(p_kw[:, k] > 0.0, -trace[f"{SITE}/p_kw"][:, k], 0.0), np.zeros(len(off))])
    return Finding(largest(off), ALLOWED * max(1.0, largest(soc)), where(trace.time_s(SITE), off, trace.names(SITE)))


def site_battery_table(trace: Trace, digest: Digest) -> None:
    """What went through them in the counted time, the peaks with and without them, and the carbon they moved; none
    without any."""
    if not any_behind_meters(trace):
        return
    what = counted(trace, SITE)
    if not what.use.any():
        return
    p_kw, soc, metered = (trace[path][what.use] for path in (POWER, ENERGY, f"{SITE}/p_kw"))
    given, rows, sums = given_batteries(trace), [], np.zeros(4)
    for k, name in enumerate(trace.names(SITE)):
        if name not in given:
            continue
        charged, fed = (float(what.hours @ np.maximum(sign * p_kw[:, k], 0.0)) for sign in (-1.0, 1.0))
        found = intensity_of(trace, name)
        nci = np.full(len(p_kw), np.nan) if found is None else over_counted(trace, found[0], SITE)[:, found[1]]
        moved_kg = float(what.hours @ (-p_kw[:, k] * nci))
        wear = (charged + fed) * given[name].wear_usd_per_kwh
        sums += (charged, fed, wear, moved_kg)
        rows.append((name, f"{charged / KW_PER_MW:.3f}", f"{fed / KW_PER_MW:.3f}", f"{soc[0, k]:.0f}",
                     f"{soc[-1, k]:.0f}", f"{(metered + p_kw)[:, k].max():.1f}", f"{metered[:, k].max():.1f}",
                     f"{moved_kg:+.1f}" if np.isfinite(moved_kg) else "-", f"{wear:.2f}"))
    digest.figures["facility_energy_kwh"] = float((what.hours @ (metered + p_kw)).sum())
    if not given:  # a recording's, which does not say what its batteries are
        return
    digest.figures |= dict(zip(("site_battery_charged_kwh", "site_battery_discharged_kwh", "site_battery_wear_usd",
                                "site_battery_co2_kg"), map(float, sums), strict=True))
    if not np.isfinite(sums[3]):
        del digest.figures["site_battery_co2_kg"]
    digest.tables.append(Table(
        "Batteries behind the meters", ("site", "MWh in", "MWh out", "kWh at start", "at end", "peak kW of facility",
                                        "of meter", "kg CO2", "wear USD"), rows,
        "energy, cost and carbon of the sites are those of their meters; kg CO2: by how much the battery changed what "
        "is attributed to the site"))
