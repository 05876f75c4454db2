"""A good fleet near the linear relaxation's: numbers of replicas by local search, one short linear program a fleet.

What the best routing of a fleet costs is a convex function of its numbers w and r (`solvers.formulation`): they are
bounds of a linear program. So the reduced costs of a fleet's program are a floor under the cost of every other fleet:
cost(c + d) >= cost(c) + reduced . d. A move that they do not promise to pay is not tried; the others are, the most
promising first. Each program starts at the last one's basis and takes few pivots.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int

from solvers.formulation import Formulation
from solvers.highs import VaryingBounds
from solvers.terms import Terms

SPARE = 7
"""Triples to search besides one for each type: the relaxation uses about as many as there are types."""

_ROUNDING = 0.03
"""Most that rounding a fleet up, by half a replica for each type, may cost of the bound. Where it is more, few GPUs are
rented, and the nearby fleets are too far from the best one to be worth their time."""

_MOST_PROGRAMS = 60
"""Of one search: fleets of the serving family took 10 to 20, and hardly gained from more."""

_MOST_MOVES = 8
"""Tried from one fleet before it counts as the best nearby."""

_WHOLE = 1e-6
"""What the relaxation's numbers may lie above a whole one."""


def may_pay(terms: Terms, bound: float) -> bool:
    """Say whether a search over some triples is worth its time: with replicas to choose, many GPUs, any routes.

    Args:
      bound: of the scenario, $ per period.
    """
    if terms.fleet is None or not terms.chooses_replicas or terms.max_routes > 0:
        return False
    return bool(terms.types * terms.fleet.rent.mean() / 2 <= _ROUNDING * bound)


def find_nearby_fleet(
    formulation: Formulation, deadline: float = math.inf
) -> Float64[np.ndarray, " C"] | None:
    """Return the columns of a good fleet near the relaxation's; None where none of those tried serves enough.

    Its routing is HiGHS's of this formulation, whose smallest coefficients may be missing: it wants to be routed again.

    The relaxation's numbers are rounded; then a replica is taken away, added, or put in another's place while that
    pays.

    Args:
      formulation: of a scenario with replicas to choose and without a limit of routes.
      deadline: in seconds of `time.perf_counter`, after which no more fleets are tried.

    Raises:
      SolverFailed: HiGHS refused the formulation.
    """
    assert not len(formulation.route), (
        "a routing of given pairs is no linear program where routes are limited"
    )
    search = _Search(formulation, deadline)
    if not any(search.visit(fleet) for fleet in search.rounded()):
        return None
    while any(search.visit(move) for move in search.promising_moves()):
        pass
    return search.columns


class _Search:
    """The best fleet so far: its ``replicas`` (T,), ``columns``, ``cost``, and what one more of each number costs."""

    def __init__(self, formulation: Formulation, deadline: float) -> None:
        self.formulation, self.deadline = formulation, deadline
        columns = formulation.columns
        self.deployed = np.arange(columns.deployed.start, columns.deployed.stop)
        self.own = np.flatnonzero(columns.replicas != self.deployed)  # triples with an r besides their w
        self.whole = np.concatenate([self.deployed, columns.replicas[self.own]])
        self.most = formulation.upper[columns.replicas]
        _, self.pair = np.unique(formulation.triple[:, :2], axis=0, return_inverse=True)
        self.program = VaryingBounds(formulation, self.whole)
        self.programs = 0
        self.seen: set[bytes] = set()
        self.replicas = np.zeros(len(self.deployed))
        self.columns: Float64[np.ndarray, " C"] | None = None
        self.cost = math.inf
        self.one_more = self.first = np.zeros(len(self.deployed))

    def rounded(self) -> Iterator[Float64[np.ndarray, " T"]]:
        """List the relaxation's numbers of replicas rounded up, then down, of each pair those of its most used degree.

        Up serves everyone, but may break a quota or the budget.
        """
        relaxed = self.program.solve(self.formulation.lower[self.whole], self.formulation.upper[self.whole])
        if relaxed.columns is None:
            return
        used = relaxed.columns[self.formulation.columns.replicas]
        order = np.lexsort((-used, self.pair))
        _, first = np.unique(self.pair[order], return_index=True)
        chosen = np.zeros(len(used), bool)
        chosen[order[first]] = True
        yield np.where(chosen, np.minimum(np.ceil(used - _WHOLE), self.most), 0.0) + 0.0
        yield np.where(chosen, np.floor(used + _WHOLE), 0.0) + 0.0  # -0.0 is not 0.0 in `seen`

    def visit(self, replicas: Float64[np.ndarray, " T"]) -> bool:
        """Route a fleet, and move there where it costs less than all before."""
        self.programs += 1
        self.seen.add(replicas.tobytes())
        numbers = np.concatenate([replicas > 0, replicas[self.own]]).astype(np.float64)
        found = self.program.solve(numbers, numbers)
        if found.columns is None or not found.objective < self.cost:
            return False
        self.replicas, self.columns, self.cost = replicas, found.columns, found.objective
        reduced = found.reduced[self.formulation.columns.replicas]
        self.one_more, self.first = reduced, np.zeros(len(reduced))
        self.first[self.own] = found.reduced[self.deployed[self.own]]
        return True

    def promising_moves(self) -> Iterator[Float64[np.ndarray, " T"]]:
        """List the fleets a replica away that may cost less, by their floors, the lowest first."""
        r, size = self.replicas, len(self.replicas)
        leaving = np.where(r > 0, -self.one_more - np.where(r == 1, self.first, 0.0), np.inf)
        coming = np.where(r < self.most, self.one_more + np.where(r == 0, self.first, 0.0), np.inf)
        # Of a replica of the row that leaves, and one of the column that comes; the last of each is none.
        change = np.zeros((size + 1, size + 1))
        change[:size] += leaving[:, None]
        change[:, :size] += coming
        np.fill_diagonal(change, np.inf)
        tried = 0
        for position in np.argsort(change, axis=None, kind="stable"):
            leaves, comes = divmod(int(position), size + 1)
            if change[leaves, comes] >= 0.0 or tried >= _MOST_MOVES or self.programs >= _MOST_PROGRAMS:
                return
            if time.perf_counter() > self.deadline:
                return
            move = np.append(r, 0.0)
            move[leaves] -= 1.0
            move[comes] += 1.0
            if move[:size].tobytes() not in self.seen and self._keeps_degrees(move[:size]):
                tried += 1
                yield move[:size]

    def _keeps_degrees(self, replicas: Float64[np.ndarray, " T"]) -> bool:
        """Say whether every pair has one degree."""
        pairs: Int[np.ndarray, " D"] = self.pair[replicas > 0]
        return len(np.unique(pairs)) == len(pairs)
