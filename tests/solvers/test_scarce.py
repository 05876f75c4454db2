"""Brackets where capacity or budget is scarce: far-reaching ascents, plans of many pairs, trees that know a budget."""

from dataclasses import replace

import numpy as np
import pytest

from bench.families import large
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.certificates import load_certificates, verify_rows
from rodiu_jax.model.changes import Change, apply_changes
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import UNCERTAINTY_MODES
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from solvers import bracket as module
from solvers._accelerators import Accelerators
from solvers.bracket import brackets
from solvers.dual import (
    FEASIBILITY_WEIGHT,
    Ascent,
    Multipliers,
    certify,
    count_rent_alone,
    derive_coefficients,
    exclude_unaffordable,
    lengthen_ray,
    lower_bounds,
)
from solvers.dual.function import shorten_ray
from solvers.effort import USUAL, Effort
from solvers.exact import _solve_with, solve_instance
from solvers.feasibility import FeasibilityTask, find_any_plan
from solvers.pool import solve
from solvers.terms import collect
from tests.certificates.test_certificates import claims, save_certificates
from tests.oracles.bounds import above, relaxed_optimum
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import random_instances

SMALL = (2, 2, 3, 2)
FAR = Ascent(steps=400, warm=0.1, pairs=64, far=True)
CHUNK = 16
assert USUAL.harder is not None
HARD = replace(USUAL.harder, search=USUAL.harder.search._replace(slots=6), chunk=CHUNK)


def scarce(seed: int, mode: str) -> Instances:
    """Tiny scenarios whose budget buys one or two pairs, some of whom must serve at least half of all."""
    instances = random_instances(seed, SMALL, batch=CHUNK, mode=mode)
    f = instances.fields
    cheapest_rent = (f.rental_hours[:, None] * f.gpu_price).min(1)
    rng = np.random.default_rng(seed)
    return instances.with_fields(
        budget=cheapest_rent * rng.uniform(1.0, 4.0, CHUNK),
        arrival_rate=f.arrival_rate * rng.choice([1.0, 20.0], CHUNK)[:, None],
        unmet_cap=rng.choice([1.0, 0.9, 0.5], CHUNK),
        max_routes=np.zeros(CHUNK, np.int64),
    )


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
def test_bounds_are_below_enumerated_optima_and_near_those_of_the_relaxation(mode: str):
    instances = scarce(3, mode)
    optima = np.array([cheapest(instances, b) for b in range(CHUNK)])
    lower = lower_bounds(instances, ascent=FAR, chunk=CHUNK).lower
    assert not above(lower, optima).any()
    relaxed = np.array([relaxed_optimum(instances, b) for b in range(CHUNK)])
    known = np.isfinite(relaxed)
    assert known.sum() >= CHUNK // 2
    assert np.median((1 - lower / relaxed)[known]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
def test_trees_close_on_the_optimum_and_are_verified(mode: str, tmp_path):
    instances = scarce(4, mode)
    optima = np.array([_solve_with(Accelerators.none(), instances, b).upper for b in range(CHUNK)])
    found = brackets(instances, gap=1e-3, effort=HARD, certificates=True)
    assert not above(found.lower, optima).any()
    known = np.isfinite(optima)
    assert found.has_plan[known].all(), "a plan where one exists"
    assert (found.upper[known] >= optima[known] * (1 - 1e-6)).all()
    assert np.median(found.gap[known]) < 2e-3
    assert (found.nodes > 1).any()
    assert found.is_any(Status.INFEASIBLE).sum() >= 0.9 * (~known).sum() > 0, "told with a certificate"
    for b in np.flatnonzero(found.has_plan).tolist():
        assert check_plan(found[b].plan, instances, b).feasible
    save_certificates(tmp_path / "c.parquet", found, instances)
    result = verify_rows(claims(found), load_certificates(tmp_path / "c.parquet", instances), instances)
    assert result["ok"].all(), result.to_string()


@pytest.mark.slow
def test_pairs_that_take_from_a_bound_are_iterated_next(monkeypatch: pytest.MonkeyPatch):
    instances = scarce(8, "ddu")
    narrow = replace(HARD, root=replace(HARD.root, pairs=2), node=replace(HARD.node, pairs=2), tree_rounds=0)
    more = brackets(instances, gap=1e-3, effort=narrow, certificates=True)
    monkeypatch.setattr(module, "_ROUNDS", 1)
    once = brackets(instances, gap=1e-3, effort=narrow)
    optima = np.array([solve_instance(instances, b, gap=1e-6).upper for b in range(CHUNK)])
    assert (more.lower >= once.lower).all()
    assert (more.lower > once.lower + 1e-3 * np.abs(once.lower)).any()
    assert not above(more.lower, optima).any()


def test_what_a_node_leaves_unaffordable_is_excluded():
    instances = random_instances(1, SMALL, batch=1, max_routes=[0], storage_capacity=[1e9])
    c = derive_coefficients(instances.one(0), "diu")
    at = np.argwhere(c.fits)[0]
    decided = np.zeros(c.fits.shape, np.int8)
    decided[at[0], at[1]] = 1
    left = np.median(c.deploy)
    node = exclude_unaffordable(c._replace(decided=decided, budget=c.deploy[tuple(at)] + left))
    assert node.decided[tuple(at)] == 1
    others = np.ones(c.fits.shape, bool)
    others[tuple(at)] = False
    expected = ~c.fits | (c.deploy > left * (1 + 1e-3))
    np.testing.assert_array_equal((node.decided < 0)[others], expected[others])
    assert 0 < expected[others].sum() < others.sum()


@pytest.mark.slow  # the short lane's trees are those of test_bracket; half a minute of compiling
def test_a_node_without_open_triples_is_bounded_by_its_routing(monkeypatch: pytest.MonkeyPatch):
    """With the ascent of nodes all but switched off, only the routings' prices can close whole nodes."""
    instances = scarce(5, "ddu").with_fields(unmet_cap=np.ones(CHUNK))
    idle = replace(HARD, node=replace(HARD.node, steps=1, rate=1e-9), tree_rounds=12)
    with_prices = brackets(instances, gap=1e-3, effort=idle)
    monkeypatch.setattr(module, "_bound_whole_nodes", lambda _run, nodes, known: nodes)
    without = brackets(instances, gap=1e-3, effort=idle)
    assert (with_prices.lower >= without.lower - 1e-9 * np.abs(without.lower)).all()
    assert (with_prices.lower > without.lower * 1.001).any()


@pytest.mark.slow
def test_the_better_of_both_efforts_counts_on_each_side():
    instances = scarce(6, "diu")
    usual = Effort(tree_rounds=0, chunk=CHUNK)
    both = brackets(instances, gap=1e-3, effort=replace(usual, beyond=-1.0, harder=HARD), certificates=True)
    first, second = (brackets(instances, gap=1e-3, effort=e) for e in (usual, HARD))
    np.testing.assert_array_equal(both.lower, np.minimum(np.maximum(first.lower, second.lower), both.upper))
    np.testing.assert_array_equal(both.upper, np.minimum(first.upper, second.upper))
    tried = ~first.is_any(Status.INFEASIBLE)
    np.testing.assert_array_equal(both.nodes, first.nodes + np.where(tried, second.nodes, 0))
    assert both.leaves is not None
    assert len(np.unique(both.leaves.scenario)) == CHUNK


@pytest.mark.slow
def test_a_cap_on_unmet_shares_is_broken_provably_or_kept(tmp_path):
    """HiGHS says of each scenario whether it has a plan; brackets find one, or prove that there is none."""
    cap = np.repeat([0.0, 0.05], 12)
    few = apply_changes(sample("seed", n=12, seed=17), [Change("budget", "scale", 0.05)])
    instances = few.take(np.tile(np.arange(12), 2)).with_fields(unmet_cap=cap)
    truth = [find_any_plan(FeasibilityTask(instances.take([b]))).status for b in range(24)]
    possible = np.array([status is Status.FEASIBLE for status in truth])
    assert 5 < possible.sum() < 19
    found = brackets(instances, gap=0.01, certificates=True)
    np.testing.assert_array_equal(found.has_plan, possible)
    np.testing.assert_array_equal(found.is_any(Status.INFEASIBLE), ~possible)
    save_certificates(tmp_path / "c.parquet", found, instances)
    result = verify_rows(claims(found), load_certificates(tmp_path / "c.parquet", instances), instances)
    assert result["ok"].all(), result.to_string()
    alone = brackets(instances.take([0, 5, 23]), gap=0.01)
    np.testing.assert_array_equal(alone.lower, found.lower[[0, 5, 23]])
    np.testing.assert_array_equal(alone.upper, found.upper[[0, 5, 23]])


def test_a_ray_proves_as_much_as_rents_exceed_the_budget():
    """With plain numbers: the dual value is (least rent - budget) / weight, costs aside."""
    instances = random_instances(2, SMALL, batch=1, unmet_cap=[0.0])
    c = derive_coefficients(instances.one(0), "diu")
    weight = np.float64(FEASIBILITY_WEIGHT)
    alone = count_rent_alone(c, weight)
    zero = {"budget": np.float64(0), "storage": np.float64(0)}
    by_triple = {n: np.full(c.deploy.shape, 0.01) for n in ("memory", "compute")}
    by_pair = {n: np.full(c.nominal.shape, 0.1) for n in ("delay_adversary", "error_adversary")}
    by_type = {
        "demand": np.full(2, 0.4 * c.deploy.min()),
        "delay": np.full(2, 1e-3),
        "error": np.full(2, 0.1),
    }
    y = Multipliers(**zero, **by_triple, **by_pair, **by_type)
    rent = certify(alone, y)[0]
    assert rent > 0
    for budget in (0.5 * rent, 2.0 * rent):
        ray = lengthen_ray(y, weight)
        bound = certify(c._replace(budget=budget), ray)[0]
        np.testing.assert_allclose(bound, (rent - budget) / weight, rtol=1e-6)
        back = shorten_ray(ray, weight)
        np.testing.assert_allclose(back.budget, 0.0)
        np.testing.assert_allclose(back.demand, y.demand)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "factor", "gap", "pairs"),
    [("arrival_rate", 20.0, 0.015, 30), ("arrival_rate", 4.0, 0.011, 4), ("budget", 0.02, 0.10, 3)],
)
def test_scarce_default_scenarios(field: str, factor: float, gap: float, pairs: int):
    instances = apply_changes(sample("seed", n=6, seed=17), [Change(field, "scale", factor)])
    found = brackets(instances, gap=0.01)
    exact = [solve_instance(instances, b, gap=1e-4) for b in range(6)]
    least, cost = np.array([r.lower for r in exact]), np.array([r.upper for r in exact])
    assert found.has_plan.all()
    assert (found.lower <= cost * (1 + 1e-6)).all()
    assert (found.upper >= least * (1 - 1e-6)).all()
    assert found.gap.mean() <= gap
    assert ((found.slots >= 0).sum(1) >= pairs).any()
    assert not found.is_any(Status.ERROR).any()


@pytest.mark.slow
def test_large_catalogues():
    """20 query types x 20 models x 40 GPUs: bracketed without HiGHS, and solved with what the brackets know."""
    instances = large(2, 5)
    found = brackets(instances, gap=0.01)
    exact = solve(instances, gap=0.005)
    for answers in (found, exact):
        assert answers.has_plan.all()
        for b in range(2):
            plan = answers[b].plan
            assert plan is not None
            assert check_plan(plan, instances, b).feasible
    assert found.gap.mean() <= 0.02
    assert exact.is_any(Status.OPTIMAL, Status.GAP_LIMIT).all()
    assert (found.lower <= exact.upper * (1 + 1e-6)).all()
    assert (exact.lower <= found.upper * (1 + 1e-6)).all()


@pytest.mark.slow
def test_a_plan_that_the_checker_accepts_is_never_proven_away():
    """Two GPUs are needed, and cost a little more than the budget: within what the checker forgives, or beyond it."""
    over = np.array([4e-7, 9e-7, 1e-4, 1e-2])
    one = random_instances(3, (1, 1, 2, 1)).as_batch().take([0] * len(over))
    fields = one.fields
    easy = one.with_fields(
        unmet_cap=np.zeros(len(over)),
        budget=np.full(len(over), 1e12),
        storage_capacity=np.asarray(fields.storage_capacity) * 1e4 + 1e6,
        gpu_memory=np.asarray(fields.gpu_memory) * 1e4 + 1e6,
        delay_threshold=np.asarray(fields.delay_threshold) + 1e9,
        error_threshold=np.ones_like(fields.error_threshold),
        error_nominal=np.zeros_like(fields.error_nominal) + 0.01,
    )
    terms = collect(easy, 0)
    half = np.asarray(easy.fields.gpu_compute) * (
        0.6 * terms.work[0] / terms.power
    )  # of the type, by each GPU
    easy = easy.with_fields(gpu_compute=half)
    terms = collect(easy, 0)
    scenarios = easy.with_fields(budget=(terms.deploy.sum() + terms.data_cost.sum()) / (1 + over))
    plan = solve_instance(easy, 0, gap=1e-6).plan
    assert plan is not None
    accepted = [check_plan(replace(plan, instance=b), scenarios, b).feasible for b in range(len(over))]
    assert accepted == [True, True, False, False]
    found = brackets(scenarios, gap=1e-2)
    assert [status is not Status.INFEASIBLE for status in map(Status, found.status)] == accepted
