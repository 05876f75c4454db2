"""Scenarios proven to ever smaller gaps beside the exact solver and branching."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench.measure import Case, Side, Spec
from bench.specs.time_cascade import join_answers, judge_brackets, make_sides
from rodiu_jax.catalog import sampling
from solvers.cascade import cascade
from solvers.effort import Effort


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """The same scenarios at gaps from 5 % to 0.1 %."""
    instances = sampling.sample("seed", n=n, seed=12)

    def branching(gap: float) -> Side:
        return Side("branching", lambda: join_answers(cascade(instances, gap=gap, effort=Effort())), n)

    yield (
        Case(
            f"to {100 * gap:g} %, {n}",
            (*make_sides(instances, gap), branching(gap)),
            partial(judge_brackets, gap),
        )
        for gap in (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
    )


SPEC = Spec(
    name="gap",
    measures="Scenarios per second of the seed catalogue proven to a gap, plans checked, one of them audited to"
    " optimality; warmed up.",
    item="scenario",
    peers="solvers.pool: the exact solver to the same gap, all cores; the cascade that branches at any gap (on"
    " a CPU ours branches from 1 % upwards).",
    quality="every row closed to the gap, no bracket of ours beside the peer's.",
    precision="ours: float32 ascent, float64 certificates and routing; peer: float64",
    by_hand="as cascade; the smaller the gap, the more nodes.",
    sizes=(8, 128),
    build=build,
    repeats=3,
)
