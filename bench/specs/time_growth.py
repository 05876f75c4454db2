"""How the time and the memory of the command `rodiu sweep` grow with its rows."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.commands import Footprint, count_rows, sweep_apart
from bench.measure import Case, Side, Spec
from rodiu_jax.runtime.devices import by_device


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """Sweeps of n rows, report included, and the finished sweeps resumed; by cascade as far as this device gets."""
    rows = count_rows(n)

    def judge(results: Sequence[Footprint]) -> tuple[bool, str]:
        done, resumed = results
        text = (
            f"peak memory {done.memory:,.0f} MB, resumed {resumed.memory:,.0f} MB; "
            f"{done.rows:,} rows in {done.disk:,.1f} MB"
        )
        return done.rows == resumed.rows == rows, text

    def make_cases() -> Iterator[Case]:
        most = {"evaluate": sys.maxsize, "cascade": by_device(cpu=1_000_000, accelerator=10_000_000)}
        for method in (m for m in most if n <= most[m]):
            with tempfile.TemporaryDirectory() as folder:
                run = partial(sweep_apart, Path(folder), method, n)
                resumed = Side("finished, resumed", partial(run, resume=True), rows)
                yield Case(f"{method}, {rows:,} rows", (Side(method, run, rows), resumed), judge)

    yield make_cases()


SPEC = Spec(
    name="growth",
    measures="Rows per second of the command `rodiu sweep`, compiling, report and page included, in a process"
    " of its own, and the most memory that it held; then of `rodiu sweep --resume` where nothing is left to do, which"
    " checks every row and writes the report again. Timed once, as it is.",
    item="row",
    peers="none: what counts is that memory does not grow and the rate does not fall, and that resuming a finished"
    " sweep adds seconds, however many rows.",
    quality="every row is there.",
    precision="as sweep (evaluate) and cascade",
    by_hand="on a CPU 4,096 scenarios of 13 KB at a time are 53 MB, 2,048 by cascade 27 MB, sixteen times as"
    " many on a GPU; the rest is code.",
    sizes=(1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    build=build,
    repeats=0,
)
