"""A grid that nobody here wrote, on both drivers, with carbon from a member beside it."""

import numpy as np
import pytest
from worlds import run

from cosim.errors import ModelError, ScenarioError
from cosim.replay.exchange import replay
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.grid.carbon import CarbonFlow
from cosim.trace import Trace
from cosim.trace.compare import first_difference

SITES = (8, 28, 32)


PLUGGED = override(find("plug_pandapower"), {"controller.policy": "nci_priority"})


@pytest.fixture(scope="module")
def plugged(tmp_path_factory):
    return run(PLUGGED, tmp_path_factory.mktemp("plug") / "t.h5", until_s=3600.0).path


@pytest.mark.long
def test_it_runs_the_same_on_both_drivers(tmp_path, plugged):
    assert first_difference(plugged, run(PLUGGED, tmp_path / "t.h5", "mosaik", until_s=3600.0).path) is None


def test_its_recording_plays_its_part(tmp_path, plugged):
    """It made up its own entities, so that the player takes them from the trace."""
    again = run(replay(PLUGGED, "grid", str(plugged)), tmp_path / "t.h5", until_s=3600.0).path
    with Trace(plugged) as a, Trace(again) as b:
        for model in b.models():
            for port in b.ports(model):
                assert a[f"{model}/{port}"].tobytes() == b[f"{model}/{port}"].tobytes(), f"{model}/{port}"


def test_its_bus_powers_are_what_was_sent_to_it(plugged):
    """MW there, kW here: its bus 8 takes its own 60 kW and our data center's mean power of the interval before."""
    with Trace(plugged) as trace:
        names = trace.names("grid/Bus")
        at_site = trace["grid/Bus/P[MW]"][1:, names.index("Bus-8")] * 1e3
        assert at_site == pytest.approx(60.0 + trace["aidc/Site/p_window_kw"][[14, 29, 44], 0], rel=1e-9)
        assert trace["grid/Bus/P[MW]"][0, names.index("Bus-6")] == pytest.approx(0.2 - 0.4, rel=1e-9)


def test_carbon_closes_the_loop(plugged):
    """Two programs, one physics: pandapower's substation power against our sweep's; emission from sources alone."""
    with Trace(plugged) as trace:
        slack = -trace["grid/Bus/P[MW]"][:, trace.names("grid/Bus").index("Bus-0")] * 1e3
        ours = trace["carbon/Carbon/p_substation_kw"][:, 0]
        assert ours == pytest.approx(slack, rel=1e-6)
        emission = 0.30 * ours + 400.0 * (0.35 + 0.65 + 0.90)
        assert trace["carbon/Carbon/emission_kg_per_h"][:, 0] == pytest.approx(emission, rel=1e-12)
        nci = trace["carbon/Bus/nci_kg_per_kwh"]
        assert nci[:, 0] == pytest.approx(0.30)
        assert ((nci >= 0.30 - 1e-12) & (nci <= 0.90 + 1e-12)).all()
        jobs = trace["aidc/Site/received_jobs"].sum(axis=(0, 2))
        assert jobs.argmax() == nci[0, list(SITES)].argmin() == 0


def test_carbon_beside_our_own_grid_says_what_the_grid_says(tmp_path):
    """Fed with the bus powers of a run of ieee33, it gives that run's NCI."""
    path = run(find("ieee33"), tmp_path / "t.h5", until_s=2700.0).path
    turbines = {"gt6": (6, 0.35), "gt25": (25, 0.65), "gt30": (30, 0.90)}
    carbon = CarbonFlow()
    sources = {n: {"node": k, "kg_per_kwh": w} for n, (k, w) in {"substation": (0, 0.30), **turbines}.items()}
    carbon.init("carbon", time_resolution=60.0, step_s=900.0, sources=sources)
    buses = [f"bus{k}" for k in range(33)]
    for model, names in {"Bus": buses, "Source": list(turbines), "Carbon": ["carbon"]}.items():
        carbon.create(len(names), model, names=names)
    carbon.setup_done()
    with Trace(path) as trace:
        sources = trace.names("grid/Grid", "source")
        for k in (1, 2):
            p, q = trace["profile/Load/p_kw"][k].copy(), trace["profile/Load/q_kvar"][k].copy()
            power = dict(zip(sources, trace["grid/Grid/p_source_kw"][k, 0], strict=True))
            reactive = dict(zip(sources, trace["grid/Grid/q_source_kvar"][k, 0], strict=True))
            for s, bus in enumerate(SITES):
                p[bus] += trace["aidc/Site/p_window_kw"][15 * k - 1, s]
                q[bus] += trace["aidc/Site/q_window_kvar"][15 * k - 1, s]
            for name, (bus, _) in turbines.items():
                p[bus] -= power[name]
                q[bus] -= reactive[name]
            inputs = {b: {"p_net_kw": {"x": p[i]}, "q_net_kvar": {"x": q[i]}} for i, b in enumerate(buses)}
            inputs |= {name: {"p_kw": {"x": power[name]}} for name in turbines}
            carbon.step(15 * k, inputs, 10**6)
            nci = carbon.get_data({b: ["nci_kg_per_kwh"] for b in buses})
            told = np.array([nci[b]["nci_kg_per_kwh"] for b in buses])
            assert np.abs(told - trace["grid/Bus/nci_kg_per_kwh"][k]).max() < 1e-9


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("settings", "says"), [
    ({"carbon.sources.substation.node": 1}, "no source stands at bus 0"),
    ({"carbon.sources.gt6.node": 77}, "is not a bus of case33bw"),
    ({"carbon.entities.Source": ["gt6"]}, "wrong or missing: gt25, gt30"),
    ({"turbines.set_points_kw": {"gt6": 1.0}}, "has no 'gt25'"),
])
def test_what_does_not_fit_is_refused(settings, says):
    with pytest.raises(ScenarioError) as err:
        run(override(find("plug_pandapower"), settings), None, until_s=900.0)
    assert says in str(err.value)


def test_a_load_the_feeder_cannot_carry_names_the_member():
    with pytest.raises(ModelError, match="member '(grid|carbon)'"):
        run(override(find("plug_pandapower"), {"shared.sites.aidc3.idle_kw": 50_000}), None, until_s=900.0)
