"""The Lagrangian dual function with its allowance for rounding, once for NumPy and JAX. No JAX is imported here.

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

Scenarios with rates, options and quotas (MODEL section 9) add

    h[t] >= 0        throughput, $/replica          chi[t,i] in U(Gamma_q), the adversary of the load
    nu[k] >= 0       quota of the device whose first configuration is k, $/GPU

An option o of a pair is a degree with at least lo and at most hi replicas; D, room and power are those of hi. With H
the cost of weights alone,

    A[o] = (D - H)(1 + mu_b) + nu GPUs - m room - c power - h U hi         what its replicas cost beyond their use
    V[o] = H (1 + mu_b) + mu_s B + min(A, A lo / hi) - sum_i most max(-r - m kv - c compute - h (l + chi lh), 0)

as its rows are linear in the number of replicas, and so are rent and GPUs: the minimum is at either end. Options with
lo = hi, and those of no replicas but one, are triples as above. g loses sum_k nu quota.

g never exceeds the optimum, whatever the multipliers: that is weak duality, and the reason why a bound may be
computed in float32 and still be proven, by evaluating g once in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float

from rodiu_jax.model.fields import Array
from solvers.dual.coefficients import Coefficients, slow

HUGE = 1e30
"""V of a triple that cannot be deployed: never the minimum, and finite, so that sums stay numbers."""


class Multipliers(NamedTuple):
    """Dual variables in their own units (see the module)."""

    demand: Float[Array, " I"]  # pi, $
    delay: Float[Array, " I"]  # eta, $/ms
    error: Float[Array, " I"]  # zeta, $
    budget: Float[Array, ""]  # mu_b, $/$
    storage: Float[Array, ""]  # mu_s, $/GB
    memory: Float[Array, "P N"]  # m, $/GB
    compute: Float[Array, "P N"]  # c, $/TFLOP
    delay_adversary: Float[Array, "I P"]  # xi
    error_adversary: Float[Array, "I P"]  # psi
    throughput: Float[Array, "P N"] | None = None  # h, $/replica; where there are rates
    load_adversary: Float[Array, "P N I"] | None = None  # chi
    quota: Float[Array, " K"] | None = None  # nu, $/GPU; where there are quotas


class DualValue(NamedTuple):
    """The dual function at some multipliers, $ per period."""

    bound: Float[Array, ""]  # proven: less the allowance; -inf where anything is not a number
    value: Float[Array, "P N"]  # V
    floor: Float[Array, "P N"]  # proven: what every plan that deploys the triple costs at least


def reduced_gain(c: Coefficients, y: Multipliers) -> Float[Array, "I P N *B"]:
    """Compute -r: what a unit share gains before memory and compute are paid. Batch axes at the end pass through."""
    base = c.base * (1.0 + y.budget)[None]
    fixed = base - y.error * c.error_limit - y.delay * c.delay_limit - y.demand
    per_ms = (c.delay_weight + y.delay)[:, None] * (c.nominal + y.delay_adversary * c.excess)
    fixed = fixed[:, None] + y.error[:, None] * (c.error + y.error_adversary * c.error_excess)
    return -(fixed[:, :, None] + per_ms[:, :, None] * slow(c))


def evaluate_dual(c: Coefficients, y: Multipliers, *, careful: bool = False) -> DualValue:
    """Evaluate the dual function at multipliers made feasible, in the precision of the arguments.

    Signs are clipped and each adversary is scaled into its set. Compute and memory multipliers of each triple
    are improved in closed form, one after the other at a breakpoint of its one-dimensional problem. A kink can
    hold such a search; at an ascent's multipliers trying both orders gained 0.0002 % on average, for twice the time.

    The value is lowered by an allowance for rounding: a sum of n terms evaluated in floating point differs from
    the exact one by at most about n eps times the sum of the terms' absolute values. Each term here is the
    result of at most 16 + I operations, so (2 I N + P + 32) eps sum|terms| covers the whole expression.

    Args:
      careful: where there are no rates, options or quotas, improve memory first as well and keep the better of the
        two for each triple, and count the terms one by one in the allowance: a value higher by 1e-11 or so, for three
        times the work.
    """
    xp = c.most.__array_namespace__()
    y = feasible(c, y)
    gain = reduced_gain(c, y)  # I,P,N
    fixed = c.deploy * (1.0 + y.budget) + (y.storage * c.weights)[:, None]
    quota = 0.0
    if c.rates is not None or c.options is not None or c.quotas is not None:
        value, paid, quota = _value_serving(c, y, gain, fixed)
    else:
        kv = xp.broadcast_to(c.kv[:, :, None], gain.shape)
        compute = xp.broadcast_to(c.compute[:, None, None], gain.shape)
        power, _ = _best_multiplier(gain - y.memory[None] * kv, compute, c.power, c.most)
        _, then = _best_multiplier(gain - power[None] * compute, kv, c.room, c.most)
        paid = power * c.power + then  # P,N
        if careful:
            room, _ = _best_multiplier(gain - y.compute[None] * compute, kv, c.room, c.most)
            _, then = _best_multiplier(gain - room[None] * kv, compute, c.power, c.most)
            paid = xp.minimum(paid, room * c.room + then)
        value = fixed - paid
    value = xp.where(c.fits, value, HUGE)
    taken = least_by_pair(c, value)
    served = y.demand - c.unmet_cap * xp.maximum(y.demand - c.unmet_cost, 0.0)
    bound = served.sum() - y.budget * c.budget - y.storage * c.storage - quota + taken.sum()

    # Only triples that the minimum takes, or could take by rounding, add to its error.
    used = ((c.decided > 0).any(axis=1) | (value.min(axis=1) <= 0))[:, None] & c.fits
    sizes = fixed + paid + (c.most * (_gain_terms(c, y) if careful else xp.abs(gain))).sum(axis=0)  # P,N
    of_gain = 0.0 if careful else _gain_magnitude(c, y)
    magnitude = (
        xp.abs(y.demand).sum()
        + (c.unmet_cap * (xp.abs(y.demand) + c.unmet_cost)).sum()
        + xp.abs(y.budget * c.budget)
        + quota
        + xp.abs(y.storage * c.storage)
        + xp.where(used, sizes, 0.0).max(axis=1).sum()
        + used.any(axis=1).astype(gain.dtype).sum() * of_gain
    )
    types, pairs, degrees = gain.shape
    error = (2 * types * degrees + pairs + 32) * xp.finfo(gain.dtype).eps  # relative to the terms' sizes
    bound = bound - error * magnitude
    bound = xp.where(xp.isfinite(bound), bound, -xp.inf)
    floor = bound + (value - taken[:, None]) - error * (sizes + of_gain)
    return DualValue(bound, value, floor)


def price_gpus(c: Coefficients, y: Multipliers) -> Float[Array, "P N *B"]:
    """Compute what a triple's GPUs cost at the prices of the quotas, $."""
    assert c.quotas is not None
    assert y.quota is not None
    return c.quotas.gpus * (c.quotas.device * y.quota[None]).sum(1)[:, None]


def charge_load(c: Coefficients, y: Multipliers) -> Float[Array, "I P N *B"]:
    """Compute l + chi lh, the load that each type is charged for on each triple, replicas."""
    xp = c.most.__array_namespace__()
    assert c.rates is not None
    assert y.load_adversary is not None
    return c.rates.load + xp.moveaxis(y.load_adversary, 2, 0) * c.rates.excess


def _value_serving(
    c: Coefficients, y: Multipliers, gain: Float[Array, "I P N"], fixed: Float[Array, "P N"]
) -> tuple[Float[Array, "P N"], Float[Array, "P N"], Any]:
    """Compute V of scenarios with rates, options or quotas, prices of capacity improved one after the other.

    Returns:
      V; the sizes of what was subtracted, for the allowance; and what the quotas take from the bound.
    """
    xp = c.most.__array_namespace__()
    hold = xp.zeros_like(fixed)
    if c.options is not None:
        hold = (c.options.hold * (1.0 + y.budget) + y.storage * c.weights)[:, None] + hold
    replicas = fixed - hold  # what they cost, before they are used
    quota = xp.zeros_like(c.budget)
    if c.quotas is not None:
        replicas = replicas + price_gpus(c, y)
        quota = (y.quota * xp.where(xp.isfinite(c.quotas.quota), c.quotas.quota, 0.0)).sum()
    capacities = [
        (xp.broadcast_to(c.compute[:, None, None], gain.shape), c.power, y.compute),
        (xp.broadcast_to(c.kv[:, :, None], gain.shape), c.room, y.memory),
    ]
    if c.rates is not None:
        capacities.append((charge_load(c, y), c.rates.room, y.throughput))
    least = xp.ones_like(fixed) if c.options is None else c.options.least
    given = [price for _, _, price in capacities]
    prices, value = given, xp.full_like(fixed, -xp.inf)
    for first, second in ((0, 1), (1, 0)):  # a kink can hold one order of the search and not the other
        tried, best = list(given), value
        for at in (first, second, *range(2, len(capacities)), first):
            weight, capacity, _ = capacities[at]
            left, rest = replicas, gain
            for other, (demand, size, _) in enumerate(capacities):
                if other != at:
                    left, rest = left - tried[other] * size, rest - tried[other][None] * demand
            tried[at], best = _best_serving_multiplier(rest, weight, capacity, c.most, left, least)
        prices = [xp.where(best > value, new, old) for new, old in zip(tried, prices, strict=True)]
        value = xp.maximum(value, best)
    spent = sum((p * size for p, (_, size, _) in zip(prices, capacities, strict=True)), xp.zeros_like(fixed))
    charged = sum((p[None] * w for p, (w, _, _) in zip(prices, capacities, strict=True)), xp.abs(gain))
    sizes = replicas + spent + (c.most * charged).sum(axis=0)
    return hold + value, sizes, quota


def _best_serving_multiplier(
    gain: Float[Array, "I P N"],
    weight: Float[Array, "I P N"],
    capacity: Float[Array, "P N"],
    most: Float[Array, "I P N"],
    replicas: Float[Array, "P N"],
    least: Float[Array, "P N"],
) -> tuple[Float[Array, "P N"], Float[Array, "P N"]]:
    """Find argmax and max over p >= 0 of min(A, A least) - sum_i most max(gain - p weight, 0).

    A = replicas - p capacity. Concave and piecewise linear in p: the maximum is at 0, at a breakpoint gain / weight, or
    where A is 0.
    """
    xp = gain.__array_namespace__()
    at = [xp.zeros_like(capacity)]
    at += [
        xp.where(weight[i] > 0, xp.maximum(gain[i], 0.0) / xp.where(weight[i] > 0, weight[i], 1.0), 0.0)
        for i in range(gain.shape[0])
    ]
    at.append(xp.where(capacity > 0, xp.maximum(replicas, 0.0) / xp.where(capacity > 0, capacity, 1.0), 0.0))
    best_at, best = at[0], xp.full(capacity.shape, -xp.inf)
    for p in at:
        left = replicas - p * capacity
        value = xp.minimum(left, left * least) - (most * xp.maximum(gain - p[None] * weight, 0.0)).sum(axis=0)
        better = value > best
        best_at, best = xp.where(better, p, best_at), xp.where(better, value, best)
    return best_at, best


def certify(c: Coefficients, y: Multipliers) -> tuple[Float[Array, ""], Float[Array, "P N"]]:
    """Return the bound of `evaluate_dual`, a proof where the arguments are float64, and V."""
    found = evaluate_dual(c, y)
    return found.bound, found.value


def least_by_pair(c: Coefficients, value: Float[Array, "P N"]) -> Float[Array, " P"]:
    """Take the inner minimum of each pair at the values V of its triples: its best degree, or none."""
    xp = value.__array_namespace__()
    inside = c.decided > 0
    open_best = xp.minimum(xp.where(c.decided < 0, HUGE, value).min(axis=1), 0.0)
    return xp.where(inside.any(axis=1), xp.where(inside, value, 0.0).sum(axis=1), open_best)


def scale_prices(y: Multipliers, factor: Any) -> Multipliers:
    """Multiply all multipliers but the adversary's, which has no unit of money."""
    prices = Multipliers(*(None if a is None else factor * a for a in y))
    return prices._replace(
        delay_adversary=y.delay_adversary,
        error_adversary=y.error_adversary,
        load_adversary=y.load_adversary,
    )


def lengthen_ray(y: Multipliers, weight: Float[Array, ""]) -> Multipliers:
    """Read multipliers of `count_rent_alone` as those of the scenario itself, so long that its costs hardly count.

    What rent costs there is what the budget costs here. Multipliers of weight 1 stay as they are.
    """
    alone = (weight < 1.0).astype(y.budget.dtype)
    return scale_prices(y._replace(budget=alone + y.budget), 1.0 / weight)


def shorten_ray(y: Multipliers, weight: Float[Array, ""]) -> Multipliers:
    """Undo `lengthen_ray`; a budget whose price is less than the ray's costs nothing."""
    alone = (weight < 1.0).astype(y.budget.dtype)
    short = scale_prices(y, weight)
    return short._replace(budget=(short.budget - alone).clip(0.0))


def _gain_terms(c: Coefficients, y: Multipliers) -> Float[Array, "I P N"]:
    """Sum the absolute values of the terms of each r."""
    fixed = c.base * (1.0 + y.budget) + y.error * c.error_limit + y.delay * c.delay_limit
    fixed = fixed + abs(y.demand)
    per_ms = (c.delay_weight + y.delay)[:, None] * (c.nominal + y.delay_adversary * c.excess)
    fixed = fixed[:, None] + y.error[:, None] * (c.error + y.error_adversary * c.error_excess)
    return fixed[:, :, None] + per_ms[:, :, None] * slow(c)


def _gain_magnitude(c: Coefficients, y: Multipliers) -> Float[Array, ""]:
    """Bound the sum over types of the terms of r, which rounding must cover: cheaper than `_gain_terms`."""
    xp = c.most.__array_namespace__()
    fixed = c.base * (1.0 + y.budget) + y.error * c.error_limit + y.delay * c.delay_limit + xp.abs(y.demand)
    slowest = c.slowness.max() if c.slowness.ndim == 1 else c.slowness.max(axis=2)
    per_ms = (c.delay_weight + y.delay)[:, None] * (c.nominal + c.excess) * slowest
    usable = (c.most > 0).any(axis=2)
    by_pair = xp.where(usable, per_ms + y.error[:, None] * (c.error + c.error_excess), 0.0)
    return (fixed[:, None] + by_pair).max(axis=1).sum() * 2.0


def _best_multiplier(
    gain: Float[Array, "I P N"],
    weight: Float[Array, "I P N"],
    capacity: Float[Array, "P N"],
    most: Float[Array, "I P N"],
) -> tuple[Float[Array, "P N"], Float[Array, "P N"]]:
    """Find argmin and min over m >= 0 of m capacity + sum_i most[i] max(gain[i] - m weight[i], 0), per triple.

    Convex and piecewise linear in m: the minimum is at 0 or at a breakpoint gain[i] / weight[i].
    """
    xp = gain.__array_namespace__()
    at = [xp.zeros_like(capacity)]
    at += [
        xp.where(weight[i] > 0, xp.maximum(gain[i], 0.0) / xp.where(weight[i] > 0, weight[i], 1.0), 0.0)
        for i in range(gain.shape[0])
    ]
    values = [m * capacity + (most * xp.maximum(gain - m[None] * weight, 0.0)).sum(axis=0) for m in at]
    best_at, best = at[0], values[0]
    for m, value in zip(at[1:], values[1:], strict=True):
        better = value < best
        best_at, best = xp.where(better, m, best_at), xp.where(better, value, best)
    return best_at, best


def feasible(c: Coefficients, y: Multipliers) -> Multipliers:
    """Give multipliers the right sign, and put each adversary inside its set U(Gamma)."""
    xp = c.most.__array_namespace__()
    return Multipliers(
        y.demand,
        xp.maximum(y.delay, 0.0),
        xp.maximum(y.error, 0.0),
        xp.maximum(y.budget, 0.0),
        xp.maximum(y.storage, 0.0),
        xp.maximum(y.memory, 0.0),
        xp.maximum(y.compute, 0.0),
        scale_inside(y.delay_adversary, c.gamma_delay),
        scale_inside(y.error_adversary, c.gamma_error),
        **_feasible_serving(c, y),
    )


def _feasible_serving(c: Coefficients, y: Multipliers) -> dict[str, Any]:
    xp = c.most.__array_namespace__()
    result = {}
    if c.rates is not None:
        assert y.throughput is not None
        assert y.load_adversary is not None
        assert c.rates is not None
        chi = y.load_adversary
        inside = scale_inside(chi.reshape(-1, chi.shape[2]), c.rates.gamma)
        result = {"throughput": xp.maximum(y.throughput, 0.0), "load_adversary": inside.reshape(chi.shape)}
    if c.quotas is not None:
        assert y.quota is not None
        result["quota"] = xp.where(xp.isfinite(c.quotas.quota), xp.maximum(y.quota, 0.0), 0.0)
    return result


def scale_inside(xi: Float[Array, "I P *B"], gamma: Float[Array, " *B"]) -> Float[Array, "I P *B"]:
    """Scale into {0 <= xi <= 1, sum <= gamma} per type; the tiny shrinkage keeps the rounded sum inside too."""
    xp = xi.__array_namespace__()
    xi = xp.clip(xi, 0.0, 1.0)
    total = xi.sum(axis=1, keepdims=True)
    inside = ((1.0 - 8 * xi.shape[1] * xp.finfo(xi.dtype).eps) * gamma)[None, None]
    return xi * xp.where(total > inside, inside / xp.where(total > 0, total, 1.0), 1.0)
