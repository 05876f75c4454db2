"""Rows of the presets proven to 1 % beside the exact solver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from bench.measure import Case, Side, Spec
from rodiu_jax.catalog import load_catalog
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Prover
from rodiu_jax.sweeps import load_spec, preset_names
from rodiu_jax.sweeps.scenarios import scenarios
from solvers import pool
from solvers.answers import Answers
from solvers.cascade import cascade

MOST_MILPS = 256
"""Scenarios that the exact solver solves per repeat; its rate is per scenario."""


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """The four presets, ``n`` of their rows each."""

    def cases() -> Iterator[Case]:
        for preset in preset_names():
            spec = load_spec(preset)
            spec = spec.model_copy(update={"samples": max(16, -(-n // spec.points))})
            everything = scenarios(spec, load_catalog(spec.catalog), 0, spec.rows)
            rows = np.sort(np.random.default_rng(7).choice(spec.rows, n, replace=False))
            instances = everything.take(rows)
            yield Case(
                f"{preset}, {n} of {spec.rows}", make_sides(instances, 0.01), partial(judge_brackets, 0.01)
            )

    yield cases()


def make_sides(instances: Instances, gap: float) -> tuple[Side, ...]:
    """Bracket all scenarios by the cascade, one of them audited, and `MOST_MILPS` of them by the exact solver."""
    n = instances.size
    audited = np.arange(n) == n // 2
    few = instances.take(range(min(n, MOST_MILPS)))
    return (
        Side("cascade", lambda: join_answers(cascade(instances, gap=gap, audited=audited)), n),
        Side("exact", partial(pool.solve, few, gap=gap), few.size, target=20.0),
    )


def join_answers(parts: Iterator[Answers]) -> Answers:
    """Return the answers of all parts."""
    first = next(parts)
    return Answers.concatenate([first, *parts], names=first.names)


def judge_brackets(gap: float, results: Sequence[Any]) -> tuple[bool, str]:
    """Are all brackets closed to the gap, and does none lie beside another side's?"""
    ours, theirs = results[:2]
    closed = int((ours.gap <= gap).sum()), int((theirs.gap <= gap).sum())
    few = ours.take(slice(len(theirs)))
    above = (few.lower > theirs.upper * (1 + 1e-6)) | (theirs.lower > few.upper * (1 + 1e-6))
    crossed = int(above.sum())
    device, nodes = (ours.prover == Prover.BRACKET).mean(), ours.nodes.mean()
    text = (
        f"closed to {100 * gap:g} %: {closed[0]} of {len(ours)} and {closed[1]} of {len(theirs)}; crossed brackets:"
        f" {crossed}; {device:.0%} without HiGHS, {nodes:.1f} nodes each"
    )
    return closed == (len(ours), len(theirs)) and not crossed, text


SPEC = Spec(
    name="cascade",
    measures="Scenarios per second of the four presets (16 samples or as many as it takes, a seeded choice of"
    " rows) proven to 1 %, plans checked, one of them audited to optimality; warmed up, so compiling is not"
    " included.",
    item="scenario",
    peers="solvers.pool: the exact solver on every scenario to the same gap, all cores.",
    quality="every row closed to 1 %, no bracket of ours beside the peer's.",
    precision="ours: float32 ascent, float64 certificates and routing; peer: float64",
    by_hand="150 steps at the root and 60 at each node (see bound), and per round of plans about 30 small"
    " linear programs of 24 shares and 33 rows, 9 interior-point iterations of some 25,000 operations.",
    sizes=(8, 32, 256),
    large=(4_096,),
    build=build,
    repeats=3,
)
