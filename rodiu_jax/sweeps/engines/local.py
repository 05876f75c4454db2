"""The engine of one machine: chunk after chunk in this process, parts as time passes; or chunks in several processes.

Where Python would hold a core between the batches of a method, chunks are answered side by side, by processes that
share the cores. Elsewhere one process keeps all cores busy, and HiGHS has processes of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

from rodiu_jax.catalog import Catalog
from rodiu_jax.errors import AuditFailed
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.runtime.spawned import Processes, name_cores
from rodiu_jax.sweeps.ask import answer_rows, prepare_method
from rodiu_jax.sweeps.engines.chunks import (
    FIRST_CHUNK,
    Done,
    Orders,
    Rows,
    WorkerLost,
    answer_chunk,
    answer_chunks,
    cut,
    get_ready,
    give_orders,
    make_rows,
)
from rodiu_jax.sweeps.method_choice import keep_pace
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.work import Run, Work

_CORES_EACH = 4
"""Cores that one process keeps busy with brackets."""

_PATIENCE = 2.0
"""Seconds that a worker has to end."""

_MOST_BYTES = 2**30
"""Bytes of a GPU's scenarios that are made at a time."""

FLUSH_SECONDS = 10.0
"""Rows wait at most this long before they are on disk, and a result longer."""


def use_this_machine(workers: int | None, address: str | None) -> AbstractContextManager[Run]:
    """Return what runs a sweep on this machine; see `rodiu_jax.sweeps.work.Engine`."""
    return nullcontext(partial(_run, workers))


def count_processes(method: str, workers: int | None) -> int:
    """Return how many processes answer chunks by ``method`` where so many workers are asked for."""
    return (workers or max(usable_cores() // _CORES_EACH, 1)) if METHODS[method].is_split() else 1


def _run(workers: int | None, work: Work) -> None:
    """Answer all gaps."""
    spec, began = work.store.spec, time.perf_counter()
    done, paces = 0, []

    def note(rows: Rows) -> None:
        nonlocal done
        done += rows[1] - rows[0]
        if rows[0] >= spec.opening:  # by the method itself
            paces.append((done, time.perf_counter() - began))

    import jax

    work.store.note_devices(sorted({d.device_kind for d in jax.devices()}))
    count = count_processes(spec.method, workers)
    chunks = cut(work, count)
    if min(count, len(chunks)) > 1:
        _run_beside(work, chunks, min(count, len(chunks)), note)
    else:
        _run_here(work, note)
    if paces:
        one = scenarios(spec, work.catalog, spec.rows - 1, spec.rows)
        keep_pace(spec.method, one, workers, spec.wanted_gap, first=paces[0], whole=paces[-1])


class _Workers:
    """Processes of this machine with a share of its cores each, as a `Crew`: one that dies loses its own chunk only."""

    def __init__(self, count: int, orders: Orders) -> None:
        self.room, self._orders = count, orders
        self._environment = name_cores(max(usable_cores() // count, 1)) | {"JAX_PLATFORMS": "cpu"}
        self._idle: list[Processes] = []
        self._busy: dict[Future[Done], Processes] = {}

    def begin(self, rows: Rows) -> None:
        """Let all start and compile what the method needs for such rows; chunks come after that."""
        for _ in range(self.room):
            self._idle.append(Processes(1, self._environment))
            self._idle[-1].submit(get_ready, self._orders, rows)

    def submit(self, rows: Rows) -> Future[Done]:
        if not self._idle:
            self._idle.append(Processes(1, self._environment))
        try:
            ticket = self._idle[-1].submit(answer_chunk, self._orders, rows)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._idle.pop().end()
            return self.submit(rows)
        self._busy[ticket] = self._idle.pop()
        return ticket

    def wait(self, tickets: Sequence[Future[Done]]) -> Future[Done]:
        return next(iter(wait(tickets, return_when=FIRST_COMPLETED).done))

    def fetch(self, ticket: Future[Done]) -> Done:
        processes = self._busy.pop(ticket)
        self._idle.append(processes)
        try:
            return ticket.result()
        except BrokenProcessPool:
            raise WorkerLost("its process was killed, or no memory was left") from None

    def close(self) -> None:
        for processes in (*self._idle, *self._busy.values()):
            processes.end(_PATIENCE)


def _run_beside(work: Work, chunks: Sequence[Rows], count: int, note: Callable[[Rows], None]) -> None:
    """Answer chunks in so many processes; those of the opening here, by HiGHS, while the others start."""
    opening = [rows for rows in chunks if rows[0] < work.store.spec.opening]
    with closing(_Workers(count, give_orders(work))) as crew:
        if opening:
            crew.begin(opening[0])
        for rows in opening:
            _run_chunk(work, *rows)
            note(rows)
        answer_chunks(crew, work, chunks[len(opening) :], note)


def _run_here(work: Work, note: Callable[[Rows], None]) -> None:
    """Answer all gaps in this process, one chunk at a time."""
    spec = work.store.spec
    chunks = work.chunks(chunk_of(spec.method, work.catalog), FIRST_CHUNK)
    preparing: AbstractContextManager[None] = nullcontext()
    if chunks and chunks[0][0] < spec.opening <= chunks[-1][0]:
        preparing = prepare_method(spec.method, scenarios(spec, work.catalog, *chunks[0]))
    with preparing:
        for rows in chunks:
            _run_chunk(work, *rows)
            note(rows)


def chunk_of(method: str, catalog: Catalog) -> int:
    """Return the number of scenarios made at a time for a method on all devices of this process.

    2048 of the default catalogue's scenarios take about 30 MB; a GPU gets 16 times as many, so that two blocks of
    brackets (`solvers.cascade`) are in flight, or as many as `_MOST_BYTES` hold.
    """
    from rodiu_jax.runtime.devices import by_device, devices

    usual = METHODS[method].chunk
    scenario = 8 * sum(math.prod(catalog.shape(name)) for name in catalog.varying)
    room = max(_MOST_BYTES // max(scenario, 1), usual)
    return by_device(cpu=usual, accelerator=min(16 * usual, room)) * len(devices())


def _run_chunk(work: Work, first: int, stop: int) -> None:
    """Answer rows ``first`` to ``stop - 1``; whatever ends the work, the rows finished so far are written."""
    instances = scenarios(work.store.spec, work.catalog, first, stop)
    from solvers.answers import Answers, report_progress

    answers = answer_rows(work.store.spec, instances, first, work.pool)
    waiting: list[Answers] = []
    written, due = first, time.monotonic() + FLUSH_SECONDS

    def write() -> None:
        nonlocal written, due
        if waiting:
            part = Answers.concatenate(waiting, names=instances.names)
            waiting.clear()
            done = len(part)
            of = instances.span(written - first, written - first + done)
            path = work.store.write(written, *make_rows(work.store.spec, written, part, of))
            work.bar.part(path, written, done)
            written += done
        due = time.monotonic() + FLUSH_SECONDS

    try:
        for part in answers:
            waiting.append(part)
            report_progress(work.bar, part)
            if time.monotonic() > due:
                write()
    except AuditFailed as failure:
        raise work.store.keep_evidence(instances, first + failure.instance, failure) from None
    finally:
        write()
        answers.close()
