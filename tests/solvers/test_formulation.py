"""The sparse MILP: its size, its relaxation, and its optimum against two other ways of finding it."""

import math

import highspy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import UNCERTAINTY_MODES
from rodiu_jax.model.status import Status
from solvers.best_plan import route
from solvers.exact import solve_instance
from solvers.formulation import build, read_plan, to_plan
from solvers.highs import run_highs
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import default_instances, random_instances, random_plan, scenarios
from tests.oracles.published import solve_published

TINY = (2, 2, 2, 2)


def rows_of(formulation):
    """A as a dense array."""
    dense = np.zeros((len(formulation.row_lower), len(formulation.cost)))
    for r in range(len(dense)):
        entries = slice(formulation.start[r], formulation.start[r + 1])
        np.add.at(dense[r], formulation.index[entries], formulation.value[entries])
    return dense


def assert_optimum(instances, b=0):
    """The solver's answer is the one that enumeration finds."""
    expected, result = cheapest(instances, b), solve_instance(instances, b)
    if math.isinf(expected):
        assert result.status == Status.INFEASIBLE, result
        return
    assert result.status == Status.OPTIMAL, result
    assert result.upper == pytest.approx(expected, rel=2e-6, abs=1e-6)
    assert result.lower <= result.upper
    assert result.lower <= expected + 1e-6 * max(expected, 1.0)


# Each row leaves the tiny scenarios in another regime; enumeration tries 81 deployments with an LP each.
REGIMES = {
    "plain": {},
    "no adversary": {"gamma_delay": 0.0, "gamma_error": 0.0},
    "small fractional budgets": {"gamma_delay": 0.3, "gamma_error": 0.7},
    "fractional budgets above one": {"gamma_delay": 1.5, "gamma_error": 2.25},
    "budgets beyond every pair": {"gamma_delay": 60.0, "gamma_error": 60.0},
    "tight money": {"budget": 45.0},
    "little room for weights": {"storage_capacity": 45.0},
    "small GPUs": {"gpu_memory": [30.0, 40.0], "kv_per_token": [0.03, 0.03]},
    "slow GPUs": {"gpu_compute": [25.0, 40.0]},
    "free of charge": {"gpu_price": [0.0, 0.0], "storage_price": 0.0},
    "nothing costs": {"gpu_price": [0.0, 0.0], "storage_price": 0.0, "delay_penalty": [0.0, 0.0]},
    "no penalty for unmet demand": {"unmet_penalty": [0.0, 0.0]},
    "thresholds that nothing meets": {"delay_threshold": [0.0, 300.0], "error_threshold": [0.1, 0.0]},
    "infeasible": {"delay_threshold": [0.0, 300.0], "unmet_cap": 0.9},
    "capped unmet demand": {"unmet_cap": 0.4, "error_threshold": [0.3, 0.3], "delay_threshold": [2e3, 2e3]},
    "all demand served": {"unmet_cap": 0.0, "error_threshold": [0.3, 0.3], "delay_threshold": [2e3, 2e3]},
    "no speed-up": {"tp_speedup": [1.0, 1.0]},
    "strong speed-up": {"tp_speedup": [1.0, 1.95], "delay_penalty": [0.02, 0.02]},
    "degrades with degree": {"tp_speedup": [1.0, 0.7]},
    "other degrees": {"tp_degree": [3, 5], "tp_speedup": [2.0, 3.1]},
}


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
@pytest.mark.parametrize("regime", REGIMES)
def test_optimum_is_that_of_enumeration(regime, mode):
    seed = list(REGIMES).index(regime)
    assert_optimum(random_instances(seed, TINY, mode=mode, **REGIMES[regime]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios(TINY))
def test_optimum_is_that_of_enumeration_for_any_scenario(instances):
    assert_optimum(instances)


@pytest.mark.parametrize("seed", range(6))
def test_optimum_with_limited_routes(seed):
    tight = {"kv_per_token": [0.02, 0.02], "gpu_compute": [60.0, 80.0], "unmet_penalty": [3.0, 3.0]}
    instances = random_instances(seed, TINY, max_routes=1 + seed % 2, **tight)
    assert_optimum(instances)


def test_limit_of_routes_costs_something():
    # Otherwise the tests above would not notice a limit that is ignored.
    tight = {"kv_per_token": [0.02, 0.02], "gpu_compute": [60.0, 80.0], "unmet_penalty": [3.0, 3.0]}
    free, limited = (
        [solve_instance(random_instances(seed, TINY, max_routes=most, **tight), 0).upper for seed in range(6)]
        for most in (0, 1)
    )
    assert sum(two > one * 1.0001 for one, two in zip(free, limited, strict=True)) >= 2
    assert all(two >= one * (1 - 2e-6) for one, two in zip(free, limited, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_optimum_with_three_models(seed):
    assert_optimum(random_instances(seed, (3, 3, 1, 3), kv_per_token=np.full(3, 0.02), gpu_compute=[90.0]))


@pytest.mark.parametrize(
    ("corrected", "seed", "changes"),
    [
        (False, 0, {}),
        (True, 1, {"tp_speedup": np.array([1.0, 1.1, 1.2, 1.3])}),
        (True, 2, {"gamma_delay": 1.5, "gamma_error": 0.5, "max_routes": 1}),
    ],
)
@pytest.mark.slow
def test_optimum_is_that_of_the_published_formulation(corrected, seed, changes):
    instances = default_instances(1, seed=seed, corrected=corrected).with_fields(**changes)
    result, published = solve_instance(instances, 0), solve_published(instances, 0)
    assert result.status == Status.OPTIMAL
    assert published.optimal
    assert result.upper == pytest.approx(published.objective, rel=3e-6)
    assert result.lower <= published.objective * (1 + 1e-6)


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
def test_published_formulation_agrees_on_tiny_scenarios(mode):
    for seed in range(3):
        instances = random_instances(seed, TINY, mode=mode, gamma_delay=0.6, gamma_error=1.2)
        assert solve_published(instances, 0).objective == pytest.approx(cheapest(instances, 0), rel=2e-6)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_relaxation_is_a_bound_for_every_plan(seed):
    instances = random_instances(seed, (2, 2, 3, 2), batch=1)
    bound = run_highs(build(instances, 0), relax=True).bound
    rng = np.random.default_rng(seed)
    for _ in range(10):
        verdict = check_plan(random_plan(rng, instances, instance=0), instances, 0)
        if verdict.feasible:
            assert bound <= verdict.costs["total_cost"] * (1 + 1e-6)


def test_size_and_shape():
    # Everything fits (small weights, ample budgets): all triples and cells are there.
    instances = random_instances(
        0, (2, 2, 3, 2), weight_memory=[1.0, 2.0], budget=1e6, gamma_delay=1.5, gamma_error=9.0
    )
    formulation = build(instances, 0)
    assert formulation.triple.shape == (12, 3)
    assert formulation.cell.shape == (24, 2)
    assert formulation.columns.share == slice(12, 36)
    assert formulation.columns.unmet == slice(36, 38)
    # w, x, u, and t and sigma of the delays; Gamma_e covers all six pairs, so the errors need none.
    assert len(formulation.cost) == 12 + 24 + 2 + 2 + 12
    assert formulation.integer.sum() == 12
    dense = rows_of(formulation)
    assert np.isfinite(dense).all()
    assert formulation.start[-1] == len(formulation.index) == np.count_nonzero(dense)
    assert np.abs(dense).max() < 10.0, "rows are scaled"


def test_triples_that_cannot_hold_their_weights_are_left_out():
    instances = random_instances(
        0, (1, 2, 2, 2), weight_memory=[40.0, 90.0], gpu_memory=[30.0, 50.0], storage_capacity=200.0,
        budget=100.0, rental_hours=10.0, gpu_price=[1.0, 6.0], storage_price=0.0,
    )  # fmt: skip
    # Model 0: 2 x GPU 0 (60 GB) and 1 x GPU 1; 2 x GPU 1 cost 120 > 100.
    # Model 1: only 2 x GPU 1 would hold it (100 GB), at 120.
    assert build(instances, 0).triple.tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("seed", range(8))
def test_plan_read_from_columns_costs_what_they_cost(seed):
    instances = random_instances(seed, (2, 2, 3, 2), kv_per_token=[0.02, 0.02], max_routes=seed % 3)
    formulation = build(instances, 0)
    answer = run_highs(formulation, mip_rel_gap=1e-6, mip_abs_gap=0.0)
    assert answer.status == highspy.HighsModelStatus.kOptimal
    plan = to_plan(instances, 0, formulation, answer.columns)
    deployed, routed, _ = read_plan(formulation, answer.columns)
    assert len(deployed) == len(plan.deployments)
    assert int(routed.sum()) == len(plan.routes)
    assert check_plan(plan, instances, 0).costs["total_cost"] == pytest.approx(answer.objective, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_routing_of_fixed_deployments(seed):
    # With the optimum's own deployments the routing LP finds the optimum; with others nothing cheaper.
    instances = random_instances(seed, (2, 2, 3, 2))
    result = solve_instance(instances, 0)
    formulation = build(instances, 0)
    names = [
        (instances.model_names[j], instances.gpu_names[k], int(instances.one(0).tp_degree[n]))
        for j, k, n in formulation.triple
    ]
    chosen = [names.index((d.model, d.gpu, d.tp)) for d in result.plan.deployments]
    again = route(instances, 0, formulation.triple[chosen])
    assert check_plan(again, instances, 0).costs["total_cost"] == pytest.approx(result.upper, rel=1e-7)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        other = formulation.triple[[int(rng.integers(len(formulation.triple)))]]
        verdict = check_plan(route(instances, 0, other), instances, 0)
        assert verdict.feasible
        assert verdict.costs["total_cost"] >= result.lower * (1 - 1e-9)


def test_routing_that_cannot_serve_enough():
    instances = random_instances(0, (1, 1, 1, 1), unmet_cap=0.5, error_threshold=[0.0])
    assert route(instances, 0, np.array([[0, 0, 0]])) is None
    nothing = np.zeros((0, 3), dtype=int)
    assert route(instances, 0, nothing) is None
    uncapped = route(instances.with_fields(unmet_cap=1.0), 0, nothing)
    assert (uncapped.deployments, uncapped.unmet) == ((), {"q0": 1.0})


def test_least_excess_over_the_cap():
    # With errors that forbid any service, each of two types exceeds a cap of 0.3 by 0.7.
    hopeless = random_instances(0, (2, 1, 1, 1), unmet_cap=0.3, error_threshold=[0.0, 0.0])
    answer = run_highs(build(hopeless, 0, measure_excess=True))
    assert answer.objective == pytest.approx(1.4, abs=1e-6)
    easy = random_instances(0, (2, 1, 1, 1), unmet_cap=1.0)
    assert run_highs(build(easy, 0, measure_excess=True)).objective == pytest.approx(0.0, abs=1e-9)
