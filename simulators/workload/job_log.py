"""Jobs of a file as numbers: when each came, its work, GPUs and deadline; and what was taken as what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass
class JobLog:
    """Jobs of a file in the order of their arrival.

    name, job_class  as the file has them ('' without such a column); priority, origin alike
    arrival_s        s since 1970 where `dated`, else in the file's count
    gpus             GPUs they held or requested, may be a fraction; NaN: no such column
    gpu_s, work_to, tokens   one of them is known of each job: GPU s, TO, and (input, output) tokens; NaN else
    deadline_s       as `arrival_s`; NaN: the file states none
    `said`           the line that states what was taken as what, and which rows are no jobs
    doubts           what else should be noticed
    """

    name: list[str]
    job_class: list[str]
    priority: list[str]
    origin: list[str]
    arrival_s: np.ndarray
    dated: bool
    gpus: np.ndarray
    gpu_s: np.ndarray
    work_to: np.ndarray
    tokens: np.ndarray
    deadline_s: np.ndarray
    layout: str
    said: str
    doubts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.name)

    def sample(self, ratio: float) -> JobLog:
        """A share of the jobs, evenly spread over all in the order of their arrival; the first of them at least."""
        number = np.floor(ratio * np.arange(len(self) + 1) + 1e-9)
        kept = np.flatnonzero(np.diff(number) > 0.0) if number[-1] else np.zeros(1, int)
        names, classes, priorities, origins = ([column[k] for k in kept] for column in (
            self.name, self.job_class, self.priority, self.origin))
        said = f"{len(kept)} of {len(self)} jobs are played, by workload.sample_ratio = {ratio:g}"
        return replace(self, name=names, job_class=classes, priority=priorities, origin=origins,
                       arrival_s=self.arrival_s[kept], gpus=self.gpus[kept], gpu_s=self.gpu_s[kept],
                       work_to=self.work_to[kept], tokens=self.tokens[kept], deadline_s=self.deadline_s[kept],
                       doubts=[said, *self.doubts])
