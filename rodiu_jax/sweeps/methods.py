"""The functions behind the names of `rodiu_jax.sweeps.method_table`, and the form that all of them have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from rodiu_jax.model.instance import Instances

if TYPE_CHECKING:
    from solvers.answers import Answers
    from solvers.pool import Pool


class Method(Protocol):
    """Answers scenarios: a proven bracket and a checked plan for each, in order, as many at a time as it likes.

    Yielding as soon as a scenario is done lets the sweep show progress and keep what is done when it is interrupted.
    Closing a generator ends its workers. A scenario that fails yields an answer of status ``ERROR``.

    Args:
      gap: relative gap at which a scenario may stop.
      time_limit: seconds per scenario for an exact solver.
      workers: processes of an exact solver, its own choice by default; or a pool of them, which stays open.
      audited: bool (B,), scenarios whose brackets an exact solver must confirm.
      exact: which of the other scenarios an exact solver is given (`solvers.cascade.Policy`).
      certificates: answers hold the leaves that prove their lower bounds.
      plans: the plans given, as JSON; none but for ``evaluate``.
    """

    def __call__(
        self,
        instances: Instances,
        *,
        gap: float,
        time_limit: float,
        workers: int | Pool | None,
        audited: np.ndarray,
        exact: Literal["gap", "all", "none"],
        certificates: bool,
        plans: Sequence[str],
    ) -> Iterator[Answers]: ...


def solve_exactly(
    instances: Instances, *, gap: float, time_limit: float, workers: int | Pool | None, **_: object
) -> Iterator[Answers]:
    """Solve every scenario by HiGHS."""
    from solvers.answers import Answers
    from solvers.pool import solve_iter  # it is its own witness: nothing to audit or to certify

    with closing(solve_iter(instances, gap=gap, time_limit=time_limit, workers=workers)) as answers:
        for answer in answers:
            yield Answers.stack([answer], names=instances.names)


def bracket_scenarios(
    instances: Instances, *, gap: float, certificates: bool, **_: object
) -> Iterator[Answers]:
    """Bracket every scenario, and solve none exactly."""
    from solvers.cascade import cascade

    return cascade(instances, gap=gap, exact="none", certificates=certificates)


def run_cascade(
    instances: Instances,
    *,
    gap: float,
    time_limit: float,
    workers: int | Pool | None,
    audited: np.ndarray,
    exact: Literal["gap", "all", "none"],
    certificates: bool,
    **_: object,
) -> Iterator[Answers]:
    """Bracket every scenario, then solve by HiGHS those that ``exact`` and ``audited`` say."""
    from solvers.cascade import cascade

    return cascade(
        instances,
        gap=gap,
        exact=exact,
        audited=audited,
        time_limit=time_limit,
        workers=workers,
        certificates=certificates,
    )


def answer_soonest(instances: Instances, **options: Any) -> Iterator[Answers]:
    """Answer by ``exact`` or ``cascade``, whichever is expected to end first."""
    from rodiu_jax.sweeps.method_choice import choose_method
    from rodiu_jax.sweeps.method_table import METHODS

    audited = bool(np.any(options["audited"]))
    asked = {"certificates": options["certificates"], "audit": audited, "exact": options["exact"] != "gap"}
    workers = options["workers"]
    choice = choose_method(
        instances,
        instances.size,
        gap=options["gap"],
        workers=workers if workers is None or isinstance(workers, int) else workers.workers,
        needs_brackets=next((name for name, is_asked in asked.items() if is_asked), ""),
    )
    return METHODS[choice.method].load()(instances, **options)


def evaluate_plans(instances: Instances, *, plans: Sequence[str], **_: object) -> Iterator[Answers]:
    """Evaluate given plans in every scenario, and take the cheapest that keeps every promise."""
    from rodiu_jax.sweeps.given_plans import take_cheapest

    return take_cheapest(instances, plans)
