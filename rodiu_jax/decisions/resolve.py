"""One scenario solved again and again with some of its fields moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rodiu_jax.decisions.limits import variants
from rodiu_jax.instance import Instances
from rodiu_jax.plan import Plan
from rodiu_jax.sweeps.progress import Bar

if TYPE_CHECKING:
    from solvers.hints import Hints
    from solvers.result import Result

Change = dict[str, np.ndarray]
"""Fields of one instance and their new values."""


class Solve(Protocol):
    """As `solvers.pool.solve_iter`, with its workers and time limit bound."""

    def __call__(
        self, instances: Instances, indices: Sequence[int], *, gap: float, hints: Sequence[Hints]
    ) -> Iterable[Result]: ...


class Resolver:
    """Solves variants of scenario ``b`` exactly."""

    def __init__(self, instances: Instances, b: int, solve: Solve, bar: Bar) -> None:
        self.instances, self.b = instances, b
        self._solve, self._bar = solve, bar

    def __call__(
        self, changes: Sequence[Change], start: Plan | None = None, *, gap: float = 1e-6
    ) -> list[Result]:
        """The result of each variant; ``start`` is a plan that may be good.

        A variant that ends with an error keeps the bracket it has, which may be infinite on both sides.
        """
        from solvers.hints import Hints

        if not changes:
            return []
        batch = variants(self.instances, self.b, changes)
        hints = [Hints(plan=start)] * len(changes)
        found = []
        for result in self._solve(batch, range(len(changes)), gap=gap, hints=hints):
            found.append(result)
            self._bar.advance(result.status, result.gap)
        return found
