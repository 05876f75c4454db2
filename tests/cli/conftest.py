"""A folder for the command to work in."""

from pathlib import Path

import pytest

from tests.oracles.tiny import TINY


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the tiny catalogue in it."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    return tmp_path
