"""Replicas, rates and quotas in the batched solvers: options, their dual function, plans and brackets."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest

from rodiu_jax.certificates import load_certificates, tabulate_leaves, verify_rows, write_certificates
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from solvers.bracket import brackets
from solvers.dual import Ascent, Multipliers, derive_coefficients, evaluate_dual
from solvers.effort import Effort
from solvers.exact import solve_instance
from solvers.options import RANGES, count_replicas, list_options
from tests.oracles.enumeration import cheapest
from tests.oracles.serving import serving_instances, stack

SHAPE = (3, 2, 2, 2)
QUICK = Effort(
    root=Ascent(steps=100, pairs=4),
    node=Ascent(steps=60, rate=0.05, warm=0.002, pairs=4),
    tree_rounds=6,
    rounds=4,
)
COLD = replace(QUICK, rounds=0)
"""Plans as the dual says them, no search among neighbours: half of what the others compile."""

MODES = ("none", "diu", "ddu")
SHARED = ("d", "d")


def _above(bound: float, optimum: float) -> bool:
    return bound > optimum + 1e-7 * max(abs(optimum), 1.0)


def test_ranges_hold_every_number_of_replicas_once():
    assert RANGES[0][0] == 1
    assert all(fewest <= largest for fewest, largest in RANGES)
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(RANGES))


def test_options_go_back_to_triples():
    instances = serving_instances(3, SHAPE)
    options = list_options(instances)
    assert options is not None
    expanded = options.expand(instances)
    assert expanded.shape[3] == SHAPE[3] * len(RANGES)
    slots = np.array([[0, len(options.degree) * 2 + 5, -1]], np.int32)
    found = options.triples(slots)[0].tolist()
    assert found == [0 * 2 + options.degree[0], 2 * 2 + options.degree[5], -1]
    marked = np.zeros((1, *expanded.shape[1:]), bool)
    marked[0, 1, 1, 7] = True
    assert np.argwhere(options.of_degrees(marked)).tolist() == [[0, 1, 1, options.degree[7]]]


def _random_multipliers(rng: np.random.Generator, c, scale: float) -> Multipliers:
    """Wild multipliers, signs and adversaries wrong as often as right."""
    types, pairs, options = c.most.shape

    def draw(*shape: int) -> np.ndarray:
        return scale * rng.choice([0.0, 0.1, 1.0, 10.0], shape) * rng.uniform(-0.3, 1.0, shape)

    return Multipliers(
        demand=draw(types) * 30,
        delay=draw(types) * 0.1,
        error=draw(types) * 10,
        budget=draw() * 0.1,
        storage=draw() * 0.01,
        memory=draw(pairs, options) * 0.1,
        compute=draw(pairs, options) * 0.01,
        delay_adversary=rng.uniform(-0.5, 2.0, (types, pairs)),
        error_adversary=rng.uniform(-0.5, 2.0, (types, pairs)),
        throughput=draw(pairs, options) * 10,
        load_adversary=rng.uniform(-0.5, 2.0, (pairs, options, types)),
        quota=draw(len(c.quotas.quota)),
    )


@pytest.mark.parametrize("mode", MODES)
def test_any_multipliers_give_a_bound_with_fleets(mode):
    rng = np.random.default_rng(5)
    near = 0
    for seed in range(4):
        instances = serving_instances(seed, (2, 2, 2, 2), mode=mode, devices=("d", "d") if seed % 2 else None)
        optimum = cheapest(instances, 0)
        options = list_options(instances)
        assert options is not None
        c = derive_coefficients(options.expand(instances).one(0), mode, serving=True)
        for scale in np.repeat([0.3, 1.0, 3.0], 30):
            bound = float(evaluate_dual(c, _random_multipliers(rng, c, scale)).bound)
            assert np.isfinite(bound)
            assert not _above(bound, optimum)
            near += bound > 0.2 * optimum
    assert near > 5, "not all of them are hopeless"


@pytest.fixture(scope="module")
def fleets():
    """Sixteen scenarios, their optima by enumeration of fleets, and brackets of all of them in one batch."""
    cases = []
    for seed in range(16):
        gamma = (0.0, 0.7, 1.0, 2.5)[seed % 4]
        cases.append(serving_instances(seed + 40, SHAPE, devices=SHARED, gamma_throughput=gamma))
    instances = stack(cases)
    optima = np.array([cheapest(case, 0) for case in cases])
    return instances, optima, brackets(instances, gap=0.01, effort=COLD, certificates=True)


@pytest.mark.slow
def test_brackets_hold_the_optima_of_fleets(fleets):
    instances, optima, found = fleets
    assert not found.is_any(Status.ERROR).any()
    assert (found.lower <= optima * (1.0 + 1e-7)).all()
    assert (found.upper >= optima * (1.0 - 1e-6)).all()
    assert found.replicas is not None
    assert (found.replicas > 1).any(), "some plan has several replicas of a pair"
    assert float(np.mean(1.0 - found.lower / optima)) < 0.1
    for b in range(instances.size):
        plan = found.plans()[b]
        verdict = check_plan(plan, instances, b)
        assert verdict.feasible
        np.testing.assert_allclose(verdict.costs["total_cost"], found.upper[b], rtol=1e-9)


@pytest.mark.slow
def test_what_is_proven_of_fleets_is_verified(fleets, tmp_path):
    instances, optima, found = fleets
    plans = dict(enumerate(found.plans()))
    write_certificates(tmp_path / "c.parquet", tabulate_leaves(found.leaves, plans, instances))
    table = pd.DataFrame(
        {"instance": np.arange(len(found)), "lower_bound": found.lower, "upper_bound": found.upper}
    )
    verified = verify_rows(table, load_certificates(tmp_path / "c.parquet", instances), instances)
    assert verified["ok"].all(), verified.to_string()
    assert (verified["lower_by"] == "certificate").all()
    higher = table.assign(lower_bound=np.minimum(found.lower * 1.01, found.upper))
    claimed = higher["lower_bound"] > found.lower * 1.001
    assert claimed.any()
    again = verify_rows(higher, load_certificates(tmp_path / "c.parquet", instances), instances)
    assert not again["ok"][claimed & (again["lower_recomputed"] < 0.999 * higher["lower_bound"])].any()
    assert (verified["lower_recomputed"] <= optima * (1.0 + 1e-7)).all()


@pytest.mark.slow
def test_plans_have_no_replica_more_than_their_load_needs(fleets):
    instances, _, found = fleets
    again = count_replicas(instances, found.slots, found.shares)
    np.testing.assert_array_equal(again[found.slots >= 0], found.replicas[found.slots >= 0])
    fewer = 0
    for b in range(instances.size):
        plan = found.plans()[b]
        for place, deployment in enumerate(plan.deployments):
            if deployment.replicas > 1:
                less = list(plan.deployments)
                less[place] = replace(deployment, replicas=deployment.replicas - 1)
                assert not check_plan(replace(plan, deployments=tuple(less)), instances, b).feasible
                fewer += 1
    assert fewer


@pytest.mark.slow
def test_what_is_promising_holds_the_optimal_fleet(fleets):
    instances, optima, found = fleets
    assert found.promising.shape == (instances.size, *SHAPE[1:])
    for b in range(instances.size):
        if found.upper[b] <= optima[b] * (
            1.0 + 1e-9
        ):  # the plan is optimal: each of its triples is promising
            slots = found.slots[b][found.slots[b] >= 0]
            assert found.promising[b].reshape(-1)[slots].all()


@pytest.mark.slow
def test_a_fleet_is_the_same_whatever_its_neighbours(fleets):
    instances, _, found = fleets
    rows = np.array([9, 2, 14])
    again = brackets(instances.take(rows), gap=0.01, effort=COLD)
    np.testing.assert_array_equal(again.lower, found.lower[rows])
    np.testing.assert_array_equal(again.upper, found.upper[rows])


def _optimal_plan(instances: Instances) -> Plan:
    plan = solve_instance(instances, 0).plan_for(0)
    assert plan is not None
    return plan


@pytest.mark.parametrize("seed", range(6))
def test_a_fleet_that_costs_the_whole_budget_is_not_cut_off(seed):
    """Products of prices and replicas round; whoever has a budget of just what a fleet costs can rent it."""
    instances = serving_instances(seed, SHAPE, devices=SHARED, unmet_penalty=50.0 * np.ones(SHAPE[0]))
    plan = _optimal_plan(instances)
    verdict = check_plan(plan, instances, 0)
    budget = verdict.costs["rental_cost"] + verdict.costs["storage_cost"]
    exact = instances.with_fields(budget=budget)
    options = list_options(exact)
    assert options is not None
    c = derive_coefficients(options.expand(exact).one(0), exact.uncertainty, serving=True)
    for deployment in plan.deployments:
        pair = exact.model_names.index(deployment.model) * SHAPE[2] + exact.gpu_names.index(deployment.gpu)
        degree = exact.names.degrees.index(deployment.tp)
        here = (options.degree == degree) & (options.fewest <= deployment.replicas)
        here &= deployment.replicas <= options.largest
        assert c.fits[pair, here].all()


def test_one_device_with_a_quota_and_one_without():
    """The price of a quota that does not exist must not climb: the bound would be valid, and useless."""
    cases = [serving_instances(seed, SHAPE, gpu_quota=np.array([3.0, np.inf])) for seed in range(16)]
    optima = np.array([cheapest(case, 0) for case in cases])
    found = brackets(stack(cases), gap=0.01, effort=COLD)
    assert (found.lower <= optima * (1.0 + 1e-7)).all()
    assert (found.upper >= optima * (1.0 - 1e-6)).all()
    assert float(np.mean(1.0 - found.lower / optima)) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "left_out",
    [("throughput", "throughput_shortfall", "gpu_quota"), ("max_replicas",)],
    ids=["replicas alone", "rates and quotas"],
)
def test_each_part_of_the_serving_model_alone(left_out):
    defaults = {"max_replicas": 1, "throughput": np.inf, "throughput_shortfall": 0.0, "gpu_quota": np.inf}
    change = {field: defaults[field] for field in left_out}
    cases = [serving_instances(seed + 7, SHAPE, **change) for seed in range(8)]
    optima = np.array([cheapest(case, 0) for case in cases])
    found = brackets(stack(cases), gap=0.01, effort=replace(QUICK, tree_rounds=0, rounds=0))
    assert not found.is_any(Status.ERROR).any()
    assert (found.lower <= optima * (1.0 + 1e-7)).all()
    assert (found.lower > 0.5 * optima).any()
    assert (found.upper >= optima * (1.0 - 1e-6)).all()


@pytest.mark.slow
def test_limits_of_routes_count_in_fleets():
    cases = [serving_instances(seed + 3, SHAPE, max_routes=1 + seed % 2) for seed in range(8)]
    optima = np.array([cheapest(case, 0) for case in cases])
    found = brackets(stack(cases), gap=0.01, effort=COLD)
    assert (found.lower <= optima * (1.0 + 1e-7)).all()
    assert (found.upper >= optima * (1.0 - 1e-6)).all()
    routed = (found.shares > 0).sum(2)
    assert (routed <= np.array([1 + seed % 2 for seed in range(8)])[:, None]).all()


@pytest.mark.slow
def test_the_search_finds_good_fleets(fleets):
    instances, optima, cold = fleets
    found = brackets(instances, gap=0.01, effort=QUICK)
    assert (found.upper >= optima * (1.0 - 1e-6)).all()
    assert (found.upper <= cold.upper * (1.0 + 1e-9)).mean() > 0.8
    assert float(np.mean(found.gap)) < 0.1, "with a quarter of the usual rounds"


@pytest.mark.slow
def test_fleets_that_cannot_serve_everyone_are_never_proven_wrong():
    cases = [serving_instances(seed, SHAPE, unmet_cap=0.0) for seed in range(16)]
    optima = np.array([cheapest(case, 0) for case in cases])
    found = brackets(stack(cases), gap=0.01, effort=QUICK)
    impossible = ~np.isfinite(optima)
    assert impossible.any()
    assert (~impossible).any()
    assert not (found.is_any(Status.INFEASIBLE) & ~impossible).any()
    assert not (np.isfinite(found.upper) & impossible).any()
    assert (found.lower[~impossible] <= optima[~impossible] * (1.0 + 1e-7)).all()


def test_nothing_compiles_for_scenarios_without_fleets():
    """Coefficients of plain scenarios hold nothing of the serving model, so that their programs are as before."""
    from rodiu_jax.catalog.sampling import sample

    plain = sample("seed", n=1, seed=0)
    c = derive_coefficients(plain.one(0), plain.uncertainty, serving=True)
    assert all(getattr(c, n) is None for n in ("rates", "options", "quotas"))
    assert len(jax.tree.leaves(c)) == len([v for v in c if v is not None])
