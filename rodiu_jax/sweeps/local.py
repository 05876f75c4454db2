"""The engine of one machine: chunk after chunk in this process, exact solvers in others, parts as time passes."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.errors import AuditFailed, WorkFailed
from rodiu_jax.sweeps.engines import Work
from rodiu_jax.sweeps.methods import CHUNKS, METHODS
from rodiu_jax.sweeps.progress import Bar
from rodiu_jax.sweeps.rows import Block, proofs_of, table_of
from rodiu_jax.sweeps.run import keep_evidence, scenarios

if TYPE_CHECKING:
    from rodiu_jax.instance import Instances
    from rodiu_jax.sweeps.spec import SweepSpec
    from solvers.pool import Pool
    from solvers.result import Result

CHUNK = 2048
"""Scenarios made at a time for each CPU, about 30 MB of the default catalogue's; eight times as many for a GPU."""

OPENING = 64
"""Scenarios in the first chunk, which also compiles."""

FLUSH_SECONDS = 10.0
"""Rows wait at most this long before they are on disk, and a result longer."""


def run(work: Work) -> None:
    """Answer all gaps, one chunk at a time; see `rodiu_jax.sweeps.engines.Engine`."""
    import jax

    work.store.note_devices(sorted({d.device_kind for d in jax.devices()}))
    for first, stop in work.chunks(chunk_of(work.store.spec.method), OPENING):
        _run_chunk(work, first, stop)


def chunk_of(method: str) -> int:
    """Scenarios made at a time for a method on all devices of this process."""
    from rodiu_jax.devices import by_device, devices

    return CHUNKS.get(method, CHUNK) * by_device(cpu=1, accelerator=8) * len(devices())


def _run_chunk(work: Work, first: int, stop: int) -> None:
    """Answer rows ``first`` to ``stop - 1``; whatever ends the work, the rows finished so far are written."""
    instances = scenarios(work.store.spec, work.catalog, first, stop)
    answers = answered(work.store.spec, instances, first, work.pool)
    waiting: list[Result | Block] = []
    written, due = first, time.monotonic() + FLUSH_SECONDS

    def write() -> None:
        nonlocal written, due
        if waiting:
            spec = work.store.spec
            done = sum(size_of(a) for a in waiting)
            table = table_of(spec, np.arange(written, written + done), waiting, instances)
            proofs = proofs_of(written, waiting, instances) if spec.certificates else None
            waiting.clear()
            path = work.store.write(written, table, proofs)
            work.bar.part(path, written, done)
            written += done
        due = time.monotonic() + FLUSH_SECONDS

    try:
        for answer in answers:
            waiting.append(answer)
            tell(work.bar, answer)
            if time.monotonic() > due:
                write()
    except AuditFailed as failure:
        raise keep_evidence(work.store, instances, first + failure.instance, failure) from None
    finally:
        write()
        answers.close()


def answered(spec: SweepSpec, instances: Instances, first: int, pool: Pool) -> Generator[Result | Block]:
    """What the spec's method answers to the scenarios of rows ``first``, ``first + 1``, ..., each in its place.

    Raises:
      WorkFailed: the method left a scenario out, or an audit failed.
    """
    answers = asked(spec, instances, pool, spec.audited(first, first + instances.size))
    try:
        b = 0
        for answer in answers:
            if answer.instance != b:
                raise WorkFailed(f"method {spec.method}: answered scenario {answer.instance} in place of {b}")
            b += size_of(answer)
            yield answer
        if b != instances.size:
            raise WorkFailed(f"method {spec.method} answered {b} of {instances.size} scenarios")
    finally:
        if isinstance(answers, Generator):
            answers.close()


def asked(spec: SweepSpec, instances: Instances, pool: Pool, audited: np.ndarray) -> Iterator[Result | Block]:
    """Give scenarios to the spec's method; ``audited`` as `rodiu_jax.sweeps.methods.Method` has it."""
    return METHODS[spec.method](
        instances,
        gap=spec.wanted_gap,
        time_limit=math.inf if spec.time_limit is None else spec.time_limit,
        workers=pool,
        audited=audited,
        exact="none" if spec.exact == "top" else spec.exact or "gap",
        certificates=spec.certificates,
        plans=spec.plan_texts,
    )


def size_of(answer: Result | Block) -> int:
    """Scenarios answered."""
    return answer.size if isinstance(answer, Block) else 1


def tell(bar: Bar, answer: Result | Block) -> None:
    """Count an answer."""
    if not isinstance(answer, Block):
        bar.advance(answer.status, answer.gap, answer.method)
        return
    for status, count in zip(*np.unique(answer.columns["status"], return_counts=True), strict=True):
        bar.advance(str(status), math.nan, str(answer.columns["method"]), int(count))
