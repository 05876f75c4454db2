"""The plans that rows of a sweep hold, with their scenarios drawn again: a bounded, fixed choice of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.report.data.digest import Digest

_MOST_SAMPLES = 16


@dataclass(frozen=True)
class StoredPlans:
    """The rows looked at of one sample that have a plan: ``plans[m]`` is of ``points[m]`` and scenario m."""

    sample: int
    points: Int[np.ndarray, " M"]
    plans: list[Plan]
    instances: Instances


def read_stored_plans(folder: Path, digest: Digest, most: int) -> tuple[Iterator[StoredPlans], int]:
    """Read the plans of at most about ``most`` rows, spread over samples and points.

    Returns:
      The plans, a sample at a time, and the number of rows looked at, with a plan or without.

    Raises:
      InputError: the catalogue cannot be read, or is not that of the sweep any more; a damaged part or plan.
    """
    from rodiu_jax.sweeps.store import catalog_of, iterate_rows

    spec = digest.spec
    catalog = catalog_of(folder, spec)
    numbers = choose_rows(spec.points, spec.samples, most)
    texts: dict[int, list[tuple[int, str]]] = {}
    looked = 0
    for part in iterate_rows(folder, columns=["sample", "point", "plan"], rows=numbers.tolist()):
        wanted = part["sample"].to_numpy() * spec.points + part["point"].to_numpy()
        mine: Any = part[np.isin(wanted, numbers)]
        looked += len(mine)
        for sample, point, text in mine.dropna(subset="plan").itertuples(index=False):
            texts.setdefault(int(sample), []).append((int(point), text))
    return _read(folder, digest, catalog, texts), looked


def _read(
    folder: Path, digest: Digest, catalog: Any, texts: dict[int, list[tuple[int, str]]]
) -> Iterator[StoredPlans]:
    from rodiu_jax.model.plan_json import plan_from_json
    from rodiu_jax.sweeps.scenarios import scenarios_of

    for sample, held in texts.items():
        points = np.array([point for point, _ in held])
        instances = scenarios_of(digest.spec, catalog, sample, points)
        plans = [
            plan_from_json(json.loads(text) | {"instance": b}, instances, source=folder, path="plan")
            for b, (_, text) in enumerate(held)
        ]
        yield StoredPlans(sample, points, plans, instances)


def choose_rows(points: int, samples: int, most: int) -> np.ndarray:
    """Choose the rows to look at, by number, sorted: a fixed choice that covers samples and points evenly."""
    if points * samples <= most:
        return np.arange(points * samples)
    count = min(samples, max(1, most // points), _MOST_SAMPLES)
    chosen = np.linspace(0, samples - 1, count).round().astype(np.int64)
    if points <= most:
        at = np.arange(points)
    else:
        at = np.unique(np.random.default_rng(0).choice(points, most, replace=False))
    return (chosen[:, None] * points + at[None, :]).ravel()
