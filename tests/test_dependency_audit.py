"""The audit of the dependencies: a known vulnerability fails, an unreachable database says so and does not."""

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = str(Path(__file__).parent.parent / ".ci/audit")
SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
CLEAN = {"name": "b", "version": "1", "vulns": []}
FAULTY = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}, {"id": "X", "fix_versions": []}],
}


@pytest.mark.parametrize(
    ("report", "status", "lines"),
    [
        ([], 0, ["NOT audited"]),
        ([SKIPPED], 0, ["NOT audited"]),
        ([CLEAN], 0, ["audited: 1 packages, 0 known vulnerabilities"]),
        ([CLEAN, SKIPPED], 0, ["1 packages could not be looked up"]),
        (
            [CLEAN, FAULTY],
            1,
            ["audited: 2 packages, 2 known", "c 2: PYSEC-1, mended in 3", "X, mended in nothing yet"],
        ),
    ],
)
def test_verdicts(report: list[dict[str, Any]], status: int, lines: list[str]):
    loader = importlib.machinery.SourceFileLoader("audit", PATH)
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    said, found = module.verdict(report)
    assert found == status
    assert len(said) == len(lines)
    for part, line in zip(lines, said, strict=True):
        assert part in line
