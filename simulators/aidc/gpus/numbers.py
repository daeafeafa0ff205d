"""What classes of jobs do and draw on the GPU types of a site, under the power limits in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosim.simulators.aidc.gpus.equations import draw_kw, limit_at_kw, limited_kw, limited_speed_ratio
from cosim.simulators.aidc.gpus.types import GpuType
from cosim.simulators.fleet import JobClass, Site


@dataclass(frozen=True)
class WorkOnType:
    """One class on one type. unlimited_kw: power of a busy GPU's module without a limit; speed_ratio: its speed then,
    over the class's to_per_gpu_min; fits: whether the class may run on it."""

    figures: GpuType
    unlimited_kw: float
    speed_ratio: float
    fits: bool

    def draws_kw(self, power_ratio: float = 1.0) -> float:
        """Power without a limit of a busy GPU's module, of whose power above idle a job uses a share."""
        if power_ratio == 1.0:
            return self.unlimited_kw
        return draw_kw(self.figures.idle_kw, self.unlimited_kw, power_ratio)

    def kw(self, limit_kw: float, power_ratio: float = 1.0) -> float:
        """The same under a limit."""
        return limited_kw(self.draws_kw(power_ratio), limit_kw)

    def speed(self, limit_kw: float, power_ratio: float = 1.0) -> float:
        """Speed under a limit, over the class's to_per_gpu_min."""
        return self.speed_ratio * limited_speed_ratio(self.draws_kw(power_ratio), limit_kw, self.figures.speed_curve)

    def kws_per_work(self, limit_kw: float) -> float:
        """Energy of a GPU with its host per unit of work, of any scale: what `efficient` goes by."""
        return (self.kw(limit_kw) + self.figures.host_kw) / self.speed(limit_kw)


def work_table(site: Site, job_classes: Mapping[str, JobClass]) -> list[list[WorkOnType]]:
    """By class, then by type. The class that draws most by (13) uses a GPU's whole range from idle to peak power,
    others as much of it as they draw of that."""
    most_kw = max((c.busy_kw_per_gpu for c in job_classes.values()), default=0.0)
    rows = []
    for job_class in job_classes.values():
        use_ratio = job_class.busy_kw_per_gpu / most_kw if most_kw else 0.0
        fitting = site.fitting_types(job_class)
        rows.append([WorkOnType(t, draw_kw(t.idle_kw, t.peak_kw, use_ratio), job_class.speed_on(name, t),
                                name in fitting and t.count >= job_class.gpus_per_block)
                     for name, t in site.gpu_types.items()])
    return rows


def preferred(works: Sequence[WorkOnType], placement: str, limits_kw: Sequence[float]) -> list[int]:
    """The types that a class may run on, best first: by speed, or by energy per work; equal ones as they are listed."""
    fit = [t for t, work in enumerate(works) if work.fits]
    if placement == "fastest":
        return sorted(fit, key=lambda t: -works[t].speed(limits_kw[t]))
    return sorted(fit, key=lambda t: works[t].kws_per_work(limits_kw[t]))


def limits_at(level: float, types: Sequence[GpuType], most_kw: Sequence[float]) -> list[float]:
    """Power limit of each type at a level; `most_kw`: those in force."""
    return [limit_at_kw(level, min(t.least_limit_kw, most), most) for t, most in zip(types, most_kw, strict=True)]
