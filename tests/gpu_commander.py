"""Members that command power limits, GPUs awake and caps of sites, a step of a given table a minute."""

from cosim.adapter import Adapter
from cosim.params import params
from cosim.ports import Port


@params
class CommanderParams:
    """limits_kw, awake, cap_kw: what is said in each step, in turn; NaN cannot stand in a file and is -1 here."""

    limits_kw: tuple[tuple[float, ...], ...]
    awake: tuple[tuple[float, ...], ...]
    cap_kw: tuple[float, ...]


def _said(value):
    return float("nan") if value < 0 else value


class Commander(Adapter):
    """Says the same to all sites."""

    PARAMS = CommanderParams
    MODELS = {"Site": (
        Port("gpu_limit_set_kw", "out", "power limits", dims=("gpu_type",), nullable=True),
        Port("awake_set_gpus", "out", "GPUs awake", dims=("gpu_type",), nullable=True),
        Port("p_cap_kw", "out", "cap", nullable=True))}

    def labels(self):
        return {"gpu_type": ["H100", "A100"]}

    def advance(self, time_s, inputs):
        k, p = int(time_s // 60), self.params
        return {site: {"gpu_limit_set_kw": [_said(v) for v in p.limits_kw[k % len(p.limits_kw)]],
                       "awake_set_gpus": [_said(v) for v in p.awake[k % len(p.awake)]],
                       "p_cap_kw": _said(p.cap_kw[k % len(p.cap_kw)])} for site in self.entities["Site"]}

    def initial(self):
        return self.advance(0.0, {})


@params
class ClassCommanderParams:
    """As of `Commander`, limits per job class."""

    limits_kw: tuple[tuple[float, ...], ...]
    cap_kw: tuple[float, ...]


class ClassCommander(Adapter):
    """Power limits of the replicas of `llm_day`'s classes, and caps."""

    PARAMS = ClassCommanderParams
    MODELS = {"Site": (
        Port("gpu_limit_set_kw", "out", "power limits", dims=("job_class",), nullable=True),
        Port("p_cap_kw", "out", "cap", nullable=True))}

    def labels(self):
        return {"job_class": ["chat", "reasoning", "code", "fine_tuning"]}

    def advance(self, time_s, inputs):
        k, p = int(time_s // 60), self.params
        return {site: {"gpu_limit_set_kw": [_said(v) for v in p.limits_kw[k % len(p.limits_kw)]],
                       "p_cap_kw": _said(p.cap_kw[k % len(p.cap_kw)])} for site in self.entities["Site"]}

    def initial(self):
        return self.advance(0.0, {})
