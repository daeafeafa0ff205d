"""GPU types: what GPUs of one type at a site can do and draw, and published figures for three of them.

Powers are of one GPU. `idle_kw` and `peak_kw` are of the module, what `nvidia-smi` shows and limits; `host_kw` is its
share of the server around it, drawn while the GPU is awake. Sources of PUBLISHED:

    memory, peak power (TDP)  NVIDIA's data sheets of the SXM modules, as in `llm.published`
    idle power                a tenth of TDP, assumed, as there
    speed                     ratio of the dense 16-bit peaks of the data sheets to that of H100, at which one GPU does
                              the study's 6e4 TO/min
    host, H100                (8.4 kW - 8 x 0.7 kW) / 8: the most that a node of 8 GPUs near full use was measured to
                              draw (I. Latif et al., IEEE Access 13, 2025), less the modules' TDP
    host, A100, B200          of what the rating of NVIDIA's DGX systems (6.5 and 14.3 kW) leaves beside the modules,
                              the share that H100's 8.4 kW are of its 10.2 kW: 0.61, assumed to carry over
    speed over power          A100 SXM in training of a GPT-3 model (J.-W. Chung et al., Perseus, SOSP 2024: time and
                              energy of forward and backward pass at 1410 to 855 MHz, Apache-2.0); the others'
                              curves are assumed to be the same
    asleep, waking            0.02 kW (a server off but for its management controller, over 8 GPUs), and 5 min to boot
                              at the power of an idle GPU: assumed
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from cosim.errors import unknown
from cosim.params import params
from cosim.simulators.aidc.gpus.equations import Curve
from cosim.simulators.aidc.gpus.speed_curves import A100_TRAINING, check_curve
from cosim.simulators.aidc.llm.published import GPUS
from cosim.units import Seconds

_HOST_KW = {"A100": 0.61 * (6.5 / 8 - 0.4), "H100": 8.4 / 8 - 0.7, "B200": 0.61 * (14.3 / 8 - 1.0)}
_NEEDED = ("speed_ratio", "idle_kw", "peak_kw", "memory_gb")
MOST_KW = 100.0


@params(kw_only=True)
class GpuType:
    """GPUs of one type at a site; figures of one GPU. Of a published type, those left out are the published ones."""

    count: Annotated[int, Field(ge=1, le=10_000_000, description="GPUs of the type at the site")]
    speed_ratio: Annotated[float, Field(gt=0, le=1000, description="work per time over the job class's to_per_gpu_min; "
                                        "job_classes.NAME.gpu_speed_ratio may say otherwise for a class")]
    idle_kw: Annotated[float, Field(ge=0, le=MOST_KW, description="idle power of the module")]
    peak_kw: Annotated[float, Field(gt=0, le=MOST_KW, description="power of the module at the work that draws most")]
    memory_gb: Annotated[float, Field(gt=0, le=100_000, description="memory, 1e9 bytes")]
    host_kw: Annotated[float, Field(ge=0, le=MOST_KW, description="share of its server, drawn while it is awake")] = 0.0
    asleep_kw: Annotated[float, Field(ge=0, le=MOST_KW, description="power asleep, its share of the server included")
                         ] = 0.02
    waking_kw: Annotated[float | None, Field(ge=0, le=MOST_KW, description="power while it wakes up, its share of the "
                                             "server included; null: that of an idle one")] = None
    wake_s: Annotated[Seconds, Field(ge=0, le=86_400, description="time from asleep to ready")] = 300.0
    limit_kw: Annotated[float | None, Field(gt=0, le=MOST_KW, description="power limit of the module (nvidia-smi -pl); "
                                            "null: peak_kw")] = None
    speed_curve: Annotated[Curve, Field(min_length=1, max_length=1000, description=(
        "speed under a power limit: [power, speed] over those without, rising, the last [1, 1]; the first power is the "
        "lowest limit"))] = A100_TRAINING

    @model_validator(mode="after")
    def _rises(self) -> GpuType:
        if self.idle_kw > self.peak_kw:
            raise ValueError(f"idle_kw = {self.idle_kw:g} is above peak_kw = {self.peak_kw:g}, which includes it")
        check_curve(self.speed_curve, "speed_curve")
        if self.asleep_kw > self.idle_kw + self.host_kw:
            raise ValueError(f"asleep_kw = {self.asleep_kw:g} is above idle_kw + host_kw = "
                             f"{self.idle_kw + self.host_kw:g}, what an idle GPU draws awake")
        if self.limit_kw is not None:
            self.check_limit(self.limit_kw, "limit_kw")
        return self

    def check_limit(self, limit_kw: float, what: str) -> None:
        """ValueError for a power limit that the type cannot keep, or that is none."""
        if limit_kw < self.idle_kw:
            raise ValueError(f"{what} = {limit_kw:g} is below idle_kw = {self.idle_kw:g}, which is drawn in any case")
        if not self.least_limit_kw <= limit_kw <= self.peak_kw:
            raise ValueError(f"{what} = {limit_kw:g} lies outside {self.least_limit_kw:.4g} to {self.peak_kw:g} kW: "
                             "from the first point of speed_curve, or idle power, to peak_kw")

    @property
    def awake_kw(self) -> float:
        """Power of an idle GPU with its host."""
        return self.idle_kw + self.host_kw

    @property
    def waking(self) -> float:
        """Power while it wakes up, kW."""
        return self.awake_kw if self.waking_kw is None else self.waking_kw

    @property
    def most_kw(self) -> float:
        """The most that one draws in any state."""
        return max(self.peak_kw + self.host_kw, self.waking)

    @property
    def least_limit_kw(self) -> float:
        """The lowest power limit."""
        return max(self.idle_kw, self.speed_curve[0][0] * self.peak_kw)


PUBLISHED: dict[str, dict[str, float]] = {
    name: {"speed_ratio": round(GPUS[name].peak_tflops / GPUS["H100"].peak_tflops, 3),
           "idle_kw": GPUS[name].idle_w / 1000.0, "peak_kw": GPUS[name].tdp_w / 1000.0,
           "memory_gb": GPUS[name].memory_gb, "host_kw": round(_HOST_KW[name], 3)} for name in ("A100", "H100", "B200")}
PUBLISHED["study"] = {"speed_ratio": 1.0, "idle_kw": 0.25, "peak_kw": 0.95, "memory_gb": 80.0, "host_kw": 0.0}
"""Figures of `GpuType` by name; `study` is Table I: 100 kW idle of 400 GPUs, and 0.7 kW above that of a busy one."""


def filled(table: Any) -> Any:
    """A table of GPU types as it is given, with the published figures where they are left out.

    ValueError for a type that is not published and lacks figures. What is no table is given back as it is."""
    if not isinstance(table, dict):
        return table
    out: dict[Any, Any] = {}
    for name, row in table.items():
        out[name] = row
        if isinstance(row, dict):
            lacking = [field for field in _NEEDED if field not in row]
            if lacking and name not in PUBLISHED:
                raise ValueError(f"{unknown('GPU type', str(name), PUBLISHED)}; of another give {', '.join(lacking)}")
            out[name] = {**PUBLISHED.get(name, {}), **row}
    return out
