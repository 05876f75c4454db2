"""The thin layer over HiGHS: options with checked statuses, loading a model, running it, reading status and duals.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import highspy
import numpy as np
from jaxtyping import Float64, Int, Int32

from solvers.sparse import SparseArrays


class SolverFailed(RuntimeError):
    """HiGHS refused an option or a model, or ended without an answer."""


ROUTING_OPTIONS: Mapping[str, float | int | str] = {
    "threads": 1,
    "solver": "simplex",
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}
"""Of routings of fixed deployments, which use almost nothing of what the checker forgives."""


FEW_CUTS: dict[str, Any] = {
    "mip_allow_cut_separation_at_nodes": False,
    "mip_pool_soft_limit": 1,
    "mip_pscost_minreliable": 1,
}
"""Of MILPs: cuts below the root, more than a few at it, and branchings for trial took more time than they saved."""

LEAN: dict[str, Any] = FEW_CUTS | {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_zi_round": False,
    "mip_heuristic_run_shifting": False,
}
"""The same without heuristics: their sub-MIPs took most of the time of a search that starts from a good plan."""


@dataclass(frozen=True)
class HighsAnswer:
    """What HiGHS said.

    Attributes:
      columns: of a feasible point, None without one.
      bound: proven.
      row_dual: of a solved LP, as HiGHS signs them (<= 0 on binding <= rows); None otherwise.
    """

    status: highspy.HighsModelStatus
    columns: Float64[np.ndarray, " C"] | None
    bound: float
    objective: float
    row_dual: Float64[np.ndarray, " R"] | None = None


@functools.cache
def discard_banner() -> None:
    """Send the banner that HiGHS prints at its first object in a process to the null device, not to standard output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def require_ok(status: Any, what: str) -> None:
    """Raise `SolverFailed` unless HiGHS accepted ``what``: a refused option leaves the old value and runs on."""
    if status != highspy.HighsStatus.kOk:
        raise SolverFailed(f"HiGHS answered {status} to {what}")


def _unit_of_money(cost: Float64[np.ndarray, " C"]) -> float:
    """Return the unit, in $, that HiGHS counts costs in; a power of two, which changes no digit of a cost.

    HiGHS's tolerances are absolute, so the largest cost is always 2^16 to 2^17 units.
    """
    largest = float(np.abs(cost).max(initial=0.0))
    return math.ldexp(1.0, math.frexp(largest)[1] - 17) if largest > 0 else 1.0


def load_model(
    model: SparseArrays,
    cost: Float64[np.ndarray, " C"],
    kinds: Int32[np.ndarray, " C"],
    options: Mapping[str, float | int | str],
) -> highspy.Highs:
    """Load a model into HiGHS with these costs and kinds of columns (0: a number, 1: a whole one), without running it.

    Raises:
      SolverFailed: HiGHS refused the model or an option.
    """
    solver = open_highs(options)
    pass_model(solver, model, cost, kinds)
    return solver


def open_highs(options: Mapping[str, float | int | str]) -> highspy.Highs:
    """Make a silent HiGHS with these options.

    Raises:
      SolverFailed: HiGHS refused an option.
    """
    discard_banner()
    solver = highspy.Highs()
    solver.silent()
    for name, value in options.items():
        require_ok(solver.setOptionValue(name, value), f"option {name}={value}")
    return solver


def pass_model(
    solver: highspy.Highs,
    model: SparseArrays,
    cost: Float64[np.ndarray, " C"],
    kinds: Int32[np.ndarray, " C"],
) -> None:
    """Put a model in the place of whatever HiGHS holds, as `load_model` does.

    Raises:
      SolverFailed: HiGHS refused the model.
    """
    status = solver.passModel(
        len(cost), len(model.row_lower), len(model.value), int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize), 0.0, cost, model.lower, model.upper, model.row_lower,
        model.row_upper, model.start, model.index, model.value, kinds,
    )  # fmt: skip
    require_ok(status, "the model")


class LinearPrograms:
    """One HiGHS that solves one linear program after another: making it anew takes as long as a small program."""

    def __init__(self) -> None:
        self._solver = open_highs(ROUTING_OPTIONS)

    def solve(self, model: SparseArrays) -> HighsAnswer:
        """Solve a linear program.

        Raises:
          SolverFailed: HiGHS refused the model.
        """
        money = _unit_of_money(model.cost)
        pass_model(self._solver, model, model.cost / money, np.zeros(len(model.cost), np.int32))
        self._solver.run()
        status = self._solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            return HighsAnswer(status, None, -math.inf, math.inf)
        objective = float(self._solver.getInfo().objective_function_value) * money
        solution = self._solver.getSolution()
        columns, dual = np.array(solution.col_value) * model.unit, np.array(solution.row_dual) * money
        return HighsAnswer(status, columns, objective, objective, dual)


class Solution(NamedTuple):
    """A linear program's solution; ``columns`` is None and ``objective`` inf without one.

    Attributes:
      reduced: what one more unit of each column costs.
    """

    objective: float
    columns: Float64[np.ndarray, " C"] | None
    reduced: Float64[np.ndarray, " C"]


class VaryingBounds:
    """One linear program solved again and again with other bounds of some columns, from the last solution's basis."""

    def __init__(self, model: SparseArrays, columns: Int[np.ndarray, " V"]) -> None:
        self._money, self._unit = _unit_of_money(model.cost), model.unit
        self._columns = columns.astype(np.int32)
        options = {**ROUTING_OPTIONS, "presolve": "off"}
        continuous = np.zeros(len(model.cost), np.int32)
        self._solver = load_model(model, model.cost / self._money, continuous, options)

    def solve(self, lower: Float64[np.ndarray, " V"], upper: Float64[np.ndarray, " V"]) -> Solution:
        """Solve the program with these bounds of the columns that vary, in their own units.

        Raises:
          SolverFailed: HiGHS refused a bound.
        """
        unit = self._unit[self._columns]
        status = self._solver.changeColsBounds(len(unit), self._columns, lower / unit, upper / unit)
        require_ok(status, "bounds of columns")
        self._solver.run()
        if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return Solution(math.inf, None, np.zeros(len(self._unit)))
        solution = self._solver.getSolution()
        return Solution(
            float(self._solver.getObjectiveValue()) * self._money,
            np.array(solution.col_value) * self._unit,
            np.array(solution.col_dual) * self._money / self._unit,
        )


def run_highs(
    formulation: SparseArrays,
    *,
    relax: bool = False,
    start: tuple[Int[np.ndarray, " P"], Float64[np.ndarray, " P"]] | None = None,
    **options: float | int | str,
) -> HighsAnswer:
    """Solve a formulation on one thread.

    Args:
      relax: drop the integrality (LP relaxation).
      start: positions and values of columns of a feasible point to start a MILP from; HiGHS finds the others.
      options: HiGHS options by name; a refused one raises.

    Raises:
      SolverFailed: HiGHS refused the model, the start or an option.
    """
    mip = not relax and bool(formulation.integer.any())
    # HiGHS 1.16's MIP presolve called 1 of 900 random scenarios infeasible, wrongly; it saves no time here.
    fixed = {"threads": 1, "presolve": "off" if mip else "choose"}
    model, money = formulation, _unit_of_money(formulation.cost)
    solver = load_model(model, model.cost / money, (model.integer & mip).astype(np.int32), fixed | options)
    if start is not None and mip:
        positions, values = start[0].astype(np.int32), start[1] / model.unit[start[0]]
        require_ok(solver.setSolution(len(positions), positions, values), "the starting point")
    solver.run()
    info = solver.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    status = solver.getModelStatus()
    objective = float(info.objective_function_value) * money if feasible else math.inf
    if mip:
        bound = float(info.mip_dual_bound) * money
    else:
        bound = objective if status == highspy.HighsModelStatus.kOptimal else -math.inf
    columns = np.array(solver.getSolution().col_value) * model.unit if feasible else None
    dual = None
    if not mip and status == highspy.HighsModelStatus.kOptimal:
        dual = np.array(solver.getSolution().row_dual) * money
    return HighsAnswer(status, columns, bound, objective, dual)
