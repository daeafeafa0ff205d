"""Scenarios that differ in their grid: they run, alike under both drivers, and do what they say."""

import numpy as np
import pytest
from worlds import run

from cosim.drivers.resolve import resolve
from cosim.errors import ScenarioError
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.analysis.conservation import verify
from cosim.simulators.analysis.storage import read_batteries
from cosim.simulators.grid.adapter import CefDispatch
from cosim.trace import Trace
from cosim.trace.compare import first_difference


@pytest.mark.long
@pytest.mark.parametrize("name", ["ieee33_meshed", "ieee33_economic", "ieee33_ramps", "ieee33_storage"])
def test_they_run_alike_under_both_drivers(name: str, tmp_path):
    paths = [run(find(name), tmp_path / f"{d}.h5", driver=d, until_s=3600.0).path for d in ("mosaik", "native")]
    assert first_difference(*paths) is None
    with Trace(paths[0]) as trace:
        assert trace["grid/Grid/status"].tolist() == [[0.0]] * 4
        assert 0.25 < trace["grid/Bus/nci_kg_per_kwh"].min() <= trace["grid/Bus/nci_kg_per_kwh"].max() < 0.95


def test_a_mesh_has_its_tie_lines(tmp_path):
    path = run(find("ieee33_meshed"), tmp_path / "t.h5", driver="native", until_s=900.0).path
    with Trace(path) as trace:
        lines, p_from = trace.names("grid/Grid", "line"), trace["grid/Grid/p_from_kw"][0, 0]
        assert len(lines) == 37
        assert abs(p_from[lines.index("20-7")]) > 1.0
        loss = (p_from + trace["grid/Grid/p_to_kw"][0, 0]).sum()
        assert loss == pytest.approx(trace["grid/Grid/loss_kw"][0, 0], abs=1e-9)


def test_prices_and_the_carbon_price_decide_who_runs(tmp_path):
    """Per kWh at 25 USD/t: substation 0.1075, gt6 0.061, gt25 0.113, gt30 0.224 USD; without it gt25 costs 0.0965."""
    scenario = find("ieee33_economic")
    free = override(scenario, {"grid.lambda_kw_per_kg_h": 0.0})
    runs = [run(s, tmp_path / f"{k}.h5", driver="native", until_s=900.0).path for k, s in enumerate((scenario, free))]
    p_source = []
    for path in runs:
        with Trace(path) as trace:
            p_source.append(dict(zip(trace.names("grid/Grid", "source"), trace["grid/Grid/p_source_kw"][0, 0],
                                     strict=True)))
    priced, unpriced = p_source
    assert priced["gt6"] == unpriced["gt6"] == 500.0
    assert priced["gt30"] == unpriced["gt30"] == 0.0
    assert unpriced["gt25"] == pytest.approx(500.0, abs=1e-3)
    assert priced["gt25"] < 250.0


def test_an_intensity_series_drives_the_loop(tmp_path):
    csv = tmp_path / "i.csv"
    csv.write_text("datetime,carbon_intensity\n2026-01-01T00:00:00Z,300\n2026-01-01T00:30:00Z,500\n")
    scenario = override(find("intensity_series"), {"grid.path": str(csv), "grid.unit": "g_per_kwh"})
    paths = [run(scenario, tmp_path / f"{d}.h5", driver=d, until_s=3600.0).path for d in ("mosaik", "native")]
    assert first_difference(*paths) is None
    with Trace(paths[0]) as trace:
        assert trace["grid/Bus/nci_kg_per_kwh"][:, 0].tolist() == [0.3, 0.3, 0.5, 0.5]
        total = trace["grid/Grid/p_load_total_kw"][:, 0]
        assert trace["grid/Grid/emission_kg_per_h"][:, 0] == pytest.approx(total * [0.3, 0.3, 0.5, 0.5], rel=1e-12)


@pytest.mark.long
@pytest.mark.rows("Z06")
def test_turbines_keep_their_ramps_and_the_look_ahead_is_the_profile(tmp_path):
    path = run(find("ieee33_ramps"), tmp_path / "t.h5", driver="native", until_s=3 * 3600.0).path
    with Trace(path) as trace:
        names, p_kw = trace.names("grid/Grid", "source"), trace["grid/Grid/p_source_kw"][:, 0]
        moved = np.abs(np.diff(p_kw, axis=0))[:, [names.index(n) for n in ("gt6", "gt25", "gt30")]]
        assert moved.max() <= 30.0 + 1e-9  # 2 kW/min for 15 min
        base, ahead = trace["profile/Load/p_kw"], trace["profile/Load/p_ahead_kw"]
        assert trace.names("profile/Load", "ahead") == ["15min", "30min", "45min"]
        for k in range(3):
            assert (ahead[: -k - 1, :, k] == base[k + 1:]).all()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two hours of a grid with a battery that a plan of four intervals runs, and that ends where it has to."""
    scenario = override(find("ieee33_storage"), {"shared.lookahead_steps": 4, "controller.policy": "nci_priority",
                                                  "grid.batteries.battery14.energy_end_kwh": 100.0})
    return run(scenario, tmp_path_factory.mktemp("stored") / "t.h5", driver="native", until_s=2 * 3600.0).path


@pytest.mark.long
def test_a_battery_keeps_its_laws_and_ends_as_full_as_it_has_to(stored):
    digest = verify(Trace(stored))
    assert not digest.broken
    with Trace(stored) as trace:
        b = read_batteries(trace)
        assert (np.abs(b.p_kw) > 1.0).any()
        assert b.soc_kwh[0, 0] == 300.0
        assert b.soc_kwh[-1, 0] + b.change_kwh[-1, 0] == pytest.approx(100.0, abs=0.1)
        carbon = b.stored_kg[0] + b.change_kg.sum(axis=0)
        assert carbon == pytest.approx(b.stored_kg[-1] + b.change_kg[-1], abs=1e-9)


def test_what_goes_on_in_the_next_world_is_what_a_battery_holds(stored):
    resolved = resolve(override(find("ieee33_storage"), {"shared.lookahead_steps": 4}))

    def grid():
        made = CefDispatch()
        made.init("grid", time_resolution=60.0, **resolved.init_params["grid"])
        for model, names in resolved.entities["grid"].items():
            made.create(len(names), model, names=names)
        made.setup_done()
        return made

    first, then = grid(), grid()
    load = {f"bus{b}": {"p_load_kw": {"profile": 40.0}, "q_load_kvar": {"profile": 15.0}} for b in range(33)}
    first.step(0, {**load, "battery14": {"p_set_kw": {"agent": -200.0}}}, 1440)
    kept = first.carry()
    assert kept["battery_kwh"] == pytest.approx([300.0 + 0.25 * 200.0 * 0.95], abs=1e-9)
    then.resume(kept)
    then.step(0, {**load, "battery14": {"p_set_kw": {"agent": 1000.0}}}, 1440)
    out = then.get_data({"battery14": ["p_kw", "soc_kwh", "stored_kg", "stored_kg_per_kwh"]})["battery14"]
    assert out["soc_kwh"] == kept["battery_kwh"][0]
    assert out["stored_kg"] == kept["battery_kg"][0]
    assert out["p_kw"] == 400.0  # its limit
    assert any("battery14: 1000 kW commanded, 400 kW run" in note for note in then.notes())


@pytest.mark.parametrize(("changes", "message"), [
    ({"grid.lookahead_steps": 1}, "battery14 is neither planned .* nor commanded"),
    ({"grid.entities.Battery": []}, "no Battery entities"),
    ({"grid.entities.Battery": ["other"]}, "wrong or missing: battery14, other"),
    ({"grid.batteries.battery14.node": 99}, "node = 99 is not a bus"),
    ({"grid.batteries.battery14.energy_start_kwh": 2000.0}, "energy_start_kwh = 2000 is not between")])
def test_batteries_that_cannot_run_are_refused_before_the_run(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        run(override(find("ieee33_storage"), changes), tmp_path / "t.h5", driver="native", until_s=900.0)
