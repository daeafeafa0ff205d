"""What a scenario's grid and its base load take from a network of one's own: one function per kind of grid.

Rows: I25, M03.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cosim.datafile import ENDINGS, read
from cosim.errors import ScenarioError, unknown
from cosim.imports import load
from cosim.params import field_names, validate
from cosim.scenario import Scenario, rows_of
from cosim.simulators.fleet import Site
from cosim.simulators.grid.network.elements import Generator
from cosim.simulators.grid.network.feeder import Feeder, LineList
from cosim.simulators.grid.network.radial import out_of_service, read_feeder, read_loads, read_storages
from cosim.simulators.grid.network.source import WRITERS, Storage, name_of
from cosim.simulators.grid.opendss_circuit import Circuit, installed
from cosim.simulators.profile import SHAPES, SLOTS

Network = str | LineList
LOOKAHEAD_STEPS = 8
_CLEAN = re.compile(r"pv|solar|wp|wind|hydro|water|run.?of.?river", re.IGNORECASE)
"""Technologies of generators that burn nothing, as pandapower's and SimBench's networks abbreviate them."""
_NEAREST = 3


class Setting(NamedTuple):
    """One field that differs from the scenario's: path as `--set` has it, value, and why."""

    path: str
    value: Any
    why: str


@dataclass(frozen=True, slots=True)
class Place:
    name: str
    bus: int | str
    gpus: int


def fields_in(simulator: str) -> tuple[str, ...]:
    """Parameters of a member's class; none where it runs elsewhere or is not ours."""
    if simulator.startswith(("cmd:", "connect:")):
        return ()
    return tuple(field_names(getattr(load(simulator, "simulator"), "PARAMS", None) or Site))


def _check_bus(place: Place, buses: Sequence[int], idle: Sequence[int], name: str) -> None:
    """ScenarioError for a bus that is not there, or not in service, naming those that are nearest by number."""
    if place.bus in buses:
        return
    where = f"--site {place.name}={place.bus}:{place.gpus}"
    if not isinstance(place.bus, int):
        raise ScenarioError(f"{where}: buses of {name} are numbers, {buses[0]} to {buses[-1]}")
    near = ", ".join(map(str, sorted(sorted(buses, key=lambda b: (abs(b - place.bus), b))[:_NEAREST])))  # type: ignore
    why = "out of service" if place.bus in idle else f"not there; it has {len(buses)}, {buses[0]} to {buses[-1]}"
    raise ScenarioError(f"{where}: bus {place.bus} of {name} is {why}; the nearest in service: {near}")


Made = tuple[list[Setting], list[dict[str, str]], list[str]]


def _network(text: str) -> Network:
    """What a text on the command line names: a list of lines in a file is read here."""
    if Path(text).suffix.lower() not in ENDINGS or not Path(text).is_file():
        return text
    if Path(text).suffix == ".json" and "lines" not in (data := _peek(text)):
        return text
    data = read(Path(text))
    wrong = [key for key in data if key not in field_names(LineList)]
    if wrong:
        raise ScenarioError(f"{text}: {unknown('field of a list of lines', wrong[0], field_names(LineList))}; a "
                            f"network of pandapower is a file by {' or '.join(WRITERS.values())}")
    return validate(LineList, data, text)


def _peek(text: str) -> Mapping[str, Any]:
    try:
        return read(Path(text))
    except ScenarioError:
        return {}


def _as_data(network: Network, text: str) -> Any:
    return network if isinstance(network, str) else read(Path(text))


def _substation(base: Scenario, grid: str) -> dict[str, Any]:
    """The scenario's substation, without its place: the source of that name, else its first."""
    rows = rows_of(base.members[grid].params.get("sources", {}), "sources")
    row = rows.get("substation") or next(iter(rows.values()))
    return {key: value for key, value in row.items() if key not in ("node", "bus")}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _intensities(generators: Sequence[Generator], grid: str, upstream: Any) -> tuple[list[Setting], list[str]]:
    """An intensity for each of the network's own generators: 0 where nothing burns, else the substation's."""
    feeding = [g for g in generators if g.p_max_kw > 0.0]
    if not feeding:
        return [Setting(f"{grid}.network_sources", {}, "the network has no generators of its own")], []
    known = _number(upstream)
    other = 0.4 if known is None else known
    by_name = {g.name: 0.0 if _CLEAN.search(f"{g.technology} {g.name}") else other for g in feeding}
    common = max(set(by_name.values()), key=lambda w: (list(by_name.values()).count(w), -w))
    table = {**{name: w for name, w in by_name.items() if w != common}, "*": common}
    fixed = [g for g in feeding if g.p_min_kw == g.p_max_kw]
    lines = [f"{len(feeding)} generators of the network ({sum(g.p_kw for g in feeding):.0f} kW), {len(fixed)} of them "
             "fixed: they give that at every hour, photovoltaics at night, too"]
    return [Setting(f"{grid}.network_sources", table, "assumed, kg/kWh: 0 for sun, wind and water by the file's type "
                    f"or name, {other:g} for others")], lines


def _profile(base: Scenario, loads_kw: float) -> tuple[list[Setting], list[str]]:
    """The base load: the network's loads by the scenario's shape."""
    for name, member in base.members.items():
        if {"shape", "mean", "network"} <= set(fields_in(member.simulator)):
            shape = member.params.get("shape", "ieee33_light")
            said = shape if isinstance(shape, str) else f"{len(shape)} factors"  # type: ignore[arg-type]
            if isinstance(shape, str) and shape in SHAPES:
                said += f" (mean {sum(SHAPES[shape]) / SLOTS:.2f}, peak {max(SHAPES[shape]):.2f})"
            return ([Setting(f"{name}.entities", {"Load": "network"}, "the file's loads, at every bus"),
                     Setting(f"{name}.shape", shape, "assumed: the daily shape that multiplies the file's loads "
                             "(p_mw x scaling); 96 factors or a .csv in its place")],
                    [f"base load: {loads_kw:.0f} kW in the file, times the daily shape {said}"])
    return [], [f"the network's loads ({loads_kw:.0f} kW) are not drawn: {base.name} has no member for the base load"]


def _head(name: str, buses: Sequence[int], places: Sequence[Place]) -> str:
    return (f"{name}: {len(buses)} buses; " + ", ".join(f"{p.name} with {p.gpus} GPUs at bus {p.bus}" for p in places))


def on_dispatch(base: Scenario, grid: str, text: str, places: Sequence[Place]) -> Made:
    network = _network(text)
    name = text if isinstance(network, LineList) else name_of(network)
    storages = read_storages(network)
    batteries, lines = _batteries(storages, name, _number(_substation(base, grid).get("kg_per_kwh")))
    try:
        feeder = read_feeder(network, batteries)
    except ScenarioError as err:
        if "AcPowerFlow" in str(err):
            raise ScenarioError(f"{err}; cosim new ... --from ieee33_meshed makes a scenario with it") from None
        raise
    loads = read_loads(network)
    for place in places:
        _check_bus(place, loads.bus_ids, out_of_service(network), name)
    upstream, back_kw = _substation(base, grid), sum(g.p_max_kw for g in feeder.generators)
    if back_kw > 0.0:
        upstream["p_min_kw"] = min(-math.ceil(back_kw), float(upstream.get("p_min_kw") or 0.0))
        lines.append(f"the substation takes back up to {-upstream['p_min_kw']:.0f} kW: what the network's generators "
                     "feed")
    root = feeder.bus_ids[feeder.substation]
    settings = [
        Setting("shared.network", _as_data(network, text), "path as seen from the folder in which it is run"),
        Setting(f"{grid}.sources", {"substation": {"node": root, **upstream}}, f"the external grid at bus {root}; its "
                f"intensity and price are those of {base.name}, whose other sources are left out")]
    own, said = _intensities(feeder.generators, grid, upstream.get("kg_per_kwh"))
    settings += own
    entities = {"Bus": "network", "Grid": ["grid"], **({"Battery": "batteries"} if batteries else {})}
    settings.append(Setting(f"{grid}.entities", entities, "all buses of the network in service"))
    settings += [Setting(f"{grid}.{field}", {}, f"was for the network of {base.name}")
                 for field in ("batteries", "max_current_a", "max_power_kva", "nci_cap_kg_per_kwh")
                 if base.members[grid].params.get(field) and not (field == "batteries" and batteries)]
    rated = _rated(feeder)
    if rated or base.members[grid].params.get("line_limits", "none") != "none":
        settings.append(Setting(f"{grid}.line_limits", "report" if rated else "none", f"{rated} of "
                                f"{len(feeder.parent)} branches have a rating in the file; ratings: they are limits"))
    ahead, links = _ahead(base, grid, batteries)
    profile, drawn = _profile(base, float(loads.p_kw.sum()))
    return ([*settings, *ahead, *profile], links,
            [_head(name, loads.bus_ids, places), *drawn, *said, *lines, *feeder.left_out])


def _rated(feeder: Feeder) -> int:
    known = [math.isfinite(a) or math.isfinite(s) for a, s in zip(feeder.ratings.current_a, feeder.ratings.power_kva,
                                                                  strict=True)]
    return sum(known)


def _batteries(storages: Sequence[Storage], name: str, kg_per_kwh: float | None
               ) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Storage of the network as batteries; ScenarioError for one that lacks a figure, by name."""
    found = {}
    for s in storages:
        where = f"network {name}: storage {s.index} (bus {s.bus})"
        if s.energy_max_kwh is None or not s.energy_max_kwh > s.energy_min_kwh:
            raise ScenarioError(f"{where} has no max_e_mwh above min_e_mwh, without which it is no battery; give it, "
                                "or take it out of service")
        if not (s.p_charge_max_kw or 0.0) > 0.0 or not (s.p_discharge_max_kw or 0.0) > 0.0:
            raise ScenarioError(f"{where} has no power limits, without which it is no battery; give max_p_mw and "
                                "min_p_mw (< 0 discharges), or sn_mva, or take it out of service")
        share = 50.0 if s.soc_percent is None else s.soc_percent
        start = min(max(s.energy_max_kwh * share / 100.0, s.energy_min_kwh), s.energy_max_kwh)
        found[s.name] = {"node": s.bus, "energy_max_kwh": s.energy_max_kwh, "energy_min_kwh": s.energy_min_kwh,
                         "p_charge_max_kw": s.p_charge_max_kw, "p_discharge_max_kw": s.p_discharge_max_kw,
                         "energy_start_kwh": start, "start_kg_per_kwh": 0.4 if kg_per_kwh is None else kg_per_kwh}
    moved = [s for s in storages if s.p_kw or s.q_kvar]
    lines = [f"{len(found)} storage units of the network are batteries, planned {LOOKAHEAD_STEPS} intervals ahead"
             ] if found else []
    if rated := [s.name for s in storages if s.by_rating]:
        lines.append(f"power of {_some(rated)} both ways by sn_mva or p_mw, as the file has no limit above 0 in one "
                     "direction")
    if moved:
        lines.append(f"p_mw and q_mvar of {_some([s.name for s in moved])} in the file count nowhere")
    return found, lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + f" and {len(names) - 4} more" * (len(names) > 4)


def _ahead(base: Scenario, grid: str, batteries: Mapping[str, Any]) -> tuple[list[Setting], list[dict[str, str]]]:
    """The look-ahead that plans batteries, with the profile's forecast."""
    if not batteries:
        return [], []
    settings = [Setting(f"{grid}.batteries", dict(batteries), "the file's storage: energy at t = 0 by its soc_percent "
                        "(50 % where there is none); carbon in it and 95 % efficiency each way are assumed")]
    links: list[dict[str, str]] = []
    profile = next((n for n, m in base.members.items() if m.simulator == "cosim.simulators.profile:Profile"), None)
    if "lookahead_steps" in base.shared:
        return settings, links
    settings.append(Setting(f"{grid}.lookahead_steps", LOOKAHEAD_STEPS, "intervals that are planned together"))
    if profile is not None:
        settings += [Setting(f"{profile}.simulator", "cosim.simulators.profile:ForecastProfile", "with a forecast"),
                     Setting(f"{profile}.lookahead_steps", LOOKAHEAD_STEPS, "as long as the plan")]
        links = [{"source": f"{profile}.{port}", "target": f"{grid}.{port}"} for port in ("p_ahead_kw", "q_ahead_kvar")]
    return settings, links


def on_ac(base: Scenario, grid: str, text: str, places: Sequence[Place]) -> Made:
    from cosim.simulators.grid.network.powerflow import AcNetwork

    network = _network(text)
    name = text if isinstance(network, LineList) else name_of(network)
    ac, loads = AcNetwork(network, []), read_loads(network)
    for place in places:
        _check_bus(place, loads.bus_ids, out_of_service(network), name)
    upstream = {"kg_per_kwh": _substation(base, grid).get("kg_per_kwh", 0.3)}
    if upstream["kg_per_kwh"] is None or _number(upstream["kg_per_kwh"]) is None:
        raise ScenarioError(f"--from {base.name}: the intensity of its substation varies, which {grid} does not model")
    slacks = list(dict.fromkeys(ac.slacks))
    names = ["substation", *(f"substation{k}" for k in range(2, len(slacks) + 1))]
    settings = [
        Setting("shared.network", _as_data(network, text), "path as seen from the folder in which it is run"),
        Setting(f"{grid}.sources", {n: {"node": bus, **upstream} for n, bus in zip(names, slacks, strict=True)},
                f"the external grids; intensity as in {base.name}, whose other sources are left out"),
        Setting(f"{grid}.dispatch", "fixed", "external grids balance"),
        Setting(f"{grid}.closed_lines", [], f"was for the network of {base.name}"),
        Setting(f"{grid}.entities", {"Bus": "network", "Grid": ["grid"]}, "all buses of the network in service")]
    own, said = _intensities(ac.generators, grid, upstream["kg_per_kwh"])
    storage = [f"storage of the network stays at its p_mw: {', '.join(s.name for s in read_storages(network)[:4])}"
               ] if read_storages(network) else []
    profile, drawn = _profile(base, float(loads.p_kw.sum()))
    return [*settings, *own, *profile], [], [_head(name, loads.bus_ids, places), *drawn, *said, *storage, *ac.notes]


def on_opendss(base: Scenario, grid: str, text: str, places: Sequence[Place]) -> Made:
    if not installed():
        raise ScenarioError("OpenDSS is not installed; pip install 'aidc-cosim[opendss]'")
    circuit = Circuit(Path(text), "--network")
    if base.members[grid].params.get("batteries"):
        idle = [Setting(f"{grid}.{field}", {}, f"was for the circuit of {base.name}")
                for field in ("batteries", "battery_set_kw")]
    else:
        idle = []
    for place in places:
        circuit.position(str(place.bus), f"bus of {text} (--site {place.name}={place.bus}:{place.gpus})")
    if any("shape" in fields_in(m.simulator) and "network" in fields_in(m.simulator) for m in base.members.values()):
        raise ScenarioError(f"--from {base.name}: it draws the loads of another network beside those of a circuit; "
                            "--from ieee13_opendss")
    upstream = {"kg_per_kwh": _substation(base, grid).get("kg_per_kwh", 0.3)}
    drawn, fed = circuit.own_kw()
    settings = [
        Setting(f"{grid}.master", text, "path as seen from the folder in which it is run"),
        Setting(f"{grid}.sources", {"substation": {"bus": circuit.buses[circuit.slack], **upstream}},
                f"the circuit's source; intensity as in {base.name}, whose other sources are left out"),
        *idle,
        Setting(f"{grid}.entities", {"Bus": "network", "Grid": ["grid"]}, "all buses of the circuit")]
    lines = [f"{text}: {len(circuit.buses)} buses; " + ", ".join(f"{p.name} with {p.gpus} GPUs at bus {p.bus}"
                                                               for p in places),
             f"base load: {drawn.sum():.0f} kW in the circuit, times {grid}.load_mult of {base.name}"]
    if fed.any():
        lines.append(f"{fed.sum():.0f} kW that generators of the circuit feed count as local generation at 0 kg/kWh")
    return settings, [], lines
