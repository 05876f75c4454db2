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
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from rodiu_jax.model.fields import Array, Fields, batch_axes
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.scenario_blocks import keep_on_device, run_scenarios
from rodiu_jax.model.tolerances import ABOVE_ANY_COST, CROSSED_BY_DEVICE, FLOOR_ROUNDING, OPTIMAL_GAP
from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from solvers.deployments import Deployments, plans_of
from solvers.dual import (
    Ascent,
    Multipliers,
    ascend_and_certify,
    cold_start,
    derive_coefficients,
    feasibility,
    least_by_pair,
)
from solvers.primal import Search, first_deployments
from solvers.result import relative_gap

BracketStatus = Literal["optimal", "gap_limit", "bracket", "infeasible", "unknown", "error"]


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


@dataclass(frozen=True)
class Bracket:
    """What is proven about one scenario.

    Attributes:
      lower, upper: $ per period; -inf and inf where nothing is proven.
      plan: the plan whose checked cost is ``upper``, or None.
      costs: that plan's costs.
      status: ``optimal``, ``gap_limit`` (closed to the target), ``bracket`` (valid, but wider), ``infeasible``,
        ``unknown`` (no plan found, infeasibility not proven) or ``error`` (numbers that are none, or a checked plan
        that costs less than is proven).
      nodes: nodes bounded, the root included; ``steps``: ascent steps spent on them.
      leaves: the certificate of ``lower``, where asked for: every plan is in some leaf, and ``lower`` is the least
        of their dual values (see `rodiu_jax.certificates`).
      promising: of a bracket left open, bool (J,K,N): where False, the root's dual function proves that every plan
        that deploys that model on that GPU at that degree costs more than ``upper``.
    """

    instance: int
    lower: float
    upper: float
    plan: Plan | None
    costs: dict[str, float] | None
    status: BracketStatus
    nodes: int
    steps: int
    leaves: tuple[Leaf, ...] = ()
    promising: np.ndarray | None = field(default=None, compare=False)

    @property
    def gap(self) -> float:
        """Relative to the upper bound; inf where a side is missing."""
        return relative_gap(self.lower, self.upper)


class Leaf(NamedTuple):
    """A leaf of a scenario's search tree, enough to recompute its bound.

    Attributes:
      path: splits from the root, +(t + 1) where triple t (pair * N + degree) is deployed, -(t + 1) where it is not.
      multipliers: of the dual function (`solvers.dual`), float32, without batch axis.
    """

    path: tuple[int, ...]
    multipliers: Multipliers


class _Bounded(NamedTuple):
    bound: Array
    multipliers: Multipliers
    weights: Array
    starts: Any  # deployments read off the weights, (R,D) a row
    least: Any  # what they cost at least, (R,) a row
    floor: Any  # what every plan that deploys a triple costs at least, (P,N) a row


@partial(jax.jit, static_argnames=("uncertainty", "batched"))
def _cold_starts(fields: Fields, *, uncertainty: str, batched: frozenset[str]) -> Multipliers:
    def one(fields: Fields) -> Multipliers:
        start = cold_start(derive_coefficients(fields, uncertainty))
        return jax.tree.map(lambda a: a.astype(np.float32), start)

    return jax.vmap(one, in_axes=(batch_axes(batched),))(fields)


@partial(jax.jit, static_argnames=("uncertainty", "batched", "pairs", "how"))
def _bound_nodes(
    fields: Fields,
    decided: Array,
    start: Multipliers,
    *,
    controls: Array,
    uncertainty: str,
    batched: frozenset[str],
    pairs: int,
    how: Search,
) -> _Bounded:
    """Ascend (float32) and certify (float64) a block of nodes."""

    def one(fields: Fields, decided: Array, start: Multipliers) -> _Bounded:
        c = derive_coefficients(fields, uncertainty)._replace(decided=decided)
        found = ascend_and_certify(c, start, pairs, controls)
        starts, least = first_deployments(c, found, how)
        floor = found.bound - least_by_pair(c, found.value)[:, None] + found.value
        return _Bounded(found.bound, found.multipliers, found.weights, starts, least, floor)

    return jax.vmap(one, in_axes=(batch_axes(batched), 0, 0))(fields, decided, start)


@partial(jax.jit, static_argnames=("uncertainty", "batched", "pairs"))
def _prove_infeasible(
    fields: Fields, *, controls: Array, uncertainty: str, batched: frozenset[str], pairs: int
) -> Array:
    """Whether the dual of the feasibility problem exceeds what any plan can cost."""

    def one(fields: Fields) -> Array:
        exact, most = feasibility(derive_coefficients(fields, uncertainty))
        bound = ascend_and_certify(exact, None, pairs, controls).bound
        return bound > most * (1.0 + ABOVE_ANY_COST)

    return jax.vmap(one, in_axes=(batch_axes(batched),))(fields)


_EVERY = 10**6
"""Deployments routed a round where all that are looked at shall be."""


@dataclass
class _Tree:
    """Open nodes of all scenarios, and per scenario what is settled.

    Attributes:
      scenario, bound, decided, multipliers, weights: of each open node.
      settled: per scenario, the least bound among nodes that need no more work.
      nodes, steps: per scenario, nodes bounded and ascent steps spent.
      path: of each open node, see `Leaf`.
      leaves: per scenario, its settled leaves; None where nobody asked for certificates.
    """

    scenario: np.ndarray
    bound: np.ndarray
    decided: np.ndarray
    multipliers: Multipliers
    weights: np.ndarray
    settled: np.ndarray
    nodes: np.ndarray
    steps: np.ndarray
    path: list[tuple[int, ...]]
    leaves: list[list[Leaf]] | None

    def fraction(self) -> np.ndarray:
        """How far each undecided triple's estimated w is from whole, flat over triples; -1 for decided ones.

        Where all are whole the largest w wins: one child is then cut off soon and the other ascends once more.
        """
        shape = len(self.weights), self._triples
        share = self.weights.reshape(shape)
        score = np.minimum(share, 1.0 - share) + 1e-6 * share
        return np.where((self.decided == 0).reshape(shape), score, -1.0)

    @property
    def _triples(self) -> int:
        return math.prod(self.decided.shape[1:])

    def settle(self, done: np.ndarray) -> None:
        """Close the nodes of a mask; their bounds stay."""
        np.minimum.at(self.settled, self.scenario[done], self.bound[done])
        if self.leaves is not None:
            for row in np.flatnonzero(done):
                leaf = Leaf(self.path[row], Multipliers(*(a[row] for a in self.multipliers)))
                self.leaves[self.scenario[row]].append(leaf)
        self._take(np.flatnonzero(~done))

    def _take(self, rows: np.ndarray) -> None:
        self.scenario, self.bound = self.scenario[rows], self.bound[rows]
        self.decided, self.weights = self.decided[rows], self.weights[rows]
        self.multipliers = Multipliers(*(a[rows] for a in self.multipliers))
        self.path = [self.path[row] for row in rows]

    def replace(
        self,
        parents: np.ndarray,
        scenario: np.ndarray,
        bound: np.ndarray,
        decided: np.ndarray,
        multipliers: Multipliers,
        weights: np.ndarray,
        path: list[tuple[int, ...]],
    ) -> None:
        """Put children in the place of their parents (positions)."""
        self._take(np.setdiff1d(np.arange(len(self.scenario)), parents))
        self.scenario = np.concatenate([self.scenario, scenario])
        self.bound = np.concatenate([self.bound, bound])
        self.decided = np.concatenate([self.decided, decided])
        self.weights = np.concatenate([self.weights, weights])
        pairs = zip(self.multipliers, multipliers, strict=True)
        self.multipliers = Multipliers(*(np.concatenate(p) for p in pairs))
        self.path += path

    def lower(self) -> np.ndarray:
        """Per scenario: the least bound among open and settled nodes."""
        result = self.settled.copy()
        np.minimum.at(result, self.scenario, self.bound)
        return result


def brackets(
    instances: Instances, *, gap: float = 0.01, effort: Effort = Effort(), certificates: bool = False
) -> list[Bracket]:
    """Bracket every scenario's optimum, to a relative gap where branching gets there.

    Raises nothing for a bad scenario: its bracket says ``error`` and its neighbours are untouched. Scenarios with and
    without a limit of routes are searched apart, as other programs route them.
    """
    batch = instances.as_batch()
    effort = replace(effort, chunk=effort.chunk or block_size("bracket").rows)
    limited = np.broadcast_to(np.asarray(batch.fields.max_routes) > 0, (batch.size,))
    if limited.all() or not limited.any():
        return _brackets(batch, bool(limited.any()), gap, effort, certificates)
    result: dict[int, Bracket] = {}
    for kind in (False, True):
        at = np.flatnonzero(limited == kind).tolist()
        part = _brackets(batch.take(np.array(at)), kind, gap, effort, certificates)
        result |= {b: _moved(found, b) for b, found in zip(at, part, strict=True)}
    return [result[b] for b in range(batch.size)]


def _moved(found: Bracket, b: int) -> Bracket:
    """The bracket as that of scenario ``b``."""
    return replace(found, instance=b, plan=None if found.plan is None else replace(found.plan, instance=b))


def _brackets(
    batch: Instances, limited: bool, gap: float, effort: Effort, certificates: bool
) -> list[Bracket]:
    with jax.enable_x64(True):
        effort = replace(effort, search=effort.search._replace(limited=limited))
        if limited:  # the floors know no limit of routes, so they say little about what is promising
            effort = replace(effort, routed=_EVERY)
        there = keep_on_device(batch)
        tree, root = _root(batch, there, effort, certificates)
        best = Deployments(
            batch.size, there, effort.search, rounds=effort.rounds, routed=effort.routed, chunk=effort.chunk
        )
        best.offer(np.arange(batch.size), root.starts, root.least)
        best.improve(tree.bound, gap, np.arange(batch.size))
        infeasible = _infeasible(there, best, effort)
        tree.settle(infeasible[tree.scenario])
        _branch(there, tree, best, gap, effort)
        plans, verdicts = plans_of(batch, there, best.slot, effort.search, effort.chunk)
    lower = np.where(infeasible, math.inf, tree.lower())
    tree.settle(np.ones(len(tree.scenario), bool))
    upper = np.array([math.inf if v is None else v.costs["total_cost"] for v in verdicts])
    broken = ~np.isfinite(lower) & ~infeasible | (
        lower > upper + CROSSED_BY_DEVICE * np.maximum(np.abs(upper), 1.0)
    )
    upper[broken] = math.inf
    lower = np.where(broken, -math.inf, np.minimum(lower, upper))
    # The margin covers the rounding of the floors, which only bound the triples of the minimum carefully.
    promising = ~(root.floor > (upper + FLOOR_ROUNDING * np.abs(upper))[:, None, None]).reshape(
        batch.size, *batch.shape[1:]
    )
    result = []
    for b in range(batch.size):
        verdict = None if broken[b] else verdicts[b]
        reached = relative_gap(float(lower[b]), float(upper[b]))
        status: BracketStatus
        if broken[b]:
            status = "error"
        elif infeasible[b]:
            status = "infeasible"
        elif verdict is None:
            status = "unknown"
        elif reached <= OPTIMAL_GAP:
            status = "optimal"
        else:
            status = "gap_limit" if reached <= gap else "bracket"
        costs = None if verdict is None else verdict.costs
        plan = None if verdict is None else plans[b]
        result.append(
            Bracket(
                b,
                float(lower[b]),
                float(upper[b]),
                plan,
                costs,
                status,
                int(tree.nodes[b]),
                int(tree.steps[b]),
                () if tree.leaves is None else tuple(tree.leaves[b]),
                promising[b] if status == "bracket" else None,
            )
        )
    return result


def _bounded(
    there: Instances,
    scenario: np.ndarray,
    decided: np.ndarray,
    start: Multipliers,
    ascent: Ascent,
    effort: Effort,
) -> _Bounded:
    arrays = (decided, start)
    static = {"controls": ascent.controls, "pairs": ascent.pairs, "how": effort.search}
    return run_scenarios(_bound_nodes, there, scenario, arrays, BlockSize(effort.chunk), **static)


def _root(batch: Instances, there: Instances, effort: Effort, certificates: bool) -> tuple[_Tree, _Bounded]:
    """The tree of roots, and all that was found; ``there`` is the batch as `keep_on_device` has it."""
    size = batch.size
    _, models, gpus, degrees = batch.shape
    scenario = np.arange(size)
    decided = np.zeros((size, models * gpus, degrees), np.int8)
    start = run_scenarios(_cold_starts, there, scenario, (), BlockSize(effort.chunk))
    found = _bounded(there, scenario, decided, start, effort.root, effort)
    tree = _Tree(
        scenario,
        np.asarray(found.bound),
        decided,
        found.multipliers,
        np.asarray(found.weights),
        np.full(size, math.inf),
        np.ones(size, np.int64),
        np.full(size, effort.root.steps),
        [()] * size,
        [[] for _ in range(size)] if certificates else None,
    )
    return tree, found


def _infeasible(there: Instances, best: Deployments, effort: Effort) -> np.ndarray:
    """Which of the scenarios without a deployment provably have none; bool (B,)."""
    result = np.zeros(len(best.cost), bool)
    lost = np.flatnonzero(~np.isfinite(best.cost))
    if len(lost):
        ray = effort.root
        result[lost] = run_scenarios(
            _prove_infeasible,
            there,
            lost,
            (),
            BlockSize(effort.chunk),
            controls=ray.controls,
            pairs=ray.pairs,
        )
    return result


def _branch(there: Instances, tree: _Tree, best: Deployments, gap: float, effort: Effort) -> None:
    """Split the weakest nodes of every open scenario, round by round, until the target or the limit.

    Each child's estimate of w is also read as a deployment, so the plans improve while the bounds rise.
    """
    for number in range(effort.tree_rounds):
        known = np.isfinite(best.cost)
        target = np.where(known, best.cost - gap * np.abs(np.where(known, best.cost, 0.0)), math.inf)
        tree.settle(tree.bound >= target[tree.scenario])
        tree.settle((tree.fraction().max(1, initial=-1.0) < 0) | ~np.isfinite(tree.bound))
        tree.settle(tree.settled[tree.scenario] < target[tree.scenario])  # it cannot be closed any more
        if not len(tree.scenario):
            return
        order = np.lexsort((np.arange(len(tree.bound)), tree.bound, tree.scenario))
        _, place, count = np.unique(tree.scenario[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(place, count)
        chosen = order[rank < 2 ** (number // effort.doubling)]
        parents = np.repeat(chosen, 2)
        scenario, decided = tree.scenario[parents], tree.decided[parents]
        pair, degree = np.divmod(tree.fraction()[chosen].argmax(1), decided.shape[2])
        into = np.arange(0, len(parents), 2)
        decided[into, pair] = -1
        decided[into, pair, degree] = 1
        decided[into + 1, pair, degree] = -1
        start = Multipliers(*(a[parents] for a in tree.multipliers))
        ascent = replace(effort.node, steps=effort.node.steps * (1 if number < effort.doubling else 2))
        found = _bounded(there, scenario, decided, start, ascent, effort)
        # A child is worth at least its parent's value at the parent's multipliers: keep whichever proves more.
        worse = ~(np.asarray(found.bound) >= tree.bound[parents])
        bound = np.where(worse, tree.bound[parents], found.bound)
        kept = Multipliers(
            *(
                np.where(worse.reshape(-1, *(1,) * (new.ndim - 1)), old, new)
                for old, new in zip(start, found.multipliers, strict=True)
            )
        )
        np.add.at(tree.nodes, scenario, 1)
        np.add.at(tree.steps, scenario, ascent.steps)
        split = pair * decided.shape[2] + degree + 1
        path = [
            (*tree.path[c], int(sign * t)) for c, t in zip(chosen, split, strict=True) for sign in (1, -1)
        ]
        tree.replace(chosen, scenario, bound, decided, kept, np.asarray(found.weights), path)
        best.offer(scenario, found.starts, found.least)
        best.improve(tree.lower(), gap, scenario)
