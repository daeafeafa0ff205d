"""Draw one picture of a trace: what the grid signalled, what the agents did with it, what it drew.

    python docs/picture.py TRACE.h5 OUT.png        (needs the extra: pip install -e '.[plot]')
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np

from cosim.trace import Trace
from simulators.metrics import SITE, nci_at_site

COLOURS = ("#1b7f79", "#e07b39", "#7a4fa3", "#3566a8", "#a83253")


def draw(path: str, out: str) -> None:
    """Three panels over the day: NCI per site, power per site on top of each other with the price, training jobs."""
    with Trace(path) as trace:
        time_s, sites = trace.time_s(SITE), trace.names(SITE)
        hours = time_s / 3600.0
        figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(9.5, 7.2), sharex=True, layout="constrained")
        for site, colour in zip(sites, COLOURS, strict=False):
            top.plot(hours, nci_at_site(trace, site, time_s), color=colour, label=site, drawstyle="steps-post")
        top.set_ylabel("nodal carbon intensity\nkg CO2 / kWh")
        top.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        power = trace[f"{SITE}/p_kw"]
        minutes = min(15, len(power))
        smooth = np.array([np.convolve(p, np.ones(minutes) / minutes, "same") for p in power.T])
        middle.stackplot(hours, smooth, colors=COLOURS[: len(sites)], alpha=0.85)
        middle.set_ylabel("power of the data centers\nkW, 15-min mean")
        if trace.has("tariff/Tariff/price_usd_per_kwh"):
            price = middle.twinx()
            price.plot(hours, trace["tariff/Tariff/price_usd_per_kwh"][:, 0], color="black", lw=1, ls="--")
            price.set_ylabel("price, USD/kWh (dashed)")
        classes = trace.names(SITE, "job_class")
        running = trace[f"{SITE}/running_jobs"].sum(axis=1)
        waiting = (trace[f"{SITE}/queued_jobs"] + trace[f"{SITE}/deferred_jobs"]).sum(axis=1)
        for k, name in enumerate(classes):
            line, = bottom.plot(hours, running[:, k], label=f"{name}, running")
            bottom.plot(hours, waiting[:, k], color=line.get_color(), ls=":", label=f"{name}, waiting")
        bottom.set_yscale("symlog", linthresh=10)
        bottom.set_ylabel("jobs")
        bottom.set_xlabel("hour of the day")
        bottom.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
        top.set_title(f"{trace.attrs['name']}, seed {trace.attrs['seed']}: carbon signal, power, jobs", loc="left")
        figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/picture.py TRACE.h5 OUT.png")
    draw(*sys.argv[1:])
