"""A radial feeder as data: what the dispatch and the carbon flow need of a network, and nothing more.

Rows: I25, Z07.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag

from cosim.errors import ScenarioError, listed, unknown
from cosim.params import params
from cosim.simulators.grid.equations import Complexes, Floats, Ints, RadialTree, radial_tree, sums
from cosim.simulators.grid.network.elements import Generator
from cosim.units import KW_PER_MW


@params
class Line:
    """A line of a `LineList`: the two buses it joins and its series impedance."""

    from_bus: Annotated[int, Field(ge=0, le=1_000_000, description="one end")]
    to_bus: Annotated[int, Field(ge=0, le=1_000_000, description="the other end")]
    r_ohm: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, description="series resistance, ohm")]
    x_ohm: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, description="series reactance, ohm")]
    max_current_a: Annotated[float | None, Field(gt=0, le=1e5, allow_inf_nan=False, description="rated current, A; "
                                                 "null: not known")] = None


@params
class BaseLoad:
    """The base load of a bus of a `LineList`."""

    bus: Annotated[int, Field(ge=0, le=1_000_000, description="where it stands")]
    p_kw: Annotated[float, Field(ge=0, allow_inf_nan=False, description="active power drawn, kW")]
    q_kvar: Annotated[float, Field(allow_inf_nan=False, description="reactive power drawn, kvar")] = 0.0


@params
class LineList:
    """A radial feeder written out in the scenario. Its buses are those that the lines name."""

    base_kv: Annotated[float, Field(gt=0, le=2000, allow_inf_nan=False,
                                    description="line-to-line voltage of 1 p.u., kV")]
    lines: Annotated[tuple[Line, ...], Field(min_length=1, description="lines in service; they form a tree")]
    loads: Annotated[tuple[BaseLoad, ...], Field(description="base loads, which a profile may scale")] = ()
    base_mva: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False, description="power of 1 p.u., MVA")] = 1.0
    substation: Annotated[int, Field(ge=0, le=1_000_000, description="bus that the upstream grid feeds")] = 0


def _kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "line_list"


Network = Annotated[
    Annotated[str, Tag("name")] | Annotated[LineList, Tag("line_list")],
    Discriminator(_kind),
]
"""A parameter: the name of a function of `pandapower.networks`, 'simbench:' and a SimBench code, the path of a
pandapower .json or .xlsx file, or a LineList."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """The electrical nodes of a network: first those of buses, by their lowest bus number, then inner ones.

    names    (n_node,) 'bus3', or of an inner node what makes it: 'trafo3w0' its star point, 'line7end' its open end
    of_bus   bus number -> node
    lowest   (n_bus_node,) lowest bus number of each node that has buses
    rows     (n_node,) row of each node in the solver's table
    """

    names: tuple[str, ...]
    of_bus: dict[int, int]
    lowest: tuple[int, ...]
    rows: Ints

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> list[str]:
        """What a node is called in the name of a branch: '3' or 'trafo3w0'."""
        return [*map(str, self.lowest), *self.names[len(self.lowest):]]

    @cached_property
    def _by_name(self) -> dict[str, int]:
        """Nodes by what the entities of their buses are called."""
        return {f"bus{b}": at for b, at in self.of_bus.items()}

    def position(self, bus: int | str, what: str, network: str) -> int:
        """Node of a bus number; ScenarioError naming `what` where the network has no such bus in service (names of
        buses are OpenDSS's alone)."""
        if not isinstance(bus, int) or bus not in self.of_bus:
            raise ScenarioError(f"{what} = {bus} is not a bus of {network}; its {len(self.of_bus)} buses are numbered "
                                f"{min(self.of_bus)} to {max(self.of_bus)}")
        return self.of_bus[bus]

    def named(self, name: str, what: str) -> int:
        """Node of the bus that an entity called 'bus3' stands for; ScenarioError naming `what` if there is none."""
        if name not in self._by_name:
            raise ScenarioError(unknown(what, name, self._by_name))
        return self._by_name[name]


@dataclass(frozen=True, eq=False)
class Ratings:
    """What the branches of a feeder, or the rows of a solver, may carry (n,): A, kVA, NaN: not known; and the share of
    it that is the limit, 1 unless the file has another."""

    current_a: Floats
    power_kva: Floats
    most_ratio: Floats


@dataclass(frozen=True, eq=False)
class Feeder:
    """A radial feeder in service, every branch pointing away from the substation.

    All per-unit figures are on voltage bases that follow the ratios of the transformers, as seen from the substation:
    a voltage v of this feeder is `ratio` v in p.u. of the bus's own nominal voltage. So a branch is an impedance alone.

    name          for messages
    base_mva, base_kv  what 1 p.u. is (base_kv: at the substation)
    v0_pu         the network's own voltage at the substation
    nodes         the electrical nodes; elsewhere a bus is its position 0..n_bus-1 among them
    substation    position of the slack bus
    parent, child (n_branch,) positions; power that leaves the substation enters a branch at its parent
    r_pu, x_pu    (n_branch,) series impedance, >= 0, not both 0
    b_pu          (n_bus,) susceptance collected at the buses: line charging, magnetising currents, shunts
    p_kw, q_kvar  (n_bus,) base load, > 0 drawn
    g_parent_pu, g_child_pu  (n_branch,) conductance at either end, >= 0: iron losses, which are lost in the branch
    g_bus_pu      (n_bus,) conductance of shunts, whose power is drawn at the bus
    own_p_kw, own_q_kvar  (n_bus,) constant power that elements other than loads draw there (motors, wards, storage)
    ratio         (n_bus,) complex
    generators    the network's own; a dispatch must take them or refuse them
    merged        (n_row,) branch that each row of the solver's branches is part of, `forward` (n_row,) whether its
                  first end is the parent: parallel branches are one here
    left_out      what of the network this model does not hold, for people
    rated_kw      what the branches at the substation carry at most; None where it is not known
    voltage_limits  (bus, lowest, highest) that the file states, see `elements.voltage_limits`
    batteries     (name, bus number) of the network's storage in whose place a battery of that name stands
    b_parent_pu, b_child_pu  (n_branch,) what of b_pu is a branch's own, at either end
    base_a        (n_branch,) current of 1 p.u. here, A; at a transformer that of its parent's side
    ratings       of the branches, as the file states them
    """

    name: str
    base_mva: float
    base_kv: float
    v0_pu: float
    nodes: Nodes
    substation: int
    parent: Ints
    child: Ints
    r_pu: Floats
    x_pu: Floats
    b_pu: Floats
    p_kw: Floats
    q_kvar: Floats
    g_parent_pu: Floats
    g_child_pu: Floats
    g_bus_pu: Floats
    own_p_kw: Floats
    own_q_kvar: Floats
    ratio: Complexes
    merged: Ints
    forward: NDArray[np.bool_]
    b_parent_pu: Floats
    b_child_pu: Floats
    base_a: Floats
    ratings: Ratings
    generators: tuple[Generator, ...] = ()
    left_out: tuple[str, ...] = ()
    rated_kw: float | None = None
    voltage_limits: tuple[tuple[int, float, float], ...] = ()
    batteries: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(array := getattr(self, field.name), np.ndarray):
                array.flags.writeable = False  # one feeder is shared by all who read the same network

    @property
    def bus_ids(self) -> tuple[int, ...]:
        """Lowest bus number of every node that has buses; inner nodes stand behind them."""
        return self.nodes.lowest

    @property
    def n_bus(self) -> int:
        """Number of nodes; there is one branch less."""
        return len(self.nodes)

    @property
    def base_kw(self) -> float:
        """Power of 1 p.u., kW."""
        return KW_PER_MW * self.base_mva

    @cached_property
    def vm_ratio(self) -> Floats:
        """(n_bus,) p.u. of the bus's nominal voltage per p.u. here; 1 where no ratio is off."""
        return np.abs(self.ratio)

    def shunts_kw(self, vm_pu: Floats) -> Floats:
        """(n_bus,) what the conductances of shunts draw at the buses' voltages, as their nominal voltages have them."""
        return self.g_bus_pu * (vm_pu / self.vm_ratio) ** 2 * self.base_kw

    @cached_property
    def g_pu(self) -> Floats:
        """(n_bus,) all conductance at each bus."""
        return self.g_bus_pu + self.g_lost_pu

    @cached_property
    def g_lost_pu(self) -> Floats:
        """(n_bus,) conductance at each bus whose power is lost in a branch."""
        ends, g = np.concatenate([self.parent, self.child]), np.concatenate([self.g_parent_pu, self.g_child_pu])
        return sums(ends, g, self.n_bus)

    @cached_property
    def bus_names(self) -> list[str]:
        """Names of the nodes: 'bus' and their lowest bus number, or what an inner node is."""
        return list(self.nodes.names)

    @cached_property
    def line_names(self) -> list[str]:
        """'0-1' for the branch from bus 0 to bus 1, seen from the substation."""
        labels = self.nodes.labels
        return [f"{labels[a]}-{labels[b]}" for a, b in zip(self.parent, self.child, strict=True)]

    @cached_property
    def tree(self) -> RadialTree:
        """The same feeder for the power flow sweep."""
        z_pu = self.r_pu + 1j * self.x_pu
        return radial_tree(self.n_bus, self.parent, self.child, z_pu, self.b_pu, self.substation, self.g_pu,
                           self.g_parent_pu, self.g_child_pu)

    def voltage(self, v0_pu: float | None) -> float:
        """Voltage at the substation, p.u.: the network's own unless another is given."""
        return self.v0_pu if v0_pu is None else v0_pu

    def position(self, bus_id: int | str, what: str) -> int:
        """Index of the bus numbered `bus_id` in the arrays; ScenarioError naming `what` for a wrong one."""
        return self.nodes.position(bus_id, what, self.name)

    def named(self, name: str, member: str) -> int:
        """Position of the bus that an entity called `name` stands for; ScenarioError if there is none."""
        return self.nodes.named(name, f"bus of {member} ({self.name})")


def orient(name: str, nodes: Nodes, from_node: Ints, to_node: Ints, elements: Sequence[str], substation: int
           ) -> tuple[Ints, NDArray[np.bool_]]:
    """Point every branch away from the substation: (order in which to visit them, whether the first end is the parent).

    elements  what a message calls each branch. Raises ScenarioError naming the branch that closes a loop, or the buses
    that no branch connects to the substation.
    """
    at_node: list[list[int]] = [[] for _ in range(len(nodes))]
    for k, pair in enumerate(zip(from_node.tolist(), to_node.tolist(), strict=True)):
        for node in pair:
            at_node[node].append(k)
    forward = np.zeros(len(from_node), bool)
    order: list[int] = []
    seen, done, queue = {substation}, set(), [substation]
    for node in queue:
        for k in at_node[node]:
            if k in done:
                continue
            far = int(to_node[k]) if int(from_node[k]) == node else int(from_node[k])
            if far in seen:
                labels = nodes.labels
                raise ScenarioError(
                    f"network {name} is not radial: {elements[k]} ({labels[from_node[k]]}-{labels[to_node[k]]}) closes "
                    "a loop; take it or another branch of the loop out of service, or use the grid that needs no "
                    "radial network, cosim.simulators.grid.ac:AcPowerFlow")
            forward[k] = int(from_node[k]) == node
            done.add(k)
            order.append(k)
            seen.add(far)
            queue.append(far)
    cut = [bus for bus, node in nodes.of_bus.items() if node not in seen]
    if cut:
        raise ScenarioError(island(name, cut, nodes.lowest[substation]))
    return np.array(order, dtype=np.int64), forward


def island(name: str, buses: Sequence[int], substation: int) -> str:
    """Message on buses that nothing connects to the substation."""
    what, are = ("bus", "is") if len(buses) == 1 else ("buses", "are")
    return (f"network {name} has an island: {what} {listed(sorted(buses))} {are} not connected to the substation "
            f"at bus {substation} by branches in service; connect or remove")
