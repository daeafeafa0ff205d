"""Power limits of replicas of language models, from a trace: the law of what they may draw, and the summary's table."""

from __future__ import annotations

import math

import numpy as np

from cosim.digest import Digest, Table
from cosim.simulators.aidc.llm.serving import Serving
from cosim.simulators.analysis.balance import Finding, NothingToCheck
from cosim.simulators.analysis.cooling import needs_sites
from cosim.simulators.analysis.flows import largest
from cosim.simulators.analysis.paths import SITE
from cosim.simulators.analysis.serving import served_classes
from cosim.trace import Trace
from cosim.trace.series import counted, step_s
from cosim.units import HOUR_S

_ALLOWED = 1e-9


def has_limits(trace: Trace) -> bool:
    """Whether the power limits of replicas are in the trace."""
    return bool(served_classes(trace)) and trace.has(f"{SITE}/gpu_limit_kw")


def _longest_iteration_s(serving: Serving) -> float:
    """No iteration of a class takes longer."""
    curve, least_kw = serving.the_curve, min(serving.own_limit_kw, math.inf if serving.not_limited is not None
                                             else serving.least_limit_kw)
    tokens = max(serving.batched_tokens, serving.max_context_tokens)
    return ((curve.base_s(serving.max_batch) + curve.context_s_per_token * serving.kv_tokens)
            / min(serving.decode_ratio(n, least_kw) for n in (1, serving.max_batch))
            + curve.prefill_s_per_token * tokens / serving.prefill_ratio(least_kw))


def power_limits(trace: Trace) -> Finding:
    """Limits are within what a class can keep; its replicas draw no more than their GPUs may, at the limits of this
    tick and, until iterations that began under them have ended, of ticks before; who is slowed draws as much as a limit
    lets him. Relative. Of ticks in which a cap lowers limits, which change inside them, what they draw without one."""
    needs_sites(trace)
    classes, names, tick_s = served_classes(trace), trace.names(SITE, "job_class"), step_s(trace, "aidc")
    if not classes:
        raise NothingToCheck("no class of kind llm")
    off: dict[str, float] = {}
    for name, serving in classes.items():
        m, gpu_idle_kw = names.index(name), serving.the_gpu.idle_w / 1e3
        held, drawn_kw = trace[f"{SITE}/busy_gpus"][:, :, m], trace[f"{SITE}/llm_dynamic_kw"][:, :, m]
        most = np.full(held.shape, min(serving.draw_kw, serving.own_limit_kw))
        if has_limits(trace):
            limit, slowed, cap_s = (trace[f"{SITE}/{port}"] for port in ("gpu_limit_kw", "slowed_s", "cap_slowed_s"))
            limit, slowed = limit[:, :, m], slowed[:, :, m]
            least = serving.tdp_kw if serving.not_limited is not None else min(serving.least_limit_kw, serving.tdp_kw)
            outside = np.maximum(least - limit, limit - serving.tdp_kw)
            off[f"{name}: limit"] = largest(np.maximum(outside, 0.0)) / serving.tdp_kw
            most = np.where(cap_s > 0.0, serving.draw_kw, np.where(limit < serving.tdp_kw, np.minimum(
                limit, serving.draw_kw), serving.draw_kw))
            before = most.copy()
            for back in range(1, 2 + int(_longest_iteration_s(serving) / tick_s)):
                most[back:] = np.maximum(most[back:], before[:-back])
            most[:1] = np.maximum(most[:1], min(serving.draw_kw, serving.own_limit_kw))
            off[f"{name}: slowed for longer than a tick"] = largest(np.maximum(slowed / tick_s - 1.0, 0.0))
            free = (before >= serving.draw_kw) & (most >= serving.draw_kw) & (cap_s == 0.0)
            free[1:] &= (before[:-1] >= serving.draw_kw) & (cap_s[:-1] == 0.0)
            off[f"{name}: slowed without a limit"] = largest(np.where(free, slowed, 0.0)) / tick_s
        over = drawn_kw - held * (most - gpu_idle_kw)
        off[f"{name}: beyond its limit"] = largest(np.maximum(over, 0.0)) / max(
            largest(held) * (serving.draw_kw - gpu_idle_kw), 1e-3)
    if has_limits(trace):
        off["slowed by a cap for longer than a tick"] = largest(np.maximum(
            trace[f"{SITE}/cap_slowed_s"] / tick_s - 1.0, 0.0))
    worst = max(off, key=off.__getitem__)
    return Finding(off[worst], _ALLOWED, worst, (
        "how much slower replicas are under a power limit: their batches inside a tick are not in the trace",))


def limits_table(trace: Trace, digest: Digest) -> None:
    """Power limits of replicas and for how long they slowed; nothing for a run without."""
    if not has_limits(trace):
        return
    what, sites, names = counted(trace, SITE), trace.names(SITE), trace.names(SITE, "job_class")
    limit, slowed_s = (trace[f"{SITE}/{port}"][what.use] for port in ("gpu_limit_kw", "slowed_s"))
    slowed_h = (slowed_s * what.share[:, None, None]).sum(axis=0) / HOUR_S
    cap_h = float((trace[f"{SITE}/cap_slowed_s"][what.use] * what.share[:, None]).sum()) / HOUR_S
    rows = []
    for name, serving in served_classes(trace).items():
        m = names.index(name)
        digest.figures[f"slowed_{name}_h"] = float(slowed_h[:, m].sum())
        for k, site in enumerate(sites):
            mean = float(limit[:, k, m] @ what.share / what.share.sum())
            rows.append((name, site, f"{serving.tdp_kw:g}", f"{mean:.3f}", f"{limit[:, k, m].min():.3f}",
                         f"{slowed_h[k, m]:.2f}"))
    digest.figures["cap_slowed_h"] = cap_h
    digest.tables.append(Table("Power limits of LLM replicas", (
        "class", "site", "TDP kW", "limit kW mean", "least", "slowed h"), rows,
        f"of a GPU; slowed h: in which a limit slowed a replica; {cap_h:.2f} h of a site for its cap"))
