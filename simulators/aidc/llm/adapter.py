"""AI data centers that serve language models, on the bus: those of `aidc.adapter` with classes of kind `llm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cosim.adapter import serve
from cosim.errors import ScenarioError
from cosim.ports import Batch
from cosim.simulators.aidc.adapter import AidcParams, DataCenters
from cosim.simulators.aidc.engine.site_state import SiteState
from cosim.simulators.aidc.llm.facility import ServingFacility
from cosim.simulators.aidc.llm.ports import SERVING
from cosim.simulators.aidc.llm.records import ServingTick
from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.aidc.site import SiteOnBus
from cosim.simulators.fleet import TOKEN_COLUMNS, Site

_PORTS = ("llm_dynamic_kw", "llm_ready_kw", "llm_ready_gpus", "prefill_tokens", "output_tokens", "preemptions",
          "replicas", "starting_replicas", "kv_cache_ratio")
"""In the order of the first fields of `ServingTick`."""
_TABLES = ("llm_requests", "llm_use", "llm_gaps")
_NOTHING = ServingTick(*(0.0,) * len(_PORTS))


class ServingSite(SiteOnBus):
    """A site with outputs of what its replicas did."""

    facility: ServingFacility

    def idle(self) -> dict[str, Any]:
        """As of a site without replicas, which it has none of so far."""
        return super().idle() | self._served() | dict.fromkeys(_TABLES, {})

    def tick(self, end_s: float, step_s: float, inputs: Mapping[str, Any], spare: bool = False) -> dict[str, Any]:
        """As of any site, and what its replicas did."""
        if isinstance(inputs["max_batch"], list):  # else nothing is linked
            self.facility.limit_batches(inputs["max_batch"])
        values = super().tick(end_s, step_s, inputs, spare)
        rows = {"llm_requests": self.facility.request_rows(), "llm_use": self.facility.use_rows(),
                "llm_gaps": self.facility.gap_rows()}
        values.update(self._served() | rows)
        return values

    def _served(self) -> dict[str, Any]:
        ticks = [self.facility.ticks.get(name, _NOTHING)[:len(_PORTS)] for name in self.facility.names]
        return {port: list(column) for port, column in zip(_PORTS, zip(*ticks, strict=True), strict=True)}


class LlmDataCenters(DataCenters):
    """AI data centers with job classes of kind `llm`, served by replicas; all other classes as in `DataCenters`.

    Tokens, work and energy are conserved per site and class: what the ports of a run add up to is what the rows of
    `llm_requests` and `llm_use` and the replicas without work do.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("train", "inf", "llm")
    SITE_ON_BUS = ServingSite
    VARIANTS = ("cosim.simulators.aidc.llm.capped:CappedLlmDataCenters",)
    MODELS = {"Site": (*DataCenters.MODELS["Site"], *SERVING)}

    @classmethod
    def check_scenario(cls, member: str, given: AidcParams, scenario: Any) -> None:
        """As `DataCenters`; ScenarioError for racks that fail, and for a replica that no site can hold."""
        super().check_scenario(member, given, scenario)
        served = {name: c for name, c in given.job_classes.items() if c.kind == "llm"}
        if served and given.rack_mean_up_s is not None:
            raise ScenarioError(f"{member}.rack_mean_up_s = {given.rack_mean_up_s:g}: racks do not fail at sites that "
                                f"serve language models ({', '.join(served)}); leave it out")
        most = max(site.gpus for site in given.sites.values())
        for name, job_class in served.items():
            if job_class.gpus_per_block > most:
                raise ScenarioError(f"job_classes.{name}: a replica takes {job_class.gpus_per_block} GPUs, and no site "
                                    f"has more than {most}; give the sites more racks")

    def carry(self) -> dict[str, np.ndarray]:
        """As `DataCenters`, with the tokens of the requests inside."""
        tokens = [pair for site in self._sites.values() for pair in self._facility_of(site).kept_tokens()]
        columns = np.array(tokens, np.int64).reshape(-1, 2)
        return super().carry() | {f"jobs/{name}": columns[:, k] for k, name in enumerate(TOKEN_COLUMNS)}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """As `DataCenters`, but for requests of language models: they begin anew, and replicas are ready at once."""
        super().resume(carry)
        for values in self._last.values():
            values |= dict.fromkeys(_TABLES, {})

    def _restore(self, site: SiteOnBus, memory: SiteState, carry: Mapping[str, np.ndarray]) -> None:
        old = carry["jobs/id"]
        ids = np.empty(len(old), np.int64)  # those that `unpack` gives
        ids[np.argsort(old, kind="stable")] = np.arange(-len(old), 0)
        pairs = zip(*(carry[f"jobs/{name}"].tolist() for name in TOKEN_COLUMNS), strict=True)
        self._facility_of(site).restore(memory, dict(zip(ids.tolist(), pairs, strict=True)))

    def closing(self) -> dict[str, dict[str, Batch]]:
        """As `DataCenters`, and the requests inside."""
        rows = super().closing()
        if self.params.job_log:
            for eid, site in self._sites.items():
                rows.setdefault(eid, {})["llm_requests"] = self._facility_of(site).unfinished_requests()
        return rows

    def notes(self) -> list[str]:
        """As `DataCenters`, and which requests were longer than their class allows."""
        return super().notes() + [
            f"{self.sid}.{eid}: {pool.rejected} requests of {pool.name} were longer than max_context_tokens and "
            "rejected"
            for eid, site in self._sites.items() for pool in self._facility_of(site).served if pool.rejected]

    @staticmethod
    def _facility_of(site: SiteOnBus) -> ServingFacility:
        assert isinstance(site.facility, ServingFacility), "_engine makes these"
        return site.facility

    def _engine(self, eid: str, site: Site, cooling: Cooling, inside: bool) -> ServingFacility:
        given = self.params
        return ServingFacility(eid, site, given.job_classes, cooling, given.initial_supply_temp_degc,
                               job_log=given.job_log, resolve_power=inside, at_arrival=given.routing == "arrival")


if __name__ == "__main__":
    serve(LlmDataCenters)
