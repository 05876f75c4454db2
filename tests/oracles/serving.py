"""Random scenarios in which rates, replicas and quotas decide (MODEL section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rodiu_jax.model.fields import FIELD_SPECS, is_absent
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
    absent = [n for n, spec in FIELD_SPECS.items() if spec.axes and is_absent(n, rows[0][n])]
    named = [n for n in rows[0] if not FIELD_SPECS[n].derived and n not in absent]
    values = {n: np.stack([r[n] for r in rows]) for n in named}
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
