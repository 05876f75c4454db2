"""Local search of fleets: its floor holds, its plans pass the check, and large fleets need no branch and bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.fleets import serving
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.status import Status
from solvers import exact
from solvers._accelerators import ALL
from solvers.best_plan import route
from solvers.exact import _solve_with, solve_instance
from solvers.formulation import build, read_plan, to_plan
from solvers.highs import VaryingBounds, run_highs
from solvers.nearby_fleets import find_nearby_fleet

SHAPE = (3, 2, 3, 2)


def draw(seed: int, rent: float, *, gamma: float = 2.0, quota: bool = False):
    return serving(1, seed, shape=SHAPE, rent=rent, gamma=gamma, quota=quota)


def whole(formulation) -> np.ndarray:
    return np.flatnonzero(formulation.integer)


def random_fleet(rng, formulation) -> np.ndarray:
    """Numbers w and r (of `whole`) of a fleet of one degree each pair."""
    numbers = np.zeros(len(formulation.cost))
    _, pair = np.unique(formulation.triple[:, :2], axis=0, return_inverse=True)
    for p in np.unique(pair):
        t = rng.choice(np.flatnonzero(pair == p))
        count = rng.integers(0, 1 + min(formulation.upper[formulation.columns.replicas[t]], 6))
        numbers[formulation.columns.replicas[t]] = count
        numbers[t] = min(count, 1)
    return numbers[whole(formulation)]


@pytest.mark.parametrize("seed", range(4))
def test_reduced_costs_of_a_fleet_are_a_floor_under_every_other(seed):
    rng = np.random.default_rng(seed)
    formulation = build(draw(seed, 60.0), 0)
    program = VaryingBounds(formulation, whole(formulation))
    fleets = [random_fleet(rng, formulation) for _ in range(12)]
    found = [program.solve(c, c) for c in fleets]
    served = [s for s in found if s.columns is not None]
    assert len(served) >= 6
    tight = 0
    for c, here in zip(fleets, found, strict=True):
        for other, there in zip(fleets, found, strict=True):
            if here.columns is not None and there.columns is not None:
                floor = here.objective + here.reduced[whole(formulation)] @ (other - c)
                assert there.objective >= floor - 1e-7 * abs(here.objective)
                tight += floor > 0.5 * there.objective
    assert tight > len(served), "a floor that says something"


@pytest.mark.parametrize("seed", range(3))
def test_a_fleet_costs_the_same_whatever_was_solved_before(seed):
    rng = np.random.default_rng(seed)
    instances = draw(seed, 60.0)
    formulation = build(instances, 0)
    program = VaryingBounds(formulation, whole(formulation))
    for _ in range(8):
        fleet = random_fleet(rng, formulation)
        fixed = formulation.lower.copy(), formulation.upper.copy()
        for bounds in fixed:
            bounds[whole(formulation)] = fleet
        alone = run_highs(replace(formulation, lower=fixed[0], upper=fixed[1]), relax=True)
        assert program.solve(fleet, fleet).objective == pytest.approx(alone.objective, rel=1e-7)


@pytest.mark.parametrize("quota", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_fleets_found_are_checked_plans_near_the_optimum(gamma, quota):
    far = []
    for seed in range(6):
        instances = draw(seed, 600.0, gamma=gamma, quota=quota)
        formulation = build(instances, 0)
        columns = find_nearby_fleet(formulation)
        assert columns is not None
        plan = to_plan(instances, 0, formulation, columns)
        verdict = check_plan(plan, instances, 0)
        assert verdict.feasible
        found = read_plan(formulation, columns)
        again = route(instances, 0, found.deployed, None, found.replicas)  # a second routing, from nothing
        assert again is not None
        cost = check_plan(again, instances, 0).costs["total_cost"]
        assert verdict.costs["total_cost"] == pytest.approx(cost, rel=1e-6)
        optimum = _solve_with(replace(ALL, nearby=False), instances, 0)
        assert verdict.costs["total_cost"] >= optimum.lower * (1 - 1e-9)
        far.append(verdict.costs["total_cost"] / optimum.upper - 1)
    assert np.mean(far) < 0.005
    assert max(far) < 0.02


def test_where_rounding_up_breaks_a_quota_it_is_rounded_down():
    instances = draw(1, 600.0, quota=True)
    scarce = instances.with_fields(gpu_quota=np.full(3, 3.0))
    formulation = build(scarce, 0)
    columns = find_nearby_fleet(formulation)
    assert columns is not None
    assert check_plan(to_plan(scarce, 0, formulation, columns), scarce, 0).feasible


def test_nothing_is_found_where_no_fleet_serves_enough():
    instances = draw(1, 600.0)
    formulation = build(instances.with_fields(unmet_cap=0.0, budget=10.0), 0)
    assert find_nearby_fleet(formulation) is None


@pytest.fixture
def asked(monkeypatch):
    """Every MILP that HiGHS is asked."""
    seen = []
    real = exact.run_highs

    def watched(formulation, **options):
        if not options.get("relax") and formulation.integer.any():
            seen.append(formulation)
        return real(formulation, **options)

    monkeypatch.setattr(exact, "run_highs", watched)
    return seen


def test_large_fleets_need_no_branch_and_bound(asked):
    for seed in range(4):
        answer = solve_instance(draw(seed, 3000.0), 0, gap=0.01)
        assert answer.status in (Status.GAP_LIMIT, Status.OPTIMAL)
        assert answer.gap <= 0.01
    assert asked == []
    _solve_with(replace(ALL, nearby=False), draw(0, 3000.0), 0, gap=0.01)
    assert asked != []


def test_limits_of_routes_are_left_to_branch_and_bound(asked):
    answer = solve_instance(draw(0, 3000.0).with_fields(max_routes=1), 0, gap=0.01)
    assert answer.gap <= 0.01
    assert asked != []


def test_a_pair_keeps_one_degree():
    for seed in range(6):
        formulation = build(draw(seed, 600.0), 0)
        columns = find_nearby_fleet(formulation)
        assert columns is not None
        used = formulation.triple[columns[formulation.columns.deployed] > 0.5]
        assert len(np.unique(used[:, :2], axis=0)) == len(used)
