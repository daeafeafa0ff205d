"""AI data centers that serve language models on GPUs with power limits, and keep a power cap, on the bus: those of
`llm.adapter` and of `aidc.capped`, and these.

A class of its own, so that fleets without limits have neither its ports in their traces nor its work in their minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosim.adapter import serve
from cosim.errors import ScenarioError
from cosim.simulators.aidc.capped import CappedDataCenters, CappedSite, SlowingParams
from cosim.simulators.aidc.llm.adapter import LlmDataCenters, ServingSite
from cosim.simulators.aidc.llm.capped_facility import CappedServingFacility, LimitTick
from cosim.simulators.aidc.llm.ports import LIMITS, SERVING
from cosim.simulators.aidc.plant.ambient import OutdoorAir
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.fleet import JobClass, Site


class CappedServingSite(ServingSite, CappedSite):
    """A site with outputs of what its replicas did, of their power limits and of its cap."""

    facility: CappedServingFacility

    def limit(self, inputs: Mapping[str, Any], outside: OutdoorAir) -> None:
        """As of a capped site, and the power limits that are commanded; a single number stands for all classes."""
        given = inputs["gpu_limit_set_kw"]
        self.facility.limit_power(given if isinstance(given, (list, tuple)) else [given] * len(self.facility.names))
        super().limit(inputs, outside)

    def idle(self) -> dict[str, Any]:
        """As of a capped site without replicas."""
        return super().idle() | _of_limits(self.facility.limits)

    def tick(self, end_s: float, step_s: float, inputs: Mapping[str, Any], spare: bool = False) -> dict[str, Any]:
        """As of a capped site, and what power limits did."""
        values = super().tick(end_s, step_s, inputs, spare)
        values.update(_of_limits(self.facility.limits))
        return values


def _of_limits(did: LimitTick) -> dict[str, Any]:
    return {"gpu_limit_kw": did.limit_kw, "slowed_s": did.slowed_s, "cap_slowed_s": did.capped_s}


class CappedLlmDataCenters(LlmDataCenters, CappedDataCenters):
    """AI data centers with language models whose replicas' GPUs have power limits, which other members may command and
    by which a site keeps a cap before it withholds work; see `capped_facility`. Without commands and caps as
    `LlmDataCenters`."""

    PARAMS = SlowingParams
    SITE_ON_BUS = CappedServingSite
    MODELS = {"Site": (*CappedDataCenters.MODELS["Site"], *SERVING, *LIMITS)}

    @classmethod
    def check_scenario(cls, member: str, given: Any, scenario: Any) -> None:
        """As `LlmDataCenters`; ScenarioError for what does not go with limits, and where limits are commanded and no
        class can have one."""
        super().check_scenario(member, given, scenario)
        given.check_slowing(member, "replicas")
        why = _not_limited(given.job_classes)
        port = f"{member}.gpu_limit_set_kw"
        if why and all(why.values()) and any(link.target == port for link in scenario.links):
            name, text = next(iter(why.items()))
            raise ScenarioError(f"{port} is linked, but no class can have a limit: job_classes.{name}.serving: {text}")

    def setup(self) -> None:
        """As `LlmDataCenters`; ScenarioError for what does not go with limits."""
        self.params.check_slowing(self.sid, "replicas")
        super().setup()

    def notes(self) -> list[str]:
        """As `LlmDataCenters`, where limits were commanded that GPUs cannot keep, and who cannot be slowed."""
        facilities = {eid: self._limits_of(site) for eid, site in self._sites.items()}
        said = [f"{self.sid}.{eid}: {facility.clipped_limits} commanded power limits were outside what the replicas' "
                "GPUs can keep, and set to the nearest that they can"
                for eid, facility in facilities.items() if facility.clipped_limits]
        why = _not_limited(self.params.job_classes)
        if self.params.slow_for_cap and any(facility.was_capped for facility in facilities.values()):
            said += [f"{self.sid}: replicas of {name} are not slowed for a cap: {text}" for name, text in why.items()
                     if text is not None]
        return super().notes() + said

    @staticmethod
    def _limits_of(site: Any) -> CappedServingFacility:
        assert isinstance(site.facility, CappedServingFacility), "_engine makes these"
        return site.facility

    def _engine(self, eid: str, site: Site, cooling: Cooling, inside: bool) -> CappedServingFacility:
        given = self.params
        return CappedServingFacility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, given.cap,
                                     f"{self.sid}.cap", given.slow_for_cap, job_log=given.job_log,
                                     resolve_power=inside, at_arrival=given.routing == "arrival")


def _not_limited(job_classes: Mapping[str, JobClass]) -> dict[str, str | None]:
    """Class of kind llm -> why its GPUs can have no power limit; None: they can."""
    return {name: c.serving.not_limited for name, c in job_classes.items() if c.serving is not None}


if __name__ == "__main__":
    serve(CappedLlmDataCenters)
