"""Which fleet to rent in each hour of a day when replicas take minutes to start: the cheapest way round a circle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan, deployed_triples

_PART_GAP = 1e-3
"""Relative gap to which the cheapest part of the fixed fleet is solved in each hour."""


@dataclass(frozen=True)
class Schedule:
    """A fleet for each hour; money in $/h.

    Attributes:
      cost: on average over the hours, with what is rented while it starts.
      plans: of each hour, in that hour's scenario.
      hour_costs: of each hour, without what starts for the next.
      starting: GPUs that are started in each hour for the next one, which they serve from its beginning.
    """

    cost: float
    plans: tuple[Plan, ...]
    hour_costs: tuple[float, ...]
    starting: tuple[int, ...]


def find_schedule(
    scenarios: Instances, plans: Sequence[Plan], fixed: Deployment, start_minutes: float
) -> Schedule:
    """Find the cheapest schedule that changes between some fleets.

    Replicas that an hour needs and the hour before lacks are rented ``start_minutes`` before it begins, and serve
    nothing until then; what the hour before has serves to its end. Both must fit the quotas together. The day is a
    circle: after the last hour comes the first. For each fleet that the first hour may have, the cheapest way round is
    a shortest path over the hours.

    The fleets are the cheapest of each hour, the fixed one, and the cheapest part of the fixed one in each hour, which
    starts and ends replicas of the same pairs alone. In an hour in which a fleet's rent is more than what the fixed one
    costs it is not looked at.

    Args:
      scenarios: one per hour.
      plans: the cheapest of each hour, which are the schedule where starting takes no time.
      fixed: a fleet that has a plan in every hour.

    Source: dynamic programming; every number of the schedule is that of plans which the independent checker accepts.
    """
    from rodiu_jax.model.check import check_plan
    from solvers.common_fleet import route_fleet

    fields = scenarios.one(0)
    per_hour, hours = float(fields.rental_hours), scenarios.size
    if start_minutes <= 0:
        costs = [check_plan(p, scenarios, b).costs["total_cost"] / per_hour for b, p in enumerate(plans)]
        # Replicas take the place of others at once: none is rented beside them.
        return Schedule(float(np.mean(costs)), tuple(plans), tuple(costs), (0,) * hours)
    parts = [p.deployments for p in _find_parts(scenarios, fixed) if p is not None]
    candidates = list(dict.fromkeys([fixed, *parts, *(p.deployments for p in plans)]))
    rent = [_rent(fleet, scenarios) for fleet in candidates]
    routed: list[list[tuple[Plan, float] | None]] = []
    for b in range(hours):
        row = [route_fleet(scenarios, b, fixed)]
        most = math.inf if row[0] is None else row[0][1] / per_hour
        row += [
            route_fleet(scenarios, b, fleet) if rent[c] <= most else None
            for c, fleet in enumerate(candidates)
            if c > 0
        ]
        routed.append(row)
    cost = np.array([[math.inf if r is None else r[1] / per_hour for r in row] for row in routed])  # H,C
    change = np.array(
        [[_cost_change(a, b, scenarios, start_minutes) for b in candidates] for a in candidates]
    )
    chosen = go_round(cost, change)
    kept = []
    for b, c in enumerate(chosen):
        found = routed[b][c]
        assert found is not None, "a way round of finite cost has a plan in every hour"
        kept.append(found[0])
    starts = [change[chosen[b], chosen[(b + 1) % hours]] for b in range(hours)]
    costs = [float(cost[b, c]) for b, c in enumerate(chosen)]
    starting = [
        count_started(candidates[chosen[b]], candidates[chosen[(b + 1) % hours]]) for b in range(hours)
    ]
    return Schedule((sum(costs) + float(sum(starts))) / hours, tuple(kept), tuple(costs), tuple(starting))


def _find_parts(scenarios: Instances, fixed: Deployment) -> list[Plan | None]:
    """Find the cheapest part of a fleet in each hour: its pairs at their degrees, with at most their replicas."""
    from solvers.exact import solve_instance

    f = scenarios.one(0)
    most, able = np.zeros(scenarios.shape[1:3], np.int64), np.zeros(scenarios.shape[1:], bool)
    for d, (j, k, n) in zip(fixed, deployed_triples(scenarios, fixed).tolist(), strict=True):
        most[j, k], able[j, k, n] = d.replicas, True
    limited = scenarios.with_fields(max_replicas=most, throughput=np.where(able, f.throughput, 0.0))
    return [solve_instance(limited, b, gap=_PART_GAP).plan_for(b) for b in range(scenarios.size)]


def _rent(deployment: Deployment, scenarios: Instances) -> float:
    """Return the rent of a fleet, $/h."""
    price = scenarios.one(0).gpu_price
    return float(sum(price[scenarios.gpu_names.index(d.gpu)] * d.tp * d.replicas for d in deployment))


def go_round(cost: Float64[np.ndarray, "H C"], change: Float64[np.ndarray, "C C"]) -> list[int]:
    """Choose a column for each row so that the costs and those of the changes, round the circle, are least."""
    hours, count = cost.shape
    best, chosen = math.inf, [0] * hours
    for first in range(count):
        if not math.isfinite(cost[0, first]):
            continue
        total = np.full(count, math.inf)
        total[first] = cost[0, first]
        came: list[np.ndarray] = []
        for b in range(1, hours):
            through = total[:, None] + change
            came.append(np.argmin(through, axis=0))
            total = through.min(axis=0) + cost[b]
        end = total + change[:, first] if hours > 1 else total
        last = int(np.argmin(end))
        if end[last] < best:
            best, path = float(end[last]), [last]
            for back in reversed(came):
                path.append(int(back[path[-1]]))
            chosen = path[::-1]
    return chosen


def count_gpus(deployment: Deployment) -> int:
    """Count the GPUs of a fleet."""
    return sum(d.tp * d.replicas for d in deployment)


def count_started(now: Deployment, then: Deployment) -> int:
    """Count the GPUs of the replicas that the next fleet has and this one lacks."""
    return sum(gpus for _, gpus in _started(now, then))


def _started(now: Deployment, then: Deployment) -> list[tuple[str, int]]:
    """List GPU and number of them of what must be started: a replica of another model or degree is another one."""
    held = {(d.model, d.gpu, d.tp): d.replicas for d in now}
    return [
        (d.gpu, d.tp * max(d.replicas - held.get((d.model, d.gpu, d.tp), 0), 0))
        for d in then
        if d.replicas > held.get((d.model, d.gpu, d.tp), 0)
    ]


def _cost_change(now: Deployment, then: Deployment, scenarios: Instances, start_minutes: float) -> float:
    """Return what starting costs, $; inf where both fleets do not fit the quotas together."""
    fields = scenarios.one(0)
    started = _started(now, then)
    quota = np.broadcast_to(fields.gpu_quota, len(scenarios.gpu_names))
    used: dict[str, int] = {}
    for gpu, count in [*((d.gpu, d.tp * d.replicas) for d in now), *started]:
        device = scenarios.gpu_devices[scenarios.gpu_names.index(gpu)]
        used[device] = used.get(device, 0) + count
    for device, count in used.items():
        if count > quota[scenarios.gpu_devices.index(device)]:
            return math.inf
    price = sum(float(fields.gpu_price[scenarios.gpu_names.index(gpu)]) * count for gpu, count in started)
    return price * start_minutes / 60.0
