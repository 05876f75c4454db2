"""Brackets in batch: a certified lower bound and a checked plan for every scenario, closed by branching.

Root: dual ascent (`solvers.dual`), then a plan by local search (`solvers.primal`). Where the bracket is wider than
the target, a best-first branch and bound goes on over all open scenarios at once: in each round every open scenario
splits its weakest node on the triple whose estimated w is nearest to one half, and all children are bounded in one
batch, starting from their parent's multipliers. The rows never depend on which scenarios share a batch: a scenario's
rounds are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rodiu_jax.check import check_plan
from rodiu_jax.instance import FIELD_SPECS, Array, Fields, Instances
from rodiu_jax.plan import Deployment, Plan, Route
from solvers.dual import Ascent, Multipliers, ascend, certify, coefficients
from solvers.primal import Tried, best_shares, search
from solvers.result import OPTIMAL_GAP, relative_gap

BracketStatus = Literal["optimal", "gap_limit", "bracket", "infeasible", "unknown", "error"]


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Attributes:
      root, node: the ascents at the root and at each node of the tree.
      slots: most pairs a plan may deploy.
      rounds: rounds of the local search.
      tried: neighbours routed in a round.
      iterations: interior-point iterations of a candidate's routing.
      tree_rounds: most rounds of branching; each adds two nodes to every open scenario.
      chunk: scenarios (or nodes) in a compiled block; no result depends on it.
    """

    root: Ascent = field(default_factory=Ascent)
    node: Ascent = field(default_factory=lambda: Ascent(steps=60, rate=0.05, warm=0.002))
    slots: int = 4
    rounds: int = 3
    tried: Tried = field(default_factory=Tried)
    iterations: int = 9
    tree_rounds: int = 40
    chunk: int = 256


@dataclass(frozen=True)
class Bracket:
    """What is proven about one scenario.

    Attributes:
      lower, upper: $ per period; -inf and inf where nothing is proven.
      plan: the plan whose checked cost is ``upper``, or None.
      costs: that plan's costs.
      status: ``optimal``, ``gap_limit`` (closed to the target), ``bracket`` (valid, but wider), ``infeasible``,
        ``unknown`` (no plan found, infeasibility not proven) or ``error``.
      nodes: nodes bounded, the root included; ``steps``: ascent steps spent on them.
    """

    instance: int
    lower: float
    upper: float
    plan: Plan | None
    costs: dict[str, float] | None
    status: BracketStatus
    nodes: int
    steps: int

    @property
    def gap(self) -> float:
        """Relative to the upper bound; inf where a side is missing."""
        return relative_gap(self.lower, self.upper)


class _Bounded(NamedTuple):
    bound: Array
    multipliers: Multipliers
    weights: Array


def _axes(batched: frozenset[str]) -> Fields:
    return Fields(*(0 if n in batched else None for n in FIELD_SPECS))


def _controls(ascent: Ascent) -> np.ndarray:
    return np.array([ascent.steps, ascent.rate, ascent.last_rate, ascent.warm, ascent.cold], np.float32)


@partial(jax.jit, static_argnames=("uncertainty", "batched", "pairs"))
def _bound_nodes(
    fields: Fields,
    decided: Array,
    start: Multipliers | None,
    controls: Array,
    *,
    uncertainty: str,
    batched: frozenset[str],
    pairs: int,
) -> _Bounded:
    """Ascend (float32) and certify (float64) a block of nodes; cold where ``start`` is None."""

    def one(fields: Fields, decided: Array, start: Multipliers | None) -> _Bounded:
        exact = coefficients(fields, uncertainty)._replace(decided=decided)
        single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, exact)
        y, weights = ascend(single, start, pairs, controls)
        bound, _ = certify(exact, jax.tree.map(lambda a: a.astype(jnp.float64), y))
        return _Bounded(bound, y, weights)

    return jax.vmap(one, in_axes=(_axes(batched), 0, None if start is None else 0))(fields, decided, start)


@partial(
    jax.jit,
    static_argnames=("uncertainty", "batched", "slots", "rounds", "tried", "iterations", "limited"),
)
def _find_plans(
    fields: Fields,
    weights: Array,
    *,
    uncertainty: str,
    batched: frozenset[str],
    slots: int,
    rounds: int,
    tried: Tried,
    iterations: int,
    limited: bool,
) -> tuple[Array, Array]:
    """Deployments (C,D) and shares (C,I,D) by local search."""

    def one(fields: Fields, weights: Array) -> tuple[Array, Array]:
        c = coefficients(fields, uncertainty)
        slot, _ = search(
            c,
            weights.astype(c.base.dtype),
            slots=slots,
            rounds=rounds,
            tried=tried,
            iterations=iterations,
            limited=limited,
        )
        return slot, best_shares(c, slot, limited)

    return jax.vmap(one, in_axes=(_axes(batched), 0))(fields, weights)


def _padded(index: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([index, np.full(size - len(index), index[0])])


@dataclass
class _Tree:
    """Open nodes of all scenarios, and what is already settled of each."""

    scenario: np.ndarray
    bound: np.ndarray
    decided: np.ndarray
    multipliers: Multipliers
    weights: np.ndarray
    settled: np.ndarray  # per scenario: least bound among nodes that need no more work
    nodes: np.ndarray
    steps: np.ndarray
    gone: list[int] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> None:
        self.scenario, self.bound = self.scenario[mask], self.bound[mask]
        self.decided, self.weights = self.decided[mask], self.weights[mask]
        self.multipliers = Multipliers(*(a[mask] for a in self.multipliers))

    def add(self, other: _Tree) -> None:
        self.scenario = np.concatenate([self.scenario, other.scenario])
        self.bound = np.concatenate([self.bound, other.bound])
        self.decided = np.concatenate([self.decided, other.decided])
        self.weights = np.concatenate([self.weights, other.weights])
        pairs = zip(self.multipliers, other.multipliers, strict=True)
        self.multipliers = Multipliers(*(np.concatenate(p) for p in pairs))

    def lower(self) -> np.ndarray:
        """Per scenario: the least bound among open and settled nodes."""
        result = self.settled.copy()
        np.minimum.at(result, self.scenario, self.bound)
        return result


def brackets(instances: Instances, *, gap: float = 0.01, effort: Effort = Effort()) -> list[Bracket]:
    """Bracket every scenario's optimum, to a relative gap where branching gets there.

    Raises nothing for a bad scenario: its bracket says ``error`` and its neighbours are untouched.
    """
    batch = instances if instances.batched else instances.take([0])
    with jax.enable_x64(True):
        tree = _root(batch, effort)
        plans, verdicts = _plans(batch, tree.weights, effort)
        upper = np.array([math.inf if v is None else v.costs["total_cost"] for v in verdicts])
        _branch(batch, tree, upper, gap, effort)
    lower = np.minimum(tree.lower(), upper)
    result = []
    for b in range(batch.size):
        verdict = verdicts[b]
        reached = relative_gap(float(lower[b]), float(upper[b]))
        status: BracketStatus
        if not math.isfinite(lower[b]):
            status = "error"
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
            )
        )
    return result


def _bounded(
    batch: Instances,
    scenario: np.ndarray,
    decided: np.ndarray,
    start: Multipliers | None,
    ascent: Ascent,
    chunk: int,
) -> _Bounded:
    """Bound nodes block by block; a block always has ``chunk`` nodes, so nothing recompiles."""
    parts = []
    for first in range(0, len(scenario), chunk):
        at = _padded(np.arange(first, min(first + chunk, len(scenario))), chunk)
        block = _bound_nodes(
            batch.take(scenario[at]).fields,
            decided[at],
            None if start is None else Multipliers(*(a[at] for a in start)),
            _controls(ascent),
            uncertainty=batch.uncertainty,
            batched=batch.batched,
            pairs=ascent.pairs,
        )
        kept = min(chunk, len(scenario) - first)
        parts.append(jax.tree.map(lambda a, kept=kept: np.asarray(a)[:kept], block))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def _root(batch: Instances, effort: Effort) -> _Tree:
    size = batch.size
    _, models, gpus, degrees = batch.shape
    scenario = np.arange(size)
    decided = np.zeros((size, models * gpus, degrees), np.int8)
    found = _bounded(batch, scenario, decided, None, effort.root, effort.chunk)
    return _Tree(
        scenario,
        np.asarray(found.bound),
        decided,
        found.multipliers,
        np.asarray(found.weights),
        np.full(size, math.inf),
        np.ones(size, np.int64),
        np.full(size, effort.root.steps),
    )


_NEGLIGIBLE = 1e-7


def _plans(batch: Instances, weights: np.ndarray, effort: Effort) -> tuple[list[Plan], list]:
    """A plan per scenario and the checker's verdict, None where the checker refuses every plan we have."""
    limited = bool((np.asarray(batch.fields.max_routes) > 0).any())
    plans: list[Plan] = []
    verdicts = []
    for first in range(0, batch.size, effort.chunk):
        at = _padded(np.arange(first, min(first + effort.chunk, batch.size)), effort.chunk)
        slot, share = _find_plans(
            batch.take(at).fields,
            weights[at],
            uncertainty=batch.uncertainty,
            batched=batch.batched,
            slots=effort.slots,
            rounds=effort.rounds,
            tried=effort.tried,
            iterations=effort.iterations,
            limited=limited,
        )
        slots, shares = np.asarray(slot), np.asarray(share)
        for row, b in enumerate(range(first, min(first + effort.chunk, batch.size))):
            plan = _named(batch, b, slots[row], shares[row])
            verdict = check_plan(plan, batch, b)
            if not verdict.feasible:
                plan = Plan(b, (), (), dict.fromkeys(batch.query_names, 1.0))
                verdict = check_plan(plan, batch, b)
            plans.append(plan)
            verdicts.append(verdict if verdict.feasible else None)
    return plans, verdicts


def _named(batch: Instances, b: int, slot: np.ndarray, share: np.ndarray) -> Plan:
    """The plan by name; negligible shares go to the type's other routes."""
    f = batch.one(b)
    degrees = len(f.tp_degree)
    limit = int(f.max_routes)
    share = np.where(np.isfinite(share) & (share > _NEGLIGIBLE), share, 0.0)
    total = np.minimum(share.sum(1, keepdims=True), 1.0)
    if limit > 0:
        order = np.argsort(-share, axis=1, kind="stable")
        np.put_along_axis(share, order[:, limit:], 0.0, axis=1)
    kept = share.sum(1, keepdims=True)
    share = share * np.divide(total, kept, out=np.zeros_like(kept), where=kept > 0)
    used = [d for d in range(len(slot)) if slot[d] >= 0 and share[:, d].any()]
    gpus = len(batch.gpu_names)
    names = {
        d: (batch.model_names[slot[d] // degrees // gpus], batch.gpu_names[slot[d] // degrees % gpus])
        for d in used
    }
    unmet = np.maximum(1.0 - share.sum(1), 0.0)
    unmet[unmet < 1e-9] = 0.0
    return Plan(
        b,
        tuple(Deployment(*names[d], int(f.tp_degree[slot[d] % degrees])) for d in used),
        tuple(
            Route(query, *names[d], float(share[i, d]))
            for i, query in enumerate(batch.query_names)
            for d in used
            if share[i, d] > 0
        ),
        {q: float(unmet[i]) for i, q in enumerate(batch.query_names)},
    )


def _branch(batch: Instances, tree: _Tree, upper: np.ndarray, gap: float, effort: Effort) -> None:
    """Split the weakest node of every open scenario, round by round, until the target or the limit."""
    target = np.where(np.isfinite(upper), upper - gap * np.abs(upper), -math.inf)
    for _ in range(effort.tree_rounds):
        done = tree.bound >= target[tree.scenario]
        np.minimum.at(tree.settled, tree.scenario[done], tree.bound[done])
        tree.keep(~done)
        open_weights = np.where(tree.decided == 0, tree.weights, 0.0)
        fraction = np.minimum(open_weights, 1.0 - open_weights).reshape(
            len(open_weights), math.prod(open_weights.shape[1:])
        )
        whole = (fraction.max(1, initial=0.0) < _WHOLE) | ~np.isfinite(tree.bound)
        np.minimum.at(tree.settled, tree.scenario[whole], tree.bound[whole])
        tree.keep(~whole)
        fraction = fraction[~whole]
        stuck = tree.settled[tree.scenario] < target[tree.scenario]
        np.minimum.at(tree.settled, tree.scenario[stuck], tree.bound[stuck])
        tree.keep(~stuck)
        fraction = fraction[~stuck]
        if not len(tree.scenario):
            return
        order = np.lexsort((np.arange(len(tree.bound)), tree.bound, tree.scenario))
        _, place = np.unique(tree.scenario[order], return_index=True)
        chosen = order[place]
        scenario = np.repeat(tree.scenario[chosen], 2)
        parent = np.repeat(tree.bound[chosen], 2)
        decided = np.repeat(tree.decided[chosen], 2, axis=0)
        pair, degree = np.divmod(fraction[chosen].argmax(1), decided.shape[2])
        into = np.arange(0, len(scenario), 2)
        decided[into, pair] = -1
        decided[into, pair, degree] = 1
        decided[into + 1, pair, degree] = -1
        start = Multipliers(*(np.repeat(a[chosen], 2, axis=0) for a in tree.multipliers))
        found = _bounded(batch, scenario, decided, start, effort.node, effort.chunk)
        open_ = np.ones(len(tree.scenario), bool)
        open_[chosen] = False
        tree.keep(open_)
        tree.add(
            _Tree(
                scenario,
                np.maximum(np.asarray(found.bound), parent),
                decided,
                found.multipliers,
                np.asarray(found.weights),
                tree.settled,
                tree.nodes,
                tree.steps,
            )
        )
        np.add.at(tree.nodes, scenario, 1)
        np.add.at(tree.steps, scenario, effort.node.steps)


_WHOLE = 0.01
"""A node whose estimated w are all this near to 0 or 1 is left to the exact solver."""
