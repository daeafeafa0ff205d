"""Average against marginal carbon: move 100 kW from one data center to another and look at both accounts.

    python examples/average_or_marginal.py

A dispatch of the IEEE 33-node feeder before the move and one after it, in two situations: turbines at their limits, and
one of them free to give way.
"""

import numpy as np

from cosim.scenarios._study import SITES, SOURCES
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch, Source
from cosim.simulators.grid.dispatch.results import marginal_sources
from cosim.simulators.grid.network.radial import read_feeder

BUSES, ETA = [site["node"] for site in SITES.values()], 0.2
FEEDER = read_feeder("case33bw")
HEAD = f"{'base load':>9} {'lambda':>6} {'marginal sources':22} {'':7} {'attributed':>10} {'system':>8}"


def accounts(dispatch: Dispatch, scale: float, aidc_kw: list[float]) -> tuple[np.ndarray, list[str]]:
    """([attributed to the data centers, emitted by all sources] kg/h, the sources that are marginal)."""
    p_kw, q_kvar = FEEDER.p_kw * scale, FEEDER.q_kvar * scale
    p_kw[BUSES] += aidc_kw
    q_kvar[BUSES] += ETA * np.array(aidc_kw)
    result = dispatch.solve(p_kw, q_kvar)
    flags = marginal_sources(result, FEEDER.base_kw)
    names = [name for name, flag in zip(SOURCES, flags, strict=True) if flag]
    return np.array([result.nci_kg_per_kwh[BUSES] @ aidc_kw, result.emission_kg_per_h]), names


def main() -> None:
    """One block of three lines per situation."""
    print(HEAD)
    for scale, weight in ((0.8, 0.01), (0.3, 0.1)):
        sources = {name: Source(**about) for name, about in SOURCES.items()}
        dispatch = Dispatch(FEEDER, sources, Limits(1.0, 0.9, 1.1, weight), "clarabel")
        before, names = accounts(dispatch, scale, [300.0, 300.0, 300.0])
        after, _ = accounts(dispatch, scale, [400.0, 300.0, 200.0])
        start = f"{scale:9g} {weight:6g} {', '.join(names):22}"
        for words, (own, system) in (("before", before), ("after", after), ("change", after - before)):
            print(f"{start} {words:7} {own:10.1f} {system:8.1f}")
            start = " " * 39


if __name__ == "__main__":
    main()
