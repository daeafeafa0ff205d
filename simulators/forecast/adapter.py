"""Forecasts on the bus: what intensities, price, base load and renewables will be, with the horizon as an axis.

Every step each signal that the parameters name is forecast for 0, 1, 2, ... steps ahead, as a list of numbers; entry 0
is what it is now. The step of the member is that of the horizon, so that an entry stands for one step of what is
forecast. What comes over the bus is enough for `persistence` and `day_ahead`. `perfect` takes the future from a
member that has it (a tariff, a profile, weather) or from the trace of an earlier run; of nodal intensities, which the
loop itself makes, only the latter is there, and it is the future of that run: of this one as far as both are alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from cosim.adapter import Adapter, CreateResult, Meta, Values, serve
from cosim.errors import ModelError, ScenarioError, unknown
from cosim.limits import is_file
from cosim.params import params
from cosim.ports import Port
from cosim.simulators.forecast.horizon import HORIZON, HorizonS, HorizonStepS, horizon_steps, labels
from cosim.simulators.forecast.signals import MADE, PERFECT, SIGNALS, Floats, Forecaster, Signal, SignalForecast
from cosim.trace import Trace
from cosim.trace.series import played_from_s, standing
from cosim.units import DAY_S, HOUR_S, Seconds, format_time

_AHEAD = (HORIZON,)


@params
class ForecastParams:
    """Which signals are forecast, how, and how far ahead."""

    horizon_s: HorizonS = DAY_S
    horizon_step_s: HorizonStepS = 900.0
    nci: Annotated[SignalForecast | None, Field(description="nodal carbon intensity at the sites; null: none")] = None
    mci: Annotated[SignalForecast | None, Field(description="marginal carbon intensity there; null: none")] = None
    price: Annotated[SignalForecast | None, Field(description="electricity price; null: none")] = None
    load: Annotated[SignalForecast | None, Field(description="base load of the feeder, all buses together; null: none"
                                                 )] = None
    available: Annotated[SignalForecast | None, Field(description="what renewable plants can give, each; null: none"
                                                      )] = None
    scenario_warmup_s: Annotated[Seconds, Field(ge=0, description="of the run, which fills it in")] = 0.0

    def named(self) -> dict[str, SignalForecast]:
        """The signals that are forecast."""
        return {name: rules for name in SIGNALS if (rules := getattr(self, name)) is not None}


def _ports(about: str, signal: Signal, *, sign: str = "", nullable: bool = False) -> tuple[Port, ...]:
    return (Port(signal.now, "in", about, sign=sign, nullable=nullable),
            Port(signal.future, "in", f"{about}, now and at each step to come, where that is known", sign=sign,
                 dims=_AHEAD, default=math.nan, nullable=nullable),
            Port(signal.forecast, "out", f"{about}, now and as forecast for each step to come", sign=sign, dims=_AHEAD,
                 nullable=nullable))


_DRAWN, _FED = "> 0 is drawn from the grid", "> 0 feeds the network"
_OF = {
    "nci": _ports("nodal carbon intensity at the site", SIGNALS["nci"]),
    "mci": _ports("marginal carbon intensity at the site", SIGNALS["mci"], nullable=True),
    "price": _ports("electricity price", SIGNALS["price"]),
    "load": _ports("active base load of all buses", SIGNALS["load"], sign=_DRAWN),
    "available": _ports("the most the plant can give", SIGNALS["available"], sign=_FED),
}
_ALL_PLANTS = Port("renewable_forecast_kw", "out", "the most that all plants together can give, now and as forecast "
                   "for each step to come", sign=_FED, dims=_AHEAD)


def _models(named: Sequence[str]) -> dict[str, tuple[Port, ...]]:
    """Models and their ports: those of these signals, and of others what may be linked and is not forecast."""
    found: dict[str, list[Port]] = {model: [] for model in ("Site", "Feeder", "Plant")}
    for name, ports in _OF.items():
        found[SIGNALS[name].model] += ports if name in named else [
            replace(port, default=math.nan, nullable=True) for port in ports if port.flow == "in"]
    if "available" in named:
        found["Feeder"].append(_ALL_PLANTS)
    return {model: tuple(ports) for model, ports in found.items()}


class Forecasts(Adapter):
    """Forecasts of the signals that its parameters name: of a Site nci and mci, of the Feeder (one entity) price and
    base load and the plants' sum, of each Plant what it can give."""

    PARAMS = ForecastParams
    MODELS = _models(list(SIGNALS))

    @classmethod
    def check_horizon(cls, member: str, given: ForecastParams, step_s: float, until_s: float) -> None:
        """ScenarioError for a horizon that does not go with the step, or a recording that is too short, is of another
        step, or does not have the forecast."""
        horizon_steps(member, given.horizon_s, given.horizon_step_s)
        if not given.named():
            raise ScenarioError(f"{member} forecasts nothing; give one of {', '.join(SIGNALS)}, --set "
                                f"{member}.nci.kind=persistence for example")
        if step_s != given.horizon_step_s:
            raise ScenarioError(f"{member}.step_s = {step_s:g} is not horizon_step_s = {given.horizon_step_s:g}; a "
                                "forecast is made every step of its horizon")
        for name, rules in given.named().items():
            if rules.recorded is not None:
                _check_recording(member, name, rules.recorded, given, until_s)

    @classmethod
    def check_scenario(cls, member: str, given: ForecastParams, scenario: Any) -> None:
        """ScenarioError for a perfect forecast of what is not known before, or is known twice."""
        for name, rules in given.named().items():
            signal, where = SIGNALS[name], f"{member}.{name}"
            linked = any(link.target.split(".")[0] == member and link.target.rpartition(".")[2] == signal.future
                         for link in scenario.links)
            if rules.kind not in PERFECT:
                continue
            if linked and rules.recorded is not None:
                raise ScenarioError(f"{where}.recorded = {rules.recorded}, and {signal.future} is linked as well; "
                                    "leave one of them out")
            if not linked and rules.recorded is None:
                how = ("the loop makes it, so that nobody knows it before" if name in MADE else
                       f"nothing is linked to {member}.{signal.future}")
                raise ScenarioError(f"{where}.kind = {rules.kind} needs to know what will be, and {how}: run once with "
                                    f"--set {member}.{name}.kind=persistence --out FIRST.h5, then --set "
                                    f"{member}.{name}.recorded=FIRST.h5")

    def init(self, sid: str, time_resolution: float = 1.0, **given: Any) -> Meta:
        """Validate the parameters; there are ports of the signals that they name."""
        super().init(sid, time_resolution, **given)
        self.adopt(_models(list(self.params.named())))
        return self.meta

    def create(self, num: int, model: str, names: Sequence[str] | None = None, **model_params: object
               ) -> list[CreateResult]:
        """Sites and plants by name, one Feeder."""
        if model == "Feeder" and num + len(self.entities["Feeder"]) > 1:
            raise ScenarioError(f"{self.sid} has {num} entities of Feeder; it is one feeder")
        return super().create(num, model, names, **model_params)

    def setup(self) -> None:
        """ScenarioError for a signal without entities."""
        p = self.params
        self._count = horizon_steps(self.sid, p.horizon_s, p.horizon_step_s)
        self._origin_s = self._end_s = 0.0
        self._resumed = False
        self._makers: dict[tuple[str, str], Forecaster] = {}
        self._beyond: dict[str, float] = {}
        for name, rules in p.named().items():
            model = SIGNALS[name].model
            if not self.entities[model]:
                raise ScenarioError(f"{self.sid}.{name} is forecast, and {self.sid} has no entities of {model}; --set "
                                    f"{self.sid}.entities.{model}={'sites' if model == 'Site' else '[...]'}, or leave "
                                    f"{self.sid}.{name} out")
            found = None if rules.recorded is None else _recorded(self.sid, name, rules.recorded, p,
                                                                  self.entities[model])
            for eid in self.entities[model]:
                known = None if found is None else found[eid]
                self._makers[name, eid] = Forecaster(rules, self._count, self.step_s,
                                                     self.stream(f"error of {name} at {eid}"), known)
                if known is not None:
                    self._beyond[str(rules.recorded)] = len(known) * self.step_s

    def labels(self) -> dict[str, list[str]]:
        """Minutes ahead."""
        return {HORIZON: labels(self.params.horizon_s, self.params.horizon_step_s)}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """The forecasts of this step."""
        step = round((self._origin_s + time_s) / self.step_s)
        self._end_s = time_s + self.step_s
        out: Values = {eid: {} for of_model in self.entities.values() for eid in of_model}
        plants = np.zeros(self._count + 1)
        for (name, eid), maker in self._makers.items():
            signal, given = SIGNALS[name], inputs[eid]
            made = maker.step(step, given[signal.now], self._future(name, eid, given[signal.future]))
            out[eid][signal.forecast] = made.tolist()
            if name == "available":
                plants = plants + made
        if self.params.available is not None:
            for eid in self.entities["Feeder"]:
                out[eid][_ALL_PLANTS.name] = plants.tolist()
        return out

    def carry(self) -> dict[str, np.ndarray]:
        """What has been seen, and time gone by."""
        return {"origin_s": np.array(self._origin_s + self._end_s),
                **{f"seen/{name}/{eid}": maker.seen for (name, eid), maker in self._makers.items() if maker.seen.size}}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on from what `carry` gave."""
        self._origin_s, self._resumed = float(carry.get("origin_s", 0.0)), True
        for (name, eid), maker in self._makers.items():
            maker.seen = carry.get(f"seen/{name}/{eid}", maker.seen)

    def notes(self) -> list[str]:
        """What forecasts have where there is no day before, and where their recording has ended."""
        if not hasattr(self, "_makers"):
            return []
        first = [name for name, rules in self.params.named().items() if rules.kind == "day_ahead"]
        said = [f"{self.sid}: {' and '.join(first)} by the day before, and the run's first day has none: as at the "
                "time of the forecast"] if first and not self._resumed else []
        ahead_s = self._origin_s + self._end_s - self.step_s + self.params.horizon_s
        return said + [
            f"{self.sid}: {path} ends at {format_time(end_s)}; forecasts of what is later have its last day again"
            for path, end_s in self._beyond.items() if ahead_s >= end_s]

    # --- inside -------------------------------------------------------------------------------------------------

    def _future(self, name: str, eid: str, came: Any) -> list[float] | None:
        """What will be, as a link has it; None without one. ModelError for another horizon."""
        rules = getattr(self.params, name)
        if rules.kind not in PERFECT or rules.recorded is not None:
            return None
        port = f"{self.sid}.{eid}.{SIGNALS[name].future}"
        if not isinstance(came, list):
            raise ModelError(f"{port} has no source, and {self.sid}.{name}.kind = {rules.kind}; link an output to it")
        if len(came) != self._count + 1:
            raise ModelError(f"{port} has {len(came)} values, {self._count + 1} are expected; horizon_s and "
                             "horizon_step_s must be the same in all members: put them into the shared tables")
        return came


def _path(member: str, name: str) -> str:
    return f"{member}/{SIGNALS[name].model}/{SIGNALS[name].forecast}"


def _check_recording(member: str, name: str, recorded: str, given: ForecastParams, until_s: float) -> None:
    """ScenarioError for a trace that does not have what this signal will be in a run until `until_s`."""
    where, path = f"{member}.{name}.recorded", _path(member, name)
    if not is_file(recorded):
        raise ScenarioError(f"{where}: no trace at {recorded}; record a run of this scenario with --set "
                            f"{member}.{name}.kind=persistence --out {recorded}")
    with Trace(recorded) as trace:
        if path.rpartition("/")[0] not in trace.models() or not trace.has(path):
            raise ScenarioError(f"{where}: {recorded} has no {path}; record a run of this scenario with --set "
                                f"{member}.{name}.kind=persistence --out FIRST.h5")
        times = trace.time_s(path.rpartition("/")[0])
        if len(times) > 1 and float(times[1] - times[0]) != given.horizon_step_s:
            raise ScenarioError(f"{where}: {recorded} has a forecast every {float(times[1] - times[0]):g} s, "
                                f"{member}.horizon_step_s = {given.horizon_step_s:g} s")
        lasts_s = len(times) * given.horizon_step_s - played_from_s(trace, given.scenario_warmup_s)
        if lasts_s < until_s:
            raise ScenarioError(f"{where}: {recorded} lasts {lasts_s / HOUR_S:g} h, this run {until_s / HOUR_S:g} h; "
                                "shorten it by --until, or record a longer one")


def _recorded(member: str, name: str, recorded: str, given: ForecastParams, entities: Sequence[str]
              ) -> dict[str, Floats]:
    """Entity -> what its signal was at every step of an earlier run, from the begin of this one on: entry 0 of its
    forecasts. ScenarioError where it has not all of them."""
    path = _path(member, name)
    model = path.rpartition("/")[0]
    with Trace(recorded) as trace:
        names = trace.names(model)
        for eid in entities:
            if eid not in names:
                raise ScenarioError(f"{member}.{name}.recorded: {recorded}: "
                                    f"{unknown(SIGNALS[name].model, eid, names)}")
        from_s, last_s = played_from_s(trace, given.scenario_warmup_s), float(trace.time_s(model)[-1])
        times = np.arange(from_s, last_s + given.horizon_step_s / 2.0, given.horizon_step_s)
        now = standing(trace, path, times)[:, :, 0]
        return {eid: now[:, names.index(eid)] for eid in entities}


if __name__ == "__main__":
    serve(Forecasts)
