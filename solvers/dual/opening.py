"""Where an ascent begins: prices of a relaxation that needs no solver, natural units, and the order of the pairs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from rodiu_jax.model.fields import Array
from solvers.dual.coefficients import Coefficients, ratio, slow
from solvers.dual.function import Multipliers


class Units(NamedTuple):
    """Natural units of the ascent's variables, in the unit of money of `scale_money`."""

    demand: Float[Array, " I"]
    delay: Float[Array, " I"]
    error: Float[Array, " I"]
    storage: Float[Array, ""]
    memory: Float[Array, "P N"]
    compute: Float[Array, "P N"]
    throughput: Float[Array, "P N"] | None = None  # of scenarios with rates
    quota: Float[Array, ""] | None = None  # of scenarios with quotas


class Opening(NamedTuple):
    """Prices of the relaxation in which every type pays for its own share of a deployment.

    The price of type i is max over eta, zeta >= 0 of the least over pairs of
    ``amortised + eta (delay - Delta) + zeta (error - eps)``, at most Phi where all may stay unmet: from there a type
    whose promises are hard or impossible to keep need not climb to its penalty step by step.
    """

    price: Float[Array, " I"]  # $
    delay: Float[Array, " I"]  # eta, $/ms
    error: Float[Array, " I"]  # zeta, $


_COARSE = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""First grid of eta and of zeta, in units of a type's cost per unit of its limit: three points a decade."""

_FINE = (0.4, 0.6, 0.8, 1.0, 1.4, 2.0)
"""Second grid, as factors of the best point of the first: it fills the gap to the neighbours."""

_LEAST_UNIT = 1e-3
"""Smallest unit of a price or a capacity, relative: even a free GPU needs a unit for its multipliers."""


def _amortise(c: Coefficients) -> Float[Array, "I P"]:
    """Cost type i served whole by pair p, its deployment paid in proportion to use; inf if the pair cannot.

    The linear relaxation pays for deployments in just this way, so the cheapest of these scales the price of a
    type and ranks the pairs.
    """
    busy = jnp.maximum(  # I,P,N
        ratio(c.kv[:, :, None], c.room[None]),
        jnp.where(
            c.power[None] > 0, c.compute[:, None, None] / jnp.where(c.power > 0, c.power, 1.0)[None], 0.0
        ),
    )
    busy = jnp.where(jnp.isfinite(busy), busy, 0.0)  # no room, no need: `most` decides below
    if c.rates is not None:
        busy = jnp.maximum(busy, c.rates.alone() / c.rates.room[None])
    cost = c.base[:, None, None] + _delay_cost(c) + c.deploy[None] * busy
    return jnp.where(c.most > 0, cost, jnp.inf).min(2)


def _delay_cost(c: Coefficients) -> Float[Array, "I P N"]:
    """Cost the delays of types served whole, every excess counted."""
    return (c.delay_weight[:, None] * (c.nominal + c.excess))[:, :, None] * slow(c)


def _over_promises(c: Coefficients) -> tuple[Float[Array, "I P"], Float[Array, "I P"]]:
    """Measure by how much each pair alone breaks the promises: ms at the fastest degree, and error rate."""
    fastest = c.slowness.min() if c.slowness.ndim == 1 else c.slowness.min(2)
    late = (c.nominal + c.excess) * fastest - c.delay_limit[:, None]
    return late, c.error + c.error_excess - c.error_limit[:, None]


def find_opening(c: Coefficients, amortised: Float[Array, "I P"]) -> tuple[Opening, Float[Array, "I P"]]:
    """Find the opening prices by a coarse grid over (eta, zeta) and a finer one around its best point.

    Args:
      amortised: what serving a type whole by a pair costs, deployment included; inf where it cannot.

    Returns:
      the prices, and what serving a type by a pair costs at them, $; inf where the pair cannot.
    """
    late, wrong = _over_promises(c)
    cheapest = amortised.min(1)
    can = jnp.isfinite(cheapest)
    ceiling = jnp.where(c.unmet_cap >= 1.0, c.unmet_cost, jnp.inf)
    unit = jnp.minimum(jnp.where(can, cheapest, c.unmet_cost), ceiling)
    per_ms = unit / jnp.where(c.delay_limit > 0, c.delay_limit, 1.0)
    per_error = unit / jnp.where(c.error_limit > 0, c.error_limit, 1.0)

    def price_at(eta: Float[Array, " I"], zeta: Float[Array, " I"]) -> tuple[Array, Array]:
        cost = amortised + (eta * per_ms)[:, None] * late + (zeta * per_error)[:, None] * wrong
        return jnp.where(c.most.max(2) > 0, cost, jnp.inf), jnp.minimum(cost.min(1), ceiling)

    def best_of(eta: Float[Array, "A I"], zeta: Float[Array, "A I"]) -> tuple[Array, Array]:
        """Of the grid eta by zeta, take the least multipliers that reach the largest value."""
        count = len(eta)
        both = jnp.repeat(eta, count, 0), jnp.tile(zeta, (count, 1))
        chosen = jnp.argmax(jax.vmap(price_at)(*both)[1], axis=0)[None]
        return tuple(jnp.take_along_axis(m, chosen, 0)[0] for m in both)  # type: ignore[return-value]

    coarse = jnp.array(_COARSE, unit.dtype)[:, None]
    eta, zeta = best_of(coarse * jnp.ones_like(unit)[None], coarse * jnp.ones_like(unit)[None])
    fine = jnp.array(_FINE, unit.dtype)[:, None]
    eta, zeta = best_of(fine * eta[None], fine * zeta[None])
    cost, value = price_at(eta, zeta)
    return Opening(jnp.where(can, value, c.unmet_cost), eta * per_ms, zeta * per_error), cost


def promise(c: Coefficients) -> Float[Array, " P"]:
    """Score each pair, smaller is better: its least cost over the cheapest pair's, for the type it suits best.

    Counted both by amortised cost and at the opening's prices of the promises, since a promise often needs a pair
    that cost alone would not choose. Decided pairs come first, excluded ones last.
    """
    amortised = _amortise(c)
    opening, cost = find_opening(c, amortised)
    cheapest = jnp.where(opening.price > 0, opening.price, 1.0)[:, None]
    rank = jnp.minimum(_divide_by_least(amortised), 1.0 + (cost - opening.price[:, None]) / cheapest).min(0)
    return jnp.where((c.decided > 0).any(1), -1e6, jnp.where((c.decided < 0).all(1), jnp.inf, rank))


def _divide_by_least(cost: Float[Array, "I P"]) -> Float[Array, "I P"]:
    """Divide costs by the cheapest of their type; inf where there is none."""
    least = cost.min(1, keepdims=True)
    known = jnp.isfinite(least) & jnp.isfinite(cost)
    return jnp.where(known, cost / jnp.where(known & (least > 0), least, 1.0), jnp.inf)


def scale_money(
    c: Coefficients, opening: Opening | None = None
) -> tuple[Coefficients, Float[Array, ""], Opening]:
    """Count money in units of the scenario's cost; return the coefficients, that unit, and the opening in it."""
    opening = find_opening(c, _amortise(c))[0] if opening is None else opening
    money = opening.price.sum()
    money = jnp.where(money > 0, money, 1.0)
    scaled = c._replace(
        deploy=c.deploy / money,
        base=c.base / money,
        delay_weight=c.delay_weight / money,
        unmet_cost=c.unmet_cost / money,
        budget=c.budget / money,
    )
    if c.options is not None:
        scaled = scaled._replace(options=c.options._replace(hold=c.options.hold / money))
    price = jnp.maximum(opening.price / money, _LEAST_UNIT)
    return scaled, money, Opening(price, opening.delay / money, opening.error / money)


def choose_units(c: Coefficients, opening: Opening) -> Units:
    """Choose the units in which multipliers are near 1: an opening price, or a deployment's cost per capacity."""
    deploy = jnp.maximum(c.deploy, _LEAST_UNIT)

    def positive(limit: Array) -> Array:
        return jnp.where(limit > 0, limit, 1.0)

    return Units(
        demand=opening.price,
        delay=jnp.maximum(opening.price / positive(c.delay_limit), opening.delay),
        error=jnp.maximum(opening.price / positive(c.error_limit), opening.error),
        storage=1.0 / positive(c.storage),
        memory=deploy / jnp.maximum(c.room, _LEAST_UNIT * positive(c.room.max())),
        compute=deploy / jnp.maximum(c.power, _LEAST_UNIT * positive(c.power.max())),
        throughput=None if c.rates is None else deploy / c.rates.room,
        quota=None if c.quotas is None else (deploy / c.quotas.gpus).min(),
    )


def cold_start(c: Coefficients) -> Multipliers:
    """Start from the scenario's own numbers: the opening prices, each triple paying for half of itself."""
    scaled, money, opening = scale_money(c)
    units = choose_units(scaled, opening)
    none, nobody = jnp.zeros_like(c.budget), jnp.zeros_like(c.nominal)
    return Multipliers(
        opening.price * money,
        opening.delay * money,
        opening.error * money,
        none,
        none,
        0.5 * units.memory * money,
        0.5 * units.compute * money,
        nobody,
        nobody,
        **_start_serving(c, 0.5 * c.deploy),
    )


def _start_serving(c: Coefficients, paid: Float[Array, "P N"]) -> dict[str, Array]:
    """Start the multipliers of rates and quotas: throughput pays for ``paid``, the adversary spreads, GPUs are free."""
    start = {}
    if c.rates is not None:
        types = len(c.base)
        start["throughput"] = jnp.where(
            c.rates.room > 0, paid / jnp.where(c.rates.room > 0, c.rates.room, 1.0), 0.0
        )
        everywhere = jnp.ones((*c.deploy.shape, types), c.base.dtype)
        start["load_adversary"] = everywhere * jnp.minimum(c.rates.gamma / types, 1.0)
    if c.quotas is not None:
        start["quota"] = jnp.zeros_like(c.quotas.quota)
    return start


# ---- where capacity or budget is scarce ----

_BUDGET_PRICES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""Grid of mu_b, $/$: two points a decade, from nothing to what no default scenario reaches."""

_MEMORY_PARTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Grid of the part of a rent that memory pays; compute pays the rest."""

_ALTERNATIONS = 2
"""Times that the price of the budget and those of the promises are chosen, each given the other."""


def scarce_start(c: Coefficients) -> tuple[Multipliers, Opening]:
    """Start where the budget has a price and every rent is shared between memory and compute in one proportion.

    With m = theta D (1 + mu_b) / room and c = (1 - theta) D (1 + mu_b) / power every V is 0 as long as no type gains
    anywhere, so the dual value is the sum of the least costs of the types less mu_b times the budget. A grid over
    mu_b and theta finds its maximum.
    """

    def share(demand: Array, capacity: Array) -> Float[Array, "I P N"]:
        return jnp.where(demand > 0, ratio(demand, capacity), 0.0)

    memory, compute = share(c.kv[:, :, None], c.room[None]), share(c.compute[:, None, None], c.power[None])
    if c.rates is not None:  # in the place of compute: of a replica, rates are measured
        compute = share(c.rates.alone(), c.rates.room[None])
    delay_cost = _delay_cost(c)

    def charge(budget: Float[Array, ""], part: Float[Array, ""]) -> Float[Array, "I P"]:
        paid = jnp.where(part > 0, part * memory, 0.0) + jnp.where(part < 1, (1.0 - part) * compute, 0.0)
        rent = (c.deploy * (1.0 + budget))[None] * paid
        cost = (c.base * (1.0 + budget))[:, None, None] + delay_cost + rent
        return jnp.where(c.most > 0, cost, jnp.inf).min(2)

    late, wrong = _over_promises(c)
    grid = [jnp.array(g, c.base.dtype) for g in (_BUDGET_PRICES, _MEMORY_PARTS)]
    prices, parts = (g.reshape(-1) for g in jnp.meshgrid(*grid))

    def choose(opening: Opening) -> tuple[Array, Array]:
        promised = opening.delay[:, None] * late + opening.error[:, None] * wrong

        def value(at: tuple[Array, Array]) -> Float[Array, ""]:
            least = (charge(*at) + promised).min(1)
            known = jnp.isfinite(least)
            least = jnp.where(known, least, c.unmet_cost)
            over = jnp.maximum(least - c.unmet_cost, 0.0)
            return (least - c.unmet_cap * over).sum() - at[0] * c.budget

        best = jnp.argmax(jax.lax.map(value, (prices, parts)))
        return prices[best], parts[best]

    opening, _ = find_opening(c, _amortise(c))
    budget, part = choose(opening)
    for _ in range(_ALTERNATIONS):
        opening, _ = find_opening(c, charge(budget, part))
        budget, part = choose(opening)
    opening, _ = find_opening(c, charge(budget, part))
    pairs = c.nominal.shape[1]
    rent, none = c.deploy * (1.0 + budget), jnp.zeros_like(c.budget)

    def spread(gamma: Array) -> Float[Array, "I P"]:
        return jnp.ones_like(c.nominal) * jnp.minimum(gamma / pairs, 1.0)

    start = Multipliers(
        opening.price,
        opening.delay,
        opening.error,
        budget,
        none,
        jnp.where(c.room > 0, part * rent / jnp.where(c.room > 0, c.room, 1.0), 0.0),
        jnp.where(
            (c.power > 0) & (c.rates is None), (1.0 - part) * rent / jnp.where(c.power > 0, c.power, 1.0), 0.0
        ),
        spread(c.gamma_delay),
        spread(c.gamma_error),
        **_start_serving(c, (1.0 - part) * rent),
    )
    return start, opening
