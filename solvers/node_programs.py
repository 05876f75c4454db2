"""The compiled programs that bound blocks of roots and nodes of brackets' trees (`solvers.bracket` calls them)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rodiu_jax.model.fields import SETTLED_MODE, Array, Fields
from rodiu_jax.model.scenario_blocks import of_settled
from rodiu_jax.model.tolerances import ABOVE_ANY_COST, PROOF_BAND
from rodiu_jax.runtime.kept_programs import kept_program
from solvers.dual import (
    FEASIBILITY_WEIGHT,
    Multipliers,
    Opening,
    Reach,
    ascend_and_certify,
    certify,
    cold_start,
    count_rent_alone,
    derive_coefficients,
    exclude_unaffordable,
    highest_cost,
    least_by_pair,
    lengthen_ray,
    scarce_start,
    widen_limits,
)
from solvers.neighbours import Search
from solvers.routing import find_shortfall, read_multipliers, route_deployment
from solvers.starts import propose_starts
from solvers.tree import rate_splits


class Bounded(NamedTuple):
    """What is found of a block of roots or nodes, a row each."""

    bound: Array  # $ per period, certified
    multipliers: Multipliers
    promise: Array  # of a split on each triple, as `solvers.tree.Nodes` has it
    starts: Any  # deployments read off the weights, (R,D) a row
    least: Any  # what they cost at least, (R,) a row
    floor: Any  # what every plan that deploys a triple costs at least, (P,N) a row
    decided: Any  # what was given, and what follows from it, (P,N) a row
    highest: Any  # what no plan of the scenario exceeds
    missed: Any  # as `solvers.dual.Ascended` has it


@of_settled
@kept_program("far")
def cold_starts(fields: Fields, *, far: bool) -> tuple[Multipliers, Opening | None]:
    """Multipliers to start roots from, and the opening where it is not cheap to find again."""

    def one(fields: Fields) -> tuple[Multipliers, Opening | None]:
        c = derive_coefficients(fields, SETTLED_MODE, serving=True)
        start = scarce_start(c) if far else (cold_start(c), None)
        return jax.tree.map(lambda a: a.astype(np.float32), start)

    return jax.vmap(one)(fields)


@of_settled
@kept_program("reach", "how")
def bound_nodes(
    fields: Fields,
    decided: Array,
    start: Multipliers,
    opening: Opening | None,
    weight: Array,
    *,
    controls: Array,
    reach: Reach,
    how: Search,
) -> Bounded:
    """Ascend (float32), costs weighed, and certify (float64) a block of nodes."""

    def one(
        fields: Fields, decided: Array, start: Multipliers, opening: Opening | None, weight: Array
    ) -> Bounded:
        c = exclude_unaffordable(
            derive_coefficients(fields, SETTLED_MODE, serving=True)._replace(decided=decided)
        )
        found = ascend_and_certify(c, start, reach, controls, opening, weight)
        starts, least = propose_starts(c, found, how)
        floor = found.bound - least_by_pair(c, found.value)[:, None] + found.value
        of_node = starts, least, floor, c.decided, highest_cost(c), found.missed
        # What is likeliest to be deployed leaves the least to others, if nothing but that counts.
        promise = jnp.where(weight < 1, found.weights.clip(0.0, 1.0), rate_splits(c, found.weights))
        return Bounded(found.bound, found.multipliers, promise, *of_node)

    return jax.vmap(one)(fields, decided, start, opening, weight)


@of_settled
@kept_program("known")
def bound_deployed(
    fields: Fields, decided: Array, slot: Array, *, iterations: Array, known: bool
) -> tuple[Array, Multipliers]:
    """Bound nodes whose deployed triples are ``slot``, by the prices of a routing: float32, certified in float64.

    Args:
      known: whether the deployments are known to have a routing; else the bound is that of `find_shortfall`.
    """

    def one(fields: Fields, decided: Array, slot: Array) -> tuple[Array, Multipliers]:
        c = exclude_unaffordable(
            derive_coefficients(fields, SETTLED_MODE, serving=True)._replace(decided=decided)
        )
        if known:
            found = route_deployment(c, slot, iterations, limited=False)
            y = read_multipliers(
                c, slot, found.solution, found.problem.unit, found.problem.by_load, found.short
            )
        else:
            y = find_shortfall(c, slot, iterations, highest_cost(c) / FEASIBILITY_WEIGHT)
        inside = (c.decided > 0).any(1)  # the adversary spends nothing where nothing can be deployed
        y = y._replace(
            delay_adversary=jnp.where(inside, y.delay_adversary, 0.0),
            error_adversary=jnp.where(inside, y.error_adversary, 0.0),
        )
        # Rounded for good: a compiler may take a conversion there and back for none.
        y = jax.tree.map(lambda a: jax.lax.reduce_precision(a, 8, 23).astype(jnp.float32), y)
        if not known:
            c = widen_limits(c, PROOF_BAND)
        return certify(c, jax.tree.map(lambda a: a.astype(jnp.float64), y))[0], y

    return jax.vmap(one)(fields, decided, slot)


@of_settled
@kept_program("reach")
def prove_infeasible(
    fields: Fields, *, controls: Array, reach: Reach
) -> tuple[Array, Multipliers, Opening | None]:
    """Whether the dual of the feasibility problem exceeds what any plan can cost, and the multipliers that prove it.

    And the opening of that problem, where nodes need it.
    """

    def one(fields: Fields) -> tuple[Array, Multipliers, Opening | None]:
        c = derive_coefficients(fields, SETTLED_MODE, serving=True)
        start, opening, weight = None, None, jnp.float32(FEASIBILITY_WEIGHT)
        if reach.far:
            start, opening = jax.tree.map(
                lambda a: a.astype(jnp.float32), scarce_start(count_rent_alone(c, FEASIBILITY_WEIGHT))
            )
            start = lengthen_ray(start, weight)
        found = ascend_and_certify(c, start, reach, controls, opening, weight)
        return found.bound > highest_cost(c) * (1.0 + ABOVE_ANY_COST), found.multipliers, opening

    return jax.vmap(one)(fields)
