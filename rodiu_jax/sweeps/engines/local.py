"""The engine of one machine: chunk after chunk in this process, exact solvers in others, parts as time passes."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Thread

import numpy as np

from rodiu_jax.catalog import Catalog
from rodiu_jax.errors import AuditFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.runtime.lazy_call import load_function
from rodiu_jax.sweeps.ask import answer_rows
from rodiu_jax.sweeps.method_choice import keep_pace
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.rows import proofs_of, table_of
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.work import Run, Work

OPENING = 64
"""Scenarios in the first chunk, which also compiles."""

_MOST_BYTES = 2**30
"""Bytes of a GPU's scenarios that are made at a time."""

FLUSH_SECONDS = 10.0
"""Rows wait at most this long before they are on disk, and a result longer."""


def use_this_machine(workers: int | None, address: str | None) -> AbstractContextManager[Run]:
    """Return what runs a sweep in this process; see `rodiu_jax.sweeps.work.Engine`."""
    return nullcontext(_run)


def _run(work: Work) -> None:
    """Answer all gaps, one chunk at a time."""
    import jax

    work.store.note_devices(sorted({d.device_kind for d in jax.devices()}))
    spec, began = work.store.spec, time.perf_counter()
    chunks = work.chunks(chunk_of(spec.method, work.catalog), OPENING)
    if chunks and chunks[0][0] < spec.opening <= chunks[-1][0]:
        _prepare(spec.method, scenarios(spec, work.catalog, *chunks[0]))
    instances, done, paces = None, 0, []
    for first, stop in chunks:
        instances = _run_chunk(work, first, stop)
        done += stop - first
        if first >= spec.opening:  # by the method itself
            paces.append((done, time.perf_counter() - began))
    if instances is not None and paces:
        keep_pace(spec.method, instances, work.pool.workers, spec.wanted_gap, first=paces[0], whole=paces[-1])


def _prepare(method: str, instances: Instances) -> None:
    """Compile what the method needs in a thread, while HiGHS, in other processes, answers the opening."""
    place = METHODS[method].prepare
    if not place:
        return

    def compile_ahead() -> None:
        with suppress(Exception):  # whoever needs the programs meets the same error, and says it
            load_function(place)(instances)

    Thread(target=compile_ahead, daemon=True).start()


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


def _run_chunk(work: Work, first: int, stop: int) -> Instances:
    """Answer rows ``first`` to ``stop - 1``; whatever ends the work, the rows finished so far are written.

    Returns:
      the scenarios of these rows.
    """
    instances = scenarios(work.store.spec, work.catalog, first, stop)
    from solvers.answers import Answers, report_progress

    answers = answer_rows(work.store.spec, instances, first, work.pool)
    waiting: list[Answers] = []
    written, due = first, time.monotonic() + FLUSH_SECONDS

    def write() -> None:
        nonlocal written, due
        if waiting:
            spec = work.store.spec
            part = Answers.concatenate(waiting, names=instances.names)
            waiting.clear()
            done = len(part)
            of = instances.span(written - first, written - first + done)
            table = table_of(spec, np.arange(written, written + done), part, of)
            proofs = proofs_of(written, part, of) if spec.certificates else None
            path = work.store.write(written, table, proofs)
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
    return instances
