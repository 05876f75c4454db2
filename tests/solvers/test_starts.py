"""Deployments read off a bound: deployments, whose costs are no less than said."""

import numpy as np
import pytest

from solvers.dual import Ascended, Ascent, Reach, ascend_and_certify, certify
from solvers.neighbours import Search
from solvers.starts import propose_starts
from tests.oracles.instances import random_instances
from tests.oracles.routing import assert_deployments, map_scenarios, random_slots, route

SMALL = (2, 2, 3, 2)
BATCH = 32
SLOTS = 4
EXACT_GAMMA = {"gamma_delay": [6.0] * BATCH, "gamma_error": [6.0] * BATCH}


def test_starts_are_deployments():
    instances = random_instances(8, SMALL, batch=BATCH)
    slots = random_slots(np.random.default_rng(6), instances, SLOTS)
    weights = np.random.default_rng(7).dirichlet(np.full(3, 0.4), (BATCH, 6))[..., :2]

    def start(c, y, weights):
        bound, value = certify(c, y)
        return propose_starts(c, Ascended(bound, y, value, weights, 0.0 * bound), Search(slots=SLOTS))[
            0
        ], c.fits

    starts, fits = map_scenarios(instances, start, route(instances, slots).multipliers, weights)
    assert (starts[:, -1] < 0).all(), "deploying nothing is tried too"
    assert_deployments(instances, starts, fits)


@pytest.mark.slow
def test_starts_cost_no_less_than_said():
    instances = random_instances(13, SMALL, batch=BATCH, **EXACT_GAMMA)

    def start(c):
        return propose_starts(
            c, ascend_and_certify(c, None, Reach(6), Ascent().controls), Search(slots=SLOTS)
        )

    starts, least = map_scenarios(instances, start)
    each = np.repeat(np.arange(BATCH), starts.shape[1])
    costs = route(instances, starts.reshape(-1, SLOTS), scenario=each).cost.reshape(least.shape)
    assert (costs >= least - 1e-6 * np.abs(least)).all()
    assert (costs < least + 0.2 * np.abs(least)).any(1).mean() > 0.5, "the floor says something"
