"""Requests of language models as recorded: prompts and answers by their tokens, in the layouts of public traces."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from cosim.errors import ScenarioError
from cosim.simulators.workload.layouts import number
from cosim.simulators.workload.rows import LEFT_OUT_RATIO, SkippedRows, delimited
from cosim.simulators.workload.traces import COLUMNS, TokenTrace, read_azure_llm
from cosim.tables.files import open_text

Format = Literal["auto", "azure", "mooncake", "burstgpt"]
MOONCAKE = ("timestamp", "input_length", "output_length")
"""Keys of a line of the Mooncake traces (JSON lines; Qin et al., FAST 2025): time in ms, tokens."""
BURSTGPT = ("Timestamp", "Request tokens", "Response tokens")
"""Columns of BurstGPT (Wang et al., 2024): time in s, tokens; an answer of 0 tokens is a request that failed."""
_MOST_TOKENS = 1e9

_Row = tuple[float, int, int] | tuple[str, str]
"""Time in s and tokens of a prompt and an answer; or the kind of a row that is no request, and what is wrong."""


def read_requests(path: str, layout: Format = "auto", max_left_out_ratio: float = LEFT_OUT_RATIO) -> TokenTrace:
    """Requests of a file, in time order; each has a prompt and an answer of one token or more.

    auto: JSON lines are Mooncake's, and a CSV is known by its columns. Rows that cannot be read, that have no answer or
    no prompt are left out and counted. ScenarioError if they are more than `max_left_out_ratio` of all, or the file is
    missing, empty, of none of the layouts, or has no request.
    """
    if layout == "auto":
        layout = _layout(path)
    if layout == "azure":
        return _answered(read_azure_llm(path, max_left_out_ratio), path, max_left_out_ratio)
    try:
        with open_text(path, errors="replace") as file:
            if layout == "mooncake":
                rows = [(line, _mooncake(text)) for line, text in enumerate(file, 1) if text.strip()]
            else:
                header, lines = delimited(file, BURSTGPT, path)
                where = [header.index(name) for name in BURSTGPT]
                rows = [(line, _burstgpt(fields, where, len(header))) for line, fields in lines]
    except (OSError, EOFError) as err:
        raise _unreadable(path, err) from None
    return _trace(iter(rows), path, max_left_out_ratio)


def _layout(path: str) -> Format:
    try:
        with open_text(path, errors="replace") as file:
            first = next((line for line in file if line.strip()), "")
    except (OSError, EOFError) as err:
        raise _unreadable(path, err) from None
    if first.lstrip().startswith("{"):
        return "mooncake"
    for layout, names in (("azure", COLUMNS), ("burstgpt", BURSTGPT)):
        if all(name.lower() in first.lower() for name in names):
            return layout  # type: ignore[return-value]
    raise ScenarioError(f"trace {path} has none of the known layouts; its first line is '{first.strip()[:80]}': JSON "
                        f"lines with {', '.join(MOONCAKE)}, or a CSV with {', '.join(COLUMNS)} or "
                        f"{', '.join(BURSTGPT)}")


def _unreadable(path: str, err: Exception) -> ScenarioError:
    return ScenarioError(f"trace {path} cannot be read: {err}; give a trace of LLM requests (Azure, Mooncake, "
                         "BurstGPT)")


def _mooncake(text: str) -> _Row:
    try:
        row = json.loads(text)
        values = [row[name] for name in MOONCAKE]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "malformed", f"it is no JSON object with {', '.join(MOONCAKE)}"
    if not all(type(value) in (int, float) and 0.0 <= value < math.inf for value in values):
        return "malformed", f"{MOONCAKE[0]}, {MOONCAKE[1]} and {MOONCAKE[2]} are {values}, not numbers >= 0"
    return _request(values[0] / 1e3, values[1], values[2])


def _burstgpt(fields: list[str] | None, where: list[int], width: int) -> _Row:
    if fields is None or len(fields) != width:
        return "malformed", "its quotes do not match" if fields is None else (
            f"it has {len(fields)} fields, the first line {width}")
    texts = [fields[k].strip() for k in where]
    found = [number(text) for text in texts]
    time_s, prompt, answer = found
    if time_s is None or prompt is None or answer is None:
        return "malformed", f"{', '.join(BURSTGPT)} are {texts}, not numbers >= 0"
    return _request(time_s, prompt, answer)


def _request(time_s: float, prompt: float, answer: float) -> _Row:
    if prompt != int(prompt) or answer != int(answer) or max(prompt, answer) > _MOST_TOKENS:
        return "malformed", f"{prompt:g} and {answer:g} tokens are not whole numbers up to {_MOST_TOKENS:g}"
    if not answer or not prompt:
        return "without answer" if prompt else "without prompt", f"it has {prompt:g} and {answer:g} tokens"
    return time_s, int(prompt), int(answer)


def _trace(rows: Iterator[tuple[int, _Row]], path: str, max_left_out_ratio: float) -> TokenTrace:
    left_out, failed, good, total = SkippedRows(), 0, [], 0
    for line, row in rows:
        total += 1
        if len(row) == 3:
            good.append(row)
            continue
        kind, what = row
        failed += kind == "without answer"
        left_out.add(kind, line, what)
    if not good:
        raise ScenarioError(f"trace {path} has no request" + (f": {left_out.about()}" if left_out.rows else ""))
    if left_out.rows - failed > max_left_out_ratio * total:  # who got no answer is known, and no fault of the file
        left_out.check(path, total, max_left_out_ratio)
    times, prompts, answers = (np.array(column) for column in zip(*good, strict=True))
    order = np.argsort(times, kind="stable")
    return TokenTrace(times[order] - times[order[0]], prompts[order].astype(np.int64), answers[order].astype(np.int64),
                      left_out, None)


def _answered(trace: TokenTrace, path: str, max_left_out_ratio: float) -> TokenTrace:
    """An Azure trace's requests that have a prompt and an answer."""
    good = (trace.context_tokens > 0) & (trace.generated_tokens > 0)
    if good.all():
        return trace
    if not good.any():
        raise ScenarioError(f"trace {path} has no request with a prompt and an answer")
    trace.left_out.add("without prompt or answer", 2, "0 tokens of one of them", int((~good).sum()))
    trace.left_out.check(path, len(good), max_left_out_ratio)
    assert trace.first_unix_s is not None, "its times are dates"
    offset_s = trace.offset_s[good]
    return TokenTrace(offset_s - offset_s[0], trace.context_tokens[good], trace.generated_tokens[good], trace.left_out,
                      trace.first_unix_s + float(offset_s[0]))
