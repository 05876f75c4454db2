"""How the time and the memory of the command `rodiu sweep` grow with its rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.commands import Footprint, count_rows, sweep_apart
from bench.measure import Case, Side, Spec
from rodiu_jax.runtime.devices import by_device


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """Sweeps of n rows, report included; by brackets as far as this device gets in minutes."""
    rows = count_rows(n)

    def judge(results: Sequence[Any]) -> tuple[bool, str]:
        done: Footprint = results[0]
        text = f"peak memory {done.memory:,.0f} MB; {done.rows:,} rows in {done.disk:,.1f} MB"
        return done.rows == rows, text

    def case(method: str) -> Case:
        return Case(f"{method}, {rows:,} rows", (Side(method, lambda: sweep_apart(method, n), rows),), judge)

    most = {"evaluate": sys.maxsize, "bracket": by_device(cpu=10_000, accelerator=10_000_000)}
    yield (case(method) for method in most if n <= most[method])


SPEC = Spec(
    name="growth",
    measures="Rows per second of the command `rodiu sweep`, compiling, report and page included, in a process"
    " of its own, and the most memory that it held. Timed once, as it is.",
    item="row",
    peers="none: what counts is that memory does not grow and the rate does not fall.",
    quality="every row is there.",
    precision="as sweep (evaluate) and cascade (bracket)",
    by_hand="on a CPU 4,096 scenarios of 13 KB at a time are 53 MB, 1,024 for brackets 13 MB, eight times as"
    " many on a GPU; the rest is code.",
    sizes=(1_000, 10_000, 100_000, 1_000_000),
    build=build,
    repeats=0,
)
