"""Checks of a simulator against the contract of its role, each with a reason and what to do.

The simulator takes its role's place in a real scenario, under the native driver, for a few of its steps; its inputs are
recorded and given to fresh copies of it, unchanged, at zero, and threefold. Further requirements of a role come from
the scenario's contracts (`cosim.contracts`).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosim.contracts import Answers, Calls, Check, Trial, contracts_named, that, unchecked
from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld, start_member
from cosim.drivers.plan import MemberInterface
from cosim.drivers.resolve import Resolved, resolve
from cosim.errors import CosimError, ScenarioError
from cosim.scenario import Scenario
from cosim.scenario_hooks import hook_of

STEPS = 8
EXTREME = 3.0


def check(scenario: Scenario, role: str) -> list[Check]:
    """All checks of the member `role` of `scenario`, in order; those that need an earlier one to hold are left out when
    it does not. Raises ScenarioError when there is no such member, or it runs in another process."""
    resolved = resolve(scenario, STEPS * scenario.members[role].step_s) if role in scenario.members else None
    if resolved is None or role not in resolved.classes:
        raise ScenarioError(f"'{role}' is no member of {scenario.name} that runs in this process; members: "
                            f"{', '.join(scenario.members)}")
    out = list(_shape(resolved, role))
    if not all(c.passed for c in out):
        return out
    part = _Part(resolved, role)
    out.append(_runs(part))
    if not out[-1].passed:
        return out
    return out + list(_behaviour(part))


@dataclass
class _Part:
    """The member under test, the inputs it received in a run, and the outputs that were requested."""

    resolved: Resolved
    role: str
    calls: Calls = field(default_factory=list)
    request: dict[str, list[str]] = field(default_factory=dict)


def _shape(resolved: Resolved, role: str) -> Iterator[Check]:
    """What can be seen before the first step."""
    cls = resolved.classes[role]
    meta = getattr(cls(), "meta", None) or {}
    yield that("META names models and attributes",
                isinstance(meta.get("models"), dict) and all("attrs" in m for m in meta["models"].values()),
                f"META is {meta!r:.80}", "pass {'api_version': '3.0', 'type': 'time-based', 'models': {...}} to "
                "Simulator.__init__, each model with its 'attrs'")
    yield that("META is time-based", meta.get("type") == "time-based", f"type is {meta.get('type')!r}",
                "make it time-based: event-based members make a run quadratically slow and cannot run natively")
    named = {"init": "time_resolution", "step": "max_advance"}
    for method, word in named.items():
        parameters = inspect.signature(getattr(cls, method)).parameters
        yield that(f"{method}() has a parameter called {word}", word in parameters or any(
            p.kind is p.VAR_KEYWORD for p in parameters.values()), f"it has {', '.join(parameters)}",
            f"name it {word}: mosaik looks for the name")


def _runs(part: _Part) -> Check:
    """Run the scenario with the member in its place; records its inputs and the outputs requested."""
    resolved, role, calls = part.resolved, part.role, part.calls
    cls = resolved.classes[role]
    what = f"runs {STEPS} steps in the place of '{role}' in {resolved.scenario.name}"

    def step(self: Any, time: int, inputs: dict, max_advance: int) -> int | None:
        calls.append((time, copy.deepcopy(inputs)))
        return cls.step(self, time, inputs, max_advance)

    resolved.classes[role] = type(cls.__name__, (cls,), {"step": step})
    world = NativeWorld(resolved, Control(resolved.clock, resolved.until))
    try:
        world.start()
        world.run(resolved.until)
        part.request = world.probes[role].request
    except ScenarioError as err:
        return Check(what, False, str(err), "see the reason; a name or unit that differs is bridged by --map")
    except CosimError as err:
        return Check(what, False, str(err), "see the reason; every step gives every out port of every entity a finite "
                     "float, or a list of them")
    finally:
        resolved.classes[role] = cls
        world.close()
    return Check(what, True)


def _behaviour(part: _Part) -> Iterator[Check]:
    first, second = _play(part, part.calls), _play(part, part.calls)
    yield that("asks for its next step at its own step size", all(b == a + first.steps[0] for a, b in first.asked),
                f"steps asked for: {first.asked[:3]}", "return time + step_size, in bus steps")
    yield that("outputs are finite numbers", not first.bad, f"{first.bad}",
                "return plain floats (or lists of floats), never NaN, None or text")
    yield that("outputs are plain Python values", not first.odd, f"{first.odd}",
                "convert numpy values by float() or .tolist(): a remote consumer gets JSON")
    yield that("outputs are fresh every step", first.fresh, "a value given out earlier changed later",
                "return new dicts and lists; the bus passes them by reference")
    yield that("inputs are left as they are", first.inputs_kept, "step() changed its inputs",
                "copy before popping or changing: the dict is the bus's own store")
    equal = _same(first.answers, second.answers)
    yield that("equal inputs give equal outputs", equal, "two runs differ",
                "draw randomness from the seed that init receives, and keep nothing between instances")
    if equal:
        yield that("the order of sources does not matter", _same(_play(part, _turned(part.calls)).answers,
                                                                  first.answers),
                    "outputs change when sources arrive in another order", "sort by source before adding up")
    others = {}
    for what, factor in (("zero", 0.0), (f"{EXTREME:g}-fold", EXTREME)):
        others[what], check_of = _survives(part, what, factor)
        yield check_of
    yield from _contract(part, first, {what: other.answers for what, other in others.items() if other is not None})


def _contract(part: _Part, played: _Played, others: Mapping[str, Answers]) -> Iterator[Check]:
    """Requirements of the scenario's contracts on this member."""
    scenario = part.resolved.scenario
    hook = hook_of(scenario.model_dump(), "contracts")
    if hook is None:
        yield unchecked("keeps the contract of its role", f"{scenario.name} names no contracts (Scenario.contracts)")
    elif (contract := contracts_named(hook).get(part.role)) is not None:
        names = scenario.members[part.role].names
        trial = Trial(part.resolved.params.get(part.role), names, part.calls, played.answers, others)
        try:
            yield from contract(trial)
        except CosimError:
            raise
        except Exception as err:  # foreign code
            raise ScenarioError(f"the contract of '{part.role}' in {hook} does not cope with this simulator: "
                                f"{type(err).__name__}: {err}") from err


def _survives(part: _Part, what: str, factor: float) -> tuple[_Played | None, Check]:
    """What it answers to inputs scaled so, None where it refuses them."""
    name = f"{what} inputs give finite outputs or a clear error"
    try:
        played = _play(part, _scaled(part.calls, factor))
    except CosimError:
        return None, Check(name, True)
    except Exception as err:
        return None, Check(name, False, f"{type(err).__name__}: {err}",
                           "raise cosim.errors.ModelError with one clear line")
    return played, that(name, not played.bad, str(played.bad), "give finite values, or raise cosim.errors.ModelError")


@dataclass
class _Played:
    """One copy's answers to a list of calls, and what was wrong with them."""

    answers: Answers
    asked: list[tuple[int, int | None]]
    steps: list[int]
    bad: str
    odd: str
    fresh: bool
    inputs_kept: bool


def _play(part: _Part, calls: Calls) -> _Played:
    simulator = part.resolved.classes[part.role]()
    interface = start_member(part.resolved, part.role, simulator)
    simulator.setup_done()
    played = _Played([], [], [calls[1][0] - calls[0][0]], "", "", True, True)
    given: list[tuple[dict, dict]] = []
    for time, inputs in calls:
        told = copy.deepcopy(inputs)
        played.asked.append((time, simulator.step(time, told, 10**9)))
        played.inputs_kept &= told == inputs
        data = simulator.get_data(part.request) if part.request else {}
        given.append((data, copy.deepcopy(data)))
        played.answers.append(given[-1][1])
        played.bad = played.bad or _first(data, _not_finite, interface)
        played.odd = played.odd or _first(data, _not_plain, interface)
    played.fresh = all(_same(now, then) for now, then in given)
    simulator.finalize()
    return played


def _first(data: Mapping[str, Mapping[str, Any]], wrong: Callable[[Any], bool], interface: MemberInterface) -> str:
    may_be_nan = {p.name for ports in interface.ports.values() for ps in ports.values() for p in ps if p.nullable}
    for eid, values in data.items():
        for name, value in values.items():
            if not isinstance(value, dict) and name not in may_be_nan and wrong(value):
                return f"{eid}.{name} = {value!r:.60}"
    return ""


def _not_finite(value: Any) -> bool:
    try:
        return not all(map(math.isfinite, value)) if isinstance(value, (list, tuple)) else not math.isfinite(value)
    except TypeError:
        return True


def _not_plain(value: Any) -> bool:
    return not all(isinstance(v, (float, int)) for v in (value if isinstance(value, (list, tuple)) else [value]))


def _same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals NaN."""
    return repr(a) == repr(b)


def _scaled(calls: Calls, factor: float) -> Calls:
    """The same calls with every level of power scaled; set points, prices and batches stay."""
    def scaled(name: str, value: Any) -> Any:
        return value * factor if name.lower().startswith(("p_", "q_")) and isinstance(value, float) else value

    return [(t, {e: {n: {s: scaled(n, v) for s, v in by.items()} for n, by in ports.items()}
                 for e, ports in inputs.items()}) for t, inputs in calls]


def _turned(calls: Calls) -> Calls:
    """The same calls with sources in the opposite order."""
    return [(t, {e: {n: dict(reversed(by.items())) for n, by in ports.items()} for e, ports in inputs.items()})
            for t, inputs in calls]
