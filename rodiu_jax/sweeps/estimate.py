"""What a sweep will take, told before it is run: its rows, and time, memory and disk as a short probe has them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rodiu_jax.sweeps.ask import ask_method
from rodiu_jax.sweeps.engines.local import chunk_of
from rodiu_jax.sweeps.method_choice import settle_method
from rodiu_jax.sweeps.rows import table_of
from rodiu_jax.sweeps.run import prepare
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from rodiu_jax.model.instance import Instances
    from solvers.answers import Answers
    from solvers.pool import Pool

_FIRST_ROWS = 32
_PROBE_ROWS = 256
_PROBE_SECONDS = 20.0
"""Rounds of more rows are begun until then."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take on this machine.

    Attributes:
      spec: the sweep, its options applied.
      probed: rows that were answered to find out.
      start_seconds: from nothing to the first rows: drawing, compiling, starting processes.
      rate: rows per second after that.
      memory: bytes, of this process and of the solvers' processes together; None where the system does not tell.
      disk: bytes of all rows, certificates not counted.
      method_reason: why method ``auto`` chose the spec's method; empty where the method was asked for.
    """

    spec: SweepSpec
    probed: int
    start_seconds: float
    rate: float
    memory: int | None
    disk: int
    method_reason: str = ""

    @property
    def seconds(self) -> float:
        """Of the whole sweep."""
        return self.start_seconds + self.spec.rows / self.rate

    def lines(self) -> list[str]:
        """For people."""
        spec = self.spec
        memory = "not known" if self.memory is None else f"about {_amount(self.memory)}, however many rows"
        span = timedelta(seconds=round(self.seconds))
        top = f", and {spec.top} exact solutions at the end" if spec.exact == "top" else ""
        why = f" (auto: {self.method_reason})" if self.method_reason else ""
        return [
            f"{spec.title}",
            f"Rows: {spec.rows} ({spec.points} points x {spec.samples} samples)",
            f"Design: {spec.layout}; factors: {', '.join(spec.columns)}",
            f"Method: {spec.method}{why}, to a gap of {spec.wanted_gap:.2g}, on catalogue {spec.catalog}",
            f"Time: about {span} ({self.start_seconds:.1f} s to start, then {self.rate:.3g} rows/s{top})",
            f"Memory: {memory}",
            f"Disk: about {_amount(self.disk)}",
            f"Estimated from {self.probed} rows of the sweep on this machine; nothing was written.",
        ]


def estimate(spec: SweepSpec | str | Path, *, workers: int | None = None, **keys: Any) -> Estimate:
    """Answer a few rows of a sweep, write nothing, and say what all of them will take.

    Args:
      spec, workers, keys: as in `rodiu_jax.sweeps.run.sweep`.

    Raises:
      InputError: bad spec or option.
    """
    from solvers.pool import Pool

    began = time.perf_counter()
    spec, catalog = prepare(spec, keys)
    spec, choice = settle_method(spec, catalog, workers)
    # All points of the first samples, or as many of them as are probed.
    last = min(spec.rows, max(spec.points, _PROBE_ROWS)) - 1
    rows = np.unique(np.linspace(0, last, _PROBE_ROWS).astype(int))
    with Pool(workers) as pool:
        made = scenarios(spec, catalog, 0, last + 1)
        each = sum(getattr(made.fields, name)[:1].nbytes for name in made.batched)
        made = made.take(rows)
        rounds: list[_Round] = []
        # The first round compiles; larger ones follow while time is left, as batches are faster by the row.
        while not rounds or (rounds[-1].rows < len(rows) and time.perf_counter() - began < _PROBE_SECONDS):
            size = min(_FIRST_ROWS if len(rounds) < 2 else 2 * rounds[-1].rows, len(rows))
            rounds.append(_round(spec, made, size, pool))
        if len(rounds) == 1:
            rounds.append(_round(spec, made, rounds[0].rows, pool))
    cold, found = rounds[0], rounds[-1]
    rate = found.rows / found.seconds
    start_seconds = max(cold.ended - began - cold.rows / rate, 0.0)
    chunk = chunk_of(spec.method)
    table = table_of(spec, found.rows_of(rows), found.answers, found.made)
    empty = _bytes(table[:0])
    disk = round((_bytes(table) - empty) * spec.rows / found.rows) + empty * -(-spec.rows // chunk)
    memory = _memory(pool, 3 * chunk * each)
    return Estimate(
        spec, found.rows, start_seconds, rate, memory, disk, "" if choice is None else choice.reason
    )


@dataclass(frozen=True)
class _Round:
    """Some of the rows to probe, spread over all of them, and their answers."""

    made: Instances
    seconds: float
    ended: float
    answers: Answers

    @property
    def rows(self) -> int:
        return self.made.size

    def rows_of(self, probed: np.ndarray) -> np.ndarray:
        """The numbers of these rows."""
        return probed[_spread(len(probed), self.rows)]


def _spread(size: int, count: int) -> np.ndarray:
    return np.linspace(0, size - 1, count).astype(int)


def _round(spec: SweepSpec, made: Instances, size: int, pool: Pool) -> _Round:
    from solvers.answers import Answers

    chosen = made.take(_spread(made.size, size))
    began = time.perf_counter()
    parts = list(ask_method(spec, chosen, pool, np.zeros(size, bool)))
    answers = Answers.concatenate(parts, names=made.names)
    ended = time.perf_counter()
    return _Round(chosen, ended - began, ended, answers)


def _bytes(table: pa.Table) -> int:
    """Size of a table's Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().size


def _memory(pool: Pool, chunk: int) -> int | None:
    """Bytes at the peak: this process with a whole chunk of scenarios, and as many solver processes as there were."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    own, child = (
        resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own + chunk + child * pool.workers


def _amount(size: int) -> str:
    number = float(size)
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
