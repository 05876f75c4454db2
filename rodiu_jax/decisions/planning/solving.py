"""Many scenarios solved exactly: by worker processes, or by this one where a single worker is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.progress import Bar

if TYPE_CHECKING:
    from solvers.answers import Answer
    from solvers.pool import Pool


class Solving:
    """How scenarios are solved.

    Args:
      pool: the workers; None solves in this process.
      gap: relative gap to stop at; ``time_limit``: seconds for each scenario.
      bar: is told of each answer.
    """

    def __init__(self, pool: Pool | None, bar: Bar, *, gap: float, time_limit: float) -> None:
        self._pool, self._bar, self._gap, self._time_limit = pool, bar, gap, time_limit

    def solve(self, batch: Instances, known: Plan | None = None) -> list[Answer]:
        """Solve every scenario of a batch, each from a plan that may be good for it, where it allows that plan."""
        return self.begin(batch, known)()

    def begin(
        self, batch: Instances, known: Plan | None = None, *, gap: float | None = None
    ) -> Callable[[], list[Answer]]:
        """Let the workers begin to solve a batch; what is returned waits for the answers, in order."""
        from solvers.answers import Answer
        from solvers.exact import solve_instance
        from solvers.pool import Task

        aim = self._gap if gap is None else gap
        starts: list[Answer | None] = [
            Answer.of(batch.names, Status.FEASIBLE, plan=known)
            if known is not None and _allows(batch, b, known)
            else None
            for b in range(batch.size)
        ]
        pool, limit = self._pool, self._time_limit
        if pool is None:
            return lambda: [
                self._tell(solve_instance(batch, b, gap=aim, time_limit=limit, start=start))
                for b, start in enumerate(starts)
            ]
        tickets = [pool.submit(Task(batch.take([b]), aim, limit, start)) for b, start in enumerate(starts)]
        return lambda: [self._tell(pool.result(ticket)) for ticket in tickets]

    def _tell(self, answer: Answer) -> Answer:
        self._bar.advance(answer.status.word, answer.gap)
        return answer


@contextmanager
def open_workers(workers: int | None) -> Iterator[Pool | None]:
    """Open a pool of worker processes, by default one per usable core; none for a single worker."""
    from rodiu_jax.runtime.cores import usable_cores
    from solvers.pool import Pool

    if workers == 1 or (workers is None and usable_cores() == 1):
        yield None
        return
    with Pool(workers) as pool:
        yield pool


def _allows(batch: Instances, b: int, plan: Plan) -> bool:
    """Tell whether a scenario allows the replicas of a plan."""
    most = np.broadcast_to(batch.one(b).max_replicas, batch.shape[1:3])
    at = deployed_triples(batch, plan.deployments)[:, :2].T
    return bool((most[tuple(at)] >= [d.replicas for d in plan.deployments]).all())
