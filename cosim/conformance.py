"""Does a simulator keep the contract of its role? A list of checks, each with a reason and what to do.

The simulator takes its role's place in a real scenario, under the native driver, for a few of its steps; what the bus
told it is written down and given again to fresh copies of it, as it was, at zero, and threefold.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosim.drivers.instrument import Control
from cosim.drivers.native import NativeWorld, start_member
from cosim.drivers.plan import Sides
from cosim.drivers.resolve import Resolved, resolve
from cosim.errors import CosimError, ScenarioError
from cosim.scenario import Scenario
from cosim.units import scale

STEPS = 8
EXTREME = 3.0
MOST_KG_PER_KWH = 3.0
"""No power plant emits more: three times what an old one on lignite does."""
PHYSICAL = ("loss_kw", "emission_kg_per_h", "p_source_kw", "p_from_kw", "p_load_total_kw", "vm_pu")
"""What a grid exports of itself that cannot be the same at any demand."""
Calls = list[tuple[int, dict]]
Answers = list[dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Check:
    """One line of the table: what was checked, whether it holds, and if not, why and what to do. One that could not be
    checked passes and says why it was not."""

    what: str
    passed: bool
    reason: str = ""
    fix: str = ""
    checked: bool = True


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
    """The member under test, what the bus told it in a run, and what the bus wanted to know."""

    resolved: Resolved
    role: str
    calls: Calls = field(default_factory=list)
    request: dict[str, list[str]] = field(default_factory=dict)


def _shape(resolved: Resolved, role: str) -> Iterator[Check]:
    """What can be seen before the first step."""
    cls = resolved.classes[role]
    meta = getattr(cls(), "meta", None) or {}
    yield _that("META names models and attributes",
                isinstance(meta.get("models"), dict) and all("attrs" in m for m in meta["models"].values()),
                f"META is {meta!r:.80}", "pass {'api_version': '3.0', 'type': 'time-based', 'models': {...}} to "
                "Simulator.__init__, each model with its 'attrs'")
    yield _that("META is time-based", meta.get("type") == "time-based", f"type is {meta.get('type')!r}",
                "make it time-based: event-based members make a run quadratically slow and cannot run natively")
    named = {"init": "time_resolution", "step": "max_advance"}
    for method, word in named.items():
        parameters = inspect.signature(getattr(cls, method)).parameters
        yield _that(f"{method}() has a parameter called {word}", word in parameters or any(
            p.kind is p.VAR_KEYWORD for p in parameters.values()), f"it has {', '.join(parameters)}",
            f"name it {word}: mosaik looks for the name")


def _runs(part: _Part) -> Check:
    """Run the scenario with the member in its place; fills in what it was told and asked."""
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
        part.request = world.taps[role].request
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
    yield _that("asks for its next step at its own step size", all(b == a + first.steps[0] for a, b in first.asked),
                f"steps asked for: {first.asked[:3]}", "return time + step_size, in bus steps")
    yield _that("outputs are finite numbers", not first.bad, f"{first.bad}",
                "return plain floats (or lists of floats), never NaN, None or text")
    yield _that("outputs are plain Python values", not first.odd, f"{first.odd}",
                "convert numpy values by float() or .tolist(): a remote consumer gets JSON")
    yield _that("outputs are fresh every step", first.fresh, "a value given out earlier changed later",
                "return new dicts and lists; the bus passes them by reference")
    yield _that("inputs are left as they are", first.inputs_kept, "step() changed its inputs",
                "copy before popping or changing: the dict is the bus's own store")
    equal = _same(first.answers, second.answers)
    yield _that("equal inputs give equal outputs", equal, "two runs differ",
                "draw randomness from the seed that init receives, and keep nothing between instances")
    if equal:
        yield _that("the order of sources does not matter", _same(_play(part, _turned(part.calls)).answers,
                                                                  first.answers),
                    "outputs change when sources arrive in another order", "sort by source before adding up")
    others = {}
    for what, factor in (("zero", 0.0), (f"{EXTREME:g}-fold", EXTREME)):
        others[what], check_of = _survives(part, what, factor)
        yield check_of
    if part.role in ("grid", "carbon"):
        yield from _grid(part, first, others)


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
    return played, _that(name, not played.bad, str(played.bad), "give finite values, or raise cosim.errors.ModelError")


def _grid(part: _Part, played: _Played, others: Mapping[str, _Played | None]) -> Iterator[Check]:
    """What physics says of a grid's answers, as far as they show it; others: to other demand."""
    answers = [answer for run in (played, *others.values()) if run is not None for answer in run.answers]
    yield _intensities(part, played.answers, _values(part, answers, "nci_kg_per_kwh"))
    for port, what in (("loss_kw", "losses"), ("emission_kg_per_h", "emissions")):
        found = _values(part, answers, port)
        if not found:
            yield _unchecked(f"{what} are not negative", f"it exports no {port}")
            continue
        yield _that(f"{what} are not negative", min(found) >= -1e-6, f"{port} is {min(found):g}",
                    "what is lost or emitted is counted positive; a source that takes power emits nothing")
    yield _answers_to_load(part, played, others)
    yield from _balance(part, played)


def _intensities(part: _Part, answers: Answers, ever: list[float]) -> Check:
    """NCI within the sources' intensities, and, at other demand too (`ever`), within what any fuel emits."""
    nci = _values(part, answers, "nci_kg_per_kwh")
    if not nci:
        return _unchecked("NCI is a plausible mean of intensities", "it exports no nci_kg_per_kwh")
    sources = getattr(part.resolved.params.get(part.role), "sources", None) or {}
    known = [s.kg_per_kwh for s in sources.values() if hasattr(s, "kg_per_kwh")]
    own = getattr(part.resolved.params.get(part.role), "network_sources", None) or {}
    known += own.values()
    low, high = (min(known), max(known)) if known else (0.0, MOST_KG_PER_KWH)
    if any(_values(part, answers, "p_local_bus_kw")):  # local generation is at 0
        low = 0.0
    if (most := max(ever)) > MOST_KG_PER_KWH:
        return Check(f"NCI lies between {low:g} and {high:g} kg/kWh", False,
                     f"it reaches {most:g} kg/kWh, and no power plant emits more than {MOST_KG_PER_KWH:g}; it looks "
                     f"like g/kWh ({most / 1000.0:g} kg/kWh)",
                     "divide by 1000, or call the port nci_g_per_kwh: units convert by the names' suffixes")
    return _that(f"NCI lies between {low:g} and {high:g} kg/kWh", all(low - 1e-6 <= w <= high + 1e-6 for w in nci),
                 f"it reaches from {min(nci):g} to {max(nci):g}", "it is a mean of the sources' intensities")


def _answers_to_load(part: _Part, played: _Played, others: Mapping[str, _Played | None]) -> Check:
    """Whether flows, losses, emission or voltages are others at other demand."""
    what = "it answers to load"
    shown = [port for port in PHYSICAL if _values(part, played.answers, port)]
    drawn = [abs(value) for _, inputs in part.calls for ports in inputs.values() for name, by in ports.items()
             if name.lower().startswith("p_") for value in by.values() if isinstance(value, float)]
    other = [run for run in others.values() if run is not None]
    if not shown:
        return _unchecked(what, f"it exports none of {', '.join(PHYSICAL)}; an intensity may well stand still")
    if not any(drawn) or not other:
        return _unchecked(what, "the scenario brings it no demand" if other else "it refuses any other demand")
    differs = any(_values(part, run.answers, port) != _values(part, played.answers, port)
                  for run in other for port in shown)
    return _that(what, differs, f"{', '.join(shown)} are the same at no and at {EXTREME:g}-fold demand",
                 "work them out from p_load_kw and q_load_kvar of the buses, of the same step")


def _balance(part: _Part, played: _Played) -> Iterator[Check]:
    """Line ends against losses, and sources against what is drawn, where the answers show them."""
    for answer in played.answers[:1]:
        for eid, out in answer.items():
            if {"loss_kw", "p_from_kw", "p_to_kw"} <= out.keys():
                loss = sum(out["p_from_kw"]) + sum(out["p_to_kw"])
                yield _that("line ends differ by the loss", abs(loss - out["loss_kw"]) <= 1e-3,
                            f"{eid}: sum over lines {loss:g} kW, loss_kw {out['loss_kw']:g} kW",
                            "p_from_kw and p_to_kw are positive where power enters the line")
            if {"p_source_kw", "loss_kw", "p_drawn_bus_kw", "p_local_bus_kw"} <= out.keys():
                given = sum(out["p_source_kw"]) + sum(out["p_local_bus_kw"])
                used = sum(out["p_drawn_bus_kw"]) + out["loss_kw"]
                yield _that("sources give what is drawn and lost", abs(given - used) <= 1e-3 + 1e-7 * abs(used),
                            f"{eid}: given {given:g} kW, drawn and lost {used:g} kW",
                            "p_source_kw is positive where it feeds the network, p_drawn_bus_kw where it is drawn")
                return
    yield _unchecked("sources give what is drawn and lost",
                     "no entity of it exports p_source_kw, loss_kw, p_drawn_bus_kw and p_local_bus_kw")


def _values(part: _Part, answers: Answers, ours: str) -> list[float]:
    """All values of a port of ours, in its unit, whatever this simulator calls it."""
    theirs, at, factor = part.resolved.scenario.members[part.role].names.get(ours, ours).partition("@")
    theirs = theirs.rpartition(".")[2] if theirs not in {n for out in answers[0].values() for n in out} else theirs
    per = 1.0 / float(factor) if at else 1.0 if theirs == ours else scale(theirs, ours)
    found = [out[theirs] for answer in answers for out in answer.values() if theirs in out]
    numbers = [v for value in found for v in (value if isinstance(value, (list, tuple)) else [value])]
    return [v * per for v in numbers if isinstance(v, (int, float)) and math.isfinite(v)]


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
    side = start_member(part.resolved, part.role, simulator)
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
        played.bad = played.bad or _first(data, _not_finite, side)
        played.odd = played.odd or _first(data, _not_plain, side)
    played.fresh = all(_same(now, then) for now, then in given)
    simulator.finalize()
    return played


def _first(data: Mapping[str, Mapping[str, Any]], wrong: Callable[[Any], bool], side: Sides) -> str:
    may_be_nan = {p.name for ports in side.ports.values() for ps in ports.values() for p in ps if p.nullable}
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


def _unchecked(what: str, reason: str) -> Check:
    return Check(what, True, reason, checked=False)


def _that(what: str, passed: bool, reason: str, fix: str) -> Check:
    return Check(what, bool(passed), "" if passed else reason, "" if passed else fix)
