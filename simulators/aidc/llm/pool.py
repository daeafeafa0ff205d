"""Serving of one job class at a site: replicas that are switched on and off, the line before them, and what they did.

A grant of GPUs is a number of replicas that may be on. More are switched on at once, on free GPUs, and are ready after
`startup_s`; one too many is switched off when it was beyond every grant of the last `keep_on_s`: it takes no new
request and goes off with its last one, whose GPUs it keeps until then. A request goes to the ready replica with the
fewest requests (the first of equals), and waits for one where none is ready; it is dropped when it has not been
admitted by its deadline, and at once when it is longer than the class allows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from cosim.errors import ModelError
from cosim.simulators.aidc.engine.events import EventClock, TimedSignal
from cosim.simulators.aidc.engine.interval import Levels, Tally
from cosim.simulators.aidc.engine.jobs import (
    DROPPED,
    FINISHED,
    UNFINISHED,
    Job,
    Row,
    nearest_tick,
    row_of,
    tick_after,
)
from cosim.simulators.aidc.engine.site_state import JobState
from cosim.simulators.aidc.equations import gpu_throughput_to_per_s
from cosim.simulators.aidc.llm.gaps import Gaps, cell_from_s
from cosim.simulators.aidc.llm.records import ServingTick
from cosim.simulators.aidc.llm.replica import Replica
from cosim.simulators.aidc.llm.replica_group import COUNTERS, ReplicaGroup
from cosim.simulators.aidc.llm.request import Numbers, Request, numbers_of
from cosim.simulators.fleet import JobClass

NOTHING: Mapping[int, float] = MappingProxyType({})
_MOST_NUMBERS = 50_000
"""Of power limits, times the largest batch, whose numbers are kept."""


class ServingPool(Tally):
    """Requests and replicas of one class at a site.

    serving       parameters of the class
    granted_gpus  GPUs the class may use; `command` puts a new grant into force
    group         its replicas that are on
    rows, uses, requests, gaps   rows of jobs that leave, of shares, of requests and of GAP_COLUMNS are put there; None:
                  nowhere
    joined        called with the pool and a replica when a request has come to it; None: nothing is
    changed       called when `kw` or `busy_gpus` has changed
    freed         called when a replica has gone off, or a grant can use more GPUs
    """

    next_s = math.inf  # nothing happens that the site's clock has no signal for
    claims: list = []

    def __init__(self, name: str, site: str, job_class: JobClass, rows: list[Row] | None, clock: EventClock,
                 changed: Callable[[float], None], freed: Callable[[], None]) -> None:
        super().__init__()
        assert job_class.serving is not None, "of kind llm"
        self.name, self.site, self.rows = name, site, rows
        self.uses: list[tuple] | None = None if rows is None else []
        self.requests: list[tuple] | None = None if rows is None else []
        self._class, self.serving = job_class, job_class.serving
        self._clock = clock
        self._numbers = numbers_of(self.serving)
        self._limited: dict[float, Numbers] = {}  # by power limit
        self.joined: Callable[[ServingPool, Replica], None] | None = None
        self._to_per_token = self.serving.to_per_token
        self.granted_gpus = 0
        self.group = ReplicaGroup(self._numbers.gpus, clock.now, changed, freed)
        self._line: deque[Request] = deque()  # while no replica is ready
        self._coming: deque[Request] = deque()  # of this tick, yet to arrive
        self._arrivals: list[Callable[[Any], None]] = [self._arrive]
        self._gaps = Gaps()
        self.gaps: list[tuple] | None = None if rows is None else []
        self._grants: deque[tuple[float, int]] = deque()  # of the last keep_on_s
        self._cold = not self.serving.warm_start
        self._tick_s = clock.now
        self.rejected = self._pending_tokens = 0
        self._seen = dict.fromkeys(COUNTERS, 0)

    @property
    def busy_gpus(self) -> int:
        """GPUs of the replicas that are on, whether they have work or not."""
        return self.group.busy_gpus

    @property
    def kw(self) -> float:
        """Power of its replicas above their GPUs' idle power."""
        return self.group.kw

    # --- what comes from outside ------------------------------------------------------------------------------------

    def put(self, jobs: list[Job], now_s: float, tokens: Mapping[int, tuple[int, int]], at_arrival: bool = False,
            reaches: Mapping[int, float] = NOTHING, returns: Mapping[int, float] = NOTHING) -> None:
        """Requests come in, now, or with `at_arrival` at their arrival where that is later, or when the network lets
        them: `reaches`. tokens: of prompt and answer; returns: time that an answer travels back, s; all by id.

        ModelError for tokens that are no whole numbers of 1 or more, and for work that is not that of the tokens.
        """
        coming = []
        for job in jobs:
            if job.id not in tokens:
                raise ModelError(f"{self.site}: request {job.id} of {self.name} has no input_tokens and output_tokens")
            given, asked = tokens[job.id]
            if not (given >= 1 and asked >= 1 and given == int(given) and asked == int(asked)):
                raise ModelError(f"{self.site}: request {job.id} of {self.name} has {given:g} input and {asked:g} "
                                 "output tokens; whole numbers of 1 or more")
            request = Request(job, int(given), int(asked), self.serving.cached_tokens(int(given)))
            work_to = self._to_per_token * request.needed
            if abs(job.work_to - work_to) > 1e-6 * work_to:
                raise ModelError(f"{self.site}: request {job.id} of {self.name} has work_to = {job.work_to:g}; its "
                                 f"tokens are {work_to:g} TO")
            self._pending_tokens += request.needed
            if returns:
                request.return_s = returns[job.id]
            here_s = reaches[job.id] if reaches else job.arrival_s if at_arrival else now_s
            if here_s > now_s:
                request.job = job._replace(submit_s=here_s, release_s=here_s)
                coming.append(request)
            else:
                self._dispatch(request, now_s)
        if coming:
            idle = not self._coming
            self._coming = deque(sorted([*self._coming, *coming], key=lambda r: (r.job.submit_s, r.job.id)))
            if idle:
                self._await()

    def command(self, now_s: float) -> None:
        """The grant is in force from now on: replicas beyond it are switched off when their time has come."""
        allowed = self.granted_gpus // self._numbers.gpus
        self._grants.append((now_s, allowed))
        while self._grants[0][0] < now_s - self.serving.keep_on_s and len(self._grants) > 1:
            self._grants.popleft()
        hold = max(replicas for _, replicas in self._grants)
        self.withhold(hold, now_s)

    def limit_batch(self, batch: float, now_s: float) -> None:
        """Sequences in a batch at most, from now on; NaN: the class's own. Who is in a batch stays there."""
        most = self.serving.max_batch
        if math.isnan(batch):
            batch = most
        if not 1 <= batch <= most or batch != int(batch):
            raise ModelError(f"{self.site}: max_batch = {batch:g} commanded of {self.name}; a whole number from 1 to "
                             f"the class's own, {most}")
        if batch != self._numbers.max_batch:
            self._numbers = self._numbers._replace(max_batch=int(batch))
            for replica in self.group:
                replica.limit_batch(self._numbers, now_s)

    def limit_power(self, limit_kw: float, now_s: float) -> None:
        """Power limit of a GPU from the next iterations on; infinite: none."""
        self._numbers = self._under(limit_kw)._replace(max_batch=self._numbers.max_batch)
        for replica in self.group:
            replica.limit_power(self._numbers, now_s)

    def _under(self, limit_kw: float) -> Numbers:
        made = self._limited.get(limit_kw)
        if made is None:
            if len(self._limited) >= max(_MOST_NUMBERS // self.serving.max_batch, 4):
                self._limited.clear()
            made = self._limited[limit_kw] = numbers_of(self.serving, limit_kw)
        return made

    def draws(self) -> dict[float, int]:
        """The most that a GPU of a replica draws above idle without a power limit until another request comes to it,
        kW -> how many GPUs do."""
        gpus, found = self._numbers.gpus, dict[float, int]()
        for replica in self.group:
            kw = self.draw_kw(replica.outstanding, replica.has_prompts) / gpus
            found[kw] = found.get(kw, 0) + gpus
        return found

    def draw_kw(self, requests: int, prompts: bool) -> float:
        """The most that a replica draws above idle without a power limit, with so many requests, prompts of theirs to
        be computed or not."""
        n = self._under(math.inf)
        if not requests:
            return n.ready_kw
        kw = n.batch_kw[min(requests, n.max_batch)]
        return max(kw, n.prefill_kw) if prompts else kw

    def withhold(self, replicas: int, now_s: float) -> None:
        """All but so many of the replicas that are on take no new request and go off with their last one."""
        for replica in self.group.beyond(replicas):
            for request in self.group.drain(replica, now_s):
                self._dispatch(request, now_s)

    @property
    def wanted_replicas(self) -> int:
        """Replicas that the grant still allows to switch on."""
        return max(self.granted_gpus // self._numbers.gpus - self.group.on, 0)

    def switch_on(self, now_s: float, free_gpus: float, most: float = math.inf) -> int:
        """Switch replicas on, `most` of them at most, first those that drain and are still loaded; the GPUs it takes of
        the free ones."""
        wanted, taken = int(min(self.wanted_replicas, most)), 0
        again = self.group.draining()[:wanted] if wanted else []
        for replica in again:
            self.group.make_ready(replica)
        more = int(min(wanted - len(again), free_gpus // self._numbers.gpus))
        warm = not self._cold or not self.serving.startup_s
        for _ in range(more):
            replica = Replica(self._numbers, self._clock, self._end, self._use, self._drop, self.group.replica_power,
                              self.group.less, self._gaps)
            self.group.add(replica, "ready" if warm else "starting")
            if not warm:
                ready_s = nearest_tick(now_s + self.serving.startup_s)
                self._clock.signal(ready_s, [partial(self._become_ready, replica)])
            taken += self._numbers.gpus
        if self.granted_gpus:
            self._cold = True
        if taken or again:
            self.group.update(now_s)
        self._serve_line(now_s)
        return taken

    # --- inside an instant ------------------------------------------------------------------------------------------

    def _await(self) -> None:
        self._clock.signal(max(tick_after(self._coming[0].job.submit_s), self._clock.now), self._arrivals)

    def _arrive(self, event: TimedSignal) -> None:
        now_s, coming = self._clock.now, self._coming
        while coming and tick_after(coming[0].job.submit_s) <= now_s:
            self._dispatch(coming.popleft(), now_s)
        if coming:
            self._await()

    def _become_ready(self, replica: Replica, event: TimedSignal) -> None:
        if replica.state == "starting":
            self.group.make_ready(replica)
            self._serve_line(self._clock.now)

    def _dispatch(self, request: Request, now_s: float) -> None:
        """To the ready replica with the fewest requests."""
        length = request.input_tokens + request.output_tokens
        if length > min(self.serving.max_context_tokens, self._numbers.kv_tokens):
            self.rejected += 1
            self._drop(request, now_s)
            return
        replica = self.group.put(request, now_s)
        if replica is None:
            self._line.append(request)
        elif self.joined is not None:
            self.joined(self, replica)

    def _serve_line(self, now_s: float) -> None:
        if self._line and self.group.ready:
            self._expire_line(now_s)
            waiting, self._line = self._line, deque()
            for request in waiting:
                self._dispatch(request, now_s)

    def _expire_line(self, now_s: float) -> None:
        while self._line and self._line[0].due_s <= now_s and math.isnan(self._line[0].start_s):
            self._drop(self._line.popleft())

    def _end(self, request: Request, now_s: float) -> None:
        """A request has its last token."""
        self.finished += 1
        self.finished_to += request.job.work_to
        self._pending_tokens -= request.needed
        self._use(request, now_s)
        if self.rows is not None and self.requests is not None:
            self.rows.append(row_of(request.job, self.site, request.start_s, now_s, request.job.work_to, FINISHED))
            self.requests.append(self._request_row(request, request.output_tokens, now_s, FINISHED))

    def _drop(self, request: Request, now_s: float | None = None) -> None:
        """A request leaves unserved: at its deadline, or at the time that is given; one that is late already when it
        reaches the site, then."""
        end_s = max(request.due_s, nearest_tick(request.job.submit_s)) if now_s is None else now_s
        self.dropped += 1
        self._pending_tokens -= request.needed
        if self.rows is not None and self.requests is not None:
            self.rows.append(row_of(request.job, self.site, math.nan, end_s, 0.0, DROPPED))
            self.requests.append(self._request_row(request, 0, end_s, DROPPED))

    def _request_row(self, request: Request, generated: int, end_s: float, outcome: str) -> tuple:
        return (request.job.id, self.name, self.site, request.job.arrival_s, float(request.input_tokens),
                float(request.output_tokens), float(generated), float(request.prefilled), request.start_s,
                request.first_s, end_s, float(request.preemptions), outcome, request.return_s)

    def _use(self, request: Request, now_s: float) -> None:
        """The share of a request since its last row, as a row."""
        since_s = max(request.since_s, self._tick_s)
        if self.uses is not None and request.gpu_s > 0.0 and now_s > since_s:
            seconds = now_s - since_s
            self.uses.append((request.job.id, self.site, since_s, now_s, request.gpu_s / seconds,
                              request.energy_kws / seconds))
        request.gpu_s = request.energy_kws = 0.0

    # --- what can be read -------------------------------------------------------------------------------------------

    def count(self, now_s: float) -> ServingTick:
        """What was done since the last time; brings the `Tally` and the rows of shares up to now."""
        self._expire_line(now_s)
        for replica in self.group:
            replica.expire(now_s)
            replica.hand_out(now_s)
            for request in replica.in_batch():
                self._use(request, now_s)
        totals, drawn = self.group.totals(now_s), self.group.drawn(now_s)
        seconds = now_s - self._tick_s
        did = {name: totals[name] - self._seen[name] for name in COUNTERS}
        self._seen = totals
        self.failed_to += self._to_per_token * did["undone"]
        self.trim_to += self._to_per_token * (did["decoded"] + did["prefilled"]) - seconds * gpu_throughput_to_per_s(
            drawn.gpu_s / seconds, self._class.to_per_gpu_min)
        if self.gaps is not None:
            self.gaps += [(self.site, self.name, self._tick_s, cell_from_s(cell), cell_from_s(cell + 1), float(number))
                          for cell, number in self._gaps.taken()]
        self._gaps.clear()
        group = self.group
        tick = ServingTick(drawn.kws / seconds, drawn.idle_kws / seconds, drawn.idle_gpu_s / seconds,
                           float(did["prefilled"]), float(did["decoded"] + did["prompts"]),
                           float(did["preemptions"]), float(len(group)),
                           float(sum([replica.state == "starting" for replica in group])),
                           sum([replica.kv for replica in group]) / max(len(group) * self._numbers.kv_tokens, 1),
                           drawn.slowed_s)
        self._tick_s = now_s
        return tick

    def levels(self, now_s: float) -> Levels:
        """The fields of `State` for the class; a request is not deferred, and has no deadline for its end."""
        replicas = list(self.group)
        running = sum([replica.running for replica in replicas])
        waiting = len(self._line) + len(self._coming) + sum([len(replica.waiting) for replica in replicas])
        computed = sum([replica.computed_now(request, now_s) for replica in replicas
                        for request in replica.in_batch()])
        return (waiting, 0, running, self._to_per_token * (self._pending_tokens - computed), 0.0, self.busy_gpus,
                self.granted_gpus, 0, 0)

    def _inside(self, now_s: float) -> Iterator[tuple[Request, int, int]]:
        """Requests inside, with the tokens of their answers and those computed by now: batches, then lines."""
        for replica in self.group:
            for request in replica.in_batch():
                yield request, replica.generated_now(request, now_s), replica.computed_now(request, now_s)
            for request in replica.waiting:
                yield request, request.generated, 0
        for request in (*self._line, *self._coming):
            yield request, request.generated, 0

    def unfinished(self, now_s: float) -> Iterator[Row]:
        """Rows of the requests inside."""
        for request, _, computed in self._inside(now_s):
            yield row_of(request.job, self.site, request.start_s, math.nan, self._to_per_token * computed, UNFINISHED)

    def unfinished_requests(self, now_s: float) -> list[tuple]:
        """The same for the table of requests."""
        return [self._request_row(request, generated, math.nan, UNFINISHED)
                for request, generated, _ in self._inside(now_s)]

    def expire(self, now_s: float) -> None:
        """Nothing: every line is looked at when it matters."""

    def keep(self) -> list[JobState]:
        """The requests inside: `start_s`, and as `since_s` the first token; batches and caches are not kept."""
        return [JobState(request.job, -1, request.start_s, since_s=request.first_s) for request in self._all()]

    def kept_tokens(self) -> list[tuple[int, int]]:
        """Tokens of the requests that `keep` gives."""
        return [(request.input_tokens, request.output_tokens) for request in self._all()]

    def restore(self, kept: list[JobState], now_s: float, tokens: Mapping[int, tuple[int, int]]) -> None:
        """Into an empty pool, the requests that `keep` gave: they wait, and are computed from their begin."""
        for one in kept:
            given, asked = tokens[one.job.id]
            request = Request(one.job, given, asked, self.serving.cached_tokens(given))
            request.start_s, request.first_s = one.start_s, one.since_s
            self._pending_tokens += request.needed
            self._line.append(request)

    def _all(self) -> list[Request]:
        return [request for request, _, _ in self._inside(self._clock.now)]
