"""Exact solution of one scenario by HiGHS: MILP, snapped, routing re-solved, checked by the independent checker.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import CROSSED_BY_HIGHS, LEAST_EXCESS, OPTIMAL_GAP
from solvers.accelerators import ALL, Accelerators
from solvers.answers import Answer, relative_gap
from solvers.formulation import Beyond, Formulation, assemble, build, read_plan, to_plan
from solvers.pricing import Priced, price
from solvers.terms import Terms, collect, tighten


class SolverFailed(RuntimeError):
    """HiGHS refused an option or a model, or ended without an answer."""


@dataclass(frozen=True)
class HighsAnswer:
    """What HiGHS said.

    Attributes:
      columns: of a feasible point, None without one.
      bound: proven.
      row_dual: of a solved LP, as HiGHS signs them (<= 0 on binding <= rows); None otherwise.
    """

    status: highspy.HighsModelStatus
    columns: np.ndarray | None
    bound: float
    objective: float
    row_dual: np.ndarray | None = None


@functools.cache
def print_banner_nowhere() -> None:
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


def require(status: Any, what: str) -> None:
    if status != highspy.HighsStatus.kOk:
        raise SolverFailed(f"HiGHS answered {status} to {what}")


def _unit_of_money(cost: np.ndarray) -> float:
    """What HiGHS counts costs in: its tolerances are absolute, so the largest cost is always 2^16 to 2^17 of these.

    A power of two changes no digit of a cost.
    """
    largest = float(np.abs(cost).max(initial=0.0))
    return math.ldexp(1.0, math.frexp(largest)[1] - 17) if largest > 0 else 1.0


def loaded(
    model: Formulation, cost: np.ndarray, kinds: np.ndarray, options: Mapping[str, float | int | str]
) -> highspy.Highs:
    """HiGHS with a model of these costs and kinds of columns (0: a number, 1: a whole one), not run yet.

    Raises:
      SolverFailed: HiGHS refused the model or an option.
    """
    print_banner_nowhere()
    solver = highspy.Highs()
    solver.silent()
    for name, value in options.items():
        require(solver.setOptionValue(name, value), f"option {name}={value}")
    status = solver.passModel(
        len(cost), len(model.row_lower), len(model.value), int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize), 0.0, cost, model.lower, model.upper, model.row_lower,
        model.row_upper, model.start, model.index, model.value, kinds,
    )  # fmt: skip
    require(status, "the model")
    return solver


def run_highs(
    formulation: Formulation,
    *,
    relax: bool = False,
    start: tuple[np.ndarray, np.ndarray] | None = None,
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
    solver = loaded(model, model.cost / money, (model.integer & mip).astype(np.int32), fixed | options)
    if start is not None and mip:
        positions, values = start[0].astype(np.int32), start[1] / model.unit[start[0]]
        require(solver.setSolution(len(positions), positions, values), "the starting point")
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
    deployed[tuple(deployed_triples(instances, plan.deployments).T)] = True
    return deployed


def starting_point(
    instances: Instances, formulation: Formulation, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of a plan's binaries, from which HiGHS finds the rest; all where it serves nothing."""
    if not plan.deployments:
        columns = np.zeros(len(formulation.cost))
        columns[formulation.columns.unmet] = 1.0
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
    positions = np.concatenate(
        [np.arange(len(w)), np.arange(len(formulation.cost))[formulation.columns.route]]
    )
    return positions, np.concatenate([w, z]).astype(np.float64)


def _proven_infeasible(instances: Instances, b: int, time_limit: float) -> bool:
    """True when the least excess over the unmet cap is proven positive: a second proof of infeasibility.

    Where HiGHS alone says "infeasible" its dual bound is infinite and proves nothing, so we minimise the excess
    instead, a problem that always has a solution and whose finite bound can be read.

    Raises:
      _OutOfTime: before it is proven.
    """
    answer = run_highs(
        build(instances, b, measure_excess=True), mip_rel_gap=0.5, time_limit=time_limit, mip_abs_gap=1e-9
    )
    proven = math.isfinite(answer.bound) and answer.bound > LEAST_EXCESS
    if not proven and answer.status == highspy.HighsModelStatus.kTimeLimit:
        raise _OutOfTime
    return proven


def solve_instance(
    instances: Instances,
    b: int,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    start: Answer | None = None,
    use: Accelerators = ALL,
) -> Answer:
    """Solve scenario ``b`` to a relative gap.

    The optimum of the MILP gives deployments and routes; the shares are solved again with these fixed, and the
    cost is what the independent checker computes for that plan. The bound is HiGHS's dual bound.

    Args:
      gap: relative gap (upper - lower) / |upper| to stop at; at most `OPTIMAL_GAP` counts as optimal.
      time_limit: seconds for HiGHS.
      start: what is known of the scenario; where that closes the gap HiGHS is not asked. Its plan is checked, and
        ignored where it is not feasible. Its ``lower``, and ``promising`` with ``upper``, are believed: every plan that
        deploys what is not promising costs at least ``upper``, and is not searched.
      use: what may speed the search up.

    Returns:
      An answer; anything unexpected is its status ``ERROR`` with a message, never an exception.
    """
    began = time.perf_counter()
    best = _Best(instances, b)
    try:
        result = _solve(best, gap, time_limit, start, use)
    except SolverFailed as failure:
        result = best.result(Status.ERROR, str(failure))
    except _Contradiction as failure:
        best.bound = -math.inf
        result = best.result(Status.ERROR, str(failure))
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
        """Take a plan over where it is feasible and cheaper; returns what it breaks, empty if nothing.

        Raises:
          _Contradiction: it costs less than what is proven.
        """
        if plan is None:
            return "no routing"
        verdict = check_plan(plan, self.instances, self.b)
        if not verdict.feasible:
            return f"{verdict.binding} is broken"
        if verdict.costs["total_cost"] < self.objective:
            self.plan, self.costs = plan, verdict.costs
            self.objective = verdict.costs["total_cost"]
            proven, self.bound = self.bound, -math.inf
            self.prove(proven, "the")
        return ""

    def prove(self, bound: float, whose: str) -> None:
        """Raise the bound; at most to the cost of the plan.

        Raises:
          _Contradiction: it is above the cost of a checked plan.
        """
        if math.isnan(bound):
            return
        if bound > self.objective + CROSSED_BY_HIGHS * max(abs(self.objective), 1.0):
            raise _Contradiction(
                f"{whose} bound {bound} is above the cost {self.objective} of a checked plan"
            )
        self.bound = max(self.bound, min(float(bound), self.objective))

    @property
    def gap(self) -> float:
        return float(relative_gap(self.bound, self.objective))

    def result(self, status: Status, message: str = "") -> Answer:
        return Answer.of(
            self.instances.names, status, plan=self.plan, costs=self.costs, lower=self.bound, message=message
        )

    def closed(self, gap: float) -> Answer | None:
        """The answer where the gap is reached."""
        if self.gap <= OPTIMAL_GAP:
            return self.result(Status.OPTIMAL)
        return self.result(Status.GAP_LIMIT) if self.gap <= gap else None


HEURISTICS_OFF: dict[str, Any] = {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_zi_round": False,
    "mip_heuristic_run_shifting": False,
}
"""Their sub-MIPs took most of the time of a search that starts from a good plan."""

_CORE = 12
"""Triples searched first."""

_LEAST_SPLIT = 2
"""Budgets of the adversary below this leave nothing worth searching apart."""


class _OutOfTime(Exception):
    """The time limit was reached; what `_Best` holds is valid."""


class _Infeasible(Exception):
    """HiGHS says that a search nobody knows a plan for has no plan."""


def _solve(best: _Best, gap: float, time_limit: float, start: Answer | None, use: Accelerators) -> Answer:
    if start is not None:
        best.offer(start.plan_for(best.b))
    nothing = Plan(best.b, (), (), dict.fromkeys(best.instances.query_names, 1.0))
    best.offer(nothing)  # feasible where nothing is capped
    if start is not None:
        best.prove(start.lower, "the known")
    if (done := best.closed(gap)) is not None:
        return done
    search = _Search(best, gap, time.perf_counter() + time_limit, start, use)
    try:
        if not search.run():
            if _proven_infeasible(best.instances, best.b, search.left()):
                return Answer.of(best.instances.names, Status.INFEASIBLE)
            if search.promising is not None:
                return best.result(Status.UNKNOWN)
            raise _Contradiction("HiGHS said infeasible, which a second computation does not confirm")
    except _OutOfTime:
        search.timed = True
    if (done := best.closed(gap)) is not None:
        return done
    if search.timed:
        return best.result(Status.TIME_LIMIT)
    if search.elsewhere < best.objective:
        return best.result(Status.BRACKET)
    return best.result(
        Status.ERROR, f"the checked plan's gap {best.gap:.2g} is wider than the {gap:.2g} HiGHS claims"
    )


class _Search:
    """The exact search over what the start leaves; its findings go to ``best``."""

    def __init__(
        self, best: _Best, gap: float, deadline: float, start: Answer | None, use: Accelerators
    ) -> None:
        self.best, self.gap, self.deadline, self.use = best, gap, deadline, use
        self.timed = False
        self.promising = None if start is None else start.promising  # bool (J,K,N)
        self.elsewhere = math.inf if start is None or start.promising is None else start.upper
        self.gpus = len(best.instances.gpu_names)
        terms = collect(best.instances, best.b)
        if self.promising is not None:
            terms = terms.take((self.promising | self._known())[tuple(terms.triple.T)])
        useful = (self._tight(terms).most > 0).any(0)
        self.terms = terms.take(useful | self._known()[tuple(terms.triple.T)])

    def left(self) -> float:
        """Seconds.

        Raises:
          _OutOfTime: none.
        """
        seconds = self.deadline - time.perf_counter()
        if seconds <= 0:
            raise _OutOfTime
        return seconds

    def run(self) -> bool:
        """Search until ``best`` is closed or nothing is left; False where HiGHS says that there is no plan at all.

        Raises:
          _OutOfTime, SolverFailed, _Contradiction.
        """
        try:
            self._run()
        except _Infeasible:
            return False
        return True

    def _run(self) -> None:
        everything = np.ones(len(self.terms.pair), bool)
        if not self.use.pricing:
            self.best.prove(min(self._explore(everything), self.elsewhere), "HiGHS's")
            return
        priced = price(self._tight(self.terms), self.gpus, self._relaxation, self._mine())
        self.best.prove(min(priced.bound, self.elsewhere), "the dual function's")
        if self.best.gap <= self.gap:
            return
        few = self._few()

        def promising() -> np.ndarray:
            return (priced.bound + priced.reduced < self._enough()) | self._mine()

        def outside(searched: np.ndarray) -> float:
            return priced.bound + priced.reduced[~searched].min(initial=math.inf)

        searched = promising()
        if self.use.core and searched.sum() > _CORE:
            searched = self._mine()
            searched[np.argsort(priced.reduced, kind="stable")[:_CORE]] = True

        def explored(searched: np.ndarray, few: int | None) -> tuple[float, np.ndarray, int | None]:
            """The bound; what was searched for it; everything, of any number of pairs, where a part has no plan."""
            try:
                return min(self._explore(searched, few), outside(searched)), searched, few
            except _Infeasible:
                return self._explore(everything), everything, None

        bound, searched, few = explored(searched, few)
        if not self.timed and float(relative_gap(bound, self.best.objective)) > self.gap:
            more = promising()
            if (more & ~searched).any():
                bound, searched, few = explored(more, few)
        if few is not None:
            bound = min(bound, self._beyond(priced, few))
        self.best.prove(min(bound, self.elsewhere), "HiGHS's")

    def _enough(self) -> float:
        """The bound that closes the gap to the best plan: what costs as much need not be searched."""
        objective = self.best.objective
        return objective - 0.999 * self.gap * abs(objective) if math.isfinite(objective) else math.inf

    def _few(self) -> int | None:
        """Pairs up to which some adversary's budget makes the worst case a plain sum, where that helps."""
        if not self.use.split:
            return None
        enough = [math.floor(g) for g in (self.terms.gamma_delay, self.terms.gamma_error)]
        enough = [m for m in enough if _LEAST_SPLIT <= m < self.terms.routes]
        return min(enough, default=None)

    def _tight(self, terms: Terms) -> Terms:
        return tighten(terms) if self.use.tightened else terms

    def _known(self) -> np.ndarray:
        """bool (J,K,N): what the best plan deploys."""
        plan = self.best.plan
        return (
            np.zeros(self.best.instances.shape[1:], bool)
            if plan is None
            else _deployed(self.best.instances, plan)
        )

    def _mine(self) -> np.ndarray:
        """bool (T,): the same, over the triples of the search."""
        return self._known()[tuple(self.terms.triple.T)]

    def _relaxation(self, formulation: Formulation) -> tuple[float, np.ndarray] | None:
        answer = run_highs(formulation, relax=True, presolve="off", time_limit=self.left())
        return None if answer.row_dual is None else (answer.objective, answer.row_dual)

    def _explore(self, searched: np.ndarray, few: int | None = None) -> float:
        """Bound of the plans over some triples (those of at most ``few`` pairs); the best of them is offered.

        Raises:
          _Infeasible: HiGHS says there is none, and no plan is known that would contradict it.
        """
        terms = self.terms.take(searched)
        formulation = assemble(self._tight(terms if few is None else terms.with_routes(few)), self.gpus)
        start = self.best.plan
        if start is not None and few is not None and len(start.deployments) > few:
            start = None
        begin = None if start is None else starting_point(self.best.instances, formulation, start)
        return self._milp(formulation, begin).bound

    def _beyond(self, priced: Priced, few: int) -> float:
        """Bound of the plans of more than ``few`` pairs; a cheaper one than the best is offered.

        The MILP has a way out at the best plan's cost, so that HiGHS never has to prove that nothing is left.
        """
        least = priced.beyond(self.terms.pair, few + 1)
        searched = least < self._enough()
        bound = least[~searched].min(initial=math.inf)
        if len(np.unique(self.terms.pair[searched])) <= few:
            return min(bound, self.best.objective)
        if self.timed:
            return least.min(initial=math.inf)
        terms = self._tight(self.terms.take(searched))
        formulation = assemble(terms, self.gpus, beyond=Beyond(few, self.best.objective))
        nothing = np.zeros(len(formulation.cost))
        nothing[-1] = 1.0
        return min(bound, self._milp(formulation, (np.arange(len(nothing)), nothing)).bound)

    def _milp(self, formulation: Formulation, start: tuple[np.ndarray, np.ndarray] | None) -> HighsAnswer:
        """Solve a MILP and offer its plan, if it has one.

        Raises:
          _Infeasible, SolverFailed.
          _Contradiction: HiGHS says infeasible of a search that has a known plan.
        """
        kind = highspy.HighsModelStatus
        answer = run_highs(
            formulation,
            start=start,
            mip_rel_gap=self.gap / 2,  # the rest is for HiGHS's objective and the checked cost to differ
            mip_abs_gap=0.0,
            time_limit=self.left(),
            **(HEURISTICS_OFF if self.use.options else {}),
        )
        if answer.status == kind.kInfeasible:
            if start is None:
                raise _Infeasible
            raise _Contradiction("HiGHS said infeasible of a search with a known plan")
        if answer.status not in (kind.kOptimal, kind.kTimeLimit):
            raise SolverFailed(f"HiGHS ended with {answer.status}")
        self.timed |= answer.status == kind.kTimeLimit
        if answer.columns is not None and not (answer.columns[formulation.columns.nothing] > 0.5).any():
            deployed, routed = read_plan(formulation, answer.columns)
            limited = self.terms.max_routes > 0
            plan = route(self.best.instances, self.best.b, deployed, routed if limited else None)
            if broken := self.best.offer(plan):
                raise SolverFailed(f"the plan read from HiGHS failed the check: {broken}")
        return answer if math.isfinite(answer.bound) else replace(answer, bound=-math.inf)
