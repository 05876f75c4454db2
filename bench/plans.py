"""How near the optimum the batch's plans come without branching, family by family, and what they cost beside bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from bench.families import FAMILIES
from bench.measure import Case, Side
from solvers import pool
from solvers.bracket import Bracket, Effort, brackets
from solvers.dual import lower_bounds
from solvers.result import Result

_FAMILIES = ("seed", "corrected", "seed, speed-up n^0.8", "seed, one route", "seed, budget x 0.3")
_PROVEN = 1e-4


@contextmanager
def cases(n: int) -> Iterator[Iterator[Case]]:
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
            yield Case(f"{name}, {n}", sides, _quality)

    yield each()


def _quality(results: Sequence[Any]) -> tuple[bool, str]:
    found: list[Bracket] = results[0]
    exact: list[Result] = results[2]
    proven = sum(r.gap <= _PROVEN for r in exact)
    optimum = np.array([r.objective for r in exact])
    upper, lower = (np.array([getattr(b, side) for b in found]) for side in ("upper", "lower"))
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
