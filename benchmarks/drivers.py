"""A scenario under both drivers, in turns on the same machine: wall time, its split, and the ratio.

    python benchmarks/drivers.py [SCENARIO] [--until 24h] [--repeat 3]

Machines are noisy: look at the ratio and the fastest run of each, not at single figures.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from cosim.experiment import DRIVERS, Experiment
from cosim.run import find
from cosim.trace.compare import first_difference
from cosim.units import parse_duration


def main() -> None:
    """Print a line per driver and part."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("scenario", nargs="?", default="ieee33")
    p.add_argument("--until", default="24h")
    p.add_argument("--repeat", type=int, default=3)
    args = p.parse_args()
    walls: dict[str, list[dict[str, float]]] = {driver: [] for driver in DRIVERS}
    with tempfile.TemporaryDirectory() as folder:
        paths = {driver: Path(folder) / f"{driver}.h5" for driver in DRIVERS}
        for _ in range(args.repeat):
            for driver, path in paths.items():
                experiment = Experiment(find(args.scenario), driver, parse_duration(args.until), path, overwrite=True)
                walls[driver].append(experiment.run().wall_s)
        same = first_difference(*paths.values())
    fastest = {driver: min(runs, key=lambda w: w["total"]) for driver, runs in walls.items()}
    print(f"{args.scenario}, {args.until}, fastest of {args.repeat}, s; traces {same or 'identical'}")
    for part in fastest["mosaik"]:
        print(f"{part:18s}" + "".join(f"{driver}: {fastest[driver][part]:8.3f}   " for driver in DRIVERS))
    running = {driver: wall["total"] - wall["start"] for driver, wall in fastest.items()}
    print(f"without the start: mosaik / native = {running['mosaik'] / running['native']:.2f}")


if __name__ == "__main__":
    main()
