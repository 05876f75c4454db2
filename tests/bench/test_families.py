"""The benchmark of families: what it draws is valid and hard in the way it says, and it sees a wrong value."""

import math

import numpy as np
import pytest
from click.testing import CliRunner

from bench.families import FAMILIES, Solved, agree, main, make_rows
from bench.records import read_record

NAMES = list(FAMILIES)


@pytest.fixture(scope="module")
def drawn():
    return {name: family.sample(1, 4) for name, family in FAMILIES.items()}


def test_families_are_what_they_say(drawn):
    plain = drawn["seed"].one(0)
    assert drawn["seed, speed-up n^0.8"].one(0).tp_speedup[3] == pytest.approx(8**0.8)
    assert drawn["seed, one route"].one(0).max_routes == 1
    assert drawn["seed, budget x 0.05"].one(0).budget == pytest.approx(0.05 * plain.budget)
    assert drawn["seed, all served"].one(0).unmet_cap == 0
    assert drawn["seed, Gamma 1.5"].one(0).gamma_error == 1.5
    assert np.array_equal(drawn["seed, Gamma 1.5"].one(0).delay_nominal, plain.delay_nominal)
    assert drawn["large, gap 1 %"].shape == (20, 20, 40, 4)


def test_no_two_entries_of_the_large_family_are_alike(drawn):
    f = drawn["large, gap 1 %"].one(0)
    assert len(np.unique(f.arrival_rate)) == 20
    assert len(np.unique(f.weight_memory)) == 20
    assert len(np.unique(f.gpu_compute)) == 40
    assert len(np.unique(f.delay_nominal.reshape(20, -1).round(9), axis=1)[0]) == 800


@pytest.mark.slow
def test_table_of_one_scenario(tmp_path):
    out = tmp_path / "found.json"
    ran = CliRunner().invoke(main, ["corrected", "--scenarios", "1", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    (study,) = read_record(out).studies
    rows = [dict(zip(study.columns, row, strict=True)) for row in study.rows]
    assert [row["way"] for row in rows] == ["ours", "all off", "published"]
    assert all(row["s: median"] > 0 for row in rows)
    assert [row["right"] for row in rows] == ["yes"] * 3
    assert rows[2]["median / ours"] > 1, "slower than ours"


def solved(objective: float, bound: float | None = None, *, proven: bool = True) -> Solved:
    return Solved(1.0, objective, objective if bound is None else bound, proven)


@pytest.mark.parametrize(
    ("ours", "theirs", "right"),
    [
        (solved(100.0), solved(100.005, 99.999), True),
        (solved(100.0), solved(100.1), False),
        (solved(100.0), solved(100.1, 99.0, proven=False), True),
        (solved(100.0), solved(99.0, 98.0, proven=False), False),
        (solved(100.0, 100.0), solved(math.inf, 100.5, proven=False), False),
        (solved(math.inf, math.inf), solved(100.0), False),
        (solved(math.inf, math.inf), solved(math.inf, math.inf), True),
    ],
)
def test_a_wrong_value_shows(ours, theirs, right):
    found = {"ours": [ours], "published": [theirs]}
    assert agree(found, 1e-4)[0] is right
    assert ("NO" in make_rows("x", FAMILIES["seed"], found)[0]) is not right


def test_ratios_and_what_was_not_proven():
    found = {
        "ours": [Solved(0.1, 1.0, 1.0, True), Solved(0.3, 1.0, 1.0, True)],
        "published": [Solved(2.0, 1.0, 1.0, True), Solved(6.0, 2.0, 0.5, False)],
    }
    cells = make_rows("x", FAMILIES["seed"], found)[1]
    assert cells[:3] == ["x", 2, "published"]
    assert cells[3:9] == pytest.approx([4, 5.8, 6, 20, 20, 1], rel=1e-6)
