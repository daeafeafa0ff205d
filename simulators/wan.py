"""The wide-area network between clients, or the places where data lie, and sites: latency, transfer time, energy.

A job comes from an origin: a region of clients, or a site at which its data lie. To reach a site it takes the latency
from there, and the time of its data over the bandwidth; what a site answers takes the latency back. Every job has the
bandwidth for itself: no link is shared, and none is full. Energy is that of the network's own equipment, per GB that
goes over it; it is drawn somewhere between, by no site and no bus of the grid, and so is an account of its own, at an
intensity of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import Field, model_validator

from cosim.errors import ScenarioError, unknown
from cosim.params import params
from cosim.units import Seconds

BITS_PER_BYTE = 8.0
MOST_S = 3600.0
Latency = Annotated[Seconds, Field(ge=0, le=MOST_S)]
Bandwidth = Annotated[float, Field(gt=0, le=1e6)]
Gigabytes = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1e12)]


@params(kw_only=True)
class Wan:
    """Parameters of the network; see above."""

    latency_s: Annotated[dict[str, dict[str, Latency]], Field(
        min_length=1, description="one way, from every origin (a region of clients, or a site where data lie) to every "
        "site; from a site to itself 0 if left out")]
    shares: Annotated[dict[str, Share], Field(
        min_length=1, description="which part of the jobs comes from which origin; any numbers, 1:1:2 for example")]
    class_shares: Annotated[dict[str, dict[str, Share]], Field(
        description="the same of single classes, where it differs")] = Field(default_factory=dict)
    data_gb: Annotated[dict[str, Gigabytes], Field(
        description="data that a job of a class moves to its site, GB; none if left out, and none to the site at which "
        "they lie")] = Field(default_factory=dict)
    bandwidth_gbps: Annotated[Bandwidth | dict[str, dict[str, Bandwidth]], Field(
        description="of one job's transfer, Gbit/s: a number for all, or from every origin to every site")] = 10.0
    energy_kwh_per_gb: Annotated[float, Field(
        ge=0, le=1e3, description="energy of the network per GB. Default: fixed-line transmission in 2015 (J. Aslan et "
        "al., J. Ind. Ecol. 22 (2018) 785), who find it halved every two years")] = 0.06
    carbon_kg_per_kwh: Annotated[float, Field(
        ge=0, le=10, description="intensity at which that energy is counted, wherever it is drawn. Default: the "
        "world's mean of 2023 (Ember, Global Electricity Review 2024)")] = 0.48

    @model_validator(mode="after")
    def _origins_are_there(self) -> Wan:
        for where, shares in (("shares", self.shares),
                              *((f"class_shares.{name}", of) for name, of in self.class_shares.items())):
            for origin in shares:
                if origin not in self.latency_s:
                    raise ValueError(f"{where}: {unknown('origin in latency_s', origin, self.latency_s)}")
            if not sum(shares.values()) > 0.0:
                raise ValueError(f"{where} are all 0; give one origin a share above 0")
        return self

    @property
    def origins(self) -> tuple[str, ...]:
        """Regions and sites from which jobs come."""
        return tuple(self.latency_s)

    def check(self, owner: str, sites: Collection[str], job_classes: Collection[str]) -> None:
        """ScenarioError, naming the owner of the parameters, for a matrix that leaves a site out, and for sites and
        classes that are not there."""
        tables = {"latency_s": self.latency_s}
        if isinstance(self.bandwidth_gbps, dict):
            tables["bandwidth_gbps"] = self.bandwidth_gbps
        for field, table in tables.items():
            for origin in table:
                if origin not in self.latency_s:
                    raise ScenarioError(f"{owner}.{field}: {unknown('origin in latency_s', origin, self.latency_s)}")
            for origin in self.origins:
                row = table.get(origin, {})
                for site in row:
                    if site not in sites:
                        raise ScenarioError(f"{owner}.{field}.{origin}: {unknown('site', site, sites)}")
                missing = [site for site in sites if site not in row and site != origin]
                if missing:
                    raise ScenarioError(f"{owner}.{field}.{origin} has no {', '.join(missing)}; it needs every site")
        for field, names in (("data_gb", self.data_gb), ("class_shares", self.class_shares)):
            for name in names:
                if name not in job_classes:
                    raise ScenarioError(f"{owner}.{field}: {unknown('job class', name, job_classes)}")

    def shares_of(self, job_class: str) -> list[float]:
        """Share of each origin in the jobs of a class, in the order of `origins`; sum 1."""
        given = self.class_shares.get(job_class, self.shares)
        total = sum(given.values())
        return [given.get(origin, 0.0) / total for origin in self.origins]

    def latency(self, origin: str, site: str) -> float:
        """One way, s."""
        return self.latency_s[origin].get(site, 0.0)

    def moved_gb(self, origin: str, site: str, job_class: str) -> float:
        """Data that a job of a class moves from there to a site, GB."""
        return 0.0 if origin == site else self.data_gb.get(job_class, 0.0)

    def delay_s(self, origin: str, site: str, job_class: str) -> float:
        """From when a job is sent until it is at the site with all its data, s."""
        gb, delay_s = self.moved_gb(origin, site, job_class), self.latency(origin, site)
        if gb:
            bandwidth = self.bandwidth_gbps
            delay_s += gb * BITS_PER_BYTE / (bandwidth[origin][site] if isinstance(bandwidth, dict) else bandwidth)
        return delay_s

    def energy_kwh(self, gb: float) -> float:
        """Of the network, for so much data."""
        return gb * self.energy_kwh_per_gb


Network = Annotated[Wan | None, Field(
    description="network through which jobs come, see `cosim.simulators.wan`; null: they are at a site at once. The "
    "same for workload and aidc, so an entry of the shared data")]


def check_same(member: str, given: Wan | None, members: Mapping[str, object]) -> None:
    """ScenarioError where another member that has a network has another one, or none gives jobs their origins."""
    others = {name: other.wan for name, other in members.items() if name != member and hasattr(other, "wan")}
    if given is not None and not others:
        raise ScenarioError(f"{member}.wan needs a workload that says where jobs come from, and no other member has "
                            "`wan`; leave it out")
    for name, other in others.items():
        if other != given:
            raise ScenarioError(f"{member}.wan and {name}.wan are not the same network; give it once, as `wan` of the "
                                "scenario's shared data")
