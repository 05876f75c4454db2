"""Points of curves as requests at once, by hand."""

from __future__ import annotations

import pytest

import rodiu_jax as rj
from rodiu_jax.catalog.promises import Curve, Point
from rodiu_jax.catalog.service_times import find_service_points


def make_curve(*points: tuple[float, dict[str, float]]) -> Curve:
    return Curve(
        "q", "m", "g", "1", tuple(Point(rate, ms) for rate, ms in points), "here", "", "measured", "c"
    )


def test_little_s_law():
    """7,200 an hour are 2 a second; each takes 5 s: 10 at once, in the order of their numbers."""
    curve = make_curve(
        (7200.0, {"ttft_mean": 500.0, "tpot_mean": 45.0, "e2e_mean": 5000.0}),
        (3600.0, {"ttft_mean": 400.0, "tpot_mean": 36.0, "e2e_mean": 4000.0}),
    )
    found = find_service_points(curve, output_tokens=101)
    assert found is not None
    assert [(p.rate, p.concurrency, p.first, p.rest, p.token) for p in found] == [
        (3600.0, 4.0, 400.0, 3600.0, 36.0),
        (7200.0, 10.0, 500.0, 4500.0, 45.0),
    ]


@pytest.mark.parametrize(
    ("latencies", "expected"),
    [
        ({"ttft_mean": 500.0, "tpot_mean": 45.0}, (10.0, 500.0, 4500.0, 45.0)),
        ({"ttft_mean": 500.0, "e2e_mean": 5000.0}, (10.0, 500.0, 4500.0, 45.0)),
        ({"e2e_p50": 5000.0, "e2e_p99": 9000.0}, (10.0, 0.0, 5000.0, 50.0)),
        ({"e2e_p90": 4000.0, "e2e_p99.90": 9000.0}, (8.0, 0.0, 4000.0, 40.0)),
        ({"e2e_p99.90": 9000.0}, (18.0, 0.0, 9000.0, 90.0)),
        ({"ttft_mean": 6000.0, "e2e_mean": 5000.0}, (10.0, 5000.0, 0.0, 0.0)),
    ],
)
def test_what_is_missing_follows_from_the_rest(latencies: dict[str, float], expected: tuple[float, ...]):
    found = find_service_points(make_curve((7200.0, latencies)), output_tokens=101)
    assert found is not None
    (point,) = found
    assert (point.concurrency, point.first, point.rest, point.token) == pytest.approx(expected)


@pytest.mark.parametrize("latencies", [{"ttft_mean": 5.0}, {"tpot_p50": 5.0}])
def test_a_curve_that_tells_too_little(latencies: dict[str, float]):
    assert find_service_points(make_curve((7200.0, latencies)), output_tokens=101) is None


def test_predicted_curves_are_of_batches_and_answers_of_the_catalogue():
    """The predictions are of whole numbers at once, and of answers as long as the catalogue says."""
    catalog = rj.load_catalog("serving")
    tokens = dict(zip(catalog.sets["query"], catalog.fixed("output_tokens"), strict=True))
    for curve in catalog.curves:
        found = find_service_points(curve, output_tokens=2.0)
        assert found is not None
        for point in found:
            assert point.concurrency == pytest.approx(round(point.concurrency), rel=0.05), curve.cell
            assert point.rest / point.token == pytest.approx(tokens[curve.query] - 1, rel=0.02), curve.cell
