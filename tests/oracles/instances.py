"""Random valid instances and plans of any size, and instances like the seed's. No JAX: workers load this."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rodiu_jax.model.fields import FIELD_SPECS, REQUIRED_FIELDS, UNCERTAINTY_MODES, axes_of
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from tests.oracles.numpy_sampler import names, sample_one

SHARED = ("tp_degree", "tp_speedup")  # the fields that the generators do not vary within a batch

# Magnitudes at which every constraint and every cost term matters in a tiny catalogue.
_RANGES = {
    "arrival_rate": (10.0, 100.0),
    "input_tokens": (50.0, 400.0),
    "output_tokens": (50.0, 400.0),
    "weight_memory": (5.0, 60.0),
    "kv_per_token": (0.002, 0.012),
    "gpu_memory": (24.0, 80.0),
    "gpu_compute": (50.0, 400.0),
    "gpu_price": (0.3, 3.0),
    "compute_per_token": (0.05, 0.5),
    "token_size": (0.001, 0.01),
    "storage_price": (0.001, 0.005),
    "delay_penalty": (0.0003, 0.003),
    "unmet_penalty": (0.3, 3.0),
    "delay_nominal": (0.1, 1.0),
    "error_nominal": (0.02, 0.12),
    "delay_impact": (0.1, 0.9),
    "error_impact": (0.1, 0.9),
    "delay_threshold": (100.0, 500.0),
    "error_threshold": (0.05, 0.12),
    "gamma_delay": (0.0, 3.0),
    "gamma_error": (0.0, 3.0),
    "budget": (60.0, 250.0),
    "rental_hours": (10.0, 14.0),
    "storage_capacity": (40.0, 150.0),
    "residency_hours": (0.05, 0.15),
}


def random_values(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """The fields of one random scenario of size (I, J, K, N); unmet shares not capped, routes not limited."""
    size = dict(zip("IJKN", shape, strict=True))
    values: dict[str, Any] = {
        name: rng.uniform(*bounds, tuple(size[a] for a in FIELD_SPECS[name].axes))
        for name, bounds in _RANGES.items()
    }
    for what in ("delay", "error"):
        nominal = values[f"{what}_nominal"]
        values[f"{what}_deviation"] = nominal * rng.uniform(0.1, 0.8, nominal.shape)
    values["unmet_cap"], values["max_routes"] = 1.0, 0
    values["tp_degree"] = 2 ** np.arange(shape[3])
    values["tp_speedup"] = np.cumprod([1.0, *rng.uniform(1.0, 1.9, shape[3] - 1)])
    return values


def random_instances(
    seed: int,
    shape: tuple[int, int, int, int],
    *,
    batch: int = 1,
    mode: str = "ddu",
    **overrides: Any,
) -> Instances:
    """``batch`` random scenarios; ``overrides`` replace fields, each per scenario or for all of them."""
    rng = np.random.default_rng(seed)
    rows = [random_values(rng, shape) for _ in range(batch)]
    values = {
        n: rows[0][n] if n in SHARED else np.stack([np.asarray(r[n]) for r in rows]) for n in REQUIRED_FIELDS
    }
    labels = (tuple(f"{kind}{m}" for m in range(count)) for kind, count in zip("qmg", shape[:3], strict=True))
    return make_instances(*labels, mode, values | overrides)


def default_instances(count: int, *, seed: int = 0, mode: str = "ddu", corrected: bool = False) -> Instances:
    """Scenarios drawn as the seed says, 6 x 6 x 10 x 4."""
    rng = np.random.default_rng(seed)
    rows = [sample_one(rng, corrected=corrected) for _ in range(count)]
    values = {
        n: rows[0][n] if n in SHARED else np.stack([np.asarray(r[n]) for r in rows]) for n in REQUIRED_FIELDS
    }
    return make_instances(*names(), mode, values)


def worked_example() -> tuple[Instances, Plan, dict[str, float], dict[str, float]]:
    """One type, one model, one GPU, a plan, and its costs and margins worked out by hand.

    x = 0.8 on 2 GPUs, T = 100, s = 1.6: 50 ms per unit of delay.
    Delay 4*50 + 0.5 * (2 * 0.75 * 50) = 237.5 ms; error 0.08 + 0.08 * 0.5 * 0.8 = 0.112.
    Memory (20 + 0.1*100*10*0.1*0.8)/2 = 14 of 24 GB; compute 0.5*100*0.8 = 40 of 100 TFLOPs.
    Stored 2*100*10/1000*0.8 = 1.6 GB. All over 2 hours.
    """
    instances = random_instances(
        0,
        (1, 1, 1, 2),
        arrival_rate=[10.0], input_tokens=[60.0], output_tokens=[40.0], weight_memory=[20.0],
        kv_per_token=[0.1], gpu_memory=[24.0], gpu_compute=[50.0], gpu_price=[3.0], compute_per_token=[0.5],
        token_size=[2.0], storage_price=0.5, delay_penalty=[0.01], unmet_penalty=[7.0],
        delay_nominal=[[[4.0]]], delay_deviation=[[[2.0]]],
        error_nominal=[[[0.1]]], error_deviation=[[[0.08]]],
        delay_impact=[[0.25]], error_impact=[[0.5]], delay_threshold=[300.0], error_threshold=[0.2],
        gamma_delay=0.5, gamma_error=5.0, budget=500.0, rental_hours=2.0, storage_capacity=40.0,
        residency_hours=0.1, unmet_cap=1.0, max_routes=2, tp_degree=[1, 2], tp_speedup=[1.0, 1.6],
    )  # fmt: skip
    plan = Plan(0, (DeployedPair("m0", "g0", 2),), (Route("q0", "m0", "g0", 0.8),), {"q0": 0.2})
    costs = {
        "rental_cost": 2 * 3 * 2.0,
        "storage_cost": 2 * 0.5 * (20 + 1.6),
        "delay_cost": 2 * 0.01 * 10 * 237.5,
    }
    costs["unmet_cost"] = 2 * 7 * 10 * 0.2
    costs["total_cost"] = sum(costs.values())
    margins = {
        "demand": 0.0, "unmet": 0.8, "routes": 0.5, "memory": 10 / 24, "compute": 0.6, "storage": 0.5,
        "budget": (500 - 12 - 21.6) / 500, "delay": (300 * 0.8 - 237.5) / 300,
        "error": (0.2 * 0.8 - 0.112) / 0.2,
    }  # fmt: skip
    return instances, plan, costs, margins


def random_plan(
    rng: np.random.Generator, instances: Instances, *, instance: int | None, pairs: int = 3, slip: float = 0.0
) -> Plan:
    """A plan of up to ``pairs`` deployed pairs; with probability ``slip`` a type's shares do not sum to 1."""
    _, models, gpus, _ = instances.shape
    degrees = instances.one(instance or 0).tp_degree
    count = min(int(rng.integers(0, pairs + 1)), models * gpus)
    chosen = [divmod(int(c), gpus) for c in rng.choice(models * gpus, count, replace=False)]
    pair_names = [(instances.model_names[j], instances.gpu_names[k]) for j, k in chosen]
    deployments = [DeployedPair(m, g, int(rng.choice(degrees))) for m, g in pair_names]
    routes, unmet = [], {}
    for query in instances.query_names:
        parts = rng.dirichlet(np.full(count + 1, 0.5))
        parts[rng.random(count + 1) < 0.3] = 0.0
        parts = parts / parts.sum() if parts.sum() > 0 else np.eye(count + 1)[count]
        if rng.random() < slip:
            parts = parts * rng.uniform(0.5, 1.2)
        routes += [
            Route(query, m, g, float(s)) for (m, g), s in zip(pair_names, parts[:-1], strict=True) if s > 0
        ]
        unmet[query] = float(parts[-1])
    return Plan(instance, tuple(deployments), tuple(routes), unmet)


def reordered(instances: Instances, orders: tuple[list[int], list[int], list[int]]) -> Instances:
    """The same scenarios with query types, models and GPUs listed in other orders."""
    order = dict(zip("IJK", orders, strict=True))
    values = {}
    for name, value in instances.fields._asdict().items():
        axes = axes_of(name, value.ndim)
        for position, axis in enumerate(axes):
            if axis in order:
                value = np.take(value, order[axis], axis=position - len(axes))
        values[name] = value
    labels = (instances.query_names, instances.model_names, instances.gpu_names)
    listed = ([names[p] for p in o] for names, o in zip(labels, orders, strict=True))
    return make_instances(*listed, instances.uncertainty, values)


@st.composite
def scenarios(draw: st.DrawFn, shape: tuple[int, int, int, int]) -> Instances:
    """Hypothesis: one scenario of a size, with zeros, caps, route limits and any budget of uncertainty."""
    overrides: dict[str, Any] = {
        "gamma_delay": draw(st.sampled_from([0.0, 0.5, 1.0, 1.3, 2.0, 7.0])),
        "gamma_error": draw(st.sampled_from([0.0, 0.25, 1.0, 1.7, 9.0])),
        "max_routes": draw(st.sampled_from([0, 0, 1, 2])),
        "unmet_cap": draw(st.sampled_from([1.0, 1.0, 0.7, 0.2])),
    }
    may_be_zero = [
        "gpu_price",
        "storage_price",
        "delay_penalty",
        "unmet_penalty",
        "kv_per_token",
        "token_size",
    ]
    may_be_zero += [
        "compute_per_token",
        "arrival_rate",
        "delay_threshold",
        "error_threshold",
        "weight_memory",
    ]
    size = dict(zip("IJKN", shape, strict=True))
    for name in draw(st.lists(st.sampled_from(may_be_zero), max_size=2, unique=True)):
        overrides[name] = np.zeros(tuple(size[a] for a in FIELD_SPECS[name].axes))
    mode = draw(st.sampled_from(UNCERTAINTY_MODES))
    return random_instances(draw(st.integers(0, 10**6)), shape, mode=mode, **overrides)
