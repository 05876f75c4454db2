"""The names of the package: what is public, that every command is one of them, and what the functions answer."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest

import rodiu_jax
from rodiu_jax.certificates import tabulate_leaves, write_certificates
from rodiu_jax.cli.main import cli
from rodiu_jax.errors import InputError
from solvers.bound import tabulate_bounds
from tests.oracles.instances import random_instances, random_plan
from tests.oracles.tiny import TINY

ROOT = Path(__file__).parent.parent


def test_public_names_are_listed_once_in_order_and_load_from_where_they_are_said_to_be():
    assert rodiu_jax.__all__ == sorted(set(rodiu_jax.__all__))
    assert set(rodiu_jax.__all__) == set(rodiu_jax._HOME)
    for name, home in rodiu_jax._HOME.items():
        loaded = getattr(rodiu_jax, name)
        assert loaded is getattr(rodiu_jax, name), "the same every time"
        assert loaded is getattr(sys.modules[home], name)


@pytest.mark.parametrize("name", sorted(rodiu_jax.__all__))
def test_public_names_are_documented_and_annotated(name: str):
    """A docstring that begins with a sentence, and a type for every argument and for what comes back."""
    public = getattr(rodiu_jax, name)
    doc = inspect.getdoc(public) or ""
    assert re.match(r"[A-Z`].*\.", doc, re.S), name
    if inspect.isclass(public):
        return
    signature = inspect.signature(public)
    assert signature.return_annotation is not inspect.Signature.empty, name
    for argument in signature.parameters.values():
        assert argument.annotation is not inspect.Parameter.empty, (name, argument.name)


def test_every_command_is_a_function_too():
    # The page of a sweep; files of a plan; `Plan` is a class.
    names = {"report": "write_report", "export": "export_plan", "plan": "plan_fleet"}
    for command, found in cli.commands.items():
        kinds = (
            [f"{command}_{kind}" for kind in found.commands] if isinstance(found, click.Group) else [command]
        )
        for name in kinds:
            assert names.get(name, name) in rodiu_jax.__all__, name


def test_what_the_readme_calls_is_public():
    page = (ROOT / "README.md").read_text()
    called = set(re.findall(r"\brj\.(\w+)", page))
    assert len(called) > 5
    assert called <= set(rodiu_jax.__all__)


def test_describe_is_a_row_for_every_number_of_a_catalogue(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(TINY)
    catalog = rodiu_jax.load_catalog(tmp_path / "tiny.toml")
    table = rodiu_jax.describe(tmp_path / "tiny.toml")
    pd.testing.assert_frame_equal(table, rodiu_jax.describe(catalog))
    assert len(table) == sum(len(catalog.names(name)) for name in catalog.quantities)
    for name, (low, high) in catalog.ranges.items():
        rows = table[table["quantity"] == name]
        np.testing.assert_array_equal(rows["low"], low.ravel())
        np.testing.assert_array_equal(rows["high"], high.ravel())
        assert (rows["unit"] == catalog.quantities[name].unit).all()
    assert table["source"].ne("").any()


def test_verify_takes_tables_and_plans_as_they_are(tmp_path: Path):
    batch = random_instances(3, (2, 2, 2, 2), batch=4)
    plans = [random_plan(np.random.default_rng(b), batch, instance=b) for b in range(4)]
    table = rodiu_jax.evaluate(plans, batch)
    assert rodiu_jax.verify(table, plans, batch)["ok"].all()
    batch.save(tmp_path / "b.npz")
    rodiu_jax.save_plans(plans, tmp_path / "p.json")
    table.assign(total_cost=table["total_cost"] * 1.01).to_parquet(tmp_path / "t.parquet")
    verdicts = rodiu_jax.verify(tmp_path / "t.parquet", tmp_path / "p.json", tmp_path / "b.npz")
    assert not verdicts["ok"].any()
    for arguments in ((table,), (table, plans), (tmp_path, plans)):
        with pytest.raises(InputError, match="verify: "):
            rodiu_jax.verify(*arguments)


def test_sensitivity_takes_a_table_as_it_is():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": np.tile([0.0, 1.0, 2.0], 8), "b": np.repeat([0.0, 1.0], 12)})
    table["total_cost"] = 10.0 * table["a"] + table["b"] + rng.normal(0, 0.01, 24)
    table.loc[3, "total_cost"] = np.nan
    found = rodiu_jax.sensitivity(table, factors=["a", "b"])
    assert (found.rows, found.left_out, found.factors) == (24, 1, ("a", "b"))
    assert found.tables["tornado"]["factor"].tolist() == ["a", "b"]
    with pytest.raises(InputError, match="factors: expected names among a, b"):
        rodiu_jax.sensitivity(table)


def test_device_mathematics_is_no_public_name():
    assert "worst_case" not in dir(rodiu_jax)
    assert not hasattr(rodiu_jax, "worst_case")


def test_importing_is_quiet_light_and_changes_no_setting():
    code = (
        "import sys, rodiu_jax; assert not {'jax', 'numpy', 'pandas'} & set(sys.modules); "
        "import jax; before = dict(jax.config.values); "
        "import rodiu_jax.model.evaluation, rodiu_jax.catalog.sampling, solvers.pool; "
        "assert dict(jax.config.values) == before"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.slow
def test_bound_is_what_verify_recomputes(tmp_path: Path):
    batch = random_instances(4, (2, 2, 2, 2), batch=3)
    answers = rodiu_jax.bound(batch, gap=0.05, certificates=True)
    assert (answers.lower <= answers.upper).all()
    assert answers.leaves is not None
    table = tabulate_bounds(answers)
    assert table["instance"].tolist() == [0, 1, 2]
    path = tmp_path / "certificates.parquet"
    write_certificates(path, tabulate_leaves(answers.leaves, dict(enumerate(answers.plans())), batch))
    verdicts = rodiu_jax.verify(table, path, batch)
    assert verdicts["ok"].all()
    assert not rodiu_jax.verify(table.assign(lower_bound=table["upper_bound"] + 1.0), path, batch)["ok"].any()
    with pytest.raises(InputError, match="gap"):
        rodiu_jax.bound(batch, gap=2.0)
