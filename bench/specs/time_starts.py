"""Where the ascent may start from: an experiment whose verdict is in `bench/results/`.

Three starts are compared: cold (`solvers.dual.cold_start`), a neighbour (the multipliers of the same sample at the
design's first point) and a pilot (multipliers predicted from the scenario by ridge regression on a few hundred
solved scenarios of the design). Any start is safe: the bound is certified whatever the multipliers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from bench.measure import Case, Side, Spec
from bench.peers import relaxation, workers
from rodiu_jax.catalog import load_catalog
from rodiu_jax.model.fields import Fields, batch_axes
from rodiu_jax.model.instance import Instances
from rodiu_jax.sweeps import load_spec, preset_names
from rodiu_jax.sweeps.scenarios import scenarios
from solvers.dual import Ascent, Multipliers, cold_start, derive_coefficients, lower_bounds

_PILOTS = 256
"""Scenarios solved to fit the pilot: a seeded choice among rows that are not timed."""

_RIDGE = 30.0
"""Weight of the ridge, on standardised inputs."""

WARM = Ascent(rate=0.05, warm=0.002)
"""What suits a start that is nearly right: a smaller first step and temperature."""


@partial(jax.jit, static_argnames=("uncertainty", "batched"))
def _units(fields: Fields, *, uncertainty: str, batched: frozenset[str]) -> Multipliers:
    def one(fields: Fields) -> Multipliers:
        return cold_start(derive_coefficients(fields, uncertainty))

    return jax.vmap(one, in_axes=(batch_axes(batched),))(fields)


def natural_units(instances: Instances) -> np.ndarray:
    """(B,Q): the cold start as one vector, and 1 where that is 0."""
    with jax.enable_x64(True):
        start = _units(instances.fields, uncertainty=instances.uncertainty, batched=instances.batched)
    flat = _flat(start)
    return np.where(flat > 0, flat, 1.0)


def _flat(y: Multipliers) -> np.ndarray:
    size = len(np.asarray(y.demand))
    return np.concatenate([np.asarray(a, np.float64).reshape(size, -1) for a in jax.tree.leaves(y)], 1)


def _inputs(instances: Instances) -> np.ndarray:
    """(B,F): the logarithm of every number that differs between scenarios."""
    parts = [
        np.asarray(getattr(instances.fields, n)).reshape(instances.size, -1)
        for n in sorted(instances.batched)
    ]
    return np.log(np.maximum(np.concatenate(parts, 1), 1e-12))


class Pilot:
    """Multipliers, in natural units, as a linear function of the logarithms of a scenario's inputs."""

    def __init__(self, solved: Instances, multipliers: Multipliers) -> None:
        x, y = _inputs(solved), _flat(multipliers) / natural_units(solved)
        self._centre, self._spread = x.mean(0), x.std(0) + 1e-9
        self._mean = y.mean(0)
        x = (x - self._centre) / self._spread
        weights = np.linalg.solve(x @ x.T + _RIDGE * len(x) * np.eye(len(x)), y - self._mean)
        self._slope = x.T @ weights
        self._shapes = [np.asarray(a).shape[1:] for a in jax.tree.leaves(multipliers)]

    def start(self, instances: Instances) -> Multipliers:
        """Predicted multipliers, with leading axis B; the ascent makes them feasible."""
        x = (_inputs(instances) - self._centre) / self._spread
        flat = (self._mean + x @ self._slope) * natural_units(instances)
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        parts = np.split(flat.astype(np.float32), ends, axis=1)
        parts = [a.reshape(-1, *shape) for a, shape in zip(parts, self._shapes, strict=True)]
        return Multipliers(*(np.maximum(a, 0.0) if k else a for k, a in enumerate(parts)))


def _first_points(rows: np.ndarray, points: int) -> np.ndarray:
    return rows // points * points


@contextmanager
def build(n: int) -> Iterator[Iterator[Case]]:
    """The four presets, ``n`` of their rows each."""
    with workers() as peers:
        yield (_build_case(preset, n, peers.map) for preset in preset_names())


def _build_case(preset: str, n: int, solve: Callable[..., list[float]]) -> Case:
    spec = load_spec(preset).model_copy(update={"samples": 16})
    everything = scenarios(spec, load_catalog(spec.catalog), 0, spec.rows)
    order = np.random.default_rng(11).permutation(spec.rows)
    timed, known = order[:n], order[n : n + _PILOTS]
    instances, solved = everything.take(timed), everything.take(known)
    pilot = Pilot(solved, lower_bounds(solved, chunk=n).multipliers)
    optima = np.array(solve(relaxation, [instances.take([b]) for b in range(n)]))
    base = lower_bounds(everything.take(_first_points(timed, spec.points)), chunk=n).multipliers

    def side(name: str, steps: int, start: Callable[[], Multipliers] | None) -> Side:
        how = Ascent(steps=steps) if start is None else Ascent(steps, WARM.rate, WARM.last_rate, WARM.warm)

        def run() -> np.ndarray:
            return lower_bounds(
                instances, ascent=how, start=None if start is None else start(), chunk=n
            ).lower

        return Side(f"{name}, {steps} steps", run, n)

    sides = (
        *(side("cold", steps, None) for steps in (150, 100, 50, 25)),
        *(side("neighbour", steps, lambda: base) for steps in (50, 25)),
        *(side("pilot", steps, lambda: pilot.start(instances)) for steps in (50, 25)),
    )
    names = [s.name for s in sides]
    return Case(f"{preset}, {n} of {spec.rows}", sides, partial(_judge_gaps, names, optima))


def _judge_gaps(names: Sequence[str], optima: np.ndarray, results: Sequence[Any]) -> tuple[bool, str]:
    told, right = [], True
    for name, lower in zip(names, results, strict=True):
        gap = (optima - lower) / np.abs(optima)
        right &= bool((gap > -1e-6).all())
        told.append(f"{name} {100 * gap.mean():.3f} %")
    return right, "mean below the LP optimum: " + "; ".join(told)


SPEC = Spec(
    name="starts",
    measures="Certified lower bounds per second on rows of the four presets (16 samples), from a cold start,"
    " from the multipliers of the same sample at the grid's first point, and from a pilot (bench/starts.py)."
    " Solving neighbours and fitting the pilot are not timed, predicting is.",
    item="scenario",
    peers="each other: the first side is what the program does.",
    quality="mean gap to the LP optimum by HiGHS; a bound above it by more than 1e-6 fails.",
    precision="float32 ascent, float64 certificate",
    by_hand="as bound; a prediction is a product of 1,600 inputs and 1,200 multipliers: 4 M operations, as much"
    " as 200 steps, but in one matrix product.",
    sizes=(8, 64),
    build=build,
    repeats=3,
)
