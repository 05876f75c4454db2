"""The command in this process, and a folder for it to work in."""

import sys
from pathlib import Path

import pytest

from rodiu_jax.cli import main
from tests.cli.calls import Ran, Run
from tests.oracles.tiny import TINY


@pytest.fixture
def rodiu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the entry point in this process."""

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["rodiu", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else int(stop.code)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the tiny catalogue in it."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    return tmp_path
