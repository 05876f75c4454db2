"""Brackets first, exact where it pays: every scenario gets the cheapest proof that is good enough.

All scenarios are bracketed on the device (`solvers.bracket`). HiGHS then solves those that the policy chooses, starting
from the bracket's plan, and the *audited* ones, which it solves from nothing and to optimality: an optimum outside its
bracket means that one of the two proofs is wrong, and stops the work. HiGHS runs in other processes, on the wide
brackets of one block while the device is at the next.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from rodiu_jax.errors import AuditFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Prover, Status
from rodiu_jax.model.tolerances import CASCADE_GAP, CROSSED_BY_HIGHS, OPTIMAL_GAP
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.runtime.devices import by_device, devices
from rodiu_jax.runtime.overlap import map_ahead
from solvers.answers import Answer, Answers, relative_gap
from solvers.bracket import brackets
from solvers.dual.coefficients import serving_field
from solvers.effort import Effort
from solvers.pool import Pool, Task, Ticket, run_tasks
from solvers.terms import is_large

Policy = Literal["gap", "all", "none"]
"""Which scenarios HiGHS solves in addition to audited ones: ``gap``, those whose bracket is wider than the gap, to that
gap; ``all``, every one, to optimality; ``none``."""


_BLOCK = 512
"""Scenarios bracketed for each CPU before the first is yielded: enough to fill its blocks deep in the trees."""

_WAITING = 256
"""Scenarios that may wait for HiGHS where nothing else is done meanwhile."""

_BLOCKS_AHEAD = 3
"""Blocks that may wait for HiGHS while the device goes on: enough to keep it busy, few enough to bound memory."""


def _block() -> int:
    """Scenarios bracketed at a time, on all devices."""
    return by_device(cpu=_BLOCK, accelerator=16_384) * len(devices())


def bracketed(
    instances: Instances,
    *,
    gap: float = CASCADE_GAP,
    effort: Effort | None = None,
    certificates: bool = False,
) -> Iterator[Answers]:
    """Yield the brackets of all scenarios, block by block; ``certificates`` keeps what proves them."""
    for _, _, found in _blocks(instances, gap, effort, certificates):
        yield found


@dataclass
class _Block:
    """Consecutive scenarios of which some wait for HiGHS.

    Attributes:
      first: the number of the block's first scenario, in what was asked about.
      answers: their brackets.
      waiting: positions in the block and what HiGHS was asked about each, increasing.
      begun: scenarios of the block that were handed on.
    """

    first: int
    answers: Answers
    waiting: deque[tuple[int, Ticket]]
    begun: int = 0

    @property
    def left(self) -> int:
        """Scenarios that were not handed on."""
        return len(self.answers) - self.begun

    def next(self, pool: Pool, gap: float, *, wait: bool) -> Answers | None:
        """Hand on the next answers that are complete; None where HiGHS is busy with the next scenario.

        Args:
          wait: for HiGHS, in place of None.

        Raises:
          AuditFailed: an exact answer contradicts its bracket.
        """
        begun = self.begun
        if not self.waiting or self.waiting[0][0] > begun:
            self.begun = self.waiting[0][0] if self.waiting else len(self.answers)
            return self.answers.take(slice(begun, self.begun))
        if not wait and not pool.done(self.waiting[0][1]):
            return None
        _, ticket = self.waiting.popleft()
        self.begun += 1
        exact = Answers.stack([pool.result(ticket)], names=self.answers.names)
        return joined(self.answers.take([begun]), exact, gap, first=self.first + begun)


def cascade(
    instances: Instances,
    *,
    gap: float = CASCADE_GAP,
    exact: Policy = "gap",
    audited: np.ndarray | None = None,
    time_limit: float = math.inf,
    workers: int | Pool | None = None,
    effort: Effort | None = None,
    certificates: bool = False,
) -> Iterator[Answers]:
    """Bracket every scenario to ``gap``, solve exactly those that ``exact`` chooses, audit some.

    Args:
      gap: relative gap to prove.
      exact: who is solved exactly; ``none`` and nobody audited starts no process. Where scenarios have replicas,
        rates, quotas or speed-ups per pair all are, and to ``gap``: HiGHS closes those sooner than a bracket on a CPU.
      audited: bool (B,), the scenarios to audit; none by default.
      time_limit, workers: for HiGHS, as `solvers.pool.solve`.
      effort: of the brackets. By default a CPU branches only where a certificate is asked for or the gap is at least
        `CASCADE_GAP`: HiGHS closes smaller ones sooner, and those whose capacity is scarce. Without it, or where the
        catalogue is large, all effort.
      certificates: answers hold the leaves that prove `Answers.certified`.

    Yields:
      answers to consecutive scenarios, from the first to the last, each as soon as it and those before it are there.

    Raises:
      AuditFailed: an exact answer contradicts its bracket.
    """
    if effort is None and exact != "none" and not is_large(instances):
        branch = certificates or gap >= CASCADE_GAP
        effort = Effort() if branch else by_device(cpu=Effort(tree_rounds=0), accelerator=Effort())
    audit = np.zeros(instances.size, bool) if audited is None else np.asarray(audited, bool)
    if exact != "none" and not certificates and serving_field(instances.fields):
        yield from _solve_each(instances, gap, audit, time_limit, workers)
        return
    queue: deque[_Block] = deque()
    with _borrow(workers) as pool:
        for first, block, found in _blocks(instances, gap, effort, certificates):
            asked = audit[first : first + len(found)]
            queue.append(_ask(pool, first, block, found, asked, gap, time_limit, exact))
            while queue:
                full = sum(b.left for b in queue) > _BLOCKS_AHEAD * _block()
                if (part := queue[0].next(pool, gap, wait=full)) is None:
                    break
                yield part
                if not queue[0].left:
                    queue.popleft()
        for waiting in queue:
            yield from _rest(waiting, pool, gap)


def _solve_each(
    instances: Instances,
    gap: float,
    audited: Bool[np.ndarray, " B"],
    time_limit: float,
    workers: int | Pool | None,
) -> Iterator[Answers]:
    """Solve scenarios by HiGHS alone: those of fleets, which it closes sooner than a bracket on a CPU."""
    pool = workers if isinstance(workers, Pool) else Pool(workers)
    targets = np.where(audited, min(gap, OPTIMAL_GAP), gap).tolist()
    tasks = (Task(instances.take([b]), target, time_limit) for b, target in enumerate(targets))
    with closing(run_tasks(pool, tasks, keep=pool is workers)) as answers:
        for answer in answers:
            yield Answers.stack([answer], names=instances.names)


def _rest(block: _Block, pool: Pool, gap: float) -> Iterator[Answers]:
    """Yield what was not handed on of a block."""
    while block.left and (part := block.next(pool, gap, wait=True)) is not None:
        yield part


def exactly(
    groups: Iterable[tuple[Instances, Answers]],
    *,
    gap: float = CASCADE_GAP,
    time_limit: float = math.inf,
    workers: int | Pool | None = None,
) -> Iterator[Answers]:
    """Solve bracketed scenarios to optimality, from their brackets' plans; yield the answers to each group.

    Args:
      groups: scenarios with their brackets; fetched as the workers get through them.
      gap, time_limit, workers: as `cascade`.

    Raises:
      AuditFailed: an exact answer contradicts its bracket.
    """
    queue: deque[_Block] = deque()
    with _borrow(workers) as pool:
        for instances, found in groups:
            nobody = np.zeros(len(found), bool)
            known = replace(found, promising=None)  # it is not kept in files: this may be a sweep resumed
            queue.append(_ask(pool, 0, instances, known, nobody, gap, time_limit, "all"))
            while sum(b.left for b in queue) > _WAITING:
                yield _rest_at_once(queue.popleft(), pool, gap)
        while queue:
            yield _rest_at_once(queue.popleft(), pool, gap)


def _rest_at_once(block: _Block, pool: Pool, gap: float) -> Answers:
    """Return what was not handed on of a block."""
    return Answers.concatenate(list(_rest(block, pool, gap)), names=block.answers.names)


@contextmanager
def _borrow(workers: int | Pool | None) -> Iterator[Pool]:
    """Give a pool: the caller's, which stays open unless the work ends early, or one that is closed in the end."""
    pool = workers if isinstance(workers, Pool) else Pool(workers)
    keep = pool is workers
    try:
        yield pool
    except BaseException:  # what was asked of HiGHS will never be fetched
        keep = False
        raise
    finally:
        if not keep:
            pool.close()


def _ask(
    pool: Pool,
    first: int,
    instances: Instances,
    found: Answers,
    audited: Bool[np.ndarray, " B"],
    gap: float,
    time_limit: float,
    exact: Policy,
) -> _Block:
    """Ask HiGHS about the scenarios of a block that the policy chooses; an audit starts from nothing."""
    closed = found.is_any(Status.OPTIMAL, Status.GAP_LIMIT)
    chosen = ~found.is_any(Status.INFEASIBLE)
    if exact != "all":
        chosen &= (exact == "gap") & ~closed
    waiting: deque[tuple[int, Ticket]] = deque()
    for b in np.flatnonzero(chosen | audited).tolist():
        target = gap if exact == "gap" and not audited[b] else min(gap, OPTIMAL_GAP)
        start = None if audited[b] else _start(found[b])
        waiting.append((b, pool.submit(Task(instances.take([b]), target, time_limit, start))))
    return _Block(first, found, waiting)


def _start(bracket: Answer) -> Answer:
    """Return what HiGHS need not find out again; what cannot be in the optimum only where the bracket is open."""
    return bracket if bracket.status is Status.BRACKET else replace(bracket, promising=None)


def joined(bracket: Answers, exact: Answers, gap: float, *, first: int = 0) -> Answers:
    """Return the better of brackets and exact answers on each side.

    Args:
      first: the number of the first scenario, for the error.

    Raises:
      AuditFailed: they contradict each other somewhere.
    """
    crossed = _above(bracket.lower, exact.upper) | _above(exact.lower, bracket.upper)
    if crossed.any():
        b = int(np.argmax(crossed))
        raise AuditFailed(
            f"audit: the exact result [{exact.lower[b]}, {exact.upper[b]}] contradicts the bracket "
            f"[{bracket.lower[b]}, {bracket.upper[b]}]",
            first + b,
            {"bracket": bracket[b].to_json(first + b), "exact": exact[b].to_json(first + b)},
        )
    return _together(bracket, exact, gap)


def _above(lower: Float64[np.ndarray, " B"], upper: Float64[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
    """Return where a lower bound of one proof is above the upper bound of another, so that one of them is wrong."""
    return np.isfinite(upper) & (lower > upper + CROSSED_BY_HIGHS * np.maximum(np.abs(upper), 1.0))


def _together(bracket: Answers, exact: Answers, gap: float) -> Answers:
    """Return the better of both on each side, row by row."""
    planned = exact.has_plan
    apart = (exact.lower < bracket.lower) | (exact.upper > bracket.upper)  # the bracket is better on a side
    apart &= ~exact.is_any(Status.INFEASIBLE) & np.isfinite(bracket.lower)
    cheaper = apart & (bracket.upper < exact.upper)
    better = Answers.concatenate([exact, bracket], names=exact.names).take(
        np.arange(len(exact)) + len(exact) * cheaper
    )
    lower = np.where(planned, np.minimum(exact.lower, exact.upper), exact.lower)
    lower = np.where(apart, np.minimum(np.maximum(exact.lower, bracket.lower), better.upper), lower)
    certified = np.where(planned, np.minimum(bracket.certified, exact.upper), bracket.certified)
    certified = np.where(apart, np.minimum(bracket.certified, lower), certified)
    reached = relative_gap(lower, better.upper)
    closed = np.where(reached <= OPTIMAL_GAP, Status.OPTIMAL, Status.GAP_LIMIT)
    return replace(
        better,
        status=np.where(apart & (reached <= gap), closed, exact.status).astype(np.int8),
        prover=np.full(len(exact), Prover.BRACKET_EXACT, np.int8),
        lower=lower,
        certified=certified,
        nodes=bracket.nodes,
        steps=bracket.steps,
        seconds=exact.seconds + bracket.seconds,
        message=exact.message,
        promising=None,
        leaves=bracket.leaves,
    )


def _blocks_at_once() -> int:
    return by_device(cpu=min(usable_cores(), 2), accelerator=2)


def _blocks(
    instances: Instances, gap: float, effort: Effort | None, certificates: bool
) -> Iterator[tuple[int, Instances, Answers]]:
    """Yield blocks of brackets: the first scenario's number, the scenarios, their brackets.

    Two are worked on at a time: on an accelerator because Python works as long on a block as it does, on several cores
    because the last rounds of a block's trees have too few nodes for all of them. ``seconds`` share out the time
    that passed, so that they add up to it: a block has what passed from the end of those before it to its own, and
    none where it ended before one of them.
    """
    size, last = _block(), 0.0

    def bracket_block(first: int) -> tuple[float, float, Instances, Answers]:
        began = time.perf_counter()
        block = instances.span(first, min(first + size, instances.size))
        found = brackets(block, gap=gap, effort=effort, certificates=certificates)
        return began, time.perf_counter(), block, found

    firsts = range(0, instances.size, size)
    done = map_ahead(bracket_block, firsts, at_once=_blocks_at_once())
    for first, (began, ended, block, found) in zip(firsts, done, strict=True):
        each = max(ended - max(began, last), 0.0) / len(found)
        last = max(ended, last)
        yield first, block, replace(found, seconds=np.full(len(found), each))
