"""What each limit costs: its shadow price, and how far the price holds when everything is solved again.

The price is that of the routing (`rodiu_jax.decisions.diagnose.linear_programs`): with the optimal deployment kept, one
unit more of the limit saves it. It says what the optimum does as long as no other deployment becomes better. The range
is found by the routing program first; then a MILP in which the limit may lie anywhere in the range (`solvers.ranging`)
proves that no deployment is better at any of its points, or shows one, and the range is cut where that one begins to
be. Both ends are solved again as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rodiu_jax.decisions.diagnose.linear_programs import LinearOptimum, route_deployment, routes_allowed
from rodiu_jax.decisions.diagnose.movable_limits import Limit, limits, variants
from rodiu_jax.decisions.diagnose.resolve import Change, Resolver
from rodiu_jax.decisions.diagnose.threshold import last_false
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.model.tolerances import SAME_COST

if TYPE_CHECKING:
    from solvers.ranging import Ranged, Ranging

_FURTHEST = 0.5
"""Ranges end at half and at one and a half times the limit."""


_SLACK = 0.01
"""A prediction holds to this share of the change, or to twice the relative gap of the optima."""

_ROUNDS = 8
_BACK = 0.9
"""A range is cut to this share of where another deployment is as good."""

_SHRINK = 0.3
"""A range is cut to this share where a proof lacks but nothing better is known."""

_NO_REACH = 1e-6
"""A linear reach below this share of the furthest is none."""


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


@dataclass(frozen=True)
class _Base:
    """The scenario whose limits are priced, its optimal plan and what that costs."""

    instances: Instances
    b: int
    plan: Plan
    cost: float

    def move(self, limit: Limit, value: float) -> Change:
        """Put a limit at another value."""
        return limit.at(self.instances.one(self.b), value)

    def variant(self, limit: Limit, value: float) -> Instances:
        """Make the scenario, alone, with a limit at another value."""
        return variants(self.instances, self.b, [self.move(limit, value)])

    def route(self, plan: Plan) -> LinearOptimum:
        """Route a plan's deployment in this scenario."""
        return self._route(self.instances, self.b, plan)

    def route_value(self, plan: Plan, limit: Limit, value: float) -> float:
        """Cost a plan's deployment, routed anew with a limit at another value."""
        return self._route(self.variant(limit, value), 0, plan).value

    def _route(self, instances: Instances, b: int, plan: Plan) -> LinearOptimum:
        deployed = deployed_triples(self.instances, plan.deployments)
        return route_deployment(instances, b, deployed, routes_allowed(self.instances, self.b, plan))


@dataclass(frozen=True)
class _End:
    """One end of the range of a price: ``side`` is -1 below the limit's value and 1 above; steps are >= 0."""

    shadow: Shadow
    side: int

    def value_at(self, step: float) -> float:
        """The limit's value a step away."""
        return self.shadow.value + self.side * step

    def predict(self, cost: float, step: float) -> float:
        """The optimum there, as the price says."""
        return cost - self.side * step * self.shadow.price

    @property
    def furthest(self) -> float:
        """The furthest step that is looked at."""
        value, highest = self.shadow.value, self.shadow.limit.highest
        most = _FURTHEST * value if value > 0 else 1.0
        return min(most, highest - value) if self.side > 0 else min(most, value)

    @property
    def rate(self) -> float:
        """The price, less favourable by half of what a prediction may be wrong by."""
        return self.shadow.price * (1.0 + self.side * _SLACK / 2.0)

    def question(self, base: _Base, step: float) -> Ranging:
        """Ask whether any deployment beats the prediction between the limit's value and a step away."""
        from solvers.ranging import Ranging

        s = self.shadow
        one = base.variant(s.limit, s.value + max(self.side, 0) * step)
        at = s.limit.position[0] if s.limit.position else 0
        return Ranging(one, s.limit.constraint, at, step, self.rate, base.plan)

    def proves(self, answer: Ranged, step: float, least: float) -> bool:
        """True if the answer proves that none does, by more than ``least`` allows."""
        return answer.bound + self.rate * (max(self.side, 0) * step) >= least

    def cut(self, base: _Base, answer: Ranged, step: float, least: float) -> float:
        """Shorten the step to where the deployment that the answer shows begins to be better."""
        other, s = answer.plan, self.shadow
        if other is None:
            return _SHRINK * step

        def is_better(by: float) -> bool:
            value = base.route_value(other, s.limit, self.value_at(by))
            return value + self.rate * self.side * by < least

        away = self.side * (max(self.side, 0) * step + answer.offset)
        return _BACK * last_false(is_better, 0.0, away, 12) if is_better(away) else _SHRINK * step


def find_shadow_prices(resolver: Resolver, plan: Plan, cost: float, relaxed: LinearOptimum) -> list[Shadow]:
    """Find the binding limits of an optimal plan, those that cost most per percent first.

    Args:
      cost: of the plan, the optimum.
      relaxed: the relaxation of the scenario.
    """
    base = _Base(resolver.instances, resolver.b, plan, cost)
    fields = base.instances.one(base.b)
    routing = base.route(plan)
    found: list[Shadow] = []
    for limit in limits(base.instances):
        value = limit.value(fields)
        own, other = routing.price(limit), relaxed.price(limit)
        if max(own, other) * (value or 1.0) > SAME_COST * max(abs(cost), 1e-9):
            found.append(Shadow(limit, value, own, other, value, value))
    ends = [
        _End(s, side) for s in found if s.price * (s.value or 1.0) > SAME_COST * abs(cost) for side in (-1, 1)
    ]
    steps = [_linear_reach(end, base) for end in ends]
    proven = _prove_ranges(
        resolver, base, [(e, step) for e, step in zip(ends, steps, strict=True) if step > 0]
    )
    changes = [base.move(end.shadow.limit, end.value_at(step)) for end, step in proven]
    for (end, step), result in zip(proven, resolver(changes, plan), strict=True):
        predicted = end.predict(cost, step)
        slack = tolerance(cost, step * end.shadow.price)
        near = result.lower - slack <= predicted <= result.upper + slack
        if not near or result.upper - result.lower > slack:
            continue
        value = end.value_at(step)
        end.shadow.witnesses.append(Witness(value, predicted, result.lower, result.upper))
        if end.side < 0:
            end.shadow.holds_from = value
        else:
            end.shadow.holds_to = value
    return sorted(found, key=lambda s: (-s.per_percent, -s.relaxed_price * s.value))


def _prove_ranges(
    resolver: Resolver, base: _Base, ends: list[tuple[_End, float]]
) -> list[tuple[_End, float]]:
    """Shorten each end's step until no deployment in between is proven to cost less than predicted."""
    least = base.cost - SAME_COST * abs(base.cost)
    proven: list[tuple[_End, float]] = []
    for _ in range(_ROUNDS):
        answers = resolver.ranged([end.question(base, step) for end, step in ends])
        unproven = []
        for (end, step), answer in zip(ends, answers, strict=True):
            if end.proves(answer, step, least):
                proven.append((end, step))
                continue
            shorter = end.cut(base, answer, step, least)
            if shorter * end.shadow.price > SAME_COST * abs(base.cost):
                unproven.append((end, shorter))
        ends = unproven
    return proven


def _linear_reach(end: _End, base: _Base) -> float:
    """Find how far to one side the routing program's optimum is as the price says."""
    s, most = end.shadow, end.furthest

    def holds(step: float) -> bool:
        value = base.route_value(base.plan, s.limit, end.value_at(step))
        return abs(value - end.predict(base.cost, step)) <= tolerance(base.cost, step * s.price) / 2

    if most <= 0:
        return 0.0
    step = most
    while not holds(step):
        step /= 2
        if step < _NO_REACH * most:
            return 0.0
    return step if step == most else last_false(lambda by: not holds(by), step, 2 * step, 5)
