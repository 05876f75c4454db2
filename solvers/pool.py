"""Exact solution of many scenarios by a pool of spawned processes, one thread each.

Processes are spawned, not forked, because JAX runs threads in the parent; the workers never import JAX.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from rodiu_jax.errors import InputError
from rodiu_jax.instance import Instances
from rodiu_jax.plan import Plan
from solvers.highs import solve_instance
from solvers.result import OPTIMAL_GAP, Result

_TRIES = 2
"""A scenario lost with its worker is tried once more, then it says ``error``."""

_AHEAD = 4
"""Scenarios queued per worker: enough to keep it busy, few enough to bound memory."""


def solve(
    instances: Instances,
    indices: Sequence[int] | None = None,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    workers: int | None = None,
    starts: Sequence[Plan | None] | None = None,
) -> list[Result]:
    """Solve scenarios exactly; results are in the order of ``indices`` and do not depend on ``workers``.

    Workers are spawned processes: a script that calls this needs the usual ``if __name__ == "__main__"``.

    Args:
      indices: scenarios to solve; all by default.
      gap: relative optimality gap to stop at.
      time_limit: seconds per scenario.
      workers: processes; the number of usable cores by default.
      starts: per index a plan to start from, or None.

    Raises:
      InputError: an index that does not exist, a gap outside [0, 1], a time limit or workers not positive.
    """
    results = solve_iter(instances, indices, gap=gap, time_limit=time_limit, workers=workers, starts=starts)
    return list(results)


def solve_iter(
    instances: Instances,
    indices: Sequence[int] | None = None,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    workers: int | None = None,
    starts: Sequence[Plan | None] | None = None,
) -> Iterator[Result]:
    """As `solve`, yielding each result as soon as it and those before it are there.

    Closing the iterator, or an exception such as Ctrl-C while it waits, ends the workers at once.
    """
    todo = list(range(instances.size)) if indices is None else [int(b) for b in indices]
    for b in todo:
        instances.check_index(b)
    if not 0 <= gap <= 1:
        raise InputError("solve", "gap", "a number from 0 to 1", gap)
    if not time_limit > 0:
        raise InputError("solve", "time_limit", "seconds > 0", time_limit)
    if workers is not None and workers < 1:
        raise InputError("solve", "workers", "a whole number >= 1", workers)
    plans: list[Plan | None] = [None] * len(todo) if starts is None else list(starts)
    if len(plans) != len(todo):
        raise InputError("solve", "starts", f"{len(todo)} plans or None, one per index", len(plans))
    return _solved(instances, todo, plans, gap, time_limit, workers)


def _solved(
    instances: Instances,
    todo: list[int],
    starts: list[Plan | None],
    gap: float,
    time_limit: float,
    workers: int | None,
) -> Iterator[Result]:
    if not todo:
        return
    count = min(workers or usable_cores(), len(todo))
    waiting: dict[int, Future[Result]] = {}
    pool = _start(count)
    try:
        for position, b in enumerate(todo):
            result = None
            for attempt in range(_TRIES):
                # The second try runs alone, so that a neighbour's death is not charged to it.
                ahead = 1 if attempt else _AHEAD * count
                try:
                    for p in range(position, min(len(todo), position + ahead)):
                        if p not in waiting:
                            one = instances.take([todo[p]])
                            waiting[p] = pool.submit(_solve_one, one, todo[p], gap, time_limit, starts[p])
                    result = waiting.pop(position).result()
                    break
                except BrokenProcessPool:
                    # Nobody can say which scenario killed the worker: the one waited for is charged with it,
                    # and the finished ones are kept.
                    _end(pool)
                    waiting = {p: f for p, f in waiting.items() if f.done() and f.exception() is None}
                    pool = _start(count)
            yield result or Result(b, "error", message="the solver's process died twice on this scenario")
    finally:
        _end(pool)


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _solve_one(one: Instances, b: int, gap: float, time_limit: float, start: Plan | None) -> Result:
    """In a worker: ``one`` holds scenario ``b`` alone."""
    try:
        result = solve_instance(one, 0, gap=gap, time_limit=time_limit, start=start)
    except Exception as error:  # whatever it is, the other scenarios go on
        result = Result(0, "error", message=f"{type(error).__name__}: {error}")
    plan = result.plan and type(result.plan)(**{**vars(result.plan), "instance": b})
    return Result(**{**vars(result), "instance": b, "plan": plan})


def _start(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """Ctrl-C reaches the whole process group: the parent decides and ends the workers. If it dies, so do they."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end(pool: ProcessPoolExecutor) -> None:
    """End the workers now, whatever they are doing (HiGHS does not look at signals)."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
