"""Benchmarks, profiles, configurations, prices and accuracies: each number checked by hand, each doubt refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.promises import parse_promise
from rodiu_jax.catalog.readers import (
    Imported,
    import_benchmark,
    import_model,
    import_prices,
    import_profile,
    import_quality,
)
from rodiu_jax.catalog.sampling import sample_quantities
from rodiu_jax.errors import InputError

FIELD = Path(__file__).parents[1] / "data" / "field"
CURVE = [FIELD / f"inferencex-conc{c}.json" for c in (4, 8, 16, 32, 64)]
MEASURED = {"query": "Code_Gen", "model": "Llama-3.1-8B", "gpu": "H100_FP16"}


def bench(files: Any, **options: Any) -> Imported:
    return import_benchmark(files, **({"base": "corrected", "promise": "ttft_p99<=6s"} | MEASURED | options))


def save(found: Imported, folder: Path, name: str = "own.toml") -> Any:
    found.save(folder / name)
    return load_catalog(folder / name)


def change(path: Path, folder: Path, **keys: Any) -> Path:
    """A copy of a JSON object with some keys changed; None leaves a key out."""
    tree = json.loads(path.read_text()) | keys
    copy = folder / f"changed-{path.name}"
    copy.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))
    return copy


# ---- benchmarks ----


@pytest.mark.parametrize(
    ("promise", "place"),
    [
        ("ttft_p99<=6s", 2),  # 7.59, 9.37, 5.71, 10.5, 13.6 s
        ("ttft_p99<=12s", 3),
        ("ttft_p99<=14s", 4),
        ("tpot_p50<=20ms", 2),  # 32, 17, 19, 34, 101 ms
        ("ttft_p99<=10s,tpot_p99<=60ms", 2),
        ("ttft_p50+16*tpot_p50<=4.7s", 3),  # 5.08, 4.41, 3.14, 4.65, 7.04 s
        ("e2e_p99<=1s", None),
    ],
)
def test_the_curve_of_inferencex(promise: str, place: int | None):
    found = bench(list(reversed(CURVE)), tp=8, promise=promise).record
    rates = [3600 * json.loads(path.read_text())["request_throughput"] for path in CURVE]
    assert [p["rate"] for p in found["points"]] == pytest.approx(rates)
    assert [p["ttft_p50"] for p in found["points"]] == pytest.approx(
        [4567.766260355711, 4134.3792653642595, 2839.5004882477224, 4105.179878883064, 5428.644580300897]
    )
    if place is None:
        assert (found["throughput"], found["e2e_ms"], found["delay_ms_per_token"]) == (0, None, None)
        return
    assert found["throughput"] == pytest.approx(rates[place])
    e2e = 1000 * json.loads(CURVE[place].read_text())["median_e2el"]
    assert (found["e2e_ms"], found["e2e_is"]) == (pytest.approx(e2e), "e2e_p50")
    assert found["delay_ms_per_token"] == pytest.approx(e2e / (1024 + 128))


def test_an_imported_curve_is_drawn_and_forbids_what_nobody_measured(tmp_path: Path):
    catalog = save(bench(CURVE, tp=8), tmp_path)
    rate = sample_quantities(catalog, ["throughput"], n=1)["throughput"]
    cell = tuple(
        catalog.sets[a].index(n)
        for a, n in zip(("query", "model", "gpu", "tp"), (*MEASURED.values(), "8"), strict=True)
    )
    assert rate[cell] == pytest.approx(2.6735265286286696 * 3600)
    assert np.count_nonzero(rate) == 1
    entry = catalog.entry("throughput", (*MEASURED.values(), "8"))
    for path in CURVE:
        assert f"{path.name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()})" in entry.source
    assert "requests/s x 3600; latencies from s" in entry.note
    assert "1024 input and 128 output tokens" in entry.note
    assert str(catalog.promises["Code_Gen"]) == "ttft_p99<=6000ms"
    delay = catalog.entry("delay_nominal", tuple(MEASURED.values()))
    assert delay.distribution.numbers[0] == pytest.approx(6192.1902927570045 / 1152)
    # Another type on the same base keeps this one, and the promise of the base counts where none is given.
    again = bench(CURVE[:2], tp=4, promise=None, base=tmp_path / "own.toml")
    more = save(again, tmp_path, "more.toml")
    assert [c.tp for c in more.curves] == ["8", "4"]
    assert more.entry("throughput", (*MEASURED.values(), "8")).distribution == entry.distribution
    assert more.entry("throughput", (*MEASURED.values(), "4")).distribution.numbers == (0,)


def test_delays_of_an_imported_curve_follow_another_promise(tmp_path: Path):
    catalog = save(bench(CURVE, tp=8, promise="ttft_p99<=1s"), tmp_path)
    cell = tuple(MEASURED.values())

    def delay(promise: str) -> float:
        changed = catalog.with_promises({"Code_Gen": parse_promise(promise)})
        return changed.entry("delay_nominal", cell).distribution.numbers[0]

    # The median end-to-end latencies in ms at 4, 16 and 64 requests at a time, over 1024 + 128 tokens.
    assert delay("ttft_p99<=1s") == pytest.approx(6794.439172372222 / 1152), (
        "none keeps it: the slowest point"
    )
    assert delay("ttft_p99<=6s") == pytest.approx(6192.1902927570045 / 1152)
    assert delay("ttft_p99<=14s") == pytest.approx(18283.871264662594 / 1152)
    assert catalog.curves[0].points[0].tokens == (1024, 128)


def test_another_promise_than_the_base_s_is_said_where_it_moves_other_pairs(tmp_path: Path):
    first = save(bench(CURVE, tp=8, promise="ttft_p99<=6s"), tmp_path)
    cell = (*MEASURED.values(), "8")
    assert first.entry("throughput", cell).distribution.numbers[0] == pytest.approx(2.6735265286286696 * 3600)
    same = bench(CURVE[:2], tp=4, promise="ttft_p99<=6s", base=tmp_path / "own.toml")
    assert not any("promised" in w for w in same.record["warnings"])
    other = bench(CURVE[:2], tp=4, promise="ttft_p99<=8s", base=tmp_path / "own.toml")
    assert "promised ttft_p99<=6000ms to Code_Gen: its other curves (1)" in other.record["warnings"][-1]
    more = save(other, tmp_path, "more.toml")
    assert more.entry("throughput", cell).distribution.numbers[0] == pytest.approx(2.6735265286286696 * 3600)
    assert more.entry("throughput", (*cell[:3], "4")).distribution.numbers[0] == pytest.approx(
        1902.3459340827
    )


def test_a_base_without_a_limit_gets_one_and_keeps_its_own_values(tmp_path: Path):
    (tmp_path / "base.toml").write_text(
        '[catalog]\nname = "base"\nextends = "corrected"\n[quantity.throughput]\nunit = "queries/h"\nsource = "ours"\n'
        'over = ["query", "model", "gpu", "tp"]\neach = inf\nvalues.Translation."Llama-3.1-8B".H100_FP16.1 = 77\n'
    )
    catalog = save(bench(CURVE, tp=8, base=tmp_path / "base.toml"), tmp_path)
    rate = sample_quantities(catalog, ["throughput"], n=1)["throughput"]
    assert sorted(rate[rate > 0].tolist()) == pytest.approx([77, 2.6735265286286696 * 3600])


def test_aiperf(tmp_path: Path):
    found = bench(
        [FIELD / f"aiperf-concurrency{c}.json" for c in (1, 2)], tp=1, promise="ttft_p99<=48ms"
    ).record
    # 0.2504 and 0.5033 requests/s; p99 of the first token 34.3 and 48.7 ms; 3,652 ms for 100 + 199.98 tokens.
    assert found["throughput"] == pytest.approx(0.2504302580624667 * 3600)
    assert found["points"][1]["ttft_p99"] == pytest.approx(48.715819879999955)
    assert (found["e2e_is"], found["e2e_ms"]) == ("e2e_mean", pytest.approx(3652.1454372343746))
    assert found["delay_ms_per_token"] == pytest.approx(3652.1454372343746 / 299.984375)
    assert found["points"][0]["tpot_p50"] == pytest.approx(18.158001085427134)
    with pytest.raises(InputError, match=r"--gpu with a GPU configuration.*NVIDIA RTX 6000 Ada"):
        bench(FIELD / "aiperf-concurrency1.json", tp=1, gpu=None)
    odd = json.loads((FIELD / "aiperf-concurrency1.json").read_text())
    odd["time_to_first_token"]["unit"] = "minutes"
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    with pytest.raises(InputError, match=r"time_to_first_token\.unit: got 'minutes'"):
        bench(tmp_path / "odd.json", tp=1)


def test_guidellm_has_two_points_in_a_file():
    found = bench(FIELD / "guidellm.json", tp=1, promise="ttft_p99<=11ms,tpot_p99<=2ms,e2e_p99<=1s").record
    assert [p["rate"] for p in found["points"]] == pytest.approx(
        [0.39843430656414264 * 3600, 0.7940882013937378 * 3600]
    )
    assert [p["holds"] for p in found["points"]] == [False, True]  # 11.7 and 10.1 ms
    # request_latency is in seconds, the others in ms; TPOT is the time between tokens, not the mean over all of them.
    assert found["e2e_ms"] == pytest.approx(17.633914947509766)
    assert found["points"][0]["tpot_mean"] == pytest.approx(1.1508464813232422)
    assert found["points"][0]["e2e_p99.9"] == pytest.approx(20.308971405029297)


def test_inference_perf_is_in_seconds():
    found = bench(FIELD / "inference-perf.yaml", tp=1, promise="ttft_p99<=40ms,tpot_p50<=8ms").record
    assert found["throughput"] == pytest.approx(1.2096774193548387 * 3600), (
        "what came back, not what was sent"
    )
    assert (found["e2e_ms"], found["points"][0]["ttft_p99"]) == (490, pytest.approx(39.8))


def test_llm_d_reports():
    # Version 0.2: two replicas on 8 GPUs each. What it states is a form's example, and the reader says so.
    found = bench(FIELD / "llm-d-v0.2.yaml", promise="ttft_p99<=60ms").record
    assert (found["tp"], found["replicas"]) == (8, 2)
    assert found["throughput"] == pytest.approx(2262.448 * 3600 / 2)
    assert found["points"][0]["ttft_p99"] == pytest.approx(50.29489721637218)
    assert any("500 requests in 49.97 s are 10.01" in w for w in found["warnings"])
    # Version 0.1: 1.02 requests/s of one prefill and two decode engines, in latencies that cannot be ms.
    path = FIELD / "llm-d-v0.1.yaml"
    with pytest.raises(InputError, match="--unit s or --unit ms: read in ms, as the file says"):
        bench(path, promise="ttft_p90<=3s")
    with pytest.raises(InputError, match="1 x prefill on 1 x H100, 1 x decode on 8 x H100"):
        bench(path, promise="ttft_p90<=3s", unit="s")
    found = bench(path, promise="ttft_p90<=3s", unit="s", tp=8, replicas=2).record
    assert found["throughput"] == pytest.approx(1.0238155253639 * 3600 / 2)
    assert found["points"][0]["ttft_p90"] == pytest.approx(2269.59549135063)


def test_vllm_writes_its_unit(tmp_path: Path):
    keys = {"request_throughput": 2.0, "completed": 100, "failed": 0, "total_input_tokens": 51200}
    keys |= {"total_output_tokens": 25600, "mean_ttft_ms": 80.0, "p99_ttft_ms": 200.0, "mean_tpot_ms": 10.0}
    keys |= {"mean_e2el_ms": 2640.0, "median_tpot_ms": 9.0}
    path = tmp_path / "vllm.json"
    path.write_text(json.dumps(keys))
    found = bench(path, tp=2, promise="ttft_p99<=200ms").record
    assert (found["throughput"], found["e2e_ms"], found["delay_ms_per_token"]) == (7200, 2640, 2640 / 768)
    with pytest.raises(InputError, match="all with _ms"):
        bench(change(path, tmp_path, p99_tpot=0.02), tp=2)


LATENCIES = [f"{s}_{m}" for m in ("ttft", "tpot", "e2el") for s in ("median", "p99")]
DOUBTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "degree": ({}, {"tp": None}, "tp: expected --tp"),
    "degree of the base": ({}, {"tp": 3}, "tp: got 3, expected a degree of corrected: 1, 2, 4, 8"),
    "gpu": ({}, {"gpu": None}, "--gpu with a GPU configuration"),
    "promise": ({}, {"promise": None}, "--promise such as"),
    "not measured": ({}, {"promise": "ttft_p90<=1s"}, "got 'ttft_p90', expected latencies that"),
    "unknown model": ({}, {"model": "Qwen"}, "model: got 'Qwen'.*--like model=NAME"),
    "milliseconds": ({"median_e2el": 6794.4}, {}, "--unit s or --unit ms: in seconds, rate x latency"),
    "microseconds": ({"median_tpot": 3e-6}, {}, "--unit s or --unit ms.*tokens/s for one user"),
    "no rate": ({"request_throughput": 0}, {}, "request_throughput: got 0"),
    "rate as text": ({"request_throughput": "2.1"}, {}, "request_throughput: got '2.1'"),
    "nothing done": ({"completed": 0, "total_input_tokens": None}, {}, "completed requests"),
    "per GPU": ({"request_throughput": None, "tput_per_gpu": 99.0}, {}, "tput_per_gpu.*per GPU do not say"),
    "first token in ms": (
        {"median_ttft": 6900.0, "p99_ttft": 7600.0, "max_concurrency": None},
        {},
        r"ttft_p50: got '6.9e\+06 ms', expected at most the 6794.44 ms of e2e_p50: one of them",
    ),
    "percentiles": ({"p99_ttft": 0.5}, {}, r"ttft_p50: got '4567\.77 ms', expected at most the 500 ms of ttft_p99"),
    "no latency": (dict.fromkeys(LATENCIES), {}, "latencies with percentiles"),
    "endless latency": ({"p99_ttft": 1e300}, {}, "p99_ttft: got 1e"),
}  # fmt: skip


@pytest.mark.parametrize("what", DOUBTS)
def test_doubtful_benchmarks_are_refused_with_the_option_that_settles_it(tmp_path: Path, what: str):
    keys, options, message = DOUBTS[what]
    with pytest.raises(InputError, match=message) as caught:
        bench(change(CURVE[0], tmp_path, **keys), **({"tp": 8} | options))
    assert "\n" not in str(caught.value)


def test_files_of_one_curve_must_be_alike(tmp_path: Path):
    with pytest.raises(InputError, match="one curve is of one model"):
        bench([CURVE[0], change(CURVE[1], tmp_path, model_id="another")], tp=8)
    with pytest.raises(InputError, match="one curve is of one workload"):
        bench([CURVE[0], change(CURVE[1], tmp_path, total_input_tokens=10 * 81920)], tp=8)
    shutil.copy(CURVE[0], tmp_path / "same.json")
    with pytest.raises(InputError, match="each file once"):
        bench([CURVE[0], tmp_path / "same.json"], tp=8)


# ---- profiles ----


def test_a_profile_of_melange(tmp_path: Path):
    found = import_profile(
        FIELD / "melange-a100.json",
        query_prefix="chat",
        model="Llama-3.1-8B",
        gpu="A100_FP16",
        base="corrected",
    )
    rates = found.record["throughput"]
    assert len(rates) == 40
    assert rates["chat_in128_out4"] == pytest.approx(62.4770592037908 * 3600)
    assert rates["chat_in2048_out128"] == pytest.approx(2.0825276518486944 * 3600)
    assert [name for name, rate in rates.items() if rate == 0] == [
        "chat_in2048_out256", *(f"chat_in{i}_out512" for i in (128, 256, 512, 1024, 2048)),
    ]  # fmt: skip
    catalog = save(found, tmp_path)
    assert len(catalog.sets["query"]) == 46
    cell = ("chat_in2048_out128", "Llama-3.1-8B", "A100_FP16", "1")
    assert catalog.entry("throughput", cell).distribution.numbers[0] == pytest.approx(
        2.0825276518486944 * 3600
    )
    assert "p99 e2e stays within 5 s" in catalog.entry("throughput", cell).note
    assert catalog.entry("input_tokens", cell[:1]).distribution.numbers == (2048,)
    rate = catalog.entry("arrival_rate", cell[:1])
    assert (rate.distribution.numbers, rate.basis) == ((0,), "assumed")
    with pytest.raises(InputError, match=r"gpu: got 'simulator-llama2-7b-a100', expected --gpu"):
        import_profile(
            FIELD / "melange-a100.json", query_prefix="chat", model="Llama-3.1-8B", base="corrected"
        )


SLOW = {"slos": {"percentile": 99, "e2e": 10.0}}


def profile(folder: Path, name: str, **keys: Any) -> Path:
    """A profile of two buckets, within 5 s if nothing else is said; ``rates`` are requests/s of each."""
    rates = keys.pop("rates", [2.0, 1.0])
    table = {"gpu": "A100", "tputs": [[rates[0]], [rates[1]]], "indexes": [[16, 64], [128]]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(table | {"slos": {"percentile": 99, "e2e": 5.0}} | keys))
    return path


def test_profiles_within_several_limits_make_a_curve(tmp_path: Path):
    files = [profile(tmp_path, "fast"), profile(tmp_path, "slow", rates=[6.0, 0.0], **SLOW)]
    options: dict[str, Any] = {
        "query_prefix": "c",
        "model": "Llama-3.1-8B",
        "gpu": "A100_FP16",
        "base": "corrected",
    }
    with pytest.raises(InputError, match=r"promise: expected --promise .* e2e_p99<=5000ms; e2e_p99<=10000ms"):
        import_profile(files, **options)
    found = import_profile(files, promise="e2e_p99<=7s", **options)
    assert found.record["throughput"] == {"c_in128_out16": 7200, "c_in128_out64": 3600}
    catalog = save(found, tmp_path)
    cell = ("c_in128_out16", "Llama-3.1-8B", "A100_FP16", "1")

    def rate(promise: str) -> float:
        changed = catalog.with_promises({cell[0]: parse_promise(promise)})
        return changed.entry("throughput", cell).distribution.numbers[0]

    assert [rate(f"e2e_p99<={s}s") for s in (4, 5, 10, 20)] == [0, 7200, 21600, 21600]
    assert catalog.curves[0].points[0].tokens == (128, 16)
    assert [len(c.points) for c in catalog.curves] == [2, 1]


def test_profiles_that_do_not_go_together(tmp_path: Path):
    options: dict[str, Any] = {"query_prefix": "c", "model": "Llama-3.1-8B", "base": "corrected"}
    fast, slow = profile(tmp_path, "fast"), profile(tmp_path, "slow", **SLOW)
    other = profile(tmp_path, "other", gpu="H100", **SLOW)
    both = "A100=A100_FP16,H100=H100_FP16"
    with pytest.raises(InputError, match=r"other\.json: slos: expected limits as in fast\.json"):
        import_profile([fast, other], names=both, **options)
    with pytest.raises(InputError, match="gpu: got 'H100', expected --map for several GPUs"):
        import_profile([fast, other], gpu="A100_FP16", **options)
    with pytest.raises(InputError, match="expected no promise: one profile"):
        import_profile(fast, gpu="A100_FP16", promise="e2e_p99<=1s", **options)
    again = profile(tmp_path, "again", rates=[9.0, 9.0])
    with pytest.raises(InputError, match="each limit in one profile of A100_FP16"):
        import_profile([fast, again], gpu="A100_FP16", promise="e2e_p99<=5s", **options)
    odd = profile(tmp_path, "odd", slos={"percentile": 99, "tpat": 5.0})
    with pytest.raises(InputError, match=r"odd\.json: slos: expected percentile"):
        import_profile([slow, odd], gpu="A100_FP16", promise="e2e_p99<=5s", **options)
    two = import_profile([slow, other], names=both, **options).record["profiles"]
    assert [(p["gpu"], p["throughput"]["c_in128_out16"]) for p in two] == [
        ("A100_FP16", 7200),
        ("H100_FP16", 7200),
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tputs": [[1.0] * 5] * 7}, "tputs: got 7, expected 8 rows"),
        ({"tputs": [[1.0] * 4] * 8}, r"tputs\[0\]: got 4, expected 5 rates"),
        ({"tputs": [[-1.0] * 5] * 8}, r"tputs\[0\]\[0\]: got -1.0"),
        ({"indexes": [[4]]}, "two lists"),
        ({"indexes": None}, "indexes.*missing"),
        ({"indexes": [[4] * 8, [128, 256, 512, 1024, 2048]]}, "each length once"),
    ],
)
def test_profiles_that_are_wrong(tmp_path: Path, keys: dict[str, Any], message: str):
    path = change(FIELD / "melange-a100.json", tmp_path, **keys)
    with pytest.raises(InputError, match=message):
        import_profile(path, query_prefix="c", model="Llama-3.1-8B", gpu="A100_FP16", base="corrected")


# ---- model configurations ----


@pytest.mark.parametrize(
    ("name", "published", "cache"),
    [
        # Parameters as published; KV bytes by hand: 2 x layers x key-value heads x head size x 2 bytes, with latent
        # attention layers x (rank + rope) x 2 bytes.
        ("qwen2.5-7b-instruct", 7.61e9, 2 * 28 * 4 * 128 * 2),
        ("mixtral-8x7b-v0.1", 46.7e9, 2 * 32 * 8 * 128 * 2),
        ("deepseek-v2-lite", 15.7e9, 27 * (512 + 64) * 2),
        ("qwen3-30b-a3b", 30.5e9, 2 * 48 * 4 * 128 * 2),
    ],
)
def test_weights_and_cache_of_published_models(tmp_path: Path, name: str, published: float, cache: int):
    found = import_model(FIELD / f"config-{name}.json", name="new", base="corrected")
    assert found.record["parameters"] == pytest.approx(published, rel=0.005)
    assert found.record["weight_memory"] == pytest.approx(2 * published / 1e9, rel=0.005)
    assert found.record["kv_per_token"] == pytest.approx(cache / 1e9, rel=1e-12)
    catalog = save(found, tmp_path)
    entry = catalog.entry("kv_per_token", ("new",))
    assert (entry.basis, entry.distribution.numbers[0]) == ("predicted", pytest.approx(cache / 1e9))


def test_active_parameters_and_types():
    record = import_model(FIELD / "config-mixtral-8x7b-v0.1.json", name="m", base="corrected").record
    assert record["active_parameters"] == pytest.approx(12.9e9, rel=0.005)
    record = import_model(FIELD / "config-qwen3-30b-a3b.json", name="m", base="corrected", dtype="fp8").record
    assert record["active_parameters"] == pytest.approx(3.3e9, rel=0.02)
    assert record["weight_memory"] == pytest.approx(30.5, rel=0.005)
    assert (record["kv_dtype"], record["kv_per_token"]) == ("bfloat16", 98304 / 1e9)


def test_the_cache_that_users_measured():
    # vllm issue 22291: 0.16 to 0.17 GB for each request of 3,072 tokens of Qwen2.5-7B at once.
    record = import_model(FIELD / "config-qwen2.5-7b-instruct.json", name="m", base="corrected").record
    assert record["kv_per_token"] * 3072 == pytest.approx(0.17, abs=0.01)


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ({"model_type": "mamba"}, {}, "model_type: got 'mamba', expected one of llama"),
        ({"hidden_size": None}, {}, "hidden_size.*missing"),
        ({"hidden_size": 3584.5}, {}, "hidden_size: got 3584.5"),
        ({"num_key_value_heads": 3}, {}, "num_key_value_heads: got 3, expected a divisor of the 28 heads"),
        ({"num_hidden_layers": -1}, {}, "num_hidden_layers: got -1"),
        ({"torch_dtype": None}, {}, "--dtype with one of"),
        ({"torch_dtype": "float7"}, {}, "torch_dtype: got 'float7'"),
        ({"quantization_config": {"quant_method": "odd"}}, {}, "quantization_config.*--dtype"),
        ({}, {"dtype": "int3"}, "dtype: got 'int3'.*did you mean int"),
    ],
)
def test_configurations_that_are_wrong(
    tmp_path: Path, keys: dict[str, Any], options: dict[str, Any], message: str
):
    path = change(FIELD / "config-qwen2.5-7b-instruct.json", tmp_path, **keys)
    with pytest.raises(InputError, match=message):
        import_model(path, name="m", base="corrected", **options)


# ---- prices ----

MAP = "A100-80GB-SXM=A100_INT8,A100-80GB=A100_FP16"


def test_prices_are_of_one_gpu(tmp_path: Path):
    rows = [line.split(",") for line in (FIELD / "skypilot.csv").read_text().splitlines()[1:]]
    for term, column in (("on-demand", 8), ("spot", 7)):
        found = import_prices(FIELD / "skypilot.csv", names=MAP, term=term, base="corrected").record
        for device, name in (("A100-80GB", "A100_FP16"), ("A100-80GB-SXM", "A100_INT8")):
            prices = [float(r[column]) / float(r[2]) for r in rows if r[1] == device and r[column]]
            if not prices:
                assert name not in found
                continue
            assert (found[name]["low"], found[name]["high"]) == (min(prices), max(prices))
            assert found[name]["median"] == pytest.approx(np.median(prices))
            assert found[name]["offers"] == len(prices)
            assert found[name]["dropped"] == sum(r[1] == device and not r[column] for r in rows)
    catalog = save(import_prices(FIELD / "skypilot.csv", names=MAP, base="corrected"), tmp_path)
    entry = catalog.entry("gpu_price", ("A100_FP16",))
    assert set(entry.distribution.numbers) == {1.62, 1.64}
    assert "price of the instance divided by its GPUs" in entry.note
    assert catalog.find_entry("gpu_price", ("H100_FP16",)) is None, "its price is the base's"


def test_regions_and_terms():
    found = import_prices(FIELD / "skypilot.csv", names=MAP, region="U*", base="corrected").record
    assert found["A100_FP16"]["offers"] + found["A100_FP16"]["dropped"] == 20
    with pytest.raises(InputError, match="an offer with a spot price of A100_INT8"):
        import_prices(FIELD / "skypilot.csv", names="*SXM=A100_INT8", term="spot", base="corrected")
    with pytest.raises(InputError, match="A100_FP16, A100_INT8"):
        import_prices(FIELD / "skypilot.csv", names=MAP, region="Mars", base="corrected")


def test_a_cent_an_hour_is_named_and_not_rented(tmp_path: Path):
    lines = (FIELD / "skypilot.csv").read_text().splitlines()
    odd = tmp_path / "odd.csv"
    odd.write_text("\n".join([*lines, "1x_A100-80GB,A100-80GB,1.0,8,80,A100-80GB,US,,0.01,US-1", ""]))
    found = import_prices(odd, names=MAP, base="corrected")
    assert found.record["A100_FP16"]["low"] == 1.62
    (outlier,) = found.record["A100_FP16"]["outliers"]
    assert (outlier["price"], outlier["at"]) == (0.01, f"line {len(lines) + 1}")
    assert f"$0.01 (line {len(lines) + 1})" in found.summary
    alone = tmp_path / "alone.csv"
    alone.write_text("gpu,price\nH100_FP16,0.01\n")
    found = import_prices(alone, per="gpu", base="corrected")
    assert "Warning: H100_FP16: $0.01/GPU/h, while corrected has 2 to 3." in found.summary


@pytest.mark.parametrize(
    ("prices", "kept", "odd", "warnings"),
    [
        ([0.01, 2.4], [2.4], [0.01], 0),  # 2.5 in `corrected`: the cent is the mistake
        ([2.4, 240], [2.4], [240], 0),
        ([0.01, 0.02], [0.01, 0.02], [], 1),
        ([0.01, 240], [0.01, 240], [], 1),  # nothing tells which, if any
        ([0.01, 0.01, 0.01], [0.01], [], 1),
    ],
)
def test_two_offers_far_apart_are_held_against_the_base(
    tmp_path: Path, prices: list[float], kept: list[float], odd: list[float], warnings: int
):
    path = tmp_path / "list.csv"
    path.write_text("gpu,price\n" + "".join(f"H100_FP16,{p}\n" for p in prices))
    found = import_prices(path, per="gpu", base="corrected")
    row = found.record["H100_FP16"]
    assert (row["low"], row["high"]) == (kept[0], kept[-1])
    assert [o["price"] for o in row["outliers"]] == odd
    assert len(row["warnings"]) == warnings == found.summary.count("Warning: ")


def test_prices_of_skypilot_are_of_instances():
    with pytest.raises(InputError, match="per: got 'gpu', expected instance"):
        import_prices(FIELD / "skypilot.csv", names=MAP, per="gpu", base="corrected")


def test_a_price_may_be_of_a_gpu_or_an_instance(tmp_path: Path):
    path = tmp_path / "list.csv"
    path.write_text("gpu,count,price\nH100_FP16,8,24\nH100_FP16,1,3.2\n")
    with pytest.raises(InputError, match="--per gpu or --per instance"):
        import_prices(path, base="corrected")
    per = {
        p: import_prices(path, per=p, base="corrected").record["H100_FP16"]["low"]
        for p in ("gpu", "instance")
    }
    assert per == {"gpu": 3.2, "instance": 3.0}
    with pytest.raises(InputError, match=r"gpu_types\[0\]\.cost_per_hour_usd: got None, expected --per gpu"):
        import_prices(FIELD / "gpu-prices.json", names="H100=H100_FP16", base="corrected")
    found = import_prices(
        FIELD / "gpu-prices.json", names="H100=H100_FP16", per="gpu", base="corrected"
    ).record
    assert (found["H100_FP16"]["low"], found["H100_FP16"]["median"], found["H100_FP16"]["high"]) == (
        4.23,
        4.9,
        5.5,
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.64,", "cheap,", "Price: got 'cheap'"),
        ("1.64,", "-1.64,", "Price: got '-1.64'"),
        ("1.64,", "nan,", "Price: got 'nan'"),
        ("A100-80GB,1.0,", "A100-80GB,0,", "AcceleratorCount: got '0', expected a number of GPUs above 0"),
        ("A100-80GB,1.0,", "A100-80GB,,", "AcceleratorCount: got ''"),
        ("AcceleratorName", "Accelerator", "gpu"),
        ("CA-MTL-1\n", "CA-MTL-1,1\n", "line 2: got 11, expected 10 values"),
    ],
)
def test_price_lists_that_are_wrong(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "bad.csv"
    path.write_text((FIELD / "skypilot.csv").read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        import_prices(path, names=MAP, base="corrected")


# ---- accuracies ----

NAMES = (
    "gsm8k=Math_Solving,Meta-Llama-3-8B-Instruct=Llama-3.1-8B,Llama-3.2-1B-Instruct=Llama-3.2-1B,BF16=FP16"
)


def test_accuracies_are_errors_with_their_doubt(tmp_path: Path):
    found = import_quality(FIELD / "quality-gsm8k.csv", names=NAMES, base="corrected")
    first = found.record[0]
    assert (first["error_nominal"], first["n"]) == (pytest.approx(0.244), 250)
    assert first["error_deviation"] == pytest.approx(1.96 * (0.756 * 0.244 / 250) ** 0.5, abs=1e-4)
    assert [len(r["gpus"]) for r in found.record] == [4, 0, 4, 0, 0, 4, 0, 0]
    assert "Dropped: 1 row, no GPU of corrected has the precision FP8." in found.summary
    catalog = save(found, tmp_path)
    cell = ("Math_Solving", "Llama-3.1-8B", "A100_INT8")
    assert catalog.entry("error_nominal", cell).distribution.numbers[0] == pytest.approx(1 - 0.728)
    assert catalog.find_entry("error_nominal", ("Code_Gen", *cell[1:])) is None
    with pytest.raises(InputError, match="names them: no GPU of corrected has the precision BF16"):
        import_quality(FIELD / "quality-gsm8k.csv", base="corrected")


def test_accuracies_for_gpus_without_a_precision_are_those_of_the_model(tmp_path: Path):
    """The GPUs of `serving` state no precision: it belongs to the model, which its name tells."""
    names = "gsm8k=Chat,Meta-Llama-3-8B-Instruct@BF16=Llama-3.1-8B,Qwen3-30B-A3B=Qwen3-30B-A3B"
    found = import_quality(FIELD / "quality-gsm8k.csv", names=names, base="serving")
    assert [len(r["gpus"]) for r in found.record] == [6, 0, 0, 0, 0, 0, 0, 6]
    catalog = save(found, tmp_path)
    entry = catalog.entry("error_nominal", ("Chat", "Llama-3.1-8B", "B200"))
    assert (entry.distribution.numbers[0], entry.basis) == (pytest.approx(0.244), "measured")
    both = names.replace("@BF16", "")
    with pytest.raises(InputError, match=r"one accuracy of Chat, Llama-3\.1-8B, L4; --map, with .*@FP8=NAME"):
        import_quality(FIELD / "quality-gsm8k.csv", names=both, base="serving")


def harness(folder: Path, **tables: dict[str, Any]) -> Path:
    path = folder / "results.json"
    samples = {task: {"original": 1319, "effective": 1319} for task in tables}
    about = {"model_name": "Llama-3.1-8B", "config": {"model": "hf", "model_dtype": "torch.bfloat16"}}
    path.write_text(json.dumps({"results": tables, "n-samples": samples} | about))
    return path


def test_lm_eval_harness(tmp_path: Path):
    table = {"alias": "gsm8k", "exact_match,strict-match": 0.7119, "exact_match_stderr,strict-match": 0.01248}
    path = harness(tmp_path, gsm8k=table)
    names = "gsm8k=Math_Solving,bfloat16=FP16"
    (row,) = import_quality(path, names=names, base="corrected").record
    assert (row["error_nominal"], row["error_deviation"]) == (
        pytest.approx(0.2881),
        pytest.approx(1.96 * 0.01248),
    )
    both = table | {"exact_match,flexible-extract": 0.73, "exact_match_stderr,flexible-extract": 0.0122}
    path = harness(tmp_path, gsm8k=both)
    with pytest.raises(
        InputError, match="--metric with one of exact_match,strict-match; exact_match,flexible"
    ):
        import_quality(path, names=names, base="corrected")
    (row,) = import_quality(path, names=names, metric="exact_match,flexible-extract", base="corrected").record
    assert row["error_nominal"] == pytest.approx(0.27)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.756,", ",75.6,", r"line 2: accuracy: got 75.6, expected a fraction"),
        (",250,", ",0,", "line 2: n_examples: got 0"),
        (",250,", ",2.5,", "line 2: n_examples: got 2.5"),
        (",0.0272", ",0.5", "line 2: stderr_binomial: got 0.5, expected about 0.02716"),
        (",0.756,", ",,", "line 2: accuracy: got ''"),
        ("accuracy,", "score,", "accuracy: got"),
    ],
)
def test_accuracies_that_are_wrong(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "bad.csv"
    path.write_text((FIELD / "quality-gsm8k.csv").read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        import_quality(path, names=NAMES, base="corrected")


# ---- all of them ----

READERS: dict[str, Callable[[Path], Imported]] = {
    "benchmark": lambda p: bench(p, tp=8),
    "profile": lambda p: import_profile(
        p, query_prefix="c", model="Llama-3.1-8B", gpu="A100_FP16", base="corrected"
    ),
    "model": lambda p: import_model(p, name="m", base="corrected"),
    "prices": lambda p: import_prices(
        p, names="*=H100_FP16", per="gpu" if p.suffix == ".json" else None, base="corrected"
    ),
    "quality": lambda p: import_quality(
        p, query="Code_Gen", model="Llama-3.1-8B", precision="FP16", base="corrected"
    ),
}


@pytest.mark.parametrize(
    "kind", ["benchmark", *(pytest.param(k, marks=pytest.mark.slow) for k in READERS if k != "benchmark")]
)
@pytest.mark.parametrize("path", sorted(FIELD.iterdir()), ids=lambda path: path.name)
def test_every_reader_takes_or_refuses_every_file(kind: str, path: Path):
    said = ""
    try:
        found = READERS[kind](path)
    except InputError as error:
        said = str(error)
    else:
        assert found.values or found.curves
    assert "\n" not in said
    assert not said or path.name in said or said.split(":")[0] in ("promise", "precision")


def test_a_base_may_not_overwrite_itself_and_a_failure_leaves_nothing(tmp_path: Path):
    found = bench(CURVE, tp=8)
    found.save(tmp_path / "own.toml")
    before = (tmp_path / "own.toml").read_text()
    again = bench(CURVE, tp=4, base=tmp_path / "own.toml")
    with pytest.raises(InputError, match="another file than the catalogue"):
        again.save(tmp_path / "own.toml")
    with pytest.raises(InputError, match="existing folder"):
        again.save(tmp_path / "none" / "x.toml")
    assert (tmp_path / "own.toml").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["own.toml"]
