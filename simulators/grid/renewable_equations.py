"""What photovoltaic plants and wind turbines can give in given weather. Arrays in, arrays out; no clock.

Angles in degrees; azimuths clockwise from north (90 is east, 180 south), tilts from the horizontal. Irradiance in W/m2,
temperatures in degC, powers in kW.

Rows: Z04.
"""

from __future__ import annotations

import numpy as np

from cosim.simulators.grid.equations import Floats
from cosim.units import DAY_S, HOUR_S

GROUND_ALBEDO = 0.2
STANDARD_W_PER_M2, STANDARD_DEGC = 1000.0, 25.0
"""Standard test conditions of a module."""
NOMINAL_W_PER_M2, NOMINAL_DEGC = 800.0, 20.0
"""Irradiance and air temperature at which a module's nominal operating cell temperature is stated."""
STANDARD_DENSITY_KG_PER_M3 = 1.225
_GAS_J_PER_KG_K, _ZERO_K = 287.05, 273.15
_UNIX_2000_S = 946728000.0
"""2000-01-01T12:00Z."""


def sun(unix_s: Floats, latitude_deg: float, longitude_deg: float) -> tuple[Floats, Floats]:
    """(elevation above the horizon, azimuth) of the sun's centre, without refraction, within about 0.02 degrees from
    1950 to 2050.

    The low-precision formulas of The Astronomical Almanac, as in J. Michalsky, Solar Energy 40 (1988) 227.
    """
    days = (unix_s - _UNIX_2000_S) / DAY_S
    anomaly = np.radians(357.528 + 0.9856003 * days)
    longitude = np.radians(280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2.0 * anomaly))
    obliquity = np.radians(23.439 - 4e-7 * days)
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(obliquity) * np.sin(longitude))
    universal_h = unix_s % DAY_S / HOUR_S
    sidereal_h = 6.697375 + 0.0657098242 * days + universal_h
    hour_angle = np.radians(15.0 * sidereal_h + longitude_deg) - right_ascension
    phi = np.radians(latitude_deg)
    up = np.sin(declination) * np.sin(phi) + np.cos(declination) * np.cos(phi) * np.cos(hour_angle)
    east = -np.cos(declination) * np.sin(hour_angle)
    north = np.sin(declination) * np.cos(phi) - np.cos(declination) * np.sin(phi) * np.cos(hour_angle)
    return np.degrees(np.arcsin(np.clip(up, -1.0, 1.0))), np.degrees(np.arctan2(east, north)) % 360.0


def on_a_plane(ghi: Floats, dni: Floats, dhi: Floats, elevation_deg: Floats, azimuth_deg: Floats, tilt_deg: float,
               facing_deg: float) -> Floats:
    """Irradiance on a tilted plane: the beam, an isotropic sky (Liu and Jordan, Solar Energy 4 (1960) 1) and what the
    ground reflects.

    ghi, dni, dhi  global horizontal, direct normal, diffuse horizontal; facing_deg: where the plane looks to
    """
    elevation, tilt = np.radians(elevation_deg), np.radians(tilt_deg)
    incidence = (np.sin(elevation) * np.cos(tilt)
                 + np.cos(elevation) * np.sin(tilt) * np.cos(np.radians(azimuth_deg - facing_deg)))
    beam = np.where(elevation_deg > 0.0, dni * np.maximum(incidence, 0.0), 0.0)
    return beam + dhi * (1.0 + np.cos(tilt)) / 2.0 + ghi * GROUND_ALBEDO * (1.0 - np.cos(tilt)) / 2.0


def pv_kw(plane: Floats, air_degc: Floats, rated_dc_kw: float, rated_ac_kw: float, per_k: float, nominal_degc: float,
          loss_ratio: float) -> Floats:
    """AC power of a plant: modules linear in irradiance and temperature, losses, an inverter that clips (PVWatts
    version 5: A. Dobos, NREL/TP-6A20-62641 (2014), with its losses and inverter as one ratio).

    per_k  change of the modules' power per K of cell temperature, negative; nominal_degc: their cell temperature at 800
    W/m2 and 20 degC (R. Ross, IEEE PVSC 1980), which rises with irradiance in proportion
    """
    cell = air_degc + (nominal_degc - NOMINAL_DEGC) / NOMINAL_W_PER_M2 * plane
    dc = rated_dc_kw * plane / STANDARD_W_PER_M2 * (1.0 + per_k * (cell - STANDARD_DEGC))
    return np.clip(dc * (1.0 - loss_ratio), 0.0, rated_ac_kw)


def wind_kw(speed: Floats, density: Floats, rated_kw: float, cut_in: float, rated_at: float, cut_out: float) -> Floats:
    """Power of a turbine at hub-height speeds, m/s: between cut-in and rated speed it grows with the cube.

    The speed is corrected to standard density by its cube root, as IEC 61400-12-1 does for turbines that pitch; density
    in kg/m3.
    """
    at = speed * np.cbrt(density / STANDARD_DENSITY_KG_PER_M3)
    partly = rated_kw * (at**3 - cut_in**3) / (rated_at**3 - cut_in**3)
    return np.where(speed > cut_out, 0.0, np.clip(partly, 0.0, rated_kw))


def at_hub(speed: Floats, measured_m: float, hub_m: float, shear: float) -> Floats:
    """Wind speed at hub height by the power law of exponent `shear`, m/s."""
    return speed * (hub_m / measured_m) ** shear


def density_kg_per_m3(pressure_pa: Floats, air_degc: Floats) -> Floats:
    """Of dry air as an ideal gas."""
    return pressure_pa / (_GAS_J_PER_KG_K * (air_degc + _ZERO_K))
