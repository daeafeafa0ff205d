"""A replica against a reference that simulates every iteration, against theory, and its conservation laws."""

import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iterations import Plain, serve

from cosim.simulators.aidc.engine.events import EventClock
from cosim.simulators.aidc.engine.jobs import Job
from cosim.simulators.aidc.llm.equations import run_s, steps_until, steps_within
from cosim.simulators.aidc.llm.gaps import Gaps, cell_from_s, gap_cell
from cosim.simulators.aidc.llm.replica import Replica
from cosim.simulators.aidc.llm.replica_group import ReplicaGroup
from cosim.simulators.aidc.llm.request import Numbers, Request

UNIT = 2.0**-10
"""All times are whole multiples: floats hold them and their sums exactly, so that equal instants are equal."""


class Line:
    """A replica on a clock of its own, requests put at their arrivals."""

    def __init__(self, numbers):
        self.clock = EventClock(0.0, lambda event: None)
        self.ended, self.dropped, self.kws, self.since_s = {}, [], 0.0, 0.0
        self.replica = Replica(numbers, self.clock, self.end, lambda *_: None, self.dropped.append, self.power)
        self.kw = self.replica.kw

    def power(self, now_s, *_):
        self.kws += self.kw * (now_s - self.since_s)
        self.since_s, self.kw = now_s, self.replica.kw

    def end(self, request, now_s):
        assert request.job.id not in self.ended
        self.ended[request.job.id] = now_s

    def limit(self, numbers):
        self.replica.limit_batch(numbers, self.clock.now)
        self.replica.limit_power(numbers, self.clock.now)

    def serve(self, requests, limits=()):
        """In the order of arrival; ids are places in the list. limits: (s, other numbers of the replica)."""
        for time_s, numbers in limits:
            self.clock.signal(time_s, [lambda _, n=numbers: self.limit(n)])
        for request in sorted(requests, key=lambda r: r.job.arrival_s):
            self.clock.signal(request.job.arrival_s, [lambda _, r=request: self.replica.put(r, self.clock.now)])
        while self.clock.peek() < math.inf:
            self.clock.step()
        self.power(self.clock.now)


def numbers(*, base=(8,), slope=2, context=1, prefill=1, max_batch=4, kv=200, tokens=16, chunked=True, full=False,
            ready=0.0):
    sizes = range(max_batch + 1)
    return Numbers([UNIT * (base[0] + slope * k) for k in sizes], [1.0 + 0.25 * k for k in sizes],
                   [UNIT / 16 * context] * len(sizes),
                   UNIT * prefill, 4.0, ready, 2, max_batch, kv, tokens, chunked, full)


def requests(rows, deadline=1e6):
    """(arrival in units, prompt, answer, cached)"""
    return [Request(Job(k, "chat", UNIT * a, 1.0, UNIT * (a + deadline), UNIT * a, UNIT * a), i, o, min(c, i - 1))
            for k, (a, i, o, c) in enumerate(rows)]


def slowed(n, decode, prefill):
    """Decode and prefill take so many times as long, of batches of two and more, at less power."""
    at = [1] * 2 + [decode] * (n.max_batch - 1)
    return n._replace(base_s=[f * s for f, s in zip(at, n.base_s, strict=True)],
                      context_s=[f * s for f, s in zip(at, n.context_s, strict=True)], prefill_s=prefill * n.prefill_s,
                      batch_kw=[kw / f for f, kw in zip(at, n.batch_kw, strict=True)],
                      prefill_kw=n.prefill_kw / prefill, slow_from=2, slow_prefill=prefill > 1)


ROWS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 40), st.integers(1, 30), st.integers(0, 20)), min_size=1,
                max_size=14)


LIMITS = st.lists(st.tuples(st.integers(0, 1600), st.sampled_from([1, 1.5, 2, 3]), st.sampled_from([1, 1.5, 4]),
                            st.integers(1, 5)), max_size=6)


@settings(max_examples=80, deadline=None)
@given(ROWS, LIMITS, st.integers(1, 5), st.integers(70, 160), st.booleans(), st.booleans(),
       st.sampled_from([60, 300, 10**6]), st.integers(0, 3), st.integers(6, 40))
def test_runs_of_iterations_are_the_iterations(rows, limits, max_batch, kv, chunked, full, patience, context, tokens):
    """Same instants of start, first token and end to the last bit, same drops, preemptions and energy per request,
    whenever the power limit and the largest batch change."""
    n = numbers(max_batch=max_batch, kv=kv, tokens=max(tokens, max_batch + 1), chunked=chunked, full=full,
                context=context)
    changes = [(UNIT * t / 4, slowed(n, decode, prefill)._replace(max_batch=min(most, max_batch)))
               for t, decode, prefill, most in sorted(limits)]
    line, made = Line(n), requests(rows, patience)
    line.serve(made, changes)
    plain = [Plain(r.job.arrival_s, r.input_tokens, r.output_tokens, r.cached_tokens, r.due_s) for r in made]
    energy = serve(n, plain, changes)
    gone = {r.job.id for r in line.dropped}
    for k, (ours, theirs) in enumerate(zip(made, plain, strict=True)):
        assert (k in gone) == theirs.dropped
        assert line.ended.get(k) == theirs.end_s
        if not theirs.dropped:
            assert (ours.start_s, ours.first_s, ours.preemptions) == (theirs.start_s, theirs.first_s,
                                                                      theirs.preemptions)
            assert ours.energy_kws == pytest.approx(theirs.energy_kws, rel=1e-9, abs=1e-12)
    assert line.kws == pytest.approx(energy, rel=1e-9, abs=1e-12)
    assert line.replica.kv == 0
    replica = line.replica
    served = [r for k, r in enumerate(made) if k not in gone]
    assert replica.decoded + replica.prompts == sum(r.output_tokens for r in served)
    assert replica.decoded + replica.prefilled - replica.undone == sum(r.needed for r in served)
    assert replica.prefilled == sum(r.prefilled for r in served)
    between = [b - a for r in plain for a, b in pairwise(r.token_s)]
    assert replica.gaps == Counter(map(gap_cell, between))


@given(st.integers(1, 10**6), st.integers(0, 10**4), st.integers(0, 10**6), st.integers(1, 512), st.integers(1, 4000))
def test_iterations_in_a_time(base, context, tokens, batch, steps):
    """`steps_within` inverts the series, on both sides of every boundary."""
    args = (base * 1e-6, context * 1e-12, tokens, batch)
    whole_s = run_s(*args, steps)
    assert steps_within(*args, whole_s) == steps
    assert steps_within(*args, whole_s * (1 - 1e-12)) in (steps - 1, steps)
    assert steps_until(*args, whole_s) == steps
    assert steps_until(*args, whole_s + 0.5 * base * 1e-6) == steps + 1


@given(st.integers(1, 4000), st.integers(0, 50), st.integers(1, 300), st.integers(1, 9))
def test_a_series_of_latencies_in_cells(first, more, steps, tokens):
    gaps = Gaps()
    gaps.add_series(UNIT * first, UNIT * more, steps, tokens)
    by_hand = Counter()
    for k in range(steps):
        by_hand[gap_cell(UNIT * (first + k * more))] += tokens
    assert gaps == by_hand
    assert all(cell_from_s(cell) <= UNIT * (first + steps * more) for cell in gaps)
    assert sum(number for _, number in gaps.taken()) == steps * tokens
    assert not gaps


def test_one_request_by_hand():
    """Prompt of 20 in chunks of 16 and 4, three tokens: two iterations with prompts, then two of decode."""
    n = numbers(context=0, tokens=16)
    line = Line(n)
    (request,) = made = requests([(0, 20, 3, 0)])
    line.serve(made)
    first = 2 * 10 + 20  # two iterations of 8 + 2 units, and a unit per token of the prompt
    assert request.first_s == UNIT * first
    assert line.ended[0] == UNIT * (first + 2 * 10)
    assert request.gpu_s == pytest.approx(2 * line.ended[0])
    assert request.energy_kws == pytest.approx(UNIT * (4 * 10 * 1.25 + 20 * 4.0))


def test_memory_preempts_the_last_and_computes_it_again():
    """Two requests outgrow a cache of 24: the second gives up its memory, and ends after the first."""
    n = numbers(kv=24, context=0, tokens=64)
    line = Line(n)
    made = requests([(0, 8, 12, 0), (0, 8, 12, 0)])
    line.serve(made)
    assert [r.preemptions for r in made] == [0, 1]
    assert line.ended[0] < line.ended[1]
    assert made[1].prefilled > 8
    full = Line(numbers(kv=24, context=0, tokens=64, full=True))
    full.serve(again := requests([(0, 8, 12, 0), (0, 8, 12, 0)]))
    assert [r.preemptions for r in again] == [0, 0]
    assert again[1].start_s == full.ended[0]


def test_single_server_waits_by_pollaczek_khinchine():
    """A batch of one is M/G/1: the mean wait is rho / (1 - rho) x E[S^2] / (2 E[S]), service = prompt + iterations."""
    rng = random.Random(5)
    n = numbers(max_batch=1, context=0, kv=10**6, tokens=64, slope=0)
    service = {o: UNIT * (o * 8 + 4) for o in (5, 20)}
    mean = sum(service.values()) / 2
    second = sum(x * x for x in service.values()) / 2
    rate = 0.6 / mean
    time_s, rows = 0.0, []
    for _ in range(12_000):
        time_s += rng.expovariate(rate)
        rows.append((time_s / UNIT, 4, rng.choice((5, 20)), 0))
    line, made = Line(n), requests(rows, 1e12)
    line.serve(made)
    waited = sum(r.start_s - r.job.arrival_s for r in made) / len(made)
    assert waited == pytest.approx(rate * second / 2 / (1 - 0.6), rel=0.1)


def test_saturation_is_the_full_batch_over_its_iteration():
    """With more waiting than fits, tokens per second are max_batch / f(max_batch)."""
    n = numbers(max_batch=4, context=0, prefill=0, tokens=64)
    line = Line(n)
    line.serve(requests([(0, 1, 25, 0)] * 200))
    assert 200 * 25 / line.clock.now == pytest.approx(4 / n.base_s[4], rel=0.01)


def test_requests_go_where_there_are_fewest():
    """Thirty replicas of which some drain, come back and go off: each request joins the first of those that have the
    fewest, once the ones that are late have been dropped."""
    rng = random.Random(1)
    n = numbers(max_batch=2, kv=10**6, tokens=64)
    clock = EventClock(0.0, lambda event: None)
    group = ReplicaGroup(n.gpus, 0.0, lambda now_s: None, lambda: None)

    def replica():
        return Replica(n, clock, lambda *_: None, lambda *_: None, lambda _: None, group.replica_power, group.less)
    for _ in range(30):
        group.add(replica(), "ready")
    group.update(0.0)
    rows = [(0.4 * k, 10, rng.randint(2, 80), 0) for k in range(3000)]
    for request in requests(rows, 900):
        while clock.peek() <= request.job.arrival_s:
            clock.step()
        clock.rest_until(now_s := request.job.arrival_s)
        if rng.random() < 0.01:
            one = rng.choice([r for r in group if r.state == "ready"])
            group.drain(one, now_s)
        if rng.random() < 0.01:
            for one in group.draining()[:1]:
                group.make_ready(one)
            group.add(replica(), "starting")
        if rng.random() < 0.02:
            for one in group:
                if one.state == "starting":
                    group.make_ready(one)
        ready = [r for r in group if r.state == "ready"]
        late = {r: sum(1 for w in r.waiting if w.due_s <= now_s and math.isnan(w.start_s)) for r in ready}
        best = min(ready, key=lambda r: (r.outstanding - late[r], r.order))
        before = best.outstanding - late[best]
        assert group.put(request, now_s)
        assert best.outstanding == before + 1
        assert group.ready == len(ready)
        assert group.on == sum(r.state != "draining" for r in group)
    assert len(group._least) <= 65 + 4 * len(group)
