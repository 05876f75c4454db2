"""Deployments to start the local search from, read off the ascent of the dual."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from solvers.dual import Ascended, Coefficients, least_by_pair, limit_shares_to_promises
from solvers.dual.coefficients import slow
from solvers.neighbours import Search
from solvers.route_limits import (
    MOST_GROUPED_TYPES,
    find_best_grouping,
    find_triples,
    price_groups,
    price_unserved,
)

_THRESHOLDS = (0.5, 0.2, 0.06)
"""Weights from which a pair is deployed: the dual's weights are fractions, and the right rounding is not known."""

_HOLDS = 0.75
"""Part of a fractional number of GPUs that a degree must have to hold it: the routing shifts the rest elsewhere."""


def propose_starts(
    c: Coefficients, ascended: Ascended, how: Search
) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Propose deployments, a row of slots each, and say what each costs at least, $ per period.

    A pair whose weights sum to a threshold is deployed, at its likeliest degree or at the smallest degree that holds
    its fractional number of GPUs. A further start deploys nothing. Where budgets are scarce, the same starts are also
    filled only as far as budget and storage go, and so are the triples that save most per $ of rent. Where routes are
    limited, the last start is of the best grouping of types with a single route.

    The dual function with a deployment fixed, at the multipliers of the ascent, is the least cost of that deployment.
    """
    slots, degrees = how.slots, c.deploy.shape[1]
    weight = ascended.weights.astype(c.base.dtype)  # P,N
    likeliest, holding = _choose_degrees(c, weight)
    pair_weight = jnp.where(c.fits.any(1), weight.sum(1), -1.0)
    pair_weight, pair = _pick_largest(pair_weight, slots)
    # Above an infinite threshold nothing is deployed: one start of that kind is enough.
    rules = [(least, degree) for least in (*_THRESHOLDS, jnp.inf) for degree in (likeliest, holding)][:-1]
    starts = jnp.stack(
        [
            jnp.where(pair_weight >= least, pair * degrees + degree[pair].astype(pair.dtype), -1)
            for least, degree in rules
        ]
    )
    if how.scarce:
        dense = _by_density(c, ascended, slots)[None].astype(starts.dtype)
        within = jax.vmap(partial(_fill_budget, c))(jnp.concatenate([starts[:-1], dense]))
        starts = jnp.concatenate([starts, within])
    if how.limited and len(c.base) <= MOST_GROUPED_TYPES:
        grouped = _group_types(c, ascended, slots)
        starts = jnp.concatenate([starts, grouped[None].astype(starts.dtype)])
    value = ascended.value.reshape(-1)
    own = jnp.where(starts < 0, 0.0, value[jnp.maximum(starts, 0)]).sum(1)
    return starts, ascended.bound - least_by_pair(c, ascended.value).sum() + own


def _fill_budget(c: Coefficients, slot: Int[Array, " D"]) -> Int[Array, " D"]:
    """Keep the triples, first ones first, whose rents and weights still go into budget and storage."""
    used, pair, degree = find_triples(slot, c.deploy.shape[1])
    rent, weights = jnp.where(used, c.deploy[pair, degree], 0.0), jnp.where(used, c.weights[pair], 0.0)

    def take(left: tuple[Array, Array], sizes: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        fits = (sizes[0] <= left[0]) & (sizes[1] <= left[1])
        after = tuple(jnp.where(fits, a - size, a) for a, size in zip(left, sizes, strict=True))
        return (after[0], after[1]), fits

    _, kept = jax.lax.scan(take, (c.budget, c.storage), (rent, weights))
    return jnp.where(kept, slot, -1)


def _by_density(c: Coefficients, ascended: Ascended, slots: int) -> Int[Array, " D"]:
    """Order pairs by what their best triple saves per $ of rent at the ascent's prices; the best ones, best first."""
    degrees = c.deploy.shape[1]
    density = jnp.where(c.fits, ascended.value / jnp.where(c.deploy > 0, c.deploy, 1.0), jnp.inf)
    best = jnp.argmin(density, axis=1)
    least, pair = _pick_largest(-density.min(1), slots)
    return jnp.where(jnp.isfinite(least), pair * degrees + best[pair].astype(pair.dtype), -1)


def _pick_largest(score: Float[Array, " P"], slots: int) -> tuple[Float[Array, " D"], Int[Array, " D"]]:
    """Pick the pairs of the largest scores, largest first; -inf where there are fewer pairs than slots."""
    largest, pair = jax.lax.top_k(jnp.pad(score, (0, slots), constant_values=-jnp.inf), slots)
    return largest, jnp.minimum(pair, len(score) - 1)


def _choose_degrees(
    c: Coefficients, weight: Float[Array, "P N"]
) -> tuple[Int[Array, " P"], Int[Array, " P"]]:
    """Choose each pair's likeliest degree, and its smallest one that holds its fractional number of GPUs."""
    one_gpu = jnp.where(c.power[:, :1] > 0, c.power[:, :1], 1.0)
    size = jnp.where(c.power > 0, c.power / one_gpu, 1.0)
    gpus = (weight * size).sum(1, keepdims=True)
    holds = (size >= _HOLDS * gpus) & c.fits
    likeliest = jnp.argmax(jnp.where(c.fits, weight, -1.0), axis=1)
    return likeliest, jnp.where(holds.any(1), jnp.argmax(holds, axis=1), likeliest)


def _group_types(c: Coefficients, ascended: Ascended, slots: int) -> Int[Array, " D"]:
    """Deploy what the best grouping of the types over all triples needs, rent included; single routes."""
    types, _, degrees = c.most.shape
    y, most = (
        ascended.multipliers,
        limit_shares_to_promises(c._replace(max_routes=jnp.ones_like(c.max_routes))),
    )
    budget = jnp.maximum(y.budget, 0.0).astype(c.base.dtype)
    storage = jnp.maximum(y.storage, 0.0).astype(c.base.dtype)
    ms = (c.nominal + jnp.minimum(c.gamma_delay, 1.0) * c.excess)[:, :, None] * slow(c)
    share_cost = (c.base * (1.0 + budget) - c.unmet_cost)[:, None, None] + c.delay_weight[:, None, None] * ms

    def take_part(demand: Array, supply: Array) -> Float[Array, "I T"]:
        part = jnp.where(supply > 0, demand / jnp.where(supply > 0, supply, 1.0), jnp.inf)
        return jnp.where((most > 0) & (demand > 0), part, 0.0).reshape(types, -1)

    places = [(c.kv[:, :, None], c.room[None]), (c.compute[:, None, None], c.power[None])]
    if c.rates is not None:
        places.append((c.rates.alone(), c.rates.room[None]))
    saved = price_groups(
        c,
        share_cost.reshape(types, -1),
        most.reshape(types, -1),
        [take_part(demand, supply) for demand, supply in places],
    )
    rent = (c.deploy * (1.0 + budget) + (storage * c.weights)[:, None]).reshape(-1)
    total = jnp.where(c.fits.reshape(-1)[:, None], saved + rent[:, None], jnp.inf)
    total = total.reshape(-1, degrees, 2**types)  # P,N,S
    least = jnp.where(
        jnp.asarray(np.arange(2**types) == 0)[None], 0.0, total.min(1)
    )  # nothing served, no rent
    group = find_best_grouping(jnp.concatenate([least, price_unserved(c)[None]]))[:-1]
    cost = jnp.take_along_axis(least, group[:, None], axis=1)[:, 0]
    degree = jnp.take_along_axis(jnp.argmin(total, axis=1), group[:, None], axis=1)[:, 0]
    triple = jnp.where(group > 0, jnp.arange(len(least)) * degrees + degree, -1)
    cost, triple = jnp.pad(cost, (0, slots)), jnp.pad(triple, (0, slots), constant_values=-1)
    return triple[jax.lax.top_k(-cost, slots)[1]]
