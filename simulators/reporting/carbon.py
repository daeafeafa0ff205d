"""Pictures of the two carbon accounts, and of average against marginal intensity."""

from __future__ import annotations

import numpy as np

from cosim.reporting.chart import MARKS, Fact, Heat, LineMark, Panel, Picture, Series, missing
from cosim.reporting.text import alike, number, strong
from cosim.simulators.analysis.paths import GRID, SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.sites import warmup
from cosim.trace.series import weighted_mean
from cosim.units import KG_PER_T

_EMISSION, _REALISED = f"{GRID}/emission_kg_per_h", f"{GRID}/emission_realised_kg_per_h"


def attributed_kg(run: FleetRun) -> np.ndarray | None:
    """Energy x NCI of each sample and site, kg, (time, site), 0 outside the counted time; None without either."""
    if not run.has(f"{SITE}/p_kw"):
        return None
    nci, p_kw, what = np.stack([run.nci(s) for s in run.sites], axis=1), run.get(f"{SITE}/p_kw"), run.counts(SITE)
    kg = np.zeros_like(p_kw)
    kg[what.use] = p_kw[what.use] * nci * what.hours[:, None]
    return kg if np.isfinite(nci).any() else None


def emitted_kg(run: FleetRun) -> np.ndarray | None:
    """What all sources emitted in each dispatch interval, kg, 0 where it does not count; None where the trace lacks it.

    As settled where the grid exports it, one interval later; else as dispatched.
    """
    if not run.has(_EMISSION):
        return None
    rate = run.get(_EMISSION)[:, 0]
    if run.has(_REALISED):
        settled = np.append(run.get(_REALISED)[1:, 0], np.nan)
        rate = np.where(np.isfinite(settled), settled, rate)
    kg, what = np.zeros_like(rate), run.counts(GRID)
    kg[what.use] = rate[what.use] * what.hours
    return kg


def accounts(run: FleetRun) -> Picture:
    """Cumulative carbon: attributed to the sites, and emitted by all sources."""
    key, panels, facts, says = "carbon", [], [], []
    own, kg = attributed_kg(run), emitted_kg(run)
    own_text, all_text = alike([float("nan") if one is None else float(np.nansum(one)) for one in (own, kg)], "kg")
    if own is not None:
        total = np.nansum(own, axis=0)
        series = tuple(_running(run, SITE, own[:, k], site, run.colours[site], MARKS[k % 3])
                       for k, site in enumerate(run.sites))
        panels.append(Panel("Attributed to each data center: energy x NCI", "t CO2", series, axis="own",
                            bands=warmup(run)))
        facts.append(Fact("carbon attributed to the data centers", float(total.sum()), "kg"))
        says.append(f"the data centers' own account, energy times NCI, ends at {strong(own_text)}")
    if kg is not None:
        system = [_running(run, _EMISSION, kg, "all sources", "ink", "solid")]
        if own is not None and not run.played("grid"):
            system.append(_running(run, SITE, np.nansum(own, axis=1), "data centers", "muted", "dash"))
        theirs = " in the recorded run" if run.played("grid") else ""
        panels.append(Panel(f"System: what all sources emitted{theirs}", "t CO2", tuple(system), axis="system",
                            bands=warmup(run)))
        facts.append(Fact(f"carbon emitted by all sources{theirs}", float(kg.sum()), "kg"))
        says.append(f"all sources together, for every load on the feeder, emitted {strong(all_text)}"
                    f"{theirs}")
    if not panels:
        return missing(key, "The trace holds neither power with NCI at the sites nor emissions of the sources, so "
                            "no carbon account can be drawn.")
    lacks = "" if own is not None else " There is no attributed account: the trace lacks the sites' power or NCI."
    lacks += "" if kg is not None else f" There is no system account: the trace lacks {_EMISSION}."
    return Picture(key, f"Two accounts, summed over the run: {'; '.join(says)}.{lacks}", tuple(panels),
                   "NCI is an average: a lower attributed account does not by itself mean that less was emitted. "
                   "Compare the system account of two runs for that." + run.played("grid") + run.played("aidc"),
                   tuple(facts), columns=True)


def _running(run: FleetRun, path: str, kg: np.ndarray, name: str, colour: str, mark: LineMark) -> Series:
    step, width = run.step_s(path), run.bin_s(path)
    time, values = np.minimum(run.time_s(path) + step, run.end_s), np.cumsum(kg) / KG_PER_T
    last = np.flatnonzero((time % width == 0) | (time == time[-1])) if width > step else np.arange(len(time))
    return Series(name, np.r_[0.0, time[last]], np.r_[0.0, values[last]], colour, run.end_s, mark=mark, label=name,
                  joined=True)


def marginal(run: FleetRun) -> Picture | None:
    """NCI against marginal intensity at each site, with a strip of the sources that are marginal; None without it."""
    known = [(site, run.intensity_of(site), run.intensity_of(site, "mci_kg_per_kwh")) for site in run.sites]
    found = [(site, nci, mci) for site, nci, mci in known if nci and mci
             and all(np.isfinite(run.of_counted(path)[:, column]).any() for path, column in (nci, mci))]
    if not found:
        return None
    panels: list[Panel] = []
    gaps: list[tuple[str, float, float]] = []
    lines: tuple[tuple[str, LineMark], ...] = (("average", "solid"), ("marginal", "dash"))
    for site, nci, mci in found:
        series = []
        for (path, column), (name, mark) in zip((nci, mci), lines, strict=True):
            time, y = run.means(path)
            series.append(Series(name, time, y[:, column], run.colours[site] if name == "average" else "ink", run.end_s,
                                 mark=mark, label=name))
        marginal_mean, average = (weighted_mean(run.of_counted(path)[:, column], run.counts(path).hours)
                                  for path, column in (mci, nci))
        gaps.append((site, marginal_mean, average))
        panels.append(Panel(site, "kg/kWh", tuple(series), axis="intensity", zero=False, bands=warmup(run),
                            quantity="carbon intensity"))
    strip = _strip(run)
    panels += [strip] if strip else []
    site, mci_mean, nci_mean = max(gaps, key=lambda g: abs(g[1] - g[2]))
    says = ("What one more kWh would have emitted, beside the average intensity: they differ most at "
            f"{site}, {strong(f'{number(mci_mean)} kg/kWh')} marginal against an average of {number(nci_mean)}.")
    note = "" if strip else "The trace does not say which source is marginal (grid/Grid/marginal_sources)."
    return Picture("marginal", says, tuple(panels), note + run.played("grid"),
                   tuple(Fact(f"marginal intensity, {s}", m, "kg/kWh") for s, m, _ in gaps), columns=True)


def _strip(run: FleetRun) -> Panel | None:
    path = f"{GRID}/marginal_sources"
    if not run.has(path) or run.get(path).ndim != 3:
        return None
    flags = (run.get(path)[:, 0] > 0.5).astype(float)
    rows = tuple(run.trace.names(GRID, "source"))
    heat = Heat(run.time_s(path).astype(float), rows[::-1], flags.T[::-1], "marginal", run.end_s, scale="flag")
    return Panel("Which source is marginal", heat=heat)
