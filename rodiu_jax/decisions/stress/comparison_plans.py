"""The plans that a robust plan is compared with: made without robustness, or without decision dependence."""

from __future__ import annotations

from collections.abc import Sequence

from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.progress import progress

PEERS = {"deterministic": "none", "diu": "diu"}
"""Kinds of plans by the uncertainty mode that they are optimal under; ``none`` is Gamma = 0."""


def peers_of(
    plans: Sequence[Plan], instances: Instances, *, workers: int | None = None, quiet: bool = True
) -> tuple[list[tuple[str, Plan]], list[tuple[str, int]]]:
    """The optimal plans of every scenario that a plan names, under each mode of `PEERS` but the instances' own.

    Returns:
      kinds and plans; and kinds and scenarios of which it is proven that there is no plan.

    Raises:
      WorkFailed: HiGHS ended without an answer.
    """
    from solvers.pool import Pool, solve_iter

    named = sorted({plan.instance for plan in plans if plan.instance is not None})
    kinds = {kind: mode for kind, mode in PEERS.items() if mode != instances.uncertainty}
    found: list[tuple[str, Plan]] = []
    none: list[tuple[str, int]] = []
    if not named:
        return found, none
    with progress("peers", len(named) * len(kinds), quiet=quiet) as bar, Pool(workers) as pool:
        for kind, mode in kinds.items():
            solved = solve_iter(instances.with_uncertainty(mode), named, workers=pool)
            for b, answer in zip(named, solved, strict=True):
                bar.advance(answer.status.word, answer.gap)
                if answer.status is Status.INFEASIBLE:
                    none.append((kind, b))
                    continue
                plan = answer.plan_for(b)
                if plan is None:
                    raise WorkFailed(
                        f"the {kind} plan of instance {b}: {answer.message or answer.status.word}"
                    )
                found.append((kind, plan))
    return found, none
