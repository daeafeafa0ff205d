"""Losses of the power supply, free cooling and water: by hand, and as the bus sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.aidc.equations import cooling_power_kw, distribution_loss_kw, free_cooling_ratio, water_kg_per_h
from cosim.simulators.aidc.plant.cooling import CORRECTED
from cosim.simulators.analysis.conservation import verify
from cosim.trace import Trace

LOSSES = {"loss_no_load_ratio": 0.02, "loss_linear_ratio": 0.03, "loss_square_ratio": 0.01, "auxiliary_kw": 5.0}


def test_losses_by_hand():
    # rated 400 kW, half load: 400 (0.02 + 0.03 / 2 + 0.01 / 4) + 5 = 8 + 6 + 1 + 5 kW
    plant = replace(CORRECTED, **LOSSES)
    assert distribution_loss_kw(200.0, plant) == pytest.approx(20.0)
    assert distribution_loss_kw(200.0, CORRECTED) == 0.0
    assert distribution_loss_kw(np.array([0.0, 200.0]), plant).tolist() == pytest.approx([13.0, 20.0])


@pytest.mark.parametrize(("wet_bulb_degc", "ratio"), [(20.0, 0.0), (15.0, 0.5), (10.0, 1.0), (-10.0, 1.0)])
def test_free_cooling_by_hand(wet_bulb_degc, ratio):
    # supply 20, return 30 degC, approach 10 K: a wet bulb of 15 brings the air to 25, half of the way
    assert free_cooling_ratio(20.0, 30.0, CORRECTED, wet_bulb_degc) == pytest.approx(ratio)
    both = free_cooling_ratio(20.0, np.array([30.0, 20.0]), CORRECTED, wet_bulb_degc)
    assert both.tolist() == pytest.approx([ratio, 0.0])


def test_free_cooling_takes_load_from_the_chiller_only():
    load_kw, chiller_kw, tower_kw = cooling_power_kw(300.0, 20.0, CORRECTED)
    cold = cooling_power_kw(300.0, 20.0, replace(CORRECTED, wet_bulb_degc=5.0))
    hot = cooling_power_kw(300.0, 20.0, replace(CORRECTED, wet_bulb_degc=30.0))
    assert hot == (load_kw, chiller_kw, tower_kw)
    assert cold[:2] == (load_kw, 0.0)
    assert 0.0 < cold[2] < tower_kw  # less heat to reject, by what the chiller gave off


def test_water_by_hand():
    # 1 MW is 3600 MJ/h, 2.45 MJ/kg: 1469.4 kg/h evaporate; with 4 cycles 4/3 of it
    assert water_kg_per_h(1000.0) == pytest.approx(1469.387755 * 4 / 3)
    assert water_kg_per_h(1000.0, 2.0) == pytest.approx(2 * 1469.387755)


def test_a_site_with_losses_keeps_the_laws(tmp_path):
    settings = {"until_s": "1h", "controller.policy": "nci_priority", "aidc.trace_step_s": 10.0,
                "aidc.cooling": {**LOSSES, "wet_bulb_degc": 11.0}}
    path = tmp_path / "losses.h5"
    Experiment(override(find("ieee33"), settings), out=path, driver="native").run()
    with Trace(path) as trace:
        assert not verify(trace).broken
        level = {name: trace[f"aidc/Site/{name}"] for name in ("p_kw", "it_kw", "cooling_kw", "loss_kw", "pue",
                                                               "pue_cooling", "water_kg_per_h", "chiller_kw")}
        assert level["pue"] == pytest.approx(level["p_kw"] / level["it_kw"], rel=1e-12)
        assert level["pue_cooling"] == pytest.approx((level["it_kw"] + level["cooling_kw"]) / level["it_kw"], rel=1e-12)
        # the mean of a convex loss is not below the loss of the mean
        at_mean = distribution_loss_kw(level["it_kw"], replace(CORRECTED, **LOSSES))
        assert (level["loss_kw"] >= at_mean * (1 - 1e-12)).all()
        power = trace.table("power")
        per_site = sum(power["p_kw"][power["site"] == name].sum() for name in trace.names("aidc/Site"))
        assert per_site / 6 == pytest.approx(level["p_kw"].sum(), rel=1e-9)
        assert (level["water_kg_per_h"] > 0).all()
