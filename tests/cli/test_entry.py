"""The command as a whole: help, exit codes, and every kind of end in one line."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rodiu_jax.cli import cli
from rodiu_jax.cli.imports import import_
from rodiu_jax.model.fields import FIELD_SPECS, FILE_FIELDS
from rodiu_jax.model.slots import Names
from rodiu_jax.model.status import Status
from rodiu_jax.model.verdict import COSTS
from solvers.answers import Answer
from tests.cli.calls import Run, answered, assert_one_line, drawn, shell
from tests.golden import Golden


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_lists_every_option(rodiu: Run, name: str):
    text = answered(rodiu(name, "--help")).out
    command = cli.commands[name]
    assert command.help is not None
    assert command.help.splitlines()[0].strip() in " ".join(text.split())
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} explains itself"
            assert all(spelling in text for spelling in parameter.opts)
    assert answered(rodiu(name, "-h")).out == text


@pytest.mark.parametrize(
    "name", ["", *sorted(cli.commands), *(f"import {kind}" for kind in sorted(import_.commands))]
)
def test_words_of_the_help(golden: Golden, name: str):
    ran = CliRunner().invoke(cli, [*name.split(), "--help"], prog_name="rodiu", terminal_width=110)
    golden(f"help/{name.replace(' ', '-') or 'rodiu'}", ran.output)


@pytest.mark.parametrize("name", ["sample", "sweep"])
def test_help_lists_every_field_that_set_knows(rodiu: Run, name: str):
    lines = answered(rodiu(name, "--help")).out.splitlines()
    for field in FILE_FIELDS:
        unit = FIELD_SPECS[field].unit
        assert any(field in line and unit in line for line in lines), field


def test_first_page_names_every_command(rodiu: Run):
    text = answered(rodiu("--help")).out
    assert all(name in text for name in cli.commands)
    assert "--version" in text


def test_heavy_modules_are_not_loaded_for_help():
    code = (
        "import sys, rodiu_jax, rodiu_jax.cli;"
        "heavy = {'jax', 'numpy', 'pandas', 'matplotlib', 'scipy', 'pydantic', 'highspy', 'pyarrow'};"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_exit_codes_of_the_installed_command(tmp_path: Path):
    good = shell("--version")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("rodiu")
    usage = shell("sample", "--n", "-4", "-o", tmp_path / "out.npz")
    assert (usage.returncode, usage.stdout) == (2, "")
    assert_one_line(usage.stderr, "--n", "-4", "1<=x<=")
    unknown = shell("smple")
    assert unknown.returncode == 2
    assert_one_line(unknown.stderr, "smple")
    assert list(tmp_path.iterdir()) == []


def test_no_arguments_shows_help(rodiu: Run):
    assert answered(rodiu()).out == answered(rodiu("--help")).out


def test_help_shows_the_formats_of_files(rodiu: Run):
    plans = answered(rodiu("evaluate", "--help")).out
    keys = ("instance", "deployments", "model", "gpu", "tp", "routes", "query", "share", "unmet")
    assert all(f'"{key}"' in plans for key in keys)
    solved = answered(rodiu("solve", "--help")).out
    answer = Answer.of(Names(("q",), ("m",), ("g",), (1,)), Status.UNKNOWN).to_json(0)
    assert all(key in solved.split("--json: ")[1] for key in (*answer, *COSTS))
    sampled = " ".join(answered(rodiu("sample", "--help")).out.split())
    assert all(
        key in sampled for key in ("query_names", "model_names", "gpu_names", "uncertainty", "last axis")
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes of a POSIX shell")
def test_a_reader_that_goes_away_is_no_traceback():
    command = Path(sys.executable).with_name("rodiu")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [command, "describe"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("raised", "word"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "memory"),
        (OSError(28, "No space left on device", "rows"), "No space"),
    ],
)
def test_work_that_fails_is_one_line(
    rodiu: Run, here: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, word: str
):
    drawn(here, n=1)

    def fail(*args, **options):
        raise raised

    monkeypatch.setattr("solvers.pool.solve_iter", fail)
    ran = rodiu("solve", "in.npz")
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err.removeprefix("\n"), word)  # click ends the line that shows ^C
