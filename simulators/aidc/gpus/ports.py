"""Ports of a site with GPU types, beside those of a capped site.

Rows: X02.
"""

from __future__ import annotations

import math

from cosim.ports import Port

_TYPE, _STATE, _WORK = ("gpu_type",), ("gpu_state",), ("gpu_work",)

GPUS = (
    Port("gpu_limit_set_kw", "in", "power limit of a GPU of each type that another member commands; none linked, or "
         "NaN: the type's own", sign=">= 0", dims=_TYPE, default=math.nan, nullable=True),
    Port("awake_set_gpus", "in", "GPUs of each type that another member wants awake, whole numbers; none linked, or "
         "NaN: the sleep rules decide", sign=">= 0", dims=_TYPE, default=math.nan, nullable=True),
    Port("state_gpus", "out", "GPUs by type and state, means over the tick", sign=">= 0", dims=_STATE),
    Port("state_kw", "out", "power of GPUs and their hosts by type and state, means over the tick, part of it_kw",
         sign=">= 0", dims=_STATE),
    Port("work_gpus", "out", "busy GPUs by type and job class, means over the tick", sign=">= 0", dims=_WORK),
    Port("work_dynamic_kw", "out", "power of these above their idle power, means over the tick", sign=">= 0",
         dims=_WORK),
    Port("gpu_limit_kw", "out", "power limit of a GPU of each type, mean over the tick", sign=">= 0", dims=_TYPE),
    Port("slowed_s", "out", "time of the tick for which a power limit slowed jobs on the type", sign=">= 0",
         dims=_TYPE),
    Port("cap_slowed_s", "out", "time of the tick for which GPUs were slowed for the site's cap", sign=">= 0"),
)
