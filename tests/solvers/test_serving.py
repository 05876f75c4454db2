"""Exact optima with replicas, rates and quotas (MODEL section 9): enumeration, known answers, what must not change."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.model.plan import DeployedPair, deployed_triples
from rodiu_jax.model.status import Status
from solvers import exact
from solvers.best_plan import route, starting_point
from solvers.dual import lower_bounds
from solvers.exact import solve_instance
from solvers.formulation import assemble, build, read_plan
from solvers.highs import run_highs
from solvers.pool import solve_iter
from solvers.terms import collect
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import random_instances
from tests.oracles.plain_fleet import solve_plain
from tests.oracles.serving import serving_instances

CLOSE = {"rel": 2e-6, "abs": 1e-9}


def optimum(instances: Instances) -> float:
    """The proven optimum of the one scenario, its plan checked."""
    answer = solve_instance(instances, 0)
    assert answer.status in (Status.OPTIMAL, Status.INFEASIBLE), answer.message
    if answer.status is Status.INFEASIBLE:
        return math.inf
    plan = answer.plan_for(0)
    assert plan is not None
    verdict = check_plan(plan, instances, 0)
    assert verdict.feasible
    assert verdict.costs["total_cost"] == answer.upper
    assert answer.lower == pytest.approx(answer.upper, **CLOSE)
    return answer.upper


def rates_only(
    throughput: Any, rates: Any, prices: Any, *, replicas: int = 20, mode: str = "none", **values: Any
) -> Instances:
    """Scenarios whose only cost is rent, at $1 a query unmet: nothing else binds. ``throughput`` is (I,J,K,N)."""
    throughput = np.asarray(throughput, np.float64)
    types, models, gpus, degrees = throughput.shape
    plain = {
        "storage_price": 0.0, "token_size": np.zeros(types), "delay_penalty": np.zeros(types),
        "delay_threshold": np.full(types, 1e9), "error_threshold": np.ones(types),
        "compute_per_token": np.zeros(types), "kv_per_token": np.zeros(models), "budget": 1e6,
        "storage_capacity": 1e6, "gpu_memory": np.full(gpus, 100.0), "gamma_delay": 0.0, "gamma_error": 0.0,
        "rental_hours": 1.0, "gpu_price": prices, "arrival_rate": rates, "unmet_penalty": np.ones(types),
        "throughput": throughput, "max_replicas": np.full((models, gpus), replicas),
        "tp_degree": np.arange(1, degrees + 1), "tp_speedup": np.ones(degrees),
    }  # fmt: skip
    return random_instances(0, throughput.shape, mode=mode, **(plain | values))


# ---- enumeration ----


@pytest.mark.parametrize(
    ("limits", "mode"),
    [
        ({}, "none"),
        ({}, "diu"),
        ({}, "ddu"),
        ({"max_routes": 1}, "ddu"),
        ({"unmet_cap": 0.6, "max_routes": 2}, "ddu"),
    ],
)  # the long lane crosses every limit with every mode
def test_optima_agree_with_every_fleet_tried(mode: str, limits: dict[str, Any]):
    several = 0
    for seed in range(6 if limits else 8):
        types = 3 if seed % 2 and not limits else 2  # every choice of routes is tried where they are limited
        shape, devices = (types, 2, 2, 2), ["d", "d"] if seed % 2 else None
        gamma = {"gamma_throughput": [0.6, 1.0, 1.5, 7.0][seed % 4]}
        instances = serving_instances(seed, shape, mode=mode, devices=devices, **limits, **gamma)
        expected = cheapest(instances, 0)
        answer = solve_instance(instances, 0)
        assert optimum(instances) == pytest.approx(expected, **CLOSE), seed
        several += any(d.replicas > 1 for d in (answer.plan.deployments if answer.plan else ()))
    assert several >= 1, "replicas must matter"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_optima_agree_with_every_fleet_tried_at_length(mode: str):
    for seed in range(1000, 1060):
        limits = {"max_routes": seed % 3, "unmet_cap": [1.0, 0.5, 0.8][seed % 3]}
        instances = serving_instances(seed, (3, 2, 2, 2), mode=mode, devices=["d", "d"], **limits)
        assert optimum(instances) == pytest.approx(cheapest(instances, 0), **CLOSE), seed


@pytest.mark.parametrize("gamma", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_optima_agree_with_the_plain_formulation(seed: int, gamma: float):
    rng = np.random.default_rng(seed)
    types, _, gpus, degrees = shape = (4, 3, 3, 3)
    throughput = rng.uniform(5.0, 40.0, shape) * np.arange(1, degrees + 1) ** 0.9
    throughput[rng.random(shape) < 0.2] = 0.0
    instances = rates_only(
        throughput,
        rng.uniform(20.0, 200.0, types),
        rng.uniform(1.0, 4.0, gpus),
        unmet_penalty=rng.uniform(0.2, 1.0, types),
        max_utilization=0.9,
        gpu_quota=np.full(gpus, 9.0),
        throughput_shortfall=rng.uniform(0.0, 0.4, shape[:3]),
        gamma_throughput=gamma,
    )
    instances = make_instances(
        *instances.names[:3], "ddu", instances.fields._asdict(), gpu_devices=["a", "b", "a"]
    )
    assert optimum(instances) == pytest.approx(solve_plain(instances, 0).objective, rel=1e-5)


# ---- known answers of others ----

# Buckets by tokens (in 1, out 1), (1, 2), (2, 1), (2, 2); on A10G at $1.01 and A100-80GB at $3.67 an hour.
MELANGE_RATES = [6.0, 3.0, 15.0, 6.0]
MELANGE = [[[[2.0], [20.0]]], [[[1.0], [20.0]]], [[[5.0], [40.0]]], [[[2.0], [20.0]]]]


def test_melange_example_with_shares():
    # One A100 alone has load 6/20 + 3/20 + 15/40 + 6/20 = 1.125. A third of bucket (2, 1) on an A10G: 5/5 and 1.0.
    instances = rates_only(MELANGE, MELANGE_RATES, [1.01, 3.67])
    answer = solve_instance(instances, 0)
    assert optimum(instances) == pytest.approx(4.68, rel=1e-6)
    assert {d.gpu: d.replicas for d in answer.plan.deployments} == {"g0": 1, "g1": 1}


def test_melange_example_whole_buckets():
    instances = rates_only(MELANGE, MELANGE_RATES, [1.01, 3.67], max_routes=1, unmet_cap=0.0)
    answer = solve_instance(instances, 0)
    assert optimum(instances) == pytest.approx(6.70, rel=1e-6)
    assert {d.gpu: d.replicas for d in answer.plan.deployments} == {"g0": 3, "g1": 1}


def test_greedy_overpays():
    # llm-d-autoscaling issue 1251: greedy by capacity buys A for $10; one B for $6 serves all
    assert optimum(rates_only([[[[200.0], [100.0]]]], [100.0], [10.0, 6.0])) == pytest.approx(6.0, rel=1e-6)


def test_fifty_requests_a_second():
    # 40.11/s an H100 ($2.50), 12.494 an A100 ($1.60), 3.2 an L40S ($0.95): one H100 + one A100 carry 52.6 for $4.10
    sustained = [[[[40.11 * 3600], [12.494 * 3600], [3.2 * 3600]]]]
    prices = [2.50, 1.60, 0.95]
    instances = rates_only(sustained, [50 * 3600.0], prices)
    assert optimum(instances) == pytest.approx(4.10, rel=1e-6)
    alone = []
    for k in range(3):
        most = np.zeros((1, 3), int)
        most[0, k] = 20
        alone.append(optimum(instances.with_fields(max_replicas=most)))
    assert min(alone) == pytest.approx(5.00, rel=1e-6)


# ---- what must change nothing, or only one way ----


def fleet_of(instances: Instances) -> set[DeployedPair]:
    answer = solve_instance(instances, 0)
    assert answer.status is Status.OPTIMAL
    return set(answer.plan.deployments)


@pytest.mark.parametrize("seed", range(5))
def test_rates_and_traffic_together_leave_the_fleet(seed: int):
    rng = np.random.default_rng(seed)
    throughput = rng.uniform(5.0, 40.0, (3, 2, 3, 2))
    rates, prices = rng.uniform(20.0, 90.0, 3), rng.uniform(1.0, 4.0, 3)
    once = rates_only(throughput, rates, prices, unmet_penalty=np.full(3, 50.0))
    twice = rates_only(2 * throughput, 2 * rates, prices, unmet_penalty=np.full(3, 50.0))
    assert optimum(twice) == pytest.approx(optimum(once), rel=1e-6)
    assert fleet_of(twice) == fleet_of(once)
    more = rates_only(throughput, 2 * rates, prices, unmet_penalty=np.full(3, 50.0))
    assert optimum(more) > 1.2 * optimum(once)


def test_a_larger_quota_never_costs_more():
    steps = 0
    for seed in range(5):
        costs = []
        for quota in (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, math.inf):
            quotas = {"gpu_quota": np.full(2, quota), "devices": ["d", "d"]}
            costs.append(optimum(serving_instances(seed, (3, 2, 2, 2), **quotas)))
        assert all(b <= a * (1 + 2e-6) for a, b in itertools.pairwise(costs))
        steps += sum(b < a * (1 - 1e-6) for a, b in itertools.pairwise(costs))
    assert steps >= 5


@pytest.mark.parametrize("mode", ["diu", "ddu"])
def test_gamma_goes_from_nominal_to_all_short(mode: str):
    differ = 0
    for seed in range(4):
        base = serving_instances(seed, (3, 2, 2, 2), mode=mode)
        costs = [optimum(base.with_fields(gamma_throughput=g)) for g in (0.0, 0.5, 1.0, 2.0, 3.0, 9.0)]
        assert all(a <= b * (1 + 2e-6) for a, b in itertools.pairwise(costs))
        f = base.one(0)
        none = base.with_fields(throughput_shortfall=np.zeros((3, 2, 2)))
        short = f.throughput * (1.0 - f.throughput_shortfall[..., None])
        assert costs[0] == pytest.approx(optimum(none), **CLOSE)
        worst = optimum(none.with_fields(throughput=short))  # l + l s/(1-s) = l/(1-s)
        assert costs[4] == pytest.approx(worst, **CLOSE)
        assert costs[5] == pytest.approx(worst, **CLOSE)
        nominal = base.with_fields(gamma_throughput=9.0).with_uncertainty("none")
        assert optimum(nominal) == pytest.approx(optimum(none.with_uncertainty("none")), **CLOSE)
        differ += costs[0] < costs[5] * (1 - 1e-6)
    assert differ >= 2


@pytest.mark.parametrize("seed", range(4))
def test_one_gpu_under_two_names_with_one_quota_is_one(seed: int):
    """Each model may stand on both names, so both get half the replicas of the one, and R routes twice as many."""
    one = serving_instances(seed, (2, 2, 1, 1), gpu_quota=np.array([4.0]), max_replicas=np.full((2, 1), 4))
    values = dict(one.one(0)._asdict())
    for name in ("gpu_memory", "gpu_compute", "gpu_price", "gpu_quota"):
        values[name] = np.repeat(values[name], 2)
    for name in (
        "delay_nominal",
        "delay_deviation",
        "error_nominal",
        "error_deviation",
        "throughput_shortfall",
    ):
        values[name] = np.repeat(values[name], 2, axis=2)
    for name in ("delay_impact", "error_impact", "max_replicas"):
        values[name] = np.repeat(values[name], 2, axis=1)
    for name in ("throughput", "tp_speedup", "residency_hours"):
        values[name] = np.repeat(values[name], 2, axis=2)
    del values["gpu_device"]
    values |= {"gamma_delay": 0.0, "gamma_error": 0.0, "storage_price": 0.0, "storage_capacity": 1e6}
    calm = {n: values[n] for n in ("gamma_delay", "gamma_error", "storage_price", "storage_capacity")}
    calm["gamma_throughput"] = values["gamma_throughput"] = 0.0
    two = make_instances(
        one.query_names, one.model_names, ["g0a", "g0b"], "ddu", values, gpu_devices=["g", "g"]
    )
    assert optimum(two) == pytest.approx(optimum(one.with_fields(**calm)), **CLOSE)


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_defaults_in_full_shape_are_the_old_model(mode: str):
    for seed in range(4):
        old = random_instances(seed, (3, 2, 3, 2), mode=mode, max_routes=seed % 3)
        full = old.with_fields(
            max_replicas=np.ones((2, 3)), throughput=np.full((3, 2, 3, 2), math.inf),
            gpu_quota=np.full(3, math.inf), gamma_throughput=1.0,
            tp_speedup=np.broadcast_to(old.fields.tp_speedup, (3, 2, 3, 2)),
            residency_hours=np.broadcast_to(old.one(0).residency_hours, (3, 2, 3)),
        )  # fmt: skip
        assert optimum(full) == pytest.approx(optimum(old), rel=1e-9)


def test_a_formulation_without_the_extension_has_nothing_of_it():
    old = random_instances(1, (3, 2, 3, 2))
    full = old.with_fields(max_replicas=np.ones((2, 3)), throughput=np.full((3, 2, 3, 2), math.inf))
    assert collect(full, 0).fleet is None
    one, other = build(old, 0), build(full, 0)
    for name in ("cost", "lower", "upper", "value", "row_upper", "index", "integer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.columns.replicas.tolist() == list(range(len(one.triple)))


# ---- the formulation ----


def test_no_triple_has_more_replicas_than_it_can_use():
    # 10 queries/h of which a replica sustains 4 at U = 0.5: 5 replicas serve all; the quota allows 3 on 2 GPUs each
    instances = rates_only(
        [[[[4.0, 4.0]]]], [10.0], [1.0], replicas=1000, max_utilization=0.5, gpu_quota=np.array([7.0])
    )
    terms = collect(instances, 0)
    assert terms.fleet is not None
    assert terms.fleet.replicas.tolist() == [5, 3]
    assert terms.fleet.each.tolist() == [[pytest.approx(0.2), pytest.approx(0.2)]]
    assert terms.most.tolist() == [[1.0, pytest.approx(0.6)]]
    dear = instances.with_fields(budget=2.5)
    assert collect(dear, 0).fleet.replicas.tolist() == [2, 1]
    assert collect(instances.with_fields(max_replicas=[[0]]), 0).triple.shape == (0, 3)


def test_only_types_that_one_replica_carries_whole_are_linked_to_it():
    # Loads 4, 1 and a half: the row of the load says that the first type needs four replicas; the others are linked.
    instances = rates_only([[[[5.0]]], [[[10.0]]], [[[20.0]]]], [20.0, 10.0, 10.0], [1.0])
    formulation = build(instances, 0)
    linked = np.repeat(np.arange(len(formulation.row_lower)), np.diff(formulation.start))
    x = formulation.columns.share.start + np.arange(len(formulation.cell))
    rows = [set(linked[formulation.index == c]) & set(formulation.rows.link.tolist()) for c in x]
    assert [len(r) for r in rows] == [0, 1, 1]
    assert optimum(instances) == pytest.approx(6.0)
    light = instances.with_fields(arrival_rate=[0.0, 0.0, 5.0])
    assert run_highs(build(light, 0), relax=True).objective == pytest.approx(1.0), "not a quarter"


def test_a_promise_that_no_pair_breaks_has_no_row():
    # Worst errors 0.2 and 0.3, alone: the second GPU breaks the first type's promise, and nothing the second's.
    instances = rates_only(
        np.full((2, 1, 2, 1), 10.0), [10.0, 10.0], [2.0, 1.0], mode="diu",
        error_nominal=np.broadcast_to([0.15, 0.2], (2, 1, 2)), error_deviation=np.broadcast_to([0.05, 0.1], (2, 1, 2)),
        error_threshold=[0.25, 0.3000001], gamma_error=1.0, max_routes=0,
    )  # fmt: skip
    rows = build(instances, 0).rows
    assert (rows.error >= 0).tolist() == [True, False]
    assert ((rows.error_worst >= 0) == (rows.serving[:, 0] == 0)).all()
    assert (rows.delay < 0).all()
    assert optimum(instances) == pytest.approx(3.0), "one replica of each"
    # At 0.2 each type needs two thirds of it on the first GPU: 0.15 x 2/3 + 0.2 x 1/3 + 0.1 x 1/3.
    assert optimum(instances.with_fields(error_threshold=[0.2, 0.2])) == pytest.approx(4.0)


def test_a_routing_of_fixed_replicas_is_the_milps():
    for seed in range(6):
        instances = serving_instances(seed, (3, 2, 2, 2))
        formulation = build(instances, 0)
        answer = run_highs(formulation, mip_rel_gap=1e-9)
        found = read_plan(formulation, answer.columns)
        plan = route(instances, 0, found.deployed, None, found.replicas)
        verdict = check_plan(plan, instances, 0)
        assert verdict.feasible
        assert verdict.costs["total_cost"] == pytest.approx(answer.objective, **CLOSE)
        expected = dict(zip(map(tuple, found.deployed.tolist()), found.replicas.tolist(), strict=True))
        at = deployed_triples(instances, plan.deployments).tolist()
        assert all(expected[tuple(t)] == d.replicas for t, d in zip(at, plan.deployments, strict=True))


def test_a_start_from_a_known_plan():
    instances = serving_instances(2, (2, 2, 2, 2))
    answer = solve_instance(instances, 0)
    plan = answer.plan_for(0)
    formulation = assemble(collect(instances, 0), 2)
    positions, values = starting_point(instances, formulation, plan)
    counts = dict(zip(positions.tolist(), values.tolist(), strict=True))
    of = {tuple(t): d.replicas for t, d in zip(
        deployed_triples(instances, plan.deployments).tolist(), plan.deployments, strict=True)}  # fmt: skip
    for t, triple in enumerate(formulation.triple.tolist()):
        assert counts[int(formulation.columns.replicas[t])] == of.get(tuple(triple), 0)
    again = solve_instance(instances, 0, start=replace(answer, lower=-math.inf))
    assert (again.status, again.upper) == (Status.OPTIMAL, answer.upper)


# ---- through the program ----


def test_solver_processes_and_json():
    instances = rates_only(MELANGE, MELANGE_RATES, [1.01, 3.67], max_routes=1, unmet_cap=0.0)
    (answer,) = solve_iter(instances, [0], workers=1)
    item = json.loads(json.dumps(answer.to_json(0)))
    assert {"model": "m0", "gpu": "g0", "tp": 1, "replicas": 3} in item["plan"]["deployments"]
    assert {"model": "m0", "gpu": "g1", "tp": 1} in item["plan"]["deployments"]


def test_bounds_alone_refuse_what_they_do_not_know():
    with pytest.raises(InputError, match="max_replicas"):
        lower_bounds(serving_instances(0, (2, 2, 2, 2)))
    speeds = random_instances(0, (2, 2, 2, 2)).with_fields(tp_speedup=np.ones((2, 2, 2, 2)))
    with pytest.raises(InputError, match="tp_speedup"):
        lower_bounds(speeds)


def test_a_checked_cost_far_above_that_of_highs_is_no_error(monkeypatch: pytest.MonkeyPatch):
    """As if HiGHS's bound of a search that leaves little of the gap were too low: it is asked to leave more."""
    instances = serving_instances(5, (2, 2, 2, 2))
    best = solve_instance(instances, 0, gap=1e-6).upper
    rests = []
    real = exact._Search._solve_milp

    def lie(search, formulation, start, **options):
        rests.append(search.rest)
        bound = real(search, formulation, start, **options)
        return bound if bound is None or search.rest > exact._REST else min(bound, best * (1 - 2e-3))

    monkeypatch.setattr(exact._Search, "_solve_milp", lie)
    found = solve_instance(instances, 0, gap=1e-3)
    assert found.status.closed
    assert max(rests) == 5e-4
    assert found.lower <= best * (1 + 1e-6)
    assert found.upper >= best * (1 - 1e-6)
