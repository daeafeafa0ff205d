"""`two_bus` without its grid: jobs, agents and a data center, which start at once as no network has to be read."""

from cosim.scenario import override
from cosim.scenarios.two_bus import SCENARIO as TWO_BUS

_ALONE = ("grid", "profile")
RANDOM_TWO_BUS = override(TWO_BUS, {"workload.counts": "poisson"})
SCENARIO = RANDOM_TWO_BUS.replace(
    name="gridless", about="a data center without a grid", preflight=None, summary=None,
    shared={name: table for name, table in RANDOM_TWO_BUS.shared.items() if name != "network"},
    members={name: m for name, m in RANDOM_TWO_BUS.members.items() if name not in _ALONE},
    links=[link for link in RANDOM_TWO_BUS.links if not {*_ALONE} & {link.source.split(".")[0],
                                                                    link.target.split(".")[0]}])
