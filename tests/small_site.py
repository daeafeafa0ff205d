"""A site of 10 GPUs, small enough for caps and offers to be worked out by hand."""

from cosim.simulators.aidc.plant.cooling import Cooling
from cosim.simulators.fleet import JobClass, Site

SITE = Site(node=0, racks=1, gpus_per_rack=10, idle_kw=40.0)
# a busy GPU draws 2 kW, whatever it does; chat takes as many seconds as it has TO, a block of fit does 2 TO/s
CLASSES = {
    "chat": JobClass(kind="inf", work_to=30, deadline_s=100, to_per_gpu_min=60, kw_per_to_s=2.0),
    "fit": JobClass(kind="train", work_to=480, deadline_s=900, to_per_gpu_min=60, kw_per_to_s=2.0, gpus_per_block=2,
                    max_blocks=3),
}
PLAIN = Cooling(supply_offset_degc=4.0, return_approach_degc=-4.0, cop=(0.0, 0.0, 4.0), tower_ref_kw=0.0)
"""What IT draws, and a quarter of it for cooling."""


def batch(now_s, *jobs):
    """Each job: id, class, work, deadline."""
    return {"id": [j[0] for j in jobs], "job_class": [j[1] for j in jobs], "arrival_s": [now_s] * len(jobs),
            "work_to": [float(j[2]) for j in jobs], "deadline_s": [float(j[3]) for j in jobs]}


def requests(serving, *rows, deadline=60.0):
    """Each: id, arrival, tokens of prompt and answer."""
    return {"id": [r[0] for r in rows], "job_class": ["chat"] * len(rows), "arrival_s": [float(r[1]) for r in rows],
            "work_to": [serving.request_to(r[2], r[3]) for r in rows], "deadline_s": [r[1] + deadline for r in rows],
            "input_tokens": [r[2] for r in rows], "output_tokens": [r[3] for r in rows]}
