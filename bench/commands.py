"""The command `rodiu sweep` in a process of its own, its memory measured."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from bench.kills import COMMAND, write_arguments
from rodiu_jax.sweeps import load_spec

_POINTS = load_spec("cost-budget").points


def sample_count(n: int) -> int:
    """Return the samples of the preset cost-budget that make at least ``n`` rows."""
    return -(-n // _POINTS)


def count_rows(n: int) -> int:
    """Return the rows of a sweep of so many samples."""
    return sample_count(n) * _POINTS


@dataclass(frozen=True)
class Footprint:
    """What a sweep left: rows, MB on disk, and the most memory that its process held, MB."""

    rows: int
    disk: float
    memory: float


def run_command(arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a sweep to its end and return the most memory that its process held, MB.

    Raises:
      RuntimeError: it failed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(log.read().decode(errors="replace"))
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def wait_for_first_rows(arguments: Sequence[str], out: Path, environment: Mapping[str, str]) -> None:
    """Run a sweep into ``out`` until its first rows are on disk, and end it.

    Raises:
      RuntimeError: it ended without any.
    """
    command = [*COMMAND, *arguments, "-o", str(out)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(out.glob("scenarios/*.parquet")):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} left no rows")
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


def at_home(folder: Path) -> dict[str, str]:
    """Return the environment of a user whose home, with the cache of compiled programs, is ``folder``."""
    return os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}


def sweep_apart(folder: Path, method: str, rows: int, *, resume: bool = False) -> Footprint:
    """Sweep at least ``rows`` rows of the preset cost-budget by a method into ``folder``, and count what is there.

    Args:
      folder: has nothing in it, or the finished sweep to ``resume``: its rows are checked, and its report written.
    """
    out = folder / "out"
    arguments = write_arguments(folder, method, sample_count(rows), certificates=False)
    arguments += ["-o", str(out), *(["--resume"] if resume else [])]
    memory = run_command(arguments, at_home(folder / "home"))
    parts = list((out / "scenarios").glob("*.parquet"))
    written = sum(pq.read_metadata(part).num_rows for part in parts)
    return Footprint(written, sum(part.stat().st_size for part in parts) / 1e6, memory)
