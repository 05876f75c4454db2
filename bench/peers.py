"""Work given to spawned processes, one thread each: peers that solve one by one. No JAX here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from bench.published import Outcome, solve_published
from rodiu_jax.instance import Instances
from solvers.formulation import build
from solvers.highs import _print_banner_nowhere, run_highs
from solvers.pool import usable_cores

T = TypeVar("T")


def published(one: Instances) -> Outcome:
    """The published formulation of a single scenario."""
    _print_banner_nowhere()
    return solve_published(one, 0)


def relaxation(one: Instances) -> float:
    """Optimum of the LP relaxation of the tight formulation, $ per period, model building included."""
    return run_highs(build(one, 0), relax=True).bound


class Workers:
    """A pool of processes that is started, and has loaded its modules, before anything is timed."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def map(self, work: Callable[[Instances], T], scenarios: Sequence[Instances]) -> list[T]:
        """``work`` of every scenario, in order."""
        return list(self._pool.map(work, scenarios))


@contextmanager
def workers() -> Iterator[Workers]:
    """As many processes as this one may use cores."""
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        yield Workers(pool)
