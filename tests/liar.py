"""A bare mosaik simulator that breaks the contract on demand, at its third step; here or as a process."""

from __future__ import annotations

import sys

import mosaik_api_v3

FAULTS = {
    "nan": float("nan"), "infinite": float("inf"), "none": None, "text": "much", "list": [1.0, [2.0]],
}


class Liar(mosaik_api_v3.Simulator):
    """Feeds 1 kW until it starts to lie."""

    def __init__(self) -> None:
        super().__init__({"api_version": "3.0", "type": "time-based",
                          "models": {"Feed": {"public": True, "params": [], "attrs": ["p_kw"]}}})

    def init(self, sid, time_resolution=1.0, fault="", meta=None, answer=None):
        self._fault, self._step, self._answer = fault, 0, answer
        if meta is not None:
            self.meta = meta
        return self.meta

    def create(self, num, model):
        if self._fault == "no entity":
            return []
        return [{"eid": f"f{k}", "type": model} for k in range(num)]

    def step(self, time, inputs, max_advance):
        self._step += 1
        if self._step < 3:
            return time + 1
        wrong = {"backwards": time - 1, "standstill": time, "half": time + 0.5, "no step": None}
        return wrong.get(self._fault, time + 1)

    def get_data(self, outputs):
        if self._step >= 3 and self._fault == "wrong entity":
            return {"somebody": {"p_kw": 1.0}}
        if self._step >= 3 and self._fault == "no dict":
            return 7
        if self._step >= 3 and self._answer is not None:
            return self._answer[0]
        value = FAULTS.get(self._fault, 1.0) if self._step >= 3 else 1.0
        return {eid: dict.fromkeys(names, value) for eid, names in outputs.items()}


if __name__ == "__main__":
    sys.exit(mosaik_api_v3.start_simulation(Liar(), configure_logging=False))
