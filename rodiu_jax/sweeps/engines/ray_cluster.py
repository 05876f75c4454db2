"""The engine of a cluster: Ray runs chunks of rows as tasks; this process writes the parts and keeps the progress.

A task answers its chunk from nothing but the spec and the catalogue, and hands back rows; only what comes back is
written, so a worker that dies loses a chunk, which is given to another, and no worker needs the sweep's folder. A
worker is a Ray process with a whole GPU, or a share of a node's cores, and keeps its compiled programs from chunk to
chunk.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from rodiu_jax.catalog import Catalog
from rodiu_jax.errors import AuditFailed, InputError, WorkFailed
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.runtime.compile_cache import keep_programs, kept_folder
from rodiu_jax.runtime.progress import Bar
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.rows import proofs_of, table_of
from rodiu_jax.sweeps.scenarios import scenarios
from rodiu_jax.sweeps.spec import SweepSpec
from rodiu_jax.sweeps.work import Run, Work

_TASKS = 8
"""Tasks grow towards a method's largest while each worker still has so many of them: batches are fuller."""

_FULLER = 32
"""Times as many rows a GPU's largest task has as a CPU's: two blocks of brackets (`solvers.cascade`)."""

_OPENING = 64
_TRIES = 4
"""A chunk whose worker died is given to another so often."""

_VERSIONS = ("rodiu-jax", "jax", "numpy", "highspy")


@dataclass(frozen=True)
class Share:
    """What one worker may use: cores, and GPUs (0 or 1)."""

    cores: int
    gpus: int


@dataclass(frozen=True)
class Done:
    """A chunk's rows and certificates, and what answered them."""

    table: pa.Table
    proofs: pa.Table | None
    devices: tuple[str, ...]


@contextmanager
def connect_to_cluster(workers: int | None, address: str | None) -> Iterator[Run]:
    """Yield what runs a sweep on a Ray cluster; see `rodiu_jax.sweeps.work.Engine`.

    Args:
      workers: in all; by default one for each GPU of the cluster, or each node where it has none.
      address: of a cluster that runs, as `ray.init` takes it; without it one is started on this machine.

    Raises:
      InputError: Ray is not installed, no cluster at the address, or too few cores for the workers.
    """
    with _connected(address, workers) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count, share = shares([(int(n.get("CPU", 0)), int(n.get("GPU", 0))) for n in nodes], workers)
        yield partial(_run, ray, count, share)


def shares(nodes: Sequence[tuple[int, int]], workers: int | None) -> tuple[int, Share]:
    """How many workers there are and what each may use, given the (cores, GPUs) of each node.

    With GPUs, a worker has one and the cores of its node are divided among them; without, the largest share of cores
    that gives room to all workers.

    Raises:
      InputError: more workers than GPUs, or than cores.
    """
    gpus = sum(g for _, g in nodes)
    count = workers or gpus or sum(cores > 0 for cores, _ in nodes)
    room = gpus or sum(cores for cores, _ in nodes)
    if not 1 <= count <= room:
        raise InputError(
            "sweep", "workers", f"at most {room}, the {'GPUs' if gpus else 'cores'} of the cluster", count
        )
    if gpus:
        return count, Share(min(max(cores // g, 1) for cores, g in nodes if g), 1)
    cores = max(c for c, _ in nodes)
    while sum(c // cores for c, _ in nodes) < count:
        cores -= 1
    return count, Share(cores, 0)


def _run(ray: Any, count: int, share: Share, work: Work) -> None:
    """Answer all gaps.

    Raises:
      WorkFailed: a chunk lost its worker several times, or a worker has other versions of the packages.
    """
    # Without max_calls a GPU's worker would start anew, and compile anew, for every chunk.
    task = ray.remote(max_calls=0)(_answer).options(
        num_cpus=share.cores,
        num_gpus=share.gpus,
        max_retries=0,
        runtime_env={"env_vars": _environment(share)},
    )
    left = sum(end - start for start, end in work.gaps)
    todo = work.chunks(rows_of_task(work.store.spec.method, left, count, gpus=share.gpus), _OPENING)[::-1]
    keep = kept_folder() is not None  # here it is so; a worker has a folder of its own
    shared = ray.put((work.store.spec, work.catalog, {n: version(n) for n in _VERSIONS}, keep))
    tries: dict[tuple[int, int], int] = {}
    running: dict[Any, tuple[int, int]] = {}
    devices: set[str] = set()
    try:
        while todo or running:
            while todo and len(running) < count + 1:  # one more waits, so that no worker does
                running[task.remote(shared, todo[-1], share.cores)] = todo[-1]
                todo.pop()
            ready, _ = ray.wait(list(running), num_returns=1)
            first, stop = running.pop(ready[0])
            try:
                done: Done = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                raise _meant(error, work, first) from None
            except ray.exceptions.RayError as error:
                tries[first, stop] = tries.get((first, stop), 0) + 1
                if tries[first, stop] >= _TRIES:
                    raise WorkFailed(
                        f"rows {first} to {stop - 1} lost their worker {_TRIES} times ({type(error).__name__})"
                    ) from None
                work.bar.fault(f"the worker of rows {first} to {stop - 1} died; they are done again")
                todo.append((first, stop))
                continue
            path = work.store.write(first, done.table, done.proofs)
            _tell(work.bar, done.table)
            work.bar.part(path, first, stop - first)
            if not devices.issuperset(done.devices):
                devices.update(done.devices)
                work.store.note_devices(sorted(devices))
    finally:
        for left in running:
            ray.cancel(left, force=True)


def rows_of_task(method: str, left: int, count: int, *, gpus: int = 0) -> int:
    """Return the rows of a task by ``method``, where ``left`` are to be answered by ``count`` workers.

    Args:
      gpus: of a worker. Where batches gain by being fuller, a GPU's gain up to `_FULLER` times as many rows.
    """
    fewest, most = METHODS[method].task_rows
    if gpus and most > fewest:
        most *= _FULLER
    return min(max(left // (_TASKS * count), fewest), most)


def _answer(
    shared: tuple[SweepSpec, Catalog, dict[str, str], bool], rows: tuple[int, int], cores: int
) -> Done:
    """In a worker: answer one chunk."""
    spec, catalog, wanted, keep = shared
    if keep:
        keep_programs()
    import jax

    from rodiu_jax.sweeps.ask import answer_rows
    from solvers.answers import Answers

    found = {name: version(name) for name in wanted}
    if other := [name for name in wanted if found[name] != wanted[name]]:
        name = other[0]
        raise WorkFailed(
            f"a worker has {name} {found[name]}, the sweep {wanted[name]}: install the same everywhere"
        )
    first, stop = rows
    instances = scenarios(spec, catalog, first, stop)
    parts = list(answer_rows(spec, instances, first, _pool(cores)))
    answers = Answers.concatenate(parts, names=instances.names)
    table = table_of(spec, np.arange(first, stop), answers, instances)
    proofs = proofs_of(first, answers, instances) if spec.certificates else None
    return Done(table, proofs, tuple(sorted({d.device_kind for d in jax.devices()})))


_pools: dict[int, Any] = {}


def _pool(cores: int) -> Any:
    """A worker's own processes for exact solving, kept from chunk to chunk; they end with it."""
    from solvers.pool import Pool

    return _pools.setdefault(cores, Pool(cores))


def _tell(bar: Bar, table: pa.Table) -> None:
    counts = table.group_by(["status", "method"]).aggregate([("gap", "max"), ("sample", "count")])
    for row in counts.to_pylist():
        gap = float("nan") if row["gap_max"] is None else row["gap_max"]
        status, prover = Status.of(row["status"]), Prover.of(row["method"])
        bar.advance(status.word, gap, prover.closes(status), row["sample_count"])


def _meant(error: Any, work: Work, first: int) -> BaseException:
    """What a task raised, as this process would have raised it."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, AuditFailed):
        row = first + cause.instance
        one = scenarios(work.store.spec, work.catalog, row, row + 1)
        return work.store.keep_evidence(one, row, AuditFailed(str(cause), 0, cause.evidence))
    return cause if isinstance(cause, WorkFailed | InputError) else error


def _environment(share: Share) -> dict[str, str]:
    """A worker computes on its share of the cores alone: XLA reads NPROC, NumPy's libraries the others."""
    cores = str(share.cores)
    own = {"NPROC": cores, "OMP_NUM_THREADS": cores, "OPENBLAS_NUM_THREADS": cores, "MKL_NUM_THREADS": cores}
    return own if share.gpus else own | {"JAX_PLATFORMS": "cpu"}


def _check_answers(address: str | None) -> None:
    """Somebody listens at an address HOST:PORT: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?P<host>[^:/]+):(?P<port>\d{1,5})", address or "")
    if found is None:
        return
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError("sweep", "address", f"a running Ray cluster ({error})", address) from None


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    try:
        # No news of this sweep to anyone; and a worker without GPUs keeps the devices that it would see by itself.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
    except ImportError:
        raise InputError(
            "sweep", "engine", "Ray beside it: pip install 'rodiu-jax[cluster]'", "ray"
        ) from None
    _check_answers(address)
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else workers,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            "sweep", "address", f"a running Ray cluster ({str(error).splitlines()[0]})", address
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()
