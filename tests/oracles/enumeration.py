"""The optimum of a tiny scenario by trying every fleet: pairs, degrees, replicas, routes, and an LP for each.

Written from MODEL sections 2 to 5 and 9 alone: shares per pair, adversaries by their vertices, no binaries.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from rodiu_jax.model.instance import Instances
from tests.oracles.worst_case import vertices


def cheapest(instances: Instances, b: int) -> float:
    """Least total cost in $ per period over all plans; inf where no plan is feasible."""
    f = instances.one(b)
    _, models, gpus, _ = instances.shape
    pairs = list(itertools.product(range(models), range(gpus)))
    quota = np.broadcast_to(f.gpu_quota, gpus)
    options = []
    for j, k in pairs:
        most = int(f.max_replicas[j, k] if f.max_replicas.ndim else f.max_replicas)
        deployed = itertools.product(range(len(f.tp_degree)), range(1, most + 1))
        options.append([None, *((j, k, n, r) for n, r in deployed)])
    fleets = []
    for choice in itertools.product(*options):
        fleet = [c for c in choice if c is not None]
        used: dict[str, float] = {}
        for _, k, n, r in fleet:
            device = instances.gpu_devices[k]
            used[device] = used.get(device, 0.0) + f.tp_degree[n] * r
        if any(total > quota[instances.gpu_devices.index(device)] for device, total in used.items()):
            continue
        fleets.append((_least_cost(instances, b, fleet), fleet))
    best = np.inf
    for least, fleet in sorted(fleets, key=lambda one: one[0]):
        if least >= best:  # so do all the fleets that follow
            break
        best = min(best, cheapest_routing(instances, b, fleet, best))
    return best


def _fixed_cost(instances: Instances, b: int, fleet: list[tuple]) -> float:
    """Rent, and storage of weights, of a fleet; inf where it breaks a limit whatever is routed."""
    f = instances.one(b)
    rent = f.rental_hours * sum(f.gpu_price[k] * f.tp_degree[n] * r for _, k, n, r in fleet)
    weights = sum(f.weight_memory[j] for j, *_ in fleet)
    fixed = float(rent + f.rental_hours * f.storage_price * weights)
    misfit = any(f.weight_memory[j] > f.gpu_memory[k] * f.tp_degree[n] for j, k, n, _ in fleet)
    return np.inf if misfit or weights > f.storage_capacity or fixed > f.budget else fixed


def _least_cost(instances: Instances, b: int, fleet: list[tuple]) -> float:
    """What a fleet costs at least: each type whole where that costs least, no limit kept, no deviation."""
    f = instances.one(b)
    hourly = f.rental_hours * f.arrival_rate
    tokens = f.input_tokens + f.output_tokens
    each = [f.unmet_penalty]
    for j, k, n, _ in fleet:
        ms = f.delay_nominal[:, j, k] * tokens
        ms = ms / (f.tp_speedup[:, j, k, n] if f.tp_speedup.ndim > 1 else f.tp_speedup[n])
        each.append(f.delay_penalty * ms + f.storage_price * f.token_size * tokens / 1000.0)
    return _fixed_cost(instances, b, fleet) + float((hourly * np.min(each, axis=0)).sum())


def cheapest_routing(instances: Instances, b: int, fleet: list[tuple], best: float = np.inf) -> float:
    """Least cost of a fleet of (model, GPU, degree, replicas), by positions; inf where no routing is feasible.

    A routing that costs ``best`` or more need not be the least. Where routes are limited every choice of them is tried,
    one type after the other, as long as the others alone leave less than the best cost.
    """
    limit = int(instances.one(b).max_routes) or len(fleet)
    fixed = _fixed_cost(instances, b, fleet)
    if fixed >= best:
        return np.inf
    subsets = list(itertools.combinations(range(len(fleet)), min(limit, len(fleet))))
    least, open_choices = np.inf, [(range(len(fleet)),) * instances.shape[0]]
    while open_choices:
        allowed = open_choices.pop()
        cost, routes = _route(instances, b, fleet, fixed, allowed)
        if cost >= min(best, least):
            continue
        if (routes <= limit).all():
            least = cost
            continue
        i = int(np.argmax(routes))
        open_choices += [(*allowed[:i], subset, *allowed[i + 1 :]) for subset in subsets]
    return least


def _route(
    instances: Instances, b: int, fleet: list[tuple], fixed: float, allowed: tuple
) -> tuple[float, np.ndarray]:
    """Least cost of a fleet with some routes, inf if there is none, and how many of them each type uses."""
    program = _program(instances, b, fleet, fixed, allowed)
    types, slots = instances.shape[0], len(fleet)
    bounds = np.column_stack([np.zeros(len(program.top)), program.top])
    answer = linprog(
        program.cost,
        A_ub=program.left,
        b_ub=program.right,
        A_eq=program.balance,
        b_eq=np.ones(types),
        bounds=bounds,
    )
    assert answer.status in (0, 2), answer.message
    if answer.status == 2:
        return np.inf, np.zeros(types)
    shares = answer.x[: types * slots].reshape(types, slots)
    return fixed + answer.fun, (shares > 1e-12).sum(1)


def cheapest_fixed_routing(instances: Instances, fleet: list[tuple], weights: np.ndarray) -> float:
    """Least weighted mean cost of a fleet over all scenarios with one routing for all of them; inf where none holds.

    Variables: share and unmet as in `_program`, and the worst extra delays of each scenario.
    """
    types, slots = instances.shape[0], len(fleet)
    common = types * slots + types
    width = common + types * instances.size
    cost, top = np.zeros(width), np.full(width, np.inf)
    left, right = [], []
    for b in range(instances.size):
        fixed = _fixed_cost(instances, b, fleet)
        if not np.isfinite(fixed):
            return np.inf
        program = _program(instances, b, fleet, fixed, (range(slots),) * types)
        own = common + types * b + np.arange(types)
        at = np.concatenate([np.arange(common), own])
        cost[at] += weights[b] * program.cost
        top[:common] = np.minimum(top[:common], program.top[:common])
        rows = np.zeros((len(program.left), width))
        rows[:, at] = program.left
        left.append(rows)
        right += program.right
        balance = np.zeros((types, width))
        balance[:, at] = program.balance
    mean = weights @ [_fixed_cost(instances, b, fleet) for b in range(instances.size)]
    bounds = np.column_stack([np.zeros(width), top])
    answer = linprog(cost, np.concatenate(left), right, balance, np.ones(types), bounds)
    assert answer.status in (0, 2), answer.message
    return np.inf if answer.status == 2 else float(mean + answer.fun)


class _Program(NamedTuple):
    """min cost v, left v <= right, balance v = 1, 0 <= v <= top."""

    cost: np.ndarray
    left: np.ndarray
    right: list[float]
    balance: np.ndarray
    top: np.ndarray


def _program(instances: Instances, b: int, fleet: list[tuple], fixed: float, allowed: tuple) -> _Program:
    """The routing of a fleet with some routes; ``fixed`` is what it costs before that.

    Variables: share[i,d] (I*D), unmet[i] (I), the worst extra delay[i] (I).
    """
    f, ddu = instances.one(b), instances.uncertainty == "ddu"
    calm = instances.uncertainty == "none"
    types, slots = len(f.arrival_rate), len(fleet)
    width = types * slots + 2 * types
    tokens = f.input_tokens + f.output_tokens
    cost, top = np.zeros(width), np.full(width, np.inf)
    left: list[np.ndarray] = []
    right: list[float] = []
    memory, compute, money = np.zeros((slots, width)), np.zeros((slots, width)), np.zeros(width)
    load, lost = np.zeros((slots, types)), np.zeros((slots, types))
    balance = np.zeros((types, width))
    gamma = [0.0 if calm else float(g) for g in (f.gamma_delay, f.gamma_error, f.gamma_throughput)]
    for i in range(types):
        mine = slice(i * slots, (i + 1) * slots)
        unmet, extra = types * slots + i, types * slots + types + i
        per_hour = f.rental_hours * f.arrival_rate[i]
        ms, spread, wrong, spoil = np.zeros((4, slots))
        for d, (j, k, n, _) in enumerate(fleet):
            s = f.tp_speedup[i, j, k, n] if f.tp_speedup.ndim > 1 else f.tp_speedup[n]
            stay = f.residency_hours[i, j, k] if f.residency_hours.ndim else f.residency_hours
            ms[d] = f.delay_nominal[i, j, k] * tokens[i] / s
            spread[d] = f.delay_deviation[i, j, k] * tokens[i] / s * (1 - ddu * f.delay_impact[j, k])
            wrong[d] = f.error_nominal[i, j, k]
            spoil[d] = f.error_deviation[i, j, k] * (1 - ddu * f.error_impact[j, k])
            memory[d, i * slots + d] = f.kv_per_token[j] * tokens[i] * f.arrival_rate[i] * stay
            compute[d, i * slots + d] = f.compute_per_token[i] * tokens[i]
            top[i * slots + d] = 1.0 if d in allowed[i] else 0.0
            rate = f.throughput[i, j, k, n] if f.throughput.ndim else np.inf
            short = f.throughput_shortfall[i, j, k] if f.throughput_shortfall.ndim else 0.0
            if rate == 0:
                top[i * slots + d] = 0.0
            else:
                load[d, i] = f.arrival_rate[i] / rate
                lost[d, i] = load[d, i] * short / (1 - short)
        data = f.storage_price * f.token_size[i] * tokens[i] / 1000.0
        money[mine] = per_hour * data
        cost[mine] = per_hour * (f.delay_penalty[i] * ms + data)
        cost[extra] = per_hour * f.delay_penalty[i]
        cost[unmet] = per_hour * f.unmet_penalty[i]
        top[unmet] = f.unmet_cap
        balance[i, mine] = balance[i, unmet] = 1.0
        for xi in vertices(slots, gamma[0]):
            row = np.zeros(width)
            row[mine], row[extra] = xi * spread, -1.0
            left.append(row / 100.0)
            right.append(0.0)
        row = np.zeros(width)
        row[mine], row[extra] = ms - f.delay_threshold[i], 1.0
        left.append(row / 100.0)
        right.append(0.0)
        for xi in vertices(slots, gamma[1]):
            row = np.zeros(width)
            row[mine] = wrong + xi * spoil - f.error_threshold[i]
            left.append(row * 10.0)
            right.append(0.0)
    for d, (j, k, n, r) in enumerate(fleet):
        degree = float(f.tp_degree[n])
        left += [memory[d], compute[d]]
        right += [r * (f.gpu_memory[k] * degree - f.weight_memory[j]), f.gpu_compute[k] * degree * r]
        for xi in vertices(types, gamma[2]):
            row = np.zeros(width)
            row[d : types * slots : slots] = load[d] + xi * lost[d]
            left.append(row)
            right.append(float(f.max_utilization) * r)
    left.append(money)
    right.append(float(f.budget) - fixed)
    return _Program(cost, np.array(left), right, balance, top)
