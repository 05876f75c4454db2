"""Brackets first, exact where it pays: every scenario gets the cheapest proof that is good enough.

All scenarios are bracketed on the device (`solvers.bracket`). HiGHS then solves those whose bracket is wider than
asked, starting from the bracket's plan, and the *audited* ones, which it solves from nothing and to optimality: an
optimum outside its bracket means that one of the two proofs is wrong, and stops the work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from rodiu_jax.errors import AuditFailed
from rodiu_jax.instance import Instances
from solvers.bracket import Bracket, Effort, brackets
from solvers.pool import solve_iter
from solvers.result import OPTIMAL_GAP, Result, Status, relative_gap

CASCADE_GAP = 0.01
"""Relative gap at which a bracket is good enough, unless asked otherwise."""

_CROSSED = 1e-6
"""Optimum and bracket may disagree by this (relative) through tolerances of solver and checker."""


_BLOCK = 256
"""Scenarios bracketed before the first of them is yielded: enough to fill the device's blocks while branching."""


def bracket_results(
    instances: Instances, *, gap: float = CASCADE_GAP, effort: Effort | None = None
) -> Iterator[Result]:
    """Brackets as results: status ``optimal``, ``gap_limit`` or ``bracket``, ``unknown``, ``infeasible``, ``error``."""
    for block, found, seconds in _blocks(instances, gap, effort):
        for bracket in found:
            yield _as_result(bracket, block, seconds)


def bracketed(
    instances: Instances,
    *,
    gap: float = CASCADE_GAP,
    effort: Effort | None = None,
    certificates: bool = False,
) -> Iterator[Bracket]:
    """Brackets of all scenarios, block by block; ``certificates`` keeps what proves them."""
    for block, found, _ in _blocks(instances, gap, effort, certificates):
        for bracket in found:
            b = block + bracket.instance
            yield replace(bracket, instance=b, plan=bracket.plan and replace(bracket.plan, instance=b))


def cascade(
    instances: Instances,
    *,
    gap: float = CASCADE_GAP,
    time_limit: float = math.inf,
    workers: int | None = None,
    audited: np.ndarray | None = None,
    effort: Effort | None = None,
) -> Iterator[Result]:
    """Bracket every scenario to ``gap``, solve exactly what stays wider, audit some; results in order.

    Args:
      gap: relative gap to prove.
      time_limit, workers: for HiGHS, as `solvers.pool.solve`.
      audited: bool (B,), the scenarios to audit; none by default.

    Raises:
      AuditFailed: an audited optimum lies outside its bracket.
    """
    audit = np.zeros(instances.size, bool) if audited is None else np.asarray(audited, bool)
    for block, found, seconds in _blocks(instances, gap, effort):
        closed = np.array([b.status in ("optimal", "gap_limit", "infeasible") for b in found])
        checked = audit[block : block + len(found)]
        wide = np.flatnonzero(~closed & ~checked)
        exact: dict[int, Result] = {}
        for group, target, starts in (
            (np.flatnonzero(checked), min(gap, OPTIMAL_GAP), None),
            (wide, gap, [found[b].plan for b in wide]),
        ):
            for result in solve_iter(
                instances,
                (block + group).tolist(),
                gap=target,
                time_limit=time_limit,
                workers=workers,
                starts=starts,
            ):
                exact[result.instance - block] = result
        for bracket in found:
            ours, theirs = _as_result(bracket, block, seconds), exact.get(bracket.instance)
            if theirs is not None and _contradict(ours, theirs):
                raise AuditFailed(
                    f"audit: the exact result [{theirs.bound}, {theirs.objective}] contradicts the bracket "
                    f"[{ours.bound}, {ours.objective}]",
                    ours.instance,
                    {"bracket": ours.to_json(), "exact": theirs.to_json()},
                )
            yield ours if theirs is None else _together(ours, theirs, gap)


def _blocks(
    instances: Instances, gap: float, effort: Effort | None, certificates: bool = False
) -> Iterator[tuple[int, list[Bracket], float]]:
    """Blocks of brackets: the first scenario's position, its brackets (numbered from 0), seconds per scenario."""
    for first in range(0, instances.size, _BLOCK):
        began = time.perf_counter()
        block = instances.take(range(first, min(first + _BLOCK, instances.size)))
        found = brackets(block, gap=gap, effort=effort or Effort(), certificates=certificates)
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
    )


def _contradict(bracket: Result, exact: Result) -> bool:
    """Whether both cannot be right: one's lower bound is above the other's upper bound."""

    def above(lower: float, upper: float) -> bool:
        return math.isfinite(upper) and lower > upper + _CROSSED * max(abs(upper), 1.0)

    return above(bracket.bound, exact.objective) or above(exact.bound, bracket.objective)


def _together(bracket: Result, exact: Result, gap: float) -> Result:
    """The better of both on each side."""
    whole = replace(exact, nodes=bracket.nodes, steps=bracket.steps, seconds=exact.seconds + bracket.seconds)
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
        method="bracket+exact",
    )
