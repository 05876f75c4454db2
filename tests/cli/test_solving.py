"""Scenarios in a file: solve, bound, verify."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rodiu_jax.model.status import Status
from solvers.answers import Answer
from tests.cli.calls import Run, answered, assert_one_line, drawn, refused


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Records what `solve` asks of the pool, which answers at once."""
    calls: list[dict[str, Any]] = []

    def solve_iter(instances, indices, **options):
        calls.append({"indices": indices, **options})
        return iter([Answer.of(instances.names, Status.TIME_LIMIT) for _ in indices])

    monkeypatch.setattr("solvers.pool.solve_iter", solve_iter)
    return calls


def test_solve_refuses_a_place_for_failures_that_cannot_be(rodiu: Run, here: Path):
    drawn(here, n=1)
    refused(rodiu, "solve", "in.npz", "--failures", "in.npz", needles=("in.npz", "folder"))


def test_solve_prints_a_table_without_json(rodiu: Run, here: Path):
    drawn(here, n=1)
    text = answered(rodiu("solve", "in.npz", "--workers", 1)).out
    assert "optimal" in text
    assert "Llama" in text


def test_solve_loads_nothing_that_one_answer_does_not_need(here: Path):
    """HiGHS answers and NumPy checks: the start of JAX, pandas and SciPy would take longer than both."""
    drawn(here, n=1)
    code = (
        "import sys; from click.testing import CliRunner; from rodiu_jax.cli import cli;"
        "heavy = {'jax', 'pandas', 'matplotlib', 'scipy', 'pydantic', 'pyarrow'};"
        "ran = CliRunner().invoke(cli, ['solve', 'in.npz', '--workers', '1']);"
        "print(ran.exit_code, 'optimal' in ran.output, sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.strip() == "0 True []"


def test_solve_says_what_its_plans_rest_on(rodiu: Run, here: Path):
    drawn(here, n=1)
    text = answered(rodiu("solve", "in.npz", "--workers", 1, "--catalog", "tiny.toml")).out
    assert "What the plans rest on: rent at prices: " in text
    (item,) = json.loads(
        answered(rodiu("solve", "in.npz", "--workers", 1, "--catalog", "tiny.toml", "--json")).out
    )
    assert item["basis"][-1]["field"] == "all values"
    for row in item["basis"]:
        assert row["measured"] + row["predicted"] + row["assumed"] == pytest.approx(1)
    refused(rodiu, "solve", "in.npz", "--catalog", "serving", needles=("--catalog", "sets.query"))
    refused(rodiu, "solve", "in.npz", "--catalog", "none.toml", needles=("--catalog", "none.toml"))


@pytest.mark.parametrize(
    ("args", "indices"),
    [
        ([], [0, 1, 2, 3]),
        (["--index", "2"], [2]),
        (["--index", "0", "2"], [0, 2]),
        (["--index", "3", "--index", "1"], [3, 1]),
        (["--index", "0", "2", "--index", "3", "--json"], [0, 2, 3]),
        (["--index=1", "--json"], [1]),
        (["--index=0", "1", "3", "--json"], [0, 1, 3]),
        (["--index=0", "1", "--index=2", "3"], [0, 1, 2, 3]),
    ],
)
def test_solve_reads_indices(rodiu: Run, here: Path, asked, args: list[str], indices: list[int]):
    drawn(here, n=4)
    answered(rodiu("solve", "in.npz", *args))
    answered(rodiu("solve", *args, *([] if args[-1:] == [] else ["--json"]), "in.npz"))
    assert [call["indices"] for call in asked] == [indices, indices]


def test_solve_passes_its_limits_on(rodiu: Run, here: Path, asked):
    drawn(here, n=1)
    answered(
        rodiu("solve", "in.npz", "--gap", 0.01, "--time-limit", 2.5, "--workers", 3, "--failures", "failed")
    )
    answered(rodiu("solve", "in.npz", "--gap", 0))
    limits = {"gap": 0.01, "time_limit": 2.5, "workers": 3, "failures": Path("failed")}
    assert asked[0] == {"indices": [0], **limits}
    limits = {"gap": 0.0, "time_limit": float("inf"), "workers": None, "failures": None}
    assert asked[1] == {"indices": [0], **limits}


def test_solve_refuses_a_place_for_its_plans_before_the_work(rodiu: Run, here: Path, asked):
    drawn(here, n=1)
    refused(rodiu, "solve", "in.npz", "--plans", "no/p.json", needles=("no/p.json", "folder"))
    assert asked == []
    answered(rodiu("solve", "in.npz", "--plans", "none.json"))
    assert json.loads(Path("none.json").read_text()) == []  # no scenario has a plan


def test_what_solve_does_not_know_is_null(rodiu: Run, here: Path, asked):
    drawn(here, n=1)
    (row,) = json.loads(answered(rodiu("solve", "in.npz", "--json")).out)
    assert row["status"] == "time_limit"
    assert [row[k] for k in ("objective", "bound", "gap", "costs", "plan", "seconds")] == [None] * 6


def test_a_failed_scenario_is_exit_1_and_loses_no_other(
    rodiu: Run, here: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn(here, n=2)

    def solve_iter(instances, indices, **options):
        yield Answer.of(instances.names, Status.ERROR, message="out of luck")
        yield Answer.of(instances.names, Status.TIME_LIMIT, lower=5.0)

    monkeypatch.setattr("solvers.pool.solve_iter", solve_iter)
    ran = rodiu("solve", "in.npz", "--json")
    assert ran.code == 1
    assert_one_line(ran.err, "1 of 2", "out of luck")
    assert [row["status"] for row in json.loads(ran.out)] == ["error", "time_limit"]
    assert json.loads(ran.out)[1]["bound"] == 5.0


def test_bound_its_plans_and_its_certificates_hold(rodiu: Run, here: Path):
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 5, "--seed", 7, "-o", "five.npz"))
    files = ("-o", "b.parquet", "--plans", "p.json", "--certificates", "c.parquet")
    answered(rodiu("bound", "five.npz", *files, "--quiet"))
    table = pd.read_parquet("b.parquet")
    assert list(table)[:5] == ["instance", "lower_bound", "upper_bound", "gap", "status"]
    assert table["instance"].tolist() == list(range(5))
    assert (table["lower_bound"] <= table["upper_bound"]).all()
    best = json.loads(answered(rodiu("solve", "five.npz", "--json")).out)
    for row, exact in zip(table.to_dict("records"), best, strict=True):
        assert row["lower_bound"] <= exact["objective"] * (1 + 1e-9)
        assert row["upper_bound"] >= exact["bound"] * (1 - 1e-9)
    answered(rodiu("evaluate", "five.npz", "p.json", "-o", "e.parquet"))
    evaluated = pd.read_parquet("e.parquet")
    assert evaluated["feasible"].all()
    assert evaluated["total_cost"].to_numpy() == pytest.approx(table["upper_bound"].to_numpy(), rel=1e-12)
    assert "5 of 5 rows hold" in answered(rodiu("verify", "b.parquet", "c.parquet", "five.npz")).out
    table.loc[3, "lower_bound"] *= 1.001
    table.to_parquet("lie.parquet")
    ran = rodiu("verify", "lie.parquet", "c.parquet", "five.npz")
    assert ran.code == 1
    assert "instance 3: the lower bound is above" in ran.err
    assert "5 of 5 rows hold" in answered(rodiu("verify", "e.parquet", "p.json", "five.npz")).out
    for column, lie in (("delay_cost", 1.0), ("margin_memory", 1e-6), ("feasible", True)):
        false = evaluated.copy()
        false[column] = false[column].where(
            false["instance"] != 2, false[column] != lie if lie is True else lie
        )
        false.to_parquet("lie.parquet")
        ran = rodiu("verify", "lie.parquet", "p.json", "five.npz")
        assert ran.code == 1
        assert "the first, instance 2: " in ran.err
        assert column in ran.err


def test_verify_refuses_what_it_cannot_read(rodiu: Run, here: Path):
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 1, "-o", "one.npz"))
    Path("b.parquet").write_bytes(b"not a table")
    ran = rodiu("verify", "b.parquet", "c.parquet", "one.npz")
    assert ran.code == 2
    assert "b.parquet" in ran.err
