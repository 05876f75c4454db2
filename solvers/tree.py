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
from jaxtyping import Bool, Float, Float64, Int8, Int32, Int64, Shaped

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
        return _is_whole(self.decided)


def _is_whole(decided: Int8[np.ndarray, "M P N"]) -> Bool[np.ndarray, " M"]:
    return (decided != 0).all(axis=(1, 2))


def rate_splits(c: Coefficients, weights: Float[Array, "P N"]) -> Float[Array, "P N"]:
    """Say how much a split on each triple promises: the variance of its estimated w times what it costs, $.

    Deploying what is dear, or doing without it, moves the bound most. Where all estimates are whole the dearest triple
    that is deployed wins: one child is then cut off soon, and the other ascends once more.
    """
    share = weights.clip(0.0, 1.0)
    return (share * (1.0 - share) + 1e-6 * share) * c.deploy.astype(share.dtype)


def take_rows(tree: T, rows: Int64[np.ndarray, " R"]) -> T:
    """Return arrays (a pytree) with the rows at ``rows`` alone, in that order."""
    return jax.tree.map(lambda a: a.take(rows, axis=0), tree)  # half the time of a[rows]


def write_rows(tree: T, rows: Int64[np.ndarray, " R"], new: T) -> None:
    """Write ``new`` into arrays (a pytree), to the rows at ``rows``."""

    def write(old: np.ndarray, new: np.ndarray) -> None:
        old[rows] = new

    jax.tree.map(write, tree, new)


def put_rows(tree: T, rows: Int64[np.ndarray, " R"], new: T) -> T:
    """Return arrays (a pytree) with the rows at ``rows`` replaced."""
    whole = jax.tree.map(np.array, tree)
    write_rows(whole, rows, new)
    return whole


class Tree:
    """Open nodes of all scenarios, and per scenario what is closed.

    A node keeps its row of a table until it is closed, and another then has that row: copying all that stays open,
    multipliers and all, would take most of the host's time. Open nodes have an order of their own.

    Args:
      roots: a node for each of B scenarios, in order; the tree writes into their arrays.
      steps: ascent steps spent on each.
      keep_leaves: whether `leaves` will be asked for.

    Attributes:
      nodes, steps: per scenario, nodes bounded and ascent steps spent.
    """

    def __init__(self, roots: Nodes, steps: int, *, keep_leaves: bool) -> None:
        size = len(roots.bound)
        self.nodes = np.ones(size, np.int64)
        self.steps = np.full(size, steps, np.int64)
        self._table = roots
        self._open = np.arange(size)  # M, rows of the table
        self._free = np.zeros(0, np.int64)  # the others
        self._closed = np.full(size, math.inf)  # B, the least bound among closed nodes
        self._leaves: list[Nodes] | None = [] if keep_leaves else None

    @property
    def scenario(self) -> Int64[np.ndarray, " M"]:
        """The scenarios of the open nodes."""
        return self._table.scenario[self._open]

    @property
    def bound(self) -> Float64[np.ndarray, " M"]:
        """The bounds of the open nodes."""
        return self._table.bound[self._open]

    def take(self, places: Int64[np.ndarray, " R"]) -> Nodes:
        """Return a copy of the open nodes at ``places``, in that order."""
        return self._table.take(self._open[places])

    def put_multipliers(self, places: Int64[np.ndarray, " R"], multipliers: Multipliers) -> None:
        """Give the open nodes at ``places`` other multipliers."""
        write_rows(self._table.multipliers, self._open[places], multipliers)

    def split(self, places: Int64[np.ndarray, " R"]) -> Nodes:
        """Return two children of each open node: with its most promising open triple deployed, and without it.

        They have their parent's bound and multipliers, which hold for them too.
        """
        both = self.take(np.repeat(places, 2))
        degrees = both.decided.shape[2]
        flat = len(places), math.prod(both.decided.shape[1:])  # of no nodes too
        promise = np.where(both.decided[::2] == 0, both.promise[::2], -1.0).reshape(flat)
        pair, degree = np.divmod(promise.argmax(1), degrees)  # R
        split = (pair * degrees + degree + 1).astype(np.int32)
        with_triple = np.arange(0, len(both.bound), 2)
        both.decided[with_triple, pair] = -1  # a pair is deployed once
        both.decided[with_triple, pair, degree] = 1
        both.decided[with_triple + 1, pair, degree] = -1
        depth = (both.path[::2] != 0).sum(1)
        both.path[with_triple, depth], both.path[with_triple + 1, depth] = split, -split
        return both

    def close(self, *masks: Bool[np.ndarray, " M"]) -> None:
        """Close the open nodes of any mask, those of the first mask first; their bounds stay."""
        scenario, bound = self.scenario, self.bound
        done = np.zeros(len(bound), bool)
        for mask in masks:
            new = np.flatnonzero(mask & ~done)
            np.minimum.at(self._closed, scenario[new], bound[new])
            if self._leaves is not None and len(new):
                self._leaves.append(self.take(new))
            done |= mask
        self._free = np.concatenate([self._free, self._open[done]])
        self._open = self._open[~done]

    def close_finished(self, target: Float64[np.ndarray, " B"]) -> None:
        """Close what reached the target of its scenario, what cannot be split, and the rest of lost scenarios.

        A scenario is lost where a closed node is below the target: it cannot be reached any more.
        """
        scenario, bound = self.scenario, self.bound
        aim = target[scenario]  # M
        reached = bound >= aim
        whole = _is_whole(self._table.decided.take(self._open, axis=0)) | ~np.isfinite(bound)
        closed = self._closed.copy()
        over = reached | whole
        np.minimum.at(closed, scenario[over], bound[over])
        self.close(reached, whole, closed[scenario] < aim)

    def weakest(self, count: int) -> Int64[np.ndarray, " R"]:
        """Return the places of the ``count`` open nodes of least bound in each scenario, scenario by scenario."""
        scenario = self.scenario
        order = np.lexsort((self.bound, scenario))
        first = np.searchsorted(scenario[order], scenario[order])  # of the same scenario
        return order[np.arange(len(order)) - first < count]

    def replace(self, parents: Int64[np.ndarray, " R"], children: Nodes, steps: int) -> None:
        """Put children in the place of their parents (places), after the other open nodes.

        Args:
          steps: ascent steps spent on each child.
        """
        free = np.concatenate([self._open[parents], self._free])
        size, count = len(self._table.bound), len(children.bound)
        if count > len(free):
            more = max(size, count - len(free))
            free = np.concatenate([free, np.arange(size, size + more)])
            self._table = jax.tree.map(lambda a: _lengthen(a, size + more), self._table)
        rows, self._free = np.split(free, [count])
        write_rows(self._table, rows, children)
        self._open = np.concatenate([np.delete(self._open, parents), rows])
        np.add.at(self.nodes, children.scenario, 1)
        np.add.at(self.steps, children.scenario, steps)

    def lower(self) -> Float64[np.ndarray, " B"]:
        """Return per scenario the least bound among open and closed nodes."""
        result = self._closed.copy()
        np.minimum.at(result, self.scenario, self.bound)
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


def _lengthen(values: Shaped[np.ndarray, "L ..."], length: int) -> Shaped[np.ndarray, "M ..."]:
    longer = np.empty((length, *values.shape[1:]), values.dtype)
    longer[: len(values)] = values
    return longer


def keep_better(parents: Nodes, children: Nodes) -> None:
    """Give the children their parents' bound and multipliers, in place, wherever these prove more.

    A child is worth at least its parent's value at the parent's multipliers.
    """
    worse = np.flatnonzero(~(children.bound >= parents.bound))  # a bound that is no number is worse too
    better = take_rows((parents.bound, parents.multipliers), worse)
    write_rows((children.bound, children.multipliers), worse, better)
