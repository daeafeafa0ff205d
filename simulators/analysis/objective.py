"""What (32) gave over a run, from its trace, and the fleet's highest power.

Rows: E32, R01-06.
"""

from __future__ import annotations

import math

import numpy as np

from cosim.agents.fleet.rewards import OBJECTIVE, RewardWeights, StepOutcome, reward_of, terms_of
from cosim.params import validate
from cosim.simulators.analysis.paths import PRICE, SITE
from cosim.simulators.analysis.site_series import ended_jobs, intensity_of
from cosim.trace import Trace
from cosim.trace.series import counted, counted_time, over_counted, scenario_of, spans

PEAK_S = 900.0
"""Power is metered as means over a quarter of an hour, as a demand charge is by default."""


def objective_figures(trace: Trace) -> dict[str, float]:
    """`objective`, (32) less the waits' cost summed over the counted steps with the weights of the run's controller
    (higher is better), and
    `peak_kw`, the fleet's highest mean over `PEAK_S`.

    No objective where there is no controller with weights, no price, or where carbon is counted against a dispatch
    without data centers, which a run does not have. R2 is at the common price, without demand charges
    and prices of single sites.
    """
    figures = {"peak_kw": _peak_kw(trace)}
    members = scenario_of(trace)["members"]
    given = members.get("controller", {}).get("params", {})
    if not trace.has(PRICE) or not isinstance(given.get("reward", {}), dict) or "policy" not in given:
        return figures
    weights = validate(RewardWeights, given.get("reward", {}), "controller.reward", bounded=False)
    sees_carbon = given.get("mode", "joint") == "joint"
    if sees_carbon and weights.c3_per_t and weights.carbon == "system_difference":
        return figures
    outcome = _outcome(trace)
    classes = scenario_of(trace)["shared"]["job_classes"]
    kinds = ["train" if classes[name]["kind"] == "train" else "inf" for name in trace.names(SITE, "job_class")]
    figures[OBJECTIVE] = math.fsum(np.atleast_1d(reward_of(terms_of(outcome, kinds, weights), weights, sees_carbon)))
    return figures


def _outcome(trace: Trace) -> StepOutcome:
    """All counted steps at once."""
    use, hours, share, _ = counted(trace, SITE)

    def intensities(port: str) -> list[np.ndarray] | None:
        places = [intensity_of(trace, name, port) for name in trace.names(SITE)]
        return None if any(p is None for p in places) else [
            np.nan_to_num(over_counted(trace, p[0], SITE)[:, p[1]]) for p in places if p is not None]
    dropped = ended_jobs(trace, SITE, "dropped").sum(axis=1)
    return StepOutcome(
        hours=hours, price_usd_per_kwh=over_counted(trace, PRICE, SITE)[:, 0],
        power_kw=list(trace[f"{SITE}/p_kw"][use].T), work_to=share * trace[f"{SITE}/work_to"][use].sum(axis=(1, 2)),
        dropped_jobs=list(dropped.T), nci_kg_per_kwh=intensities("nci_kg_per_kwh"),
        mci_kg_per_kwh=intensities("mci_kg_per_kwh"),
        queued_jobs=list(trace[f"{SITE}/queued_jobs"][use].sum(axis=1).T))


def _peak_kw(trace: Trace) -> float:
    use, (begin, end), time = counted(trace, SITE).use, spans(trace, SITE), counted_time(trace)
    if not use.any():
        return math.nan
    begin, end = np.maximum(begin[use], time.begin_s), np.minimum(end[use], time.end_s)
    edges = np.flatnonzero(np.r_[True, np.diff(np.floor(begin / PEAK_S)) != 0])
    lengths = end - begin
    energy = np.add.reduceat(trace[f"{SITE}/p_kw"][use].sum(axis=1) * lengths, edges)
    return float((energy / np.add.reduceat(lengths, edges)).max())
