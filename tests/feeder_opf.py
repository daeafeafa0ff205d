"""An AC optimal power flow that shares nothing with the dispatch: bus voltages as complex numbers, branches as
admittances from their own ohms, currents and apparent powers limited at both ends, by IPOPT (casadi's wheel has it).

    python tests/feeder_opf.py        # compares the dispatch with it on thirty random radial feeders
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import casadi
import numpy as np
import pandapower

from cosim.simulators.grid.dispatch.branch_limits import binding, branch_limits
from cosim.simulators.grid.dispatch.conic import Limits
from cosim.simulators.grid.dispatch.mci import DERIVATIVE, MciOfDispatch
from cosim.simulators.grid.dispatch.optimal_power_flow import Dispatch
from cosim.simulators.grid.dispatch.results import OPTIMAL
from cosim.simulators.grid.dispatch.sources import Source
from cosim.simulators.grid.network.radial import feeder_of
from cosim.simulators.grid.network.tables import radial_data

LAMBDA, V_MIN, V_MAX, KV, FEEDERS = 0.3, 0.9, 1.1, 11.0, 30
STEP_KW = 4.0


@dataclass(frozen=True)
class Case:
    """A feeder in plain figures. Bus 0 is upstream; lines (from, to, ohm, ohm, nF, A); loads kW, kvar (n_bus,);
    sources (bus, kg/kWh, most kW), the first upstream; transformer (kVA, vk %, vkr %, ratio off nominal) or None, then
    between buses 0 and 1."""

    lines: tuple[tuple[int, int, float, float, float, float], ...]
    p_kw: np.ndarray
    q_kvar: np.ndarray
    sources: tuple[tuple[int, float, float], ...]
    transformer: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Optimum:
    """Value of the objective, kW, P of the sources, kW, emission, kg/h, and each branch's loading."""

    objective_kw: float
    p_kw: np.ndarray
    emission_kg_per_h: float
    loading_ratio: np.ndarray


def random_case(seed: int) -> Case:
    """6 to 12 buses, two generators; every third behind a transformer off its nominal ratio. Its fullest branch is
    rated below what it would carry."""
    rng = np.random.default_rng(seed)
    n, first = int(rng.integers(6, 13)), 2 if seed % 3 == 0 else 1
    lines = []
    for bus in range(first, n):
        r = float(rng.uniform(0.1, 0.9))
        lines.append((int(rng.integers(max(first - 1, bus - 3), bus)), bus, r, r * float(rng.uniform(0.5, 1.5)),
                      float(rng.uniform(0.0, 400.0)), 300.0))
    p_kw, q_kvar = np.zeros(n), np.zeros(n)
    p_kw[1:], q_kvar[1:] = rng.uniform(50.0, 250.0, n - 1), rng.uniform(0.0, 100.0, n - 1)
    at = rng.choice(np.arange(first, n), 2, replace=False).tolist()
    sources = ((0, float(rng.uniform(0.1, 0.4)), np.inf), *((b, float(rng.uniform(0.3, 0.9)), 900.0) for b in at))
    case = Case(tuple(lines), p_kw, q_kvar, sources, (4000.0, 8.0, 0.6, 1.0 + 0.025 * int(rng.integers(-2, 3)))
                if first == 2 else None)
    return _tightened(case)


def _tightened(case: Case) -> Case:
    """The fullest branch rated at as small a share of its load as the sources beyond it can still make up for."""
    free = solve(case)
    k = int(free.loading_ratio.argmax())
    for share in (0.7, 0.85, 0.95, 1.05):
        rated = share * float(free.loading_ratio[k])
        if case.transformer is not None and k == len(case.lines):
            tight = replace(case, transformer=(case.transformer[0] * rated, *case.transformer[1:]), lines=case.lines)
            tight = replace(tight, transformer=(tight.transformer[0], case.transformer[1] * rated,
                                                case.transformer[2] * rated, case.transformer[3]))
        else:
            line = case.lines[k]
            tight = replace(case, lines=(*case.lines[:k], (*line[:5], line[5] * rated), *case.lines[k + 1:]))
        if dispatch_of(tight)[2].status == OPTIMAL:
            return tight
    raise AssertionError("no rating fits")


def solve(case: Case, more_kw: tuple[int, float] = (0, 0.0)) -> Optimum:
    """The optimum of (11) by IPOPT, of demand with so many kW more at a bus."""
    n, base_kva = len(case.p_kw), 1000.0
    ohm = KV**2  # of 1 p.u. at 1 MVA
    v_re, v_im = casadi.SX.sym("re", n), casadi.SX.sym("im", n)
    p, q = casadi.SX.sym("p", len(case.sources)), casadi.SX.sym("q", len(case.sources))
    s_re, s_im = [0.0] * n, [0.0] * n  # what enters the branches at each bus
    full, limit = [], []

    def product(k, i):
        """V conj(I) of a bus."""
        return v_re[k] * i[0] + v_im[k] * i[1], v_im[k] * i[0] - v_re[k] * i[1]

    def branch(a, b, y, shunt, tap, rated, apparent):
        ya, yb, yc = (y + shunt) / tap**2, y + shunt, -y / tap
        for k, own, other in ((a, ya, b), (b, yb, a)):
            i = (own.real * v_re[k] - own.imag * v_im[k] + yc.real * v_re[other] - yc.imag * v_im[other],
                 own.real * v_im[k] + own.imag * v_re[k] + yc.real * v_im[other] + yc.imag * v_re[other])
            s = product(k, i)
            s_re[k], s_im[k] = s_re[k] + s[0], s_im[k] + s[1]
            full.append((s[0] ** 2 + s[1] ** 2 if apparent else i[0] ** 2 + i[1] ** 2) / rated**2)
            limit.append(1.0)

    for a, b, r, x, nf, amp in case.lines:
        branch(a, b, 1.0 / complex(r / ohm, x / ohm), 0.5j * 2 * np.pi * 50.0 * nf * 1e-9 * ohm, 1.0,
               amp * 3**0.5 * KV / base_kva, False)
    if case.transformer is not None:
        kva, vk, vkr, tap = case.transformer
        z = complex(vkr, (vk**2 - vkr**2) ** 0.5) / 100.0 * base_kva / kva
        branch(0, 1, 1.0 / z, 0.0j, tap, kva / base_kva, True)
    p_load, q_load = case.p_kw / base_kva, case.q_kvar / base_kva
    p_load = p_load + np.bincount([more_kw[0]], [more_kw[1] / base_kva], n)
    balance = [s_re[k] + p_load[k] - sum(p[j] for j, s in enumerate(case.sources) if s[0] == k) for k in range(n)]
    balance += [s_im[k] + q_load[k] - sum(q[j] for j, s in enumerate(case.sources) if s[0] == k) for k in range(n)]
    u = [v_re[k] ** 2 + v_im[k] ** 2 for k in range(1, n)]
    w = np.array([s[1] for s in case.sources])
    cost = sum((1.0 + LAMBDA * w[j]) * p[j] for j in range(len(w)))
    constraints = casadi.vertcat(*balance, *u, *full)
    x = casadi.vertcat(v_re, v_im, p, q)
    m, free = len(case.sources), np.inf
    bounds = [np.r_[np.full(2 * n, -2.0), np.zeros(m), -free, np.full(m - 1, -0.3)],
              np.r_[np.full(2 * n, 2.0), [s[2] / base_kva for s in case.sources], free, np.full(m - 1, 0.3)]]
    for at, value in ((0, 1.0), (n, 0.0)):
        bounds[0][at] = bounds[1][at] = value
    solver = casadi.nlpsol("opf", "ipopt", {"x": x, "f": cost, "g": constraints}, {
        "ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes", "ipopt.tol": 1e-10, "ipopt.acceptable_tol": 1e-10,
        "ipopt.bound_relax_factor": 0.0})
    found = solver(x0=np.r_[np.ones(n), np.zeros(n), np.full(m, 0.2), np.zeros(m)], lbx=bounds[0], ubx=bounds[1],
                   lbg=np.r_[np.zeros(2 * n), np.full(n - 1, V_MIN**2), np.full(len(full), -free)],
                   ubg=np.r_[np.zeros(2 * n), np.full(n - 1, V_MAX**2), limit])
    assert solver.stats()["success"], solver.stats()["return_status"]
    at = np.array(found["x"]).ravel()
    p_kw = base_kva * at[2 * n: 2 * n + m]
    ends = np.sqrt(np.array(found["g"]).ravel()[-len(full):]).reshape(-1, 2).max(axis=1)
    drawn = float(base_kva * p_load.sum())
    return Optimum(float((1.0 + LAMBDA * w) @ p_kw) - drawn, p_kw, float(w @ p_kw), ends)


def dispatch_of(case: Case):
    """The same feeder through pandapower's tables and this project's dispatch: (feeder, dispatch, result)."""
    net = pandapower.create_empty_network(sn_mva=1.0, f_hz=50.0)
    for k in range(len(case.p_kw)):
        pandapower.create_bus(net, KV * (10.0 if k == 0 and case.transformer else 1.0))
    pandapower.create_ext_grid(net, 0)
    for a, b, r, x, nf, amp in case.lines:
        pandapower.create_line_from_parameters(net, a, b, 1.0, r, x, nf, amp / 1e3)
    if case.transformer is not None:
        kva, vk, vkr, tap = case.transformer
        pandapower.create_transformer_from_parameters(
            net, 0, 1, kva / 1e3, 10.0 * KV, KV, vkr, vk, 0.0, 0.0, tap_side="hv", tap_neutral=0, tap_step_percent=2.5,
            tap_pos=round((tap - 1.0) / 0.025), tap_changer_type="Ratio")
    for k in range(1, len(case.p_kw)):
        pandapower.create_load(net, k, case.p_kw[k] / 1e3, case.q_kvar[k] / 1e3)
    feeder = feeder_of(radial_data(net, "random"))
    sources = {f"s{j}": Source(bus, w, 0.0, None if most == np.inf else most, None if most == np.inf else -300.0,
                               None if most == np.inf else 300.0) for j, (bus, w, most) in enumerate(case.sources)}
    limits = Limits(1.0, V_MIN, V_MAX, LAMBDA, branches=branch_limits(feeder, {}, {}, "grid", own=True))
    dispatch = Dispatch(feeder, sources, limits, "clarabel")
    return feeder, dispatch, dispatch.solve(feeder.p_kw, feeder.q_kvar), sources


@dataclass(frozen=True)
class Difference:
    """Between dispatch and IPOPT: of the objective, relative, of P of the sources, kW, of the fullest branch's loading,
    and of the marginal intensity by differences of IPOPT's optima, kg/kWh; and whether a branch was full."""

    objective_ratio: float
    source_kw: float
    loading_ratio: float
    mci_kg_per_kwh: float
    full: bool


def compare(seed: int) -> Difference:
    case = random_case(seed)
    feeder, dispatch, got, sources = dispatch_of(case)
    assert got.status == OPTIMAL
    assert not got.inexact
    right = solve(case)
    full = bool(binding(dispatch.limits.branches, got.loading_ratio).any())
    mci = MciOfDispatch(feeder, sources, dispatch.limits, np.zeros(feeder.n_bus), []).of(got)
    far = len(case.p_kw) - 1
    off = np.nan
    if mci.status[far] == DERIVATIVE:
        up, down = (solve(case, (far, step)).emission_kg_per_h for step in (STEP_KW, -STEP_KW))
        off = abs(float(mci.up_kg_per_kwh[far]) - (up - down) / (2.0 * STEP_KW))
    return Difference(abs(got.objective_kw - right.objective_kw) / abs(right.objective_kw),
                      float(np.abs(got.p_source_kw - right.p_kw).max()),
                      abs(float(got.loading_ratio.max() - right.loading_ratio.max())), off, full)


if __name__ == "__main__":
    found = [compare(seed) for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else FEEDERS)]
    print(f"{len(found)} feeders, {sum(d.full for d in found)} with a full branch; largest differences: "
          f"objective {max(d.objective_ratio for d in found):.1e}, source {max(d.source_kw for d in found):.2g} kW, "
          f"loading {max(d.loading_ratio for d in found):.1e}, "
          f"mci {np.nanmax([d.mci_kg_per_kwh for d in found]):.1e} kg/kWh at "
          f"{sum(d.mci_kg_per_kwh >= 0 for d in found)}")
