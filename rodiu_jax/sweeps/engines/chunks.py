"""Chunks of rows answered by other processes: all that the engines with workers have in common.

A worker answers a chunk from nothing but its orders, and hands back rows; only what comes back is written, by this
process, so a worker that dies loses a chunk, which is done again, and no worker needs the sweep's folder. An engine is
a `Crew`: how a chunk is given to a worker, waited for and fetched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from rodiu_jax.catalog import Catalog
from rodiu_jax.errors import AuditFailed, WorkFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.runtime.compile_cache import keep_programs, kept_folder
from rodiu_jax.runtime.lazy_call import load_function
from rodiu_jax.runtime.progress import Bar
from rodiu_jax.sweeps.method_table import METHODS, MethodInfo
from rodiu_jax.sweeps.rows import proofs_of, table_of
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import SweepSpec
from rodiu_jax.sweeps.work import Work
from solvers.answers import Answers

FIRST_CHUNK = 64
"""Most scenarios in the first chunk, so that something is on disk soon."""

_TASKS = 8
"""Chunks grow towards a method's largest while each worker still has so many of them: batches are fuller."""

_FULLER = 32
"""Times as many rows a GPU's largest chunk has as a CPU's: two blocks of brackets (`solvers.cascade`)."""

_TRIES = 4
"""A chunk whose worker died is given to another so often."""

_VERSIONS = ("rodiu-jax", "jax", "numpy", "highspy")

Rows = tuple[int, int]
"""The numbers of the first row of a chunk and of the first after it."""


@dataclass(frozen=True)
class Orders:
    """What a worker is told besides the rows.

    Attributes:
      method: the spec's: a program may have added it to the table of this process.
      versions: of the packages whose every bit rows depend on.
      keep: whether compiled programs are kept; where, every machine knows for itself.
    """

    spec: SweepSpec
    catalog: Catalog
    method: MethodInfo
    versions: dict[str, str]
    keep: bool


@dataclass(frozen=True)
class Done:
    """A chunk's rows and certificates, and what answered them."""

    table: pa.Table
    proofs: pa.Table | None
    devices: tuple[str, ...]


class WorkerLost(Exception):
    """The worker that had a chunk died; the text says of what, where that is known."""


class Crew(Protocol):
    """Workers that answer chunks side by side.

    Attributes:
      room: chunks that may be submitted and not fetched.
    """

    room: int

    def submit(self, rows: Rows) -> Any:
        """Give a chunk to a worker; return a ticket for it, which can be a key."""
        ...

    def wait(self, tickets: Sequence[Any]) -> Any:
        """Wait until a chunk is answered or lost, and return its ticket."""
        ...

    def fetch(self, ticket: Any) -> Done:
        """Return what was answered.

        Raises:
          WorkerLost: nothing was.
          Exception: what the worker raised, as it raised it.
        """
        ...


def give_orders(work: Work) -> Orders:
    """Return what the workers are told."""
    spec = work.store.spec
    versions = {name: version(name) for name in _VERSIONS}
    return Orders(spec, work.catalog, METHODS[spec.method], versions, kept_folder() is not None)


def cut(work: Work, workers: int, *, gpus: int = 0) -> list[Rows]:
    """Cut the gaps into chunks for so many workers, with ``gpus`` each."""
    left = sum(end - start for start, end in work.gaps)
    return work.chunks(rows_of_chunk(work.store.spec.method, left, workers, gpus=gpus), FIRST_CHUNK)


def rows_of_chunk(method: str, left: int, workers: int, *, gpus: int = 0) -> int:
    """Return the rows of a chunk by ``method``, where ``left`` are to be answered.

    Args:
      gpus: of a worker. Where batches gain by being fuller, a GPU's gain up to `_FULLER` times as many rows.
    """
    fewest, most = METHODS[method].task_rows
    if gpus and most > fewest:
        most *= _FULLER
    return min(max(left // (_TASKS * workers), fewest), most)


def answer_chunks(
    crew: Crew, work: Work, chunks: Sequence[Rows], note: Callable[[Rows], None] = lambda rows: None
) -> None:
    """Let a crew answer chunks, and write their rows as they come.

    Args:
      note: called with the rows of each chunk once they are on disk.

    Raises:
      WorkFailed: a chunk lost its worker several times, an audit failed, or a worker has other versions of packages.
      Exception: whatever else a worker raised.
    """
    todo = list(chunks)[::-1]
    lost: Counter[Rows] = Counter()
    running: dict[Any, Rows] = {}
    devices: set[str] = set()
    while todo or running:
        while todo and len(running) < crew.room:
            rows = todo.pop()
            running[crew.submit(rows)] = rows
        ticket = crew.wait(list(running))
        rows = first, stop = running.pop(ticket)
        try:
            done = crew.fetch(ticket)
        except WorkerLost as why:
            lost[rows] += 1
            if lost[rows] >= _TRIES:
                raise WorkFailed(
                    f"rows {first} to {stop - 1} lost their worker {_TRIES} times ({why})"
                ) from None
            work.bar.fault(f"the worker of rows {first} to {stop - 1} died; they are done again")
            todo.append(rows)
            continue
        except AuditFailed as failure:
            row = first + failure.instance
            one = scenarios(work.store.spec, work.catalog, row, row + 1)
            failure = AuditFailed(str(failure), 0, failure.evidence)
            raise work.store.keep_evidence(one, row, failure) from None
        path = work.store.write(first, done.table, done.proofs)
        _tell(work.bar, done.table)
        work.bar.part(path, first, stop - first)
        if not devices.issuperset(done.devices):
            devices.update(done.devices)
            work.store.note_devices(sorted(devices))
        note(rows)


def make_rows(
    spec: SweepSpec, first: int, answers: Answers, instances: Instances
) -> tuple[pa.Table, pa.Table | None]:
    """Return rows ``first``, ``first + 1``, ... and, where the spec keeps them, their certificates."""
    table = table_of(spec, np.arange(first, first + len(answers)), answers, instances)
    return table, proofs_of(first, answers, instances) if spec.certificates else None


def answer_chunk(orders: Orders, rows: Rows) -> Done:
    """In a worker: answer one chunk on the cores that are its own.

    Raises:
      WorkFailed: an audit failed, or this worker has other versions of the packages.
    """
    _take(orders)
    import jax

    from rodiu_jax.sweeps.ask import answer_rows

    for name, wanted in orders.versions.items():
        if (found := version(name)) != wanted:
            raise WorkFailed(f"a worker has {name} {found}, the sweep {wanted}: install the same everywhere")
    spec, (first, stop) = orders.spec, rows
    instances = scenarios(spec, orders.catalog, first, stop)
    parts = list(answer_rows(spec, instances, first, _pool()))
    table, proofs = make_rows(spec, first, Answers.concatenate(parts, names=instances.names), instances)
    return Done(table, proofs, tuple(sorted({d.device_kind for d in jax.devices()})))


def get_ready(orders: Orders, rows: Rows) -> None:
    """In a worker: compile what the method needs, while the rows of the opening are answered elsewhere."""
    _take(orders)
    if orders.method.prepare:
        load_function(orders.method.prepare)(scenarios(orders.spec, orders.catalog, *rows))


def _take(orders: Orders) -> None:
    """Make this process one that follows the orders; JAX may not be imported yet."""
    if orders.keep:
        keep_programs()
    METHODS[orders.method.name] = orders.method


@cache
def _pool() -> Any:
    """Return a worker's own processes for exact solving, kept from chunk to chunk; they end with it."""
    from solvers.pool import Pool

    return Pool()


def _tell(bar: Bar, table: pa.Table) -> None:
    counts = table.group_by(["status", "method"]).aggregate([("gap", "max"), ("sample", "count")])
    for row in counts.to_pylist():
        gap = float("nan") if row["gap_max"] is None else row["gap_max"]
        status, prover = Status.of(row["status"]), Prover.of(row["method"])
        bar.advance(status.word, gap, prover.closes(status), row["sample_count"])
