"""The benchmark of scarce scenarios: its families are what they say, and a row holds what was measured."""

import numpy as np
import pytest
from click.testing import CliRunner

from bench.records import read_record
from bench.scarce import FAMILIES, draw, main


def test_families_are_what_they_say():
    plain = draw("default", 2, 5).fields
    assert len(FAMILIES) == 8
    for name in list(FAMILIES)[1:]:
        field, factor = name.split(" x ")
        drawn = getattr(draw(name, 2, 5).fields, field)
        np.testing.assert_allclose(drawn, float(factor) * np.asarray(getattr(plain, field)))


@pytest.mark.slow
def test_table_of_a_family(tmp_path):
    out = tmp_path / "found.json"
    done = CliRunner().invoke(main, ["arrival_rate x 4", "--scenarios", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    (study,) = read_record(out).studies
    (row,) = study.rows
    table = dict(zip(study.columns, row, strict=True))
    assert table["scenarios"] == 2
    assert table["without a plan"] == 0
    assert 0 < table["gap, mean, %"] <= 1.5
    assert table["gap, mean, %"] <= table["gap at the root, mean, %"] + 1e-9
    assert table["pairs, most"] > 4
    assert min(table[n] for n in ("brackets/s", "LPs/s", "optima/s")) > 0
