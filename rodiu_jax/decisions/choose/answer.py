"""The answer of a choice: what to rent, what it costs on the criterion, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int

from rodiu_jax.analysis.intervals import clopper_pearson, count_effective
from rodiu_jax.decisions.choose.book import Book, measure_share, subtract_optimum
from rodiu_jax.decisions.choose.criteria import Cvar, Expected, normalize
from rodiu_jax.decisions.choose.crossing import Option, cross, with_recourse
from rodiu_jax.decisions.sources import bracket_all
from rodiu_jax.io.files import json_number
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan
from rodiu_jax.model.tolerances import RECOURSE_GAP

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Unseen:
    """Scenarios to judge a choice by, and how much each counts; None: all alike, 0: not at all."""

    instances: Instances
    weights: Float64[np.ndarray, " B"] | None = None


@dataclass(frozen=True)
class HeldOut:
    """The chosen plan in scenarios that no choice has seen.

    Shares are by weight. Where the weights differ, intervals count so many scenarios as tell as much with equal ones.

    Attributes:
      scenarios: how many.
      value: the criterion there, $ per period; inf where a promise breaks in one of them.
      interval: 95 % interval of the criterion over all scenarios, by sampling; nan where a sample cannot tell.
      feasible_share, feasible_interval: share in which every promise holds, and its exact 95 % interval.
      exceeded_interval: exact 95 % interval of the share of scenarios that are worse than the worst one chosen with.
    """

    scenarios: int
    value: float
    interval: tuple[float, float]
    feasible_share: float
    feasible_interval: tuple[float, float]
    exceeded_interval: tuple[float, float]


@dataclass(frozen=True)
class Choice:
    """What to rent, and what is known of it. Money in $ per rental period.

    Attributes:
      criterion, level, recourse: as asked for.
      deployment: what to rent; ``plan`` is its fixed routing, without recourse.
      meets: whether every promise holds in every scenario; otherwise this is the nearest candidate: the one that keeps
        them most often, or where none ever does, the one to choose if any share of the queries might stay unserved.
      value: the criterion at the costs of plans that the independent checker accepts; nan where not ``meets``.
      lower, upper: the chosen plan's own criterion, as far as its brackets tell; ``upper`` is ``value``.
      best_possible: no deployment whatever has a smaller value (0 for regret).
      feasible_share: share of the scenarios, by weight, in which every promise holds; ``broken`` counts what breaks.
      candidates: how many deployments were crossed with scenarios.
      scenarios, hopeless: how many scenarios were chosen with, and in how many of them no plan exists at all.
      unservable: query types that nobody can serve, with the reason, and in how many of the hopeless scenarios.
      stochastic: lower and upper bound of what knowing the spread of scenarios is worth: expected cost of the mean
        scenario's deployment less that of this one; None unless the criterion is expected cost with recourse.
      otherwise: the criterion with the same deployment and the other kind of routing (the best fixed one, or chosen
        anew), over the scenarios in which it keeps every promise; and their share.
      effective_scenarios: how many scenarios of equal weight tell as much; None where all weigh the same by default.
      held_out: the plan in unseen scenarios, or None where there are none.
      table: a row per candidate crossed with all scenarios: deployment, expected, cvar, worst, regret, regret_lower,
        feasible_share, frontier (no other has both a smaller expected cost and a smaller CVaR), chosen.
    """

    criterion: str
    level: float
    recourse: bool
    deployment: Deployment
    plan: Plan | None
    meets: bool
    value: float
    lower: float
    upper: float
    best_possible: float
    feasible_share: float
    broken: dict[str, int]
    candidates: int
    scenarios: int
    hopeless: int
    unservable: dict[str, int]
    stochastic: tuple[float, float] | None
    otherwise: tuple[float, float]
    effective_scenarios: float | None
    held_out: HeldOut | None
    table: pd.DataFrame = field(repr=False)

    @property
    def gap(self) -> float:
        """Relative: how much better than the chosen plan any deployment could be, at most."""
        return (self.value - self.best_possible) / abs(self.value) if self.value else 0.0

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``rodiu choose --json``; what is not known is null."""
        front: Any = self.table[self.table["frontier"] | self.table["chosen"]]
        bound = self.lower if self.criterion == "regret" else self.best_possible
        held = self.held_out
        return {
            "criterion": self.criterion,
            "level": self.level,
            "recourse": self.recourse,
            "meets": self.meets,
            "value": json_number(self.value),
            "lower_bound": json_number(bound),
            "upper_bound": json_number(self.upper),
            "interval": [json_number(self.lower), json_number(self.upper)],
            "gap": None if self.criterion == "regret" else json_number(self.gap),
            "feasible_share": self.feasible_share,
            "broken": self.broken,
            "deployments": [d.to_json() for d in self.deployment],
            "plan": None if self.plan is None else self.plan.to_json(),
            "candidates": self.candidates,
            "scenarios": self.scenarios,
            **({} if self.effective_scenarios is None else {"effective_scenarios": self.effective_scenarios}),
            "hopeless": self.hopeless,
            **({"unservable": self.unservable} if self.unservable else {}),
            "value_of_stochastic_solution": (
                None if self.stochastic is None else [json_number(v) for v in self.stochastic]
            ),
            f"{'without' if self.recourse else 'with'}_recourse": {
                "value": json_number(self.otherwise[0]),
                "feasible_share": self.otherwise[1],
            },
            "hold_out": None
            if held is None
            else {
                "scenarios": held.scenarios,
                "value": json_number(held.value),
                "interval": [json_number(v) for v in held.interval],
                "feasible_share": held.feasible_share,
                "feasible_interval": list(held.feasible_interval),
                "exceeded_interval": list(held.exceeded_interval),
            },
            "frontier": [
                {str(k): json_number(v) if isinstance(v, float) else v for k, v in row.items()}
                for row in front.to_dict(orient="records")
            ],
        }


def make_answer(
    book: Book, best: int, average: Deployment, hold_out: Unseen | None, *, weighted: bool = False
) -> Choice:
    """Say what is known of option ``best``.

    Args:
      average: what is best to rent in the mean scenario.
      hold_out: scenarios to judge the choice by.
      weighted: whether the scenarios were given weights.
    """
    task, option = book.task, book.options[best]
    criterion, instances, weights = task.criterion, task.instances, task.weights
    upper = _check_costs(option, instances)
    meets = bool(book.feasible_shares()[best] == 1.0 and np.isfinite(upper).all())
    value = float(criterion.value(book.measure(upper[None])[0], weights)) if meets else math.nan
    if criterion.of_regrets:
        lower, possible = float(book.regret_floors()[best]), 0.0
    else:
        lower = float(criterion.value(book.costs.lower[best], weights))
        possible = float(criterion.value(book.optimum_lower, weights))
    stochastic = None
    if task.name == "expected" and task.recourse and meets:
        mean = next(q for q, o in enumerate(book.options) if o.deployment == average)
        low, high = (float(criterion.value(c[mean], weights)) for c in book.costs[:2])
        stochastic = max(low - value, 0.0), high - lower
    return Choice(
        criterion=task.name,
        level=criterion.level,
        recourse=task.recourse,
        deployment=option.deployment,
        plan=option.plan,
        meets=meets,
        value=value,
        lower=min(lower, value) if meets else math.nan,
        upper=value,
        best_possible=min(possible, value) if meets else possible,
        feasible_share=float(measure_share(np.isfinite(upper), weights)),
        broken=book.costs.broken[best],
        candidates=len({o.deployment for o in book.options} | book.tried),
        scenarios=instances.size,
        hopeless=int((task.answers.lower == math.inf).sum()),
        unservable=_count_unservable(instances, np.flatnonzero(task.answers.lower == math.inf)),
        stochastic=stochastic,
        otherwise=_route_otherwise(book, option.deployment),
        effective_scenarios=count_effective(weights) if weighted else None,
        held_out=None if hold_out is None else _judge_by(hold_out, book, best),
        table=_tabulate_options(book, best),
    )


def _count_unservable(instances: Instances, hopeless: Int[np.ndarray, " H"]) -> dict[str, int]:
    """Count in how many of the hopeless scenarios nobody can serve which types, by their names and the reason."""
    from solvers.unservable import find_unservable, group_reasons

    found = Counter(
        f"{names}: {reason}"
        for b in hopeless.tolist()
        for reason, names in group_reasons(find_unservable(instances, b)).items()
    )
    return dict(found.most_common())


def _route_otherwise(book: Book, deployment: Deployment) -> tuple[float, float]:
    """Return the criterion with the other kind of routing, where promises hold, and the share of scenarios that do."""
    options = book.fixed_options([deployment]) if book.task.recourse else with_recourse([deployment])
    if not options:
        return math.inf, 0.0
    upper = cross(options, book.task.instances).upper
    share = measure_share(np.isfinite(upper), book.task.weights)
    value = book.values_where_feasible(upper)
    best = int(np.lexsort((value, -share))[0])
    return float(value[best]), float(share[best])


def _check_costs(option: Option, instances: Instances) -> Float64[np.ndarray, " B"]:
    """Return the costs of an option's plans as the independent checker computes them; inf where it refuses."""
    from rodiu_jax.model.check import check_plan
    from solvers.recourse import recourse_plans

    if option.plan is None:
        verdicts = recourse_plans(instances, [option.deployment], gap=RECOURSE_GAP)[2][0]
    else:
        verdicts = [check_plan(option.plan, instances, b) for b in range(instances.size)]
    return np.array([v.costs["total_cost"] if v is not None and v.feasible else math.inf for v in verdicts])


def _judge_by(unseen: Unseen, book: Book, best: int) -> HeldOut:
    """Say how option ``best`` does in scenarios that no choice has seen."""
    task, option = book.task, book.options[best]
    instances = unseen.instances
    weights = normalize(unseen.weights, instances.size)
    if (weights == 0).any():
        instances, weights = instances.take(np.flatnonzero(weights > 0)), weights[weights > 0]
    costs = cross([option], instances).upper[0]
    feasible, measured = np.isfinite(costs), costs
    if task.criterion.of_regrets:
        own = bracket_all(instances, gap=task.gap, quiet=task.quiet, title="bracket what was held out")
        measured = subtract_optimum(costs[None], own.lower)[0]
    worst = book.measure(book.costs.upper)[best].max()
    return HeldOut(
        scenarios=len(costs),
        value=float(task.criterion.value(measured, weights)),
        interval=task.criterion.sampling_interval(measured, weights, seed=task.seed),
        feasible_share=float(measure_share(feasible, weights)),
        feasible_interval=_share_interval(feasible, weights),
        exceeded_interval=_share_interval(measured > worst, weights),
    )


def _share_interval(flags: Bool[np.ndarray, " B"], weights: Float64[np.ndarray, " B"]) -> tuple[float, float]:
    """Return the 95 % interval of the probability of a flag, exact where all weights are equal."""
    equal = bool((weights == weights[0]).all())
    trials = float(len(flags)) if equal else count_effective(weights)
    hits = float(flags.sum()) if equal else float(measure_share(flags, weights)) * trials
    low, high = clopper_pearson(hits, np.array(trials))
    return float(low), float(high)


def _tabulate_options(book: Book, best: int) -> pd.DataFrame:
    import pandas as pd

    upper = book.costs.upper
    weights = book.task.weights
    expected = np.asarray(Expected().value(upper, weights))
    tail = np.asarray(Cvar(book.task.criterion.level).value(upper, weights))
    frontier = [
        bool(np.isfinite(e) and not ((expected <= e) & (tail <= t) & ((expected < e) | (tail < t))).any())
        for e, t in zip(expected, tail, strict=True)
    ]
    return pd.DataFrame(
        {
            "deployment": ["; ".join(map(str, o.deployment)) or "nothing" for o in book.options],
            "expected": expected,
            "cvar": tail,
            "worst": upper.max(1),
            "regret": subtract_optimum(upper, book.optimum_lower).max(1),
            "regret_lower": book.regret_floors(),
            "feasible_share": book.feasible_shares(),
            "frontier": frontier,
            "chosen": np.arange(len(upper)) == best,
        }
    )
