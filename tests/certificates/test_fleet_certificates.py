"""Certificates of scenarios with replicas, rates and quotas: any multipliers prove no more than the optimum."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rodiu_jax.certificates import dual_values, load_certificates, tabulate_leaves, write_certificates
from rodiu_jax.certificates.leaf_codec import LeafCodec, Ranges, check_ranges
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from solvers.answers import Leaves
from solvers.dual import Multipliers, derive_coefficients, evaluate_dual
from solvers.options import list_options
from tests.oracles.enumeration import cheapest
from tests.oracles.serving import serving_instances

SHAPE = (2, 2, 2, 2)
MODES = ("none", "diu", "ddu")


def _options(instances: Instances):
    options = list_options(instances)
    return None if options is None else options.ranges


def draw_multipliers(
    rng: np.random.Generator, codec: LeafCodec, scale: float, count: int
) -> dict[str, np.ndarray]:
    """Wild multipliers of ``count`` leaves, signs and adversaries wrong as often as right."""
    types, pairs, options = codec.types, codec.pairs, codec.options

    def draw(*shape: int) -> np.ndarray:
        return (
            scale
            * rng.choice([0.0, 0.1, 1.0, 10.0], (count, *shape))
            * rng.uniform(-0.3, 1.0, (count, *shape))
        )

    result = {
        "demand": draw(types) * 30,
        "delay": draw(types) * 0.1,
        "error": draw(types) * 10,
        "budget": draw() * 0.1,
        "storage": draw() * 0.01,
        "memory": draw(pairs, options) * 0.1,
        "compute": draw(pairs, options) * 0.01,
        "delay_adversary": rng.uniform(-0.5, 2.0, (count, types, pairs)),
        "error_adversary": rng.uniform(-0.5, 2.0, (count, types, pairs)),
        "throughput": draw(pairs, options) * 10,
        "load_adversary": rng.uniform(-0.5, 2.0, (count, pairs, options, types)),
        "quota": draw(codec.quotas),
    }
    kept = {"throughput": codec.has_rates, "load_adversary": codec.has_rates, "quota": codec.has_quotas}
    return {name: array.astype(np.float32) for name, array in result.items() if kept.get(name, True)}


def _witness(instances: Instances, ranges: Ranges | None, drawn: dict[str, np.ndarray]) -> np.ndarray:
    pairs, values = LeafCodec.of(instances, ranges).pack(drawn)
    root = np.array([], np.int32)
    leaves = [(root, p, v) for p, v in zip(pairs, values, strict=True)]
    return dual_values(instances, np.zeros(len(leaves), np.int64), leaves, ranges)


def _spread(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.7, 1.4, shape)


VARIANTS = {
    "all": {},
    "rates": {"max_replicas": 1, "gpu_quota": np.inf},
    "replicas": {"throughput": np.inf, "gpu_quota": np.inf},
    "quotas": {"max_replicas": 1, "throughput": np.inf},
    "whole traffic": {"unmet_cap": 0.9},
    "two routes": {"max_routes": 2},
    "speeds of pairs": {"tp_speedup": _spread(SHAPE, 1)},
    "stays of pairs": {"residency_hours": 0.1 * _spread(SHAPE[:3], 2)},
}


@pytest.mark.parametrize("change", VARIANTS)
@pytest.mark.parametrize("mode", MODES)
def test_any_multipliers_prove_no_more_than_the_optimum(mode: str, change: str) -> None:
    """Weak duality on enumerated fleets; and nothing less than what the solvers' dual function says."""
    rng = np.random.default_rng(7)
    devices = ("d", "d") if change in ("all", "quotas") else None
    instances = serving_instances(98, SHAPE, mode=mode, devices=devices, **VARIANTS[change])
    optimum = cheapest(instances, 0)
    options = list_options(instances)
    ranges = None if options is None else options.ranges
    expanded = instances if options is None else options.expand(instances)
    c = derive_coefficients(expanded.one(0), mode, serving=True)
    best = -np.inf
    for scale in (0.0, 0.03, 1.0):
        drawn = draw_multipliers(rng, LeafCodec.of(instances, ranges), scale, 12)
        drawn["demand"] += (np.linspace(0.0, 1.0, 12)[:, None] * optimum / SHAPE[0]).astype(np.float32)
        bounds = _witness(instances, ranges, drawn)
        assert np.isfinite(bounds).all()
        assert (bounds <= optimum + 1e-7 * max(abs(optimum), 1.0)).all()
        best = max(best, float(bounds.max()))
        for leaf in range(0, 12, 3):
            y = Multipliers(**{name: np.float64(array[leaf]) for name, array in drawn.items()})
            said = float(evaluate_dual(c, y).bound)
            assert bounds[leaf] >= said - 1e-9 * max(abs(said), 1.0)
    assert best > 0.1 * optimum, "not all of them are hopeless"


def _write_any(path: Path, instances: Instances) -> Path:
    codec = LeafCodec.of(instances, _options(instances))
    drawn = draw_multipliers(np.random.default_rng(1), codec, 1.0, 1)
    leaves = Leaves(np.zeros(1, np.int64), np.zeros((1, 0), np.int32), drawn, _options(instances))
    write_certificates(path, tabulate_leaves(leaves, {}, instances))
    return path


def test_certificates_of_fleets_come_back_as_written(tmp_path: Path) -> None:
    instances = serving_instances(90, SHAPE)
    (one,) = load_certificates(_write_any(tmp_path / "c.parquet", instances), instances).values()
    assert one.ranges == _options(instances)
    drawn = draw_multipliers(np.random.default_rng(1), LeafCodec.of(instances, one.ranges), 1.0, 1)
    found = LeafCodec.of(instances, one.ranges).unpack(one.pairs, one.values)
    for name, array in drawn.items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, "lists of a degree"),
        ([[0, 1, 4], [1, 1, 2]], "options of degree 1 that hold 1 to"),
        ([[0, 1, 2], [0, 4, 9], [1, 1, 9]], "options of degree 0 that hold 1 to"),
        ([[0, 1, 9], [1, 1, 9], [2, 1, 9]], "option 2: a degree from 0 to 1"),
        ([[0, 1, 9], [1, 0, 9]], "option 1: a degree"),
        ([[0, 1.5, 9], [1, 1, 9]], "option 0: three whole numbers"),
        ([[0, 1, 10**30], [1, 1, 9]], "option 0: a degree"),
        ([], "options of degree 0 that hold 1 to"),
    ],
)
def test_options_that_do_not_hold_every_fleet_are_refused(
    options: list[list[int]] | None, expected: str, tmp_path: Path
) -> None:
    instances = serving_instances(90, SHAPE)
    path = _write_any(tmp_path / "c.parquet", instances)
    table = pq.read_table(path)
    meaning = json.loads(table.schema.metadata[b"rodiu"])
    meaning.pop("options")
    if options is not None:
        meaning["options"] = options
    pq.write_table(pa.table(table.columns, table.schema.with_metadata({"rodiu": json.dumps(meaning)})), path)
    with pytest.raises(InputError, match=expected):
        load_certificates(path, instances)


def test_options_hold_every_number_of_replicas() -> None:
    assert check_ranges([(0, 1, 1), (0, 2, 3), (0, 4, 9)], 1, 9) == ""
    assert check_ranges([(0, 4, 9), (0, 1, 3)], 1, 9) == ""
    assert check_ranges([(0, 1, 1), (0, 3, 9)], 1, 9)
    assert check_ranges([(0, 1, 8)], 1, 9)


def test_a_load_a_little_above_whole_replicas_wants_one_more() -> None:
    """Without it the problem would be infeasible by a part in 10^12, of which wild prices would prove anything."""
    shape = (1, 1, 1, 1)
    one = serving_instances(
        0,
        shape,
        mode="none",
        arrival_rate=np.array([100.0]),
        throughput=np.full(shape, 33.3333333333),
        throughput_shortfall=np.zeros(shape[:3]),
        unmet_cap=0.0,
        max_replicas=np.array([[10]]),
        gpu_quota=np.array([np.inf]),
        max_utilization=1.0,
        budget=1e4,
    )
    ranges = ((0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 10))
    codec = LeafCodec.of(one, ranges)
    for price in (1e3, 1e10, 1e20):
        drawn = {n: 0.0 * a for n, a in draw_multipliers(np.random.default_rng(1), codec, 1.0, 1).items()}
        drawn["demand"] = np.full((1, 1), price, np.float32)
        assert _witness(one, ranges, drawn)[0] <= cheapest(one, 0) * (1 + 1e-9)
