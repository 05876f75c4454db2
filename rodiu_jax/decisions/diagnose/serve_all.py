"""The smallest change that lets every query be served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rodiu_jax.decisions.diagnose.resolve import Change, Resolver
from rodiu_jax.decisions.diagnose.threshold import Threshold, narrow
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE
from solvers.answers import Answer

LEVERS = ("budget", "delay_threshold", "error_threshold", "gpu_memory", "gpu_compute", "storage_capacity")
"""Fields that are multiplied, one at a time, all their entries alike."""

FLEET_LEVERS = ("throughput", "gpu_quota")
"""The same where scenarios state them."""

_MOST = 1000.0
_ROUNDS = 14
_FINE = 0.005


@dataclass(frozen=True)
class Lever:
    """A field multiplied until everyone can be served.

    Attributes:
      field: as in MODEL section 1.
      not_at, enough: factors; at the first nobody can serve all (proven), at the second a checked plan does. Both inf
        where a thousandfold is not enough.
      cost: $ per period of serving all there (an upper bound); inf where it cannot.
    """

    field: str
    not_at: float
    enough: float
    cost: float


@dataclass(frozen=True)
class Everyone:
    """Whether all is served, could be, and what would be enough.

    Attributes:
      unmet: share of the queries that the optimal plan leaves unserved, by type (those above 0).
      extra_lower, extra_upper: $ per period that serving all costs more than the optimum, within the limits as they
        are; both 0 where all is served, both inf where it is proven impossible.
      levers: the smallest change first; empty where no change is needed.
    """

    unmet: dict[str, float]
    extra_lower: float
    extra_upper: float
    levers: list[Lever]


def serve_everyone(resolver: Resolver, plan: Plan | None, lower: float, upper: float) -> Everyone:
    """Find what serving everyone takes; ``lower`` and ``upper`` bracket the optimum, which ``plan`` attains."""
    unmet = {q: u for q, u in plan.unmet.items() if u > NEGLIGIBLE_SHARE} if plan else {}
    if plan is not None and not unmet:
        return Everyone({}, 0.0, 0.0, [])
    fields = resolver.instances.one(resolver.b)
    all_served: Change = {"unmet_cap": np.array(0.0)}
    (within,) = resolver([all_served])
    if within.status is not Status.INFEASIBLE:
        return Everyone(unmet, max(within.lower - upper, 0.0), within.upper - lower, [])

    def solve(questions: Sequence[tuple[str, float]]) -> list[Answer]:
        changes = [
            all_served | {name: np.asarray(getattr(fields, name), np.float64) * factor}
            for name, factor in questions
        ]
        return resolver(changes, gap=1.0)

    thresholds: dict[str, Threshold[float]] = {
        name: Threshold(low=1.0, ask=_MOST)
        for name in (*LEVERS, *(n for n in FLEET_LEVERS if np.ndim(getattr(fields, n))))
        if np.any(np.asarray(getattr(fields, name)) > 0)
    }
    narrow(thresholds, _ROUNDS, solve, _learn)
    levers = [
        Lever(name, math.inf, math.inf, math.inf)
        if t.high is None or t.proof is None
        else Lever(name, t.low, t.high, t.proof)
        for name, t in thresholds.items()
    ]
    return Everyone(unmet, math.inf, math.inf, sorted(levers, key=lambda lever: lever.enough))


def _learn(_: str, threshold: Threshold[float], factor: float, answer: Answer) -> float | None:
    """Take in whether all can be served at a factor; return the next one, between those known on a log scale."""
    if answer.has_plan:
        threshold.hold(factor, answer.upper)
    elif answer.status is Status.INFEASIBLE:
        threshold.fail(factor)
    else:
        return None  # neither is proven: the interval stays as it is
    if threshold.high is None or threshold.high <= threshold.low * (1 + _FINE):
        return None
    return math.sqrt(threshold.low * threshold.high)
