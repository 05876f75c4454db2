"""What robust rates cost beside plain headroom, and how often each fleet would be overloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rodiu_jax.analysis.intervals import clopper_pearson
from rodiu_jax.decisions.diagnose.movable_limits import variants
from rodiu_jax.decisions.pair_load import measure_load
from rodiu_jax.decisions.planning.even_routing import route_evenly
from rodiu_jax.decisions.planning.what_ifs import Change, Solve
from rodiu_jax.io.files import json_number
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

FACTORS = (1.1, 1.2, 1.5)
"""Plain headroom that robust rates are compared with."""

DRAWS = 20_000
"""Draws of shortfalls for each plan: an overload of 1 % is known to 0.15 %."""


@dataclass(frozen=True)
class Protection:
    """One way to protect a fleet against rates that fall short; money in $/h.

    Attributes:
      kind: ``gamma`` or ``headroom``; ``level``: Gamma, or the factor on the traffic.
      lower, upper: bracket of the cheapest such fleet at the traffic that it is solved for; with headroom that holds
        what would be bought elsewhere at the larger traffic, which nobody pays.
      plan: the fleet, routed for the real traffic; None where there is none.
      cost: of that plan on the real traffic, as the independent checker computes it; nan without a plan.
      fuller: share of draws in which some replica is fuller than `max_utilization`, the load that it is planned for.
      overload: share of draws in which some pair is sent more than its rate, at which its promises just hold; with its
        exact 95% interval.
    """

    kind: str
    level: float
    name: str
    what: str
    lower: float
    upper: float
    plan: Plan | None
    cost: float
    fuller: float
    overload: float
    overload_low: float
    overload_high: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; what is not known is null."""
        numbers = ("level", "cost", "lower", "upper", "fuller", "overload", "overload_low", "overload_high")
        return {"name": self.name, "kind": self.kind, "what": self.what} | {
            n: json_number(getattr(self, n)) for n in numbers
        }


def list_protections(
    scenario: Instances, gammas: Sequence[float] = (), factors: Sequence[float] = FACTORS
) -> list[tuple[str, float, str, str, Change]]:
    """List kind, level, name, sentence and change of each way to protect: every Gamma, and every plain headroom.

    Args:
      gammas: besides 0, 1, 2 and all types of the scenario.
    """
    fields, types = scenario.one(0), len(scenario.query_names)
    levels = sorted({0.0, 1.0, min(2.0, types), float(types), *(min(g, types) for g in gammas)})
    found: list[tuple[str, float, str, str, Change]] = []
    for gamma in levels:
        name = "nominal" if gamma == 0 else f"gamma {gamma:g}"
        what = "Every rate is trusted (gamma_throughput 0)."
        if gamma > 0:
            count = "every type's rate" if gamma >= types else f"the rates of {gamma:g} of the types"
            what = f"On each deployed pair {count} may fall short at once (gamma_throughput {gamma:g})."
        found.append(("gamma", gamma, name, what, {"gamma_throughput": np.asarray(gamma)}))
    for factor in sorted(set(factors)):
        what = f"Every rate is trusted, and the fleet is bought for {factor:g} times the traffic."
        change = {"gamma_throughput": np.asarray(0.0), "arrival_rate": fields.arrival_rate * factor}
        found.append(("headroom", factor, f"headroom {factor:g}", what, change))
    return found


def compare_protections(
    scenario: Instances, solve: Solve, *, gammas: Sequence[float] = (), factors: Sequence[float] = FACTORS
) -> list[Protection]:
    """Solve the scenario with each protection, route its fleet for the real traffic, cost that, and draw shortfalls.

    What a protection costs is what its fleet costs on the real traffic, so that all are compared at the same one.

    Args:
      scenario: the real traffic, B = 1.
    """
    listed = list_protections(scenario, gammas, factors)
    batch = variants(scenario, 0, [change for *_, change in listed])
    hours = float(scenario.one(0).rental_hours)
    found = []
    for (kind, level, name, what, change), answer in zip(listed, solve(batch), strict=True):
        plan, cost, fuller, share, low, high = answer.plan_for(0), *(float("nan"),) * 5
        if plan is not None:
            trusted = scenario.with_fields(gamma_throughput=change["gamma_throughput"])
            plan = route_evenly(trusted, plan)  # for the real traffic, as well protected as it was bought
            cost = check_plan(plan, scenario, 0).costs["total_cost"] / hours  # no cost knows gamma_throughput
            above, hits = count_overloads(plan, scenario)
            fuller, share = above / DRAWS, hits / DRAWS
            low, high = (float(x) for x in clopper_pearson(float(hits), DRAWS))
        bracket = answer.lower / hours, answer.upper / hours
        found.append(Protection(kind, level, name, what, *bracket, plan, cost, fuller, share, low, high))
    return found


def count_overloads(plan: Plan, scenario: Instances, *, draws: int = DRAWS, seed: int = 0) -> tuple[int, int]:
    """Count the draws in which some replica is fuller than planned, and those in which it is sent more than its rate.

    A type's load on a pair is ``l x + xi lh x`` (MODEL section 9), each xi uniform from 0 to 1 and independent.
    """
    found = measure_load(plan, scenario, 0)
    limits = found.replicas * float(scenario.one(0).max_utilization), found.replicas
    rng = np.random.default_rng(seed)
    over = [0, 0]
    for count in [min(2048, draws - first) for first in range(0, draws, 2048)]:
        drawn = (found.load + rng.random((count, *found.extra.shape)) * found.extra).sum(1)  # count,D
        for at, limit in enumerate(limits):
            over[at] += int((drawn > limit * (1 + 1e-9)).any(1).sum())
    return over[0], over[1]
