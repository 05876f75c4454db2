"""What a first start of the command `rodiu sweep` costs beside a later one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from bench.commands import at_home, count_rows, run_command, sample_count, wait_for_first_rows
from bench.measure import Case, Side, Spec
from rodiu_jax.sweeps import read_rows
from rodiu_jax.sweeps.method_choice import OPENING


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """A sweep of n rows with its programs compiled by an earlier one, and with none."""
    with tempfile.TemporaryDirectory() as folder:
        home_with_programs = Path(folder) / "home"

        def run(home: Path) -> pd.DataFrame:
            with tempfile.TemporaryDirectory() as out:
                arguments = ["cost-budget", "--samples", str(sample_count(n)), "--quiet", "-o", f"{out}/out"]
                run_command(arguments, at_home(home))
                return read_rows(Path(out) / "out").drop(columns="seconds")

        def cold() -> pd.DataFrame:
            with tempfile.TemporaryDirectory() as home:
                return run(Path(home))

        def judge(results: Sequence[Any]) -> tuple[bool, str]:
            return results[0].equals(results[1]), f"{len(results[0])} rows, the same from both"

        def begin(home: Path) -> None:
            with tempfile.TemporaryDirectory() as out:
                wait_for_first_rows(["gpu-cost-error", "--quiet"], Path(out) / "out", at_home(home))

        def begin_cold() -> None:
            with tempfile.TemporaryDirectory() as home:
                begin(Path(home))

        def keep_and_begin() -> None:
            if not sweep_home.exists():  # the first time compiles, and is not timed
                with tempfile.TemporaryDirectory() as out:
                    run_command(["gpu-cost-error", "--quiet", "-o", f"{out}/out"], at_home(sweep_home))
            begin(sweep_home)

        sweep_home = Path(folder) / "sweep-home"
        rows = count_rows(n)
        sides = (
            Side("programs kept", lambda: run(home_with_programs), rows),
            Side("nothing kept", cold, rows),
        )
        first = (Side("programs kept", keep_and_begin, OPENING), Side("nothing kept", begin_cold, OPENING))
        yield iter(
            [
                Case(f"sweep of {rows} rows", sides, judge),
                Case("until the first rows of 484 are on disk", first, lambda _: (True, "")),
            ]
        )


SPEC = Spec(
    name="start",
    measures="Rows per second of the whole command `rodiu sweep cost-budget` with programs that an earlier one"
    " compiled and kept; and until the first rows, which HiGHS answers, of `rodiu sweep gpu-cost-error` are on disk.",
    item="row",
    peers="the same with an empty cache folder.",
    quality="both give the same rows.",
    precision="as cascade",
    by_hand="some 25 programs of 0.1 to 2 s of compiling each.",
    sizes=(30, 120),
    build=build,
    repeats=3,
)
