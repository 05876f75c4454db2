"""``python -m bench.fleet_brackets``: brackets and the cascade on fleets, to 1 %.

Scenarios of `bench.fleets` of the small shape. Brackets, of the first few of each case, use no HiGHS. The cascade gives
fleets to HiGHS at once, where some are closed by linear programs alone: by the relaxation and a local search of fleets
near it. Exact is the same question to `solvers.pool`, on as many processes. Programs are compiled, and processes
started, before; times are by the clock, for all scenarios of a case together. Wanted: gaps of brackets of at most 6 %
on average, and of at most 2 % where twenty GPUs or more are rented; the cascade never slower than exact by more than a
tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np

from bench.fleets import GAMMAS, RENTS, SHAPES, serving
from bench.measure import describe_this_machine, time_call
from bench.records import Study
from bench.study import out_option, read_words, save_study, show_study
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from solvers import exact
from solvers.answers import Answers
from solvers.bracket import brackets
from solvers.cascade import cascade
from solvers.exact import solve_instance
from solvers.pool import Pool, solve

GAP = 0.01

_COLUMNS = [
    *("rent, $/h", "gamma", "quota", "scenarios", "GPUs, median"),
    *("brackets", "gap, mean, %", "most, %", "closed to 1 %, %", "s each"),
    *("cascade, s each", "exact, s each", "cascade / exact", "without branch and bound, %", "right"),
]


def count_without_milps(instances: Instances) -> int:
    """Count the scenarios that exact closes to `GAP` without asking HiGHS for whole numbers."""
    real, asked = exact.run_highs, 0

    def watched(formulation: exact.Formulation, **options: Any) -> exact.HighsAnswer:
        nonlocal asked
        asked += not options.get("relax")
        return real(formulation, **options)

    closed = 0
    with mock.patch.object(exact, "run_highs", watched):
        for b in range(instances.size):
            asked = 0
            closed += solve_instance(instances, b, gap=GAP).status.closed and not asked
    return closed


def count_gpus(answers: Answers) -> float:
    """Return the median number of GPUs of the plans."""
    rented = [plan.deployments for plan in answers.plans() if plan is not None]
    return float(np.median([sum(d.tp * d.replicas for d in deployed) for deployed in rented]))


def make_row(
    case: Sequence[str | float], instances: Instances, bracketed: int, pool: Pool
) -> list[str | int | float | None]:
    """Measure a case, brackets of its first scenarios only; return a row of `_COLUMNS`."""
    n, first = instances.size, instances.take(np.arange(min(bracketed, instances.size)))
    brackets(first.take([0]), gap=GAP)  # compiles
    solve(instances.take(np.arange(min(2 * pool.workers, n))), gap=GAP, workers=pool)  # starts all processes
    found, ours = time_call(lambda: brackets(first, gap=GAP))
    steps, each = time_call(
        lambda: Answers.concatenate(list(cascade(instances, gap=GAP, workers=pool)), names=instances.names)
    )
    best, alone = time_call(lambda: solve(instances, gap=GAP, workers=pool))
    slack, known = 1e-6 * np.abs(best.upper), np.arange(len(found))
    lower, upper = np.maximum(steps.lower, best.lower), np.minimum(steps.upper, best.upper)
    lower[known], upper[known] = np.maximum(lower[known], found.lower), np.minimum(upper[known], found.upper)
    return [
        *case,
        n,
        count_gpus(best),
        len(found),
        100 * float(np.mean(found.gap)),
        100 * float(np.max(found.gap)),
        100 * float(np.mean(found.is_any(Status.OPTIMAL, Status.GAP_LIMIT))),
        ours / len(found),
        each / n,
        alone / n,
        each / alone,
        100 * count_without_milps(instances) / n,
        "yes" if (lower <= upper + slack).all() else "NO",
    ]


@click.command()
@click.option("--rent", "rents", multiple=True, type=float, help="$/h; default: 2, 30, 300, 3000.")
@click.option("--gamma", "gammas", multiple=True, type=float, help="Default: 0, 2.")
@click.option("--scenarios", default=40, show_default=True, type=click.IntRange(min=1), help="Per case.")
@click.option("--bracketed", default=4, show_default=True, type=click.IntRange(min=1), help="Of them.")
@click.option("--seed", default=20, show_default=True)
@out_option
def main(
    rents: Sequence[float],
    gammas: Sequence[float],
    scenarios: int,
    bracketed: int,
    seed: int,
    out: Path | None,
) -> None:
    """Bracket fleets, and send them through the cascade; each case without and with quotas."""
    machine = describe_this_machine()
    study = Study(
        name="fleet-brackets",
        title="Brackets and cascade on fleets",
        words=read_words(__doc__),
        columns=_COLUMNS,
    )
    with Pool() as pool:
        for rent, gamma, quota in product(rents or RENTS, gammas or GAMMAS, (False, True)):
            shape = SHAPES["5x4x6x4"]
            instances = serving(scenarios, seed, shape=shape, rent=rent, gamma=gamma, quota=quota)
            study.rows.append(make_row([rent, gamma, "yes" if quota else "no"], instances, bracketed, pool))
            click.echo(f"${rent:g}/h, gamma {gamma:g}: gap {study.rows[-1][6]:.2f} %", err=True)
            save_study(study, machine, out)
    show_study(study, machine, None, right=all(row[-1] == "yes" for row in study.rows))


if __name__ == "__main__":
    main()
