"""The routing of a deployment: the linear program of the shares, its cheapest solution, and what its prices prove.

A deployment stands in D slots, each a triple's number (model K + gpu) N + degree, or -1 where the slot is empty. With
the deployment fixed, the cheapest routing is a small linear program, solved in float64 (`solvers.lp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from rodiu_jax.model.tolerances import REPLICA_ROUNDING
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
from solvers.worst_case_rows import add_adversary, read_adversary

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
    error; a slot's rows are memory and compute, and the load in some cases where there are rates; the common row is the
    budget.
    """

    lp: BlockLp
    fixed_cost: Float[Array, ""]  # $ per period: rent and weights of the deployment, all types unserved
    unit: Float[Array, ""]  # $ per period
    # Of options whose number of replicas is open: $ per period that the replicas of a slot's load cost; else 0.
    by_load: Float[Array, " D"]


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
    short: Float[Array, "V I D"] | None = None  # cases of chi that were priced, where there are rates

    @property
    def share(self) -> Float[Array, "I D"]:
        """Shares; 0 in empty slots and closed routes."""
        slots = self.problem.lp.slot.shape[2]
        return jnp.where(self.problem.lp.own[:, 0] > 0, self.solution.x, 0.0)[:, :slots]


def divide_by_limit(values: Array, limit: Array) -> Array:
    """Divide values by their limit, or leave them as they are where it is 0."""
    return values / jnp.where(limit > 0, limit, 1.0)


def build_routing_lp(
    c: Coefficients,
    slot: Int[Array, " D"],
    allowed: Bool[Array, "I D"],
    short: Float[Array, "V I D"] | None = None,
    room: Float[Array, " D"] | float = 1.0,
) -> RoutingLp:
    """Build the routing program of a deployment, every row scaled by its limit.

    The adversary's worst case is taken as min(1, Gamma) times the plain sum of the excesses. That is exact when no type
    uses more than Gamma pairs, and never too small.

    Replicas of an option of several numbers of them are paid for in proportion to the load that they carry.

    Args:
      allowed: the routes that may be used.
      short: parts of each shortfall of a rate that come true, in V cases that each slot must bear, where there are
        rates; ``room``, the part of its rates that each slot may use.
    """
    types = len(allowed)
    used, pair, degree = find_triples(slot, c.deploy.shape[1])
    ms = (c.nominal + jnp.minimum(c.gamma_delay, 1.0) * c.excess)[:, pair]
    ms = ms * (c.slowness[degree][None, :] if c.slowness.ndim == 1 else c.slowness[:, pair, degree])
    errors = (c.error + jnp.minimum(c.gamma_error, 1.0) * c.error_excess)[:, pair]
    free, power = jnp.where(used, c.room[pair, degree], 0.0), jnp.where(used, c.power[pair, degree], 0.0)
    rent = jnp.where(used, c.deploy[pair, degree], 0.0)  # D
    loads = [
        divide_by_limit(c.kv[:, pair], free[None]),
        divide_by_limit(c.compute[:, None], power[None]),
    ]
    if c.rates is not None:
        rate = jnp.where(used, c.rates.room[pair, degree], 0.0)
        cases = c.rates.load[:, pair, degree][None] + short * c.rates.excess[:, pair, degree][None]
        loads += list(divide_by_limit(cases, (rate * room)[None, None]))
    by_load = jnp.zeros_like(rent)
    if c.options is not None:
        replicas = rent - jnp.where(used, c.options.hold[pair], 0.0)
        by_load = jnp.where(c.options.least[pair, degree] < 1.0, replicas, 0.0)
    paid = by_load[None] * _use(loads)
    rent = (rent - by_load).sum()
    unit = jnp.maximum(c.unmet_cost.sum(), _NO_MONEY)

    open_route = allowed & used[None, :] & (c.most[:, pair, degree] > 0)
    is_open = open_route.astype(ms.dtype)
    served = c.base[:, None] + c.delay_weight[:, None] * ms - c.unmet_cost[:, None]
    cost = jnp.where(open_route, served + paid, unit)

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
        slot=jnp.stack([load * is_open for load in loads]) + (1.0 - is_open)[None],
        common=divide_by_limit((c.base[:, None] + paid) * is_open, c.budget),
        common_limit=divide_by_limit(c.budget - rent, c.budget),
    )
    return RoutingLp(lp, rent + c.unmet_cost.sum(), unit, by_load)


def find_shortfall(
    c: Coefficients, slot: Int[Array, " D"], iterations: Int[Array, ""] | int, unit: Float[Array, ""]
) -> Multipliers:
    """Find multipliers that prove by how much every routing of a deployment falls short of what must be served.

    The routing program with shares that cost nothing and served parts below 1 - unmet cap that cost 1 always has a
    solution. Where its optimum is s > 0 the deployment has no routing, and the dual value of the multipliers, the
    prices of its rows times ``unit``, is near s ``unit``.

    Args:
      unit: $, of a type that falls short altogether.
    """
    everywhere = jnp.ones((len(c.base), len(slot)), bool)
    found = _solve_serving(c, slot, everywhere, iterations, short_at_cost=True)
    return read_multipliers(c, slot, found.solution, unit, found.problem.by_load, found.short)


def _allow_shortfall(problem: RoutingLp) -> RoutingLp:
    """Let types fall short at a cost of 1 each, which is the only cost but that of closed routes."""
    lp = problem.lp
    closed = lp.own[:, 0, : lp.slot.shape[2]] == 0  # I,D
    beyond = lp.cost.shape[1] - closed.shape[1]  # columns of the adversary
    cost = jnp.pad(closed.astype(lp.cost.dtype), ((0, 0), (0, beyond)))
    limit = jnp.maximum(lp.common_limit, 0.0)  # rents take more than the budget by rounding alone
    lp = lp._replace(cost=cost, common_limit=limit, shortfall_cost=jnp.ones_like(lp.floor))
    return problem._replace(lp=lp)


def route_deployment(
    c: Coefficients, slot: Int[Array, " D"], iterations: Int[Array, ""] | int, *, limited: bool
) -> Routing:
    """Find the cheapest routing of a deployment.

    Args:
      iterations: of the interior point; pass an array, so that another number compiles nothing.
      limited: whether ``max_routes`` counts. Then the program is solved once without that limit, and again for each
        choice of routes of `_choose_routes`; the cheapest of these is the answer.
    """

    solve = _solve_serving if has_serving(c) else _solve

    def attempt(allowed: Bool[Array, "I D"]) -> _Attempt:
        return solve(c, slot, allowed, iterations)

    free = attempt(jnp.ones((len(c.base), len(slot)), bool))
    if limited:
        attempts = jax.vmap(attempt)(_choose_routes(c, slot, free.problem, free.solution))
    else:
        attempts = jax.tree.map(lambda a: a[None], free)
    # a leading axis of attempts
    settled = attempts.problem.unit * attempts.error <= _ACCURACY * jnp.abs(attempts.cost)
    used, pair, _ = find_triples(slot, c.deploy.shape[1])
    too_heavy = jnp.where(used, c.weights[pair], 0.0).sum() > c.storage
    settled &= attempts.fits | (iterations >= THOROUGH_ITERATIONS)  # rounding may have added a replica
    costs = jnp.where(settled & attempts.fits & ~too_heavy, attempts.cost, jnp.inf)
    best = jnp.argmin(costs)
    chosen = jax.tree.map(lambda a: a[best], attempts)
    return Routing(costs[best], settled.all() | too_heavy, chosen.solution, chosen.problem, chosen.short)


class _Attempt(NamedTuple):
    """A routing program, its solution, by how much its cost may be off in the program's unit, and its cost, $."""

    problem: RoutingLp
    solution: LpSolution
    error: Float[Array, ""]
    cost: Float[Array, ""]
    fits: Bool[Array, ""]  # so many replicas keep every limit
    short: Float[Array, "V I D"] | None


def _use(loads: Sequence[Float[Array, "I D"]] | Float[Array, "Q I D"]) -> Float[Array, "I D"]:
    """Return the part of a slot's replicas that each type counts for, of memory, compute and cases of the load."""
    return sum(loads[3:], loads[2]) / (len(loads) - 2) if len(loads) > 2 else loads[0]


def _solve(
    c: Coefficients, slot: Int[Array, " D"], allowed: Bool[Array, "I D"], iterations: Int[Array, ""] | int
) -> _Attempt:
    problem = build_routing_lp(c, slot, allowed)
    solution, error = interior_point(problem.lp, iterations)
    cost = problem.fixed_cost + problem.unit * (problem.lp.cost * solution.x).sum((0, 1))
    return _Attempt(problem, solution, error, cost, jnp.asarray(True), None)


_CASES = 3
"""Cases of the shortfalls that each slot of a routing must bear: each is the worst one of the routing before."""

_LITTLE = 0.1
"""Part of its rates by which a slot may be overloaded in a case that is not among these; its rates are cut by so much
in the last pass."""


class _Loads(NamedTuple):
    """Loads of types served whole in the slots of a deployment, replicas; see `solvers.dual.coefficients.Rates`."""

    load: Float[Array, "I D"]
    excess: Float[Array, "I D"]
    room: Float[Array, " D"]
    gamma: Float[Array, ""]

    def find_worst(self, share: Float[Array, "I D"]) -> Float[Array, "I D"]:
        """Find the shortfalls that are worst for a routing: of the largest extra loads of each slot."""
        extra = self.excess * share
        larger = extra[None] > extra[:, None]
        first = np.tri(len(extra), k=-1, dtype=bool)[:, :, None]
        before = (larger | ((extra[None] == extra[:, None]) & first)).sum(1)
        return jnp.clip(self.gamma - before.astype(extra.dtype), 0.0, 1.0)

    def sum_at(self, share: Float[Array, "I D"], case: Float[Array, "I D"]) -> Float[Array, " D"]:
        """Sum the load of each slot in a case, as a part of its room."""
        return divide_by_limit(((self.load + case * self.excess) * share).sum(0), self.room)


def _solve_serving(
    c: Coefficients,
    slot: Int[Array, " D"],
    allowed: Bool[Array, "I D"],
    iterations: Int[Array, ""] | int,
    *,
    short_at_cost: bool = False,
) -> _Attempt:
    """Route a deployment with rates, options or quotas; its cost is that of as many replicas as the routing needs.

    It does not fit where so many are not allowed, exceed a quota, or cost more than the budget.

    Args:
      short_at_cost: solve the program of `find_shortfall` instead; the attempt's cost then means nothing.
    """
    _, pair, degree = find_triples(slot, c.deploy.shape[1])
    sharp = len(slot) <= _SHARP_SLOTS
    nominal = c._replace(gamma_delay=jnp.zeros_like(c.gamma_delay), gamma_error=jnp.zeros_like(c.gamma_error))
    of_slots = c._replace(excess=_excess_of_slots(c, slot), error_excess=c.error_excess[:, pair])

    def build(short: Float[Array, "V I D"] | None, room: Float[Array, " D"] | float = 1.0) -> RoutingLp:
        found = build_routing_lp(nominal if sharp else c, slot, allowed, short, room)
        if sharp:
            found = found._replace(lp=add_adversary(of_slots, found.lp, c.delay_weight, found.unit))
        return _allow_shortfall(found) if short_at_cost else found

    if c.rates is None:
        problem = build(None)
        return _price_serving(c, slot, None, problem, *interior_point(problem.lp, iterations), None)

    rates = c.rates
    loads = _Loads(
        rates.load[:, pair, degree], rates.excess[:, pair, degree], rates.room[pair, degree], rates.gamma
    )

    def again(state: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], tuple]:
        solution, error = interior_point(build(*state).lp, iterations)
        short, _ = state
        share = jnp.where(allowed, solution.x[:, : len(slot)], 0.0)
        case = loads.find_worst(share)
        over = loads.sum_at(share, case)
        room = jnp.where((number == _CASES - 1) & (over < 1.0 + _LITTLE), 1.0 / jnp.maximum(over, 1.0), 1.0)
        return (short.at[number].set(case, mode="drop"), room), (solution, error, *state)

    # The first case is none of the worst: all shortfalls alike. One program in a loop is compiled once.
    evenly = jnp.ones_like(loads.excess) * jnp.minimum(loads.gamma / len(loads.excess), 1.0)
    start = jnp.stack([evenly] * _CASES), jnp.ones_like(loads.room)
    _, found = jax.lax.scan(again, start, jnp.arange(_CASES + 1))
    solution, error, short, room = jax.tree.map(lambda a: a[-1], found)
    return _price_serving(c, slot, loads, build(short, room), solution, error, short)


def _price_serving(
    c: Coefficients,
    slot: Int[Array, " D"],
    loads: _Loads | None,
    problem: RoutingLp,
    solution: LpSolution,
    error: Float[Array, ""],
    short: Float[Array, "V I D"] | None,
) -> _Attempt:
    """Price a routing with the replicas that it needs."""
    used, pair, degree = find_triples(slot, c.deploy.shape[1])
    share = jnp.where(problem.lp.own[:, 0] > 0, solution.x, 0.0)[:, : len(slot)]
    parts = [
        divide_by_limit((c.kv[:, pair] * share).sum(0), c.room[pair, degree]),
        divide_by_limit((c.compute[:, None] * share).sum(0), c.power[pair, degree]),
    ]
    if loads is not None:
        parts.append(loads.sum_at(share, loads.find_worst(share)))
    part = jnp.stack(parts).max(0)  # D, of the replicas that a slot has at most
    rent = jnp.where(used, c.deploy[pair, degree], 0.0)
    replicas = jnp.ones_like(rent)  # needed over most
    fits = (~used | (part <= 1.0 + REPLICA_ROUNDING)).all()
    if c.options is not None:
        most, hold = c.options.most[pair, degree], jnp.where(used, c.options.hold[pair], 0.0)
        needed = jnp.maximum(jnp.ceil(part * most * (1.0 - REPLICA_ROUNDING)), 1.0)
        fits = (~used | (needed <= c.options.allowed[pair])).all()
        replicas = needed / most
        rent = hold + (rent - hold) * replicas
    spent = rent.sum() + (c.base[:, None] * share).sum()
    fits &= spent <= c.budget * (1.0 + REPLICA_ROUNDING)
    if c.quotas is not None:
        gpus = jnp.where(used, c.quotas.gpus[pair, degree] * replicas, 0.0)
        fits &= (
            (c.quotas.device[pair] * gpus[:, None]).sum(0) <= c.quotas.quota * (1.0 + REPLICA_ROUNDING)
        ).all()
    in_proportion = problem.by_load[None] * _use(problem.lp.slot)  # what the program took for replicas
    routed = problem.unit * (problem.lp.cost * solution.x).sum() - (in_proportion * share).sum()
    cost = rent.sum() + c.unmet_cost.sum() + routed
    return _Attempt(problem, solution, error, cost, fits, short)


def has_serving(c: Coefficients) -> bool:
    """True of scenarios with rates, options or quotas (MODEL section 9)."""
    return c.rates is not None or c.options is not None or c.quotas is not None


def knows_adversary(c: Coefficients, slots: int) -> bool:
    """True if routings over so many slots know the exact adversary of delays and errors."""
    return has_serving(c) and slots <= _SHARP_SLOTS


_SHARP_SLOTS = 12
"""Slots up to which a fleet's routing knows the exact adversary of delays and errors: types spread over many pairs."""


def _excess_of_slots(c: Coefficients, slot: Int[Array, " D"]) -> Float[Array, "I D"]:
    """Return the largest deviation of the delay in each slot, ms, speed-up counted."""
    _, pair, degree = find_triples(slot, c.deploy.shape[1])
    return c.excess[:, pair] * (
        c.slowness[degree][None] if c.slowness.ndim == 1 else c.slowness[:, pair, degree]
    )


def _choose_routes(
    c: Coefficients, slot: Int[Array, " D"], free: RoutingLp, solution: LpSolution
) -> Bool[Array, "C I D"]:
    """Choose sets of routes within the limit, from the routing without it.

    The first set keeps the largest shares. With few types (`MOST_GROUPED_TYPES`) a second one gives each type its one
    route in the best grouping, and the largest shares beside it.
    """
    share, most = solution.x[:, : len(slot)], most_routes(c, len(slot))
    choices = [pick_largest_shares(share, most)]
    if len(c.base) <= MOST_GROUPED_TYPES:
        one = choose_single_routes(c, slot, free.lp, solution, free.unit)
        left = most - one.sum(1, keepdims=True).astype(most.dtype)
        choices.append(one | pick_largest_shares(jnp.where(one, -1.0, share), left))
    return jnp.stack(choices)


def read_multipliers(
    c: Coefficients,
    slot: Int[Array, " D"],
    solution: LpSolution,
    unit: Float[Array, ""],
    by_load: Float[Array, " D"] | float = 0.0,
    short: Float[Array, "V I D"] | None = None,
) -> Multipliers:
    """Read multipliers of the full dual (`solvers.dual`) off the prices of a routing's rows.

    Args:
      unit, by_load: those of the routing's `RoutingLp`; ``short`` as of `Routing`.
    """
    in_use, pair, degree = find_triples(slot, c.deploy.shape[1])
    used = in_use.astype(c.base.dtype)
    memory, compute, *more = (used * unit)[None] * solution.slot_price
    if c.rates is None:
        memory = memory + by_load
    triples = jnp.zeros_like(c.deploy)
    delay = divide_by_limit(unit * solution.own_price[:, 1], c.delay_limit)
    error = divide_by_limit(unit * solution.own_price[:, 2], c.error_limit)
    y = Multipliers(
        demand=c.unmet_cost - unit * (solution.own_price[:, 0] - solution.floor_price),
        delay=delay,
        error=error,
        budget=divide_by_limit(unit * solution.common_price, c.budget),
        storage=jnp.zeros_like(c.storage),
        memory=triples.at[pair, degree].add(divide_by_limit(memory, c.room[pair, degree])),
        compute=triples.at[pair, degree].add(divide_by_limit(compute, c.power[pair, degree])),
        delay_adversary=jnp.ones_like(c.nominal) * jnp.minimum(c.gamma_delay, 1.0),
        error_adversary=jnp.ones_like(c.nominal) * jnp.minimum(c.gamma_error, 1.0),
    )
    if not has_serving(c) and solution.own_price.shape[1] == 3:
        return y
    return y._replace(**_read_serving(c, slot, solution, unit, more, by_load, short, delay, error))


def _read_serving(
    c: Coefficients,
    slot: Int[Array, " D"],
    solution: LpSolution,
    unit: Float[Array, ""],
    price: Sequence[Float[Array, " D"]],
    by_load: Float[Array, " D"] | float,
    short: Float[Array, "V I D"] | None,
    eta: Float[Array, " I"],
    zeta: Float[Array, " I"],
) -> dict[str, Array]:
    """Read what rates, quotas and exact adversaries (`add_adversary`) add.

    Args:
      price: of the slots' rows of throughput, $, where there are any.
      eta, zeta: of the promises of delay and error.
    """
    used, pair, degree = find_triples(slot, c.deploy.shape[1])
    result = {}
    if solution.own_price.shape[1] > 3:
        open_route = (used[None] & (c.most[:, pair, degree] > 0)).astype(c.base.dtype)
        xi, psi = read_adversary(
            solution,
            unit,
            (c.delay_weight + eta, _excess_of_slots(c, slot) * open_route),
            (zeta, c.error_excess[:, pair] * open_route),
        )
        at = jnp.where(used, pair, len(c.deploy))  # beyond the end where a slot is empty: dropped
        spread = jnp.ones_like(c.nominal) / c.nominal.shape[1]
        result["delay_adversary"] = (spread * c.gamma_delay).at[:, at].set(xi, mode="drop")
        result["error_adversary"] = (spread * c.gamma_error).at[:, at].set(psi, mode="drop")
    if c.rates is not None and short is not None:
        types = len(c.base)
        total = sum(price[1:], price[0])
        weight = jnp.stack(
            [jnp.where(total > 0, p / jnp.where(total > 0, total, 1.0), 1.0 / len(price)) for p in price]
        )
        mean = (weight[:, None] * short).sum(0)  # I,D
        each = jnp.where(used, divide_by_limit(total + by_load, c.rates.room[pair, degree]), 0.0)
        result["throughput"] = jnp.zeros_like(c.deploy).at[pair, degree].add(each)
        chi = jnp.ones((*c.deploy.shape, types), c.base.dtype) * jnp.minimum(c.rates.gamma / types, 1.0)
        at = jnp.where(used, pair, len(c.deploy)), degree  # beyond the end where a slot is empty: dropped
        result["load_adversary"] = chi.at[at].set(mean.T, mode="drop")
    if c.quotas is not None:
        result["quota"] = jnp.zeros_like(c.quotas.quota)
    return result
