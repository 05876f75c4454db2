"""The optimum of a tiny scenario by trying every deployment (and every choice of routes), with an LP each.

Written from MODEL sections 2 to 5 alone: shares per pair, the adversary by its vertices, no binaries.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog

from rodiu_jax.model.instance import Instances
from tests.oracles.worst_case import vertices


def cheapest(instances: Instances, b: int) -> float:
    """Least total cost in $ per period over all plans; inf where no plan is feasible."""
    f = instances.one(b)
    _, models, gpus, _ = instances.shape
    pairs = list(itertools.product(range(models), range(gpus)))
    options = [(0, 0.0), *zip(f.tp_degree.tolist(), f.tp_speedup.tolist(), strict=True)]
    best = np.inf
    for choice in itertools.product(options, repeat=len(pairs)):
        deployed = [(j, k, n, s) for (j, k), (n, s) in zip(pairs, choice, strict=True) if n]
        best = min(best, cheapest_routing(instances, b, deployed, best))
    return best


def cheapest_routing(instances: Instances, b: int, deployed: list[tuple], best: float) -> float:
    """Least cost of tuples (model, GPU, degree, speed-up) deployed; inf where it is ``best`` or more by rent alone."""
    f = instances.one(b)
    types = len(instances.query_names)
    fixed = f.rental_hours * sum(
        f.gpu_price[k] * n + f.storage_price * f.weight_memory[j] for j, k, n, _ in deployed
    )
    weights = sum(f.weight_memory[j] for j, *_ in deployed)
    misfit = any(f.weight_memory[j] > f.gpu_memory[k] * n for j, k, n, _ in deployed)
    if misfit or weights > f.storage_capacity or fixed > f.budget or fixed >= best:
        return np.inf
    limit = int(f.max_routes) or len(deployed)
    subsets = list(itertools.combinations(range(len(deployed)), min(limit, len(deployed))))
    return min(
        _routing_cost(instances, b, deployed, fixed, allowed)
        for allowed in itertools.product(subsets, repeat=types)
    )


def _routing_cost(instances: Instances, b: int, deployed: list[tuple], fixed: float, allowed: tuple) -> float:
    """Variables: share[i,d] (I*D), unmet[i] (I), the worst extra delay[i] (I)."""
    f, ddu = instances.one(b), instances.uncertainty == "ddu"
    no_adversary = instances.uncertainty == "none"
    types, slots = len(instances.query_names), len(deployed)
    width = types * slots + 2 * types
    tokens = f.input_tokens + f.output_tokens
    cost, top = np.zeros(width), np.full(width, np.inf)
    left: list[np.ndarray] = []
    right: list[float] = []
    memory, compute, money = np.zeros((slots, width)), np.zeros((slots, width)), np.zeros(width)
    balance = np.zeros((types, width))
    adversary_d = vertices(slots, 0.0 if no_adversary else float(f.gamma_delay))
    adversary_e = vertices(slots, 0.0 if no_adversary else float(f.gamma_error))
    for i in range(types):
        mine = slice(i * slots, (i + 1) * slots)
        unmet, extra = types * slots + i, types * slots + types + i
        per_hour = f.rental_hours * f.arrival_rate[i]
        ms, spread, wrong, spoil = np.zeros((4, slots))
        for d, (j, k, _, s) in enumerate(deployed):
            ms[d] = f.delay_nominal[i, j, k] * tokens[i] / s
            spread[d] = f.delay_deviation[i, j, k] * tokens[i] / s * (1 - ddu * f.delay_impact[j, k])
            wrong[d] = f.error_nominal[i, j, k]
            spoil[d] = f.error_deviation[i, j, k] * (1 - ddu * f.error_impact[j, k])
            memory[d, i * slots + d] = f.kv_per_token[j] * tokens[i] * f.arrival_rate[i] * f.residency_hours
            compute[d, i * slots + d] = f.compute_per_token[i] * tokens[i]
            top[i * slots + d] = 1.0 if d in allowed[i] else 0.0
        data = f.storage_price * f.token_size[i] * tokens[i] / 1000.0
        money[mine] = per_hour * data
        cost[mine] = per_hour * (f.delay_penalty[i] * ms + data)
        cost[extra] = per_hour * f.delay_penalty[i]
        cost[unmet] = per_hour * f.unmet_penalty[i]
        top[unmet] = f.unmet_cap
        balance[i, mine] = balance[i, unmet] = 1.0
        for xi in adversary_d:
            row = np.zeros(width)
            row[mine], row[extra] = xi * spread, -1.0
            left.append(row / 100.0)
            right.append(0.0)
        row = np.zeros(width)
        row[mine], row[extra] = ms - f.delay_threshold[i], 1.0
        left.append(row / 100.0)
        right.append(0.0)
        for xi in adversary_e:
            row = np.zeros(width)
            row[mine] = wrong + xi * spoil - f.error_threshold[i]
            left.append(row * 10.0)
            right.append(0.0)
    for d, (j, k, n, _) in enumerate(deployed):
        left += [memory[d], compute[d]]
        right += [f.gpu_memory[k] * n - f.weight_memory[j], f.gpu_compute[k] * n]
    left.append(money)
    right.append(float(f.budget) - fixed)
    bounds = np.column_stack([np.zeros(width), top])
    answer = linprog(cost, A_ub=np.array(left), b_ub=right, A_eq=balance, b_eq=np.ones(types), bounds=bounds)
    assert answer.status in (0, 2), answer.message
    return fixed + answer.fun if answer.status == 0 else np.inf
