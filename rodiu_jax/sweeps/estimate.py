"""What a sweep will take, told before it is run: its rows, and time, memory and disk as a short probe has them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rodiu_jax.sweeps.ask import ask_method
from rodiu_jax.sweeps.engines.local import chunk_of, count_processes
from rodiu_jax.sweeps.method_choice import settle_method
from rodiu_jax.sweeps.rows import table_of
from rodiu_jax.sweeps.run import prepare
from rodiu_jax.sweeps.scenarios import scenarios_at
from rodiu_jax.sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from rodiu_jax.model.instance import Instances
    from solvers.answers import Answers
    from solvers.pool import Pool


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
    chunk = chunk_of(spec.method, catalog)
    probed = min(_most_probed(), chunk)  # no more at a time than the sweep itself makes
    # All points of the first samples, or as many of them as are probed.
    last = min(spec.rows, max(spec.points, probed)) - 1
    rows = np.unique(np.linspace(0, last, probed).astype(int))
    with Pool(workers) as pool:
        made = scenarios_at(spec, catalog, rows)
        each = sum(getattr(made.fields, name)[:1].nbytes for name in made.batched)
        rounds = _probe(spec, made, pool, began)
    found = rounds[-1]
    start_seconds, rate = _pace(rounds, began)
    table = table_of(spec, found.rows_of(rows), found.answers, found.made)
    empty = _bytes(table[:0])
    disk = round((_bytes(table) - empty) * spec.rows / found.rows) + empty * -(-spec.rows // chunk)
    memory = _memory(pool, 3 * chunk * each, count_processes(spec.method, workers))
    return Estimate(
        spec, found.rows, start_seconds, rate, memory, disk, "" if choice is None else choice.reason
    )


def _most_probed() -> int:
    """Return the most rows of a round: a few rows take an accelerator as long as a full block."""
    from rodiu_jax.runtime.devices import by_device

    return by_device(cpu=256, accelerator=16_384)


def _most_seconds(last: _Round, size: int) -> float:
    """Return until when a round of ``size`` rows is begun after the round ``last``.

    An accelerator's programs take up to a minute to compile, and its rounds grow so fast that one of HiGHS, which gains
    nothing, must not begin where it would take far longer.
    """
    from rodiu_jax.runtime.devices import by_device

    return by_device(cpu=20.0, accelerator=80.0 - 2 * last.seconds * size / last.rows)


def _list_sizes(rows: int) -> list[int]:
    """List the rows of the probe's rounds, where ``rows`` are probed: more are faster by the row.

    A size that stands twice compiles the first time: on an accelerator all, as larger blocks are other programs.
    """
    from rodiu_jax.runtime.devices import by_device

    sizes = by_device(cpu=(32, 32, 64, 128), accelerator=(64, 64, 512, 512, 4096, 4096))
    smaller = [size for size in sizes if size < rows]
    return smaller + [rows] * by_device(cpu=1 if smaller else 2, accelerator=2)


def _probe(spec: SweepSpec, made: Instances, pool: Pool, began: float) -> list[_Round]:
    """Answer more and more of the scenarios ``made`` until all are, or the time is over."""
    rounds: list[_Round] = []
    for size in _list_sizes(made.size):
        if (
            rounds
            and size > rounds[-1].rows
            and time.perf_counter() - began > _most_seconds(rounds[-1], size)
        ):
            break
        rounds.append(_round(spec, made, size, pool))
    return rounds


def _pace(rounds: list[_Round], began: float) -> tuple[float, float]:
    """Return the seconds from nothing to the first rows, and rows per second after that."""
    rate = rounds[-1].rows / rounds[-1].seconds
    cold = [first for first, second in pairwise(rounds) if first.rows == second.rows]
    before = rounds[0].ended - rounds[0].seconds - began
    return max(before + sum(r.seconds - r.rows / rate for r in cold), 0.0), rate


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


def _memory(pool: Pool, chunk: int, processes: int) -> int | None:
    """Bytes at the peak: this process with a whole chunk of scenarios, and as many solver processes as there were.

    Args:
      processes: that answer chunks; several are others beside this one.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    own, child = (
        resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    beside = processes if processes > 1 else 0
    return own * (1 + beside) + chunk + child * pool.workers


def _amount(size: int) -> str:
    number = float(size)
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
