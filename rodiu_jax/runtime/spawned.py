"""Processes of this machine that work for this one: spawned, ended with it, and told which cores are theirs.

Processes are spawned, not forked, because JAX runs threads in the parent. No NumPy here: what a process may use is said
before it imports anything that computes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from types import ModuleType
from typing import Any, TypeVar

R = TypeVar("R")


def make_processes(count: int, environment: Mapping[str, str] | None = None) -> ProcessPoolExecutor:
    """Return ``count`` processes, each of which starts when work is given to it (`give_work`).

    Args:
      environment: variables that they have besides those of this process.
    """
    return ProcessPoolExecutor(
        count,
        mp_context=get_context("spawn"),
        initializer=_start_process,
        initargs=(dict(environment or {}),),
    )


def give_work(processes: ProcessPoolExecutor, work: Callable[..., R], *arguments: Any) -> Future[R]:
    """Queue a call of a module's function.

    Raises:
      BrokenProcessPool: one of the processes died.
    """
    with hide_main():  # a submission may start a process
        return processes.submit(work, *arguments)


@contextmanager
def hide_main() -> Iterator[None]:
    """Hide the caller's script from processes spawned now: they need nothing of it, and one without the usual
    ``if __name__ == "__main__"`` would start sweeps inside sweeps."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_processes(processes: ProcessPoolExecutor) -> None:
    """End the processes now, whatever they are doing (HiGHS does not look at signals)."""
    running = list((getattr(processes, "_processes", None) or {}).values())
    processes.shutdown(wait=False, cancel_futures=True)
    for process in running:
        process.kill()
    for process in running:
        process.join()


def name_cores(cores: int) -> dict[str, str]:
    """Return the variables that keep a process to so many cores: XLA reads NPROC, NumPy's libraries the others."""
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(cores))


def _start_process(environment: dict[str, str]) -> None:
    """Ignore Ctrl-C, which reaches the whole process group: the parent ends its workers. If it dies, so do they."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End this process with its parent: it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
