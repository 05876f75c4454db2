"""The engine of a cluster: Ray runs chunks of rows as tasks (`rodiu_jax.sweeps.engines.chunks`).

A worker is a Ray process with a whole GPU, or a share of a node's cores, and keeps its compiled programs from chunk to
chunk.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.runtime.spawned import name_cores
from rodiu_jax.sweeps.engines.chunks import (
    Done,
    Orders,
    Rows,
    WorkerLost,
    answer_chunk,
    answer_chunks,
    cut,
    give_orders,
)
from rodiu_jax.sweeps.work import Run, Work


@dataclass(frozen=True)
class Share:
    """What one worker may use: cores, and GPUs (0 or 1)."""

    cores: int
    gpus: int


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
    """Answer all gaps."""
    with closing(_Tasks(ray, count, share, give_orders(work))) as crew:
        answer_chunks(crew, work, cut(work, count, gpus=share.gpus))


class _Tasks:
    """The workers of a cluster, as a `Crew`: a chunk is a task of Ray's."""

    def __init__(self, ray: Any, count: int, share: Share, orders: Orders) -> None:
        self.room = count + 1  # one chunk waits, so that no worker does
        self._ray, self._orders = ray, ray.put(orders)
        self._running: set[Any] = set()
        own = name_cores(share.cores)
        # Without max_calls a GPU's worker would start anew, and compile anew, for every chunk.
        self._task = ray.remote(max_calls=0)(answer_chunk).options(
            num_cpus=share.cores,
            num_gpus=share.gpus,
            max_retries=0,
            runtime_env={"env_vars": own if share.gpus else own | {"JAX_PLATFORMS": "cpu"}},
        )

    def submit(self, rows: Rows) -> Any:
        task = self._task.remote(self._orders, rows)
        self._running.add(task)
        return task

    def wait(self, tickets: Sequence[Any]) -> Any:
        return self._ray.wait(tickets, num_returns=1)[0][0]

    def fetch(self, ticket: Any) -> Done:
        self._running.remove(ticket)
        try:
            return self._ray.get(ticket)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, WorkFailed | InputError) else error from None
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(type(error).__name__) from None

    def close(self) -> None:
        for task in self._running:
            self._ray.cancel(task, force=True)


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
