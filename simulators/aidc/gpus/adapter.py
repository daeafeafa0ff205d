"""AI data centers whose GPUs have types, power limits and sleep, on the bus: those of `aidc.capped`, and these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from cosim.adapter import serve
from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.simulators.aidc.adapter import DataCenters
from cosim.simulators.aidc.capped import CappedDataCenters, CappedSite, SlowingParams
from cosim.simulators.aidc.engine.site_state import SiteState
from cosim.simulators.aidc.gpus.account import GpuTick
from cosim.simulators.aidc.gpus.facility import GpuFacility, Placement
from cosim.simulators.aidc.gpus.ports import GPUS
from cosim.simulators.aidc.gpus.states import STATES, SleepRules
from cosim.simulators.aidc.plant.ambient import OutdoorAir
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.aidc.site import SiteOnBus
from cosim.simulators.fleet import Site, may_run


@params
class GpuParams(SlowingParams):
    """Parameters of `GpuDataCenters`: those of `CappedDataCenters`, and how GPUs are used."""

    placement: Annotated[Placement, Field(
        description="which free GPUs a job takes first. fastest: of the type on which it is fastest; efficient: on "
        "which its work takes the least energy, hosts included")] = "fastest"
    sleep: Annotated[SleepRules | None, Field(description="when idle GPUs go to sleep; null: never by themselves")] = (
        None)


class GpuSite(CappedSite):
    """A site with outputs of its GPUs, each type's put where the fleet's axis of types has it.

    fleet_types   names of all types of the fleet; `setup` of the adapter sets them
    """

    facility: GpuFacility
    fleet_types: list[str]

    def limit(self, inputs: Mapping[str, Any], outside: OutdoorAir) -> None:
        """As of a capped site, and what is commanded of the GPUs."""
        self.facility.set_gpus(self._of_mine(inputs["gpu_limit_set_kw"]), self._of_mine(inputs["awake_set_gpus"]))
        super().limit(inputs, outside)

    def idle(self) -> dict[str, Any]:
        """As of a capped site, all GPUs awake."""
        types, classes = self.facility.types, len(self.facility.held_gpus())
        return super().idle() | self._gpus(GpuTick(
            [n for t in types for n in (0.0, float(t.count), 0.0, 0.0)],
            [kw for t in types for kw in (0.0, t.count * t.awake_kw, 0.0, 0.0)],
            [0.0] * (len(types) * classes), [0.0] * (len(types) * classes),
            [t.peak_kw if t.limit_kw is None else t.limit_kw for t in types], [0.0] * len(types), 0.0))

    def tick(self, end_s: float, step_s: float, inputs: Mapping[str, Any], spare: bool = False) -> dict[str, Any]:
        """As of a capped site, and what the GPUs did."""
        values = super().tick(end_s, step_s, inputs, spare)
        values.update(self._gpus(self.facility.tick))
        return values

    def _gpus(self, tick: GpuTick) -> dict[str, Any]:
        classes = len(tick.work_gpus) // len(self.facility.types)
        return {"state_gpus": self._spread(tick.state_gpus, len(STATES)),
                "state_kw": self._spread(tick.state_kw, len(STATES)),
                "work_gpus": self._spread(tick.work_gpus, classes),
                "work_dynamic_kw": self._spread(tick.dynamic_kw, classes),
                "gpu_limit_kw": self._spread(tick.limit_kw, 1), "slowed_s": self._spread(tick.slowed_s, 1),
                "cap_slowed_s": tick.capped_s}

    def _spread(self, values: list[float], each: int) -> list[float]:
        """Numbers of the site's types, `each` of one type, on the axis of all types; 0 of types it does not have."""
        names = self.facility.type_names
        return [x for name in self.fleet_types for x in (
            values[names.index(name) * each:(names.index(name) + 1) * each] if name in names else [0.0] * each)]

    def _of_mine(self, given: Any) -> list[float]:
        """What is commanded of the site's types; a single number stands for all."""
        if isinstance(given, (list, tuple)):
            return [float(given[self.fleet_types.index(name)]) for name in self.facility.type_names]
        return [float(given)] * len(self.facility.types)


class GpuDataCenters(CappedDataCenters):
    """AI data centers with GPU types: which are fast, what they draw idle, busy, slowed and asleep; see `gpus`."""

    PARAMS = GpuParams
    SITE_ON_BUS = GpuSite
    TYPED = True
    MODELS = {"Site": (*CappedDataCenters.MODELS["Site"], *GPUS)}

    @classmethod
    def check_scenario(cls, member: str, given: Any, scenario: Any) -> None:
        """As `CappedDataCenters`; ScenarioError for what does not go with GPU types, and classes that fit on none."""
        super().check_scenario(member, given, scenario)
        _refuse(member, given)
        names = fleet_types(given.sites)
        for name, job_class in given.job_classes.items():
            for strange in job_class.gpu_speed_ratio:
                if strange not in names:
                    raise ScenarioError(f"job_classes.{name}.gpu_speed_ratio: {unknown('GPU type', strange, names)}")
            here = {k: site for k, site in given.sites.items() if may_run(job_class, k)}
            if here and not any(site.fitting_types(job_class) for site in here.values()):
                most = max(t.memory_gb for site in here.values() for t in site.gpu_types.values())
                raise ScenarioError(f"job_classes.{name}.memory_gb = {job_class.memory_gb:g}: no GPU that may run it "
                                    f"has more than {most:g} GB; lower it, or give a site a type with more memory")

    def labels(self) -> dict[str, list[str]]:
        """As `CappedDataCenters`; types, types with states, types with job classes."""
        types = fleet_types(self.params.sites)
        return super().labels() | {
            "gpu_type": types, "gpu_state": [f"{t} {state}" for t in types for state in STATES],
            "gpu_work": [f"{t} {m}" for t in types for m in self.params.job_classes]}

    def carry(self) -> dict[str, np.ndarray]:
        """As `DataCenters`, with the states of the GPUs: rows of site, type, state (0 asleep, 1 idle, 2 waking), since
        or until when, and how many."""
        rows: list[tuple[float, ...]] = []
        for i, site in enumerate(self._sites.values()):
            for t, (asleep, idle, waking) in enumerate(_facility_of(site).kept_gpus()):
                rows.append((i, t, 0, 0.0, asleep))
                rows += [(i, t, 1 + k, time_s - self._now_s, n) for k, kept in enumerate((idle, waking))
                         for time_s, n in kept]
        return super().carry() | {"gpus": np.array(rows, dtype=np.float64).reshape(-1, 5)}

    def _restore(self, site: SiteOnBus, memory: SiteState, carry: Mapping[str, np.ndarray]) -> None:
        i, facility = list(self._sites.values()).index(site), _facility_of(site)
        rows = [row for row in carry["gpus"].tolist() if int(row[0]) == i]
        kept = []
        for t in range(len(facility.types)):
            asleep, idle, waking = ([row[3:] for row in rows if row[1:3] == [t, k]] for k in range(3))
            kept.append((int(asleep[0][1]), idle, waking))
        facility.restore(memory, kept)

    def notes(self) -> list[str]:
        """As `CappedDataCenters`, and where power limits were commanded that GPUs cannot keep."""
        return super().notes() + [
            f"{self.sid}.{eid}: {facility.clipped_limits} commanded power limits were outside what the GPU types can "
            "keep, and set to the nearest that they can"
            for eid, site in self._sites.items() if (facility := _facility_of(site)).clipped_limits]

    def setup(self) -> None:
        """As `CappedDataCenters`; ScenarioError for what does not go with GPU types."""
        _refuse(self.sid, self.params)
        super().setup()

    def _site(self, eid: str) -> SiteOnBus:
        site = super()._site(eid)
        assert isinstance(site, GpuSite), "SITE_ON_BUS"
        site.fleet_types = fleet_types(self.params.sites)
        return site

    def _engine(self, eid: str, site: Site, cooling: Cooling, inside: bool) -> GpuFacility:
        given = self.params
        return GpuFacility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, given.cap,
                           f"{self.sid}.cap", given.placement, given.sleep, given.slow_for_cap, job_log=given.job_log,
                           resolve_power=inside, at_arrival=given.routing == "arrival")


def fleet_types(sites: Mapping[str, Site]) -> list[str]:
    """Names of the GPU types of a fleet, in the order in which sites name them."""
    return list(dict.fromkeys(name for site in sites.values() for name in site.gpu_types))


def _refuse(member: str, given: GpuParams) -> None:
    """ScenarioError for what does not go with GPU types."""
    for name, site in given.sites.items():
        if not site.gpu_types:
            raise ScenarioError(f"sites.{name} has no gpu_types, which GpuDataCenters goes by; give them, say "
                                f"gpu_types: {{H100: {{count: {site.gpus}}}}}, or set {member}.simulator to "
                                f"{DataCenters.__module__}:{DataCenters.__name__}")
        for label, figures in site.gpu_types.items():
            if given.sleep is not None and given.sleep.unit_gpus > figures.count:
                raise ScenarioError(f"{member}.sleep.unit_gpus = {given.sleep.unit_gpus} is more than the "
                                    f"{figures.count} {label} of {name}, none of which could sleep; make it smaller")
    if given.rack_mean_up_s is not None:
        raise ScenarioError(f"{member}.rack_mean_up_s: racks do not fail where GPUs have types; leave it out")
    given.check_slowing(member, "GPU types")


def _facility_of(site: SiteOnBus) -> GpuFacility:
    assert isinstance(site.facility, GpuFacility), "_engine makes these"
    return site.facility


if __name__ == "__main__":
    serve(GpuDataCenters)
