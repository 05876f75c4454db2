"""Costs and margins of one plan on one scenario with dense NumPy arrays, as a research script computes them.

The peer of the batched evaluation, called pair by pair, and a third witness of its numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rodiu_jax.model.fields import Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan


class DensePlan(NamedTuple):
    """``share`` I,J,K; ``degree`` J,K (GPUs, 0 = not deployed); ``unmet`` I."""

    share: np.ndarray
    degree: np.ndarray
    unmet: np.ndarray


class Evaluation(NamedTuple):
    """``costs`` by name, $ per period; ``margins`` by family, one per constraint, inf where none applies."""

    costs: dict[str, float]
    margins: dict[str, np.ndarray]


def dense_plan(plan: Plan, instances: Instances) -> DensePlan:
    """A plan by name as dense arrays on the axes of ``instances``."""
    types, models, gpus, _ = instances.shape
    share, degree, unmet = np.zeros((types, models, gpus)), np.zeros((models, gpus)), np.zeros(types)
    q, m, g = instances.query_names.index, instances.model_names.index, instances.gpu_names.index
    for d in plan.deployments:
        degree[m(d.model), g(d.gpu)] = d.tp
    for r in plan.routes:
        share[q(r.query), m(r.model), g(r.gpu)] += r.share
    for name, part in plan.unmet.items():
        unmet[q(name)] = part
    return DensePlan(share, degree, unmet)


def _worst(deviation: np.ndarray, gamma: float) -> np.ndarray:
    """Sum of the ``floor(gamma)`` largest entries of each row, plus the fraction of the next."""
    falling = -np.sort(-deviation.reshape(len(deviation), -1), axis=1)
    return (falling * np.clip(gamma - np.arange(falling.shape[1]), 0.0, 1.0)).sum(1)


def _scale(limit: np.ndarray) -> np.ndarray:
    return np.where(limit > 0, limit, 1.0)


def _margin(limit: np.ndarray | float, value: np.ndarray | float) -> np.ndarray:
    limit = np.asarray(limit, dtype=np.float64)
    return (limit - value) / _scale(limit)


def evaluate_one(fields: Fields, uncertainty: str, plan: DensePlan) -> Evaluation:
    """Costs and margins of ``plan`` on one scenario (``fields`` without a batch axis).

    Source: MODEL sections 3 to 5.
    """
    f, (x, degree, unmet) = fields, plan
    on = degree > 0
    tokens = f.input_tokens + f.output_tokens
    speed = np.ones(degree.shape)
    for n, s in zip(f.tp_degree, f.tp_speedup, strict=True):
        speed[degree == n] = s
    ms = x * tokens[:, None, None] / speed
    serves = x > 0
    if uncertainty == "ddu":
        delay_deviation = f.delay_deviation * (1.0 - f.delay_impact * serves)
        error_deviation = f.error_deviation * (1.0 - f.error_impact * serves)
    else:
        delay_deviation, error_deviation = f.delay_deviation, f.error_deviation
    gamma_d, gamma_e = (0.0, 0.0) if uncertainty == "none" else (float(f.gamma_delay), float(f.gamma_error))
    delay = (f.delay_nominal * ms).sum((1, 2)) + _worst(delay_deviation * ms, gamma_d)
    error = (f.error_nominal * x).sum((1, 2)) + _worst(error_deviation * x, gamma_e)
    served = x.sum((1, 2))

    weights = (f.weight_memory[:, None] * on).sum()
    data = (f.token_size * tokens * f.arrival_rate / 1000.0 * served).sum()
    hours = f.rental_hours
    rental = hours * (f.gpu_price * degree).sum()
    storage = hours * f.storage_price * (weights + data)
    delay_cost = hours * (f.delay_penalty * f.arrival_rate * delay).sum()
    unmet_cost = hours * (f.unmet_penalty * f.arrival_rate * unmet).sum()

    kv = (x * (f.kv_per_token[:, None] * (tokens * f.arrival_rate * f.residency_hours)[:, None, None])).sum(0)
    compute = (x * (f.compute_per_token * tokens)[:, None, None]).sum(0)
    gpus = np.where(on, degree, 1.0)
    routes = np.full(len(tokens), np.inf)
    if f.max_routes > 0:
        routes = (f.max_routes - serves.sum((1, 2))) / f.max_routes
    margins = {
        "demand": -np.abs(served + unmet - 1.0),
        "unmet": _margin(f.unmet_cap, unmet),
        "routes": routes,
        "memory": np.where(on, _margin(f.gpu_memory, (f.weight_memory[:, None] + kv) / gpus), np.inf),
        "compute": np.where(on, _margin(f.gpu_compute * gpus, compute), np.inf),
        "storage": _margin(f.storage_capacity, weights),
        "budget": _margin(f.budget, rental + storage),
        "delay": (f.delay_threshold * served - delay) / _scale(f.delay_threshold),
        "error": (f.error_threshold * served - error) / _scale(f.error_threshold),
    }
    total = rental + storage + delay_cost + unmet_cost
    named = ("total_cost", "rental_cost", "storage_cost", "delay_cost", "unmet_cost")
    costs = map(float, (total, rental, storage, delay_cost, unmet_cost))
    return Evaluation(dict(zip(named, costs, strict=True)), {n: np.asarray(v) for n, v in margins.items()})
