"""LLM serving from a trace: latencies against service levels, tokens, energy and carbon per request and token.

Latencies are of the requests that arrived in the counted time, as their clients see them: with the way through the
network to the site and back, where one is given. TTFT, time to first token, from arrival to the first token; TPOT,
time per output token, from there to the last one over the tokens after the first (of a request of one token: none).
ITL, inter-token latency, from one token of an answer to the next, each token counted once, in the minute that put it
out. End to end, from arrival to the last token. A request is good when it finished and kept both service levels of its
class (of those that are set); goodput is good requests over time (Y. Zhong et al., DistServe, OSDI 2024).

Energy of a class: what its replicas draw above idle, loaded ones without work too, and the share of the site's idle and
cooling energy (losses with it) that their GPUs are of the site's. Carbon: each tick's energy at its NCI (attributed)
and mci (marginal). Per request and per 1000 output tokens: over all finished requests and all tokens put out then.
Embodied carbon, where a class states it: its GPUs' hours times `embodied_kg_per_gpu_h`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from cosim.digest import Digest, Table
from cosim.simulators.aidc.equations import inlet_factor
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.analysis.cooling import coolings, served_degc
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.quantiles import quantiles
from cosim.simulators.analysis.site_batteries import facility_kw
from cosim.simulators.analysis.site_series import ended_jobs, intensity_of
from cosim.simulators.fleet import JobClass, Site
from cosim.trace import Trace
from cosim.trace.series import counted, counted_time, over_counted, scenario_of, step_s
from cosim.units import KW_PER_MW

J_PER_KWH = 3.6e6
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class ServingFigures:
    """One class at one site, or at all (site None), over the counted time; times in s, NaN where no request has them.

    requests, good, preempted   that arrived: all, those that kept their service levels, those preempted once or more
    ttft_s, tpot_s, e2e_s       50th, 95th and 99th percentile
    itl_s                       the same of the inter-token latencies of the tokens put out in the counted time
    output_tokens               put out in the counted time
    finished                    requests in the counted time
    energy_kwh, gpu_h           of the class's replicas
    co2_kg, co2_marginal_kg, embodied_kg   NaN where not known, or not stated
    """

    job_class: str
    site: str | None
    requests: int
    good: int
    preempted: int
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    e2e_s: tuple[float, ...]
    itl_s: tuple[float, ...]
    output_tokens: float
    finished: float
    energy_kwh: float
    gpu_h: float
    co2_kg: float
    co2_marginal_kg: float
    embodied_kg: float

    @property
    def joules_per_token(self) -> float:
        """Energy per output token, J."""
        return _over(self.energy_kwh * J_PER_KWH, self.output_tokens)

    def per_1000_tokens(self, amount: float) -> float:
        """An amount over the output tokens, per 1000."""
        return _over(1000.0 * amount, self.output_tokens)

    def per_request(self, amount: float) -> float:
        """An amount over the finished requests."""
        return _over(amount, self.finished)


def served_classes(trace: Trace) -> dict[str, Serving]:
    """Classes of kind llm of a trace whose data centers serve them."""
    if not trace.has(f"{SITE}/llm_dynamic_kw"):
        return {}
    table = scenario_of(trace)["shared"]["job_classes"]
    classes = {name: JobClass(**table[name]) for name in trace.names(SITE, "job_class")}
    return {name: c.serving for name, c in classes.items() if c.serving is not None}


def latencies(requests: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TTFT, TPOT and end-to-end time of each request of the table, s; NaN where there is none."""
    first_s, end_s, back_s = requests["first_token_s"], requests["end_s"], requests.get("return_s", 0.0)
    done = requests["outcome"] == "finished"
    e2e_s = np.where(done, end_s + back_s - requests["arrival_s"], np.nan)
    more = np.where(done & (requests["output_tokens"] > 1.0), requests["output_tokens"] - 1.0, np.nan)
    return first_s + back_s - requests["arrival_s"], (end_s - first_s) / more, e2e_s


def good_ones(requests: dict[str, np.ndarray], serving: Serving, ttft_s: np.ndarray, tpot_s: np.ndarray) -> np.ndarray:
    """Which requests finished and kept both service levels."""
    good = requests["outcome"] == "finished"
    if serving.slo_ttft_s is not None:
        good = good & (ttft_s <= serving.slo_ttft_s)
    if serving.slo_tpot_s is not None:
        good = good & ~(tpot_s > serving.slo_tpot_s)
    return good


def class_kwh(trace: Trace) -> np.ndarray:
    """Energy of each class of kind llm in what counts of each tick, (k, site, class), kWh; 0 of other classes."""
    what, shared = counted(trace, SITE), scenario_of(trace)["shared"]
    hours = what.hours[:, None]
    held = trace[f"{SITE}/busy_gpus"][what.use]
    served = np.array([name in served_classes(trace) for name in trace.names(SITE, "job_class")])
    out = np.zeros(held.shape)
    supply_degc, drawn_kw = served_degc(trace)[what.use], facility_kw(trace)
    for k, name in enumerate(trace.names(SITE)):
        site, factor = Site(**shared["sites"][name]), inlet_factor(supply_degc[:, k], coolings(trace)[k])
        factor = (factor * np.ones(len(held)))[:, None]
        beside_kw = drawn_kw[what.use][:, k] - trace[f"{SITE}/it_kw"][what.use][:, k]
        kw = trace[f"{SITE}/llm_dynamic_kw"][what.use][:, k] * factor + held[:, k] / site.gpus * (
            site.idle_kw * factor + beside_kw[:, None])
        out[:, k] = np.where(served, kw * hours, 0.0)
    return out


def serving_figures(trace: Trace) -> list[ServingFigures]:
    """Per class, at all sites together and then at each; [] for a trace without LLM serving."""
    classes = served_classes(trace)
    if not classes:
        return []
    what = counted(trace, SITE)
    names, sites = trace.names(SITE, "job_class"), trace.names(SITE)
    counted_requests, itl_s = _of_requests(trace, classes, sites), inter_token_s(trace, classes, sites)
    kwh = class_kwh(trace)
    gpu_h = trace[f"{SITE}/busy_gpus"][what.use] * what.hours[:, None, None]
    tokens = trace[f"{SITE}/output_tokens"][what.use] * what.share[:, None, None]
    finished = ended_jobs(trace, SITE, "finished")
    carbon = {}
    for port in ("nci_kg_per_kwh", "mci_kg_per_kwh"):
        at = [intensity_of(trace, site, port) for site in sites]
        w = np.stack([np.full(len(kwh), np.nan) if a is None else over_counted(trace, a[0], SITE)[:, a[1]] for a in at],
                     axis=1)
        carbon[port] = kwh * w[:, :, None]
    out = []
    for name, serving in classes.items():
        m = names.index(name)
        for k, site in ((slice(None), None), *enumerate(sites)):
            put_out, done, used_kwh, held_h, kg, marginal_kg = (
                float(x[:, k, m].sum()) for x in (tokens, finished, kwh, gpu_h, *carbon.values()))
            per_h = serving.embodied_kg_per_gpu_h
            out.append(ServingFigures(name, site, *counted_requests[name, site], itl_s[name, site], put_out, done,
                                      used_kwh, held_h, kg, marginal_kg,
                                      np.nan if per_h is None else held_h * per_h))
    return out


class _Counted(NamedTuple):
    """Requests: all, good, preempted; quantiles of TTFT, TPOT and end-to-end time, s."""

    requests: int
    good: int
    preempted: int
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    e2e_s: tuple[float, ...]


_REQUEST_COLUMNS = ("job_class", "site", "arrival_s", "first_token_s", "end_s", "output_tokens", "preemptions",
                    "outcome")


def request_blocks(trace: Trace, classes: Mapping[str, Serving], sites: Sequence[str]
                   ) -> Iterator[tuple[str, str | None, dict[str, np.ndarray]]]:
    """(class, site, requests) of the table, at all sites (None) and then at each, a block of rows at a time."""
    columns = (*_REQUEST_COLUMNS, *(("return_s",) if trace.has("llm_requests/return_s") else ()))
    for block in trace.blocks("llm_requests", columns):
        for name in classes:
            mine = block["job_class"] == name
            if not mine.any():
                continue
            rows = {column: values[mine] for column, values in block.items()}
            yield name, None, rows
            for site in sites:
                here = rows["site"] == site
                if here.any():
                    yield name, site, {column: values[here] for column, values in rows.items()}


def _of_requests(trace: Trace, classes: Mapping[str, Serving], sites: Sequence[str]
                 ) -> dict[tuple[str, str | None], _Counted]:
    """(class, site) -> the requests that arrived in the counted time."""
    time, keys = counted_time(trace), list(product(classes, (None, *sites)))
    if "llm_requests" not in trace.tables():
        return dict.fromkeys(keys, _Counted(0, 0, 0, *((np.nan,) * len(_QUANTILES),) * 3))

    def blocks() -> Iterator[tuple[str, str | None, dict[str, np.ndarray]]]:
        for name, site, rows in request_blocks(trace, classes, sites):
            counts = (rows["arrival_s"] >= time.begin_s) & (rows["arrival_s"] < time.end_s)
            yield name, site, {column: values[counts] for column, values in rows.items()}

    numbers = {key: np.zeros(3, int) for key in keys}
    for name, site, rows in blocks():
        ttft_s, tpot_s, _ = latencies(rows)
        numbers[name, site] += (len(ttft_s), np.count_nonzero(good_ones(rows, classes[name], ttft_s, tpot_s)),
                                np.count_nonzero(rows["preemptions"] > 0))
    found = quantiles(lambda: (((name, site, k), values[np.isfinite(values)]) for name, site, rows in blocks()
                               for k, values in enumerate(latencies(rows))), _QUANTILES)
    return {key: _Counted(*numbers[key].tolist(), *(found.get((*key, k), (0, (np.nan,) * len(_QUANTILES)))[1]
                                            for k in range(3))) for key in keys}


def inter_token_s(trace: Trace, classes: Iterable[str], sites: Sequence[str]
                  ) -> dict[tuple[str, str | None], tuple[float, ...]]:
    """(class, site) -> percentiles of the inter-token latencies of the tokens put out in the counted time, s: linear in
    the cell of 2.2 % in which a rank falls. A tick that the counted time cuts counts in proportion."""
    begin_s, tick_s, share = trace.time_s(SITE), step_s(trace, "aidc"), counted(trace, SITE)
    weight = np.zeros(len(begin_s))
    weight[share.use] = share.share
    cells: dict[float, float] = {}  # from -> to
    tokens: dict[tuple[str, str | None], dict[float, float]] = {key: {} for key in product(classes, (None, *sites))}
    for block in trace.blocks("llm_gaps"):
        tick = np.clip(np.rint((block["time_s"] - begin_s[0]) / tick_s).astype(int), 0, len(begin_s) - 1)
        low_s, first, cell = np.unique(block["gap_from_s"], return_index=True, return_inverse=True)
        cells |= zip(low_s.tolist(), block["gap_to_s"][first].tolist(), strict=True)
        for (name, site), of_key in tokens.items():
            mine = (block["job_class"] == name) & ((block["site"] == site) if site is not None else True)
            found = np.bincount(cell[mine], (block["tokens"] * weight[tick])[mine], len(low_s))
            for low, number in zip(low_s.tolist(), found.tolist(), strict=True):
                of_key[low] = of_key.get(low, 0.0) + number
    return {key: _of_cells(sorted((low, cells[low], number) for low, number in of_key.items() if number > 0.0))
            for key, of_key in tokens.items()}


def _of_cells(filled: list[tuple[float, float, float]]) -> tuple[float, ...]:
    """Percentiles of tokens in ascending cells: (from, to, s, how many)."""
    if not filled:
        return (np.nan,) * len(_QUANTILES)
    ends = np.cumsum([number for _, _, number in filled])
    out = []
    for ratio in _QUANTILES:
        k = min(int(np.searchsorted(ends, ratio * ends[-1])), len(filled) - 1)
        low_s, high_s, number = filled[k]
        out.append(float(low_s + (high_s - low_s) * (ratio * ends[-1] - (ends[k] - number)) / number))
    return tuple(out)


def serving_tables(trace: Trace, digest: Digest) -> None:
    """Latencies, tokens, energy and carbon of LLM serving; nothing for a run without."""
    figures = serving_figures(trace)
    if not figures:
        return
    seconds = counted_time(trace).minutes * 60.0
    classes = served_classes(trace)
    rows, costs = [], []
    for f in figures:
        of = f.job_class if f.site is None else f"{f.job_class}_{f.site}"
        digest.figures |= {name: value for name, value in (
            (f"ttft_p50_{of}_s", f.ttft_s[0]), (f"ttft_p99_{of}_s", f.ttft_s[2]), (f"tpot_p50_{of}_s", f.tpot_s[0]),
            (f"tpot_p99_{of}_s", f.tpot_s[2]), (f"itl_p50_{of}_s", f.itl_s[0]), (f"itl_p99_{of}_s", f.itl_s[2]),
            (f"good_{of}_ratio", _over(f.good, f.requests)),
            (f"output_{of}_tokens", f.output_tokens), (f"energy_{of}_kwh", f.energy_kwh),
            (f"co2_{of}_kg", f.co2_kg), (f"co2_marginal_{of}_kg", f.co2_marginal_kg)) if np.isfinite(value)}
        slo = classes[f.job_class]
        rows.append((f.job_class, f.site or "all", str(f.requests), *(_ms(x) for x in (*f.ttft_s, *f.tpot_s)),
                     _number(f.e2e_s[0]), f"{100 * _over(f.good, f.requests):.2f} %" if f.requests else "-",
                     f"{f.good / seconds:.3g}", f"{f.output_tokens / seconds:.4g}", str(f.preempted)))
        costs.append((f.job_class, f.site or "all", f"{f.energy_kwh / KW_PER_MW:.4f}", _number(f.joules_per_token),
                      _number(1e3 * f.per_request(f.energy_kwh)), *(_number(1e3 * f.per_1000_tokens(kg)) for kg in (
                          f.co2_kg, f.co2_marginal_kg, f.embodied_kg)),
                      *(_number(1e3 * f.per_request(kg)) for kg in (f.co2_kg, f.co2_marginal_kg))))
        if f.site is None:
            levels = (slo.slo_ttft_s, slo.slo_tpot_s)
            rows[-1] = (f"{f.job_class} (SLO {' / '.join('-' if x is None else _ms(x) for x in levels)} ms)",
                        *rows[-1][1:])
    digest.tables.append(Table("LLM serving", (
        "class", "site", "requests", "TTFT p50 ms", "p95", "p99", "TPOT p50 ms", "p95", "p99", "end to end p50 s",
        "good", "goodput /s", "tokens out /s", "preempted"), rows,
        "SLO: TTFT / TPOT; good: finished within both; goodput: good requests over time"))
    digest.tables.append(Table("Inter-token latency", ("class", "site", "tokens", "p50 ms", "p95", "p99"), [
        (f.job_class, f.site or "all", f"{f.output_tokens:.0f}", *map(_ms, f.itl_s)) for f in figures],
        "from one token of an answer to the next, each token counted once; to 2 %"))
    digest.tables.append(Table("Energy and carbon of LLM serving", (
        "class", "site", "MWh", "J/token", "Wh/request", "g CO2/1000 tokens", "marginal", "embodied", "g CO2/request",
        "marginal"), costs, "tokens put out; energy of all replicas that are on, with their share of idle and cooling"))


def _over(a: float, b: float) -> float:
    return a / b if b else float("nan")


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}" if np.isfinite(seconds) else "-"


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "-"
