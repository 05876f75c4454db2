"""What planners read first: sums by hand, loads and headroom against bisection over scipy's routings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rodiu_jax.decisions.fleet import QuotaUse, summarize_fleet
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment, Plan, Route
from rodiu_jax.model.verdict import SERVING_FAMILIES
from solvers.headroom import find_headroom
from tests.oracles.enumeration import cheapest_routing
from tests.oracles.instances import random_instances, worked_example
from tests.oracles.serving import serving_instances

SHAPE = (3, 2, 2, 2)


def at_traffic(instances: Instances, factor: float) -> Instances:
    """The scenario as headroom means it: everyone served at ``factor`` times the traffic, compute and room left out."""
    rate = np.asarray(instances.fields.arrival_rate) * factor
    free = {"compute_per_token": np.zeros(instances.shape[0]), "storage_capacity": 1e9}
    return instances.with_fields(arrival_rate=rate, unmet_cap=0.0, **free)


def serves_everyone(instances: Instances, deployment: Deployment, factor: float) -> bool:
    """Whether scipy finds a routing at ``factor`` times the traffic."""
    there, degrees = at_traffic(instances, factor), instances.axis_names("N")
    fleet = [
        (
            instances.model_names.index(d.model),
            instances.gpu_names.index(d.gpu),
            degrees.index(str(d.tp)),
            d.replicas,
        )
        for d in deployment
    ]
    return math.isfinite(cheapest_routing(there, 0, fleet))


def bisect_headroom(instances: Instances, deployment: Deployment) -> float:
    """The headroom by bisection; 0 or inf where it lies outside 1e-3 to 1e3."""
    low, high = 1e-3, 1e3
    if not serves_everyone(instances, deployment, low):
        return 0.0
    if serves_everyone(instances, deployment, high):
        return math.inf
    while high / low > 1 + 1e-7:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if serves_everyone(instances, deployment, middle) else (low, middle)
    return low


def random_deployment(rng: np.random.Generator, instances: Instances, pairs: int) -> Deployment:
    _, models, gpus, _ = instances.shape
    chosen = rng.choice(models * gpus, pairs, replace=False)
    return tuple(
        DeployedPair(
            f"m{p // gpus}",
            f"g{p % gpus}",
            int(rng.choice(instances.one(0).tp_degree)),
            int(rng.integers(1, 4)),
        )
        for p in chosen.tolist()
    )


EASY = {
    "delay_threshold": np.full(3, 2000.0),
    "error_threshold": np.full(3, 0.3),
    "gpu_memory": np.full(2, 200.0),
}


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
@pytest.mark.parametrize("limits", [{}, EASY, EASY | {"max_routes": 1}, EASY | {"budget": 2000.0}])
def test_headroom_is_where_scipy_stops_finding_routings(mode: str, limits: dict[str, Any]):
    between, named = 0, set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = {"budget": 1500.0, "max_replicas": np.full((2, 2), 3)} | limits
        instances = serving_instances(seed, SHAPE, mode=mode, **values)
        deployment = random_deployment(rng, instances, 1 + seed % 3)
        found, expected = find_headroom(instances, 0, deployment), bisect_headroom(instances, deployment)
        assert found.factor == pytest.approx(expected, rel=1e-5)
        assert bool(found.full) == math.isfinite(found.factor)
        between += 0 < found.factor < math.inf
        named |= set(found.full) if found.factor else set()
        if 0 < found.factor < math.inf:
            check_full(instances, deployment, found.factor, found.full)
    assert between >= (4 if limits else 0)
    if limits:
        assert {name.partition("[")[0] for name in named} & {"throughput", "memory", "budget"}


def check_full(instances: Instances, deployment: Deployment, factor: float, full: tuple[str, ...]) -> None:
    """Twice as much of the limits that are full, and the same deployment takes more; of the others alone, no more."""
    f = instances.one(0)
    replicas = tuple(
        replace(d, replicas=2 * d.replicas) if f"throughput[{d.model},{d.gpu}]" in full else d
        for d in deployment
    )
    more = {}
    if any(name.startswith("memory") for name in full):
        more = {"gpu_memory": 2 * f.gpu_memory}
    if "budget" in full or replicas != deployment:
        more["budget"] = 1e9
    assert find_headroom(instances.with_fields(**more), 0, replicas).factor > factor * (1 + 1e-6)


def test_fifty_requests_a_second_on_an_h100_and_an_a100():
    # 40.11 + 12.494 = 52.604 requests/s against 50: 1.05208; the H100 alone takes 40.11 / 50
    sustained = [[[[40.11 * 3600], [12.494 * 3600]]]]
    instances = free_of_all_but_rates(sustained, [50 * 3600.0], [2.5, 1.6])
    both = (DeployedPair("m0", "g0", 1), DeployedPair("m0", "g1", 1))
    found = find_headroom(instances, 0, both)
    assert found.factor == pytest.approx(52.604 / 50, rel=1e-9)
    assert set(found.full) == {"throughput[m0,g0]", "throughput[m0,g1]"}
    alone = find_headroom(instances, 0, both[:1])
    assert (alone.factor, alone.full) == (pytest.approx(40.11 / 50, rel=1e-9), ("throughput[m0,g0]",))
    three = (replace(both[0], replicas=3),)
    assert find_headroom(instances, 0, three).factor == pytest.approx(3 * 40.11 / 50, rel=1e-9)
    assert find_headroom(instances.with_fields(max_utilization=0.5), 0, three).factor == pytest.approx(
        1.5 * 40.11 / 50, rel=1e-9
    )


def test_shortfalls_of_a_budget_are_counted():
    # Two types of 10/h on one pair that sustains 100/h of each: load 0.2; a shortfall of 0.5 doubles 0.1 of one of them
    instances = free_of_all_but_rates([[[[100.0]]], [[[100.0]]]], [10.0, 10.0], [1.0], mode="ddu")
    short = {"throughput_shortfall": np.full((2, 1, 1), 0.5)}
    pair = (DeployedPair("m0", "g0", 1),)
    for gamma, load in ((0.0, 0.2), (0.5, 0.25), (1.0, 0.3), (1.5, 0.35), (2.0, 0.4), (9.0, 0.4)):
        one = instances.with_fields(gamma_throughput=gamma, **short)
        assert find_headroom(one, 0, pair).factor == pytest.approx(1 / load, rel=1e-9)
    calm = one.with_uncertainty("none")
    assert find_headroom(calm, 0, pair).factor == pytest.approx(5.0, rel=1e-9)


def free_of_all_but_rates(
    throughput: Any, rates: Any, prices: Any, *, mode: str = "none", **values: Any
) -> Instances:
    """Scenarios in which only rates limit anything."""
    throughput = np.asarray(throughput, np.float64)
    types, models, gpus, degrees = throughput.shape
    plain = {
        "storage_price": 0.0, "delay_penalty": np.zeros(types), "delay_threshold": np.full(types, 1e9),
        "error_threshold": np.ones(types), "kv_per_token": np.zeros(models), "budget": 1e6,
        "gpu_memory": np.full(gpus, 100.0), "gamma_delay": 0.0, "gamma_error": 0.0, "rental_hours": 1.0,
        "gpu_price": prices, "arrival_rate": rates, "throughput": throughput,
        "max_replicas": np.full((models, gpus), 20),
    }  # fmt: skip
    return random_instances(0, (types, models, gpus, degrees), mode=mode, **(plain | values))


def test_what_nobody_fills_and_what_cannot_be_served():
    instances = free_of_all_but_rates([[[[math.inf], [0.0]]]], [10.0], [1.0, 1.0])
    one, other = DeployedPair("m0", "g0", 1), DeployedPair("m0", "g1", 1)
    endless = find_headroom(instances, 0, (one, other))
    assert (endless.factor, endless.full) == (math.inf, ())
    none = find_headroom(instances, 0, (other,))
    assert (none.factor, none.full) == (0.0, ("demand[q0]",))
    nothing = find_headroom(instances, 0, ())
    assert (nothing.factor, nothing.full) == (0.0, ("demand[q0]",))
    slow = instances.with_fields(delay_threshold=[1e-6])
    assert find_headroom(slow, 0, (one,)).full == ("delay[q0]",)
    wrong = instances.with_fields(error_threshold=[1e-6])
    assert find_headroom(wrong, 0, (one,)).full == ("error[q0]",)
    heavy = instances.with_fields(gpu_memory=[1.0, 100.0])
    assert find_headroom(heavy, 0, (one,)).full == ("memory[m0,g0]",)
    dear = instances.with_fields(budget=0.5)
    assert find_headroom(dear, 0, (one,)).full == ("budget",)


def test_summary_by_hand():
    """Three replicas of 2 GPUs at $3: 6 GPUs, $18/h; 0.8 x 10 queries/h x 100 tokens: $18 for 800 tokens, $22,500/M.

    Load 2 x 0.8 + half of the shortfall's 0.4 = 1.8, on three replicas 0.6 each; of everyone 2 + 0.25 = 2.25 of 2.25:
    headroom 1. The KV cache of everyone takes 10 GB of 3 x (48 - 20): room for 8.4 times the traffic. Delay 4 x 62.5 +
    0.5 x 2 x 0.75 x 62.5 = 296.875 of 300 ms; budget 500 - 36 - 20 = 444 for stored data of $2: no limit here.
    """
    instances, plan, _, _ = worked_example()
    instances = instances.with_fields(
        max_replicas=[[4]], throughput=[[[[math.inf, 5.0]]]], throughput_shortfall=[[[0.2]]],
        gamma_throughput=0.5, max_utilization=0.75, gpu_quota=[9.0],
    )  # fmt: skip
    pair = DeployedPair("m0", "g0", 2, 3)
    found = summarize_fleet(replace(plan, deployments=(pair,)), instances, 0)
    assert found.gpus == {"g0": 6}
    assert found.rent_per_hour == 18.0
    assert found.cost_per_million_tokens == pytest.approx(22_500.0)
    assert found.utilization == ((pair, pytest.approx(0.6)),)
    assert found.quotas == (QuotaUse("g0", 6, 9.0),)
    assert found.headroom.factor == pytest.approx(1.0)
    assert found.headroom.full == ("throughput[m0,g0]",)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == {
        "gpus": {"g0": 6},
        "rent_per_hour": 18.0,
        "cost_per_million_tokens": pytest.approx(22_500.0),
        "utilization": [{"model": "m0", "gpu": "g0", "utilization": pytest.approx(0.6)}],
        "quota": [{"device": "g0", "gpus": 6, "quota": 9.0}],
        "headroom": {"factor": pytest.approx(1.0), "full": ["throughput[m0,g0]"]},
    }


def test_loads_are_those_of_the_checker():
    for seed in range(6):
        instances = serving_instances(seed, SHAPE)
        rng = np.random.default_rng(seed)
        deployment = random_deployment(rng, instances.with_fields(max_replicas=np.full((2, 2), 3)), 1)
        (pair,) = deployment
        routes = tuple(
            Route(q, pair.model, pair.gpu, float(rng.uniform(0.1, 1))) for q in instances.query_names
        )
        plan = Plan(0, deployment, routes, {})
        instances = instances.with_fields(max_replicas=np.full((2, 2), 3))
        ((_, load),) = summarize_fleet(plan, instances, 0).utilization
        margin = check_plan(plan, instances, 0).margins["throughput"]
        most = float(instances.one(0).max_utilization)
        assert (most - load) / most == pytest.approx(margin) or (load, margin) == (math.inf, -math.inf)


def test_plans_of_scenarios_without_the_extension():
    instances, plan, _, _ = worked_example()
    assert not set(SERVING_FAMILIES) & set(instances.families)
    found = summarize_fleet(plan, instances, 0)
    assert (found.gpus, found.utilization, found.quotas) == ({"g0": 2}, (), (QuotaUse("g0", 2, math.inf),))
    assert found.headroom.factor == pytest.approx(bisect_headroom(instances, plan.deployments), rel=1e-5)
    # 10 GB of KV cache where everyone is served, of 48 - 20
    assert (found.headroom.factor, found.headroom.full) == (pytest.approx(2.8), ("memory[m0,g0]",))
    # $12 of rent, $20 for weights, $2 for the data of everyone once: $4 are left for twice the traffic
    tight = find_headroom(instances.with_fields(budget=36.0), 0, plan.deployments)
    assert (tight.factor, tight.full) == (pytest.approx(2.0), ("budget",))


def test_a_plan_that_serves_nobody():
    instances = serving_instances(0, SHAPE)
    nothing = Plan(0, (), (), dict.fromkeys(instances.query_names, 1.0))
    found = summarize_fleet(nothing, instances, 0)
    assert (found.gpus, found.rent_per_hour, found.utilization) == ({}, 0.0, ())
    assert found.to_json()["cost_per_million_tokens"] is None
    with pytest.raises(InputError, match="instance"):
        summarize_fleet(nothing, instances, 1)
