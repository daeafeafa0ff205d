"""A radial feeder as data: what the dispatch and the carbon flow need to know of a network, and nothing more.

Rows of the model: I25, Z07.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Discriminator, Field, Tag

from cosim.errors import ScenarioError, unknown
from cosim.params import params
from simulators.grid.equations import Floats, Ints, RadialTree, radial_tree


@params
class Line:
    """A line of a `LineList`: the two buses it joins and its series impedance."""

    from_bus: Annotated[int, Field(ge=0, description="one end")]
    to_bus: Annotated[int, Field(ge=0, description="the other end")]
    r_ohm: Annotated[float, Field(ge=0, allow_inf_nan=False, description="series resistance, ohm")]
    x_ohm: Annotated[float, Field(ge=0, allow_inf_nan=False, description="series reactance, ohm")]


@params
class BaseLoad:
    """The base load of a bus of a `LineList`."""

    bus: Annotated[int, Field(ge=0, description="where it stands")]
    p_kw: Annotated[float, Field(ge=0, allow_inf_nan=False, description="active power drawn, kW")]
    q_kvar: Annotated[float, Field(allow_inf_nan=False, description="reactive power drawn, kvar")] = 0.0


@params
class LineList:
    """A radial feeder written out in the scenario. Its buses are those that the lines name."""

    base_kv: Annotated[float, Field(gt=0, allow_inf_nan=False, description="line-to-line voltage of 1 p.u., kV")]
    lines: Annotated[tuple[Line, ...], Field(min_length=1, description="lines in service; they form a tree")]
    loads: Annotated[tuple[BaseLoad, ...], Field(description="base loads, which a profile may scale")] = ()
    base_mva: Annotated[float, Field(gt=0, allow_inf_nan=False, description="power of 1 p.u., MVA")] = 1.0
    substation: Annotated[int, Field(ge=0, description="bus that the upstream grid feeds")] = 0


def _kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "line_list"


Network = Annotated[
    Annotated[str, Tag("name")] | Annotated[LineList, Tag("line_list")],
    Discriminator(_kind),
]
"""A parameter: the name of a function of `pandapower.networks`, the path of a pandapower .json or .xlsx
file, or a LineList."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator of the network itself: its bus number, and limits in kW and kvar (None: no limit)."""

    name: str
    node: int
    p_min_kw: float
    p_max_kw: float
    q_min_kvar: float | None
    q_max_kvar: float | None


@dataclass(frozen=True, eq=False)
class Feeder:
    """A radial network in service, every branch pointing away from the substation.

    name          for messages
    base_mva, base_kv  what 1 p.u. is
    bus_ids       (n_bus,) the network's own bus numbers, ascending; elsewhere a bus is its position 0..n_bus-1 here
    substation    position of the slack bus
    parent, child (n_branch,) positions; power that leaves the substation enters a branch at its parent
    r_pu, x_pu    (n_branch,) series impedance, >= 0, not both 0
    b_pu          (n_bus,) line charging collected at the buses, >= 0
    p_kw, q_kvar  (n_bus,) base load, > 0 drawn
    generators    the network's own; who dispatches must take them or refuse them
    left_out      what of the network this model does not hold, for people
    """

    name: str
    base_mva: float
    base_kv: float
    bus_ids: tuple[int, ...]
    substation: int
    parent: Ints
    child: Ints
    r_pu: Floats
    x_pu: Floats
    b_pu: Floats
    p_kw: Floats
    q_kvar: Floats
    generators: tuple[Generator, ...] = ()
    left_out: str = ""

    def __post_init__(self) -> None:
        for array in (self.parent, self.child, self.r_pu, self.x_pu, self.b_pu, self.p_kw, self.q_kvar):
            array.flags.writeable = False  # one feeder is shared by all who read the same network

    @property
    def n_bus(self) -> int:
        """Number of buses; there is one branch less."""
        return len(self.bus_ids)

    @property
    def base_kw(self) -> float:
        """Power of 1 p.u., kW."""
        return 1000.0 * self.base_mva

    @cached_property
    def bus_names(self) -> list[str]:
        """Entity names: 'bus' and the network's own number."""
        return [f"bus{i}" for i in self.bus_ids]

    @cached_property
    def line_names(self) -> list[str]:
        """'0-1' for the branch from bus 0 to bus 1, seen from the substation."""
        return [f"{self.bus_ids[a]}-{self.bus_ids[b]}" for a, b in zip(self.parent, self.child, strict=True)]

    @cached_property
    def tree(self) -> RadialTree:
        """The same feeder for the power flow sweep."""
        z_pu = self.r_pu + 1j * self.x_pu
        return radial_tree(self.n_bus, self.parent, self.child, z_pu, self.b_pu, self.substation)

    def position(self, bus_id: int, what: str) -> int:
        """Where the bus numbered `bus_id` stands in the arrays; ScenarioError naming `what` asks for a wrong one."""
        try:
            return self.bus_ids.index(bus_id)
        except ValueError:
            raise ScenarioError(
                f"{what} = {bus_id} is not a bus of {self.name}; its {self.n_bus} buses are numbered "
                f"{self.bus_ids[0]} to {self.bus_ids[-1]}"
            ) from None

    def named(self, name: str, member: str) -> int:
        """Position of the bus that an entity called `name` stands for; ScenarioError if there is none."""
        try:
            return self.bus_names.index(name)
        except ValueError:
            raise ScenarioError(unknown(f"bus of {member} ({self.name})", name, self.bus_names)) from None


def orient(name: str, bus_ids: list[int], ends: list[tuple[int, int]], labels: list[str], substation: int) -> Ints:
    """Point every line away from the substation: (n_line, 2) positions (parent, child).

    bus_ids  numbers of the buses, `ends` pairs of such numbers, `labels` what a message calls each line.
    Raises ScenarioError naming the line that closes a loop, or the buses that no line connects to the substation.
    """
    lines_at: dict[int, list[int]] = {bus: [] for bus in bus_ids}
    for k, pair in enumerate(ends):
        for bus in pair:
            lines_at[bus].append(k)
    place = {bus: i for i, bus in enumerate(bus_ids)}
    oriented = np.full((len(ends), 2), -1, dtype=np.int64)
    seen, queue = {substation}, [substation]
    for bus in queue:
        for k in lines_at[bus]:
            if oriented[k, 0] >= 0:
                continue
            far = ends[k][1] if ends[k][0] == bus else ends[k][0]
            if far in seen:
                raise ScenarioError(
                    f"network {name} is not radial: {labels[k]} ({ends[k][0]}-{ends[k][1]}) closes a loop; "
                    "take it or another line of the loop out of service"
                )
            oriented[k] = place[bus], place[far]
            seen.add(far)
            queue.append(far)
    islands = [bus for bus in bus_ids if bus not in seen]
    if islands:
        raise ScenarioError(
            f"network {name} has an island: {_some('bus', islands)} not connected to the substation at bus "
            f"{substation} by lines in service; connect or remove"
        )
    return oriented


def _some(what: str, numbers: list[int], most: int = 6) -> str:
    """'bus 3 is' or 'buses 3, 4, 5 are' for a message."""
    if len(numbers) == 1:
        return f"{what} {numbers[0]} is"
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"{what}es {', '.join(map(str, numbers[:most]))}{more} are"
