"""What was measured, as JSON; read back, shown, and compared with what was measured before.

A file holds sizes (quick, normal, full), each with its sections; a section holds the command, the machine and the date
of its own, so that one can be measured anew without the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import Found, machine
from cosim.digest import Table
from cosim.errors import ScenarioError
from cosim.trace.machine import versions

BASELINE = Path(__file__).with_name("baseline.json")
WARN, LEAST = 0.25, 0.05
"""A ratio that has grown by more than this share, and by more than this much, is warned of."""

_FIELDS = {"command", "machine", "measured", "ratios", "tables", "skipped"}
Sections = dict[str, dict[str, Any]]


def record(found: Found, command: str, cpu_s: float) -> dict[str, Any]:
    """A section as plain data."""
    return {"command": command, "machine": machine(), "measured": f"{datetime.now(UTC):%Y-%m-%d}",
            "versions": versions(), "section_cpu_s": round(cpu_s, 1), "ratios": _rounded(found.ratios),
            "figures": _rounded(found.figures), "tables": [asdict(table) for table in found.tables],
            "skipped": found.skipped}


def read(path: Path) -> dict[str, Sections]:
    """Sizes and their sections of a file. Raises ScenarioError for one that is none of ours."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ScenarioError(f"cannot read {path}: {err.strerror or err}") from None
    except ValueError:
        data = None
    sizes = data.values() if isinstance(data, dict) else [None]
    if not all(isinstance(size, dict) and all(isinstance(one, dict) and one.keys() >= _FIELDS for one in size.values())
               for size in sizes):
        raise ScenarioError(f"{path} holds no figures of this command; python -m benchmarks --out FILE makes one")
    return data


def write(path: Path, size: str, sections: Sections) -> None:
    """Put sections into a file; what else it holds stays. Raises ScenarioError where it cannot be written."""
    held = read(path) if path.exists() else {}
    held[size] = {**held.get(size, {}), **sections}
    try:
        path.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as err:
        raise ScenarioError(f"cannot write {path}: {err.strerror or err}") from None


def tables(section: Mapping[str, Any]) -> list[Table]:
    """The tables of a section."""
    return [Table(t["title"], tuple(t["columns"]), [tuple(row) for row in t["rows"]], t["note"])
            for t in section["tables"]]


def compare(now: Sections, before: Sections) -> tuple[Table, list[str]]:
    """Every ratio beside its baseline's, and a warning for each that has grown by more than a quarter."""
    rows, warnings = [], []
    for name, section in now.items():
        held = before.get(name, {}).get("ratios", {})
        for what, value in section["ratios"].items():
            if what not in held:
                rows.append((f"{name}: {what}", "none", f"{value:.3g}", "", "not in the baseline"))
                continue
            limit = held[what] + max(WARN * abs(held[what]), LEAST)
            change = f"{100.0 * (value / held[what] - 1.0):+.0f} %" if held[what] else ""
            slower = value > limit
            rows.append((f"{name}: {what}", f"{held[what]:.3g}", f"{value:.3g}", change, "SLOWER" if slower else "ok"))
            if slower:
                warnings.append(f"{name}: {what} is {value:.3g}, {change} of the baseline's {held[what]:.3g}")
        rows += [(f"{name}: {what}", f"{value:.3g}", "none", "", "not measured now") for what, value in held.items()
                 if what not in section["ratios"]]
    machines = sorted({section["machine"] for name, section in before.items() if name in now})
    note = f"baseline: {'; '.join(machines) or 'none of these sections'}\nnow: {machine()}"
    return Table("Ratios against the baseline", ("ratio", "baseline", "now", "change", ""), rows, note), warnings


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
