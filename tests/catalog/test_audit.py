"""`rodiu validate` against loops over the same scenarios; catalogues and samplers wrong on purpose."""

import importlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.audit import validate
from rodiu_jax.catalog.sampling import sample, sample_quantities
from rodiu_jax.errors import InputError
from rodiu_jax.report.text.audit_tables import describe_audit
from tests.terminal import printed

module = importlib.import_module("rodiu_jax.catalog.audit")
N, SEED = 60, 5
SMALL = """
[catalog]
name = "small"
extends = "seed"
[sets]
query = ["Code_Gen", "Translation"]
model = ["Llama-3.2-1B", "Llama-3.1-70B"]
gpu = ["H100_INT8", "A6000_FP16"]
tp = [1, 3]
"""


@pytest.fixture(scope="module")
def reports():
    return {name: validate(name, n=N, seed=SEED) for name in ("seed", "corrected")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two queries, two models, two GPUs, degrees 1 and 3; with a memory that is drawn."""
    path = tmp_path_factory.mktemp("catalog") / "small.toml"
    path.write_text(SMALL + "[quantity.gpu_memory.values]\nA6000_FP16 = { uniform = [40, 60] }\n")
    return load_catalog(path)


@pytest.mark.parametrize("name", ["seed", "corrected"])
def test_the_packaged_catalogues_pass(reports, name):
    report = reports[name]
    assert report.ok, report.failures
    assert len(report.comparisons) == 4
    assert report.examples["ok"].tolist() == [True] * 3
    assert report.draws["within"].all()
    assert set(report.draws["quantity"]) == set(load_catalog(name).quantities)


def test_comparisons_are_the_ranges_of_the_draws(reports):
    batch = sample("seed", n=N, seed=SEED)
    frame = reports["seed"].comparisons.set_index("name")
    for name, field in (("GPU rental price", "gpu_price"), ("query arrival rate", "arrival_rate")):
        values = getattr(batch.fields, field)
        assert (frame.at[name, "low"], frame.at[name, "high"]) == (values.min(), values.max())
    # Delay is inverse to compute: 1483.5 / 40.7; precision factor 1.15 against 1.
    speed, loss = frame.loc["speed of H100 over A6000"], frame.loc["loss of precision by INT8"]
    assert [speed["low"], speed["high"]] == pytest.approx([1483.5 / 40.7] * 2)
    assert [loss["low"], loss["high"]] == pytest.approx([0.15, 0.15])
    assert frame["verdict"].tolist() == ["overlaps", "overlaps", "inside", "inside"]


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [((36, 37), "inside"), ((30, 36.449), "outside"), ((36.45, 40), "outside")],
)
def test_verdicts(small, observed, verdict):
    # The ratio is 1483.5 / 40.7 = 36.4496...
    ratio = next(c for c in small.comparisons if c.name.startswith("speed"))
    catalog = replace(small, comparisons=(ratio.model_copy(update={"observed": observed}),))
    assert validate(catalog, n=2).comparisons["verdict"].tolist() == [verdict]


def test_a_range_partly_inside_overlaps(small):
    rate = next(c for c in small.comparisons if c.measure.quantity == "arrival_rate")
    catalog = replace(small, comparisons=(rate.model_copy(update={"observed": (60, 100)}),))
    report = validate(catalog, n=N)
    assert report.comparisons["verdict"].tolist() == ["overlaps"]  # 60 to 140
    assert report.ok
    outside = replace(small, comparisons=(rate.model_copy(update={"observed": (1000, 2000)}),))
    assert validate(outside, n=N).ok  # a finding, not a failure


def memory_by_loops(catalog, n, seed):
    """(model, gpu, tp) to (weights fit always, everything fits always, mean share by query)."""
    batch = sample(catalog, n=n, seed=seed)
    found = {}
    for j, model in enumerate(batch.model_names):
        for k, gpu in enumerate(batch.gpu_names):
            for degree in batch.axis_names("N"):
                shares, weights_fit = [], []
                for b in range(n):
                    f = batch.one(b)
                    free = int(degree) * f.gpu_memory[k] - f.weight_memory[j]
                    weights_fit.append(free >= 0)
                    row = []
                    for i in range(len(batch.query_names)):
                        tokens = f.input_tokens[i] + f.output_tokens[i]
                        need = f.kv_per_token[j] * tokens * f.arrival_rate[i] * f.residency_hours
                        row.append(0.0 if free < 0 else min(1.0, free / need))
                    shares.append(row)
                fits = all(s == 1 for row in shares for s in row)
                found[model, gpu, int(degree)] = all(weights_fit), fits, np.mean(shares, axis=0)
    return found


def test_memory_against_loops(small):
    report = validate(small, n=20, seed=SEED)
    expected = memory_by_loops(small, 20, SEED)
    assert len(report.memory) == len(expected) == 8
    seen = set()
    for r in report.memory.to_dict("records"):
        weights_fit, fits, share = expected[r["model"], r["gpu"], r["tp"]]
        assert (r["weights_fit"], r["fits"]) == (weights_fit, fits)
        np.testing.assert_allclose([r[f"kv_share[{q}]"] for q in small.sets["query"]], share, rtol=1e-12)
        assert (r["reason"] == "") == fits
        seen.add((weights_fit, fits))
    assert seen == {(False, False), (True, False), (True, True)}


def test_memory_of_the_literal_seed_says_why(reports):
    frame = reports["seed"].memory.set_index(["model", "gpu", "tp"])
    assert (
        frame.at[("Llama-3.1-70B", "H100_FP16", 8), "reason"] == "weights need 810 GB, 8 x 80 GB hold 640 GB"
    )
    assert not frame.loc["Llama-3.1-70B"]["weights_fit"].any()
    # 8 GPUs of 48 GB less 6 GB of weights; Summarization needs 0.05 x 768 x U(80, 120) x 0.1 = 307 to 461 GB.
    reason = frame.at[("Llama-3.2-3B", "A6000_FP16", 8), "reason"]
    assert reason.startswith("378 GB beside the weights hold the KV cache for 9")
    assert "% of Summarization" in reason
    assert "Translation" not in reason  # 0.05 x 256 x 140 x 0.1 = 179 GB at most
    assert len(frame) == 6 * 10 * 4


def test_corrected_memory_fits_everywhere(reports):
    frame = reports["corrected"].memory
    assert frame.groupby(["model", "gpu"])["fits"].any().all()
    smallest = frame[frame["fits"]].groupby(["model", "gpu"])["tp"].min()
    assert smallest["Llama-3.1-70B", "H100_INT8"] == 2  # 140 GB on 80 GB each
    assert smallest["Llama-3.2-31B", "A100_FP16"] == 2  # 62 GB on 40 GB each


def test_compute_against_loops(reports):
    frame = reports["seed"].compute
    batch = sample("seed", n=N, seed=SEED)
    alpha, tokens = batch.fields.compute_per_token, batch.fields.input_tokens + batch.fields.output_tokens
    assert len(frame) == 10 * 4 * 6
    for r in frame.iloc[::7].to_dict("records"):
        i, k = batch.query_names.index(r["query"]), batch.gpu_names.index(r["gpu"])
        demand = [float(alpha[b, i] * tokens[i]) for b in range(N)]
        capacity = float(batch.fields.gpu_compute[k]) * r["tp"]
        share = sum(min(1.0, capacity / d) for d in demand) / N
        assert r["share"] == pytest.approx(share, rel=1e-12)
        assert r["fits"] == all(d <= capacity for d in demand)
        assert (r["capacity"], r["demand_max"]) == pytest.approx((capacity, max(demand)))
        assert r["demand_mean"] == pytest.approx(sum(demand) / N)


def test_examples_come_out_as_the_model_says(reports):
    frame = reports["seed"].examples.set_index("name")
    low = frame["low"]
    expected = [0.8 * 1.5 * 40.7 / 1483.5, 0.8 * 1.5 * 40.7 / 1483.5 * 768, 0.06 / 8 * 1.15]
    np.testing.assert_allclose(low, expected, rtol=1e-12)
    assert frame["stated"].tolist() == [0.036, 27.6, 0.0086]


def test_an_example_that_does_not_come_out_fails():
    catalog = load_catalog("seed")
    first = catalog.examples[0]
    wrong = replace(catalog, examples=(first.model_copy(update={"expected": 0.036}),))
    report = validate(wrong, n=2)
    assert not report.ok
    assert report.failures == [f"worked example, {first.name}: 0.0329221, not 0.036 ms/token"]
    assert "FAILED: worked example" in printed(describe_audit(report))
    assert "WRONG, expected 0.036" in " ".join(printed(describe_audit(report), 200).split())


def test_an_example_that_leaves_a_draw_open_fails():
    catalog = load_catalog("seed")
    open_ended = catalog.examples[0].model_copy(update={"given": {}})
    report = validate(replace(catalog, examples=(open_ended,)), n=2)
    assert not report.ok
    row = report.examples.iloc[0]
    assert row["low"] < row["high"]
    once = open_ended.model_copy(update={"expected": row["low"]})  # right in one draw is not enough
    assert not validate(replace(catalog, examples=(once,)), n=2).ok


@pytest.mark.parametrize("quantity", ["arrival_rate", "delay_impact", "storage_price"])
def test_a_draw_outside_its_declared_range_fails(monkeypatch, small, quantity):
    def broken(catalog, names=None, **options):
        values = sample_quantities(catalog, names, **options)
        return {k: v * 1.6 if k == quantity else v for k, v in values.items()}

    monkeypatch.setattr(module, "sample_quantities", broken)
    report = validate(small, n=N)
    assert [f.split(":")[0] for f in report.failures if not f.startswith("worked")] == [quantity]
    assert not report.ok


def test_blocks_change_nothing(monkeypatch, small):
    whole = validate(small, n=50, seed=SEED)
    monkeypatch.setattr(module, "_BYTES_PER_BLOCK", 8 * 300)
    parts = validate(small, n=50, seed=SEED)
    sizes = [count for _, count in module._blocks(small, 50, SEED)]
    assert sum(sizes) == 50
    assert len(sizes) > 2
    for name in ("comparisons", "draws", "memory", "compute", "examples", "contradictions"):
        pd.testing.assert_frame_equal(getattr(parts, name), getattr(whole, name), rtol=1e-12)


# Literal and corrected values of MODEL section 7, by quantity and name.
SECTION_7 = {
    ("weight_memory", "Llama-3.2-31B"): ("140", "62"),
    ("weight_memory", "Llama-3.1-70B"): ("810", "140"),
    ("kv_per_token", "Llama-3.2-31B"): ("1.4", "0.00062"),
    ("kv_per_token", "Llama-3.1-70B"): ("8", "0.0014"),
    ("kv_per_token", "Llama-3.2-1B"): ("0.02", "2e-05"),
    ("gpu_memory", "A6000_INT4"): ("80", "48"),
    ("gpu_memory", "RTX_4090_FP16"): ("48", "24"),
    ("gpu_memory", "A100_FP16"): ("24", "40"),
    ("gpu_base_price", "A6000_INT4"): ("2.5", "0.65"),
    ("gpu_base_price", "RTX_4090_FP16"): ("0.65", "0.35"),
    ("gpu_base_price", "H100_FP16"): ("2", "2.5"),
    ("compute_per_token", "Code_Gen"): ("uniform 0.6 to 1", "uniform 0.0006 to 0.001"),
}


@pytest.mark.parametrize("name", ["seed", "corrected"])
def test_contradictions_show_both_catalogues_and_whom_this_one_follows(reports, name):
    frame = reports[name].contradictions
    assert frame["where"].nunique() == 8
    shown = {(r["quantity"], r["name"]): (r["seed"], r["corrected"]) for r in frame.to_dict("records")}
    assert SECTION_7.items() <= shown.items()
    both = frame["quantity"].isin(["rental_hours", "gpu_speed_factor"])
    assert set(frame[~both]["follows"]) == {name}
    assert set(frame[both]["follows"]) == {"both alike"}
    assert shown["gpu_speed_factor", "H100_INT8"] == ("0.0274351", "0.0274351")
    assert (frame["why"].str.len() > 20).all()


def test_a_catalogue_with_values_of_its_own_follows_neither(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        '[catalog]\nname = "own"\nextends = "seed"\n[quantity.weight_memory.values]\n"Llama-3.1-70B" = 35\n'
    )
    report = validate(path, n=N)
    frame = report.contradictions[report.contradictions["quantity"] == "weight_memory"].set_index("name")
    columns = ["seed", "corrected", "this", "follows"]
    assert frame.loc["Llama-3.2-31B", columns].tolist() == ["140", "62", "140", "seed"]
    assert frame.loc["Llama-3.1-70B", columns].tolist() == ["810", "140", "35", "neither"]
    text = printed(describe_audit(report))
    assert "own: 35" in text
    assert "as seed" in text


@pytest.mark.parametrize("width", [140, 80])
def test_rendered_within_the_width(reports, width):
    report = reports["seed"]
    text = printed(describe_audit(report), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "every draw of" in " ".join(text.split()).lower()
    assert "FAILED" not in text
    full = printed(describe_audit(report, everything=True), width)
    assert len(full.splitlines()) > len(text.splitlines()) + 240


def test_matrix_of_memory(reports):
    text = printed(describe_audit(reports["seed"]))
    row = next(line for line in text.splitlines() if line.startswith("│ H100_INT8"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["H100_INT8", "1 / 4", "1 / 8", "1 / none", "1 / none", "2 / none", "none"]


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": -3}, {"seed": -1}, {"catalog": "sead"}])
def test_wrong_arguments(arguments):
    with pytest.raises(InputError):
        validate(**({"catalog": "seed"} | arguments))
