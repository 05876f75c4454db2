"""A folder of a plan, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.decisions.plan_folders import make_plan_folder


@pytest.fixture(scope="session")
def plan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `rodiu plan` writes; read it, and change copies alone."""
    return make_plan_folder(tmp_path_factory.mktemp("plan") / "out")
