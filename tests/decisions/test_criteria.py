"""Criteria of weighted scenarios against their definitions, and as equal scenarios that are repeated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.analysis.intervals import (
    clopper_pearson,
    count_effective,
    mean_interval,
    weighted_mean_interval,
)
from rodiu_jax.decisions.choose.criteria import Cvar, Expected, Regret, Worst

CRITERIA = (Expected(), Cvar(0.3), Cvar(0.8), Worst(), Regret())

weighted_costs = st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 5)), min_size=1, max_size=10)


@given(weighted_costs, st.floats(0.01, 0.99))
def test_weighted_cvar_is_the_least_of_its_definition(drawn, level):
    # min over t of t + sum of p max(c - t, 0) / (1 - level), attained at one of the costs.
    costs, weights = np.array(drawn).T
    probability = weights / weights.sum()
    best = min(t + probability @ np.maximum(costs - t, 0) / (1 - level) for t in costs)
    assert Cvar(level).value(costs, weights) == pytest.approx(best, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("level", [1 - 1e-10, 0.9999999999999])
def test_cvar_near_one_is_the_dearest(level):
    assert Cvar(level).value(np.arange(100.0)) == pytest.approx(99.0)
    assert Cvar(level).value(np.array([1.0, 2.0]), np.array([0.5, 0.5])) == pytest.approx(2.0)
    np.testing.assert_array_equal(Cvar(level).planes(np.array([1.0, 3.0, 2.0])), [[0.0, 1.0, 0.0]])


@given(weighted_costs)
def test_a_weight_of_three_is_three_scenarios(drawn):
    costs, weights = np.array(drawn).T
    copies = np.repeat(costs, weights.astype(int))
    for criterion in CRITERIA:
        assert criterion.value(costs, weights) == pytest.approx(
            float(criterion.value(copies)), rel=1e-9, abs=1e-9
        )
        assert criterion.value(costs, 7.0 * weights) == pytest.approx(
            float(criterion.value(costs, weights)), rel=1e-12
        )


def test_planes_of_weighted_criteria_touch_them_and_lie_below():
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.uniform(0.1, 3.0, 7)
        here, there = rng.uniform(0, 100, (2, 7))
        for criterion in CRITERIA:
            planes = criterion.planes(here, weights)
            assert planes[0] @ here == pytest.approx(float(criterion.value(here, weights)))
            assert (planes @ there <= float(criterion.value(there, weights)) + 1e-9).all()
            np.testing.assert_allclose(planes.sum(1), 1.0)


def test_rows_of_costs_and_what_is_infinite():
    costs = np.array([[1.0, 9.0, 4.0], [math.inf, 2.0, 3.0]])
    weights = np.array([1.0, 1.0, 2.0])
    np.testing.assert_allclose(Expected().value(costs, weights), [4.5, math.inf])
    # 1 - level = 1/2: the 9 has 1/4, the 4 the other; the inf counts, then the 3 has 1/4
    np.testing.assert_allclose(Cvar(0.5).value(costs, weights), [6.5, math.inf])
    finite = np.array([3.0, math.inf])
    assert Cvar(0.5).value(finite[None, :1], np.ones(1))[0] == 3.0


def test_screening_counts_by_weight():
    costs, weights = np.array([5.0, 1.0, 9.0, 3.0]), np.array([1.0, 1.0, 1.0, 7.0])
    draw = np.random.default_rng(0)
    # the dearest 35 %: all of 9, 5 and half a tenth of 3
    assert Cvar(0.75).screening_rows(costs, 4, draw, weights).tolist() == [0, 2, 3]
    assert Cvar(0.75).screening_rows(costs, 4, draw).tolist() == [2]
    assert Expected().screening_value(costs[None], weights).tolist() == [3.6]


def test_equal_weights_give_the_intervals_of_a_plain_sample():
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 1, 40)
    even = np.full(40, 1 / 40)
    assert count_effective(even) == pytest.approx(40)
    assert weighted_mean_interval(values, even) == pytest.approx(mean_interval(values))
    assert all(math.isnan(v) for v in weighted_mean_interval(values, np.eye(40)[3]))
    assert Expected().sampling_interval(values, seed=0) == pytest.approx(mean_interval(values))


def test_weighted_intervals_cover():
    rng = np.random.default_rng(2)
    hits = {"mean": 0, "tail": 0, "share": 0}
    weights = rng.choice([1.0, 4.0], 200)
    for _ in range(40):
        costs = rng.uniform(0, 1, 200)  # of any weight alike, so that the truth is that of equal ones
        low, high = Expected().sampling_interval(costs, weights, seed=1)
        hits["mean"] += low <= 0.5 <= high
        low, high = Cvar(0.8).sampling_interval(costs, weights, seed=1)
        hits["tail"] += low <= 0.9 <= high
        probability = weights / weights.sum()
        count = count_effective(probability)
        low, high = clopper_pearson(float(probability @ (costs > 0.7)) * count, np.array(count))
        hits["share"] += low <= 0.3 <= high
    assert min(hits.values()) >= 34
    assert hits["mean"] < 40
