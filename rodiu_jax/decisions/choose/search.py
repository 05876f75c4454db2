"""One deployment for many scenarios: which to rent, what it costs on each criterion, and how sure that is.

Candidates are the deployments that are best for some scenario, for the mean scenario, or none at all; local search
adds their neighbours. Each is crossed with every scenario, with the routing chosen anew in each (recourse) or fixed,
and a cost is a bracket [lower, upper]. A candidate that breaks a promise or a limit in a scenario costs infinitely much
there. Whoever keeps all promises in all scenarios competes on the criterion; where nobody does, the answer says so and
names the candidate that keeps them most often.

No deployment can cost less in a scenario than the scenario's own optimum. Every criterion is monotone in the costs, so
its value at the scenarios' certified lower bounds is a lower bound for all deployments: for the expected cost, that of
the two-stage problem (Birge and Louveaux, Introduction to Stochastic Programming, 2011, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.analysis.intervals import clopper_pearson
from rodiu_jax.decisions.choose.candidates import (
    found_deployments,
    neighbours,
    sorted_pairs,
    triples_near,
)
from rodiu_jax.decisions.choose.criteria import CRITERIA, cvar, sampling_interval, value_of
from rodiu_jax.decisions.choose.crossing import Costs, Option, costs_of, with_recourse, without_recourse
from rodiu_jax.decisions.sources import Known, bracketed, mean_scenario
from rodiu_jax.errors import InputError
from rodiu_jax.io.files import json_number
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment, Plan
from rodiu_jax.model.tolerances import RECOURSE_GAP

if TYPE_CHECKING:
    import pandas as pd


_MOST = 200
"""Deployments taken from the scenarios' own plans: the most frequent ones."""

_ROUNDS = 20
"""Most moves of the local search."""

_SCREEN = 256
"""Scenarios that a neighbour must first win on, before all of them are spent on it."""

_PROMISING = 16
"""Neighbours of a move that are crossed with all scenarios."""

_SECONDS = 60.0
"""Most time for the mean scenario."""

_EXACT = 200
"""Most scenarios that are solved exactly to settle who regrets least."""


@dataclass(frozen=True)
class HeldOut:
    """The chosen plan in scenarios that no choice has seen.

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
      criterion, level, recourse: as asked.
      deployment: what to rent; ``plan`` is its fixed routing, without recourse.
      meets: whether every promise holds in every scenario; otherwise this is the nearest candidate: the one that keeps
        them most often, or where none ever does, the one to choose if any share of the queries might stay unserved.
      value: the criterion at the costs of plans that the independent checker accepts; nan where not ``meets``.
      lower, upper: the chosen plan's own criterion, as far as its brackets tell; ``upper`` is ``value``.
      best_possible: no deployment whatever has a smaller value (0 for regret).
      feasible_share: share of the scenarios in which every promise holds; ``broken`` counts what breaks.
      candidates: how many deployments were crossed with scenarios.
      scenarios, hopeless: how many scenarios were chosen with, and in how many of them no plan exists at all.
      stochastic: lower and upper bound of what knowing the spread of scenarios is worth: expected cost of the mean
        scenario's deployment less that of this one; None unless the criterion is expected cost with recourse.
      otherwise: the criterion with the same deployment and the other kind of routing (the best fixed one, or chosen
        anew), over the scenarios in which it keeps every promise; and their share.
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
    stochastic: tuple[float, float] | None
    otherwise: tuple[float, float]
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
            "deployments": [{"model": d.model, "gpu": d.gpu, "tp": d.tp} for d in self.deployment],
            "plan": None if self.plan is None else self.plan.to_json(),
            "candidates": self.candidates,
            "scenarios": self.scenarios,
            "hopeless": self.hopeless,
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


def choose(
    known: Known | Instances,
    *,
    criterion: str = "expected",
    level: float = 0.95,
    recourse: bool = True,
    hold_out: Instances | None = None,
    gap: float = 0.01,
    seed: int = 0,
    quiet: bool = True,
) -> Choice:
    """Choose one deployment for many equally likely scenarios.

    Args:
      known: the scenarios, bracketed (`rodiu_jax.decisions.sources`) or not.
      criterion: ``expected`` cost, ``cvar`` (mean of the dearest share 1 - level), ``worst`` case, or ``regret`` (worst
        case of the cost less the scenario's own optimum).
      level: of CVaR, in (0, 1).
      recourse: whether routing and unmet shares are chosen anew in every scenario, or fixed with the deployment.
      hold_out: scenarios to judge the choice by; nothing else depends on them.
      gap: relative gap to which scenarios without brackets are bracketed.
      seed: of the screening and of the bootstrap.
      quiet: no progress on standard error.

    Raises:
      InputError: unknown criterion, or a level outside (0, 1).
    """
    if criterion not in CRITERIA:
        raise InputError("choose", "criterion", f"one of {', '.join(CRITERIA)}", criterion)
    if not 0.0 < level < 1.0:
        raise InputError("choose", "level", "a number between 0 and 1, both excluded", level)
    if isinstance(known, Instances):
        known = bracketed(known, gap=gap, quiet=quiet)
    book = _Book(known, criterion, level, recourse, gap, seed, quiet)
    found = found_deployments(known.plans, _MOST)
    average = _average(known.instances)
    book.add(book.options(list(dict.fromkeys([*found, average]))))
    _search(book)
    if criterion == "regret":
        book.settle()
    best = book.best() if book.share().max() > 0 else _nearest(book)
    return _answer(book, best, average, hold_out)


def _nearest(book: _Book) -> int:
    """Where no candidate keeps its promises in any scenario: what to rent if any share might stay unserved."""
    instances = book.known.instances
    lifted = instances.with_fields(unmet_cap=np.ones(instances.size))
    found = choose(
        lifted,
        criterion=book.criterion,
        level=book.level,
        recourse=book.recourse,
        gap=book.gap,
        seed=book.seed,
        quiet=book.quiet,
    )
    book.add(book.options([found.deployment]))
    return next(q for q, o in enumerate(book.found) if o.deployment == found.deployment)


def _average(instances: Instances) -> Deployment:
    """What is best to rent in the mean scenario, to 0.1 %; nothing where that has no plan."""
    from solvers.highs import solve_instance

    plan = solve_instance(mean_scenario(instances), 0, gap=1e-3, time_limit=_SECONDS).plan
    return () if plan is None else sorted_pairs(plan.deployments)


class _Book:
    """The candidates crossed with all scenarios so far."""

    def __init__(
        self, known: Known, criterion: str, level: float, recourse: bool, gap: float, seed: int, quiet: bool
    ) -> None:
        self.known, self.criterion, self.level, self.recourse = known, criterion, level, recourse
        self.gap, self.seed, self.quiet = gap, seed, quiet
        size = known.instances.size
        self.found: list[Option] = []
        self.costs = Costs(np.zeros((0, size)), np.zeros((0, size)), [])
        self.least, self.most = known.lower.copy(), known.upper.copy()  # each scenario's own optimum
        self.tried: set[Deployment] = set()

    def options(self, deployments: Sequence[Deployment]) -> list[Option]:
        """Options of deployments that were not tried before."""
        new = [d for d in deployments if d not in self.tried]
        self.tried.update(new)
        return with_recourse(new) if self.recourse else self.fixed(new)

    def fixed(self, deployments: Sequence[Deployment]) -> list[Option]:
        """Deployments with their best fixed routings."""
        offset = np.where(np.isfinite(self.least), self.least, 0.0) if self.criterion == "regret" else 0.0
        return without_recourse(
            deployments, self.known.instances, criterion=self.criterion, level=self.level, offset=offset
        )

    def add(self, options: list[Option]) -> None:
        """Cross options with all scenarios."""
        from rodiu_jax.runtime.progress import progress

        if not options:
            return
        instances = self.known.instances
        with progress(f"cross {len(options)} plans", instances.size, quiet=self.quiet) as bar:
            new = costs_of(
                options,
                instances,
                gap=RECOURSE_GAP,
                tell=lambda count: bar.advance("crossed", count=count),
            )
        self.found += options
        self.costs = Costs(
            np.concatenate([self.costs.lower, new.lower]),
            np.concatenate([self.costs.upper, new.upper]),
            self.costs.broken + new.broken,
        )
        self.most = np.minimum(self.most, new.upper.min(0))

    def measured(self, costs: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What the criterion is taken of: costs, or regrets against the scenarios' certified lower bounds."""
        return _less(costs, self.least[rows]) if self.criterion == "regret" else costs

    def values(self) -> np.ndarray:
        """The criterion of every candidate, from above; inf where a promise breaks somewhere."""
        return value_of(self.measured(self.costs.upper), self.criterion, self.level)

    def share(self) -> np.ndarray:
        """Share of the scenarios in which each candidate keeps every promise."""
        return np.isfinite(self.costs.upper).mean(1)

    def best(self) -> int:
        """The candidate with the least value; where none keeps all promises, the one that keeps them most often."""
        share, value = self.share(), self.values()
        if (share < 1.0).all():
            value = self.among_feasible(self.costs.upper)
        return int(np.lexsort((np.arange(len(value)), value, -share))[0])

    def among_feasible(self, costs: np.ndarray) -> np.ndarray:
        """The criterion of rows of costs over the scenarios that break nothing; inf where there is none."""
        found = []
        for row in self.measured(costs):
            kept = row[np.isfinite(row)]
            found.append(float(value_of(kept, self.criterion, self.level)) if len(kept) else math.inf)
        return np.array(found)

    def regret_floor(self) -> np.ndarray:
        """The least that each candidate's largest regret can be."""
        return np.maximum(_less(self.costs.lower, self.most), 0.0).max(1)

    def settle(self) -> None:
        """Solve the scenarios exactly that decide who regrets least, until one candidate is proven best or enough is
        spent."""
        from solvers.pool import solve_iter

        hopeless = self.least == math.inf
        width = np.subtract(self.most, self.least, where=~hopeless, out=np.zeros(len(hopeless)))
        exact = ~(width > 1e-6 * np.maximum(np.abs(self.most), 1.0)) | hopeless
        while exact.sum() < len(exact):
            upper = _less(self.costs.upper, self.least)
            if not np.isfinite(upper).all(1).any():
                return
            largest, worst = upper.max(1), upper.argmax(1)
            best = int(np.lexsort((np.arange(len(largest)), largest))[0])
            rivals = np.flatnonzero(self.regret_floor() < largest[best])
            order = [best, *rivals[np.argsort(largest[rivals], kind="stable")].tolist()]
            rows = [int(b) for b in dict.fromkeys(worst[order].tolist()) if not exact[b]][:8]
            if not rows or self.exact_solves >= _EXACT:
                return
            self.exact_solves += len(rows)
            for result in solve_iter(self.known.instances, rows):
                b = result.instance
                exact[b] = True
                self.least[b] = max(self.least[b], min(result.bound, self.most[b]))
                self.most[b] = max(min(self.most[b], result.objective), self.least[b])

    exact_solves = 0


def _less(costs: np.ndarray, optimum: np.ndarray) -> np.ndarray:
    """costs - optimum, (Q,B); inf where the cost is, and where the optimum is not known."""
    known = np.isfinite(costs) & np.isfinite(optimum)
    return np.where(known, np.subtract(costs, optimum, where=known, out=np.full(costs.shape, np.inf)), np.inf)


def _search(book: _Book) -> None:
    """Move to the best neighbour as long as one is better.

    A neighbour must first beat the present candidate on some scenarios: drawn at random for the expected cost, else
    those where the present candidate is worst, which decide CVaR, the worst case and regret.
    """
    instances, size = book.known.instances, book.known.instances.size
    for number in range(_ROUNDS):
        best = book.best()
        here = book.found[best].deployment
        options = book.options(neighbours(here, triples_near(instances, [o.deployment for o in book.found])))
        if size > _SCREEN and options:
            rows = _screen(book, best, number)
            some = costs_of(options, instances.take(rows), gap=RECOURSE_GAP).upper
            mine = book.measured(book.costs.upper[[best]][:, rows], rows)
            score = _score(book.measured(some, rows), book.criterion)
            promising = np.argsort(score, kind="stable")[:_PROMISING]
            worth = score < _score(mine, book.criterion)
            options = [options[q] for q in promising if worth[q]]
        before = len(book.found)
        book.add(options)
        if book.best() < before:
            return


def _screen(book: _Book, best: int, number: int) -> np.ndarray:
    size = book.known.instances.size
    if book.criterion == "expected":
        return np.sort(np.random.default_rng([book.seed, number]).choice(size, _SCREEN, replace=False))
    worst = np.argsort(-book.measured(book.costs.upper[[best]])[0], kind="stable")
    count = _SCREEN
    if book.criterion == "cvar":
        count = min(count, max(math.ceil((1.0 - book.level) * size), 1))
    return np.sort(worst[:count])


_BROKEN = 1e15
"""What a broken promise counts for when neighbours are screened, $."""


def _score(costs: np.ndarray, criterion: str) -> np.ndarray:
    """What a neighbour is screened by, (Q,B) to (Q,): broken promises first, then the criterion on these scenarios."""
    kept = np.isfinite(costs)
    known = np.where(kept, costs, 0.0)
    value = known.mean(1) if criterion in ("expected", "cvar") else known.max(1)
    return value + _BROKEN * (~kept).sum(1)


def _answer(book: _Book, best: int, average: Deployment, hold_out: Instances | None) -> Choice:
    known, criterion, level = book.known, book.criterion, book.level
    option = book.found[best]
    share = book.share()
    meets = bool(share[best] == 1.0)
    upper = _checked(option, book, known.instances, best)
    meets = meets and bool(np.isfinite(upper).all())
    value = float(value_of(book.measured(upper[None])[0], criterion, level)) if meets else math.nan
    if criterion == "regret":
        lower = float(book.regret_floor()[best])
        possible = 0.0
    else:
        lower = float(value_of(book.costs.lower[best], criterion, level))
        possible = float(value_of(book.least, criterion, level))
    stochastic = None
    if criterion == "expected" and book.recourse and meets:
        mean = next(q for q, o in enumerate(book.found) if o.deployment == average)
        low, high = (float(c[mean].mean()) for c in book.costs[:2])
        stochastic = max(low - value, 0.0), high - lower
    return Choice(
        criterion=criterion,
        level=level,
        recourse=book.recourse,
        deployment=option.deployment,
        plan=option.plan,
        meets=meets,
        value=value,
        lower=min(lower, value) if meets else math.nan,
        upper=value,
        best_possible=min(possible, value) if meets else possible,
        feasible_share=float(np.isfinite(upper).mean()),
        broken=book.costs.broken[best],
        candidates=len({o.deployment for o in book.found} | book.tried),
        scenarios=known.instances.size,
        hopeless=int((known.lower == math.inf).sum()),
        stochastic=stochastic,
        otherwise=_otherwise(book, option.deployment),
        held_out=None if hold_out is None else _held_out(book, option, value, hold_out),
        table=_table(book, best),
    )


def _otherwise(book: _Book, deployment: Deployment) -> tuple[float, float]:
    """The criterion with the other kind of routing, where promises hold, and the share of scenarios where they do."""
    instances = book.known.instances
    options = book.fixed([deployment]) if book.recourse else with_recourse([deployment])
    if not options:
        return math.inf, 0.0
    upper = costs_of(options, instances, gap=RECOURSE_GAP).upper
    share, value = np.isfinite(upper).mean(1), book.among_feasible(upper)
    best = int(np.lexsort((value, -share))[0])
    return float(value[best]), float(share[best])


def _checked(option: Option, book: _Book, instances: Instances, best: int) -> np.ndarray:
    """The costs of the chosen option's plans as the independent checker computes them; inf where it refuses."""
    from rodiu_jax.model.check import check_plan
    from solvers.recourse import recourse_plans

    if option.plan is None:
        verdicts = recourse_plans(instances, [option.deployment], gap=RECOURSE_GAP)[2][0]
    else:
        verdicts = [check_plan(option.plan, instances, b) for b in range(instances.size)]
    return np.array([v.costs["total_cost"] if v is not None and v.feasible else math.inf for v in verdicts])


def _held_out(book: _Book, option: Option, value: float, instances: Instances) -> HeldOut:
    found = costs_of([option], instances, gap=RECOURSE_GAP).upper[0]
    kept = np.isfinite(found)
    measured = found
    if book.criterion == "regret":
        own = bracketed(instances, gap=book.gap, quiet=book.quiet, title="bracket what was held out")
        measured = _less(found[None], own.lower)[0]
    worst = book.measured(book.costs.upper)[book.found.index(option)].max()
    count = len(found)
    return HeldOut(
        scenarios=count,
        value=float(value_of(measured, book.criterion, book.level)),
        interval=sampling_interval(measured, book.criterion, book.level, seed=book.seed),
        feasible_share=float(kept.mean()),
        feasible_interval=_exact_interval(int(kept.sum()), count),
        exceeded_interval=_exact_interval(int((measured > worst).sum()), count),
    )


def _exact_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a probability."""
    low, high = clopper_pearson(np.array(hits), trials)
    return float(low), float(high)


def _table(book: _Book, best: int) -> pd.DataFrame:
    import pandas as pd

    upper = book.costs.upper
    expected, tail = upper.mean(1), cvar(upper, book.level)
    frontier = [
        bool(np.isfinite(e) and not ((expected <= e) & (tail <= t) & ((expected < e) | (tail < t))).any())
        for e, t in zip(expected, tail, strict=True)
    ]
    return pd.DataFrame(
        {
            "deployment": [
                "; ".join(f"{d.model}@{d.gpu} x{d.tp}" for d in o.deployment) or "nothing" for o in book.found
            ],
            "expected": expected,
            "cvar": tail,
            "worst": upper.max(1),
            "regret": _less(upper, book.least).max(1),
            "regret_lower": book.regret_floor(),
            "feasible_share": book.share(),
            "frontier": frontier,
            "chosen": np.arange(len(upper)) == best,
        }
    )
