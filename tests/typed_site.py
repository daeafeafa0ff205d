"""The site of `small_site` with two types of GPUs."""

from small_site import CLASSES, PLAIN, batch

from cosim.simulators.aidc.engine.capped import CapRules
from cosim.simulators.aidc.gpus.facility import GpuFacility
from cosim.simulators.fleet import Site

HALF = ((0.5, 0.5), (1.0, 1.0))
"""Half the power, half the speed."""
FAST = {"count": 6, "speed_ratio": 1.0, "idle_kw": 1.0, "peak_kw": 4.0, "memory_gb": 80.0, "asleep_kw": 0.25,
        "wake_s": 20.0, "speed_curve": HALF}
SLOW = {"count": 4, "speed_ratio": 0.5, "idle_kw": 0.5, "peak_kw": 1.5, "memory_gb": 40.0, "asleep_kw": 0.0,
        "wake_s": 10.0, "speed_curve": HALF}
BOTH = {"fast": FAST, "slow": SLOW}
ONE = {"only": FAST | {"count": 10, "peak_kw": 3.0}}
BUSY, IDLE, WAKING, ASLEEP = range(4)
RULES = CapRules()


def site_of(types):
    """Ten GPUs, and 10 kW drawn beside them."""
    return Site(node=0, racks=1, gpus_per_rack=10, idle_kw=10.0, gpu_types=types)


def make(types=BOTH, classes=CLASSES, rules=RULES, **how):
    return GpuFacility("site", site_of(types), classes, PLAIN, 23.0, rules, **how)


def minute(facility, jobs=(), chat=0, fit=0, seconds=60.0):
    """Jobs come, GPUs are granted, time goes by; what happened."""
    facility.submit(batch(facility.now_s, *jobs) if jobs else {})
    facility.command([chat, fit][:len(facility._classes)], 23.0)
    facility.advance(facility.now_s + seconds)
    return facility.read_interval()


def ends(did):
    """id -> (start, end, gpus' type) of what ended."""
    types = dict(zip(did.runs.get("id", ()), did.runs.get("gpu_type", ()), strict=True))
    rows = zip(*(did.left_jobs.get(name, ()) for name in ("id", "start_s", "end_s")), strict=True)
    return {k: (start, end, types.get(k)) for k, start, end in rows}
