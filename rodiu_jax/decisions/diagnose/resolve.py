"""One scenario solved again and again with some of its fields moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rodiu_jax.decisions.diagnose.movable_limits import variants
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.progress import Bar

if TYPE_CHECKING:
    from solvers.answers import Answer
    from solvers.ranging import Ranged, Ranging

Change = dict[str, np.ndarray]
"""Fields of one instance and their new values."""


_LONGEST = 20.0
"""Seconds for a question that an answer can do without: what it would have proven is then said to be unproven."""


class Solve(Protocol):
    """As `solvers.pool.solve_iter`, with its workers and time limit bound."""

    def __call__(
        self,
        instances: Instances,
        indices: Sequence[int],
        *,
        gap: float,
        starts: Sequence[Answer | None],
    ) -> Iterable[Answer]: ...


class Resolver:
    """Solves variants of scenario ``b`` exactly.

    Args:
      spread: applies a function to tasks, such as `solvers.pool.Pool.map`; one after the other by default.
      time_limit: seconds for each question of `ranged` and, up to `_LONGEST`, `find_plan`; ``solve`` has its own.
    """

    def __init__(
        self,
        instances: Instances,
        b: int,
        solve: Solve,
        bar: Bar,
        *,
        spread: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] = map,
        time_limit: float = math.inf,
    ) -> None:
        self.instances, self.b = instances, b
        self._solve, self._bar, self._spread, self._time_limit = solve, bar, spread, time_limit

    def __call__(
        self, changes: Sequence[Change], start: Plan | None = None, *, gap: float = 1e-6
    ) -> list[Answer]:
        """Solve each variant; ``start`` is a plan that may be good.

        A variant that ends with an error keeps the bracket it has, which may be infinite on both sides.
        """
        from solvers.answers import Answer

        if not changes:
            return []
        batch = variants(self.instances, self.b, changes)
        known = None if start is None else Answer.of(batch.names, Status.FEASIBLE, plan=start)
        answers = []
        for answer in self._solve(batch, range(len(changes)), gap=gap, starts=[known] * len(changes)):
            answers.append(answer)
            self._bar.advance(answer.status.word, answer.gap)
        return answers

    def find_plan(self, one: Instances) -> Answer:
        """Find any plan of a scenario held alone, or a proof that there is none (`solvers.feasibility`)."""
        from solvers.feasibility import FeasibilityTask, find_any_plan

        limit = min(self._time_limit, _LONGEST)
        (answer,) = self._spread(find_any_plan, [FeasibilityTask(one, limit)])
        self._bar.advance(answer.status.word)
        return answer

    def ranged(self, questions: Sequence[Ranging]) -> list[Ranged]:
        """What is proven with a limit free in an interval (`solvers.ranging`)."""
        from solvers.ranging import ranged

        if not questions:
            return []
        limited = [replace(q, time_limit=self._time_limit) for q in questions]
        found = list(self._spread(ranged, limited))
        self._bar.advance("ranged", count=len(found))
        return found
