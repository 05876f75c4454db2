"""Calling the command line, what an answer and a refusal must look like, and the files that calls are about."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TRACE = Path(__file__).parent.parent / "data" / "azure_code_excerpt.csv"

SWEEP = """
name = "two budgets"
title = "Cost by budget"
catalog = "tiny.toml"
samples = 2
[[factors]]
field = "budget"
scale = [0.1, 1.0]
"""

SAMPLE = ("sample", "--catalog", "tiny.toml", "--n", "2", "-o", "made.npz")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def shell(*args: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The installed command in a process of its own."""
    command = Path(sys.executable).with_name("rodiu")
    return subprocess.run([command, *map(str, args)], capture_output=True, text=True, timeout=60, **options)


def answered(ran: Ran) -> Ran:
    assert (ran.code, ran.err) == (0, ""), ran
    return ran


def refused(rodiu: Run, *args: object, needles: tuple[str, ...]) -> None:
    """Exit 2, one line with these words, nothing printed, and no file that was not there."""
    before = sorted(Path().rglob("*"))
    ran = rodiu(*args)
    assert (ran.code, ran.out) == (2, ""), ran
    assert_one_line(ran.err, *needles)
    assert sorted(Path().rglob("*")) == before


def assert_one_line(err: str, *needles: str) -> None:
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("rodiu: ")
    assert "Traceback" not in err
    for needle in needles:
        assert needle in err, (needle, err)


def drawn(folder: Path, n: int = 2) -> None:
    """Scenarios of the tiny catalogue in ``in.npz`` and two plans for them in ``plans.json``."""
    from rodiu_jax.catalog.sampling import sample

    sample(folder / "tiny.toml", n=n, seed=1).save(folder / "in.npz")
    (folder / "plans.json").write_text(json.dumps([nothing(0), nothing(None)]))


def nothing(instance: int | None) -> dict[str, Any]:
    """The plan that serves nobody."""
    unmet = {"Code_Gen": 1.0, "Translation": 1.0}
    return {"instance": instance, "deployments": [], "routes": [], "unmet": unmet}
