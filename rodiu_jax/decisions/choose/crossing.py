"""Costs of options (a deployment, with or without a routing of its own) crossed with scenarios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from rodiu_jax.decisions.sources import hard_scenarios
from rodiu_jax.model.fields import uses_serving
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan, PlanArrays, plan_arrays
from rodiu_jax.model.slots import EMPTY, join_slots
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, RECOURSE_GAP

QUANTILES = (0.5, 0.75, 0.9, 0.99, 1.0)
"""How hard the scenarios are for which fixed routings are made, beside the mean one, where none suits all scenarios."""


@dataclass(frozen=True)
class Option:
    """A deployment; ``plan`` is its fixed routing, or None where every scenario may route anew."""

    deployment: Deployment
    plan: Plan | None = None


class Costs(NamedTuple):
    """Of Q options in B scenarios, $ per period: lower <= cost <= upper, both inf where a promise or limit breaks.

    ``broken`` counts, per option, the scenarios that break each thing: pairs of name and count, most frequent first.
    """

    lower: Float64[np.ndarray, "Q B"]
    upper: Float64[np.ndarray, "Q B"]
    broken: list[dict[str, int]]


_BLOCK = 1024
"""Scenarios crossed between two reports of progress."""

_PLANS = 64
"""Plans scored at a time: their margins must fit in memory."""


def cross(
    options: Sequence[Option],
    instances: Instances,
    *,
    report: Callable[[int], None] = lambda count: None,
) -> Costs:
    """Compute the costs of all options, of one kind, in all scenarios; recourse to `RECOURSE_GAP`.

    Args:
      report: called with the number of scenarios just done.
    """
    parts = []
    for first in range(0, instances.size, _BLOCK):
        block = instances.span(first, min(first + _BLOCK, instances.size))
        fixed = options[0].plan is not None
        parts.append(_cross_fixed(options, block) if fixed else _cross_with_recourse(options, block))
        report(block.size)
    broken = []
    for q in range(len(options)):
        total: Counter[str] = Counter()
        for part in parts:
            total.update(part.broken[q])
        broken.append(dict(sorted(total.items(), key=lambda item: -item[1])))
    return Costs(
        np.concatenate([p.lower for p in parts], axis=1),
        np.concatenate([p.upper for p in parts], axis=1),
        broken,
    )


def _cross_with_recourse(options: Sequence[Option], instances: Instances) -> Costs:
    from solvers.recourse import recourse
    from solvers.recourse_brackets import Reason

    found = recourse(instances, [o.deployment for o in options], gap=RECOURSE_GAP)
    broken = [
        {
            Reason(r).word: int(n)
            for r, n in zip(*np.unique(row, return_counts=True), strict=True)
            if r != Reason.FEASIBLE
        }
        for row in found.reason
    ]
    return Costs(found.lower, found.upper, broken)


def _cross_fixed(options: Sequence[Option], instances: Instances) -> Costs:
    plans = [o.plan for o in options if o.plan is not None]
    arrays = plan_arrays(plans, instances, any_replicas=True)  # of some of the scenarios
    score = _check_crossed if uses_serving(instances.fields) else _score_crossed
    costs, broken = [], []
    for first in range(0, len(plans), _PLANS):
        cost, margins = score(instances, PlanArrays(*(a[first : first + _PLANS] for a in arrays)))
        bad = ~(margins >= -MARGIN_TOLERANCE)
        costs.append(np.where(bad.any(-1), np.inf, cost))
        broken += [
            {name: int(n) for name, n in zip(instances.families, row, strict=True) if n} for row in bad.sum(1)
        ]
    cost = np.concatenate(costs)
    return Costs(cost, cost, broken)


def _score_crossed(
    instances: Instances, plans: PlanArrays
) -> tuple[Float64[np.ndarray, "Q B"], Float64[np.ndarray, "Q B F"]]:
    """Return costs and margins of all plans in all scenarios, on the device."""
    from rodiu_jax.model.evaluation import score_crossed

    scores = score_crossed(instances, plans)
    return np.asarray(scores.costs)[..., 0], np.asarray(scores.margins)


def _check_crossed(
    instances: Instances, plans: PlanArrays
) -> tuple[Float64[np.ndarray, "Q B"], Float64[np.ndarray, "Q B F"]]:
    """Do as `_score_crossed` by the independent checker, which compiles nothing: fleets come in small batches."""
    from rodiu_jax.model.check import check_columns

    count, size = len(plans.unmet), instances.size
    slots = join_slots(plans.model, plans.gpu, np.maximum(plans.degree, 0), instances.names)
    slots = np.where(plans.degree >= 0, slots, EMPTY).astype(np.int32)
    q, b = np.divmod(np.arange(count * size), size)
    checks = check_columns(
        instances, slots[q], plans.share[q], plans.unmet[q], replicas=plans.replicas[q], scenario=b
    )
    return checks.costs[:, 0].reshape(count, size), checks.margins.reshape(count, size, -1)


def with_recourse(deployments: Sequence[Deployment]) -> list[Option]:
    """Return one option per deployment: routing is chosen anew in every scenario."""
    return [Option(d) for d in deployments]


def fix_routings(
    deployments: Sequence[Deployment],
    instances: Instances,
    planes: Callable[[Float64[np.ndarray, " B"]], Float64[np.ndarray, "M B"]],
    offset: Float64[np.ndarray, " B"] | float = 0.0,
) -> list[Option]:
    """Return options with a fixed routing: per deployment the best one that keeps every promise in every scenario.

    Where there is none, the best routings of the mean scenario and of ever harder ones stand in, which break some; a
    deployment that has a plan in none of these serves nothing.

    Args:
      planes: those below the criterion (`rodiu_jax.decisions.choose.criteria.Criterion.planes`).
      offset: what each scenario's cost is less, $ per period (for regret, the scenario's own optimum).
    """
    from solvers.fixed_routing import fixed_routings
    from solvers.recourse import recourse_plans

    best = fixed_routings(instances, deployments, planes, offset)
    options = [Option(d, plan) for d, plan in zip(deployments, best, strict=True) if plan is not None]
    others = [d for d, plan in zip(deployments, best, strict=True) if plan is None]
    if not others:
        return options
    tried: dict[tuple, Option] = {}
    routed = recourse_plans(hard_scenarios(instances, QUANTILES), others)[1]
    for deployment, plans in zip(others, routed, strict=True):
        nothing = Plan(None, deployment, (), dict.fromkeys(instances.query_names, 1.0))
        for plan in [p for p in plans if p is not None] or [nothing]:
            fixed = replace(plan, instance=None)
            tried.setdefault((deployment, fixed.routes), Option(deployment, fixed))
    return [*options, *tried.values()]
