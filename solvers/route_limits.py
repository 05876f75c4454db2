"""Routes of each type where ``max_routes`` limits their number: the largest shares, or the best grouping of types.

With one route a type, a plan sends every set of types to one place each. For up to `MOST_GROUPED_TYPES` types all
S = 2^I sets are priced at every place, and dynamic programming finds the cheapest way to part the types among the
places. A set is a number, whose bit i says whether type i is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from solvers.dual import Coefficients
from solvers.lp.program import BlockLp, LpSolution

MOST_GROUPED_TYPES = 8
"""Most query types whose sets are enumerated: each place takes 4^I additions."""

_SLACK = 1e-9
"""Rounding that is forgiven: a promise of a single route, scaled by its limit, and an unmet share above its cap."""


class Triples(NamedTuple):
    """What slots hold; an empty slot has pair 0 and degree 0."""

    used: Bool[Array, " D"]
    pair: Int[Array, " D"]
    degree: Int[Array, " D"]


def find_triples(slot: Int[Array, " D"], degrees: int) -> Triples:
    """Take slots apart into pair and degree."""
    return Triples(slot >= 0, jnp.maximum(slot, 0) // degrees, jnp.maximum(slot, 0) % degrees)


def most_routes(c: Coefficients, slots: int) -> Float[Array, ""]:
    """Count the routes that a type may have at most over D slots."""
    return jnp.where(c.max_routes > 0, c.max_routes, float(slots))


def pick_largest_shares(share: Float[Array, "I D"], count: Array) -> Bool[Array, "I D"]:
    """Pick the ``count`` largest shares of each type, of equal ones the first."""
    order = jnp.arange(share.shape[1])
    first = order[None, :] < order[:, None]
    before = (share[:, None, :] > share[:, :, None]) | (
        (share[:, None, :] == share[:, :, None]) & first[None]
    )
    return before.sum(-1).astype(share.dtype) < count


def list_groups(types: int) -> Bool[np.ndarray, "S I"]:
    """List all sets of types, as rows of who is in them."""
    return (np.arange(2**types)[:, None] >> np.arange(types)) & 1 > 0


def find_best_grouping(cost: Float[Array, "D S"]) -> Int[Array, " D"]:
    """Find the set of types for each place that costs least in sum, each type at exactly one place.

    ``least[s]`` is the least cost of sending the types of set s to the places so far; a further place takes any subset
    t of s and leaves s without t to those before.
    """
    sets = cost.shape[1]
    order = np.arange(sets, dtype=np.int32)
    is_subset = jnp.asarray((order[:, None] & order[None, :]) == order[None, :])
    rest = jnp.asarray(order[:, None] ^ order[None, :])  # set s without its subset t

    def add_place(least: Array, here: Array) -> tuple[Array, Array]:
        total = jnp.where(is_subset, least[rest] + here[None, :], jnp.inf)
        return total.min(1), jnp.argmin(total, axis=1).astype(jnp.int32)

    none = jnp.where(jnp.asarray(order) == 0, 0.0, jnp.inf).astype(cost.dtype)
    _, choices = jax.lax.scan(add_place, none, cost)  # choices (D,S): the subset that each place takes

    def trace_back(remaining: Array, choice: Array) -> tuple[Array, Array]:
        return remaining ^ choice[remaining], choice[remaining]

    return jax.lax.scan(trace_back, jnp.asarray(order[-1]), choices, reverse=True)[1]


def price_groups(
    c: Coefficients,
    share_cost: Float[Array, "I D"],
    most: Float[Array, "I D"],
    loads: Sequence[Float[Array, "I D"]],
) -> Float[Array, "D S"]:
    """Price each set of types at each place, against leaving its types unserved; $ per period.

    A set that does not fit is served in part, all its types alike. The price is inf where a type has no open route.

    Args:
      share_cost: $ that serving a type whole costs more than leaving it unserved (usually negative).
      most: largest share that the place can carry.
      loads: part of the place's memory, compute and rates that the whole type takes.
    """
    types = len(share_cost)
    member = jnp.asarray(list_groups(types).astype(np.float64), share_cost.dtype)  # S,I
    load = jnp.stack([member @ each for each in loads]).max(0)
    part = 1.0 / jnp.maximum(load, 1.0)
    breaks_cap = 1.0 - part > c.unmet_cap + _SLACK
    penalty = jnp.where(breaks_cap, c.unmet_cost.sum() * member.sum(1, keepdims=True), 0.0)
    closed = member @ (most <= 0).astype(share_cost.dtype) > 0
    return jnp.where(closed, jnp.inf, part * (member @ share_cost) + penalty).T


def price_unserved(c: Coefficients) -> Float[Array, " S"]:
    """Price each set of types that nobody serves, beside its unmet cost: nothing where all may stay unmet."""
    count = jnp.asarray(list_groups(len(c.base)).sum(1).astype(np.float64), c.base.dtype)
    return jnp.where(c.unmet_cap >= 1.0, 0.0, c.unmet_cost.sum() * count)


def choose_single_routes(
    c: Coefficients, slot: Int[Array, " D"], lp: BlockLp, solution: LpSolution, unit: Float[Array, ""]
) -> Bool[Array, "I D"]:
    """Choose one route a type by the grouping that costs least at the budget's price; none for an unserved type.

    Args:
      lp, solution, unit: the deployment's routing program without a limit of routes (`solvers.routing`), solved.
    """
    _, pair, degree = find_triples(slot, c.deploy.shape[1])
    slots = len(slot)  # columns and rows beyond are the adversary's
    is_open, promises = lp.own[:, 0, :slots], lp.own[:, 1:3, :slots]
    share_cost = (lp.cost[:, :slots] + lp.common * solution.common_price) * unit
    keeps_promises = (promises <= _SLACK).all(1).astype(is_open.dtype)
    most = c.most[:, pair, degree] * is_open * keeps_promises
    places = price_groups(c, share_cost, most, list(lp.slot * is_open[None]))
    groups = find_best_grouping(jnp.concatenate([places, price_unserved(c)[None]]))[:-1]
    return jnp.asarray(list_groups(len(c.base)))[groups].T
