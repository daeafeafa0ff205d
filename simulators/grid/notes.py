"""Notes on a run of a dispatching grid: unusual intervals, weights at zero, departures from a network's file."""

from __future__ import annotations

from cosim.simulators.grid.dispatch.sources import other_voltage, tighter_limits
from cosim.simulators.grid.dispatch.varying import number_or_nan, varies
from cosim.simulators.grid.network.feeder import Feeder
from cosim.simulators.grid.params import GridParams


def dispatch_notes(p: GridParams, feeder: Feeder, *, seen: list[str], series: list[str], ran: bool, ramped: bool,
                   sites_drew: bool) -> list[str]:
    """Lines of a run's notes.

    seen, series: of the intervals, and of the sources' series; ran: there was a dispatch; ramped: a source has a ramp
    limit; sites_drew: data centers drew power through ports of their own
    """
    lines = list(seen)
    own = {n: s.marginal_kg_per_kwh for n, s in p.sources.items() if s.marginal_kg_per_kwh is not None}
    if own and p.mci:
        lines.append("mci counts " + ", ".join(
            n if varies(w) else f"{n} at {number_or_nan(w):g} kg/kWh" for n, w in own.items())
                     + ", its marginal intensity; NCI and emission are at its average")
    lines += series
    if p.lambda_kw_per_kg_h == 0.0 and not p.nci_cap_kg_per_kwh and ran:
        lines.append("lambda_kw_per_kg_h = 0, so that the dispatch does not weigh carbon, whatever agents see of it "
                     "(controller.mode)")
    worn = [n for n, b in p.batteries.items() if b.wear_usd_per_kwh]
    if worn and not p.cost_kw_per_usd_h:
        lines.append(f"wear_usd_per_kwh of {', '.join(worn)} is reported and not weighed, as cost_kw_per_usd_h = 0")
    if (ramped or p.batteries) and p.lookahead_steps > 1:
        lines.append(f"plans of {p.lookahead_steps} intervals by clarabel")
    if p.sites and ran and not sites_drew:
        lines.append("nothing was drawn through p_site_kw; a data centre that is linked to p_load_kw counts as base "
                     "load in forecast errors and in the settlement of intervals")
    return lines + _of_network(p, feeder)


def _of_network(p: GridParams, feeder: Feeder) -> list[str]:
    """What of the network is taken otherwise than its file has it."""
    lines = list(feeder.left_out)
    if p.v0_pu is not None and p.v0_pu != feeder.v0_pu:
        lines.append(other_voltage(p.v0_pu, [feeder.v0_pu]))
    lines += tighter_limits(p.vm_min_pu, p.vm_max_pu, feeder.voltage_limits)
    return [f"network {feeder.name}: {line}" for line in lines]
