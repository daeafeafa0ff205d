"""cosim report TRACE [TRACE ...]: one self-contained HTML page, or pictures for a paper; of a folder a list of its
runs."""

from __future__ import annotations

import argparse
import math
import sys
import webbrowser
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from os.path import realpath
from pathlib import Path
from typing import Any

from cosim.console import PICTURES, add_trust, command_parser, plain_console, print_digest, run_command, say
from cosim.digest import Digest
from cosim.errors import ScenarioError, TraceError, cut
from cosim.imports import optional
from cosim.plaintext import visible
from cosim.progress import working
from cosim.reporting.comparison import groups_of
from cosim.reporting.content import Content, content
from cosim.reporting.folder import INDEX, entries, index_page, listed, traces_in
from cosim.reporting.heads import Compared
from cosim.reporting.overview import Overview, differences, overview
from cosim.reporting.page import page
from cosim.request import shipped
from cosim.scenario import leaves
from cosim.trace import Trace
from cosim.trace.reader import reading
from cosim.trust import available
from cosim.units import parse_duration

SINGLE_IN, DOUBLE_IN = 3.5, 7.16
"""Widths of a column and of two columns of a paper (IEEE)."""
_MM_PER_IN = 25.4
_MOST_CHANGES = 3
FORMATS = tuple(ending.removeprefix(".") for ending in PICTURES)


def parser() -> argparse.ArgumentParser:
    """The command line. Nothing is computed here, so that docs can be made from it."""
    p = command_parser("report", epilog="Several traces are shown side by side with their differences, in one HTML "
                       "file that loads nothing from elsewhere.")
    p.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="trace of a run, also of one that was "
                   "killed; or one folder: its runs are listed with their headline figures, and in a page index.html "
                   "in it")
    p.add_argument("--pick", type=_numbers, metavar="N[,N...]", help="of a folder's list, the runs whose page is made")
    p.add_argument("--out", type=Path, metavar="FILE.html", help="the page (default: beside the first trace)")
    p.add_argument("--figures", type=Path, metavar="DIR", help="instead of the page, write each picture into DIR by "
                   "matplotlib (extra: plot), with the data behind it as CSV")
    p.add_argument("--format", dest="formats", action="append", choices=FORMATS, metavar="|".join(FORMATS),
                   help="format of --figures; repeatable (default: all three)")
    p.add_argument("--only", type=_names, metavar="NAME[,NAME...]", help="of --figures, those alone: keys of pictures "
                   "or of the page's sections, or an axis: power, nci")
    p.add_argument("--width", type=_width_in, metavar="single|double|MM", help="width of --figures: a column of a "
                   "paper (88.9 mm), two (181.9 mm, the default), or mm")
    p.add_argument("--font-size", type=_points, metavar="PT", help="size of the type in --figures (default: 8)")
    p.add_argument("--at", metavar="TIME",
                   help="time that the map of --figures shows, e.g. 18h (default: half-way)")
    p.add_argument("--open", action="store_true", help="open the page in a browser")
    add_trust(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _report, argv)


def _report(args: argparse.Namespace) -> int:
    at_s = None if args.at is None else parse_duration(args.at)
    for option, given in (("--at", args.at), ("--only", args.only), ("--width", args.width), ("--font-size",
                          args.font_size), ("--format", args.formats)):
        if given is not None and not args.figures:
            raise ScenarioError(f"{option} goes with --figures DIR, not with the page")
    if args.pick or any(path.is_dir() for path in args.traces):
        if (chosen := _of_folder(args)) is None:
            return 0
        args.traces = chosen
    with working("drawing"), reading(*args.traces):
        made = (write_figures(args.traces, args.figures, args.formats or FORMATS, at_s, trusted=args.trust,
                              only=args.only or (), width_in=args.width or DOUBLE_IN, font_pt=args.font_size or 8.0)
                if args.figures
                else [write_page(args.traces, args.out, show=args.open, trusted=args.trust)])
    for path in made:
        print(path if args.figures else f"report: {path}")
    return 0


def _names(written: str) -> list[str]:
    """An argparse type: names, apart by commas."""
    names = [name.strip() for name in written.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no name is given; write nci,power for example")
    return names


def _width_in(written: str) -> float:
    """An argparse type: a width in inches, from 'single', 'double' or mm."""
    if written in ("single", "double"):
        return SINGLE_IN if written == "single" else DOUBLE_IN
    return _within(written, "width", 40.0, 1000.0, "single, double, or mm") / _MM_PER_IN


def _points(written: str) -> float:
    """An argparse type: a size of type, pt."""
    return _within(written, "size of type", 4.0, 40.0, "points")


def _within(written: str, what: str, low: float, high: float, how: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"'{cut(written)}' is no {what}; write {how} from {low:g} to {high:g}")
    return value


def _numbers(written: str) -> list[int]:
    """An argparse type: positions in a list, from 1 on."""
    parts = written.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{cut(written)}' is no choice; write numbers of the list, 1 or 2,5 for "
                                         "example")
    return [int(part) for part in parts]


def _of_folder(args: argparse.Namespace) -> list[Path] | None:
    """Lists the runs of a folder; returns the traces that --pick chooses of it, None without."""
    if len(args.traces) > 1 or not args.traces[0].is_dir():
        raise ScenarioError("a folder is listed alone: name one folder, or traces" if not args.pick else
                            "--pick goes with one folder, whose list it chooses from")
    folder: Path = args.traces[0]
    if not args.pick and (args.figures or args.formats):
        raise ScenarioError(f"{folder} is a folder: choose runs of its list by --pick, whose figures are drawn then")
    paths = traces_in(folder)
    if args.pick:
        if wrong := [k for k in args.pick if k > len(paths)]:
            raise ScenarioError(f"--pick {wrong[0]}: the list of {folder} goes from 1 to {len(paths)}")
        return [paths[k - 1] for k in args.pick]
    with working(f"reading {folder}", len(paths)) as progress:
        found = entries(paths, args.trust, progress.at)
    index = args.out or folder / INDEX
    _write(index, index_page(found, folder))
    console = plain_console()
    print_digest(console, Digest(tables=[listed(found, folder)]))
    say(console, f"a run's page: cosim report {folder} --pick N --open; several compared: --pick N,M")
    say(console, f"list: {index}")
    if args.open:
        webbrowser.open(index.resolve().as_uri())
    return None


def write_page(traces: Sequence[str | Path], out: str | PathLike[str] | None = None, *, show: bool = False,
               trusted: Collection[str | Path] = ()) -> Path:
    """Make the page of some traces and return its path (default: the first trace's, ending in .html).

    trusted: traces whose scenario may name a summary or a report outside installed packages (`cosim.trust`).
    Raises TraceError for what is no trace and when the page cannot be written, ScenarioError when it would replace a
    trace.
    """
    paths = [Path(trace) for trace in traces]
    made = Path(out) if out else paths[0].with_suffix(".html")
    if any(realpath(made) == realpath(path) for path in paths):
        raise ScenarioError(f"--out {made} is one of the traces; choose another name for the page")
    with ExitStack() as stack:
        shown = content([stack.enter_context(Trace(path)) for path in paths], trusted)
        runs, views = shown.runs, [_as_run(overview(run, report, trusted), run.scenario) for run, report in
                                   zip(shown.runs, shown.reports, strict=True)]
        for view, warned in zip(views, shown.warnings, strict=True):
            view.warnings.extend(warned)
        starts = {run.start for run in runs}
        text = page([r.label for r in runs], views, shown.maps, shown.sections,
                    f"{runs[0].start:%Y-%m-%dT%H:%M:%SZ}" if len(starts) == 1 else "", max(r.end_s for r in runs),
                    _compared(shown), dict.fromkeys(term for report in shown.reports for term in report.terms))
    _write(made, text)
    if show:
        webbrowser.open(made.resolve().as_uri())
    return made


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as err:
        raise TraceError(f"cannot write {path}: {err.strerror or err}") from None


def _as_run(view: Overview, scenario: dict[str, Any]) -> Overview:
    """The overview of a run, with what was set otherwise than in the shipped scenario of its name, whose sentence does
    not hold of it then."""
    if view.title not in available():
        return view
    was, changed = shipped(view.title).model_dump(mode="json"), []
    for where, before, now in [("shared", was["shared"], scenario.get("shared", {})), *(
            (name, member["params"], scenario["members"].get(name, {}).get("params", {}))
            for name, member in was["members"].items())]:
        found = dict(leaves(now))
        changed += [f"{where}.{path} = {found[path]}" for path, value in leaves(before)
                    if not isinstance(value, list) and type(found.get(path)) is type(value) and found[path] != value]
    if not changed:
        return view
    more = f" and {len(changed) - _MOST_CHANGES} more settings" if len(changed) > _MOST_CHANGES else ""
    return replace(view, about=f"{view.about}; here with {cut(', '.join(changed[:_MOST_CHANGES]), 200)}{more}")


def _compared(shown: Content) -> Compared | None:
    """What several runs are as a comparison; None for one run."""
    if len(shown.runs) == 1:
        return None
    scenarios = [run.scenario for run in shown.runs]
    return Compared(groups_of(scenarios, [run.trace.path.stem for run in shown.runs]), differences(scenarios))


def write_figures(traces: Sequence[str | Path], folder: str | Path, formats: Sequence[str] = FORMATS,
                  at_s: float | None = None, *, trusted: Collection[str | Path] = (), only: Sequence[str] = (),
                  width_in: float = DOUBLE_IN, font_pt: float = 8.0) -> list[Path]:
    """Draw each picture of the page into `folder`, one file per picture and format, and the data behind each panel as
    CSV; returns the paths. Of several runs the lines stand on one axis.

    at_s: the time that the map shows; None: half-way. trusted: as in `write_page`. only: keys of pictures or sections,
    or names of axes; all without. width_in, font_pt: of a figure and its type. Raises ScenarioError without matplotlib
    and for a name that no picture has, TraceError for what is no trace and what cannot be written.
    """
    with optional("--figures", "plot"):
        from cosim.reporting.paper import PrintLayout, draw
    with ExitStack() as stack:
        shown = content([stack.enter_context(Trace(path)) for path in traces], trusted)
        for run, warned in zip(shown.runs, shown.warnings, strict=True):
            for text in warned:
                print(f"warning: {visible(f'{run.trace.path}: {text}')}", file=sys.stderr)
        starts = {run.start for run in shown.runs}
        layout = PrintLayout(width_in, font_pt, starts.pop() if len(starts) == 1 else None)
        compared = _compared(shown)
        try:
            return draw([r.label for r in shown.runs], compared.groups if compared else (), shown.maps, shown.sections,
                        Path(folder), formats, layout, only, at_s)
        except OSError as err:
            raise TraceError(f"cannot write into {folder}: {err.strerror or err}") from None


if __name__ == "__main__":
    sys.exit(main())
