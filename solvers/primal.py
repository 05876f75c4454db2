"""Plans in batch: upper bounds on the device.

A plan is a deployment (a set of triples, held in D slots) and a routing. For a fixed deployment the routing is a
small linear program, solved in float64 (`solvers.interior`).
The deployment is found by local search: the routing's dual prices every triple of the catalogue (`dual.certify`),
so the cost of any deployment S' that replaces one triple is estimated, from below, by the current dual value plus
the difference of V; those that might be cheaper are routed and the best one kept (`solvers.bracket`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rodiu_jax.model.fields import Array
from solvers.dual import (
    Ascended,
    Coefficients,
    Multipliers,
    certify,
    least_by_pair,
    limit_shares_to_promises,
    promise,
)
from solvers.interior import Point, Program, interior_point


class Routing(NamedTuple):
    """The routing of a deployment: ``program`` over shares x (I,D), whose cost is ``money`` times that, plus ``fixed``.

    Own rows of a type are demand <= 1, delay and error; each slot's are memory and compute; all share the budget.
    """

    program: Program
    fixed: Array
    money: Array


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
    types = len(allowed)
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

    def promised(values: Array, limit: Array) -> Array:
        return on * (_per(values, limit[:, None]) - (limit > 0).astype(ms.dtype)[:, None])

    one, none = jnp.ones(types, ms.dtype), jnp.zeros(types, ms.dtype)
    program = Program(
        cost=cost / money,
        own=jnp.stack([on, promised(ms, c.delay_limit), promised(errors, c.error_limit)], 1),
        limit=jnp.stack([one, none, none], 1),
        least=one * (1.0 - c.unmet_cap),
        # A closed cell's share costs, carries nothing, and is bounded all the same: the interior point needs that.
        slot=jnp.stack([_per(c.kv[:, pair], room[None]), _per(c.compute[:, None], power[None])]) * on[None]
        + (1.0 - on)[None],
        whole=_per(c.base[:, None] * on, c.budget),
        left=_per(c.budget - fixed, c.budget),
    )
    return Routing(program, fixed + c.unmet_cost.sum(), money)


class Routed(NamedTuple):
    """Cost of the cheapest routing found, $ per period, inf where there is none; the point and what it solves.

    ``sure``: whether all that was tried is known to `_SURE` (relative); more iterations would tell otherwise.
    """

    cost: Array
    sure: Array
    point: Point
    routing: Routing

    @property
    def share(self) -> Array:
        """Shares (I,D); 0 in empty slots and closed cells."""
        return jnp.where(self.routing.program.own[:, 0] > 0, self.point.x, 0.0)


def route_cost(c: Coefficients, slot: Array, iterations: Array, limited: bool) -> Routed:
    """Route the triples in ``slot`` at the least cost.

    Args:
      iterations: of the interior point; data, if an array.
      limited: whether ``max_routes`` holds: the routing is solved once freely, then on the routes with the largest
        shares and, of up to `_GROUPED` types, on one route each by the best grouping with the largest shares beside
        it; the cheaper counts.
    """
    types, slots = len(c.base), len(slot)

    def solved(allowed: Array) -> tuple[Routing, Point, Array]:
        routed = routing(c, slot, allowed)
        return routed, *interior_point(routed.program, iterations)

    free = solved(jnp.ones((types, slots), bool))
    if limited:
        share, most = free[1].x, most_routes(c, slots)
        choices = [largest_shares(share, most)]
        if types <= _GROUPED:
            one = _single_routes(c, slot, free[0], free[1])
            left = most - one.sum(1, keepdims=True).astype(most.dtype)
            choices.append(one | largest_shares(jnp.where(one, -1.0, share), left))
        tried = jax.vmap(solved)(jnp.stack(choices))
    else:
        tried = jax.tree.map(lambda a: a[None], free)
    routed, point, off = tried
    costs = routed.fixed + routed.money * (routed.program.cost * point.x).sum((1, 2))
    settled = routed.money * off <= _SURE * jnp.abs(costs)
    heavy = jnp.where(slot >= 0, c.weights[jnp.maximum(slot, 0) // c.deploy.shape[1]], 0.0).sum() > c.storage
    costs = jnp.where(settled & ~heavy, costs, jnp.inf)
    best = jnp.argmin(costs)
    routed, point = jax.tree.map(lambda a: a[best], (routed, point))
    return Routed(costs[best], settled.all() | heavy, point, routed)


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


def _single_routes(c: Coefficients, slot: Array, routing: Routing, point: Point) -> Array:
    """The one route of each type (I,D) in the grouping that costs least at the budget's price; none if unserved."""
    program, degrees = routing.program, c.deploy.shape[1]
    pair, degree = jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees
    open_cell, promises = program.own[:, 0], program.own[:, 1:]
    price = (program.cost + program.whole * point.whole) * routing.money
    alone = (promises <= 1e-9).all(1).astype(open_cell.dtype)
    most = c.most[:, pair, degree] * open_cell * alone
    places = _grouped_cost(c, price, most, *(program.slot * open_cell[None]))
    taken = _best_grouping(jnp.concatenate([places, _unserved(c)[None]]))[:-1]
    return jnp.asarray(_groups(len(c.base)))[taken].T


def _grouped_deployment(c: Coefficients, found: Ascended, slots: int) -> Array:
    """The deployment (D,) of the best grouping of the types over all triples, rent included; single routes."""
    types, _, degrees = c.most.shape
    y, most = found.multipliers, limit_shares_to_promises(c._replace(max_routes=jnp.ones_like(c.max_routes)))
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


def prices(c: Coefficients, slot: Array, point: Point, money: Array) -> Multipliers:
    """The multipliers of the full dual that the routing's prices are; ``money`` as in `Routing`."""
    degrees = c.deploy.shape[1]
    used = (slot >= 0).astype(c.base.dtype)
    pair, degree = jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees
    memory, compute = (used * money)[None] * point.slot
    triples = jnp.zeros_like(c.deploy)
    return Multipliers(
        demand=c.unmet_cost - money * (point.own[:, 0] - point.least),
        delay=_per(money * point.own[:, 1], c.delay_limit),
        error=_per(money * point.own[:, 2], c.error_limit),
        budget=_per(money * point.whole, c.budget),
        storage=jnp.zeros_like(c.storage),
        memory=triples.at[pair, degree].add(_per(memory, c.room[pair, degree])),
        compute=triples.at[pair, degree].add(_per(compute, c.power[pair, degree])),
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
    pairs, degrees = value.shape
    worth = jnp.where(c.fits, value, jnp.inf)
    empty = slot < 0
    own = jnp.where(empty, 0.0, value.reshape(-1)[jnp.maximum(slot, 0)])
    here = jnp.where(empty, -1, slot // degrees)[:, None] == jnp.arange(pairs, dtype=slot.dtype)[None]
    further = jnp.where((pool & ~here.any(0))[:, None], worth, jnp.inf).reshape(-1)
    most = min(max(tried.added, tried.swapped, tried.split), len(further))
    score, extra = jax.lax.top_k(-further, most)
    score, extra = -score, extra.astype(slot.dtype)

    def sized(step: int) -> tuple[Array, Array]:
        """Each triple with its degree moved by ``step``, and the change; the degrees of a pair are neighbours."""
        moved = slot + step
        within = ~empty & (slot % degrees + step >= 0) & (slot % degrees + step < degrees)
        there = worth.reshape(-1)[jnp.clip(moved, 0, len(further) - 1)]
        return moved, jnp.where(within, there - own, jnp.inf)

    def among(new: Array, change: Array, count: int) -> tuple[Array, Array]:
        """The best of slots by choices (D,C): the deployments with that triple in that slot."""
        score, chosen = jax.lax.top_k(-change.reshape(-1), min(count, change.size))
        which, which_new = chosen // change.shape[1], jnp.broadcast_to(new, change.shape).reshape(-1)[chosen]
        at = jnp.arange(len(slot), dtype=which.dtype)[None, :] == which[:, None]
        moved = jnp.where(at & jnp.isfinite(score)[:, None], which_new[:, None], slot[None, :])
        return moved, -score

    (smaller, shrunk), (larger, grown) = sized(-1), sized(1)
    gone = jnp.full_like(slot, -1), jnp.where(empty, jnp.inf, -own)
    resized = jnp.stack([smaller, larger, gone[0]], 1), jnp.stack([shrunk, grown, gone[1]], 1)
    first_empty = empty & (jnp.cumsum(empty.astype(jnp.int32)) == 1)
    moves = [
        among(*resized, tried.resized),
        among(extra[None], jnp.where(first_empty[:, None], score[None], jnp.inf), tried.added),
        among(extra[None], jnp.where(empty[:, None], jnp.inf, score[None] - own[:, None]), tried.swapped),
        _split(slot, smaller, shrunk, extra[: tried.split], score[: tried.split]),
    ]
    return jnp.concatenate([m for m, _ in moves]), jnp.concatenate([change for _, change in moves])


def _split(slot: Array, smaller: Array, change: Array, extra: Array, score: Array) -> tuple[Array, Array]:
    """Each triple made ``smaller``, with each of the triples ``extra``; changes of V as above."""
    order = jnp.arange(len(slot), dtype=slot.dtype)
    moved = jnp.where(order[:, None] == order[None, :], smaller[:, None], slot[None, :])
    first_empty = order == jnp.argmax(slot < 0).astype(slot.dtype)
    moved = jnp.where(first_empty[None, None, :], extra[None, :, None], moved[:, None, :])
    both = jnp.where((slot < 0).any(), change[:, None] + score[None, :], jnp.inf).reshape(-1)
    moved = moved.reshape(-1, len(slot))
    return jnp.where(jnp.isfinite(both)[:, None], moved, slot[None, :]), both


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


def neighbours(c: Coefficients, slot: Array, iterations: Array, how: Search) -> tuple[Array, Array]:
    """Deployments near ``slot`` (K,D) and what each costs at least (K,), in $ per period; one instance.

    The routing's dual prices the whole catalogue. At these prices the dual value of a neighbour differs by the V of
    what it changes, and that value is below the cost of its routing, to the routing's precision.
    """
    pairs = jnp.asarray(float(c.nominal.shape[1]), c.base.dtype)
    roomy = c._replace(gamma_delay=pairs, gamma_error=pairs)  # as the routing counts: every pair may deviate
    rank = promise(c)
    pool = rank <= -jax.lax.top_k(-rank, min(_POOL, len(rank)))[0][-1]
    cost, _, point, routed = route_cost(c, slot, iterations, limited=False)
    _, value = certify(roomy, prices(c, slot, point, routed.money))
    near, change = _neighbours(c, slot, value, pool, how.tried)
    unknown = jnp.where(jnp.isfinite(change), -jnp.inf, jnp.inf)  # of a deployment that cannot be routed
    return near, jnp.where(jnp.isfinite(cost), cost + change, unknown)
