"""Beside the code: the API reference builds without a warning, the standing files say what pyproject says."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.slow
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
    for page in ("README", "CONTRIBUTING", "docs/model", "docs/glossary", "docs/tutorial"):
        text = (tmp_path / f"site/{page}.html").read_text(encoding="utf-8")
        for target in re.findall(r'(?:href|src)="([^":#]+)', text):
            path = (tmp_path / f"site/{page}.html").parent / target
            assert path.exists() or not target.endswith((".html", ".png")), (page, target)


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


@pytest.mark.parametrize("extra", ["", "discovery", "serving", "cluster", "docs"])
def test_every_package_has_its_notice(extra: str):
    notices = (ROOT / "THIRD_PARTY.md").read_text()
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in wanted:
        name = requirement.split(">")[0].split("=")[0]
        assert f"| {name}" in notices, name


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_what_to_change_is_where_the_readme_says():
    """A path stands in the root, or in the folder of the last such path of the same cell."""
    table = (ROOT / "README.md").read_text().split("| what to change | where |")[1].split("\n\n")[0]
    cells = [line.split("|")[2] for line in table.splitlines() if line.count("|") == 3][1:]
    assert len(cells) > 15
    for cell in cells:
        folder = ROOT
        for path in re.findall(r"`([^`]+)`", cell):
            if (ROOT / path.partition("*")[0]).exists():
                folder = ROOT / path if path.endswith("/") else (ROOT / path).parent
            else:
                assert (folder / path).exists(), path


def test_the_glossary_names_what_exists():
    """Dotted names can be imported; class names and fields stand in the code."""
    text = (ROOT / "docs/glossary.md").read_text()
    code = "\n".join(p.read_text() for d in ("rodiu_jax", "solvers") for p in (ROOT / d).rglob("*.py"))
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 6]
    names = {name for row in rows for name in re.findall(r"`([\w.]+)`", row[4])}
    assert len(names) > 60
    for name in names:
        if name.startswith(("rodiu_jax.", "solvers.")):
            importlib.import_module(name)
        else:
            assert re.search(rf"\b{name}\b", code), name


def test_hooks_and_ci_check_the_same():
    """One script, whose tools are pinned in the extra `dev`; what the short lane leaves out, CI runs."""
    assert "entry: .ci/lint\n" in (ROOT / ".pre-commit-config.yaml").read_text()
    run, lint = ((ROOT / ".ci" / name).read_text() for name in ("run", "lint"))
    assert re.search(r"^step lint \d+ .ci/lint$", run, re.M)
    assert re.search(r"^step long .* -m slow$", run, re.M)
    pinned = " ".join(PROJECT["optional-dependencies"]["dev"])
    for tool, package in (
        ("ruff", "ruff"),
        ("lint-imports", "import-linter"),
        ("pyright", "pyright[nodejs]"),
    ):
        assert f'"$tools/{tool}"' in lint
        assert f"{package}==" in pinned


@pytest.mark.parametrize("arguments", [[], ["page.html", "many"], ["page.html", "4", "5"]])
def test_the_example_page_says_how_it_is_called(arguments: list[str]):
    command = [sys.executable, ROOT / "docs/example_page.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "usage: python docs/example_page.py FILE.html [SAMPLES]\n")


@pytest.mark.parametrize("script", ["serving_catalog.py FILE.toml", "peers.py FILE.md"])
def test_scripts_of_the_extra_say_how_they_are_called(script: str):
    name, argument = script.split()
    command = [sys.executable, ROOT / "docs" / name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"usage: python docs/{name} {argument}\n")


@pytest.mark.slow
def test_the_example_page_is_one_file(tmp_path: Path):
    command = [sys.executable, ROOT / "docs/example_page.py", tmp_path / "page.html", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert "<html" in page
    assert 'src="http' not in page
