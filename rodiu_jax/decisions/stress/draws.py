"""Plans under deviations that really happen: violation probabilities, cost distribution, what breaks first.

All plans of a scenario meet the same draws of deviations (`rodiu_jax.decisions.stress.tally`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.analysis.intervals import clopper_pearson
from rodiu_jax.decisions.stress.linear_forms import PROMISES, RATES, Exposure, expose
from rodiu_jax.decisions.stress.tally import (
    BINS,
    PAIRS_AT_ONCE,
    Tally,
    draw_tally,
    mean_of_squares,
    mean_overload,
    mean_share,
    quantile_table,
    vertex_tally,
)
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import has_rates
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, plan_arrays
from rodiu_jax.runtime.progress import progress

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (0.05, 0.5, 0.95, 0.99)

_MOST_DRAWS = 2**32
"""The number of a draw is one 32-bit word of its key."""


@dataclass(frozen=True)
class Stress:
    """What `stress` found.

    Attributes:
      results: a row per plan, scenario, distribution and scale: ``plan``, ``kind`` (``given``, ``deterministic``,
        ``diu``, or one of `rodiu_jax.decisions.stress.comparison_plans.rate_variants`), ``instance``,
        ``deployments``, ``broken_limits`` (other constraints that the plan breaks anyway),
        ``distribution``, ``scale``, ``draws``, ``violations``, ``probability``, ``lower``, ``upper`` (that any promise
        breaks, with its exact interval), ``breaks_at`` (least scale of these deviations at which a promise breaks),
        ``first`` (the promise that does so most often, empty where none can) and ``first_share`` (of the draws),
        costs in $ per period: ``nominal_cost``, ``cost_mean``, ``cost_sd``, ``cost_min``, ``cost_max``,
        ``cost_q05`` ... ``cost_q99``, each quantile within ``resolution``. Where scenarios have rates also
        ``overloaded``, ``overloaded_lower``, ``overloaded_upper`` (that some pair has more load than it may) and
        ``overload_max`` (the largest excess, as a share of what the load may be).
      promises: a row per plan, scenario, distribution, scale and promise: ``violations``, ``probability``, ``lower``,
        ``upper``, ``first_share``. Where scenarios have rates each deployed pair has a row,
        ``throughput[model,gpu]``, with ``overload_mean`` (of the draws with too much load, nan without any) and
        ``overload_max``.
      settings: draws, seed, confidence, reality, beta, scales, and ``no_plan``: kind and instance of the plans to
        compare with of which it is proven that there is none.
    """

    results: pd.DataFrame
    promises: pd.DataFrame
    settings: dict[str, Any]


def stress(
    plans: Sequence[Plan],
    instances: Instances,
    *,
    draws: int = 1_000_000,
    scales: Sequence[float] = (0.5, 1.0, 1.5),
    beta: tuple[float, float] = (2.0, 5.0),
    reality: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    peers: bool = True,
    workers: int | None = None,
    quiet: bool = True,
) -> Stress:
    """Draw deviations out of sample and count what each plan's promises and cost do.

    The delay of pair (j,k) for type i is ``d_bar + scale d_hat xi`` per token, its error rate likewise with a xi of
    its own; every xi is independent. At scale 1 the plan's worst case W is the distribution ``worst``. Where replicas
    sustain limited rates, each type's load of a pair grows by ``scale lh chi`` likewise.

    Args:
      plans: each meets its own scenario, or all of them where its ``instance`` is None.
      draws: per plan and scenario, for each distribution.
      scales: what all deviations are multiplied by.
      beta: parameters of the beta distribution, both > 0.
      reality: ``ddu`` (pairing shrinks deviations) or ``diu``; by default that of the instances, ``ddu`` where they
        are ``none``.
      confidence: of the exact intervals.
      peers: also solve the scenarios that plans name with Gamma = 0 (kind ``deterministic``) and with deviations that
        do not depend on the decision (``diu``), and stress these plans beside; where scenarios have rates, also plans
        that trust them (``nominal rates``) or add headroom by hand (``traffic x1.1``, ``utilization 0.85``).
      workers: processes for ``peers``.
      quiet: no progress on standard error.

    Raises:
      InputError: no plan; a bad argument; a plan that names what the instances do not have.
      WorkFailed: a peer could not be solved.
    """
    chosen = reality or ("ddu" if instances.uncertainty == "none" else instances.uncertainty)
    _check(plans, draws, scales, beta, chosen, confidence, seed)
    stressed = [("given", plan) for plan in plans]
    none: list[tuple[str, int]] = []
    for p, plan in enumerate(plans):
        if plan.instance is not None:
            instances.check_index(plan.instance, source=f"plan {p}")
    if peers:
        from rodiu_jax.decisions.stress.comparison_plans import peers_of

        compared, none = peers_of(plans, instances, workers=workers, quiet=quiet)
        stressed += compared
    arrays = plan_arrays([plan for _, plan in stressed], instances)
    pairs = [
        (p, b)
        for p, (_, plan) in enumerate(stressed)
        for b in (range(instances.size) if plan.instance is None else [plan.instance])
    ]
    plan_index, instance_index = (np.array(a, np.int64) for a in zip(*pairs, strict=True))
    routes = int((arrays.share > 0).sum(-1).max(initial=1))  # one program for all blocks
    scale = np.array(scales, np.float64)
    tables = {"uniform": None, "beta": quantile_table(beta)}
    rows: list[dict[str, Any]] = []
    per_promise: list[dict[str, Any]] = []
    groups = np.array_split(np.arange(len(pairs)), -(-len(pairs) // PAIRS_AT_ONCE))
    with progress("stress", len(pairs), quiet=quiet) as bar:
        for group in groups:
            exposure = expose(
                instances,
                arrays,
                plan_index[group],
                instance_index[group],
                reality=chosen,
                seed=seed,
                routes=routes,
            )
            tallies = {
                name: draw_tally(exposure.forms, draws=draws, scales=scale, table=table)
                for name, table in tables.items()
            }
            tallies["worst"] = vertex_tally(exposure, scale)
            for m, (p, b) in enumerate(pairs[n] for n in group):
                kind, plan = stressed[p]
                named = {"plan": p, "kind": kind, "instance": b, "deployments": plan.summary()}
                for name, tally in tallies.items():
                    count = 1 if name == "worst" else draws
                    names = _promise_names(instances, plan)
                    found = _rows(names, exposure, tally, m, scale, count, confidence, named, name)
                    rows += found[0]
                    per_promise += found[1]
                bar.advance()
    import pandas as pd

    settings = {
        "draws": draws,
        "seed": seed,
        "confidence": confidence,
        "reality": chosen,
        "beta": list(beta),
        "scales": [float(s) for s in scales],
        "no_plan": [{"kind": kind, "instance": b} for kind, b in none],
    }
    return Stress(pd.DataFrame(rows), pd.DataFrame(per_promise), settings)


def _check(
    plans: Sequence[Plan],
    draws: int,
    scales: Sequence[float],
    beta: tuple[float, float],
    reality: str,
    confidence: float,
    seed: int,
) -> None:
    if not plans:
        raise InputError("stress", "plans", "at least one plan")
    for name, value, low, high in (("draws", draws, 1, _MOST_DRAWS), ("seed", seed, 0, 2**63 - 1)):
        try:
            good = low <= operator.index(value) <= high
        except TypeError:
            good = False
        if not good:
            raise InputError("stress", name, f"a whole number from {low} to {high}", value)
    if not scales or not all(np.isfinite(s) and s >= 0 for s in scales):
        raise InputError("stress", "scales", "at least one finite number >= 0", list(scales))
    if len(beta) != 2 or not all(np.isfinite(v) and v > 0 for v in beta):
        raise InputError("stress", "beta", "two finite numbers > 0", beta)
    if reality not in ("diu", "ddu"):
        raise InputError("stress", "reality", "diu or ddu", reality)
    if not 0 < confidence < 1:
        raise InputError("stress", "confidence", "a number above 0 and below 1", confidence)


def _promise_names(instances: Instances, plan: Plan) -> list[str]:
    """Name what deviations can break, in the order of `Forms`: slots are in the order of the plan's pairs."""
    names = [f"{family}[{query}]" for family in PROMISES for query in instances.query_names]
    if has_rates(instances.fields):
        names += [f"{RATES}[{d.model},{d.gpu}]" for d in plan.deployments]
    return names


def _overload(
    tally: Tally, m: int, s: int, draws: int, interval: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Columns about loads of pair ``m`` of a block at scale ``s``: of `Stress.results`, and of each promise."""
    if tally.any_overload is None or tally.overload_most is None:
        return {}, [{}] * tally.violations.shape[2]
    slots = tally.overload_most.shape[-1]
    hits = tally.violations[..., -slots:]
    low, high = interval(tally.any_overload[m, s : s + 1])
    most, mean = tally.overload_most[m, s], mean_overload(tally, hits)[m, s]
    ours = {
        "overloaded": tally.any_overload[m, s] / draws,
        "overloaded_lower": low[0],
        "overloaded_upper": high[0],
        "overload_max": float(most.max(initial=0.0)),
    }
    none = {"overload_mean": np.nan, "overload_max": np.nan}
    others = tally.violations.shape[2] - slots
    loads = [{"overload_mean": float(a), "overload_max": float(b)} for a, b in zip(mean, most, strict=True)]
    return ours, [none] * others + loads


def _rows(
    promises: list[str],
    exposure: Exposure,
    tally: Tally,
    m: int,
    scales: np.ndarray,
    draws: int,
    confidence: float,
    named: dict[str, Any],
    distribution: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `Stress.results` and `Stress.promises` of pair ``m`` of a block."""
    first = tally.first[m]
    top = int(np.argmax(first))
    nominal, swing = float(exposure.nominal_cost[m]), float(exposure.swing[m])
    mean = mean_share(tally, draws)[m]
    sd = float(np.sqrt(max(mean_of_squares(tally, draws)[m] - mean**2, 0.0)))
    below = np.cumsum(tally.histogram[m])
    upper_edge = [(int(np.searchsorted(below, np.ceil(q * draws))) + 1) / BINS for q in QUANTILES]
    results, per_promise = [], []
    for s, scale in enumerate(scales.tolist()):
        reach = scale * swing

        def interval(hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if distribution == "worst":  # not a draw: it breaks or it does not
                return hits.astype(np.float64), hits.astype(np.float64)
            return clopper_pearson(hits, draws, confidence)

        low, high = interval(np.append(tally.violations[m, s], tally.any_violation[m, s]))
        where = {"distribution": distribution, "scale": scale, "draws": draws}
        loads, of_promise = _overload(tally, m, s, draws, interval)
        most = min(tally.most[m], 1.0)
        results.append(
            named
            | {"broken_limits": exposure.broken[m]}
            | where
            | {
                "violations": int(tally.any_violation[m, s]),
                "probability": tally.any_violation[m, s] / draws,
                "lower": low[-1],
                "upper": high[-1],
                "breaks_at": float(tally.breaks_at[m]),
                "first": promises[top] if first[top] else "",
                "first_share": first[top] / draws,
                "nominal_cost": nominal,
                "cost_mean": nominal + reach * mean,
                "cost_sd": reach * sd,
                "cost_min": nominal + reach * float(tally.least[m]),
                "cost_max": nominal + reach * float(most),
            }
            | {
                f"cost_q{100 * q:02.0f}": nominal + reach * min(edge, most)
                for q, edge in zip(QUANTILES, upper_edge, strict=True)
            }
            | {"resolution": reach / BINS}
            | loads
        )
        per_promise += [
            named
            | where
            | {
                "promise": name,
                "violations": int(tally.violations[m, s, i]),
                "probability": tally.violations[m, s, i] / draws,
                "lower": low[i],
                "upper": high[i],
                "first_share": first[i] / draws,
            }
            | of_promise[i]
            for i, name in enumerate(promises)
        ]
    return results, per_promise
