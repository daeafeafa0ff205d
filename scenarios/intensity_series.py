"""`ieee33` without a network: the data centers see a carbon intensity read from a CSV with timestamps.

Needs the file: --set grid.path=FILE.csv. An export of Electricity Maps is known by its columns; of other files --set
grid.time_column=, grid.column= and grid.unit=g_per_kwh (kg_per_kwh, kg_per_mwh, t_per_mwh, lb_per_mwh) give what their
names do not. The run begins at the file's first midnight, or by --set start=2026-01-31. --set
'grid.columns={"bus8": "DE", "bus32": "FR"}' gives data centers zones of their own, 'grid.paths={"bus8": "DE.csv"}'
files.
"""

from cosim.scenario import Member
from cosim.scenarios import ieee33

_STUDY = ieee33.SCENARIO

SCENARIO = _STUDY.replace(
    name="intensity_series", about="ieee33 with carbon intensity from a CSV; give it by --set grid.path=FILE.csv",
    start=None,
    members={**_STUDY.members, "grid": Member(
        simulator="cosim.simulators.grid.series:IntensitySeries", step_s=900, entities=_STUDY.members["grid"].entities,
        params={"path": "intensity.csv"})})
