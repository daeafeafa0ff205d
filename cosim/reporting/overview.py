"""What ran and how it ended: facts of a run, its summary, and how several runs differ."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.digest import Digest
from cosim.errors import CosimError
from cosim.imports import load
from cosim.reporting.data import Run
from cosim.reporting.definition import Headline, Report
from cosim.reporting.text import at, length, number
from cosim.scenario import leaves
from cosim.scenario_hooks import WITH_SUMMARY
from cosim.trace import Trace
from cosim.trust import received_hook

_ABSENT = "-"
_MOST_PARTS = 3
"""What sets runs apart is named by so many fields: name and policy first, then the seed."""
_ENDINGS = {"completed": "completed", "failed": "failed", "running": "cut off"}


@dataclass(frozen=True)
class Overview:
    """Top section of a report for one run.

    ending    'completed', 'failed' or 'cut off'
    tiles     (words, value) of the figures at the top
    headline  the figures that runs are compared by first
    warnings  sentences that a reader must not miss
    """

    title: str
    about: str
    ending: str
    facts: list[tuple[str, str]]
    versions: str
    digest: Digest
    tiles: list[tuple[str, str]]
    headline: list[Headline]
    warnings: list[str]


def overview(run: Run, report: Report, trusted: Collection[str | Path] = ()) -> Overview:
    """Read from the root attributes, and from the scenario's own summary; report: that of the scenario."""
    attrs, scenario = run.attrs, run.scenario
    digest, warnings = summary_of(run.trace, scenario, trusted)
    ending = _ENDINGS.get(attrs.get("status", ""), str(attrs.get("status", "not said")))
    wanted = float(scenario.get("until_s") or 0.0) + run.warmup_s
    figures_until = "" if run.time.end_s >= run.end_s else f" (figures: {at(run.time.end_s)})"
    if ending != "completed":
        reason = f": {attrs['error']}" if attrs.get("error") else ""
        of = f" of {length(wanted)}" if wanted else ""
        warnings.insert(0, f"This run {'failed' if ending == 'failed' else 'was cut off'}{reason}. The trace reaches "
                           f"{at(run.end_s)}{figures_until}{of}; everything below covers only that part.")
    told = [(words, run.params(member).get(name)) for words, member, name in report.facts]
    facts = [*((words, "none" if value is None else str(value)) for words, value in told),
             ("seed", str(attrs.get("seed", ""))),
             ("simulated", length(run.end_s) + (f", {length(run.warmup_s)} of it warm-up" if run.warmup_s else "")),
             ("driver", str(attrs.get("driver", ""))),
             ("created", str(attrs.get("created", ""))[:16].replace("T", " ")),
             *([("wall time", f"{number(attrs['wall_total_s'])} s")] if "wall_total_s" in attrs else [])]
    versions = json.loads(attrs.get("versions", "{}"))
    for note in json.loads(attrs.get("notes", "[]")):
        if any(words in note for words in report.made):
            facts.append(("note", note))
        else:
            warnings.append(note)
    return Overview(str(attrs.get("name", "")), str(scenario.get("about", "")), ending, facts,
                    ", ".join(f"{k} {v}" for k, v in versions.items()), digest, report.tiles(digest.figures),
                    report.headline(digest.figures), warnings)


def summary_of(trace: Trace, scenario: dict[str, Any], trusted: Collection[str | Path]) -> tuple[Digest, list[str]]:
    """The digest that a run left in its trace, or else that of its scenario's hook; and its warnings, or why there is
    none."""
    hook = scenario.get("summary")
    if not hook:
        return Digest(), ["The scenario names no summary, so there is no table of metrics."]
    if "summary" in trace.attrs:  # said by the run itself when it ended
        digest = Digest.from_json(str(trace.attrs["summary"]))
        return digest, list(digest.warnings)
    try:
        received_hook(trace.path, scenario, "summary", trusted)
        digest = load(hook, "summary")(trace)
    except CosimError as err:
        return Digest(), [f"The scenario's summary ({hook}) cannot be had: {err}"]
    except Exception as err:  # a foreign hook, perhaps on half a trace: the pictures need not go with it
        return Digest(), [f"The scenario's summary ({hook}) does not cope with this trace: {type(err).__name__}: {err}"]
    return digest, list(digest.warnings)


# --- several runs -----------------------------------------------------------------------------------------------------


def labels(scenarios: list[dict[str, Any]], paths: list[str]) -> list[str]:
    """A short name per run: its scenario, or what sets it apart: 'uniform, seed 3'; the file's name if nothing does."""
    names = [scenario["name"] for scenario in scenarios]
    if len(set(names)) == len(names):
        return names
    rows = [(field, cells) for field, cells in differences(scenarios) if _ABSENT not in cells and field != "about"]
    first = sorted(rows, key=lambda row: (not row[0].endswith((".policy", "name")), row[0] != "seed"))[:_MOST_PARTS]
    rows = [row for row in rows if row in first]
    out = []
    for k, (scenario, path) in enumerate(zip(scenarios, paths, strict=True)):
        parts = [cells[k] if field.endswith((".policy", "name")) else f"{field.rpartition('.')[2]} {cells[k]}"
                 for field, cells in rows]
        out.append(", ".join(p for p in parts if len(p) < 40) or f"{scenario['name']}, {path}")
    return out if len(set(out)) == len(out) else [f"{label} ({k + 1})" for k, label in enumerate(out)]


def differences(scenarios: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(field, its value in each run) of all that is not equal; '-' where a run has no such field."""
    flat = [dict(leaves(s)) for s in scenarios]
    fields = dict.fromkeys(f for one in flat for f in one)
    rows = []
    for path in fields:
        values = [one.get(path, _ABSENT) for one in flat]
        if path in WITH_SUMMARY and _ABSENT in values:  # of a version without it
            continue
        if any(v != values[0] for v in values):
            rows.append((path.removeprefix("members.").replace(".params.", "."), [_short(v) for v in values]))
    return rows


def _short(value: Any) -> str:
    if isinstance(value, list) and len(text := json.dumps(value)) > 60:
        return f"{len(value)} values, {text[:24]}..."
    return f"{value:g}" if isinstance(value, float) else str(value)


def change(first: float, other: float, unit: str = "") -> str:
    """'+3.2 %' from the first; the plain difference where the first is not above 0 or the other below; '=' for none."""
    if first == other or first != first and other != other:
        return "="
    sign = "+" if other > first else ""
    if not first > 0 or not 0 <= other <= 10 * first:
        return f"{sign}{number(other - first)} {'' if unit == '1' else unit}".rstrip()
    return f"{sign}{number(100 * (other / first - 1), 2)}\u202f%"
