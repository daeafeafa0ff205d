"""Reading request traces of LLM inference services, and the work of a request from its tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import numpy as np
from pydantic import Field

from cosim.errors import ScenarioError
from cosim.params import params
from cosim.simulators.workload.origin import pass_s
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, Line, SkippedRows, delimited, instants
from cosim.tables.files import open_text
from cosim.units import MIN_S

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_CHUNK_ROWS = 65536


@params
class TokenWork:
    """Work of one request from its tokens.

    A forward pass of a decoder costs 2 FLOP per parameter and token. Reading the context works on many tokens at once
    and reaches about half of a GPU's peak; writing answers goes token by token, waits for memory, and reaches about a
    tenth even in batches. The work counted is the GPU's peak over that time (`to_per_gpu_min` of the job class is the
    peak), so that work / speed is the time the request holds its GPU.
    """

    parameters_billion: Annotated[float, Field(ge=1e-6, le=1e6, description="size of the model, 1e9 parameters")] = 70.0
    prefill_peak_ratio: Annotated[float, Field(gt=0, le=1, description="share of peak reached on context")] = 0.5
    decode_peak_ratio: Annotated[float, Field(gt=0, le=1, description="share of peak reached on answers")] = 0.1

    def work_to(self, context_tokens: np.ndarray, generated_tokens: np.ndarray) -> np.ndarray:
        """Work per request, TO (1 TO = 1e12 operations)."""
        to_per_token = 2.0 * self.parameters_billion * 1e9 / 1e12
        return to_per_token * (context_tokens / self.prefill_peak_ratio + generated_tokens / self.decode_peak_ratio)


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """Requests in time order.

    offset_s                          time after the first request, s; that one's instant is `first_unix_s`, None of
                                      times that are counts
    context_tokens, generated_tokens  int64
    left_out                          rows that are no requests
    """

    offset_s: np.ndarray
    context_tokens: np.ndarray
    generated_tokens: np.ndarray
    left_out: SkippedRows
    first_unix_s: float | None


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests as they are played: times after the start (s, ascending), works (TO), length of one pass (s), and
    tokens (n, 2) of prompts and answers, where they matter."""

    offset_s: np.ndarray
    work_to: np.ndarray
    length_s: float
    tokens: np.ndarray | None = None

    @classmethod
    def of(cls, offset_s: np.ndarray, work_to: np.ndarray, rate_scale: float, rng: np.random.Generator,
           tokens: np.ndarray | None = None) -> Requests:
        """A trace whose requests each occur `rate_scale` times in the mean; copies lie anywhere in the minute."""
        length_s = pass_s(offset_s[-1])
        if rate_scale == 1.0:
            return cls(offset_s, work_to, length_s, tokens)
        floor = math.floor(rate_scale)
        copies = floor + (rng.random(len(offset_s)) < rate_scale - floor)
        which = np.repeat(np.arange(len(offset_s)), copies)
        again = np.concatenate([[False], which[1:] == which[:-1]])[: len(which)]
        minute_s = np.floor(offset_s[which] / MIN_S) * MIN_S
        times = np.where(again, minute_s + MIN_S * rng.random(len(which)), offset_s[which])
        order = np.argsort(times, kind="stable")
        return cls(times[order], work_to[which][order], length_s, None if tokens is None else tokens[which][order])

    def between(self, start_s: float, end_s: float, repeat: bool) -> tuple[np.ndarray, np.ndarray]:
        """Times and works of the requests in [start_s, end_s)."""
        times, rows = self.rows_between(start_s, end_s, repeat)
        return times, self.work_to[rows]

    def rows_between(self, start_s: float, end_s: float, repeat: bool) -> tuple[np.ndarray, np.ndarray]:
        """Times of the requests in [start_s, end_s), and their places in the arrays."""
        last = math.ceil(end_s / self.length_s) if repeat else 1
        times, rows = [np.empty(0)], [np.empty(0, int)]
        for n in range(int(start_s // self.length_s) if repeat else 0, last):
            shift_s = n * self.length_s
            a, b = np.searchsorted(self.offset_s, (start_s - shift_s, end_s - shift_s))
            times.append(self.offset_s[a:b] + shift_s)
            rows.append(np.arange(a, b))
        return np.concatenate(times), np.concatenate(rows)


def read_azure_llm(path: str, max_left_out_ratio: float = LEFT_OUT_RATIO) -> TokenTrace:
    """An Azure LLM inference trace (2023: Splitwise, ISCA 2024; 2024: DynamoLLM, HPCA 2025): CSV with TIMESTAMP,
    ContextTokens, GeneratedTokens.

    Times are ISO times with up to 9 fractional digits (the files have 6 and 7), with an offset or in UTC. Read in
    chunks, so that a file of a week needs memory for its numbers only. A row is malformed that has other than the
    header's number of fields, an unreadable time, a token count that is no whole number >= 0, or no token at all; such
    rows are left out and counted. ScenarioError if they are more than `max_left_out_ratio` of all, or the file is
    missing, empty, lacks a column, or has no readable row.
    """
    try:
        with open_text(path, errors="replace") as file:
            header, lines = delimited(file, COLUMNS, path)
            return _read(header, lines, path, max_left_out_ratio)
    except (OSError, EOFError) as err:
        raise ScenarioError(f"trace {path} cannot be read: {err}; give the CSV of an Azure LLM trace "
                            f"({','.join(COLUMNS)})") from None


def _read(header: list[str], lines: Iterator[Line], path: str, max_left_out_ratio: float) -> TokenTrace:
    where = [header.index(name) for name in COLUMNS]
    chunks, left_out = [], SkippedRows()
    while chunk := list(islice(lines, _CHUNK_ROWS)):
        chunks.append(_parse(chunk, where, len(header), left_out))
    requests = sum(len(times) for times, _, _ in chunks)
    if not requests:
        raise ScenarioError(f"trace {path} has no readable request" +
                            (f": {left_out.about()}" if left_out.rows else ", only a first line"))
    left_out.check(path, requests + left_out.rows, max_left_out_ratio)
    times, context, generated = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    order = np.argsort(times, kind="stable")
    offset_s = (times[order] - times[order[0]]) / np.timedelta64(1, "s")
    first_unix_s = times[order[0]].astype(np.int64).item() / 1e9
    return TokenTrace(offset_s, context[order], generated[order], left_out, first_unix_s)


Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def _parse(chunk: Sequence[Line], where: Sequence[int], width: int, left_out: SkippedRows) -> Columns:
    """Times and tokens of the good rows of a chunk; the others go to `left_out`."""
    columns = _columns([row for _, row in chunk], where, width)
    if columns is not None:
        return columns
    good = []
    for line, row in chunk:  # one row or more is malformed: find out which
        if _columns([row], where, width) is None:
            left_out.add("malformed", line, _wrong(row, where, width))
        else:
            good.append(row)
    columns = _columns(good, where, width)
    assert columns is not None, "each row is good, and so are all together"
    return columns


def _columns(rows: Sequence[list[str] | None], where: Sequence[int], width: int) -> Columns | None:
    """Rows as arrays; None if any of them is malformed."""
    whole = [row for row in rows if row is not None and len(row) == width]
    if len(whole) < len(rows):
        return None
    stamps, context, generated = ([row[k] for row in whole] for k in where)
    times = instants(stamps)
    if times is None:
        return None
    if not all(text.strip().isdecimal() for text in (*context, *generated)):  # '12.5', '-1', '1_000'
        return None
    try:
        first, second = (np.array(list(map(int, column)), dtype=np.int64) for column in (context, generated))
    except OverflowError:  # more tokens than a 64-bit number holds
        return None
    if (first + second <= 0).any():
        return None
    return times, first, second


def _wrong(row: list[str] | None, where: Sequence[int], width: int) -> str:
    """What is wrong with a malformed row."""
    if row is None:
        return "its quotes do not match"
    if len(row) != width:
        return f"it has {len(row)} fields, the first line {width}"
    stamp, context, generated = (row[k] for k in where)
    if instants([stamp]) is None:
        return f"{COLUMNS[0]} = '{stamp}' is no ISO time such as 2023-11-16 18:15:46.68"
    return f"tokens '{context}' and '{generated}' are not two whole numbers >= 0, one of them > 0"
