"""A server of language models that simulates every iteration on its own: the reference for `llm.replica`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cosim.simulators.aidc.llm.request import Numbers


@dataclass
class Plain:
    """A request: prompt, answer, prefix cached, deadline; then what became of it."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached: int
    due_s: float
    generated: int = 0
    left: int = 0
    start_s: float | None = None
    first_s: float | None = None
    end_s: float | None = None
    preemptions: int = 0
    dropped: bool = False
    energy_kws: float = 0.0
    token_s: list[float] = field(default_factory=list)


def serve(n: Numbers, requests: list[Plain], later: Sequence[tuple[float, Numbers]] = ()) -> float:  # noqa: C901
    """Serve them, iteration by iteration, in one loop, to be read from top to bottom; the energy of all iterations,
    kW s, that of waiting left out. later: other numbers of iterations that begin then or after."""
    coming, waiting, batch = deque(sorted(requests, key=lambda r: r.arrival_s)), deque(), []
    changes = deque(later)
    time_s = energy = 0.0
    kv, reserved = 0, 0
    while coming or waiting or batch:
        while changes and changes[0][0] <= time_s:
            n = changes.popleft()[1]
        while coming and coming[0].arrival_s <= time_s:
            waiting.append(coming.popleft())
        while waiting and waiting[0].due_s <= time_s and waiting[0].start_s is None:
            waiting.popleft().dropped = True
        if not batch and not waiting:
            time_s = coming[0].arrival_s if coming else time_s
            continue
        preempted = False
        while not n.full and any(not r.left for r in batch) and kv + sum(not r.left for r in batch) > n.kv_tokens:
            victim = batch.pop()
            kv -= victim.input_tokens + victim.generated - (not victim.left)
            victim.left, victim.preemptions, preempted = 0, victim.preemptions + 1, True
            waiting.appendleft(victim)
        decoding = [r for r in batch if not r.left]
        budget = n.batched_tokens - (len(decoding) if n.chunked else 0)
        chunks = []
        for r in (r for r in batch if r.left):
            if budget > 0:
                chunks.append((r, min(r.left, budget)))
                budget -= chunks[-1][1]
        while not preempted and waiting and (budget > 0 or not (n.chunked or chunks)):
            head = waiting[0]
            if head.due_s <= time_s and head.start_s is None:
                waiting.popleft().dropped = True
                continue
            context = head.input_tokens + head.generated
            room = (reserved + head.input_tokens + head.output_tokens <= n.kv_tokens if n.full
                    else kv + context + len(batch) + 1 <= n.kv_tokens)
            tokens = context - head.cached
            if len(batch) >= n.max_batch or not room or (not n.chunked and chunks and tokens > budget):
                break
            waiting.popleft()
            head.start_s = time_s if head.start_s is None else head.start_s
            head.left = tokens
            kv, reserved = kv + context, reserved + head.input_tokens + head.output_tokens
            batch.append(head)
            chunks.append((head, min(tokens, budget) if n.chunked else tokens))
            budget -= chunks[-1][1]
        steps = decoding if n.chunked or not chunks else []
        inside = steps + [r for r, _ in chunks]
        context = kv if n.chunked or not chunks else sum(r.input_tokens + r.generated for r, _ in chunks)
        tokens = sum(part for _, part in chunks)
        batch_s, prompt_s = n.base_s[len(inside)] + n.context_s[len(inside)] * context, n.prefill_s * tokens
        for r in inside:
            r.energy_kws += n.batch_kw[len(inside)] * batch_s / len(inside)
        for r, part in chunks:
            r.energy_kws += n.prefill_kw * prompt_s * part / tokens
        energy += n.batch_kw[len(inside)] * batch_s + n.prefill_kw * prompt_s
        time_s += batch_s + prompt_s
        for r in steps:
            r.generated += 1
            r.token_s.append(time_s)
            kv += 1
        for r, part in chunks:
            r.left -= part
            if not r.left:
                r.generated += 1
                r.token_s.append(time_s)
                r.first_s = time_s if r.first_s is None else r.first_s
        for r in [r for r in batch if r.generated == r.output_tokens]:
            batch.remove(r)
            r.end_s = time_s
            kv -= r.input_tokens + r.output_tokens - 1
            reserved -= r.input_tokens + r.output_tokens
    return energy
