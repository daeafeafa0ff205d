"""`ieee33` without a network: the data centers see a carbon intensity read from a CSV with timestamps.

Needs the file: --set grid.path=FILE.csv. Its columns are named by --set grid.time_column=... and --set grid.column=...,
its unit by --set grid.unit=g_per_kwh, kg_per_kwh, kg_per_mwh, t_per_mwh or lb_per_mwh; its dates are read against
--set start=2026-01-31, and --set 'grid.columns={"bus8": "DE", "bus32": "FR"}' gives data centers zones of their own.
"""

from cosim.scenario import Member
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO

SCENARIO = _STUDY.replace(
    name="intensity_series", about="ieee33 with carbon intensity from a CSV; give it by --set grid.path=FILE.csv",
    members={**_STUDY.members, "grid": Member(
        simulator="cosim.simulators.grid.series:IntensitySeries", step_s=900, entities=_STUDY.members["grid"].entities,
        params={"path": "intensity.csv", "time_column": "datetime", "column": "carbon_intensity",
                "unit": "g_per_kwh"})})
