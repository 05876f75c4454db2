"""The best fixed routing of a deployment for many scenarios at once, by cutting planes.

One matrix of shares x serves all scenarios b, with the deployment as it is:

    min   F(cost_1(x), ..., cost_B(x))
    s.t.  demand and unmet caps; memory, compute, budget, delay and error of MODEL section 5 in every scenario

Every cost and every left-hand side is convex in x: linear, but for the worst cases W, which are maxima over the
adversary's vertices. F (expectation, CVaR, maximum) is convex and never falls as a cost grows. A linear program over x
and a floor of F holds the planes found so far; each round adds those that its solution violates most, until it
violates none and F is at its floor.

Source: Kelley, The cutting-plane method for solving convex programs (J. SIAM, 1960).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import highspy
import jax
import numpy as np

from rodiu_jax.model.fields import Array, Fields, batch_axes
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan, Route
from rodiu_jax.model.scenario_blocks import run_scenarios
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, NEGLIGIBLE_SHARE, NEGLIGIBLE_UNMET
from rodiu_jax.model.uncertainty import worst_vertex
from rodiu_jax.runtime.block_sizes import block_size
from solvers.dual import Coefficients, derive_coefficients
from solvers.highs import SolverFailed, print_banner_nowhere, require
from solvers.recourse import deployment_of, held, slots_of

Below = Callable[[np.ndarray], np.ndarray]
"""Costs (B,) to weights (M,B): F lies above ``weights @ costs``, and touches the first of these where it is asked."""

_ROUNDS = 300
_CUTS = 3
"""Scenarios whose plane of a limit that is violated is added in one round."""

_EXACT = 1e-9
"""A violation below this, relative to the limit, is none."""

_CLOSE = 1e-6
"""F is at its floor where it is this near, relative."""

_DEPLOYMENTS = 8
"""Deployments whose coefficients are made at a time, in one compiled program."""


class _Program:
    """The convex program of one deployment (D slots): costs, limits and their slopes at any shares (I,D)."""

    def __init__(self, c: Coefficients, used: np.ndarray) -> None:
        """``c``: as `solvers.recourse.held` gives them, with scenarios (B) in front."""
        self.c = c
        over = 1.0 + MARGIN_TOLERANCE
        fixed = c.deploy[..., 0].sum(1)
        self.possible = bool(
            c.fits[:, used, 0].all()
            and (c.weights.sum(1) <= c.storage * over).all()
            and (fixed <= c.budget * over).all()
        )
        self.open = used & (c.most[..., 0] > 0).all(0)  # I,D
        self.least_served = 1.0 - float(c.unmet_cap.min())
        self.constant = fixed + c.unmet_cost.sum(1)
        limited = c.max_routes[c.max_routes > 0]
        self.routes = int(limited.min(initial=used.size))

        def unit(limit: np.ndarray) -> np.ndarray:
            return np.where(limit > 0, limit, 1.0)

        self.loads = (
            c.kv / unit(c.room[..., 0])[:, None],
            np.broadcast_to(c.compute[..., None], c.kv.shape) / unit(c.power[..., 0])[:, None],
        )
        self.money = unit(c.budget)
        self.left = (c.budget - fixed) / self.money
        self.promises = (
            (c.nominal, c.excess, c.gamma_delay, c.delay_limit, unit(c.delay_limit)),
            (c.error, c.error_excess, c.gamma_error, c.error_limit, unit(c.error_limit)),
        )

    def costs(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs (B,) and their slopes (B,I,D)."""
        c = self.c
        at_worst = c.nominal + worst_vertex(c.excess * share, c.gamma_delay[:, None]) * c.excess
        slope = (c.base - c.unmet_cost)[..., None] + c.delay_weight[..., None] * at_worst
        return self.constant + (slope * share).sum((1, 2)), slope

    def violated(self, share: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """Planes slope (I,D), limit of what is violated most: slope . x <= limit for all x that are allowed."""
        none = np.zeros(share.shape)
        for load in self.loads:
            carried = np.einsum("bid,id->bd", load, share)
            for b, d in _largest(carried - 1.0):
                slope = none.copy()
                slope[:, d] = load[b, :, d]
                yield slope, 1.0
        data = self.c.base / self.money[:, None]
        for b, _ in _largest((data @ share.sum(1) - self.left)[:, None]):
            yield np.broadcast_to(data[b][:, None], share.shape), float(self.left[b])
        for nominal, excess, gamma, limit, unit in self.promises:
            at_worst = nominal + worst_vertex(excess * share, gamma[:, None]) * excess - limit[..., None]
            at_worst = at_worst / unit[..., None]
            for b, i in _largest((at_worst * share).sum(-1)):
                slope = none.copy()
                slope[i] = at_worst[b, i]
                yield slope, 0.0

    def best(self, below: Below, offset: np.ndarray, allowed: np.ndarray) -> np.ndarray | None:
        """The shares with the least F of costs less ``offset``; None where no routing keeps everything."""
        floor = _Floor(allowed, self.least_served)
        share = np.zeros(allowed.shape)
        best, least = None, np.inf
        for number in range(_ROUNDS):
            costs, slopes = self.costs(share)
            weights = below(costs - offset)
            value = float(weights[0] @ (costs - offset))
            planes = list(self.violated(share))
            served = share.sum(1).min(initial=1.0) >= self.least_served - _EXACT
            if not planes and served and value < least:
                best, least = share, value
            if number and best is not None and least - floor.height <= _CLOSE * abs(least):
                return best
            for row in weights:
                slope = np.einsum("b,bid->id", row, slopes)
                floor.above(slope, float(row @ (costs - offset)) - float((slope * share).sum()))
            for plane in planes:
                floor.at_most(*plane)
            found = floor.lowest()
            if found is None:
                return None
            share = found
        return best


def _largest(violation: np.ndarray) -> Iterator[tuple[int, int]]:
    """Per column of (B,L), the few scenarios that violate it most: pairs (scenario, limit)."""
    few = min(_CUTS, len(violation))
    top = np.argpartition(-violation, few - 1, axis=0)[:few]
    for limit in np.flatnonzero(violation.max(0) > _EXACT).tolist():
        for b in top[:, limit].tolist():
            if violation[b, limit] > _EXACT:
                yield b, limit


class _Floor:
    """The linear program over shares and the floor of F that holds the planes so far."""

    def __init__(self, allowed: np.ndarray, least_served: float) -> None:
        print_banner_nowhere()
        self.shape = allowed.shape
        self.height = -np.inf
        self._money = 0.0
        solver = self._solver = highspy.Highs()
        solver.silent()
        for name, value in {
            "threads": 1,
            "solver": "simplex",
            "primal_feasibility_tolerance": 1e-10,
            "dual_feasibility_tolerance": 1e-10,
        }.items():
            require(solver.setOptionValue(name, value), f"option {name}={value}")
        for most in allowed.ravel().astype(np.float64).tolist():
            require(solver.addCol(0.0, 0.0, most, 0, np.zeros(0, np.int32), np.zeros(0)), "a share")
        none = np.zeros(0, np.int32)
        require(solver.addCol(1.0, -highspy.kHighsInf, highspy.kHighsInf, 0, none, np.zeros(0)), "the floor")
        for i in range(self.shape[0]):
            one = np.zeros(self.shape)
            one[i] = 1.0
            self._row(one, least_served, 1.0)

    def above(self, slope: np.ndarray, constant: float) -> None:
        """F >= slope . x + constant."""
        if not self._money:
            self._money = max(abs(constant), float(np.abs(slope).max(initial=0.0)), 1e-300)
        self._row(slope / self._money, -highspy.kHighsInf, -constant / self._money, floor=-1.0)

    def at_most(self, slope: np.ndarray, limit: float) -> None:
        """slope . x <= limit."""
        self._row(slope, -highspy.kHighsInf, limit)

    def lowest(self) -> np.ndarray | None:
        """The shares at the lowest floor; None where there are none.

        Raises:
          SolverFailed: HiGHS ended without an answer.
        """
        self._solver.run()
        status = self._solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None
        if status != highspy.HighsModelStatus.kOptimal:
            raise SolverFailed(f"HiGHS ended with {status}")
        columns = np.array(self._solver.getSolution().col_value)
        self.height = float(columns[-1]) * self._money
        return np.clip(columns[:-1], 0.0, 1.0).reshape(self.shape)

    def _row(self, slope: np.ndarray, least: float, most: float, *, floor: float = 0.0) -> None:
        values = np.append(slope.ravel(), floor)
        at = np.flatnonzero(np.abs(values) > NEGLIGIBLE_SHARE).astype(np.int32)
        require(self._solver.addRow(least, most, len(at), at, values[at]), "a plane")


@partial(jax.jit, static_argnames=("uncertainty", "batched"))
def _coefficients(fields: Fields, *, slots: Array, uncertainty: str, batched: frozenset[str]) -> Coefficients:
    """Held coefficients of every scenario (C) and deployment (Q,D)."""

    def one(fields: Fields) -> Coefficients:
        everything = derive_coefficients(fields, uncertainty)
        return jax.vmap(lambda slot: held(everything, slot))(slots)

    return jax.vmap(one, in_axes=(batch_axes(batched),))(fields)


def _programs(instances: Instances, slots: np.ndarray) -> Iterator[_Program]:
    batch = instances.as_batch()
    for first in range(0, len(slots), _DEPLOYMENTS):
        group = np.minimum(np.arange(first, first + _DEPLOYMENTS), len(slots) - 1)
        with jax.enable_x64(True):
            everyone, size = np.arange(batch.size), block_size("coefficients")
            whole = run_scenarios(_coefficients, batch, everyone, (), size, slots=slots[group])
        for q in range(min(_DEPLOYMENTS, len(slots) - first)):
            yield _Program(Coefficients(*(a[:, q] for a in whole)), slots[first + q] >= 0)


def fixed_routings(
    instances: Instances,
    deployments: Sequence[Deployment],
    below: Below,
    offset: np.ndarray | float = 0.0,
) -> list[Plan | None]:
    """Per deployment the plan, for all scenarios, whose routing has the least F of costs less ``offset``, to 1e-6.

    Where routes are limited, each type keeps those that carry most without the limit, and the rest is chosen again.

    Args:
      below: F by its planes, such as `rodiu_jax.decisions.choose.criteria.weights_of`.
      offset: $ per period, of every scenario.

    Returns:
      None where no routing keeps every promise and limit in every scenario.

    Raises:
      InputError: as `solvers.recourse.slots_of`.
      SolverFailed: HiGHS ended without an answer.
    """
    slots = slots_of(instances, deployments)
    offset = np.broadcast_to(np.asarray(offset, np.float64), (instances.size,))
    found: list[Plan | None] = []
    for slot, program in zip(slots, _programs(instances, slots), strict=True):
        share = None
        if program.possible:
            share = program.best(below, offset, program.open)
        if share is not None and program.routes < (share > NEGLIGIBLE_SHARE).sum(1).max(initial=0):
            first = np.argsort(np.argsort(-share, axis=1, kind="stable"), axis=1) < program.routes
            share = program.best(below, offset, program.open & first)
        found.append(None if share is None else _plan(instances, deployment_of(instances, slot), share))
    return found


def _plan(instances: Instances, deployment: Deployment, share: np.ndarray) -> Plan:
    share = np.where(share > NEGLIGIBLE_SHARE, share, 0.0)
    share /= np.maximum(share.sum(1, keepdims=True), 1.0)
    routes = [
        Route(query, d.model, d.gpu, float(share[i, m]))
        for i, query in enumerate(instances.query_names)
        for m, d in enumerate(deployment)
        if share[i, m] > 0
    ]
    left = np.maximum(1.0 - share.sum(1), 0.0)
    unmet = {
        q: float(u) if u > NEGLIGIBLE_UNMET else 0.0 for q, u in zip(instances.query_names, left, strict=True)
    }
    return Plan(None, deployment, tuple(routes), unmet)
