"""Exact optima beside the published formulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.measure import Case, Side, Spec
from bench.peers import published, workers
from rodiu_jax.catalog import sampling
from rodiu_jax.model.status import Status
from solvers import pool


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """Scenarios of both catalogues."""

    def cases() -> Iterator[Case]:
        for catalog in ("seed", "corrected"):
            instances = sampling.sample(catalog, n=n, seed=5)
            singles = [instances.take([b]) for b in range(n)]
            sides = (
                Side("solvers.pool", partial(pool.solve, instances), n),
                Side("published", partial(peers.map, published, singles), n),
            )
            yield Case(f"{n} of {catalog}", sides, _judge_optima)

    with workers() as peers:
        yield cases()


def _judge_optima(results: Sequence[Any]) -> tuple[bool, str]:
    ours, theirs = results
    proven = int(ours.is_any(Status.OPTIMAL).sum()), sum(r.optimal for r in theirs)
    away = [abs(a.upper - b.objective) / abs(b.objective) for a, b in zip(ours, theirs, strict=True)]
    right = proven == (len(ours), len(theirs)) and max(away) < 1e-5
    return right, f"proven optimal: {proven[0]} and {proven[1]}; optima differ by at most {max(away):.1e}"


SPEC = Spec(
    name="exact",
    measures="Scenarios per second solved to a proven optimum (gap 1e-6), on all cores, one thread"
    " each; starting our processes and checking the plans is included, starting the peer's is"
    " not.",
    item="scenario",
    peers="the published formulation (tests/oracles/published.py): the same HiGHS, gap and number of"
    " processes.",
    quality="statuses, and the largest relative difference of the optima.",
    precision="float64 on both sides",
    by_hand="tight: at most JKN (1 + I) + 2 I (1 + JK) + I = 2,418 columns, 240 of them whole;"
    " published: JK (1 + 2 N + I (3 + 2 N)) + 3 I (1 + JK) + I = 5,604 columns, 660 of them"
    " whole (60 pairs, I = 6, N = 4).",
    sizes=(1, 6),
    build=build,
    repeats=3,
)
