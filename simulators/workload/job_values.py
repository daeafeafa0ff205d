"""Cells of a table of jobs as numbers: times and durations in their units and zones, GPUs, states, what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from cosim.simulators.workload.job_columns import UNIT_S
from cosim.simulators.workload.rows import has_offset, instants
from cosim.units import DAY_S, HOUR_S, MIN_S

MISSING = frozenset(("", "-", "--", "na", "n/a", "nan", "none", "null", "unknown", "not set"))
"""Cells that stand for nothing known, without case."""
_TRES = re.compile(r"(?:^|,)(?:gres/)?gpu(?::[^=:,()]+)?[=:](\d+)")
_PLAIN_TRES = re.compile(r"(?:^|,)(?:gres/)?gpu[=:](\d+)(?=,|$|\()")
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_UNIX = ((5e17, "ns"), (5e14, "us"), (5e11, "ms"), (5e8, "s"))
"""From which number on a time is a count since 1970, in which unit: seconds from 1985 on."""
_HOUR_S = 3600

STATES: dict[str, tuple[str, ...]] = {
    "completed": ("completed", "complete", "succeeded", "success", "pass", "passed", "terminated", "finished", "done",
                  "1"),
    "cancelled": ("cancelled", "canceled", "killed", "revoked", "preempted", "deadline", "5"),
    "failed": ("failed", "fail", "failure", "error", "timeout", "node_fail", "out_of_memory", "boot_fail", "0"),
}
"""States as schedulers call them, by what became of the job; others are 'running, pending or unknown'."""


@dataclass(frozen=True)
class Times:
    """A column of times.

    at_s     s since 1970 where `dated`, else in the file's own count; NaN where it is missing or wrong
    wrong    row -> what is wrong with its cell
    `said`   unit or kind, for people
    unzoned  how many dates had no offset of their own
    unit     of the numbers ('' of dates)
    """

    at_s: np.ndarray
    dated: bool
    wrong: dict[int, str]
    said: str
    unzoned: int = 0
    unit: str = ""


def is_missing(cell: str) -> bool:
    """Whether a cell stands for nothing known."""
    return cell.strip().lower() in MISSING


def times(cells: Sequence[str], unit: str, zones: Sequence[ZoneInfo | None]) -> Times:
    """A column of times: ISO dates (without an offset in the row's zone, None: UTC), or numbers.

    Numbers are in `unit`, which the column's name states ('' is seconds), unless they are so large that they can only
    count since 1970, in the unit that makes them a date.
    """
    known = [k for k, cell in enumerate(cells) if not is_missing(cell)]
    if not known or _number(cells[known[0]]) is not None:
        return _counts(cells, known, unit)
    return _dates(cells, known, zones)


def _counts(cells: Sequence[str], known: Sequence[int], unit: str) -> Times:
    at, wrong = np.full(len(cells), np.nan), {}
    for k in known:
        value = _number(cells[k])
        if value is None:
            wrong[k] = f"time '{cells[k]}' is no number, and others are"
        else:
            at[k] = value
    middle = float(np.nanmedian(at)) if np.isfinite(at).any() else 0.0
    since = next((name for least, name in _UNIX if middle >= least), None)
    if since is not None and unit in ("", "s", since):
        told = "" if unit in ("", since) else f", though its name says {unit}"
        return Times(at * UNIT_S[since], True, wrong, f"{since} since 1970{told}", unit=since)
    return Times(at * UNIT_S[unit or "s"], False, wrong, unit or "s", unit=unit or "s")


def _dates(cells: Sequence[str], known: Sequence[int], zones: Sequence[ZoneInfo | None]) -> Times:
    at, wrong = np.full(len(cells), np.nan), {}
    if cells[known[0]].strip()[4:5] == "/":  # 2026/01/31, which nobody can take for another date
        cells = [cell.replace("/", "-", 2) for cell in cells]
    found = instants([cells[k] for k in known])
    if found is None:  # one of them or more is none: find out which
        good = []
        for k in known:
            if instants([cells[k]]) is None:
                wrong[k] = f"time '{cells[k].strip()}' is no ISO date such as 2026-01-31 14:00:00"
            else:
                good.append(k)
        known = good
        found = instants([cells[k] for k in known])
    if found is None or not len(known):
        return Times(at, True, wrong, "dates")
    at[list(known)] = found.astype(np.int64) / 1e9
    naive = [k for k in known if not has_offset(cells[k])]
    for zone in {zone for k in naive if (zone := zones[k]) is not None}:
        here = np.array([k for k in naive if zones[k] == zone])
        behind, skipped = _to_utc(at[here], zone)
        wrong |= {int(here[j]): f"time '{cells[here[j]].strip()}' does not exist in {zone}, as the clocks go forward"
                  for j in np.flatnonzero(skipped)}
        at[here] = np.where(skipped, np.nan, at[here] - behind)
    names = sorted({str(zones[k] or "UTC") for k in naive})
    said = "dates" + (f", {' and '.join(names)} where they state no offset" if naive else ", with offsets")
    return Times(at, True, wrong, said, sum(zones[k] is None for k in naive))


def _to_utc(wall_s: np.ndarray, zone: ZoneInfo) -> tuple[np.ndarray, np.ndarray]:
    """(how far a zone is ahead of UTC at wall-clock times, s; which of them it does not have). An hour that comes twice
    is taken as the first of the two."""
    hours, of = np.unique(np.floor(wall_s / _HOUR_S), return_inverse=True)
    ahead, skipped = np.zeros(len(hours)), np.zeros(len(hours), bool)
    for k, hour in enumerate(hours.tolist()):
        naive = datetime.fromtimestamp(hour * _HOUR_S, UTC).replace(tzinfo=None)
        local = naive.replace(tzinfo=zone)
        offset = local.utcoffset()
        assert offset is not None, "a zone has an offset"
        ahead[k] = offset.total_seconds()
        back = datetime.fromtimestamp(local.timestamp(), zone).replace(tzinfo=None)
        skipped[k] = back != naive
    return ahead[of], skipped[of]


def durations(cells: Sequence[str], unit: str) -> tuple[np.ndarray, dict[int, str]]:
    """(durations in s, NaN where they are missing or wrong; row -> what is wrong): numbers in `unit` ('' is seconds),
    or [days-][hours:]minutes:seconds."""
    out, wrong = np.full(len(cells), np.nan), {}
    for k, cell in enumerate(cells):
        if is_missing(cell):
            continue
        value = _number(cell)
        if value is not None:
            value *= UNIT_S[unit or "s"]
        elif (clock := _CLOCK.fullmatch(cell.strip())) is not None:
            days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
            value = days * DAY_S + hours * HOUR_S + minutes * MIN_S + seconds
        if value is None or not 0.0 <= value < math.inf:
            wrong[k] = f"duration '{cell.strip()}' is no number >= 0"
        else:
            out[k] = value
    return out, wrong


def _number(cell: str) -> float | None:
    """A finite number, else None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def tres_gpus(text: str) -> float:
    """GPUs of a list of trackable resources: 'billing=8,gres/gpu=4,gres/gpu:a100=4' has 4, one without GPUs 0."""
    if (plain := _PLAIN_TRES.search(text)) is not None:
        return float(plain[1])
    return float(sum(int(n) for n in _TRES.findall(text)))


def count(text: str) -> float | None:
    """A finite number >= 0, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < math.inf and "_" not in text else None


def state_of(text: str) -> str:
    """What became of a job by the word of its scheduler, one of STATES or 'running, pending or unknown'."""
    word = (text.split() or [""])[0].strip("+").lower()
    return next((kind for kind, words in STATES.items() if word in words), "running, pending or unknown")


def attempts_gpu_s(text: str) -> float:
    """GPU time of attempts, 'begin~end~gpus' divided by bars, s; 0 without any, NaN where one has no begin or end."""
    parts = [part.split("~") for part in text.split("|") if part]
    found = times([at for begin, end, _ in parts for at in (begin, end)], "", [None] * (2 * len(parts)))
    return float(((found.at_s[1::2] - found.at_s[::2]) * [float(n) for *_, n in parts]).sum()) if parts else 0.0
