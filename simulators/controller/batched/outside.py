"""What comes to controllers from outside: jobs, prices, intensities and forecasts of many worlds, as arrays.

Axes: B environments, N sites, H deferrals. Worlds of one seed and one episode, at one time, meet the same arrivals and
prices: what depends on nothing that is done is worked out in the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cosim.adapter import ExogenousAdapter
from cosim.agents.fleet.decision import FleetFacts
from cosim.agents.fleet.observation_row import OF_SITES
from cosim.simulators.controller.params import PORTS
from cosim.simulators.controller.steering import BASELINE, CONTROLLER, FLEET, GRID, WORKLOAD, emission_of
from cosim.simulators.workload.arrivals import JobRows

PLAYED = (CONTROLLER, FLEET)
"""Members that are played as arrays."""
_EMITTING = (GRID, BASELINE)


class InputLink(NamedTuple):
    """A connection to a controller: source, what its values go through, the array that they go into, and which of the
    sites they are about (None: all)."""

    entity: str
    port: str
    transform: Callable[[Any], Any] | None
    level: np.ndarray
    site: int | None


class Outside:
    """Levels that controllers have as inputs, name -> (B, ...), and the jobs of each environment that arrive now.

    exogenous: members that worlds need not step, as nothing that is done has a part in them: the workload, and members
    whose outputs follow from the time alone and go to controllers or nowhere
    """

    def __init__(self, facts: FleetFacts, observed: Sequence[str], simulators: Mapping[str, Any], plan: Any,
                 n_envs: int) -> None:
        n = facts.n_sites
        self.rows: list[JobRows] = [JobRows(*[np.empty(0, int)] * 2, *[np.empty(0)] * 3)] * n_envs
        self.levels = {
            "price_usd_per_kwh": np.zeros(n_envs), "forecast_usd_per_kwh": np.zeros((n_envs, len(facts.deferrals_s))),
            "nci_kg_per_kwh": np.zeros((n_envs, n)), "mci_kg_per_kwh": np.full((n_envs, n), math.nan),
            "emission": np.full((n_envs, 2), math.nan)}
        for name in observed:
            of_each = (n,) if name in OF_SITES else ()
            self.levels[PORTS[name]] = np.full((n_envs, *of_each, facts.horizon_steps + 1), math.nan)
        self.exogenous = (WORKLOAD, *(name for name, one in simulators.items() if _follows_from_time(name, one, plan)))
        self._links = self._links_of(plan, {name: i for i, name in enumerate(facts.sites)})
        self._ports: dict[str, dict[str, list[str]]] = {}
        for name, links in self._links.items():
            for link in links:
                self._ports.setdefault(name, {}).setdefault(link.entity, []).append(link.port)
        emitting = [name for name in _EMITTING if name in simulators]
        self._alone = self.exogenous[1:]
        self._worlds_own = [name for name in dict.fromkeys([*self._links, *emitting]) if name not in self._alone]

    def take(self, b: int, time: int, world: Any, first: int) -> None:
        """What comes before the step number `time` of the controller of world b; of members that have not stepped then
        it stands as it was. first: see `BatchSteering.take`."""
        if first == b:
            self.rows[b] = world.simulators[WORKLOAD].rows_at(world.resolved.clock.seconds(time))
        else:
            self.rows[b] = self.rows[first]
        for name in self._alone:
            if first != b:
                self._copy(b, name, first)
            elif world.step_alone(name, time):
                self._read(b, name, world)
        for name in self._worlds_own:
            if world.has_stepped(name, time):
                self._read(b, name, world)

    def _read(self, b: int, name: str, world: Any) -> None:
        if name in self._links:
            given = world.simulators[name].get_data(self._ports[name])
            for entity, port, transform, level, site in self._links[name]:
                value = given[entity][port]
                value = value if transform is None else transform(value)
                if site is None:
                    level[b] = value
                else:
                    level[b, site] = value
        if name in _EMITTING:
            known = emission_of(world.simulators, name)
            self.levels["emission"][b, _EMITTING.index(name)] = math.nan if known is None else known

    def _copy(self, b: int, name: str, first: int) -> None:
        for link in self._links.get(name, ()):
            link.level[b] = link.level[first]
        if name in _EMITTING:
            k = _EMITTING.index(name)
            self.levels["emission"][b, k] = self.levels["emission"][first, k]

    def _links_of(self, plan: Any, sites: Mapping[str, int]) -> dict[str, list[InputLink]]:
        """By the member that they come from."""
        links: dict[str, list[InputLink]] = {}
        for c in plan.connections:
            member, entity, port = c.source
            if c.target[0] == CONTROLLER and member not in (*PLAYED, WORKLOAD) and c.target[2] in self.levels:
                links.setdefault(member, []).append(
                    InputLink(entity, port, c.transform, self.levels[c.target[2]], sites.get(c.target[1])))
        return links


def _follows_from_time(name: str, simulator: Any, plan: Any) -> bool:
    """Whether a member's outputs follow from the time alone and go to controllers, at once, or nowhere."""
    return (isinstance(simulator, ExogenousAdapter) and not any(c.target[0] == name for c in plan.connections)
            and all(c.target[0] == CONTROLLER and not c.shift for c in plan.connections if c.source[0] == name))
