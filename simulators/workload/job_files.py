"""Files of jobs as columns of text: delimited text and Parquet, JSON lines, Philly's JSON, Standard Workload Format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cosim.errors import ScenarioError, first_line, shown
from cosim.limits import check_memory, is_file
from cosim.simulators.workload.layouts import SWF_FIELDS, swf
from cosim.simulators.workload.rows import SkippedRows, split_fields
from cosim.tables.files import open_text, parquet_names, parquet_rows, table_suffix

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MOST_JSON = 2 << 30
_ROWS_BETWEEN_CHECKS, _BYTES_PER_TEXT = 500_000, 90.0
_FIRST_LINES = 50
PARTS = "parts of jobs (status 2, 3, 4)"
_SWF_START = re.compile(r";\s*UnixStartTime:\s*(\d+)")

Choice = Callable[[Sequence[str]], Collection[str]]
"""Which of a file's columns are read, by their names."""


@dataclass
class JobCells:
    """A file's cells as text.

    names         all columns, in the file's order
    cells         of the columns that are chosen; line: number of each row's line
    layout        where the form of the file itself gives it; '' else
    form          how columns are separated, for people
    left_out      rows that are none
    not_jobs      what else is no job, for people -> rows
    """

    names: list[str]
    cells: dict[str, list[str]]
    line: list[int]
    layout: str = ""
    form: str = ""
    left_out: SkippedRows = field(default_factory=SkippedRows)
    not_jobs: dict[str, int] = field(default_factory=dict)


def read_cells(path: str, choose: Choice) -> JobCells:
    """Columns of a file, by its content whatever it is called (Parquet by its ending); compressed by gzip or not.
    ScenarioError where it cannot be read."""
    if table_suffix(path) in (".parquet", ".pq"):
        return _parquet(path, choose)
    try:
        with open_text(path, errors="replace") as file:
            first = ""
            for _, first in zip(range(_FIRST_LINES), file, strict=False):
                if first.strip():
                    break
            file.seek(0)
            if first.lstrip().startswith("["):
                return _json(file, path, choose)
            if first.lstrip().startswith("{"):
                return _json_lines(file, path, choose)
            if first.lstrip().startswith(";") or _is_swf(first):
                return _swf(file)
            return _delimited(file, path, choose)
    except (OSError, EOFError) as err:
        raise ScenarioError(f"{path} cannot be read: {first_line(err, 150)}; give a file of jobs by "
                            "--set workload.path=FILE") from None


def _parquet(path: str, choose: Choice) -> JobCells:
    names = parquet_names(Path(path))
    (chosen, columns), = parquet_rows(Path(path), [name for name in names if name in set(choose(names))])
    cells = {name: ["" if value is None else str(value) for value in column]
             for name, column in zip(chosen, columns, strict=True)}
    rows = len(columns[0]) if columns else 0
    return JobCells(names, cells, list(range(1, rows + 1)), form="Parquet")


def _delimited(file: TextIO, path: str, choose: Choice) -> JobCells:
    header, number, beside = "", 0, Path(path.removesuffix(".gz")).with_suffix(".header")
    if is_file(beside):  # as the tables of PAI are published
        with open_text(beside, errors="replace") as there:
            header = there.readline()
    else:
        number, header = next(((n, line) for n, line in enumerate(file, 1) if line.strip()), (0, ""))
    if not header.strip():
        raise ScenarioError(f"{path} is empty; its first line must name the columns")
    heads = {mark: [name.strip() for name in split_fields(header, mark) or ()] for mark in _DELIMITERS}
    mark = max(heads, key=lambda m: len(heads[m]))
    names = heads[mark]
    if any(_is_number(name) for name in names):
        raise ScenarioError(f"{path}: its first line, {shown(header.strip())}, has numbers; it must name the columns "
                            f"(or put them into {beside.name} beside it)")
    where = [k for k, name in enumerate(names) if name]  # sacct -p ends its lines with a bar
    twice = sorted({names[k] for k in where if names.count(names[k]) > 1})
    if twice:
        raise ScenarioError(f"{path} has two columns called '{twice[0]}'; keep one")
    found = JobCells([names[k] for k in where], {}, [], form=f"separated by {_DELIMITERS[mark]}")
    found.cells = {name: [] for name in choose(found.names)}
    columns = [(k, found.cells[names[k]]) for k in where if names[k] in found.cells]
    for line, text in enumerate(file, number + 1):
        if not text.strip():
            continue
        row = split_fields(text, mark)
        if row is None or len(row) != len(names):
            found.left_out.add("malformed", line, "its quotes do not match" if row is None else
                               f"it has {len(row)} fields, the first line {len(names)}")
            continue
        found.line.append(line)
        for k, column in columns:
            column.append(row[k])
        if not len(found.line) % _ROWS_BETWEEN_CHECKS:  # as many more have to fit
            check_memory(path, _ROWS_BETWEEN_CHECKS * (len(columns) + 1), _BYTES_PER_TEXT, "give a part of it")
    return found


def _json_lines(file: TextIO, path: str, choose: Choice) -> JobCells:
    """Objects of one level, a line each; the first one's keys are the columns."""
    return _objects(((line, _parsed(text)) for line, text in enumerate(file, 1) if text.strip()), path, choose,
                    "JSON lines")


def _objects(rows: Iterable[tuple[int, Any]], path: str, choose: Choice, form: str) -> JobCells:
    found = JobCells([], {}, [], form=form)
    for line, row in rows:
        if not isinstance(row, dict):
            found.left_out.add("malformed", line, "it is no JSON object")
            continue
        if not found.names:
            found.names = [k for k, value in row.items() if not isinstance(value, list | dict)]
            found.cells = {name: [] for name in choose(found.names)}
        found.line.append(line)
        for name in found.cells:
            value = row.get(name)
            found.cells[name].append("" if value is None else str(value))
    if not found.names:
        raise ScenarioError(f"{path} has no JSON object with the columns of a job")
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json(file: TextIO, path: str, choose: Choice) -> JobCells:
    """A list of objects: of one level, or Philly's."""
    text = file.read(_MOST_JSON)
    check_memory(path, len(text), 8.0, "give a part of it")
    jobs = _parsed(text)
    if not isinstance(jobs, list):
        raise ScenarioError(f"{path} begins like a JSON list, and is none")
    if any(isinstance(job, dict) and "attempts" in job for job in jobs):
        return _philly(jobs)
    return _objects(enumerate(jobs, 1), path, choose, "JSON")


def _philly(jobs: list) -> JobCells:
    """Microsoft Philly's cluster_job_log (Jeon et al., USENIX ATC 2019): a list of jobs with their attempts. A job's
    GPU time is that of all its attempts, its GPUs those of the last."""
    names = ["jobid", "vc", "submitted_time", "status", "gpus", "attempts"]
    found = JobCells(names, {name: [] for name in names}, [], "Philly", "JSON")
    for number, job in enumerate(jobs, 1):
        if not isinstance(job, dict) or not isinstance(job.get("attempts"), list):
            found.left_out.add("malformed", number, f"entry {number} is {shown(job)}, no job with attempts")
            continue
        found.line.append(number)
        for name in names[:4]:
            found.cells[name].append(str(job.get(name) or ""))
        gpus = [_gpus(attempt) for attempt in job["attempts"]]
        found.cells["gpus"].append(str(gpus[-1]) if gpus else "")
        found.cells["attempts"].append("|".join(
            f"{attempt.get('start_time') or ''}~{attempt.get('end_time') or ''}~{n}"
            for attempt, n in zip(job["attempts"], gpus, strict=True) if isinstance(attempt, dict)))
    return found


def _gpus(attempt: Any) -> int:
    detail = attempt.get("detail") if isinstance(attempt, dict) else None
    return sum(len(part.get("gpus") or ()) for part in detail or () if isinstance(part, dict))


def _is_swf(first: str) -> bool:
    fields = first.split()
    return len(fields) == SWF_FIELDS and all(_is_number(text) for text in fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _swf(file: TextIO) -> JobCells:
    """Feitelson's Parallel Workloads Archive; processors count as GPUs. Its header may date its time 0."""
    names = ["job", "submit", "run", "processors", "status", "queue"]
    found = JobCells(names, {name: [] for name in names}, [], "Standard Workload Format", "18 fields")
    zero_s = 0.0
    for line, text in enumerate(file, 1):
        if not text.strip() or text.lstrip().startswith(";"):
            if (start := _SWF_START.match(text.strip())) is not None:
                zero_s = float(start[1])
            continue
        fields = text.split()
        row = swf(fields)
        if row.kind in ("malformed", "unknown"):
            found.left_out.add("malformed" if row.kind == "malformed" else "of unknown GPU time", line, row.wrong)
        elif row.kind == "part":
            found.not_jobs[PARTS] = found.not_jobs.get(PARTS, 0) + 1
        else:
            found.line.append(line)
            for name, value in zip(names, (fields[0], zero_s + row.submit_s, row.run_s, row.gpus, fields[10],
                                           fields[14]), strict=True):
                found.cells[name].append(str(value))
    return found
