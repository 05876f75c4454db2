"""Why a GPU is not deployed: how much cheaper it must be before an optimal plan rents it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from rodiu_jax.certificates import dual_values
from rodiu_jax.decisions.diagnose.limit_prices import Priced, leaf
from rodiu_jax.decisions.diagnose.movable_limits import variants
from rodiu_jax.decisions.diagnose.resolve import Change, Resolver
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.tolerances import SAME_OPTIMUM

_ROUNDS = 8
_FINE = 0.01
"""An interval this narrow, relative to the price, is narrow enough."""


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


def entries(resolver: Resolver, plan: Plan, cost: float, relaxed: Priced) -> list[Entry]:
    """Every GPU that the optimal plan does not rent, those nearest to being rented first.

    With hours h and n GPUs of the kind rented by a plan of cost v at a price cut c, the plan breaks even at the cut
    ``c - (cost - v) / (h n)``; there everything is solved again, until no other plan is better at the break-even.

    Args:
      cost: the optimum, attained by ``plan``.
      relaxed: the relaxation of the scenario, whose multipliers give reduced costs.
    """
    instances, b = resolver.instances, resolver.b
    rented = {d.gpu for d in plan.deployments}
    idle = [k for k, name in enumerate(instances.gpu_names) if name not in rented]
    fields = instances.one(b)
    hours, prices = float(fields.rental_hours), np.asarray(fields.gpu_price, np.float64)

    def cut(k: int, by: float) -> Change:
        moved = prices.copy()
        moved[k] = max(moved[k] - by, 0.0)
        return {"gpu_price": moved}

    done: dict[int, Entry] = {}
    low: dict[int, float] = {}
    for k in idle:
        name, now = instances.gpu_names[k], float(prices[k])
        bound = _certified_cut(instances, b, k, cost, relaxed)
        fits = bool((_room(instances, b, k) >= 0).any())
        if math.isinf(bound) or now == 0:
            reason = "not even when it costs nothing" if fits else "no model fits it"
            done[k] = Entry(name, now, bound, math.inf, math.inf, reason=reason)
        else:
            low[k] = bound
    high: dict[int, tuple[float, Plan]] = {}
    tried = {k: float(prices[k]) for k in low}  # first: for nothing
    certified = dict(low)
    for _ in range(_ROUNDS):
        if not tried:
            break
        ks = list(tried)
        found = resolver([cut(k, tried[k]) for k in ks], plan)
        for k, result in zip(ks, found, strict=True):
            at = tried.pop(k)
            better = result.plan is not None and result.objective < cost - SAME_OPTIMUM * abs(cost)
            gpus = (
                sum(d.tp for d in result.plan.deployments if d.gpu == instances.gpu_names[k])
                if result.plan
                else 0
            )
            if better and gpus and result.plan is not None:
                even = at - (cost - result.objective) / (hours * gpus)
                there = variants(instances, b, [cut(k, even)])
                feasible = check_plan(replace(result.plan, instance=0), there, 0).feasible
                high[k] = (max(even, low[k]), result.plan) if feasible else (at, result.plan)
                tried[k] = high[k][0] if feasible else (low[k] + at) / 2
            elif result.bound >= cost - SAME_OPTIMUM * abs(cost):
                low[k] = max(low[k], at)
                if k in high and high[k][0] > at + _FINE * prices[k]:
                    tried[k] = (at + high[k][0]) / 2
            if k in high and k in tried and high[k][0] - low[k] <= 1e-9 * prices[k]:
                del tried[k]
    for k in low:
        name, now = instances.gpu_names[k], float(prices[k])
        if k in high:
            done[k] = Entry(name, now, certified[k], low[k], high[k][0], high[k][1].summary())
        else:
            reason = "not even when it costs nothing"
            done[k] = Entry(name, now, certified[k], math.inf, math.inf, reason=reason)
    return sorted(done.values(), key=lambda e: (e.cheaper_to, e.gpu))


def _room(instances: Instances, b: int, k: int) -> np.ndarray:
    """(J,N) GB left by each model's weights on GPU k."""
    f = instances.one(b)
    return np.asarray(f.gpu_memory)[k] * f.tp_degree[None, :] - np.asarray(f.weight_memory)[:, None]


def _certified_cut(instances: Instances, b: int, k: int, cost: float, relaxed: Priced) -> float:
    """The largest price cut at which every plan with GPU k is proven to cost more than ``cost``; inf if at any."""
    if relaxed.multipliers is None:
        return 0.0
    price = np.asarray(instances.one(b).gpu_price, np.float64)
    own = np.flatnonzero(relaxed.triple[:, 1] == k)
    _, _, gpus, degrees = instances.shape
    numbers = (relaxed.triple[own, 0] * gpus + k) * degrees + relaxed.triple[own, 2] + 1
    leaves = [leaf(instances, relaxed, np.array([number])) for number in numbers.tolist()]

    def proven(by: float) -> bool:
        moved = price.copy()
        moved[k] -= by
        there = variants(instances, b, [{"gpu_price": moved}])
        with np.errstate(invalid="ignore"):  # where the triple cannot be deployed at all: inf
            return bool((dual_values(there, np.zeros(len(leaves), np.int64), leaves) > cost).all())

    if proven(float(price[k])):
        return math.inf
    low, high = 0.0, float(price[k])
    if not proven(0.0):
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if proven(middle) else (low, middle)
    return low
