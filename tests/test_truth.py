"""The count of `bench.truth`: what a small sweep holds, and every kind of wrong row is seen."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bench.truth import counted, main, specification


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth") / "out"
    table = folder.parent / "table.md"
    done = CliRunner().invoke(main, [str(folder), "--samples", "6", "--seed", "3", "--out", str(table)])
    assert done.exit_code == 0, done.output
    assert "| 3 | 6 | 0 | 1 | 1 | 6 |" in table.read_text()
    return folder


def test_goes_on_with_a_folder_that_holds_all(swept: Path) -> None:
    done = CliRunner().invoke(main, [str(swept), "--samples", "6", "--seed", "3"])
    assert done.exit_code == 0
    assert "| 3 | 6 | 0 |" in done.output


def test_refuses_another_seed(swept: Path) -> None:
    done = CliRunner().invoke(main, [str(swept), "--samples", "6", "--seed", "4"])
    assert done.exit_code == 2
    assert "seed" in done.output


@pytest.mark.parametrize(
    ("column", "wrong"), [("lower_bound", 1e9), ("status", "error"), ("method", "bracket")]
)
def test_sees_a_wrong_row(swept: Path, column: str, wrong: float | str) -> None:
    (audited,) = specification(6, 3).audited(0, 6).nonzero()
    paths = sorted((swept / "scenarios").glob("*.parquet"))
    before = {path: path.read_bytes() for path in paths}
    try:
        for path in paths:
            table = pq.read_table(path)
            values = table[column].to_pylist()
            hit = [i for i, b in enumerate(table["sample"].to_pylist()) if b == audited[0]]
            for i in hit:
                values[i] = wrong
            at = table.schema.get_field_index(column)
            changed = table.set_column(
                at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
            )
            pq.write_table(changed, path)
        text, right = counted(swept)
        assert not right, text
    finally:
        for path, content in before.items():
            path.write_bytes(content)
