"""Random scenarios in which rates, replicas and quotas decide (MODEL section 9), and the plain formulation of that
section for scipy's HiGHS."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import LinearConstraint, milp

from rodiu_jax.model.fields import FIELD_SPECS
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.plan import Plan
from tests.oracles.instances import random_instances, random_values


def serving_instances(
    seed: int,
    shape: tuple[int, int, int, int],
    *,
    mode: str = "ddu",
    devices: Sequence[str] | None = None,
    **overrides: Any,
) -> Instances:
    """One random scenario whose fleet the rates decide; a fifth of the rates are 0 or inf.

    Args:
      devices: of the GPU configurations, which all have one quota; by default one of its own each.
    """
    rng = np.random.default_rng(seed)
    types, models, gpus, degrees = shape
    base = random_values(rng, shape)
    rate = base["arrival_rate"]
    throughput = rate[:, None, None, None] * rng.uniform(0.2, 1.6, shape) * np.arange(1, degrees + 1) ** 0.8
    kind = rng.random(shape)
    throughput = np.where(kind < 0.12, 0.0, np.where(kind > 0.92, np.inf, throughput))
    values = {
        "max_replicas": rng.integers(0, 4, (models, gpus)),
        "throughput": throughput,
        "throughput_shortfall": rng.uniform(0.0, 0.5, shape[:3]),
        "gamma_throughput": rng.choice([0.0, 0.6, 1.0, 1.5, 7.0]),
        "max_utilization": rng.uniform(0.7, 1.0),
        "gpu_quota": np.full(gpus, float(rng.integers(2, 7))),
        "tp_speedup": rng.uniform(0.8, 1.8, shape),
        "residency_hours": rng.uniform(0.02, 0.12, shape[:3]),
        "unmet_penalty": rng.uniform(0.5, 3.0, types),
        "budget": rng.uniform(80.0, 300.0),
    }
    drawn = random_instances(seed, shape, mode=mode, **(values | overrides))
    return make_instances(*drawn.names[:3], mode, drawn.fields._asdict(), gpu_devices=devices)


def stack(scenarios: Sequence[Instances]) -> Instances:
    """Put single scenarios over the same names into one batch."""
    first = scenarios[0]
    rows = [s.one(0)._asdict() for s in scenarios]
    values = {n: np.stack([r[n] for r in rows]) for n in rows[0] if not FIELD_SPECS[n].derived}
    values["tp_degree"] = rows[0]["tp_degree"]
    return make_instances(*first.names[:3], first.uncertainty, values, gpu_devices=first.gpu_devices)


def with_replicas(rng: np.random.Generator, plan: Plan, instances: Instances) -> Plan:
    """The plan with random replicas, as many as some scenario allows."""
    most = np.asarray(instances.fields.max_replicas)
    most = most.reshape(-1, *most.shape[-2:]).max(0)
    position = (
        {n: j for j, n in enumerate(instances.model_names)},
        {n: k for k, n in enumerate(instances.gpu_names)},
    )
    pairs = [
        replace(d, replicas=int(rng.integers(1, max(most[position[0][d.model], position[1][d.gpu]], 1) + 1)))
        for d in plan.deployments
    ]
    return replace(plan, deployments=tuple(pairs))


def plain_optimum(instances: Instances, b: int) -> float:
    """The optimum by the plain formulation: r whole, w binary, x <= w <= r <= R w; only rent and unmet cost.

    For scenarios whose other limits do not bind and whose other costs are 0; the adversary has no budget.
    """
    f = instances.one(b)
    types, models, gpus, degrees = shape = instances.shape
    triples = list(itertools.product(range(models), range(gpus), range(degrees)))
    count = len(triples)
    w, r, x, u = 0, count, 2 * count, 2 * count + types * count  # first columns
    width = u + types
    cost, integer = np.zeros(width), np.zeros(width)
    top = np.ones(width)
    rows: list[tuple[np.ndarray, float, float]] = []
    integer[:x] = 1
    for t, (j, k, n) in enumerate(triples):
        most = float(f.max_replicas[j, k])
        cost[r + t], top[r + t] = f.rental_hours * f.gpu_price[k] * f.tp_degree[n], most
        for lower, upper in ((-1.0, 0.0), (0.0, most)):  # w <= r, r <= R w
            row = np.zeros(width)
            row[w + t], row[r + t] = (1.0, -1.0) if lower else (-upper, 1.0)
            rows.append((row, -np.inf, 0.0))
        load = np.zeros(width)
        load[r + t] = -float(f.max_utilization)
        for i in range(types):
            column = x + i * count + t
            if f.throughput[i, j, k, n] == 0:
                top[column] = 0.0
            else:
                load[column] = f.arrival_rate[i] / f.throughput[i, j, k, n]
            row = np.zeros(width)
            row[column], row[w + t] = 1.0, -1.0
            rows.append((row, -np.inf, 0.0))
        rows.append((load, -np.inf, 0.0))
    for pair in range(models * gpus):
        row = np.zeros(width)
        row[w + pair * degrees : w + (pair + 1) * degrees] = 1.0
        rows.append((row, -np.inf, 1.0))
    for device in set(instances.gpu_devices):
        row = np.zeros(width)
        for t, (_, k, n) in enumerate(triples):
            if instances.gpu_devices[k] == device:
                row[r + t] = f.tp_degree[n]
        rows.append((row, -np.inf, np.broadcast_to(f.gpu_quota, gpus)[instances.gpu_devices.index(device)]))
    for i in range(types):
        row = np.zeros(width)
        row[x + i * count : x + (i + 1) * count] = row[u + i] = 1.0
        rows.append((row, 1.0, 1.0))
        cost[u + i] = f.rental_hours * f.unmet_penalty[i] * f.arrival_rate[i]
    matrix, lower, upper = (np.array(part) for part in zip(*rows, strict=True))
    answer = milp(
        cost,
        constraints=LinearConstraint(matrix, lower, upper),
        integrality=integer,
        bounds=(np.zeros(width), top),
        options={"mip_rel_gap": 1e-7, "time_limit": 120},
    )
    assert answer.status == 0, (answer.message, shape)
    return float(answer.fun)
