"""What robust rates cost and buy: cost and overload over `gamma_throughput`, beside plain headroom of the same cost.

Every scenario is solved at every Gamma_q, and once more for every factor on its traffic with all rates trusted. The
plans are costed at the true traffic, and all meet the same draws of shortfalls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from rodiu_jax.analysis.intervals import bertsimas_sim, clopper_pearson
from rodiu_jax.decisions.stress.linear_forms import Forms, expose
from rodiu_jax.decisions.stress.tally import PAIRS_AT_ONCE, draw_tally, quantile_table
from rodiu_jax.model.evaluation import score_pairs
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, plan_arrays

if TYPE_CHECKING:
    import pandas as pd

    from solvers.answers import Answers

FACTORS = (1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0)
"""Plain headroom that robust rates are compared with: factors on the traffic that is bought for."""


@dataclass(frozen=True)
class RateRobustness:
    """What `compare_rates` found; costs in $ per period, means over the scenarios that have a plan in all cases.

    Attributes:
      curve: a row per ``gamma`` (of `gamma_throughput`): ``lower_bound``, ``upper_bound``, ``cost`` (of the plans);
        ``uniform``, ``beta`` (share of periods in which some pair has more load than it may, each with its exact
        interval); ``bound`` (proven for any shortfalls symmetric about a half or smaller, summed over pairs);
        ``factor`` (the largest plain headroom that costs no more, interpolated between those of ``headroom``; inf where
        even the largest costs less) and ``factor_uniform`` (overload with that, interpolated; nan where it is inf).
      headroom: a row per ``factor`` on the traffic, with all rates trusted: ``cost``, ``uniform``, ``beta``.
      scenarios, left_out: how many count, and how many do not.
    """

    curve: pd.DataFrame
    headroom: pd.DataFrame
    scenarios: int
    left_out: int


def compare_rates(
    instances: Instances,
    levels: Sequence[float],
    *,
    solve: Callable[[Instances], Answers],
    reality: str,
    draws: int,
    confidence: float,
    seed: int,
) -> RateRobustness | None:
    """Compare robust rates with plain headroom; None where no scenario has a plan in all cases.

    Args:
      instances: scenarios with rates.
      levels: increasing budgets of uncertainty.
      solve: gives every scenario's optimum.
      reality: the mode in which deviations of delays and errors turn out.
    """
    import pandas as pd

    certain = instances.with_uncertainty(reality)
    cases, scenario = len(levels) + len(FACTORS), np.arange(instances.size)
    gamma = np.repeat([*levels, *[0.0] * len(FACTORS)], instances.size)
    factor = np.repeat([*[1.0] * len(levels), *FACTORS], instances.size)
    at = np.tile(scenario, cases)
    rate = np.asarray(instances.fields.arrival_rate)
    rate = np.asarray(np.broadcast_to(rate, (instances.size, instances.shape[0])))
    batch = certain.take(at).with_fields(gamma_throughput=gamma, arrival_rate=rate[at] * factor[:, None])
    answers = solve(batch)
    planned = np.asarray(answers.has_plan.reshape(cases, -1).all(0))
    if not planned.any():
        return None
    kept = np.flatnonzero(planned[at])
    answers = answers.take(kept)
    plans = [p for p in answers.plans(at[kept].tolist()) if p is not None]
    found = _draw_overloads(plans, certain, reality, gamma[kept], draws, seed)
    found |= {"lower_bound": answers.lower, "upper_bound": answers.upper}
    # C,B: of each case the scenarios that count
    table = {name: values.reshape(cases, -1) for name, values in found.items()}
    rows = [_summarize_case({n: a[c] for n, a in table.items()}, draws, confidence) for c in range(cases)]
    headroom = [{"factor": f} | row for f, row in zip(FACTORS, rows[len(levels) :], strict=True)]
    costs = np.maximum.accumulate([row["cost"] for row in headroom])
    curve = []
    for level, case, row in zip(levels, range(cases), rows[: len(levels)], strict=False):
        bounds = {n: float(table[n][case].mean()) for n in ("lower_bound", "upper_bound", "bound")}
        same = float(np.interp(row["cost"], costs, FACTORS, right=np.inf))
        if row["cost"] <= costs[-1]:
            likely = float(np.interp(same, FACTORS, [r["uniform"] for r in headroom]))
        else:
            likely = float("nan")
        curve.append({"gamma": level} | bounds | row | {"factor": same, "factor_uniform": likely})
    return RateRobustness(
        pd.DataFrame(curve), pd.DataFrame(headroom), int(planned.sum()), int((~planned).sum())
    )


def _draw_overloads(
    plans: list[Plan],
    instances: Instances,
    reality: str,
    gamma: Float64[np.ndarray, " R"],
    draws: int,
    seed: int,
) -> dict[str, Float64[np.ndarray, " R"]]:
    """Cost plans at the true traffic, and count the draws in which some pair of theirs has more load than it may."""
    arrays, scenario = plan_arrays(plans, instances), np.array([p.instance for p in plans], np.int64)
    routes = int((arrays.share > 0).sum(-1).max(initial=1))
    table, scale = quantile_table((2.0, 5.0)), np.ones(1)
    result = {name: np.zeros(len(plans)) for name in ("uniform", "beta", "bound")}
    rows = np.arange(len(plans))
    for block in np.array_split(rows, -(-len(rows) // PAIRS_AT_ONCE)):
        forms = expose(
            instances, arrays, block, scenario[block], reality=reality, seed=seed, routes=routes
        ).forms
        for name, quantiles in (("uniform", None), ("beta", table)):
            tally = draw_tally(forms, draws=draws, scales=scale, table=quantiles)
            assert tally.any_overload is not None, "scenarios with rates"
            result[name][block] = tally.any_overload[:, 0]
        result["bound"][block] = _bound_overload(forms, gamma[block])
    costs = np.asarray(score_pairs(instances, arrays, rows, scenario).costs)[:, 0]
    return result | {"cost": costs}


def _bound_overload(forms: Forms, gamma: Float64[np.ndarray, " Q"]) -> Float64[np.ndarray, " Q"]:
    """Bound the probability that some pair of a plan protected with ``gamma`` has too much load."""
    assert forms.load is not None, "scenarios with rates"
    room = forms.room[:, -forms.load.shape[2] :]
    count: Int64[np.ndarray, "Q E"] = (forms.load > 0).sum(1)
    n = np.where(forms.load.sum(1) > room, count, 0)  # a pair that bears them all is never overloaded
    g = gamma[:, None]
    return np.minimum(bertsimas_sim(n, np.where(g >= n, n, 2 * g - n)).sum(1), 1.0)


def _summarize_case(
    case: dict[str, Float64[np.ndarray, " B"]], draws: int, confidence: float
) -> dict[str, Any]:
    """Return the mean cost, and the share of draws with an overload with the exact interval of the pooled draws."""
    row: dict[str, Any] = {"cost": float(case["cost"].mean())}
    trials = draws * len(case["cost"])
    for name in ("uniform", "beta"):
        hits = case[name].sum()
        low, high = clopper_pearson(hits, trials, confidence)
        row |= {name: float(hits / trials), f"{name}_lower": float(low), f"{name}_upper": float(high)}
    return row
