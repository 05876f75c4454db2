"""Recourse against HiGHS and an LP written from the model alone; statuses, independence of rows, honest bounds."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment
from rodiu_jax.model.plan_columns import deployment_from_slots
from rodiu_jax.runtime.block_sizes import BlockSize
from solvers import recourse as module
from solvers.recourse import recourse, recourse_plans
from solvers.recourse_brackets import Reason, Recourse, write_rows
from tests.oracles.enumeration import cheapest_routing
from tests.oracles.instances import default_instances, random_instances
from tests.oracles.routing import deployment_positions, highs_routing_cost, random_deployments

SMALL = (2, 2, 3, 2)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(module, "block_size", lambda _: BlockSize(16, 16))
    monkeypatch.setattr(module, "_DEPLOYMENTS", 8)


def optima(instances: Instances, deployments: list[Deployment]) -> np.ndarray:
    return np.array(
        [
            [
                highs_routing_cost(instances, b, deployment_positions(instances, d))
                for b in range(instances.size)
            ]
            for d in deployments
        ]
    )


def assert_brackets(found: Recourse, best: np.ndarray, gap: float = 1e-3) -> None:
    """Bounds hold the optimum between them, close, and infeasible is said exactly where it is true."""
    known = np.isfinite(best)
    slack = 1e-6 * np.maximum(np.abs(np.where(known, best, 0.0)), 1.0)
    assert (found.lower <= np.where(known, best + slack, math.inf)).all()
    assert (found.upper >= np.where(known, best - slack, math.inf)).all()
    np.testing.assert_array_equal(found.reason == Reason.FEASIBLE, known)
    assert (found.lower[known] >= found.upper[known] - gap * np.abs(found.upper[known]) - 1e-9).all()
    proven = (found.reason >= Reason.MEMORY) & (found.reason <= Reason.UNMET)
    assert (proven | known).all()
    assert (found.lower[proven] == math.inf).all()
    assert (found.upper[proven] == math.inf).all()


def mixed(seed: int) -> Instances:
    """Scenarios of every kind at once: any adversary, caps of unmet shares, promises out of reach, nothing to lose."""
    instances = random_instances(seed, SMALL, batch=24, unmet_cap=[1.0, 1.0, 0.95, 0.8, 0.4, 0.0] * 4)
    f = instances.fields
    kind = np.arange(24)
    return instances.with_fields(
        gamma_delay=np.choose(kind % 4, [f.gamma_delay, np.full(24, 6.0), np.ones(24), np.zeros(24)]),
        gamma_error=np.choose(kind % 3, [f.gamma_error, np.full(24, 6.0), np.full(24, 0.5)]),
        gpu_memory=np.where((kind % 2 == 0)[:, None], 150.0, f.gpu_memory),
        delay_threshold=np.where((kind % 8 == 1)[:, None], 0.0, f.delay_threshold),
        unmet_penalty=np.where((kind == 7)[:, None], 0.0, f.unmet_penalty),
    )


@pytest.mark.slow
def test_brackets_close_on_what_highs_finds():
    instances = mixed(31)
    deployments = random_deployments(1, instances, 8)
    best = optima(instances, deployments)
    found = recourse(instances, deployments)
    assert_brackets(found, best)
    assert np.isfinite(best).sum() > 40
    assert (found.reason == Reason.UNMET).sum() > 40


def test_against_a_program_written_from_the_model():
    instances = mixed(32).take(range(6))
    deployments = random_deployments(2, instances, 6)
    found = recourse(instances, deployments)
    best = np.full(found.lower.shape, math.inf)
    for q, deployment in enumerate(deployments):
        named = [(*at, 1) for at in deployment_positions(instances, deployment)]
        for b in range(6):
            best[q, b] = cheapest_routing(instances, b, named, math.inf)
    assert_brackets(found, best)


@pytest.mark.slow
def test_default_scenarios(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_ITERATIONS", 30)
    instances = default_instances(8, seed=3)
    deployments = random_deployments(3, instances, 8)
    found = recourse(instances, deployments)
    assert_brackets(found, optima(instances, deployments))


def test_reasons():
    instances = (
        mixed(33)
        .take([6] * 4)
        .with_fields(
            unmet_cap=np.array([1.0, 1.0, 1.0, 0.0]),
            weight_memory=np.full((4, 2), 30.0),
            gpu_memory=np.array([[40.0] * 3, [20.0] * 3, [40.0] * 3, [40.0] * 3]),
            storage_capacity=np.array([70.0, 70.0, 50.0, 70.0]),
            gpu_price=np.full((4, 3), 1.0),
            rental_hours=np.full(4, 12.0),
            budget=np.array([100.0, 100.0, 20.0, 100.0]),
            error_threshold=np.array([[1.0, 1.0]] * 3 + [[0.0, 0.0]]),
        )
    )
    one, two = DeployedPair("m0", "g0", 1), DeployedPair("m0", "g0", 2)
    other = DeployedPair("m1", "g0", 1)
    found = recourse(instances, [(one,), (two,), (one, other), ()])
    expected = [
        ["", "memory", "", "unmet"],
        ["", "", "budget", "unmet"],
        ["", "memory", "storage", "unmet"],
        ["", "", "", "unmet"],
    ]
    assert [[Reason(r).word for r in row] for row in found.reason] == expected


@pytest.mark.slow
def test_route_limits_hold_and_bounds_stay_valid():
    instances = mixed(34).with_fields(max_routes=[1, 2, 0] * 8)
    deployments = random_deployments(4, instances, 6)
    best = optima(instances, deployments)
    found = recourse(instances, deployments)
    known = np.isfinite(best)
    assert (found.lower <= best * (1 + 1e-6)).all()
    assert (found.upper >= best * (1 - 1e-6)).all()
    assert not (found.reason == Reason.FEASIBLE)[~known].any()
    limited = known & (instances.fields.max_routes > 0)
    assert limited.sum() > 40
    assert (found.upper[limited] <= best[limited] * (1 + 1e-6)).mean() > 0.9
    assert (found.reason[:, instances.fields.max_routes == 0] != Reason.UNKNOWN).all()
    for plans in recourse_plans(instances, deployments[:2])[1]:
        for b, plan in enumerate(plans):
            limit = int(instances.one(b).max_routes)
            routes = [] if plan is None else [r.query for r in plan.routes]
            assert limit == 0 or all(routes.count(q) <= limit for q in instances.query_names)


def test_plans_are_what_the_bounds_say():
    instances = mixed(35)
    deployments = random_deployments(5, instances, 4)
    found, plans, verdicts = recourse_plans(instances, deployments)
    for q, deployment in enumerate(deployments):
        assert len(plans[q]) == len(verdicts[q]) == instances.size
        for b, (plan, verdict) in enumerate(zip(plans[q], verdicts[q], strict=True)):
            if plan is None:
                assert verdict is None
                assert found.upper[q, b] == math.inf
                continue
            assert set(plan.deployments) == set(deployment), "idle pairs are rented too"
            assert verdict == check_plan(plan, instances, b)
            assert verdict.feasible
            assert found.upper[q, b] == verdict.costs["total_cost"] >= found.lower[q, b]
            assert found.reason[q, b] == Reason.FEASIBLE


def test_bounds_hold_however_little_is_spent(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_ITERATIONS", 2)
    instances = mixed(36)
    deployments = random_deployments(6, instances, 8)
    best = optima(instances, deployments)
    found = recourse(instances, deployments, gap=10.0)
    assert np.isfinite(best).sum() > 40
    assert (found.lower <= best * (1 + 1e-6)).all()
    assert (found.upper >= best * (1 - 1e-6)).all()
    assert (found.upper > best * 1.01).any(), "so little that it shows"


def test_rows_are_their_own_and_nothing_recompiles():
    instances = mixed(37)
    deployments = random_deployments(7, instances, 8)
    whole = recourse(instances, deployments)
    compiled = module._cross.__wrapped__._cache_size(), module._solve_again.__wrapped__._cache_size()
    some, few = [7, 2, 11], [5, 1]
    part = recourse(instances.take(some), [deployments[q] for q in few])
    assert (
        module._cross.__wrapped__._cache_size(),
        module._solve_again.__wrapped__._cache_size(),
    ) == compiled
    for mine, all_of in zip(part, whole, strict=True):
        np.testing.assert_array_equal(mine, all_of[np.ix_(few, some)])


def test_scenario_that_is_not_a_number_is_an_error_and_its_neighbours_are_unchanged():
    instances = mixed(38).take(range(5))
    deployments = [d for d in random_deployments(8, instances, 12) if d][:4]
    clean = recourse(instances, deployments)
    for name in ("gpu_price", "delay_nominal", "budget"):
        values = np.array(getattr(instances.fields, name))
        values[2] = math.nan
        found = recourse(replace(instances, fields=instances.fields._replace(**{name: values})), deployments)
        assert (found.reason[:, 2] == Reason.ERROR).all()
        assert (found.lower[:, 2] == -math.inf).all()
        assert (found.upper[:, 2] == math.inf).all()
        others = [0, 1, 3, 4]
        for mine, its in zip(found, clean, strict=True):
            np.testing.assert_array_equal(mine[:, others], its[:, others])


def test_slots_and_names():
    instances = random_instances(39, SMALL)
    deployment = (DeployedPair("m1", "g2", 2), DeployedPair("m0", "g1", 1))
    slots = write_rows(instances, [deployment, ()]).slots
    assert slots.shape == (2, 4)
    assert set(deployment_from_slots(instances.names, slots[0])) == set(deployment)
    assert deployment_from_slots(instances.names, slots[1]) == ()
    for wrong in (
        (DeployedPair("m9", "g0", 1),),
        (DeployedPair("m0", "g0", 3),),
        (DeployedPair("m0", "g0", 1), DeployedPair("m0", "g0", 2)),
    ):
        with pytest.raises(InputError, match="deployment 1"):
            recourse(instances, [(), wrong])
