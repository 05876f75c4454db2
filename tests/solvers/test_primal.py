"""Routing by the interior-point method against HiGHS, and the moves of the search over deployments."""

import math
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.fields import FIELD_SPECS, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route
from solvers.dual import Ascended, Ascent, ascend_and_certify, certify, derive_coefficients
from solvers.formulation import build
from solvers.highs import run_highs
from solvers.primal import (
    Search,
    Tried,
    _best_grouping,
    _neighbours,
    first_deployments,
    neighbours,
    prices,
    route_cost,
)
from tests.oracles.instances import default_instances, random_instances
from tests.solvers.test_dual import above, relaxed_optimum

SMALL = (2, 2, 3, 2)
BATCH = 32
SLOTS = 4
EXACT_GAMMA = {"gamma_delay": [6.0] * BATCH, "gamma_error": [6.0] * BATCH}


@partial(jax.jit, static_argnames=("function", "mode"))
def _mapped(fields, arrays, function, mode):
    def one(fields, rows):
        return function(derive_coefficients(fields, mode), *rows)

    axes = Fields(
        *(0 if np.ndim(v) > len(FIELD_SPECS[n].axes) else None for n, v in fields._asdict().items())
    )
    return jax.vmap(one, in_axes=(axes, 0))(fields, arrays)


def mapped(instances: Instances, function, *arrays):
    """``function(coefficients, *row)`` of every scenario, in float64, compiled."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _mapped(instances.fields, arrays, function, instances.uncertainty))


def cost(c, slot):
    return route_cost(c, slot, 25, False).cost


def rough_cost(c, slot):
    found = route_cost(c, slot, Search().iterations, False)
    return found.cost, found.sure


def shares_of(c, slot):
    return route_cost(c, slot, 25, False).share


def limited(c, slot):
    found = route_cost(c, slot, 25, True)
    return found.cost, found.share


def random_slots(rng: np.random.Generator, instances: Instances) -> np.ndarray:
    """A random deployment of 0 to 3 pairs per scenario whose weights fit the GPUs, in shuffled slots; (B,D)."""
    _, _, gpus, degrees = instances.shape
    slots = np.full((instances.size, SLOTS), -1)
    for b in range(instances.size):
        triple = rng.permutation(build(instances, b).triple)
        _, first = np.unique(triple[:, :2], axis=0, return_index=True)
        chosen = triple[np.sort(first)][: rng.integers(0, 4)]
        flat = (chosen[:, 0] * gpus + chosen[:, 1]) * degrees + chosen[:, 2]
        slots[b, rng.permutation(SLOTS)[: len(flat)]] = flat
    return slots


def positions(instances: Instances, slot: np.ndarray) -> np.ndarray:
    """(D,3) positions (j, k, n) of the occupied slots."""
    _, _, gpus, degrees = instances.shape
    pair, n = np.divmod(slot[slot >= 0], degrees)
    return np.stack([pair // gpus, pair % gpus, n], 1)


def named(instances: Instances, b: int, slot: np.ndarray, share: np.ndarray) -> Plan:
    """The plan of slots and shares (I,D), unchanged but for shares below 0."""
    share = np.maximum(share[:, slot >= 0], 0.0)
    triples = positions(instances, slot)
    names = [(instances.model_names[j], instances.gpu_names[k]) for j, k, _ in triples]
    degrees = instances.one(b).tp_degree
    return Plan(
        b,
        tuple(DeployedPair(*m, int(degrees[n])) for m, (_, _, n) in zip(names, triples, strict=True)),
        tuple(
            Route(q, *m, float(share[i, d]))
            for i, q in enumerate(instances.query_names)
            for d, m in enumerate(names)
            if share[i, d] > 0
        ),
        {q: float(max(1.0 - share[i].sum(), 0.0)) for i, q in enumerate(instances.query_names)},
    )


def highs_cost(instances: Instances, b: int, slot: np.ndarray) -> float:
    """Optimum of HiGHS's routing LP; inf where there is none or the weights or the money do not suffice."""
    answer = run_highs(
        build(instances, b, deployed=positions(instances, slot)),
        primal_feasibility_tolerance=1e-9,
        dual_feasibility_tolerance=1e-9,
        solver="simplex",
    )
    return answer.objective if answer.columns is not None else math.inf


def test_routing_costs_what_highs_finds():
    # Exact where no type can use more than Gamma pairs; without an adversary too, see the next but one.
    instances = random_instances(
        3, SMALL, batch=BATCH, **EXACT_GAMMA, kv_per_token=np.full((BATCH, 2), 0.015)
    )
    slots = random_slots(np.random.default_rng(0), instances)
    expected = np.array([highs_cost(instances, b, slots[b]) for b in range(BATCH)])
    found = mapped(instances, cost, slots)
    known = np.isfinite(expected)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)
    assert known.sum() > BATCH // 2
    assert (found[~known] == math.inf).all()


def test_routing_never_undercuts_highs_under_any_adversary():
    # The worst case is taken as min(1, Gamma) times the plain sum, which is never too small.
    instances = random_instances(4, SMALL, batch=BATCH, delay_threshold=np.full((BATCH, 2), 200.0))
    slots = random_slots(np.random.default_rng(1), instances)
    expected = np.array([highs_cost(instances, b, slots[b]) for b in range(BATCH)])
    found = mapped(instances, cost, slots)
    assert not (found < expected * (1 - 1e-6)).any()
    assert np.isfinite(found).sum() > BATCH // 2
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


def test_default_routing():
    # 4 of 60 pairs, 6 types.
    instances = default_instances(8, seed=2, mode="none")
    slots = random_slots(np.random.default_rng(2), instances)
    expected = np.array([highs_cost(instances, b, slots[b]) for b in range(8)])
    known = np.isfinite(expected)
    assert known.sum() > 3
    np.testing.assert_allclose(mapped(instances, cost, slots)[known], expected[known], rtol=1e-5)


def test_what_cannot_be_served_is_refused():
    # Every query must be served: costs are infinite, or the checker refuses the plan.
    everything = {"unmet_cap": [0.0] * BATCH, "kv_per_token": np.full((BATCH, 2), 0.02)}
    instances = random_instances(5, SMALL, batch=BATCH, **EXACT_GAMMA, **everything)
    slots = random_slots(np.random.default_rng(3), instances)
    found = mapped(instances, cost, slots)
    shares = mapped(instances, shares_of, slots)
    feasible = 0
    for b in range(BATCH):
        verdict = check_plan(named(instances, b, slots[b], shares[b]), instances, b)
        possible = math.isfinite(highs_cost(instances, b, slots[b]))
        assert possible or found[b] == math.inf or not verdict.feasible
        assert not possible or math.isfinite(found[b])
        feasible += possible
    assert 0 < feasible < BATCH


def test_shares_pass_the_checker_at_the_cost_found():
    instances = random_instances(6, SMALL, batch=BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(4), instances)
    found = mapped(instances, cost, slots)
    shares = mapped(instances, shares_of, slots)
    assert (shares.transpose(0, 2, 1)[slots < 0] == 0).all()
    known = np.flatnonzero(np.isfinite(found))
    assert len(known) > BATCH // 2
    for b in known.tolist():
        verdict = check_plan(named(instances, b, slots[b], shares[b]), instances, b)
        assert verdict.feasible, verdict.binding
        assert verdict.costs["total_cost"] == pytest.approx(found[b], rel=1e-5)


@pytest.mark.parametrize("most", [1, 2])
def test_route_limit(most):
    instances = random_instances(6, SMALL, batch=BATCH, max_routes=[most] * BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(4), instances)
    free = mapped(instances, cost, slots)
    found, shares = mapped(instances, limited, slots)
    assert ((shares > 1e-7).sum(2) <= most).all()
    assert not (found < free * (1 - 1e-6)).any()
    assert np.isfinite(found[np.isfinite(free)]).mean() > 0.9
    for b in np.flatnonzero(np.isfinite(found)).tolist():
        verdict = check_plan(
            named(instances, b, slots[b], np.where(shares[b] > 1e-7, shares[b], 0)), instances, b
        )
        assert verdict.feasible, verdict.binding
        assert verdict.costs["total_cost"] == pytest.approx(found[b], rel=1e-5)


def test_best_grouping_is_the_least_of_all():
    rng = np.random.default_rng(2)
    for places, types in ((1, 1), (3, 2), (2, 4), (5, 3)):
        cost = rng.normal(size=(places, 2**types))
        cost[rng.random(cost.shape) < 0.2] = np.inf
        cost[-1] = rng.random(2**types)
        with jax.enable_x64(True):
            taken = np.asarray(_best_grouping(jnp.asarray(cost)))
        assert taken.sum() == np.bitwise_or.reduce(taken) == 2**types - 1, "every type has one place"
        all_ways = (
            sum(cost[d, sum(1 << i for i in range(types) if way[i] == d)] for d in range(places))
            for way in product(range(places), repeat=types)
        )
        assert cost[np.arange(places), taken].sum() == pytest.approx(min(all_ways))


def test_single_routes_cost_what_the_best_of_all_choices_does():
    """Against HiGHS's routing of every choice of one route a type."""
    instances = random_instances(8, (3, 2, 3, 2), batch=BATCH, max_routes=[1] * BATCH)
    slots = random_slots(np.random.default_rng(5), instances)
    found, shares = mapped(instances, limited, slots)
    equal, routable = 0, 0
    for b in range(BATCH):
        deployed = positions(instances, slots[b])
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


def test_prices_of_a_routing_are_multipliers_of_the_dual():
    # Any multipliers bound; these, with the deployed triples decided, bound by the cost of the routing itself.
    instances = random_instances(7, SMALL, batch=BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(5), instances)

    def proof(c, slot):
        cost, _, point, routed = route_cost(c, slot, 25, False)
        y = prices(c, slot, point, routed.money)
        flat = jnp.full(c.deploy.size, -1, jnp.int8)
        decided = flat.at[jnp.where(slot >= 0, slot, c.deploy.size)].set(1, mode="drop")
        return cost, certify(c, y)[0], certify(c._replace(decided=decided.reshape(c.deploy.shape)), y)[0]

    cost, free, held = mapped(instances, proof, slots)
    known = np.isfinite(cost)
    assert not above(free, np.array([relaxed_optimum(instances, b) for b in range(BATCH)])).any()
    assert not (held[known] > cost[known] * (1 + 1e-6)).any()
    np.testing.assert_allclose(held[known], cost[known], rtol=1e-4)


def assert_deployments(instances: Instances, slots: np.ndarray, fits: np.ndarray) -> None:
    """Slots hold -1 or a triple that fits, and no pair twice; (B,M,D) and (B,P,N)."""
    degrees = instances.shape[3]
    for b, rows in enumerate(slots):
        for row in rows:
            used = row[row >= 0]
            assert (used < fits[b].size).all()
            assert fits[b].reshape(-1)[used].all()
            assert len(np.unique(used // degrees)) == len(used)


def test_moves_are_deployments():
    instances = random_instances(8, SMALL, batch=BATCH)
    slots = random_slots(np.random.default_rng(6), instances)
    rng = np.random.default_rng(7)
    weights = rng.dirichlet(np.full(3, 0.4), (BATCH, 6))[..., :2]

    def moves(c, slot, weights):
        _, _, point, routed = route_cost(c, slot, 9, False)
        y = prices(c, slot, point, routed.money)
        bound, value = certify(c, y)
        pool = jnp.ones(6, bool)
        first, _ = first_deployments(c, Ascended(bound, y, value, weights), Search(slots=SLOTS))
        return first, _neighbours(c, slot, value, pool, Tried())[0], c.fits

    first, near, fits = mapped(instances, moves, slots, weights)
    assert (first[:, -1] < 0).all(), "deploying nothing is tried too"
    assert_deployments(instances, first, fits)
    assert_deployments(instances, near, fits)
    changed = (np.sort(near, 2) != np.sort(slots, 1)[:, None]).any(2)
    assert changed.any(1).all()


def test_neighbours_cost_no_less_than_said():
    instances = random_instances(9, SMALL, batch=BATCH, **EXACT_GAMMA)
    slots = random_slots(np.random.default_rng(8), instances)
    before = mapped(instances, cost, slots)

    def near(c, slot):
        found, least = neighbours(c, slot, 25, Search())
        return least, jax.vmap(lambda s: cost(c, s))(found)

    least, costs = mapped(instances, near, slots)
    known = np.isfinite(before)
    told = np.isfinite(least)
    assert told[known].any(1).all()
    assert (costs[told] >= least[told] - 1e-4 * np.abs(least[told])).all()
    assert np.isneginf(least[~known]).any(1).all(), "of what cannot be routed every neighbour is worth a try"
    assert ((costs.min(1) < 0.999 * before)[known]).mean() > 0.5


def test_deployments_read_off_a_bound_cost_no_less_than_said():
    instances = random_instances(13, SMALL, batch=BATCH, **EXACT_GAMMA)

    def starts(c):
        slot, least = first_deployments(
            c, ascend_and_certify(c, None, 6, Ascent().controls), Search(slots=SLOTS)
        )
        return least, jax.vmap(lambda s: cost(c, s))(slot)

    least, costs = mapped(instances, starts)
    assert (costs >= least - 1e-6 * np.abs(least)).all()
    assert (costs < least + 0.2 * np.abs(least)).any(1).mean() > 0.5, "the floor says something"


def test_a_single_route_keeps_both_promises_alone():
    # Of two pairs the cheap one breaks the error promise alone; mixed freely it would get the larger share.
    instances = default_instances(16, seed=7).with_fields(max_routes=np.array(1))
    slots = np.tile(np.array([35, 75, -1, -1], np.int32), (16, 1))
    shares = mapped(instances, lambda c, s: route_cost(c, s, 25, True).share, slots)
    free = mapped(
        instances.with_fields(max_routes=np.array(0)), lambda c, s: route_cost(c, s, 25, False).share, slots
    )
    assert ((shares > 1e-6).sum(2) <= 1).all()

    def alone(c, s):
        pair = jnp.maximum(s, 0) // c.deploy.shape[1]
        late = (c.nominal + c.excess)[:, pair] > c.delay_limit[:, None]
        return late | ((c.error + c.error_excess)[:, pair] > c.error_limit[:, None])

    broken = mapped(instances, alone, slots)
    assert not (shares > 1e-6)[broken].any()
    mixed = (free > 1e-6).sum(2) > 1
    lost = broken & (free == free.max(2, keepdims=True)) & mixed[:, :, None]
    saved = lost.any(2) & (shares.sum(2) > 0.5)
    assert saved.any(), "some type would have lost its service"


def test_a_routing_says_when_it_is_not_settled():
    instances = default_instances(16, seed=7)
    slots = np.tile(np.array([3, 43, 83, 123], np.int32), (16, 1))
    settled = mapped(instances, cost, slots)
    found, sure = mapped(instances, rough_cost, slots)
    np.testing.assert_allclose(found[sure], settled[sure], rtol=2e-5)
    early = mapped(instances, lambda c, s: route_cost(c, s, 3, False).sure, slots)
    assert not early.any()
