"""What comes to a site over the wide-area network: when jobs reach it, and what that moved, minute by minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cosim.errors import ModelError, unknown
from cosim.ports import Batch, Port
from cosim.simulators.aidc.engine.jobs import tick_after
from cosim.simulators.aidc.ports import per_class
from cosim.simulators.wan import Wan

NETWORK = (
    per_class("network_gb", "data that the jobs submitted in the tick move over the wide-area network, GB"),
    per_class("network_kwh", "energy of that network for it, drawn by no site and no bus"),
    per_class("network_co2_kg", "carbon of that energy, at the network's own intensity"),
    per_class("transit_jobs", "jobs on their way at the end of the tick; they count as queued"),
    Port("transfers", "out", "jobs sent to the site in the tick: from where, when they were sent and reach it, data, "
         "energy of the network", kind="event", table="transfers"),
)
"""Ports of a site, where a network is given."""
COLUMNS = ("id", "job_class", "site", "origin", "sent_s", "reached_s", "network_gb", "network_kwh")
_LEVELS = ("network_gb", "network_kwh", "network_co2_kg", "transit_jobs")


class Inbound:
    """The network at the end of one site.

    job_log     whether single transfers leave rows
    at_arrival  whether jobs are sent when they arrive, instead of now
    """

    def __init__(self, wan: Wan, site: str, job_classes: Sequence[str], job_log: bool, at_arrival: bool) -> None:
        self._wan, self._site, self._job_log, self._at_arrival = wan, site, job_log, at_arrival
        self._classes = {name: m for m, name in enumerate(job_classes)}
        self._known: dict[tuple[str, str], tuple[float, float, float, float]] = {}
        self._under_way: list[tuple[float, int]] = []  # when it reaches the site, class
        self._reset()

    def sent(self, batch: Mapping[str, list], now_s: float) -> Batch:
        """The batch with `reaches_s`, when each job comes in, and `return_s`, how long an answer travels back.

        ModelError for a batch without the column `origin`, and for an origin that the network does not have.
        """
        if not batch.get("id"):
            return dict(batch)
        if "origin" not in batch:
            raise ModelError(f"{self._site}: the job batch has no column origin, which the network (wan) goes by")
        reaches, returns = [], []
        columns = (batch[name] for name in ("id", "job_class", "arrival_s", "origin"))
        for number, name, arrival_s, origin in zip(*columns, strict=True):
            delay_s, return_s, gb, kwh = self._known.get((origin, name)) or self._look_up(origin, name)
            sent_s = max(arrival_s, now_s) if self._at_arrival else now_s
            reached_s = tick_after(sent_s + delay_s)
            m = self._classes[name]
            self._gb[m] += gb
            self._kwh[m] += kwh
            if reached_s > now_s:
                self._under_way.append((reached_s, m))
            if self._job_log:
                self._rows.append((number, name, self._site, origin, sent_s, reached_s, gb, kwh))
            reaches.append(reached_s)
            returns.append(return_s)
        return {**batch, "reaches_s": reaches, "return_s": returns}

    def read(self, end_s: float) -> dict[str, Any]:
        """Values of NETWORK's ports for the tick that ends now."""
        self._under_way = [one for one in self._under_way if one[0] > end_s]
        transit = [0.0] * len(self._classes)
        for _, m in self._under_way:
            transit[m] += 1.0
        values = dict(zip(_LEVELS, (self._gb, self._kwh, [kwh * self._wan.carbon_kg_per_kwh for kwh in self._kwh],
                                    transit), strict=True))
        rows = dict(zip(COLUMNS, map(list, zip(*self._rows, strict=True)), strict=True)) if self._rows else {}
        self._reset()
        return {**values, "transfers": rows}

    def _look_up(self, origin: str, job_class: str) -> tuple[float, float, float, float]:
        wan = self._wan
        if origin not in wan.latency_s:
            raise ModelError(f"{self._site}: a job's {unknown('origin', origin, wan.latency_s)}")
        if job_class not in self._classes:
            raise ModelError(f"{self._site}: a job's {unknown('job class', job_class, self._classes)}")
        gb = wan.moved_gb(origin, self._site, job_class)
        found = (wan.delay_s(origin, self._site, job_class), wan.latency(origin, self._site), gb, wan.energy_kwh(gb))
        self._known[origin, job_class] = found
        return found

    def _reset(self) -> None:
        self._gb, self._kwh = [0.0] * len(self._classes), [0.0] * len(self._classes)
        self._rows: list[tuple] = []
