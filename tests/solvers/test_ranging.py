"""A limit free in an interval: the bound against the optimum at many values of the limit."""

import numpy as np
import pytest

from rodiu_jax.decisions.diagnose.movable_limits import Limit, limits, variants
from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from solvers.exact import solve_instance
from solvers.pool import Pool
from solvers.ranging import Ranged, Ranging, ranged
from tests.oracles.instances import random_instances

CASES = {
    "partly served": lambda: random_instances(
        21, (3, 2, 2, 2), unmet_cap=0.18, gamma_error=1.0, unmet_penalty=np.full(3, 0.3)
    ),
    "dear": lambda: random_instances(8, (2, 2, 2, 2), budget=60.0, unmet_penalty=np.full(2, 9.0)),
    "one route": lambda: random_instances(5, (2, 2, 2, 2), max_routes=1, gamma_delay=1.5),
}


def asked(
    instances: Instances, plan: Plan | None, limit: Limit, low: float, top: float, rate: float
) -> Ranged:
    one = variants(instances, 0, [limit.at(instances.one(0), top)])
    at = limit.position[0] if limit.position else 0
    return ranged(Ranging(one, limit.constraint, at, top - low, rate, plan))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if n == 0 else pytest.mark.slow) for n, case in enumerate(CASES)]
)
def test_nothing_in_the_interval_is_cheaper_than_the_bound(case: str):
    instances = CASES[case]()
    fields = instances.one(0)
    known = solve_instance(instances, 0)
    cost = known.upper
    tight = moved = 0
    for limit in limits(instances):
        value = limit.value(fields)
        low, top = 0.8 * value, min(1.2 * value, limit.highest)
        grid = np.linspace(low, top, 4)
        there = variants(instances, 0, [limit.at(fields, float(v)) for v in grid])
        best = np.array([solve_instance(there, v).upper for v in range(len(grid))])
        for rate in (0.3 * cost / value, 3.0 * cost / value):
            found = asked(instances, known.plan, limit, low, top, rate)
            least = best + rate * (grid - top)
            assert found.bound <= least.min() + 1e-6 * cost, (limit.label, rate)
            assert low - top - 1e-9 <= found.offset <= 1e-9
            at = variants(instances, 0, [limit.at(fields, top + found.offset)])
            attained = solve_instance(at, 0).upper + rate * found.offset
            tight += attained <= found.bound + 1e-5 * cost
            moved += found.offset < 0
    assert tight > 0.8 * 2 * len(limits(instances)), "or it says nothing"
    assert moved > 0


def test_nothing_is_proven_in_no_time():
    instances = random_instances(21, (3, 2, 2, 2))
    question = Ranging(instances, "budget", 0, 1.0, 1.0, time_limit=1e-9)
    assert ranged(question).bound <= solve_instance(instances, 0).upper


def _dies(_: int) -> None:
    import os

    os._exit(1)


def test_a_pool_maps_in_order_and_says_when_a_worker_dies():
    with Pool(1) as pool:
        assert pool.map(abs, [-3, 2, -1]) == [3, 2, 1]
        with pytest.raises(WorkFailed, match="process died"):
            pool.map(_dies, [0])
        assert pool.map(abs, [-4]) == [4]
