"""A hundred mutations of every format of `rodiu import`: never a traceback, and no number that the file does not say.

`pytest -m faults --faults 2500` makes a hundred of each kind; the usual run few.
"""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzzing.imports import KINDS, imported, read_numbers
from tests.oracles.tiny import TINY

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("kind", KINDS)
def test_imports(kind: str, tmp_path: Path, faults: int):
    base = tmp_path / "tiny.toml"
    base.write_text(TINY)

    @settings(max_examples=max(faults // 25, 2), deadline=None, suppress_health_check=list(HealthCheck), database=None,
              phases=(Phase.generate, Phase.shrink), derandomize=faults < 1000, print_blob=True)  # fmt: skip
    @given(st.data())
    def try_one(data: Any) -> None:
        imported(kind, data.draw, tmp_path, base)

    try_one()


def test_the_witness_reads_files_whose_numbers_are_too_long_for_a_float(tmp_path: Path):
    path = tmp_path / "long.yaml"
    path.write_text(f"rate: 2.5\nunread: {10**400}\n")
    assert list(read_numbers(path)) == [2.5]


def test_the_witness_reads_lines_that_end_in_a_carriage_return(tmp_path: Path):
    path = tmp_path / "old.csv"
    path.write_bytes(b"price\r1.5\r2.5\n")
    assert list(read_numbers(path)) == [1.5, 2.5]
