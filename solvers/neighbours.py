"""The local search's moves: deployments near a given one, and what each costs at least.

The prices of a deployment's routing price every triple of the catalogue: V (P,N) of `solvers.dual.certify`. At these
prices the dual value of a deployment is a constant plus the sum of its triples' V, so a move changes it by the V of
what comes less the V of what goes, and that value is a floor under the cost of the new deployment.

Each kind of move is a function of `Surroundings` that returns deployments and changes of the dual value. Example:
of N = 2 degrees, pair 0 (triples 0 and 1) is deployed at its larger one, and one of two slots is empty.

    slot = [1, -1],  V = [[-2, -5], [-1, 3], ...]    own = [-5, 0],  the best further triple is 2, of V = -1

    resize  [0, -1]: -2 - -5 = 3          a degree down        [-1, -1]: 5    gone
    add     [1, 2]: -1                    a further triple
    swap    [2, -1]: -1 - -5 = 4          another pair in its place
    split   [0, 2]: 3 - 1 = 2             a degree down, together with a further triple

The search would route [1, 2] first. A move that does not exist (here a degree up) is the deployment itself, at inf.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from solvers.dual import Coefficients, certify, promise
from solvers.routing import knows_adversary, read_multipliers, route_deployment

_POOL = 8
"""Pairs, the cheapest by amortised cost, from which further triples are taken: optimal plans of the default catalogue
deploy 2 to 4 of its 60 pairs."""


class MoveCounts(NamedTuple):
    """How many moves of each kind a round of the search looks at.

    Attributes:
      resized: one triple a degree up, a degree down, or gone.
      added: a further triple.
      swapped: another pair in the place of one.
      split: further triples, each of which is put beside each triple made a degree smaller.
    """

    resized: int = 8
    added: int = 4
    swapped: int = 6
    split: int = 4


class Search(NamedTuple):
    """How plans are looked for; static, so every value compiles its own program.

    Attributes:
      slots: most pairs a plan may deploy.
      moves: moves looked at in a round.
      iterations: interior-point iterations of a candidate's routing; one that they do not settle gets
        `solvers.routing.THOROUGH_ITERATIONS`.
      limited: whether any scenario limits routes.
      scarce: whether starts are also cut to the budget and the storage.
    """

    slots: int = 6
    moves: MoveCounts = MoveCounts()
    iterations: int = 9
    limited: bool = False
    scarce: bool = False


class Surroundings(NamedTuple):
    """A deployment and what may be changed about it.

    Attributes:
      slot: triples deployed, -1 where a slot is empty.
      own: their V, 0 of an empty slot.
      value: V of all triples, inf where the weights do not fit.
      further: the best triples of other pairs, cheapest first; ``further_value`` their V, inf where there are no more.
      degrees: N; the degrees of a pair are neighbouring triples.
      ranged: whether they are options (`solvers.options`).
    """

    slot: Int[Array, " D"]
    own: Float[Array, " D"]
    value: Float[Array, " T"]
    further: Int[Array, " M"]
    further_value: Float[Array, " M"]
    degrees: int
    ranged: bool = False

    @property
    def empty(self) -> Bool[Array, " D"]:
        """Say which slots are empty."""
        return self.slot < 0


def find_neighbours(
    c: Coefficients, slot: Int[Array, " D"], iterations: Int[Array, ""] | int, how: Search
) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Find deployments near ``slot`` and say what each costs at least, $ per period, to the routing's precision.

    A deployment that cannot be routed has no prices: of its neighbours nothing is known, and each costs at least -inf.
    """
    pairs = jnp.asarray(float(c.nominal.shape[1]), c.base.dtype)
    counted = c
    if not knows_adversary(c, len(slot)):
        counted = c._replace(gamma_delay=pairs, gamma_error=pairs)  # every pair deviates
    rank = promise(c)
    pool = rank <= -jax.lax.top_k(-rank, min(_POOL, len(rank)))[0][-1]
    routing = route_deployment(c, slot, iterations, limited=False)
    problem = routing.problem
    y = read_multipliers(c, slot, routing.solution, problem.unit, problem.by_load, routing.short)
    cost, (_, value) = routing.cost, certify(counted, y)
    near, change = propose_moves(c, slot, value, pool, how.moves)
    unknown = jnp.where(jnp.isfinite(change), -jnp.inf, jnp.inf)
    return near, jnp.where(jnp.isfinite(cost), cost + change, unknown)


def propose_moves(
    c: Coefficients,
    slot: Int[Array, " D"],
    value: Float[Array, "P N"],
    pool: Bool[Array, " P"],
    counts: MoveCounts,
) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Propose the most promising deployments near ``slot``, and the change of the dual value of each.

    Args:
      value: V at the prices of the present routing.
      pool: the pairs worth adding.
    """
    around = look_around(c, slot, value, pool, max(counts.added, counts.swapped, counts.split))
    moves = [
        resize(around, counts.resized),
        add(around, counts.added),
        swap(around, counts.swapped),
        split(around, counts.split),
    ]
    return jnp.concatenate([near for near, _ in moves]), jnp.concatenate([change for _, change in moves])


def look_around(
    c: Coefficients, slot: Int[Array, " D"], value: Float[Array, "P N"], pool: Bool[Array, " P"], most: int
) -> Surroundings:
    """Collect what the moves need; ``most`` further triples."""
    pairs, degrees = value.shape
    usable = jnp.where(c.fits, value, jnp.inf)
    empty = slot < 0
    own = jnp.where(empty, 0.0, value.reshape(-1)[jnp.maximum(slot, 0)])
    pair_of_slot = jnp.where(empty, -1, slot // degrees)
    deployed = (pair_of_slot[:, None] == jnp.arange(pairs, dtype=slot.dtype)[None]).any(0)  # P
    further = jnp.where((pool & ~deployed)[:, None], usable, jnp.inf).reshape(-1)
    least, triple = jax.lax.top_k(-further, min(most, len(further)))
    return Surroundings(
        slot, own, usable.reshape(-1), triple.astype(slot.dtype), -least, degrees, c.options is not None
    )


def resize(around: Surroundings, count: int) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Make one triple a degree larger or smaller, or take it away; where there are options, any other of the pair."""
    if around.ranged:
        return _replace_by_option(around, count)
    (smaller, shrunk), (larger, grown) = step_degree(around, -1), step_degree(around, 1)
    gone, removed = jnp.full_like(around.slot, -1), jnp.where(around.empty, jnp.inf, -around.own)
    return replace_one(
        around.slot, jnp.stack([smaller, larger, gone], 1), jnp.stack([shrunk, grown, removed], 1), count
    )


def _replace_by_option(around: Surroundings, count: int) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    slot, degrees = around.slot, around.degrees
    first = slot - slot % degrees
    other = first[:, None] + jnp.arange(degrees, dtype=slot.dtype)[None]  # D,N
    value = around.value[jnp.clip(other, 0, len(around.value) - 1)]
    exists = ~around.empty[:, None] & (other != slot[:, None])
    change = jnp.where(exists, value - around.own[:, None], jnp.inf)
    gone, removed = jnp.full_like(slot, -1), jnp.where(around.empty, jnp.inf, -around.own)
    new = jnp.concatenate([other, gone[:, None]], 1)
    return replace_one(slot, new, jnp.concatenate([change, removed[:, None]], 1), count)


def add(around: Surroundings, count: int) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Deploy a further triple in the first empty slot."""
    first_empty = around.empty & (jnp.cumsum(around.empty.astype(jnp.int32)) == 1)
    change = jnp.where(first_empty[:, None], around.further_value[None], jnp.inf)
    return replace_one(around.slot, jnp.broadcast_to(around.further[None], change.shape), change, count)


def swap(around: Surroundings, count: int) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Deploy a further triple in the place of another."""
    change = jnp.where(around.empty[:, None], jnp.inf, around.further_value[None] - around.own[:, None])
    return replace_one(around.slot, jnp.broadcast_to(around.further[None], change.shape), change, count)


def split(around: Surroundings, further: int) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Make each triple a degree smaller, with each of so many further ones in the first empty slot; K = D x further."""
    slot, (smaller, shrunk) = around.slot, step_degree(around, -1)
    extra, extra_value = around.further[:further], around.further_value[:further]
    order = jnp.arange(len(slot), dtype=slot.dtype)
    one_smaller = jnp.where(order[:, None] == order[None, :], smaller[:, None], slot[None, :])  # D,D
    first_empty = order == jnp.argmax(around.empty).astype(slot.dtype)
    near = jnp.where(first_empty[None, None, :], extra[None, :, None], one_smaller[:, None, :])
    near = near.reshape(-1, len(slot))
    change = jnp.where(around.empty.any(), shrunk[:, None] + extra_value[None, :], jnp.inf).reshape(-1)
    return jnp.where(jnp.isfinite(change)[:, None], near, slot[None, :]), change


def step_degree(around: Surroundings, step: int) -> tuple[Int[Array, " D"], Float[Array, " D"]]:
    """Move each triple's degree by ``step``, and say by how much its V changes; inf where there is no such degree."""
    slot, degrees = around.slot, around.degrees
    moved = slot + step
    exists = ~around.empty & (slot % degrees + step >= 0) & (slot % degrees + step < degrees)
    value = around.value[jnp.clip(moved, 0, len(around.value) - 1)]
    return moved, jnp.where(exists, value - around.own, jnp.inf)


def replace_one(
    slot: Int[Array, " D"], new: Int[Array, "D C"], change: Float[Array, "D C"], count: int
) -> tuple[Int[Array, "K D"], Float[Array, " K"]]:
    """Replace one slot by one of its C choices: the ``count`` deployments with the least change."""
    least, chosen = jax.lax.top_k(-change.reshape(-1), min(count, change.size))
    which, triple = chosen // change.shape[1], new.reshape(-1)[chosen]
    here = jnp.arange(len(slot), dtype=which.dtype)[None, :] == which[:, None]  # K,D
    near = jnp.where(here & jnp.isfinite(least)[:, None], triple[:, None], slot[None, :])
    return near, -least
