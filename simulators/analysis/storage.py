"""Batteries in a trace: the laws of their energy and carbon, worked out anew, and their figures for the summary.

Rows: E09, U18.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.digest import Digest, Table
from cosim.errors import TraceError
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.flows import MEMBER, held, intensities, largest, where
from cosim.simulators.analysis.paths import BATTERY, BUS, GRID
from cosim.trace import Trace
from cosim.trace.series import counted, step_s
from cosim.units import HOUR_S, KG_PER_T, KW_PER_MW

ALLOWED = 1e-9
"""kWh, kg and kW per unit of the largest figure."""


@dataclass(frozen=True, eq=False)
class BatterySeries:
    """A grid's batteries: p_kw (> 0 discharges), soc_kwh, stored_kg, stored_kg_per_kwh and the intensity of each one's
    bus, NaN where it is not recorded, (interval, battery); their table, column -> (battery,); hours of an interval;
    and held (interval,), in which they stand still."""

    p_kw: np.ndarray
    soc_kwh: np.ndarray
    stored_kg: np.ndarray
    stored_kg_per_kwh: np.ndarray
    nci: np.ndarray
    of: dict[str, np.ndarray]
    hours: float
    held: np.ndarray

    @property
    def change_kwh(self) -> np.ndarray:
        """(interval, battery) by how much the energy in it rises."""
        into, out = self.of["charge_efficiency_ratio"], self.of["discharge_efficiency_ratio"]
        rate = np.where(self.p_kw > 0.0, -self.p_kw / out, -self.p_kw * into)
        return np.where(self.held[:, None], 0.0, rate) * self.hours

    @property
    def change_kg(self) -> np.ndarray:
        """The same of carbon: what charges comes at its bus's intensity, what discharges goes at the stored one."""
        change = self.change_kwh
        return np.where(change > 0.0, change * np.where(change > 0.0, self.nci, 0.0), change * self.stored_kg_per_kwh)


def read_batteries(trace: Trace) -> BatterySeries:
    """NothingToCheck for a grid without any; TraceError where the trace lacks their data."""
    if not trace.has(f"{BATTERY}/soc_kwh"):
        raise NothingToCheck("no battery on the grid")
    table = trace.table(f"{MEMBER}.batteries")
    names = trace.names(BATTERY)
    if list(table.get("name", ())) != names:
        raise TraceError(f"table {MEMBER}.batteries is not of the batteries that are recorded")
    count = min(len(trace.time_s(GRID)), len(trace.time_s(BATTERY)))
    places, nci = intensities(trace)
    buses = trace.names(GRID, "bus")
    column = {buses[at]: k for k, at in enumerate(places)}
    of_bus = np.stack([nci[:count, column[bus]] if bus in column else np.full(count, np.nan) for bus in table["bus"]],
                      axis=1)
    p_kw, soc_kwh, kg, kg_per_kwh = (trace[f"{BATTERY}/{port}"][:count] for port in (
        "p_kw", "soc_kwh", "stored_kg", "stored_kg_per_kwh"))
    return BatterySeries(
        p_kw, soc_kwh, kg, kg_per_kwh, of_bus,
        {name: np.asarray(values, float) for name, values in table.items() if name not in ("name", "bus")},
        step_s(trace, MEMBER) / HOUR_S, held(trace)[:count])


def battery_energy(trace: Trace) -> Finding:
    """Energy follows power by the efficiencies, inside its limits, and power is inside its own; kWh and kW."""
    b = read_batteries(trace)
    off = np.zeros_like(b.p_kw)
    off[1:] = np.abs(b.soc_kwh[1:] - b.soc_kwh[:-1] - b.change_kwh[:-1])
    outside = np.maximum.reduce([
        b.of["energy_min_kwh"] - b.soc_kwh, b.soc_kwh - b.of["energy_max_kwh"], b.p_kw - b.of["p_discharge_max_kw"],
        -b.of["p_charge_max_kw"] - b.p_kw, np.zeros_like(b.p_kw)])
    off = np.maximum(off, outside)
    return Finding(largest(off), ALLOWED * max(1.0, largest(b.soc_kwh)), where(trace.time_s(GRID), off,
                                                                               trace.names(BATTERY)))


def battery_carbon(trace: Trace) -> Finding:
    """Carbon in = what charges at the intensity of its bus, carbon out = what discharges at the stored intensity, and
    that is carbon over energy; kg."""
    b = read_batteries(trace)
    off = np.abs(b.stored_kg - b.soc_kwh * b.stored_kg_per_kwh)
    known = np.isfinite(b.nci).all(axis=0)
    off[1:, known] = np.maximum(off[1:], np.abs(b.stored_kg[1:] - b.stored_kg[:-1] - b.change_kg[:-1]))[:, known]
    left_out = () if known.all() else ("carbon of batteries at buses whose intensity is not recorded",)
    return Finding(largest(off), ALLOWED * max(1.0, largest(b.stored_kg)),
                   where(trace.time_s(GRID), off, trace.names(BATTERY)), left_out)


def battery_table(trace: Trace, digest: Digest) -> None:
    """What went through the batteries in the counted time, what they hold, and at what intensity; none without any."""
    if not trace.has(f"{BATTERY}/soc_kwh") or not trace.has(f"{BUS}/nci_kg_per_kwh"):
        return
    b, what = read_batteries(trace), counted(trace, GRID)
    if not what.use.any():
        return
    p_kw = np.where(b.held[:, None], 0.0, b.p_kw)
    charged, fed = (what.hours @ np.maximum(sign * p_kw, 0.0)[what.use] for sign in (-1.0, 1.0))
    wear = (charged + fed) * b.of["wear_usd_per_kwh"]
    end_kwh, end_kg = b.soc_kwh[-1] + b.change_kwh[-1], b.stored_kg[-1] + b.change_kg[-1]
    first = int(np.flatnonzero(what.use)[0])
    rows = []
    for k, name in enumerate(trace.names(BATTERY)):
        given = what.hours @ (np.maximum(p_kw, 0.0) * b.stored_kg_per_kwh)[what.use][:, k]
        took = what.hours @ np.where(p_kw < 0.0, -p_kw * b.nci, 0.0)[what.use][:, k]
        rows.append((name, f"{charged[k] / KW_PER_MW:.3f}", f"{fed[k] / KW_PER_MW:.3f}",
                     f"{b.soc_kwh[first, k]:.0f}", f"{end_kwh[k]:.0f}", _intensity(took, charged[k]),
                     _intensity(given, fed[k]), f"{b.stored_kg[first, k] / KG_PER_T:.3f}",
                     f"{end_kg[k] / KG_PER_T:.3f}", f"{wear[k]:.2f}"))
    digest.figures |= {"battery_charged_kwh": float(charged.sum()), "battery_discharged_kwh": float(fed.sum()),
                       "battery_wear_usd": float(wear.sum()), "battery_stored_kg": float(end_kg.sum())}
    digest.tables.append(Table(
        "Batteries", ("battery", "MWh in", "MWh out", "kWh at start", "at end", "kg/kWh in", "out", "t CO2 at start",
                      "at end", "wear USD"), rows,
        "kg/kWh in is the NCI of its bus as it charges, out the mix of what is stored, at which it discharges"))


def _intensity(kg: float, kwh: float) -> str:
    return f"{kg / kwh:.3f}" if kwh > 0.0 else "-"
