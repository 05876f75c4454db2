"""Scenario discovery: planted boxes are found, noise is not believed, the brackets' doubt is carried along."""

import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rodiu_jax.analysis.boxes import discover, discover_all, find_cases
from rodiu_jax.errors import InputError, WorkFailed
from tests.cli.calls import Run

FACTORS = ["gpu_price", "error_threshold", "budget"]


def draws(n: int = 1500, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).uniform(0, 1, (n, 3)), columns=FACTORS)


def inside(table: pd.DataFrame, box: Any) -> np.ndarray:
    """Rows in a box, from its limits alone."""
    return np.all([(table[f] >= box[f"{f}_low"]) & (table[f] < box[f"{f}_high"]) for f in FACTORS], axis=0)


def test_a_planted_box_is_found():
    table = draws()
    table["hit"] = (table["gpu_price"] < 0.6) & (table["error_threshold"] >= 0.8)
    (box,) = discover(table, FACTORS, "hit").to_dict("records")
    assert box["text"] == "gpu_price < 0.6 and error_threshold >= 0.8"
    assert (box["coverage"], box["density"]) == (1.0, 1.0)
    assert box["rows"] == table["hit"].sum() == inside(table, box).sum()
    assert box["support"] == box["base"] == pytest.approx(table["hit"].mean())
    assert (box["budget_low"], box["budget_high"]) == (-math.inf, math.inf)
    assert box["cv_balanced_accuracy"] > 0.97


def test_figures_of_a_box_are_counts_of_rows():
    rng = np.random.default_rng(1)
    table = draws()
    table["hit"] = rng.random(len(table)) < np.where(
        (table["budget"] > 0.3) & (table["budget"] < 0.5), 0.8, 0.05
    )
    found = discover(table, FACTORS, "hit")
    box = found.iloc[0]
    assert box["text"].startswith("0.3")
    assert "<= budget < 0.5" in box["text"]
    here = inside(table, box)
    assert box["density"] == pytest.approx(table["hit"][here].mean())
    assert box["coverage"] == pytest.approx(table["hit"][here].sum() / table["hit"].sum())
    assert box["cv_density"] == pytest.approx(0.8, abs=0.08)
    assert found["coverage"].is_monotonic_decreasing


def test_two_boxes():
    table = draws()
    table["hit"] = (table["gpu_price"] < 0.2) | (table["gpu_price"] >= 0.9)
    assert set(discover(table, FACTORS, "hit")["text"]) == {"gpu_price < 0.2", "gpu_price >= 0.9"}


def test_branches_that_are_rich_throughout_are_one_box(monkeypatch: pytest.MonkeyPatch):
    table = draws()
    chance = np.select([table["gpu_price"] < 0.3, table["gpu_price"] < 0.6], [1.0, 0.7], 0.0)
    table["hit"] = np.random.default_rng(7).random(len(table)) < chance
    monkeypatch.setattr("rodiu_jax.analysis.boxes._FOLDS", 1)  # without folds the tree is as deep as it may
    (box,) = discover(table, FACTORS, "hit").to_dict("records")
    assert box["text"] == "gpu_price < 0.6"
    assert math.isnan(box["cv_density"])


def test_a_deeper_tree_must_pay(monkeypatch: pytest.MonkeyPatch):
    table = draws()
    table["hit"] = np.random.default_rng(8).random(len(table)) < np.where(table["gpu_price"] < 0.5, 0.8, 0.2)
    monkeypatch.setattr("rodiu_jax.analysis.boxes._MOST_CONDITIONS", 8)
    monkeypatch.setattr("rodiu_jax.analysis.boxes._LEAST_SUPPORT", 0.005)
    (box,) = discover(table, FACTORS, "hit").to_dict("records")
    assert box["text"] == "gpu_price < 0.5"


def test_noise_does_not_survive_points_held_out():
    table = draws(600, 3)
    table["hit"] = np.random.default_rng(4).random(600) < 0.3
    found = discover(table, FACTORS, "hit")
    assert (found["cv_balanced_accuracy"] < 0.58).all()


def test_rows_of_one_point_stay_in_one_fold(monkeypatch: pytest.MonkeyPatch):
    """Outcomes decided by the point at random: a tree that had seen the point would know, and must not."""
    points = draws(80, 5).assign(hit=np.random.default_rng(6).random(80) < 0.5)
    table = pd.concat([points] * 30, ignore_index=True)
    monkeypatch.setattr("rodiu_jax.analysis.boxes._MOST_CONDITIONS", 6)
    monkeypatch.setattr("rodiu_jax.analysis.boxes._LEAST_SUPPORT", 0.0)
    found = discover(table, FACTORS, "hit")
    assert (found["cv_balanced_accuracy"] < 0.65).all()


def test_levels_of_a_grid_are_parted_by_short_numbers():
    table = pd.DataFrame({"gpu_price": np.repeat([0.4, 0.45, 0.5, 0.55, 0.6, 0.65], 20)})
    found = discover(table.assign(hit=table["gpu_price"] > 0.56), ["gpu_price"], "hit")
    assert found["text"].tolist() == ["gpu_price >= 0.6"]


def test_no_case_no_box_and_only_cases_everywhere():
    table = draws(50)
    nothing = discover(table.assign(hit=False), FACTORS, "hit")
    assert nothing.empty
    assert {"text", "coverage", "density", "cv_density"} <= set(nothing.columns)
    (box,) = discover(table.assign(hit=True), FACTORS, "hit").to_dict("records")
    assert (box["text"], box["coverage"], box["density"]) == ("everywhere", 1, 1)
    assert math.isnan(box["cv_density"])
    few = discover(table.assign(hit=np.arange(50) == 7), FACTORS, "hit")  # one point: nothing to hold out
    assert few["cv_density"].isna().all()


# ---- outcomes ----


def test_dear_rows_and_what_the_brackets_leave_of_a_box(monkeypatch: pytest.MonkeyPatch):
    table = draws()
    cost = 100 + 100 * (table["gpu_price"] >= 0.85) + table["budget"]
    table = table.assign(total_cost=cost, upper_bound=cost, lower_bound=cost - 0.2)
    table.loc[table.index[table["gpu_price"] >= 0.85][:30], "lower_bound"] = 90.0
    table.loc[table.index[table["gpu_price"] < 0.85][:50], "upper_bound"] = 500.0
    share = float((table["gpu_price"] >= 0.85).mean())
    monkeypatch.setattr("rodiu_jax.analysis.boxes._DEAR_SHARE", share)
    (box,) = discover(table, FACTORS, "dear").to_dict("records")
    assert box["text"] == "gpu_price >= 0.85"
    threshold = cost.sort_values().iloc[-box["rows"]]
    surely = (table["lower_bound"] >= threshold) & (table["gpu_price"] >= 0.85)
    assert box["density"] == 1
    assert box["density_low"] == pytest.approx(surely.sum() / box["rows"])
    assert 0 < surely.sum() <= box["rows"] - 30
    assert box["density_high"] == 1
    assert box["coverage_low"] == pytest.approx(surely.sum() / (surely.sum() + 50))
    assert box["coverage_high"] == 1
    assert "total cost at or above" in box["outcome"]


def test_infeasible_rows_are_told_from_rows_without_an_answer():
    table = pd.DataFrame({"status": ["infeasible", "optimal", "unknown", "bracket"]})
    found = find_cases(table.assign(total_cost=[np.nan, 1.0, np.nan, 2.0]), "infeasible")
    np.testing.assert_array_equal(found.value, [1, 0, np.nan, 0])
    wide = draws().assign(status="optimal", total_cost=1.0)
    wide.loc[wide["budget"] < 0.25, ["status", "total_cost"]] = ["infeasible", np.nan]
    wide.loc[:9, ["status", "total_cost"]] = ["unknown", np.nan]
    (box,) = discover(wide, FACTORS, "infeasible").to_dict("records")
    assert (box["text"], box["left_out"]) == ("budget < 0.25", 10)


def test_switches_are_counted_against_the_same_sample():
    table = pd.DataFrame({"sample": [0, 0, 0, 1, 1, 1], "deployments": ["A", "A", "B", "C", "C", None]})
    np.testing.assert_array_equal(find_cases(table, "switch").value, [0, 0, 1, 0, 0, np.nan])
    assert find_cases(table.drop(columns="sample"), "switch").value[3] == 1


def test_unmet_and_own_columns():
    table = pd.DataFrame({"unmet_share": [0.0, 0.02, np.nan], "late": [1, 0, 1]})
    np.testing.assert_array_equal(find_cases(table, "unmet").value, [0, 1, np.nan])
    np.testing.assert_array_equal(find_cases(table, "late").value, [1, 0, 1])


def test_every_outcome_that_the_columns_allow():
    table = draws(400).assign(unmet_share=0.0)
    table["total_cost"] = table["budget"]
    table["deployments"] = np.where(table["gpu_price"] < 0.4, "A", "B")
    found = discover_all(table, FACTORS)
    assert found["text"].str.split(" [0-9]").str[0].tolist() == ["budget >=", "gpu_price <"]
    assert found["coverage"].tolist() == [1, 1]
    assert discover_all(draws(20), FACTORS).empty


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("infeasable", ("'infeasable'", "did you mean infeasible")),
        ("infeasible", ("status", "one of this name", "gpu_price")),
        ("unmet", ("unmet_share",)),
        ("gpu_price", ("gpu_price[0]", "0 or 1")),
    ],
)
def test_errors(outcome: str, words: tuple[str, ...]):
    with pytest.raises(InputError) as error:
        discover(draws(10), FACTORS, outcome)
    for word in words:
        assert word in str(error.value).replace("a column of this name", "one of this name")


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, rodiu: Run, tmp_path):
    for name in [n for n in sys.modules if n.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    table = draws(40).assign(total_cost=lambda t: t["budget"])
    with pytest.raises(WorkFailed, match=r"pip install 'rodiu-jax\[discovery\]'"):
        discover(table, FACTORS, "dear")
    table.to_parquet(tmp_path / "t.parquet")
    said = rodiu("sensitivity", tmp_path / "t.parquet", "--factors", ",".join(FACTORS)).out
    assert "No boxes: scenario discovery needs scikit-learn" in said
