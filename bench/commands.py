"""Whole commands, each in a process of its own: how a sweep's time and memory grow, and what a first start costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from bench.kills import COMMAND, given
from bench.measure import Case, Side
from rodiu_jax.runtime.devices import by_device
from rodiu_jax.sweeps import load_spec, read_rows

_POINTS = load_spec("cost-budget").points


@dataclass(frozen=True)
class Finished:
    """What a sweep left: rows, MB on disk, and the most memory that its process held, MB."""

    rows: int
    disk: float
    memory: float


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a sweep to its end; the most memory that its process held, MB.

    Raises:
      RuntimeError: it failed.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace"))
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _at_home(folder: Path) -> dict[str, str]:
    """The environment of a user whose home, with the cache of compiled programs, is there."""
    return os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}


def _swept(method: str, rows: int) -> Finished:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        arguments = given(Path(folder), method, -(-rows // _POINTS), certificates=False)
        memory = _run([*arguments, "-o", str(out)], _at_home(Path(folder) / "home"))
        parts = list((out / "scenarios").glob("*.parquet"))
        kept = sum(pq.read_metadata(part).num_rows for part in parts)
        return Finished(kept, sum(part.stat().st_size for part in parts) / 1e6, memory)


@contextmanager
def growth(n: int) -> Iterator[Iterator[Case]]:
    """Sweeps of n rows, report included; by brackets as far as this device gets in minutes."""
    rows = -(-n // _POINTS) * _POINTS

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        done: Finished = results[0]
        text = f"peak memory {done.memory:,.0f} MB; {done.rows:,} rows in {done.disk:,.1f} MB"
        return done.rows == rows, text

    def case(method: str) -> Case:
        return Case(f"{method}, {rows:,} rows", (Side(method, lambda: _swept(method, n), rows),), quality)

    most = {"evaluate": sys.maxsize, "bracket": by_device(cpu=10_000, accelerator=10_000_000)}
    yield (case(method) for method in most if n <= most[method])


@contextmanager
def start(n: int) -> Iterator[Iterator[Case]]:
    """A sweep of n rows with its programs compiled by an earlier one, and with none."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"

        def run(home: Path) -> pd.DataFrame:
            with tempfile.TemporaryDirectory() as out:
                arguments = ["cost-budget", "--samples", str(-(-n // _POINTS)), "--quiet", "-o", f"{out}/out"]
                _run(arguments, _at_home(home))
                return read_rows(Path(out) / "out").drop(columns="seconds")

        def cold() -> pd.DataFrame:
            with tempfile.TemporaryDirectory() as home:
                return run(Path(home))

        def quality(results: Sequence[Any]) -> tuple[bool, str]:
            return results[0].equals(results[1]), f"{len(results[0])} rows, the same from both"

        rows = -(-n // _POINTS) * _POINTS
        sides = (Side("programs kept", lambda: run(kept), rows), Side("nothing kept", cold, rows))
        yield iter([Case(f"sweep of {rows} rows", sides, quality)])
