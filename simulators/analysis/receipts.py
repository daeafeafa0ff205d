"""cosim receipts FILE: what each job of a run used and emitted.

    cosim receipts run.h5                 sums per site and class, and unused GPUs
    cosim receipts run.h5 --job 42        what this request used and emitted, by its number or its id in the jobs' file
    cosim receipts run.h5 --out jobs.csv  every job, a line each
    cosim receipts run.h5 --warmup        of the whole run, not of the counted time alone

`cosim.simulators.analysis.job_carbon` states the rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cosim.console import command_parser, plain_console, print_digest, run_command
from cosim.digest import Digest, Table
from cosim.errors import ScenarioError, cut, listed
from cosim.progress import working
from cosim.simulators.analysis.job_carbon import FIGURES, JobFootprints, job_footprints
from cosim.tables.files import write_table
from cosim.trace import Trace
from cosim.trace.reader import reading
from cosim.trace.series import counted_time
from cosim.units import format_time


def sums(accounts: Sequence[JobFootprints], over: str = "of the counted time") -> Table:
    """Per site and class, with the unallocated rest: jobs and their figures. over: which time they are of, in words."""
    rows, names = [], accounts[0].figures if accounts else FIGURES
    for account in accounts:
        for name in dict.fromkeys(account.job_class.tolist()):
            mine = account.job_class == name
            figures = [float(getattr(account, figure)[mine].sum()) for figure in names]
            jobs = "-" if name == "unallocated" else str(np.count_nonzero(mine))
            rows.append((account.site, name, jobs, *(f"{x:.3f}" for x in figures)))
    return Table("What the jobs used and emitted", ("site", "class", "jobs", *names), rows,
                 f"{over}; co2_kg by NCI (attributed), co2_marginal_kg by mci; a site's rows add up to its energy and "
                 "carbon")


def columns(accounts: Sequence[JobFootprints], names: Mapping[int, str] | None = None) -> dict[str, list]:
    """Every job and every site's `unallocated` (job -1), as a table. names: ids of the file that the jobs are from."""
    out: dict[str, list] = {"job": [], "site": []} | ({"name": []} if names else {})
    for account in accounts:
        out["job"] += account.job_id.tolist()
        out["site"] += [account.site] * len(account.job_id)
        if names:
            out["name"] += [names.get(number, "") for number in account.job_id.tolist()]
        for name in ("job_class", "outcome", *account.figures):
            out.setdefault(name, []).extend(getattr(account, name).tolist())
    return out


def names_of(trace: Trace) -> dict[int, str]:
    """Number of a job -> its id in the file that it is from; {} where the jobs are from none."""
    table = trace.table("job_names")
    return dict(zip(table["id"].tolist(), table["name"].tolist(), strict=True)) if table else {}


def number_of(job: str, names: Mapping[int, str], path: str) -> int:
    """The number of a job that is named by it, or by its id in the file. ScenarioError for another one, and for an id
    that several have."""
    mine = [number for number, name in names.items() if name == job]
    if len(mine) == 1:
        return mine[0]
    if mine:
        raise ScenarioError(f"{path}: {len(mine)} jobs have the id '{cut(job)}'; name one by its number: "
                            f"{listed(mine)}")
    try:
        return int(job)
    except ValueError:
        near = f"; ids are such as {listed(list(names.values())[:3])}" if names else "; jobs have numbers here"
        raise ScenarioError(f"{path} has no job '{cut(job)}'{near}") from None


def write(accounts: Sequence[JobFootprints], path: Path, names: Mapping[int, str] | None = None) -> None:
    """The table as CSV or, by the file's ending, Parquet. ScenarioError for a file that is there or cannot be made."""
    if path.exists():
        raise ScenarioError(f"{path} exists already; choose another --out")
    try:
        write_table(path, columns(accounts, names))
    except OSError as err:
        raise ScenarioError(f"cannot write {path}: {err.strerror}; choose another --out") from err


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("receipts")
    p.add_argument("trace", metavar="FILE", help="a trace (.h5) of a run with data centers")
    p.add_argument("--job", metavar="ID", help="one job, by its number or by its id in the file that it is from")
    p.add_argument("--warmup", action="store_true", help="count the warm-up, too")
    p.add_argument("--out", type=Path, metavar="FILE", help="every job, a line each: CSV or Parquet")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _show, argv)


def _show(args: argparse.Namespace) -> int:
    with working(f"reading {args.trace}"), reading(args.trace), Trace(args.trace) as trace:
        accounts, time = job_footprints(trace, warmup=args.warmup), counted_time(trace)
        names = names_of(trace)
    whole = args.warmup or time.whole_warmup or not time.begin_s
    over = "of the whole run" if whole else f"of the counted time, from {format_time(time.begin_s)} on"
    digest = Digest()
    if args.job is None:
        digest.tables.append(sums(accounts, over))
    else:
        job = number_of(args.job, names, args.trace)
        at = next((a for a in accounts if job in a.job_id[:-1]), None)
        if at is None:
            more = "" if whole else f" {over}; --warmup counts all of the run"
            raise ScenarioError(f"{args.trace} has no job {args.job}{more}")
        called = f"{job} ({names[job]})" if job in names else f"{job}"
        digest.tables.append(Table(f"Job {called} at {at.site}", ("", ""),
                                   [(name, f"{x:.6g}") for name, x in at.of(job).items()], over))
    if args.out:
        write(accounts, args.out, names)
    print_digest(plain_console(), digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
