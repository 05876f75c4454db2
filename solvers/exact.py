"""Exact solution of one scenario by HiGHS: MILP, snapped, routing re-solved, checked by the independent checker.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import highspy
import numpy as np
from jaxtyping import Bool, Float64

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import LEAST_EXCESS, OPTIMAL_GAP
from solvers._accelerators import ALL, Accelerators
from solvers.answers import Answer, relative_gap
from solvers.best_plan import BestPlan, Contradiction, mark_deployed, route, starting_point
from solvers.formulation import Beyond, Formulation, assemble, build, read_plan
from solvers.highs import FEW_CUTS, LEAN, HighsAnswer, SolverFailed, run_highs
from solvers.nearby_fleets import SPARE, find_nearby_fleet, may_pay
from solvers.pricing import Priced, price
from solvers.terms import Terms, collect, tighten


def _proven_infeasible(instances: Instances, b: int, time_limit: float) -> bool:
    """Tell whether the least excess over the unmet cap is proven positive: a second proof of infeasibility.

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

    Returns:
      An answer; anything unexpected is its status ``ERROR`` with a message, never an exception.
    """
    return _solve_with(ALL, instances, b, gap=gap, time_limit=time_limit, start=start)


def _solve_with(
    use: Accelerators,
    instances: Instances,
    b: int,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    start: Answer | None = None,
) -> Answer:
    """Solve as `solve_instance`, with some accelerators off: for benchmarks and tests."""
    began = time.perf_counter()
    best = BestPlan(instances, b)
    try:
        answer = _search_from(best, gap, time_limit, start, use)
    except SolverFailed as failure:
        answer = best.answer(Status.ERROR, str(failure))
    except Contradiction as failure:
        best.bound = -math.inf
        answer = best.answer(Status.ERROR, str(failure))
    return replace(answer, seconds=time.perf_counter() - began)


_CORE, _CORE_OF_FLEETS = 12, 8
"""Triples searched first."""

_REST = 1e-5
"""Most of a fleet's gap that HiGHS may not use up at first: its objective and the checked cost were never further apart
than a hundredth of it. Where they are, it is asked again (`_search_from`)."""

_SCOUTED = 48
"""Triples searched roughly, for a better plan, where twice as many with replicas to choose are promising."""

_ROUGHLY = 5e-3
"""Relative gap of that search."""

_WITHIN_GAP = 0.999
"""Part of the gap that a triple may fall short of the best plan's cost to be left out: the rest is for rounding."""

_LEAST_SPLIT = 2
"""Budgets of the adversary below this leave nothing worth searching apart."""


class _OutOfTime(Exception):
    """The time limit was reached; what `BestPlan` holds is valid."""


def _search_from(
    best: BestPlan,
    gap: float,
    time_limit: float,
    start: Answer | None,
    use: Accelerators,
    *,
    again: bool = False,
) -> Answer:
    """Search from what is known.

    Args:
      again: HiGHS's objective and the checked cost were too far apart. It now leaves half the gap, and has every
        coefficient as it is, however small.
    """
    if start is not None:
        best.offer(start.plan_for(best.b))
    nothing = Plan(best.b, (), (), dict.fromkeys(best.instances.query_names, 1.0))
    best.offer(nothing)  # feasible where nothing is capped
    if start is not None:
        best.prove(start.lower, "the known")
    if (done := best.close(gap)) is not None:
        return done
    search = _Search(best, gap, time.perf_counter() + time_limit, start, use)
    if again:
        search.rest, search.exact = gap / 2, True
    try:
        if not search.run():
            if _proven_infeasible(best.instances, best.b, search.left()):
                return Answer.of(best.instances.names, Status.INFEASIBLE)
            if search.promising is not None:
                return best.answer(Status.UNKNOWN)
            raise Contradiction("HiGHS said infeasible, which a second computation does not confirm")
    except _OutOfTime:
        search.timed = True
    if (done := best.close(gap)) is not None:
        return done
    if search.timed:
        return best.answer(Status.TIME_LIMIT)
    if search.elsewhere < best.objective:
        return best.answer(Status.BRACKET)
    if not again:
        return _search_from(best, gap, search.deadline - time.perf_counter(), start, use, again=True)
    return best.answer(
        Status.ERROR, f"the checked plan's gap {best.gap:.2g} is wider than the {gap:.2g} HiGHS claims"
    )


@dataclass(frozen=True)
class _Bound:
    """What a phase of the search has proven: plans cost at least ``value``, but for those of more pairs.

    Attributes:
      searched: the triples that HiGHS has searched; what deploys another one is bounded by the dual function.
      most_pairs: ``value`` says nothing of plans of more pairs than these; None: it bounds all plans.
    """

    value: float
    searched: Bool[np.ndarray, " T"]
    most_pairs: int | None


class _Search:
    """The exact search over what the start leaves; its findings go to ``best``.

    It has four phases; `run` ends it as soon as the bound is within the gap of the best plan.

    1. Pricing: the LP relaxation, as a bound of all plans and a reduced cost of each triple. Of fleets, a good one near
       the relaxation's is looked for then: of hundreds of GPUs it mostly is within a percent of the bound.
    2. Core: a MILP over the few triples of least dual value, of few deployed pairs, for a good plan.
    3. Promising: a MILP over every triple that the dual function does not exclude, given that plan.
    4. More pairs: a MILP over plans of more pairs than the phases before have looked at.

    Why the least of the phases' bounds is a bound of the scenario: every plan deploys only triples that were searched
    and few pairs (HiGHS's dual bound holds), or a triple that was not searched (the relaxation's bound plus that
    triple's reduced cost holds), or more pairs (the fourth phase's bound holds), or a triple that the start excluded
    (``elsewhere`` holds, as whoever gave the start has proven). A plan costs at least the bound of its own case.
    """

    def __init__(
        self, best: BestPlan, gap: float, deadline: float, start: Answer | None, use: Accelerators
    ) -> None:
        self.best, self.gap, self.deadline, self.use = best, gap, deadline, use
        self.timed, self.exact = False, False
        self.promising = None if start is None else start.promising  # bool (J,K,N)
        self.elsewhere = math.inf if start is None or start.promising is None else start.upper
        self.gpus = len(best.instances.gpu_names)
        terms = collect(best.instances, best.b)
        if self.promising is not None:
            terms = terms.take((self.promising | self._known())[tuple(terms.triple.T)])
        useful = (self._tight(terms).most > 0).any(0)
        self.terms = terms.take(useful | self._known()[tuple(terms.triple.T)])
        self.everything = np.ones(len(self.terms.pair), bool)
        self.rest = gap / 2  # for HiGHS's objective and the checked cost to differ
        if self.terms.fleet is not None:
            self.rest = min(self.rest, _REST)

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
          _OutOfTime: none are. An exception, because any call of HiGHS may be the one that has no time.
        """
        seconds = self.deadline - time.perf_counter()
        if seconds <= 0:
            raise _OutOfTime
        return seconds

    def run(self) -> bool:
        """Search until ``best`` is closed or nothing is left; return False where HiGHS says that there is no plan.

        Raises:
          _OutOfTime, SolverFailed, Contradiction.
        """
        if not self.use.pricing:
            value = self._search_triples(self.everything, None)
            return value is not None and self._conclude(value)
        priced = self._price_relaxation()
        if self.best.gap <= self.gap:
            return True
        if self.use.nearby:
            self._look_nearby(priced)
            if self.best.gap <= self.gap:
                return True
        bound = self._search_core(priced)
        if bound is not None and not self.timed and self._is_open(bound.value):
            bound = self._search_promising(priced, bound)
        if bound is None:
            return False
        value = bound.value
        if bound.most_pairs is not None:
            value = min(value, self._search_more_pairs(priced, bound.most_pairs))
        return self._conclude(value)

    def _price_relaxation(self) -> Priced:
        """Phase 1: bound all plans by the LP relaxation."""
        priced = price(self._tight(self.terms), self.gpus, self._relaxation, self._known_triples())
        self.best.prove(min(priced.bound, self.elsewhere), "the dual function's")
        return priced

    def _look_nearby(self, priced: Priced) -> None:
        """Offer a good fleet of the triples of least dual value, where there are many GPUs; nothing is proven.

        Raises:
          _OutOfTime.
        """
        self.left()
        few = self.terms.take(self._least(priced, self.terms.types + SPARE))
        if not may_pay(few, priced.bound):
            return
        formulation = assemble(self._tight(few), self.gpus)
        try:
            columns = find_nearby_fleet(formulation, self.deadline)
        except SolverFailed:
            return  # nothing rests on it
        if columns is not None:
            self.best.offer(self._route(formulation, columns))

    def _search_core(self, priced: Priced) -> _Bound | None:
        """Phase 2: search the triples of least dual value, or all promising ones where these are few."""
        searched = self._promising(priced)
        core = _CORE if self.terms.fleet is None else _CORE_OF_FLEETS
        if self.use.core and searched.sum() > core:
            searched = self._least(priced, core)
        return self._search_part(priced, searched, self._few_pairs())

    def _search_promising(self, priced: Priced, core: _Bound) -> _Bound | None:
        """Phase 3: search what the dual function does not exclude, given the best plan, if that is more than before."""
        more = self._promising(priced)
        if self.terms.fleet is not None and more.sum() > 2 * _SCOUTED:
            self._search_triples(self._least(priced, _SCOUTED), core.most_pairs, gap=_ROUGHLY)
            more = self._promising(priced)
            if self.timed:
                return core
        if not (more & ~core.searched).any():
            return core
        return self._search_part(priced, more, core.most_pairs)

    def _search_part(
        self, priced: Priced, searched: Bool[np.ndarray, " T"], most_pairs: int | None
    ) -> _Bound | None:
        """Bound the plans of at most ``most_pairs`` pairs by searching some triples.

        Where these have no plan, everything is searched at once, of any number of pairs: None where that has none.
        """
        value = self._search_triples(searched, most_pairs)
        if value is not None:
            outside = priced.bound + priced.reduced[~searched].min(initial=math.inf)
            return _Bound(min(value, outside), searched, most_pairs)
        value = self._search_triples(self.everything, None)
        return None if value is None else _Bound(value, self.everything, None)

    def _search_more_pairs(self, priced: Priced, few: int) -> float:
        """Phase 4: bound the plans of more than ``few`` pairs; a cheaper one than the best is offered.

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
        formulation = assemble(terms, self.gpus, exact=self.exact, beyond=Beyond(few, self.best.objective))
        nothing = np.zeros(len(formulation.cost))
        nothing[-1] = 1.0
        value = self._solve_milp(formulation, (np.arange(len(nothing)), nothing))
        assert value is not None, "a search with a known plan has one"
        return min(bound, value)

    def _conclude(self, value: float) -> bool:
        self.best.prove(min(value, self.elsewhere), "HiGHS's")
        return True

    def _is_open(self, value: float) -> bool:
        return float(relative_gap(value, self.best.objective)) > self.gap

    def _enough(self) -> float:
        """Return the bound that closes the gap to the best plan: what costs as much need not be searched."""
        objective = self.best.objective
        if not math.isfinite(objective):
            return math.inf
        return objective - _WITHIN_GAP * self.gap * abs(objective)

    def _promising(self, priced: Priced) -> Bool[np.ndarray, " T"]:
        """Return the triples that plans better than the best may deploy, by the dual function, and the best plan's."""
        return (priced.bound + priced.reduced < self._enough()) | self._known_triples()

    def _least(self, priced: Priced, count: int) -> Bool[np.ndarray, " T"]:
        """Return the triples of least dual value, and the best plan's."""
        chosen = self._known_triples()
        chosen[np.argsort(priced.reduced, kind="stable")[:count]] = True
        return chosen

    def _few_pairs(self) -> int | None:
        """Return the pairs up to which some adversary's budget makes the worst case a plain sum, where that helps."""
        if not self.use.split:
            return None
        enough = [math.floor(g) for g in (self.terms.gamma_delay, self.terms.gamma_error)]
        enough = [m for m in enough if _LEAST_SPLIT <= m < self.terms.routes]
        return min(enough, default=None)

    def _tight(self, terms: Terms) -> Terms:
        return tighten(terms) if self.use.tightened else terms

    def _known(self) -> Bool[np.ndarray, "J K N"]:
        """Return the triples that the best plan deploys."""
        plan = self.best.plan
        if plan is None:
            return np.zeros(self.best.instances.shape[1:], bool)
        return mark_deployed(self.best.instances, plan)

    def _known_triples(self) -> Bool[np.ndarray, " T"]:
        """Return the same over the triples of the search."""
        return self._known()[tuple(self.terms.triple.T)]

    def _relaxation(self, formulation: Formulation) -> tuple[float, np.ndarray] | None:
        answer = run_highs(formulation, relax=True, presolve="off", time_limit=self.left())
        return None if answer.row_dual is None else (answer.objective, answer.row_dual)

    def _search_triples(
        self, searched: Bool[np.ndarray, " T"], most_pairs: int | None, *, gap: float = 0.0
    ) -> float | None:
        """Bound the plans over some triples (of at most ``most_pairs`` pairs), and offer the best of them.

        Many triples with numbers of replicas to choose are searched with HiGHS's heuristics, which then pay.

        Returns None where HiGHS says that there is none, and no plan is known that would contradict it.
        """
        terms = self.terms.take(searched)
        meant = self._tight(terms if most_pairs is None else terms.with_routes(most_pairs))
        formulation = assemble(meant, self.gpus, exact=self.exact)
        start = self.best.plan
        if start is not None and most_pairs is not None and len(start.deployments) > most_pairs:
            start = None
        begin = None if start is None else starting_point(self.best.instances, formulation, start)
        heuristics = terms.chooses_replicas and (gap > 0 or len(terms.pair) > 2 * _SCOUTED)
        return self._solve_milp(formulation, begin, gap=gap, heuristics=heuristics)

    def _solve_milp(
        self,
        formulation: Formulation,
        start: tuple[np.ndarray, np.ndarray] | None,
        *,
        gap: float = 0.0,
        heuristics: bool = False,
    ) -> float | None:
        """Solve a MILP, offer its plan if it has one, and return its bound; None where HiGHS says infeasible.

        Args:
          gap: relative, where it may be wider than that of the search.
          heuristics: let HiGHS look for plans.

        Raises:
          SolverFailed: HiGHS ended otherwise, or the plan fails the check.
          Contradiction: HiGHS says infeasible of a search that has a known plan.
        """
        kind = highspy.HighsModelStatus
        options = FEW_CUTS if heuristics else LEAN
        answer = run_highs(
            formulation,
            start=start,
            mip_rel_gap=max(self.gap - self.rest, gap),
            mip_abs_gap=0.0,
            time_limit=self.left(),
            **(options if self.use.options else {}),
        )
        if answer.status == kind.kInfeasible:
            if start is not None:
                raise Contradiction("HiGHS said infeasible of a search with a known plan")
            return None
        if answer.status not in (kind.kOptimal, kind.kTimeLimit):
            raise SolverFailed(f"HiGHS ended with {answer.status}")
        self.timed |= answer.status == kind.kTimeLimit
        self._offer_plan(formulation, answer)
        return answer.bound if math.isfinite(answer.bound) else -math.inf

    def _offer_plan(self, formulation: Formulation, answer: HighsAnswer) -> None:
        """Offer the plan of a solved MILP, unless it has none or has taken the way out."""
        if answer.columns is None or (answer.columns[formulation.columns.nothing] > 0.5).any():
            return
        if broken := self.best.offer(self._route(formulation, answer.columns)):
            raise SolverFailed(f"the plan read from HiGHS failed the check: {broken}")

    def _route(self, formulation: Formulation, columns: Float64[np.ndarray, " C"]) -> Plan | None:
        """Route what a solution deploys again, with every coefficient as it is."""
        found = read_plan(formulation, columns)
        routed = found.routed if self.terms.max_routes > 0 else None
        return route(self.best.instances, self.best.b, found.deployed, routed, found.replicas)
