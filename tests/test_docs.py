"""Beside the code: the API reference builds without a warning, the standing files say what pyproject says."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_reference_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-W", "error", ROOT / "docs/api.py", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first = (tmp_path / "site/rodiu_jax.html").read_text()
    for name in importlib.import_module("rodiu_jax").__all__:
        assert f'id="{name}"' in first, name
    assert "<math" not in first
    assert (tmp_path / "site/solvers/dual.html").exists()
    assert (tmp_path / "site/rodiu_jax/sweeps.html").exists()


def test_the_reference_says_how_it_is_called():
    done = subprocess.run([sys.executable, ROOT / "docs/api.py"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "usage: python docs/api.py FOLDER\n")


def test_licence_version_and_citation_agree():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert "\nlicense: Apache-2.0\n" in citation
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("extra", ["", "discovery", "cluster", "docs"])
def test_every_package_has_its_notice(extra: str):
    notices = (ROOT / "THIRD_PARTY.md").read_text()
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in wanted:
        name = requirement.split(">")[0].split("=")[0]
        assert f"| {name}" in notices, name
