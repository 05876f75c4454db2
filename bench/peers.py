"""Work given to spawned processes, one thread each: peers that solve one by one. No JAX here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from rodiu_jax.model.instance import Instances
from rodiu_jax.runtime.cores import usable_cores
from solvers.exact import solve_instance
from solvers.formulation import assemble, build
from solvers.highs import discard_banner, run_highs
from solvers.terms import collect, tighten
from tests.oracles.published import Outcome, solve_published

S = TypeVar("S")
T = TypeVar("T")


def published(one: Instances) -> Outcome:
    """Solve a single scenario in the published formulation."""
    discard_banner()
    return solve_published(one, 0)


def relaxation(one: Instances) -> float:
    """Return the optimum of the LP relaxation of the tight formulation, $ per period, model building included."""
    terms = tighten(collect(one, 0))
    return run_highs(assemble(terms, len(one.gpu_names)), relax=True).bound


def scipy_relaxation(one: Instances) -> float:
    """Return the same by SciPy's interface to its own HiGHS, which takes rows as a sparse matrix."""
    f = assemble(tighten(collect(one, 0)), len(one.gpu_names))
    rows = csr_array((f.value, f.index, f.start), shape=(len(f.row_lower), len(f.cost)))
    found = milp(
        f.cost,
        constraints=LinearConstraint(rows, f.row_lower.tolist(), f.row_upper.tolist()),
        bounds=Bounds(f.lower.tolist(), f.upper.tolist()),
    )
    return float("nan") if found.fun is None else float(found.fun)


def routing(task: tuple[Instances, np.ndarray]) -> float:
    """Return the least cost of a scenario with a fixed deployment (D,3), $ per period; inf where none is feasible."""
    one, deployed = task
    formulation = build(one, 0, deployed=deployed)
    return run_highs(
        formulation, primal_feasibility_tolerance=1e-9, dual_feasibility_tolerance=1e-9
    ).objective


def load_solvers(one: Instances) -> None:
    """Make a process load the modules of its solvers."""
    solve_published(one, 0)
    solve_instance(one, 0)


class Workers:
    """A pool of ``count`` processes."""

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool = pool
        self.count = count

    def map(self, work: Callable[[S], T], tasks: Sequence[S]) -> list[T]:
        """Apply ``work`` to every task, in order."""
        return list(self._pool.map(work, tasks))


@contextmanager
def workers() -> Iterator[Workers]:
    """Start as many processes as this one may use cores; they end with the block."""
    count = usable_cores()
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield Workers(pool, count)
