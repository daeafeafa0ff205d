"""The batteries of a feeder through a run: commands, what a plan decides, the energy and carbon in them, their ports.

Rows: E09, U18, Z06.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cosim.adapter import Values
from cosim.errors import ScenarioError, SolverError
from cosim.ports import Port
from cosim.simulators.grid.battery import Battery, Store, reach_kw
from cosim.simulators.grid.dispatch.conic import Sources
from cosim.simulators.grid.dispatch.horizon import StoredNow
from cosim.simulators.grid.dispatch.mci import MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import DispatchResult, Injection
from cosim.simulators.grid.dispatch.surplus import curtailed_kw
from cosim.simulators.grid.equations import Floats, Ints
from cosim.simulators.grid.network.feeder import Feeder

NEGLIGIBLE_RATIO = 1e-5
"""A planned power that near 0 or a limit, of the larger of the two limits, is there: a solver's tolerance."""
FOLLOWED_KW = 1e-6

BATTERY = (
    Port("p_set_kw", "in", "power that another member commands; none linked, or NaN: the plan decides",
         sign="> 0 discharges, < 0 charges", default=math.nan),
    Port("p_kw", "out", "power at the bus in this interval", sign="> 0 discharges (feeds the network), < 0 charges"),
    Port("soc_kwh", "out", "energy in it at the beginning of this interval"),
    Port("stored_kg", "out", "carbon of the energy in it at the beginning of this interval"),
    Port("stored_kg_per_kwh", "out", "carbon intensity of the energy in it, at which it discharges"),
)
"""Of a battery of the dispatched feeder, by its name."""


def battery_buses(given: Mapping[str, Battery], feeder: Feeder, member: str) -> Ints:
    """(n_battery,) position of each battery's bus; ScenarioError for a bus that is not there, or that is not the one of
    the storage in whose place a battery stands."""
    bus = np.array([feeder.position(b.node, f"{member}.batteries.{name}.node") for name, b in given.items()],
                   dtype=np.int64)
    for name, at in feeder.batteries:
        if feeder.nodes.of_bus[at] != bus[list(given).index(name)]:
            raise ScenarioError(f"{member}.batteries.{name}.node = {given[name].node} and storage of that name stands "
                                f"at bus {at} of {feeder.name}; give that bus, or another name")
    return bus


class Batteries:
    """All batteries of a network, in the order of the scenario.

    bus  (n_battery,) position of each among its n_bus buses; hours: length of an interval
    """

    def __init__(self, given: Mapping[str, Battery], bus: Ints, n_bus: int, hours: float) -> None:
        self.names, self.rated, self.bus = list(given), list(given.values()), bus
        self.hours, self._n_bus = hours, n_bus
        self.stores = [Store.begin(b) for b in self.rated]
        self._before = list(self.stores)
        self.p_kw = np.zeros(len(self.names))
        self.commanded_kw = np.full(len(self.names), np.nan)

    @property
    def energy_kwh(self) -> Floats:
        """(n_battery,) energy in them now."""
        return np.array([s.energy_kwh for s in self.stores])

    def now(self, inputs: Values, left: float, steps: int) -> StoredNow:
        """What a plan of `steps` intervals needs of them, `left` intervals (this one included) before the run's end."""
        return StoredNow(self.energy_kwh, self.possible_kw(self.commands(inputs)),
                         max(round(min(steps, left)), 1) - 1)

    def commands(self, inputs: Values) -> Floats:
        """(n_battery,) powers that other members command, NaN where none does."""
        self.commanded_kw = np.array([float(inputs[name]["p_set_kw"]) for name in self.names])
        return self.commanded_kw

    def decided(self, now: StoredNow, planned_kw: Floats | None, p_load_kw: Floats, sources: Sources, base_kw: float
                ) -> Floats:
        """(n_battery,) powers: those that are commanded, else planned; without a plan local generation that could not
        go anywhere is stored. No battery feeds more than all together is drawn beyond what sources must give."""
        free = np.isnan(now.fixed_kw)
        if planned_kw is None:
            left_kw, own = float(curtailed_kw(p_load_kw, sources, base_kw).sum()), np.zeros(len(free))
            for k in np.flatnonzero(free):
                own[k] = max(reach_kw(self.rated[k], self.stores[k].energy_kwh, self.hours)[0], -left_kw)
                left_kw += own[k]
        else:
            own = self.possible_kw(planned_kw, planned=True)
        p_kw = np.where(free, own, now.fixed_kw)
        room_kw = float(p_load_kw.sum()) - float(sources.p_min_pu.sum()) * base_kw - float(np.minimum(p_kw, 0.0).sum())
        fed_kw = float(np.maximum(p_kw, 0.0).sum())
        return np.where(p_kw > 0.0, p_kw * max(room_kw, 0.0) / fed_kw, p_kw) if fed_kw > max(room_kw, 0.0) else p_kw

    def off_command(self, p_kw: Floats) -> str:
        """The battery that runs farthest from its command, in words."""
        k = int(np.nan_to_num(np.abs(p_kw - self.commanded_kw), nan=-1.0).argmax())
        return f"{self.names[k]}: {self.commanded_kw[k]:g} kW commanded, {p_kw[k]:.6g} kW run"

    def possible_kw(self, p_kw: Floats, *, planned: bool = False) -> Floats:
        """(n_battery,) powers pulled to what each battery can keep up in this interval, NaN as it is; those of a plan,
        which a solver's tolerance may miss, to 0 and to these limits where they are all but there."""
        out = np.full(len(self.rated), np.nan)
        for k, (battery, store, p) in enumerate(zip(self.rated, self.stores, p_kw.tolist(), strict=True)):
            if math.isnan(p):
                continue
            low, high = reach_kw(battery, store.energy_kwh, self.hours)
            near = NEGLIGIBLE_RATIO * max(battery.p_charge_max_kw, battery.p_discharge_max_kw) if planned else 0.0
            p = 0.0 if abs(p) <= near else low if p - low <= near else high if high - p <= near else p
            out[k] = min(max(p, low), high)
        return out

    def injection(self, p_kw: Floats) -> Injection:
        """What the dispatch counts with at these powers (n_battery,)."""
        at_bus = np.zeros(self._n_bus)
        np.add.at(at_bus, self.bus, p_kw)
        return Injection(at_bus, self.bus, p_kw, np.array([s.kg_per_kwh for s in self.stores]))

    def run(self, p_kw: Floats, nci_kg_per_kwh: Floats) -> None:
        """Execute powers (n_battery,) for an interval, at the intensities of all buses (n_bus,)."""
        self.p_kw, self._before = p_kw, list(self.stores)
        self.stores = [store.after(battery, p, float(nci_kg_per_kwh[bus]), self.hours)
                       for battery, store, p, bus in zip(self.rated, self.stores, p_kw.tolist(), self.bus.tolist(),
                                                         strict=True)]

    def stand_still(self) -> None:
        """An interval that repeats the figures of the one before: nothing goes in or out."""
        self._before = list(self.stores)

    def outputs(self) -> Values:
        """Their ports."""
        return {name: {"p_kw": float(p), "soc_kwh": store.energy_kwh, "stored_kg": store.carbon_kg,
                       "stored_kg_per_kwh": store.kg_per_kwh}
                for name, p, store in zip(self.names, self.p_kw, self._before, strict=True)}

    def carry(self) -> dict[str, np.ndarray]:
        """What goes on in the next world."""
        return {"battery_kwh": self.energy_kwh, "battery_kg": np.array([s.carbon_kg for s in self.stores]),
                "battery_kg_per_kwh": np.array([s.kg_per_kwh for s in self.stores])}

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on from what `carry` gave."""
        if "battery_kwh" in carry:
            self.stores = [Store(*map(float, row)) for row in zip(
                carry["battery_kwh"], carry["battery_kg"], carry["battery_kg_per_kwh"], strict=True)]
            self._before = list(self.stores)

    def table(self, bus_names: Sequence[str]) -> dict[str, list]:
        """Columns for a trace: what its laws need of each battery."""
        return {"name": self.names, "bus": [bus_names[at] for at in self.bus],
                **{field: [float(getattr(b, field)) for b in self.rated] for field in (
                    "energy_min_kwh", "energy_max_kwh", "p_charge_max_kw", "p_discharge_max_kw",
                    "charge_efficiency_ratio", "discharge_efficiency_ratio", "wear_usd_per_kwh", "end_kwh")}}


def dispatched(batteries: Batteries, now: StoredNow, planned_kw: Floats | None,
               dispatches: tuple[Dispatch, MciOfDispatch | None], p_load_kw: Floats, q_load_kvar: Floats,
               note: Callable[[str, str], None]) -> DispatchResult:
    """The dispatch with batteries as they are commanded or planned, and these run; without what they draw where power
    goes unserved, and without them where there is no solution. SolverError where there is none then, and they stand
    still.

    note  takes a kind of `findings`, and what more is known of it
    """
    dispatch, _ = dispatches
    kept, base_kw = dispatch.injection, dispatch.feeder.base_kw
    wanted = batteries.decided(now, planned_kw, p_load_kw, dispatch.sources, base_kw)
    if (np.abs(wanted - batteries.commanded_kw) > FOLLOWED_KW).any():
        note("commands", batteries.off_command(wanted))
    found, ran = None, wanted
    for p_kw in (wanted, np.maximum(wanted, 0.0), np.zeros(len(wanted))):
        if p_kw is not wanted and np.array_equal(p_kw, ran):
            continue
        _inject(dispatches, batteries.injection(p_kw))
        try:
            found, ran = dispatch.solve(p_load_kw, q_load_kvar), p_kw
        except SolverError:
            if p_kw.any():
                ran = p_kw
                continue
            _inject(dispatches, kept)
            batteries.stand_still()
            raise
        if not (found.unserved_kw.any() and (p_kw < 0.0).any()):
            break
    assert found is not None, "the last of them is without batteries"
    if ran is not wanted:
        note("relieved", "")
    batteries.run(ran, found.nci_kg_per_kwh)
    return found


def _inject(dispatches: tuple[Dispatch, MciOfDispatch | None], injection: Injection | None) -> None:
    for one in dispatches:
        if one is not None:
            one.inject(injection)


def check_batteries(member: str, given: Mapping[str, Battery], lookahead_steps: int, scenario: Any) -> None:
    """ScenarioError for batteries that are no entities of the member, or that neither a plan nor a link would run."""
    if not given:
        return
    if not scenario.members[member].entities.get("Battery"):
        raise ScenarioError(f"{member}.batteries has {', '.join(given)} and {member} no Battery entities; --set "
                            f"{member}.entities.Battery=batteries")
    commanded = any(link.target.rpartition(".")[2] == "p_set_kw" and link.target.split(".")[0] == member
                    for link in scenario.links)
    if lookahead_steps == 1 and not commanded:
        raise ScenarioError(f"{member}.batteries: {next(iter(given))} is neither planned ({member}.lookahead_steps = "
                            f"1) nor commanded (no link to {member}.p_set_kw); set lookahead_steps, to 8 say")
