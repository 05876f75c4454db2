"""Effects and indices against closed forms, hand computations and every corner of the brackets."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from SALib.analyze import sobol as salib_sobol
from SALib.sample import morris as morris_design
from SALib.sample import sobol as sobol_design
from SALib.test_functions import Ishigami

from rodiu_jax.analysis.brackets import (
    bound_linear,
    bound_product,
    bound_quotient,
    bound_ranks,
    bound_variance,
)
from rodiu_jax.analysis.design_points import recognise_design
from rodiu_jax.analysis.effects import analyse, measure_interactions, measure_main_effects, measure_swings
from rodiu_jax.analysis.morris import estimate_morris
from rodiu_jax.analysis.sobol import estimate_sobol
from rodiu_jax.errors import InputError
from rodiu_jax.report.data.json_rows import json_rows
from rodiu_jax.report.figures.effect_bars import draw_indices, draw_main_effects, draw_swings
from rodiu_jax.sweeps.spec import make_spec
from rodiu_jax.sweeps.store import Store
from tests.golden import Golden, numbers

ABC = ["a", "b", "c"]
PROBLEM: dict[str, Any] = {"num_vars": 3, "names": ABC, "bounds": [[-np.pi, np.pi]] * 3}


def corners(low: np.ndarray, high: np.ndarray, inside: int = 200) -> np.ndarray:
    """Every corner of a box and some points inside."""
    points = np.array(list(product(*zip(low, high, strict=True))))
    return np.concatenate([points, np.random.default_rng(0).uniform(low, high, (inside, len(low)))])


def grid(samples: int = 1, **levels: list[float]) -> pd.DataFrame:
    """A full grid, every point with the same samples."""
    points = (
        pd.DataFrame(list(product(*levels.values())), columns=list(levels)).rename_axis("point").reset_index()
    )
    return pd.concat([points.assign(sample=s) for s in range(samples)], ignore_index=True)


def ishigami(n: int, *, second: bool, width: float = 0.0) -> pd.DataFrame:
    points = sobol_design.sample(PROBLEM, n, calc_second_order=second, seed=3)
    cost = Ishigami.evaluate(points)
    table = pd.DataFrame(points, columns=ABC).assign(
        total_cost=cost, lower_bound=cost - width, upper_bound=cost
    )
    return table.assign(point=np.arange(len(table)))


# ---- ranges ----


def test_ranges_hold_every_corner_and_attain_their_exact_ends():
    rng = np.random.default_rng(1)
    for _ in range(20):
        low = rng.normal(size=6)
        high = low + rng.exponential(size=6)
        y = corners(low, high)
        weights = rng.normal(size=6)
        np.testing.assert_allclose(
            bound_linear(weights, low, high), [(y @ weights).min(), (y @ weights).max()]
        )
        small, large = bound_variance(low, high)
        assert small <= y.var(axis=1).min() + 1e-12
        assert y.var(axis=1).max() <= large + 1e-12
        assert large < 1.3 * y.var(axis=1).max()
        # The nearest point to a constant: its variance is the smallest there is.
        assert small == pytest.approx(
            min(np.clip(c, low, high).var() for c in np.linspace(-4, 6, 4001)), abs=1e-4
        )
        a, b = (low[:1], high[:1]), (low[1:2], high[1:2])
        products = np.multiply.outer(np.linspace(*a, 9), np.linspace(*b, 9))
        np.testing.assert_allclose(np.ravel(bound_product(a, b)), [products.min(), products.max()])


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        ((1.0, 2.0), (4.0, 8.0), (0.125, 0.5)),
        ((-1.0, 2.0), (4.0, 8.0), (-0.25, 0.5)),
        ((-2.0, -1.0), (4.0, 8.0), (-0.5, -0.125)),
        ((-1.0, 1.0), (0.0, 1.0), (-np.inf, np.inf)),
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_quotients(numerator, denominator, expected):
    assert bound_quotient(numerator, denominator) == expected


def test_ranks_that_intervals_allow():
    best, worst = bound_ranks(np.array([5.0, 1.0, 1.5]), np.array([6.0, 2.0, 3.0]))
    assert best.tolist() == [1, 2, 2]
    assert worst.tolist() == [1, 3, 3]


def test_nothing_is_known_of_a_variance_without_a_bound():
    assert bound_variance(np.array([-np.inf, 0.0]), np.array([1.0, 1.0])) == (0.0, np.inf)


# ---- effects ----


def test_main_effects_by_hand():
    table = grid(price=[1.0, 2.0], limit=[10.0, 20.0, 30.0], samples=2)
    table["total_cost"] = [1, 2, 3, 5, 6, 10, 3, 2, 3, 5, 8, 12]
    table["lower_bound"] = table["total_cost"] - 0.5
    table["upper_bound"] = table["total_cost"] + 0.25
    effects = measure_main_effects(table, ["price", "limit"])
    assert effects["factor"].tolist() == ["price"] * 2 + ["limit"] * 3
    assert effects["level"].tolist() == [1, 2, 10, 20, 30]
    np.testing.assert_allclose(effects["value"], [14 / 6, 46 / 6, 3.5, 4.5, 7])
    np.testing.assert_allclose(effects["bracket_low"], effects["value"] - 0.5)
    np.testing.assert_allclose(effects["bracket_high"], effects["value"] + 0.25)
    np.testing.assert_allclose(effects["change"], [np.nan, 32 / 6, np.nan, 1, 2.5])
    np.testing.assert_allclose(effects["change_bracket_low"], effects["change"] - 0.75)
    np.testing.assert_allclose(effects["change_bracket_high"], effects["change"] + 0.75)
    assert effects["sign"].dropna().tolist() == ["+", "+", "+"]
    assert effects["rows"].tolist() == [6, 6, 4, 4, 4]
    # Two samples, whose mean changes of price are 15 / 3 and 17 / 3: Student's 12.706 with one degree of freedom.
    half = 12.7062 * np.std([5, 17 / 3], ddof=1) / np.sqrt(2)
    assert effects["change_ci_high"][1] - effects["change"][1] == pytest.approx(half, rel=1e-4)


def test_differences_are_paired_by_sample_and_other_factors():
    rng = np.random.default_rng(5)
    table = grid(price=[1.0, 2.0], limit=[1.0, 2.0, 3.0], samples=40)
    luck = (
        100 * rng.normal(size=40)[table["sample"]] + 30 * rng.normal(size=3)[table["limit"].astype(int) - 1]
    )
    table["total_cost"] = luck + 2 * table["price"] + rng.normal(size=len(table)) * 0.1
    row = measure_main_effects(table, ["price", "limit"]).iloc[1]
    assert row["pairing"] == "rows"
    assert row["pairs"] == 120
    assert row["change"] == pytest.approx(2, abs=0.1)
    assert row["change_ci_high"] - row["change_ci_low"] < 0.2  # the means themselves are known to about 60
    assert row["ci_high"] - row["ci_low"] > 20
    # A missing output takes its partner out of the difference: luck does not leak into it.
    table.loc[(table["price"] == 2) & (table["sample"] < 15), "total_cost"] = np.nan
    after = measure_main_effects(table, ["price", "limit"]).iloc[1]
    assert after["pairs"] == 75
    assert after["left_out"] == 45
    assert after["change"] == pytest.approx(2, abs=0.1)


def test_continuous_factors_are_binned_and_paired_by_sample():
    rng = np.random.default_rng(6)
    table = pd.DataFrame(
        {"x": rng.uniform(size=400), "z": rng.uniform(size=400), "sample": np.arange(400) % 8}
    )
    table["y"] = 10 * table["x"] + 50 * table["sample"]
    effects = measure_main_effects(table, ["x", "z"], "y")
    first = effects[effects["factor"] == "x"]
    assert len(first) == 5
    assert first["rows"].tolist() == [80] * 5
    assert (first["level_low"].iloc[1:].to_numpy() > first["level_high"].iloc[:-1].to_numpy()).all()
    assert set(first["pairing"].iloc[1:]) == {"samples"}
    np.testing.assert_allclose(first["change"].iloc[1:], 2, atol=0.4)


def test_one_at_a_time_levels_are_compared_with_the_base():
    rows = [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 2.0)]
    table = pd.DataFrame(rows, columns=["p", "q"])
    table["total_cost"] = 10 * table["p"] + 1000 * (table["q"] - 1) ** 2
    swing = measure_swings(table, ["p", "q"]).set_index("factor")
    assert swing.loc["p", "value"] == pytest.approx(15)
    assert measure_main_effects(table, ["p", "q"])["change"][1] == pytest.approx(5)


def test_brackets_that_overlap_leave_the_sign_and_the_order_open():
    table = grid(p=[1.0, 2.0], q=[1.0, 2.0])
    table["upper_bound"] = table["total_cost"] = 100 + table["p"] + 1.5 * table["q"]
    for width, signs, worst in (
        (0.1, ["+", "+"], [1, 2]),
        (0.3, ["+", "+"], [2, 2]),
        (1.2, ["+", "undecided"], [2, 2]),
    ):
        swing = measure_swings(table.assign(lower_bound=table["total_cost"] - width), ["p", "q"])
        assert swing["factor"].tolist() == ["q", "p"]
        assert swing["sign"].tolist() == signs
        assert swing["rank_worst"].tolist() == worst
    exact = measure_main_effects(table.assign(lower_bound=table["total_cost"], r=[0, 1, 1, 0]), ["r"])
    assert exact["sign"].tolist()[1] == "0"


def test_differences_hold_over_every_corner_of_the_brackets():
    rng = np.random.default_rng(7)
    table = grid(p=[1.0, 2.0], q=[1.0, 2.0], samples=2)
    table["upper_bound"] = table["total_cost"] = rng.uniform(10, 20, len(table))
    table["lower_bound"] = table["total_cost"] - rng.uniform(0, 3, len(table))
    y = corners(table["lower_bound"].to_numpy(), table["upper_bound"].to_numpy(), 0)
    p, q = table["p"].to_numpy(), table["q"].to_numpy()
    change = y[:, p == 2].mean(axis=1) - y[:, p == 1].mean(axis=1)
    row = measure_main_effects(table, ["p", "q"]).iloc[1]
    np.testing.assert_allclose(
        row[["change_bracket_low", "change_bracket_high"]].to_numpy(dtype=float), [change.min(), change.max()]
    )
    cells = np.stack([y[:, (p == k) & (q == m)].mean(axis=1) for k in (1, 2) for m in (1, 2)])
    interaction = (cells[0] - cells[1] - cells[2] + cells[3]) / 4
    first = measure_interactions(table, "p", "q").iloc[0]
    np.testing.assert_allclose(
        first[["interaction_bracket_low", "interaction_bracket_high"]].to_numpy(dtype=float),
        [interaction.min(), interaction.max()],
    )
    found = first["interaction"]
    assert found == pytest.approx(
        np.array([1, -1, -1, 1]) @ measure_interactions(table, "p", "q")["value"] / 4
    )


def test_two_way_of_a_sum_has_no_interaction_and_of_a_product_has():
    table = grid(p=[1.0, 2.0, 4.0], q=[0.0, 1.0], samples=3)
    cost = table["sample"] * 10.0
    none = measure_interactions(table.assign(total_cost=cost + table["p"] + table["q"]), "p", "q")
    np.testing.assert_allclose(none["interaction"], 0, atol=1e-12)
    some = measure_interactions(table.assign(total_cost=cost + table["p"] * table["q"]), "p", "q")
    np.testing.assert_allclose(some["interaction"], [2 / 3, -2 / 3, 1 / 6, -1 / 6, -5 / 6, 5 / 6])
    np.testing.assert_allclose(some["interaction_ci_low"], some["interaction"], atol=1e-9)
    hole = table.assign(total_cost=cost).mask((table["p"] == 2) & (table["q"] == 1))
    hole[["p", "q", "sample"]] = table[["p", "q", "sample"]]
    left = measure_interactions(hole, "p", "q")
    assert left["value"].isna().tolist() == [False] * 3 + [True] + [False] * 2
    assert left["interaction"].isna().all()
    assert left["left_out"].tolist() == [0, 0, 0, 3, 0, 0]


def test_missing_is_missing_and_what_is_not_bounded_is_not_decided():
    table = grid(p=[1.0, 2.0, 3.0])
    table["total_cost"] = [1.0, np.nan, 9.0]
    table["lower_bound"] = [np.nan, np.nan, 8.0]
    effects = measure_main_effects(table, ["p"])
    assert effects["rows"].tolist() == [1, 0, 1]
    assert effects["left_out"].tolist() == [0, 1, 0]
    assert np.isnan(effects["value"][1])
    assert effects["bracket_low"][0] == -np.inf
    assert json_rows(effects)[0]["bracket_low"] is None
    swing = measure_swings(table, ["p"]).iloc[0]
    assert (swing["value"], swing["bracket_low"], swing["bracket_high"]) == (8.0, 7.0, np.inf)


def test_a_table_that_others_wrote():
    rng = np.random.default_rng(8)
    table = pd.DataFrame({"speed": rng.integers(1, 4, 300), "hot": rng.random(300) < 0.5})
    table["Yield, %"] = 3.0 * table["speed"] - 5 * table["hot"] + rng.normal(size=300)
    found = measure_swings(table, ["speed", "hot"], "Yield, %")
    assert found["factor"].tolist() == ["speed", "hot"]
    np.testing.assert_allclose(found["value"], [6, -5], atol=0.6)
    assert found["sign"].tolist() == ["+", "-"]
    half = (found["ci_high"] - found["ci_low"]) / 2
    assert (half < 0.9).all()  # two means of 100 rows with deviation 2.7
    assert ((found["value"] - [6, -5]).abs() < 2 * half).all()


# ---- Sobol ----


@pytest.mark.parametrize("second", [False, True])
def test_ishigami_indices(second: bool):
    found = estimate_sobol(ishigami(2048, second=second), ABC)
    assert found["index"].tolist() == ["first"] * 3 + ["total"] * 3
    exact = [0.3139, 0.4424, 0.0, 0.5576, 0.4424, 0.2437]  # closed form for a = 7, b = 0.1
    np.testing.assert_allclose(found["value"], exact, atol=0.02)
    assert ((found["ci_low"] < exact) & (exact < found["ci_high"])).all()
    np.testing.assert_allclose(found["bracket_low"], found["value"], atol=1e-9)  # brackets without width
    np.testing.assert_allclose(found["bracket_high"], found["value"], atol=1e-9)


def test_indices_are_salibs_whatever_the_order_of_rows_and_the_number_of_samples():
    table = ishigami(64, second=True)
    shifted = [
        table.assign(sample=s, total_cost=table["total_cost"] + 100 * s).drop(columns="lower_bound")
        for s in range(3)
    ]
    rows = pd.concat(shifted).sample(frac=1, random_state=1)
    found = estimate_sobol(rows, ABC)
    direct = salib_sobol.analyze(PROBLEM, table["total_cost"].to_numpy(), seed=1)
    np.testing.assert_allclose(found["value"], np.r_[direct["S1"], direct["ST"]], rtol=1e-9)
    assert set(found["rows"]) == {3 * 512}
    again = estimate_sobol(rows, ABC)
    pd.testing.assert_frame_equal(found, again)  # seeded, seed 0 included


def estimates(y: np.ndarray, d: int) -> np.ndarray:
    """The 2 d indices of each row of outputs, from the estimators' formulas."""
    blocks = y.reshape(len(y), -1, d + 2)
    a, b = blocks[:, :, 0], blocks[:, :, -1]
    variance = np.concatenate([a, b], axis=1).var(axis=1)
    mean = y.mean(axis=1, keepdims=True)
    first = [((b - mean) * (blocks[:, :, j + 1] - a)).mean(axis=1) / variance for j in range(d)]
    total = [((a - blocks[:, :, j + 1]) ** 2).mean(axis=1) / 2 / variance for j in range(d)]
    return np.stack(first + total)


@pytest.mark.parametrize("width", [0.01, 0.3, 5.0])
def test_bracket_bounds_of_indices_hold_at_every_corner(width: float):
    problem = {"num_vars": 2, "names": ["a", "b"], "bounds": [[0, 1]] * 2}
    points = sobol_design.sample(problem, 4, calc_second_order=False, seed=2)[:12]  # 3 blocks of 4
    cost = 3 * points[:, 0] + points[:, 1] ** 2 + 20
    low = cost - np.random.default_rng(3).uniform(0, width, 12)
    table = pd.DataFrame(points, columns=["a", "b"]).assign(
        total_cost=cost, lower_bound=low, upper_bound=cost
    )
    found = estimate_sobol(table, ["a", "b"])
    np.testing.assert_allclose(found["value"], estimates(cost[None], 2)[:, 0], rtol=1e-9)
    attained = estimates(corners(low, cost), 2)
    assert (found["bracket_low"] <= attained.min(axis=1) + 1e-9).all()
    assert (found["bracket_high"] >= attained.max(axis=1) - 1e-9).all()
    if width == 0.01:  # tight where brackets are
        assert (found["bracket_high"] - found["bracket_low"] <= 2 * np.ptp(attained, axis=1)).all()
        assert found["sign"].tolist()[2:] == ["+", "+"]
    if width == 5.0:
        assert "undecided" in found["sign"].tolist()


def test_blocks_with_a_missing_output_are_left_out_whole():
    table = ishigami(64, second=False)
    whole = estimate_sobol(table[table["point"] // 5 != 7], ABC)
    table.loc[37, "total_cost"] = np.nan
    holed = estimate_sobol(table, ABC)
    np.testing.assert_allclose(holed["value"], whole["value"])
    assert set(holed["rows"]) == {315}
    assert set(holed["left_out"]) == {5}
    unfinished = estimate_sobol(table.iloc[:203], ABC)  # the last three points wait for theirs
    assert set(unfinished["rows"]) == {195}


def test_a_sample_that_fails_often_is_left_out_rather_than_every_block():
    table = ishigami(16, second=False)
    rows = pd.concat([table.assign(sample=s, total_cost=table["total_cost"] + 500 * s) for s in range(4)])
    rows = rows.drop(columns=["lower_bound", "upper_bound"])
    rows.loc[(rows["sample"] == 3) & (rows["point"] % 5 == 1), "total_cost"] = np.nan
    found = estimate_sobol(rows, ABC)
    np.testing.assert_allclose(found["value"], estimate_sobol(table, ABC)["value"])
    assert set(found["left_out"]) == {80}


def test_an_output_that_does_not_move_has_no_indices():
    found = estimate_sobol(ishigami(16, second=False).assign(total_cost=1.0).drop(columns="lower_bound"), ABC)
    assert found["value"].isna().all()
    assert found["bracket_low"].isna().all()


# ---- Morris ----


def linear(trajectories: int = 10, levels: int = 4) -> pd.DataFrame:
    problem = {"num_vars": 3, "names": ABC, "bounds": [[0, 1], [10, 30], [-1, 1]]}
    points = morris_design.sample(problem, trajectories, num_levels=levels, seed=4)
    table = pd.DataFrame(points, columns=ABC)
    return table.assign(total_cost=100 + 7 * table["a"] - 2 * table["b"])


@pytest.mark.parametrize("levels", [4, 6])
def test_morris_of_a_linear_function(levels: int):
    table = estimate_morris(linear(levels=levels), ABC, levels=levels)
    np.testing.assert_allclose(table["bracket_low"], table["value"], atol=1e-9)  # there are no brackets
    np.testing.assert_allclose(table["bracket_high"], table["value"], atol=1e-9)
    found = table.set_index(["index", "factor"])["value"]
    np.testing.assert_allclose(found["mu"], [7, -40, 0], atol=1e-9)  # slope times range
    np.testing.assert_allclose(found["mu_star"], [7, 40, 0], atol=1e-9)
    np.testing.assert_allclose(found["sigma"], 0, atol=1e-9)


def test_morris_brackets_are_the_corners():
    table = linear(2).iloc[:8]
    rng = np.random.default_rng(9)
    low = table["total_cost"].to_numpy() - rng.uniform(0, 8, 8)
    high = table["total_cost"].to_numpy() + rng.uniform(0, 8, 8)
    y = corners(low, high, 2000)
    attained = []
    for name in ABC:
        effects = []
        for path in (range(4), range(4, 8)):
            at = next(k for k in path if table[name][k] != table[name][k + 1])
            effects.append((y[:, at + 1] - y[:, at]) * np.sign(table[name][at + 1] - table[name][at]) * 1.5)
        pair = np.array(effects)
        attained.append([pair.mean(axis=0), np.abs(pair).mean(axis=0), pair.std(axis=0, ddof=1)])
    found = estimate_morris(table.assign(lower_bound=low, upper_bound=high), ABC)
    for k, index in enumerate(("mu", "mu_star", "sigma")):
        part: Any = found[found["index"] == index]
        least = np.array([attained[j][k].min() for j in range(3)])
        most = np.array([attained[j][k].max() for j in range(3)])
        assert (part["bracket_low"].to_numpy() <= least + 1e-9).all()
        assert (part["bracket_high"].to_numpy() >= most - 1e-9).all()
        np.testing.assert_allclose(part["bracket_high"], most, rtol=0.05 if index == "sigma" else 1e-9)
        if index == "mu":
            np.testing.assert_allclose(part["bracket_low"], least, rtol=1e-9)
    assert found["sign"].tolist()[2] == "undecided"  # c does nothing


def test_the_wrong_number_of_levels_is_noticed():
    with pytest.raises(InputError, match="another number of levels"):
        estimate_morris(linear(levels=6), ABC, levels=4)


def test_designs_are_told_from_the_levels():
    assert recognise_design(ishigami(8, second=True), ABC) == "saltelli"
    assert recognise_design(ishigami(8, second=False), ABC) == "saltelli"
    assert (
        recognise_design(ishigami(8, second=False).iloc[::-1].reset_index(drop=True), ABC) == "saltelli"
    )  # `point` rules
    assert recognise_design(ishigami(8, second=False).drop(columns="point").iloc[::-1], ABC) == ""
    assert recognise_design(linear(), ABC) == "morris"
    assert recognise_design(grid(p=[1, 2, 3], q=[1, 2]), ["p", "q"]) == ""
    assert recognise_design(grid(p=[1, 2, 3, 4]), ["p"]) == ""
    assert set(analyse(linear(), ABC)) == {"tornado", "main_effects", "two_way", "morris"}


# ---- errors ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: measure_main_effects(t, ["prise"]), ("prise", "did you mean price", "lower_bound")),
        (lambda t: measure_main_effects(t, ["price"], "cost"), ("cost", "one column of this name")),
        (lambda t: measure_main_effects(t, []), ("factors", "one column at least")),
        (lambda t: measure_main_effects(t, ["price", "price"]), ("'price'", "once")),
        (lambda t: measure_main_effects(t, ["sample"]), ("'sample'", "varied")),
        (lambda t: measure_main_effects(t, ["total_cost"]), ("total_cost", "other than the output")),
        (lambda t: measure_main_effects(t, ["status"]), ("status", "column of numbers")),
        (lambda t: measure_main_effects(t, ["price"], "status"), ("status", "column of numbers")),
        (
            lambda t: measure_main_effects(t.assign(price=[1, np.nan, 2, 2]), ["price"]),
            ("price[1]", "finite level"),
        ),
        (
            lambda t: measure_main_effects(t.assign(price=[1, 2, 2, 1e200]), ["price"]),
            ("price[3]", "size of at most"),
        ),
        (
            lambda t: measure_main_effects(t.assign(total_cost=np.nan), ["price"]),
            ("total_cost", "all of 4 are missing"),
        ),
        (
            lambda t: measure_main_effects(t.assign(lower_bound=99.0), ["price"]),
            ("total_cost[0]", "inside its brackets [99"),
        ),
        (lambda t: estimate_sobol(t, ["price"]), ("Saltelli design of price",)),
        (
            lambda t: estimate_morris(t.assign(point=range(4)), ["price", "lower_bound"]),
            ("trajectories of 3 points",),
        ),
        (lambda t: estimate_sobol(t.assign(point=[0, 1, 2, 10**9]), ["price"]), ("point", "row number")),
        (lambda t: estimate_sobol(t.assign(point=0, sample=0), ["price"]), ("sample", "tells the rows")),
        (lambda t: estimate_sobol(t.assign(point=0, sample=range(4)), ["price"]), ("price[0]", "same level")),
    ],
)
def test_errors_name_the_column(call: Callable[[pd.DataFrame], object], words: tuple[str, ...]):
    table = pd.DataFrame({"price": [1.0, 1.0, 2.0, 2.0], "sample": [0, 1, 0, 1], "status": "optimal"})
    table = table.assign(total_cost=[1.0, 2.0, 3.0, 4.0], lower_bound=[1.0, 2.0, 3.0, 4.0])
    before = table.copy()
    with pytest.raises(InputError) as error:
        call(table)
    for word in ("table", *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    pd.testing.assert_frame_equal(table, before)


# ---- figures and the command ----


def test_figures_show_every_factor_and_say_what_is_undecided():
    table = ishigami(16, second=False, width=2.0)
    first = measure_swings(table, ABC)
    assert "undecided" in first["sign"].tolist()
    for figure, panels in (
        (draw_swings(first, title="Why $x^2$?"), 1),
        (draw_indices(estimate_sobol(table, ABC)), 2),
        (draw_indices(estimate_morris(linear(), ABC)), 3),
        (draw_main_effects(measure_main_effects(table, ABC)), 3),
    ):
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
    bars = draw_swings(first)
    assert [t.get_text().split()[0] for t in bars.axes[0].get_yticklabels()] == first["factor"].tolist()
    assert "sign undecided" in [t.get_text() for t in bars.legends[0].get_texts()]
    assert any(p.get_hatch() for p in bars.axes[0].patches)
    open_end = draw_swings(first.assign(bracket_low=-np.inf))
    open_end.draw_without_rendering()
    assert np.isfinite(open_end.axes[0].get_xlim()).all()


def test_command_reads_parquet_and_csv_and_writes_tables_and_figures(rodiu, tmp_path: Path, golden: Golden):
    table = ishigami(16, second=False, width=0.1)
    table.loc[3, ["total_cost", "upper_bound"]] = np.nan
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    code, out, err = rodiu(
        "sensitivity", tmp_path / "t.parquet", "--factors", "a, b,c", "-o", tmp_path / "made"
    )
    assert (code, err) == (0, "")
    assert {80.0, 1.0} <= set(numbers(out))
    golden("cli/sensitivity", out.replace(str(tmp_path), "FOLDER"), numbers=False)
    for name in ("tornado.csv", "two_way.csv", "sobol.png", "main_effects.svg", "boxes.csv"):
        assert (tmp_path / "made" / name).stat().st_size > 100
    code, out, err = rodiu("sensitivity", tmp_path / "t.csv", "--factors", "a,b,c", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["rows"], found["left_out"], found["factors"]) == (80, 1, ABC)
    values = [r["value"] for r in found["sobol"]]
    np.testing.assert_allclose(values, estimate_sobol(table, ABC)["value"])
    assert "<" in found["boxes"][0]["text"]


def test_command_takes_the_factors_from_the_sweep_in_a_folder(rodiu, tmp_path: Path):
    factors = [{"field": "gpu_price", "scale": [0.5, 1.0]}, {"field": "budget", "scale": [0.4, 0.8]}]
    spec = make_spec({"name": "n", "title": "t", "samples": 2, "factors": factors})
    store = Store(tmp_path, spec)
    store.rows_folder.mkdir()
    (tmp_path / "spec.toml").write_text(spec.to_toml())
    rows = grid(gpu_price=[0.5, 1.0], budget=[0.4, 0.8], samples=2)
    cost = 100 * rows["gpu_price"] + rows["sample"]
    rows = rows.assign(total_cost=cost, lower_bound=cost - 1, upper_bound=cost, status="optimal")
    rows.loc[0, "total_cost"] = rows.loc[0, "upper_bound"] = None
    entries = [{k: None if v != v else v for k, v in row.items()} for row in rows.to_dict("records")]
    store.write(0, pa.Table.from_pylist(entries, schema=store.schema))
    code, out, err = rodiu("sensitivity", tmp_path, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["factors"], found["rows"], found["left_out"]) == (["gpu_price", "budget"], 8, 1)
    assert [(r["factor"], round(r["value"], 9), r["sign"]) for r in found["tornado"]] == [
        ("gpu_price", 50.0, "+"),
        ("budget", 0.0, "undecided"),
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("no.parquet",), ("no.parquet", "readable table")),
        (("t.txt",), ("t.txt", "*.parquet or *.csv")),
        (("t.csv",), ("t.csv", "--factors", "names among x, y")),
        (("t.csv", "--factors", "x", "--output", "z"), ("t.csv", "z", "there are x, y")),
        (("t.csv", "--factors", "w", "--output", "y"), ("t.csv", "w")),
        (("empty.csv", "--factors", "x"), ("empty.csv", "readable table")),
        ((".",), ("spec.toml",)),
    ],
)
def test_command_refuses_in_one_line(
    rodiu, tmp_path: Path, monkeypatch, args: tuple[str, ...], words: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"x": [1, 2], "y": [3, 4]}).to_csv("t.csv", index=False)
    Path("t.txt").write_text("x")
    Path("empty.csv").write_text("")
    code, out, err = rodiu("sensitivity", *args)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
