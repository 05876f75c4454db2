"""The search trees of many scenarios at once, as arrays over their open nodes.

A node is a scenario with some triples decided: deployed or not. Its lower bound is certified, so the least bound over a
scenario's open and closed nodes bounds the scenario. A round closes the nodes that need no more work, picks the weakest
of what is left in every scenario, and puts two children in the place of each.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int32, Int64

from rodiu_jax.model.fields import Array
from solvers.answers import Leaves
from solvers.dual import Coefficients, Multipliers

T = TypeVar("T")


class Nodes(NamedTuple):
    """M nodes of search trees.

    Attributes:
      scenario: whose tree it is.
      bound: certified lower bound of the plans in the node, $ per period.
      decided: 1 where a triple is deployed, -1 where it is not, 0 where that is open.
      promise: of a split on each triple, as `rate_splits` has it; the node is split on the largest of an open one.
      path: the splits from the root as `solvers.answers.Leaves` has them, then zeros.
      multipliers: that prove the bound.
    """

    scenario: Int64[np.ndarray, " M"]
    bound: Float64[np.ndarray, " M"]
    decided: Int8[np.ndarray, "M P N"]
    promise: Float[np.ndarray, "M P N"]
    path: Int32[np.ndarray, "M T"]
    multipliers: Multipliers

    def take(self, rows: np.ndarray) -> Nodes:
        """Return the nodes at ``rows``, in that order."""
        return take_rows(self, rows)

    def is_whole(self) -> Bool[np.ndarray, " M"]:
        """Say which nodes have no open triple left."""
        return (self.decided != 0).all(axis=(1, 2))

    def put(self, rows: Int64[np.ndarray, " R"], nodes: Nodes) -> Nodes:
        """Return the nodes with those at ``rows`` replaced."""
        return put_rows(self, rows, nodes)

    def children(self) -> Nodes:
        """Return two nodes for each node: with its most promising open triple deployed, and without it.

        They have their parent's bound and multipliers, which hold for them too.
        """
        degrees = self.decided.shape[2]
        flat = len(self.decided), math.prod(self.decided.shape[1:])  # of no nodes too
        promise = np.where(self.decided == 0, self.promise, -1.0).reshape(flat)
        pair, degree = np.divmod(promise.argmax(1), degrees)  # M
        split = (pair * degrees + degree + 1).astype(np.int32)
        both = self.take(np.repeat(np.arange(len(self.bound)), 2))
        with_triple = np.arange(0, len(both.bound), 2)
        both.decided[with_triple, pair] = -1  # a pair is deployed once
        both.decided[with_triple, pair, degree] = 1
        both.decided[with_triple + 1, pair, degree] = -1
        depth = (self.path != 0).sum(1)
        both.path[with_triple, depth], both.path[with_triple + 1, depth] = split, -split
        return both


def rate_splits(c: Coefficients, weights: Float[Array, "P N"]) -> Float[Array, "P N"]:
    """Say how much a split on each triple promises: the variance of its estimated w times what it costs, $.

    Deploying what is dear, or doing without it, moves the bound most. Where all estimates are whole the dearest triple
    that is deployed wins: one child is then cut off soon, and the other ascends once more.
    """
    share = weights.clip(0.0, 1.0)
    return (share * (1.0 - share) + 1e-6 * share) * c.deploy.astype(share.dtype)


def take_rows(tree: T, rows: Int64[np.ndarray, " R"]) -> T:
    """Return arrays (a pytree) with the rows at ``rows`` alone, in that order."""
    return jax.tree.map(lambda a: a[rows], tree)


def put_rows(tree: T, rows: Int64[np.ndarray, " R"], new: T) -> T:
    """Return arrays (a pytree) with the rows at ``rows`` replaced."""

    def replaced(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        whole = np.array(old)
        whole[rows] = new
        return whole

    return jax.tree.map(replaced, tree, new)


class Tree:
    """Open nodes of all scenarios, and per scenario what is closed.

    Args:
      roots: a node for each of B scenarios, in order.
      steps: ascent steps spent on each.
      keep_leaves: whether `leaves` will be asked for.

    Attributes:
      open: the open nodes.
      nodes, steps: per scenario, nodes bounded and ascent steps spent.
    """

    def __init__(self, roots: Nodes, steps: int, *, keep_leaves: bool) -> None:
        size = len(roots.bound)
        self.open = roots
        self.nodes = np.ones(size, np.int64)
        self.steps = np.full(size, steps, np.int64)
        self._closed = np.full(size, math.inf)  # B, the least bound among closed nodes
        self._leaves: list[Nodes] | None = [] if keep_leaves else None

    def close(self, *masks: Bool[np.ndarray, " M"]) -> None:
        """Close the open nodes of any mask, those of the first mask first; their bounds stay."""
        done = np.zeros(len(self.open.bound), bool)
        for mask in masks:
            new = np.flatnonzero(mask & ~done)
            np.minimum.at(self._closed, self.open.scenario[new], self.open.bound[new])
            if self._leaves is not None and len(new):
                self._leaves.append(self.open.take(new))
            done |= mask
        if done.any():
            self.open = self.open.take(np.flatnonzero(~done))

    def close_finished(self, target: Float64[np.ndarray, " B"]) -> None:
        """Close what reached the target of its scenario, what cannot be split, and the rest of lost scenarios.

        A scenario is lost where a closed node is below the target: it cannot be reached any more.
        """
        aim = target[self.open.scenario]  # M
        reached = self.open.bound >= aim
        whole = self.open.is_whole() | ~np.isfinite(self.open.bound)
        closed = self._closed.copy()
        over = reached | whole
        np.minimum.at(closed, self.open.scenario[over], self.open.bound[over])
        self.close(reached, whole, closed[self.open.scenario] < aim)

    def weakest(self, count: int) -> Int64[np.ndarray, " R"]:
        """Return the positions of the ``count`` open nodes of least bound in each scenario, scenario by scenario."""
        scenario, bound = self.open.scenario, self.open.bound
        order = np.lexsort((bound, scenario))
        first = np.searchsorted(scenario[order], scenario[order])  # of the same scenario
        return order[np.arange(len(order)) - first < count]

    def replace(self, parents: Int64[np.ndarray, " R"], children: Nodes, steps: int) -> None:
        """Put children in the place of their parents (positions), after the other nodes.

        Args:
          steps: ascent steps spent on each child.
        """
        rest = self.open.take(np.setdiff1d(np.arange(len(self.open.bound)), parents))
        self.open = jax.tree.map(lambda *a: np.concatenate(a), rest, children)
        np.add.at(self.nodes, children.scenario, 1)
        np.add.at(self.steps, children.scenario, steps)

    def lower(self) -> Float64[np.ndarray, " B"]:
        """Return per scenario the least bound among open and closed nodes."""
        result = self._closed.copy()
        np.minimum.at(result, self.open.scenario, self.open.bound)
        return result

    def leaves(self, ranges: tuple[tuple[int, int, int], ...] | None = None) -> Leaves | None:
        """Return the closed nodes as certificates, by scenario; None unless they were kept.

        Args:
          ranges: the options that stand in the place of degrees (`solvers.options.Options`).
        """
        if self._leaves is None:
            return None
        nodes: Nodes = jax.tree.map(lambda *a: np.concatenate(a), *self._leaves)
        nodes = nodes.take(np.argsort(nodes.scenario, kind="stable"))
        named = nodes.multipliers._asdict().items()
        multipliers = {n: np.asarray(a, np.float32) for n, a in named if a is not None}
        return Leaves(nodes.scenario, nodes.path, multipliers, ranges)


def keep_better(parents: Nodes, children: Nodes) -> Nodes:
    """Return the children with their parents' bound and multipliers wherever these prove more.

    A child is worth at least its parent's value at the parent's multipliers.
    """
    worse = ~(children.bound >= parents.bound)  # M; a bound that is no number is worse too

    def chosen(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.where(worse.reshape(-1, *(1,) * (new.ndim - 1)), old, new)

    multipliers = jax.tree.map(chosen, parents.multipliers, children.multipliers)
    return children._replace(bound=chosen(parents.bound, children.bound), multipliers=multipliers)
