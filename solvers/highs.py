"""Exact solution of one scenario by HiGHS: MILP, snapped, routing re-solved, checked by the independent checker.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from rodiu_jax.check import check_plan
from rodiu_jax.instance import Instances
from rodiu_jax.plan import Plan
from solvers.formulation import Formulation, build, read_plan, to_plan
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
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(formulation.cost), len(formulation.row_lower)
    model.col_cost_ = formulation.cost
    model.col_lower_, model.col_upper_ = formulation.lower, formulation.upper
    model.row_lower_, model.row_upper_ = formulation.row_lower, formulation.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = formulation.start
    model.a_matrix_.index_ = formulation.index
    model.a_matrix_.value_ = formulation.value
    if mip:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[int(whole)] for whole in formulation.integer]
    _require(solver.passModel(model), "the model")
    if start is not None and mip:
        positions, values = start[0].astype(np.int32), start[1].astype(np.float64)
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
    columns = np.array(solver.getSolution().col_value) if feasible else None
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


def _starting_point(
    instances: Instances, formulation: Formulation, plan: Plan | None
) -> tuple[np.ndarray, np.ndarray]:
    """The deployment of ``plan``, or without one the point that serves nothing (feasible when nothing is capped)."""
    if plan is None:
        columns = np.zeros(len(formulation.cost))
        columns[formulation.first_unmet : formulation.first_unmet + formulation.types] = 1.0
        return np.arange(len(columns)), columns
    degrees = instances.axis_names("N")
    wanted = {
        (instances.model_names.index(d.model), instances.gpu_names.index(d.gpu), degrees.index(str(d.tp)))
        for d in plan.deployments
    }
    deployed = np.array([tuple(t) in wanted for t in formulation.triple.tolist()], dtype=np.float64)
    return np.arange(len(deployed)), deployed


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
    start: Plan | None = None,
) -> Result:
    """Solve scenario ``b`` to a relative gap.

    The optimum of the MILP gives deployments and routes; the shares are solved again with these fixed, and the
    cost is what the independent checker computes for that plan. The bound is HiGHS's dual bound.

    Args:
      gap: relative gap (objective - bound) / objective to stop at; at most `OPTIMAL_GAP` counts as optimal.
      time_limit: seconds for HiGHS.
      start: a good plan to start from; it changes the time, not what is proven.

    Returns:
      A result; anything unexpected is its status ``error`` with a message, never an exception.
    """
    began = time.perf_counter()
    try:
        result = _solve(instances, b, gap, time_limit, start)
    except SolverFailed as failure:
        result = Result(b, "error", message=str(failure))
    return Result(**{**vars(result), "seconds": time.perf_counter() - began})


def _solve(instances: Instances, b: int, gap: float, time_limit: float, plan: Plan | None) -> Result:
    f = instances.one(b)
    formulation = build(instances, b)
    usable = plan if f.max_routes == 0 else None  # a start without the route binaries would cost a search
    start = None
    if usable is not None or f.unmet_cap >= 1.0:
        start = _starting_point(instances, formulation, usable)
    # Half the gap is left for the difference between HiGHS's objective and the plan's checked cost.
    answer = run_highs(formulation, start=start, mip_rel_gap=gap / 2, mip_abs_gap=0.0, time_limit=time_limit)
    kind = highspy.HighsModelStatus
    if answer.status == kind.kInfeasible:
        if start is None and _proven_infeasible(instances, b, time_limit):
            return Result(b, "infeasible", bound=math.inf)
        return Result(
            b, "error", message="HiGHS said infeasible, which a second computation does not confirm"
        )
    if answer.status not in (kind.kOptimal, kind.kTimeLimit):
        return Result(b, "error", message=f"HiGHS ended with {answer.status}")
    bound = answer.bound if math.isfinite(answer.bound) else -math.inf
    if answer.columns is None:
        return Result(b, "time_limit", bound=bound)
    deployed, routed = read_plan(formulation, answer.columns)
    plan = route(instances, b, deployed, routed if f.max_routes > 0 else None)
    verdict = None if plan is None else check_plan(plan, instances, b)
    if plan is None or verdict is None or not verdict.feasible:
        why = "no routing" if verdict is None else f"{verdict.binding} is broken"
        return Result(b, "error", bound=bound, message=f"the plan read from HiGHS failed the check: {why}")
    objective = verdict.costs["total_cost"]
    if bound > objective + _CROSSED * max(abs(objective), 1.0):
        return Result(
            b, "error", message=f"HiGHS's bound {bound} is above the cost {objective} of a checked plan"
        )
    bound = min(bound, objective)
    reached = relative_gap(bound, objective)
    status: Status
    if reached <= OPTIMAL_GAP:
        status = "optimal"
    elif answer.status == kind.kTimeLimit:
        status = "time_limit"
    elif reached <= gap:
        status = "gap_limit"
    else:
        message = f"the checked plan's gap {reached:.2g} is wider than the {gap:.2g} HiGHS claims"
        return Result(b, "error", objective, bound, verdict.costs, plan, message=message)
    return Result(b, status, objective, bound, verdict.costs, plan)
