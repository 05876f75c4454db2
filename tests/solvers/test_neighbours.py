"""The local search's moves: the worked example, deployments, and costs that are no less than said."""

import jax.numpy as jnp
import numpy as np
import pytest

from solvers.dual import certify
from solvers.neighbours import (
    MoveCounts,
    Search,
    Surroundings,
    add,
    find_neighbours,
    propose_moves,
    resize,
    split,
    swap,
)
from tests.oracles.instances import random_instances
from tests.oracles.routing import assert_deployments, map_scenarios, random_slots, route

SMALL = (2, 2, 3, 2)
BATCH = 32
SLOTS = 4
EXACT_GAMMA = {"gamma_delay": [6.0] * BATCH, "gamma_error": [6.0] * BATCH}


@pytest.mark.parametrize(
    ("move", "count", "near", "change"),
    [
        (resize, 3, [[0, -1], [-1, -1], [1, -1]], [3.0, 5.0, np.inf]),  # there is no degree up
        (add, 1, [[1, 2]], [-1.0]),
        (swap, 1, [[2, -1]], [4.0]),
        (split, 1, [[0, 2], [1, -1]], [2.0, np.inf]),  # nothing stands in the second slot
    ],
)
def test_moves_of_the_example_in_the_module(move, count, near, change):
    around = Surroundings(
        slot=jnp.array([1, -1]),
        own=jnp.array([-5.0, 0.0]),
        value=jnp.array([-2.0, -5.0, -1.0, 3.0]),
        further=jnp.array([2]),
        further_value=jnp.array([-1.0]),
        degrees=2,
    )
    slots, changes = move(around, count)
    np.testing.assert_array_equal(slots, near)
    np.testing.assert_array_equal(changes, np.array(change, changes.dtype))


def test_moves_are_deployments():
    instances = random_instances(8, SMALL, batch=BATCH)
    slots = random_slots(np.random.default_rng(6), instances, SLOTS)

    def moves(c, slot, y):
        _, value = certify(c, y)
        return propose_moves(c, slot, value, jnp.ones(6, bool), MoveCounts())[0], c.fits

    near, fits = map_scenarios(instances, moves, slots, route(instances, slots).multipliers)
    assert_deployments(instances, near, fits)
    changed = (np.sort(near, 2) != np.sort(slots, 1)[:, None]).any(2)
    assert changed.any(1).all()


@pytest.mark.slow
def test_neighbours_cost_no_less_than_said():
    instances = random_instances(9, SMALL, batch=BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(8), instances, SLOTS)
    before = route(instances, slots).cost
    near, least = map_scenarios(instances, lambda c, slot: find_neighbours(c, slot, 25, Search()), slots)
    each = np.repeat(np.arange(BATCH), near.shape[1])
    costs = route(instances, near.reshape(-1, SLOTS), scenario=each).cost.reshape(least.shape)
    known = np.isfinite(before)
    said = np.isfinite(least)
    assert said[known].any(1).all()
    assert (costs[said] >= least[said] - 1e-4 * np.abs(least[said])).all()
    assert np.isneginf(least[~known]).any(1).all(), "of what cannot be routed every neighbour is worth a try"
    assert ((costs.min(1) < 0.999 * before)[known]).mean() > 0.5
