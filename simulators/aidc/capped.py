"""AI data centres that keep a power cap: ports and parameters of `DataCenters`, and those of the cap.

A class of its own, so that fleets without caps have neither its ports in their traces nor its work in their minutes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from cosim.adapter import serve
from cosim.errors import ScenarioError
from cosim.params import params
from cosim.ports import Port
from cosim.simulators.aidc.adapter import AidcParams, DataCenters
from cosim.simulators.aidc.engine.capped import NO_CAP_KW, SLACK_KW, CappedFacility, CapRules
from cosim.simulators.aidc.engine.offer import Offer, OfferRules
from cosim.simulators.aidc.plant.ambient import OutdoorAir
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.aidc.plant.thermal import outside_degc
from cosim.simulators.aidc.ports import per_class
from cosim.simulators.aidc.site import SiteOnBus
from cosim.simulators.fleet import Site
from cosim.units import format_time


@params
class CappedParams(AidcParams):
    """Parameters of `CappedDataCenters`: those of `DataCenters`, and how a cap is kept."""

    cap: Annotated[CapRules, Field(description="how sites keep a power cap")] = CapRules()
    offer: Annotated[OfferRules | None, Field(
        description="when sites work out what they could draw less; null: they do not")] = None


@params
class SlowingParams(CappedParams):
    """Parameters of data centers whose GPUs have power limits, which are a way to keep a cap."""

    slow_for_cap: Annotated[bool, Field(
        description="under a cap of the site GPUs are slowed, down to the lowest power limits they keep, before work "
        "is withheld; false: work is withheld at once")] = True

    def check_slowing(self, member: str, of: str) -> None:
        """ScenarioError for what does not go with GPUs that are slowed; of: what has the limits."""
        for field, there, why in (
                ("offer", self.offer is not None, f"what could be drawn less is not worked out for {of}"),
                ("cap.running = stop", self.cap.running == "stop", "what runs is slowed for a cap, not stopped")):
            if there:
                raise ScenarioError(f"{member}.{field}: {why}; leave it out")


class CappedSite(SiteOnBus):
    """A site whose cap is set at the begin of a tick, with outputs of how it was kept.

    above_s, most_kw   time above the cap so far, and by how much at most
    """

    facility: CappedFacility
    above_s, most_kw, _cap_kw = 0.0, 0.0, math.nan
    rules: OfferRules | None = None
    _offered: Offer | None = None

    def limit(self, inputs: Mapping[str, Any], outside: OutdoorAir) -> None:
        """The cap of the tick; NaN is none."""
        self._cap_kw = inputs["p_cap_kw"]
        self.facility.cap(NO_CAP_KW if math.isnan(self._cap_kw) else self._cap_kw,
                          outside_degc(self.plant.cooling, outside))

    def idle(self) -> dict[str, Any]:
        """As of a site without a cap, which it has none of so far."""
        return super().idle() | self._capped(0.0)

    def tick(self, end_s: float, step_s: float, inputs: Mapping[str, Any], spare: bool = False) -> dict[str, Any]:
        """As of a site without a cap, and how the cap was kept."""
        values = super().tick(end_s, step_s, inputs, spare)
        excess_kw = values["p_kw"] - self._cap_kw
        if not excess_kw > SLACK_KW:  # or there is no cap
            excess_kw = 0.0
        self.above_s += step_s if excess_kw else 0.0
        self.most_kw = max(self.most_kw, excess_kw)
        if self.rules is not None and (end_s - step_s) % self.rules.every_s < step_s:
            self._offered = self.facility.offer(self.rules)
        values.update(self._capped(excess_kw))
        return values

    def _capped(self, excess_kw: float) -> dict[str, Any]:
        train_kw, inf_kw, by_min = self._offered or ([], [], math.nan)
        unknown = [math.nan] * len((self.rules or OfferRules()).holds_s)
        return {"p_cap_kw": self._cap_kw, "cap_excess_kw": excess_kw, "held_gpus": self.facility.held_gpus(),
                "flex_train_kw": list(train_kw) or unknown, "flex_inf_kw": list(inf_kw) or unknown,
                "flex_inf_by_min": by_min}


class CappedDataCenters(DataCenters):
    """AI data centres whose sites keep a power cap at the meter, cooling and losses included; see `engine.capped`.

    A site without a link to `p_cap_kw` has no cap, and is one of `DataCenters` in every respect.
    """

    PARAMS = CappedParams
    SERVING = "cosim.simulators.aidc.llm.capped:CappedLlmDataCenters"
    SITE_ON_BUS = CappedSite
    MODELS = {
        "Site": (
            *DataCenters.MODELS["Site"],
            Port("p_cap_kw", "in", "the most that the site may draw from now on, cooling and losses included; NaN: no "
                 "cap", sign=">= 0", default=math.nan, nullable=True),
            Port("p_cap_kw", "out", "cap of the tick; NaN: none", sign=">= 0", nullable=True),
            Port("cap_excess_kw", "out", "active power beyond the cap, means over the tick", sign=">= 0"),
            per_class("held_gpus", "GPUs that jobs would take at the end of the tick and the cap keeps from them"),
            Port("flex_train_kw", "out", "IT power that training could give up at once and for the hold, and still "
                 "meet its deadlines; NaN: not worked out", sign="> 0 is drawn less", dims=("hold",), nullable=True),
            Port("flex_inf_kw", "out", "IT power that inference could give up for the hold, and still start in time; "
                 "NaN: not worked out", sign="> 0 is drawn less", dims=("hold",), nullable=True),
            Port("flex_inf_by_min", "out", "time until the inference that runs has ended; NaN: not worked out",
                 nullable=True),
        )
    }

    @classmethod
    def check_scenario(cls, member: str, given: Any, scenario: Any) -> None:
        """As `DataCenters`; ScenarioError for names in `cap.gives_way` that are no classes."""
        super().check_scenario(member, given, scenario)
        given.cap.ranked(given.job_classes, f"{member}.cap")

    def labels(self) -> dict[str, list[str]]:
        """As `DataCenters`, and the holds of `offer`."""
        return super().labels() | {"hold": (self.params.offer or OfferRules()).labels()}

    def _site(self, eid: str) -> SiteOnBus:
        site = super()._site(eid)
        assert isinstance(site, CappedSite), "SITE_ON_BUS"
        site.rules = self.params.offer
        return site

    def notes(self) -> list[str]:
        """As `DataCenters`, and for how long sites drew more than their cap."""
        rules = self.params.cap
        return super().notes() + [
            f"{self.sid}.{eid}: drew more than its cap for {format_time(site.above_s)}, by {site.most_kw:.4g} kW at "
            f"most; what it draws idle, or what runs and may not be stopped ({self.sid}.cap.running={rules.running}, "
            f"gives_way={','.join(rules.gives_way) or 'nobody'}), was above it"
            for eid, site in self._sites.items() if isinstance(site, CappedSite) and site.above_s]

    def _engine(self, eid: str, site: Site, cooling: Cooling, inside: bool) -> CappedFacility:
        given = self.params
        return CappedFacility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc, given.cap,
                              f"{self.sid}.cap", job_log=given.job_log, resolve_power=inside,
                              racks=self._racks(eid, site), at_arrival=given.routing == "arrival")


if __name__ == "__main__":
    serve(CappedDataCenters)
