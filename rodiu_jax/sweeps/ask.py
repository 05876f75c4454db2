"""Giving scenarios to a sweep's method, and counting what it answers: the same in every engine."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.errors import WorkFailed
from rodiu_jax.runtime.progress import Bar
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.rows import Block

if TYPE_CHECKING:
    from rodiu_jax.model.instance import Instances
    from rodiu_jax.sweeps.spec import SweepSpec
    from solvers.pool import Pool
    from solvers.result import Result


def answered(spec: SweepSpec, instances: Instances, first: int, pool: Pool) -> Generator[Result | Block]:
    """What the spec's method answers to the scenarios of rows ``first``, ``first + 1``, ..., each in its place.

    Raises:
      WorkFailed: the method left a scenario out, or an audit failed.
    """
    answers = asked(spec, instances, pool, spec.audited(first, first + instances.size))
    try:
        b = 0
        for answer in answers:
            if answer.instance != b:
                raise WorkFailed(f"method {spec.method}: answered scenario {answer.instance} in place of {b}")
            b += size_of(answer)
            yield answer
        if b != instances.size:
            raise WorkFailed(f"method {spec.method} answered {b} of {instances.size} scenarios")
    finally:
        if isinstance(answers, Generator):
            answers.close()


def asked(spec: SweepSpec, instances: Instances, pool: Pool, audited: np.ndarray) -> Iterator[Result | Block]:
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


def size_of(answer: Result | Block) -> int:
    """Scenarios answered."""
    return answer.size if isinstance(answer, Block) else 1


def tell(bar: Bar, answer: Result | Block) -> None:
    """Count an answer."""
    if not isinstance(answer, Block):
        bar.advance(answer.status, answer.gap, answer.method)
        return
    for status, count in zip(*np.unique(answer.columns["status"], return_counts=True), strict=True):
        bar.advance(str(status), math.nan, str(answer.columns["method"]), int(count))
