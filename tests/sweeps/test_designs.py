"""Designs, and the sweeps that stand on them.

The tests whose names end in `scipys` or `salibs` are pins, no witnesses: the design is what that library draws, and a
new version that draws otherwise would move the points of every sweep.
"""

from pathlib import Path

import numpy as np
import pytest
from SALib.sample import sobol as salib_sobol
from scipy.stats import qmc

from rodiu_jax.catalog import load_catalog
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import SweepSpec, load_spec, make_spec

RANGES = [
    {"field": "gpu_price", "scale": [0.5, 1.5]},
    {"field": "budget", "shift": [-1000.0, 1000.0]},
    {"field": "error_threshold", "scale": [0.1, 10.0], "spacing": "log"},
]


def spec_of(design: dict, factors: list[dict] = RANGES, **keys) -> SweepSpec:
    values = {"name": "x", "title": "x", "seed": 3, "samples": 2, "design": design, "factors": factors}
    return make_spec(values | keys)


def levels(spec: SweepSpec) -> np.ndarray:
    return np.stack(spec.levels_at(np.arange(spec.points)), 1)


def unit(table: np.ndarray) -> np.ndarray:
    return np.stack([table[:, 0] - 0.5, (table[:, 1] + 1000) / 2000, (np.log10(table[:, 2]) + 1) / 2], 1)


def test_latin_hypercube_has_one_point_per_stratum():
    strata = np.floor(unit(levels(spec_of({"kind": "latin-hypercube", "points": 20}))) * 20).astype(int)
    for column in strata.T:
        assert sorted(column) == list(range(20))


def test_sobol_points_are_scipys():
    table = levels(spec_of({"kind": "sobol", "points": 16, "seed": 5}))
    np.testing.assert_allclose(unit(table), qmc.Sobol(3, rng=5).random(16), atol=1e-12)


@pytest.mark.parametrize("second_order", [True, False])
def test_saltelli_points_are_salibs(second_order: bool):
    spec = spec_of({"kind": "saltelli", "points": 8, "second_order": second_order})
    bounds = [[0.5, 1.5], [-1000.0, 1000.0], [-1.0, 1.0]]
    problem = {"num_vars": 3, "names": ["a", "b", "c"], "bounds": bounds}
    wanted = salib_sobol.sample(problem, 8, calc_second_order=second_order, seed=3)
    wanted[:, 2] = 10.0 ** wanted[:, 2]
    np.testing.assert_allclose(levels(spec), wanted, rtol=1e-9)
    assert spec.points == 8 * (8 if second_order else 5)


def test_morris_moves_one_factor_at_a_time():
    spec = spec_of({"kind": "morris", "points": 4})
    table = levels(spec).reshape(4, 4, 3)
    assert ((np.diff(table, axis=1) != 0).sum(2) == 1).all()


def test_random_stays_in_its_ranges_and_differs_by_seed():
    one, other = (levels(spec_of({"kind": "random", "points": 50, "seed": s})) for s in (1, 2))
    assert (one != other).all()
    assert ((unit(one) >= 0) & (unit(one) <= 1)).all()


def test_one_at_a_time_starts_at_the_base():
    factors = [{"field": "gpu_price", "scale": [0.5, 2.0]}, {"field": "budget", "shift": [-10.0, 5.0, 10.0]}]
    table = levels(spec_of({"kind": "one-at-a-time"}, factors))
    np.testing.assert_array_equal(table, [[1, 0], [0.5, 0], [2, 0], [1, -10], [1, 5], [1, 10]])


def test_points_come_from_a_file_that_a_kept_spec_no_longer_needs(tmp_path: Path):
    (tmp_path / "p.csv").write_text("price, budget\n0.5, 3000\n1.5, 4000\n")
    text = """
name = "x"
title = "x"
design = { kind = "points", file = "p.csv" }
[[factors]]
field = "gpu_price"
scale = "price"
[[factors]]
field = "budget"
value = "budget"
"""
    (tmp_path / "s.toml").write_text(text)
    spec = load_spec(tmp_path / "s.toml")
    np.testing.assert_array_equal(levels(spec), [[0.5, 3000], [1.5, 4000]])
    (tmp_path / "p.csv").unlink()
    (tmp_path / "kept.toml").write_text(spec.to_toml())
    np.testing.assert_array_equal(levels(load_spec(tmp_path / "kept.toml")), levels(spec))


@pytest.mark.parametrize("kind", ["latin-hypercube", "sobol", "saltelli", "morris", "random"])
def test_a_design_is_the_same_read_back_and_in_any_chunk(kind: str, tmp_path: Path):
    spec = spec_of({"kind": kind, "points": 4})
    (tmp_path / "s.toml").write_text(spec.to_toml())
    again = load_spec(tmp_path / "s.toml")
    assert again == spec
    catalog = load_catalog("seed")
    whole = scenarios(spec, catalog, 0, spec.rows)
    part = scenarios(again, catalog, 3, 6)
    for name in ("gpu_price", "budget", "error_threshold", "delay_nominal"):
        values = np.asarray(getattr(whole.fields, name))[3:6]
        np.testing.assert_array_equal(values, np.asarray(getattr(part.fields, name)))


def test_a_shift_adds_in_the_fields_unit():
    catalog = load_catalog("seed")
    spec = spec_of({"kind": "grid"}, [{"field": "budget", "shift": [0.0, 250.0]}], samples=1)
    low, high = np.asarray(scenarios(spec, catalog, 0, 2).fields.budget)
    assert high - low == 250.0


@pytest.mark.parametrize(
    ("design", "factors", "field"),
    [
        ({"kind": "spiral"}, RANGES, "design.kind"),
        ({"kind": "sobol", "points": 12}, RANGES, "design.points"),
        ({"kind": "random"}, RANGES, "design.points"),
        ({"kind": "random", "points": 0}, RANGES, "design.points"),
        ({"kind": "grid", "points": 3}, RANGES, "design.points"),
        ({"kind": "random", "points": 4}, [{"field": "gpu_price", "scale": [1.5, 0.5]}], "factors[0].scale"),
        ({"kind": "random", "points": 4}, [{"field": "budgets", "scale": [0.5, 1.5]}], "factors[0].field"),
    ],
)
def test_bad_designs_are_named(design: dict, factors: list[dict], field: str):
    with pytest.raises(InputError) as error:
        spec_of(design, factors)
    assert error.value.field.startswith(field)


@pytest.mark.parametrize(
    "text", ["", "price\n", "price\nx\n", "prize\n1\n", "price,price\n1,2\n", "price\n1,2\n"]
)
def test_bad_point_files_are_refused(text: str, tmp_path: Path):
    (tmp_path / "p.csv").write_text(text)
    factors = [{"field": "gpu_price", "scale": "price"}]
    with pytest.raises(InputError, match=r"p\.csv"):
        spec_of({"kind": "points", "file": str(tmp_path / "p.csv")}, factors)
