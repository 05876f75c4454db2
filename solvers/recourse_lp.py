"""The routing program of one deployment in one scenario with everything that recourse needs, and what its prices prove.

It is the program of `solvers.routing.build_routing_lp`, over the shares x of a type in the D slots, and on request

- *sharp*: the exact adversary. Where 0 < Gamma < pairs it cannot push all pairs of a type at once, and the worst case
  of excesses a is its dual, as in `solvers.formulation`: min Gamma t + sum sigma with a[d] x[d] <= t + sigma[d].
- *capped*: the price of an unmet share above its cap. It is so high that the dual exceeds what any plan can cost where
  the cap cannot be kept: infeasibility is then proven by the same dual function as every other bound.

Columns and own rows of a type when sharp, with a (b) the excess of delay (error), L (E) the limit, W the delay's
weight, all rows and columns scaled as in the code:

                       x[1..D]       t        sigma[1..D]    t'       sigma'[1..D]
    cost               c             W Gamma  W ... W        0        0
    demand       <= 1  1             0        0              0        0                >= 1 - cap, or at a price
    delay        <= 0  nominal - L   Gamma    1 ... 1        0        0
    error        <= 0  nominal - E   0        0              Gamma'   1 ... 1
    worst delay  <= 0  diag(a)       -1       -I             0        0                D rows
    worst error  <= 0  diag(b)       0        0              -1       -I               D rows

Memory, compute and budget meet only the shares.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from solvers.dual import Coefficients, Multipliers
from solvers.lp.program import LpSolution
from solvers.route_limits import find_triples
from solvers.routing import RoutingLp, build_routing_lp, read_multipliers
from solvers.worst_case_rows import add_adversary, read_adversary

_ELASTIC = 10.0
"""Price of an unmet share above its cap, in units of what any plan can cost: an excess of 10 % is then a proof."""

_STRETCH = 1e6
"""By how much the prices of the least excess are stretched: an excess of 1e-6 is then a proof."""

_LARGEST = 1e5
"""Most that the promises' multipliers may weigh, in units of cost: more proves nothing and drowns in rounding."""


class Variant(NamedTuple):
    """What the program holds beside the routing; static, so every value compiles its own program.

    Attributes:
      sharp: the exact adversary.
      capped: a price of unmet shares above their cap.
    """

    sharp: bool
    capped: bool


def restrict_to_deployment(c: Coefficients, slot: Int[Array, " D"]) -> Coefficients:
    """Restrict a scenario's coefficients to a deployment: pairs are slots, of one degree each, all of them decided."""
    used, pair, degree = find_triples(slot, c.deploy.shape[1])
    slow = c.slowness[degree][None, :]
    zero = jnp.zeros((), c.deploy.dtype)

    def of_slots(values: Float[Array, "P N"]) -> Float[Array, "D 1"]:
        return jnp.where(used, values[pair, degree], zero)[:, None]

    return c._replace(
        deploy=of_slots(c.deploy),
        fits=(used & c.fits[pair, degree])[:, None],
        nominal=c.nominal[:, pair] * slow,
        excess=c.excess[:, pair] * slow,
        slowness=jnp.ones((1,), c.deploy.dtype),
        error=c.error[:, pair],
        error_excess=c.error_excess[:, pair],
        kv=c.kv[:, pair],
        room=of_slots(c.room),
        power=of_slots(c.power),
        most=jnp.where(used[None, :], c.most[:, pair, degree], zero)[:, :, None],
        weights=jnp.where(used, c.weights[pair], zero),
        decided=jnp.where(used, 1, -1).astype(jnp.int8)[:, None],
    )


def bound_any_cost(c: Coefficients) -> Float[Array, ""]:
    """Bound what any plan of a deployment can cost: budget, every type's largest worst delay, all penalties."""
    slowest = jnp.where(c.most[:, :, 0] > 0, c.nominal + c.excess, 0.0).max(1)
    return c.budget + (c.delay_weight * slowest).sum() + c.unmet_cost.sum()


def drop_costs(c: Coefficients, minimise_excess: Bool[Array, ""]) -> Coefficients:
    """Leave out the costs that do not count when only the excess over the unmet cap is minimised."""
    return c._replace(
        unmet_cost=jnp.where(minimise_excess, 0.0, c.unmet_cost),
        delay_weight=jnp.where(minimise_excess, 0.0, c.delay_weight),
    )


def build_recourse_lp(
    c: Coefficients,
    slot: Int[Array, " D"],
    allowed: Bool[Array, "I D"],
    minimise_excess: Bool[Array, ""],
    variant: Variant,
) -> RoutingLp:
    """Build the program of a deployment from coefficients of `restrict_to_deployment`.

    Args:
      minimise_excess: minimise what is unmet above the cap in place of cost, as the first phase of a simplex method
        does. Its prices, stretched, prove that it is positive. Without a cap nothing is in excess.
    """
    zero = jnp.zeros_like(c.gamma_delay)
    minimise_excess = minimise_excess if variant.capped else jnp.zeros_like(minimise_excess)
    nominal = c._replace(gamma_delay=zero, gamma_error=zero) if variant.sharp else c
    lp, fixed_cost, unit, by_load = build_routing_lp(nominal, slot, allowed)
    if variant.capped:
        closed = jnp.where(lp.own[:, 0] > 0, 0.0, 1.0)  # a closed route stays closed, whatever counts
        lp = lp._replace(
            cost=jnp.where(minimise_excess, closed, lp.cost),
            shortfall_cost=jnp.full(
                len(allowed), jnp.where(minimise_excess, 1.0, _ELASTIC * bound_any_cost(c) / unit)
            ),
        )
    if variant.sharp:
        lp = add_adversary(c, lp, jnp.where(minimise_excess, 0.0, c.delay_weight), unit)
    unit = jnp.where(minimise_excess, _STRETCH * bound_any_cost(c), unit)
    return RoutingLp(lp, fixed_cost, unit, by_load)


def read_recourse_multipliers(
    c: Coefficients, slot: Int[Array, " D"], solution: LpSolution, unit: Float[Array, ""], variant: Variant
) -> Multipliers:
    """Read multipliers of the deployment's dual off the program's prices."""
    y = read_multipliers(c, slot, solution, unit)
    most = _LARGEST * jnp.maximum(bound_any_cost(c), unit)
    if not variant.sharp:
        return _limit_promises(c, y, most)

    used = ((slot >= 0)[None, :] & (c.most[:, :, 0] > 0)).astype(y.error.dtype)
    delay, error = read_adversary(
        solution, unit, (c.delay_weight + y.delay, c.excess * used), (y.error, c.error_excess * used)
    )
    return _limit_promises(c, y, most)._replace(delay_adversary=delay, error_adversary=error)


def _limit_promises(c: Coefficients, y: Multipliers, most: Float[Array, ""]) -> Multipliers:
    """Scale the multipliers of a type's promises down to ``most``.

    They have no upper limit where a promise leaves a type no pair at all. Its demand is worth no more than its penalty
    where all of it may stay unmet.
    """
    size = y.delay * c.delay_limit + y.error * c.error_limit + (y.delay * c.nominal.max(1) + y.error)
    shrink = jnp.minimum(1.0, most / jnp.where(size > 0, size, 1.0))
    demand = jnp.where(c.unmet_cap >= 1.0, jnp.minimum(y.demand, c.unmet_cost), y.demand)
    return y._replace(demand=demand, delay=y.delay * shrink, error=y.error * shrink)
