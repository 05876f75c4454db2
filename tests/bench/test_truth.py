"""The count of `bench.truth`: what a small sweep holds, and every kind of wrong row is seen."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bench.records import read_record
from bench.truth import count_rows, main, specification
from rodiu_jax.model.status import Status
from rodiu_jax.sweeps.engines import local
from solvers import cascade
from solvers.answers import Answers

pytestmark = pytest.mark.slow  # all rest on one sweep of a preset


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth") / "out"
    found = folder.parent / "found.json"
    done = CliRunner().invoke(main, [str(folder), "--samples", "6", "--seed", "3", "--out", str(found)])
    assert done.exit_code == 0, done.output
    (study,) = read_record(found).studies
    assert study.columns[:6] == ["seed", "scenarios", "withdrawn", "without an answer", "audits", "confirmed"]
    assert study.rows[0][:6] == [3, "6 of 6", 0, 0, "1", "1"]
    return folder


def test_goes_on_with_a_folder_that_holds_all(swept: Path) -> None:
    done = CliRunner().invoke(main, [str(swept), "--samples", "6", "--seed", "3"])
    assert done.exit_code == 0
    assert "| 3 | 6 of 6 | 0 |" in done.output


def test_refuses_another_seed(swept: Path) -> None:
    done = CliRunner().invoke(main, [str(swept), "--samples", "6", "--seed", "4"])
    assert done.exit_code == 2
    assert "seed" in done.output


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("certified_lower_bound", None),
        ("status", "error"),
        ("status", "gap_limit"),
        ("method", "bracket"),
        ("message", "the solver's process died twice on this scenario"),
    ],
)
def test_sees_a_wrong_row(swept: Path, tmp_path: Path, column: str, wrong: str | None) -> None:
    """Of the audited scenario: withdrawn, unanswered, or not audited to the end."""
    folder = tmp_path / "out"
    shutil.copytree(swept, folder)
    (audited,) = np.flatnonzero(specification(6, 3).audited(0, 6))
    for path in (folder / "scenarios").glob("*.parquet"):
        table = pq.read_table(path)
        pairs = zip(table["sample"].to_pylist(), table[column].to_pylist(), strict=True)
        at = table.schema.get_field_index(column)
        field = table.schema.field(at)
        values = pa.array([wrong if sample == audited else value for sample, value in pairs], field.type)
        pq.write_table(table.set_column(at, field, values), path)
    figures, right = count_rows(folder)
    assert not right, figures


def test_counts_a_bracket_that_contradicted_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS answers in its place, so that the row itself looks proven."""
    found = cascade.brackets

    def withdrawing(*args: Any, **options: Any) -> Answers:
        answers = found(*args, **options)
        answers.lower[0] = answers.certified[0] = -math.inf
        answers.upper[0], answers.unmet[0], answers.status[0] = math.inf, math.nan, Status.ERROR
        return answers

    monkeypatch.setattr(cascade, "brackets", withdrawing)
    done = CliRunner().invoke(main, [str(tmp_path / "out"), "--samples", "6", "--seed", "3"])
    assert done.exit_code == 1
    assert "| 3 | 6 of 6 | 1 | 0 |" in done.output


def test_says_that_it_ended_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_run_chunk", interrupted)
    done = CliRunner().invoke(main, [str(tmp_path / "out"), "--samples", "6"])
    assert done.exit_code == 1
    assert "Ended early: interrupted" in done.output
    assert "No rows yet." in done.output
