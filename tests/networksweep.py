"""Every network of pandapower.networks that needs no argument, up to 1000 buses, against pandapower and a tracer.

    python tests/networksweep.py [names ...]       all: some minutes

Per network: the grid without an optimiser and, where it takes the network, the conic dispatch, at the network's own
loads and set points; largest differences of voltages, losses and intensities from `runpp` and an independent solution
of proportional sharing (tests/networktruth.py), or the sentence that refuses the network.
"""

from __future__ import annotations

import inspect
import logging
import sys
import time
import warnings

import pandapower
import pandapower.networks
from networkrun import compare

ARGUMENTS = {"case1888rte", "case2848rte", "case2869pegase", "case3120sp", "case6470rte", "case6495rte", "case6515rte",
             "case9241pegase", "GBnetwork", "case1354pegase", "lv_schutterwald"}
"""Larger ones, that take long to build only to be left out."""


def names() -> list[str]:
    """Functions of pandapower.networks without required arguments that give one network, but for the largest."""
    found = []
    for name, make in inspect.getmembers(pandapower.networks, inspect.isfunction):
        required = [p for p in inspect.signature(make).parameters.values()
                    if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if make.__module__.startswith("pandapower.networks.") and not name.startswith("_") and not required \
                and name not in ARGUMENTS:
            found.append(name)
    return found


def main() -> None:
    """Print a line per network and way."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    for name in sys.argv[1:] or names():
        for way in ("ac", "dispatch"):
            began = time.perf_counter()
            print(f"{name:45s} {way:9s} {compare(name, way)}  ({time.perf_counter() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
