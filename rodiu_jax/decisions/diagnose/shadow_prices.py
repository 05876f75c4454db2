"""What each limit costs: its shadow price, and how far the price holds when everything is solved again.

The price is that of the routing (`rodiu_jax.decisions.diagnose.limit_prices`): with the optimal deployment kept, one
unit more of the limit saves it. It says what the optimum does as long as no other deployment becomes better. The range
is found by the routing program first; then a MILP in which the limit may lie anywhere in the range
(`solvers.ranging`) proves that no
deployment is better at any of its points, or shows one, and the range is cut where that one begins to be. Both ends
are solved again as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from rodiu_jax.decisions.diagnose.limit_prices import Priced, price, routes_allowed
from rodiu_jax.decisions.diagnose.movable_limits import Limit, limits, variants
from rodiu_jax.decisions.diagnose.resolve import Resolver
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.model.tolerances import SAME_COST

_FURTHEST = 0.5
"""Ranges end at half and at one and a half times the limit."""


_SLACK = 0.01
"""A prediction holds to this share of the change, or to twice the relative gap of the optima."""

_ROUNDS = 8
_BACK = 0.9
"""A range is cut to this share of where another deployment is as good."""

_SHRINK = 0.3
"""A range is cut to this share where a proof lacks but nothing better is known."""


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
      witnesses: the ends, solved again.
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
    deployed, routed = deployed_triples(instances, plan.deployments), routes_allowed(instances, b, plan)
    routing = price(instances, b, deployed=deployed, routed=routed)
    found: list[Shadow] = []
    for limit in limits(instances):
        value = limit.value(fields)
        own, other = routing.price(limit, instances, b), relaxed.price(limit, instances, b)
        if max(own, other) * (value or 1.0) > SAME_COST * max(abs(cost), 1e-9):
            found.append(Shadow(limit, value, own, other, value, value))

    def routed_value(limit: Limit, value: float) -> float:
        there = variants(instances, b, [limit.at(fields, value)])
        return price(there, 0, deployed=deployed, routed=routed).value

    reach: dict[tuple[int, int], float] = {}
    for number, s in enumerate(found):
        if s.price * (s.value or 1.0) > SAME_COST * abs(cost):
            for side in (-1, 1):
                reach[number, side] = _linear_reach(s, side, cost, routed_value)
    proven = _proven(resolver, found, {end: step for end, step in reach.items() if step > 0}, plan, cost)
    changes = [found[n].limit.at(fields, found[n].value + side * step) for (n, side), step in proven.items()]
    for ((n, side), step), result in zip(proven.items(), resolver(changes, plan), strict=True):
        s = found[n]
        predicted = cost - side * step * s.price
        slack = tolerance(cost, step * s.price)
        near = result.bound - slack <= predicted <= result.objective + slack
        if not near or result.objective - result.bound > slack:
            continue
        s.witnesses.append(Witness(s.value + side * step, predicted, result.bound, result.objective))
        if side < 0:
            s.holds_from = s.witnesses[-1].value
        else:
            s.holds_to = s.witnesses[-1].value
    return sorted(found, key=lambda s: (-s.per_percent, -s.relaxed_price * s.value))


def _proven(
    resolver: Resolver, found: list[Shadow], ends: dict[tuple[int, int], float], plan: Plan, cost: float
) -> dict[tuple[int, int], float]:
    """The part of each range (number, side) in which no deployment costs less than predicted, less the tolerance."""
    from solvers.ranging import Ranging

    instances, b = resolver.instances, resolver.b
    fields = instances.one(b)
    least = cost - SAME_COST * abs(cost)
    proven: dict[tuple[int, int], float] = {}
    for _ in range(_ROUNDS):
        questions, rates = [], []
        for (n, side), step in ends.items():
            s = found[n]
            top = s.value + max(side, 0) * step
            rates.append(s.price * (1.0 + side * _SLACK / 2.0))
            one = variants(instances, b, [s.limit.at(fields, top)])
            at = s.limit.position[0] if s.limit.position else 0
            questions.append(Ranging(one, s.limit.constraint, at, step, rates[-1], plan))
        answers = resolver.ranged(questions)
        for ((n, side), step), rate, answer in zip(list(ends.items()), rates, answers, strict=True):
            s, ahead = found[n], max(side, 0) * step
            if answer.bound + rate * ahead >= least:
                proven[n, side] = ends.pop((n, side))
                continue
            other, away = answer.plan, side * (ahead + answer.offset)
            cut = _SHRINK * step
            if other is not None:
                deployed = deployed_triples(instances, other.deployments)
                routed = routes_allowed(instances, b, other)

                def better(by: float) -> bool:
                    there = variants(instances, b, [s.limit.at(fields, s.value + side * by)])  # noqa: B023
                    value = price(there, 0, deployed=deployed, routed=routed).value  # noqa: B023
                    return value + rate * side * by < least  # noqa: B023

                if better(away):
                    cut = _BACK * _first(better, away)
            ends[n, side] = cut
            if cut * s.price <= SAME_COST * abs(cost):
                del ends[n, side]
    return proven


def _first(true: Callable[[float], bool], there: float) -> float:
    """Where a condition that is false at 0 and true ``there`` still is false, as far as bisection finds it."""
    low, high = 0.0, there
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if true(middle) else (middle, high)
    return low


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
