"""Routing by the interior point against HiGHS, and what a routing's prices prove."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from solvers.dual import certify
from solvers.formulation import build
from solvers.highs import run_highs
from solvers.neighbours import Search
from solvers.routing import find_shortfall
from tests.oracles.bounds import above, relaxed_optimum
from tests.oracles.instances import default_instances, random_instances
from tests.oracles.routing import (
    highs_routing_cost,
    map_scenarios,
    plan_of_slots,
    random_slots,
    route,
    slot_positions,
)

SMALL = (2, 2, 3, 2)
BATCH = 32
SLOTS = 4
EXACT_GAMMA = {"gamma_delay": [6.0] * BATCH, "gamma_error": [6.0] * BATCH}


def test_routing_costs_what_highs_finds():
    # Exact where no type can use more than Gamma pairs; without an adversary too, see the next but one.
    instances = random_instances(
        3, SMALL, batch=BATCH, **EXACT_GAMMA, kv_per_token=np.full((BATCH, 2), 0.015)
    )
    slots = random_slots(np.random.default_rng(0), instances, SLOTS)
    expected = np.array(
        [highs_routing_cost(instances, b, slot_positions(instances, slots[b])) for b in range(BATCH)]
    )
    found = route(instances, slots).cost
    known = np.isfinite(expected)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)
    assert known.sum() > BATCH // 2
    assert (found[~known] == math.inf).all()


def test_routing_never_undercuts_highs_under_any_adversary():
    # The worst case is taken as min(1, Gamma) times the plain sum, which is never too small.
    instances = random_instances(4, SMALL, batch=BATCH, delay_threshold=np.full((BATCH, 2), 200.0))
    slots = random_slots(np.random.default_rng(1), instances, SLOTS)
    expected = np.array(
        [highs_routing_cost(instances, b, slot_positions(instances, slots[b])) for b in range(BATCH)]
    )
    found = route(instances, slots).cost
    assert not (found < expected * (1 - 1e-6)).any()
    assert np.isfinite(found).sum() > BATCH // 2
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


@pytest.mark.slow
def test_default_routing():
    # 4 of 60 pairs, 6 types.
    instances = default_instances(8, seed=2, mode="none")
    slots = random_slots(np.random.default_rng(2), instances, SLOTS)
    expected = np.array(
        [highs_routing_cost(instances, b, slot_positions(instances, slots[b])) for b in range(8)]
    )
    known = np.isfinite(expected)
    assert known.sum() > 3
    np.testing.assert_allclose(route(instances, slots).cost[known], expected[known], rtol=1e-5)


def test_what_cannot_be_served_is_refused():
    # Every query must be served: costs are infinite, or the checker refuses the plan.
    everything = {"unmet_cap": [0.0] * BATCH, "kv_per_token": np.full((BATCH, 2), 0.02)}
    instances = random_instances(5, SMALL, batch=BATCH, **EXACT_GAMMA, **everything)
    slots = random_slots(np.random.default_rng(3), instances, SLOTS)
    found, _, shares, _ = route(instances, slots)
    feasible = 0
    for b in range(BATCH):
        verdict = check_plan(plan_of_slots(instances, b, slots[b], shares[b]), instances, b)
        possible = math.isfinite(highs_routing_cost(instances, b, slot_positions(instances, slots[b])))
        assert possible or found[b] == math.inf or not verdict.feasible
        assert not possible or math.isfinite(found[b])
        feasible += possible
    assert 0 < feasible < BATCH


def test_shares_pass_the_checker_at_the_cost_found():
    instances = random_instances(6, SMALL, batch=BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(4), instances, SLOTS)
    found, _, shares, _ = route(instances, slots)
    assert (shares.transpose(0, 2, 1)[slots < 0] == 0).all()
    known = np.flatnonzero(np.isfinite(found))
    assert len(known) > BATCH // 2
    for b in known.tolist():
        verdict = check_plan(plan_of_slots(instances, b, slots[b], shares[b]), instances, b)
        assert verdict.feasible, verdict.binding
        assert verdict.costs["total_cost"] == pytest.approx(found[b], rel=1e-5)


def test_prices_of_a_routing_are_multipliers_of_the_dual():
    # Any multipliers bound; these, with the deployed triples decided, bound by the cost of the routing itself.
    instances = random_instances(7, SMALL, batch=BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(5), instances, SLOTS)

    def proof(c, slot, y):
        flat = jnp.full(c.deploy.size, -1, jnp.int8)
        decided = flat.at[jnp.where(slot >= 0, slot, c.deploy.size)].set(1, mode="drop")
        return certify(c, y)[0], certify(c._replace(decided=decided.reshape(c.deploy.shape)), y)[0]

    cost, _, _, prices = route(instances, slots)
    free, held = map_scenarios(instances, proof, slots, prices)
    known = np.isfinite(cost)
    assert not above(free, np.array([relaxed_optimum(instances, b) for b in range(BATCH)])).any()
    assert not (held[known] > cost[known] * (1 + 1e-6)).any()
    np.testing.assert_allclose(held[known], cost[known], rtol=1e-4)


@pytest.mark.slow  # half a minute of compiling; test_scarce proves with what this finds
def test_a_deployment_falls_short_by_what_highs_finds():
    # Whatever the adversary: the program knows its worst case exactly. In units of 1e9 $ costs are nothing.
    cap = np.random.default_rng(8).choice([0.0, 0.1, 0.4], BATCH)
    instances = random_instances(9, SMALL, batch=BATCH, unmet_cap=cap, max_routes=[0] * BATCH)
    slots = random_slots(np.random.default_rng(9), instances, SLOTS)

    def proof(c, slot):
        y = find_shortfall(c, slot, jnp.int32(25), jnp.float64(1e9))
        flat = jnp.full(c.deploy.size, -1, jnp.int8)
        decided = (
            flat.at[jnp.where(slot >= 0, slot, c.deploy.size)].set(1, mode="drop").reshape(c.deploy.shape)
        )
        inside = (decided > 0).any(1)
        y = y._replace(
            delay_adversary=jnp.where(inside, y.delay_adversary, 0.0),
            error_adversary=jnp.where(inside, y.error_adversary, 0.0),
        )
        return certify(c._replace(decided=decided), y)[0] / 1e9

    least = map_scenarios(instances, proof, slots)
    deployed = [slot_positions(instances, slots[b]) for b in range(BATCH)]
    forms = [build(instances, b, deployed=deployed[b], measure_excess=True) for b in range(BATCH)]
    excess = np.array([run_highs(form, relax=True).objective for form in forms])
    known = np.isfinite(excess)  # rents and weights alone go into the limits
    np.testing.assert_allclose(least[known], excess[known], atol=1e-5)
    assert 0 < (excess[known] > 1e-3).sum() < known.sum()


def test_a_routing_says_when_it_is_not_settled():
    instances = default_instances(16, seed=7)
    slots = np.tile(np.array([3, 43, 83, 123], np.int32), (16, 1))
    settled = route(instances, slots)
    for iterations, least, most in ((3, 0, 0), (Search().iterations, 0, 15), (12, 1, 16)):
        found = route(instances, slots, iterations=iterations)
        np.testing.assert_allclose(found.cost[found.settled], settled.cost[found.settled], rtol=2e-5)
        assert least <= found.settled.sum() <= most
