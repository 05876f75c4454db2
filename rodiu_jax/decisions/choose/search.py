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

import numpy as np
from jaxtyping import Bool, Float64

from rodiu_jax.decisions.choose.answer import Choice, make_answer
from rodiu_jax.decisions.choose.book import Book, Task, subtract_optimum
from rodiu_jax.decisions.choose.candidates import (
    deployments_of,
    neighbours,
    sort_pairs,
    triples_near,
)
from rodiu_jax.decisions.choose.criteria import Criterion
from rodiu_jax.decisions.choose.criterion_table import CRITERIA
from rodiu_jax.decisions.choose.crossing import Option, cross
from rodiu_jax.decisions.sources import bracket_all, mean_scenario
from rodiu_jax.errors import InputError
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment
from rodiu_jax.model.tolerances import RECOURSE_GAP, SAME_COST
from solvers.answers import Answers

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
"""Most scenarios that are solved exactly to settle which candidate regrets least."""

_EXACT_TOGETHER = 8
"""Scenarios solved exactly before the candidates are compared again."""

_BROKEN = 1e15
"""What a broken promise counts for when neighbours are screened, $."""


def choose(
    instances: Instances,
    *,
    answers: Answers | None = None,
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
      instances: the scenarios.
      answers: a bracket of each one's own optimum; they are bracketed if it is not given.
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
    if answers is None:
        answers = bracket_all(instances, gap=gap, quiet=quiet)
    task = Task(instances, answers, criterion, CRITERIA[criterion].load()(level), recourse, gap, seed, quiet)
    book = Book(task)
    average = _deploy_for_mean(instances)
    book.add(book.new_options(list(dict.fromkeys([*deployments_of(answers, _MOST), average]))))
    _search(book)
    if task.criterion.of_regrets:
        _settle_regrets(book)
    best = book.best() if book.feasible_shares().max() > 0 else _find_nearest(book)
    return make_answer(book, best, average, hold_out)


def _find_nearest(book: Book) -> int:
    """Find what to rent if any share might stay unserved, where no candidate keeps its promises in any scenario."""
    task, instances = book.task, book.task.instances
    lifted = instances.with_fields(unmet_cap=np.ones(instances.size))
    nearest = choose(
        lifted,
        criterion=task.name,
        level=task.criterion.level,
        recourse=task.recourse,
        gap=task.gap,
        seed=task.seed,
        quiet=task.quiet,
    ).deployment
    book.add(book.new_options([nearest]))
    return next(q for q, option in enumerate(book.options) if option.deployment == nearest)


def _deploy_for_mean(instances: Instances) -> Deployment:
    """Return what is best to rent in the mean scenario, to `RECOURSE_GAP`; nothing where that has no plan."""
    from solvers.exact import solve_instance

    plan = solve_instance(mean_scenario(instances), 0, gap=RECOURSE_GAP, time_limit=_SECONDS).plan
    return () if plan is None else sort_pairs(plan.deployments)


def _search(book: Book) -> None:
    """Move to the best neighbour as long as one is better."""
    instances = book.task.instances
    for number in range(_ROUNDS):
        best = book.best()
        pool = triples_near(instances, [option.deployment for option in book.options])
        options = book.new_options(neighbours(book.options[best].deployment, pool))
        if instances.size > _SCREEN and options:
            options = _screen(book, best, options, number)
        before = len(book.options)
        book.add(options)
        if book.best() < before:
            return


def _screen(book: Book, best: int, options: list[Option], number: int) -> list[Option]:
    """Keep the options that beat the present candidate on some scenarios: those that the criterion decides by."""
    task = book.task
    own = book.measure(book.costs.upper[[best]])[0]
    rows = task.criterion.screening_rows(own, _SCREEN, np.random.default_rng([task.seed, number]))
    upper = cross(options, task.instances.take(rows)).upper
    score = _score(book.measure(upper, rows), task.criterion)
    present = _score(book.measure(book.costs.upper[[best]][:, rows], rows), task.criterion)
    order = np.argsort(score, kind="stable")[:_PROMISING]
    return [options[q] for q in order if score[q] < present[0]]


def _score(costs: Float64[np.ndarray, "Q S"], criterion: Criterion) -> Float64[np.ndarray, " Q"]:
    """Return what neighbours are screened by: broken promises first, then the criterion on these scenarios."""
    finite = np.isfinite(costs)
    return criterion.screening_value(np.where(finite, costs, 0.0)) + _BROKEN * (~finite).sum(1)


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
