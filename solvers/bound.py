"""Brackets of a whole batch in one call: the function behind ``rodiu bound``, and its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan_columns import deployment_texts
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import CASCADE_GAP
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.runtime.progress import progress
from solvers.answers import Answers, gather_answers
from solvers.cascade import bracketed

if TYPE_CHECKING:
    import pandas as pd


def bound(
    instances: Instances, *, gap: float = CASCADE_GAP, certificates: bool = False, quiet: bool = True
) -> Answers:
    """Bracket every scenario: a certified lower bound and a checked plan, without an exact solver.

    Args:
      gap: relative gap (upper - lower) / upper, 0 to 1, at which the branching of a scenario ends.
      certificates: keep the leaves that prove the lower bounds, for `rodiu_jax.verify`.
      quiet: no progress on standard error.

    Returns:
      answers in columns over the B scenarios: ``lower`` and ``upper`` in $ per period, ``status``, ``costs`` (B,5) and
      ``plans()``; answer b is about scenario b. `tabulate_bounds` makes the table of them.

    Raises:
      InputError: ``gap`` is no number from 0 to 1.
    """
    if not 0 <= gap <= 1:
        raise InputError("bound", "gap", "a number from 0 to 1", gap)
    with progress("bound", instances.size, quiet=quiet) as bar:
        parts = bracketed(instances, gap=gap, certificates=certificates)
        return gather_answers(parts, bar, names=instances.names)


def tabulate_bounds(answers: Answers) -> pd.DataFrame:
    """Return the table that ``rodiu bound`` writes: a row per scenario, costs in $ per period."""
    import pandas as pd

    deployments = pd.Series(deployment_texts(answers.names, answers.slots, answers.replicas))
    return pd.DataFrame(
        {
            "instance": np.arange(len(answers)),
            "lower_bound": answers.lower,
            "upper_bound": answers.upper,
            "gap": answers.gap,
            "status": Status.words(answers.status),
            **dict(zip(COSTS, answers.costs.T, strict=True)),
            "deployments": deployments.where(answers.has_plan, None),
            "nodes": answers.nodes,
            "steps": answers.steps,
        }
    )
