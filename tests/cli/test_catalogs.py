"""Catalogues and what is drawn from them: describe, validate, calibrate, sample; bad catalogues and traces."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.model.npz import load_instances
from tests.cli.calls import SAMPLE, TRACE, Run, answered, refused
from tests.golden import Golden
from tests.oracles.tiny import TINY


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        (["budget=3000"], "budget", 3000.0),
        (["budget*=0.5"], "budget", 2500.0),
        (["budget=3000", "budget*=2"], "budget", 6000.0),
        (["gpu_memory=11"], "gpu_memory", [11.0, 11.0]),
        (["gpu_memory=11,12"], "gpu_memory", [11.0, 12.0]),
        (["gpu_memory[H100_*]*=0.5"], "gpu_memory", [48.0, 40.0]),
        ([" max_routes = 2 "], "max_routes", 2),
    ],
)
def test_set_changes_every_scenario(rodiu: Run, here: Path, changes: list[str], field: str, expected: Any):
    options = [part for change in changes for part in ("--set", change)]
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 2, *options, "-o", "out.npz"))
    batch = load_instances("out.npz")
    for b in range(2):
        np.testing.assert_array_equal(getattr(batch.one(b), field), expected)


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_sample_writes_the_mode(rodiu: Run, here: Path, mode: str):
    args = ("--catalog", "tiny.toml", "--n", 1, "--uncertainty", mode)
    answered(rodiu("sample", *args, "-o", "out.npz"))
    assert load_instances("out.npz").uncertainty == mode


def test_first_scenarios_of_a_longer_run_are_the_same(rodiu: Run, here: Path):
    for n in (1, 3):
        answered(rodiu("sample", "--catalog", "tiny.toml", "--n", n, "--seed", 5, "-o", f"{n}.npz"))
    one, three = load_instances("1.npz"), load_instances("3.npz")
    for a, b in zip(one.one(0), three.one(0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_describe_and_validate(rodiu: Run, here: Path, golden: Golden):
    text = answered(rodiu("describe", "--catalog", "tiny.toml")).out
    assert all(name in text for name in ("Code_Gen", "Llama-3.1-8B", "H100_FP16", "queries/h"))
    golden("cli/describe", text)
    text = answered(rodiu("validate", "--catalog", "tiny.toml", "--n", 50, "--all")).out
    assert "Llama-3.1-8B" in text
    golden("cli/validate", text)


def test_calibrated_catalogue_can_be_sampled(rodiu: Run, here: Path, golden: Golden):
    text = answered(
        rodiu("calibrate", TRACE, "--query", "Code_Gen", "--catalog", "tiny.toml", "-o", "c.toml")
    ).out
    assert "c.toml" in text
    golden("cli/calibrate", text + Path("c.toml").read_text(), numbers=False)
    answered(rodiu("sample", "--catalog", "c.toml", "--n", 5, "-o", "c.npz"))
    fields = load_instances("c.npz").fields
    assert len(set(fields.input_tokens[:, 0])) > 1
    assert load_catalog("c.toml").sets["query"] == ("Code_Gen", "Translation")


BAD_CATALOGS = {
    "not TOML": ("[catalog", "TOML"),
    "text for a number": (TINY + '[quantity.budget]\neach = "much"\n', "quantity.budget.each", "'much'"),
    "reversed range": (
        TINY + "[quantity.budget]\neach = { uniform = [2, 1] }\n",
        "quantity.budget",
        "[2.0, 1.0]",
    ),
    "unknown key": (TINY + "[quantity.budget]\neech = 1\n", "quantity.budget", "'eech'", "did you mean each"),
    "negative value": (TINY + "[quantity.budget]\neach = -1\n", "budget", "-1"),
    "NaN": (TINY + "[quantity.budget]\neach = nan\n", "quantity.budget.each", "nan"),
    "no name": ('[catalog]\nextends = "seed"\n', "catalog.name", "missing"),
    "unknown base": ('[catalog]\nname = "x"\nextends = "sead"\n', "sead", "did you mean seed"),
    "values for no such name": (TINY + "[quantity.gpu_memory.values]\nB200 = 1\n", "B200"),
}


@pytest.mark.parametrize("what", BAD_CATALOGS)
def test_bad_catalogues(rodiu: Run, here: Path, what: str):
    text, *needles = BAD_CATALOGS[what]
    Path("tiny.toml").write_text(text)
    refused(rodiu, *SAMPLE, needles=("tiny.toml", *needles))


HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


ROWS = "2023-11-16 18:00:00,100,10\n2023-11-16 19:00:00,200,20\n"


BAD_TRACES = {
    "no such column": (HEAD.replace("GeneratedTokens", "Output") + ROWS, (), "GeneratedTokens", "Output"),
    "unreadable date": (HEAD + ROWS + "yesterday,1,1\n", (), "line 4", "TIMESTAMP", "'yesterday'", "date"),
    "negative tokens": (HEAD + ROWS + "2023-11-16 19:01:00,-5,1\n", (), "line 4", "ContextTokens", "'-5'"),
    "no tokens": (HEAD + ROWS + "2023-11-16 19:01:00,5,\n", (), "line 4", "GeneratedTokens", "''"),
    "empty file": ("", (), "empty"),
    "no requests": (HEAD, (), "at least one request"),
    "too many values": (HEAD + ROWS + "2023-11-16 19:01:00,5,5,5\n", (), "CSV"),
    "unknown query": (HEAD + ROWS, ("--query", "Chat"), "query", "'Chat'", "Code_Gen"),
    "negative window": (HEAD + ROWS, ("--window", "-1"), "window", "-1", "> 0"),
    "window too long": (HEAD + ROWS, ("--window", "9"), "window", "9", "at most"),
    "endless window": (HEAD + ROWS, ("--window", "1e300"), "window", "1e+300"),
    "a date of another age": (HEAD + ROWS + "2036-01-01 00:00:00,1,1\n", (), "window", "0.1"),
    "too many windows": (HEAD + ROWS, ("--windows", "99"), "windows", "99"),
    "unwritable output": (HEAD + ROWS, ("-o", "trace.csv/made.toml"), "trace.csv/made.toml", "folder"),
}


@pytest.mark.parametrize("what", BAD_TRACES)
def test_bad_traces(rodiu: Run, here: Path, what: str):
    text, options, *needles = BAD_TRACES[what]
    Path("trace.csv").write_text(text)
    args = ("calibrate", "trace.csv", "--query", "Code_Gen", "--catalog", "tiny.toml", "-o", "made.toml")
    refused(rodiu, *args, *options, needles=tuple(needles))
