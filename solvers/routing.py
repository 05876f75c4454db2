"""The routing of a deployment: the linear program of the shares, its cheapest solution, and what its prices prove.

A deployment stands in D slots, each a triple's number (model K + gpu) N + degree, or -1 where the slot is empty. With
the deployment fixed, the cheapest routing is a small linear program, solved in float64 (`solvers.lp`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from solvers.dual import Coefficients, Multipliers
from solvers.lp.interior import interior_point
from solvers.lp.program import BlockLp, LpSolution
from solvers.route_limits import (
    MOST_GROUPED_TYPES,
    choose_single_routes,
    find_triples,
    most_routes,
    pick_largest_shares,
)

THOROUGH_ITERATIONS = 25
"""Interior-point iterations that settle a routing."""

_ACCURACY = 1e-5
"""A candidate's cost counts when it is known to this, relative: the search ignores smaller gains, and the plan made in
the end is the independent checker's to judge."""

_NO_MONEY = 1e-300
"""Stands for the unit of cost where nothing unserved costs anything, so that nothing is divided by 0."""


class RoutingLp(NamedTuple):
    """A deployment's routing program. A routing costs ``fixed_cost`` + ``unit`` times the program's value.

    Columns are the shares x (I,D). Own rows of a type are its demand (at most 1, and at least 1 - unmet cap), delay and
    error; a slot's two rows are memory and compute; the common row is the budget.
    """

    lp: BlockLp
    fixed_cost: Float[Array, ""]  # $ per period: rent and weights of the deployment, all types unserved
    unit: Float[Array, ""]  # $ per period


class Routing(NamedTuple):
    """The cheapest routing of a deployment.

    Attributes:
      cost: $ per period; inf where no routing was found, or the weights exceed the storage.
      settled: True if every routing program attempted converged to a relative accuracy of 1e-5. If False, run more
        iterations before trusting ``cost``.
    """

    cost: Float[Array, ""]
    settled: Bool[Array, ""]
    solution: LpSolution
    problem: RoutingLp

    @property
    def share(self) -> Float[Array, "I D"]:
        """Shares; 0 in empty slots and closed routes."""
        return jnp.where(self.problem.lp.own[:, 0] > 0, self.solution.x, 0.0)


def divide_by_limit(values: Array, limit: Array) -> Array:
    """Divide values by their limit, or leave them as they are where it is 0."""
    return values / jnp.where(limit > 0, limit, 1.0)


def build_routing_lp(c: Coefficients, slot: Int[Array, " D"], allowed: Bool[Array, "I D"]) -> RoutingLp:
    """Build the routing program of a deployment, every row scaled by its limit.

    The adversary's worst case is taken as min(1, Gamma) times the plain sum of the excesses. That is exact when no type
    uses more than Gamma pairs, and never too small.

    Args:
      allowed: the routes that may be used.
    """
    types = len(allowed)
    used, pair, degree = find_triples(slot, c.deploy.shape[1])
    ms = (c.nominal + jnp.minimum(c.gamma_delay, 1.0) * c.excess)[:, pair] * c.slowness[degree][None, :]
    errors = (c.error + jnp.minimum(c.gamma_error, 1.0) * c.error_excess)[:, pair]
    room, power = jnp.where(used, c.room[pair, degree], 0.0), jnp.where(used, c.power[pair, degree], 0.0)
    rent = jnp.where(used, c.deploy[pair, degree], 0.0).sum()
    unit = jnp.maximum(c.unmet_cost.sum(), _NO_MONEY)

    open_route = allowed & used[None, :] & (c.most[:, pair, degree] > 0)
    is_open = open_route.astype(ms.dtype)
    cost = jnp.where(open_route, c.base[:, None] + c.delay_weight[:, None] * ms - c.unmet_cost[:, None], unit)

    def promise_row(values: Array, limit: Array) -> Array:
        """sum values x <= limit sum x, as (values / limit - 1) x <= 0."""
        return is_open * (divide_by_limit(values, limit[:, None]) - (limit > 0).astype(ms.dtype)[:, None])

    one, zero = jnp.ones(types, ms.dtype), jnp.zeros(types, ms.dtype)
    lp = BlockLp(
        cost=cost / unit,
        own=jnp.stack([is_open, promise_row(ms, c.delay_limit), promise_row(errors, c.error_limit)], 1),
        own_limit=jnp.stack([one, zero, zero], 1),
        floor=one * (1.0 - c.unmet_cap),
        # The share of a closed route costs one unit and serves nobody, so it is 0. It fills the slot's rows only
        # because the interior point needs every column bounded.
        slot=jnp.stack(
            [divide_by_limit(c.kv[:, pair], room[None]), divide_by_limit(c.compute[:, None], power[None])]
        )
        * is_open[None]
        + (1.0 - is_open)[None],
        common=divide_by_limit(c.base[:, None] * is_open, c.budget),
        common_limit=divide_by_limit(c.budget - rent, c.budget),
    )
    return RoutingLp(lp, rent + c.unmet_cost.sum(), unit)


def route_deployment(
    c: Coefficients, slot: Int[Array, " D"], iterations: Int[Array, ""] | int, *, limited: bool
) -> Routing:
    """Find the cheapest routing of a deployment.

    Args:
      iterations: of the interior point; pass an array, so that another number compiles nothing.
      limited: whether ``max_routes`` counts. Then the program is solved once without that limit, and again for each
        choice of routes of `_choose_routes`; the cheapest of these is the answer.
    """

    def solve(allowed: Bool[Array, "I D"]) -> tuple[RoutingLp, LpSolution, Array]:
        problem = build_routing_lp(c, slot, allowed)
        return problem, *interior_point(problem.lp, iterations)

    free = solve(jnp.ones((len(c.base), len(slot)), bool))
    if limited:
        attempts = jax.vmap(solve)(_choose_routes(c, slot, free[0], free[1]))
    else:
        attempts = jax.tree.map(lambda a: a[None], free)
    problems, solutions, errors = attempts  # a leading axis of attempts
    costs = problems.fixed_cost + problems.unit * (problems.lp.cost * solutions.x).sum((1, 2))
    settled = problems.unit * errors <= _ACCURACY * jnp.abs(costs)
    used, pair, _ = find_triples(slot, c.deploy.shape[1])
    too_heavy = jnp.where(used, c.weights[pair], 0.0).sum() > c.storage
    costs = jnp.where(settled & ~too_heavy, costs, jnp.inf)
    best = jnp.argmin(costs)
    problem, solution = jax.tree.map(lambda a: a[best], (problems, solutions))
    return Routing(costs[best], settled.all() | too_heavy, solution, problem)


def _choose_routes(
    c: Coefficients, slot: Int[Array, " D"], free: RoutingLp, solution: LpSolution
) -> Bool[Array, "C I D"]:
    """Choose sets of routes within the limit, from the routing without it.

    The first set keeps the largest shares. With few types (`MOST_GROUPED_TYPES`) a second one gives each type its one
    route in the best grouping, and the largest shares beside it.
    """
    share, most = solution.x, most_routes(c, len(slot))
    choices = [pick_largest_shares(share, most)]
    if len(c.base) <= MOST_GROUPED_TYPES:
        one = choose_single_routes(c, slot, free.lp, solution, free.unit)
        left = most - one.sum(1, keepdims=True).astype(most.dtype)
        choices.append(one | pick_largest_shares(jnp.where(one, -1.0, share), left))
    return jnp.stack(choices)


def read_multipliers(
    c: Coefficients, slot: Int[Array, " D"], solution: LpSolution, unit: Float[Array, ""]
) -> Multipliers:
    """Read multipliers of the full dual (`solvers.dual`) off the prices of a routing's rows.

    Args:
      unit: that of the routing's `RoutingLp`.
    """
    in_use, pair, degree = find_triples(slot, c.deploy.shape[1])
    used = in_use.astype(c.base.dtype)
    memory, compute = (used * unit)[None] * solution.slot_price
    triples = jnp.zeros_like(c.deploy)
    return Multipliers(
        demand=c.unmet_cost - unit * (solution.own_price[:, 0] - solution.floor_price),
        delay=divide_by_limit(unit * solution.own_price[:, 1], c.delay_limit),
        error=divide_by_limit(unit * solution.own_price[:, 2], c.error_limit),
        budget=divide_by_limit(unit * solution.common_price, c.budget),
        storage=jnp.zeros_like(c.storage),
        memory=triples.at[pair, degree].add(divide_by_limit(memory, c.room[pair, degree])),
        compute=triples.at[pair, degree].add(divide_by_limit(compute, c.power[pair, degree])),
        delay_adversary=jnp.ones_like(c.nominal) * jnp.minimum(c.gamma_delay, 1.0),
        error_adversary=jnp.ones_like(c.nominal) * jnp.minimum(c.gamma_error, 1.0),
    )
