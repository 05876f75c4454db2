"""Certified lower bounds in batch: the Lagrangian dual of the tight formulation, ascended by optax.

Every coupling row of `solvers.formulation` is relaxed. With multipliers

    pi[i] free       demand            eta[i] >= 0    delay promise, $/ms
    zeta[i] >= 0     error promise     mu_b, mu_s >= 0   budget, storage
    xi, psi in U     adversary of delay and of error (Gamma_d, Gamma_e), shape I,P
    m[t], c[t] >= 0  memory ($/GB) and compute ($/TFLOP) of triple t = (pair p, degree n)

the reduced cost of a share is

    r[i,t] = base[i](1 + mu_b) + (omega[i] + eta[i])(nominal[i,p] + xi[i,p] excess[i,p]) / s[n]
             + zeta[i](e_bar[i,p] + psi[i,p] e_hat[i,p] - eps[i]) - eta[i] Delta[i] - pi[i]

and the inner minimum separates by triple, then by pair (at most one degree), in closed form:

    V[t] = D[t](1 + mu_b) + mu_s B[p] - m[t] room[t] - c[t] power[t] - sum_i most[i,t] max(-r - m kv - c compute, 0)
    g = sum_i (pi[i] - u_max max(pi[i] - Phi[i], 0)) - mu_b delta - mu_s C_s + sum_p min(0, min_n V[p,n])

g never exceeds the optimum, whatever the multipliers: that is weak duality, and the reason why a bound may be
computed in float32 and still be proven, by evaluating g once in float64 (`certify`).

Ascent. The maxima are smoothed (softplus, log-sum-exp) with a temperature that falls from `Ascent.warm` to
`Ascent.cold`; Adam works on multipliers in natural units. Only the pairs that could pay (`Ascent.pairs` of them,
by amortised cost) are iterated: the certificate is over all of them, with m and c of each triple improved in
closed form, so a pair wrongly left out can only cost tightness. The adversary ascends by its gradient less the
price of its budget (the ceil(Gamma)-th largest gradient, exact at the optimum) and is projected. The gradient of
psi is taken as if zeta had a floor: at zeta = 0 psi would otherwise never learn, and then zeta neither.

``max_routes`` is relaxed, but for what follows from it for every plan: Gamma >= max_routes makes the worst case a
plain sum, and a pair that breaks a promise alone serves nobody whose one route it would be (`within_promises`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rodiu_jax.model.fields import Array, Fields, batch_axes, tokens_per_query
from rodiu_jax.model.fields import compute_demand as compute_demand_of
from rodiu_jax.model.fields import stored_data as stored_data_of
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.scenario_blocks import run_scenarios
from rodiu_jax.model.tolerances import PROMISE_BAND
from rodiu_jax.runtime.block_sizes import BlockSize, block_size

_HUGE = 1e30


class Coefficients(NamedTuple):
    """What the dual needs of one instance; P = J K pairs in row-major order, N degrees. Money in $ per period."""

    deploy: Array  # P,N  D: rental and storage of weights
    fits: Array  # P,N  bool: weights fit GPU, storage and budget
    base: Array  # I  storage of served data at share 1
    nominal: Array  # I,P  ms at share 1, before the speed-up
    excess: Array  # I,P  largest excess, after the mode's collapse
    slowness: Array  # N  1 / speed-up
    error: Array  # I,P
    error_excess: Array  # I,P
    kv: Array  # I,P  GB at share 1
    compute: Array  # I  TFLOPs at share 1
    room: Array  # P,N  GB left by the weights over all GPUs of the triple
    power: Array  # P,N  TFLOPs
    most: Array  # I,P,N  largest share of the type that the triple can carry without breaking a promise
    delay_weight: Array  # I  omega, $/ms
    unmet_cost: Array  # I  Phi
    delay_limit: Array  # I  Delta, ms
    error_limit: Array  # I  epsilon
    budget: Array
    storage: Array
    weights: Array  # P  B, GB
    unmet_cap: Array
    gamma_delay: Array
    gamma_error: Array
    max_routes: Array  # 0: no limit
    cost_weight: Array  # 1, or almost 0 where only feasibility is asked (`feasibility`)
    decided: Array  # P,N  int8: 1 deployed, -1 not deployed, 0 open (a node of a search tree)


class Multipliers(NamedTuple):
    """Dual variables in their own units (see the module)."""

    demand: Array  # I  pi, $
    delay: Array  # I  eta, $/ms
    error: Array  # I  zeta, $
    budget: Array  # mu_b, $/$
    storage: Array  # mu_s, $/GB
    memory: Array  # P,N  m, $/GB
    compute: Array  # P,N  c, $/TFLOP
    delay_adversary: Array  # I,P  xi
    error_adversary: Array  # I,P  psi


class _Iterate(NamedTuple):
    """The ascent's variables in natural units, on the pairs that are iterated."""

    demand: Array
    delay: Array
    error: Array
    budget: Array
    storage: Array
    memory: Array  # P',N
    compute: Array  # P',N
    xi: Array  # I,P'
    psi: Array  # I,P'


@dataclass(frozen=True)
class Ascent:
    """How the ascent runs; all but ``pairs`` are data and recompile nothing.

    Attributes:
      steps: gradient steps.
      rate: first learning rate, in natural units; it falls by a cosine to ``rate * last_rate``.
      warm, cold: first and last temperature, relative to the scale of the cost.
      pairs: pairs iterated (at most P).
    """

    steps: int = 150
    rate: float = 0.1
    last_rate: float = 0.03
    warm: float = 0.015
    cold: float = 8e-5
    pairs: int = 16

    @property
    def controls(self) -> np.ndarray:
        """What is data to the compiled ascent: steps, rate, last_rate, warm, cold."""
        return np.array([self.steps, self.rate, self.last_rate, self.warm, self.cold], np.float32)


def coefficients(fields: Fields, uncertainty: str) -> Coefficients:
    """The dual's coefficients of one instance (no batch axis), in the precision of ``fields``."""
    types, models, gpus = fields.delay_nominal.shape
    pairs = models * gpus
    tokens = tokens_per_query(fields)
    degree = fields.tp_degree.astype(tokens.dtype)
    hours = fields.rental_hours
    decides = 1.0 if uncertainty == "ddu" else 0.0

    def flat(values: Array) -> Array:
        return values.reshape(types, pairs)

    weights = jnp.repeat(fields.weight_memory, gpus)
    memory = jnp.tile(fields.gpu_memory[:, None] * degree[None, :], (models, 1))
    power = jnp.tile(fields.gpu_compute[:, None] * degree[None, :], (models, 1))
    price = jnp.tile(fields.gpu_price[:, None] * degree[None, :], (models, 1))
    deploy = hours * (price + (fields.storage_price * weights)[:, None])
    room = memory - weights[:, None]
    fits = (room >= 0) & (weights <= fields.storage_capacity)[:, None] & (deploy <= fields.budget)
    traffic = tokens * fields.arrival_rate * fields.residency_hours
    kv = traffic[:, None] * jnp.repeat(fields.kv_per_token, gpus)[None, :]
    compute = compute_demand_of(fields)
    room = jnp.maximum(room, 0.0)
    by_memory = _ratio(room[None], kv[:, :, None])
    by_compute = _ratio(power[None], compute[:, None, None])
    most = jnp.where(fits[None], jnp.minimum(jnp.minimum(by_memory, by_compute), 1.0), 0.0)
    routes = jnp.asarray(fields.max_routes).astype(tokens.dtype)

    def effective(gamma: Array) -> Array:
        gamma = jnp.zeros_like(gamma) if uncertainty == "none" else gamma
        return jnp.where((routes > 0) & (gamma >= routes), jnp.maximum(gamma, pairs), gamma)

    c = Coefficients(
        deploy=deploy,
        fits=fits,
        base=hours * fields.storage_price * stored_data_of(fields),
        nominal=flat(fields.delay_nominal * tokens[:, None, None]),
        excess=flat(
            fields.delay_deviation * (1 - decides * fields.delay_impact)[None] * tokens[:, None, None]
        ),
        slowness=1.0 / fields.tp_speedup,
        error=flat(fields.error_nominal),
        error_excess=flat(fields.error_deviation * (1 - decides * fields.error_impact)[None]),
        kv=kv,
        compute=compute,
        room=room,
        power=power,
        most=most,
        delay_weight=hours * fields.delay_penalty * fields.arrival_rate,
        unmet_cost=hours * fields.unmet_penalty * fields.arrival_rate,
        delay_limit=fields.delay_threshold,
        error_limit=fields.error_threshold,
        budget=fields.budget,
        storage=fields.storage_capacity,
        weights=weights,
        unmet_cap=fields.unmet_cap,
        gamma_delay=effective(fields.gamma_delay),
        gamma_error=effective(fields.gamma_error),
        max_routes=routes,
        cost_weight=jnp.ones_like(fields.budget),
        decided=jnp.zeros(fits.shape, jnp.int8),
    )
    return c._replace(most=within_promises(c))


def within_promises(c: Coefficients) -> Array:
    """The largest shares (I,P,N) when those of other pairs have to make good what a slow or faulty one breaks.

    Of a pair whose worst case a is above the limit L while every other pair's is at least m < L, the promise
    a x + m y <= L (x + y) and x + y <= 1 leave x <= (L - m) / (a - m). With one route there is no other pair. Taken
    three times, as pairs that carry nothing make nothing good.
    """
    pairs = float(c.nominal.shape[1])
    spread = jnp.where(c.max_routes > 0, jnp.minimum(c.max_routes, pairs), pairs)
    promises = []
    for nominal, excess, gamma, limit in (
        (
            c.nominal[:, :, None] * c.slowness[None, None],
            c.excess[:, :, None] * c.slowness[None, None],
            c.gamma_delay,
            c.delay_limit,
        ),
        (c.error[:, :, None], c.error_excess[:, :, None], c.gamma_error, c.error_limit),
    ):
        own = nominal + jnp.minimum(gamma, 1.0) * excess
        sure = nominal + jnp.where(spread <= jnp.maximum(gamma, 1.0), jnp.minimum(gamma, 1.0), 0.0) * excess
        slack = PROMISE_BAND * jnp.where(limit > 0, limit, 1.0)
        promises.append((own, sure, (limit + slack)[:, None, None]))
    most = c.most
    for _ in range(3):
        for own, sure, limit in promises:
            least = jnp.where(most > 0, sure, jnp.inf).min((1, 2), keepdims=True)
            least = jnp.where(jnp.isfinite(least), least, 0.0)
            short = jnp.where(own > limit, own - least, 1.0)
            share = jnp.where((spread > 1) & (limit > least), (limit - least) / short, 0.0)
            most = jnp.where(own > limit, jnp.minimum(most, share), most)
    return most


FEASIBILITY_WEIGHT = 1e-6
"""What costs count for in the feasibility problem."""


def feasibility(c: Coefficients) -> tuple[Coefficients, Array]:
    """The same constraints with costs counted at `FEASIBILITY_WEIGHT`, and what no plan can cost in that measure.

    A plan's cost is at most the budget, plus every type's largest worst-case delay, plus all penalties. A dual
    value of the weighted problem above the weighted sum of these therefore proves that there is no plan.
    """
    usable = (c.most > 0).any(2)
    slowest = jnp.where(usable, (c.nominal + c.excess) * c.slowness.max(), 0.0).max(1)
    most = c.budget + (c.delay_weight * slowest).sum() + c.unmet_cost.sum()
    weighted = c._replace(
        cost_weight=FEASIBILITY_WEIGHT * c.cost_weight,
        delay_weight=FEASIBILITY_WEIGHT * c.delay_weight,
        unmet_cost=FEASIBILITY_WEIGHT * c.unmet_cost,
    )
    return weighted, FEASIBILITY_WEIGHT * most


def _ratio(over: Array, under: Array) -> Array:
    """over / under, infinite where ``under`` is 0."""
    positive = under > 0
    return jnp.where(positive, over / jnp.where(positive, under, 1.0), jnp.inf)


def _reduced_gain(c: Coefficients, y: Multipliers) -> Array:
    """-r[i,t]: what a unit share gains before memory and compute are paid; a trailing batch axis passes through."""
    base = c.base * (c.cost_weight + y.budget)[None]
    fixed = base - y.error * c.error_limit - y.delay * c.delay_limit - y.demand
    per_ms = (c.delay_weight + y.delay)[:, None] * (c.nominal + y.delay_adversary * c.excess)
    fixed = fixed[:, None] + y.error[:, None] * (c.error + y.error_adversary * c.error_excess)
    return -(fixed[:, :, None] + per_ms[:, :, None] * c.slowness[None, None])


def certify(c: Coefficients, y: Multipliers) -> tuple[Array, Array]:
    """The dual function at multipliers made feasible, in the precision of its arguments (float64 for a proof).

    Signs are clipped and each adversary is scaled into its set. Compute and memory multipliers of each triple
    are improved in closed form, one after the other at a breakpoint of its one-dimensional problem. A kink can
    hold such a search; at an ascent's multipliers trying both orders gained 0.0002 % on average, for twice the time.

    The value is lowered by an allowance for rounding: a sum of n terms evaluated in floating point differs from
    the exact one by at most about n eps times the sum of the terms' absolute values. Each term here is the
    result of at most 16 + I operations, so (2 I N + P + 32) eps sum|terms| covers the whole expression.

    Returns:
      the bound in $ per period (-inf where anything is not a number), and V (P,N).
    """
    y = feasible(c, y)
    gain = _reduced_gain(c, y)
    kv = jnp.broadcast_to(c.kv[:, :, None], gain.shape)
    compute = jnp.broadcast_to(c.compute[:, None, None], gain.shape)
    power, _ = _best_multiplier(gain - y.memory[None] * kv, compute, c.power, c.most)
    _, then = _best_multiplier(gain - power[None] * compute, kv, c.room, c.most)
    paid = power * c.power + then
    fixed = c.deploy * (c.cost_weight + y.budget) + (y.storage * c.weights)[:, None]
    value = jnp.where(c.fits, fixed - paid, _HUGE)
    inside = c.decided > 0
    taken = least_by_pair(c, value)
    served = y.demand - c.unmet_cap * jnp.maximum(y.demand - c.unmet_cost, 0.0)
    bound = served.sum() - y.budget * c.budget - y.storage * c.storage + taken.sum()

    used = (inside.any(1) | (value.min(1) <= 0))[:, None] & c.fits
    sizes = fixed + paid + (c.most * jnp.abs(gain)).sum(0)
    magnitude = (
        jnp.abs(y.demand).sum()
        + (c.unmet_cap * (jnp.abs(y.demand) + c.unmet_cost)).sum()
        + jnp.abs(y.budget * c.budget)
        + jnp.abs(y.storage * c.storage)
        + jnp.where(used, sizes, 0.0).max(1).sum()
        + used.any(1).astype(gain.dtype).sum() * _gain_magnitude(c, y)
    )
    types, pairs, degrees = gain.shape
    allowance = (2 * types * degrees + pairs + 32) * jnp.finfo(gain.dtype).eps * magnitude
    bound = bound - allowance
    return jnp.where(jnp.isfinite(bound), bound, -jnp.inf), value


def least_by_pair(c: Coefficients, value: Array) -> Array:
    """The inner minimum of each pair (P,) at the values V (P,N) of its triples: its best degree, or none."""
    inside = c.decided > 0
    open_best = jnp.minimum(jnp.where(c.decided < 0, _HUGE, value).min(1), 0.0)
    return jnp.where(inside.any(1), jnp.where(inside, value, 0.0).sum(1), open_best)


def _gain_magnitude(c: Coefficients, y: Multipliers) -> Array:
    """Sum over types of the largest absolute value of the terms of r, whose cancellation rounding must cover."""
    fixed = (
        c.base * (c.cost_weight + y.budget)
        + y.error * c.error_limit
        + y.delay * c.delay_limit
        + jnp.abs(y.demand)
    )
    per_ms = (c.delay_weight + y.delay)[:, None] * (c.nominal + c.excess) * c.slowness.max()
    usable = (c.most > 0).any(2)
    return (
        fixed[:, None] + jnp.where(usable, per_ms + y.error[:, None] * (c.error + c.error_excess), 0.0)
    ).max(1).sum() * 2.0


def _best_multiplier(gain: Array, weight: Array, capacity: Array, most: Array) -> tuple[Array, Array]:
    """argmin and min over m >= 0 of m capacity + sum_i most[i] max(gain[i] - m weight[i], 0), per triple.

    Convex and piecewise linear in m: the minimum is at 0 or at a breakpoint gain[i] / weight[i].
    """
    at = [jnp.zeros_like(capacity)]
    at += [
        jnp.where(weight[i] > 0, jnp.maximum(gain[i], 0.0) / jnp.where(weight[i] > 0, weight[i], 1.0), 0.0)
        for i in range(gain.shape[0])
    ]
    values = [m * capacity + (most * jnp.maximum(gain - m[None] * weight, 0.0)).sum(0) for m in at]
    best_at, best = at[0], values[0]
    for m, value in zip(at[1:], values[1:], strict=True):
        better = value < best
        best_at, best = jnp.where(better, m, best_at), jnp.where(better, value, best)
    return best_at, best


def feasible(c: Coefficients, y: Multipliers) -> Multipliers:
    """Multipliers of the right sign, with each adversary inside its set U(Gamma)."""
    return Multipliers(
        y.demand,
        jnp.maximum(y.delay, 0.0),
        jnp.maximum(y.error, 0.0),
        jnp.maximum(y.budget, 0.0),
        jnp.maximum(y.storage, 0.0),
        jnp.maximum(y.memory, 0.0),
        jnp.maximum(y.compute, 0.0),
        _scaled_inside(y.delay_adversary, c.gamma_delay),
        _scaled_inside(y.error_adversary, c.gamma_error),
    )


def _scaled_inside(xi: Array, gamma: Array) -> Array:
    """Into {0 <= xi <= 1, sum <= gamma} per type (I,P); the tiny shrinkage keeps the rounded sum inside too."""
    xi = jnp.clip(xi, 0.0, 1.0)
    total = xi.sum(1, keepdims=True)
    inside = ((1.0 - 8 * xi.shape[1] * jnp.finfo(xi.dtype).eps) * gamma)[None, None]
    return xi * jnp.where(total > inside, inside / jnp.where(total > 0, total, 1.0), 1.0)


def _subset(c: Coefficients, index: Array) -> Coefficients:
    """The coefficients of the pairs ``index`` alone."""
    by_pair = {n: getattr(c, n)[index] for n in ("deploy", "fits", "room", "power", "weights", "decided")}
    by_type = {
        n: getattr(c, n)[:, index] for n in ("nominal", "excess", "error", "error_excess", "kv", "most")
    }
    return c._replace(**by_pair, **by_type)


def _amortised(c: Coefficients) -> Array:
    """Cost of serving type i whole by pair p, its deployment paid in proportion to use; (I,P), inf if it cannot.

    The linear relaxation pays for deployments in just this way, so the cheapest of these scales the price of a
    type and ranks the pairs.
    """
    busy = jnp.maximum(
        _ratio(c.kv[:, :, None], c.room[None]),
        jnp.where(
            c.power[None] > 0, c.compute[:, None, None] / jnp.where(c.power > 0, c.power, 1.0)[None], 0.0
        ),
    )
    busy = jnp.where(jnp.isfinite(busy), busy, 0.0)  # no room, no need: `most` decides below
    per_ms = (c.delay_weight[:, None] * (c.nominal + c.excess))[:, :, None] * c.slowness[None, None, :]
    cost = c.base[:, None, None] + per_ms + c.deploy[None] * busy
    return jnp.where(c.most > 0, cost, jnp.inf).min(2)


class _Scale(NamedTuple):
    """Natural units of the iterate, with all money divided by ``money``."""

    demand: Array  # I
    delay: Array  # I
    error: Array  # I
    storage: Array
    memory: Array  # P',N
    compute: Array  # P',N


class _Opening(NamedTuple):
    """Where the ascent opens: prices of the relaxation in which every type pays for its own share of a deployment.

    The price of type i is max over eta, zeta >= 0 of the least over pairs of
    ``amortised + eta (delay - Delta) + zeta (error - eps)``, at most Phi where all may stay unmet: from there a type
    whose promises are hard or impossible to keep need not climb to its penalty step by step.
    """

    price: Array  # I  $
    delay: Array  # I  eta, $/ms
    error: Array  # I  zeta, $
    cost: Array  # I,P  $ at these multipliers, inf where the pair cannot serve


def _opening(c: Coefficients) -> _Opening:
    """The opening prices, by a coarse grid over (eta, zeta) and a finer one around its best point."""
    amortised = _amortised(c)
    ms = (c.nominal + c.excess) * c.slowness.min()
    late = ms - c.delay_limit[:, None]
    wrong = c.error + c.error_excess - c.error_limit[:, None]
    cheapest = amortised.min(1)
    can = jnp.isfinite(cheapest)
    ceiling = jnp.where(c.unmet_cap >= 1.0, c.unmet_cost, jnp.inf)
    unit = jnp.minimum(jnp.where(can, cheapest, c.unmet_cost), ceiling)
    per_ms = unit / jnp.where(c.delay_limit > 0, c.delay_limit, 1.0)
    per_error = unit / jnp.where(c.error_limit > 0, c.error_limit, 1.0)

    def at(eta: Array, zeta: Array) -> tuple[Array, Array]:
        cost = amortised + (eta * per_ms)[:, None] * late + (zeta * per_error)[:, None] * wrong
        return jnp.where(c.most.max(2) > 0, cost, jnp.inf), jnp.minimum(cost.min(1), ceiling)

    def best(eta: Array, zeta: Array) -> tuple[Array, Array]:
        """Of the grid eta (A,I) by zeta (A,I), the least multipliers that reach the largest value."""
        count = len(eta)
        both = jnp.repeat(eta, count, 0), jnp.tile(zeta, (count, 1))
        chosen = jnp.argmax(jax.vmap(at)(*both)[1], axis=0)[None]
        return tuple(jnp.take_along_axis(m, chosen, 0)[0] for m in both)  # type: ignore[return-value]

    coarse = jnp.array([0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0], unit.dtype)[:, None]
    eta, zeta = best(coarse * jnp.ones_like(unit)[None], coarse * jnp.ones_like(unit)[None])
    fine = jnp.array([0.4, 0.6, 0.8, 1.0, 1.4, 2.0], unit.dtype)[:, None]
    eta, zeta = best(fine * eta[None], fine * zeta[None])
    cost, value = at(eta, zeta)
    return _Opening(jnp.where(can, value, c.unmet_cost), eta * per_ms, zeta * per_error, cost)


def promise(c: Coefficients) -> Array:
    """Rank of each pair (P,): its least cost over the cheapest pair's, for the type it suits best.

    Counted both by amortised cost and at the opening's prices of the promises, since a promise often needs a pair
    that cost alone would not choose. Smaller is better; decided pairs come first, excluded ones last.
    """
    opening = _opening(c)
    cheapest = jnp.where(opening.price > 0, opening.price, 1.0)[:, None]
    rank = jnp.minimum(
        _relative(_amortised(c)), 1.0 + (opening.cost - opening.price[:, None]) / cheapest
    ).min(0)
    return jnp.where((c.decided > 0).any(1), -1e6, jnp.where((c.decided < 0).all(1), jnp.inf, rank))


def _in_scale(c: Coefficients) -> tuple[Coefficients, Array, _Opening]:
    """Coefficients with money in units of the instance's cost; that unit; the opening in it."""
    opening = _opening(c)
    money = opening.price.sum()
    money = jnp.where(money > 0, money, 1.0)
    scaled = c._replace(
        deploy=c.deploy / money,
        base=c.base / money,
        delay_weight=c.delay_weight / money,
        unmet_cost=c.unmet_cost / money,
        budget=c.budget / money,
    )
    price = jnp.maximum(opening.price / money, 1e-3)
    return scaled, money, _Opening(price, opening.delay / money, opening.error / money, opening.cost / money)


def _relative(cost: Array) -> Array:
    """Costs over the cheapest of their type; inf where there is none."""
    least = cost.min(1, keepdims=True)
    known = jnp.isfinite(least) & jnp.isfinite(cost)
    return jnp.where(known, cost / jnp.where(known & (least > 0), least, 1.0), jnp.inf)


def _scale(c: Coefficients, opening: _Opening) -> _Scale:
    deploy = jnp.maximum(c.deploy, 1e-3)  # a free GPU still needs a unit for its multipliers

    def unit(limit: Array) -> Array:
        return jnp.where(limit > 0, limit, 1.0)

    return _Scale(
        demand=opening.price,
        delay=jnp.maximum(opening.price / unit(c.delay_limit), opening.delay),
        error=jnp.maximum(opening.price / unit(c.error_limit), opening.error),
        storage=1.0 / unit(c.storage),
        memory=deploy / jnp.maximum(c.room, 1e-3 * unit(c.room.max())),
        compute=deploy / jnp.maximum(c.power, 1e-3 * unit(c.power.max())),
    )


def cold_start(c: Coefficients) -> Multipliers:
    """Multipliers of one instance from its own numbers: the opening prices, each triple paying for half of itself."""
    scaled, money, opening = _in_scale(c)
    unit = _scale(scaled, opening)
    none, nobody = jnp.zeros_like(c.budget), jnp.zeros_like(c.nominal)
    return Multipliers(
        opening.price * money,
        opening.delay * money,
        opening.error * money,
        none,
        none,
        0.5 * unit.memory * money,
        0.5 * unit.compute * money,
        nobody,
        nobody,
    )


def _multipliers(v: _Iterate, u: _Scale) -> Multipliers:
    return Multipliers(
        v.demand * u.demand,
        v.delay * u.delay,
        v.error * u.error,
        v.budget,
        v.storage * u.storage,
        v.memory * u.memory,
        v.compute * u.compute,
        v.xi,
        v.psi,
    )


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), to the precision that smoothing needs."""
    return jnp.maximum(x, 0.0) + jnp.log(1.0 + jnp.exp(-jnp.abs(x)))


def _smoothed(v: _Iterate, c: Coefficients, u: _Scale, heat: Array) -> tuple[Array, Array]:
    """The dual function with its maxima smoothed at temperature ``heat``, summed over a trailing batch axis.

    Returns:
      the value, and the share of each triple in the smoothed minimum (P',N,B): an estimate of w.
    """
    y = _multipliers(v, u)
    held = jax.lax.stop_gradient
    floor = held(jnp.maximum(y.error, 0.2 * u.error))[:, None]
    moving = (
        floor * c.error_excess * (v.psi - held(v.psi))
    )  # value 0: only the gradient of psi, with the floor
    gain = _reduced_gain(c, y._replace(error_adversary=held(v.psi))) - moving[:, :, None]
    gain = gain - y.memory[None] * c.kv[:, :, None] - y.compute[None] * c.compute[:, None, None]
    carried = (c.most * heat * _softplus(gain / heat)).sum(0)
    fixed = c.deploy * (c.cost_weight + y.budget)[None, None] + (y.storage[None] * c.weights)[:, None]
    value = jnp.where(c.fits, fixed - y.memory * c.room - y.compute * c.power - carried, _HUGE)
    inside = c.decided > 0
    choices = jnp.where(c.decided < 0, -_HUGE, -value / heat)
    most = held(jnp.maximum(choices.max(1), 0.0))
    shares = jnp.exp(choices - most[:, None])
    total = shares.sum(1) + jnp.exp(-most)
    forced = inside.any(1)
    taken = jnp.where(forced, jnp.where(inside, value, 0.0).sum(1), -heat * (most + jnp.log(total)))
    over = heat * _softplus((y.demand - c.unmet_cost) / heat)
    served = y.demand - c.unmet_cap[None] * over
    value = served.sum() - (y.budget * c.budget).sum() - (y.storage * c.storage).sum() + taken.sum()
    return value, jnp.where(forced[:, None], inside.astype(total.dtype), shares / total[:, None])


def _price_of_budget(gradient: Array, xi: Array, gamma: Array) -> Array:
    """What a unit of the adversary's budget is worth, (I,1,B): the ceil(gamma)-th largest gradient of each type.

    Nothing where the budget is not used up: with that price an entry that is only partly funded would never move.
    """
    pairs = gradient.shape[1]
    place = jnp.ceil(gamma)[None, None]
    larger = jnp.zeros_like(gradient)
    for p in range(pairs):  # one fused loop; a reduction over a further axis is slower on CPU
        larger = larger + (gradient[:, p : p + 1] > gradient).astype(gradient.dtype)
    price = jnp.where(larger < place, gradient, jnp.inf).min(1, keepdims=True)
    used_up = xi.sum(1, keepdims=True) >= 0.999 * gamma[None, None]
    return jnp.where(used_up & (place > 0) & (place <= pairs), price, 0.0)


def _project(xi: Array, gamma: Array) -> Array:
    """Towards the Euclidean projection onto U(gamma): shift the positive entries, then scale what is left."""
    xi = jnp.clip(xi, 0.0, 1.0)
    for _ in range(3):
        over = jnp.maximum(xi.sum(1, keepdims=True) - gamma[None, None], 0.0)
        free = jnp.maximum((xi > 0).astype(xi.dtype).sum(1, keepdims=True), 1.0)
        xi = jnp.clip(xi - over / free, 0.0, 1.0)
    return _scaled_inside(xi, gamma)


_MEMORY = 0.05
"""Weight of the newest estimate in the running mean of w."""


@jax.custom_batching.custom_vmap
def _climb(v: _Iterate, part: Coefficients, unit: _Scale, controls: Array) -> tuple[_Iterate, Array]:
    """All steps of the ascent, of one instance; returns the last iterate and the running mean of w (P',N)."""
    v, part, unit = jax.tree.map(lambda a: a[..., None], (v, part, unit))
    return jax.tree.map(lambda a: a[..., 0], _climb_together(v, part, unit, controls))


@_climb.def_vmap
def _climb_batch(size: int, batched: Any, v: Any, part: Any, unit: Any, controls: Array) -> tuple[Any, Any]:
    """The batch as the last axis: every operation of a step then runs over contiguous instances."""
    assert not batched[3], "the controls are the batch's"

    def last(a: Array, has: bool) -> Array:
        return jnp.moveaxis(a, 0, -1) if has else jnp.broadcast_to(a[..., None], (*a.shape, size))

    v, part, unit = jax.tree.map(last, (v, part, unit), tuple(batched[:3]))
    found = _climb_together(v, part, unit, controls)
    return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), found), jax.tree.map(lambda _: True, found)


def _climb_together(v: _Iterate, part: Coefficients, unit: _Scale, controls: Array) -> tuple[_Iterate, Array]:
    """`_climb` of a batch, which is the last axis of every array."""
    steps, rate, last_rate, warm, cold = controls
    adam = optax.scale_by_adam(b1=0.9, b2=0.95)

    def step(number: Array, state: tuple[_Iterate, optax.OptState, Array]) -> tuple:
        v, memory, mean = state
        done = number.astype(mean.dtype) / steps
        heat = warm * (cold / warm) ** done
        size = rate * (last_rate + (1.0 - last_rate) * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))
        up, weights = jax.grad(_smoothed, has_aux=True)(v, part, unit, heat)
        up = up._replace(
            xi=up.xi - _price_of_budget(up.xi, v.xi, part.gamma_delay),
            psi=up.psi - _price_of_budget(up.psi, v.psi, part.gamma_error),
        )
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the integer step number
            move, memory = adam.update(up, memory)
        v = jax.tree.map(lambda a, m: a + size * m, v, move)
        kept = jax.tree.map(lambda a: jnp.maximum(a, 0.0), v)._replace(
            demand=v.demand,
            xi=_project(v.xi, part.gamma_delay),
            psi=_project(v.psi, part.gamma_error),
        )
        return kept, memory, mean + _MEMORY * (weights - mean)

    state = (v, adam.init(v), jnp.zeros_like(unit.memory))
    v, _, weights = jax.lax.fori_loop(0, steps.astype(jnp.int32), step, state)
    return v, weights


class _Opened(NamedTuple):
    """An ascent about to begin: the pairs iterated (P',), the unit of money, and what `_climb` takes."""

    index: Array
    money: Array
    iterate: _Iterate
    part: Coefficients
    unit: _Scale


def _opened(c: Coefficients, start: Multipliers | None, pairs_kept: int) -> _Opened:
    """The ascent of one instance from ``start`` (cold without it) over its most promising pairs."""
    start = cold_start(c) if start is None else start
    scaled, money, opening = _in_scale(c)
    _, index = jax.lax.top_k(-promise(c), min(pairs_kept, c.nominal.shape[1]))
    part = _subset(scaled, index)
    unit = _scale(part, opening)
    iterate = _Iterate(
        start.demand / (money * unit.demand),
        start.delay / (money * unit.delay),
        start.error / (money * unit.error),
        start.budget,
        start.storage / (money * unit.storage),
        start.memory[index] / (money * unit.memory),
        start.compute[index] / (money * unit.compute),
        start.delay_adversary[:, index],
        start.error_adversary[:, index],
    )
    return _Opened(index, money, iterate, part, unit)


def ascend(
    c: Coefficients, start: Multipliers | None, pairs_kept: int, controls: Array
) -> tuple[Multipliers, Array]:
    """Ascend from ``start`` (cold without it); one instance, in the precision of ``c``.

    Args:
      pairs_kept: pairs iterated.
      controls: steps, rate, last_rate, warm, cold as data.

    Returns:
      multipliers over all pairs, those of the pairs not iterated 0; and an estimate of w (P,N).
    """
    index, money, v, part, unit = _opened(c, start, pairs_kept)
    v, weights = _climb(v, part, unit, controls)
    y = _multipliers(v, unit)
    by_type = jnp.zeros(c.nominal.shape, v.demand.dtype)
    by_triple = jnp.zeros(c.deploy.shape, v.demand.dtype)
    everywhere = Multipliers(
        y.demand * money,
        y.delay * money,
        y.error * money,
        y.budget,
        y.storage * money,
        by_triple.at[index].set(y.memory * money),
        by_triple.at[index].set(y.compute * money),
        by_type.at[:, index].set(y.delay_adversary),
        by_type.at[:, index].set(y.error_adversary),
    )
    return everywhere, by_triple.at[index].set(weights)


class Ascended(NamedTuple):
    """The certified bound (float64), the float32 multipliers that prove it, V (P,N) and the estimate of w (P,N)."""

    bound: Array
    multipliers: Multipliers
    value: Array
    weights: Array


def in_single(tree: Any) -> Any:
    """The tree with its float64 arrays as float32: what is ascended on."""
    return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, tree)


def ascend_and_certify(c: Coefficients, start: Multipliers | None, pairs: int, controls: Array) -> Ascended:
    """Ascend in float32 from ``start`` (cold without it), certify in float64; one instance, ``c`` in float64."""
    single, start = in_single((c, start))
    y, weights = ascend(single, start, pairs, controls)
    bound, value = certify(c, jax.tree.map(lambda a: a.astype(jnp.float64), y))
    return Ascended(bound, y, value, weights)


class Bounds(NamedTuple):
    """Certified lower bounds of B scenarios.

    ``lower`` is in $ per period, float64, -inf where the computation met something that is not a number;
    ``multipliers`` are float32 arrays with leading axis B: evaluating the dual function at them proves ``lower``.
    """

    lower: np.ndarray
    multipliers: Multipliers


@partial(jax.jit, static_argnames=("uncertainty", "batched", "pairs"))
def _bound_block(
    fields: Fields,
    start: Multipliers | None,
    *,
    controls: Array,
    uncertainty: str,
    batched: frozenset[str],
    pairs: int,
) -> tuple[Array, Multipliers]:
    def one(fields: Fields, start: Multipliers | None) -> tuple[Array, Multipliers]:
        found = ascend_and_certify(coefficients(fields, uncertainty), start, pairs, controls)
        return found.bound, found.multipliers

    return jax.vmap(one, in_axes=(batch_axes(batched), None if start is None else 0))(fields, start)


def _bounded(program: Any, instances: Instances, arrays: tuple, ascent: Ascent, chunk: int) -> Any:
    """A program of bounds over all scenarios, in float64 outside the ascent."""
    batch = instances.as_batch()
    with jax.enable_x64(True):
        return run_scenarios(
            program,
            batch,
            np.arange(batch.size),
            arrays,
            BlockSize(chunk) if chunk else block_size("bound"),
            controls=ascent.controls,
            pairs=ascent.pairs,
        )


def lower_bounds(
    instances: Instances,
    *,
    ascent: Ascent = Ascent(),
    start: Multipliers | None = None,
    chunk: int = 0,
) -> Bounds:
    """Certified lower bounds of every scenario: float32 ascent, float64 certificate.

    Args:
      start: multipliers to start from, with leading axis B; cold without it.
      chunk: scenarios in a compiled block, 0 for what suits the device; another value is another program, last bits
        may differ.
    """
    arrays = (jax.tree.map(np.asarray, start),)
    lower, multipliers = _bounded(_bound_block, instances, arrays, ascent, chunk)
    assert lower.dtype == np.float64, "certificates are float64"
    return Bounds(lower, multipliers)


@partial(jax.jit, static_argnames=("uncertainty", "batched", "pairs"))
def _value_block(
    fields: Fields, *, controls: Array, uncertainty: str, batched: frozenset[str], pairs: int
) -> Array:
    return _bound_block(
        fields, None, controls=controls, uncertainty=uncertainty, batched=batched, pairs=pairs
    )[0]


def lower_bound_values(instances: Instances, *, ascent: Ascent = Ascent(), chunk: int = 0) -> np.ndarray:
    """`Bounds.lower` alone, (B,): multipliers stay where they are computed and are forgotten.

    With scenarios of `rodiu_jax.model.scenario_blocks.keep_on_device` nothing but these numbers leaves an accelerator.
    """
    lower = _bounded(_value_block, instances, (), ascent, chunk)
    assert lower.dtype == np.float64, "certificates are float64"
    return lower
