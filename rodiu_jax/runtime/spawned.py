"""Processes of this machine that work for this one: spawned, ended with it, and told which cores are theirs.

Processes are spawned, not forked, because JAX runs threads in the parent. No NumPy here: what a process may use is said
before it imports anything that computes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pipe, get_context, util
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, TypeVar

R = TypeVar("R")


class Processes(ProcessPoolExecutor):
    """So many processes, each of which starts when there is work for it. They take calls of a module's functions.

    Args:
      environment: variables that they have besides those of this process.
    """

    def __init__(self, count: int, environment: Mapping[str, str] | None = None) -> None:
        # Nobody ever writes: the line ends with this process, or by `end`.
        self._heard, self._line = Pipe(duplex=False)
        super().__init__(
            count,
            mp_context=get_context("spawn"),
            initializer=_start_process,
            initargs=(dict(environment or {}), self._heard),
        )

    def submit(self, fn: Callable[..., R], /, *args: Any, **keys: Any) -> Future[R]:
        """Queue a call.

        Raises:
          BrokenProcessPool: one of the processes died.
        """
        with _hide_main():  # a process may start
            return super().submit(fn, *args, **keys)

    def end(self, seconds: float = 0.0) -> None:
        """End the processes now, whatever they are doing.

        Args:
          seconds: that they have to put away what they hold of the system, for those with processes of their own.
        """
        running = list((getattr(self, "_processes", None) or {}).values())
        self._line.close()
        self._heard.close()
        until = time.monotonic() + seconds
        for process in running:
            process.join(max(until - time.monotonic(), 0.0))
            process.kill()
        for process in running:
            process.join()
        # Not before: they would end by themselves too, in the middle of putting things away.
        self.shutdown(wait=False, cancel_futures=True)


def name_cores(cores: int) -> dict[str, str]:
    """Return the variables that keep a process to so many cores: XLA reads NPROC, NumPy's libraries the others."""
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(cores))


@contextmanager
def _hide_main() -> Iterator[None]:
    """Hide the caller's script from processes spawned now: they need nothing of it, and one without the usual
    ``if __name__ == "__main__"`` would start sweeps inside sweeps."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_process(environment: dict[str, str], line: Connection) -> None:
    """Ignore Ctrl-C, which reaches the whole process group: the parent ends its workers. If it dies, so do they."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, args=(line,), daemon=True).start()


def _follow_parent(line: Connection) -> None:
    """End this process with the line from its parent: it would wait for work for ever.

    Semaphores of its own processes are removed, which the system would keep, and Python complain of.
    """
    line.poll(None)
    util._run_finalizers(0)  # pyright: ignore[reportAttributeAccessIssue]
    os._exit(1)
