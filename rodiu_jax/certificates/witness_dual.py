"""The dual function in NumPy float64: what a leaf's multipliers prove, sharing no code with the solvers.

For pairs p = (model, GPU), options o = (degree n, fewest and largest replicas, both 1 where scenarios know none) and
triples t = p O + o (prices over one rental period; rent a, capacities, GPUs of the largest number of replicas):

    r[i,t] = base[i] (1 + mu_b) + (omega[i] + eta[i]) (d[i,p] + xi[i,p] dev[i,p]) / s[i,t] - eta[i] Delta[i]
             + zeta[i] (e[i,p] + psi[i,p] edev[i,p] - eps[i]) - pi[i]
    A[t]   = a[t] (1 + mu_b) + nu[v] gpus[t] - m[t] room[t] - c[t] power[t] - h[t] load_room[t]
    V[t]   = hold[p] (1 + mu_b) + mu_s B[p] + min(A[t], A[t] fewest / largest)
             - sum_i most[i,t] max(-r[i,t] - m[t] kv[i,p] - c[t] work[i] - h[t] (l[i,t] + chi[i,t] lh[i,t]), 0)
    g      = sum_i (pi[i] - u_max max(pi[i] - Phi[i], 0)) - mu_b delta - mu_s C_s - sum_v nu[v] Q[v] + sum_p term[p]

where term[p] is V of the deployed option, or the least of 0 and V over the options that are still open. Any
eta, zeta, mu, m, c, h, nu >= 0, any pi, any xi, psi in U(Gamma) and chi in U(Gamma_q) give a valid bound (weak duality,
docs/model.md sections 4 and 8), so a damaged file can only lower what is recomputed.

Rounding. With u = 2^-53, k = 4 (I + P + 40) and A(v) the sum of absolute values of the terms of v, an expression of
this depth errs by less than k u A. So each V is lowered by k u A(V), and g by k u A(g): what is left is a bound.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.certificates.leaf_codec import LeafCodec, Ranges
from rodiu_jax.certificates.witness_problem import EXCLUDED_BAND, UNIT, Problem, derive_problem
from rodiu_jax.model.instance import Instances


def _inside(xi: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """xi (L,.,P) scaled into U(gamma) along its last axis, with room for the rounding of its sum."""
    xi = np.clip(xi, 0.0, 1.0)
    total = xi.sum(2, keepdims=True)
    limit = np.broadcast_to((gamma * (1 - 4 * xi.shape[2] * UNIT))[:, None, None], total.shape)
    factor = np.divide(limit, total, out=np.ones_like(total), where=total > limit)
    return xi * factor


def dual_values(
    instances: Instances,
    scenario: Int[np.ndarray, " L"],
    leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    ranges: Ranges | None = None,
) -> Float64[np.ndarray, " L"]:
    """Compute the lower bounds of leaves (path, pairs, values), each of its ``scenario``.

    inf where a leaf holds no plan (its path deploys what cannot be deployed), -inf where arithmetic fails.

    Args:
      ranges: the options that positions in the leaves are about; None: degrees, of one replica each.
    """
    types, models, gpus, _ = instances.shape
    pairs, count = models * gpus, len(leaves)
    c = derive_problem(instances, scenario, ranges)
    codec = LeafCodec.of(instances, ranges)
    y = codec.unpack([p for _, p, _ in leaves], [v for _, _, v in leaves])
    demand, delay, error = y.demand, np.maximum(y.delay, 0.0), np.maximum(y.error, 0.0)
    mu_budget, mu_storage = np.maximum(y.budget, 0.0)[:, None], np.maximum(y.storage, 0.0)[:, None]
    xi = _inside(y.delay_adversary, c.gamma_delay)
    psi = _inside(y.error_adversary, c.gamma_error)

    ms = (c.per_ms + delay)[:, :, None] * (c.nominal + xi * c.excess)
    mistakes = error[:, :, None] * (c.error + psi * c.error_excess)
    bonus = delay * c.delay_limit + error * c.error_limit
    served = c.base * (1.0 + mu_budget)
    paid = (ms[..., None] * c.slowness).reshape(count, types, -1)
    paid += np.repeat(mistakes + served[:, :, None], codec.options, axis=2)
    gain = (bonus + demand)[:, :, None] - paid  # -r
    rough = paid + (bonus + np.abs(demand))[:, :, None]  # the terms of r in absolute value
    hold = c.hold * (1.0 + mu_budget) + mu_storage * c.weights
    rent = c.rent * (1.0 + mu_budget)
    quota = np.zeros((count, 1))
    if codec.has_quotas:
        limited = np.isfinite(c.quota)
        nu = np.where(limited, np.maximum(y.quota, 0.0), 0.0)  # L,K
        rent = rent + nu[:, c.device] * c.gpus
        quota = nu * np.where(limited, c.quota, 0.0)

    taken, shut, empty = _decisions(codec, [p for p, _, _ in leaves])
    shut |= ~taken & _beyond_limits(c, taken)
    slack = 4 * (types + pairs + 40) * UNIT
    cells, flat = gain.shape, hold.shape
    demands = [np.repeat(c.kv, codec.options, axis=2), c.work[:, :, None]]
    sizes, prices = [c.room, c.power], [y.memory, y.compute]
    if codec.has_rates:
        assert c.load is not None, "scenarios whose leaves price load have rates"
        chi = _inside(y.load_adversary.reshape(count, -1, types), c.gamma_load).swapaxes(1, 2)
        demands.append(c.load + chi * c.load_excess)
        sizes.append(c.load_room)
        prices.append(y.throughput)
    triples = _Triples(
        np.broadcast_to(hold, flat),
        np.broadcast_to(rent, flat),
        np.broadcast_to(c.least, flat),
        gain,
        rough,
        np.broadcast_to(c.most, cells),
        tuple(np.broadcast_to(a, flat) for a in sizes),
        tuple(np.broadcast_to(a, cells) for a in demands),
    )
    fits = np.broadcast_to(c.fits, flat)
    given = tuple(np.maximum(a, 0.0).reshape(flat) for a in prices)
    value = triples.worth(given, slack)
    at = np.nonzero(fits & ~shut & (taken | ~(value >= 0)))  # the others count 0 at any prices
    value[at] = np.fmax(value[at], triples.at(*at).improved(tuple(a[at] for a in given), slack))
    value = np.where(fits, value, math.inf)
    impossible = empty | (taken & ~fits).any(1)

    def per_pair(a: np.ndarray) -> np.ndarray:
        return a.reshape(count, pairs, codec.options)

    chosen = per_pair(taken).any(2)
    deployed = np.where(per_pair(taken), per_pair(value), 0.0).sum(2)
    open_best = np.minimum(np.where(per_pair(shut), math.inf, per_pair(value)).min(2), 0.0)
    term = np.where(chosen, deployed, open_best)
    over = c.unmet_cap[:, None] * np.maximum(demand - c.unmet_cost, 0.0)
    caps = mu_budget[:, 0] * c.budget + mu_storage[:, 0] * c.storage + quota.sum(1)
    bound = (demand - over).sum(1) - caps + term.sum(1)
    size = (np.abs(demand) + c.unmet_cap[:, None] * (np.abs(demand) + c.unmet_cost)).sum(1)
    bound = bound - slack * (size + caps + np.abs(term).sum(1))
    assert bound.dtype == np.float64, "certificates are float64"
    return np.where(impossible, math.inf, np.where(np.isfinite(bound), bound, -math.inf))


def _decisions(
    codec: LeafCodec, paths: list[np.ndarray]
) -> tuple[Bool[np.ndarray, "L T"], Bool[np.ndarray, "L T"], Bool[np.ndarray, " L"]]:
    """Return the triples that are deployed, those that cannot be, and the leaves whose path contradicts itself."""
    taken, out = codec.decode_paths(paths)
    by_pair = taken.reshape(len(paths), codec.pairs, codec.options)
    empty = (taken & out).any(1) | (by_pair.sum(2) > 1).any(1)
    shut = out | (np.repeat(by_pair.any(2), codec.options, axis=1) & ~taken)
    return taken, shut, empty


def _beyond_limits(c: Problem, taken: Bool[np.ndarray, "L T"]) -> Bool[np.ndarray, "L T"]:
    """Return the triples of which not even the fewest replicas go into what those of the leaf leave of a limit."""
    weights = np.broadcast_to(c.weights, taken.shape)
    deploy, gpus = c.hold + c.rent * c.least, np.broadcast_to(c.gpus * c.least, taken.shape)
    over = 1.0 + EXCLUDED_BAND
    rent = over * c.budget - np.where(taken, deploy, 0.0).sum(1)
    room = over * c.storage - np.where(taken, weights, 0.0).sum(1)
    beyond = (deploy > rent[:, None]) | (weights > room[:, None])
    for device in np.unique(c.device).tolist():
        own = c.device == device
        left = over * c.quota[:, device] - np.where(taken & own, gpus, 0.0).sum(1)
        beyond |= own & (gpus > left[:, None])
    return beyond


class _Triples(NamedTuple):
    """What V needs beside the prices of capacities: arrays (...,T), those by type (...,I,T)."""

    hold: np.ndarray
    rent: np.ndarray
    least: np.ndarray
    gain: np.ndarray  # by type: -r
    rough: np.ndarray  # by type: the terms of r in absolute value, summed
    most: np.ndarray  # by type
    sizes: tuple[np.ndarray, ...]  # of each capacity
    demands: tuple[np.ndarray, ...]  # of each capacity, by type

    def at(self, row: np.ndarray, triple: np.ndarray) -> _Triples:
        """Those of the leaves ``row`` and triples ``triple`` (S,): arrays (S,) and (I,S)."""

        def by_type(a: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(a[row, :, triple].T)

        return _Triples(
            self.hold[row, triple],
            self.rent[row, triple],
            self.least[row, triple],
            by_type(self.gain),
            by_type(self.rough),
            by_type(self.most),
            tuple(a[row, triple] for a in self.sizes),
            tuple(by_type(a) for a in self.demands),
        )

    def worth(self, prices: tuple[np.ndarray, ...], slack: float) -> np.ndarray:
        """V less its rounding at these prices of the capacities."""
        price = sum(p[..., None, :] * d for p, d in zip(prices, self.demands, strict=True))
        used = sum(p * size for p, size in zip(prices, self.sizes, strict=True))
        left = self.rent - used
        value = self.hold + np.minimum(left, left * self.least)
        value = value - (self.most * np.maximum(self.gain - price, 0.0)).sum(-2)
        return value - slack * (self.hold + self.rent + used + (self.most * (self.rough + price)).sum(-2))

    def improved(self, prices: tuple[np.ndarray, ...], slack: float) -> np.ndarray:
        """The best V (S,) over prices found one after the other from ``prices``, in two orders."""
        best = np.full(self.hold.shape, -math.inf)
        for first, second in ((1, 0), (0, 1)):
            found = list(prices)
            for k in (first, second, *range(2, len(prices)), first):
                found[k] = self._best_price(k, found)
            best = np.fmax(best, self.worth(tuple(found), slack))
        return best

    def _best_price(self, k: int, prices: list[np.ndarray]) -> np.ndarray:
        """Return argmax (S,) over z >= 0 of min(A, A least) - sum_i most max(gain - z demand, 0), others' prices fixed.

        Concave and piecewise linear: the maximum is at 0, where a type stops gaining, or where A is 0.
        """
        others = [at for at in range(len(prices)) if at != k]
        left = self.rent - sum(prices[at] * self.sizes[at] for at in others)
        gain = self.gain - sum(prices[at] * self.demands[at] for at in others)  # I,S
        demand, size = self.demands[k], self.sizes[k]
        bends = np.divide(gain, demand, out=np.zeros_like(gain), where=(gain > 0) & (demand > 0))
        empty = np.divide(left, size, out=np.zeros_like(left), where=(left > 0) & (size > 0))
        best_price, best = np.zeros_like(left), np.full(left.shape, -math.inf)
        for z in (best_price, *bends, empty):
            rest = left - z * size
            value = np.minimum(rest, rest * self.least)
            value = value - (self.most * np.maximum(gain - z * demand, 0.0)).sum(0)
            better = value > best
            best_price, best = np.where(better, z, best_price), np.where(better, value, best)
        return best_price
