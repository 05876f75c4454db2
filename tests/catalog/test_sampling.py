"""Sampling: ranges and shapes of every distribution, independence, and what must not change a scenario."""

import gc
import re
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rodiu_jax.catalog import Catalog, Draws, draw_program, load_catalog, sampling
from rodiu_jax.catalog.sampling import sample, sample_quantities
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import FIELD_SPECS, REQUIRED_FIELDS
from rodiu_jax.model.instance import Instances, make_instances
from rodiu_jax.runtime.block_sizes import BlockSize
from rodiu_jax.runtime.threefry import hash32
from tests.catalog.test_load import added_gpu, child, resized, written
from tests.oracles.numpy_sampler import GPU_NAMES, MODEL_NAMES, QUERY_NAMES

SEED = load_catalog("seed")
N = 3000
PRIMITIVE = [  # drawn directly, not derived from another draw
    name for name, q in SEED.quantities.items() if name in SEED.varying and isinstance(q.recipe, Draws)
] + ["delay_impact", "error_impact"]


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    return sample_quantities(SEED, n=N, seed=11)


def same(a: Instances, b: Instances, rows_a: slice = slice(None), rows_b: slice = slice(None)) -> None:
    """Bit-identical fields."""
    assert a.batched == b.batched
    for name, x in a.fields._asdict().items():
        y = getattr(b.fields, name)
        np.testing.assert_array_equal(
            x[rows_a] if name in a.batched else x, y[rows_b] if name in b.batched else y
        )


# ---- distributions ----


@pytest.mark.parametrize("name", PRIMITIVE)
def test_each_draw_is_uniform_on_its_range(name: str, draws: dict[str, np.ndarray]):
    """Every entry inside its range; a KS test on each entry (worst p, Bonferroni) and one on all together."""
    low, high = SEED.ranges[name]
    values = draws[name]
    assert values.shape == (N, *SEED.shape(name))
    assert values.dtype == np.float64
    assert ((low <= values) & (values < high)).all()
    scaled = ((values - low) / (high - low)).reshape(N, -1)
    single = [stats.kstest(column, "uniform").pvalue for column in scaled.T]
    assert min(single) * len(single) > 1e-3
    assert stats.kstest(scaled.ravel(), "uniform").pvalue > 1e-3
    assert scaled.min() < 20 / scaled.size  # the ends are reached
    assert scaled.max() > 1 - 20 / scaled.size


def test_derived_by_their_formulas(draws: dict[str, np.ndarray]):
    """The seed's formulas written out over names, against the sampler's own products."""
    d = draws
    compute = SEED.fixed("gpu_compute")
    delay = np.einsum("bi,j,k->bijk", d["base_delay"], SEED.fixed("model_multiplier"), 40.7 / compute)
    np.testing.assert_allclose(d["delay_nominal"], delay, rtol=1e-14)
    np.testing.assert_allclose(d["delay_deviation"], delay * d["delay_deviation_share"], rtol=1e-14)
    error = np.einsum(
        "bi,j,k->bijk", d["base_error"], 1 / SEED.fixed("model_capacity"), SEED.fixed("precision_factor")
    )
    np.testing.assert_allclose(d["error_nominal"], error, rtol=1e-14)
    np.testing.assert_allclose(d["error_deviation"], error * d["error_deviation_share"], rtol=1e-14)
    np.testing.assert_allclose(d["gpu_price"], SEED.fixed("gpu_base_price") * d["market_factor"], rtol=1e-15)


def test_impact_classes(draws: dict[str, np.ndarray]):
    """Classes restated from MODEL section 7: each pair's draws fill its own range of width 0.05, no other."""
    compute = dict(zip(SEED.sets["gpu"], SEED.fixed("gpu_compute"), strict=True))
    for j, model in enumerate(SEED.sets["model"]):
        level = {"1B": 0, "3B": 0, "8B": 1, "11B": 1, "31B": 2, "70B": 2}[model.split("-")[2]]
        for k, gpu in enumerate(SEED.sets["gpu"]):
            power = int(np.searchsorted([150, 400, 900], compute[gpu], side="right"))
            delay = {2: 0.8, 3: 0.8, 1: 0.6, 0: 0.4}.get(power - level, 0.2)
            precision = min(max(power + {"FP16": 1, "INT8": 0, "INT4": -1}[gpu.split("_")[-1]], 0), 3)
            score = (2 * level + precision) / 3
            error = 0.2 if score < 0.75 else 0.4 if score < 1.5 else 0.6 if score <= 2.25 else 0.8
            for name, floor in (("delay_impact", delay), ("error_impact", error)):
                drawn = draws[name][:, j, k]
                assert (floor <= drawn.min(), drawn.max() < floor + 0.05) == (True, True), (name, model, gpu)


def test_draws_are_independent(draws: dict[str, np.ndarray]):
    """All 893 primitive draws, pairwise, along the scenarios, and between neighbouring scenarios and seeds.

    For independent columns a correlation is about N(0, 1/n); 4e5 pairs stay below 5.5 sd in 98 % of runs.
    """
    columns = np.concatenate([draws[name].reshape(N, -1) for name in PRIMITIVE], axis=1)
    assert columns.shape[1] == 893
    z = (columns - columns.mean(0)) / columns.std(0)
    correlation = z.T @ z / N
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(N)
    assert np.abs((z[1:] * z[:-1]).mean(0)).max() < 5 / np.sqrt(N)
    others = sample_quantities(SEED, n=N, seed=12)
    w = np.concatenate([others[name].reshape(N, -1) for name in PRIMITIVE], axis=1)
    w = (w - w.mean(0)) / w.std(0)
    assert np.abs((z * w).mean(0)).max() < 5 / np.sqrt(N)
    assert np.abs(np.sum(z, axis=1) / np.sqrt(893)).max() < 5.5  # nor do many of them move together


KINDS = """
[quantity.delay_threshold.values]
Summarization = 900
Code_Gen = { uniform = [5, 6] }
Translation = { log_uniform = [0.001, 1000] }
Math_Solving = { normal = { mean = 10, sd = 4, low = 2, high = 15 } }
Image_Gen = { normal = { mean = 0, sd = 1, low = 3, high = 9 } }
Video_Gen = { choice = [3, 1, 4, 1.5] }

[quantity.error_threshold]
each = 0.1
[quantity.error_threshold.values]
Code_Gen = { choice = [0.2, 0.3] }
Image_Gen = { choice = [0.4, 0.5, 0.6] }

[quantity.budget]
each = { log_uniform = [100, 10000] }

[quantity.storage_capacity]
each = { normal = { mean = 1000, sd = 10, low = 0, high = 1e6 } }

[quantity.rental_hours]
each = { choice = [6, 12, 24] }

[quantity.max_routes]
each = { choice = [0, 1, 2] }
"""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Instances:
    return sample(written(tmp_path_factory.mktemp("kinds"), child(KINDS)), n=20_000, seed=5)


def test_kinds_beside_each_other(kinds: Instances):
    at = {name: kinds.fields.delay_threshold[:, i] for i, name in enumerate(kinds.query_names)}
    assert (at["Summarization"] == 900).all()
    expected = {
        "Code_Gen": stats.uniform(5, 1),
        "Translation": stats.loguniform(0.001, 1000),
        "Math_Solving": stats.truncnorm(-2, 1.25, loc=10, scale=4),
        "Image_Gen": stats.truncnorm(3, 9),
    }
    for name, distribution in expected.items():
        low, high = distribution.support()
        assert ((low <= at[name]) & (at[name] <= high)).all()
        assert stats.kstest(at[name], distribution.cdf).pvalue > 1e-3, name
        assert len(np.unique(at[name])) > 19_900  # fine enough to be called continuous
    errors = dict(zip(kinds.query_names, kinds.fields.error_threshold.T, strict=True))
    for drawn, options in (
        (at["Video_Gen"], [1, 1.5, 3, 4]),
        (errors["Code_Gen"], [0.2, 0.3]),
        (errors["Image_Gen"], [0.4, 0.5, 0.6]),
        (errors["Translation"], [0.1]),
    ):
        values, counts = np.unique(drawn, return_counts=True)
        assert values.tolist() == options
        assert len(options) == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_kinds_alone(kinds: Instances):
    f = kinds.fields
    assert stats.kstest(f.budget, stats.loguniform(100, 10000).cdf).pvalue > 1e-3
    assert stats.kstest(f.storage_capacity, stats.norm(1000, 10).cdf).pvalue > 1e-3
    for field, options in (("rental_hours", [6, 12, 24]), ("max_routes", [0, 1, 2])):
        values, counts = np.unique(getattr(f, field), return_counts=True)
        assert values.tolist() == options
        assert stats.chisquare(counts).pvalue > 1e-3
    assert f.max_routes.dtype == np.int64


def test_a_far_tail_keeps_its_shape(tmp_path: Path):
    """A range 8 to 12 sd above the mean: mass 6e-16, where differences from 1 would be all rounding."""
    body = "[quantity.budget]\neach = { normal = { mean = 0, sd = 1, low = 8, high = 12 } }"
    drawn = sample_quantities(load_catalog(written(tmp_path, child(body))), ["budget"], n=20_000)["budget"]
    tail = stats.norm
    assert (
        stats.kstest(drawn, lambda x: 1 - (tail.sf(x) - tail.sf(12)) / (tail.sf(8) - tail.sf(12))).pvalue
        > 1e-3
    )


DRAWN_SCORE = """
[quantity.gpu_compute.values]
A100_FP16 = { uniform = [100, 1000] }
"""


def test_classes_of_a_drawn_score(tmp_path: Path):
    catalog = load_catalog(written(tmp_path, child(DRAWN_SCORE)))
    names = ["gpu_compute", "gpu_power_level", "gpu_speed_factor", "delay_impact"]
    drawn = sample_quantities(catalog, names, n=5000, seed=2)
    k = catalog.sets["gpu"].index("A100_FP16")
    compute = drawn["gpu_compute"][:, k]
    power = np.searchsorted([150, 400, 900], compute, side="right")
    assert set(power) == {0, 1, 2, 3}
    np.testing.assert_array_equal(drawn["gpu_power_level"][:, k], power)
    np.testing.assert_allclose(drawn["gpu_speed_factor"][:, k], 40.7 / compute)
    for j, level in enumerate(catalog.fixed("model_level")):
        floor = np.array([0.2, 0.4, 0.6, 0.8])[np.clip(power - level + 1, 0, 3).astype(int)]
        excess = drawn["delay_impact"][:, j, k] - floor
        assert ((excess > -1e-12) & (excess < 0.05)).all()
        assert stats.kstest(excess / 0.05, "uniform").pvalue > 1e-3
    # where the class is the same as the seed's, so is the draw
    usual = sample_quantities(SEED, ["delay_impact"], n=5000, seed=2)["delay_impact"]
    np.testing.assert_array_equal(drawn["delay_impact"][power == 1], usual[power == 1])
    np.testing.assert_array_equal(np.delete(drawn["delay_impact"], k, 2), np.delete(usual, k, 2))


def test_derived_quantities_of_draws(tmp_path: Path):
    body = """
[quantity.mix]
over = ["query", "gpu"]
unit = "-"
source = "test"
sum = { arrival_rate = 2, market_factor = -50 }
divisor = 4
clip = [0, 40]
[quantity.inverse]
over = ["query", "model"]
unit = "-"
source = "test"
divide = ["base_delay"]
[quantity.one_class]
over = ["gpu"]
unit = "-"
source = "test"
class_of = "market_factor"
classes = [{ uniform = [3, 4] }]
"""
    catalog = load_catalog(written(tmp_path, child(body)))
    names = ["arrival_rate", "market_factor", "base_delay", "mix", "inverse", "one_class"]
    d = sample_quantities(catalog, names, n=50, seed=3)
    mix = (2 * d["arrival_rate"][:, :, None] - 50 * d["market_factor"][:, None, :]) / 4
    np.testing.assert_allclose(d["mix"], np.clip(mix, 0, 40), rtol=1e-13)
    np.testing.assert_allclose(d["inverse"], np.repeat(1 / d["base_delay"][:, :, None], 6, 2), rtol=1e-15)
    assert ((d["one_class"] >= 3) & (d["one_class"] < 4)).all()


def test_worked_examples():
    for example, expected in zip(
        SEED.examples, (0.0329221435793731, 25.2842062689585, 0.008625), strict=True
    ):
        drawn = sample_quantities(SEED.with_fixed(example.given), [example.quantity], n=3)[example.quantity]
        i, j, k = (SEED.sets[a].index(example.at[a]) for a in ("query", "model", "gpu"))
        np.testing.assert_allclose(drawn[:, i, j, k], expected, rtol=1e-13)


def test_same_law_as_the_peer():
    """Names of the scalar peer in `tests.oracles`, so that both mean the same arrays."""
    assert tuple(SEED.sets[a] for a in ("query", "model", "gpu")) == (QUERY_NAMES, MODEL_NAMES, GPU_NAMES)


# ---- keys ----


def test_the_key_is_the_one_documented():
    """Scenario 7's price factor of one GPU, by jax's own fold_in."""
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.key(2**40 + 3, impl="threefry2x32"), 7)
        for name in ("market_factor", "H100_INT8"):
            word = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little")
            assert hash32(name) == word
            key = jax.random.fold_in(key, np.uint32(word))
        bits = int(jax.random.key_data(key)[0])
    expected = 0.8 + (1.2 - 0.8) * (bits >> 3) / 2**29
    drawn = sample_quantities(SEED, ["market_factor"], n=8, seed=2**40 + 3)["market_factor"]
    assert drawn[7, SEED.sets["gpu"].index("H100_INT8")] == pytest.approx(expected, rel=1e-7)


@given(st.floats(1e-300, 1e300), st.integers(0, 2**29 - 1))
def test_a_slope_times_a_draw_is_exact(width: float, bits: int):
    """So fusing it with the addition that follows cannot change a bit; Fraction does not round."""
    slope = draw_program.round_down(width)
    assert 1 - Fraction(1, 2**23) < Fraction(slope) / Fraction(width) <= 1
    u = bits * 2.0**-29
    assert Fraction(slope * u) == Fraction(slope) * Fraction(u)


def test_names_with_the_same_hash_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(draw_program, "hash32", lambda name: len(name))
    with pytest.raises(InputError, match="its hash is that of"):
        sample(SEED, n=1)


# ---- what must not change a scenario ----


@pytest.fixture(scope="module")
def reference() -> Instances:
    return sample(SEED, n=40, seed=9)


@pytest.mark.parametrize(
    ("n", "start", "block"), [(1, 0, None), (40, 0, 7), (13, 21, None), (13, 21, 7), (1, 39, None)]
)
def test_runs_overlap_bit_for_bit(
    reference: Instances, n: int, start: int, block: int | None, monkeypatch: pytest.MonkeyPatch
):
    if block is not None:
        monkeypatch.setattr(sampling, "block_size", lambda *_, **__: BlockSize(block, block))
    same(sample(SEED, n=n, seed=9, start=start), reference, rows_b=slice(start, start + n))


def test_seeds_differ(reference: Instances):
    for seed in (0, 8, 9 + 2**32):
        other = sample(SEED, n=40, seed=seed)
        assert all(
            (getattr(other.fields, n) != getattr(reference.fields, n)).all() for n in reference.batched
        )


def permuted() -> str:
    lists = {a: list(reversed(SEED.sets[a])) for a in ("query", "model", "gpu")}
    return child("[sets]\n" + "\n".join(f"{a} = {names}" for a, names in lists.items()))


def test_order_of_names(reference: Instances, tmp_path: Path):
    other = sample(written(tmp_path, permuted()), n=40, seed=9)
    for name in REQUIRED_FIELDS:
        spec = FIELD_SPECS[name]
        flip = tuple(slice(None, None, -1) if a in "IJK" else slice(None) for a in spec.axes)
        lead = (slice(None),) if name in reference.batched else ()
        np.testing.assert_array_equal(
            getattr(other.fields, name)[(*lead, *flip)], getattr(reference.fields, name), err_msg=name
        )


def test_an_added_gpu_and_quantity_leave_the_other_draws(reference: Instances, tmp_path: Path):
    body = added_gpu() + '[quantity.aside]\nover = ["query", "gpu"]\nunit = "-"\nsource = "t"\n'
    catalog = load_catalog(written(tmp_path, child(body + "each = { uniform = [0, 1] }")))
    other = sample(catalog, n=40, seed=9)
    keep = [other.gpu_names.index(name) for name in reference.gpu_names]
    for name in REQUIRED_FIELDS:
        spec = FIELD_SPECS[name]
        value = getattr(other.fields, name)
        value = value[..., keep] if spec.axes.endswith("K") else value
        np.testing.assert_array_equal(value, getattr(reference.fields, name), err_msg=name)


def test_common_random_numbers_of_two_catalogues(reference: Instances):
    other = sample("corrected", n=40, seed=9)
    changed = {"weight_memory", "kv_per_token", "gpu_memory", "gpu_price", "compute_per_token"}
    for name in FIELD_SPECS:
        a, b = getattr(reference.fields, name), getattr(other.fields, name)
        assert np.array_equal(a, b) == (name not in changed), name
    np.testing.assert_allclose(
        other.fields.compute_per_token * 1000, reference.fields.compute_per_token, rtol=1e-6
    )


def test_another_kind_of_one_entry_leaves_the_others(tmp_path: Path, reference: Instances):
    body = "[quantity.arrival_rate.values]\nCode_Gen = { normal = { mean = 9, sd = 1, low = 5, high = 30 } }"
    other = sample(written(tmp_path, child(body)), n=40, seed=9)
    i = reference.query_names.index("Code_Gen")
    np.testing.assert_array_equal(
        np.delete(other.fields.arrival_rate, i, 1), np.delete(reference.fields.arrival_rate, i, 1)
    )


def test_positions_in_the_batch_do_not_matter_to_any_kind(tmp_path: Path):
    """Kinds that call exp and ndtri too: vector and scalar code of a library may differ in the last bits."""
    path = written(tmp_path, child(KINDS))
    whole = sample(path, n=257, seed=1)
    for start in range(1, 8):
        same(sample(path, n=200, seed=1, start=start), whole, rows_b=slice(start, start + 200))


# ---- compilation, shapes, checks ----


def test_nothing_recompiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other n, start and seed, other values, other names: one program for few scenarios and one for many."""
    for n in (3, 1000):
        sample(SEED, n=n)
    count = sampling._draw._cache_size()
    for n, start, seed in ((1, 0, 0), (700, 5, 1), (1500, 0, 2**50)):
        sample(SEED, n=n, start=start, seed=seed)
    sample("corrected", n=3)
    names = str([f"gpu {k}" for k in range(10)])
    text = re.sub(r"(?ms)^gpu = \[.*?\]", f"gpu = {names}", SEED.path.read_text(encoding="utf-8"))
    for k, gpu in enumerate(SEED.sets["gpu"]):
        text = re.sub(rf"\b{gpu} =", f'"gpu {k}" =', text)
    sample(written(tmp_path, text.split("# ---- what the seed claims")[0]), n=3)
    assert sampling._draw._cache_size() == count
    monkeypatch.setattr(sampling, "block_size", lambda *_, **__: BlockSize(5, 5))
    sample(SEED, n=3)  # the count does count
    assert sampling._draw._cache_size() == count + 1


def test_few_scenarios_are_drawn_in_two_halves_and_no_block_is_a_power_of_two():
    names = [name for name in FIELD_SPECS if name in SEED.varying]  # 12,808 bytes a scenario, 4 MiB a block
    rows = {n: sampling._block_size(SEED, names, n).rows for n in (1, 256, 257, 10**6)}
    assert rows == {1: 136, 256: 136, 257: 272, 10**6: 272}


def test_a_catalogue_prepares_its_program_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[str] = []

    def make(catalog: Catalog, wanted: Sequence[str]) -> Any:
        made.append(catalog.name)
        return draw_program.make_program(catalog, wanted)

    monkeypatch.setattr(sampling, "make_program", make)
    text = SEED.path.read_text(encoding="utf-8").split("# ---- what the seed claims")[0]
    for dearer in (1, 2):
        catalog = load_catalog(written(tmp_path, text.replace("[0.001, 0.005]", f"[{dearer}.0, {dearer}.5]")))
        for _ in range(2):
            price = sample(catalog, n=3).fields.storage_price
            assert ((price >= dearer) & (price <= dearer + 0.5)).all()
        assert len(made) == dearer
        address = id(catalog)
        assert address in sampling._PREPARED
        del catalog
        gc.collect()
        assert address not in sampling._PREPARED, "another catalogue may come to lie there"


def test_other_sizes(tmp_path: Path):
    catalog = load_catalog(written(tmp_path, resized((3, 9, 40, 5))))
    instances = sample(catalog, n=5, seed=1)
    assert instances.shape == (3, 9, 40, 5)
    assert instances.size == 5
    validated(instances)


def validated(instances: Instances) -> None:
    make_instances(
        instances.query_names,
        instances.model_names,
        instances.gpu_names,
        instances.uncertainty,
        instances.fields._asdict(),
    )


@pytest.mark.parametrize("catalog", ["seed", "corrected"])
def test_what_is_drawn_would_pass_validation(catalog: str, tmp_path: Path):
    instances = sample(catalog, n=300, seed=4, uncertainty="diu")
    validated(instances)
    assert instances.uncertainty == "diu"
    instances.save(tmp_path / "x.npz")
    drawn = {"arrival_rate", "gpu_price", "compute_per_token", "token_size", "storage_price", "delay_penalty"}
    drawn |= {"unmet_penalty", "delay_impact", "error_impact"}
    drawn |= {f"{a}_{b}" for a in ("delay", "error") for b in ("nominal", "deviation")}
    assert instances.batched == drawn
    for name, value in instances.fields._asdict().items():
        assert value.dtype == (np.int64 if FIELD_SPECS[name].integer else np.float64)
        assert value.flags.writeable


def test_a_catalogue_without_draws(tmp_path: Path):
    catalog: Catalog = SEED
    for name in PRIMITIVE[:-2]:
        catalog = catalog.with_fixed({name: float(SEED.ranges[name][1].max())})
    text = child("[quantity.delay_impact]\neach = 0.5\n[quantity.error_impact]\neach = 0.5\n")
    fixed = load_catalog(written(tmp_path, text))
    fixed = fixed.with_fixed({name: float(SEED.ranges[name][1].max()) for name in PRIMITIVE[:-2]})
    instances = sample(fixed, n=4)
    assert instances.size == 4
    validated(instances)
    assert sample(catalog, n=2).batched == {"delay_impact", "error_impact"}


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"n": 0}, "sample: n: got 0, expected a whole number from 1"),
        ({"n": -4}, "n: got -4"),
        ({"n": True}, "n: got True"),
        ({"n": 1, "seed": -1}, "seed: got -1, expected a whole number from 0 to 9223372036854775807"),
        ({"n": 1, "seed": 2**63}, "seed: got 9223372036854775808"),
        ({"n": 1, "start": -1}, "start: got -1"),
        ({"n": 2, "start": 2**32 - 1}, "start: got 4294967295, expected a whole number from 0 to 4294967294"),
        ({"n": 1, "uncertainty": "dui"}, "uncertainty: got 'dui', expected none or diu or ddu"),
        ({"n": 1, "catalog": "sead"}, "did you mean seed?"),
    ],
)
def test_bad_arguments(arguments: dict, fragment: str):
    with pytest.raises(InputError) as caught:
        sample(**arguments)
    assert fragment in str(caught.value)


def test_unknown_quantity():
    with pytest.raises(InputError, match="'gpu_prize'"):
        sample_quantities(SEED, ["gpu_prize"], n=1)


def test_last_scenarios_of_all():
    drawn = sample_quantities(SEED, ["arrival_rate"], n=2, start=2**32 - 2)["arrival_rate"]
    assert (drawn[0] != drawn[1]).all()


def test_quantities_come_in_the_order_asked_for():
    names = ["arrival_rate", "budget", "weight_memory", "input_tokens"]
    catalog = load_catalog("seed")
    assert list(sample_quantities(catalog, names, n=2)) == names
    assert list(sample_quantities(catalog, n=2)) == list(catalog.quantities)
