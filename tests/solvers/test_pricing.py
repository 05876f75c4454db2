"""The LP by pricing: its bound is the LP's optimum, its dual function that of `solvers.dual`, what it excludes dear."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import dual
from solvers.dual import Multipliers
from solvers.formulation import assemble
from solvers.highs import run_highs
from solvers.pricing import dual_function, price
from solvers.terms import collect
from tests.oracles.instances import default_instances, random_instances, scenarios

SMALL = (2, 2, 3, 2)


def relaxation(formulation):
    answer = run_highs(formulation, relax=True, presolve="off")
    return None if answer.row_dual is None else (answer.objective, answer.row_dual)


def priced(terms, gpus):
    return price(terms, gpus, relaxation, np.zeros(len(terms.pair), bool))


@settings(max_examples=60)
@given(scenarios(SMALL))
def test_bound_is_the_optimum_of_the_relaxation(instances):
    terms = collect(instances, 0)
    found = priced(terms, 3)
    optimum = run_highs(assemble(terms, 3), relax=True)
    if np.isfinite(optimum.bound):
        assert found.bound <= optimum.bound * (1 + 1e-7) + 1e-6
        if terms.max_routes == 0:  # the dual function relaxes the limit of routes
            assert found.bound >= optimum.bound * (1 - 1e-6) - 1e-6


@settings(max_examples=30)
@given(scenarios(SMALL))
def test_forcing_a_triple_costs_what_is_claimed(instances):
    terms = collect(instances, 0)
    found = priced(terms, 3)
    formulation = assemble(terms, 3)
    for t in range(0, len(terms.pair), 3):
        lower = formulation.lower.copy()
        lower[t] = 1.0
        forced = run_highs(replace(formulation, lower=lower), relax=True)
        if np.isfinite(forced.bound):
            assert found.bound + found.reduced[t] <= forced.bound * (1 + 1e-7) + 1e-6


@pytest.mark.parametrize("count", [2, 3, 5])
def test_plans_of_many_pairs_cost_what_is_claimed(count):
    instances = random_instances(3, SMALL, gamma_delay=1.5)
    terms = collect(instances, 0)
    found = priced(terms, 3).beyond(terms.pair, count)
    formulation = assemble(terms, 3)
    row = np.arange(len(terms.pair), dtype=np.int32)
    more = replace(
        formulation,
        start=np.append(formulation.start, formulation.start[-1] + len(row)).astype(np.int32),
        index=np.append(formulation.index, row).astype(np.int32),
        value=np.append(formulation.value, np.ones(len(row))),
        row_lower=np.append(formulation.row_lower, float(count)),
        row_upper=np.append(formulation.row_upper, np.inf),
        row_unit=np.append(formulation.row_unit, 1.0),
    )
    optimum = run_highs(more, relax=True).bound
    assert found.min() <= optimum * (1 + 1e-7)
    for t in range(len(terms.pair)):
        lower = more.lower.copy()
        lower[t] = 1.0
        forced = run_highs(replace(more, lower=lower), relax=True)
        assert np.isinf(forced.bound) or found[t] <= forced.bound * (1 + 1e-7)
    assert np.isinf(priced(terms, 3).beyond(terms.pair, 7)).all(), "there are six pairs"


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
@pytest.mark.parametrize("routes", [0, 2])
def test_dual_function_is_that_of_the_device(mode, routes):
    # Any multipliers: drawn at random, some of the wrong sign, adversaries outside their sets.
    instances = random_instances(5, (3, 2, 3, 2), mode=mode, max_routes=routes, budget=1e6, storage_capacity=1e6,
                                 weight_memory=[1.0, 2.0], gamma_delay=1.3, gamma_error=1.7,
                                 delay_threshold=[1e5] * 3, error_threshold=[2.0] * 3)  # fmt: skip
    terms = collect(instances, 0)
    assert len(terms.pair) == 12
    rng = np.random.default_rng(0)
    f = instances.one(0)
    with jax.enable_x64(True):
        c = dual.derive_coefficients(jax.tree.map(jax.numpy.asarray, f), mode)
        for _ in range(10):
            scale = rng.choice([0.0, 1.0, 30.0], 9)
            y = Multipliers(
                rng.normal(100, 100, 3), rng.normal(0, 0.1, 3) * scale[1], rng.normal(0, 100, 3) * scale[2],
                rng.normal() * scale[3], rng.normal() * 0.1, rng.normal(0, 0.1, (6, 2)) * scale[5],
                rng.normal(0, 0.1, (6, 2)) * scale[6], rng.random((3, 6)) * scale[7],
                rng.random((3, 6)) * scale[8],
            )  # fmt: skip
            here = dual.evaluate_dual(dual.derive_coefficients(f, mode), y)
            there = dual.evaluate_dual(c, jax.tree.map(jax.numpy.asarray, y))
            assert isinstance(there.value, jax.Array)
            for mine, other in zip(here, there, strict=True):
                np.testing.assert_allclose(mine, np.asarray(other), rtol=1e-12, atol=1e-9)
            better = dual_function(terms, y)
            assert better.bound >= here.bound - 1e-9 * abs(here.bound), "more orders, a higher bound"
            if mode != "none":  # without an adversary every multiplier of one is 0, whoever asks
                assert better.bound == pytest.approx(float(here.bound), rel=0.02, abs=1.0)
            assert (better.value >= here.value.reshape(-1) - 1e-9 * np.abs(better.value)).all()


def test_few_triples_are_enough():
    instances = default_instances(2, seed=3)
    sizes = []

    def counted(formulation):
        sizes.append(len(formulation.triple))
        return relaxation(formulation)

    for b in range(2):
        terms = collect(instances, b)
        sizes.clear()
        found = price(terms, 10, counted, np.zeros(len(terms.pair), bool))
        assert max(sizes) < len(terms.pair) // 3
        assert found.bound == pytest.approx(run_highs(assemble(terms, 10), relax=True).bound, rel=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_restricted_programs_without_an_answer_prove_nothing(seed):
    terms = collect(random_instances(seed, SMALL), 0)
    found = price(terms, 3, lambda _: None, np.zeros(len(terms.pair), bool))
    assert found.bound == -np.inf
    assert (found.reduced == 0).all()
