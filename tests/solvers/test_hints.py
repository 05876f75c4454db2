"""What is known before a scenario is solved: it saves work, never changes what is proven, is not believed blindly."""

import math

import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from solvers import highs
from solvers.highs import solve_instance
from solvers.hints import Hints
from solvers.pool import solve
from tests.oracles.instances import random_instances

SMALL = (2, 2, 3, 2)


def deployed(instances, plan):
    return highs._deployed(instances, plan)


@pytest.fixture
def no_highs(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("HiGHS was asked")

    monkeypatch.setattr(highs, "run_highs", refuse)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_plan_to_start_from_changes_no_value(seed, most):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02], max_routes=most)
    alone = solve_instance(instances, 0)
    nothing = Plan(7, (), (), {"q0": 1.0, "q1": 1.0})
    for plan in (alone.plan, nothing):
        result = solve_instance(instances, 0, hints=Hints(plan=plan))
        assert result.status == "optimal"
        assert result.objective == pytest.approx(alone.objective, rel=2e-6)
        assert result.plan.instance == 0


def test_a_plan_that_is_not_feasible_is_ignored():
    instances = random_instances(0, SMALL, error_threshold=[0.0, 0.0])
    lie = Plan(0, (DeployedPair("m0", "g0", 1),), (Route("q0", "m0", "g0", 1.0),), {"q1": 1.0})
    assert not check_plan(lie, instances, 0).feasible
    result = solve_instance(instances, 0, hints=Hints(plan=lie))
    assert result.status == "optimal"
    assert result.plan.deployments == ()


def test_a_closed_bracket_asks_nobody(no_highs):
    instances = random_instances(0, SMALL)
    plan = Plan(0, (), (), {"q0": 1.0, "q1": 1.0})
    cost = check_plan(plan, instances, 0).costs["total_cost"]
    loose = solve_instance(instances, 0, gap=0.01, hints=Hints(plan=plan, lower=0.995 * cost))
    assert (loose.status, loose.objective, loose.bound) == ("gap_limit", cost, 0.995 * cost)
    assert solve_instance(instances, 0, hints=Hints(plan=plan, lower=cost)).status == "optimal"


def test_a_bound_above_a_checked_plan_is_an_error(no_highs):
    instances = random_instances(0, SMALL)
    plan = Plan(0, (), (), {"q0": 1.0, "q1": 1.0})
    cost = check_plan(plan, instances, 0).costs["total_cost"]
    result = solve_instance(instances, 0, hints=Hints(plan=plan, lower=1.01 * cost))
    assert (result.status, result.bound) == ("error", -math.inf)
    assert "above the cost" in result.message


@pytest.mark.parametrize("seed", range(4))
def test_only_the_given_triples_are_searched(seed):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02])
    alone = solve_instance(instances, 0)
    inside = deployed(instances, alone.plan)
    known = Hints(triples=inside, elsewhere=alone.objective)
    result = solve_instance(instances, 0, hints=known)
    assert result.status == "optimal"
    assert result.objective == pytest.approx(alone.objective, rel=2e-6)
    without = solve_instance(instances, 0, hints=Hints(triples=~inside, elsewhere=0.5 * alone.objective))
    assert without.bound <= 0.5 * alone.objective
    assert without.status == "bracket", "valid, but not closed to the gap asked for"
    assert without.objective > alone.objective * (1 - OPTIMAL_GAP)
    back = solve_instance(
        instances, 0, hints=Hints(alone.plan, triples=~inside, elsewhere=0.999 * alone.objective)
    )
    assert back.objective == pytest.approx(alone.objective, rel=2e-6), "the plan's own triples stay"
    assert back.bound == pytest.approx(0.999 * alone.objective)


def test_hints_reach_the_workers():
    instances = random_instances(3, SMALL, batch=2)
    nothing = Plan(None, (), (), {"q0": 1.0, "q1": 1.0})
    costs = [check_plan(nothing, instances, b).costs["total_cost"] for b in range(2)]
    hints = [Hints(nothing, lower=cost, triples=np.zeros((2, 3, 2), bool), elsewhere=cost) for cost in costs]
    assert [r.objective for r in solve(instances, hints=hints, workers=1)] == costs
