"""What costs most in one scenario and what to change: prices of limits, adjustments, idle GPUs, unserved traffic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.decisions.diagnose.conflict import Conflict, find_conflict
from rodiu_jax.decisions.diagnose.fleet_limits import loosen_fleet
from rodiu_jax.decisions.diagnose.idle_gpus import Entry, find_entries
from rodiu_jax.decisions.diagnose.linear_programs import prove, relax_deployment
from rodiu_jax.decisions.diagnose.resolve import Change, Resolver
from rodiu_jax.decisions.diagnose.serve_all import Everyone, serve_everyone
from rodiu_jax.decisions.diagnose.shadow_prices import Shadow, find_shadow_prices
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.io.files import json_number
from rodiu_jax.model.fields import Fields, has_pair_values, uses_serving
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import SAME_COST
from rodiu_jax.runtime.progress import progress

if TYPE_CHECKING:
    from solvers.answers import Answer


_MOST_SOLVES = 300
"""What progress is told to expect: more than it takes, as ranges and entry prices rarely need all their rounds."""


@dataclass(frozen=True)
class Adjustment:
    """A change, re-solved.

    Attributes:
      name: what is changed, with its values.
      lower_bound, upper_bound: of the optimum then, $ per period.
      saving_lower, saving_upper: what it saves against the optimum now; none of the changes can cost.
      unmet_share: share of all queries unserved by the plan then.
    """

    name: str
    lower_bound: float
    upper_bound: float
    saving_lower: float
    saving_upper: float
    unmet_share: float

    def saves(self, cost: float) -> bool:
        """Say whether it saves more of the best plan's cost ($ per period) than a solver's last digits."""
        return self.saving_upper > SAME_COST * abs(cost)


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found about scenario ``instance``.

    Attributes:
      answer: the optimum and its plan.
      relaxation: $ per period, a bound that the dual function proves at the multipliers of ``relaxed_price``.
      binding: the limits that cost, dearest per percent first.
      adjustments: the largest saving first.
      everyone: what serving every query takes.
      idle: GPUs that are not rented, and what would change that.
      reason: which query types make a plan impossible, as nobody can serve them; empty where there is a plan, or where
        that is not the reason.
      conflict: the smallest set of limits that leaves no plan or, where there is one, that keeps everyone from being
        served; None where everyone could be, or where nothing is proven.
      priced: whether limits and idle GPUs were priced: not where scenarios have replicas, rates or quotas, of which one
        step more is among the adjustments.
    """

    instance: int
    answer: Answer
    relaxation: float
    binding: list[Shadow]
    adjustments: list[Adjustment]
    everyone: Everyone
    idle: list[Entry]
    reason: str = ""
    conflict: Conflict | None = None
    priced: bool = True

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is not known or infinite is null."""

        def each(item: Any) -> dict[str, Any]:
            return {k: json_number(v) if isinstance(v, float) else v for k, v in vars(item).items()}

        plan = self.answer.plan_for(self.instance)
        return {
            "instance": self.instance,
            "status": self.answer.status.word,
            "objective": json_number(self.answer.upper),
            "lower_bound": json_number(self.answer.lower),
            "relaxation": json_number(self.relaxation),
            "plan": None if plan is None else plan.to_json(),
            "binding": [
                {
                    "constraint": s.limit.constraint,
                    "name": s.limit.name,
                    "shadow_price": s.price,
                    "unit": s.limit.unit,
                    "value": s.value,
                    "holds_from": s.holds_from,
                    "holds_to": s.holds_to,
                    "per_percent": s.per_percent,
                    "relaxed_price": s.relaxed_price,
                    "resolved": [w._asdict() for w in s.witnesses],
                }
                for s in self.binding
            ],
            "adjustments": [each(a) for a in self.adjustments],
            "everyone": each(self.everyone) | {"levers": [each(lever) for lever in self.everyone.levers]},
            "idle": [each(e) for e in self.idle],
            "conflict": None if self.conflict is None else self.conflict.to_json(),
            **({"reason": self.reason} if self.reason else {}),
        }


def adjustments_of(fields: Fields) -> dict[str, Change]:
    """The seed's four adjustments (its section 6), relative to the scenario's own values; none that changes nothing."""

    def scaled(name: str, factor: float) -> np.ndarray:
        return np.asarray(getattr(fields, name), np.float64) * factor

    budget, gamma = float(fields.budget), float(fields.gamma_delay)
    changes = {
        f"budget {budget:,.0f} -> {budget * 5 / 3:,.0f}": {"budget": scaled("budget", 5 / 3)},
        "delay thresholds x1.5 and error thresholds x1.2": {
            "delay_threshold": scaled("delay_threshold", 1.5),
            "error_threshold": scaled("error_threshold", 1.2),
        },
        "unmet penalty x0.1": {"unmet_penalty": scaled("unmet_penalty", 0.1)},
    }
    if gamma > 0:
        changes[f"Gamma_d {gamma:g} -> {gamma / 2:g}"] = {"gamma_delay": scaled("gamma_delay", 0.5)}
    return changes


def diagnose(
    instances: Instances,
    b: int,
    *,
    time_limit: float = math.inf,
    workers: int | None = None,
    quiet: bool = True,
) -> Diagnosis:
    """Solve scenario ``b``, price its limits, and solve it again with every change that is worth telling.

    Where the scenario has replicas, rates or quotas, limits are not priced; what one more GPU of a quota, one more
    replica or a fuller replica saves is among the adjustments, each solved again.

    Args:
      time_limit: seconds for each of the solves (some dozens of them).
      workers: processes; the number of usable cores by default.
      quiet: no progress on standard error.

    Raises:
      InputError: no such scenario.
      WorkFailed: the scenario itself could not be solved in the time limit.
    """
    from solvers.pool import Pool, solve_iter
    from solvers.unservable import explain_no_plan

    instances.check_index(b)
    if not time_limit > 0:
        raise InputError("diagnose", "time_limit", "seconds > 0", time_limit)
    fields = instances.one(b)
    with progress("diagnose", _MOST_SOLVES, quiet=quiet) as bar, Pool(workers) as pool:
        solve = partial(solve_iter, workers=pool, time_limit=time_limit)
        resolver = Resolver(instances, b, solve, bar, spread=pool.map, time_limit=time_limit)
        (base,) = resolver([{}])
        plan, cost = base.plan_for(0), base.upper
        if plan is None and base.status is not Status.INFEASIBLE:
            raise WorkFailed(f"instance {b}: {base.message or f'no plan found in {time_limit:g} s'}")
        changes = adjustments_of(fields) | loosen_fleet(instances, b, plan)
        adjusted = [
            _adjustment(name, instances, b, base, answer)
            for name, answer in zip(changes, resolver(list(changes.values()), plan), strict=True)
        ]
        reason = "" if plan else explain_no_plan(instances, b)
        # Where a type is to blame no price of a limit says more, and multipliers do not price fleets.
        relaxed = None if reason or _is_fleet(fields) else relax_deployment(instances, b)
        y = None if relaxed is None else relaxed.multipliers
        proven = base.lower if y is None else float(prove(instances, b, y).bound)
        binding = find_shadow_prices(resolver, plan, cost, relaxed) if plan and relaxed else []
        served = serve_everyone(resolver, plan, base.lower, cost)
        idle = find_entries(resolver, plan, cost, relaxed) if plan and relaxed else []
        conflict = None
        if not plan or math.isinf(served.extra_lower):
            conflict = find_conflict(instances, b, resolver.find_plan, capped=plan is None)
    adjusted.sort(key=partial(_rank, cost=cost if plan else None))
    priced = not _is_fleet(fields)
    return Diagnosis(b, base, proven, binding, adjusted, served, idle, reason, conflict, priced)


def _rank(adjustment: Adjustment, *, cost: float | None) -> tuple[float, float]:
    """Return what adjustments are sorted by: the largest saving first; without a plan, the least cost.

    Those that save nothing keep their order: the last digits of a solver shall not decide it.

    Args:
      cost: of the best plan, $ per period; None without one.
    """
    if cost is None:
        return 0.0, adjustment.upper_bound
    if not adjustment.saves(cost):
        return 0.0, 0.0
    return -(adjustment.saving_lower + adjustment.saving_upper), adjustment.upper_bound


def _is_fleet(fields: Fields) -> bool:
    """True if a scenario has what the linear programs of prices do not know (MODEL section 9)."""
    return uses_serving(fields) or has_pair_values(fields)


def _adjustment(name: str, instances: Instances, b: int, base: Answer, answer: Answer) -> Adjustment:
    saved = max(base.lower - answer.upper, 0.0), max(base.upper - answer.lower, 0.0)
    if not base.has_plan:  # nothing to save against: it only matters whether there is a plan
        saved = math.inf, math.inf
    rate = np.asarray(instances.one(b).arrival_rate, np.float64)
    share = float((rate * answer.unmet).sum() / rate.sum()) if rate.sum() > 0 else 0.0
    return Adjustment(name, answer.lower, answer.upper, *saved, share if answer.has_plan else math.nan)
