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
from cosim.agents.study.statistics import rank_correlation
from cosim.agents.study.work import NCI, QUARTER_S, SITE, kinds_of, plain
from cosim.experiment import Experiment
from cosim.request import find
from cosim.scenario import Scenario, override, rows_of
from cosim.trace import Trace
from cosim.trace.series import over_counted
from cosim.units import DAY_S, MIN_S, parse_duration

MCI = "grid/Bus/mci_kg_per_kwh"
_WEEK_DAYS = 7
_LONGER_S = 3600.0
"""Beyond the longest deadline: by then what has begun in time has ended."""


def followed(_: Path, *, scenario: str, policy: str, settings: Mapping[str, Any], seed: int, days: int
             ) -> dict[str, Any]:
    """Run a rule until all jobs of `days` of arrivals are decided; its metrics per day of arrivals, how much power
    moves between the sites, and how NCI and MCI rank them. days: whole
    ones, six at most."""
    arriving = [1.0] * days + [0.0] * (_WEEK_DAYS - days)
    made = override(find(scenario), {**settings, "controller.policy": policy, "seed": seed, "warmup_s": 0.0,
                                     "workload.week_factors": arriving, "grid.ac_check": False})
    end_s = days * DAY_S + longest_deadline_s(made) + _LONGER_S
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "run.h5"
        figures = Experiment(made, "native", end_s, path).run().digest.figures
        with Trace(path) as trace:
            nodes = rows_of(made.shared["sites"], "sites")
            buses = trace.names("grid/Bus")
            at = [buses.index(f"bus{nodes[site]['node']}") for site in trace.names(SITE)]
            minutes = int(days * DAY_S / MIN_S)
            power_kw = trace[f"{SITE}/p_kw"][:minutes]
            nci, mci = (over_counted(trace, name, SITE)[:minutes][:, at] for name in (NCI, MCI))
    return plain({"metrics": metrics(figures, kinds_of(made), days),
                  "moved_ratio": moved_ratio(power_kw, round(QUARTER_S / MIN_S)),
                  "rank_agreement": rank_correlation(nci.ravel(), mci.ravel())})


def longest_deadline_s(scenario: Scenario) -> float:
    """Of its job classes, s."""
    found = (row["deadline_s"] for row in rows_of(scenario.shared["job_classes"], "job_classes").values())
    return max(parse_duration(value) if isinstance(value, str) else float(value) for value in found)


def moved_ratio(power_kw: np.ndarray, minutes: int) -> float:
    """Mean share of the fleet's power that changes its site from one block of `minutes` to the next: half the sum of
    |changes of the sites' shares|. power_kw: (time, site). NaN of one block or of no power."""
    blocks = len(power_kw) // minutes
    means = power_kw[:blocks * minutes].reshape(blocks, minutes, -1).mean(axis=1)
    if blocks < 2 or not (means.sum(axis=1) > 0.0).all():
        return math.nan
    shares = means / means.sum(axis=1, keepdims=True)
    return float(np.abs(np.diff(shares, axis=0)).sum(axis=1).mean() / 2.0)
