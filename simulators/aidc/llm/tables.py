"""Tables of measured serving configurations: the ML.ENERGY benchmark's layout, and a plain CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosim.errors import ScenarioError
from cosim.simulators.aidc.llm.curves import Measured
from cosim.simulators.workload.rows import delimited

CSV_COLUMNS = ("model", "gpu", "gpus", "batch", "itl_ms", "power_w", "output_tokens")
"""Of the CSV, a row per model, GPUs and batch; `tokens_per_s`, of the whole replica, may be one more."""
_ML_ENERGY = {"model": "model_id", "gpu": "gpu_model", "gpus": "num_gpus", "batch": "avg_batch_size",
              "itl_ms": "median_itl_ms", "power_w": "avg_power_watts", "output_tokens": "avg_output_len",
              "tokens_per_s": "output_throughput_tokens_per_sec"}
"""Our column -> theirs."""


def read_measured(path: str) -> list[Measured]:
    """The rows of a table of measurements; ScenarioError, with the place, for a file or a row that is none.

    JSON is the ML.ENERGY benchmark's (`configurations`: a list of objects), anything else CSV_COLUMNS.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise ScenarioError(f"table {path} cannot be read: {err}; give a CSV ({','.join(CSV_COLUMNS)}) or the "
                            "ML.ENERGY benchmark's JSON") from None
    rows = _json_rows(text, path) if text.lstrip().startswith(("{", "[")) else _csv_rows(path)
    if not rows:
        raise ScenarioError(f"table {path} has no row")
    return rows


def _json_rows(text: str, path: str) -> list[Measured]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ScenarioError(f"table {path} is no JSON: {err}") from None
    rows = found.get("configurations") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ScenarioError(f"table {path} has no list `configurations` of objects, as the ML.ENERGY benchmark's has")
    return [_row({ours: row.get(theirs) for ours, theirs in _ML_ENERGY.items()}.get, f"{path}, configuration {k}",
                 _ML_ENERGY) for k, row in enumerate(rows, 1)]


def _csv_rows(path: str) -> list[Measured]:
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        header, lines = delimited(file, CSV_COLUMNS, path)
        out = []
        for line, fields in lines:
            if fields is None or len(fields) != len(header):
                found = "no" if fields is None else len(fields)
                raise ScenarioError(f"table {path}, line {line}: it has {found} fields, the first line {len(header)}")
            cells = dict(zip(header, fields, strict=True))
            out.append(_row(cells.get, f"{path}, line {line}", {name: name for name in (*CSV_COLUMNS, "tokens_per_s")}))
    return out


def _row(cell: Callable[[str], Any], where: str, names: Mapping[str, str]) -> Measured:
    numbers = {name: _number(cell(name), f"{where}: {names[name]}") for name in CSV_COLUMNS[2:]}
    per_s = cell("tokens_per_s")
    itl_s = numbers["itl_ms"] / 1e3
    tokens_per_s = numbers["batch"] / itl_s if per_s in (None, "") else _number(
        per_s, f"{where}: {names['tokens_per_s']}")
    if numbers["gpus"] != int(numbers["gpus"]):
        raise ScenarioError(f"table {where}: {names['gpus']} = {numbers['gpus']:g} is no whole number")
    return Measured(str(cell("model")), str(cell("gpu")), int(numbers["gpus"]), numbers["batch"], itl_s,
                    numbers["power_w"], numbers["output_tokens"], tokens_per_s, numbers["power_w"] / tokens_per_s)


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 < number < math.inf:
        raise ScenarioError(f"table {where} = {value!r}; a number above 0")
    return number


def configurations(rows: Sequence[Measured]) -> dict[tuple[str, str, int], list[Measured]]:
    """(model, GPU, GPUs) -> its rows, in the order of the table."""
    out: dict[tuple[str, str, int], list[Measured]] = {}
    for row in rows:
        out.setdefault((row.model, row.gpu, row.gpus), []).append(row)
    return out
