"""Routings of fixed deployments by HiGHS, plans of slots and shares by name, and random deployments.

A deployment's slots are triples' numbers (model K + gpu) N + degree, -1 where a slot is empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from rodiu_jax.model.fields import SETTLED_MODE, batch_axes
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, Plan, Route
from rodiu_jax.model.scenario_blocks import of_settled, run_scenarios
from rodiu_jax.runtime.block_sizes import BlockSize
from solvers.dual import Multipliers, derive_coefficients
from solvers.formulation import build
from solvers.highs import run_highs
from solvers.routing import read_multipliers, route_deployment


@partial(jax.jit, static_argnames=("function", "mode", "batched"))
def _mapped(fields: Any, arrays: Any, function: Any, mode: str, batched: frozenset[str]) -> Any:
    def one(fields: Any, rows: Any) -> Any:
        return function(derive_coefficients(fields, mode), *rows)

    return jax.vmap(one, in_axes=(batch_axes(batched), 0))(fields, arrays)


def map_scenarios(instances: Instances, function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """``function(coefficients, *row)`` of every scenario, in float64, compiled."""
    with jax.enable_x64(True):
        answer = _mapped(instances.fields, arrays, function, instances.uncertainty, instances.batched)
        return jax.tree.map(np.asarray, answer)


class Routed(NamedTuple):
    """What the interior point says of R deployments."""

    cost: np.ndarray  # R
    settled: np.ndarray  # R
    share: np.ndarray  # R,I,D
    multipliers: Multipliers  # R in front: the prices, as `solvers.routing.read_multipliers` has them


@of_settled
@partial(jax.jit, static_argnames=("limited",))
def _route(fields: Any, slots: Any, *, iterations: Any, limited: bool) -> Routed:
    def one(fields: Any, slot: Any) -> Routed:
        c = derive_coefficients(fields, SETTLED_MODE)
        found = route_deployment(c, slot, iterations, limited=limited)
        y = read_multipliers(c, slot, found.solution, found.problem.unit, found.problem.by_load, found.short)
        return Routed(found.cost, found.settled, found.share, y)

    return jax.vmap(one)(fields, slots)


def route(
    instances: Instances,
    slots: np.ndarray,
    *,
    scenario: np.ndarray | None = None,
    iterations: int = 25,
    limited: bool = False,
) -> Routed:
    """Route deployments, one per scenario or each in its ``scenario``; one program per shape, for tests to share."""
    scenario = np.arange(instances.size) if scenario is None else scenario
    options = {"iterations": np.int32(iterations), "limited": limited}
    with jax.enable_x64(True):
        batch = instances.as_batch()
        return run_scenarios(_route, batch, scenario, (slots.astype(np.int32),), BlockSize(16), **options)


def slot_positions(instances: Instances, slot: np.ndarray) -> np.ndarray:
    """(D,3) positions (j, k, n) of the occupied slots."""
    _, _, gpus, degrees = instances.shape
    pair, n = np.divmod(slot[slot >= 0], degrees)
    return np.stack([pair // gpus, pair % gpus, n], 1)


def deployment_positions(instances: Instances, deployment: Deployment) -> np.ndarray:
    """(D,3) positions (j, k, n) of a deployment by name."""
    degrees = instances.axis_names("N")
    rows = [
        (instances.model_names.index(d.model), instances.gpu_names.index(d.gpu), degrees.index(str(d.tp)))
        for d in deployment
    ]
    return np.array(rows, np.int64).reshape(-1, 3)


def highs_routing_cost(instances: Instances, b: int, positions: np.ndarray) -> float:
    """Least cost of HiGHS with the deployment at ``positions`` (D,3) fixed; inf where it has no plan."""
    f = instances.one(b)
    room = f.gpu_memory[positions[:, 1]] * f.tp_degree[positions[:, 2]] - f.weight_memory[positions[:, 0]]
    if (room < 0).any():
        return math.inf
    answer = run_highs(
        build(instances, b, deployed=positions),
        primal_feasibility_tolerance=1e-9,
        dual_feasibility_tolerance=1e-9,
        mip_rel_gap=1e-9,
        **({} if f.max_routes > 0 else {"solver": "simplex"}),
    )
    return answer.objective if answer.columns is not None else math.inf


def random_slots(rng: np.random.Generator, instances: Instances, width: int) -> np.ndarray:
    """A random deployment of 0 to 3 pairs per scenario whose weights fit the GPUs, in shuffled slots; (B,width)."""
    _, _, gpus, degrees = instances.shape
    slots = np.full((instances.size, width), -1)
    for b in range(instances.size):
        triple = rng.permutation(build(instances, b).triple)
        _, first = np.unique(triple[:, :2], axis=0, return_index=True)
        chosen = triple[np.sort(first)][: rng.integers(0, 4)]
        flat = (chosen[:, 0] * gpus + chosen[:, 1]) * degrees + chosen[:, 2]
        slots[b, rng.permutation(width)[: len(flat)]] = flat
    return slots


def random_deployments(seed: int, instances: Instances, count: int) -> list[Deployment]:
    """Random sets of 0 to 3 pairs, whether or not they fit."""
    rng = np.random.default_rng(seed)
    _, models, gpus, _ = instances.shape
    degrees = instances.one(0).tp_degree
    deployments = []
    for _ in range(count):
        pairs = rng.choice(models * gpus, int(rng.integers(0, 4)), replace=False)
        names = [(instances.model_names[p // gpus], instances.gpu_names[p % gpus]) for p in pairs]
        deployments.append(tuple(DeployedPair(*n, int(rng.choice(degrees))) for n in names))
    return deployments


def plan_of_slots(instances: Instances, b: int, slot: np.ndarray, share: np.ndarray) -> Plan:
    """The plan of slots and shares (I,D), unchanged but for shares below 0."""
    share = np.maximum(share[:, slot >= 0], 0.0)
    triples = slot_positions(instances, slot)
    names = [(instances.model_names[j], instances.gpu_names[k]) for j, k, _ in triples]
    degrees = instances.one(b).tp_degree
    return Plan(
        b,
        tuple(DeployedPair(*m, int(degrees[n])) for m, (_, _, n) in zip(names, triples, strict=True)),
        tuple(
            Route(q, *m, float(share[i, d]))
            for i, q in enumerate(instances.query_names)
            for d, m in enumerate(names)
            if share[i, d] > 0
        ),
        {q: float(max(1.0 - share[i].sum(), 0.0)) for i, q in enumerate(instances.query_names)},
    )


def assert_deployments(instances: Instances, slots: np.ndarray, fits: np.ndarray) -> None:
    """Slots hold -1 or a triple that fits, and no pair twice; (B,M,D) and (B,P,N)."""
    degrees = instances.shape[3]
    for b, rows in enumerate(slots):
        for row in rows:
            used = row[row >= 0]
            assert (used < fits[b].size).all()
            assert fits[b].reshape(-1)[used].all()
            assert len(np.unique(used // degrees)) == len(used)
