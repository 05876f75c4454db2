"""A pool of spawned processes solves many scenarios exactly, one thread each.

The workers never import JAX. A `Pool` can be handed on, so that a sweep starts its workers once and they work while the
caller does something else.

Pebble, whose pool says which task a dead worker had, was tried in place of `concurrent.futures` (5.2.3): the module was
29 lines shorter, but a worker killed while idle broke the whole pool, and a task whose worker died within moments of
taking it was sometimes never answered, so that a sweep would have waited for ever.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import CASCADE_GAP, OPTIMAL_GAP
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.runtime.spawned import Processes
from solvers.answers import Answer, Answers
from solvers.dual.coefficients import serving_field
from solvers.exact import solve_instance
from solvers.terms import is_large

T = TypeVar("T")
R = TypeVar("R")

_TRIES = 2
"""A scenario lost with its worker is tried once more, then it says ``error``."""

_TOGETHER = 4
"""Scenarios of a large catalogue that are bracketed together: as many as a block has on a CPU."""

_AHEAD = 4
"""Scenarios queued per worker: enough to keep it busy, few enough to bound memory."""


@dataclass(frozen=True)
class Task:
    """One scenario for a worker: ``one`` holds it alone; the others as `solvers.exact.solve_instance`."""

    one: Instances
    gap: float
    time_limit: float
    start: Answer | None = None


@dataclass(eq=False)
class Ticket:
    """A task that a `Pool` was given, to be exchanged for its answer."""

    task: Task
    future: Future[Answer]


class Pool:
    """Worker processes that start with the first task and stay until `close`; also a context manager.

    Args:
      workers: processes; the number of usable cores by default.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InputError("solve", "workers", "a whole number >= 1", workers)
        self.workers = workers or usable_cores()
        self._processes: Processes | None = None
        self._open: dict[Ticket, None] = {}  # in the order given

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Start the workers now, so that they have imported what they need when the first task comes."""
        if self._processes is None:
            for _ in range(self.workers):
                self._running().submit(_get_ready)

    def submit(self, task: Task) -> Ticket:
        """Queue a task and return at once."""
        ticket = Ticket(task, self._send(task))
        self._open[ticket] = None
        return ticket

    def done(self, ticket: Ticket) -> bool:
        """Return whether `result` will answer without waiting for a solver (or has a lost worker to replace)."""
        return ticket.future.done()

    def result(self, ticket: Ticket) -> Answer:
        """Wait for a task's answer, once per ticket.

        Nobody can say which scenario killed a worker: the one waited for is charged with it. It runs again alone, so
        that a neighbour's death is not charged to it; then what else was lost is queued again.
        """
        del self._open[ticket]
        lost: list[Ticket] = []
        result, message = None, ""
        for left in reversed(range(_TRIES)):
            try:
                result = ticket.future.result()
                break
            except MemoryError:
                message = "no memory was left for this scenario, twice"
                if left:
                    ticket.future = self._send(ticket.task)
            except BrokenProcessPool:
                message = "the solver's process died twice on this scenario"
                lost += [t for t in self._open if t not in lost and not _is_answered(t.future)]
                self._end()
                if left:
                    ticket.future = self._send(ticket.task)
        for other in lost:
            other.future = self._send(other.task)
        return result or Answer.of(ticket.task.one.names, Status.ERROR, message=message)

    def map(self, work: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
        """Apply ``work``, a module's function, to every task, in order.

        Raises:
          WorkFailed: a worker died.
        """
        try:
            return list(self._running().map(work, tasks))
        except BrokenProcessPool:
            self._end()
            raise WorkFailed("a solver's process died") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the workers now, whatever they are doing, and forget what is queued; a later task starts others."""
        self._open.clear()
        self._end()

    def _running(self) -> Processes:
        if self._processes is None:
            self._processes = Processes(self.workers)
        return self._processes

    def _send(self, task: Task) -> Future[Answer]:
        try:
            return self._running().submit(_solve_one, task)
        except (
            BrokenProcessPool
        ) as error:  # told to whoever waits for it, like those that broke with the pool
            broken: Future[Answer] = Future()
            broken.set_exception(error)
            return broken

    def _end(self) -> None:
        if self._processes is not None:
            self._processes.end()  # HiGHS does not look at signals
            self._processes = None


def solve(
    instances: Instances,
    indices: Sequence[int] | None = None,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    workers: int | Pool | None = None,
    starts: Sequence[Answer | None] | None = None,
    failures: str | Path | None = None,
) -> Answers:
    """Solve scenarios exactly; answers are in the order of ``indices`` and do not depend on ``workers``.

    Args:
      indices: scenarios to solve; all by default.
      gap: relative optimality gap to stop at.
      time_limit: seconds per scenario.
      workers: processes (the number of usable cores by default), or a `Pool`, which stays open.
      starts: what is known of each scenario (`solvers.exact.solve_instance`), one per index. By default nothing, but
        brackets of scenarios of a large catalogue, with which HiGHS alone would be busy for minutes each.
      failures: a folder for the scenarios that end in ``error``, each an .npz named after its number; none by
        default. A report of the failure needs nothing else.

    Raises:
      InputError: an index that does not exist, a gap outside [0, 1], a time limit or workers not positive, a folder
        that cannot be made.
    """
    options: dict[str, Any] = {"gap": gap, "time_limit": time_limit, "workers": workers}
    single = list(solve_iter(instances, indices, starts=starts, failures=failures, **options))
    return Answers.stack(single, names=instances.names)


def solve_iter(
    instances: Instances,
    indices: Sequence[int] | None = None,
    *,
    gap: float = OPTIMAL_GAP,
    time_limit: float = math.inf,
    workers: int | Pool | None = None,
    starts: Sequence[Answer | None] | None = None,
    failures: str | Path | None = None,
) -> Generator[Answer]:
    """As `solve`, yielding each answer as soon as it and those before it are there.

    Closing the iterator, or an exception such as Ctrl-C while it waits, ends the workers at once.
    """
    todo = list(range(instances.size)) if indices is None else [int(b) for b in indices]
    for b in todo:
        instances.check_index(b)
    if not 0 <= gap <= 1:
        raise InputError("solve", "gap", "a number from 0 to 1", gap)
    if not time_limit > 0:
        raise InputError("solve", "time_limit", "seconds > 0", time_limit)
    if starts is not None and len(starts) != len(todo):
        raise InputError("solve", "starts", f"{len(todo)} of them, one per index", len(starts))
    known = _usual_starts(instances, todo, gap) if starts is None else iter(starts)
    pool = workers if isinstance(workers, Pool) else Pool(workers)
    if pool is not workers:
        pool.workers = max(1, min(pool.workers, len(todo)))
    tasks = (Task(instances.take([b]), gap, time_limit, start) for b, start in zip(todo, known, strict=True))
    answers = run_tasks(pool, tasks, keep=pool is workers)
    if failures is None:
        return answers
    try:
        Path(failures).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(failures, "", f"a folder that can be made ({error.strerror})") from None
    return _save_failures(answers, instances, todo, Path(failures))


def _usual_starts(instances: Instances, todo: Sequence[int], gap: float) -> Iterator[Answer | None]:
    """Yield what is worth knowing of each scenario before HiGHS is asked: a bracket in large catalogues."""
    if not is_large(instances) or serving_field(instances.fields):
        yield from (None for _ in todo)
        return
    from solvers.bracket import brackets  # JAX, which nothing else here needs

    for first in range(0, len(todo), _TOGETHER):  # HiGHS works on some scenarios while the next are bracketed
        began = time.perf_counter()
        found = brackets(instances.take(todo[first : first + _TOGETHER]), gap=max(gap, CASCADE_GAP))
        each = (time.perf_counter() - began) / len(found)
        yield from (replace(found[b], seconds=each) for b in range(len(found)))


def _save_failures(
    answers: Generator[Answer], instances: Instances, todo: Sequence[int], folder: Path
) -> Generator[Answer]:
    """Yield the answers to the scenarios ``todo`` as they come; the scenario of each error is saved before."""
    with closing(answers):
        for b, answer in zip(todo, answers, strict=True):
            if answer.status is Status.ERROR:
                instances.take([b]).save(folder / f"instance-{b}.npz")
            yield answer


def run_tasks(pool: Pool, tasks: Iterator[Task], *, keep: bool) -> Generator[Answer]:
    """Yield the answers to tasks in their order, a few of which are queued at a time.

    Args:
      keep: whether the pool stays open, unless the work ends early.
    """
    tickets: deque[Ticket] = deque()
    try:
        for task in tasks:
            tickets.append(pool.submit(task))
            if len(tickets) >= _AHEAD * pool.workers:
                yield _answer(pool, tickets.popleft())
        while tickets:
            yield _answer(pool, tickets.popleft())
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            pool.close()


def _answer(pool: Pool, ticket: Ticket) -> Answer:
    """Return a task's answer, with the seconds that its start took."""
    answer, start = pool.result(ticket), ticket.task.start
    before = 0.0 if start is None or math.isnan(start.seconds) else start.seconds
    return replace(answer, seconds=answer.seconds + before)


def _is_answered(future: Future[Answer]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _solve_one(task: Task) -> Answer:
    """Solve a task, in a worker."""
    try:
        return solve_instance(task.one, 0, gap=task.gap, time_limit=task.time_limit, start=task.start)
    except MemoryError:
        raise  # tried again, when its neighbours may have given theirs back
    except Exception as error:  # whatever it is, the other scenarios go on
        return Answer.of(task.one.names, Status.ERROR, message=f"{type(error).__name__}: {error}")


def _get_ready() -> None:
    """Do nothing, in a worker: it has imported this module."""
