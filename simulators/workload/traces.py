"""Reading request traces of LLM inference services, and the work of a request from its tokens."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from cosim.errors import ScenarioError
from cosim.params import params

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_CHUNK_ROWS = 65536
_TIME = re.compile(r"\s*((?:19|20|21)\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:\+00:00|Z)?\s*")


@params
class TokenWork:
    """Work of one request from its tokens.

    A forward pass of a decoder costs 2 FLOP per parameter and token. Reading the context works on many tokens at once
    and reaches about half of a GPU's peak; writing answers goes token by token, waits for memory, and reaches about a
    tenth even in batches. The work counted is the GPU's peak over that time (`to_per_gpu_min` of the job class is the
    peak), so that work / speed is the time the request holds its GPU.
    """

    parameters_billion: Annotated[float, Field(gt=0, description="size of the model, 1e9 parameters")] = 70.0
    prefill_peak_ratio: Annotated[float, Field(gt=0, le=1, description="share of peak reached on context")] = 0.5
    decode_peak_ratio: Annotated[float, Field(gt=0, le=1, description="share of peak reached on answers")] = 0.1

    def work_to(self, context_tokens: np.ndarray, generated_tokens: np.ndarray) -> np.ndarray:
        """Work per request, TO (1 TO = 1e12 operations)."""
        to_per_token = 2.0 * self.parameters_billion * 1e9 / 1e12
        return to_per_token * (context_tokens / self.prefill_peak_ratio + generated_tokens / self.decode_peak_ratio)


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """Requests in time order.

    offset_s                          time after the first request, s
    context_tokens, generated_tokens  int64
    malformed                         rows left out, and the line of the first of them in the file (None: no such row)
    """

    offset_s: np.ndarray
    context_tokens: np.ndarray
    generated_tokens: np.ndarray
    malformed: int
    first_malformed_line: int | None


def read_azure_llm(path: str, strict: bool = False) -> TokenTrace:
    """An Azure LLM inference trace (2023, Splitwise, ISCA 2024): CSV with TIMESTAMP, ContextTokens, GeneratedTokens.

    Times are ISO times with up to 9 fractional digits (the file has 7), all in one zone; a UTC mark is dropped.
    Read in chunks, so that a file of a week needs memory for its numbers only. A row is malformed that has other than
    the header's number of fields, an unreadable time, a token count that is no whole number >= 0, or no token at all;
    such rows are left out and counted, or refused under `strict`. ScenarioError if the file is missing, empty, lacks a
    column, or has no readable row.
    """
    try:
        # a stray byte or quote spoils its own row, not the rest of the file
        with Path(path).open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return _read(csv.reader(file, quoting=csv.QUOTE_NONE), path, strict)
    except (OSError, csv.Error) as err:
        raise ScenarioError(f"trace {path} cannot be read: {err}; give the CSV of an Azure LLM trace "
                            f"({','.join(COLUMNS)})") from None


def _read(reader: Iterator[list[str]], path: str, strict: bool) -> TokenTrace:
    header = [name.strip() for name in next(reader, [])]
    if not header:
        raise ScenarioError(f"trace {path} is empty; its first line must name {','.join(COLUMNS)}")
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ScenarioError(f"trace {path} has no column {', '.join(missing)}; its first line must name "
                            f"{','.join(COLUMNS)}, it is '{','.join(header)[:80]}'")
    where = [header.index(name) for name in COLUMNS]
    chunks, malformed, first_bad = [], 0, None
    lines = ((reader.line_num, row) for row in reader if row)
    while chunk := list(islice(lines, _CHUNK_ROWS)):
        values, bad = _parse(chunk, where, len(header))
        chunks.append(values)
        malformed += len(bad)
        if bad and first_bad is None:
            first_bad = bad[0]
            if strict:
                raise ScenarioError(f"trace {path}, line {first_bad}: expected a time and two whole numbers of tokens; "
                                    "correct the row, or leave such rows out with strict=false")
    if not sum(len(times) for times, _, _ in chunks):
        raise ScenarioError(f"trace {path} has no readable request ({malformed} malformed rows)")
    times, context, generated = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    order = np.argsort(times, kind="stable")
    offset_s = (times[order] - times[order[0]]) / np.timedelta64(1, "s")
    return TokenTrace(offset_s, context[order], generated[order], malformed, first_bad)


Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def _parse(chunk: Sequence[tuple[int, list[str]]], where: Sequence[int], width: int) -> tuple[Columns, list[int]]:
    """Times and tokens of the good rows of a chunk, and the line numbers of the others."""
    rows = [row for _, row in chunk]
    columns = _columns(rows, where, width)
    if columns is not None:
        return columns, []
    good, bad = [], []
    for line, row in chunk:  # one row or more is malformed: find out which
        if _columns([row], where, width) is None:
            bad.append(line)
        else:
            good.append(row)
    return _columns(good, where, width), bad


def _columns(rows: Sequence[list[str]], where: Sequence[int], width: int) -> Columns | None:
    """Rows as arrays; None if any of them is malformed."""
    if any(len(row) != width for row in rows):
        return None
    stamps, context, generated = ([row[k] for row in rows] for k in where)
    matches = [_TIME.fullmatch(text) for text in stamps]
    if not all(matches):
        return None
    try:
        times = np.array([match[1] for match in matches], dtype="datetime64[ns]")
        first, second = (np.array(list(map(int, column)), dtype=np.int64) for column in (context, generated))
    except (ValueError, OverflowError):  # 31 February, '12.5' tokens, more tokens than a 64-bit number holds
        return None
    if (first < 0).any() or (second < 0).any() or (first + second <= 0).any():
        return None
    return times, first, second
