"""Brackets in batch: a certified lower bound and a checked plan for every scenario, closed by branching.

Root: dual ascent (`solvers.dual`), then a plan by local search (`solvers.deployments`). Where the bracket is wider than
the target, a best-first branch and bound goes on over all open scenarios at once: in each round every open scenario
splits its weakest nodes on the triple whose estimated w is nearest to one half, and all children are bounded in one
batch, starting from their parent's multipliers. The rows never depend on which scenarios share a batch: a scenario's
rounds are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float64

from rodiu_jax.model.fields import SETTLED_MODE, Array, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.scenario_blocks import keep_on_device, of_settled, run_scenarios
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.tolerances import ABOVE_ANY_COST, CROSSED_BY_DEVICE, FLOOR_ROUNDING, OPTIMAL_GAP
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from solvers.answers import Answers, relative_gap
from solvers.deployments import Deployments, checked_plans
from solvers.dual import (
    Ascent,
    Multipliers,
    ascend_and_certify,
    cold_start,
    derive_coefficients,
    feasibility,
    least_by_pair,
)
from solvers.neighbours import Search
from solvers.starts import propose_starts
from solvers.tree import Nodes, Tree, keep_better


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
      root, node: the ascents at the root and at each node of the tree.
      search: how plans are looked for, in at most ``rounds`` rounds that route the ``routed`` most promising
        deployments of a scenario.
      tree_rounds: most rounds of branching; each splits a node of every open scenario, and twice as many after every
        ``doubling`` rounds, so that the few scenarios still open fill a block; after the first ``doubling`` rounds
        a node's ascent takes twice its steps.
      chunk: scenarios (or nodes) in a compiled block, 0 for what suits the device; another value is another program,
        last bits may differ.
    """

    root: Ascent = field(default_factory=Ascent)
    node: Ascent = field(default_factory=lambda: Ascent(steps=60, rate=0.05, warm=0.002))
    search: Search = field(default_factory=Search)
    rounds: int = 6
    routed: int = 18
    tree_rounds: int = 24
    doubling: int = 8
    chunk: int = 0


class _Bounded(NamedTuple):
    bound: Array
    multipliers: Multipliers
    weights: Array
    starts: Any  # deployments read off the weights, (R,D) a row
    least: Any  # what they cost at least, (R,) a row
    floor: Any  # what every plan that deploys a triple costs at least, (P,N) a row


@of_settled
@jax.jit
def _cold_starts(fields: Fields) -> Multipliers:
    def one(fields: Fields) -> Multipliers:
        start = cold_start(derive_coefficients(fields, SETTLED_MODE))
        return jax.tree.map(lambda a: a.astype(np.float32), start)

    return jax.vmap(one)(fields)


@of_settled
@partial(jax.jit, static_argnames=("pairs", "how"))
def _bound_nodes(
    fields: Fields,
    decided: Array,
    start: Multipliers,
    *,
    controls: Array,
    pairs: int,
    how: Search,
) -> _Bounded:
    """Ascend (float32) and certify (float64) a block of nodes."""

    def one(fields: Fields, decided: Array, start: Multipliers) -> _Bounded:
        c = derive_coefficients(fields, SETTLED_MODE)._replace(decided=decided)
        found = ascend_and_certify(c, start, pairs, controls)
        starts, least = propose_starts(c, found, how)
        floor = found.bound - least_by_pair(c, found.value)[:, None] + found.value
        return _Bounded(found.bound, found.multipliers, found.weights, starts, least, floor)

    return jax.vmap(one)(fields, decided, start)


@of_settled
@partial(jax.jit, static_argnames=("pairs",))
def _prove_infeasible(fields: Fields, *, controls: Array, pairs: int) -> Array:
    """Whether the dual of the feasibility problem exceeds what any plan can cost."""

    def one(fields: Fields) -> Array:
        exact, most = feasibility(derive_coefficients(fields, SETTLED_MODE))
        bound = ascend_and_certify(exact, None, pairs, controls).bound
        return bound > most * (1.0 + ABOVE_ANY_COST)

    return jax.vmap(one)(fields)


_EVERY = 10**6
"""Deployments routed a round where all that are looked at shall be."""


def brackets(
    instances: Instances, *, gap: float = 0.01, effort: Effort = Effort(), certificates: bool = False
) -> Answers:
    """Bracket every scenario's optimum, to a relative gap where branching gets there.

    Raises nothing for a bad scenario: its answer says ``ERROR`` and its neighbours are untouched. Scenarios with and
    without a limit of routes are searched apart, as other programs route them.

    Args:
      certificates: answers hold the leaves that prove the lower bounds.
    """
    batch = instances.as_batch()
    effort = replace(effort, chunk=effort.chunk or block_size("bracket").rows)
    limited = np.broadcast_to(np.asarray(batch.fields.max_routes) > 0, (batch.size,))  # B
    if limited.all() or not limited.any():
        return _brackets(batch, bool(limited.any()), gap, effort, certificates)
    rows = [np.flatnonzero(limited == kind) for kind in (False, True)]
    parts = [
        _brackets(batch.take(at), kind, gap, effort, certificates)
        for kind, at in zip((False, True), rows, strict=True)
    ]
    return Answers.concatenate(parts, names=batch.names).take(np.argsort(np.concatenate(rows)))


def _brackets(batch: Instances, limited: bool, gap: float, effort: Effort, certificates: bool) -> Answers:
    everyone = np.arange(batch.size)
    with jax.enable_x64(True):
        effort = replace(effort, search=effort.search._replace(limited=limited))
        if limited:  # the floors know no limit of routes, so they say little about what is promising
            effort = replace(effort, routed=_EVERY)
        placed = keep_on_device(batch)
        root = _bound_roots(batch, placed, effort)
        tree = _plant(root, effort, certificates)
        best = Deployments(
            batch.size, placed, effort.search, rounds=effort.rounds, routed=effort.routed, chunk=effort.chunk
        )
        best.offer(everyone, root.starts, root.least)
        best.improve(tree.lower(), gap, everyone)
        infeasible = _infeasible(placed, best, effort)
        tree.close(infeasible[tree.open.scenario])
        _branch(placed, tree, best, gap, effort)
        plans = checked_plans(batch, placed, best.slot, effort.search, effort.chunk)
    lower = np.where(infeasible, math.inf, tree.lower())  # B
    tree.close(np.ones(len(tree.open.scenario), bool))
    broken = ~np.isfinite(lower) & ~infeasible
    broken |= lower > plans.upper + CROSSED_BY_DEVICE * np.maximum(np.abs(plans.upper), 1.0)
    plans = plans.without(broken)
    lower = np.where(broken, -math.inf, np.minimum(lower, plans.upper))
    status = _statuses(lower, plans.upper, infeasible, gap)
    status[broken] = Status.ERROR
    # `certify` allows for rounding only in the triples of the minimum; the margin covers the others' floors.
    promising = ~(root.floor > (plans.upper + FLOOR_ROUNDING * np.abs(plans.upper))[:, None, None])
    return Answers(
        batch.names,
        status,
        np.full(batch.size, Prover.BRACKET, np.int8),
        lower=lower,
        upper=plans.upper,
        certified=lower,
        costs=plans.costs,
        slots=plans.slots,
        shares=plans.shares,
        unmet=plans.unmet,
        nodes=tree.nodes,
        steps=tree.steps,
        seconds=np.full(batch.size, math.nan),
        message=np.where(broken, _NO_NUMBER, "").astype(object),
        promising=promising.reshape(batch.size, *batch.shape[1:]),
        leaves=tree.leaves(),
    )


_NO_NUMBER = "the ascent met something that is not a number"


def _statuses(
    lower: Float64[np.ndarray, " B"],
    upper: Float64[np.ndarray, " B"],
    infeasible: Bool[np.ndarray, " B"],
    gap: float,
) -> np.ndarray:
    """Return the status of each scenario, int8 (B,), from its bounds and the gap asked for."""
    reached = relative_gap(lower, upper)
    cases = (infeasible, ~np.isfinite(upper), reached <= OPTIMAL_GAP, reached <= gap)
    codes = (Status.INFEASIBLE, Status.UNKNOWN, Status.OPTIMAL, Status.GAP_LIMIT)
    return np.select(cases, codes, Status.BRACKET).astype(np.int8)


def _bound_block(
    placed: Instances,
    scenario: np.ndarray,
    decided: np.ndarray,
    start: Multipliers,
    ascent: Ascent,
    effort: Effort,
) -> _Bounded:
    arrays = (decided, start)
    static = {"controls": ascent.controls, "pairs": ascent.pairs, "how": effort.search}
    return run_scenarios(_bound_nodes, placed, scenario, arrays, BlockSize(effort.chunk), **static)


def _bound_roots(batch: Instances, placed: Instances, effort: Effort) -> _Bounded:
    """Bound every scenario with nothing decided; ``placed`` is the batch as `keep_on_device` has it."""
    _, models, gpus, degrees = batch.shape
    scenario = np.arange(batch.size)
    decided = np.zeros((batch.size, models * gpus, degrees), np.int8)
    start = run_scenarios(_cold_starts, placed, scenario, (), BlockSize(effort.chunk))
    return _bound_block(placed, scenario, decided, start, effort.root, effort)


def _plant(root: _Bounded, effort: Effort, certificates: bool) -> Tree:
    """Return the trees that have nothing but roots."""
    size = len(root.bound)
    nodes = Nodes(
        np.arange(size),
        np.asarray(root.bound),
        np.zeros(root.weights.shape, np.int8),
        np.asarray(root.weights),
        np.zeros((size, effort.tree_rounds), np.int32),
        root.multipliers,
    )
    return Tree(nodes, effort.root.steps, keep_leaves=certificates)


def _infeasible(placed: Instances, best: Deployments, effort: Effort) -> Bool[np.ndarray, " B"]:
    """Return which of the scenarios without a deployment provably have none."""
    result = np.zeros(len(best.cost), bool)
    lost = np.flatnonzero(~np.isfinite(best.cost))
    if len(lost):
        ray = effort.root
        result[lost] = run_scenarios(
            _prove_infeasible,
            placed,
            lost,
            (),
            BlockSize(effort.chunk),
            controls=ray.controls,
            pairs=ray.pairs,
        )
    return result


def _branch(placed: Instances, tree: Tree, best: Deployments, gap: float, effort: Effort) -> None:
    """Split the weakest nodes of every open scenario, round by round, until the target or the limit.

    Each child's estimate of w is also read as a deployment, so the plans improve while the bounds rise.
    """
    for number in range(effort.tree_rounds):
        known = np.isfinite(best.cost)
        target = np.where(known, best.cost - gap * np.abs(np.where(known, best.cost, 0.0)), math.inf)  # B
        tree.close_finished(target)
        if not len(tree.open.scenario):
            return
        doublings = number // effort.doubling
        chosen = tree.weakest(2**doublings)
        parents = tree.open.take(chosen).children()
        ascent = replace(effort.node, steps=effort.node.steps * (2 if doublings else 1))
        bounded = _bound_block(placed, parents.scenario, parents.decided, parents.multipliers, ascent, effort)
        children = parents._replace(
            bound=np.asarray(bounded.bound),
            weights=np.asarray(bounded.weights),
            multipliers=bounded.multipliers,
        )
        tree.replace(chosen, keep_better(parents, children), ascent.steps)
        best.offer(parents.scenario, bounded.starts, bounded.least)
        best.improve(tree.lower(), gap, parents.scenario)
