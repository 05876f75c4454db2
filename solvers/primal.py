"""Plans in batch: upper bounds on the device.

A plan is a deployment (a set of triples, held in D slots) and a routing. For a fixed deployment the routing is a
small linear program, solved by a primal-dual interior-point method in float64 (Mehrotra 1992), batched by vmap.
The deployment is found by local search: the routing's dual prices every triple of the catalogue (`dual.certify`),
so the cost of any deployment S' that replaces one triple is estimated, from below, by the current dual value plus
the difference of V; those that might be cheaper are routed and the best one kept (`solvers.bracket`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rodiu_jax.instance import Array
from solvers.dual import Ascended, Coefficients, Multipliers, certify, least_by_pair, promise, within_promises


class Routing(NamedTuple):
    """The routing program of a deployment: min cost @ x + fixed over G x <= h, x >= 0; x = shares (I,D) flat.

    Money is divided by ``money``. The rows of G are demand <= 1, demand >= 1 - cap (I each), memory, compute
    (D each), delay, error (I each) and budget.
    """

    cost: Array
    rows: Array
    limit: Array
    fixed: Array
    money: Array


class Point(NamedTuple):
    """Primal shares x and slacks s, multipliers of the rows and of x >= 0."""

    x: Array
    slack: Array
    price: Array
    bound: Array


def _per(values: Array, limit: Array) -> Array:
    """values / limit, or the values themselves where the limit is 0."""
    return values / jnp.where(limit > 0, limit, 1.0)


def routing(c: Coefficients, slot: Array, allowed: Array) -> Routing:
    """The routing program over the triples in ``slot`` (D,), -1 where a slot is empty.

    The worst case is taken as min(1, Gamma) times the plain sum of the excesses, which is exact when no type
    uses more than Gamma pairs and never too small.

    Args:
      allowed: bool (I,D), the routes that may be used.
    """
    degrees = c.deploy.shape[1]
    types, slots = allowed.shape
    used = slot >= 0
    pair, degree = jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees
    ms = (c.nominal + jnp.minimum(c.gamma_delay, 1.0) * c.excess)[:, pair] * c.slowness[degree][None, :]
    errors = (c.error + jnp.minimum(c.gamma_error, 1.0) * c.error_excess)[:, pair]
    room, power = jnp.where(used, c.room[pair, degree], 0.0), jnp.where(used, c.power[pair, degree], 0.0)
    fixed = jnp.where(used, c.deploy[pair, degree], 0.0).sum()
    open_cell = allowed & used[None, :] & (c.most[:, pair, degree] > 0)
    money = jnp.maximum(c.unmet_cost.sum(), 1e-300)

    on = open_cell.astype(ms.dtype)
    cost = jnp.where(open_cell, c.base[:, None] + c.delay_weight[:, None] * ms - c.unmet_cost[:, None], money)
    of_type, of_slot = jnp.eye(types, dtype=ms.dtype), jnp.eye(slots, dtype=ms.dtype)

    def per_type(values: Array) -> Array:
        return (of_type[:, :, None] * values[None]).reshape(types, types * slots)

    def per_slot(values: Array) -> Array:
        return (of_slot[:, None, :] * values[None]).reshape(slots, types * slots)

    def kept(limit: Array) -> Array:
        return (limit > 0).astype(ms.dtype)

    closed = 1.0 - on  # a closed cell gets a bounded dummy share, which costs and carries nothing
    delay_limit, error_limit = c.delay_limit[:, None], c.error_limit[:, None]
    rows = jnp.concatenate(
        [
            per_type(on),
            per_type(-on),
            per_slot(_per(c.kv[:, pair], room[None]) * on + closed),
            per_slot(_per(jnp.broadcast_to(c.compute[:, None], ms.shape), power[None]) * on + closed),
            per_type(on * (_per(ms, delay_limit) - kept(delay_limit))),
            per_type(on * (_per(errors, error_limit) - kept(error_limit))),
            _per(c.base[:, None] * on, c.budget).reshape(1, -1),
        ]
    )
    one = jnp.ones(types, ms.dtype)
    limit = jnp.concatenate(
        [
            one,
            one * (c.unmet_cap - 1.0),
            jnp.ones(2 * slots, ms.dtype),
            jnp.zeros(2 * types, ms.dtype),
            _per(c.budget - fixed, c.budget)[None],
        ]
    )
    return Routing(cost.reshape(-1) / money, rows, limit, fixed + c.unmet_cost.sum(), money)


def interior_point(program: Routing, iterations: int | Array) -> tuple[Point, Array]:
    """Mehrotra's predictor-corrector from an infeasible start; stops moving when complementarity is 1e-13.

    Returns:
      the last point, and by how much its cost may be off: complementarity plus the residuals of G x + s = h at their
      prices.
    """
    cost, rows, limit = program.cost, program.rows, program.limit
    count = rows.shape[0] + rows.shape[1]
    start = Point(
        jnp.full_like(cost, 0.3),
        jnp.maximum(limit - 0.3 * rows.sum(1), 0.3),
        jnp.full_like(limit, 0.1),
        jnp.full_like(cost, 0.1),
    )

    def longest(value: Array, move: Array) -> Array:
        falls = move < 0
        return jnp.min(jnp.where(falls, -value / jnp.where(falls, move, -1.0), 1.0), initial=1.0)

    def iterate(_: Array, p: Point) -> Point:
        dual_residual = cost + rows.T @ p.price - p.bound
        primal_residual = rows @ p.x + p.slack - limit
        gap = (p.slack @ p.price + p.x @ p.bound) / count
        curvature = (rows.T * (p.price / p.slack)[None, :]) @ rows + jnp.diag(p.bound / p.x)
        factor = jnp.linalg.cholesky(curvature + 1e-13 * jnp.eye(len(cost), dtype=cost.dtype))

        def direction(on_rows: Array, on_bounds: Array) -> Point:
            target = rows.T @ ((on_rows - p.price * primal_residual) / p.slack)
            x = jax.scipy.linalg.cho_solve((factor, True), target - dual_residual - on_bounds / p.x)
            slack = -primal_residual - rows @ x
            price = -(on_rows + p.price * slack) / p.slack
            return Point(x, slack, price, -(on_bounds + p.bound * x) / p.x)

        def lengths(move: Point) -> tuple[Array, Array]:
            primal = jnp.minimum(longest(p.x, move.x), longest(p.slack, move.slack))
            return primal, jnp.minimum(longest(p.price, move.price), longest(p.bound, move.bound))

        guess = direction(p.slack * p.price, p.x * p.bound)
        primal, dual = lengths(guess)
        ahead = (p.slack + primal * guess.slack) @ (p.price + dual * guess.price)
        ahead += (p.x + primal * guess.x) @ (p.bound + dual * guess.bound)
        centre = gap * (ahead / (count * gap)) ** 3
        move = direction(
            p.slack * p.price + guess.slack * guess.price - centre,
            p.x * p.bound + guess.x * guess.bound - centre,
        )
        primal, dual = lengths(move)
        finite = jnp.isfinite(move.x).all() & jnp.isfinite(move.price).all()
        primal = jnp.where(finite & (gap > 1e-13), 0.995 * primal, 0.0)
        dual = jnp.where(finite & (gap > 1e-13), 0.995 * dual, 0.0)

        def moved(value: Array, by: Array, length: Array) -> Array:
            return value + length * jnp.where(jnp.isfinite(by), by, 0.0)

        return Point(
            moved(p.x, move.x, primal),
            moved(p.slack, move.slack, primal),
            moved(p.price, move.price, dual),
            moved(p.bound, move.bound, dual),
        )

    p = jax.lax.fori_loop(0, iterations, iterate, start)
    residual = jnp.abs(rows @ p.x + p.slack - limit)
    return p, p.slack @ p.price + p.x @ p.bound + residual @ p.price + residual.max()


class Routed(NamedTuple):
    """Cost of the cheapest routing found, $ per period, inf where there is none; the point and its program.

    ``sure``: whether all that was tried is known to `_SURE` (relative); more iterations would tell otherwise.
    """

    cost: Array
    sure: Array
    point: Point
    program: Routing


def route_cost(c: Coefficients, slot: Array, iterations: int | Array, limited: bool) -> Routed:
    """Route the triples in ``slot`` at the least cost.

    Args:
      iterations: of the interior point; data, if an array.
      limited: whether ``max_routes`` holds: the routing is solved once freely, then on the routes with the largest
        shares and, of up to `_GROUPED` types, on one route each by the best grouping with the largest shares beside
        it; the cheaper counts.
    """
    types, slots = len(c.base), len(slot)
    program = routing(c, slot, jnp.ones((types, slots), bool))
    point, error = interior_point(program, iterations)
    if limited:
        share = point.x.reshape(types, slots)
        most = most_routes(c, slots)
        choices = [largest_shares(share, most)]
        if types <= _GROUPED:
            one = _single_routes(c, slot, program, point)
            choices.append(
                one
                | largest_shares(
                    jnp.where(one, -1.0, share), most - one.sum(1, keepdims=True).astype(most.dtype)
                )
            )
        tried = []
        for routes in choices:
            program = routing(c, slot, routes)
            tried.append((program, *interior_point(program, iterations)))
    else:
        tried = [(program, point, error)]
    costs = jnp.stack([p.fixed + p.money * (p.cost @ at.x) for p, at, _ in tried])
    settled = jnp.stack([p.money * off for p, _, off in tried]) <= _SURE * jnp.abs(costs)
    heavy = jnp.where(slot >= 0, c.weights[jnp.maximum(slot, 0) // c.deploy.shape[1]], 0.0).sum() > c.storage
    costs = jnp.where(settled & ~heavy, costs, jnp.inf)
    best = jnp.argmin(costs)
    if limited:
        program, point, _ = jax.tree.map(lambda *a: jnp.stack(a)[best], *tried)
    return Routed(costs[best], settled.all() | heavy, point, program)


def most_routes(c: Coefficients, slots: int) -> Array:
    """Most routes of a type over D slots."""
    return jnp.where(c.max_routes > 0, c.max_routes, float(slots))


def largest_shares(share: Array, count: Array) -> Array:
    """Mask of the ``count`` largest shares (I,D) of each type, the first of equals."""
    order = jnp.arange(share.shape[1])
    first = order[None, :] < order[:, None]
    before = (share[:, None, :] > share[:, :, None]) | (
        (share[:, None, :] == share[:, :, None]) & first[None]
    )
    return before.sum(-1).astype(share.dtype) < count


_GROUPED = 8
"""Most query types whose groupings are enumerated."""


def _groups(types: int) -> np.ndarray:
    """bool (2^I, I): every set of types, by its bits."""
    return (np.arange(2**types)[:, None] >> np.arange(types)) & 1 > 0


def _best_grouping(cost: Array) -> Array:
    """Which set of types goes to each place (D,), all of them to some place, at the least sum of ``cost`` (D,2^I).

    Dynamic programming over the sets that the first d places hold: 4^I additions a place.
    """
    sets = cost.shape[1]
    order = np.arange(sets, dtype=np.int32)
    inside = jnp.asarray((order[:, None] & order[None, :]) == order[None, :])
    rest = jnp.asarray(order[:, None] ^ order[None, :])  # of set s without its subset t

    def place(least: Array, here: Array) -> tuple[Array, Array]:
        total = jnp.where(inside, least[rest] + here[None, :], jnp.inf)
        return total.min(1), jnp.argmin(total, axis=1).astype(jnp.int32)

    none = jnp.where(jnp.asarray(order) == 0, 0.0, jnp.inf).astype(cost.dtype)
    _, choice = jax.lax.scan(place, none, cost)

    def back(held: Array, best: Array) -> tuple[Array, Array]:
        return held ^ best[held], best[held]

    return jax.lax.scan(back, jnp.asarray(order[-1]), choice, reverse=True)[1]


def _grouped_cost(c: Coefficients, share_cost: Array, most: Array, kv: Array, work: Array) -> Array:
    """What each place (D) costs with each set of types, against leaving them unserved; (D,2^I), $ per period.

    A set that does not fit is served in part, all its types alike. inf where a type has no open route there.

    Args:
      share_cost, most, kv, work: (I,D) $ saved by a share (negative), its largest value, and what it takes of the
        memory and compute of the place, both relative.
    """
    types = len(share_cost)
    member = jnp.asarray(_groups(types).astype(np.float64), share_cost.dtype)  # S,I
    load = jnp.maximum(member @ kv, member @ work)
    part = 1.0 / jnp.maximum(load, 1.0)
    short = jnp.where(1.0 - part > c.unmet_cap + 1e-9, c.unmet_cost.sum() * member.sum(1, keepdims=True), 0.0)
    closed = member @ (most <= 0).astype(share_cost.dtype) > 0
    return jnp.where(closed, jnp.inf, part * (member @ share_cost) + short).T


def _unserved(c: Coefficients) -> Array:
    """What each set of types (2^I,) that nobody serves costs beside its penalty: nothing where that is allowed."""
    count = jnp.asarray(_groups(len(c.base)).sum(1).astype(np.float64), c.base.dtype)
    return jnp.where(c.unmet_cap >= 1.0, 0.0, c.unmet_cost.sum() * count)


def _single_routes(c: Coefficients, slot: Array, program: Routing, point: Point) -> Array:
    """The one route of each type (I,D) in the grouping that costs least at the budget's price; none if unserved."""
    types, slots, degrees = len(c.base), len(slot), c.deploy.shape[1]
    pair, degree = jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees
    shape = types, slots
    open_cell = program.rows[:types].sum(0).reshape(shape)  # 1 where a share is real
    memory = program.rows[2 * types : 2 * types + slots].sum(0).reshape(shape)
    work = program.rows[2 * types + slots : 2 * types + 2 * slots].sum(0).reshape(shape)
    price = (program.cost + program.rows[-1] * point.price[-1]).reshape(shape) * program.money
    promises = program.rows[2 * types + 2 * slots : 4 * types + 2 * slots].reshape(2, types, *shape)
    alone = (promises.sum(1) <= 1e-9).all(0).astype(open_cell.dtype)
    most = c.most[:, pair, degree] * open_cell * alone
    places = _grouped_cost(c, price, most, memory * open_cell, work * open_cell)
    taken = _best_grouping(jnp.concatenate([places, _unserved(c)[None]]))[:-1]
    return jnp.asarray(_groups(types))[taken].T


def _grouped_deployment(c: Coefficients, found: Ascended, slots: int) -> Array:
    """The deployment (D,) of the best grouping of the types over all triples, rent included; single routes."""
    types, _, degrees = c.most.shape
    y, most = found.multipliers, within_promises(c._replace(max_routes=jnp.ones_like(c.max_routes)))
    budget = jnp.maximum(y.budget, 0.0).astype(c.base.dtype)
    storage = jnp.maximum(y.storage, 0.0).astype(c.base.dtype)
    ms = (c.nominal + jnp.minimum(c.gamma_delay, 1.0) * c.excess)[:, :, None] * c.slowness[None, None]
    price = (c.base * (1.0 + budget) - c.unmet_cost)[:, None, None] + c.delay_weight[:, None, None] * ms

    def over(demand: Array, supply: Array) -> Array:
        relative = jnp.where(supply > 0, demand / jnp.where(supply > 0, supply, 1.0), jnp.inf)
        return jnp.where((most > 0) & (demand > 0), relative, 0.0).reshape(types, -1)

    saved = _grouped_cost(
        c,
        price.reshape(types, -1),
        most.reshape(types, -1),
        over(c.kv[:, :, None], c.room[None]),
        over(c.compute[:, None, None], c.power[None]),
    )
    rent = (c.deploy * (1.0 + budget) + (storage * c.weights)[:, None]).reshape(-1)
    total = jnp.where(c.fits.reshape(-1)[:, None], saved + rent[:, None], jnp.inf)
    total = total.reshape(-1, degrees, 2**types)
    least = jnp.where(jnp.asarray(np.arange(2**types) == 0)[None], 0.0, total.min(1))
    taken = _best_grouping(jnp.concatenate([least, _unserved(c)[None]]))[:-1]
    cost = jnp.take_along_axis(least, taken[:, None], axis=1)[:, 0]
    degree = jnp.take_along_axis(jnp.argmin(total, axis=1), taken[:, None], axis=1)[:, 0]
    triple = jnp.where(taken > 0, jnp.arange(len(least)) * degrees + degree, -1)
    cost, triple = jnp.pad(cost, (0, slots)), jnp.pad(triple, (0, slots), constant_values=-1)
    return triple[jax.lax.top_k(-cost, slots)[1]]


_SURE = 1e-5
"""A candidate's cost is known to this before it counts (the final plan is held to the checker)."""


def prices(c: Coefficients, slot: Array, point: Point, program: Routing) -> Multipliers:
    """The multipliers of the full dual that the routing's multipliers are."""
    types, slots, degrees = len(c.base), len(slot), c.deploy.shape[1]
    used = (slot >= 0).astype(c.base.dtype)
    pair, degree = jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees
    scaled = point.price * program.money
    at = [
        types,
        2 * types,
        2 * types + slots,
        2 * types + 2 * slots,
        3 * types + 2 * slots,
        4 * types + 2 * slots,
    ]
    upper, lower, memory, compute, delay, error, budget = jnp.split(scaled, at)

    triples = jnp.zeros_like(c.deploy)
    return Multipliers(
        demand=c.unmet_cost - upper + lower,
        delay=_per(delay, c.delay_limit),
        error=_per(error, c.error_limit),
        budget=_per(budget, c.budget)[0],
        storage=jnp.zeros_like(c.storage),
        memory=triples.at[pair, degree].add(used * _per(memory, c.room[pair, degree])),
        compute=triples.at[pair, degree].add(used * _per(compute, c.power[pair, degree])),
        delay_adversary=jnp.ones_like(c.nominal) * jnp.minimum(c.gamma_delay, 1.0),
        error_adversary=jnp.ones_like(c.nominal) * jnp.minimum(c.gamma_error, 1.0),
    )


_THRESHOLDS = (0.5, 0.2, 0.06)


def first_deployments(c: Coefficients, found: Ascended, how: Search) -> tuple[Array, Array]:
    """Deployments to start from, read off the dual's estimate of w: a row of slots per start, and its least cost.

    A pair whose weights sum above a threshold is deployed, at its likeliest degree or at the smallest degree that
    holds its fractional number of GPUs; a further start deploys nothing; where routes are limited, the last one is of
    the best grouping of types with a single route. The dual function of the problem with a
    deployment fixed, at the multipliers found, says what it costs at least.
    """
    weights, slots = found.weights.astype(c.base.dtype), how.slots
    degrees = weights.shape[1]
    one_gpu = jnp.where(c.power[:, :1] > 0, c.power[:, :1], 1.0)
    size = jnp.where(c.power > 0, c.power / one_gpu, 1.0)
    gpus = (weights * size).sum(1, keepdims=True)
    enough = (size >= 0.75 * gpus) & c.fits
    likeliest = jnp.argmax(jnp.where(c.fits, weights, -1.0), axis=1)
    holding = jnp.where(enough.any(1), jnp.argmax(enough, axis=1), likeliest)
    mass = jnp.where(c.fits.any(1), weights.sum(1), -1.0)
    mass, pair = jax.lax.top_k(jnp.pad(mass, (0, slots), constant_values=-1.0), slots)
    pair = jnp.minimum(pair, len(weights) - 1)  # of fewer pairs than slots
    starts = jnp.stack(
        [
            jnp.where(mass >= least, pair * degrees + degree[pair].astype(pair.dtype), -1)
            for least in (*_THRESHOLDS, jnp.inf)
            for degree in (likeliest, holding)
        ][:-1]
    )
    if how.limited and len(c.base) <= _GROUPED:
        starts = jnp.concatenate([starts, _grouped_deployment(c, found, slots)[None].astype(starts.dtype)])
    flat = found.value.reshape(-1)
    own = jnp.where(starts < 0, 0.0, flat[jnp.maximum(starts, 0)]).sum(1)
    return starts, found.bound - least_by_pair(c, found.value).sum() + own


class Tried(NamedTuple):
    """How many neighbours of each kind a round of the search looks at.

    ``resized``: one triple a degree up, a degree down, or gone; ``added``: a further triple; ``swapped``: another
    pair in the place of one; ``split``: each triple a degree down together with each of so many further ones.
    """

    resized: int = 8
    added: int = 4
    swapped: int = 6
    split: int = 4


_POOL = 8
"""Pairs, the cheapest by amortised cost, from which further ones are taken."""


def _neighbours(c: Coefficients, slot: Array, value: Array, pool: Array, tried: Tried) -> tuple[Array, Array]:
    """The most promising deployments near ``slot``, a row of slots each, and the change of the dual value (K,).

    Where there are too few the rest are ``slot`` itself, at an infinite change.

    Args:
      value: V (P,N) at the prices of the present routing: replacing t by t' changes the dual value by V' - V.
      pool: bool (P,), the pairs worth adding.
    """
    slots, degrees = len(slot), c.deploy.shape[1]
    flat = value.reshape(-1)
    triple = jnp.arange(len(flat), dtype=slot.dtype)
    empty = slot < 0
    own = jnp.where(empty, 0.0, flat[jnp.maximum(slot, 0)])
    change = jnp.where(c.fits.reshape(-1)[None, :], flat[None, :] - own[:, None], jnp.inf)
    here = jnp.where(empty, -1, slot // degrees)[:, None] == (triple // degrees)[None, :]
    wanted = pool[triple // degrees] & ~here.any(0)
    step = triple[None, :] - slot[:, None]  # the degrees of a pair are neighbours in the flat order
    first_empty = empty & (jnp.cumsum(empty.astype(jnp.int32)) == 1)
    resized = jnp.where(here & (jnp.abs(step) == 1), change, jnp.inf)
    dropped = jnp.where(empty, jnp.inf, -own)
    kinds = (
        jnp.concatenate([resized, dropped[:, None]], 1),
        jnp.where(first_empty[:, None] & wanted[None, :], change, jnp.inf),
        jnp.where(~empty[:, None] & wanted[None, :], change, jnp.inf),
    )
    moves, changes = [], []
    for kind, count in zip(kinds, tried[:3], strict=True):
        score, chosen = jax.lax.top_k(-kind.reshape(-1), min(count, kind.size))
        which, new = chosen // kind.shape[1], chosen % kind.shape[1]
        new = jnp.where(new == len(flat), -1, new).astype(slot.dtype)
        at = jnp.arange(slots, dtype=which.dtype)[None, :] == which[:, None]
        moved = jnp.where(at, new[:, None], slot[None, :])
        moves.append(jnp.where(jnp.isfinite(score)[:, None], moved, slot[None, :]))
        changes.append(-score)
    smaller = jnp.where(here & (step == -1), change, jnp.inf)
    further = jnp.where(wanted & c.fits.reshape(-1), flat, jnp.inf)
    split, score = _split(slot, smaller, further, tried.split)
    return jnp.concatenate([*moves, split]), jnp.concatenate([*changes, score])


def _split(slot: Array, smaller: Array, further: Array, count: int) -> tuple[Array, Array]:
    """Each triple made smaller, with each of the ``count`` best further triples; changes of V as above."""
    shrunk = jnp.argmin(smaller, axis=1).astype(slot.dtype)
    possible = jnp.isfinite(smaller.min(1))
    score, extra = jax.lax.top_k(-further, min(count, len(further)))
    order = jnp.arange(len(slot), dtype=slot.dtype)
    moved = jnp.where(order[:, None] == order[None, :], shrunk[:, None], slot[None, :])
    first_empty = order == jnp.argmax(slot < 0).astype(slot.dtype)
    extra = extra.astype(slot.dtype)
    moved = jnp.where(first_empty[None, None, :], extra[None, :, None], moved[:, None, :])
    good = possible[:, None] & jnp.isfinite(score)[None, :] & (slot < 0).any()
    moved = jnp.where(good[:, :, None], moved, slot[None, None, :]).reshape(-1, len(slot))
    change = jnp.where(good, smaller.min(1)[:, None] - score[None, :], jnp.inf)
    return moved.astype(slot.dtype), change.reshape(-1)


def best_shares(c: Coefficients, slot: Array, limited: bool) -> Array:
    """Shares (I,D) of the cheapest routing, to full precision; 0 in empty slots and closed cells."""
    _, _, point, program = route_cost(c, slot, THOROUGH, limited)
    share = point.x.reshape(len(c.base), len(slot))
    open_cell = program.rows[: len(c.base)].sum(0).reshape(share.shape) > 0
    return jnp.where(open_cell, share, 0.0)


THOROUGH = 25
"""Iterations that settle a routing."""


class Search(NamedTuple):
    """How plans are looked for; static, so every value compiles its own program.

    Attributes:
      slots: most pairs a plan may deploy.
      tried: neighbours looked at in a round.
      iterations: interior-point iterations of a candidate's routing; where they do not settle it, `THOROUGH`.
      limited: whether any scenario limits routes.
    """

    slots: int = 6
    tried: Tried = Tried()
    iterations: int = 9
    limited: bool = False


def neighbours(c: Coefficients, slot: Array, how: Search) -> tuple[Array, Array]:
    """Deployments near ``slot`` (K,D) and what each costs at least (K,), in $ per period; one instance.

    The routing's dual prices the whole catalogue. At these prices the dual value of a neighbour differs by the V of
    what it changes, and that value is below the cost of its routing, to the routing's precision.
    """
    pairs = jnp.asarray(float(c.nominal.shape[1]), c.base.dtype)
    roomy = c._replace(gamma_delay=pairs, gamma_error=pairs)  # as the routing counts: every pair may deviate
    rank = promise(c)
    pool = rank <= -jax.lax.top_k(-rank, min(_POOL, len(rank)))[0][-1]
    cost, _, point, program = route_cost(c, slot, THOROUGH, limited=False)
    _, value = certify(roomy, prices(c, slot, point, program))
    near, change = _neighbours(c, slot, value, pool, how.tried)
    unknown = jnp.where(jnp.isfinite(change), -jnp.inf, jnp.inf)  # of a deployment that cannot be routed
    return near, jnp.where(jnp.isfinite(cost), cost + change, unknown)
