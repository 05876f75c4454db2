"""Trends within brackets, against pairs counted by hand and by brute force, and the direction of every field."""

import itertools

import numpy as np
import pandas as pd
import pytest

from rodiu_jax.analysis.trends import EXPECTED, check_trends, select_trends
from rodiu_jax.errors import InputError
from rodiu_jax.model.changes import apply_changes, parse_change
from rodiu_jax.model.fields import REQUIRED_FIELDS
from tests.oracles.enumeration import cheapest
from tests.oracles.instances import random_instances
from tests.oracles.serving import serving_instances


def rows(*triples, **columns):
    """Rows of one line: (level, lower, upper)."""
    table = pd.DataFrame(triples, columns=["a", "lower_bound", "upper_bound"]).assign(sample=0)
    return table.assign(**columns)


def only(table, trend="rises"):
    return check_trends(table, ["a"], {"a": trend}).iloc[0]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((1, 2), (2, 3), "kept"),
        ((1, 2), (1.5, 3), "open"),
        ((3, 4), (1, 2), "broken"),
        ((2, 2), (2, 2), "kept"),
        ((2, 3), (1, 2), "open"),  # they touch
        ((2, 2 + 1e-12), (2, 2), "kept"),  # rounding is no contradiction
        ((np.nan, 2), (2, np.nan), "kept"),
        ((np.nan, np.nan), (1, 2), "open"),
    ],
)
def test_two_rows(first, second, verdict):
    for trend, table in (
        ("rises", rows((1, *first), (2, *second))),
        ("falls", rows((2, *first), (1, *second))),
    ):
        found = only(table, trend)
        assert {n: int(found[n]) for n in ("kept", "broken", "open")} == {
            n: int(n == verdict) for n in ("kept", "broken", "open")
        }
        assert (found["lines"], found["pairs"]) == (1, 1)


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (("optimal", "infeasible"), "kept"),
        (("infeasible", "optimal"), "broken"),
        (["infeasible"] * 2, "kept"),
    ],
)
def test_a_row_without_any_plan_costs_at_least_as_much_as_any(statuses, verdict):
    table = rows((1, 1.0, 2.0), (2, 1.0, 2.0), status=list(statuses))
    infeasible = table["status"] == "infeasible"
    table.loc[infeasible, ["lower_bound", "upper_bound"]] = np.nan
    assert only(table)[verdict] == 1


def test_plans_that_move_the_wrong_way_inside_their_brackets_are_counted():
    found = only(rows((1, 1.0, 4.0), (2, 1.0, 2.0), (3, 1.0, 3.0)))
    assert (found["against"], found["broken"], found["open"]) == (2, 0, 3)
    assert found["worst_against"] == 1.0
    assert only(rows((1, 1.0, 2.0 + 1e-6), (2, 1.0, 2.0)))["against"] == 0


def test_all_pairs_of_all_lines_as_by_brute_force():
    rng = np.random.default_rng(0)
    points = list(itertools.product(range(5), [1.0, 2.0, 4.0, 7.0], [0.5, 1.5, 2.5]))
    table = pd.DataFrame(points, columns=["sample", "a", "b"]).sample(frac=0.8, random_state=1)
    table["lower_bound"] = table["a"] + rng.normal(scale=3, size=len(table))
    table["upper_bound"] = table["lower_bound"] + rng.uniform(0, 1, len(table))
    counts = dict.fromkeys(("pairs", "kept", "broken", "open", "against"), 0)
    records = table.to_dict("records")
    for p, q in itertools.permutations(records, 2):
        if (p["sample"], p["b"]) == (q["sample"], q["b"]) and p["a"] < q["a"]:
            counts["pairs"] += 1
            kept, broken = p["upper_bound"] <= q["lower_bound"], p["lower_bound"] > q["upper_bound"]
            counts["kept"] += kept
            counts["broken"] += broken
            counts["open"] += not (kept or broken)
            counts["against"] += p["upper_bound"] > q["upper_bound"]
    found = check_trends(table, ["a", "b"], {"a": "rises"}).iloc[0]
    assert {n: int(found[n]) for n in counts} == counts
    assert counts["broken"] > 3


def test_a_factor_that_is_not_set_in_some_rows():
    table = pd.DataFrame(
        {
            "sample": 0,
            "a": [np.nan, 1.0, 2.0, np.nan],
            "b": [1.0, 1.0, 1.0, 2.0],
            "lower_bound": [1.0, 1.0, 2.0, 3.0],
            "upper_bound": [1.0, 1.0, 2.0, 3.0],
        }
    )
    found = check_trends(table, ["a", "b"], {"a": "rises", "b": "rises"}).set_index("factor")
    assert found["pairs"].tolist() == [1, 1]
    assert found["kept"].tolist() == [1, 1]


def test_only_factors_have_trends():
    with pytest.raises(InputError, match="factors among a"):
        check_trends(rows((1, 1.0, 2.0)), ["a"], {"b": "rises"})
    with pytest.raises(InputError, match="upper_bound"):
        check_trends(rows((1, 1.0, 2.0)).drop(columns="upper_bound"), ["a"], {"a": "rises"})


def test_fields_without_a_trend_are_named():
    assert set(REQUIRED_FIELDS) - set(EXPECTED) == {"max_routes", "tp_degree"}
    fields = {"gpu_price[H100_*]": "gpu_price", "max_routes": "max_routes"}
    assert select_trends(fields) == {"gpu_price[H100_*]": "rises"}


def test_every_expected_trend_is_that_of_the_true_optimum():
    """Halving a field moves the optimum of tiny scenarios, by enumeration, the expected way or not at all."""
    instances = random_instances(5, (2, 1, 2, 2), batch=4)
    base = [cheapest(instances, b) for b in range(instances.size)]
    moved = set()
    for field in set(EXPECTED) & set(REQUIRED_FIELDS):
        trend = EXPECTED[field]
        halved = apply_changes(instances, [parse_change(f"{field}*=0.5")])
        for b, cost in enumerate(base):
            low = cheapest(halved, b)
            slack = 1e-6 * (1 + min(cost, low))
            assert low <= cost + slack if trend == "rises" else cost <= low + slack, (field, b)
            if abs(min(low, 1e9) - min(cost, 1e9)) > slack:
                moved.add(field)
    assert len(moved) > 20


def test_every_expected_trend_of_fleets_is_that_of_the_true_optimum():
    """The same of what MODEL section 9 adds, and of the traffic, by trying every fleet."""
    whole = {"max_replicas": np.full((1, 2), 2), "gpu_quota": np.full(2, 4.0), "gamma_throughput": 1.0}
    scenarios = [
        serving_instances(seed, (2, 1, 2, 2), unmet_penalty=np.full(2, 8.0), **whole) for seed in range(4)
    ]
    moved = set()
    optional = set(EXPECTED) - set(REQUIRED_FIELDS)
    assert len(optional) == 6
    for field in {*optional, "arrival_rate", "residency_hours", "tp_speedup", "weight_memory"}:
        for instances in scenarios:
            cost = cheapest(instances, 0)
            low = cheapest(apply_changes(instances, [parse_change(f"{field}*=0.5")]), 0)
            slack = 1e-6 * (1 + min(cost, low))
            assert low <= cost + slack if EXPECTED[field] == "rises" else cost <= low + slack, field
            if abs(low - cost) > slack:
                moved.add(field)
    assert optional <= moved
