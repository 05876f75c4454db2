"""Scenarios to choose for, each with a bracket of its own optimum: from a file, a sweep that is there, or a spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from rodiu_jax.decisions.scenario_weights import read_weights
from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.fields import FIELD_SPECS
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.npz import load_instances

if TYPE_CHECKING:
    from rodiu_jax.catalog import Catalog
    from rodiu_jax.sweeps.spec import SweepSpec
    from solvers.answers import Answers

HOLD_OUT_SHARE = 0.2
"""Share of a file's scenarios that is held out where it holds at least `HOLD_OUT_FROM`."""

HOLD_OUT_FROM = 500

_FRESH = 1000
"""Most scenarios drawn anew to hold out, where a spec says how."""


def bracket_all(instances: Instances, *, gap: float, quiet: bool = True, title: str = "bracket") -> Answers:
    """Bracket every scenario's optimum to a relative gap: on the device, where branching gets there.

    Fleets (replicas, rates, quotas) are solved by HiGHS, which closes them sooner.
    """
    from rodiu_jax.runtime.progress import progress
    from solvers.answers import Answers, gather_answers
    from solvers.cascade import bracketed
    from solvers.dual.coefficients import serving_field
    from solvers.pool import solve_iter

    names = instances.names
    with progress(title, instances.size, quiet=quiet) as bar:
        if serving_field(instances.fields):
            one_by_one = (Answers.stack([a], names=names) for a in solve_iter(instances, gap=gap))
            return gather_answers(one_by_one, bar, names=names)
        return gather_answers(bracketed(instances, gap=gap), bar, names=names)


@dataclass(frozen=True)
class Scenarios:
    """What `choose` reads.

    Attributes:
      instances, answers: scenarios to choose for, and a proven bracket of each one's own optimum.
      hold_out: others that it never looks at until it has chosen.
      weights, hold_out_weights: how much each of the two counts; None: all alike.
    """

    instances: Instances
    answers: Answers
    hold_out: Instances | None
    weights: Float64[np.ndarray, " B"] | None = None
    hold_out_weights: Float64[np.ndarray, " H"] | None = None


def read_scenarios(
    source: str | Path, *, gap: float, seed: int = 0, quiet: bool = True, weights: str | Path | None = None
) -> Scenarios:
    """Scenarios of an ``.npz``, of the folder of a sweep, or of a sweep's spec (a preset's name or a TOML file).

    Every row of a sweep counts as one scenario, all of them alike; so do those of a file without ``weights``. A spec
    also says how to draw fresh ones: as many as there are rows, up to 1,000, are held out, each from a sample number of
    its own that the sweep does not use, at the points of the design in equal shares. A file of at least 500 scenarios
    gives up a fifth of them.

    Args:
      gap: relative gap to which scenarios are bracketed where no sweep has done it.
      seed: of the choice of a file's scenarios.
      weights: a CSV with the weight of each scenario of an ``.npz``
        (`rodiu_jax.decisions.scenario_weights.read_weights`).

    Raises:
      InputError: no such file, folder or preset; a fault in it; another catalogue than the sweep's; weights of
        anything but an ``.npz``.
      WorkFailed: a sweep without rows.
    """
    path = Path(source)
    if path.suffix == ".npz" and not path.is_dir():
        return _of_file(path, gap, seed, quiet, weights)
    if weights is not None:
        raise InputError("choose", "--weights", "a FILE.npz whose scenarios it weighs", str(source))
    if path.is_dir():
        return _of_sweep(path)
    from rodiu_jax.catalog import load_catalog
    from rodiu_jax.sweeps.scenarios import scenarios
    from rodiu_jax.sweeps.spec import load_spec

    spec = load_spec(source)
    catalog = load_catalog(spec.catalog, source=source, key="catalog")
    drawn = scenarios(spec, catalog, 0, spec.rows)
    return Scenarios(drawn, bracket_all(drawn, gap=gap, quiet=quiet), _fresh(spec, catalog))


def _of_file(path: Path, gap: float, seed: int, quiet: bool, weights: str | Path | None) -> Scenarios:
    """Read the scenarios of an ``.npz``; those of no weight are left out."""
    instances = load_instances(path)
    size = instances.size
    known = None if weights is None else read_weights(weights, size)
    counted = np.arange(size) if known is None else np.flatnonzero(known > 0)
    held = np.intersect1d(_held_out(size, seed), counted)
    rows = np.setdiff1d(counted, held)
    if not len(rows):
        raise InputError(weights or path, "weights", "one above 0 among the scenarios to choose with", 0.0)
    training = instances if len(rows) == size else instances.take(rows)
    return Scenarios(
        training,
        bracket_all(training, gap=gap, quiet=quiet),
        instances.take(held) if len(held) else None,
        None if known is None else known[rows],
        None if known is None or not len(held) else known[held],
    )


def _fresh(spec: SweepSpec, catalog: Catalog) -> Instances:
    """Scenarios to hold out: a sample each, as rows that share one would tell less than their number says."""
    from rodiu_jax.sweeps.scenarios import scenarios_at

    count = min(spec.rows, _FRESH)
    number = np.arange(count)
    return scenarios_at(spec, catalog, (spec.samples + number) * spec.points + number * spec.points // count)


def _held_out(size: int, seed: int) -> np.ndarray:
    """Positions of a file's scenarios that are held out, sorted; none of a small file."""
    if size < HOLD_OUT_FROM:
        return np.zeros(0, np.int64)
    count = round(HOLD_OUT_SHARE * size)
    return np.sort(np.random.default_rng([seed, size]).choice(size, count, replace=False))


def _of_sweep(folder: Path) -> Scenarios:
    """The rows that a sweep has so far."""
    import pyarrow as pa

    from rodiu_jax.sweeps.rows import answers_from_rows
    from rodiu_jax.sweeps.scenarios import scenarios
    from rodiu_jax.sweeps.store import catalog_of, read_rows, read_spec

    spec = read_spec(folder)
    catalog = catalog_of(folder, spec)
    frame = read_rows(folder, plans=True)
    if frame.empty:
        raise WorkFailed(f"{folder}: no rows yet; go on with `rodiu sweep --resume`")
    rows = frame["sample"].to_numpy() * spec.points + frame["point"].to_numpy()
    instances = scenarios(spec, catalog, 0, int(rows[-1]) + 1).take(rows)
    answers = answers_from_rows(pa.Table.from_pandas(frame, preserve_index=False), instances, source=folder)
    return Scenarios(instances, answers, _fresh(spec, catalog))


def mean_scenario(instances: Instances, weights: Float64[np.ndarray, " B"] | None = None) -> Instances:
    """The one scenario in which every field has its mean; a whole number is the most common one.

    Args:
      weights: how much each scenario counts; None: all alike.
    """
    each = np.ones(instances.size) if weights is None else weights
    values = {}
    for name in instances.batched:  # with a batch axis of 1, so that the same programs run
        value = getattr(instances.fields, name)
        if FIELD_SPECS[name].integer:
            kinds, kind_of = np.unique(value, axis=0, return_inverse=True)
            values[name] = kinds[[np.argmax(np.bincount(kind_of.reshape(-1), each))]]
        elif weights is None:
            values[name] = np.mean(value, axis=0, keepdims=True)
        else:
            values[name] = np.average(value, axis=0, weights=weights, keepdims=True)
    return instances.with_fields(source="mean scenario", **values)


_SCARCE = (
    "gpu_memory",
    "gpu_compute",
    "delay_impact",
    "error_impact",
    "delay_threshold",
    "error_threshold",
    "budget",
    "storage_capacity",
    "unmet_cap",
    "tp_speedup",
    "max_replicas",
    "throughput",
    "max_utilization",
    "gpu_quota",
)
"""Fields of which less is worse; of every other field that a constraint reads, more is."""


def hard_scenarios(instances: Instances, quantiles: Sequence[float]) -> Instances:
    """The mean scenario, then per quantile the one in which every field is as bad as its quantile over all of them.

    At quantile 1 no scenario is harder in any field, and every constraint is monotone in every field: a routing that
    keeps the promises there keeps them in all scenarios. Penalties, which only cost, stay at their mean.
    """
    mean = mean_scenario(instances).fields
    values = {}
    for name in instances.batched:
        value, first = getattr(instances.fields, name), getattr(mean, name)
        rows = np.repeat(first, len(quantiles), axis=0)
        if name == "max_routes":
            rows = np.full_like(rows, np.min(value[value > 0], initial=np.max(value)))
        elif name not in ("delay_penalty", "unmet_penalty", "tp_degree"):
            at = [1.0 - q if name in _SCARCE else q for q in quantiles]
            # Between a number and inf (no limit) there is nothing, nor between whole numbers: one of the two is taken.
            between = np.isfinite(value).all() and not FIELD_SPECS[name].integer
            rows = np.quantile(value, at, axis=0, method="linear" if between else "nearest")
        values[name] = np.concatenate([first, rows])
    return instances.with_fields(source="hard scenarios", **values)
