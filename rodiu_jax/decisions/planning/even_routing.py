"""Routing of a fleet that is rented already: as cheap as can be, and then as even as can be."""

from __future__ import annotations

import numpy as np

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import has_rates
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.model.tolerances import SAME_COST

_STEPS = 12
"""Halvings of the largest load: it is known to 1/4096."""


def route_evenly(scenario: Instances, plan: Plan) -> Plan:
    """Route the deployment of a plan anew: at least cost, and among those with the smallest largest load.

    A linear program ends in a corner, where some replicas are full and others idle although nobody asked for that. So
    the largest worst-case load that any replica may have is halved towards the smallest at which the routing still
    costs no more. Fuller replicas queue longer, and are the first to be overloaded where rates fall short.

    Args:
      scenario: B = 1; its traffic may be less than what the deployment was bought for.

    Returns:
      a plan of the same deployment, idle pairs too; ``plan`` itself where no routing is better.
    """
    if not plan.deployments:
        return plan
    best = _route_below(scenario, plan, float(scenario.one(0).max_utilization))
    if best is None:
        return plan
    most = check_plan(best, scenario, 0).costs["total_cost"]
    if not has_rates(scenario.one(0)):
        return best
    low, high = 0.0, float(scenario.one(0).max_utilization)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = _route_below(scenario, plan, middle)
        if found is not None and _costs_at_most(found, scenario, most):
            best, high = found, middle
        else:
            low = middle
    return best


def _costs_at_most(plan: Plan, scenario: Instances, most: float) -> bool:
    verdict = check_plan(plan, scenario, 0)
    return verdict.feasible and verdict.costs["total_cost"] <= most + SAME_COST * abs(most)


def _route_below(scenario: Instances, plan: Plan, utilization: float) -> Plan | None:
    """Find the cheapest routing with no replica fuller than ``utilization``; None where there is none."""
    from solvers.best_plan import route

    counts = np.array([d.replicas for d in plan.deployments], np.int64)
    routed = None
    if int(scenario.one(0).max_routes) > 0:
        used = {(r.query, r.model, r.gpu) for r in plan.routes}
        routed = np.array(
            [[(q, d.model, d.gpu) in used for d in plan.deployments] for q in scenario.query_names]
        )
    limited = scenario.with_fields(max_utilization=utilization)
    again = route(limited, 0, deployed_triples(scenario, plan.deployments), routed, counts)
    return None if again is None else Plan(plan.instance, plan.deployments, again.routes, again.unmet)
