"""One tick of a grid of ours on a network at its own loads and set points, beside what is right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import networktruth
import numpy as np
import pandapower as pp

from cosim.errors import CosimError
from cosim.simulators.grid.ac import AcPowerFlow
from cosim.simulators.grid.adapter import CefDispatch
from cosim.simulators.grid.network.files import stored
from cosim.simulators.grid.network.radial import read_loads


@dataclass(frozen=True)
class Difference:
    """The largest distances of a grid from the truth: voltage p.u., loss kW, intensity kg/kWh, fed power kW; and what
    the dispatch's own check by AC power flow finds, in the same units."""

    vm_pu: float
    loss_kw: float
    nci_kg_per_kwh: float
    fed_kw: float
    own_check: float


def intensity(kind: str, k: int) -> float:
    """Some kg/kWh that tells every source from the next."""
    return 0.05 + (7 * k + 3 * len(kind)) % 13 / 13.0


def started(name: str, way: str, **params: Any) -> tuple[Any, dict[tuple[str, int], float]]:
    """The grid, and the intensities that it was given for ext_grid, gen, sgen, storage."""
    net, loads = stored(name), read_loads(name)
    given = {(kind, int(k)): intensity(kind, int(k)) for kind in networktruth.FED for k in net[kind].index}
    sources = {}
    for k in net.ext_grid.index[net.ext_grid.in_service.astype(bool)]:
        free = {"p_min_kw": -1e9} if way == "dispatch" else {}
        sources[f"up{k}"] = {"node": int(net.ext_grid.bus[k]), "kg_per_kwh": given["ext_grid", int(k)], **free}
    for k in net.gen.index[net.gen.in_service.astype(bool)]:
        if "slack" in net.gen and net.gen.slack[k]:
            sources[f"slack{k}"] = {"node": int(net.gen.bus[k]), "kg_per_kwh": given["gen", int(k)]}
    grid = AcPowerFlow() if way == "ac" else CefDispatch()
    own: dict[str, float] = {}
    taken = set()
    for kind in ("sgen", "asymmetric_sgen", "gen", "storage"):
        table = net[kind]
        for k in table.index[table.in_service.astype(bool)]:
            if kind == "gen" and "slack" in table and table.slack[k]:
                continue
            given_name = table.name.get(k) if "name" in table else None
            p = float(table.p_mw[k] * table.scaling[k]) if "p_mw" in table else 1.0
            if kind != "gen" and (-p if kind == "storage" else p) <= 0.0 and not table.get("controllable", {}).get(k):
                continue
            named = isinstance(given_name, str) and given_name and given_name not in taken
            label = given_name if named else f"{kind}{k}"
            taken.add(label)
            own[label] = given[kind, int(k)]
    if way == "dispatch":
        params = {"vm_min_pu": 0.5, "vm_max_pu": 1.5, "mci": False, "solver": "clarabel"} | params
    grid.init("grid", 60.0, step_s=900.0, network=name, sources=sources, network_sources=own, **params)
    grid.create(len(loads.bus_ids), "Bus", names=[f"bus{b}" for b in loads.bus_ids])
    grid.create(1, "Grid", names=["grid"])
    grid.setup_done()
    return grid, given


def tick(grid: Any, name: str) -> dict[str, dict[str, Any]]:
    """Outputs of the first tick at the network's own loads."""
    loads = read_loads(name)
    inputs = {f"bus{b}": {"p_load_kw": {"x": p}, "q_load_kvar": {"x": q}}
              for b, p, q in zip(loads.bus_ids, loads.p_kw.tolist(), loads.q_kvar.tolist(), strict=True)}
    grid.step(0, inputs, 15)
    return grid.get_data({eid: [p.name for p in grid.MODELS[m] if p.flow == "out"]
                          for m, eids in grid.entities.items() for eid in eids})


def difference(name: str, way: str, **params: Any) -> Difference:
    """Run one tick and compare; whatever refuses the network is raised."""
    grid, given = started(name, way, **params)
    out = tick(grid, name)
    right = _truth(name, tuple(given.items()))
    got = out["grid"]
    fed = sum(p for p in got["p_source_kw"] if p > 0.0) - sum(right.fed_kw.values())
    nci = [abs(out[f"bus{b}"]["nci_kg_per_kwh"] - w) for b, w in right.nci_kg_per_kwh.items() if not np.isnan(w)]
    return Difference(max(abs(out[f"bus{b}"]["vm_pu"] - v) for b, v in right.vm_pu.items()),
                      abs(got["loss_kw"] - right.loss_kw), max(nci), abs(fed),
                      max(got.get(f"ac_d{what}", 0.0) for what in ("vm_pu", "loss_kw", "nci_kg_per_kwh")))


@lru_cache(maxsize=8)
def _truth(name: str, given: tuple[tuple[tuple[str, int], float], ...]) -> networktruth.Truth:
    return networktruth.truth(stored(name), dict(given))


def compare(name: str, way: str) -> str:
    """A phrase on a network: what differs, or why it is refused."""
    try:
        d = difference(name, way)
    except CosimError as err:
        return f"refused: {err}"
    except pp.LoadflowNotConverged as err:
        return f"no truth: {err}"
    return f"dV {d.vm_pu:.1e}  dloss {d.loss_kw:.1e} kW  dNCI {d.nci_kg_per_kwh:.1e}  dfed {d.fed_kw:.1e} kW"
