"""The smallest change that lets every query be served."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rodiu_jax.decisions.diagnose.resolve import Change, Resolver
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE

LEVERS = ("budget", "delay_threshold", "error_threshold", "gpu_memory", "gpu_compute", "storage_capacity")
"""Fields that are multiplied, one at a time, all their entries alike."""

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


def everyone(resolver: Resolver, plan: Plan | None, lower: float, upper: float) -> Everyone:
    """What serving everyone takes; ``lower`` and ``upper`` bracket the optimum, which ``plan`` attains."""
    unmet = {q: u for q, u in plan.unmet.items() if u > NEGLIGIBLE_SHARE} if plan else {}
    if plan is not None and not unmet:
        return Everyone({}, 0.0, 0.0, [])
    fields = resolver.instances.one(resolver.b)
    all_served: Change = {"unmet_cap": np.array(0.0)}
    (within,) = resolver([all_served])
    if within.status != "infeasible":
        return Everyone(unmet, max(within.bound - upper, 0.0), within.objective - lower, [])

    def moved(name: str, factor: float) -> Change:
        return all_served | {name: np.asarray(getattr(fields, name), np.float64) * factor}

    low = {name: 1.0 for name in LEVERS if np.any(np.asarray(getattr(fields, name)) > 0)}
    high: dict[str, tuple[float, float]] = {}
    at = dict.fromkeys(low, _MOST)
    for _ in range(_ROUNDS):
        if not at:
            break
        names = list(at)
        for name, result in zip(names, resolver([moved(n, at[n]) for n in names], gap=1.0), strict=True):
            factor = at.pop(name)
            if result.plan is not None:
                high[name] = factor, result.objective
            elif result.status == "infeasible":
                low[name] = factor
            else:
                continue  # neither proven: the interval stays as it is
            if name in high and high[name][0] > low[name] * (1 + _FINE):
                at[name] = math.sqrt(low[name] * high[name][0])
    levers = [
        Lever(name, low[name] if name in high else math.inf, *high.get(name, (math.inf, math.inf)))
        for name in low
    ]
    return Everyone(unmet, math.inf, math.inf, sorted(levers, key=lambda lever: lever.enough))
