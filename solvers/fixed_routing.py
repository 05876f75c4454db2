"""The best fixed routing of a deployment for many scenarios at once, by cutting planes.

One matrix of shares x serves all scenarios b, with the deployment as it is:

    min   F(cost_1(x), ..., cost_B(x))
    s.t.  demand and unmet caps; memory, compute, budget, delay and error of MODEL section 5, and throughput of
          section 9, in every scenario

Every cost and every left-hand side is convex in x: linear, but for the worst cases W, which are maxima over the
adversary's vertices. F (expectation, CVaR, maximum) is convex and never falls as a cost grows. A linear program over x
and a floor of F holds the planes found so far; each round adds those that its solution violates most, until it
violates none and F is at its floor.

Source: Kelley, The cutting-plane method for solving convex programs (J. SIAM, 1960).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import highspy
import jax
import numpy as np
from jaxtyping import Bool, Float64, Int32

from rodiu_jax.model.fields import SETTLED_MODE, Array, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan
from rodiu_jax.model.plan_columns import plan_from_shares
from rodiu_jax.model.scenario_blocks import of_settled, run_scenarios
from rodiu_jax.model.slots import Names, split_slots
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, NEGLIGIBLE_SHARE, NEGLIGIBLE_UNMET
from rodiu_jax.model.uncertainty import worst_vertex
from rodiu_jax.runtime.block_sizes import block_size
from rodiu_jax.runtime.kept_programs import kept_program
from solvers.dual import Coefficients, derive_coefficients
from solvers.dual.coefficients import Rates, serving_field
from solvers.fleet_recourse import find_broken_limits
from solvers.highs import SolverFailed, discard_banner, require_ok
from solvers.recourse_brackets import DeploymentRows, Reason, write_rows
from solvers.recourse_lp import restrict_to_deployment
from solvers.terms import ScenarioTerms

Supports = Callable[[Float64[np.ndarray, " B"]], Float64[np.ndarray, "M B"]]
"""Costs to weights: F lies above ``weights @ costs`` everywhere, and touches the first of these at the costs given."""

_ROUNDS = 300
"""Most rounds; what has not ended then gives the best routing found."""

_CUTS = 3
"""Scenarios whose plane of a limit that is violated is added in one round."""

_EXACT = 1e-9
"""A violation below this, relative to the limit, is none."""

_CLOSE = 1e-6
"""F is at its floor where it is this near, relative."""

_SOLVER_TOLERANCE = 1e-10
"""Feasibility tolerances of HiGHS: below `_EXACT`, so that a plane that was added is not found violated again."""

_NO_MONEY = 1e-300
"""Stands for the unit of F where all its slopes are zero, so that nothing is divided by 0."""

_DEPLOYMENTS = 8
"""Deployments whose coefficients are made at a time, in one compiled program."""


def fixed_routings(
    instances: Instances,
    deployments: Sequence[Deployment],
    supports: Supports,
    offset: np.ndarray | float = 0.0,
) -> list[Plan | None]:
    """Find, per deployment, the one plan for all scenarios whose routing has the least F of costs less ``offset``.

    F is within a relative 1e-6 of its least value. Where routes are limited, each type keeps those that carry most
    without the limit, and the shares on these are chosen again.

    Args:
      supports: F by its planes, such as the ``weights`` of a criterion of `rodiu_jax.decisions.choose`.
      offset: $ per period, of every scenario.

    Returns:
      None where no routing keeps every promise and limit in every scenario.

    Raises:
      InputError: as `solvers.recourse_brackets.write_rows`.
      SolverFailed: HiGHS ended without an answer.
    """
    rows = write_rows(instances, deployments)
    build = _build_fleet_problems if serving_field(instances.fields) else _build_problems
    offset = np.broadcast_to(np.asarray(offset, np.float64), (instances.size,))
    plans: list[Plan | None] = []
    for slot, replicas, problem in zip(*rows, build(instances, rows), strict=True):
        share = None
        if problem.is_possible:
            share = problem.minimise(supports, offset, problem.is_open)
        if share is not None and problem.most_routes < (share > NEGLIGIBLE_SHARE).sum(1).max(initial=0):
            rank = np.argsort(np.argsort(-share, axis=1, kind="stable"), axis=1)
            share = problem.minimise(supports, offset, problem.is_open & (rank < problem.most_routes))
        plans.append(None if share is None else _make_plan(instances, slot, replicas, share))
    return plans


def _make_plan(
    instances: Instances,
    slot: Int32[np.ndarray, " D"],
    replicas: Int32[np.ndarray, " D"],
    share: Float64[np.ndarray, "I D"],
) -> Plan:
    """Make the plan by name, without negligible shares."""
    share = np.where(share > NEGLIGIBLE_SHARE, share, 0.0)
    share /= np.maximum(share.sum(1, keepdims=True), 1.0)
    left = np.maximum(1.0 - share.sum(1), 0.0)
    unmet = np.where(left > NEGLIGIBLE_UNMET, left, 0.0)
    return plan_from_shares(instances.names, slot, share, unmet, replicas=replicas)


# ---- the convex program of one deployment ----


class _Problem:
    """The convex program of one deployment: costs, limits and their slopes at any shares.

    Attributes:
      is_possible: whether weights and rent keep their limits in every scenario.
      is_open: the routes that may be used in every scenario.
      most_routes: the smallest limit of routes of a type.
    """

    def __init__(self, c: Coefficients, used: Bool[np.ndarray, " D"]) -> None:
        """Collect what every round needs; ``c`` as of `restrict_to_deployment`, with scenarios (B) in front."""
        self._c = c
        over = 1.0 + MARGIN_TOLERANCE
        rent = c.deploy[..., 0].sum(1)  # B
        self.is_possible = bool(
            c.fits[:, used, 0].all()
            and (c.weights.sum(1) <= c.storage * over).all()
            and (rent <= c.budget * over).all()
        )
        self.is_open = used & (c.most[..., 0] > 0).all(0)  # I,D
        limited = c.max_routes[c.max_routes > 0]
        self.most_routes = int(limited.min(initial=used.size))
        self._least_served = 1.0 - float(c.unmet_cap.min())
        self._cost_unserved = rent + c.unmet_cost.sum(1)

        def unit(limit: np.ndarray) -> np.ndarray:
            return np.where(limit > 0, limit, 1.0)

        memory = c.kv / unit(c.room[..., 0])[:, None]
        compute = np.broadcast_to(c.compute[..., None], c.kv.shape) / unit(c.power[..., 0])[:, None]
        self._loads = memory, compute  # B,I,D, relative to the slot's limit
        self._stored = (
            c.base / unit(c.budget)[:, None]
        )  # B,I, relative to the budget, as is what is left of it
        self._left = (c.budget - rent) / unit(c.budget)
        self._rates = None
        if c.rates is not None:  # relative to the slot's limit, types last
            room = unit(c.rates.room[..., 0])[:, None]
            load, extra = ((each[..., 0] / room).swapaxes(1, 2) for each in (c.rates.load, c.rates.excess))
            self._rates = load, extra, c.rates.gamma[:, None]  # B,D,I twice, B,1
        self._promises = (
            (c.nominal, c.excess, c.gamma_delay, c.delay_limit, unit(c.delay_limit)),
            (c.error, c.error_excess, c.gamma_error, c.error_limit, unit(c.error_limit)),
        )

    def price(
        self, share: Float64[np.ndarray, "I D"]
    ) -> tuple[Float64[np.ndarray, " B"], Float64[np.ndarray, "B I D"]]:
        """Compute the costs and their slopes."""
        c = self._c
        at_worst = c.nominal + worst_vertex(c.excess * share, c.gamma_delay[:, None]) * c.excess
        slope = (c.base - c.unmet_cost)[..., None] + c.delay_weight[..., None] * at_worst
        return self._cost_unserved + (slope * share).sum((1, 2)), slope

    def find_violated(
        self, share: Float64[np.ndarray, "I D"]
    ) -> Iterator[tuple[Float64[np.ndarray, "I D"], float]]:
        """Find what is violated most, as planes (slope, limit): slope . x <= limit for all x that are allowed."""
        nothing = np.zeros(share.shape)
        for load in self._loads:
            carried = np.einsum("bid,id->bd", load, share)
            for b, d in _pick_largest(carried - 1.0):
                slope = nothing.copy()
                slope[:, d] = load[b, :, d]
                yield slope, 1.0
        if self._rates is not None:
            load, extra, gamma = self._rates
            at_worst = load + worst_vertex(extra * share.T, gamma) * extra  # B,D,I
            for b, d in _pick_largest((at_worst * share.T).sum(-1) - 1.0):
                slope = nothing.copy()
                slope[:, d] = at_worst[b, d]
                yield slope, 1.0
        for b, _ in _pick_largest((self._stored @ share.sum(1) - self._left)[:, None]):
            yield np.broadcast_to(self._stored[b][:, None], share.shape), float(self._left[b])
        for nominal, excess, gamma, limit, unit in self._promises:
            at_worst = nominal + worst_vertex(excess * share, gamma[:, None]) * excess - limit[..., None]
            at_worst = at_worst / unit[..., None]
            for b, i in _pick_largest((at_worst * share).sum(-1)):
                slope = nothing.copy()
                slope[i] = at_worst[b, i]
                yield slope, 0.0

    def minimise(
        self, supports: Supports, offset: Float64[np.ndarray, " B"], allowed: Bool[np.ndarray, "I D"]
    ) -> Float64[np.ndarray, "I D"] | None:
        """Find the shares with the least F of costs less ``offset``; None where no routing keeps everything."""
        floor = _Floor(allowed, self._least_served)
        share: np.ndarray | None = np.zeros(allowed.shape)
        best, least = None, np.inf
        for number in range(_ROUNDS):
            costs, slopes = self.price(share)
            weights = supports(costs - offset)
            value = float(weights[0] @ (costs - offset))
            planes = list(self.find_violated(share))
            served = share.sum(1).min(initial=1.0) >= self._least_served - _EXACT
            if not planes and served and value < least:
                best, least = share, value
            if number and best is not None and least - floor.height <= _CLOSE * abs(least):
                return best
            for row in weights:
                slope = np.einsum("b,bid->id", row, slopes)
                floor.raise_to(slope, float(row @ (costs - offset)) - float((slope * share).sum()))
            for slope, limit in planes:
                floor.forbid_above(slope, limit)
            share = floor.find_lowest()
            if share is None:
                return None
        return best


def _pick_largest(violation: Float64[np.ndarray, "B L"]) -> Iterator[tuple[int, int]]:
    """Pick, per limit, the few scenarios that violate it most: pairs (scenario, limit)."""
    few = min(_CUTS, len(violation))
    top = np.argpartition(-violation, few - 1, axis=0)[:few]
    for limit in np.flatnonzero(violation.max(0) > _EXACT).tolist():
        for b in top[:, limit].tolist():
            if violation[b, limit] > _EXACT:
                yield b, limit


class _Floor:
    """The linear program over the shares and the floor of F, the last column, that holds the planes so far.

    Attributes:
      height: the lowest floor, $ per period.
    """

    def __init__(self, allowed: Bool[np.ndarray, "I D"], least_served: float) -> None:
        discard_banner()
        self.height = -np.inf
        self._shape = allowed.shape
        self._unit = 0.0  # $ that a unit of the last column is; known with the first plane
        solver = self._solver = highspy.Highs()
        solver.silent()
        for name, value in {
            "threads": 1,
            "solver": "simplex",
            "primal_feasibility_tolerance": _SOLVER_TOLERANCE,
            "dual_feasibility_tolerance": _SOLVER_TOLERANCE,
        }.items():
            require_ok(solver.setOptionValue(name, value), f"option {name}={value}")
        nothing = np.zeros(0, np.int32), np.zeros(0)
        for most in allowed.ravel().astype(np.float64).tolist():
            require_ok(solver.addCol(0.0, 0.0, most, 0, *nothing), "a share")
        require_ok(solver.addCol(1.0, -highspy.kHighsInf, highspy.kHighsInf, 0, *nothing), "the floor")
        for i in range(self._shape[0]):
            one = np.zeros(self._shape)
            one[i] = 1.0
            self._add_row(one, least_served, 1.0)

    def raise_to(self, slope: Float64[np.ndarray, "I D"], constant: float) -> None:
        """Raise the floor: F >= slope . x + constant."""
        if not self._unit:
            self._unit = max(abs(constant), float(np.abs(slope).max(initial=0.0)), _NO_MONEY)
        self._add_row(slope / self._unit, -highspy.kHighsInf, -constant / self._unit, floor=-1.0)

    def forbid_above(self, slope: Float64[np.ndarray, "I D"], limit: float) -> None:
        """Allow only shares with slope . x <= limit."""
        self._add_row(slope, -highspy.kHighsInf, limit)

    def find_lowest(self) -> Float64[np.ndarray, "I D"] | None:
        """Find the shares at the lowest floor; None where no shares are allowed.

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
        self.height = float(columns[-1]) * self._unit
        return np.clip(columns[:-1], 0.0, 1.0).reshape(self._shape)

    def _add_row(self, slope: np.ndarray, least: float, most: float, *, floor: float = 0.0) -> None:
        values = np.append(slope.ravel(), floor)
        at = np.flatnonzero(np.abs(values) > NEGLIGIBLE_SHARE).astype(np.int32)
        require_ok(self._solver.addRow(least, most, len(at), at, values[at]), "a plane")


# ---- coefficients of all scenarios ----


@of_settled
@kept_program()
def _coefficients(fields: Fields, *, slots: Array) -> Coefficients:
    """Compute the coefficients of every scenario (C), restricted to every deployment (Q,D)."""

    def one(fields: Fields) -> Coefficients:
        everything = derive_coefficients(fields, SETTLED_MODE)
        return jax.vmap(lambda slot: restrict_to_deployment(everything, slot))(slots)

    return jax.vmap(one)(fields)


def _build_problems(instances: Instances, rows: DeploymentRows) -> Iterator[_Problem]:
    """Build the problem of each deployment."""
    batch, slots = instances.as_batch(), rows.slots
    everyone, size = np.arange(batch.size), block_size("coefficients")
    for first in range(0, len(slots), _DEPLOYMENTS):
        group = np.minimum(np.arange(first, first + _DEPLOYMENTS), len(slots) - 1)
        with jax.enable_x64(True):
            whole = run_scenarios(_coefficients, batch, everyone, (), size, slots=slots[group])
        for q in range(min(_DEPLOYMENTS, len(slots) - first)):
            of_deployment: Coefficients = jax.tree.map(itemgetter((slice(None), q)), whole)
            yield _Problem(of_deployment, slots[first + q] >= 0)


def _build_fleet_problems(instances: Instances, rows: DeploymentRows) -> Iterator[_Problem]:
    """Build the problem of each deployment where scenarios have replicas, rates or quotas."""
    scenarios = [ScenarioTerms.derive(instances, b) for b in range(instances.size)]
    for q in range(len(rows.slots)):
        row = DeploymentRows(*(part[[q]] for part in rows))
        used = row.slots[0] >= 0
        each = [_restrict_fleet(scenario, instances.names, row) for scenario in scenarios]
        stacked: Coefficients = jax.tree.map(lambda *parts: np.stack(parts), *each)
        yield _Problem(stacked, used)


def _restrict_fleet(scenario: ScenarioTerms, names: Names, row: DeploymentRows) -> Coefficients:
    """Restrict a scenario's coefficients to a deployment as `restrict_to_deployment`, with all its replicas."""
    used = row.slots[0] >= 0
    triple = np.stack(split_slots(row.slots[0, used], names), axis=1).astype(np.int64)
    replicas = row.replicas[0, used].astype(np.int64)
    terms = scenario.of(triple, replicas)
    assert terms.fleet is not None, "a scenario with such fields has a fleet"
    fleet, broken = terms.fleet, find_broken_limits(scenario, names, row)[0] != Reason.FEASIBLE
    able = np.isfinite(fleet.load)

    def widen(values: np.ndarray) -> np.ndarray:
        """Give empty slots zeros."""
        wide = np.zeros((*values.shape[:-1], len(used)), values.dtype)
        wide[..., used] = values
        return wide

    def of_slots(values: np.ndarray) -> np.ndarray:
        return widen(values)[..., None]

    return terms.dense._replace(
        deploy=of_slots(fleet.hold + fleet.rent * replicas),
        fits=of_slots(np.full(len(replicas), not broken)),
        nominal=widen(terms.nominal_delay),
        excess=widen(terms.excess_delay),
        slowness=np.ones(1),
        error=widen(terms.nominal_error),
        error_excess=widen(terms.excess_error),
        kv=widen(terms.kv),
        room=of_slots(terms.room * replicas),
        power=of_slots(terms.power * replicas),
        most=of_slots(terms.most),
        weights=widen(terms.weights),
        decided=of_slots(np.ones(len(replicas), np.int8)),
        rates=Rates(
            of_slots(np.where(able, fleet.load, 0.0)),
            of_slots(np.where(able, fleet.load_excess, 0.0)),
            of_slots(fleet.utilization * replicas),
            np.asarray(fleet.gamma_load),
        ),
    )
