"""How near the optimum plans come without branching, family by family, and what they cost beside bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from bench.families import FAMILIES
from bench.measure import Case, Side, Spec
from solvers import pool
from solvers.answers import Answers
from solvers.bracket import brackets
from solvers.dual import lower_bounds
from solvers.effort import Effort

_FAMILIES = ("seed", "corrected", "seed, speed-up n^0.8", "seed, one route", "seed, budget x 0.3")
_PROVEN = 1e-4


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """A case per family: bound and plan, the bound alone, the exact solver."""

    def each() -> Iterator[Case]:
        for name in _FAMILIES:
            instances = FAMILIES[name].sample(n, 8)
            root = Effort(tree_rounds=0)
            sides = (
                Side("bound and plan", partial(brackets, instances, gap=1e-3, effort=root), n),
                Side(
                    "bound alone", partial(lower_bounds, instances, chunk=n if n < 256 else 0), n, target=0.5
                ),
                Side("exact", partial(pool.solve, instances, gap=_PROVEN), n),
            )
            yield Case(f"{name}, {n}", sides, _judge_plans)

    yield each()


def _judge_plans(results: Sequence[Any]) -> tuple[bool, str]:
    found: Answers = results[0]
    exact: Answers = results[2]
    proven = int((exact.gap <= _PROVEN).sum())
    optimum, upper, lower = exact.upper, found.upper, found.lower
    missing = int((np.isinf(upper) & np.isfinite(optimum)).sum())
    there = np.isfinite(upper)
    above = 100 * (upper[there] / optimum[there] - 1.0)
    crossed = int((lower > optimum * (1 + 1e-6)).sum() + (above < -100 * _PROVEN).sum())
    below = 100 * (1.0 - lower / optimum).mean()
    text = (
        f"plans above the optimum by {above.mean():.3f} % on average, p95 {np.quantile(above, 0.95):.3f} %, at most"
        f" {above.max():.2f} %; {missing} missing; bounds {below:.2f} % below it on average; {crossed} crossed;"
        f" {proven} optima proven"
    )
    return not crossed and not missing and proven == len(exact), text


SPEC = Spec(
    name="plans",
    measures="A certified bound and a checked plan of every scenario without branching, on five families",
    item="scenario",
    peers="the certified bound alone, and the exact solver to 1e-4 in as many processes as cores.",
    quality="cost of the plans above the optimum (0.5 % on average, 1.5 % at p95 wanted); no bracket crossed.",
    precision="ascent float32, certificates, routings and the checker's costs float64; HiGHS float64",
    by_hand="as cascade, the root alone",
    sizes=(8, 200),
    build=build,
    repeats=3,
)
