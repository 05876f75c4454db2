"""``python -m bench.scarce``: brackets where capacity, a promise or the budget is scarce.

Default scenarios with one field multiplied, and a twentieth as many of a catalogue of 20 types, 20 models and 40 GPUs,
bracketed to 1 % without HiGHS: gaps after the root alone, and after branching too; the bound's distance to the optimum
of the LP relaxation, and the plan's to the optimum. HiGHS solves the relaxations in one process, and the optima (to
1e-4, 20 seconds at most) on all cores. Programs are compiled before. Scenarios per second are by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from bench.families import large
from bench.measure import describe_this_machine, time_call
from bench.peers import relaxation
from bench.records import Study
from bench.study import out_option, read_words, show_study
from rodiu_jax.catalog.sampling import sample
from rodiu_jax.model.changes import Change, apply_changes
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from solvers.bracket import brackets
from solvers.effort import Effort, usual_effort
from solvers.pool import solve

FAMILIES: Mapping[str, Sequence[Change]] = {
    "default": (),
    **{
        f"{field} x {factor:g}": (Change(field, "scale", factor),)
        for field, factor in (
            ("arrival_rate", 20.0),
            ("arrival_rate", 4.0),
            ("delay_threshold", 0.01),
            ("gpu_memory", 0.3),
            ("error_threshold", 0.3),
            ("budget", 0.05),
            ("budget", 0.02),
        )
    },
}

LARGE = "20 x 20 x 40 x 4"
"""The family of large catalogues, of which a `_FEWER`th as many scenarios are drawn."""

_FEWER = 20

_WARMING = (
    64  # scenarios bracketed before the clock starts: on a CPU, programs do not depend on how many there are
)

_COLUMNS = [
    *(
        "family",
        "scenarios",
        "gap at the root, mean, %",
        "gap, mean, %",
        "most",
        "closed to 1 %, %",
        "without a plan",
    ),
    *("bound below the LP, %", "LP below the optimum, %", "plan above the optimum, %", "pairs, most"),
    *("brackets/s", "LPs/s", "optima/s"),
]


def draw(name: str, scenarios: int, seed: int) -> Instances:
    """Draw the scenarios of a family."""
    if name == LARGE:
        return large(max(scenarios // _FEWER, 1), seed)
    return apply_changes(sample("seed", n=scenarios, seed=seed), FAMILIES[name])


def make_row(name: str, scenarios: int, seed: int) -> list[str | int | float | None]:
    """Measure a family; return a row of `_COLUMNS`.

    Raises:
      RuntimeError: a bound above an optimum, or a plan below one.
    """
    instances = draw(name, scenarios, seed)
    scenarios, usual = instances.size, usual_effort(instances)
    assert usual.harder is not None
    at_root: Effort = replace(usual, tree_rounds=0, harder=replace(usual.harder, tree_rounds=0))
    root = brackets(instances, gap=0.01, effort=at_root)
    brackets(instances.take(np.arange(min(scenarios, _WARMING))), gap=0.01)  # compiles what the trees need
    found, ours = time_call(lambda: brackets(instances, gap=0.01))
    lp, theirs = time_call(lambda: np.array([relaxation(instances.take([b])) for b in range(scenarios)]))
    exact, optima = time_call(lambda: solve(instances, gap=1e-4, time_limit=20.0))
    slack = 1e-6 * np.abs(exact.upper)
    if (found.lower > exact.upper + slack).any() or (found.upper < exact.lower - slack).any():
        raise RuntimeError(f"{name}: a bracket does not hold an optimum")
    return [
        name,
        scenarios,
        100 * float(np.mean(root.gap)),
        100 * float(np.mean(found.gap)),
        100 * float(np.max(found.gap)),
        100 * float(np.mean(found.is_any(Status.OPTIMAL, Status.GAP_LIMIT))),
        int((~found.has_plan).sum()),
        100 * float(np.mean(np.maximum(1 - root.lower / lp, 0.0))),
        100 * float(np.mean(1 - lp / exact.upper)),
        100 * float(np.mean(found.upper / exact.upper - 1)),
        int((found.slots >= 0).sum(1).max()),
        scenarios / ours,
        scenarios / theirs,
        scenarios / optima,
    ]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*FAMILIES, LARGE]), metavar="[FAMILY ...]")
@click.option("--scenarios", default=200, show_default=True, type=click.IntRange(min=1), help="Per family.")
@click.option("--seed", default=23, show_default=True)
@out_option
def main(names: tuple[str, ...], scenarios: int, seed: int, out: Path | None) -> None:
    """Bracket scarce families and print how tight and how fast that is."""
    study = Study(
        name="scarce",
        title="Brackets where capacity is scarce",
        words=read_words(__doc__),
        columns=_COLUMNS,
    )
    for name in names or (*FAMILIES, LARGE):
        study.rows.append(make_row(name, scenarios, seed))
        click.echo(f"{name}: gap {study.rows[-1][3]:.2f} %", err=True)
    show_study(study, describe_this_machine(), out)


if __name__ == "__main__":
    main()
