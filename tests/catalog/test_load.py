"""Catalogues: the two that come with the package against MODEL section 7, extending them, every way to err.

The figures are written out again here, on purpose not read from the TOML files.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.catalog import Catalog, Distribution, Draws, catalog_names, load_catalog
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import REQUIRED_FIELDS

QUERIES = ("Summarization", "Code_Gen", "Translation", "Math_Solving", "Image_Gen", "Video_Gen")
SIZES = ("1B", "3B", "8B", "11B", "31B", "70B")  # one model per size: tables below are in this order
GPUS = (
    *("A6000_FP16", "A6000_INT8", "A6000_INT4", "RTX_4090_FP16", "RTX_4090_INT8", "RTX_4090_INT4"),
    *("A100_FP16", "A100_INT8", "H100_FP16", "H100_INT8"),
)

# The seed's tables, in the order of the three lists above.
FIXED = {
    "input_tokens": (512, 256, 128, 64, 32, 48),
    "output_tokens": (256, 512, 128, 256, 1024, 2048),
    "tokens_per_query": (768, 768, 256, 320, 1056, 2096),
    "delay_threshold": (1000, 1500, 800, 2000, 4000, 5000),
    "error_threshold": (0.08, 0.10, 0.08, 0.10, 0.15, 0.25),
    "weight_memory": (2, 6, 16, 22, 140, 810),
    "kv_per_token": (0.02, 0.05, 0.15, 0.25, 1.4, 8.0),
    "model_multiplier": (0.3, 0.5, 1.5, 2.5, 3.5, 5.0),
    "model_capacity": (0.5, 1.5, 3.0, 2.5, 5.0, 8.0),
    "model_level": (0, 0, 1, 1, 2, 2),
    "gpu_memory": (48, 48, 80, 48, 24, 24, 24, 40, 80, 80),
    "gpu_compute": (40.7, 58.1, 67, 77.4, 82.6, 123.9, 165.2, 468, 989, 1483.5),
    "gpu_base_price": (0.65, 0.65, 2.50, 0.65, 0.35, 0.35, 1.20, 1.20, 2.0, 2.50),
    "gpu_power_level": (0, 0, 0, 0, 0, 0, 1, 2, 3, 3),
    "precision_factor": (1.0, 1.15, 1.35, 1.0, 1.15, 1.35, 1.0, 1.15, 1.0, 1.15),
    "precision_level": (1, 0, 0, 1, 0, 0, 2, 2, 3, 3),
    "storage_capacity": 1000,
    "budget": 5000,
    "rental_hours": 12,
    "residency_hours": 0.1,
    "unmet_cap": 1,
    "max_routes": 0,
    "gamma_delay": 10,
    "gamma_error": 10,
    "reference_compute": 40.7,
    "tp_speedup": (1, 1, 1, 1),
}
RANGES = {
    "arrival_rate": ((80, 120), (60, 100), (100, 140), (40, 80), (20, 60), (10, 30)),
    "compute_per_token": ((0.3, 0.7), (0.6, 1.0), (0.2, 0.4), (1.0, 1.5), (2.0, 3.0), (3.5, 4.5)),
    "token_size": (*(4 * ((0.0008, 0.0012),)), (0.004, 0.006), (0.008, 0.012)),
    "delay_penalty": (
        *((0.005, 0.010), (0.015, 0.025), (0.005, 0.010)),
        *((0.010, 0.020), (0.025, 0.035), (0.040, 0.060)),
    ),
    "unmet_penalty": ((30, 50), (80, 100), (20, 40), (80, 100), (150, 200), (150, 200)),
    "base_delay": ((0.4, 0.6), (0.7, 0.9), (0.3, 0.4), (1.0, 1.2), (2.0, 2.5), (3.5, 4.0)),
    "base_error": ((0.03, 0.05), (0.02, 0.03), (0.02, 0.03), (0.05, 0.07), (0.06, 0.08), (0.08, 0.10)),
    "storage_price": (0.001, 0.005),
    "market_factor": 10 * ((0.8, 1.2),),
    "delay_deviation_share": (0.10, 0.25),
    "error_deviation_share": (0.10, 0.25),
}
# MODEL section 7: what `corrected` changes, and nothing else.
CORRECTED = {
    "weight_memory": (2, 6, 16, 22, 62, 140),
    "kv_per_token": (0.02e-3, 0.05e-3, 0.15e-3, 0.25e-3, 0.62e-3, 1.4e-3),
    "gpu_memory": (48, 48, 48, 24, 24, 24, 40, 40, 80, 80),
    "gpu_base_price": (0.65, 0.65, 0.65, 0.35, 0.35, 0.35, 1.20, 1.20, 2.50, 2.50),
}
CORRECTED_RANGES = {"compute_per_token": tuple((a / 1000, b / 1000) for a, b in RANGES["compute_per_token"])}

STARS = {
    "gpu_compute": 5,
    "gpu_memory": 5,
    "weight_memory": 5,
    "gpu_base_price": 4,
    "arrival_rate": 3,
    "base_delay": 3,
    "base_error": 3,
    "delay_deviation_share": 3,
    "delay_impact": 3,
    "gamma_delay": 3,
    "delay_penalty": 2,
    "unmet_penalty": 2,
}


def by_name(catalog: Catalog, quantity: str, values: np.ndarray) -> np.ndarray:
    """Values of a quantity over one axis in the order of this file's lists, found by name."""
    (axis,) = catalog.quantities[quantity].over
    order = {"query": list(QUERIES), "gpu": list(GPUS), "tp": ["1", "2", "4", "8"]}.get(axis)
    if axis == "model":
        found = {re.split(r"[-]", name)[2]: name for name in catalog.sets["model"]}
        order = [found[size] for size in SIZES]
    assert order is not None
    return np.array([values[catalog.sets[axis].index(name)] for name in order])


@pytest.fixture(scope="module", params=["seed", "corrected"])
def bundled(request: pytest.FixtureRequest) -> Catalog:
    return load_catalog(request.param)


def test_names_of_the_bundled():
    assert catalog_names() == ("corrected", "seed", "serving")


def test_sets(bundled: Catalog):
    assert set(bundled.sets["query"]) == set(QUERIES)
    assert set(bundled.sets["gpu"]) == set(GPUS)
    assert len(bundled.sets["model"]) == 6
    assert bundled.sets["tp"] == ("1", "2", "4", "8")


@pytest.mark.parametrize("quantity", FIXED)
def test_fixed_values(bundled: Catalog, quantity: str):
    expected = np.array(FIXED[quantity], float)
    if bundled.name == "corrected" and quantity in CORRECTED:
        expected = np.array(CORRECTED[quantity])
    found = bundled.fixed(quantity)
    found = by_name(bundled, quantity, found) if found.ndim else found
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("quantity", RANGES)
def test_ranges(bundled: Catalog, quantity: str):
    expected = np.array(RANGES[quantity], float)
    if bundled.name == "corrected" and quantity in CORRECTED_RANGES:
        expected = np.array(CORRECTED_RANGES[quantity])
    for end, found in enumerate(bundled.ranges[quantity]):
        if found.ndim == 1:
            found = by_name(bundled, quantity, found)
        np.testing.assert_allclose(found, np.broadcast_to(expected[..., end], found.shape), rtol=1e-15)
    kinds = {e.distribution.kind for e in bundled.entries(quantity)}
    assert kinds == {"uniform"}


def test_price_range_is_the_base_price_give_or_take_a_fifth():
    catalog = load_catalog("seed")
    low, high = catalog.ranges["gpu_price"]
    base = by_name(catalog, "gpu_base_price", catalog.fixed("gpu_base_price"))
    np.testing.assert_allclose(by_name(catalog, "gpu_price", low), 0.8 * base)
    np.testing.assert_allclose(by_name(catalog, "gpu_price", high), 1.2 * base)


def test_corrected_changes_only_what_the_model_lists():
    seed, corrected = load_catalog("seed"), load_catalog("corrected")
    assert list(seed.quantities) == list(corrected.quantities)
    changed = {
        name
        for name, q in seed.quantities.items()
        if isinstance(q.recipe, Draws)
        and [e.distribution for e in seed.entries(name)] != [e.distribution for e in corrected.entries(name)]
    }
    assert changed == set(CORRECTED) | set(CORRECTED_RANGES)
    for name, q in seed.quantities.items():
        if not isinstance(q.recipe, Draws):
            assert corrected.quantities[name].recipe == q.recipe
    assert seed.digest != corrected.digest


def test_every_changed_value_says_why():
    corrected = load_catalog("corrected")
    for name in set(CORRECTED) | set(CORRECTED_RANGES):
        own = [e for e in corrected.entries(name) if e.catalog == "corrected"]
        assert own
        assert all(e.note for e in own), name


def test_provenance(bundled: Catalog):
    for name, q in bundled.quantities.items():
        assert q.unit
        if name in STARS:
            assert q.reliability == STARS[name], name
        if isinstance(q.recipe, Draws):
            for entry in bundled.entries(name):
                assert entry.source
                assert entry.catalog in bundled.layers
    names = bundled.names("gpu_compute")
    estimated = {n[0] for n in names if "estimated" in bundled.entry("gpu_compute", n).source}
    assert estimated == {g for g in GPUS if not g.endswith("FP16")}


def test_impact_classes_of_every_pair():
    """MODEL section 7, restated: levels from the compute and the size, class from the score."""
    catalog = load_catalog("seed")
    power = {
        g: sum(c >= cut for cut in (150, 400, 900)) for g, c in zip(GPUS, FIXED["gpu_compute"], strict=True)
    }
    floors = (0.20, 0.40, 0.60, 0.80)
    for at, (model, gpu) in enumerate(catalog.names("delay_impact")):
        level = {"1B": 0, "3B": 0, "8B": 1, "11B": 1}.get(model.split("-")[2], 2)
        delay = min(max(power[gpu] - level + 1, 0), 3)
        step = {"FP16": 1, "INT8": 0, "INT4": -1}[gpu.split("_")[-1]]
        score = (2 * level + min(max(power[gpu] + step, 0), 3)) / 3
        error = sum(score >= cut for cut in (0.75, 1.5, 2.25))
        for quantity, floor in (("delay_impact", floors[delay]), ("error_impact", floors[error])):
            low, high = (float(x.ravel()[at]) for x in catalog.ranges[quantity])
            assert (low, high) == pytest.approx((floor, floor + 0.05)), (quantity, model, gpu)


def test_worked_examples(bundled: Catalog):
    # 0.8 x 1.5 x 40.7/1483.5 = 0.03292 ms/token, x 768 tokens = 25.28 ms; 0.06/8 x 1.15 = 0.008625
    by_hand = [0.8 * 1.5 * 40.7 / 1483.5, 0.8 * 1.5 * 40.7 / 1483.5 * 768, 0.06 / 8.0 * 1.15]
    assert len(bundled.examples) == len(by_hand)
    for example, expected in zip(bundled.examples, by_hand, strict=True):
        catalog = bundled.with_fixed(example.given)
        low, high = catalog.ranges[example.quantity]
        where = catalog.names(example.quantity).index(tuple(example.at[a] for a in ("query", "model", "gpu")))
        assert low.ravel()[where] == high.ravel()[where] == pytest.approx(expected, rel=1e-14)
        assert example.expected == pytest.approx(expected, rel=1e-13)
    assert round(bundled.examples[1].expected, 1) == 25.3
    assert bundled.examples[1].stated == 27.6
    assert round(bundled.examples[2].expected, 4) == bundled.examples[2].stated == 0.0086


def test_contradictions_are_where_the_catalogues_differ():
    seed, corrected = load_catalog("seed"), load_catalog("corrected")
    assert seed.contradictions == corrected.contradictions
    assert len(seed.contradictions) == 8
    for row in seed.contradictions:
        names = [(n,) for n in row.names] or seed.names(row.quantity)
        for n in names:
            at = seed.names(row.quantity).index(n)
            values = [tuple(float(x.ravel()[at]) for x in c.ranges[row.quantity]) for c in (seed, corrected)]
            assert (values[0] == values[1]) == row.both, (row.where, n)
    listed = {row.quantity for row in seed.contradictions if not row.both}
    assert listed == set(CORRECTED) | set(CORRECTED_RANGES)


def test_comparisons():
    rows = {row.name: row for row in load_catalog("seed").comparisons}
    assert [(*r.stated, *r.observed) for r in rows.values()] == [
        (0.35, 2.5, 0.3, 3.0),
        (10, 140, 15, 200),
        (36, 36, 30, 40),
        (0.15, 0.15, 0.10, 0.20),
    ]
    speed = rows["speed of H100 over A6000"].measure
    catalog = load_catalog("seed").with_fixed({"base_delay": 1.0})
    delay = dict(zip(catalog.names("delay_nominal"), catalog.fixed("delay_nominal").ravel(), strict=True))
    assert speed.relative_to is not None
    some = ("Code_Gen", "Llama-3.1-8B")
    ratio = delay[*some, speed.at["gpu"]] / delay[*some, speed.relative_to["gpu"]]
    assert ratio == pytest.approx(1483.5 / 40.7)


# ---- extending ----


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def child(body: str, *, extends: str = "seed", name: str = "mine") -> str:
    return f'[catalog]\nname = "{name}"\nextends = "{extends}"\n{body}\n'


def test_child_overrides_one_entry_and_keeps_the_rest(tmp_path: Path):
    body = """
[quantity.arrival_rate.values]
Code_Gen = { log_uniform = [5, 50], source = "our logs", reliability = 4, note = "March" }
"""
    catalog = load_catalog(written(tmp_path, child(body)))
    mine = catalog.entry("arrival_rate", ("Code_Gen",))
    assert (mine.distribution, mine.source, mine.reliability, mine.note, mine.catalog) == (
        Distribution("log_uniform", (5.0, 50.0)),
        "our logs",
        4,
        "March",
        "mine",
    )
    assert catalog.layers == ("seed", "mine")
    seed = load_catalog("seed")
    assert catalog.entry("arrival_rate", ("Translation",)) == seed.entry("arrival_rate", ("Translation",))
    assert catalog.examples == seed.examples


def test_chain_by_path_relative_to_the_file(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    written(tmp_path, child("[quantity.budget]\neach = 3000", extends="corrected", name="base"), "base.toml")
    path = written(tmp_path / "deep", child("[quantity.rental_hours]\neach = 24", extends="../base.toml"))
    catalog = load_catalog(str(path))
    assert catalog.layers == ("seed", "corrected", "base", "mine")
    assert (float(catalog.fixed("budget")), float(catalog.fixed("rental_hours"))) == (3000.0, 24.0)
    assert catalog.fixed("weight_memory").max() == 140


def test_another_rule_replaces_the_inherited_one(tmp_path: Path):
    body = "[quantity.gpu_price]\neach = { uniform = [1, 2] }\n[quantity.arrival_rate]\neach = 7\n"
    body += '[quantity.model_level]\nlevel_of = "weight_memory"\ncuts = [10, 100]\n'
    catalog = load_catalog(written(tmp_path, child(body)))
    assert (catalog.ranges["gpu_price"][0] == 1).all()
    assert (catalog.fixed("arrival_rate") == 7).all()
    assert by_name(catalog, "model_level", catalog.fixed("model_level")).tolist() == [0, 0, 1, 1, 2, 2]


def test_values_over_an_inherited_each(tmp_path: Path):
    body = "[quantity.market_factor.values]\nH100_INT8 = 1\n"
    catalog = load_catalog(written(tmp_path, child(body)))
    low, high = catalog.ranges["market_factor"]
    at = catalog.sets["gpu"].index("H100_INT8")
    assert low[at] == high[at] == 1
    assert (np.delete(low, at) == 0.8).all()


def test_values_by_several_names(tmp_path: Path):
    body = """
[quantity.delay_deviation_share.values.Code_Gen."Llama-3.1-8B"]
A6000_FP16 = 0.5
H100_INT8 = { uniform = [0.6, 0.7] }
"""
    catalog = load_catalog(written(tmp_path, child(body)))
    names = ("Code_Gen", "Llama-3.1-8B", "H100_INT8")
    assert catalog.entry("delay_deviation_share", names).distribution.range == (0.6, 0.7)
    assert (catalog.ranges["delay_deviation_share"][1] == 0.25).sum() == 358


def test_fewer_names_drop_what_was_inherited_about_the_others(tmp_path: Path):
    body = '[sets]\ngpu = ["H100_FP16", "A6000_INT8"]\nquery = ["Code_Gen"]\ntp = [2]\n'
    catalog = load_catalog(written(tmp_path, child(body)))
    assert catalog.shape("delay_nominal") == (1, 6, 2)
    assert catalog.fixed("gpu_memory").tolist() == [80, 48]
    assert catalog.fixed("precision_factor").tolist() == [1.0, 1.15]
    kept = [catalog.quantities[name].recipe for name in ("gpu_memory", "precision_factor")]
    assert [set(r.values) for r in kept if isinstance(r, Draws)] == [
        {("H100_FP16",), ("A6000_INT8",)},
        {("FP16",), ("INT8",)},
    ]
    assert catalog.fixed("tp_speedup").tolist() == [1]
    assert [e.quantity for e in catalog.examples] == []  # each names something that is gone
    assert "list of base prices" not in [row.where for row in catalog.contradictions]
    assert "compute per token" in [row.where for row in catalog.contradictions]


def added_gpu() -> str:
    gpus = [*reversed(GPUS[:5]), "B200_FP8", *GPUS[5:]]
    return f"""
[sets]
gpu = {gpus}
[attributes.gpu]
B200_FP8 = {{ device = "B200", precision = "FP8" }}
[quantity.gpu_memory.values]
B200_FP8 = 192
[quantity.gpu_compute.values]
B200_FP8 = 4500
[quantity.gpu_base_price.values]
B200_FP8 = 5.5
[quantity.precision_factor.values]
FP8 = 1.05
[quantity.precision_step.values]
FP8 = 0
"""


def test_an_added_gpu_needs_only_its_own_numbers(tmp_path: Path):
    catalog = load_catalog(written(tmp_path, child(added_gpu())))
    at = catalog.sets["gpu"].index("B200_FP8")
    assert catalog.fixed("gpu_power_level")[at] == 3
    assert catalog.fixed("precision_factor")[at] == 1.05
    assert by_name(catalog, "gpu_memory", catalog.fixed("gpu_memory")).tolist() == list(FIXED["gpu_memory"])


def resized(shape: tuple[int, int, int, int]) -> str:
    """A child of the seed with other names and sizes, every number given anew by one line."""
    sets = {a: [f"{a} {i}" for i in range(s)] for a, s in zip(("query", "model", "gpu"), shape, strict=False)}
    lines = ["[sets]", *(f"{a} = {names}" for a, names in sets.items())]
    lines.append(f"tp = {[i + 1 for i in range(shape[3])]}")
    seed = load_catalog("seed")
    for name, q in seed.quantities.items():
        if q.over and isinstance(q.recipe, Draws) and q.recipe.each is None:
            low, high = (float(x) for x in (seed.ranges[name][0].min(), seed.ranges[name][1].max()))
            lines += [f"[quantity.{name}]", f"each = {{ uniform = [{low}, {high}] }}"]
    return child("\n".join(lines), name="resized")


def test_other_sizes(tmp_path: Path):
    catalog = load_catalog(written(tmp_path, resized((3, 9, 40, 5))))
    assert catalog.shape("delay_nominal") == (3, 9, 40)
    assert catalog.fixed("tp_speedup").shape == (5,)
    assert "gpu_power_level" in catalog.varying  # its compute is drawn
    assert catalog.examples == ()


def test_order_of_the_file_never_matters(tmp_path: Path):
    seed = load_catalog("seed")
    text = seed.path.read_text(encoding="utf-8")
    head, *tables = re.split(r"(?m)^(?=\[quantity\.\w+\]$)", text.split("# ---- what the seed claims")[0])
    catalog = load_catalog(written(tmp_path, head + "\n".join(reversed(tables))))
    assert catalog.digest == seed.digest
    done: set[str] = set()
    for name, q in catalog.quantities.items():
        reads = getattr(q.recipe, "multiply", ()) + getattr(q.recipe, "divide", ())
        assert done.issuperset(reads)
        done.add(name)


def test_digest_tells_numbers_not_words(tmp_path: Path):
    seed = load_catalog("seed")
    said = load_catalog(written(tmp_path, child('[quantity.budget]\nnote = "other words"')))
    dearer = load_catalog(written(tmp_path, child("[quantity.budget]\neach = 5001")))
    assert said.digest == seed.digest
    assert dearer.digest != seed.digest
    assert seed.with_fixed({"budget": 5001}).digest == dearer.digest


# ---- derived quantities ----


def test_ranges_of_derived_quantities(tmp_path: Path):
    body = """
[quantity.a]
over = ["query"]
unit = "-"
source = "test"
each = { uniform = [-2, 3] }
[quantity.b]
over = []
unit = "-"
source = "test"
each = { choice = [0.5, 4, 2] }
[quantity.c]
over = ["query"]
unit = "-"
source = "test"
each = { uniform = [-1, 2] }
[quantity.ratio]
over = ["query", "gpu"]
unit = "-"
source = "test"
multiply = ["a", "c"]
divide = ["b"]
[quantity.mix]
over = ["query"]
unit = "-"
source = "test"
sum = { a = -1, b = 2 }
divisor = -2
clip = [-4, 1]
[quantity.step]
over = ["query"]
unit = "-"
source = "test"
level_of = "mix"
cuts = [-5, -2, 0.5]
[quantity.drawn]
over = ["query"]
unit = "-"
source = "test"
class_of = "step"
classes = [
  { below = 1, fixed = 100 },
  { below = 2, fixed = 5 },
  { below = 3, uniform = [7, 8] },
  { fixed = 6 },
]
"""
    catalog = load_catalog(written(tmp_path, child(body)))
    ends = {
        n: tuple(float(x.ravel()[0]) for x in catalog.ranges[n]) for n in ("ratio", "mix", "step", "drawn")
    }
    # a c is in [-4, 6]; -a + 2b is in [-2, 10], over -2 in [-5, 1], cut to [-4, 1]; that passes 1 to 3 cuts
    assert ends == {"ratio": (-8.0, 12.0), "mix": (-4.0, 1.0), "step": (1.0, 3.0), "drawn": (5.0, 8.0)}
    assert catalog.ranges["ratio"][0].shape == (6, 10)
    assert {"ratio", "mix", "step", "drawn"} <= catalog.varying


def test_distribution_in_words():
    assert str(Distribution("fixed", (0.02,))) == "0.02"
    assert str(Distribution("uniform", (80, 120))) == "uniform 80 to 120"
    assert str(Distribution("log_uniform", (1, 10))) == "log-uniform 1 to 10"
    assert str(Distribution("normal", (5, 1, 0, 9))) == "normal, mean 5, sd 1, cut to 0 to 9"
    assert str(Distribution("choice", (3, 1, 2))) == "choice of 3, 1, 2"
    assert str(Distribution("choice", tuple(range(40)))) == "choice of 40 values, 0 to 39"


# ---- errors ----

_ARRIVAL = "[quantity.arrival_rate.values]\nCode_Gen = "
_NEW = '[quantity.new]\nover = ["query"]\nunit = "-"\nsource = "test"\n'
_EXAMPLE = '[[example]]\nname = "e"\nunit = "-"\nstated = 1\nexpected = 1\nsource = "s"\n'

ERRORS = {
    "unknown key": ("[quantity.budget]\nech = 1", ["quantity.budget", "'ech'", "did you mean each?"]),
    "unknown table": ("[quantities.budget]\neach = 1", ["'quantities'", "did you mean quantity?"]),
    "unknown distribution": (
        _ARRIVAL + "{ unifrom = [1, 2] }",
        ["quantity.arrival_rate.values.Code_Gen", "'unifrom'", "did you mean uniform?"],
    ),
    "two distributions": (
        _ARRIVAL + "{ fixed = 1, uniform = [1, 2] }",
        ["values.Code_Gen", "exactly one of"],
    ),
    "no distribution": (_ARRIVAL + '{ note = "n" }', ["values.Code_Gen", "exactly one of"]),
    "wrong type": (_ARRIVAL + '"many"', ["values.Code_Gen", "'many'", "number"]),
    "text bound": (_ARRIVAL + '{ uniform = ["a", 2] }', ["values.Code_Gen.uniform[0]", "'a'", "number"]),
    "boolean": (_ARRIVAL + "true", ["values.Code_Gen", "True", "number"]),
    "not a number": (_ARRIVAL + "nan", ["values.Code_Gen", "nan", "finite"]),
    "infinite bound": (_ARRIVAL + "{ uniform = [1, inf] }", ["values.Code_Gen.uniform[1]", "inf", "finite"]),
    "one bound": (_ARRIVAL + "{ uniform = [1] }", ["values.Code_Gen.uniform", "[1]"]),
    "reversed bounds": (_ARRIVAL + "{ uniform = [2, 1] }", ["values.Code_Gen", "[2.0, 1.0]", "low <= high"]),
    "endless range": (_ARRIVAL + "{ uniform = [-1e308, 1e308] }", ["values.Code_Gen", "a finite high - low"]),
    "log of 0": (_ARRIVAL + "{ log_uniform = [0, 1] }", ["values.Code_Gen", "low > 0"]),
    "no spread": (_ARRIVAL + "{ normal = { mean = 1, sd = 0, low = 0, high = 2 } }", ["sd > 0"]),
    "empty cut": (_ARRIVAL + "{ normal = { mean = 1, sd = 1, low = 2, high = 2 } }", ["low < high"]),
    "unreachable cut": (_ARRIVAL + "{ normal = { mean = 1, sd = 1, low = 90, high = 99 } }", ["37 sd"]),
    "unreachable cut below": (
        _ARRIVAL + "{ normal = { mean = 99, sd = 1, low = 2, high = 3 } }",
        ["37 sd"],
    ),
    "missing part": (_ARRIVAL + "{ normal = { mean = 1, sd = 1, low = 2 } }", ["normal.high", "missing"]),
    "no choice": (_ARRIVAL + "{ choice = [] }", ["values.Code_Gen", "at least one value"]),
    "reliability": (_ARRIVAL + "{ fixed = 1, reliability = 6 }", ["Code_Gen.reliability", "6", "5"]),
    "several faults": (_ARRIVAL + '{ fixed = "a", reliability = 6 }', ["1 more"]),
    "unknown name": (
        "[quantity.arrival_rate.values]\nCode_Gn = 1",
        ["quantity.arrival_rate.values", "'Code_Gn'", "did you mean Code_Gen?"],
    ),
    "unknown label": (
        "[quantity.precision_factor.values]\nFP4 = 1",
        ["precision_factor.values", "'FP4'", "FP16"],
    ),
    "too many names": (
        _ARRIVAL + "{ A6000_FP16 = 1 }",
        ["one name for each of query", "Code_Gen.A6000_FP16"],
    ),
    "names of a scalar": ("[quantity.budget.values]\nx = 1", ["quantity.budget.values", "each instead"]),
    "negative rate": (
        _ARRIVAL + "{ uniform = [-1, 2] }",
        ["quantity.arrival_rate.Code_Gen", "-1 to 2", ">= 0", "queries/h"],
    ),
    "impact above 1": ("[quantity.delay_impact]\neach = 1.5", ["delay_impact", "1.5", "<= 1"]),
    "derived below 0": ("[quantity.market_factor]\neach = -1", ["gpu_price", ">= 0"]),
    "fraction of a route": ("[quantity.max_routes]\neach = 1.5", ["max_routes", "whole"]),
    "drawn routes": ("[quantity.max_routes]\neach = { uniform = [1, 3] }", ["max_routes", "1 to 3", "whole"]),
    "fractional choice": ("[quantity.max_routes]\neach = { choice = [1, 2.5, 3] }", ["max_routes", "whole"]),
    "other axes": ('[quantity.budget]\nover = ["tp"]\neach = 1', ["quantity.budget.over", "['tp']", "[]"]),
    "unknown axis": (
        _NEW.replace("query", "quarry") + "each = 1",
        ["quantity.new.over[0]", "'quarry'", "query"],
    ),
    "order of axes": (_NEW.replace('"query"', '"gpu", "query"') + "each = 1", ["quantity.new.over", "order"]),
    "other unit": ('[quantity.budget]\nunit = "EUR"', ["quantity.budget.unit", "'EUR'", "$/period"]),
    "no unit": ('[quantity.new]\nover = []\nsource = "s"\neach = 1', ["quantity.new.unit", "missing"]),
    "no source": ('[quantity.new]\nover = []\nunit = "-"\neach = 1', ["quantity.new.source", "missing"]),
    "no axes": ('[quantity.new]\nunit = "-"\nsource = "s"\neach = 1', ["quantity.new.over", "missing"]),
    "no rule": (_NEW, ["quantity.new", "one of", "multiply"]),
    "two rules": (_NEW + 'each = 1\nmultiply = ["budget"]', ["quantity.new", "each or values and multiply"]),
    "missing value": (_NEW + "values = { Code_Gen = 1 }", ["quantity.new.values.Summarization", "missing"]),
    "cuts missing": (_NEW + 'level_of = "arrival_rate"', ["quantity.new.cuts", "missing"]),
    "cuts in disorder": (
        _NEW + 'level_of = "arrival_rate"\ncuts = [2, 1]',
        ["quantity.new", "increasing", "cuts"],
    ),
    "classes in disorder": (
        _NEW
        + 'class_of = "arrival_rate"\n'
        + "classes = [{ below = 2, fixed = 1 }, { below = 1, fixed = 1 }, { fixed = 1 }]",
        ["quantity.new", "below"],
    ),
    "bounded last class": (
        _NEW + 'class_of = "arrival_rate"\nclasses = [{ below = 2, fixed = 1 }]',
        ["quantity.new", "none in the last"],
    ),
    "divisor 0": (_NEW + "sum = { arrival_rate = 1 }\ndivisor = 0", ["quantity.new", "other than 0"]),
    "unknown quantity": (
        _NEW + 'multiply = ["arival_rate"]',
        ["quantity.new", "'arival_rate'", "arrival_rate?"],
    ),
    "axes of what it reads": (_NEW + 'multiply = ["gpu_price"]', ["quantity.new.over", "gpu too"]),
    "reads itself": (_NEW + 'multiply = ["new"]', ["quantity.new", "new reads new"]),
    "a circle": (
        '[quantity.base_delay]\nmultiply = ["base_error"]\n[quantity.base_error]\nmultiply = ["base_delay"]',
        ["base_delay reads base_error reads base_delay"],
    ),
    "division by 0": (
        _NEW + 'multiply = ["arrival_rate"]\ndivide = ["max_routes"]',
        ["quantity.new.divide", "'max_routes'", "cannot be 0"],
    ),
    "overflow": (
        '[quantity.big]\nover = []\nunit = "-"\nsource = "s"\neach = 1e300\n'
        '[quantity.new]\nover = []\nunit = "-"\nsource = "s"\nmultiply = ["big", "big"]',
        ["quantity.new", "inf", "finite"],
    ),
    "label of several axes": (
        '[quantity.delay_deviation_share]\nby = "precision"\nvalues = { FP16 = 1 }',
        ["delay_deviation_share.by", "exactly one axis"],
    ),
    "label nobody has": (
        '[quantity.gpu_memory]\nby = "colour"\neach = 1',
        ["attributes.gpu.A6000_FP16.colour", "quantity.gpu_memory.by needs"],
    ),
    "attribute of nobody": (
        '[attributes.gpu]\nA100 = { device = "A100" }',
        ["attributes.gpu", "'A100'", "A100_"],
    ),
    "attribute that is no text": (
        "[attributes.gpu]\nA100_FP16 = { year = 2020 }",
        ["year", "2020", "string"],
    ),
    "doubled name": ('[sets]\ngpu = ["a", "a"]', ["sets.gpu", "'a'", "distinct"]),
    "no names": ("[sets]\nquery = []", ["sets.query", "[]"]),
    "degrees in disorder": ("[sets]\ntp = [2, 1]", ["sets.tp", "[2, 1]", "increasing"]),
    "degree 0": ("[sets]\ntp = [0, 1]", ["sets.tp[0]", "0"]),
    "new name without values": ('[sets]\ntp = [1, 2]\nquery = ["Chat"]', ["values.Chat", "missing"]),
    "claim about nobody": (
        '[[comparison]]\nname = "c"\nunit = "-"\nstated = [1, 2]\nobserved = [1, 2]\nsource = "s"\n'
        'measure = { quantity = "gpu_price", at = { gpu = "A6000" } }',
        ["comparison[0].measure.at.gpu", "'A6000'", "A6000_FP16"],
    ),
    "claim about no quantity": (
        '[[contradiction]]\nwhere = "w"\nquantity = "gpu_prices"\ncatalogs = "both"\nwhy = "y"',
        ["contradiction[0].quantity", "'gpu_prices'", "gpu_price?"],
    ),
    "example not in one place": (
        _EXAMPLE + 'quantity = "gpu_price"\nat = {}',
        ["example[0].at", "'gpu'"],
    ),
    "example given a derived": (
        _EXAMPLE + 'quantity = "budget"\nat = {}\ngiven = { gpu_price = 1 }',
        ["example[0].given", "'gpu_price'"],
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_place(tmp_path: Path, case: str):
    body, fragments = ERRORS[case]
    path = written(tmp_path, child(body))
    with pytest.raises(InputError) as caught:
        load_catalog(path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 1500
    for fragment in [path.name, *fragments]:
        assert fragment in line, line


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "catalog: expected this key, which is missing"),
        ("catalog = 1", "catalog: got 1"),
        ('[catalog]\nname = ""', "catalog.name: got ''"),
        ("[catalog", "expected TOML"),
        ('[catalog]\nname = "x"', "sets.query: expected this list, which is missing"),
        ('[catalog]\nname = "x"\nextends = "sed"', "did you mean seed?"),
        ('[catalog]\nname = "x"\nextends = "mine.toml"', "in a circle"),
        ('[catalog]\nname = "seed"\nextends = "corrected"', "catalog.name: got 'seed'"),
    ],
)
def test_errors_of_the_whole_file(tmp_path: Path, text: str, fragment: str):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(fragment)) as caught:
        load_catalog(path)
    assert "mine.toml" in str(caught.value)


def test_a_circle_of_two_files(tmp_path: Path):
    written(tmp_path, child("", extends="b.toml", name="a"), "a.toml")
    written(tmp_path, child("", extends="a.toml", name="b"), "b.toml")
    with pytest.raises(InputError, match="in a circle"):
        load_catalog(tmp_path / "a.toml")


def test_a_fault_in_the_parent_names_the_parent(tmp_path: Path):
    written(tmp_path, child("[quantity.budget]\neach = -1", name="base"), "base.toml")
    path = written(tmp_path, child("", extends="base.toml"))
    with pytest.raises(InputError, match=r"base\.toml: quantity\.budget"):
        load_catalog(path)


@pytest.mark.parametrize("name", ["seeds", "missing.toml", "", "."])
def test_no_such_catalogue(name: str):
    with pytest.raises(InputError, match="corrected or seed or serving"):
        load_catalog(name)


@pytest.mark.parametrize("field", [n for n in REQUIRED_FIELDS if n != "tp_degree"])
def test_every_field_must_be_there(tmp_path: Path, field: str):
    text = load_catalog("seed").path.read_text(encoding="utf-8").split("# ---- what the seed claims")[0]
    cut = re.sub(rf"(?ms)^\[quantity\.{field}\]\n.*?(?=^\[quantity\.(?!{field}\.)|\Z)", "", text)
    assert cut != text
    with pytest.raises(InputError, match=rf"\b{field}\b"):
        load_catalog(written(tmp_path, cut))


@pytest.mark.parametrize(
    "given",
    [
        {"no_such": 1.0},
        {"gpu_price": 1.0},
        {"base_delay": {"No_Such": 1.0}},
        {"delay_deviation_share": {"Code_Gen": 0.1}},
        {"budget": float("nan")},
        {"budget": -1.0},
        {"max_routes": 1.5},
        {"base_delay": -1.0},
    ],
)
def test_values_that_cannot_be_given(given: dict):
    with pytest.raises(InputError):
        load_catalog("seed").with_fixed(given)
