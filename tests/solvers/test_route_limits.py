"""Routes where their number is limited, against enumeration and HiGHS."""

import math
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from solvers.formulation import build
from solvers.highs import run_highs
from solvers.route_limits import find_best_grouping
from tests.oracles.instances import default_instances, random_instances
from tests.oracles.routing import map_scenarios, plan_of_slots, random_slots, route, slot_positions

SMALL = (2, 2, 3, 2)
BATCH = 32
SLOTS = 4
EXACT_GAMMA = {"gamma_delay": [6.0] * BATCH, "gamma_error": [6.0] * BATCH}


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2])
def test_route_limit(most):
    instances = random_instances(6, SMALL, batch=BATCH, max_routes=[most] * BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(4), instances, SLOTS)
    free = route(instances, slots).cost
    found, _, shares, _ = route(instances, slots, limited=True)
    assert ((shares > 1e-7).sum(2) <= most).all()
    assert not (found < free * (1 - 1e-6)).any()
    assert np.isfinite(found[np.isfinite(free)]).mean() > 0.9
    for b in np.flatnonzero(np.isfinite(found)).tolist():
        verdict = check_plan(
            plan_of_slots(instances, b, slots[b], np.where(shares[b] > 1e-7, shares[b], 0)), instances, b
        )
        assert verdict.feasible, verdict.binding
        assert verdict.costs["total_cost"] == pytest.approx(found[b], rel=1e-5)


def testfind_best_grouping_is_the_least_of_all():
    rng = np.random.default_rng(2)
    for places, types in ((1, 1), (3, 2), (2, 4), (5, 3)):
        cost = rng.normal(size=(places, 2**types))
        cost[rng.random(cost.shape) < 0.2] = np.inf
        cost[-1] = rng.random(2**types)
        with jax.enable_x64(True):
            taken = np.asarray(find_best_grouping(jnp.asarray(cost)))
        assert taken.sum() == np.bitwise_or.reduce(taken) == 2**types - 1, "every type has one place"
        all_ways = (
            sum(cost[d, sum(1 << i for i in range(types) if way[i] == d)] for d in range(places))
            for way in product(range(places), repeat=types)
        )
        assert cost[np.arange(places), taken].sum() == pytest.approx(min(all_ways))


@pytest.mark.slow
def test_single_routes_cost_what_the_best_of_all_choices_does():
    """Against HiGHS's routing of every choice of one route a type."""
    instances = random_instances(8, (3, 2, 3, 2), batch=BATCH, max_routes=[1] * BATCH)
    slots = random_slots(np.random.default_rng(5), instances, SLOTS)
    found, _, shares, _ = route(instances, slots, limited=True)
    equal, routable = 0, 0
    for b in range(BATCH):
        deployed = slot_positions(instances, slots[b])
        least = math.inf
        for way in product(range(len(deployed)), repeat=3):
            routed = np.arange(len(deployed))[None, :] == np.array(way)[:, None]
            answer = run_highs(build(instances, b, deployed=deployed, routed=routed))
            least = min(least, answer.objective if math.isfinite(answer.bound) else math.inf)
        if not len(deployed) or math.isinf(least):
            assert math.isinf(found[b]) or not len(deployed)
            continue
        assert found[b] >= least - 1e-6 * abs(least)
        routable += 1
        equal += found[b] <= least + 1e-5 * abs(least)
    assert ((shares > 1e-6).sum(2) <= 1).all()
    assert equal > 0.9 * routable > 9, (equal, routable)


@pytest.mark.slow
def test_a_single_route_keeps_both_promises_alone():
    # Of two pairs the cheap one breaks the error promise alone; mixed freely it would get the larger share.
    instances = default_instances(16, seed=7).with_fields(max_routes=np.array(1))
    slots = np.tile(np.array([35, 75, -1, -1], np.int32), (16, 1))
    shares = route(instances, slots, limited=True).share
    free = route(instances.with_fields(max_routes=np.array(0)), slots).share
    assert ((shares > 1e-6).sum(2) <= 1).all()

    def alone(c, s):
        pair = jnp.maximum(s, 0) // c.deploy.shape[1]
        late = (c.nominal + c.excess)[:, pair] > c.delay_limit[:, None]
        return late | ((c.error + c.error_excess)[:, pair] > c.error_limit[:, None])

    broken = map_scenarios(instances, alone, slots)
    assert not (shares > 1e-6)[broken].any()
    mixed = (free > 1e-6).sum(2) > 1
    lost = broken & (free == free.max(2, keepdims=True)) & mixed[:, :, None]
    saved = lost.any(2) & (shares.sum(2) > 0.5)
    assert saved.any(), "some type would have lost its service"
