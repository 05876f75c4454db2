"""Local search of fleets: its floor holds, its plans pass the check, and large fleets need no branch and bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.fleets import serving
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.status import Status
from solvers import nearby_fleets
from solvers._accelerators import ALL
from solvers.answers import Answer
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


def visits(monkeypatch) -> list[bool]:
    """Whether each fleet that is tried becomes the best one."""
    seen = []
    real = nearby_fleets._Search.visit

    def watched(search, replicas):
        seen.append(real(search, replicas))
        return seen[-1]

    monkeypatch.setattr(nearby_fleets._Search, "visit", watched)
    return seen


def test_where_rounding_up_breaks_a_quota_it_is_rounded_down(monkeypatch):
    instances = draw(5, 600.0, quota=True)
    formulation, tried = build(instances, 0), visits(monkeypatch)
    columns = find_nearby_fleet(formulation)
    assert tried[:2] == [False, True]
    assert columns is not None
    assert check_plan(to_plan(instances, 0, formulation, columns), instances, 0).feasible


def test_nothing_is_found_where_no_fleet_serves_enough(monkeypatch):
    instances = draw(1, 600.0).with_fields(unmet_cap=0.0)
    assert find_nearby_fleet(build(instances.with_fields(budget=10.0), 0)) is None, "nor has the relaxation"
    rent = run_highs(build(instances, 0), relax=True).objective
    tried = visits(monkeypatch)
    assert find_nearby_fleet(build(instances.with_fields(budget=rent * 1.0001), 0)) is None
    assert tried == [False, False]


def test_no_fleet_is_tried_twice_and_none_after_the_deadline(monkeypatch):
    formulation, tried = build(draw(0, 600.0), 0), visits(monkeypatch)
    find_nearby_fleet(formulation, deadline=0.0)
    assert tried == [True]
    fleets = []
    real = nearby_fleets.VaryingBounds.solve

    def watched(program, lower, upper):
        fleets.append(tuple(lower + 0.0))
        return real(program, lower, upper)

    monkeypatch.setattr(nearby_fleets.VaryingBounds, "solve", watched)
    find_nearby_fleet(formulation)
    assert len(fleets) == len(set(fleets)) > 3


@pytest.mark.parametrize(
    "changes", [{}, {"unmet_cap": 0.05}, {"budget": 450.0}, {"max_replicas": np.array([[1] * 3, [99] * 3])}]
)
@pytest.mark.parametrize("quota", [False, True])
def test_optima_are_those_without_the_search(changes, quota):
    for seed in range(2):
        instances = draw(seed, 600.0, gamma=1.5 * seed, quota=quota).with_fields(**changes)
        found, alone = (_solve_with(use, instances, 0, gap=1e-4) for use in (ALL, replace(ALL, nearby=False)))
        assert {found.status, alone.status} <= {Status.OPTIMAL, Status.GAP_LIMIT}
        assert max(found.lower, alone.lower) <= min(found.upper, alone.upper) * (1 + 1e-9)


def with_a_rare_type(traffic: float, penalty: float, *, quota: float = 100.0):
    """A type that takes ``traffic`` replicas of $1 an hour, and one that takes 9e-5 of one."""
    instances = serving(1, 0, shape=(2, 1, 1, 1), rent=2.0, gamma=0.0, quota=False)
    return instances.with_fields(
        arrival_rate=[traffic, 0.9e-4], throughput=np.ones((2, 1, 1, 1)), gpu_price=[1.0], gpu_memory=[1e3],
        max_utilization=1.0, gpu_quota=[quota], unmet_penalty=[penalty, penalty], budget=1e9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("traffic", "penalty", "lower", "gap"),
    [(110.0, 100.0, 1100.0085, 1e-6), (110.0, 100.0, 1100.005, 1e-5), (100.0, 2000.0, 100.1, 1e-3)],
)
@pytest.mark.parametrize("nearby", [False, True])
def test_a_rare_type_is_served_within_the_checkers_tolerance_and_counted(
    traffic, penalty, lower, gap, nearby
):
    """The matrix that HiGHS searches lacks a coefficient so small, so that its optimum is below that of every plan."""
    instances, use = with_a_rare_type(traffic, penalty), replace(ALL, nearby=nearby)
    expected = 100.0 + penalty * (traffic - 100.0 + 0.9e-4)
    known = Answer.of(instances.names, Status.BRACKET, lower=lower)
    for start in (None, known):
        answer = _solve_with(use, instances, 0, gap=gap, start=start)
        assert answer.status.closed, answer.message
        assert answer.upper == pytest.approx(expected, rel=1e-9)
        assert answer.lower <= expected * (1 + 1e-12)


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
