"""Scenarios that differ in their grid: they run, alike under both drivers, and do what they say."""

import numpy as np
import pytest
from worlds import run

from cosim.run import find
from cosim.scenario import override
from cosim.trace import Trace
from cosim.trace.compare import first_difference


@pytest.mark.parametrize("name", ["ieee33_meshed", "ieee33_economic", "ieee33_ramps"])
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
    scenario = override(find("intensity_series"), {"grid.path": str(csv)})
    paths = [run(scenario, tmp_path / f"{d}.h5", driver=d, until_s=3600.0).path for d in ("mosaik", "native")]
    assert first_difference(*paths) is None
    with Trace(paths[0]) as trace:
        assert trace["grid/Bus/nci_kg_per_kwh"][:, 0].tolist() == [0.3, 0.3, 0.5, 0.5]
        total = trace["grid/Grid/p_load_total_kw"][:, 0]
        assert trace["grid/Grid/emission_kg_per_h"][:, 0] == pytest.approx(total * [0.3, 0.3, 0.5, 0.5], rel=1e-12)


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
