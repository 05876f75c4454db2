"""What each limit costs: its shadow price, and how far the price holds when everything is solved again.

The price is that of the routing (`rodiu_jax.decisions.prices`): with the optimal deployment kept, one unit more of the
limit saves it. It says what the optimum does as long as no other deployment becomes better, so the range is found by
the routing program first and then cut until the re-solved optimum at both ends, and half-way to them, is as predicted.
Between these points a third deployment may be better: that is not excluded, only rare (`bench/shadow_prices.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rodiu_jax.decisions.limits import Limit, limits, variants
from rodiu_jax.decisions.prices import Priced, deployed_triples, price, routes_allowed
from rodiu_jax.decisions.resolve import Resolver
from rodiu_jax.plan import Plan

_FURTHEST = 0.5
"""Ranges end at half and at one and a half times the limit."""

_TIGHT = 1e-6
"""A limit binds where moving it by its own size would change the cost by more than this, relative."""

_SLACK = 0.01
"""A prediction holds to this share of the change, or to twice the relative gap of the optima."""

_ROUNDS = 5
_SHRINK = 0.3


class Witness(NamedTuple):
    """A re-solved point: the limit's value, the predicted optimum and the proven interval of the true one."""

    value: float
    predicted: float
    lower: float
    upper: float


@dataclass
class Shadow:
    """The price of one limit.

    Attributes:
      limit, value: the limit and what it is now.
      price: $ per period saved by one unit more, with this deployment.
      relaxed_price: the same of the relaxation that may deploy fractions: no relaxation by a unit brings more than
        this beside the relaxation's gap.
      holds_from, holds_to: the limit's values between which the price predicts the optimum.
      witnesses: the re-solved points that say so.
    """

    limit: Limit
    value: float
    price: float
    relaxed_price: float
    holds_from: float
    holds_to: float
    witnesses: list[Witness] = field(default_factory=list)

    @property
    def per_percent(self) -> float:
        """$ per period for one percent of the limit."""
        return self.price * self.value / 100.0


def tolerance(cost: float, change: float) -> float:
    """What a prediction may be wrong by, $ per period."""
    return max(2e-6 * abs(cost), _SLACK * abs(change))


def shadows(resolver: Resolver, plan: Plan, cost: float, relaxed: Priced) -> list[Shadow]:
    """The binding limits of an optimal plan, those that cost most per percent first.

    Args:
      cost: of the plan, the optimum.
      relaxed: the relaxation of the scenario.
    """
    instances, b = resolver.instances, resolver.b
    fields = instances.one(b)
    deployed, routed = deployed_triples(instances, plan), routes_allowed(instances, b, plan)
    routing = price(instances, b, deployed=deployed, routed=routed)
    found: list[Shadow] = []
    for limit in limits(instances):
        value = limit.value(fields)
        own, other = routing.price(limit, instances, b), relaxed.price(limit, instances, b)
        if max(own, other) * (value or 1.0) > _TIGHT * max(abs(cost), 1e-9):
            found.append(Shadow(limit, value, own, other, value, value))

    def routed_value(limit: Limit, value: float) -> float:
        there = variants(instances, b, [limit.at(fields, value)])
        return price(there, 0, deployed=deployed, routed=routed).value

    open_ends: dict[tuple[int, int], float] = {}
    for number, s in enumerate(found):
        if s.price * (s.value or 1.0) > _TIGHT * abs(cost):
            for side in (-1, 1):
                reach = _linear_reach(s, side, cost, routed_value)
                if reach > 0:
                    open_ends[number, side] = reach
    for _ in range(_ROUNDS):
        if not open_ends:
            break
        points = [(n, side, share * reach) for (n, side), reach in open_ends.items() for share in (0.5, 1.0)]
        changes = [found[n].limit.at(fields, found[n].value + side * step) for n, side, step in points]
        held = dict.fromkeys(open_ends, True)
        seen: dict[tuple[int, int], list[Witness]] = {end: [] for end in open_ends}
        for (n, side, step), result in zip(points, resolver(changes, plan), strict=True):
            s = found[n]
            predicted = cost - side * step * s.price
            slack = tolerance(cost, step * s.price)
            near = result.bound - slack <= predicted <= result.objective + slack
            held[n, side] &= near and result.objective - result.bound <= slack
            seen[n, side].append(Witness(s.value + side * step, predicted, result.bound, result.objective))
        for n, side in list(open_ends):
            if held[n, side]:
                end = found[n].value + side * open_ends.pop((n, side))
                found[n].witnesses += seen[n, side]
                if side < 0:
                    found[n].holds_from = end
                else:
                    found[n].holds_to = end
            else:
                open_ends[n, side] *= _SHRINK
    return sorted(found, key=lambda s: (-s.per_percent, -s.relaxed_price * s.value))


def _linear_reach(s: Shadow, side: int, cost: float, routed_value: Callable[[Limit, float], float]) -> float:
    """How far to one side the routing program's optimum is as the price says."""

    def holds(step: float) -> bool:
        return (
            abs(routed_value(s.limit, s.value + side * step) - cost + side * step * s.price)
            <= tolerance(cost, step * s.price) / 2
        )

    most = _FURTHEST * s.value if s.value > 0 else 1.0
    most = min(most, s.limit.highest - s.value) if side > 0 else min(most, s.value)
    if most <= 0:
        return 0.0
    step = most
    while not holds(step):
        step /= 2
        if step < 1e-6 * most:
            return 0.0
    if step < most:
        over = 2 * step
        for _ in range(5):
            middle = (step + over) / 2
            step, over = (middle, over) if holds(middle) else (step, middle)
    return step
