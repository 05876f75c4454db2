"""W against the vertices of the adversary's set, a linear program, and its own algebra; the collapse of z."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rodiu_jax.model.fields import worst_case_inputs
from rodiu_jax.model.uncertainty import worst_case, worst_vertex
from tests.oracles.instances import random_instances
from tests.oracles.worst_case import by_linear_program, by_vertices

_COMPILED = jax.jit(worst_case)


def w(weights: np.ndarray, gamma: float | np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        deviations = jnp.asarray(np.asarray(weights, dtype=np.float64))
        budget = jnp.broadcast_to(jnp.asarray(np.asarray(gamma, dtype=np.float64)), deviations.shape[:-1])
        result = _COMPILED(deviations, budget)
        assert result.dtype == jnp.float64
        return np.asarray(result)


# Of 5, 3, 3, 1: gamma 2.5 takes 5 + 3 + half of the second 3.
@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, 0.0),
        (0.5, 2.5),
        (1.0, 5.0),
        (2.0, 8.0),
        (2.5, 9.5),
        (3.0, 11.0),
        (3.75, 11.75),
        (4.0, 12.0),
        (99.0, 12.0),
    ],
)
def test_known_values(gamma, expected):
    for weights in ([5.0, 3.0, 3.0, 1.0], [3.0, 1.0, 5.0, 3.0]):
        np.testing.assert_allclose(w(np.array(weights), gamma), expected, rtol=1e-14)


def test_equal_weights_share_one_rank_each():
    np.testing.assert_allclose(w(np.full(5, 2.0), 3.25), 6.5, rtol=1e-14)
    np.testing.assert_allclose(w(np.zeros(5), 3.25), 0.0)


def test_leading_axes_have_their_own_budget():
    weights = np.array([[4.0, 2.0, 1.0], [4.0, 2.0, 1.0], [0.0, 0.0, 8.0]])
    np.testing.assert_allclose(w(weights, np.array([0.5, 2.0, 1.5])), [2.0, 6.0, 8.0])


def _weights(count):
    levels = st.one_of(st.floats(0.0, 1e4), st.sampled_from([0.0, 1.0, 2.5]))  # zeros and ties on purpose
    return arrays(np.float64, count, elements=levels)


_BUDGETS = st.one_of(st.floats(0.0, 8.0), st.integers(0, 8).map(float))


@given(_weights(5), _BUDGETS)
def test_agrees_with_enumeration_of_vertices(weights, gamma):
    np.testing.assert_allclose(w(weights, gamma), by_vertices(weights, gamma), rtol=1e-12, atol=1e-12)


@given(_weights(5), _BUDGETS)
def test_the_vertex_attains_it(weights, gamma):
    xi = worst_vertex(weights, np.asarray(gamma))
    assert (xi >= 0).all()
    assert (xi <= 1).all()
    assert xi.sum() <= gamma + 1e-12
    np.testing.assert_allclose((weights * xi).sum(), by_vertices(weights, gamma), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 2.3, 5.999, 7.0, 11.5])
def test_agrees_with_enumeration_at_other_sizes(count, gamma):
    rng = np.random.default_rng(count)
    for weights in (rng.uniform(0, 9, count), rng.integers(0, 3, count).astype(float)):
        np.testing.assert_allclose(w(weights, gamma), by_vertices(weights, gamma), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [60, 200])
@pytest.mark.parametrize("gamma", [0.0, 0.7, 10.0, 33.3, 59.5, 60.0, 500.0])
def test_agrees_with_a_linear_program_on_large_sets(count, gamma):
    rng = np.random.default_rng(count)
    weights = rng.uniform(0, 5, count) * (rng.random(count) < 0.7)
    np.testing.assert_allclose(w(weights, gamma), by_linear_program(weights, gamma), rtol=1e-9, atol=1e-9)


@given(_weights(6), _weights(6), _BUDGETS)
def test_sub_additive(first, second, gamma):
    assert w(first + second, gamma) <= (w(first, gamma) + w(second, gamma)) * (1 + 1e-12) + 1e-12


@given(_weights(6), st.floats(0.0, 1e3), _BUDGETS)
def test_positively_homogeneous(weights, factor, gamma):
    np.testing.assert_allclose(w(factor * weights, gamma), factor * w(weights, gamma), rtol=1e-11, atol=1e-9)


@given(_weights(6), _BUDGETS, _BUDGETS)
def test_monotone_and_concave_in_the_budget(weights, one, other):
    low, high = sorted((one, other))
    assert w(weights, low) <= w(weights, high) * (1 + 1e-12)
    middle = w(weights, (low + high) / 2)
    assert middle >= (w(weights, low) + w(weights, high)) / 2 * (1 - 1e-12)


@given(_weights(6), _BUDGETS, st.permutations(range(6)))
def test_order_of_entries_is_irrelevant(weights, gamma, order):
    np.testing.assert_allclose(w(weights[list(order)], gamma), w(weights, gamma), rtol=1e-12, atol=1e-12)


_FOUR = arrays(np.float64, (2, 2), elements=st.floats(0.0, 1.0))


@given(arrays(np.bool_, (2, 2)), _FOUR, _FOUR, _FOUR, _BUDGETS)
def test_decision_dependent_product_collapses(serves, part, impact, deviation, gamma):
    """The explicit product deviation (1 - impact z) x of MODEL section 3, against the deviations shrunk beforehand."""
    f = random_instances(0, (1, 2, 2, 1)).one(0)
    f = f._replace(delay_deviation=deviation[None], delay_impact=impact, error_impact=impact[::-1])
    share = part * serves  # z is 0 or 1, and 0 <= x <= z
    shrunk, _, budget, _ = worst_case_inputs(f._replace(gamma_delay=np.float64(gamma)), "ddu")
    explicit = by_vertices((deviation * (1.0 - impact * serves) * share).ravel(), gamma)
    np.testing.assert_allclose(
        w((shrunk[0] * share).ravel(), float(budget)), explicit, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_collapse_holds_for_the_worst_case_of_a_type(seed):
    instances = random_instances(seed, (2, 3, 2, 2))
    f, rng = instances.one(0), np.random.default_rng(seed)
    delay_deviation, error_deviation, gamma_d, gamma_e = worst_case_inputs(f, "ddu")
    for i in range(2):
        z = rng.random((3, 2)) < 0.5
        x = rng.random((3, 2)) * z
        for drawn, impact, collapsed, gamma in (
            (f.delay_deviation[i], f.delay_impact, delay_deviation[i], gamma_d),
            (f.error_deviation[i], f.error_impact, error_deviation[i], gamma_e),
        ):
            explicit = by_vertices((drawn * (1.0 - impact * z) * x).ravel(), float(gamma))
            np.testing.assert_allclose(w((collapsed * x).ravel(), float(gamma)), explicit, rtol=1e-12)


@pytest.mark.parametrize(
    ("mode", "delay", "error", "budgets"),
    [
        ("none", 0.8, 0.2, (0.0, 0.0)),
        ("diu", 0.8, 0.2, (1.5, 2.5)),
        ("ddu", 0.6, 0.02, (1.5, 2.5)),  # 0.8 less a quarter; 0.2 less nine tenths
    ],
)
def test_modes_change_what_the_adversary_has(mode, delay, error, budgets):
    entries, pairs = np.ones((2, 2, 2)), np.ones((2, 2))
    f = random_instances(
        0,
        (2, 2, 2, 2),
        gamma_delay=1.5,
        gamma_error=2.5,
        delay_deviation=0.8 * entries,
        error_deviation=0.2 * entries,
        delay_impact=0.25 * pairs,
        error_impact=0.9 * pairs,
    ).one(0)
    d, e, gamma_d, gamma_e = worst_case_inputs(f, mode)
    assert (gamma_d, gamma_e) == budgets
    np.testing.assert_allclose(d, np.full((2, 2, 2), delay))
    np.testing.assert_allclose(e, np.full((2, 2, 2), error))
