"""`rodiu import`: catalogues that extend each other, JSON beside files, and refusals that name the option."""

import json
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.findings import find_findings
from rodiu_jax.model.npz import load_instances
from tests.cli.calls import Run, answered, refused

FIELD = Path(__file__).parent.parent / "data" / "field"
PAIR = ("--query", "Code_Gen", "--model", "Llama-3.1-8B", "--gpu", "H100_FP16", "--tp", "2")
CURVE = tuple(FIELD / f"inferencex-conc{c}.json" for c in (4, 16, 64))


def test_imports_extend_each_other_and_are_drawn_from(rodiu: Run, here: Path):
    steps: list[tuple[str, tuple[object, ...]]] = [
        ("trace", (FIELD / "trace-vidur.csv", "--query", "Code_Gen")),
        ("prices", (FIELD / "skypilot.csv", "--map", "*SXM=A6000_FP16,*=H100_FP16")),
        (
            "model",
            (
                FIELD / "config-qwen2.5-7b-instruct.json",
                "--name",
                "Qwen2.5-7B",
                "--like",
                "model=Llama-3.1-8B",
            ),
        ),
        (
            "quality",
            (FIELD / "quality-gsm8k.csv", "--map", "gsm8k=Code_Gen,Qwen3-30B-A3B=Qwen2.5-7B,NVFP4=FP16"),
        ),
        ("benchmark", (*CURVE, *PAIR, "--promise", "ttft_p99<=6s")),
    ]
    base = "tiny.toml"
    for kind, args in steps:
        ran = answered(rodiu("import", kind, *args, "--catalog", base, "-o", f"{kind}.toml"))
        assert ran.out.splitlines()[-1] == f"Written to {kind}.toml, which extends {base}."
        base = f"{kind}.toml"
    catalog = load_catalog(base)
    assert catalog.layers[2:] == ("tiny", *catalog.layers[3:])
    assert len(catalog.layers) == 2 + 1 + len(steps)
    assert catalog.entry("throughput", (*PAIR[1:6:2], "2")).distribution.numbers[0] == pytest.approx(
        9624.6955
    )
    loose = ("--set", "promise[Code_Gen]=ttft_p99<=14s", "--set", "max_replicas=4")
    answered(rodiu("sample", "--catalog", base, "--n", 3, *loose, "-o", "made.npz"))
    rate = load_instances("made.npz").one(0).throughput
    assert np.count_nonzero(rate) == 1
    assert rate.max() == pytest.approx(3.513892135794858 * 3600)
    (curve,) = (
        text
        for kind, text in find_findings(catalog)[["kind", "text"]].itertuples(index=False)
        if kind == "curve"
    )
    assert "is not monotone: tpot_p50 falls from 32.3 ms at 1,902 queries/h to 19.06 ms at 9,625" in curve


def test_json_needs_no_file_and_no_names_of_the_catalogue(rodiu: Run, here: Path):
    asked = (
        "--query",
        "chat",
        "--model",
        "qwen",
        "--gpu",
        "B200",
        "--tp",
        "8",
        "--promise",
        "ttft_p99<=6s",
        "--json",
    )
    record = json.loads(answered(rodiu("import", "benchmark", *CURVE, *asked)).out)
    assert record["throughput"] == pytest.approx(2.6735265286286696 * 3600)
    record = json.loads(answered(rodiu("import", "prices", FIELD / "skypilot.csv", "--json")).out)
    assert set(record) == {"A100-80GB", "A100-80GB-SXM"}
    record = json.loads(
        answered(rodiu("import", "trace", FIELD / "trace-burstgpt.csv", "--query", "x", "--json")).out
    )
    assert [r["requests"] for r in record] == [7]
    both = answered(
        rodiu(
            "import",
            "model",
            FIELD / "config-mixtral-8x7b-v0.1.json",
            "--name",
            "m",
            "--json",
            "-o",
            "m.toml",
        )
    )
    assert json.loads(both.out)["parameters"] == 46_702_792_704
    assert "m" in load_catalog("m.toml").sets["model"]


def test_calibrate_is_import_trace_under_its_former_name(rodiu: Run, here: Path):
    args = (
        FIELD / "trace-vidur.csv",
        "--query",
        "Code_Gen",
        "--window",
        "0.005",
        "--catalog",
        "tiny.toml",
        "-o",
    )
    made = [
        answered(rodiu("calibrate", *args, "a.toml")).out,
        answered(rodiu("import", "trace", *args, "b.toml", "--tokens", "request")).out,
    ]
    assert made[0].replace("a.toml", "b.toml") == made[1]
    assert Path("a.toml").read_text() == Path("b.toml").read_text()


PROFILE = ("--query-prefix", "c", "--model", "Llama-3.1-8B")
CONFIG = FIELD / "config-mixtral-8x7b-v0.1.json"
BAD = {
    "no place": (("trace", FIELD / "trace-burstgpt.csv", "--query", "Code_Gen"), "-o", "--json"),
    "no query": (("trace", FIELD / "trace-burstgpt.csv", "-o", "made"), "--query", "--query-column"),
    "no kind": (("traces", FIELD / "trace-burstgpt.csv", "-o", "made"), "traces"),
    "no tp": (("benchmark", CURVE[0], *PAIR[:-2], "--promise", "e2e_p50<=9s", "-o", "made"), "conc4.json", "--tp"),
    "no promise": (("benchmark", CURVE[0], *PAIR, "-o", "made"), "--promise"),
    "odd promise": (("benchmark", CURVE[0], *PAIR, "--promise", "fast", "-o", "made"), "--promise", "'fast'"),
    "no such GPU": (("profile", FIELD / "melange-a100.json", *PROFILE, "-o", "made"), "--gpu"),
    "per what": (("prices", FIELD / "gpu-prices.json", "--map", "H100=H100_FP16", "-o", "made"), "--per gpu"),
    "mapped to a stranger": (("prices", FIELD / "skypilot.csv", "--map", "*=B200", "-o", "made"), "--map", "'B200'"),
    "not a configuration": (("model", FIELD / "skypilot.csv", "--name", "m", "-o", "made"), "skypilot.csv", "JSON"),
    "no file": (("model", "none.json", "--name", "m", "-o", "made"), "none.json"),
    "odd like": (("model", CONFIG, "--name", "m", "--like", "m", "-o", "made"), "--like"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_imports(rodiu: Run, here: Path, what: str):
    args, *needles = BAD[what]
    refused(rodiu, "import", *args, needles=tuple(needles))
