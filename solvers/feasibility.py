"""Whether a scenario has a plan at all, whatever it costs: a checked plan, or a proof that there is none. No JAX here.

Costs are left out: the least excess over the cap on unmet shares is minimised, a problem that always has a solution. A
proven excess above 0 says that no plan keeps every limit; a point without excess gives a plan, which the independent
checker accepts or not.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import highspy

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import LEAST_EXCESS
from solvers.answers import Answer
from solvers.best_plan import BestPlan, route
from solvers.formulation import build, read_plan
from solvers.highs import HighsAnswer, SolverFailed, run_highs


@dataclass(frozen=True)
class FeasibilityTask:
    """One scenario, held alone, and the seconds that HiGHS may take for it."""

    one: Instances
    time_limit: float = math.inf


def find_any_plan(task: FeasibilityTask) -> Answer:
    """Find any plan of a scenario.

    The linear relaxation is asked first: where it has an excess, no deployment needs to be looked at.

    Returns:
      An answer: ``FEASIBLE`` with a checked plan, ``INFEASIBLE`` where that is proven, ``TIME_LIMIT`` or ``UNKNOWN``
      where neither is, ``ERROR`` with a message where HiGHS ends without an answer.
    """
    one, best = task.one, BestPlan(task.one, 0)
    began = time.perf_counter()
    try:
        formulation = build(one, 0, measure_excess=True)
        relaxed = run_highs(formulation, relax=True, time_limit=task.time_limit)
        if _proves_excess(relaxed):
            return best.answer(Status.INFEASIBLE)
        left = task.time_limit - (time.perf_counter() - began)
        if left <= 0:
            return best.answer(Status.TIME_LIMIT)
        answer = run_highs(formulation, mip_rel_gap=0.5, mip_abs_gap=1e-9, time_limit=left)
        if _proves_excess(answer):
            return best.answer(Status.INFEASIBLE)
        if answer.columns is not None and answer.objective <= LEAST_EXCESS:
            found = read_plan(formulation, answer.columns)
            routed = found.routed if int(one.one(0).max_routes) > 0 else None
            best.offer(route(one, 0, found.deployed, routed, found.replicas))
    except SolverFailed as failure:
        return best.answer(Status.ERROR, str(failure))
    if best.plan is not None:
        return best.answer(Status.FEASIBLE)
    timed = answer.status == highspy.HighsModelStatus.kTimeLimit
    return best.answer(Status.TIME_LIMIT if timed else Status.UNKNOWN)


def _proves_excess(answer: HighsAnswer) -> bool:
    return math.isfinite(answer.bound) and answer.bound > LEAST_EXCESS
