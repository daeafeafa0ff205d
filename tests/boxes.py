"""Small real simulators for tests of the frame: a source, a store with its own time constant, and a fault on demand."""

from __future__ import annotations

from typing import Annotated

import mosaik_api_v3
from pydantic import Field

from cosim.adapter import Adapter, Values, serve
from cosim.params import params
from cosim.ports import Port
from cosim.units import Seconds


@params
class SourceParams:
    slope_kw: Annotated[float, Field(ge=0, description="rise per step, kW")] = 1.0
    noise_kw: Annotated[float, Field(ge=0, description="standard deviation, kW")] = 0.0


class Source(Adapter):
    """Power that rises by `slope_kw` a step, and an event batch with one row a step."""

    PARAMS = SourceParams
    MODELS = {"Source": (
        Port("p_kw", "out", "power", sign="> 0 flows out"),
        Port("ticks", "out", "one row a step", kind="event", table="ticks"),
    )}

    def setup(self) -> None:
        self._rng = self.stream("noise")

    def advance(self, time_s: float, inputs: Values) -> Values:
        """p = slope x step + noise."""
        step = time_s / self.step_s
        return {eid: {"p_kw": self.params.slope_kw * step + float(self._rng.normal(0.0, 1.0)) * self.params.noise_kw,
                      "ticks": {"at_s": [time_s], "who": [eid]}} for eid in self.entities["Source"]}


@params
class StoreParams:
    gain_per_h: Annotated[float, Field(description="feedback on the own energy")] = 0.0
    fail_at_s: Seconds | None = None
    die_at_s: Seconds | None = None
    hang_at_s: Seconds | None = None


class Store(Adapter):
    """Energy taken in: the running sum of its inputs over time, plus feedback from a second input."""

    PARAMS = StoreParams
    MODELS = {"Store": (
        Port("p_kw", "in", "power taken in", reduce="sum", sign="> 0 fills"),
        Port("p_mirror_kw", "in", "another store's power", default=0.0),
        Port("e_kwh", "out", "energy stored"),
        Port("p_seen_kw", "out", "power as it arrived"),
    )}

    def setup(self) -> None:
        self._energy = {eid: 0.0 for eid in self.entities["Store"]}

    def initial(self) -> Values:
        return {eid: {"e_kwh": 0.0, "p_seen_kw": 0.0} for eid in self._energy}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """e += (p + mirror x gain) x dt."""
        if self.params.fail_at_s is not None and time_s >= self.params.fail_at_s:
            raise RuntimeError("the store is full")
        if self.params.die_at_s is not None and time_s >= self.params.die_at_s:
            raise SystemExit(7)
        if self.params.hang_at_s is not None and time_s >= self.params.hang_at_s:
            import time
            time.sleep(60)
        out = {}
        for eid, given in inputs.items():
            p = given["p_kw"] + self.params.gain_per_h * given["p_mirror_kw"]
            self._energy[eid] += p * self.step_s / 3600.0
            out[eid] = {"e_kwh": self._energy[eid], "p_seen_kw": p}
        return out


class Foreign(mosaik_api_v3.Simulator):
    """A simulator that knows nothing of cosim: bare META, no declared units or directions."""

    def __init__(self) -> None:
        super().__init__({"api_version": "3.0", "type": "time-based",
                          "models": {"Bus": {"public": True, "params": ["vn_kv"], "attrs": ["P_load[MW]", "Vm[pu]"]}}})

    def init(self, sid, time_resolution=1.0, step_size=1, fault=None):
        self._step, self._fault, self._load = step_size, fault, {}
        return self.meta

    def create(self, num, model, vn_kv=10.0):
        self._load = {f"Bus-{k}": 0.0 for k in range(num)}
        return [{"eid": eid, "type": model} for eid in self._load]

    def step(self, time, inputs, max_advance):
        for eid, attrs in inputs.items():
            self._load[eid] = sum(attrs["P_load[MW]"].values())
        return time if self._fault == "no progress" and time >= 30 else time + self._step

    def get_data(self, outputs):
        if self._fault == "forgets":
            return {}
        return {eid: {"Vm[pu]": 1.0 - 0.1 * self._load[eid], "P_load[MW]": self._load[eid]} for eid in outputs}


if __name__ == "__main__":
    serve(Store)
