"""What `ControlPipeline` does in a minute, compiled, for many environments: jobs to sites, release times, GPUs.

Axes: B environments, N sites, M classes, T of them training, H deferrals, J jobs that arrived, environment by
environment.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cosim.agents.fleet.observation_row import PACE_MIN, USUAL_LEAST
from cosim.simulators.aidc.compiled import jit
from cosim.simulators.aidc.compiled.jit import entry, part, sources_of
from cosim.simulators.controller.batched.shares import (
    deal,
    divide,
    gpu_blocks,
    inference_gpus,
    largest_remainder,
    project_simplex,
    rule_gpus,
)

WAITING = np.dtype([("site", "i8"), ("train", "i8"), ("lead", "i8"), ("release_s", "f8")], align=True)
"""A training job that was sent and is not yet released: where, its class among the training classes, its deferral."""


class DecisionConstants(NamedTuple):
    """What does not change. eligible (M, N); train (T,), inf: numbers of classes; blocks, most, to_per_gpu_min,
    drain_to, usual_drain_to (M,): as of `GpuRule`, in the controller and in sites' observations; gpus, guard_min (N,);
    leads_s (H,); has (T, H): deferrals of a class; top_to_per_s (N, M); clips: whether long deferrals are cut;
    carries: whether remainders of rounding are carried; step_s; pools, per_kind: whether classes use the GPUs of their
    kind together, and whether sites decide shares of kinds"""

    eligible: np.ndarray
    train: np.ndarray
    inf: np.ndarray
    blocks: np.ndarray
    most: np.ndarray
    to_per_gpu_min: np.ndarray
    drain_to: np.ndarray
    usual_drain_to: np.ndarray
    gpus: np.ndarray
    guard_min: np.ndarray
    leads_s: np.ndarray
    has: np.ndarray
    top_to_per_s: np.ndarray
    clips: bool
    carries: bool
    step_s: float
    pools: bool
    per_kind: bool


class ArrivedJobs(NamedTuple):
    """Jobs that arrived in the last minute, (J,) each, times in s on their environment's clock; those of environment b
    stand at first[b] to first[b + 1] - 1, and env is its index."""

    first: np.ndarray
    env: np.ndarray
    id: np.ndarray
    job_class: np.ndarray
    work_to: np.ndarray
    deadline_s: np.ndarray


@part
def _place(rules, share, arrived, b, carry, sites, jobs, work_to):
    """`ControlPipeline.place` in one environment."""
    classes, n = rules.eligible.shape
    begin, end = arrived.first[b], arrived.first[b + 1]
    row, counts, mine = np.empty(n), np.empty(n, np.int64), np.empty(end - begin, np.int64)
    for m in range(classes):
        number = 0
        for k in range(begin, end):
            if arrived.job_class[k] == m:
                mine[number] = k
                number += 1
        if number == 0:
            continue
        project_simplex(share[m * n:(m + 1) * n], rules.eligible[m], row)
        if not rules.carries:
            carry[m] = 0.0
        largest_remainder(number, row, carry[m], counts)
        if not rules.carries:
            carry[m] = 0.0
        order = np.empty(number, np.int64)
        deal(counts, order)
        for j in range(number):
            sites[mine[j]] = order[j]
            jobs[order[j], m] += 1
            work_to[order[j], m] += arrived.work_to[mine[j]]


@part
def _deferral_s(rules, i, m, h, work_to, deadline_s, time_s):
    """`DeferralRules._deferral_s`."""
    lead_s = rules.leads_s[h]
    if lead_s == 0.0 or not rules.clips:
        return lead_s
    top = rules.top_to_per_s[i, m]
    latest_s = deadline_s - work_to / top - rules.step_s if top != 0.0 else -math.inf
    return lead_s if time_s + lead_s <= latest_s else max(latest_s - time_s, 0.0)


@part
def _within(has, share):
    """`DeferralRules._within`."""
    beyond, longest = 0.0, 0
    for h in range(len(share)):
        if has[h]:
            longest = h
        else:
            beyond += share[h]
    if beyond != 0.0:
        for h in range(len(share)):
            share[h] = share[h] if has[h] else 0.0
        share[longest] += beyond


@part
def _release(rules, raw, arrived, b, i, sites, time_s, owed, release_s, waiting, number):
    """`DeferralRules.release` of one site; how many wait then."""
    leads = len(rules.leads_s)
    share, counts, everything = np.empty(leads), np.empty(leads, np.int64), np.ones(leads, np.bool_)
    for t in range(len(rules.train)):
        m, jobs = rules.train[t], 0
        for k in range(arrived.first[b], arrived.first[b + 1]):
            jobs += arrived.job_class[k] == m and sites[k] == i
        if jobs == 0:
            continue
        project_simplex(raw[t * leads:(t + 1) * leads], everything, share)
        _within(rules.has[t], share)
        largest_remainder(jobs, share, owed[t], counts)
        if not rules.carries:
            owed[t] = 0.0
        h = 0
        for k in range(arrived.first[b], arrived.first[b + 1]):
            if arrived.job_class[k] != m or sites[k] != i:
                continue
            while counts[h] == 0:
                h += 1
            counts[h] -= 1
            lead_s = _deferral_s(rules, i, m, h, arrived.work_to[k], arrived.deadline_s[k], time_s)
            release_s[k] = time_s + lead_s
            if lead_s != 0.0:
                one = waiting[number]
                one.site, one.train, one.lead, one.release_s = i, t, h, time_s + lead_s
                number += 1
    return number


@part
def _usual(rules, i, running, queued, pending, new_jobs, new_to, out):
    """`agents.observation._usual_gpus` of one site, into `out` (M + 1,), or (kinds + 1,)."""
    classes, gpus, share = len(running), rules.gpus[i], np.empty(len(running))
    jobs, work_to, need = np.empty(classes), np.empty(classes), np.empty(len(rules.inf), np.int64)
    for m in range(classes):
        jobs[m] = running[m] + queued[m] + new_jobs[m]
        work_to[m] = pending[m] + new_to[m]
    inference_gpus(gpus, rules.inf, rules.blocks, rules.usual_drain_to, running, jobs, work_to, need)
    taken = trained = 0.0
    for k in range(len(rules.inf)):
        share[rules.inf[k]] = need[k] / gpus
        taken += share[rules.inf[k]]
    for t in range(len(rules.train)):
        m = rules.train[t]
        share[m] = work_to[m] / (rules.to_per_gpu_min[m] * gpus * PACE_MIN)
        trained += share[m]
    scale = min(1.0, max(0.0, 1.0 - taken) / trained) if trained > 0.0 else 0.0
    total = 0.0
    for t in range(len(rules.train)):
        share[rules.train[t]] *= scale
    for m in range(classes):
        total += share[m]
    last = len(out) - 1
    if rules.per_kind:
        out[:] = 0.0
        for t in range(len(rules.train)):
            out[0] += share[rules.train[t]]
        for k in range(len(rules.inf)):
            out[last - 1] += share[rules.inf[k]]
    else:
        out[:classes] = share
    out[last] = 1.0 - total
    for m in range(len(out)):
        out[m] = math.log(max(out[m], USUAL_LEAST))


@part
def _grant(rules, i, raw, running, queued, pending, slack_min, jobs, work_to, gpus):
    """GPUs of one site whose classes use their own, or which is guarded, into `gpus` (M,)."""
    classes = len(running)
    share, inside, pend = np.empty(classes), np.empty(classes), np.empty(classes)
    for m in range(classes):
        share[m] = raw[m]
        inside[m] = running[m] + queued[m] + jobs[m]
        pend[m] = pending[m] + work_to[m]
    if slack_min < rules.guard_min[i]:
        rule_gpus(rules.gpus[i], rules.inf, rules.train, rules.blocks, rules.most, rules.to_per_gpu_min,
                  rules.drain_to, running, inside, pend, share)
    gpu_blocks(share, rules.gpus[i], rules.blocks, gpus)


@part
def _pools(rules, raw, capacity, gpus):
    """`pooling.pool` of one site: GPUs of training and of inference; `gpus` (M,) is overwritten."""
    trains, infs = len(rules.train), len(rules.inf)
    if rules.per_kind:
        kinds = (trains > 0) + (infs > 0)
        whole = np.zeros(kinds, np.int64)
        gpu_blocks(raw[:kinds], capacity, np.ones(kinds, np.int64), whole)
        return whole[0] if trains > 0 else 0, whole[kinds - 1] if infs > 0 else 0
    gpu_blocks(raw[:len(gpus)], capacity, rules.blocks, gpus)
    of_train = of_inf = 0
    for t in range(trains):
        of_train += gpus[rules.train[t]]
    for k in range(infs):
        of_inf += gpus[rules.inf[k]]
    return of_train, of_inf


@part
def _grant_pooled(rules, i, raw, running, queued, pending, jobs, work_to, gpus):
    """`ControlPipeline._pooled` of one site, into `gpus` (M,); jobs, work_to: sent and not deferred."""
    classes = len(running)
    inside, pend = np.empty(classes), np.empty(classes)
    for m in range(classes):
        inside[m] = running[m] + queued[m] + jobs[m]
        pend[m] = pending[m] + work_to[m]
    of_train, of_inf = _pools(rules, raw, rules.gpus[i], gpus)
    divide(of_train, rules.train, True, rules.blocks, rules.most, rules.to_per_gpu_min, running, inside, pend, gpus)
    divide(of_inf, rules.inf, False, rules.blocks, rules.most, rules.to_per_gpu_min, running, inside, pend, gpus)


@part
def _sent_now(rules, arrived, b, i, sites, time_s, release_s, jobs, work_to):
    """`ControlPipeline._sent_now` of one site: jobs (M,) that are not deferred, and their work."""
    now_jobs, now_to = np.empty(len(jobs)), np.empty(len(jobs))
    for m in range(len(jobs)):
        now_jobs[m], now_to[m] = jobs[m], work_to[m]
    for t in range(len(rules.train)):
        now_jobs[rules.train[t]], now_to[rules.train[t]] = 0.0, 0.0
    for k in range(arrived.first[b], arrived.first[b + 1]):
        m = arrived.job_class[k]
        if sites[k] == i and release_s[k] <= time_s and (rules.train == m).any():
            now_jobs[m] += 1.0
            now_to[m] += arrived.work_to[k]
    return now_jobs, now_to


@part
def _still_waiting(rules, time_s, waiting, number, by_lead, by_time):
    """`deferral.waiting_jobs` in one environment; how many wait."""
    kept = 0
    for k in range(number):
        one = waiting[k]
        if one.release_s > time_s:
            by_lead[one.site, one.train, one.lead] += 1.0
            by_time[one.site, one.train, np.searchsorted(rules.leads_s, one.release_s - time_s)] += 1.0
            waiting[kept] = waiting[k]
            kept += 1
    return kept


_SOURCES = sources_of(Path(__file__).parent, Path(jit.__file__).parent)


@entry(_SOURCES)
def place(rules, shares, arrived, carry):
    """Site of each job (J,), what rounding owes after it (B, M, N), jobs and work per site and class (B, N, M), for
    the managers' actions (B, M N)."""
    (classes, n), envs = rules.eligible.shape, len(shares)
    sites, after = np.zeros(len(arrived.work_to), np.int64), carry.copy()
    jobs, work_to = np.zeros((envs, n, classes), np.int64), np.zeros((envs, n, classes))
    for b in range(envs):
        _place(rules, shares[b], arrived, b, after[b], sites, jobs[b], work_to[b])
    return sites, after, jobs, work_to


@entry(_SOURCES)
def operate(rules, actions, arrived, sites, time_s, owed, waiting, numbers, running, queued, pending, slack_min,
            jobs, work_to):
    """Release of each job (J,), s, and GPUs (B, N, M), for the sites' actions (B, N, T H + M + 2), or with kinds for M;
    `owed` (B, N, T, H), `waiting` (B, C) and their numbers (B,) go on."""
    envs, n, classes = running.shape
    release_s, gpus = np.empty(len(sites)), np.zeros((envs, n, classes), np.int64)
    ahead = len(rules.train) * len(rules.leads_s)
    for b in range(envs):
        release_s[arrived.first[b]:arrived.first[b + 1]] = time_s[b]
        for i in range(n):
            numbers[b] = _release(rules, actions[b, i, :ahead], arrived, b, i, sites, time_s[b], owed[b, i],
                                  release_s, waiting[b], numbers[b])
            raw, before = actions[b, i, ahead:], (running[b, i], queued[b, i], pending[b, i])
            if rules.pools and not slack_min[b, i] < rules.guard_min[i]:
                now_jobs, now_to = _sent_now(rules, arrived, b, i, sites, time_s[b], release_s, jobs[b, i],
                                             work_to[b, i])
                _grant_pooled(rules, i, raw, *before, now_jobs, now_to, gpus[b, i])
            else:
                _grant(rules, i, raw, *before, slack_min[b, i], jobs[b, i], work_to[b, i], gpus[b, i])
    return release_s, gpus


@entry(_SOURCES)
def look(rules, time_s, waiting, numbers, running, queued, pending, arrivals, arrivals_work_to):
    """Who is yet to be released, by deferral and by time left (B, N, T, H), without those who have been, and the
    logarithms of the usual shares of GPUs (B, N, M + 1), or (B, N, kinds + 1)."""
    envs, n, classes = running.shape
    by_lead = np.zeros((envs, n, len(rules.train), len(rules.leads_s)))
    shown = (len(rules.train) > 0) + (len(rules.inf) > 0) if rules.per_kind else classes
    by_time, usual = np.zeros(by_lead.shape), np.empty((envs, n, shown + 1))
    for b in range(envs):
        numbers[b] = _still_waiting(rules, time_s[b], waiting[b], numbers[b], by_lead[b], by_time[b])
        for i in range(n):
            _usual(rules, i, running[b, i], queued[b, i], pending[b, i], arrivals[b] / n, arrivals_work_to[b] / n,
                   usual[b, i])
    return by_lead, by_time, usual
