"""Why a GPU is not deployed: how much cheaper it must be before an optimal plan rents it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rodiu_jax.decisions.diagnose.linear_programs import LinearOptimum, prove
from rodiu_jax.decisions.diagnose.movable_limits import variants
from rodiu_jax.decisions.diagnose.resolve import Change, Resolver
from rodiu_jax.decisions.diagnose.threshold import Threshold, last_false, narrow
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.tolerances import SAME_OPTIMUM
from solvers.answers import Answer

_ROUNDS = 8
_BISECTIONS = 30
"""Rounds that find the certified cut, to 1e-9 of the price."""

_FINE = 0.01
"""An interval this narrow, relative to the price, is narrow enough."""

_CLOSED = 1e-9
"""An interval this narrow, relative to the price, is a point."""

_NEVER = "not even when it costs nothing"


@dataclass(frozen=True)
class Entry:
    """What it takes to rent a GPU that the optimal plan does not rent.

    Attributes:
      gpu, price: $ per GPU and hour now.
      certified: $ per GPU and hour; the dual function proves that no optimal plan rents it while it is cheaper by less.
      cheaper_from, cheaper_to: $ per GPU and hour; re-solved, no plan that rents it is better at the first, and one
        costs no more than the optimum at the second. Both inf where no plan would rent it even for nothing.
      deployments: what the plan at ``cheaper_to`` deploys; empty without one.
      reason: why it never enters; empty where it does.
    """

    gpu: str
    price: float
    certified: float
    cheaper_from: float
    cheaper_to: float
    deployments: str = ""
    reason: str = ""


def find_entries(resolver: Resolver, plan: Plan, cost: float, relaxed: LinearOptimum) -> list[Entry]:
    """Find what it takes to rent every GPU that the optimal plan does not rent, those nearest to it first.

    With hours h and n GPUs of the kind rented by a plan of cost v at a price cut c, the plan breaks even at the cut
    ``c - (cost - v) / (h n)``; there everything is solved again, until no other plan is better at the break-even.

    Args:
      cost: the optimum, attained by ``plan``.
      relaxed: the relaxation of the scenario, whose multipliers give reduced costs.
    """
    instances, b = resolver.instances, resolver.b
    rented = {d.gpu for d in plan.deployments}
    prices = np.asarray(instances.one(b).gpu_price, np.float64)
    entries: list[Entry] = []
    thresholds: dict[int, Threshold[Plan]] = {}
    certified: dict[int, float] = {}
    for k, name in enumerate(instances.gpu_names):
        if name in rented:
            continue
        now = float(prices[k])
        certified[k] = _certify_cut(instances, b, k, cost, relaxed)
        if math.isinf(certified[k]) or now == 0:
            reason = _NEVER if _fits_any(instances, b, k) else "no model fits it"
            entries.append(Entry(name, now, certified[k], math.inf, math.inf, reason=reason))
        else:
            thresholds[k] = Threshold(low=certified[k], ask=now)  # first: for nothing

    def solve(questions: Sequence[tuple[int, float]]) -> list[Answer]:
        return resolver([_cut_price(prices, k, by) for k, by in questions], plan)

    narrow(thresholds, _ROUNDS, solve, partial(_learn, instances, b, cost))
    for k, threshold in thresholds.items():
        name, now = instances.gpu_names[k], float(prices[k])
        if threshold.high is None or threshold.proof is None:
            entries.append(Entry(name, now, certified[k], math.inf, math.inf, reason=_NEVER))
        else:
            deployments = threshold.proof.summary()
            entries.append(Entry(name, now, certified[k], threshold.low, threshold.high, deployments))
    return sorted(entries, key=lambda e: (e.cheaper_to, e.gpu))


def _cut_price(prices: np.ndarray, k: int, by: float) -> Change:
    """Make GPU k cheaper; a price is at least 0."""
    moved = prices.copy()
    moved[k] = max(moved[k] - by, 0.0)
    return {"gpu_price": moved}


def _learn(
    instances: Instances, b: int, cost: float, k: int, threshold: Threshold[Plan], at: float, answer: Answer
) -> float | None:
    """Take in the optimum at a price cut; return the next cut to ask about.

    A better plan that rents the GPU breaks even at a smaller cut, which is asked next where the plan is feasible
    there; where nothing is better, the middle is.
    """
    fields, name = instances.one(b), instances.gpu_names[k]
    price = float(fields.gpu_price[k])
    following: float | None = None
    found = answer.plan
    gpus = 0 if found is None else sum(d.tp * d.replicas for d in found.deployments if d.gpu == name)
    if found is not None and gpus and answer.upper < cost - SAME_OPTIMUM * abs(cost):
        even = at - (cost - answer.upper) / (float(fields.rental_hours) * gpus)
        there = variants(instances, b, [_cut_price(np.asarray(fields.gpu_price, np.float64), k, even)])
        if check_plan(found, there, 0).feasible:
            following = max(even, threshold.low)
            threshold.hold(following, found)
        else:
            following = (threshold.low + at) / 2
            threshold.hold(at, found)
    elif answer.lower >= cost - SAME_OPTIMUM * abs(cost):
        threshold.fail(at)
        if threshold.high is not None and threshold.high > at + _FINE * price:
            following = (at + threshold.high) / 2
    if threshold.high is not None and threshold.high - threshold.low <= _CLOSED * price:
        return None
    return following


def _fits_any(instances: Instances, b: int, k: int) -> bool:
    """True if some model's weights fit GPU k at some degree."""
    f = instances.one(b)
    room = np.asarray(f.gpu_memory)[k] * f.tp_degree[None, :] - np.asarray(f.weight_memory)[:, None]  # J,N
    return bool((room >= 0).any())


def _certify_cut(instances: Instances, b: int, k: int, cost: float, relaxed: LinearOptimum) -> float:
    """Find the largest price cut at which every plan with GPU k is proven to cost more than ``cost``; inf if at any."""
    y = relaxed.multipliers
    if y is None:
        return 0.0
    prices = np.asarray(instances.one(b).gpu_price, np.float64)
    _, models, gpus, _ = instances.shape

    def may_enter(by: float) -> bool:
        moved = prices.copy()
        moved[k] -= by
        there = variants(instances, b, [{"gpu_price": moved}])
        floor = prove(there, 0, y).floor.reshape(models, gpus, -1)[:, k]
        return not bool((floor > cost).all())

    now = float(prices[k])
    if not may_enter(now):
        return math.inf
    return 0.0 if may_enter(0.0) else last_false(may_enter, 0.0, now, _BISECTIONS)
