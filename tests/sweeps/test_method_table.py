"""A new solving method is one file and one line in a table: nothing else in the program names methods."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import rodiu_jax
import solvers
from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import METHODS, MethodInfo
from rodiu_jax.sweeps.engines import ENGINES
from tests.sweeps.small import run, spec

TOY = MethodInfo("toy", "tests.sweeps.toy_method:serve_nobody", "serves nobody", gap=0.25)


def test_a_method_is_one_file_and_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, TOY.name, TOY)
    rows = run(tmp_path / "out", spec(method="toy"))
    assert rows["method"].unique().tolist() == ["other"]
    assert rows["message"].unique().tolist() == ["asked for 0.25"]
    assert len(rows) == 18
    for key, value in (("exact", "all"), ("audit", 0.1), ("plans", ["{}"])):
        with pytest.raises(InputError, match=f"{key}: .*no such key with method toy"):
            spec(method="toy", **{key: value})
    with pytest.raises(
        InputError, match="certificates: expected method cascade or bracket or fake: toy leaves"
    ):
        spec(method="toy", certificates=True)


def test_the_command_offers_what_the_tables_hold():
    from rodiu_jax.cli.decisions import choose
    from rodiu_jax.cli.sweeps import sweep

    for command, option, table in (
        (sweep, "method", METHODS.keys() - {"fake"}),
        (sweep, "engine", ENGINES),
        (choose, "criterion", CRITERIA),
    ):
        (found,) = (p for p in command.params if p.name == option)
        assert isinstance(found, click.Option)
        assert isinstance(found.type, click.Choice)
        assert set(found.type.choices) == set(table)
        assert all(f"{name}: " in (found.help or "") for name in table)


def test_every_place_in_a_table_exists():
    for info in (*METHODS.values(), *ENGINES.values(), *CRITERIA.values()):
        assert callable(info.load())


def test_the_tables_import_nothing_heavy():
    code = (
        "import sys; from rodiu_jax.sweeps.method_table import METHODS; "
        "from rodiu_jax.sweeps.engines import ENGINES; "
        "from rodiu_jax.decisions.choose.criterion_table import CRITERIA; "
        "assert not {'jax', 'numpy', 'pandas', 'pydantic', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_other_file_lists_the_methods():
    """Two names of methods in quotes with nothing but punctuation between them are a list of methods."""
    names = "|".join(sorted(METHODS.keys() - {"fake"}))
    listed = re.compile(rf'"({names})"[\s,)\]}}:|]+"({names})"')
    folders = (Path(rodiu_jax.__file__).parent, Path(solvers.__file__).parent)
    assert [p for folder in folders for p in folder.rglob("*.py") if listed.search(p.read_text())] == []
