"""The grid's equations: radial power flow, losses, and the carbon that flows with the power.

Arrays in, arrays out: no clock, no solver, no network library. Buses are integers 0..n_bus-1, a branch joins `from_bus`
and `to_bus`, and `p_from` (`p_to`) is the active power that *enters* the branch at that end, so `p_from + p_to` is its
loss. In the paper's notation P_ij, received at j, is `-p_to` and P_ji is `-p_from`.

Rows: E01-03, E09, E10, I29, U01, U18.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import spsolve

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Complexes = NDArray[np.complex128]

SPARSE_ABOVE_BUSES = 200
"""From here on a sparse factorisation of (10) is faster than a dense one."""


# --- carbon emission flow, (9) and (10) ------------------------------------------------------------------------------

def nodal_carbon_intensity(
    n_bus: int,
    from_bus: Ints,
    to_bus: Ints,
    p_from: Floats,
    p_to: Floats,
    gen_bus: Ints,
    p_gen: Floats,
    gen_intensity: Floats,
) -> Floats:
    """Nodal carbon intensity (NCI) of every bus by proportional sharing: (9) as the linear system (10).

    A bus mixes what its generators inject and what its branches deliver, measured at the receiving end, and passes
    the mix on; a branch loss is carried at the intensity of the node that sends it. Networks may be meshed.

    p_from, p_to (n_branch,) and p_gen (n_gen,) share one power unit; several generators may stand at a bus, and one
    with p_gen <= 0 is a load. Returns (n_bus,) in the unit of `gen_intensity`, never NaN.

    A bus is *dead* when no generator's power reaches it: (9) is then 0/0 and it inherits the intensity of the nearest
    live bus, which on a feeder is its parent; of several equally near, the one at the lowest-numbered branch
    wins. A dead bus that no branch joins to a live one gets 0. Power that seems to come from a dead bus is rounding
    noise and carries nothing.
    """
    sender, receiver, shares, scale, live = _mixing(n_bus, from_bus, to_bus, p_from, p_to, gen_bus, p_gen)
    carbon = np.bincount(gen_bus, np.maximum(p_gen, 0.0) * gen_intensity, n_bus)
    nci = _solve_mixing(n_bus, sender, receiver, shares, carbon * scale)
    return nci if live.all() else _inherit(nci, live, from_bus, to_bus)


def _mixing(
    n_bus: int, from_bus: Ints, to_bus: Ints, p_from: Floats, p_to: Floats, gen_bus: Ints, p_gen: Floats
) -> tuple[Ints, Ints, Floats, Floats, NDArray[np.bool_]]:
    """(9) as (sender, receiver, sender's share in the receiver's inflow), 1 / inflow of each bus, and a mask of live
    buses.

    Rows are divided by the inflow, so that small and large ones are equally well conditioned; dead rows read w = 0.
    """
    sender, receiver, received = _deliveries(from_bus, to_bus, p_from, p_to)
    injected = np.bincount(gen_bus, np.maximum(p_gen, 0.0), n_bus)
    live = _reached(injected > 0.0, sender, receiver)
    if not live.all():
        known = live[sender]
        sender, receiver, received = sender[known], receiver[known], received[known]
    inflow = injected + np.bincount(receiver, received, n_bus)
    scale = 1.0 / np.where(live, inflow, 1.0)
    return sender, receiver, received * scale[receiver], scale, live


def _deliveries(from_bus: Ints, to_bus: Ints, p_from: Floats, p_to: Floats) -> tuple[Ints, Ints, Floats]:
    """Directed flows: (sender, receiver, power > 0 that arrives) of every branch that delivers power."""
    forward, backward = p_to < 0.0, p_from < 0.0
    sender = np.concatenate([from_bus[forward], to_bus[backward]])
    receiver = np.concatenate([to_bus[forward], from_bus[backward]])
    return sender, receiver, np.concatenate([-p_to[forward], -p_from[backward]])


def _reached(start: NDArray[np.bool_], sender: Ints, receiver: Ints) -> NDArray[np.bool_]:
    """Buses that power from the `start` buses reaches."""
    live = start.copy()
    count = -1
    while count != (count := int(np.count_nonzero(live))):
        live[receiver[live[sender]]] = True
    return live


def sums(at: Ints, values: Floats, number: int) -> Floats:
    """(number,) sum of the values at each place; numpy's type hints leave the weights out."""
    return np.asarray(np.bincount(at, values, number), dtype=np.float64)


def _solve_mixing(n_bus: int, sender: Ints, receiver: Ints, shares: Floats, rhs: Floats) -> Floats:
    """Solve w[i] - sum over senders h of shares[h->i] w[h] = rhs[i], all i."""
    if n_bus > SPARSE_ABOVE_BUSES:
        mixing = coo_array((shares, (receiver, sender)), shape=(n_bus, n_bus))
        return np.asarray(spsolve((diags_array(np.ones(n_bus)) - mixing).tocsc(), rhs))
    matrix = np.eye(n_bus)
    np.subtract.at(matrix, (receiver, sender), shares)
    return np.asarray(np.linalg.solve(matrix, rhs), dtype=np.float64)


def _inherit(nci: Floats, live: NDArray[np.bool_], from_bus: Ints, to_bus: Ints) -> Floats:
    """Give dead buses the intensity of the nearest live bus, ring by ring."""
    nci, known = nci.copy(), live.copy()
    nci[~live] = 0.0
    ends = [(int(a), int(b)) for a, b in zip(from_bus, to_bus, strict=True)]
    while True:
        ring: dict[int, float] = {}
        for a, b in ends:
            if known[a] != known[b]:
                giver, taker = (a, b) if known[a] else (b, a)
                ring.setdefault(taker, nci[giver])
        if not ring:
            return nci
        for bus, value in ring.items():
            nci[bus], known[bus] = value, True


def generated_carbon(p_gen: Floats, gen_intensity: Floats) -> float:
    """Carbon rate that generators inject: sum of intensity x power over those with p_gen > 0 (J2 of (11))."""
    return float(np.maximum(p_gen, 0.0) @ gen_intensity)


# --- radial power flow ------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class RadialTree:
    """A radial network as the sweep needs it, p.u. on one base.

    parent  (n_branch,) bus at the end of each branch that is nearer to the root
    child   (n_branch,) the other end
    z_pu    (n_branch,) series impedance r + jx, >= 0 in both parts
    y_pu    (n_bus,) shunt admittance collected at each bus: line charging is a susceptance > 0
    below   (n_branch, n_bus) 1 where the bus is fed through the branch, else 0
    root    the bus whose voltage is given
    drop    (n_bus, n_bus) voltage that a bus loses per current drawn at another; None on large networks
    g_parent_pu, g_child_pu  (n_branch,) the part of y_pu's conductance that is a branch's own; None: none
    """

    parent: Ints
    child: Ints
    z_pu: Complexes
    y_pu: Complexes
    below: NDArray[np.float64] | csr_array
    root: int
    drop: Complexes | None = None
    g_parent_pu: Floats | None = None
    g_child_pu: Floats | None = None


@dataclass(frozen=True, slots=True)
class RadialFlow:
    """Voltages (n_bus,) and the complex powers entering each branch at its parent and child end (n_branch,), p.u.

    Reactive power of what is collected at the buses (`RadialTree.y_pu`) is none of the branches'; active power of their
    own conductances is.
    """

    v_pu: Complexes
    s_parent_pu: Complexes
    s_child_pu: Complexes
    converged: bool


def radial_tree(
    n_bus: int, parent: Ints, child: Ints, z_pu: Complexes, b_pu: Floats, root: int, g_pu: Floats | None = None,
    g_parent_pu: Floats | None = None, g_child_pu: Floats | None = None,
) -> RadialTree:
    """The tree of a radial network whose branches all point away from `root`, in any order.

    b_pu, g_pu  (n_bus,) susceptance and conductance at each bus; g_parent_pu, g_child_pu (n_branch,): what of the
    latter stands inside of the branches, whose losses it adds to
    """
    feeder_of = {int(c): k for k, c in enumerate(child)}
    rows, cols = [], []
    for bus in range(n_bus):
        at = bus
        while at != root:
            k = feeder_of[at]
            rows.append(k)
            cols.append(bus)
            at = int(parent[k])
    below = csr_array((np.ones(len(rows)), (rows, cols)), shape=(len(parent), n_bus))
    y_pu = np.asarray((0.0 if g_pu is None else g_pu) + 1j * b_pu, dtype=np.complex128)
    if g_parent_pu is not None and g_child_pu is not None and not (g_parent_pu.any() or g_child_pu.any()):
        g_parent_pu = g_child_pu = None
    if n_bus > SPARSE_ABOVE_BUSES:
        return RadialTree(parent, child, z_pu, y_pu, below, root, None, g_parent_pu, g_child_pu)
    dense = below.toarray()
    drop = dense.T @ (z_pu[:, None] * dense)
    return RadialTree(parent, child, z_pu, y_pu, dense, root, drop, g_parent_pu, g_child_pu)


def radial_power_flow(
    tree: RadialTree, s_load_pu: Complexes, v0_pu: float, *, tolerance_pu: float = 1e-13, max_iterations: int = 200
) -> RadialFlow:
    """Exact AC power flow of a radial feeder by backward-forward sweep: currents summed up, voltages carried down.

    s_load_pu  (n_bus,) net demand P + jQ, p.u. (load less local generation); the root's own does not matter
    v0_pu      voltage at the root, > 0

    `converged` is False when the voltages still move by more than `tolerance_pu` (root of the sum of squares): the
    feeder cannot carry this load.
    """
    drawn = np.empty(len(s_load_pu), complex)
    v = np.full(len(s_load_pu), v0_pu, complex)
    conj_load, charging = np.conj(s_load_pu), tree.y_pu if tree.y_pu.any() else None
    converged, enough = False, (tolerance_pu * v0_pu) ** 2
    with np.errstate(all="ignore"):  # a load that cannot be carried may overflow on its way to `converged` = False
        for _ in range(max_iterations):
            drawn = conj_load / np.conj(v)
            if charging is not None:
                drawn += charging * v
            dropped = tree.below.T @ (tree.z_pu * (tree.below @ drawn)) if tree.drop is None else tree.drop @ drawn
            last, v = v, v0_pu - dropped
            moved = v - last
            if np.vdot(moved, moved).real <= enough:
                converged = True
                break
    conj = np.conj(tree.below @ drawn)
    enter, leave = v[tree.parent] * conj, -v[tree.child] * conj
    if tree.g_parent_pu is not None:
        u = np.abs(v) ** 2
        enter += tree.g_parent_pu * u[tree.parent]
        leave += tree.g_child_pu * u[tree.child]
    return RadialFlow(v, enter, leave, converged)


def radial_voltages(
    tree: RadialTree, s_load_pu: Complexes, v0_pu: float, *, tolerance_pu: float = 1e-10, max_iterations: int = 200
) -> Complexes:
    """Voltages (n_bus, n_state) of many states of a feeder at once, by the sweep of `radial_power_flow`.

    s_load_pu  (n_bus, n_state) net demand P + jQ, p.u.; a state that the feeder cannot carry is NaN
    """
    v, moved = np.full(s_load_pu.shape, v0_pu, complex), np.zeros(s_load_pu.shape[1])
    charging, z = tree.y_pu[:, None], tree.z_pu[:, None]
    with np.errstate(all="ignore"):  # as there
        for _ in range(max_iterations):
            currents = tree.below @ (np.conj(s_load_pu / v) + charging * v)
            last, v = v, v0_pu - tree.below.T @ (z * currents)
            moved = np.abs(v - last).max(axis=0)
            if (moved <= tolerance_pu * v0_pu).all():
                break
    return np.where(moved <= tolerance_pu * v0_pu, v, np.nan)


def cone_gap(p_from: Floats, q_from: Floats, u_from: Floats, current_sq: Floats) -> Floats:
    """How far a relaxed solution is from Ohm's law: l u - P^2 - Q^2 per branch of (6), p.u.; 0 where exact."""
    return current_sq * u_from - p_from**2 - q_from**2
