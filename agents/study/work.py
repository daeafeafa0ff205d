"""What one cell of a study computes: a team trained, or a policy run for a day in one world and read out of its trace.

Each function takes the folder it writes into and plain data, and returns plain data: the figures of Table II per day,
and `sites`, what each site was sent and how it stood. Beside that it writes `quarters.csv` (a row per quarter of an
hour and site) and `starts.csv` (training jobs by the hour in which they arrived and the hour in which they started).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosim.agents import train
from cosim.agents.comparison import metrics
from cosim.agents.learn.checkpoint import LAST, LOG, complete_lines
from cosim.agents.request import MODES
from cosim.agents.study.statistics import rank_correlation
from cosim.errors import ModelError, ScenarioError
from cosim.experiment import Experiment
from cosim.request import changed, find
from cosim.scenario import Scenario, override, rows_of
from cosim.tables.files import write_table
from cosim.trace import Trace
from cosim.trace.series import counted, over_counted
from cosim.units import DAY_S, HOUR_S, MIN_S

SITE, AGENT, PRICE, NCI = "aidc/Site", "controller/Agent", "tariff/Tariff/price_usd_per_kwh", "grid/Bus/nci_kg_per_kwh"
QUARTER_S = 900.0
TRAINING = "training"
"""Folder of a training inside its cell's."""


def trained(folder: Path, *, scenario: str, mode: str, method: str, seed: int, episodes: int,
            settings: Mapping[str, str] | None = None, envs: int = 16, engine: str = "auto", updates: int | None = None,
            preset: str = "ours") -> dict[str, Any]:
    """Train a team by `cosim train`, in one process, or go on with the training that stands in the folder.

    updates: end after so many, whatever the episodes; preset: settings that go together. Returns how many updates there
    were.
    """
    out = folder / TRAINING
    if (out / LAST).is_file():
        words = ["--resume", str(out), "--workers", "1"]
    else:
        words = [scenario, "--method", method, "--mode", mode, "--seed", str(seed), "--episodes", str(episodes),
                 "--envs", str(envs), "--engine", engine, "--preset", preset, "--workers", "1",
                 "--out", str(out), "--save-every", "5"]
        words += ["--updates", str(updates)] if updates else []
        for path, value in (settings or {}).items():
            words += ["--set", f"{path}={value}"]
    code = train.main(words)
    if code:
        raise ModelError(f"cosim train {' '.join(words)} ended with exit code {code}; its message stands above")
    lines = complete_lines(out / LOG)
    return {"updates": len(lines)}


def evaluated(folder: Path, *, scenario: str, mode: str, seed: int, policy: str = "", team: str = "",
              settings: Mapping[str, Any] | None = None, days: float = 1.0, warmup_days: float = 1.0,
              signal_of: str = "") -> dict[str, Any]:
    """Run a policy for a day of warm-up and `days` that count, and read its trace.

    policy: a rule's name or an import string; team: the cell that trained one, beside `folder`, instead; signal_of: a
    policy whose run at the same arrivals is recorded first and whose grid this one is shown: its own load then changes
    no intensity.
    """
    base = override(find(scenario), {**MODES[mode], **(settings or {})})
    with tempfile.TemporaryDirectory() as scratch:
        def ready(who: str) -> Scenario:
            return override(base, {"controller.policy": who, "seed": seed, "warmup_s": warmup_days * DAY_S,
                                   "grid.ac_check": False})  # which changes nothing

        played = {}
        if signal_of:
            played["grid"] = Path(scratch) / "signal.h5"
            Experiment(ready(signal_of), "native", days * DAY_S, played["grid"]).run()
        made = changed(ready(_policy(folder, policy, team)), replays=played)
        run = Experiment(made, "native", days * DAY_S, Path(scratch) / "run.h5")
        figures = run.run().digest.figures
        kinds = kinds_of(made)
        with Trace(Path(scratch) / "run.h5") as trace:
            quarters = quarters_of(trace, made, kinds)
            starts = starts_of(trace, kinds)
    write_table(folder / "quarters.csv", quarters)
    write_table(folder / "starts.csv", {name: values for name, values in starts.items() if name != "wait_h"})
    return plain({"metrics": metrics(figures, kinds, days), "sites": sites_of(quarters, starts)})


def plain(data: Any) -> Any:
    """Data for JSON: a number that is not there is None."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _policy(folder: Path, policy: str, team: str) -> str:
    """The name by which a run takes a policy. ScenarioError where the training that it names left no team."""
    if not team:
        return policy
    path = folder.parent / team / TRAINING / LAST
    if not path.is_file():
        raise ScenarioError(f"cell {team} left no team at {path}; run it first")
    return str(path.resolve())


def kinds_of(scenario: Scenario) -> dict[str, str]:
    """Class -> train or inf."""
    return {name: row["kind"] for name, row in rows_of(scenario.shared["job_classes"], "job_classes").items()}


def quarters_of(trace: Trace, scenario: Scenario, kinds: Mapping[str, str]) -> dict[str, np.ndarray | list[str]]:
    """Columns of what counts, a row per quarter of an hour and site: hour of the day, intensity, price, jobs that were
    sent, shares of the arrivals, power, IT power."""
    use, _, _, _ = counted(trace, SITE)
    time_s, sites = trace.time_s(SITE)[use], trace.names(SITE)
    train_k = [k for k, name in enumerate(trace.names(AGENT, trace.dims(f"{AGENT}/allocated_jobs")[0]))
               if kinds[name] == "train"]
    inf_k = [k for k in range(len(kinds)) if k not in train_k]
    minutes = round(QUARTER_S / MIN_S)
    blocks = len(time_s) // minutes

    def quarterly(values: np.ndarray) -> np.ndarray:
        """(quarters, minutes, ...) of the minutes that make whole quarters."""
        return values[:blocks * minutes].reshape(blocks, minutes, *values.shape[1:])

    sent = quarterly(trace[f"{AGENT}/allocated_jobs"][counted(trace, AGENT).use])
    power, it = (quarterly(trace[f"{SITE}/{port}"][use]) for port in ("p_kw", "it_kw"))
    buses, nodes = trace.names("grid/Bus"), rows_of(scenario.shared["sites"], "sites")
    at = [buses.index(f"bus{nodes[site]['node']}") for site in sites]
    nci = quarterly(over_counted(trace, NCI, SITE)[:, at]).mean(axis=1)
    price = quarterly(over_counted(trace, PRICE, SITE)).mean(axis=1)
    hour = quarterly(time_s)[:, 0] % DAY_S / HOUR_S
    table = {"hour": np.repeat(hour, len(sites)), "nci_kg_per_kwh": nci.ravel(),
             "price_usd_per_kwh": np.repeat(price, len(sites)), "train_jobs": sent[..., train_k].sum((1, 3)).ravel(),
             "inf_jobs": sent[..., inf_k].sum((1, 3)).ravel(), "p_kw": power.mean(axis=1).ravel(),
             "it_kw": it.mean(axis=1).ravel()}
    return {"site": list(sites) * blocks, **table}


def starts_of(trace: Trace, kinds: Mapping[str, str]) -> dict[str, np.ndarray | list[str]]:
    """Training jobs that arrived in the counted time and have started: site, hours of the day of arrival and start,
    and the wait, h."""
    begin_s = trace.time_s(SITE)[counted(trace, SITE).use][0]
    jobs = trace.table("jobs")
    use = np.array([kinds[name] == "train" for name in jobs["job_class"]], bool) & (jobs["arrival_s"] >= begin_s)
    use &= np.isfinite(jobs["start_s"])
    arrival, start = jobs["arrival_s"][use], jobs["start_s"][use]
    order = np.argsort(arrival, kind="stable")
    return {"site": [str(name) for name in jobs["site"][use][order]],
            "arrival_hour": (arrival % DAY_S / HOUR_S)[order], "start_hour": (start % DAY_S / HOUR_S)[order],
            "wait_h": ((start - arrival) / HOUR_S)[order]}


def sites_of(quarters: Mapping[str, Any], starts: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables of a run come to: per site, and over all of them."""
    names = list(dict.fromkeys(quarters["site"]))
    n = len(names)
    by_site = {key: np.asarray(quarters[key], float).reshape(-1, n) for key in quarters if key != "site"}
    of_start = np.asarray(starts["site"], str)
    sent = by_site["train_jobs"] + by_site["inf_jobs"]
    out: dict[str, Any] = {"names": names}
    for key in ("train_jobs", "inf_jobs"):
        total = by_site[key].sum()
        out[f"{key}_share"] = (by_site[key].sum(axis=0) / total if total else np.full(n, math.nan)).tolist()
    out["nci_kg_per_kwh"] = by_site["nci_kg_per_kwh"].mean(axis=0).tolist()
    out["p_kw"] = by_site["p_kw"].mean(axis=0).tolist()
    out["pue"] = (by_site["p_kw"].sum(axis=0) / by_site["it_kw"].sum(axis=0)).tolist()
    some = sent.sum(axis=1) > 0
    shares = sent[some] / sent[some].sum(axis=1, keepdims=True)
    out["nci_share_rank_correlation"] = rank_correlation(by_site["nci_kg_per_kwh"][some].ravel(), shares.ravel())
    out["nci_power_rank_correlation"] = rank_correlation(by_site["nci_kg_per_kwh"].ravel(), by_site["p_kw"].ravel())
    for key, values, of in (("share", shares, some), ("power", by_site["p_kw"], slice(None))):
        out[f"nci_{key}_within_site"] = [rank_correlation(by_site["nci_kg_per_kwh"][of][:, k], values[:, k])
                                         for k in range(n)]
    waits = np.asarray(starts["wait_h"], float)
    out["wait_h"] = [_mean(waits[of_start == name]) for name in names]
    out["wait_variance_h2"] = [float(waits[of_start == name].var()) if (of_start == name).any() else math.nan
                               for name in names]
    out["peak_to_off_peak"] = _moved(quarters, starts)
    return out


def _moved(quarters: Mapping[str, Any], starts: Mapping[str, Any]) -> float:
    """Share of the training jobs that arrive at the highest price and start in the hours of the lowest one."""
    price, hour = np.asarray(quarters["price_usd_per_kwh"], float), np.asarray(quarters["hour"], float)
    if price.min() == price.max():
        return math.nan
    peak, low = (set(np.floor(hour[np.isclose(price, edge)]).astype(int).tolist())
                 for edge in (price.max(), price.min()))
    arrived = np.isin(np.floor(np.asarray(starts["arrival_hour"], float)).astype(int), list(peak))
    started = np.isin(np.floor(np.asarray(starts["start_hour"], float)).astype(int), list(low))
    return _mean(started[arrived])


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan
