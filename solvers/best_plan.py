"""The best checked plan of an exact search: routing fixed deployments, starting HiGHS from a plan, keeping the best.

No JAX here: worker processes load this module.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import CROSSED_BY_HIGHS, OPTIMAL_GAP
from solvers.answers import Answer, relative_gap
from solvers.formulation import Formulation, build, to_plan
from solvers.highs import LinearPrograms


class Contradiction(RuntimeError):
    """A bound and a checked plan, or two statements of HiGHS, that cannot both be right."""


class BestPlan:
    """The best checked plan of a scenario so far, and the bound that is proven."""

    def __init__(self, instances: Instances, b: int) -> None:
        self.instances, self.b = instances, b
        self.plan: Plan | None = None
        self.costs: dict[str, float] | None = None
        self.objective = math.inf
        self.bound = -math.inf

    def offer(self, plan: Plan | None) -> str:
        """Take a plan over where it is feasible and cheaper; return what it breaks, empty if nothing.

        Raises:
          Contradiction: it costs less than what is proven.
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
          Contradiction: it is above the cost of a checked plan.
        """
        if math.isnan(bound):
            return
        if bound > self.objective + CROSSED_BY_HIGHS * max(abs(self.objective), 1.0):
            raise Contradiction(f"{whose} bound {bound} is above the cost {self.objective} of a checked plan")
        self.bound = max(self.bound, min(float(bound), self.objective))

    @property
    def gap(self) -> float:
        return float(relative_gap(self.bound, self.objective))

    def answer(self, status: Status, message: str = "") -> Answer:
        return Answer.of(
            self.instances.names, status, plan=self.plan, costs=self.costs, lower=self.bound, message=message
        )

    def close(self, gap: float) -> Answer | None:
        """Return the answer where the gap is reached."""
        if self.gap <= OPTIMAL_GAP:
            return self.answer(Status.OPTIMAL)
        return self.answer(Status.GAP_LIMIT) if self.gap <= gap else None


def route(
    instances: Instances,
    b: int,
    deployed: Int[np.ndarray, "D 3"],
    routed: Bool[np.ndarray, "I D"] | None = None,
    replicas: Int[np.ndarray, " D"] | None = None,
) -> Plan | None:
    """Find the cheapest routing over fixed deployments, by an LP; None where no routing serves enough.

    Args:
      deployed: positions (model, gpu, degree) of D deployed pairs.
      routed: the routes allowed; required where the scenario limits routes.
      replicas: of each deployed pair, by default 1.
    """
    formulation = build(instances, b, deployed=deployed, replicas=replicas, routed=routed)
    answer = LinearPrograms().solve(formulation)
    return None if answer.columns is None else to_plan(instances, b, formulation, answer.columns)


def mark_deployed(instances: Instances, plan: Plan) -> Bool[np.ndarray, "J K N"]:
    """Return the triples that a plan deploys."""
    deployed = np.zeros(instances.shape[1:], bool)
    deployed[tuple(deployed_triples(instances, plan.deployments).T)] = True
    return deployed


def starting_point(
    instances: Instances, formulation: Formulation, plan: Plan
) -> tuple[Int[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    """Return positions and values of a plan's whole numbers, from which HiGHS finds the rest.

    Of a plan that serves nothing all columns are returned.
    """
    if not plan.deployments:
        columns = np.zeros(len(formulation.cost))
        columns[formulation.columns.unmet] = 1.0
        return np.arange(len(columns)), columns
    w = mark_deployed(instances, plan)[tuple(formulation.triple.T)]
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
    values = np.concatenate([w, z]).astype(np.float64)
    several = np.flatnonzero(formulation.columns.replicas != np.arange(len(w)))  # with an r of their own
    if not len(several):
        return positions, values
    # More replicas than the formulation has only cost rent, so that the plan is one with fewer too.
    count = np.zeros(instances.shape[1:], np.int64)
    count[tuple(deployed_triples(instances, plan.deployments).T)] = [d.replicas for d in plan.deployments]
    r = formulation.columns.replicas[several]
    chosen = np.minimum(count[tuple(formulation.triple[several].T)], formulation.upper[r])
    return np.concatenate([positions, r]), np.concatenate([values, chosen])
