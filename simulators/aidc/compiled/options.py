"""What the compiled fleet does not support, by name. Needs no numba."""

from __future__ import annotations

from cosim.simulators.aidc.adapter import AidcParams, SlotParams
from cosim.simulators.aidc.capped import CappedParams
from cosim.simulators.aidc.gpus.adapter import GpuParams


def unsupported(given: AidcParams) -> list[str]:
    """Parameters of data centers that the compiled fleet cannot do, each as 'name = value: why'; none: it can."""
    found = [f"job_classes.{name}.kind = llm: it serves no language models" for name, c in given.job_classes.items()
             if c.kind == "llm"]
    if isinstance(given, SlotParams):
        found.append(f"reading = {given.reading}: it is no slot model")
    if isinstance(given, GpuParams):
        found.append("gpu_types: it has one kind of GPU at a site, always awake and at full speed")
    elif isinstance(given, CappedParams):
        found.append("cap: it keeps no power cap")
    if given.batteries:
        found.append(f"batteries of {', '.join(given.batteries)}: its sites have none behind their meters")
    if given.job_log:
        found.append("job_log = true: it keeps no rows of the GPUs that training jobs held")
    if given.wan is not None:
        found.append("wan: jobs are at its sites at once")
    if given.routing != "handover":
        found.append(f"routing = {given.routing}: it takes jobs at the begin of a step alone")
    if given.trace_step_s is not None:
        found.append(f"trace_step_s = {given.trace_step_s:g}: it resolves no power inside the step")
    if given.thermal != "static":
        found.append(f"thermal = {given.thermal}: its air is where it settles")
    weather = ["ambient"] * (given.ambient is not None) + [f"site_ambient.{name}" for name in given.site_ambient]
    return found + [f"{name}: it knows no weather" for name in weather]
