"""The benchmark of fleets: its scenarios are what they say, its peer is right, and a row holds what was measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from bench.families import Solved
from bench.fleets import SHAPES, Compared, compare, main, make_row, serving
from bench.records import read_record
from tests.oracles.plain_fleet import solve_plain

SHAPE = (3, 2, 3, 2)


def test_scenarios_are_what_they_say():
    drawn = serving(3, 5, shape=SHAPE, rent=30.0, gamma=2.0, quota=True)
    assert (drawn.shape, drawn.size, drawn.uncertainty) == (SHAPE, 3, "ddu")
    assert drawn.gpu_devices == ("d0", "d0", "d1")
    for b in range(3):
        f = drawn.one(b)
        cheapest = []
        for i in range(3):
            each = [
                f.gpu_price[k] * f.tp_degree[n] / f.throughput[i, j, k, n]
                for j, k, n in np.ndindex(SHAPE[1:])
                if f.throughput[i, j, k, n] > 0 and f.weight_memory[j] <= f.gpu_memory[k] * f.tp_degree[n]
            ]
            cheapest.append(min(each))
        assert f.arrival_rate @ cheapest == pytest.approx(30.0)
        assert (f.unmet_penalty >= 3 * np.array(cheapest) * (1 - 1e-9)).all()
        assert f.gamma_throughput == 2.0
        assert np.isfinite(f.gpu_quota).all()
    again = serving(1, 5, shape=SHAPE, rent=30.0, gamma=2.0, quota=False)
    np.testing.assert_array_equal(again.one(0).throughput, drawn.one(0).throughput)
    assert again.one(0).gpu_quota.tolist() == [math.inf] * 3
    assert serving(1, 5, shape=SHAPE, rent=30.0, gamma=0.0, quota=False).uncertainty == "none"


def test_the_plain_relaxation_is_below_the_optimum():
    drawn, below = serving(4, 1, shape=SHAPE, rent=2.0, gamma=2.0, quota=True), []
    for b in range(4):
        whole, relaxed = solve_plain(drawn, b), solve_plain(drawn, b, relax=True)
        assert whole.optimal
        assert relaxed.optimal
        assert relaxed.bound <= whole.bound * (1 + 1e-9)
        below.append(relaxed.bound < whole.bound * (1 - 1e-3))
        assert whole.bound == pytest.approx(whole.objective)
    assert sum(below) >= 2


def test_both_ways_know_that_weights_must_fit():
    """In this scenario the cheapest fleet without a limit of memory is 5 % cheaper, and does not fit."""
    found = compare(
        serving(11, 20, shape=SHAPES["5x4x6x4"], rent=2.0, gamma=0.0, quota=False).take([10]), 60.0
    )
    assert found.ours.objective == pytest.approx(found.plain.objective, rel=1e-4)


def test_table_of_a_case(tmp_path):
    out = tmp_path / "found.json"
    options = ["--shape", "5x4x6x4", "--rent", "2", "--gamma", "2", "--scenarios", "1"]
    done = CliRunner().invoke(main, [*options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    (study,) = read_record(out).studies
    rows = [dict(zip(study.columns, row, strict=True)) for row in study.rows]
    assert [row["quota"] for row in rows] == ["no", "yes"]
    for row in rows:
        assert row["right"] == "yes"
        assert row["ours not proven"] == row["plain not proven"] == 0
        assert row["plain / ours: median"] > 0
        assert 0 < row["root gap, %"] < 60


def test_a_row_by_hand_and_a_wrong_value():
    pairs = [(1.0, 3.0), (2.0, 20.0), (4.0, 8.0)]
    found = [Compared(Solved(a, 5.0, 5.0, True), Solved(b, 5.0, 4.9, b < 10), 0.1) for a, b in pairs]
    row = make_row(["x", 2.0, 0.0, "no"], found)
    assert row[:5] == ["x", 2.0, 0.0, "no", 3]
    assert row[5:9] == pytest.approx([2.0, 3.8, 8.0, 18.8])
    assert row[9:12] == pytest.approx([3.0, 18.8 / 3.8, 2.0])
    assert row[12:] == [0, 1, pytest.approx(10.0), "yes"]
    wrong = [Compared(Solved(1.0, 5.0, 5.0, True), Solved(1.0, 4.0, 4.0, True), 0.1)]
    assert make_row(["x", 2.0, 0.0, "no"], wrong)[-1] == "NO"
