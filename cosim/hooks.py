"""What a simulator offers the frame: mosaik's API, and hooks beyond it, each with its signature and when it is called.

A simulator written without this framework has mosaik's methods (`Simulator`) and may have `closing` and `notes`.
One that is built on `cosim.adapter.Adapter` inherits every hook with the default given here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from mosaik_api_v3.types import CreateResult, Meta

from cosim.errors import ModelError
from cosim.ports import Batch, Port
from cosim.scenario import Scenario

Values = dict[str, dict[str, Any]]
"""entity -> port -> value: a float, a list of floats (a port with dims) or a batch (an event port)."""
Closing = Mapping[str, Mapping[str, Batch]]
"""entity -> event port -> rows."""


class Simulator(Protocol):
    """mosaik's API, version 2 or 3: what every simulator has that runs in this process."""

    meta: Meta

    def init(self, sid: str, time_resolution: float = 1.0, **sim_params: Any) -> Meta:
        """Take the name, the length of a bus step in s and the parameters. First of all, once."""

    def create(self, num: int, model: str, **model_params: Any) -> list[CreateResult]:
        """Make entities. Once per model of the scenario."""

    def setup_done(self) -> None:
        """All entities of all members are there."""

    def step(self, time: int, inputs: dict[str, dict[str, dict[str, Any]]], max_advance: int) -> int | None:
        """One tick, at a bus step; returns the next."""

    def get_data(self, outputs: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
        """Outputs after a tick: of these entities, these ports."""

    def finalize(self) -> None:
        """The run is over. Last of all, once, also after an error."""


REQUIRED = ("init", "create", "setup_done", "step", "get_data", "finalize")
"""Methods of `Simulator`."""


@runtime_checkable
class HasClosing(Protocol):
    """A simulator with rows left to export at the end; where it runs elsewhere, `closing` is one of its
    extra_methods."""

    def closing(self) -> Closing:
        """Last rows of event ports with a table. Once, after the last tick, also of a run that failed."""


@runtime_checkable
class HasNotes(Protocol):
    """A simulator with notes; where it runs elsewhere, `notes` is one of its extra_methods."""

    def notes(self) -> list[str]:
        """Sentences for the run's summary. Once, after `closing`."""


class Hooks:
    """The hooks of simulators that are built on `cosim.adapter.Adapter`, with their defaults.

    Of the class, before anything is started (by `cosim.drivers.resolve`, in this order: model_names, completes,
    entity_names, natural_horizon_s, check_horizon, check_scenario, check_members; `given` is an instance of the class's
    PARAMS). Of the object: setup, resume, labels, tables, initial, then advance at every tick, carry, closing, notes.

    PARAMS       its parameters (`cosim.params.params`); fields `scenario_start` and `scenario_warmup_s` are filled in
    MODELS       model -> ports; empty where they are known only in `init` (`Adapter.adopt`)
    REPLAYED_BY  import string of the simulator that plays its tables of a trace, whose outputs are events
                 (`cosim.replay.exchange.replay`); None: levels are played
    VARIANTS     import strings of simulators that may take its place and have more fields or ports: named where one is
                 set or linked here
    TABLE_FIELD  its field for a table that holds less than its outputs (a forecast is worked out from prices): it then
                 plays itself; None: tables are played by `cosim.replay.members.TablePlayer`
    spare        set by a driver that fetches linked outputs alone: `advance` may give `cosim.adapter.LazyOutputs` ones
    """

    PARAMS: ClassVar[Any]
    MODELS: ClassVar[dict[str, tuple[Port, ...]]]
    REPLAYED_BY: ClassVar[str | None] = None
    VARIANTS: ClassVar[tuple[str, ...]] = ()
    TABLE_FIELD: ClassVar[str | None] = None
    spare = False

    @classmethod
    def completes(cls, member: str, given: Any, scenario: Scenario) -> Scenario:
        """The scenario with what it leaves open and the files of this member decide: its start, where that is null, or
        rows of shared tables. Once, on the scenario as it was written. ScenarioError for a file that cannot be read."""
        return scenario

    @classmethod
    def entity_names(cls, given: Any, of: str) -> list[str] | None:
        """Entity names that its parameter `of` implies, the buses of a network for example, for scenarios with `of` in
        place of a list; members that cannot answer take those of one that can. None: it implies none. ScenarioError
        for a value that cannot be read."""
        return None

    @classmethod
    def model_names(cls, given: Mapping[str, Any]) -> list[str] | None:
        """The models that it has with these parameters, as they were written and not validated, before it is started;
        None: not known before."""
        return list(cls.MODELS) or None

    @classmethod
    def natural_horizon_s(cls, given: Any) -> float | None:
        """How long what it plays lasts, s, from t = 0; a scenario without an end takes the shortest. None: no end."""
        return None

    @classmethod
    def check_horizon(cls, member: str, given: Any, step_s: float, until_s: float) -> None:
        """ScenarioError where its data do not last until `until_s` (warm-up included) at its step."""

    @classmethod
    def check_scenario(cls, member: str, given: Any, scenario: Scenario) -> None:
        """ScenarioError where it does not fit the scenario it stands in."""

    @classmethod
    def check_members(cls, member: str, given: Any, members: Mapping[str, Any]) -> None:
        """ScenarioError where it does not fit the parameters of the others: `members` has those of all that are built
        on cosim.adapter."""

    def setup(self) -> None:
        """Build the engine. Once, when all entities are there; `params`, `entities`, `step_s` and `stream(purpose)`
        are known."""

    def resume(self, carry: Mapping[str, np.ndarray]) -> None:
        """Go on, in a new world at time 0, from what `carry` gave. After `setup`, before all others, and only where
        something was carried. ModelError unless a subclass implements it."""
        if carry:
            raise ModelError(f"{type(self).__name__} cannot go on from {', '.join(sorted(carry))}; give it resume(), "
                             "or start it without")

    def labels(self) -> dict[str, list[str]]:
        """Names along each axis that ports use in `dims`, e.g. {'job_class': ['llm', 'vae']}. Once, after `setup`."""
        return {}

    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """What stays as it is for the whole run, as tables (name -> column -> values) that the trace holds as
        '<member>.<name>': where branches end, for example. Once, after `setup`."""
        return {}

    def initial(self) -> Values:
        """Outputs as they stand before the first tick, for links that are shifted in time; {} if there are none."""
        return {}

    def advance(self, time_s: float, inputs: Values) -> Values:
        """One tick at `time_s`: fresh outputs for every entity and out port, from inputs for every in port."""
        raise ModelError(f"{type(self).__name__} has no advance(); a simulator says there what one tick does")

    def carry(self) -> dict[str, np.ndarray]:
        """What outlives this world (its day): plain arrays, times relative to now. After the last tick of a learner's
        day, once; {} for a simulator that begins every day anew."""
        return {}

    def closing(self) -> dict[str, dict[str, Batch]]:
        """As `HasClosing.closing`."""
        return {}

    def notes(self) -> list[str]:
        """As `HasNotes.notes`: what a user should notice about the run."""
        return []
