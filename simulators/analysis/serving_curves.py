"""cosim serving-curves [FILE]: what a replica takes and draws over its batch, ours beside the measured points.

    cosim serving-curves                                the measurements that ship
    cosim serving-curves table.json                     the ML.ENERGY benchmark's layout, or a CSV
    cosim serving-curves table.json --model Qwen3-32B   configurations whose model's name has that in it
    cosim serving-curves table.json --model M --curve   the fitted curves, as `serving.curve` of a scenario
    cosim serving-curves --limit-kw 0.45                iterations that decode under a power limit of a GPU

Every point but a configuration's smallest and largest batch is left out of the fit that it is compared with.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from statistics import median

from cosim.console import command_parser, plain_console, print_digest, run_command
from cosim.digest import Digest, Table
from cosim.errors import ScenarioError
from cosim.simulators.aidc.gpus.equations import limited_kw, limited_speed_ratio
from cosim.simulators.aidc.llm.curves import HeldOut, Measured, fit, held_out
from cosim.simulators.aidc.llm.published import GPUS, PROMPT_TOKENS, SPEED_CURVES, measured
from cosim.simulators.aidc.llm.tables import configurations, read_measured

Configurations = dict[tuple[str, str, int], list[Measured]]


def comparison(found: Configurations) -> Digest:
    """Measured and fitted times and energies per token, of held-out points; their errors."""
    digest, rows, apart, left_out = Digest(), [], [], []
    for (model, gpu, gpus), points in found.items():
        try:
            held = held_out(points)
        except ScenarioError as err:
            left_out.append(str(err))
            continue
        if not held:
            left_out.append(f"{model} on {gpus} x {gpu}: {len(points)} points, none between two others")
            continue
        apart += held
        rows += [(model, f"{gpus} x {gpu}", f"{h.row.batch:.0f}", f"{1e3 * h.row.tpot_s:.2f}", f"{1e3 * h.tpot_s:.2f}",
                  f"{100 * h.tpot_error:+.1f} %", f"{h.row.joules:.4g}", f"{h.joules:.4g}",
                  f"{100 * h.joules_error:+.1f} %") for h in held]
    columns = ("model", "GPUs", "batch", "TPOT ms", "ours", "error", "J/token", "ours", "error")
    digest.tables.append(Table("Held-out points", columns, rows, "\n".join((
        "TPOT: mean time per output token, batch / (tokens per s)", *(f"not compared: {text}" for text in left_out)))))
    if apart:
        digest.tables.append(_errors(apart))
        digest.figures = {"tpot_median_ratio": median(abs(h.tpot_error) for h in apart),
                          "joules_median_ratio": median(abs(h.joules_error) for h in apart)}
    return digest


def _errors(apart: list[HeldOut]) -> Table:
    rows = []
    for name, errors in (("TPOT", [abs(h.tpot_error) for h in apart]),
                         ("J/token", [abs(h.joules_error) for h in apart])):
        within = sum(error <= 0.1 for error in errors)
        rows.append((name, str(len(errors)), f"{100 * median(errors):.1f} %", f"{100 * max(errors):.1f} %",
                     f"{100 * within / len(errors):.0f} %"))
    return Table("Errors of held-out points", ("", "points", "median", "largest", "within 10 %"), rows)


def curve_of(points: list[Measured]) -> dict[str, object]:
    """`serving.curve` of a configuration, without what its table lacks: how long reading the KV cache takes."""
    fitted = fit(points)
    output = sum(row.output_tokens for row in points) / len(points)
    return {"batch": fitted.batch, "step_s": fitted.step_s, "power_w": fitted.power_w,
            "context_tokens": PROMPT_TOKENS + output / 2.0, "prefill_s_per_token": fitted.prefill_s / PROMPT_TOKENS}


def under_limit(found: Configurations, limit_kw: float) -> Digest:
    """Power of a GPU, time and energy per token of the measured batches' iterations, without and under a power limit.
    ScenarioError for a limit that is none, or above the TDP of all GPUs, and where no speed under one is published."""
    digest, rows, left_out = Digest(), [], []
    if not 0.0 < limit_kw < math.inf:
        raise ScenarioError(f"--limit-kw {limit_kw:g} is no power limit; a number above 0")
    for (model, gpu, gpus), points in found.items():
        if gpu not in SPEED_CURVES:
            left_out.append(f"{model} on {gpus} x {gpu}: no speed under a power limit is published for {gpu}")
            continue
        if limit_kw > GPUS[gpu].tdp_w / 1e3:
            left_out.append(f"{model} on {gpus} x {gpu}: {limit_kw:g} kW is above the TDP of {gpu}, "
                            f"{GPUS[gpu].tdp_w / 1e3:g} kW")
            continue
        curve = SPEED_CURVES[gpu].decode
        for row in points:
            draw_kw = row.power_w / gpus / 1e3
            shown = [f"{draw_kw:.3f}", f"{1e3 * row.itl_s:.2f}", f"{row.power_w * row.itl_s / row.batch:.4g}"]
            if limit_kw < curve[0][0] * draw_kw:
                shown += ["below the curve", "-", "-"]
            else:
                kw, itl_s = limited_kw(draw_kw, limit_kw), row.itl_s / limited_speed_ratio(draw_kw, limit_kw, curve)
                shown += [f"{kw:.3f}", f"{1e3 * itl_s:.2f}", f"{1e3 * gpus * kw * itl_s / row.batch:.4g}"]
            rows.append((model, f"{gpus} x {gpu}", f"{row.batch:.0f}", *shown))
    if not rows:
        raise ScenarioError(left_out[0])
    digest.tables.append(Table(f"Iterations that decode at a limit of {limit_kw:g} kW", (
        "model", "GPUs", "batch", "kW a GPU", "ITL ms", "J/token", "limited kW", "ITL ms", "J/token"), rows,
        "\n".join(("of the GPUs alone", *(f"left out: {text}" for text in left_out)))))
    return digest


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("serving-curves")
    p.add_argument("table", nargs="?", metavar="FILE", help="CSV or the ML.ENERGY benchmark's JSON; none: what ships")
    p.add_argument("--model", metavar="WORD", help="configurations whose model has this in its name")
    either = p.add_mutually_exclusive_group()
    either.add_argument("--limit-kw", type=float, metavar="KW", help="iterations under a power limit of a GPU")
    either.add_argument("--curve", action="store_true", help="print the fitted curves as JSON, for serving.curve")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    return run_command(parser, _show, argv)


def _show(args: argparse.Namespace) -> int:
    found = configurations(read_measured(args.table) if args.table else measured())
    if args.model:
        names = sorted({model for model, _, _ in found})
        found = {key: rows for key, rows in found.items() if args.model.lower() in key[0].lower()}
        if not found:
            raise ScenarioError(f"no model has '{args.model}' in its name; there are {', '.join(names)}")
    if args.curve:
        print(json.dumps({f"{model} on {gpus} x {gpu}": curve_of(rows) for (model, gpu, gpus), rows in found.items()},
                         indent=1))
    else:
        print_digest(plain_console(), comparison(found) if args.limit_kw is None else under_limit(found, args.limit_kw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
