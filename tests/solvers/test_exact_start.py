"""What is known before a scenario is solved: it saves work, never changes what is proven, is not believed blindly."""

import math

import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from solvers import best_plan, exact
from solvers.answers import Answer
from solvers.exact import solve_instance
from solvers.highs import LinearPrograms
from solvers.pool import solve
from tests.oracles.instances import random_instances

SMALL = (2, 2, 3, 2)


def deployed(instances, plan):
    return best_plan.mark_deployed(instances, plan)


def start(instances, plan=None, **known) -> Answer:
    """What is known before: a plan, a lower bound, what is promising and what the rest costs at least."""
    return Answer.of(instances.names, Status.UNKNOWN, plan=plan, **known)


@pytest.fixture
def no_highs(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("HiGHS was asked")

    monkeypatch.setattr(exact, "run_highs", refuse)
    monkeypatch.setattr(LinearPrograms, "solve", refuse)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [0, 1, 2])
def test_a_plan_to_start_from_changes_no_value(seed, most):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02], max_routes=most)
    alone = solve_instance(instances, 0)
    nothing = Plan(7, (), (), {"q0": 1.0, "q1": 1.0})
    for plan in (alone.plan, nothing):
        result = solve_instance(instances, 0, start=start(instances, plan))
        assert result.status == Status.OPTIMAL
        assert result.upper == pytest.approx(alone.upper, rel=2e-6)


def test_a_plan_that_is_not_feasible_is_ignored():
    instances = random_instances(0, SMALL, error_threshold=[0.0, 0.0])
    lie = Plan(0, (DeployedPair("m0", "g0", 1),), (Route("q0", "m0", "g0", 1.0),), {"q1": 1.0})
    assert not check_plan(lie, instances, 0).feasible
    result = solve_instance(instances, 0, start=start(instances, lie))
    assert result.status == Status.OPTIMAL
    assert result.plan.deployments == ()


def test_a_closed_bracket_asks_nobody(no_highs):
    instances = random_instances(0, SMALL)
    plan = Plan(0, (), (), {"q0": 1.0, "q1": 1.0})
    cost = check_plan(plan, instances, 0).costs["total_cost"]
    loose = solve_instance(instances, 0, gap=0.01, start=start(instances, plan, lower=0.995 * cost))
    assert (loose.status, loose.upper, loose.lower) == (Status.GAP_LIMIT, cost, 0.995 * cost)
    assert solve_instance(instances, 0, start=start(instances, plan, lower=cost)).status == Status.OPTIMAL


def test_a_bound_above_a_checked_plan_is_an_error(no_highs):
    instances = random_instances(0, SMALL)
    plan = Plan(0, (), (), {"q0": 1.0, "q1": 1.0})
    cost = check_plan(plan, instances, 0).costs["total_cost"]
    result = solve_instance(instances, 0, start=start(instances, plan, lower=1.01 * cost))
    assert (result.status, result.lower) == (Status.ERROR, -math.inf)
    assert "above the cost" in result.message


@pytest.mark.parametrize("seed", range(4))
def test_only_the_given_triples_are_searched(seed):
    instances = random_instances(seed, SMALL, kv_per_token=[0.02, 0.02])
    alone = solve_instance(instances, 0)
    inside = deployed(instances, alone.plan)
    known = start(instances, promising=inside, upper=alone.upper)
    result = solve_instance(instances, 0, start=known)
    assert result.status == Status.OPTIMAL
    assert result.upper == pytest.approx(alone.upper, rel=2e-6)
    without = solve_instance(instances, 0, start=start(instances, promising=~inside, upper=0.5 * alone.upper))
    assert without.lower <= 0.5 * alone.upper
    assert without.status == Status.BRACKET, "valid, but not closed to the gap asked for"
    assert without.upper > alone.upper * (1 - OPTIMAL_GAP)
    back = solve_instance(
        instances, 0, start=start(instances, alone.plan, promising=~inside, upper=0.999 * alone.upper)
    )
    assert back.upper == pytest.approx(alone.upper, rel=2e-6), "the plan's own triples stay"
    assert back.lower == pytest.approx(0.999 * alone.upper)


def test_starts_reach_the_workers():
    instances = random_instances(3, SMALL, batch=2)
    nothing = Plan(None, (), (), {"q0": 1.0, "q1": 1.0})
    costs = [check_plan(nothing, instances, b).costs["total_cost"] for b in range(2)]
    nowhere = np.zeros((2, 3, 2), bool)
    starts = [start(instances, nothing, lower=cost, promising=nowhere, upper=cost) for cost in costs]
    assert solve(instances, starts=starts, workers=1).upper.tolist() == costs
