"""The nominal catalogue: means against integrals, rules of means, and whole numbers."""

from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from rodiu_jax.catalog import Distribution, load_catalog
from tests.oracles.tiny import TINY


@pytest.mark.parametrize(
    ("kind", "numbers", "mean"),
    [
        ("fixed", (3.0,), 3.0),
        ("uniform", (1.0, 5.0), 3.0),
        ("choice", (1.0, 2.0, 6.0), 3.0),
        ("log_uniform", (1.0, np.e), np.e - 1),  # the integral of 1 over ln(e / 1)
        ("log_uniform", (2.0, 2.0), 2.0),
        ("normal", (1.0, 2.0, -3.0, 5.0), 1.0),  # symmetric
    ],
)
def test_means_in_closed_form(kind: str, numbers: tuple[float, ...], mean: float):
    assert Distribution(kind, numbers).mean == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize(
    "numbers", [(0.0, 1.0, 0.5, 3.0), (2.0, 0.3, -1.0, 1.5), (0.0, 1.0, -9.0, -3.0), (5.0, 10.0, 0.0, 1.0)]
)
def test_the_mean_of_a_cut_normal_is_its_integral(numbers: tuple[float, float, float, float]):
    mean, sd, low, high = numbers
    density = stats.norm(mean, sd).pdf
    expected = integrate.quad(lambda x: x * density(x), low, high)[0] / integrate.quad(density, low, high)[0]
    assert Distribution("normal", numbers).mean == pytest.approx(expected, rel=1e-7)


def test_at_means_nothing_is_drawn_and_rules_are_of_means(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(TINY)
    catalog = load_catalog(tmp_path / "tiny.toml")
    nominal = catalog.at_means()
    assert catalog.varying
    assert not nominal.varying
    for name in catalog.quantities:
        (low, high), (value, same) = catalog.ranges[name], nominal.ranges[name]
        assert np.array_equal(value, same)
        assert (low - 1e-9 * np.abs(low) <= value).all()
        assert (value <= high + 1e-9 * np.abs(high)).all()
    low, high = catalog.ranges["arrival_rate"]
    assert nominal.ranges["arrival_rate"][0] == pytest.approx((low + high) / 2)
    assert nominal.checked() is nominal


def test_what_must_be_whole_takes_a_value_that_can_be_drawn(tmp_path: Path):
    path = tmp_path / "routes.toml"
    path.write_text(TINY + "[quantity.max_routes]\neach = { choice = [1, 4, 2, 8] }\n")
    assert load_catalog(path).at_means().ranges["max_routes"][0] == 2.0
