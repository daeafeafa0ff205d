"""What comes to a site from outside, checked: jobs by class, and GPUs granted per class."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from cosim.errors import ModelError
from cosim.simulators.aidc.engine.jobs import Job, jobs_of
from cosim.simulators.fleet import JobClass, may_run


def admitted(
    batch: Mapping[str, list], site: str, job_classes: Mapping[str, JobClass], now_s: float
) -> dict[str, list[Job]]:
    """The jobs of a batch by class, each class in the batch's order; see `jobs_of` for the columns.

    Raises ModelError for a job that may not run here, and for inference that is to be released later.
    """
    jobs, by_class = jobs_of(batch, site, now_s), defaultdict(list)
    if jobs and batch["job_class"].count(jobs[0].job_class) == len(jobs):
        by_class[jobs[0].job_class] = jobs
    else:
        for job in jobs:
            by_class[job[1]].append(job)
    later = max(batch.get("release_s", ()), default=now_s) > now_s
    for name, jobs in by_class.items():
        job_class = job_classes.get(name)
        if job_class is None or not may_run(job_class, site):
            allowed = [m for m, c in job_classes.items() if may_run(c, site)]
            raise ModelError(
                f"{site}: job {jobs[0].id} of class '{name}' may not run here; allowed: {', '.join(allowed)}"
            )
        if later and job_class.kind != "train":
            for job in jobs:
                if job.release_s > now_s:
                    raise ModelError(
                        f"{site}: job {job.id} of class '{name}' has release_s = {job.release_s:g}, "
                        f"later than now ({now_s:g}); inference is not deferred"
                    )
    return by_class


def whole_grants(gpus: Sequence[float], site: str, capacity: int, job_classes: Mapping[str, JobClass]) -> list[int]:
    """The GPUs granted per class as integers.

    Raises ModelError unless they are one per class, whole, >= 0, whole blocks for training, and in sum at most the
    site's `capacity`.
    """
    if len(gpus) != len(job_classes):
        raise ModelError(f"{site}: {len(gpus)} GPU grants for {len(job_classes)} job classes; one for each")
    whole = []
    for grant, (name, job_class) in zip(gpus, job_classes.items(), strict=True):
        if not 0 <= grant < math.inf or grant != int(grant):
            raise ModelError(f"{site}: {grant!r} GPUs granted to '{name}'; a whole number >= 0")
        whole.append(int(grant))
        if job_class.kind == "train" and grant % job_class.gpus_per_block:
            raise ModelError(
                f"{site}: {grant:g} GPUs granted to '{name}'; a multiple of its block of {job_class.gpus_per_block}"
            )
    if sum(gpus) > capacity:
        raise ModelError(f"{site}: {sum(gpus):g} GPUs granted in sum; the site has {capacity}")
    return whole
