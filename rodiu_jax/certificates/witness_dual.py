"""The dual function in NumPy float64: what a leaf's multipliers prove, sharing no code with the solvers.

For pairs p = (model, GPU), degrees n and triples t = p N + n (prices over one rental period):

    r[i,t] = base[i] (1 + mu_b) + (omega[i] + eta[i]) (d[i,p] + xi[i,p] dev[i,p]) / s[n] - eta[i] Delta[i]
             + zeta[i] (e[i,p] + psi[i,p] edev[i,p] - eps[i]) - pi[i]
    V[t]   = D[t] (1 + mu_b) + mu_s B[p] - m[t] room[t] - c[t] power[t]
             - sum_i most[i,t] max(-r[i,t] - m[t] kv[i,p] - c[t] work[i], 0)
    g      = sum_i (pi[i] - u_max max(pi[i] - Phi[i], 0)) - mu_b delta - mu_s C_s + sum_p term[p]

where term[p] is V of the deployed degree, or the least of 0 and V over the degrees that are still open. Any
eta, zeta, mu, m, c >= 0, any pi and any xi, psi in U(Gamma) give a valid bound (weak duality), so a damaged file can
only lower what is recomputed.

Rounding. With u = 2^-53, k = 4 (I + P + 40) and A(v) the sum of absolute values of the terms of v, an expression of
this depth errs by less than k u A. So each V is lowered by k u A(V), and g by k u A(g): what is left is a bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.certificates.leaf_codec import LeafCodec
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import PROMISE_BAND, RENT_BAND


@dataclass(frozen=True)
class _Problem:
    """Coefficients of L leaves (a leading axis of L or 1); P pairs, T = P N triples. Money in $ per period."""

    deploy: np.ndarray  # L,T
    fits: np.ndarray  # L,T
    base: np.ndarray  # L,I
    per_ms: np.ndarray  # L,I  omega
    nominal: np.ndarray  # L,I,P  ms at share 1
    excess: np.ndarray  # L,I,P
    slowness: np.ndarray  # L,N
    error: np.ndarray  # L,I,P
    error_excess: np.ndarray  # L,I,P
    kv: np.ndarray  # L,I,P
    work: np.ndarray  # L,I
    room: np.ndarray  # L,T
    power: np.ndarray  # L,T
    most: np.ndarray  # L,I,T
    weights: np.ndarray  # L,T
    unmet_cost: np.ndarray  # L,I
    delay_limit: np.ndarray  # L,I
    error_limit: np.ndarray  # L,I
    budget: np.ndarray  # L
    storage: np.ndarray  # L
    unmet_cap: np.ndarray  # L
    gamma_delay: np.ndarray  # L
    gamma_error: np.ndarray  # L


_UNIT = 2.0**-53


def _problem(instances: Instances, scenario: np.ndarray) -> _Problem:
    """MODEL sections 1 to 5 for the scenarios ``scenario`` (L,).

    Where rounding could shrink what a plan may do (room, fits), the value is rounded up: a larger set of plans has
    a smaller bound.
    """
    types, models, gpus, degrees = instances.shape
    pairs = models * gpus
    taken = instances.take(scenario)

    def get(name: str) -> np.ndarray:
        value = np.asarray(getattr(taken.fields, name), np.float64)
        return value if name in taken.batched else value[None]

    def cells(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), types, pairs)

    def triples(values: np.ndarray) -> np.ndarray:  # of K,N, the same for every model
        wide = np.broadcast_to(values[:, None], (len(values), models, gpus, degrees))
        return wide.reshape(len(values), pairs * degrees)

    impact = 1.0 if instances.uncertainty == "ddu" else 0.0
    tokens = get("input_tokens") + get("output_tokens")
    degree, hours, rate = get("tp_degree")[:, None], get("rental_hours")[:, None], get("arrival_rate")
    price = get("storage_price")[:, None]
    weights = np.repeat(get("weight_memory"), gpus * degrees, axis=1)
    memory = triples(get("gpu_memory")[:, :, None] * degree)
    power = triples(get("gpu_compute")[:, :, None] * degree)
    deploy = hours * (triples(get("gpu_price")[:, :, None] * degree) + price * weights)
    room = memory - weights + 8 * _UNIT * (memory + weights)
    fits = (room >= 0) & (weights <= get("storage_capacity")[:, None])
    fits = fits & (deploy * (1 - 16 * _UNIT) <= get("budget")[:, None])
    room = np.maximum(room, 0.0)
    kv_cells = (tokens * rate * get("residency_hours")[:, None])[:, :, None] * np.repeat(
        get("kv_per_token"), gpus, axis=1
    )[:, None]
    work = get("compute_per_token") * tokens
    carried = np.minimum(
        _over(room[:, None], np.repeat(kv_cells, degrees, axis=2)), _over(power[:, None], work[:, :, None])
    )
    most = np.where(fits[:, None], np.minimum(carried * (1 + 16 * _UNIT), 1.0), 0.0)

    def gamma(name: str) -> np.ndarray:
        """The adversary's budget; infinite where it reaches every route that a plan may use."""
        budget = 0.0 * get(name) if instances.uncertainty == "none" else get(name)
        routes = get("max_routes")
        return np.where((routes > 0) & (budget >= routes), math.inf, budget)

    def excess(what: str) -> np.ndarray:
        return cells(get(f"{what}_deviation") * (1.0 - impact * get(f"{what}_impact"))[:, None])

    nominal, slowness = cells(get("delay_nominal")) * tokens[:, :, None], 1.0 / get("tp_speedup")
    error, error_excess = cells(get("error_nominal")), excess("error")
    slower, faulty = excess("delay") * tokens[:, :, None], np.ones((1, 1, 1, degrees))
    for _ in range(3):
        for usual, most_over, name, factor in (
            (nominal, slower, "delay", slowness[:, None, None]),
            (error, error_excess, "error", faulty),
        ):
            most = _repaired(
                most,
                usual,
                most_over,
                get(f"{name}_threshold"),
                np.minimum(gamma(f"gamma_{name}"), pairs),
                get("max_routes"),
                factor,
            )

    return _Problem(
        deploy=deploy,
        fits=fits,
        base=hours * price * get("token_size") * tokens * rate / 1000.0,
        per_ms=hours * get("delay_penalty") * rate,
        nominal=nominal,
        excess=slower,
        slowness=slowness,
        error=error,
        error_excess=error_excess,
        kv=kv_cells,
        work=work,
        room=room,
        power=power,
        most=most,
        weights=weights,
        unmet_cost=hours * get("unmet_penalty") * rate,
        delay_limit=get("delay_threshold"),
        error_limit=get("error_threshold"),
        budget=get("budget"),
        storage=get("storage_capacity"),
        unmet_cap=get("unmet_cap"),
        gamma_delay=gamma("gamma_delay"),
        gamma_error=gamma("gamma_error"),
    )


def _repaired(
    most: np.ndarray,
    usual: np.ndarray,
    excess: np.ndarray,
    threshold: np.ndarray,
    gamma: np.ndarray,
    routes: np.ndarray,
    factor: np.ndarray,
) -> np.ndarray:
    """Largest shares (L,I,T) of pairs that break a promise: what shares of the best other pair can repair.

    Args:
      usual, excess (L,I,P); threshold (L,I); gamma, routes (L,); factor (L,1,1,N) on a promise of a degree.
    """
    shape = (*most.shape[:2], usual.shape[2], factor.shape[-1])
    alone = routes == 1  # nobody repairs
    one = np.minimum(gamma, 1.0)[:, None, None]
    # Every pair of a type is slow at once where the budget reaches all that a plan may use; else perhaps none is.
    reach = np.minimum(np.where(routes > 0, routes, shape[2]), shape[2])
    every = np.where(reach <= np.maximum(gamma, 1.0), 1.0, 0.0)[:, None, None]
    worst = ((usual + one * excess)[..., None] * factor).reshape(-1, shape[1], most.shape[2])
    better = ((usual + every * one * excess)[..., None] * factor).reshape(-1, shape[1], most.shape[2])
    limit = (threshold + PROMISE_BAND * np.where(threshold > 0, threshold, 1.0))[:, :, None]
    best = np.where(most > 0, better, np.inf).min(2, keepdims=True)
    best = np.where(np.isfinite(best), best, 0.0)
    breaks = worst > limit
    repaired = np.where(limit > best, _over(np.maximum(limit - best, 0.0), worst - best), 0.0)
    repaired = np.where(alone[:, None, None], 0.0, repaired * (1 + 32 * _UNIT))
    return np.where(breaks, np.minimum(most, repaired), most)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, infinite where ``below`` is 0."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, math.inf), where=np.broadcast_to(below > 0, shape))


def _inside(xi: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """xi (L,I,P) scaled into U(gamma), with room for the rounding of its sum."""
    xi = np.clip(xi, 0.0, 1.0)
    total = xi.sum(2, keepdims=True)
    limit = np.broadcast_to((gamma * (1 - 4 * xi.shape[2] * _UNIT))[:, None, None], total.shape)
    factor = np.divide(limit, total, out=np.ones_like(total), where=total > limit)
    return xi * factor


def dual_values(
    instances: Instances,
    scenario: Int[np.ndarray, " L"],
    leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Float64[np.ndarray, " L"]:
    """Compute the lower bounds of leaves (path, pairs, values), each of its ``scenario``.

    inf where a leaf holds no plan (its path deploys what cannot be deployed), -inf where arithmetic fails.
    """
    types, models, gpus, degrees = instances.shape
    pairs, count = models * gpus, len(leaves)
    c = _problem(instances, scenario)
    codec = LeafCodec.of(instances)
    y = codec.unpack([p for _, p, _ in leaves], [v for _, _, v in leaves])
    demand, delay, error = y.demand, np.maximum(y.delay, 0.0), np.maximum(y.error, 0.0)
    mu_budget, mu_storage = np.maximum(y.budget, 0.0)[:, None], np.maximum(y.storage, 0.0)[:, None]
    m = np.maximum(y.memory, 0.0).reshape(count, -1)
    work_price = np.maximum(y.compute, 0.0).reshape(count, -1)
    xi = _inside(y.delay_adversary, c.gamma_delay)
    psi = _inside(y.error_adversary, c.gamma_error)

    ms = (c.per_ms + delay)[:, :, None] * (c.nominal + xi * c.excess)
    mistakes = error[:, :, None] * (c.error + psi * c.error_excess)
    bonus = delay * c.delay_limit + error * c.error_limit
    served = c.base * (1.0 + mu_budget)
    paid = (ms[..., None] * c.slowness[:, None, None]).reshape(count, types, -1)
    paid += np.repeat(mistakes + served[:, :, None], degrees, axis=2)
    gain = (bonus + demand)[:, :, None] - paid  # -r
    rough = paid + (bonus + np.abs(demand))[:, :, None]  # the terms of r in absolute value
    fixed = c.deploy * (1.0 + mu_budget) + mu_storage * c.weights

    taken, shut, empty = _decisions(codec, [p for p, _, _ in leaves])
    shut |= ~taken & _beyond_limits(c, taken)
    slack = 4 * (types + pairs + 40) * _UNIT
    cells, flat = gain.shape, fixed.shape
    kv = np.repeat(c.kv, degrees, axis=2)
    of_type = (np.broadcast_to(a, cells) for a in (gain, rough, kv, c.work[:, :, None], c.most))
    fits, room, power = (np.broadcast_to(a, flat) for a in (c.fits, c.room, c.power))
    triples = _Triples(fixed, room, power, *of_type)
    value = triples.worth(m, work_price, slack)
    at = np.nonzero(fits & ~shut & (taken | ~(value >= 0)))  # the others count 0 at any m and c
    value[at] = np.fmax(value[at], triples.at(*at).improved(m[at], work_price[at], slack))
    value = np.where(fits, value, math.inf)
    impossible = empty | (taken & ~fits).any(1)

    def per_pair(a: np.ndarray) -> np.ndarray:
        return a.reshape(count, pairs, degrees)

    chosen = per_pair(taken).any(2)
    deployed = np.where(per_pair(taken), per_pair(value), 0.0).sum(2)
    open_best = np.minimum(np.where(per_pair(shut), math.inf, per_pair(value)).min(2), 0.0)
    term = np.where(chosen, deployed, open_best)
    over = c.unmet_cap[:, None] * np.maximum(demand - c.unmet_cost, 0.0)
    caps = mu_budget[:, 0] * c.budget + mu_storage[:, 0] * c.storage
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
    by_pair = taken.reshape(len(paths), codec.pairs, codec.degrees)
    empty = (taken & out).any(1) | (by_pair.sum(2) > 1).any(1)
    shut = out | (np.repeat(by_pair.any(2), codec.degrees, axis=1) & ~taken)
    return taken, shut, empty


def _beyond_limits(c: _Problem, taken: Bool[np.ndarray, "L T"]) -> Bool[np.ndarray, "L T"]:
    """Return the triples whose rent or weights do not go into what those of the leaf leave of budget and storage."""
    weights = np.broadcast_to(c.weights, taken.shape)
    # Below where the solver gives a triple up, and above what a plan may break.
    over = 1.0 + RENT_BAND * (1 - 1e-3)
    rent = over * c.budget - np.where(taken, c.deploy, 0.0).sum(1)
    room = over * c.storage - np.where(taken, weights, 0.0).sum(1)
    return (c.deploy > rent[:, None]) | (weights > room[:, None])


class _Triples(NamedTuple):
    """What V needs beside m and c: arrays (...,T), those by type (...,I,T)."""

    fixed: np.ndarray
    room: np.ndarray
    power: np.ndarray
    gain: np.ndarray  # by type: -r
    rough: np.ndarray  # by type: the terms of r in absolute value, summed
    kv: np.ndarray  # by type
    work: np.ndarray  # by type
    most: np.ndarray  # by type

    def at(self, row: np.ndarray, triple: np.ndarray) -> _Triples:
        """Those of the leaves ``row`` and triples ``triple`` (S,): arrays (S,) and (I,S)."""
        by_type = (np.ascontiguousarray(a[row, :, triple].T) for a in self[3:])
        return _Triples(*(a[row, triple] for a in self[:3]), *by_type)

    def worth(self, m: np.ndarray, c: np.ndarray, slack: float) -> np.ndarray:
        """V less its rounding at memory and compute prices ``m`` and ``c``."""
        price = m[..., None, :] * self.kv + c[..., None, :] * self.work
        used = m * self.room + c * self.power
        value = self.fixed - used - (self.most * np.maximum(self.gain - price, 0.0)).sum(-2)
        return value - slack * (self.fixed + used + (self.most * (self.rough + price)).sum(-2))

    def improved(self, m: np.ndarray, c: np.ndarray, slack: float) -> np.ndarray:
        """The best V (S,) over prices found one after the other, from ``m`` and ``c``, in both orders."""
        kv, work, most = self.kv, self.work, self.most
        memory_first = _cheapest(self.gain - c * work, kv, most, self.room)
        compute_then = _cheapest(self.gain - memory_first * kv, work, most, self.power)
        compute_first = _cheapest(self.gain - m * kv, work, most, self.power)
        memory_then = _cheapest(self.gain - compute_first * work, kv, most, self.room)
        one = self.worth(memory_first, compute_then, slack)
        return np.fmax(one, self.worth(memory_then, compute_first, slack))


def _cheapest(gain: np.ndarray, weight: np.ndarray, most: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """argmin (S,) over z >= 0 of z capacity + sum_i most max(gain - z weight, 0); arrays (I,S).

    Convex and piecewise linear: going through the breakpoints gain / weight upwards, the minimum is the first where
    the load of the types that still gain is at most the capacity.
    """
    gains = (gain > 0) & (weight > 0)
    at = np.divide(gain, weight, out=np.zeros_like(gain), where=gains)
    load = np.where(gains, most * weight, 0.0)
    order = np.argsort(at, axis=0)
    at, load = np.take_along_axis(at, order, 0), np.take_along_axis(load, order, 0)
    passed = np.cumsum(load, axis=0)
    first = np.argmax(passed[-1] - passed <= capacity, axis=0)  # nothing is left beyond the last
    chosen = np.take_along_axis(at, first[None], 0)[0]
    return np.where(passed[-1] <= capacity, 0.0, chosen)
