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
    """Three panels over the day: NCI per site, power per site with the price, busy GPUs."""
    with Trace(path) as trace:
        time_s, sites = trace.time_s(SITE), trace.names(SITE)
        hours = time_s / 3600.0
        figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(9.5, 7.2), sharex=True, layout="constrained")
        for site, colour in zip(sites, COLOURS, strict=False):
            top.plot(hours, nci_at_site(trace, site, time_s), color=colour, label=site, drawstyle="steps-post")
        top.set_ylabel("nodal carbon intensity\nkg CO2 / kWh")
        top.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        middle.stackplot(hours, _smooth(trace[f"{SITE}/p_kw"]).T, colors=COLOURS[: len(sites)], alpha=0.85)
        middle.set_ylabel("power of the data centers\nkW, 15-min mean")
        if trace.has("tariff/Tariff/price_usd_per_kwh"):
            price = middle.twinx()
            price.plot(hours, trace["tariff/Tariff/price_usd_per_kwh"][:, 0], color="black", lw=1, ls="--")
            price.set_ylabel("price, USD/kWh (dashed)")
        classes = trace.names(SITE, "job_class")
        busy = _smooth(trace[f"{SITE}/busy_gpus"].sum(axis=1))
        bottom.stackplot(hours, busy.T, labels=classes, colors=("#264653", "#2a9d8f", "#e9c46a", "#f4a261"), alpha=0.9)
        bottom.set_ylabel("busy GPUs by class\n15-min mean")
        bottom.set_xlabel("hour of the day")
        bottom.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        top.set_title(f"{trace.attrs['name']}, seed {trace.attrs['seed']}: carbon signal, power, GPUs", loc="left")
        figure.savefig(out, dpi=80)


def _smooth(values: np.ndarray, minutes: int = 15) -> np.ndarray:
    """Means over the last `minutes` samples (fewer at the start), along the first axis."""
    total = np.concatenate([np.zeros_like(values[:1]), values.cumsum(axis=0)])
    end = np.arange(1, len(values) + 1)
    first = np.maximum(end - minutes, 0)
    return (total[end] - total[first]) / (end - first)[:, None]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/picture.py TRACE.h5 OUT.png")
    draw(*sys.argv[1:])
