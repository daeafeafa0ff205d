"""What the sources of a dispatch have, cost and emit at a time, where that changes.

Rows: E08, Z04.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cosim.errors import ModelError, ScenarioError
from cosim.plausible import impossible
from cosim.simulators.grid.dispatch.conic import Sources
from cosim.simulators.grid.dispatch.sources import OTHERS, Source
from cosim.simulators.grid.dispatch.varying import LINKED, PORTS, Value, Variable, varies
from cosim.simulators.grid.equations import Floats
from cosim.units import format_time


@dataclass(frozen=True, slots=True, eq=False)
class SourceValues:
    """Of all sources at one time, (n_source,): intensities kg/kWh, most P in kW (inf: no limit), prices USD/kWh."""

    kg_per_kwh: Floats
    marginal_kg_per_kwh: Floats
    p_max_kw: Floats
    usd_per_kwh: Floats


class SourceSeries:
    """The fields of sources that vary, over time.

    member   whose sources they are, for errors; start: ISO date of t = 0, None where it is not known
    own      sources that are the network's own generators, whose intensities the scenario gives beside its sources
    varying  field -> whether it varies (n_source,)
    ScenarioError for a table that does not fit.
    """

    def __init__(self, sources: Mapping[str, Source], member: str, start: str | None, own: Collection[str] = ()
                 ) -> None:
        self._sources, self._member, self._own = sources, member, own
        self.varying = {field: np.array([varies(getattr(s, field)) for s in sources.values()]) for field in PORTS}
        self._variables = {(name, field): Variable(getattr(s, field), self._path(name, field), name, field, start)
                           for name, s in sources.items() for field in PORTS}
        self._moving = {key: v for key, v in self._variables.items() if varies(getattr(sources[key[0]], key[1]))}
        self.linked = frozenset(key for key, v in self._variables.items() if v.linked)
        self._least_kw = np.array([s.p_min_kw for s in sources.values()])
        self._fixed = {field: np.array([v.at(0.0) for (_, of), v in self._variables.items() if of == field])
                       for field in PORTS if not self.varying[field].any()}

    def _path(self, name: str, field: str) -> str:
        """The scenario's field."""
        if name in self._own:
            return f"{self._member}.network_sources.{name}"
        return f"{self._member}.sources.{name}.{field}"

    @property
    def any(self) -> bool:
        """Whether anything varies."""
        return bool(self._moving)

    def check(self, until_s: float, step_s: float) -> None:
        """ScenarioError for a table that does not cover a run until `until_s` that dispatches every `step_s`, and for a
        source whose p_min_kw is above what it has at one of these times."""
        for (name, field), variable in self._moving.items():
            variable.check(until_s)
            if field != "p_max_kw":
                continue
            least_kw = self._sources[name].p_min_kw
            if variable.linked:
                if least_kw > 0.0:
                    kind, why = (("renewable source", "it has nothing at times, at night say") if
                                 self._sources[name].renewable else
                                 ("source", "what comes may be less, and is known only while the run goes on"))
                    raise ScenarioError(f"{self._path(name, 'p_min_kw')} = {least_kw:g} of a {kind} whose p_max_kw is "
                                        f"linked: {why}; set p_min_kw to 0, or give p_max_kw as numbers or a table")
                continue
            for k in range(math.ceil(until_s / step_s)):
                if (most_kw := variable.at(k * step_s)) < least_kw:
                    raise ScenarioError(
                        f"{self._path(name, 'p_min_kw')} = {least_kw:g} is above its p_max_kw of {most_kw:g} at "
                        f"{variable.when(k * step_s)}; lower p_min_kw, or mend p_max_kw there")

    def steady(self) -> dict[str, Source]:
        """The sources with a number in the place of all that varies, as at t = 0; what is linked is 0, or p_min_kw."""
        return {name: self._steady(name, source) for name, source in self._sources.items()}

    def _steady(self, name: str, source: Source) -> Source:
        now: dict[str, Any] = {}
        for field in PORTS:
            if (name, field) in self._moving:
                value = self._variables[name, field].at(0.0)
                now[field] = (source.p_min_kw if field == "p_max_kw" else 0.0) if math.isnan(value) else value
        return replace(source, **now) if now else source

    def at(self, time_s: float, linked: Mapping[str, Mapping[str, Any]], *, forecast: bool = False) -> SourceValues:
        """At a time, s since t = 0 of the tables. linked: source -> field -> value that came over the bus. A forecast
        has them as they came, and the last row of a table that ends.

        ModelError for a linked field that nothing came to, or whose value cannot be, or a value that came to a field
        that is not linked; ScenarioError past the end of a table that is to refuse.
        """
        now = format_time(time_s)
        came = dict(self._came(linked, now))
        values = {}
        for field in PORTS:
            if field in self._fixed:
                values[field] = self._fixed[field]
                continue
            of_field = [(name, v) for (name, of), v in self._variables.items() if of == field]
            values[field] = np.array([came[name, field] if v.linked else v.at(time_s, forecast=forecast)
                                      for name, v in of_field])
        most_kw = np.where(np.isnan(values["p_max_kw"]), np.inf, values["p_max_kw"])
        if (short := np.flatnonzero(most_kw < self._least_kw)).size:
            name = list(self._sources)[short[0]]
            raise ModelError(f"{self._path(name, 'p_max_kw')} = {most_kw[short[0]]:g} at {now} is below p_min_kw = "
                             f"{self._least_kw[short[0]]:g}; lower p_min_kw, or mend what is linked to p_max_kw")
        average, marginal = values["kg_per_kwh"], values["marginal_kg_per_kwh"]
        return SourceValues(average, np.where(np.isnan(marginal), average, marginal), most_kw,
                            np.nan_to_num(values["usd_per_kwh"]))

    def _came(self, linked: Mapping[str, Mapping[str, Any]], now: str) -> Iterator[tuple[tuple[str, str], float]]:
        for name, given in linked.items():
            for field, port in PORTS.items():
                value, path = float(given[port]), self._path(name, field)
                if (name, field) not in self.linked:
                    if not math.isnan(value):
                        raise ModelError(f"{value:g} came over a link to {path}, which the scenario gives; --set "
                                         f"{path}=linked, or take the link away")
                    continue
                if math.isnan(value):
                    continue
                if (wrong := impossible(field, np.array([value]))) is not None:
                    raise ModelError(f"{path} at {now}: {wrong}")
                yield (name, field), value
        if missing := sorted(self.linked - {(n, f) for n, given in linked.items() for f, port in PORTS.items()
                                            if not math.isnan(float(given[port]))}):
            name, field = missing[0]
            raise ModelError(f"{self._path(name, field)} is linked, and nothing came at {now}; link an output to "
                             f"entity '{name}' of model Source, port {PORTS[field]}, or give a value")

    def changed(self, sources: Sources, now: SourceValues, base_kw: float) -> Sources:
        """`sources` with what varies of them as it is `now`."""
        usd = np.where(self.varying["usd_per_kwh"], now.usd_per_kwh, sources.usd_per_kwh)
        most_pu = np.where(self.varying["p_max_kw"], now.p_max_kw / base_kw, sources.available_pu)
        return replace(sources, kg_per_kwh=now.kg_per_kwh, marginal_kg_per_kwh=now.marginal_kg_per_kwh,
                       available_pu=most_pu, usd_per_kwh=usd)

    def notes(self, step_s: float) -> list[str]:
        """How tables were read by dispatches every `step_s`."""
        return list(dict.fromkeys(text for v in self._moving.values() for text in v.notes(step_s)))


def check_given(sources: Mapping[str, Source], network_sources: Mapping[str, Value], member: str, start: str | None,
                until_s: float, step_s: float) -> None:
    """Before a run: as `SourceSeries.check`, of the sources as the scenario gives them, and of the intensities of the
    network's own generators."""
    SourceSeries(sources, member, start).check(until_s, step_s)
    for name, value in network_sources.items():
        own = f"{member}.network_sources.{name}"
        if value == LINKED and name == OTHERS:
            raise ScenarioError(f"{own} = linked: which of the generators it is has to be said; name each")
        Variable(value, own, name, "kg_per_kwh", start).check(until_s)


FORECAST = "available_forecast_kw"
"""Port over which what a source will have is forecast: entry k of k intervals ahead."""


def foreseen(linked: Mapping[str, Mapping[str, Any]], ahead: int, member: str) -> dict[str, Mapping[str, Any]]:
    """What comes over the bus to sources, `ahead` intervals later as far as it is forecast; the rest as now.
    ModelError for a forecast that is shorter."""
    out = dict(linked)
    for name, given in linked.items():
        came = given[FORECAST]
        if not ahead or not isinstance(came, list):
            continue
        if ahead >= len(came):
            raise ModelError(f"{member}.{name}.{FORECAST} has {len(came)} values, and the look-ahead goes {ahead} "
                             "intervals on; make the forecast's horizon longer, or lookahead_steps less")
        out[name] = {**given, PORTS["p_max_kw"]: came[ahead]}
    return out


def check_foreseen(member: str, sources: Mapping[str, Source], lookahead_steps: int, scenario: Any) -> None:
    """ScenarioError for a linked forecast of sources that have nothing linked to be forecast, or where nothing
    is planned ahead."""
    if not any(link.target.split(".")[0] == member and link.target.rpartition(".")[2] == FORECAST
               for link in scenario.links):
        return
    if lookahead_steps == 1:
        raise ScenarioError(f"a forecast is linked to {member}.{FORECAST}, and {member}.lookahead_steps = 1 plans "
                            "nothing; set lookahead_steps, to 8 say, or take the link away")
    if not any(source.p_max_kw == LINKED for source in sources.values()):
        raise ScenarioError(f"a forecast is linked to {member}.{FORECAST}, and no source has p_max_kw = linked; link "
                            f"what they have to {member}.{PORTS['p_max_kw']}, too")
