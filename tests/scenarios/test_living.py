"""The scenario whose carbon lives: ranks of the sites change, laws hold with the values in force, and drivers agree.

Rows: E08, Z04.
"""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from days import same_traces, swaps

from cosim.experiment import Experiment
from cosim.learning.batch import lacking
from cosim.learning.vector import learning_scenario
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.flows import marginal_emission
from cosim.simulators.analysis.metrics import summary
from cosim.trace import Trace

FEW = {"controller.policy": "nci_priority", "workload.rate_scale": 0.2, "grid.ac_check": False,
       "grid.solver": "clarabel"}
"""A fifth of the jobs: the same feeder, its carbon and its prices, in a fraction of the time."""


def run(path, driver="native", until_s=86400.0, **more):
    Experiment(override(find("ieee33_living"), {**FEW, **more}), driver, until_s, path).run()
    return path


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    return run(tmp_path_factory.mktemp("living") / "day.h5")


@pytest.mark.long
def test_ranks_of_the_sites_change_through_the_day(day):
    """Two sites swap places, by average and by marginal intensity, at least three times; less than 0.005 kg/kWh apart
    they are as one."""
    with Trace(day) as trace:
        at = [trace.names("grid/Bus").index(f"bus{node}") for node in (8, 28, 32)]
        for port in ("nci_kg_per_kwh", "mci_kg_per_kwh"):
            of_sites = trace[f"grid/Bus/{port}"][:, at]
            assert np.isfinite(of_sites).all()
            assert swaps(of_sites) >= 3, port


@pytest.mark.long
def test_the_same_day_on_another_feeder_keeps_the_laws_and_both_drivers_agree(tmp_path):
    """An hour of the CIGRE feeder: the laws hold, and the traces are equal."""
    made = override(find("cigre_living"), FEW)
    paths = [tmp_path / f"{driver}.h5" for driver in ("native", "mosaik")]
    for path in paths:
        Experiment(made, path.stem, 3600.0, path).run()
    same_traces(*paths)
    with Trace(paths[0]) as trace:
        found = verify(trace)
        assert not found.broken, found.broken
        assert len(trace.names("grid/Bus")) == 15
        assert np.isfinite(trace["grid/Bus/nci_kg_per_kwh"]).all()


@pytest.mark.long
def test_what_was_in_force_is_recorded_and_the_laws_hold_with_it(day):
    """Every source stays within what it has; the table of sources names the one whose intensity varies by NaN."""
    with Trace(day) as trace:
        found = verify(trace)
        assert not found.broken, found.broken
        gives, has, kg = (trace[f"grid/Grid/{p}"][:, 0] for p in ("p_source_kw", "source_p_max_kw",
                                                                 "source_kg_per_kwh"))
        names = trace.names("grid/Grid", "source")
        table = dict(zip(trace.table("grid.sources")["name"], trace.table("grid.sources")["kg_per_kwh"], strict=True))
        assert np.isnan(table["substation"])
        assert table["pv14"] == 0.0
        assert (gives[:, 1:] <= has[:, 1:] + 1e-6).all()
        assert np.ptp(kg[:, names.index("substation")]) > 0.25
        pv = has[:, [names.index("pv14"), names.index("pv31")]]
        assert (pv[:16] == 0.0).all()
        assert pv.max() > 400.0
        assert gives[:, 1:][pv[:, 0] == 0.0][:, names.index("pv14") - 1].max() == 0.0


def test_the_account_at_marginal_intensities(day):
    """By hand: power x intensity of one more kWh, the substation as it came, the last interval as dispatched."""
    with Trace(day) as trace:
        power, w = (trace[f"grid/Grid/{p}"][:, 0].copy() for p in ("p_source_kw", "source_marginal_kg_per_kwh"))
        power[:-1, 0] = trace["grid/Grid/p_substation_realised_kw"][1:, 0]
        assert marginal_emission(trace) == pytest.approx((power * w).sum(axis=1))
        figures = summary(trace).figures
        assert figures["co2_marginal_kg"] == pytest.approx((power * w).sum() / 4.0)
        assert figures["co2_marginal_kg"] != pytest.approx(figures["co2_system_kg"], rel=0.01)


@pytest.mark.long
def test_a_value_that_was_not_in_force_breaks_the_laws(day, tmp_path):
    """One interval's recorded intensity of the substation is off by 0.01 kg/kWh, and a turbine has nothing."""
    other = tmp_path / "other.h5"
    shutil.copy(day, other)
    with h5py.File(other, "r+") as file:
        file["grid/Grid/source_kg_per_kwh"][40, 0, 0] += 0.01
        file["grid/Grid/source_p_max_kw"][40, 0, 1] = 0.0
    with Trace(other) as trace:
        broken = verify(trace).broken
    assert any("gives more than it has" in law for law in broken)
    assert any("emitted" in law for law in broken)
    assert any("carbon at every bus" in law for law in broken)


@pytest.mark.long
def test_both_drivers_and_a_replay_of_the_grid_write_the_same(tmp_path):
    until_s = 3600.0
    first = run(tmp_path / "a.h5", until_s=until_s)
    second = run(tmp_path / "b.h5", "mosaik", until_s)
    same_traces(first, second)
    third = tmp_path / "c.h5"
    again = override(replay(find("ieee33_living"), "grid", str(first)), {k: v for k, v in FEW.items()
                                                                        if not k.startswith("grid.")})
    Experiment(again, "native", until_s, third).run()
    with h5py.File(first) as a, h5py.File(third) as c:
        for port in ("grid/Bus/nci_kg_per_kwh", "grid/Grid/source_kg_per_kwh", "aidc/Site/p_kw"):
            assert a[port][()].tobytes() == c[port][()].tobytes()


def test_learners_take_the_series():
    """The worlds step the grid as always, so that nothing of it is beyond the fast engine."""
    assert lacking(learning_scenario(find("ieee33_living"))) == []
