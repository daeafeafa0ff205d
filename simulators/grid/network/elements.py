"""What stands in a network's tables: what of it is refused and why, its loads, and its generators.

Tables are pandapower's; nothing here needs pandapower itself.

Rows: I25, P07.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.errors import CosimError, ScenarioError, cut
from cosim.simulators.grid.equations import Floats
from cosim.units import KW_PER_MW

_ENDS = {"line": ("from_bus", "to_bus"), "trafo": ("hv_bus", "lv_bus"), "trafo3w": ("hv_bus", "mv_bus", "lv_bus"),
         "impedance": ("from_bus", "to_bus"), "dcline": ("from_bus", "to_bus")}
_SWITCHED = {"line": "l", "trafo": "t", "trafo3w": "t3"}
_PHASES = ("p_a_mw", "p_b_mw", "p_c_mw", "q_a_mvar", "q_b_mvar", "q_c_mvar", "scaling")
_FINITE = {
    "ext_grid": ("vm_pu", "va_degree"),
    "line": ("length_km", "r_ohm_per_km", "x_ohm_per_km", "c_nf_per_km", "parallel"),
    "trafo": ("sn_mva", "vn_hv_kv", "vn_lv_kv", "vk_percent", "vkr_percent", "pfe_kw", "i0_percent", "parallel"),
    "trafo3w": (*(f"{what}_{side}_{unit}" for side in ("hv", "mv", "lv")
                  for what, unit in (("sn", "mva"), ("vn", "kv"), ("vk", "percent"), ("vkr", "percent"))),
                "pfe_kw", "i0_percent"),
    "impedance": ("rft_pu", "xft_pu", "rtf_pu", "xtf_pu", "sn_mva"),
    "dcline": ("p_mw", "loss_percent", "loss_mw", "vm_from_pu", "vm_to_pu"),
    "load": ("p_mw", "q_mvar", "scaling"), "sgen": ("p_mw", "q_mvar", "scaling"), "gen": ("p_mw", "vm_pu", "scaling"),
    "storage": ("p_mw", "q_mvar", "scaling"), "asymmetric_load": _PHASES, "asymmetric_sgen": _PHASES,
    "shunt": ("p_mw", "q_mvar", "vn_kv", "step"), "ward": ("ps_mw", "qs_mvar", "pz_mw", "qz_mvar"),
    "xward": ("ps_mw", "qs_mvar", "pz_mw", "qz_mvar", "r_ohm", "x_ohm", "vm_pu"),
    "motor": ("pn_mech_mw", "efficiency_percent", "cos_phi", "loading_percent", "scaling"),
}
"""Every kind of element that is read, with the figures that it cannot do without."""
_NO_ELEMENTS = frozenset({"bus", "poly_cost", "pwl_cost", "measurement", "group", "controller"})
_VOLTAGE_DEPENDENT = ("const_z_p_percent", "const_z_q_percent", "const_i_p_percent", "const_i_q_percent",
                      "const_z_percent", "const_i_percent")
_OTHER_MODELS = ("distributed_slack", "tdpf", "consider_line_temperature", "enforce_q_lims", "enforce_p_lims")
"""Options of a network's own power flow that change its results from ours."""
_TAPS = (("tap_pos", "tap_side", "tap_step_percent"), ("tap2_pos", "tap2_side", "tap2_step_percent"))


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator of the network itself: its bus, limits in kW and kvar (None: no limit), P as the file has it, and
    what it is by the file's column `type` ('PV'), '' where that is empty."""

    name: str
    node: int
    p_min_kw: float
    p_max_kw: float
    q_min_kvar: float | None
    q_max_kvar: float | None
    p_kw: float = 0.0
    kind: str = "sgen"
    index: int = 0
    technology: str = ""


def rows_in_service(net: Any, kind: str) -> Iterator[tuple[int, Any]]:
    """Index and row of every element of a kind that is in service."""
    table = net[kind]
    for k in table.index[table.in_service.astype(bool)]:
        yield int(k), table.loc[k]


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Whatever the reading of a network stumbles over comes out as a ScenarioError: its tables are not those that
    pandapower makes."""
    try:
        yield
    except CosimError:
        raise
    except Exception as err:
        raise ScenarioError(f"network {name} is not understood ({type(err).__name__}: {cut(str(err), 120)}): its "
                            "tables are not as pandapower makes them; write it by pandapower.to_json") from err


# --- refusals -------------------------------------------------------------------------------------------------------

def check(net: Any, name: str) -> list[str]:
    """Refuse by name whatever no reader models, or whose figures make no sense; phrases on what is taken otherwise."""
    with understood(name):
        return _checked(net, name)


def _checked(net: Any, name: str) -> list[str]:
    _check_kinds(net, name)
    served = {int(b) for b in net.bus.index[net.bus.in_service.astype(bool)]}
    _check_buses(net, name)
    for kind in _FINITE:
        for k, row in rows_in_service(net, kind) if kind in net else ():
            _check_element(net, kind, k, row, served, f"network {name}: {kind} {k}")
    _check_constant_power(net, name)
    return _noted(net)


def _check_kinds(net: Any, name: str) -> None:
    for kind, table in net.items():
        if kind in _FINITE or kind in _NO_ELEMENTS or kind.startswith(("_", "res_", "std_")):
            continue
        if "in_service" in getattr(table, "columns", ()) and table.in_service.astype(bool).any():
            raise ScenarioError(f"network {name} has {kind} {next(rows_in_service(net, kind))[0]} in service, which is "
                                "not modelled; take it out of service, or replace it by what it does")
    for option in _OTHER_MODELS:
        if (net.get("user_pf_options") or {}).get(option):
            raise ScenarioError(f"network {name} keeps {option} for its power flow (user_pf_options), which is not "
                                "modelled; take it out")


def _check_element(net: Any, kind: str, k: int, row: Any, served: set[int], where: str) -> None:
    for column in _ENDS.get(kind, ("bus",)):
        if not math.isfinite(row[column]):
            raise ScenarioError(f"{where} has {column} = {row[column]}; give the number of its bus, or take it "
                                "out of service")
    where += _place(kind, row)
    _check_finite(kind, row, where)
    _check_served(net, kind, k, row, where, served)
    if kind == "line":
        _check_line(net, row, where)
    elif kind in ("trafo", "trafo3w"):
        _check_trafo(kind, row, where)
    elif kind == "impedance" and 0.0 in (abs(complex(row.rft_pu, row.xft_pu)), abs(complex(row.rtf_pu, row.xtf_pu))):
        raise ScenarioError(f"{where} has no impedance; merge its two buses, or join them by a bus-bus switch")


def voltage_limits(net: Any) -> tuple[tuple[int, float, float], ...]:
    """(bus, lowest, highest voltage, p.u.) that a network states, of buses in service that no external grid holds; NaN:
    none."""
    held = {int(row.bus) for _, row in rows_in_service(net, "ext_grid")}
    low, high = (np.asarray(net.bus[column], float) if column in net.bus else np.full(len(net.bus), np.nan)
                 for column in ("min_vm_pu", "max_vm_pu"))
    here = zip(net.bus.index, net.bus.in_service.astype(bool), low.tolist(), high.tolist(), strict=True)
    return tuple((int(bus), least, most) for bus, on, least, most in here if on and int(bus) not in held)


_DRAWN = {"load": ("p_mw",), "shunt": ("p_mw",), "ward": ("ps_mw", "pz_mw"), "xward": ("ps_mw", "pz_mw"),
          "motor": ("pn_mech_mw",), "asymmetric_load": ("p_a_mw", "p_b_mw", "p_c_mw")}
"""What elements draw, and no scenario has an intensity for where it is < 0."""


def _noted(net: Any) -> list[str]:
    notes = []
    for kind, columns in _DRAWN.items():
        feeding = [k for k, row in rows_in_service(net, kind) if sum(float(row[c]) for c in columns) < 0.0]
        if feeding:
            notes.append(f"{kind} {', '.join(map(str, feeding[:4]))}{' ...' if len(feeding) > 4 else ''} of negative "
                         "power counts as local generation at 0 kg/kWh; an sgen in its place can have an intensity")
    if "controller" in net and "in_service" in net.controller and net.controller.in_service.astype(bool).any():
        notes.append("its controllers are not run: taps and set points stay as the file has them")
    for kind in ("asymmetric_load", "asymmetric_sgen"):
        if next(rows_in_service(net, kind), None) is not None:
            notes.append(f"{kind} counts by the sum of its phases, on a balanced network")
    return notes


def _place(kind: str, row: Any) -> str:
    ends = _ENDS.get(kind)
    return f" ({'-'.join(str(int(row[e])) for e in ends)})" if ends else f" (bus {int(row.bus)})"


def _check_buses(net: Any, name: str) -> None:
    for b in net.bus.index[net.bus.in_service.astype(bool)]:
        if not 0.0 < float(net.bus.vn_kv.loc[b]) < math.inf:
            raise ScenarioError(f"network {name}: bus {int(b)} has vn_kv = {net.bus.vn_kv.loc[b]}; it must be finite "
                                "and above 0")


def _check_finite(kind: str, row: Any, where: str) -> None:
    for column in _FINITE[kind]:
        value = row.get(column)
        if value is None and column not in ("p_mw", "q_mvar", "r_ohm_per_km", "x_ohm_per_km"):
            continue  # tables of older files lack it, and pandapower takes its default
        if value is None or not math.isfinite(float(value)):
            raise ScenarioError(f"{where} has {column} = {value}; it must be a finite number: correct it, or take the "
                                "element out of service")


def _check_served(net: Any, kind: str, k: int, row: Any, where: str, served: set[int]) -> None:
    """Every bus that an element is joined to is in service."""
    stands = "ends" if kind in _ENDS else "stands"
    for column in _ENDS.get(kind, ("bus",)):
        bus = int(row[column])
        if bus in served:
            continue
        switches = net.switch
        if kind in _SWITCHED and ((switches.et == _SWITCHED[kind]) & (switches.element == k) & (switches.bus == bus)
                                  & ~switches.closed.astype(bool)).any():
            continue
        raise ScenarioError(f"{where} {stands} at bus {bus}, which is "
                            + ("out of service; take the element out of service, too" if bus in net.bus.index else
                               "not in the network"))


def _check_line(net: Any, line: Any, where: str) -> None:
    r, x = line.r_ohm_per_km * line.length_km, line.x_ohm_per_km * line.length_km
    if r == x == 0.0:
        raise ScenarioError(f"{where} has no impedance; merge its two buses, or join them by a bus-bus switch")
    if line.get("parallel", 1) < 1:
        raise ScenarioError(f"{where} has parallel = {line.parallel:g}; it must be >= 1")
    conductance = _figure(line, "g_us_per_km")
    if line.c_nf_per_km < 0.0 or conductance < 0.0:
        raise ScenarioError(f"{where} has c_nf_per_km = {line.c_nf_per_km:g}, g_us_per_km = {conductance:g}; both must "
                            "be >= 0")
    kv = {float(net.bus.vn_kv.loc[b]) for b in (line.from_bus, line.to_bus)}
    if len(kv) > 1:
        raise ScenarioError(f"{where} joins buses of {min(kv):g} and {max(kv):g} kV; a line has one voltage")


def _check_trafo(kind: str, trafo: Any, where: str) -> None:
    for position, side, step in _TAPS if kind == "trafo" else _TAPS[:1]:
        if trafo.get(side) in ("hv", "mv", "lv") and _figure(trafo, step) != 0.0 and trafo.get(position) is not None \
                and not math.isfinite(float(trafo[position])):
            raise ScenarioError(f"{where} has {position} = {trafo[position]} and a tap changer at {side} = "
                                f"{trafo[side]}; give its position")
    for of in ("",) if kind == "trafo" else ("_hv", "_mv", "_lv"):
        vk, vkr, s_mva = (float(trafo[f"{c}{of}_{unit}"]) for c, unit in (("vk", "percent"), ("vkr", "percent"),
                                                                         ("sn", "mva")))
        if not (abs(vkr) <= abs(vk) and vk != 0.0 and s_mva > 0.0):
            raise ScenarioError(f"{where} has vk{of}_percent = {vk:g}, vkr{of}_percent = {vkr:g}, sn{of}_mva = "
                                f"{s_mva:g}; it must be |vkr| <= |vk|, vk not 0, and sn above 0")


def _check_constant_power(net: Any, name: str) -> None:
    for k, load in rows_in_service(net, "load"):
        for column in _VOLTAGE_DEPENDENT:
            if _figure(load, column) != 0.0:
                raise ScenarioError(f"network {name}: load {k} has {column} = {load[column]:g}; demand is constant "
                                    "power here: set it to 0, or make that part a shunt or ward")


def _figure(row: Any, column: str) -> float:
    """A figure that a table may not have or leave empty: 0 then."""
    value = row.get(column)
    return 0.0 if value is None or not math.isfinite(float(value)) else float(value)


# --- loads and generators -------------------------------------------------------------------------------------------

def base_loads(net: Any, buses: list[int]) -> tuple[Floats, Floats]:
    """The network's own loads per bus of `buses`, kW and kvar: of phases their sum, all times their scaling."""
    p, q = np.zeros(len(buses)), np.zeros(len(buses))
    at = {b: k for k, b in enumerate(buses)}
    load = net.load[net.load.in_service.astype(bool)]
    place = np.array([at[int(b)] for b in load.bus], dtype=np.int64)
    np.add.at(p, place, (load.p_mw * load.scaling).to_numpy(float) * KW_PER_MW)
    np.add.at(q, place, (load.q_mvar * load.scaling).to_numpy(float) * KW_PER_MW)
    for _, row in rows_in_service(net, "asymmetric_load"):
        p[at[int(row.bus)]] += KW_PER_MW * row.scaling * (row.p_a_mw + row.p_b_mw + row.p_c_mw)
        q[at[int(row.bus)]] += KW_PER_MW * row.scaling * (row.q_a_mvar + row.q_b_mvar + row.q_c_mvar)
    return p, q


NO_RATING_KA = 1e3
"""Networks have such currents where none is known: 99999 in pandapower's own."""


def rated_kw(net: Any) -> float | None:
    """What the branches at the external grids carry together at most, kW; None where one of them has no rating."""
    roots, rated = {int(row.bus) for _, row in rows_in_service(net, "ext_grid")}, []
    for _, line in rows_in_service(net, "line"):
        if {int(line.from_bus), int(line.to_bus)} & roots:
            ka = line.max_i_ka * line.parallel if 0.0 < line.max_i_ka < NO_RATING_KA else math.nan
            rated.append(3.0**0.5 * net.bus.vn_kv[int(line.from_bus)] * ka)
    for kind, ends, column in (("trafo", ("hv_bus", "lv_bus"), "sn_mva"),
                               ("trafo3w", ("hv_bus", "mv_bus", "lv_bus"), "sn_hv_mva")):
        for _, trafo in rows_in_service(net, kind):
            if {int(trafo[end]) for end in ends} & roots:
                rated.append(trafo[column] * trafo.get("parallel", 1))
    total = KW_PER_MW * float(sum(rated))
    return total if rated and math.isfinite(total) else None


def own_generators(net: Any) -> tuple[Generator, ...]:
    """What of the network feeds it beside the external grids: sgen, asymmetric_sgen, gen, and storage that discharges.

    Fixed at its p_mw unless `controllable` is set; a gen is controllable, as in pandapower, unless that column has
    no, but only where it has a max_p_mw. P of a controllable one is between min_p_mw (else 0) and max_p_mw (else p_mw).
    Q is fixed but for a gen, which has its limits, and a controllable sgen that has some. Named as in the network, or
    by kind and index ('sgen3') where that is no unique name. One that draws (p_mw < 0) or gives nothing at all is none.
    """
    found: list[Generator] = []
    taken: set[str] = set()
    for kind in ("sgen", "asymmetric_sgen", "gen", "storage"):
        for k, row in rows_in_service(net, kind):
            p_kw, q_kvar = _power(kind, row)
            if kind == "gen" and bool(row.get("slack", False)):
                continue  # it balances, as an external grid does
            low, high = _p_range(kind, row, p_kw)
            if kind != "gen" and high <= 0.0:
                continue  # drawn: see `drawn_by`
            q_low, q_high = (_limit(row, c) for c in ("min_q_mvar", "max_q_mvar"))
            if kind != "gen":
                free = kind == "sgen" and _is_controllable(kind, row)
                q_low = q_kvar if q_low is None or not free else q_low
                q_high = q_kvar if q_high is None or not free else q_high
            given = row.get("name")
            label = given if isinstance(given, str) and given and given not in taken else f"{kind}{k}"
            taken.add(label)
            found.append(Generator(label, int(row.bus), low, high, q_low, q_high, p_kw, kind, k, _technology(row)))
    return tuple(found)


def _technology(row: Any) -> str:
    given = row.get("type")
    return given if isinstance(given, str) and given not in ("wye", "delta") else ""


def _power(kind: str, row: Any) -> tuple[float, float]:
    """kW and kvar that an element feeds in by the file."""
    scaling = float(row.get("scaling", 1.0))
    if kind == "asymmetric_sgen":
        p_mw, q_mvar = (row[f"{c}_a_{u}"] + row[f"{c}_b_{u}"] + row[f"{c}_c_{u}"]
                        for c, u in (("p", "mw"), ("q", "mvar")))
    else:
        p_mw, q_mvar = _figure(row, "p_mw"), _figure(row, "q_mvar")
    sign = -1.0 if kind == "storage" else 1.0
    return sign * KW_PER_MW * scaling * p_mw, sign * KW_PER_MW * scaling * q_mvar


def _is_controllable(kind: str, row: Any) -> bool:
    given = row.get("controllable")
    unsaid = given is None or given != given  # NaN is not equal to itself
    if kind == "gen":  # pandapower makes them controllable by default; explicit limits count
        return (unsaid or bool(given)) and _limit(row, "max_p_mw") is not None
    return not unsaid and bool(given)


def _p_range(kind: str, row: Any, p_kw: float) -> tuple[float, float]:
    if kind not in ("sgen", "gen") or not _is_controllable(kind, row):
        return p_kw, p_kw
    low, high = _limit(row, "min_p_mw"), _limit(row, "max_p_mw")
    low, high = 0.0 if low is None else low, p_kw if high is None else high
    return min(low, high), high


def _limit(row: Any, column: str) -> float | None:
    """kW or kvar of a limit in MW or Mvar; None where the table has none."""
    value = row.get(column)
    return None if value is None or not math.isfinite(float(value)) else KW_PER_MW * float(value)
