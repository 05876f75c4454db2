"""The method ``evaluate``: what given plans cost in every scenario, and whether they keep their promises there.

The batched evaluator scores every plan in every scenario; the independent checker scores all plans again in a share of
the scenarios, and stops the work where the two disagree. ``rodiu verify`` checks every row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.check import check_columns
from rodiu_jax.model.evaluation import name_binding, score_crossed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import plan_arrays
from rodiu_jax.model.plan_json import parse_plans
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE, RECOMPUTED
from solvers.answers import Answer, Answers

_AUDITED = 64
"""The checker scores one scenario in so many, the first always."""


def take_cheapest(instances: Instances, texts: Sequence[str]) -> Iterator[Answers]:
    """Yield, for all scenarios at once, the cheapest of the plans that keep every promise: its cost bounds the optimum.

    Status ``FEASIBLE``, with an upper bound alone, or ``UNKNOWN`` where every plan breaks something.

    Raises:
      WorkFailed: evaluator and checker disagree.
    """
    began = time.perf_counter()
    plans = parse_plans(texts, instances)
    columns = Answers.stack(
        [Answer.of(instances.names, Status.FEASIBLE, plan=plan) for plan in plans], names=instances.names
    )
    arrays = plan_arrays(plans, instances)
    costs, margins, binding = (np.asarray(a) for a in score_crossed(instances, arrays))  # P,B and 5, 9, -
    feasible = np.asarray((margins >= -MARGIN_TOLERANCE).all(2))  # P,B
    _audit(instances, columns, costs, feasible)
    total = np.where(feasible, costs[:, :, 0], math.inf)  # P,B
    best = total.argmin(0)  # B
    none = np.isinf(total.min(0))  # B
    size = instances.size
    chosen = columns.take(best)
    message = np.full(size, "", object)
    lost = np.flatnonzero(none)
    broken = name_binding(instances, arrays, np.zeros(len(lost), np.int64), binding[0, lost])
    message[lost] = ("the plan breaks " if len(plans) == 1 else "no plan fits; the first breaks ") + broken
    row = none[:, None]
    yield Answers(
        instances.names,
        status=np.where(none, Status.UNKNOWN, Status.FEASIBLE).astype(np.int8),
        prover=np.full(size, Prover.EVALUATE, np.int8),
        lower=np.full(size, -math.inf),
        upper=total[best, np.arange(size)],
        certified=np.full(size, -math.inf),
        costs=np.where(row, math.nan, costs[best, np.arange(size)]),
        slots=chosen.slots,
        replicas=chosen.replicas,
        shares=chosen.shares,
        unmet=np.where(row, math.nan, chosen.unmet),
        nodes=np.zeros(size, np.int64),
        steps=np.zeros(size, np.int64),
        seconds=np.full(size, (time.perf_counter() - began) / size),
        message=message,
    )


def _audit(
    instances: Instances,
    plans: Answers,
    costs: Float64[np.ndarray, "P B 5"],
    feasible: Bool[np.ndarray, "P B"],
) -> None:
    """Compare the evaluator's verdicts on all plans in some scenarios with the checker's.

    Raises:
      WorkFailed: a cost differs, or a verdict does where no margin is at its tolerance.
    """
    scenario = np.arange(0, instances.size, _AUDITED)
    for p in range(len(plans)):
        every = np.full(len(scenario), p)
        same = plans.take(every)
        checks = check_columns(
            instances, same.slots, same.shares, same.unmet, replicas=same.replicas, scenario=scenario
        )
        own = costs[p, scenario]
        near = RECOMPUTED * (1.0 + np.abs(checks.costs[:, :1]))
        wrong = ~(np.abs(own - checks.costs) <= near).all(1)
        doubtful = np.abs(checks.margins.min(1) + MARGIN_TOLERANCE) <= RECOMPUTED
        wrong |= (feasible[p, scenario] != checks.feasible) & ~doubtful
        if wrong.any():
            b = int(np.argmax(wrong))
            raise WorkFailed(
                f"audit: plan {p} in scenario {scenario[b]}: the evaluator says {own[b, 0]}, feasible "
                f"{feasible[p, scenario[b]]}; the checker {checks.costs[b, 0]}, {checks.feasible[b]}"
            )
