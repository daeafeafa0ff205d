"""What a grid has to keep, of whatever make: intensities, losses, emissions and balances that can be.

A scenario names CONTRACTS as its `contracts`; `cosim check grid` then checks this beside what the frame
checks of every simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosim.contracts import Check, Contract, Trial, that, unchecked
from cosim.plausible import INTENSITY
from cosim.simulators.grid.dispatch.varying import least_and_most

PHYSICAL = ("loss_kw", "emission_kg_per_h", "p_source_kw", "p_from_kw", "p_load_total_kw", "vm_pu")
"""What a grid exports of itself that cannot be the same at any demand."""


def grid(trial: Trial) -> Iterator[Check]:
    """Physical laws that a grid's outputs must obey, as far as they show it."""
    answers = [answer for run in (trial.answers, *trial.others.values()) for answer in run]
    yield _intensities(trial, trial.values("nci_kg_per_kwh", answers))
    for port, what in (("loss_kw", "losses"), ("emission_kg_per_h", "emissions")):
        found = trial.values(port, answers)
        if not found:
            yield unchecked(f"{what} are not negative", f"it exports no {port}")
            continue
        yield that(f"{what} are not negative", min(found) >= -1e-6, f"{port} is {min(found):g}",
                   "what is lost or emitted is counted positive; a source that takes power emits nothing")
    yield _answers_to_load(trial)
    yield from _balance(trial)


def _intensities(trial: Trial, ever: list[float]) -> Check:
    """NCI within the sources' intensities, and, at other demand too (`ever`), within what any fuel emits."""
    nci, most_kg_per_kwh = trial.values("nci_kg_per_kwh"), INTENSITY.high
    if not nci:
        return unchecked("NCI is a plausible mean of intensities", "it exports no nci_kg_per_kwh")
    sources = getattr(trial.params, "sources", None) or {}
    given = [s.kg_per_kwh for s in sources.values() if hasattr(s, "kg_per_kwh")]
    own = getattr(trial.params, "network_sources", None) or {}
    known = [w for value in (*given, *own.values())
             for w in least_and_most(value, (INTENSITY.low, most_kg_per_kwh))]
    low, high = (min(known), max(known)) if known else (INTENSITY.low, most_kg_per_kwh)
    if any(trial.values("p_local_bus_kw")):  # local generation is at 0
        low = 0.0
    if (most := max(ever)) > most_kg_per_kwh:
        return Check(f"NCI lies between {low:g} and {high:g} kg/kWh", False,
                     f"it reaches {most:g} kg/kWh, and no power plant emits more than {most_kg_per_kwh:g}; it looks "
                     f"like g/kWh ({most / 1000.0:g} kg/kWh)",
                     "divide by 1000, or call the port nci_g_per_kwh: units convert by the names' suffixes")
    return that(f"NCI lies between {low:g} and {high:g} kg/kWh", all(low - 1e-6 <= w <= high + 1e-6 for w in nci),
                f"it reaches from {min(nci):g} to {max(nci):g}", "it is a mean of the sources' intensities")


def _answers_to_load(trial: Trial) -> Check:
    """Whether flows, losses, emission or voltages are others at other demand."""
    what = "it answers to load"
    shown = [port for port in PHYSICAL if trial.values(port)]
    drawn = [abs(value) for _, inputs in trial.calls for ports in inputs.values() for name, by in ports.items()
             if name.lower().startswith("p_") for value in by.values() if isinstance(value, float)]
    if not shown:
        return unchecked(what, f"it exports none of {', '.join(PHYSICAL)}; an intensity may well stand still")
    if not any(drawn) or not trial.others:
        return unchecked(what, "the scenario brings it no demand" if trial.others else "it refuses any other demand")
    differs = any(trial.values(port, answers) != trial.values(port)
                  for answers in trial.others.values() for port in shown)
    return that(what, differs, f"{', '.join(shown)} are the same at {' and '.join(trial.others)} demand",
                "work them out from p_load_kw and q_load_kvar of the buses, of the same step")


def _balance(trial: Trial) -> Iterator[Check]:
    """Line ends against losses, and sources against what is drawn, where the answers show them."""
    for answer in trial.answers[:1]:
        for eid, out in answer.items():
            if {"loss_kw", "p_from_kw", "p_to_kw"} <= out.keys():
                loss = sum(out["p_from_kw"]) + sum(out["p_to_kw"])
                yield that("line ends differ by the loss", abs(loss - out["loss_kw"]) <= 1e-3,
                           f"{eid}: sum over lines {loss:g} kW, loss_kw {out['loss_kw']:g} kW",
                           "p_from_kw and p_to_kw are positive where power enters the line")
            if {"p_source_kw", "loss_kw", "p_drawn_bus_kw", "p_local_bus_kw"} <= out.keys():
                stored = sum(other["p_kw"] for other in answer.values() if {"p_kw", "soc_kwh"} <= other.keys())
                given = sum(out["p_source_kw"]) + sum(out["p_local_bus_kw"]) + stored
                used = sum(out["p_drawn_bus_kw"]) + out["loss_kw"]
                yield that("sources give what is drawn and lost", abs(given - used) <= 1e-3 + 1e-7 * abs(used),
                           f"{eid}: given {given:g} kW, drawn and lost {used:g} kW",
                           "p_source_kw is positive where it feeds the network, p_drawn_bus_kw where it is drawn")
                return
    yield unchecked("sources give what is drawn and lost",
                    "no entity of it exports p_source_kw, loss_kw, p_drawn_bus_kw and p_local_bus_kw")


CONTRACTS: Mapping[str, Contract] = {"grid": grid, "carbon": grid}
"""Member -> what it has to keep."""
