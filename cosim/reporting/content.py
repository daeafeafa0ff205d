"""What a page holds: the sections and maps that the scenarios of its runs name, or every port by unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cosim.errors import CosimError
from cosim.reporting.chart import SITE_COLOURS, Maps, Section, without_noise
from cosim.reporting.data import Run
from cosim.reporting.definition import Report, report_named
from cosim.reporting.general import GENERAL
from cosim.reporting.overview import labels
from cosim.trace import Trace
from cosim.trust import received_hook


@dataclass
class Content:
    """The runs of a page with what is shown of them; `reports` and `warnings` have one entry per run."""

    runs: list[Run]
    reports: list[Report]
    warnings: list[list[str]]
    maps: Maps | None
    sections: list[Section]


def content(traces: list[Trace], trusted: Collection[str | Path] = ()) -> Content:
    """What is shown of some traces.

    Sections come from each report that one of their scenarios names, and are of all runs, so that they stand side by
    side; where a scenario names none there are sections of every port by unit. So they are, with a warning at its runs,
    in the place of a report that cannot be had or does not cope with these traces. trusted: traces whose scenario may
    name a report that no installed package announces (`cosim.trust`). Raises TraceError for a trace that is damaged.
    """
    runs = read_as(GENERAL, traces)
    reports: list[Report] = []
    warnings: list[list[str]] = [[] for _ in runs]
    for run, warned in zip(runs, warnings, strict=True):
        try:
            hook = received_hook(run.trace.path, run.scenario, "report", trusted)
            reports.append(GENERAL if hook is None else report_named(hook))
        except CosimError as err:
            reports.append(GENERAL)
            warned.append(f"The scenario's report cannot be had: {err}")
    maps: Maps | None = None
    sections: list[Section] = []
    for report in dict.fromkeys(reports):
        try:
            seen = read_as(report, traces)
            found, shown = (report.maps(seen) if report.maps else None), report.sections(seen)
        except Exception as err:  # foreign code; the general sections name a damaged trace
            if report is GENERAL:
                raise
            for whose, warned in zip(reports, warnings, strict=True):
                if whose is report:
                    warned.append(f"The scenario's report does not cope with this: {type(err).__name__}: {err}")
            found, shown = None, [] if GENERAL in reports else GENERAL.sections(runs)
        maps = maps or found
        sections += _apart((replace(s, pictures=[without_noise(row) for row in s.pictures]) for s in shown), sections)
    return Content(runs, reports, warnings, maps, sections)


def read_as(report: Report, traces: list[Trace]) -> list[Run]:
    """The runs as a report reads them, each with a short name, and with one colour per name in all of them."""
    runs = [report.reads(trace, "", {}) for trace in traces]
    names = dict.fromkeys(name for run in runs for name in run.coloured)
    colours = {name: f"site{k % SITE_COLOURS}" for k, name in enumerate(names)}
    for run, label in zip(runs, labels([r.scenario for r in runs], [t.path.stem for t in traces]), strict=True):
        run.label, run.colours = label, colours
    return runs


def _apart(more: Iterable[Section], sections: list[Section]) -> list[Section]:
    """Further sections, with keys that none of `sections` has: a key is a place in the page, a picture's is a file."""
    taken = {s.key for s in sections}
    drawn = {p.key for s in sections for row in s.pictures for p in row}
    return [replace(s, key=_free(s.key, taken), pictures=[[replace(p, key=_free(p.key, drawn)) for p in row]
                                                          for row in s.pictures]) for s in more]


def _free(key: str, taken: set[str]) -> str:
    return next(name for n in range(1, len(taken) + 2) if (name := key if n == 1 else f"{key}-{n}") not in taken)
