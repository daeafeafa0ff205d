"""A team's eyes on a fleet: from an `Observation` to scaled arrays, and what the team is as a spec.

The environment that agents learn in and the policy that a trained team becomes use the same one.

Rows: L10, M12, S13-14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosim.agents.fleet.actions import manager_parts, site_parts
from cosim.agents.fleet.base import BaseColumns
from cosim.agents.fleet.decision import FleetFacts, Matrix, Observation
from cosim.agents.fleet.observation import Scaler, context_columns, context_per, manager_view, site_view
from cosim.agents.fleet.observation_row import USUAL_SHARE, ObservationRow, ObservationScope
from cosim.agents.learn.spec import AgentType, Column, TeamSpec

MANAGER, SITE = "manager", "site"
"""Names of the two types of agents; the one manager is called like its type, the sites by their own names."""


class TeamArrays:
    """Scaled observations (25), (27) and contexts of one manager and its sites.

    offered: class -> (jobs/min, TO/job) of the fleet, where known: it only sets where a fresh policy starts.
    trained: the spec of a trained team with the same columns, whose ranges then scale everything; None: the sight's.
    """

    def __init__(self, facts: FleetFacts, sight: ObservationScope, offered: Mapping[str, tuple[float, float]],
                 trained: TeamSpec | None = None) -> None:
        self._numbers, sites = ObservationRow(facts, sight), range(len(sight.sites))
        views = [manager_view(facts, sight, self._numbers),
                 *(site_view(facts, sight, i, self._numbers) for i in sites)]
        context = context_columns(sight)
        base, edge = self._numbers.base, sight.share_edge
        around = ([[f"{USUAL_SHARE} {site}" for site in sight.sites]] * len(sight.classes) if sight.usual_shares else
                  base.manager if base else None)
        site_does = site_parts(facts, sight.classes, offered, sight.full, base.site if base else None, edge)
        kinds = (
            AgentType(MANAGER, tuple(views[0].columns), manager_parts(facts, sight.classes, around, edge)),
            AgentType(SITE, tuple(views[1].columns), site_does, tuple(context)))
        self.spec = TeamSpec(((MANAGER, MANAGER), *((name, SITE) for name in sight.sites)),
                             {kind.name: kind for kind in kinds}, leaders=1)
        scaled_by = trained or self.spec
        columns: list[Column] = [c for k in range(len(views)) for c in scaled_by.type_of(k).observation]
        widths = [len(view.columns) for view in views]
        self._shape = (len(widths), max(widths))
        filled = np.arange(max(widths))[None, :] < np.array(widths)[:, None]
        self._scaler = Scaler(columns, np.concatenate([view.at for view in views]),
                              np.concatenate([view.per for view in views]), np.flatnonzero(filled), filled.size)
        told = len(context) * len(sites)
        self._context_scaler = Scaler([*scaled_by.type_of(1).context] * len(sites), np.arange(told),
                                      np.concatenate([context_per(facts, i) for i in sites]),
                                      np.arange(len(context), len(context) + told), len(context) + told)

    @property
    def base(self) -> BaseColumns | None:
        """Columns of the rule around which the team decides, if there is one."""
        return self._numbers.base

    @property
    def places(self) -> Mapping[str, np.ndarray]:
        """`ObservationRow.at`: what stands where in a row of `observe_rows`."""
        return self._numbers.at

    def observe_rows(self, rows: np.ndarray) -> np.ndarray:
        """(B, n, O) float32 from B rows of `ObservationRow`."""
        return self._scaler(rows).reshape(len(rows), *self._shape)

    def context_rows(self, jobs: np.ndarray, work_to: np.ndarray) -> np.ndarray:
        """(B, n, C) float32 from the jobs (B, N, M) and their work, TO."""
        rows = np.concatenate([jobs, work_to], axis=2).reshape(len(jobs), -1)
        return self._context_scaler(rows).reshape(len(jobs), self._shape[0], -1)

    def observe(self, seen: Observation) -> np.ndarray:
        """(n, O) float32, rows padded with zeros."""
        return self._scaler(self._numbers(seen)).reshape(self._shape)

    def context(self, jobs: Sequence[Sequence[float]], work_to: Matrix) -> np.ndarray:
        """(n, C) float32 from the jobs (N, M) and their work (N, M), TO, of each site; the manager's row is 0."""
        row: list[float] = []
        for of_site, work in zip(jobs, work_to, strict=True):
            row += of_site
            row += work
        return self._context_scaler(row).reshape(self._shape[0], -1)
