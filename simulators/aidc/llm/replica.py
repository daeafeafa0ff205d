"""One replica of a model: continuous batching by iterations, a run of them at a time.

At the boundary of two iterations, in this order:

1. what has its last token leaves
2. memory: while the KV cache has no room for one more token of every decoding sequence, the last admitted one is
   preempted: its keys and values go, and it waits at the head of the line to be computed again (vLLM)
3. admission, unless something was preempted: from the head of the line, first come first served, while the batch has a
   place and the cache has room for the prompt and one more token of every sequence (`admission` = full: for prompt and
   answer)
4. the iteration: one token of every decoding sequence, and prompts, in the order of admission, within `batched_tokens`;
   or, with separate prefill, prompts alone

A prompt that is through gives the request's first token at the end of its iteration. Iterations in which no prompt is
computed change nothing but lengths, so that a run of them up to the next answer's end, the memory's, or an arrival that
can be admitted is one event: `equations`. Requests that decode share an iteration's time and energy equally; a prompt's
own time and energy are its request's. Another power limit holds from the next iteration on, the one that begins in the
same instant included: what is under way ends as it began.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from cosim.simulators.aidc.engine.events import EventClock, TimedSignal
from cosim.simulators.aidc.engine.jobs import nearest_tick
from cosim.simulators.aidc.llm.equations import run_s, steps_until, steps_within
from cosim.simulators.aidc.llm.gaps import Gaps
from cosim.simulators.aidc.llm.request import Numbers, Request


class Replica:
    """A replica that is ready; see above for its rules.

    waiting   requests that are not in the batch, from the head of the line on
    kw, idle  power above the GPUs' idle power since the last boundary, and whether the batch is empty
    slowed    whether a power limit slows the iteration under way
    on_end, on_pause   called with every request that has its last token, that is preempted, and the time
    on_drop   called with every request whose deadline passed while it waited for its start
    on_power  called with the time, the change of `kw`, and whether the batch was empty, when one of these or `slowed`
              changes
    on_less   called with the replica when it has fewer requests than before
    outstanding   requests in the batch and in the line
    state, order  starting, ready or draining, and a number that no other has; set where it is switched on
    gaps      cell of `gap_cell` -> tokens that came so long after the one before: see `Gaps`
    decoded, prefilled, undone   tokens so far: of answers put out by iterations that decode, of prompts computed, and
              of all these what preemption made void; prompts, preemptions: how many, each of the former gives a token
    """

    def __init__(self, numbers: Numbers, clock: EventClock, on_end: Callable[[Request, float], None],
                 on_pause: Callable[[Request, float], None], on_drop: Callable[[Request], None],
                 on_power: Callable[[float, float, bool, Replica], None],
                 on_less: Callable[[Replica], None] = lambda replica: None, gaps: Gaps | None = None) -> None:
        self._n, self._clock = numbers, clock
        self._next: Numbers | None = None  # from the next iteration on
        self._on_end, self._on_pause, self._on_drop, self._on_power = on_end, on_pause, on_drop, on_power
        self._on_less, self.gaps, self.state, self.order = on_less, Gaps() if gaps is None else gaps, "ready", 0
        self._callbacks: list[Callable[[Any], None]] = [self._fire]
        self._event: TimedSignal | None = None
        self.waiting, self.outstanding = deque[Request](), 0
        self._decoding: list[tuple[int, int, Request]] = []  # heap by the step of the last token
        self._prefilling: list[Request] = []  # like all that follow in the order of admission
        self._admitted: list[Request] = []  # who left is skipped when it is looked at
        self._chunks: list[tuple[Request, int]] = []  # of the iteration that runs
        self._whole_s = 0.0  # its time, where there are chunks
        self._decodes = False  # whether the iteration decodes
        self._runs = self._steps = self._number = 0
        self._begin_s, self._planned, self._noted = clock.now, 0, 0
        self._paused = False  # whether prompts alone were computed since the last iteration that decodes
        self._decoded_s = clock.now  # when that one was done
        self.kv = self._reserved = 0
        self.kw, self.idle, self.slowed = numbers.ready_kw, True, False
        self.decoded = self.prefilled = self.prompts = self.undone = self.preemptions = 0
        self._accrued_s = clock.now
        self._gpu_mark = self._energy_mark = self._gpu_rate = self._energy_rate = 0.0  # of one decoding sequence
        self._shares: list[tuple[Request, float, float]] = []  # who else: request, GPUs, kW

    # --- what comes from outside ----------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._decoding) + len(self._prefilling)

    @property
    def decoding(self) -> int:
        """Requests in the batch whose prompts are through."""
        return len(self._decoding)

    @property
    def has_prompts(self) -> bool:
        """Whether it has prompts to compute."""
        return bool(self.waiting or self._prefilling)

    def put(self, request: Request, now_s: float) -> None:
        """A request joins the line now."""
        self.waiting.append(request)
        self.outstanding += 1
        if self._event is None or self._begin_s == now_s:  # an iteration that begins now is planned anew
            self._accrue(now_s)
            self._event, self._begin_s = None, now_s
            self._plan(now_s)
        elif self._planned > 1 and len(self.waiting) == 1:
            self._shorten(now_s if self._may_admit(request) else request.due_s)

    def limit_batch(self, numbers: Numbers, now_s: float) -> None:
        """Other numbers from now on, which differ in `max_batch` alone."""
        if self._next is not None:
            self._next = self._next._replace(max_batch=numbers.max_batch)
        self._n = self._n._replace(max_batch=numbers.max_batch)
        self._admit_soon(now_s)

    def limit_power(self, numbers: Numbers, now_s: float) -> None:
        """Other numbers from the next iteration on, which differ in times and powers alone."""
        if self._event is not None and self._begin_s < now_s:
            self._next = numbers
            if self._planned > 1:
                self._shorten(now_s)
            return
        self._n, self._next = numbers, None
        if self._event is not None:  # what begins now is as long as it is under the limit
            if self._chunks:
                self._one(self._chunks, now_s)
            else:
                self._run(now_s)
                self._admit_soon(now_s)

    def take_waiting(self) -> list[Request]:
        """Empty the line, and give who stood in it."""
        left = list(self.waiting)
        self.waiting.clear()
        self.outstanding -= len(left)
        self._on_less(self)
        return left

    def expire(self, now_s: float) -> None:
        """Drop from the head of the line who should have started by now and never has."""
        waiting = self.waiting
        while waiting and waiting[0].due_s <= now_s and math.isnan(waiting[0].start_s):
            self.outstanding -= 1
            self._on_drop(waiting.popleft())
            self._on_less(self)

    def in_batch(self) -> list[Request]:
        """Requests in the batch, in the order of their admission."""
        self._forget_left()
        return list(self._admitted)

    def steps_now(self, now_s: float) -> int:
        """Iterations of the run under way that are complete; 0 while prompts are computed."""
        if self._event is None or self._chunks or not self._decoding:
            return 0
        n, batch = self._n, len(self._decoding)
        return min(steps_within(n.base_s[batch], n.context_s[batch], self.kv, batch, now_s - self._begin_s),
                   self._planned)

    def hand_out(self, now_s: float) -> None:
        """Bring `gaps`, and `gpu_s` and `energy_kws` of the requests in the batch, up to now."""
        self._accrue(now_s)
        self._note_gaps(self.steps_now(now_s))
        for _, _, request in self._decoding:
            request.gpu_s += self._gpu_mark - request.gpu_mark
            request.energy_kws += self._energy_mark - request.energy_mark
            request.gpu_mark, request.energy_mark = self._gpu_mark, self._energy_mark

    def generated_now(self, request: Request, now_s: float) -> int:
        """Tokens of its answer that a request in the batch has by now."""
        if request.left or not request.running:
            return request.generated
        return request.output_tokens - (request.finish_step - self._steps - self.steps_now(now_s))

    def computed_now(self, request: Request, now_s: float) -> int:
        """Tokens that a request in the batch has put through the model by now, and need not again."""
        if request.left or not request.running:
            return request.computed
        return request.needed - (request.output_tokens - self.generated_now(request, now_s))

    # --- a boundary -----------------------------------------------------------------------------------------------

    def _fire(self, event: TimedSignal) -> None:
        if event is self._event:
            self._event = None
            now_s = self._clock.now
            self._accrue(now_s)
            self._complete(now_s)
            self._begin_s = now_s
            self._plan(now_s)

    def _complete(self, now_s: float) -> None:
        """The iterations of the plan are done."""
        if self._decodes and (batch := len(self._decoding)):
            self._note_gaps(self._planned)
            self._noted, self._paused, self._decoded_s = 0, False, now_s
            self._steps += self._planned
            tokens = self._planned * batch
            self.kv += tokens
            self.decoded += tokens
        decoding = self._decoding
        while decoding and decoding[0][0] <= self._steps:
            request = heappop(decoding)[2]
            request.gpu_s += self._gpu_mark - request.gpu_mark
            request.energy_kws += self._energy_mark - request.energy_mark
            request.generated, request.computed = request.output_tokens, request.needed
            self._leave(request, request.context - 1, now_s)
        self._paused |= not self._decodes
        for request, tokens in self._chunks:
            request.left, request.computed = request.left - tokens, request.computed + tokens
            request.prefilled += tokens
            self.prefilled += tokens
            if not request.left:
                self._first_token(request, now_s)
        self._chunks = []

    def _note_gaps(self, steps: int) -> None:
        """Tokens of the iterations of the run under way up to number `steps`, that are not in `gaps` yet."""
        n, batch = self._n, len(self._decoding)
        if steps <= self._noted or not (self._decodes and batch):
            return
        if self._chunks:  # one iteration, with prompts in it
            self.gaps.add(self._whole_s, batch)
        else:
            first_s, more_s = n.base_s[batch] + n.context_s[batch] * self.kv, n.context_s[batch] * batch
            if self._paused and not self._noted:
                end_s = self._begin_s + first_s
                for _, _, request in self._decoding:
                    self.gaps.add(end_s - max(request.token_s, self._decoded_s), 1)
                self._noted = 1
            self.gaps.add_series(first_s + self._noted * more_s, more_s, steps - self._noted, batch)
        self._noted = steps

    def _first_token(self, request: Request, now_s: float) -> None:
        """A prompt is through: one more token, and the request decodes or is done."""
        self._prefilling.remove(request)
        self.prompts += 1
        if math.isnan(request.first_s):
            request.first_s = now_s
        if request.generated:
            self.gaps.add(now_s - request.token_s, 1)
        request.token_s = now_s
        request.generated += 1
        if request.generated == request.output_tokens:
            self._leave(request, request.context - 1, now_s)
            return
        request.finish_step = self._steps + request.output_tokens - request.generated
        request.gpu_mark, request.energy_mark = self._gpu_mark, self._energy_mark
        self._number += 1
        heappush(self._decoding, (request.finish_step, self._number, request))

    def _leave(self, request: Request, tokens: int, now_s: float) -> None:
        request.running = False
        self.outstanding -= 1
        self.kv -= tokens
        if self._n.full:
            self._reserved -= request.input_tokens + request.output_tokens
        self._on_end(request, now_s)
        self._on_less(self)

    def _plan(self, now_s: float) -> None:
        """Steps 2 to 4: what comes next, and until when."""
        if self._next is not None:
            self._n, self._next = self._next, None
        n = self._n
        if self.waiting:
            self.expire(now_s)
        preempted = False
        if not n.full:
            while self._decoding and self.kv + len(self._decoding) > n.kv_tokens:
                self._preempt(now_s)
                preempted = True
        chunks = self._budgeted() if self._prefilling else []
        if self.waiting and not preempted:
            self._admit(chunks, now_s)
        if chunks:
            self._one(chunks, now_s)
        elif self._decoding:
            self._run(now_s)
        else:
            self._decodes, self._planned, self._shares = False, 0, []
            self._gpu_rate = self._energy_rate = 0.0
            self._set_kw(n.ready_kw, now_s, idle=True)

    def _budgeted(self) -> list[tuple[Request, int]]:
        """What is computed next of the prompts that are partly through."""
        if not self._n.chunked:
            return [(request, request.left) for request in self._prefilling]
        left = self._n.batched_tokens - len(self._decoding)
        chunks = []
        for request in self._prefilling:
            if left <= 0:
                break
            tokens = min(request.left, left)
            chunks.append((request, tokens))
            left -= tokens
        return chunks

    def _may_admit(self, request: Request) -> bool:
        """Whether batch and memory have room for it now."""
        n, inside = self._n, self.running
        if inside >= n.max_batch:
            return False
        if n.full:
            return self._reserved + request.input_tokens + request.output_tokens <= n.kv_tokens
        return self.kv + request.context + inside + 1 <= n.kv_tokens

    def _admit(self, chunks: list[tuple[Request, int]], now_s: float) -> None:
        """Step 3; puts what is computed of the new prompts to `chunks`."""
        n, waiting = self._n, self.waiting
        left = n.batched_tokens - sum([tokens for _, tokens in chunks])
        if n.chunked:
            left -= len(self._decoding)
        while waiting and (left > 0 or not (n.chunked or chunks)):
            request = waiting[0]
            if not self._may_admit(request):
                break
            tokens = request.context - request.cached_tokens
            if n.chunked:
                part = min(tokens, left)
            elif chunks and tokens > left:
                break
            else:
                part = tokens
            waiting.popleft()
            if math.isnan(request.start_s):
                request.start_s = now_s
            request.since_s = now_s
            request.running, request.left = True, tokens
            self.kv += request.context
            if n.full:
                self._reserved += request.input_tokens + request.output_tokens
            self._prefilling.append(request)
            self._admitted.append(request)
            chunks.append((request, part))
            left -= part
            self.expire(now_s)

    def _preempt(self, now_s: float) -> None:
        """The last admitted one gives up its memory."""
        self._forget_left()
        request = self._admitted.pop()
        if request.left:
            self._prefilling.remove(request)
            held = request.context
        else:
            request.generated = request.output_tokens - (request.finish_step - self._steps)
            request.token_s = max(request.token_s, self._decoded_s)
            request.computed = request.needed - (request.output_tokens - request.generated)
            request.gpu_s += self._gpu_mark - request.gpu_mark
            request.energy_kws += self._energy_mark - request.energy_mark
            self._decoding = sorted([entry for entry in self._decoding if entry[2] is not request])
            held = request.context - 1
        self.kv -= held
        self.undone += request.computed
        request.computed, request.left, request.running = 0, 0, False
        request.preemptions, self.preemptions = request.preemptions + 1, self.preemptions + 1
        self.waiting.appendleft(request)
        self._on_pause(request, now_s)

    def _forget_left(self) -> None:
        """Drop from the list of the admitted who is in the batch no more."""
        if len(self._admitted) > self.running:
            self._admitted = [request for request in self._admitted if request.running]

    # --- what runs ------------------------------------------------------------------------------------------------

    def _one(self, chunks: list[tuple[Request, int]], now_s: float) -> None:
        """One iteration with prompts in it."""
        n = self._n
        self._decodes, decodes = n.chunked, len(self._decoding) if n.chunked else 0
        batch = decodes + len(chunks)
        context = self.kv if n.chunked else sum([request.context for request, _ in chunks])
        tokens = sum([part for _, part in chunks])
        batch_s, prompt_s = n.base_s[batch] + n.context_s[batch] * context, n.prefill_s * tokens
        whole_s = batch_s + prompt_s
        each, kw, per_token = batch_s / whole_s / batch, n.batch_kw[batch], prompt_s / whole_s / tokens
        self._gpu_rate, self._energy_rate = (n.gpus * each, kw * each) if decodes else (0.0, 0.0)
        self._shares = [(request, n.gpus * (each + part * per_token), kw * each + n.prefill_kw * part * per_token)
                        for request, part in chunks]
        self._chunks, self._planned, self._whole_s = chunks, 1, whole_s
        self._set_kw((kw * batch_s + n.prefill_kw * prompt_s) / whole_s, now_s,
                     slowed=n.slow_prefill or batch >= n.slow_from)
        self._set_event(self._begin_s + whole_s)

    def _run(self, now_s: float) -> None:
        """Iterations that decode alone, until something changes."""
        n, batch = self._n, len(self._decoding)
        steps = self._decoding[0][0] - self._steps
        if not n.full:
            steps = min(steps, (n.kv_tokens - self.kv) // batch)
        if self.waiting and math.isnan(self.waiting[0].start_s):  # who comes after may fit when the head gives up
            due_s = self.waiting[0].due_s - self._begin_s
            steps = min(steps, steps_until(n.base_s[batch], n.context_s[batch], self.kv, batch, due_s))
        self._decodes, self._shares = True, []
        self._gpu_rate, self._energy_rate = n.gpus / batch, n.batch_kw[batch] / batch
        self._planned = steps
        self._set_kw(n.batch_kw[batch], now_s, slowed=batch >= n.slow_from)
        self._set_event(self._begin_s + run_s(n.base_s[batch], n.context_s[batch], self.kv, batch, steps))

    def _admit_soon(self, now_s: float) -> None:
        """A run ends with the iteration under way if the head of the line may be admitted after it."""
        if self.waiting and self._planned > 1 and self._event is not None and self._may_admit(self.waiting[0]):
            self._shorten(now_s)

    def _shorten(self, time_s: float) -> None:
        """The run ends with the iteration that is under way at that time."""
        n, batch = self._n, len(self._decoding)
        steps = steps_until(n.base_s[batch], n.context_s[batch], self.kv, batch, time_s - self._begin_s)
        if steps < self._planned:
            self._planned = steps
            self._set_event(self._begin_s + run_s(n.base_s[batch], n.context_s[batch], self.kv, batch, steps))

    def _set_event(self, time_s: float) -> None:
        self._event = self._clock.signal(max(nearest_tick(time_s), self._clock.now), self._callbacks)

    def _set_kw(self, kw: float, now_s: float, idle: bool = False, slowed: bool = False) -> None:
        if kw != self.kw or idle is not self.idle or slowed is not self.slowed:
            change_kw, was_idle = kw - self.kw, self.idle
            self.kw, self.idle, self.slowed = kw, idle, slowed
            self._on_power(now_s, change_kw, was_idle, self)

    def _accrue(self, now_s: float) -> None:
        """Time and energy of the requests in the batch since the last time."""
        seconds = now_s - self._accrued_s
        if seconds > 0.0:
            self._gpu_mark += self._gpu_rate * seconds
            self._energy_mark += self._energy_rate * seconds
            for request, gpus, kw in self._shares:
                request.gpu_s += gpus * seconds
                request.energy_kws += kw * seconds
        self._accrued_s = now_s
