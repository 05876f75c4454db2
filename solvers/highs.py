"""Exact solution of one scenario by HiGHS: MILP, snapped, routing re-solved, checked by the independent checker.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from rodiu_jax.check import check_plan
from rodiu_jax.instance import Instances
from rodiu_jax.plan import Plan
from solvers.formulation import Formulation, build, read_plan, to_plan
from solvers.hints import NOTHING, Hints
from solvers.result import OPTIMAL_GAP, Result, Status, relative_gap

_CROSSED = 1e-6
"""A bound may pass the checked cost by this (relative) through solver tolerances; more is an error."""


class SolverFailed(RuntimeError):
    """HiGHS refused an option or a model, or ended without an answer."""


@dataclass(frozen=True)
class Answer:
    """What HiGHS said: its model status, the columns (None without a feasible point) and the proven bound."""

    status: highspy.HighsModelStatus
    columns: np.ndarray | None
    bound: float
    objective: float


@functools.cache
def _print_banner_nowhere() -> None:
    """HiGHS prints a banner on standard output at its first object in a process; let it go to the null device."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _require(status: Any, what: str) -> None:
    if status != highspy.HighsStatus.kOk:
        raise SolverFailed(f"HiGHS answered {status} to {what}")


def run_highs(
    formulation: Formulation,
    *,
    relax: bool = False,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    **options: float | int | str,
) -> Answer:
    """Solve a formulation on one thread.

    Args:
      relax: drop the integrality (LP relaxation).
      start: positions and values of columns of a feasible point to start a MILP from; HiGHS finds the others.
      options: HiGHS options by name; a refused one raises.

    Raises:
      SolverFailed: HiGHS refused the model, the start or an option.
    """
    _print_banner_nowhere()
    solver = highspy.Highs()
    solver.silent()
    mip = not relax and bool(formulation.integer.any())
    # HiGHS 1.16's MIP presolve called 1 of 900 random scenarios infeasible, wrongly; it saves no time here.
    fixed = {"threads": 1, "presolve": "off" if mip else "choose"}
    for name, value in {**fixed, **options}.items():
        _require(solver.setOptionValue(name, value), f"option {name}={value}")
    model = formulation
    kinds = (formulation.integer & mip).astype(np.int32)
    status = solver.passModel(
        len(model.cost), len(model.row_lower), len(model.value), int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize), 0.0, model.cost, model.lower, model.upper, model.row_lower,
        model.row_upper, model.start, model.index, model.value, kinds,
    )  # fmt: skip
    _require(status, "the model")
    if start is not None and mip:
        positions, values = start[0].astype(np.int32), start[1] / model.unit[start[0]]
        _require(solver.setSolution(len(positions), positions, values), "the starting point")
    solver.run()
    info = solver.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    status = solver.getModelStatus()
    objective = float(info.objective_function_value) if feasible else math.inf
    if mip:
        bound = float(info.mip_dual_bound)
    else:
        bound = objective if status == highspy.HighsModelStatus.kOptimal else -math.inf
    columns = np.array(solver.getSolution().col_value) * model.unit if feasible else None
    return Answer(status, columns, bound, objective)


def route(
    instances: Instances, b: int, deployed: np.ndarray, routed: np.ndarray | None = None
) -> Plan | None:
    """The cheapest routing over fixed deployments, by an LP; None where no routing serves enough.

    Args:
      deployed: (D,3) positions (model, gpu, degree).
      routed: bool (I,D), the routes allowed; required where the scenario limits routes.
    """
    formulation = build(instances, b, deployed=deployed, routed=routed)
    answer = run_highs(
        formulation, primal_feasibility_tolerance=1e-9, dual_feasibility_tolerance=1e-9, solver="simplex"
    )
    return None if answer.columns is None else to_plan(instances, b, formulation, answer.columns)


def _deployed(instances: Instances, plan: Plan) -> np.ndarray:
    """bool (J,K,N): what a plan deploys."""
    deployed = np.zeros(instances.shape[1:], bool)
    degrees = instances.axis_names("N")
    for d in plan.deployments:
        j, k = instances.model_names.index(d.model), instances.gpu_names.index(d.gpu)
        deployed[j, k, degrees.index(str(d.tp))] = True
    return deployed


def _starting_point(
    instances: Instances, formulation: Formulation, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of a plan's binaries, from which HiGHS finds the rest; all where it serves nothing."""
    if not plan.deployments:
        columns = np.zeros(len(formulation.cost))
        columns[formulation.first_unmet : formulation.first_unmet + formulation.types] = 1.0
        return np.arange(len(columns)), columns
    w = _deployed(instances, plan)[tuple(formulation.triple.T)]
    used = {
        (
            instances.query_names.index(r.query),
            instances.model_names.index(r.model),
            instances.gpu_names.index(r.gpu),
        )
        for r in plan.routes
    }
    z = [tuple(r) in used for r in formulation.route.tolist()]
    positions = np.concatenate([np.arange(len(w)), formulation.first_route + np.arange(len(z))])
    return positions, np.concatenate([w, z]).astype(np.float64)


def _proven_infeasible(instances: Instances, b: int, time_limit: float) -> bool:
    """True when the least excess over the unmet cap is proven positive: a second proof of infeasibility.

    Where HiGHS alone says "infeasible" its dual bound is infinite and proves nothing, so we minimise the excess
    instead, a problem that always has a solution and whose finite bound can be read.
    """
    answer = run_highs(
        build(instances, b, measure_excess=True), mip_rel_gap=0.5, time_limit=time_limit, mip_abs_gap=1e-9
    )
    return math.isfinite(answer.bound) and answer.bound > 1e-7


def solve_instance(
    instances: Instances,
    b: int,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    hints: Hints = NOTHING,
) -> Result:
    """Solve scenario ``b`` to a relative gap.

    The optimum of the MILP gives deployments and routes; the shares are solved again with these fixed, and the
    cost is what the independent checker computes for that plan. The bound is HiGHS's dual bound.

    Args:
      gap: relative gap (objective - bound) / objective to stop at; at most `OPTIMAL_GAP` counts as optimal.
      time_limit: seconds for HiGHS.
      hints: what is known; where that closes the gap HiGHS is not asked.

    Returns:
      A result; anything unexpected is its status ``error`` with a message, never an exception.
    """
    began = time.perf_counter()
    best = _Best(instances, b)
    try:
        result = _solve(best, gap, time_limit, hints)
    except SolverFailed as failure:
        result = best.result("error", str(failure))
    except _Contradiction as failure:
        best.bound = -math.inf
        result = best.result("error", str(failure))
    return replace(result, seconds=time.perf_counter() - began)


class _Contradiction(RuntimeError):
    """A bound and a checked plan, or two statements of HiGHS, that cannot both be right."""


class _Best:
    """The best checked plan of a scenario so far, and the bound that is proven."""

    def __init__(self, instances: Instances, b: int) -> None:
        self.instances, self.b = instances, b
        self.plan: Plan | None = None
        self.costs: dict[str, float] | None = None
        self.objective = math.inf
        self.bound = -math.inf

    def offer(self, plan: Plan | None) -> str:
        """Take a plan over where it is feasible and cheaper; returns what it breaks, empty if nothing."""
        if plan is None:
            return "no routing"
        verdict = check_plan(plan, self.instances, self.b)
        if not verdict.feasible:
            return f"{verdict.binding} is broken"
        if verdict.costs["total_cost"] < self.objective:
            self.plan, self.costs = plan, verdict.costs
            self.objective = verdict.costs["total_cost"]
        return ""

    def prove(self, bound: float, whose: str) -> None:
        """Raise the bound; at most to the cost of the plan.

        Raises:
          _Contradiction: it is above the cost of a checked plan.
        """
        if math.isnan(bound):
            return
        if bound > self.objective + _CROSSED * max(abs(self.objective), 1.0):
            raise _Contradiction(
                f"{whose} bound {bound} is above the cost {self.objective} of a checked plan"
            )
        self.bound = max(self.bound, min(bound, self.objective))

    @property
    def gap(self) -> float:
        return relative_gap(self.bound, self.objective)

    def result(self, status: Status, message: str = "") -> Result:
        return Result(self.b, status, self.objective, self.bound, self.costs, self.plan, message=message)

    def closed(self, gap: float) -> Result | None:
        """The result where the gap is reached."""
        if self.gap <= OPTIMAL_GAP:
            return self.result("optimal")
        return self.result("gap_limit") if self.gap <= gap else None


def _solve(best: _Best, gap: float, time_limit: float, hints: Hints) -> Result:
    instances, b = best.instances, best.b
    f = instances.one(b)
    if hints.plan is not None:
        best.offer(replace(hints.plan, instance=b))
    best.prove(min(hints.lower, math.inf), "the known")
    if (done := best.closed(gap)) is not None:
        return done
    kept = hints.triples
    if kept is not None and best.plan is not None:
        kept = kept | _deployed(instances, best.plan)
    formulation = build(instances, b, kept=kept)
    start = best.plan
    if start is None and f.unmet_cap >= 1.0:
        start = Plan(b, (), (), dict.fromkeys(instances.query_names, 1.0))
    answer = run_highs(
        formulation,
        start=None if start is None else _starting_point(instances, formulation, start),
        mip_rel_gap=gap / 2,  # the rest is for the difference between HiGHS's objective and the checked cost
        mip_abs_gap=0.0,
        time_limit=time_limit,
    )
    kind = highspy.HighsModelStatus
    if answer.status == kind.kInfeasible:
        if start is None and _proven_infeasible(instances, b, time_limit):
            return Result(b, "infeasible", bound=math.inf)
        raise _Contradiction("HiGHS said infeasible, which a second computation does not confirm")
    if answer.status not in (kind.kOptimal, kind.kTimeLimit):
        return best.result("error", f"HiGHS ended with {answer.status}")
    if answer.columns is not None:
        deployed, routed = read_plan(formulation, answer.columns)
        broken = best.offer(route(instances, b, deployed, routed if f.max_routes > 0 else None))
        if broken:
            return best.result("error", f"the plan read from HiGHS failed the check: {broken}")
    best.prove(min(answer.bound, hints.elsewhere) if math.isfinite(answer.bound) else -math.inf, "HiGHS's")
    if (done := best.closed(gap)) is not None:
        return done
    if answer.status == kind.kTimeLimit:
        return best.result("time_limit")
    if hints.elsewhere < best.objective:
        return best.result("bracket")
    return best.result(
        "error", f"the checked plan's gap {best.gap:.2g} is wider than the {gap:.2g} HiGHS claims"
    )
