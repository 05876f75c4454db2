"""The dual function of scenarios with replicas, rates and quotas (MODEL section 9), in NumPy float64. No JAX here.

As in `solvers.dual.function` every coupling row is relaxed, and now the quotas too, at mu_q[device] >= 0. What is left
separates by triple t. With gain[i,t] = -r[i,t] as there, the capacities of the triple priced at m (memory, $/GB), c
(compute, $/TFLOP) and h (throughput, $/replica) and its adversary at xi_q[i,t] in {0 <= xi_q <= 1, sum_i <= Gamma_q},

    A[t]   = rent[t] (1 + mu_b) + mu_q n[t] - m room[t] - c power[t] - h U
    g[i,t] = max(gain[i,t] - m kv[i,t] - c work[i,t] - h (l[i,t] + xi_q[i,t] lh[i,t]), 0)
    V[t]   = hold[t] (1 + mu_b) + mu_s B + min over whole r in 1..R of A r - sum_i min(most[i,t], each[i,t] r) g[i,t]
    bound  = sum_i (pi[i] - u_max max(pi[i] - Phi[i], 0)) - mu_b delta - mu_s C_s - sum mu_q Q + sum_p min(0, min_n V)

V is a bound of what deploying t adds, whatever m, c, h and xi_q are (a plan satisfies every row that they price), so
that the best of several choices is one too. The minimum over r is that of a convex function, piecewise linear with
breakpoints most / each: it is at the whole numbers around the first breakpoint from which it rises.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from solvers.dual.function import Multipliers, feasible
from solvers.terms import ByCell, ByTriple, Fleet, Terms


class FleetMultipliers(NamedTuple):
    """Dual variables: those of `solvers.dual` and what the fleet adds; T triples."""

    shared: Multipliers
    memory: Float64[np.ndarray, " T"]  # m, $/GB
    compute: Float64[np.ndarray, " T"]  # c, $/TFLOP
    throughput: Float64[np.ndarray, " T"]  # h, $/replica
    quota: Float64[np.ndarray, " K"]  # mu_q of the device whose first configuration is k, $/GPU
    load_adversary: Float64[np.ndarray, "I T"]  # xi_q


class FleetValue(NamedTuple):
    """The dual function at some multipliers, $ per period."""

    bound: float  # proven: less the allowance for rounding; -inf where anything is not a number
    value: ByTriple  # V
    reduced: ByTriple  # proven: what a plan that deploys the triple costs at least, above ``bound``


def evaluate_fleet_dual(terms: Terms, y: FleetMultipliers) -> FleetValue:
    """Evaluate the dual function at multipliers made feasible, less an allowance for rounding.

    Capacities are priced at the multipliers given and, one capacity at a time, at every price at which the least
    changes: where it pays for the rent of a replica, and where a type's gain is used up. The best price of each triple
    counts.
    """
    fleet = terms.fleet
    assert fleet is not None, "a scenario with a fleet"
    shared = feasible(terms.coefficients, y.shared)
    m, c, h = (np.maximum(a, 0.0) for a in (y.memory, y.compute, y.throughput))
    quota = np.where(np.isfinite(fleet.quota), np.maximum(y.quota, 0.0), 0.0)
    money = 1.0 + float(shared.budget)
    gain, magnitude = gains(terms, shared)
    load = _adverse_loads(terms, fleet, y.load_adversary, gain)
    replica = fleet.rent * money + quota[fleet.device] * fleet.gpus  # T, of one more replica
    weights = (terms.kv, np.asarray(terms.work), load)
    room = (terms.room, terms.power, np.full(len(replica), fleet.utilization))

    least = _Least(terms, fleet)
    nothing = np.zeros(len(replica))
    priced = [(m, c, h), (nothing, nothing, nothing)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for kind in range(3):
            if not weights[kind].any():  # a price of what nobody uses only lowers the value
                continue
            for price in (replica / room[kind], *(np.maximum(gain, 0.0) / weights[kind])):
                prices = [nothing, nothing, nothing]
                prices[kind] = np.where(np.isfinite(price), price, 0.0)
                priced.append((prices[0], prices[1], prices[2]))
    best = np.full(len(replica), -np.inf)
    for prices in priced:
        left = replica - sum(p * r for p, r in zip(prices, room, strict=True))
        worth = gain - sum(p * w for p, w in zip(prices, weights, strict=True))
        best = np.maximum(best, least.over_replicas(left, np.maximum(worth, 0.0)))
    value = fleet.hold * money + float(shared.storage) * terms.weights + best

    taken = np.zeros(len(terms.dense.weights))
    np.minimum.at(taken, terms.pair, value)
    pi = shared.demand
    limited = np.isfinite(fleet.quota) & (np.arange(len(quota)) == _first_of_device(fleet, len(quota)))
    spent = float((quota[limited] * fleet.quota[limited]).sum())
    limits = float(shared.budget) * terms.budget + float(shared.storage) * terms.storage + spent
    served = pi - terms.unmet_cap * np.maximum(pi - terms.unmet_cost, 0.0)
    bound = served.sum() - limits + taken.sum()

    # A sum of n terms differs from the exact one by at most n eps times the sum of their sizes. The best r is off by at
    # most R where a slope is that near to 0, so that every term counts R times.
    sizes = (
        fleet.hold * money
        + float(shared.storage) * terms.weights
        + 4.0 * fleet.replicas * (replica + (fleet.each * magnitude).sum(0))
    )
    largest = np.zeros(len(taken))
    np.maximum.at(largest, terms.pair, np.where(value <= 0, sizes, 0.0))
    total = (np.abs(pi) * 2.0 + terms.unmet_cost).sum() + limits + largest.sum()
    error = (4 * terms.types + len(taken) + 64) * np.finfo(np.float64).eps
    bound = float(bound - error * total)
    reduced = value - taken[terms.pair] - error * sizes
    if not np.isfinite(bound):
        return FleetValue(-np.inf, value, np.zeros(len(value)))
    return FleetValue(bound, value, np.where(np.isnan(reduced), 0.0, reduced))


def _first_of_device(fleet: Fleet, count: int) -> np.ndarray:
    """Return positions whose quota counts: those that are the first configuration of a device in use, else -1."""
    first = np.full(count, -1)
    first[fleet.device] = fleet.device
    return first


def gains(terms: Terms, y: Multipliers) -> tuple[ByCell, ByCell]:
    """Return what a unit share gains before capacities are paid, and the sizes of its terms."""
    at = slice(None), terms.pair
    money = 1.0 + float(y.budget)
    per_ms = (terms.delay_weight + y.delay)[:, None]
    slow = per_ms * (terms.nominal_delay + y.delay_adversary[at] * terms.excess_delay)
    wrong = y.error[:, None] * (terms.nominal_error + y.error_adversary[at] * terms.excess_error)
    stored = terms.data_cost * money
    promised = y.error * terms.error_limit + y.delay * terms.delay_limit
    gain = (promised + y.demand - stored)[:, None] - slow - wrong
    return gain, (promised + np.abs(y.demand) + stored)[:, None] + slow + wrong


def _adverse_loads(terms: Terms, fleet: Fleet, adversary: ByCell, gain: ByCell) -> ByCell:
    """Return l + xi_q lh with xi_q in its set; what it has left goes to the types that would gain most."""
    load = np.where(terms.most > 0, fleet.load, 0.0)
    excess = np.where(terms.most > 0, fleet.load_excess, 0.0)
    xi = np.where(excess > 0, np.clip(adversary, 0.0, 1.0), 0.0)
    total = xi.sum(0)
    inside = fleet.gamma_load * (1.0 - 1e-12)
    xi = xi * np.where(total > inside, inside / np.where(total > 0, total, 1.0), 1.0)
    wish = np.where((xi < 1) & (excess > 0), np.maximum(gain, 0.0) * terms.most, 0.0)
    left = np.maximum(inside - xi.sum(0), 0.0)
    order = np.argsort(-wish, axis=0, kind="stable")
    room = np.take_along_axis(np.where(wish > 0, 1.0 - xi, 0.0), order, 0)
    before = np.cumsum(room, axis=0) - room
    given = np.clip(left - before, 0.0, room)
    more = np.zeros(xi.shape)
    np.put_along_axis(more, order, given, 0)
    return load + np.minimum(xi + more, 1.0) * excess


class _Least:
    """Finds min over whole r in 1..R of left r - sum_i min(most, each r) worth, for all triples at once."""

    def __init__(self, terms: Terms, fleet: Fleet) -> None:
        self._most, self._each = np.minimum(terms.most, fleet.replicas * fleet.each), fleet.each
        self._replicas = fleet.replicas.astype(np.float64)
        self._break = np.where(fleet.each > 0, self._most / np.where(fleet.each > 0, fleet.each, 1.0), 0.0)
        self._order = np.argsort(self._break, axis=0)
        self._sorted = np.take_along_axis(self._break, self._order, 0)

    def over_replicas(self, left: ByTriple, worth: ByCell) -> ByTriple:
        """Return the least, $; ``left`` is what a replica costs, ``worth`` >= 0 what a unit share gains."""
        slope = np.take_along_axis(self._each * worth, self._order, 0)
        beyond = slope.sum(0) - np.cumsum(slope, axis=0)  # of the types that still grow above each breakpoint
        rises = left - beyond >= 0  # I,T, true from some breakpoint on
        at = np.where(rises.any(0), np.argmax(rises, axis=0), 0)
        turn = np.take_along_axis(self._sorted, at[None], 0)[0]
        turn = np.where(rises.any(0), turn, self._replicas)
        turn = np.where(left - slope.sum(0) >= 0, 1.0, turn)
        result = np.full(len(left), np.inf)
        for r in (np.floor(turn), np.ceil(turn)):
            r = np.clip(r, 1.0, self._replicas)
            carried = (np.minimum(self._most, self._each * r) * worth).sum(0)
            result = np.minimum(result, left * r - carried)
        return result
