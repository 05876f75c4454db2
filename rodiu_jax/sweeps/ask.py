"""Giving scenarios to a sweep's method: the same in every engine."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.tolerances import OPTIMAL_GAP
from rodiu_jax.runtime.lazy_call import load_function
from rodiu_jax.runtime.overlap import beside
from rodiu_jax.sweeps.method_table import METHODS

if TYPE_CHECKING:
    from rodiu_jax.model.instance import Instances
    from rodiu_jax.sweeps.spec import SweepSpec
    from solvers.answers import Answers
    from solvers.pool import Pool


def answer_rows(spec: SweepSpec, instances: Instances, first: int, pool: Pool) -> Generator[Answers]:
    """Yield what the spec's method answers to the scenarios of rows ``first``, ``first + 1``, ..., in order.

    Of rows in the spec's opening HiGHS does; they are asked for apart from others.

    Raises:
      WorkFailed: the method did not answer every scenario once, or an audit failed.
    """
    if first < spec.opening:
        assert first + instances.size <= spec.opening, "a chunk is of one method"
        gap = min(spec.wanted_gap, OPTIMAL_GAP) if spec.exact == "all" else spec.wanted_gap
        spec = spec.model_copy(update={"method": "exact", "gap": gap})
    parts = ask_method(spec, instances, pool, spec.audited(first, first + instances.size))
    count = 0
    try:
        for part in parts:
            count += len(part)
            if count <= instances.size:
                yield part
        if count != instances.size:
            raise WorkFailed(f"method {spec.method} answered {count} of {instances.size} scenarios")
    finally:
        if isinstance(parts, Generator):
            parts.close()


def prepare_method(method: str, instances: Instances) -> AbstractContextManager[None]:
    """Compile what the method needs beside the body, in which HiGHS, in other processes, answers the opening.

    An error is dropped: whoever needs the programs meets it too, and says it.
    """
    place = METHODS[method].prepare
    return beside(lambda: load_function(place)(instances)) if place else nullcontext()


def ask_method(spec: SweepSpec, instances: Instances, pool: Pool, audited: np.ndarray) -> Iterator[Answers]:
    """Give scenarios to the spec's method; ``audited`` as `rodiu_jax.sweeps.methods.Method` has it."""
    return METHODS[spec.method].load()(
        instances,
        gap=spec.wanted_gap,
        time_limit=math.inf if spec.time_limit is None else spec.time_limit,
        workers=pool,
        audited=audited,
        exact="none" if spec.exact == "top" else spec.exact or "gap",
        certificates=spec.certificates,
        plans=spec.plan_texts,
    )
