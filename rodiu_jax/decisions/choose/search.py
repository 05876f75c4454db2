"""One deployment for many scenarios: which to rent, what it costs on each criterion, and how sure that is.

Candidates are the deployments that are best for some scenario, for the mean scenario, or none at all; local search
adds their neighbours. Each is crossed with every scenario, with the routing chosen anew in each (recourse) or fixed,
and a cost is a bracket [lower, upper]. A candidate that breaks a promise or a limit in a scenario costs infinitely much
there. Those that keep all promises in all scenarios compete on the criterion; where none does, the answer says so and
names the candidate that keeps them most often.

No deployment can cost less in a scenario than the scenario's own optimum. Every criterion is monotone in the costs, so
its value at the scenarios' certified lower bounds is a lower bound for all deployments: for the expected cost, that of
the two-stage problem (Birge and Louveaux, Introduction to Stochastic Programming, 2011, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from rodiu_jax.decisions.choose.answer import Choice, Unseen, make_answer
from rodiu_jax.decisions.choose.book import Book, Task, subtract_optimum
from rodiu_jax.decisions.choose.candidates import (
    deployments_of,
    neighbours,
    sort_pairs,
    triples_near,
)
from rodiu_jax.decisions.choose.criteria import normalize
from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.decisions.choose.crossing import QUANTILES, Option, cross
from rodiu_jax.decisions.choose.fleet_moves import FleetMoves
from rodiu_jax.decisions.scenario_weights import check_weights
from rodiu_jax.decisions.sources import bracket_all, hard_scenarios, mean_scenario
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment
from rodiu_jax.model.tolerances import CASCADE_GAP, RECOURSE_GAP, SAME_COST
from solvers.answers import Answers
from solvers.dual.coefficients import serving_field

_MOST = 200
"""Deployments taken from the scenarios' own plans: the most frequent ones."""

_ROUNDS = 20
"""Most moves of the local search."""


_PRICED = 16
"""Scenarios by whose relaxations the triples are ranked that may come into a fleet."""


class _Stage(NamedTuple):
    """Some scenarios that a neighbour must first win on, and how many neighbours are kept."""

    scenarios: int
    kept: int


_STAGES = (_Stage(256, 16),)
"""Before all scenarios are spent on a neighbour."""

_STAGES_OF_FLEETS = (_Stage(8, 48), _Stage(32, 8))
"""The same where each neighbour costs a linear program of HiGHS in each scenario."""

_SECONDS = 60.0
"""Most time for the mean scenario."""

_EXACT = 200
"""Most scenarios that are solved exactly to settle which candidate regrets least."""

_EXACT_TOGETHER = 8
"""Scenarios solved exactly before the candidates are compared again."""

_BROKEN = 1e15
"""What a broken promise counts for when neighbours are screened, $."""


def choose(
    instances: Instances,
    *,
    answers: Answers | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    criterion: str = "expected",
    level: float = 0.95,
    recourse: bool = True,
    hold_out: Instances | None = None,
    hold_out_weights: Sequence[float] | np.ndarray | None = None,
    gap: float = 0.01,
    seed: int = 0,
    quiet: bool = True,
) -> Choice:
    """Choose one deployment for many scenarios.

    Args:
      instances: the scenarios.
      answers: a bracket of each one's own optimum; they are bracketed if it is not given.
      weights: (B,) how much each scenario counts, in any unit: its probability, or the hours of a day like it. By
        default all count alike; one that counts 0 is left out, as if it were not there.
      criterion: ``expected`` cost, ``cvar`` (mean of the dearest share 1 - level), ``worst`` case, or ``regret`` (worst
        case of the cost less the scenario's own optimum).
      level: of CVaR, in (0, 1).
      recourse: whether routing and unmet shares are chosen anew in every scenario, or fixed with the deployment.
      hold_out, hold_out_weights: scenarios to judge the choice by, and how much they count; nothing else depends on
        them.
      gap: relative gap to which scenarios without brackets are bracketed.
      seed: of the screening and of the bootstrap.
      quiet: no progress on standard error.

    Raises:
      InputError: unknown criterion, a level outside (0, 1), or weights as `check_weights` refuses them.
    """
    if criterion not in CRITERIA:
        raise InputError("choose", "criterion", f"one of {', '.join(CRITERIA)}", criterion)
    if not 0.0 < level < 1.0:
        raise InputError("choose", "level", "a number between 0 and 1, both excluded", level)
    weighted = weights is not None
    weight = check_weights(np.ones(instances.size) if weights is None else weights, instances.size)
    if (weight == 0).any():
        counted = np.flatnonzero(weight > 0)
        answers = None if answers is None else answers.take(counted)
        instances, weight = instances.take(counted), weight[counted]
    if answers is None:
        answers = bracket_all(instances, gap=gap, quiet=quiet)
    measure = CRITERIA[criterion].load()(level)
    task = Task(
        instances, answers, normalize(weight, len(weight)), criterion, measure, recourse, gap, seed, quiet
    )
    book = Book(task)
    average = _deploy_for_mean(instances, task.weights if weighted else None)
    _start(book, average)
    _search(book)
    if task.criterion.of_regrets:
        _settle_regrets(book)
    best = book.best() if book.feasible_shares().max() > 0 else _find_nearest(book)
    held = None
    if hold_out is not None:
        held = Unseen(
            hold_out, None if hold_out_weights is None else check_weights(hold_out_weights, hold_out.size)
        )
    return make_answer(book, best, average, held, weighted=weighted)


def _find_nearest(book: Book) -> int:
    """Find what to rent if any share might stay unserved, where no candidate keeps its promises in any scenario."""
    task, instances = book.task, book.task.instances
    lifted = instances.with_fields(unmet_cap=np.ones(instances.size))
    nearest = choose(
        lifted,
        weights=task.weights,
        criterion=task.name,
        level=task.criterion.level,
        recourse=task.recourse,
        gap=task.gap,
        seed=task.seed,
        quiet=task.quiet,
    ).deployment
    book.add(book.new_options([nearest]))
    return next(q for q, option in enumerate(book.options) if option.deployment == nearest)


def _deploy_for_mean(instances: Instances, weights: Float64[np.ndarray, " B"] | None) -> Deployment:
    """Return what is best to rent in the mean scenario, to `RECOURSE_GAP`; nothing where that has no plan."""
    from solvers.exact import solve_instance

    plan = solve_instance(mean_scenario(instances, weights), 0, gap=RECOURSE_GAP, time_limit=_SECONDS).plan
    return () if plan is None else sort_pairs(plan.deployments)


def _start(book: Book, average: Deployment) -> None:
    """Cross the deployments of the scenarios' own plans, none at all and ``average``, the mean scenario's.

    Fleets differ in nearly every scenario: only those that do well on some scenarios are crossed with all, and those
    of hard scenarios join them.
    """
    task = book.task
    known = deployments_of(task.answers, _MOST)
    if not serving_field(task.instances.fields):
        book.add(book.new_options(list(dict.fromkeys([*known, average]))))
        return
    book.add(book.new_options(list(dict.fromkeys([average, ()]))))
    options = book.new_options([*known, *_deploy_for_hard(task.instances)])
    for stage in _STAGES_OF_FLEETS:
        if len(options) > stage.kept and task.instances.size > stage.scenarios:
            options = _screen(book, book.best(), options, 0, stage, rivals=False)
    book.add(options)


def _deploy_for_hard(instances: Instances) -> list[Deployment]:
    """Return what is best to rent in ever harder scenarios, where these have a plan."""
    from solvers.exact import solve_instance

    hard = hard_scenarios(instances, QUANTILES)
    limit = _SECONDS / len(QUANTILES)
    plans = [solve_instance(hard, b, gap=CASCADE_GAP, time_limit=limit).plan for b in range(1, hard.size)]
    return [sort_pairs(plan.deployments) for plan in plans if plan is not None]


def _search(book: Book) -> None:
    """Move to the best neighbour as long as one is better."""
    instances, moves = book.task.instances, None
    if serving_field(instances.fields):
        moves = FleetMoves(instances, instances.take(_pick_rows(book, book.best(), 0, _PRICED)))
    for number in range(_ROUNDS):
        before = book.best()
        for near in _propose(book, book.options[before].deployment, moves):
            options = book.new_options(near)
            for stage in _STAGES if moves is None else _STAGES_OF_FLEETS:
                if options and instances.size > stage.scenarios:
                    options = _screen(book, before, options, number, stage)
            book.add(options)
            if book.best() != before:
                break
        else:
            return


def _propose(book: Book, deployment: Deployment, moves: FleetMoves | None) -> Iterator[list[Deployment]]:
    """Yield the neighbours of a deployment, the next ones only where the first are no better."""
    task = book.task
    if moves is None:
        pool = triples_near(task.instances, [option.deployment for option in book.options])
        yield neighbours(deployment, pool)
        return
    yield moves.resize(deployment)
    yield moves.exchange(deployment)


def _screen(
    book: Book, best: int, options: list[Option], number: int, stage: _Stage, *, rivals: bool = True
) -> list[Option]:
    """Keep the options that do best on some scenarios: those that the criterion decides by.

    Args:
      rivals: keep only those that beat option ``best`` there.
    """
    task = book.task
    rows = _pick_rows(book, best, number, stage.scenarios)
    upper = cross(options, task.instances.take(rows)).upper
    score = _score(book, upper, rows)
    present = _score(book, book.costs.upper[[best]][:, rows], rows)[0] if rivals else math.inf
    order = np.argsort(score, kind="stable")[: stage.kept]
    return [options[q] for q in order if score[q] < present]


def _pick_rows(book: Book, best: int, number: int, count: int) -> Int64[np.ndarray, " S"]:
    """Pick the scenarios by which rivals of option ``best`` are judged first."""
    task = book.task
    own = book.measure(book.costs.upper[[best]])[0]
    draw = np.random.default_rng([task.seed, number])
    return task.criterion.screening_rows(own, count, draw, task.weights)


def _score(
    book: Book, upper: Float64[np.ndarray, "Q S"], rows: Int64[np.ndarray, " S"]
) -> Float64[np.ndarray, " Q"]:
    """Return what neighbours are screened by: broken promises first, then the criterion on these scenarios."""
    costs = book.measure(upper, rows)
    finite = np.isfinite(costs)
    value = book.task.criterion.screening_value(np.where(finite, costs, 0.0), book.task.weights[rows])
    return value + _BROKEN * (~finite).sum(1)


def _settle_regrets(book: Book) -> None:
    """Solve exactly the scenarios that decide which candidate regrets least.

    It ends when one candidate is proven best, or when `_EXACT` scenarios were solved.
    """
    from solvers.pool import solve_iter

    lower, upper = book.optimum_lower, book.optimum_upper
    hopeless = book.hopeless()
    width = np.subtract(upper, lower, where=~hopeless, out=np.zeros(len(hopeless)))
    exact = ~(width > SAME_COST * np.maximum(np.abs(upper), 1.0)) | hopeless
    solved = 0
    while exact.sum() < len(exact) and solved < _EXACT:
        rows = _deciding_scenarios(book, exact)
        solved += len(rows)
        if not rows:
            return
        for b, answer in zip(rows, solve_iter(book.task.instances, rows), strict=True):
            exact[b] = True
            lower[b] = max(lower[b], min(answer.lower, upper[b]))
            upper[b] = max(min(upper[b], answer.upper), lower[b])


def _deciding_scenarios(book: Book, exact: Bool[np.ndarray, " B"]) -> list[int]:
    """Return the scenarios, not yet exact, in which the best candidate and its rivals regret most."""
    regrets = subtract_optimum(book.costs.upper, book.optimum_lower)  # Q,B
    if not np.isfinite(regrets).all(1).any():
        return []
    largest, worst = regrets.max(1), regrets.argmax(1)
    best = int(np.lexsort((np.arange(len(largest)), largest))[0])
    rivals = np.flatnonzero(book.regret_floors() < largest[best])
    order = [best, *rivals[np.argsort(largest[rivals], kind="stable")].tolist()]
    rows = [int(b) for b in dict.fromkeys(worst[order].tolist()) if not exact[b]]
    return rows[:_EXACT_TOGETHER]
