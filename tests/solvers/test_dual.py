"""Lower bounds: never above HiGHS's optimum, tight where it counts, each scenario on its own, no recompilation."""

import math
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.model.fields import UNCERTAINTY_MODES, Fields, axes_of
from rodiu_jax.model.instance import Instances
from solvers import dual
from solvers._accelerators import Accelerators
from solvers.dual import Ascent, Multipliers, lower_bound_values, lower_bounds
from solvers.dual import bounds as bounds_module
from solvers.exact import _solve_with
from solvers.formulation import build
from solvers.highs import run_highs
from tests.oracles.bounds import above, relaxed_optimum
from tests.oracles.hard_instances import hard_instances
from tests.oracles.instances import random_instances, reordered

SMALL = (2, 2, 3, 2)
CHUNK = 16
EXACT = {"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9, "solver": "simplex"}
STEPS = Ascent(steps=100)
LONG = Ascent(steps=1000)


def optimum(instances: Instances, b: int) -> float:
    """Optimum of the MILP as the model states it; inf where there is none."""
    return _solve_with(Accelerators.none(), instances, b).upper


@partial(jax.jit, static_argnames="mode")
def _values(fields, y, decided, mode):
    def one(fields, y, decided):
        return dual.certify(dual.derive_coefficients(fields, mode)._replace(decided=decided), y)

    axes = Fields(
        *(0 if np.ndim(v) > len(axes_of(n, np.ndim(v))) else None for n, v in fields._asdict().items())
    )
    return jax.vmap(one, in_axes=(axes, 0, 0))(fields, y, decided)


def dual_values(instances: Instances, y: Multipliers, decided: np.ndarray | None = None) -> tuple:
    """`certify` of every scenario at its own multipliers, float64: its bounds and V."""
    _, models, gpus, degrees = instances.shape
    if decided is None:
        decided = np.zeros((instances.size, models * gpus, degrees), np.int8)
    with jax.enable_x64(True):
        bound, value = _values(instances.fields, y, decided, instances.uncertainty)
        assert bound.dtype == value.dtype == np.float64
        return np.asarray(bound), np.asarray(value)


def random_multipliers(rng: np.random.Generator, y: Multipliers) -> Multipliers:
    """Good multipliers disturbed, and pure noise: any sign and size, adversaries outside their sets."""

    def noise(a: np.ndarray) -> np.ndarray:
        tall = (len(a), *(1,) * (a.ndim - 1))
        size = 10.0 ** rng.uniform(-4, 6, tall)
        kind = rng.integers(0, 4, tall)
        wild = size * rng.standard_normal(a.shape)
        near = a * rng.lognormal(0.0, 0.3, a.shape)
        return np.select([kind == 0, kind == 1, kind == 2], [near, a + 0.01 * wild, wild], a).astype(
            np.float64
        )

    return jax.tree.map(lambda a: noise(np.asarray(a, np.float64)), y)


@pytest.fixture(scope="module", params=UNCERTAINTY_MODES)
def hard(request):
    """Hard scenarios of a mode, their optima and bounds."""
    instances = hard_instances(11, SMALL, mode=request.param)
    optima = np.array([optimum(instances, b) for b in range(instances.size)])
    return instances, optima, lower_bounds(instances, ascent=STEPS, chunk=CHUNK)


def test_bounds_are_below_the_optimum(hard):
    _instances, optima, bounds = hard
    assert np.isfinite(bounds.lower).all()
    assert not above(bounds.lower, optima).any(), np.flatnonzero(above(bounds.lower, optima))


def test_bounds_are_near_the_optimum(hard):
    # A bound that is far too low proves nothing about the terms that it lacks. The ascent needs many steps where
    # promises are hard to keep.
    instances, exact, _ = hard
    lower = lower_bounds(instances, ascent=LONG, chunk=CHUNK).lower
    assert not above(lower, exact).any()
    optima = np.array([relaxed_optimum(instances, b) for b in range(instances.size)])
    free = np.isfinite(optima) & (instances.fields.max_routes == 0)
    gap = (optima - lower)[free] / np.maximum(np.abs(optima), 1.0)[free]
    assert np.median(gap) < 2e-3
    assert np.mean(gap) < 0.25
    assert free.sum() > 25


def test_route_limit_lets_every_route_deviate():
    # With one route the worst case is a plain sum once Gamma >= 1: the bound must know, or it is far too low.
    # No promise is in the way of any pair: delays count by what they cost.
    case = {"gamma_delay": [1.0] * 8, "gamma_error": [1.0] * 8, "delay_threshold": np.full((8, 2), 1e6)}
    case |= {"error_threshold": np.ones((8, 2))}
    limited, free = (random_instances(5, SMALL, batch=8, max_routes=[m] * 8, **case) for m in (1, 0))
    one, many = (lower_bounds(i, ascent=STEPS, chunk=CHUNK).lower for i in (limited, free))
    every = lower_bounds(
        free.with_fields(gamma_delay=[6.0] * 8, gamma_error=[6.0] * 8), ascent=STEPS, chunk=CHUNK
    )
    np.testing.assert_allclose(one, every.lower, rtol=1e-6)
    assert (one > many * 1.001).any()


def test_promises_close_routes():
    """With one route a pair that breaks a promise alone serves nobody; with two it needs a better one beside it."""
    case = {"gamma_delay": [1.0] * 24, "gamma_error": [1.0] * 24, "error_threshold": np.full((24, 2), 0.13)}
    limited = random_instances(6, SMALL, batch=24, max_routes=[1, 2] * 12, **case)
    free = limited.with_fields(max_routes=[0] * 24)
    optima = np.array([optimum(limited, b) for b in range(24)])
    lower = lower_bounds(limited, ascent=LONG, chunk=CHUNK).lower
    assert not above(lower, optima).any()
    relaxed = np.array([relaxed_optimum(free.with_fields(gamma_error=[6.0] * 24), b) for b in range(24)])
    assert (lower > relaxed * 1.01)[::2].sum() > 3, "more is proven than without the limit"


def test_any_multipliers_give_a_bound(hard):
    instances, optima, bounds = hard
    rng = np.random.default_rng(3)
    useful = 0
    for _ in range(20):
        values, _ = dual_values(instances, random_multipliers(rng, bounds.multipliers))
        assert np.isfinite(values).all()
        assert not above(values, optima).any(), np.flatnonzero(above(values, optima))
        useful += (values > 0.5 * optima).sum()
    assert useful > 50, "not all of them are hopeless"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_multipliers_that_are_no_numbers_prove_nothing_false(hard, bad):
    instances, optima, bounds = hard
    arrays = [a.astype(np.float64) for a in jax.tree.leaves(bounds.multipliers)]
    for b in range(instances.size):
        arrays[b % 9][b, ...] = bad
    values, _ = dual_values(instances, Multipliers(*arrays))
    assert not np.isnan(values).any()
    assert not above(values, optima).any()
    if math.isnan(bad):
        assert (values == -math.inf).mean() > 0.5


def test_bound_is_the_dual_function_at_the_multipliers(hard):
    instances, _, bounds = hard
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(bounds.multipliers))
    again, _ = dual_values(instances, jax.tree.map(lambda a: a.astype(np.float64), bounds.multipliers))
    np.testing.assert_allclose(again, bounds.lower, rtol=1e-9, atol=1e-9)


def test_decided_triples(hard):
    """A triple in the plan adds its V, one outside it takes its part away; both bound the restricted optimum."""
    instances, _, bounds = hard
    y = jax.tree.map(lambda a: a.astype(np.float64), bounds.multipliers)
    _, models, gpus, degrees = instances.shape
    free, value = dual_values(instances, y)
    rng = np.random.default_rng(0)
    picks = {b: run_triples(instances, b) for b in range(instances.size)}
    rows = np.array([b for b, triples in picks.items() if len(triples)])
    chosen = {b: picks[b][rng.integers(len(picks[b]))] for b in rows.tolist()}
    for sign in (1, -1):
        decided = np.zeros((instances.size, models * gpus, degrees), np.int8)
        for b in rows.tolist():
            j, k, n = chosen[b]
            decided[b, j * gpus + k, n] = sign
        bound, _ = dual_values(instances, y, decided)
        for b in rows.tolist():
            j, k, n = chosen[b]
            v = value[b, j * gpus + k]
            without = np.delete(v, n)
            expected = v[n] if sign > 0 else min(without.min(initial=0.0), 0.0)
            change = expected - min(v.min(), 0.0)
            assert bound[b] - free[b] == pytest.approx(change, rel=1e-6, abs=1e-6 * max(abs(free[b]), 1.0))
            if instances.one(b).max_routes == 0:
                formulation = build(instances, b)
                at = np.flatnonzero((formulation.triple == chosen[b]).all(1))[0]
                limits = {"lower": formulation.lower.copy(), "upper": formulation.upper.copy()}
                limits["lower" if sign > 0 else "upper"][at] = 1.0 if sign > 0 else 0.0
                answer = run_highs(replace(formulation, **limits), mip_rel_gap=0.0, **EXACT)
                least = answer.objective if math.isfinite(answer.bound) else math.inf
                assert not above(bound[b], np.array(least)), (b, sign)


def run_triples(instances: Instances, b: int) -> np.ndarray:
    """Positions (j, k, n) of the triples that can be deployed at all."""
    return build(instances, b).triple


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 1, 3)])
def test_one_model_on_one_gpu(shape):
    instances = random_instances(1, shape, batch=CHUNK, gamma_delay=np.linspace(0.0, 2.0, CHUNK))
    optima = np.array([relaxed_optimum(instances, b) for b in range(CHUNK)])
    for ascent in (STEPS, LONG):
        lower = lower_bounds(instances, ascent=ascent, chunk=CHUNK).lower
        assert not above(lower, optima).any()
    assert np.median(1 - lower / optima) < 0.02


@pytest.mark.parametrize("catalogue", ["seed", "corrected"])
def test_default_catalogues(catalogue):
    instances = sample(catalogue, n=16, seed=1)
    optima = np.array([relaxed_optimum(instances, b) for b in range(16)])
    bounds = lower_bounds(instances, ascent=Ascent(steps=150), chunk=16)
    gap = 1 - bounds.lower / optima
    assert (gap >= -1e-9).all()
    assert np.mean(gap) <= 1e-3
    assert np.max(gap) <= 5e-3


@pytest.mark.parametrize(
    ("name", "value", "nothing"),
    [
        ("gpu_price", math.nan, True),
        ("delay_nominal", math.nan, True),
        ("budget", math.nan, True),
        ("arrival_rate", math.inf, True),
        ("gpu_price", 1e39, False),
        ("unmet_penalty", 1e39, False),
        ("delay_nominal", 1e39, False),
        ("unmet_penalty", 1e308, False),
        ("delay_threshold", 1e300, False),
        ("gamma_delay", 1e39, False),
    ],
)
def test_neighbours_of_a_bad_scenario_are_unchanged(name, value, nothing):
    instances = random_instances(2, SMALL, batch=5)
    clean = lower_bounds(instances, ascent=STEPS, chunk=CHUNK)
    poisoned = np.array(getattr(instances.fields, name))
    poisoned[3].flat[:1] = value
    poisoned[3] = poisoned[3] if poisoned.ndim > 1 else value
    bad = replace(instances, fields=instances.fields._replace(**{name: poisoned}))
    bounds = lower_bounds(bad, ascent=STEPS, chunk=CHUNK)
    others = [0, 1, 2, 4]
    np.testing.assert_array_equal(bounds.lower[others], clean.lower[others])
    for found, kept in zip(*map(jax.tree.leaves, (bounds.multipliers, clean.multipliers)), strict=True):
        np.testing.assert_array_equal(found[others], kept[others])
    if nothing:
        assert bounds.lower[3] == -math.inf
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            serve_nothing = (
                bad.one(3).rental_hours * bad.one(3).unmet_penalty * bad.one(3).arrival_rate
            ).sum()
        assert bounds.lower[3] <= serve_nothing


def test_rows_do_not_depend_on_the_batch_and_nothing_recompiles():
    instances = random_instances(9, SMALL, batch=40)
    whole = lower_bounds(instances, ascent=STEPS, chunk=CHUNK)
    compiled = bounds_module._bound_block.__wrapped__._cache_size()
    for rows in ([17], [39, 3, 17, 8, 20, 0, 31], list(range(39, -1, -1))):
        part = lower_bounds(instances.take(rows), ascent=STEPS, chunk=CHUNK)
        np.testing.assert_array_equal(part.lower, whole.lower[rows])
        for found, expected in zip(*map(jax.tree.leaves, (part.multipliers, whole.multipliers)), strict=True):
            np.testing.assert_array_equal(found, expected[rows])
    lower_bounds(instances, ascent=Ascent(steps=20, rate=0.2), chunk=CHUNK)
    assert bounds_module._bound_block.__wrapped__._cache_size() == compiled


@pytest.mark.shipped  # at a lower level of optimisation the paths of some ascents part
def test_other_chunks_give_the_same_bounds():
    instances = random_instances(9, SMALL, batch=11)
    one, other = (lower_bounds(instances, ascent=STEPS, chunk=c).lower for c in (CHUNK, 4))
    # Last bits may differ: another block is another program.
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.slow
def test_start_from_multipliers():
    instances = sample("seed", n=8, seed=4)
    cold = lower_bounds(instances, chunk=16)
    rough = lower_bounds(instances, ascent=Ascent(steps=25), chunk=16)
    warm = lower_bounds(
        instances, ascent=Ascent(steps=25, rate=0.05, warm=2e-3), start=cold.multipliers, chunk=16
    )
    assert np.mean(warm.lower - rough.lower) > 0.001 * np.mean(cold.lower)
    assert (warm.lower > 0.995 * cold.lower).all()
    few = lower_bounds(instances, ascent=Ascent(steps=1, rate=1e-9), start=cold.multipliers, chunk=16)
    np.testing.assert_allclose(few.lower, cold.lower, rtol=1e-6)


MONEY = ("gpu_price", "storage_price", "delay_penalty", "unmet_penalty", "budget")


def test_bounds_scale_with_money():
    instances = random_instances(6, SMALL, batch=CHUNK)
    dearer = instances.with_fields(**{n: 100.0 * getattr(instances.fields, n) for n in MONEY})
    one, other = (lower_bounds(i, ascent=LONG, chunk=CHUNK).lower for i in (instances, dearer))
    np.testing.assert_allclose(other, 100.0 * one, rtol=5e-4)  # the ascents' float32 paths part
    assert np.median(np.abs(other / (100.0 * one) - 1)) < 5e-5


def test_bounds_do_not_depend_on_the_order_of_names():
    instances = random_instances(8, SMALL, batch=CHUNK)
    shuffled = reordered(instances, ([1, 0], [1, 0], [2, 0, 1]))
    one, other = (lower_bounds(i, ascent=LONG, chunk=CHUNK).lower for i in (instances, shuffled))
    np.testing.assert_allclose(one, other, rtol=3e-4)  # as far as a long ascent leaves the optimum of the LP
    assert np.median(np.abs(one / other - 1)) < 5e-5


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 2.5, 7.0, 99.0])
def test_feasible_multipliers_keep_the_adversary_in_its_set(gamma):
    # sum xi <= Gamma per type and 0 <= xi <= 1, whatever comes in: without it a "bound" can pass the optimum
    rng = np.random.default_rng(3)
    instances = random_instances(3, SMALL, gamma_delay=gamma, gamma_error=gamma)
    with jax.enable_x64(True):
        c = dual.derive_coefficients(jax.tree.map(jax.numpy.asarray, instances.one(0)), "diu")
        pairs = c.nominal.shape
        wild = jax.numpy.asarray(rng.normal(0.5, 2.0, pairs))
        zero = jax.numpy.zeros(pairs[0])
        triples = jax.numpy.full(c.deploy.shape, -1.0)
        y = dual.feasible(
            c, Multipliers(zero, zero - 1, zero - 1, zero[0] - 1, zero[0] - 1, triples, triples, wild, wild)
        )
    for xi in (np.asarray(y.delay_adversary), np.asarray(y.error_adversary)):
        assert ((xi >= 0) & (xi <= 1)).all()
        assert (xi.sum(1) <= gamma).all()
        assert np.allclose(xi.sum(1), np.minimum(np.clip(wild, 0, 1).sum(1), gamma))
    assert all(float(np.min(np.asarray(a))) >= 0 for a in y[1:7])


@pytest.mark.shipped
def test_values_alone_of_scenarios_on_the_device(monkeypatch: pytest.MonkeyPatch):
    instances = sample("seed", n=70, seed=5)
    usual = lower_bounds(instances, chunk=16).lower
    with jax.enable_x64(True):
        there = replace(instances, fields=jax.device_put(instances.fields))
    monkeypatch.setattr(Instances, "take", lambda *_: pytest.fail("rows were taken on the host"))
    np.testing.assert_allclose(lower_bound_values(there, chunk=16), usual, rtol=1e-5)
