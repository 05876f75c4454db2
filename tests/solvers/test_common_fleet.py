"""One fleet for several scenarios: against every fleet that there is, and the bound of groups against Jensen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan
from solvers.common_fleet import _Search, find_common_fleet, join_blocks, route_fleet
from solvers.formulation import assemble
from solvers.highs import run_highs
from solvers.terms import collect
from tests.oracles.enumeration import cheapest_routing
from tests.oracles.serving import serving_instances

SHAPE = (2, 2, 1, 2)


def some_hours(seed: int, count: int = 3, **overrides: object) -> tuple[Instances, np.ndarray]:
    """A scenario whose traffic goes up and down, with weights that are not equal."""
    rng = np.random.default_rng(seed)
    one = serving_instances(seed, SHAPE, **overrides)
    base = one.one(0)
    rates = base.arrival_rate * rng.uniform(0.1, 1.3, (count, 2))
    weights = rng.uniform(0.5, 1.5, count)
    alone = Instances(one.query_names, one.model_names, one.gpu_names, one.uncertainty, base, one.gpu_devices)
    return alone.with_fields(arrival_rate=rates, max_routes=0), weights / weights.sum()


def enumerate_fleets(scenarios: Instances, weights: np.ndarray) -> float:
    """The least weighted cost over every fleet within quotas, each routed in every scenario by scipy."""
    f = scenarios.one(0)
    options = []
    for j, k in itertools.product(range(SHAPE[1]), range(SHAPE[2])):
        replicas = range(1, int(f.max_replicas[j, k]) + 1)
        options.append([None, *((j, k, n, r) for n in range(SHAPE[3]) for r in replicas)])
    best = np.inf
    for choice in itertools.product(*options):
        fleet = [c for c in choice if c is not None]
        if sum(f.tp_degree[n] * r for _, _, n, r in fleet) > f.gpu_quota[0]:
            continue
        costs = [cheapest_routing(scenarios, b, fleet) for b in range(scenarios.size)]
        best = min(best, float(weights @ costs))
    return best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", ["none", "ddu"])
def test_the_bracket_holds_the_best_of_all_fleets(seed: int, mode: str):
    scenarios, weights = some_hours(seed, 6, mode=mode)
    best = enumerate_fleets(scenarios, weights)
    found = find_common_fleet(scenarios, weights, gap=1e-4)
    assert found.lower <= best * (1 + 1e-6)
    assert found.upper >= best * (1 - 1e-6)
    assert found.gap <= 1e-4 * (1 + 1e-9)
    assert found.upper == pytest.approx(
        sum(
            w * check_plan(plan, scenarios, b).costs["total_cost"]
            for b, (w, plan) in enumerate(zip(weights, found.plans, strict=True))
        )
    )
    assert all(plan.deployments == found.deployment for plan in found.plans)


@pytest.mark.parametrize("seed", range(4))
def test_fewer_groups_prove_less(seed: int):
    """The bound of one group is at most that of two, and that at most that of all scenarios."""
    scenarios, weights = some_hours(seed, 4)
    search = _Search(scenarios, weights)
    halves = [np.array([0, 1]), np.array([2, 3])]
    bounds = [
        search.solve_groups(groups, 0.0, 60.0)[0]
        for groups in ([np.arange(4)], halves, [np.array([b]) for b in range(4)])
    ]
    assert bounds[0] <= bounds[1] * (1 + 1e-7)
    assert bounds[1] <= bounds[2] * (1 + 1e-7)


def test_groups_are_split_until_they_meet():
    """Sixteen scenarios that differ much are more groups than one begins with."""
    scenarios, weights = some_hours(8, 16, unmet_penalty=np.full(2, 0.5))
    found = find_common_fleet(scenarios, weights, gap=1e-6)
    assert found.groups > 4
    assert found.gap <= 1e-6
    loose = find_common_fleet(scenarios, weights, gap=0.2)
    assert loose.groups <= found.groups
    assert loose.lower <= found.upper * (1 + 1e-9)
    assert loose.upper >= found.lower * (1 - 1e-9)


def test_a_group_is_split_even_where_its_mean_costs_more(monkeypatch: pytest.MonkeyPatch):
    """Routings are known to a tolerance: a group's own hours may cost less than their mean, by more than any marker."""
    scenarios, weights = some_hours(8, 3)
    search = _Search(scenarios, weights)
    nothing = Plan(0, (), (), dict.fromkeys(scenarios.query_names, 1.0))

    def route_fleet(instances: Instances, b: int, deployment: Deployment) -> tuple[Plan, float]:
        return nothing, 1e6 if instances is not scenarios else 0.0

    monkeypatch.setattr("solvers.common_fleet.route_fleet", route_fleet)
    made = search.split([np.array([0]), np.array([1, 2])], ())
    assert sorted(group.tolist() for group in made) == [[0], [1], [2]]


def test_joined_blocks_of_one_scenario_are_that_scenario():
    scenarios, _ = some_hours(1)
    terms = collect(scenarios, 1)
    block = assemble(terms, 1)
    alone = run_highs(block, mip_rel_gap=0.0, mip_abs_gap=0.0)
    twice = run_highs(join_blocks([block, block], [0.25, 0.75]), mip_rel_gap=0.0, mip_abs_gap=0.0)
    assert twice.objective == pytest.approx(alone.objective, rel=1e-7)
    assert len(join_blocks([block, block], [0.25, 0.75]).cost) < 2 * len(block.cost)


def test_a_start_is_kept_where_it_is_best_and_idle_pairs_are_paid_for():
    scenarios, weights = some_hours(2)
    best = find_common_fleet(scenarios, weights, gap=1e-6)
    again = find_common_fleet(scenarios, weights, starts=[best.deployment], gap=1e-6)
    assert again.upper == pytest.approx(best.upper, rel=1e-6)
    nothing = route_fleet(scenarios, 0, ())
    assert nothing is not None
    assert nothing[0].unmet == dict.fromkeys(scenarios.query_names, 1.0)
    quiet = scenarios.with_fields(arrival_rate=np.zeros((3, 2)))
    if best.deployment:
        idle = route_fleet(quiet, 0, best.deployment)
        assert idle is not None
        assert idle[0].deployments == best.deployment
        assert idle[1] >= check_plan(idle[0], quiet, 0).costs["rental_cost"] > 0


def test_limits_on_routes_are_refused():
    scenarios, weights = some_hours(0)
    with pytest.raises(ValueError, match="max_routes"):
        find_common_fleet(scenarios.with_fields(max_routes=1), weights, gap=0.1)


def test_scenarios_without_a_common_fleet_are_told():
    scenarios, weights = some_hours(0, unmet_penalty=np.ones(2))
    starved = scenarios.with_fields(unmet_cap=0.0, throughput=np.zeros(SHAPE))
    with pytest.raises(ValueError, match="no fleet"):
        find_common_fleet(starved, weights, gap=0.1)
