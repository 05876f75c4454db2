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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rodiu_jax.errors import AuditFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import CASCADE_GAP, CROSSED_BY_HIGHS, OPTIMAL_GAP
from rodiu_jax.runtime.devices import by_device, devices
from solvers.bracket import Bracket, Effort, brackets
from solvers.hints import NOTHING, Hints
from solvers.pool import Pool, Task, Ticket
from solvers.result import Result, Status, relative_gap

Policy = Literal["gap", "all", "none"]
"""Who is solved exactly beside the audited: brackets wider than the gap (to that gap), all (to optimality), none."""


_BLOCK = 512
"""Scenarios bracketed for each CPU before the first is yielded: enough to fill its blocks deep in the trees."""

_WAITING = 256
"""Scenarios that may wait for HiGHS where nothing else is done meanwhile."""

_BLOCKS_AHEAD = 3
"""Blocks that may wait for HiGHS while the device goes on: enough to keep it busy, few enough to bound memory."""


def _block() -> int:
    """Scenarios bracketed at a time, on all devices."""
    return by_device(cpu=_BLOCK, accelerator=4096) * len(devices())


def bracketed(
    instances: Instances,
    *,
    gap: float = CASCADE_GAP,
    effort: Effort | None = None,
    certificates: bool = False,
) -> Iterator[Bracket]:
    """Brackets of all scenarios, block by block; ``certificates`` keeps what proves them."""
    for block, found, _ in _blocks(instances, gap, effort or Effort(), certificates):
        for bracket in found:
            b = block + bracket.instance
            yield replace(bracket, instance=b, plan=bracket.plan and replace(bracket.plan, instance=b))


@dataclass(frozen=True)
class _Waiting:
    """A scenario's bracket, and what HiGHS was asked about it."""

    bracket: Result
    ticket: Ticket | None


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
) -> Iterator[Result]:
    """Bracket every scenario to ``gap``, solve exactly those that ``exact`` chooses, audit some; results in order.

    Args:
      gap: relative gap to prove.
      exact: who is solved exactly; ``none`` and nobody audited starts no process.
      audited: bool (B,), the scenarios to audit; none by default.
      time_limit, workers: for HiGHS, as `solvers.pool.solve`.
      effort: of the brackets. By default a CPU branches only where a certificate is asked for or the gap is at least
        `CASCADE_GAP`: HiGHS closes smaller ones sooner.
      certificates: results hold the leaves that prove `Result.certified`.

    Raises:
      AuditFailed: an exact result contradicts its bracket.
    """
    if effort is None:
        branch = certificates or exact == "none" or gap >= CASCADE_GAP
        effort = Effort() if branch else by_device(cpu=Effort(tree_rounds=0), accelerator=Effort())
    audit = np.zeros(instances.size, bool) if audited is None else np.asarray(audited, bool)
    pool = workers if isinstance(workers, Pool) else Pool(workers)
    keep = pool is workers
    queue: deque[_Waiting] = deque()
    try:
        for block, found, seconds in _blocks(instances, gap, effort, certificates):
            for bracket in found:
                ours = _as_result(bracket, block, seconds)
                known = _hints(bracket)
                task = _task(instances, ours, known, gap, time_limit, exact, bool(audit[ours.instance]))
                queue.append(_Waiting(ours, None if task is None else pool.submit(task)))
            while queue and (len(queue) > _BLOCKS_AHEAD * _block() or _ready(pool, queue[0])):
                yield _answered(pool, queue.popleft(), gap)
        while queue:
            yield _answered(pool, queue.popleft(), gap)
    except BaseException:  # what was asked of HiGHS will never be fetched
        keep = False
        raise
    finally:
        if not keep:
            pool.close()


def exactly(
    groups: Iterable[tuple[Instances, Sequence[Result]]],
    *,
    gap: float = CASCADE_GAP,
    time_limit: float = math.inf,
    workers: int | Pool | None = None,
) -> Iterator[list[Result]]:
    """Solve bracketed scenarios to optimality, from their brackets' plans; a list per group, in order.

    Args:
      groups: scenarios with a bracket each, numbered from 0 in their group; fetched as the workers get through them.
      gap, time_limit, workers: as `cascade`.

    Raises:
      AuditFailed: an exact result contradicts its bracket.
    """
    pool = workers if isinstance(workers, Pool) else Pool(workers)
    keep = pool is workers
    queue: deque[list[_Waiting]] = deque()
    try:
        for instances, found in groups:
            tasks = [
                _task(instances, bracket, Hints(bracket.plan, bracket.bound), gap, time_limit, "all", False)
                for bracket in found
            ]
            queue.append(
                [
                    _Waiting(bracket, None if task is None else pool.submit(task))
                    for bracket, task in zip(found, tasks, strict=True)
                ]
            )
            while sum(map(len, queue)) > _WAITING:
                yield [_answered(pool, waiting, gap) for waiting in queue.popleft()]
        while queue:
            yield [_answered(pool, waiting, gap) for waiting in queue.popleft()]
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            pool.close()


def _hints(bracket: Bracket) -> Hints:
    """What HiGHS need not find out again: plan and cutoff, lower bound, and what cannot be in the optimum."""
    if bracket.promising is None:
        return Hints(bracket.plan, bracket.lower)
    return Hints(bracket.plan, bracket.lower, bracket.promising, bracket.upper)


def _task(
    instances: Instances,
    bracket: Result,
    known: Hints,
    gap: float,
    time_limit: float,
    exact: Policy,
    audited: bool,
) -> Task | None:
    """What HiGHS is asked about a scenario; an audit starts from nothing."""
    closed = bracket.status in ("optimal", "gap_limit")
    if not audited and (bracket.status == "infeasible" or exact == "none" or (exact == "gap" and closed)):
        return None
    target = gap if exact == "gap" and not audited else min(gap, OPTIMAL_GAP)
    b = bracket.instance
    return Task(instances.take([b]), b, target, time_limit, NOTHING if audited else known)


def _ready(pool: Pool, waiting: _Waiting) -> bool:
    return waiting.ticket is None or pool.done(waiting.ticket)


def _answered(pool: Pool, waiting: _Waiting, gap: float) -> Result:
    if waiting.ticket is None:
        return waiting.bracket
    return joined(waiting.bracket, pool.result(waiting.ticket), gap)


def joined(bracket: Result, exact: Result, gap: float) -> Result:
    """The better of a bracket and an exact result on each side.

    Raises:
      AuditFailed: they contradict each other.
    """
    if _contradict(bracket, exact):
        raise AuditFailed(
            f"audit: the exact result [{exact.bound}, {exact.objective}] contradicts the bracket "
            f"[{bracket.bound}, {bracket.objective}]",
            bracket.instance,
            {"bracket": bracket.to_json(), "exact": exact.to_json()},
        )
    return _together(bracket, exact, gap)


def _blocks(
    instances: Instances, gap: float, effort: Effort, certificates: bool
) -> Iterator[tuple[int, list[Bracket], float]]:
    """Blocks of brackets: the first scenario's position, its brackets (numbered from 0), seconds per scenario."""
    size = _block()
    for first in range(0, instances.size, size):
        began = time.perf_counter()
        block = instances.take(range(first, min(first + size, instances.size)))
        found = brackets(block, gap=gap, effort=effort, certificates=certificates)
        yield first, found, (time.perf_counter() - began) / len(found)


def _as_result(bracket: Bracket, block: int, seconds: float) -> Result:
    b = block + bracket.instance
    status: Status = bracket.status
    return Result(
        b,
        status,
        bracket.upper,
        bracket.lower,
        bracket.costs,
        bracket.plan and replace(bracket.plan, instance=b),
        seconds,
        "the ascent met something that is not a number" if status == "error" else "",
        method="bracket",
        nodes=bracket.nodes,
        steps=bracket.steps,
        certified=bracket.lower,
        leaves=bracket.leaves,
    )


def _contradict(bracket: Result, exact: Result) -> bool:
    """Whether both cannot be right: one's lower bound is above the other's upper bound."""

    def above(lower: float, upper: float) -> bool:
        return math.isfinite(upper) and lower > upper + CROSSED_BY_HIGHS * max(abs(upper), 1.0)

    return above(bracket.bound, exact.objective) or above(exact.bound, bracket.objective)


def _together(bracket: Result, exact: Result, gap: float) -> Result:
    """The better of both on each side."""
    whole = replace(
        exact,
        nodes=bracket.nodes,
        steps=bracket.steps,
        seconds=exact.seconds + bracket.seconds,
        bound=min(exact.bound, exact.objective) if exact.plan else exact.bound,
        certified=min(bracket.certified, exact.objective) if exact.plan else bracket.certified,
        leaves=bracket.leaves,
        method="bracket+exact",
    )
    if exact.status == "infeasible" or not math.isfinite(bracket.bound):
        return whole
    if exact.bound >= bracket.bound and exact.objective <= bracket.objective:
        return whole
    better = bracket if bracket.objective < exact.objective else exact
    upper, lower = better.objective, min(max(exact.bound, bracket.bound), better.objective)
    reached = relative_gap(lower, upper)
    closed: Status = "optimal" if reached <= OPTIMAL_GAP else "gap_limit"
    return replace(
        whole,
        status=closed if reached <= gap else exact.status,
        objective=upper,
        bound=lower,
        costs=better.costs,
        plan=better.plan,
        certified=min(bracket.certified, lower),
    )
