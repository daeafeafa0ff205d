"""Power and cooling equations against numbers worked out by hand and against the ranges of model.md 2.7 and 5.1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from cosim.simulators.aidc.equations import (
    aidc_power_kw,
    crac,
    gpu_throughput_to_per_s,
    heat_imbalance_kw,
    it_at_inlet_kw,
    it_power_kw,
    pue,
    reactive_power_kvar,
)
from cosim.simulators.aidc.plant.cooling import CORRECTED, LITERAL, TABLE2, Cooling, cop, supply_limits_degc

SUPPLY_DEGC = (18.0, 19.0, 20.0, 21.0, 22.0, 23.0)
IT_KW = tuple(float(kw) for kw in range(100, 381, 4))


def pue_at(it_kw: float, supply_degc: float, cooling: Cooling) -> float:
    return pue(aidc_power_kw(it_kw, crac(it_kw, supply_degc, cooling).cooling_kw), it_kw)


@pytest.mark.rows("E19-23", "I07-09", "P37-42", "U05", "U06")
def test_corrected_plant_at_full_load_by_hand():
    # c rho Phi = 1006 * 1.225 * 21.5                     = 26 495.525 W/K
    # outlet    = 23 + 4 + 380 000 / 26 495.525           = 41.342 045 degC        (19), (20)
    # return    = 41.342 045 - 3.7                        = 37.642 045 degC        (21)
    # P_cool    = 26 495.525 * (37.642 045 - 23) W        = 380 + 26.495 525 * 0.3 = 387.948 658 kW
    # COP(23)   = 0.0068 * 529 + 0.008 * 23 + 0.458       = 4.2392
    # P_chiller = 387.948 658 / 4.2392                    = 91.514 592 kW          (22)
    # flow      = (387.948 658 + 91.514 592) kW / (1006 * 1.225 * 40 * 11 W) = 479 463.25 / 542 234 = 0.884 237
    # P_CT      = 6 * 0.884 237^3                         = 4.148 17 kW            (23)
    plant = crac(380.0, 23.0, CORRECTED)
    assert plant.inlet_degc == 27.0
    assert plant.outlet_degc == pytest.approx(41.342045, abs=1e-6)
    assert plant.return_degc == pytest.approx(37.642045, abs=1e-6)
    assert plant.cooling_load_kw == pytest.approx(387.948658, abs=1e-6)
    assert plant.chiller_kw == pytest.approx(91.514592, abs=1e-6)
    assert plant.tower_kw == pytest.approx(4.14817, abs=1e-5)
    assert plant.cooling_kw == plant.chiller_kw + plant.tower_kw


@pytest.mark.rows("I09", "P33", "P39", "P42")
def test_literal_plant_by_hand():
    # c rho Phi = 1006 * 1.225 * 6 = 7394.1 W/K; P_cool = 212 + 7.3941 * (4 + 3.7) = 268.934 57 kW
    # chiller = 268.934 57 / 4.2392 = 63.439 94 kW; flow ratio = 63 439.94 / (1006 * 1.225 * 1 * 8.5) = 6.056 333
    # fans = 6 * 6.056 333^3 = 1332.8 kW: 1.33 MW for 212 kW of IT, as model.md 2.7 says
    plant = crac(212.0, 23.0, LITERAL)
    assert plant.cooling_load_kw == pytest.approx(268.93457, abs=1e-5)
    assert plant.chiller_kw == pytest.approx(63.43994, abs=1e-5)
    assert plant.tower_kw == pytest.approx(6 * 6.056333**3, rel=1e-6)


@pytest.mark.parametrize(
    ("variant", "low", "high"),
    [
        (LITERAL, 4.02, 53.32),  # A
        (replace(LITERAL, tower_power_unit="kw"), 1.27, 1.56),  # B
        (TABLE2, 1.07, 1.64),  # C
        (replace(TABLE2, tower_power_unit="kw"), 1.04, 1.20),  # D
        (replace(TABLE2, tower_clamp=True), 1.05, 1.26),  # E
        (replace(LITERAL, tower_clamp=True), 1.29, 1.62),  # F
        (replace(LITERAL, tower_clamp=True, return_approach_degc=-3.7), 1.25, 1.42),  # G
        (CORRECTED, 1.25, 1.39),  # J
        (replace(CORRECTED, cop=(0.0068, 0.0008, 0.458)), 1.26, 1.405),  # K
    ],
    ids="ABCDEFGJK",
)
@pytest.mark.rows("I10", "I11", "U19")
def test_pue_range_of_each_reading(variant, low, high):
    values = [pue_at(it_kw, t, variant) for it_kw in IT_KW for t in SUPPLY_DEGC]
    assert min(values) == pytest.approx(low, abs=0.006)
    assert max(values) == pytest.approx(high, abs=0.006)


def test_kw_slip_makes_cooling_independent_of_it_power():
    # P_IT in kW adds 0.1 to 0.38 W to 56.9 kW: chiller 13.5 kW at 23 degC, 20.4 at 18; fans 12.7 to 44.5 kW
    light, heavy = crac(100.0, 23.0, TABLE2), crac(380.0, 18.0, TABLE2)
    assert light.chiller_kw == pytest.approx(13.45, abs=0.05)
    assert heavy.chiller_kw == pytest.approx(20.4, abs=0.05)
    assert (light.tower_kw, heavy.tower_kw) == (pytest.approx(12.7, abs=0.1), pytest.approx(44.5, abs=0.1))
    assert crac(380.0, 23.0, TABLE2).cooling_kw == pytest.approx(light.cooling_kw, rel=0.02)


@pytest.mark.parametrize("plant", [CORRECTED, LITERAL, TABLE2])
@pytest.mark.parametrize("it_kw", [100.0, 212.0, 380.0])
@pytest.mark.rows("I12")
def test_warmer_supply_air_always_costs_less(plant, it_kw):
    powers = [crac(it_kw, t, plant).cooling_kw for t in SUPPLY_DEGC]
    assert powers == sorted(powers, reverse=True)
    assert len(set(powers)) == len(powers)


@pytest.mark.rows("E12", "E13", "P12", "P13")
def test_it_power_of_a_full_site_is_380_kw():
    # 0.7 kW per busy GPU in both kinds: 7e-4 * 6e4 / 60 = 1.68e-4 * 2.5e5 / 60 = 0.7; 100 + 400 * 0.7 = 380
    y_train, y_inf = gpu_throughput_to_per_s(150, 6e4), gpu_throughput_to_per_s(250, 2.5e5)
    assert y_train == 150_000.0
    assert it_power_kw(100.0, [y_train, y_inf], [7e-4, 1.68e-4]) == pytest.approx(380.0, rel=1e-12)


@pytest.mark.rows("E05", "P08")
def test_reactive_power_follows_eta():
    assert reactive_power_kvar(250.0, 0.2) == 50.0


@pytest.mark.rows("E22", "P40")
def test_cop_of_table_1():
    assert cop(18.0, CORRECTED.cop) == pytest.approx(0.0068 * 324 + 0.144 + 0.458)


def test_arrays_give_what_floats_give():
    it_kw, supply = np.array([100.0, 250.0, 380.0]), np.array([18.0, 20.5, 23.0])
    for plant in (CORRECTED, LITERAL, TABLE2):
        together = crac(it_kw, supply, plant)
        for k in range(3):
            alone = crac(float(it_kw[k]), float(supply[k]), plant)
            assert together.cooling_kw[k] == pytest.approx(alone.cooling_kw, rel=1e-15)
            assert together.return_degc[k] == pytest.approx(alone.return_degc, rel=1e-15)


@pytest.mark.rows("M14", "P32", "P36")
def test_racks_differ():
    # (20), (21) take means, 4.5 and -3; the hottest inlet is 20 + 5, and rack two allows 27.5 - 5 = 22.5 of supply air
    plant = Cooling(
        supply_offset_degc=(4.0, 5.0), return_approach_degc=(-3.5, -2.5), inlet_max_degc=(27.0, 27.5)
    )
    same = Cooling(supply_offset_degc=4.5, return_approach_degc=-3.0)
    assert crac(200.0, 20.0, plant).inlet_degc == 25.0
    assert crac(200.0, 20.0, plant).cooling_kw == pytest.approx(crac(200.0, 20.0, same).cooling_kw, rel=1e-12)
    assert supply_limits_degc(plant) == (18.0, 22.5)


@pytest.mark.rows("E24", "I28", "P34", "P36")
def test_inlet_limit_equals_the_box_in_table_1():
    # (24) twice: T_sup + 4 <= 27 is T_sup <= 23
    assert supply_limits_degc(CORRECTED) == (18.0, 23.0)
    assert supply_limits_degc(replace(CORRECTED, inlet_max_degc=25.0)) == (18.0, 21.0)


def test_cold_return_air_is_no_negative_load():
    assert crac(1.0, 20.0, replace(CORRECTED, return_approach_degc=-6.0)).cooling_kw == 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"inlet_max_degc": 21.0}, "no supply temperature holds"),
        ({"cop": (0.0, -0.1, 2.0)}, "COP falls to -0.3"),
        ({"cop": (1.0, -40.0, 399.5)}, "COP falls to -0.5"),  # at 20 degC; 3.5 and 8.5 at the ends of the box
        ({"supply_offset_degc": (4.0, 4.0), "return_approach_degc": (-3.7,)}, "values per rack"),
        ({"fan_flow_m3_per_s": 0.0}, "greater than 0"),
        ({"tower_load": "everything"}, "tower_load"),
    ],
)
def test_impossible_plants_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        Cooling(**wrong)


WARM = replace(CORRECTED, server_leakage_per_k=0.01, server_fan_ratio=0.05, server_fan_speed_per_k=0.05)


def test_servers_draw_more_at_a_warm_inlet_by_hand():
    # 21 degC supply + 4 K offset is 3 K above 22: leakage 3 %, fans 5 % of 1.15^3 - 1 = 0.520875: 2.604375 %
    assert it_at_inlet_kw(200.0, 21.0, WARM) == pytest.approx(200.0 * (1.0 + 0.03 + 0.02604375), rel=1e-14)
    assert it_at_inlet_kw(200.0, 18.0, WARM) == 200.0  # at the reference, and below it there is nothing to save
    assert it_at_inlet_kw(200.0, 23.0, CORRECTED) == 200.0


@pytest.mark.rows("I12")
def test_with_the_inlet_term_the_supply_temperature_is_a_decision():
    # without it the warmest air is the cheapest; with it the cheapest lies inside the limits
    def power_kw(t):
        it_kw = it_at_inlet_kw(300.0, t, WARM)
        return aidc_power_kw(it_kw, crac(it_kw, t, WARM).cooling_kw)

    cheapest = min((18.0 + k / 10 for k in range(51)), key=power_kw)
    assert 18.0 < cheapest < 23.0


@pytest.mark.parametrize(("plant", "expected_kw"), [(LITERAL, 7.3941 * 7.7), (CORRECTED, 1.006 * 1.225 * 21.5 * 0.3)])
@pytest.mark.rows("I07", "P33", "U05")
def test_heat_from_nowhere_is_that_of_the_offsets(plant, expected_kw):
    # U05 with (19)-(21): P_cool = P_IT + c rho Phi (dT_sup + dT_ret); c rho Phi = 1006 * 1.225 * 6 W/K = 7.3941 kW/K
    for it_kw in (100.0, 212.0, 380.0):
        assert heat_imbalance_kw(it_kw, 20.0, plant) == pytest.approx(expected_kw, rel=1e-9)
    balanced = replace(plant, return_approach_degc=-4.0)
    assert heat_imbalance_kw(212.0, 20.0, balanced) == pytest.approx(0.0, abs=1e-10)
