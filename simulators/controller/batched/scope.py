"""What the batched steering cannot do of a scenario, by name. Needs no numba."""

from __future__ import annotations

from typing import Any

from cosim.simulators.aidc.adapter import DataCenters
from cosim.simulators.aidc.compiled.options import unsupported
from cosim.simulators.controller.adapter import Controller
from cosim.simulators.controller.params import PORTS
from cosim.simulators.controller.steering import CONTROLLER, FLEET, WORKLOAD

LEVELS = ("queued_jobs", "deferred_jobs", "running_jobs", "pending_work_to", "deferred_work_to", "late_jobs",
          "urgent_jobs")
"""Of the fleet's ports those that the controller reads, per class."""
SITE_LEVELS = ("slack_min", "free_gpu_ratio", "p_kw")
"""The same, per site."""
_LINKED = (*LEVELS, *SITE_LEVELS)
_FROM_WORLD = ("price_usd_per_kwh", "forecast_usd_per_kwh", "nci_kg_per_kwh", "mci_kg_per_kwh")
_FORECASTS = (*PORTS.values(), "price_forecast_usd_per_kwh")
"""Forecasts over the horizon; of them only the policy of a run has use, and learners that observe them."""
_TO_WORLD = ("p_window_kw", "q_window_kvar")


def lacking(resolved: Any, plan: Any) -> list[str]:
    """What of a scenario's members and links is beyond it, each in a few words; [] if nothing is.

    resolved: a `cosim.drivers.resolve.Resolved` of a learning scenario; plan: its wiring
    """
    members, classes = resolved.scenario.members, resolved.classes
    served = [name for name, c in getattr(resolved.params.get(FLEET), "job_classes", {}).items() if c.kind == "llm"]
    if served:
        return [f"{FLEET} serves language models (job classes of kind llm: {', '.join(served)})"]
    for name, known in ((CONTROLLER, Controller), (FLEET, DataCenters)):
        if classes.get(name) is not known:
            return [f"{name} is no {known.__name__}"]
    found = [f"{FLEET}.{what}" for what in unsupported(resolved.params[FLEET])]
    if (spare := resolved.params[CONTROLLER].spare_gpus) != "idle":
        found.append(f"{CONTROLLER}.spare_gpus = {spare}: there spare GPUs stay idle")
    if resolved.params[CONTROLLER].base_policy:
        found += [f"{CONTROLLER}.{port} is linked, of which {CONTROLLER}.base_policy has no use there"
                  for port in sorted({c.target[2] for c in plan.connections if c.target[0] == CONTROLLER}
                                     & set(_FORECASTS))]
    if resolved.params[FLEET].rack_mean_up_s is not None:
        found.append(f"{FLEET}.rack_mean_up_s = {resolved.params[FLEET].rack_mean_up_s:g}: racks do not fail there")
    if not hasattr(classes.get(WORKLOAD), "rows_at"):
        found.append(f"{WORKLOAD} does not give its jobs as arrays")
    step_s = members[CONTROLLER].step_s
    found += [f"{name}.step_s = {members[name].step_s:g} is not that of {CONTROLLER}, {step_s:g}"
              for name in (FLEET, WORKLOAD) if name in members and members[name].step_s != step_s]
    if resolved.clock.steps(step_s) != 1:
        found.append(f"resolution_s = {resolved.clock.resolution_s:g} is finer than {CONTROLLER}.step_s")
    linked = {c.target[2] for c in plan.connections if c.source[0] == FLEET and c.target[0] == CONTROLLER}
    found += [f"{CONTROLLER}.{port} is not linked" for port in _LINKED if port not in linked]
    found += [f"the link from {'.'.join(c.source)} to {'.'.join(c.target)}" for c in plan.connections
              if not _known(c, members, step_s)]
    return list(dict.fromkeys(found))


def _known(c: Any, members: Any, step_s: float) -> bool:
    """Whether a connection is one of those that it can play, or none of its affairs."""
    source, target, port = c.source[0], c.target[0], c.target[2]
    if source not in (CONTROLLER, FLEET, WORKLOAD) and target not in (CONTROLLER, FLEET):
        return True
    if target == FLEET or source == CONTROLLER:
        return (source, target) == (CONTROLLER, FLEET) and c.shift == 0
    if source == WORKLOAD:
        return (target, port, c.shift) == (CONTROLLER, "jobs", 0)
    if source == FLEET:
        late = c.shift == 1 and c.transform is None
        if target == CONTROLLER:
            return late and c.source[2] == port and port in _LINKED
        steps = members[target].step_s / step_s
        return late and c.source[2] in _TO_WORLD and steps == round(steps) >= 1
    return port in (*_FROM_WORLD, *_FORECASTS) and c.shift == 0
