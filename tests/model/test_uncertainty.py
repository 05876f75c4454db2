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


@given(st.booleans(), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1e3))
def test_decision_dependent_product_collapses(serves, part, impact, deviation):
    # z is 0 or 1 and 0 <= x <= z. If z = 1 both sides are the same; if z = 0 then x = 0 and both vanish.
    z = float(serves)
    x = part * z
    assert deviation * (1.0 - impact * z) * x == deviation * (1.0 - impact) * x


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


def test_modes_change_what_the_adversary_has():
    f = random_instances(0, (2, 2, 2, 2), gamma_delay=1.5, gamma_error=2.5).one(0)
    for mode, delay, error, budgets in (
        ("none", f.delay_deviation, f.error_deviation, (0.0, 0.0)),
        ("diu", f.delay_deviation, f.error_deviation, (1.5, 2.5)),
        (
            "ddu",
            f.delay_deviation * (1 - f.delay_impact),
            f.error_deviation * (1 - f.error_impact),
            (1.5, 2.5),
        ),
    ):
        d, e, gamma_d, gamma_e = worst_case_inputs(f, mode)
        assert (gamma_d, gamma_e) == budgets
        np.testing.assert_allclose(d, delay)
        np.testing.assert_allclose(e, error)
