"""Which fleet to rent in each hour of a day when replicas take minutes to start: the cheapest way through the hours."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from rodiu_jax.model.fields import tokens_per_query
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan, deployed_triples
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE

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
    scenarios: Instances,
    plans: Sequence[Plan],
    fixed: Deployment,
    start_minutes: float,
    *,
    follows: Sequence[bool],
    time_limit: float = math.inf,
) -> Schedule:
    """Find the cheapest schedule that changes between some fleets.

    Replicas that an hour needs and the hour before lacks are rented ``start_minutes`` before it begins, and serve
    nothing until then; what the hour before has serves to its end. Both together must keep the quotas, `max_replicas`,
    the budget and the storage. Where the next hour does not begin as one ends, nothing is known of the time between,
    and the fleet changes at no cost. A whole day is a circle: after its last hour comes the first.
    For each fleet that the first hour may have, the cheapest way through is a shortest path over the hours.

    The fleets are the cheapest of each hour, the fixed one, and the cheapest part of the fixed one in each hour, which
    starts and ends replicas of the same pairs alone. In an hour in which a fleet's rent is more than what the fixed one
    costs it is not looked at.

    Args:
      scenarios: one per hour.
      plans: the cheapest of each hour, which are the schedule where starting takes no time.
      fixed: a fleet that has a plan in every hour.
      follows: for each hour, whether the next one (after the last the first) begins as it ends.
      time_limit: seconds for the parts of the fixed fleet; those of hours that it leaves out are not looked at.

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
    parts = [p.deployments for p in _find_parts(scenarios, fixed, time_limit) if p is not None]
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
    chosen = go_round(cost, change, follows)
    kept = []
    for b, c in enumerate(chosen):
        found = routed[b][c]
        assert found is not None, "a way round of finite cost has a plan in every hour"
        kept.append(found[0])
    steps = [(chosen[b], chosen[(b + 1) % hours]) if follows[b] else None for b in range(hours)]
    starts = sum(float(change[step]) for step in steps if step is not None)
    costs = [float(cost[b, c]) for b, c in enumerate(chosen)]
    starting = tuple(
        0 if step is None else count_started(candidates[step[0]], candidates[step[1]]) for step in steps
    )
    return Schedule((sum(costs) + starts) / hours, tuple(kept), tuple(costs), starting)


def _find_parts(scenarios: Instances, fixed: Deployment, time_limit: float) -> list[Plan | None]:
    """Find the cheapest part of a fleet in each hour: its pairs at their degrees, with at most their replicas.

    Where the time ends the parts of the other hours are left out: any schedule may do without them.
    """
    from solvers.exact import solve_instance

    ends = time.monotonic() + time_limit
    f = scenarios.one(0)
    most, able = np.zeros(scenarios.shape[1:3], np.int64), np.zeros(scenarios.shape[1:], bool)
    for d, (j, k, n) in zip(fixed, deployed_triples(scenarios, fixed).tolist(), strict=True):
        most[j, k], able[j, k, n] = d.replicas, True
    limited = scenarios.with_fields(max_replicas=most, throughput=np.where(able, f.throughput, 0.0))
    parts: list[Plan | None] = []
    for b in range(scenarios.size):
        left = ends - time.monotonic()
        if left <= 0:
            break
        parts.append(solve_instance(limited, b, gap=_PART_GAP, time_limit=left).plan_for(b))
    return parts


def _rent(deployment: Deployment, scenarios: Instances) -> float:
    """Return the rent of a fleet, $/h."""
    price = scenarios.one(0).gpu_price
    return float(sum(price[scenarios.gpu_names.index(d.gpu)] * d.tp * d.replicas for d in deployment))


def go_round(
    cost: Float64[np.ndarray, "H C"], change: Float64[np.ndarray, "C C"], follows: Sequence[bool]
) -> list[int]:
    """Choose a column for each row so that the costs and those of the changes, round the circle, are least.

    Args:
      follows: for each row, whether a change to the next one costs anything.
    """
    hours, count = cost.shape
    best, chosen = math.inf, [0] * hours
    free = np.zeros_like(change)
    for first in range(count):
        if not math.isfinite(cost[0, first]):
            continue
        total = np.full(count, math.inf)
        total[first] = cost[0, first]
        came: list[np.ndarray] = []
        for b in range(1, hours):
            through = total[:, None] + (change if follows[b - 1] else free)
            came.append(np.argmin(through, axis=0))
            total = through.min(axis=0) + cost[b]
        end = total + (change[:, first] if follows[-1] else 0.0)
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
    return count_gpus(_list_started(now, then))


def _list_started(now: Deployment, then: Deployment) -> Deployment:
    """List the replicas that must be started: one of another model or degree is another replica."""
    held = {(d.model, d.gpu, d.tp): d.replicas for d in now}
    more = [replace(d, replicas=d.replicas - held.get((d.model, d.gpu, d.tp), 0)) for d in then]
    return tuple(d for d in more if d.replicas > 0)


def _cost_change(now: Deployment, then: Deployment, scenarios: Instances, start_minutes: float) -> float:
    """Return what starting costs, $; inf where both fleets together break a limit."""
    started = _list_started(now, then)
    if started and not _fits((*now, *started), scenarios):
        return math.inf
    return _rent(started, scenarios) * start_minutes / 60.0


def _fits(pairs: Deployment, scenarios: Instances) -> bool:
    """Tell whether replicas that are rented at once, perhaps of a pair at two degrees, keep the limits of a fleet.

    The budget is that of a period in which they would all be rented throughout, with the data of the busiest hour.
    """
    f = scenarios.one(0)
    most = np.broadcast_to(f.max_replicas, scenarios.shape[1:3])
    quota = np.broadcast_to(f.gpu_quota, len(scenarios.gpu_names))
    replicas: dict[tuple[int, int], int] = {}
    gpus: dict[str, int] = {}
    for d, (j, k, _) in zip(pairs, deployed_triples(scenarios, pairs).tolist(), strict=True):
        replicas[j, k] = replicas.get((j, k), 0) + d.replicas
        device = scenarios.gpu_devices[k]
        gpus[device] = gpus.get(device, 0) + d.tp * d.replicas
    if any(count > most[at] for at, count in replicas.items()):
        return False
    if any(count > quota[scenarios.gpu_devices.index(device)] for device, count in gpus.items()):
        return False
    weights = math.fsum(float(f.weight_memory[j]) for j, _ in replicas)
    rates = np.atleast_2d(scenarios.fields.arrival_rate)  # H,I
    data = float((rates * f.token_size * tokens_per_query(f)).sum(1).max()) / 1000.0  # MB to GB
    spent = float(f.rental_hours) * (_rent(pairs, scenarios) + float(f.storage_price) * (weights + data))
    room = 1.0 + MARGIN_TOLERANCE
    return spent <= float(f.budget) * room and weights <= float(f.storage_capacity) * room
