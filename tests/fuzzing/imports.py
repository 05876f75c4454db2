"""What people have measured, made bad: every format of `rodiu import`, and what is accepted is what the file says.

The witness reads the numbers of the bad file in a way of its own (`json`, `yaml`, `csv`), whatever path they stand at,
and asks that every number that was taken follows from one of them by the factor that the format's unit has.
"""

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from rodiu_jax.catalog import load_catalog
from tests.fuzzing.mutate import NUMBERS, TEXTS, as_json, mutated, spoiled
from tests.fuzzing.run import fit, rodiu

DATA = Path(__file__).parents[1] / "data" / "field"
Draw = Callable[[Any], Any]

_CELL = ("--query", "Code_Gen", "--model", "Llama-3.1-8B", "--gpu", "H100_FP16")
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "benchmark": (
        (*_CELL, "--tp", "2", "--promise", "ttft_p50<=9s,e2e_mean<=9s"),
        ("aiperf-concurrency1.json", "guidellm.json", "inference-perf.yaml"),
    ),
    "benchmark of InferenceX": (
        (*_CELL, "--tp", "2", "--promise", "ttft_p50<=9s"),
        ("inferencex-conc4.json", "inferencex-conc16.json"),
    ),
    "benchmark of llm-d": (
        (*_CELL, "--tp", "2", "--replicas", "1", "--unit", "s", "--promise", "ttft_p90<=9s"),
        ("llm-d-v0.1.yaml", "llm-d-v0.2.yaml"),
    ),
    "profile": (
        ("--query-prefix", "c", "--model", "Llama-3.1-8B", "--gpu", "H100_FP16"),
        ("melange-a100.json",),
    ),
    "model": (
        ("--name", "new"),
        tuple(f"config-{n}.json" for n in ("deepseek-v2-lite", "mixtral-8x7b-v0.1", "qwen3-30b-a3b")),
    ),
    "prices": (("--map", "A100*=H100_FP16"), ("skypilot.csv",)),
    "prices of clouds": (("--map", "A100*=H100_FP16", "--per", "gpu"), ("gpu-prices.json",)),
    "quality": (
        ("--query", "Code_Gen", "--model", "Llama-3.1-8B", "--precision", "FP16"),
        ("quality-gsm8k.csv",),
    ),
    "trace": (
        ("--query", "Code_Gen"),
        ("trace-burstgpt.csv", "trace-vidur.csv", "trace-fleet-sim.jsonl", "trace-mooncake.jsonl"),
    ),
}
"""Options of a call that works, and files of each kind."""


def imported(kind: str, draw: Draw, folder: Path, base: Path) -> None:
    """Spoil a file of a kind, import it, and hold what was taken against the file."""
    options, names = KINDS[kind]
    name = draw(st.sampled_from(names))
    path = folder / f"bad-{name}"
    (folder / "made.toml").unlink(missing_ok=True)  # left where an earlier example failed
    path.write_bytes(_spoil(draw, DATA / name))
    made, printed = folder / "made.toml", folder / "made.json"
    command = ("import", kind.partition(" ")[0], path, *options, "--catalog", base)
    ran = fit(rodiu(*command, "-o", made, "--json"), path, "--")
    if ran.code != 0:
        assert ran.code == 2, ran
        assert not made.exists()
        return
    printed.write_text(ran.out)
    catalog = load_catalog(made)  # it is admissible
    assert catalog.layers[-2] == "tiny"
    record = json.loads(ran.out, parse_constant=_refuse)
    said = list(read_numbers(path))
    WITNESSES[kind.partition(" ")[0]](record, said, catalog)
    made.unlink()


def _refuse(constant: str) -> float:
    raise AssertionError(constant)


def _spoil(draw: Draw, path: Path) -> bytes:
    content = path.read_bytes()
    if draw(st.integers(0, 2)) == 0:
        return draw(spoiled(content))
    if path.suffix == ".json":
        return as_json(draw(mutated(json.loads(content))))
    if path.suffix == ".yaml":
        tree = draw(mutated(yaml.safe_load(content)))
        return as_json(tree) if draw(st.booleans()) else _yaml(tree)
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = draw(mutated(lines[at]))
        return b"\n".join(map(as_json, lines)) + b"\n"
    rows = list(csv.reader(io.StringIO(content.decode())))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        if row:
            at = draw(st.integers(0, len(row) - 1))
            old = row[at]
            near = [f"-{old}", f"{old}0", f"{old}.5", "", "1e400", "0"]
            row[at] = str(draw(st.sampled_from(near) | NUMBERS.map(lambda x: str(x)[:400]) | TEXTS))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _yaml(tree: Any) -> bytes:
    try:
        return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, RecursionError, ValueError):
        return as_json(tree)


def read_numbers(path: Path) -> Iterable[float]:
    """Every number of a file, wherever it stands."""
    text = path.read_bytes().decode("utf-8-sig", "replace")
    if path.suffix == ".csv":
        for cell in (c for row in csv.reader(io.StringIO(text, newline="")) for c in row):
            try:
                yield float(cell)
            except ValueError:
                continue
        return
    trees = (
        [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else []
    )
    if path.suffix == ".json":
        trees = [json.loads(text)]
    elif path.suffix == ".yaml":
        trees = [yaml.safe_load(text)]
    while trees:
        tree = trees.pop()
        if isinstance(tree, dict | list):
            trees += tree.values() if isinstance(tree, dict) else tree
        elif isinstance(tree, int | float) and not isinstance(tree, bool):
            with contextlib.suppress(
                OverflowError
            ):  # a whole number that no reader takes: of a key that none reads
                yield float(tree)


def _follows(value: float, said: list[float], factors: tuple[float, ...]) -> bool:
    return any(
        math.isclose(value, number * f, rel_tol=1e-9, abs_tol=1e-12) for number in said for f in factors
    )


def _benchmark(record: Any, said: list[float], catalog: Any) -> None:
    assert record["throughput"] == 0 or record["throughput"] in [p["rate"] for p in record["points"]]
    for point in record["points"]:
        assert 0 < point["rate"] < math.inf
        assert _follows(point["rate"], said, (3600.0,)), point
        for name, value in point.items():
            if name.split("_")[0] in ("ttft", "tpot", "e2e"):
                assert 0 <= value < math.inf
                assert _follows(value, said, (1.0, 1000.0)), (name, value)


def _profile(record: Any, said: list[float], catalog: Any) -> None:
    for name, rate in record["throughput"].items():
        assert _follows(rate, said, (3600.0,)), (name, rate)


def _model(record: Any, said: list[float], catalog: Any) -> None:
    assert 0 < record["active_parameters"] <= record["parameters"]
    assert math.isfinite(record["weight_memory"])
    assert record["kv_per_token"] > 0


def _prices(record: Any, said: list[float], catalog: Any) -> None:
    for found in record.values():
        assert 0 < found["low"] <= found["median"] <= found["high"] < math.inf
        assert _follows(found["low"], said, tuple(1 / n for n in said if n > 0)) or _follows(
            found["low"], said, (1,)
        )


def _quality(record: Any, said: list[float], catalog: Any) -> None:
    for row in record:
        assert 0 <= row["error_nominal"] <= 1
        assert _follows(1 - row["error_nominal"], said, (1.0,))
        assert 0 <= row["error_deviation"] < 2


def _trace(record: Any, said: list[float], catalog: Any) -> None:
    (row,) = record
    assert row["requests"] + row["failed"] <= len(said)
    for name in (
        "arrival_rate_mean",
        "arrival_rate_peak",
        "input_tokens_mean",
        "output_tokens_mean",
        "hours",
    ):
        assert 0 <= row[name] < math.inf
    assert row["output_tokens_mean"] >= 1
    assert row["input_tokens_mean"] <= max(said)


WITNESSES: dict[str, Callable[[Any, list[float], Any], None]] = {
    "benchmark": _benchmark,
    "profile": _profile,
    "model": _model,
    "prices": _prices,
    "quality": _quality,
    "trace": _trace,
}
