"""A team's eyes on a fleet: from an `Observation` to scaled arrays, and what the team is as a spec.

The environment that agents learn in and the policy that a trained team becomes use the same one.

Rows of the model: L10, M12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agents.actions import manager_parts, site_parts
from agents.decision import FleetFacts, Matrix, Observation
from agents.observation import Scaler, Sight, context_columns, context_values, manager_view, site_view
from agents.spec import AgentType, Column, TeamSpec

MANAGER, SITE = "manager", "site"
"""Names of the two types of agents; the one manager is called like its type, the sites by their own names."""


class TeamView:
    """Scaled observations (25), (27) and contexts of one manager and its sites.

    offered: class -> (jobs/min, TO/job) of the fleet, where known: it only sets where a fresh policy starts.
    trained: the spec of a trained team with the same columns, whose ranges then scale everything; None: the sight's.
    """

    def __init__(self, facts: FleetFacts, sight: Sight, offered: Mapping[str, tuple[float, float]],
                 trained: TeamSpec | None = None) -> None:
        self._facts, sites = facts, range(len(sight.sites))
        self._views = [manager_view(facts, sight), *(site_view(facts, sight, i) for i in sites)]
        context = context_columns(sight)
        site_does = site_parts(facts, sight.classes, offered, sight.full)
        kinds = (
            AgentType(MANAGER, tuple(self._views[0].columns), manager_parts(facts, sight.classes)),
            AgentType(SITE, tuple(self._views[1].columns), site_does, tuple(context)))
        self.spec = TeamSpec(((MANAGER, MANAGER), *((name, SITE) for name in sight.sites)),
                             {kind.name: kind for kind in kinds}, leaders=1)
        scaled_by = trained or self.spec
        columns: list[Column] = [c for k in range(len(self._views)) for c in scaled_by.type_of(k).observation]
        widths = [len(view.columns) for view in self._views]
        self._shape = (len(widths), max(widths))
        self._filled = np.arange(max(widths))[None, :] < np.array(widths)[:, None]
        self._scaler = Scaler(columns)
        self._context_scaler = Scaler([*scaled_by.type_of(1).context] * len(sites))

    def observe(self, seen: Observation) -> np.ndarray:
        """(n, O) float32, rows padded with zeros."""
        flat: list[float] = []
        for view in self._views:
            flat += view.values(seen)
        out = np.zeros(self._shape, np.float32)
        out[self._filled] = self._scaler(flat)
        return out

    def context(self, jobs: Sequence[Sequence[int]], work_to: Matrix) -> np.ndarray:
        """(n, C) float32 from the jobs (N, M) and their work (N, M), TO, of each site; the manager's row is 0."""
        n_sites = self._shape[0] - 1
        flat = [x for i in range(n_sites) for x in context_values(self._facts, i, jobs, work_to)]
        out = np.zeros((n_sites + 1, len(flat) // n_sites), np.float32)
        out[1:] = self._context_scaler(flat).reshape(n_sites, -1)
        return out
