"""A scenario on a network of one's own: what of a scenario that ships changes for it (cosim new --network).

The network's loads, generators and storage are read from its file (`own_network_grid`), data centers are placed on its
buses, and the load offered to them is scaled to their size. What the file does not state is taken over from the
scenario, or assumed, and each setting states which.

Rows: I25, M03.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosim.agents.fleet.policies import checkpoint_of
from cosim.errors import ScenarioError, cut
from cosim.imports import load
from cosim.params import field_names, validate
from cosim.scenario import Scenario, rows_of
from cosim.simulators.fleet import JobClass, Site
from cosim.simulators.own_network_grid import Place, Setting, fields_in, on_ac, on_dispatch, on_opendss

RULE = "nci_priority"
"""Policy in the place of a team that was trained on the scenario's own network."""
DSS = ".dss"
_GRIDS = {"cosim.simulators.grid.adapter:CefDispatch": "dispatch", "cosim.simulators.grid.ac:AcPowerFlow": "ac",
          "cosim.simulators.grid.opendss:OpenDss": "opendss"}
_SITE = re.compile(r"([^=]+)=([^:]+):(.+)")
_GPUS_PER_RACK = 8
_EXTENSIVE = ("fan_flow_m3_per_s", "tower_ref_kw", "tower_flow_m3_per_s", "heat_capacity_kj_per_k", "loss_rated_kw",
              "auxiliary_kw")
"""Fields of a cooling plant that grow with its site."""


@dataclass(frozen=True, slots=True)
class OnNetwork:
    """What makes a scenario one on another network: settings, links beside its own, and lines to print."""

    settings: tuple[Setting, ...]
    links: tuple[dict[str, str], ...]
    lines: tuple[str, ...]


def on_network(base: Scenario, source: str, network: str, sites: Sequence[str]) -> OnNetwork:
    """Settings that put `base`, called `source` by the user, on a network, with data centers 'NAME=BUS:GPUS'.

    network: as `shared.network` names one, a .yaml or .json file with a list of lines, or a .dss file. ScenarioError,
    in one line, for what cannot be: a bus that is not there or not in service, a site that is given twice, a network
    that the scenario's grid does not take, storage that is no battery.
    """
    grid = next((name for name, m in base.members.items() if m.simulator in _GRIDS), None)
    if grid is None or "sites" not in base.shared:
        raise ScenarioError(f"--from {source}: it has no grid that reads a network, or no table of sites; start from "
                            "ieee33")
    places = _places(sites)
    kind = _GRIDS[base.members[grid].simulator]
    if network.endswith(DSS) != (kind == "opendss"):
        other = ("ieee13_opendss, whose grid is OpenDSS" if network.endswith(DSS) else
                 "ieee33, or ieee33_meshed for one that is not radial")
        raise ScenarioError(f"--network {network}: the grid of {source} takes no such file; --from {other}")
    reads = {"dispatch": on_dispatch, "ac": on_ac, "opendss": on_opendss}[kind]
    settings, links, lines = reads(base, grid, network, places)
    return OnNetwork(tuple([*settings, *_fleet(base, source, places)]), tuple(links), tuple(lines))


# --- data centers -----------------------------------------------------------------------------------------------------

def _places(sites: Sequence[str]) -> list[Place]:
    if not sites:
        raise ScenarioError("--network needs a data center: --site NAME=BUS:GPUS, e.g. --site aidc1=12:400")
    found: dict[str, Place] = {}
    for text in sites:
        match = _SITE.fullmatch(text.strip())
        if match is None:
            raise ScenarioError(f"--site {cut(text)}: write NAME=BUS:GPUS, e.g. aidc1=12:400 for 400 GPUs at bus 12")
        name, bus, size = (part.strip() for part in match.groups())
        if not size.isdigit() or not int(size):
            raise ScenarioError(f"--site {cut(text)}: the size is a whole number of GPUs above 0, got '{cut(size)}'")
        if name in found:
            raise ScenarioError(f"--site {cut(text)}: {name} is given twice; each data center has a name of its own")
        found[name] = Place(name, int(bus) if bus.isdigit() else bus, int(size))
    return list(found.values())


def _fleet(base: Scenario, source: str, places: Sequence[Place]) -> list[Setting]:
    rows = rows_of(base.shared["sites"], "sites")
    like = next(iter(rows.values()))
    size = validate(Site, like, "sites")
    classes = rows_of(base.shared.get("job_classes", {}), "job_classes")
    blocks = {name: validate(JobClass, row, name).gpus_per_block for name, row in classes.items()}
    table: dict[str, Any] = {}
    for place in places:
        if blocks and place.gpus < max(blocks.values()):
            widest = max(blocks, key=blocks.__getitem__)
            raise ScenarioError(f"--site {place.name}={place.bus}:{place.gpus}: {place.gpus} GPUs; a job of class "
                                f"{widest} needs {blocks[widest]} at once")
        per_rack = next(k for k in range(min(_GPUS_PER_RACK, place.gpus), 0, -1) if place.gpus % k == 0)
        table[place.name] = {**like, "node": place.bus, "racks": place.gpus // per_rack, "gpus_per_rack": per_rack,
                             "idle_kw": size.idle_kw * place.gpus / size.gpus}
    settings = [Setting("shared.sites", table, f"racks x gpus_per_rack is the size; idle power as in {source}, "
                        f"{size.idle_kw / size.gpus:g} kW per GPU")]
    settings += _by_site_name(base, rows)
    total, before = sum(p.gpus for p in places), sum(validate(Site, row, "sites").gpus for row in rows.values())
    for name, member in base.members.items():
        fields = fields_in(member.simulator)
        if "rate_scale" in fields and "arrivals" in fields:
            rate = float(member.params.get("rate_scale", 1.0)) * total / before  # type: ignore[arg-type]
            settings.append(Setting(f"{name}.rate_scale", rate, f"as many jobs per GPU as in {source}: {total} GPUs "
                                    f"here, {before} there"))
        if "policy" in fields and checkpoint_of(str(member.params.get("policy", RULE))) is not None:
            settings.append(Setting(f"{name}.policy", RULE, f"a rule; {member.params['policy']} was trained on the "
                                    f"network of {source}"))
        if "site_cooling" in fields:
            settings += _cooling(member, name, places, size.gpus)
    return settings


def _by_site_name(base: Scenario, rows: Mapping[str, Any]) -> list[Setting]:
    """Parameters that the scenario has for its own sites by name are left out."""
    return [Setting(f"{name}.{field}", {}, "was for the data centers of the scenario it starts from")
            for name, member in base.members.items() for field, value in member.params.items()
            if field != "site_cooling" and isinstance(value, dict) and value and set(value) <= set(rows)]


def _cooling(member: Any, name: str, places: Sequence[Place], gpus: int) -> list[Setting]:
    """Cooling plants of sites that are larger or smaller than the one a plant of the scenario is for."""
    given = load(member.simulator, name).PARAMS
    plant = validate(given, {**member.params, "job_classes": {"any": {
        "kind": "inf", "work_to": 1.0, "deadline_s": 1.0, "to_per_gpu_min": 1.0, "kw_per_to_s": 0.0}},
        "sites": {"any": {"node": 0}}, "site_cooling": {}, "site_ambient": {}}, name).cooling
    tables = {p.name: {**{field: getattr(plant, field) * p.gpus / gpus for field in _EXTENSIVE},
                       **({} if plant.capacity_kw is None else {"capacity_kw": plant.capacity_kw * p.gpus / gpus}),
                       **_rest(plant)} for p in places if p.gpus != gpus}
    return [Setting(f"{name}.site_cooling", tables, f"the plant of {gpus} GPUs, in proportion")] if tables else []


def _rest(plant: Any) -> dict[str, Any]:
    """Of a cooling plant, what differs from its defaults and does not grow with its site."""
    default = type(plant)()
    return {field: getattr(plant, field) for field in field_names(type(plant))
            if field not in (*_EXTENSIVE, "capacity_kw") and getattr(plant, field) != getattr(default, field)}
