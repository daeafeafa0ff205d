"""The scenario with all of it: ranks change, what is limited limits, laws hold, drivers and replays agree.

Rows: E08, U20, Z04.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from days import Keeps, same_traces, swaps

from cosim.experiment import Experiment
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import override
from cosim.scenarios.ieee33_foresight import weather
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace

FEW = {"controller.policy": "nci_priority", "workload.rate_scale": 0.1, "grid.ac_check": False,
       "grid.solver": "newton", "grid.settle": False, "shared.lookahead_steps": 2, "aidc.offer": None}
"""A tenth of the jobs and a plan of two intervals: the same feeder and its carbon in a fraction of the time."""


def run(path, driver="native", until_s=86400.0, scenario=None, **more):
    Experiment(override(scenario or find("ieee33_foresight"), {**FEW, **more}), driver, until_s, path).run()
    return path


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    return run(tmp_path_factory.mktemp("foresight") / "day.h5")


@pytest.mark.long
def test_ranks_of_the_sites_change_through_the_day_by_average_and_marginal_intensity(day):
    with Trace(day) as trace:
        at = [trace.names("grid/Bus").index(f"bus{node}") for node in (8, 28, 32)]
        for port, least in (("nci_kg_per_kwh", 4), ("mci_kg_per_kwh", 3)):
            assert swaps(trace[f"grid/Bus/{port}"][:, at]) >= least, port


@pytest.mark.long
def test_it_has_what_it_is_said_to_have_and_all_laws_hold(day):
    """PV in weather at two nodes, turbines that come and go, a battery that works, an event, forecasts."""
    with Trace(day) as trace:
        found = verify(trace)
        assert not found.broken, found.broken
        names = trace.names("grid/Grid", "source")
        gives, has = (trace[f"grid/Grid/{p}"][:, 0] for p in ("p_source_kw", "source_p_max_kw"))
        east, west = (has[:, names.index(name)] for name in ("pv14", "pv31"))
        hours = np.arange(96) / 4.0
        assert (east @ hours) / east.sum() < 11.5 < 12.5 < (west @ hours) / west.sum()
        for turbine in ("gt25", "gt30"):
            on = gives[:, names.index(turbine)] > 1.0
            assert np.count_nonzero(np.diff(on.astype(int))) > 0, turbine
        assert np.ptp(trace["grid/Battery/soc_kwh"]) > 10.0
        assert np.isfinite(trace["flexibility/Site/p_cap_kw"]).any()
        assert trace["forecast/Site/nci_forecast_kg_per_kwh"].shape == (96, 3, 97)


def test_the_weather_is_a_midsummer_day():
    """Sun from 4 to 20 h at 48 degrees north, none at night, less under clouds; global = beam + diffuse."""
    day = {name: np.array(values) for name, values in weather().items()}
    ghi = day["ghi_w_per_m2"]
    assert np.flatnonzero(ghi > 1.0)[[0, -1]] / 4.0 == pytest.approx([4.0, 20.0], abs=0.6)
    assert 700.0 < ghi.max() < 950.0
    assert (day["dhi_w_per_m2"] <= ghi + 0.1).all()


@pytest.mark.long
def test_both_drivers_and_replays_write_the_same_and_policies_observe_the_forecasts(tmp_path):
    Keeps.seen.clear()
    until_s, mine = 1200.0, {"controller.policy": "days:Keeps"}
    first = run(tmp_path / "native.h5", "native", until_s, **mine)
    last = Keeps.seen[-1]  # at 19 min, by the forecast of minute 15
    with Trace(first) as trace:
        assert last.nci_forecast_kg_per_kwh == trace["forecast/Site/nci_forecast_kg_per_kwh"][1].tolist()
        assert last.price_forecast_usd_per_kwh == trace["forecast/Feeder/price_forecast_usd_per_kwh"][1, 0].tolist()
        assert last.load_forecast_kw == trace["forecast/Feeder/p_load_forecast_kw"][1, 0].tolist()
        assert last.renewable_forecast_kw == trace["outlook/Feeder/renewable_forecast_kw"][1, 0].tolist()
        assert last.load_forecast_kw[0] == pytest.approx(trace["profile/Load/p_kw"][1].sum())
    assert last.price_forecast_usd_per_kwh[42:45] == [0.1, 0.3, 0.3]  # from 11 h on, 10:45 later than 0:15
    same_traces(first, run(tmp_path / "mosaik.h5", "mosaik", until_s, **mine))
    for member in ("grid", "forecast", "tariff"):
        again = replay(find("ieee33_foresight"), member, str(first))
        fields = {k: v for k, v in (FEW | mine).items() if not k.startswith(f"{member}.")}
        third = tmp_path / f"{member}.h5"
        Experiment(override(again, fields), "native", until_s, third).run()
        with h5py.File(first) as a, h5py.File(third) as c:
            for port in ("aidc/Site/p_kw", "grid/Bus/nci_kg_per_kwh", "forecast/Site/nci_forecast_kg_per_kwh"):
                assert a[port][()].tobytes() == c[port][()].tobytes(), (member, port)
