"""One cell of the study of a signal: a rule that follows it, on the arrivals of a seed, from an empty fleet to an empty
fleet, so that all runs of a point serve the same work."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents.comparison import metrics
from cosim.agents.evaluate import decided_s
from cosim.agents.study.statistics import rank_correlation
from cosim.agents.study.work import NCI, QUARTER_S, SITE, kinds_of, plain
from cosim.experiment import Experiment
from cosim.imports import load
from cosim.request import find
from cosim.scenario import override, rows_of
from cosim.trace import Trace
from cosim.trace.series import over_counted
from cosim.units import DAY_S, MIN_S

MCI = "grid/Bus/mci_kg_per_kwh"
_BOUNDS = "cosim.simulators.analysis.bound:bounds"
"""By name, as models stand above the agents: (trace, whether its grid answers to no load, days) -> metric -> value."""


def followed(_: Path, *, scenario: str, policy: str, settings: Mapping[str, Any], seed: int, days: float,
             bound: bool = False) -> dict[str, Any]:
    """Run a rule until all jobs of `days` of arrivals are decided; its metrics per day of arrivals, how much power
    moves between the sites, and how NCI and MCI rank them. bound: also
    what no policy can beat on these arrivals, whatever the load does to intensities."""
    made = override(find(scenario), {**settings, "controller.policy": policy, "seed": seed, "warmup_s": 0.0,
                                     "workload.arrivals_end_s": days * DAY_S, "grid.ac_check": False})
    end_s = days * DAY_S + decided_s(made)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run.h5"
        figures = Experiment(made, "native", end_s, path).run().digest.figures
        with Trace(path) as trace:
            nodes = rows_of(made.shared["sites"], "sites")
            buses = trace.names("grid/Bus")
            at = [buses.index(f"bus{nodes[site]['node']}") for site in trace.names(SITE)]
            minutes = int(days * DAY_S / MIN_S)
            power_kw = trace[f"{SITE}/p_kw"][:minutes]
            bounds = load(_BOUNDS, "bound")(trace, False, days) if bound else {}
            nci, mci = (over_counted(trace, name, SITE)[:minutes][:, at] for name in (NCI, MCI))
    return plain({"metrics": metrics(figures, kinds_of(made), days, end_s / DAY_S), "bounds": bounds,
                  "moved_ratio": moved_ratio(power_kw, round(QUARTER_S / MIN_S)),
                  "rank_agreement": rank_correlation(nci.ravel(), mci.ravel())})


def moved_ratio(power_kw: np.ndarray, minutes: int) -> float:
    """Mean share of the fleet's power that changes its site from one block of `minutes` to the next: half the sum of
    |changes of the sites' shares|. power_kw: (time, site). NaN of one block or of no power."""
    blocks = len(power_kw) // minutes
    means = power_kw[:blocks * minutes].reshape(blocks, minutes, -1).mean(axis=1)
    if blocks < 2 or not (means.sum(axis=1) > 0.0).all():
        return math.nan
    shares = means / means.sum(axis=1, keepdims=True)
    return float(np.abs(np.diff(shares, axis=0)).sum(axis=1).mean() / 2.0)
