"""The plans that a robust plan is compared with.

They are made without robustness or without decision dependence and, where replicas sustain limited rates, without
robust rates but with the headroom that planners add by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.fields import has_rates
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.progress import progress

PEERS = {"deterministic": "none", "diu": "diu"}
"""Kinds of plans by the uncertainty mode that they are optimal under; ``none`` is Gamma = 0."""

HEADROOMS = (1.1, 1.2, 1.5)
"""Factors on the traffic that planners buy for."""

UTILIZATION = 0.85
"""The most load of a replica that planners allow."""


def rate_variants(instances: Instances) -> dict[str, Instances]:
    """Return the scenarios that plans without robust rates are made for, by kind of plan; none without rates.

    ``nominal rates`` trusts every rate; ``traffic x1.2`` then buys for so many times the arrivals, and
    ``utilization 0.85`` fills replicas only so far.
    """
    f = instances.fields
    if not has_rates(f):
        return {}
    trusting = instances.with_fields(gamma_throughput=np.zeros_like(f.gamma_throughput))
    robust = instances.uncertainty != "none" and bool(np.any(np.asarray(f.gamma_throughput) > 0))
    return {
        **({"nominal rates": trusting} if robust else {}),
        **{
            f"traffic x{factor:g}": trusting.with_fields(arrival_rate=np.asarray(f.arrival_rate) * factor)
            for factor in HEADROOMS
        },
        f"utilization {UTILIZATION:g}": trusting.with_fields(
            max_utilization=np.minimum(f.max_utilization, UTILIZATION)
        ),
    }


def peers_of(
    plans: Sequence[Plan], instances: Instances, *, workers: int | None = None, quiet: bool = True
) -> tuple[list[tuple[str, Plan]], list[tuple[str, int]]]:
    """The optimal plans of every scenario that a plan names, under each mode of `PEERS` but the instances' own.

    Where scenarios have rates also those of `rate_variants`.

    Returns:
      kinds and plans; and kinds and scenarios of which it is proven that there is no plan.

    Raises:
      WorkFailed: HiGHS ended without an answer.
    """
    from solvers.pool import Pool, solve_iter

    named = sorted({plan.instance for plan in plans if plan.instance is not None})
    kinds = {
        kind: instances.with_uncertainty(mode)
        for kind, mode in PEERS.items()
        if mode != instances.uncertainty
    } | rate_variants(instances)
    found: list[tuple[str, Plan]] = []
    none: list[tuple[str, int]] = []
    if not named:
        return found, none
    with progress("peers", len(named) * len(kinds), quiet=quiet) as bar, Pool(workers) as pool:
        for kind, variant in kinds.items():
            solved = solve_iter(variant, named, workers=pool)
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
