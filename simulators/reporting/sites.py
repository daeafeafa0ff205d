"""Pictures of the data centers: carbon signal beside load, power by use, GPUs and queues.

Rows: X07-09.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from cosim.reporting.chart import MARKS, Band, Fact, Panel, Picture, Rule, Series, missing
from cosim.reporting.text import count, highest, listing, number, quantity, strong
from cosim.simulators.analysis.bill import demand_charges, site_prices
from cosim.simulators.analysis.paths import PRICE, SITE
from cosim.simulators.reporting.data import FleetRun
from cosim.trace.series import weighted_mean
from cosim.units import HOUR_S

_NO_SITES = "The trace holds no data center (member aidc, model Site), so there is nothing to show here."
_TINTS = (100, 68, 42, 24, 15, 10)
_MOST_BANDS = 40


def lines(run: FleetRun, path: str, values: np.ndarray, names: list[str], width_s: float = 0.0) -> tuple[Series, ...]:
    """One line per site from values (time, site) of a model's samples."""
    time, y = run.means(path, values, width_s)
    return tuple(Series(name, time, y[:, k], run.colours.get(name, "ink"), run.end_s, mark=MARKS[k % 3], label=name)
                 for k, name in enumerate(names))


def load_and_carbon(run: FleetRun) -> Picture:
    """NCI per site, and below it the power and the jobs that went there."""
    key = "carbon_and_load"
    if not run.sites:
        return missing(key, _NO_SITES)
    sent = allocation(run)
    panels = [_nci_panel(run), *_load_panels(run), *_share_panels(run, sent)]
    follows = {kind: r for kind, one in sent.items() if (r := correlation(one.nci, one.share)) is not None}
    note = f"NCI is the average intensity of what flows into a site's node. {run.averaging(SITE)}"
    if follows:
        said = listing([f"{number(r)} for {_jobs_of(kind)}" for kind, r in follows.items()])
        note += f" NCI and the share of jobs sent there correlate by {said} (-1: all follows the carbon)."
    facts = (Fact(f"correlation of NCI with the share of {_jobs_of(kind)}", r, "") for kind, r in follows.items())
    return Picture(key, _says_where(run), tuple(p for p in panels if p), note + run.played("grid") + run.played("aidc"),
                   (*_where_facts(run), *facts))


@dataclass(frozen=True)
class Allocation:
    """Where the jobs of a kind went in the counted time, by stretches in which no site's NCI changes and jobs came.

    time_s  (n,) begins
    nci     (n, site) kg/kWh, NaN where the trace has none
    share   (n, site) of the jobs sent; rows sum to 1
    """

    time_s: np.ndarray
    nci: np.ndarray
    share: np.ndarray


def allocation(run: FleetRun) -> dict[str, Allocation]:
    """Kind of jobs -> where they went; {} without sites or jobs."""
    use = run.counts(SITE).use
    if not run.sites or not run.has(f"{SITE}/received_jobs") or not use.any():
        return {}
    nci = np.stack([run.nci(site) for site in run.sites], axis=1)
    begins = np.flatnonzero(np.r_[True, (np.diff(np.nan_to_num(nci), axis=0) != 0.0).any(axis=1)])
    out = {}
    for kind, at_classes in run.kinds.items():
        sent = np.add.reduceat(run.of_counted(f"{SITE}/received_jobs")[:, :, at_classes].sum(axis=2), begins)
        came = sent.sum(axis=1) > 0
        at_sites = sent[came] / sent[came].sum(axis=1, keepdims=True)
        out[kind] = Allocation(run.time_s(SITE)[use][begins][came], nci[begins][came], at_sites)
    return out


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's coefficient of two arrays of one shape; None where one does not vary or is not known."""
    if a.size < 2 or not np.isfinite(a).all() or min(np.ptp(a), np.ptp(b)) < 1e-9:
        return None
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _jobs_of(kind: str) -> str:
    return "jobs" if kind == "jobs" else f"{kind} jobs"


def _share_panels(run: FleetRun, sent: dict[str, Allocation]) -> list[Panel]:
    """Allocation ratios; of one site there are none to show."""
    panels = []
    for kind, one in sent.items() if len(run.sites) > 1 else ():
        if len(one.time_s):
            series = tuple(Series(site, one.time_s, 100.0 * one.share[:, k], run.colours.get(site, "ink"), run.end_s,
                                  mark=MARKS[k % 3], label=site) for k, site in enumerate(run.sites))
            panels.append(Panel(f"Share of {_jobs_of(kind)} sent", "%", series, axis="share sent", size=0.6,
                                bands=warmup(run)))
    return panels


def _nci_panel(run: FleetRun) -> Panel | None:
    found = {site: run.intensity_of(site) for site in run.sites}
    series = []
    for k, (site, where) in enumerate(found.items()):
        if where:
            time, y = run.means(where[0])
            series.append(Series(site, time, y[:, where[1]], run.colours[site], run.end_s, mark=MARKS[k % 3],
                                 label=site))
    return Panel("Nodal carbon intensity at the site", "kg/kWh", tuple(series), axis="nci", zero=False,
                 bands=warmup(run)) if series else None


def _load_panels(run: FleetRun) -> list[Panel]:
    panels = [Panel("Power drawn", "kW", lines(run, SITE, run.get(f"{SITE}/p_kw"), run.sites), axis="power",
                    bands=warmup(run))] if run.has(f"{SITE}/p_kw") else []
    sent = f"{SITE}/received_jobs"
    if run.has(sent):
        for kind, at_classes in run.kinds.items():
            per_hour = run.get(sent)[:, :, at_classes].sum(axis=2) * (HOUR_S / run.step_s(SITE))
            width = HOUR_S if run.end_s >= 4 * HOUR_S else 0.0
            words = f"{kind.capitalize()} jobs sent" if kind != "jobs" else "Jobs sent"
            panels.append(Panel(f"{words}{', hourly means' if width else ''}", "jobs/h",
                                lines(run, SITE, per_hour, run.sites, width), axis=f"sent {kind}", size=0.8,
                                bands=warmup(run)))
    return panels


def _shares(run: FleetRun) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean NCI over time, energy in kWh) per site over the counted time; None without NCI or power."""
    if not run.has(f"{SITE}/p_kw"):
        return None
    nci = np.array([weighted_mean(run.nci(s), run.counts(SITE).hours) for s in run.sites])
    return (nci, run.integral(f"{SITE}/p_kw")) if np.isfinite(nci).all() else None


def _carried(run: FleetRun) -> float:
    """NCI weighted by the energy drawn, kg/kWh."""
    energy = run.of_counted(f"{SITE}/p_kw") * run.counts(SITE).hours[:, None]
    nci = np.stack([run.nci(s) for s in run.sites], axis=1)
    return float((energy * nci).sum() / energy.sum()) if energy.sum() else float("nan")


def _says_where(run: FleetRun) -> str:
    shares = _shares(run)
    if shares is None:
        return "Power and jobs per site; the trace gives no carbon intensity at the sites' nodes."
    nci, energy = shares
    clean = int(nci.argmin())
    if len(nci) == 1:
        return (f"{run.sites[0]} draws {quantity(energy[0], 'kWh')} at a mean of {strong(f'{number(nci[0])} kg/kWh')}.")
    if np.ptp(nci) < 1e-9:
        return (f"All sites see the same carbon intensity, {strong(f'{number(nci[0])} kg/kWh')}: where a job runs "
                "makes no difference.")
    carried, even = _carried(run), float(nci.mean())
    change = 100 * (carried / even - 1)
    verdict = "as much as"
    if abs(change) >= 0.05:
        verdict = f"{number(abs(change), 2)} % {'less' if change < 0 else 'more'} than"
    return (f"Where the grid is cleanest, and what was sent there: {run.sites[clean]} has the lowest mean intensity "
            f"({number(nci[clean])} kg/kWh) and took {number(100 * energy[clean] / energy.sum(), 2)} % of the energy; "
            f"a kWh carried {strong(f'{number(carried)} kg')}, {verdict} at equal shares.")


def _where_facts(run: FleetRun) -> tuple[Fact, ...]:
    if _shares(run) is None:
        return ()
    return (Fact("carbon per kWh drawn", _carried(run), "kg/kWh"),)


def warmup(run: FleetRun) -> tuple[Band, ...]:
    """The warm-up, as a band."""
    return (Band(0.0, min(run.warmup_s, run.end_s), 0.5, "warm-up"),) if run.warmup_s else ()


# --- power by use -----------------------------------------------------------------------------------------------------


def uses(run: FleetRun) -> list[tuple[str, np.ndarray]]:
    """What the power went to, (name, (time, site) in kW), from bottom to top; they sum to p_kw."""
    p_kw = run.get(f"{SITE}/p_kw")
    if not run.has(f"{SITE}/it_kw"):
        return [("all", p_kw)]
    it_kw, rest = run.get(f"{SITE}/it_kw"), p_kw.copy()
    layers: list[tuple[str, np.ndarray]] = []
    table = run.scenario["shared"].get("job_classes", {})
    served = [run.has(f"{SITE}/llm_dynamic_kw") and table.get(name, {}).get("kind") == "llm" for name in run.classes]
    per_to = [0.0 if llm else table.get(name, {}).get("kw_per_to_s")
              for name, llm in zip(run.classes, served, strict=True)]
    if per_to and None not in per_to and run.has(f"{SITE}/work_to"):
        kw = run.get(f"{SITE}/work_to") / run.step_s(SITE) * np.array(per_to)
        if any(served):
            kw[:, :, served] = run.get(f"{SITE}/llm_dynamic_kw")[:, :, served]
        layers = [(kind, kw[:, :, k].sum(axis=2)) for kind, k in run.kinds.items()]
        layers.insert(0, ("idle", np.maximum(it_kw - kw.sum(axis=2), 0.0)))
    else:
        layers = [("IT", it_kw)]
    layers += [(name, run.get(f"{SITE}/{name}_kw")) for name in ("chiller", "tower") if run.has(f"{SITE}/{name}_kw")]
    if run.has(f"{SITE}/loss_kw") and run.get(f"{SITE}/loss_kw").any():
        layers.append(("losses", run.get(f"{SITE}/loss_kw")))
    for _, kw in layers:
        rest = rest - kw
    if np.abs(rest).max(initial=0.0) > 1e-6 * max(1.0, float(np.abs(p_kw).max())):
        layers.append(("other", np.maximum(rest, 0.0)))
    return layers


def power(run: FleetRun) -> Picture:
    """A stack per site, the price as bands behind."""
    key = "power"
    if not run.has(f"{SITE}/p_kw"):
        return missing(key, _NO_SITES)
    layers, bands, panels = uses(run), _price_bands(run), []
    drawn = [(name, *run.means(SITE, kw)) for name, kw in layers]
    for k, site in enumerate(run.sites):
        stack = tuple(Series(name, time, kw[:, k], colour, run.end_s, area=True, label=name)
                      for (name, time, kw), colour in zip(drawn, _shades(layers, run.colours[site]), strict=True))
        panels.append(Panel(site, "kW", stack, bands=bands or warmup(run), axis="power by use", room=0.25,
                            size=1.25, quantity="power"))
    cheap = "" if bands else " The trace holds no price."
    note = f"From bottom to top: {', '.join(name for name, _ in layers)}. "
    note += "Grey bands are the price in USD/kWh, stronger where dearer. " if bands else ""
    return Picture(key, _says_power(run, layers) + cheap, tuple(panels), note + run.averaging(SITE), _power_facts(run),
                   columns=True)


def _shades(layers: list[tuple[str, np.ndarray]], colour: str) -> list[str]:
    """Grey for idle power, then the site's colour paler and paler."""
    names = [name for name, _ in layers if name != "idle"]
    tints = {name: f"{colour}/{_TINTS[k % len(_TINTS)]}" for k, name in enumerate(names)}
    return [tints.get(name, "muted/45") for name, _ in layers]


def _says_power(run: FleetRun, layers: list[tuple[str, np.ndarray]]) -> str:
    use, hours = run.counts(SITE)[:2]
    energy = {name: float(run.integral(SITE, kw).sum()) for name, kw in layers}
    total = sum(energy.values())
    parts = [f"{name} {number(100 * e / total, 2)} %" for name, e in energy.items() if total and e > 0.0005 * total]
    p_kw = run.get(f"{SITE}/p_kw")[use].sum(axis=1)
    peak = highest(p_kw)
    text = (f"What the power is used for: {strong(quantity(total, 'kWh'))} in all, of it {listing(parts)}; together "
            f"the sites peak at {quantity(p_kw[peak], 'kW')} at {run.at(run.time_s(SITE)[use][peak])}.")
    if run.has(PRICE):
        price = run.prices()
        if np.ptp(price) > 0:
            text += f" Each kWh cost {number(_price_drawn(run))} USD, the plain mean price is " \
                    f"{number(weighted_mean(price, hours))}."
    if charges := demand_charges(run.trace):
        text += f" Demand charges on the sites' peaks: {strong(quantity(sum(d.usd for d in charges), 'USD'))}."
    return text


def _power_facts(run: FleetRun) -> tuple[Fact, ...]:
    p_kw = run.of_counted(f"{SITE}/p_kw")
    kwh = p_kw.sum(axis=1) * run.counts(SITE).hours
    facts = [Fact("energy of the data centers", float(kwh.sum()), "kWh"),
             Fact("peak power of the data centers", float(p_kw.sum(axis=1).max()), "kW")]
    if run.has(PRICE):
        facts.append(Fact("price of a kWh drawn", _price_drawn(run), "USD/kWh"))
    if charges := demand_charges(run.trace):
        facts.append(Fact("demand charge", sum(d.usd for d in charges), "USD"))
        facts.append(Fact("highest peak that is charged", max(d.peak_kw for d in charges), "kW"))
    return tuple(facts)


def _price_drawn(run: FleetRun) -> float:
    """USD per kWh of all energy drawn, at the price of each site; without demand charges."""
    energy, prices = run.of_counted(f"{SITE}/p_kw") * run.counts(SITE).hours[:, None], site_prices(run.trace)
    assert prices is not None, "there is a price"
    return float((energy * prices).sum() / energy.sum())


def _price_bands(run: FleetRun) -> tuple[Band, ...]:
    """The price where it is constant, as shades from cheapest to dearest; words only where there are few."""
    if not run.has(PRICE):
        return ()
    time, price = run.time_s(PRICE).astype(float), run.get(PRICE)[:, 0]
    first = np.flatnonzero(np.r_[True, np.diff(price) != 0])
    if len(first) > 4 * _MOST_BANDS:
        time, price = run.means(PRICE, price, HOUR_S)
        first = np.arange(len(time))
    low, span = float(price.min()), float(np.ptp(price))
    ends = np.r_[time[first[1:]], run.end_s]
    return tuple(Band(float(time[k]), float(end), (float(price[k]) - low) / span if span else 0.3,
                      f"{price[k]:g}" if len(first) <= _MOST_BANDS else "")
                 for k, end in zip(first, ends, strict=True))


# --- GPUs and queues --------------------------------------------------------------------------------------------------


def gpus(run: FleetRun) -> Picture:
    """Busy GPUs per class and site."""
    key = "gpus"
    if not run.has(f"{SITE}/busy_gpus"):
        return missing(key, "The trace does not record busy GPUs (aidc/Site/busy_gpus)." if run.sites else _NO_SITES)
    busy = run.get(f"{SITE}/busy_gpus")
    time, y = run.means(SITE, busy)
    capacity = [_capacity(run, k) for k in range(len(run.sites))]
    panels = []
    for k, site in enumerate(run.sites):
        stack = tuple(Series(name, time, y[:, k, c], f"{run.colours[site]}/{_TINTS[c % len(_TINTS)]}", run.end_s,
                             area=True, label=name) for c, name in enumerate(run.classes))
        rules = (Rule(capacity[k], f"{capacity[k]:.0f} GPUs"),) if np.isfinite(capacity[k]) else ()
        panels.append(Panel(site, "GPUs", stack, rules=rules, axis="gpus", bands=warmup(run), room=0.14,
                            size=1.1, quantity="busy"))
    what = run.counts(SITE)
    shares = what.hours @ busy[what.use].sum(axis=2) / what.hours.sum()
    if np.isfinite(capacity).all():
        ratio = 100 * shares / np.array(capacity)
        each = listing([f"{site} {number(r, 2)} %" for site, r in zip(run.sites, ratio, strict=True)])
        says = (f"GPUs at work, by job class: {strong(f'{number(100 * shares.sum() / sum(capacity), 2)} %')} of all on "
                f"average ({each}).")
        facts = (Fact("GPU use", 100 * float(shares.sum()) / sum(capacity), "%"),)
    else:
        says = f"GPUs at work, by job class: {strong(number(shares.sum()))} on average."
        facts = (Fact("busy GPUs", float(shares.sum()), ""),)
    note = f"From bottom to top: {', '.join(run.classes)}. {run.averaging(SITE)}"
    return Picture(key, says, tuple(panels), note, facts, columns=True)


def _capacity(run: FleetRun, site: int) -> float:
    """GPUs of a site, from the scenario's table of sites; NaN where the trace lacks it.

    Without one: the free share at a minute's end is a whole number over the GPUs, so these are a multiple of its
    denominator: the one nearest to mean busy GPUs over the busy share.
    """
    row = run.scenario["shared"].get("sites", {}).get(run.sites[site], {})
    if {"racks", "gpus_per_rack"} <= row.keys():
        return float(row["racks"] * row["gpus_per_rack"])
    if not run.has(f"{SITE}/free_gpu_ratio"):
        return float("nan")
    free = run.get(f"{SITE}/free_gpu_ratio")[:, site]
    busy = run.get(f"{SITE}/busy_gpus")[:, site].sum(axis=1)
    partly = free < 1.0
    if not partly.any() or not busy.any():
        return float("nan")
    step = math.lcm(*(Fraction(value).limit_denominator(100_000).denominator for value in set(free.tolist())))
    guess = float(np.median(busy[partly] / (1.0 - free[partly])))
    return max(1, round(guess / step)) * float(step) if step <= 2 * guess else float(round(guess))


def queues(run: FleetRun) -> Picture:
    """Jobs that wait for a GPU, and training jobs put off on purpose, per site."""
    key = "queues"
    parts = [(f"{SITE}/queued_jobs", "waiting for a GPU"), (f"{SITE}/deferred_jobs", "put off on purpose")]
    parts = [(path, words) for path, words in parts if run.has(path)]
    if not parts:
        return missing(key, _NO_SITES if not run.sites else "The trace does not record queues (aidc/Site/queued_jobs).")
    panels = []
    for path, words in parts:
        for kind, k in run.kinds.items():
            values = run.get(path)[:, :, k].sum(axis=2)
            if values.any():
                panels.append(Panel(f"{kind.capitalize()} jobs {words}" if kind != "jobs" else f"Jobs {words}", "jobs",
                                    lines(run, SITE, values, run.sites), axis=f"{path} {kind}", bands=warmup(run)))
    total = run.of_counted(parts[0][0]).sum(axis=2)
    top = highest(total.max(axis=1))
    where, when = run.sites[int(total[top].argmax())], run.time_s(SITE)[run.counts(SITE).use][top] + run.step_s(SITE)
    longest = float(total[top].max())
    left = sum(float(run.of_counted(path)[-1].sum()) for path, _ in parts)
    says = (f"Jobs that wait: at most {strong(count(longest, 'job'))} in one site's queue ({where}, "
            f"{run.at(when)}); {count(left, 'job')} still waiting at the end."
            if panels else f"No job ever waited at the end of a minute: {strong('0 queued, 0 put off')}.")
    facts = (Fact("longest queue of a site", longest, "jobs"), Fact("jobs waiting at the end", left, "jobs"))
    return Picture(key, says, tuple(panels), run.averaging(SITE) if panels else "", facts, columns=True)
