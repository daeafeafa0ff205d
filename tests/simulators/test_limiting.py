"""What limits a grid, from its trace alone: by hand on two lines, with each kind of limit in turn."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from worlds import run

from cosim.request import find
from cosim.scenario import override
from cosim.simulators.analysis.limiting import limits
from cosim.simulators.analysis.metrics import summary
from cosim.simulators.reporting.data import FleetRun
from cosim.simulators.reporting.limits import limiting
from cosim.trace import Trace

LINES = {"base_kv": 11.0, "lines": [{"from_bus": 0, "to_bus": 1, "r_ohm": 2.0, "x_ohm": 1.0, "max_current_a": 200.0},
                                    {"from_bus": 1, "to_bus": 2, "r_ohm": 4.0, "x_ohm": 2.0}],
         "loads": [{"bus": 1, "p_kw": 1000.0, "q_kvar": 200.0}, {"bus": 2, "p_kw": 500.0, "q_kvar": 100.0}]}
UP = {"node": 0, "kg_per_kwh": 0.5}
GT = {"node": 2, "kg_per_kwh": 0.1, "p_max_kw": 300.0, "q_min_kvar": 0.0, "q_max_kvar": 0.0}


@pytest.fixture
def ran(tmp_path):
    """Trace of an hour of two_bus on these lines, with fields of the grid set."""
    opened = ExitStack()

    def make(sources, **fields):
        two = override(find("two_bus"), {
            "shared.network": LINES, "grid.sources": sources, "profile.shape": [1.0] * 96, "grid.ac_check": False,
            "grid.mci": False, "grid.lambda_kw_per_kg_h": 1.0,
            **{f"grid.{name}": value for name, value in fields.items()}})
        path = run(two, tmp_path / f"{len(list(tmp_path.iterdir()))}.h5", until_s=3600).path
        return opened.enter_context(Trace(path))

    with opened:
        yield make


def said(trace) -> dict[str, int]:
    return {one.words: int(one.at.sum()) for one in limits(trace) if one.enforced}


@pytest.mark.long
def test_a_clean_source_is_at_its_most_and_one_that_is_off_at_no_limit(ran):
    """0.1 kg/kWh against 0.5: the turbine gives its 300 kW all the time; at 0.9 kg/kWh it is off, which is no limit."""
    assert said(ran({"up": UP, "gt": GT})) == {"most P of gt": 4}
    assert said(ran({"up": UP, "gt": {**GT, "kg_per_kwh": 3.0}})) == {}
    assert said(ran({"up": UP, "gt": {**GT, "kg_per_kwh": 3.0, "p_min_kw": 50.0}})) == {"least P of gt": 4}


def test_a_rating_limits_only_where_it_is_kept(ran):
    """1.5 MW at 11 kV are some 80 A; 70 A bind until the dirty turbine relieves the line, and are said where only
    reported."""
    dirty = {"up": UP, "gt": {**GT, "kg_per_kwh": 3.0, "p_max_kw": 900.0}}
    kept = ran(dirty, line_limits="ratings", max_current_a={"0-1": 70.0})
    assert said(kept) == {"current of branch 0-1": 4}
    digest = summary(kept)
    rows = dict(row for table in digest.tables for row in table.rows if len(row) == 2)
    assert rows["limiting here: current of branch 0-1"] == "4 of 4, 1 h"
    assert digest.figures["binding_limits"] == 1
    realised = kept["grid/Grid/loading_realised_ratio"][1:, 0, 0]
    assert digest.figures["loading_realised_max_ratio"] == pytest.approx(realised.max())
    reported = ran(dirty, line_limits="report", max_current_a={"0-1": 70.0})
    assert said(reported) == {}
    rows = dict(row for table in summary(reported).tables for row in table.rows if len(row) == 2)
    assert rows["beyond a limit that nothing keeps: current of branch 0-1"] == "4 of 4, 1 h"


@pytest.mark.long
def test_a_voltage_limit_is_said_with_its_bus_and_a_ramp_with_its_source(ran):
    """Bus 2 lies lowest; a turbine that may move 4 kW a minute, 60 kW an interval, takes more than one to start."""
    free = ran({"up": UP, "gt": {**GT, "kg_per_kwh": 3.0}})
    low = float(free["grid/Bus/vm_pu"][:, 2].min()) if len(free.names("grid/Bus")) > 2 else 0.9
    held = said(ran({"up": UP, "gt": {**GT, "kg_per_kwh": 3.0, "p_max_kw": 900.0}}, vm_min_pu=low + 0.004))
    assert held == {"lowest voltage, bus2": 4}
    ramped = ran({"up": {**UP, "kg_per_kwh": [0.1] * 2 + [2.9] * 94},
                  "gt": {**GT, "kg_per_kwh": 1.0, "p_max_kw": 900.0, "ramp_kw_per_min": 4.0}})
    assert said(ramped)["ramp of gt"] == 2  # the two intervals after the first two, in which it is off


def test_loading_as_realised_is_that_of_the_demand_that_came(ran):
    """At constant base load and what the data centers drew, the interval's loading is worked out again by hand: the
    current that enters the line at the substation, as one figure of P, Q and 1 p.u."""
    trace = ran({"up": UP}, line_limits="report")
    dispatched, realised = (trace[f"grid/Grid/{p}"][:, 0, 0] for p in ("loading_ratio", "loading_realised_ratio"))
    assert np.isnan(realised[0])
    assert np.isfinite(realised[1:]).all()
    came_kw, drawn_kw = (trace[f"grid/Grid/{p}"][:, 0] for p in ("p_substation_realised_kw", "p_from_kw"))
    assert realised[1:] / dispatched[:-1] == pytest.approx(came_kw[1:] / drawn_kw[:-1, 0], rel=0.01)


def test_the_page_shows_which_limits_bind_and_for_how_long(ran):
    trace = ran({"up": UP, "gt": GT})
    picture = limiting(FleetRun(trace, "run", {}))
    assert "most P of gt for" in picture.says.replace("\u202f", " ")
    assert picture.panels[0].heat.rows == ("most P of gt",)
