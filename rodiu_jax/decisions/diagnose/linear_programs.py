"""The two linear programs of a scenario whose multipliers price its limits, solved by HiGHS.

    routing     the deployment fixed (w = 1): what a plan's shares cost and which limits hold them
    relaxation  every triple open, 0 <= w <= 1, x[i,t] <= most[i,t] w[t]

Both are `solvers.formulation` with its coefficients as they are. The dual function at the relaxation's multipliers is a
bound on its own. It is affine in every limit that stands on a right-hand side, so a price proves how little a change
can bring, and the optimum of the linear program, how much it does bring where the price holds.

Several multipliers can be optimal, for two reasons. A share's own limit x <= most w restates the memory or compute row
of its triple where only that type uses it: its multiplier is counted as that row's (`_count_links`), so that the
price of memory is what memory saves. And an optimum can be degenerate: then the vertex counts at which the dual simplex
ends. Each of them lies between what the limit saves to its left and to its right, and the range in which it predicts
the optimum (`rodiu_jax.decisions.diagnose.shadow_prices`) says on which side it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.decisions.diagnose.movable_limits import Limit
from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from solvers.dual.coefficients import derive_coefficients, ratio, refuse_serving
from solvers.dual.function import DualValue, Multipliers, evaluate_dual
from solvers.formulation import Formulation, assemble
from solvers.highs import SolverFailed, run_highs
from solvers.pricing import read_multipliers
from solvers.terms import Terms, collect

_EXACT: dict[str, Any] = {
    "solver": "simplex",
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}
"""A vertex, so that a multiplier is 0 where its limit does not bind, at HiGHS's tightest useful tolerances."""


@dataclass(frozen=True)
class LinearOptimum:
    """A linear program's optimum over T triples.

    Attributes:
      value: $ per period; inf where it has no solution.
      gpu, gpus: of each triple the GPU's position and how many of it are rented: its degree times w.
      served: share of each type that is served.
      multipliers: None without a solution.
      unmet: $ per unit of the cap on unmet shares, by type.
    """

    value: float
    gpu: Int[np.ndarray, " T"]
    gpus: Float64[np.ndarray, " T"]
    memory: Float64[np.ndarray, " T"]
    compute: Float64[np.ndarray, " T"]
    served: Float64[np.ndarray, " I"]
    unmet: Float64[np.ndarray, " I"]
    multipliers: Multipliers | None

    def price(self, limit: Limit) -> float:
        """What one unit more of a limit saves, $ per period and unit: the derivative of ``-value`` (the envelope)."""
        y = self.multipliers
        if y is None:
            return 0.0
        at = limit.position[0] if limit.position else 0
        if limit.constraint in ("memory", "compute"):
            price = (getattr(self, limit.constraint) * self.gpus)[self.gpu == at].sum()
        elif limit.constraint == "unmet":
            price = self.unmet.sum()
        elif limit.constraint in ("delay", "error"):
            price = getattr(y, limit.constraint)[at] * self.served[at]
        else:
            price = getattr(y, limit.constraint)
        return max(float(price), 0.0)


def relax_deployment(instances: Instances, b: int) -> LinearOptimum:
    """Solve the relaxation of scenario ``b``; a limit on the number of routes is left out of it."""
    terms = collect(instances, b)
    return _solve(instances, b, terms, fixed=False, routed=np.ones(terms.most.shape, bool))


def route_deployment(
    instances: Instances,
    b: int,
    deployed: Int[np.ndarray, "D 3"],
    routed: Bool[np.ndarray, "I D"] | None = None,
) -> LinearOptimum:
    """Solve the routing of scenario ``b`` over some triples.

    Args:
      routed: the routes allowed; all by default (a limit on their number is then left out).
    """
    terms = collect(instances, b, deployed)
    if routed is None:
        routed = np.ones(terms.most.shape, bool)
    # Shares are bounded by the capacities alone: a bound of their own could take a part of the capacities' prices.
    return _solve(instances, b, replace(terms, most=np.ones_like(terms.most)), fixed=True, routed=routed)


def _solve(instances: Instances, b: int, terms: Terms, *, fixed: bool, routed: np.ndarray) -> LinearOptimum:
    """Solve a linear program.

    Raises:
      InputError: as `refuse_serving`.
      WorkFailed: HiGHS ended without an answer.
    """
    refuse_serving(instances.fields)
    formulation = assemble(terms, len(instances.gpu_names), fixed=fixed, exact=True, routed=routed)
    try:
        answer = run_highs(formulation, relax=True, **_EXACT)
    except SolverFailed as failure:
        raise WorkFailed(f"a linear program of the shadow prices: {failure}") from failure
    gpu, none = terms.triple[:, 1], np.zeros(len(terms.triple))
    if answer.row_dual is None or answer.columns is None:
        if "Infeasible" not in str(answer.status):
            raise WorkFailed(f"a linear program of the shadow prices ended with {answer.status}")
        nobody = np.zeros(terms.types)
        return LinearOptimum(np.inf, gpu, none, none, none, nobody, nobody, None)
    y = _count_links(terms, formulation, answer.row_dual)
    at = terms.pair, terms.triple[:, 2]
    deployed = answer.columns[formulation.columns.deployed]
    degree = instances.one(b).tp_degree[terms.triple[:, 2]]
    served = np.zeros(terms.types)
    np.add.at(served, formulation.cell[:, 0], answer.columns[formulation.columns.share])
    # The reduced cost of an unmet share is its penalty less the price of demand: what is below 0 is the cap's.
    unmet = np.maximum(y.demand - terms.unmet_cost, 0.0)
    return LinearOptimum(
        answer.objective, gpu, degree * deployed, y.memory[at], y.compute[at], served, unmet, y
    )


def _count_links(terms: Terms, formulation: Formulation, row_dual: np.ndarray) -> Multipliers:
    """Read the multipliers; those of shares' own limits count as the capacity's that sets the limit.

    With most = room / kv, the row x <= most w is kv x <= room w divided by kv.
    """
    y = read_multipliers(terms, formulation, row_dual)
    rows = formulation.rows.link
    if not len(rows):
        return y
    i, t = formulation.cell.T
    link = np.maximum(-row_dual[rows] / formulation.row_unit[rows], 0.0)
    kv, work = terms.kv[i, t], terms.work[i, t]
    by_memory, by_compute = ratio(terms.room[t], kv), ratio(terms.power[t], work)
    at = terms.pair[t], terms.triple[t, 2]
    of_memory = (by_memory < 1.0) & (by_memory <= by_compute)
    of_compute = (by_compute < 1.0) & ~of_memory
    memory, compute = y.memory.copy(), y.compute.copy()
    np.add.at(memory, at, np.where(of_memory, link / np.where(of_memory, kv, 1.0), 0.0))
    np.add.at(compute, at, np.where(of_compute, link / np.where(of_compute, work, 1.0), 0.0))
    return y._replace(memory=memory, compute=compute)


def prove(instances: Instances, b: int, y: Multipliers) -> DualValue:
    """Evaluate the dual function of scenario ``b``: what multipliers prove of all plans, and of those with a triple."""
    with np.errstate(all="ignore"):  # what is no number proves nothing
        c = derive_coefficients(instances.one(b), instances.uncertainty)
        return evaluate_dual(c, y, careful=True)


def routes_allowed(instances: Instances, b: int, plan: Plan) -> Bool[np.ndarray, "I D"] | None:
    """Mark the routes of the plan where the scenario limits their number; None where it does not."""
    if int(instances.one(b).max_routes) == 0:
        return None
    used = {(r.query, r.model, r.gpu) for r in plan.routes if r.share > 0}
    return np.array(
        [[(q, d.model, d.gpu) in used for d in plan.deployments] for q in instances.query_names], bool
    )
