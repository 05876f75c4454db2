"""The independent checker: a hand-worked plan, each constraint broken alone, tolerance, names."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.model.check import check_columns, check_plan
from rodiu_jax.model.instance import make_instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.plan_columns import columns_from_plan
from rodiu_jax.model.slots import EMPTY
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.model.verdict import COSTS, FAMILIES
from solvers.answers import Answer, Answers
from tests.oracles.instances import random_instances, random_plan, reordered, worked_example


def test_worked_by_hand():
    instances, plan, costs, margins = worked_example()
    verdict = check_plan(plan, instances, 0)
    assert verdict.feasible
    assert verdict.binding == "delay[q0]"
    assert tuple(verdict.costs) == COSTS
    assert tuple(verdict.margins) == FAMILIES
    assert verdict.costs == pytest.approx(costs, rel=1e-13)
    assert verdict.margins == pytest.approx(margins, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
@pytest.mark.parametrize("shared", [False, True], ids=["each its own fields", "fields shared"])
def test_columns_are_each_plan_in_its_scenario(mode, shared):
    rng = np.random.default_rng(3)
    limits, gammas = np.where(np.arange(20) % 2, 2, 0), rng.uniform(0, 4, 20)
    instances = random_instances(3, (3, 4, 5, 3), batch=20, mode=mode, max_routes=limits, gamma_delay=gammas)
    if shared:
        one = instances.one(4)._asdict() | {"budget": rng.uniform(60, 250, 20)}
        instances = make_instances(*instances.names[:3], mode, one)
    scenario = rng.integers(0, 20, 200)
    plans = [random_plan(rng, instances, instance=None, slip=0.1 * (p % 2)) for p in range(200)]
    columns = [columns_from_plan(instances.names, plan) for plan in plans]
    answers = Answers.stack(
        [Answer.of(instances.names, Status.FEASIBLE, plan=p) for p in plans], names=instances.names
    )
    assert len({len(c[0]) for c in columns}) > 1
    found = check_columns(instances, answers.slots, answers.shares, answers.unmet, scenario=scenario)
    for r, (plan, b) in enumerate(zip(plans, scenario.tolist(), strict=True)):
        verdict = check_plan(plan, instances, b)
        assert found.feasible[r] == verdict.feasible
        assert dict(zip(COSTS, found.costs[r], strict=True)) == pytest.approx(verdict.costs, rel=1e-12)
        margins = dict(zip(FAMILIES, found.margins[r], strict=True))
        assert margins == pytest.approx(verdict.margins, rel=1e-9, abs=1e-12)
    assert 0 < found.feasible.sum() < 200
    first = check_columns(instances, answers.slots[:20], answers.shares[:20], answers.unmet[:20])
    again = check_columns(
        instances, answers.slots[:20], answers.shares[:20], answers.unmet[:20], scenario=np.arange(20)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_columns_that_are_no_plan_are_refused():
    instances, plan, costs, _ = worked_example()
    slots, shares, unmet, _ = (a[None] for a in columns_from_plan(instances.names, plan))
    two = np.concatenate([slots, np.full_like(slots, EMPTY)], axis=1)
    idle = np.concatenate([shares, np.zeros_like(shares)], axis=2)

    def feasible(slots, shares, unmet):
        return bool(check_columns(instances, slots, shares, unmet).feasible[0])

    assert feasible(two, idle, unmet)
    assert check_columns(instances, two, idle, unmet).costs[0, 0] == pytest.approx(
        costs["total_cost"], rel=1e-13
    )
    assert not feasible(np.repeat(slots, 2, axis=1), idle, unmet), "a pair deployed twice"
    assert not feasible(two, idle[:, :, ::-1], unmet), "a route to an empty slot"
    assert not feasible(slots, shares * math.nan, unmet)
    assert not feasible(slots, shares, unmet * math.nan)
    assert not feasible(slots, -shares, unmet + 2 * shares.sum(2)), "a share below 0"


# Each change breaks one constraint of the worked example and no other.
@pytest.mark.parametrize(
    ("change", "binding"),
    [
        ({"unmet_cap": 0.1}, "unmet[q0]"),
        ({"gpu_memory": [13.9]}, "memory[m0,g0]"),
        ({"gpu_compute": [19.9]}, "compute[m0,g0]"),
        ({"storage_capacity": 19.0}, "storage"),
        ({"budget": 33.5}, "budget"),
        ({"delay_threshold": [296.0]}, "delay[q0]"),
        ({"error_threshold": [0.13]}, "error[q0]"),
    ],
)
def test_each_constraint_is_named_when_broken(change, binding):
    instances, plan, _, _ = worked_example()
    verdict = check_plan(plan, instances.with_fields(**change), 0)
    assert not verdict.feasible
    assert verdict.binding == binding
    assert [n for n in FAMILIES if verdict.margins[n] < -MARGIN_TOLERANCE] == [binding.split("[")[0]]


def test_shares_that_do_not_sum_to_one():
    instances, plan, _, _ = worked_example()
    verdict = check_plan(replace(plan, unmet={"q0": 0.1}), instances, 0)
    assert not verdict.feasible
    assert verdict.binding == "demand[q0]"
    assert verdict.margins["demand"] == pytest.approx(-0.1)


def test_routes_are_counted_where_a_share_is_positive():
    instances = random_instances(0, (1, 1, 3, 1), max_routes=1)
    pairs = tuple(DeployedPair("m0", f"g{k}", 1) for k in range(3))
    shares = (0.4, 0.6, 0.0)
    routes = tuple(Route("q0", "m0", d.gpu, s) for d, s in zip(pairs, shares, strict=True))
    plan = Plan(0, pairs, routes, {})
    assert check_plan(plan, instances, 0).margins["routes"] == -1.0
    assert check_plan(plan, instances.with_fields(max_routes=2), 0).margins["routes"] == 0.0
    assert check_plan(plan, instances.with_fields(max_routes=0), 0).margins["routes"] == math.inf


@pytest.mark.parametrize(("over", "feasible"), [(0.9e-6, True), (1.1e-6, False)])
def test_tolerance_is_relative_to_the_limit(over, feasible):
    instances, plan, _, _ = worked_example()
    spent = 12 + 21.6
    assert check_plan(plan, instances.with_fields(budget=spent / (1 + over)), 0).feasible == feasible
    shifted = replace(plan, unmet={"q0": 0.2 + over})
    assert check_plan(shifted, instances, 0).feasible == feasible


def test_limits_of_zero_are_scaled_by_one():
    instances, plan, _, _ = worked_example()
    zero = {
        "budget": 0.0,
        "storage_capacity": 0.0,
        "gpu_memory": [0.0],
        "gpu_compute": [0.0],
        "unmet_cap": 0.0,
    }
    zero |= {"delay_threshold": [0.0], "error_threshold": [0.0]}
    margins = check_plan(plan, instances.with_fields(**zero), 0).margins
    used = {
        "unmet": 0.2,
        "memory": 14.0,
        "compute": 40.0,
        "storage": 20.0,
        "budget": 33.6,
        "delay": 237.5,
        "error": 0.112,
    }
    assert {n: -margins[n] for n in used} == pytest.approx(used)


@pytest.mark.parametrize("share", [-0.1, math.nan])
def test_shares_that_are_no_shares(share):
    instances, plan, _, _ = worked_example()
    (route,) = plan.routes
    other = 1.0 if math.isnan(share) else 1.0 - share
    for bad in (
        replace(plan, routes=(replace(route, share=share),), unmet={"q0": other}),
        replace(plan, routes=(replace(route, share=other),), unmet={"q0": share}),
    ):
        assert not check_plan(bad, instances, 0).feasible


def test_nothing_deployed():
    instances, _, _, _ = worked_example()
    verdict = check_plan(Plan(0, (), (), {"q0": 1.0}), instances, 0)
    assert verdict.feasible
    assert verdict.costs == {**dict.fromkeys(COSTS, 0.0), "unmet_cost": 140.0, "total_cost": 140.0}
    assert (verdict.margins["memory"], verdict.margins["compute"]) == (math.inf, math.inf)


def test_modes_order_the_delay():
    # Nominal 200 ms; the adversary adds 0.5 of 100 ms (diu), of 75 ms (ddu: 25 % removed), nothing (none).
    instances, plan, _, _ = worked_example()
    per_ms = 2 * 0.01 * 10
    for mode, delay in (("none", 200.0), ("ddu", 237.5), ("diu", 250.0)):
        verdict = check_plan(plan, instances.with_uncertainty(mode), 0)
        assert verdict.costs["delay_cost"] == pytest.approx(per_ms * delay)


@pytest.mark.parametrize("seed", range(5))
def test_order_of_names_is_irrelevant(seed):
    rng = np.random.default_rng(seed)
    instances = random_instances(seed, (2, 2, 3, 2), max_routes=2)
    plan = random_plan(rng, instances, instance=0)
    other = reordered(instances, ([1, 0], [1, 0], [2, 0, 1]))
    moved = replace(plan, deployments=plan.deployments[::-1], routes=plan.routes[::-1])
    first, second = check_plan(plan, instances, 0), check_plan(moved, other, 0)
    assert second.costs == pytest.approx(first.costs, rel=1e-12)
    assert second.margins == pytest.approx(first.margins, rel=1e-11)
    assert first.feasible == second.feasible
