"""The scenarios of a sweep's rows: samples drawn from the catalogue, factors set to the levels of their points."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from rodiu_jax.catalog import Catalog
from rodiu_jax.catalog.promise_changes import apply_promise_changes, split_changes
from rodiu_jax.model.changes import apply_changes, change_values, changeable, chosen_cells
from rodiu_jax.model.fields import FIELD_SPECS, PROMISE, axes_of
from rodiu_jax.model.instance import Instances, make_instances, number_devices
from rodiu_jax.sweeps.spec import SweepSpec


def scenarios(spec: SweepSpec, catalog: Catalog, first: int, stop: int) -> Instances:
    """The scenarios of rows ``first`` to ``stop - 1``: drawn by sample number, factors set by point."""
    return scenarios_at(spec, catalog, np.arange(first, stop))


def scenarios_at(spec: SweepSpec, catalog: Catalog, rows: np.ndarray) -> Instances:
    """The scenarios of ``rows`` in increasing order."""
    samples, points = np.divmod(rows, spec.points)
    return _make(spec, catalog, int(samples[0]), int(samples[-1]) + 1, samples - samples[0], points)


def scenarios_of(spec: SweepSpec, catalog: Catalog, sample: int, points: np.ndarray) -> Instances:
    """The scenarios of one sample at any ``points`` (shape P, integers)."""
    return _make(spec, catalog, sample, sample + 1, np.zeros_like(points), points)


def _make(
    spec: SweepSpec, catalog: Catalog, start: int, stop: int, taken: np.ndarray, points: np.ndarray
) -> Instances:
    """Scenario b: sample ``start + taken[b]``, before ``stop``, at point ``points[b]``."""
    promised = apply_spec_promises(catalog, spec)
    base = _drawn(spec, promised, start, stop).take(taken)
    moving = [m for m, factor in enumerate(spec.factors) if factor.field == PROMISE]
    if moving:  # the same samples once more for each level, of which the rates and their latencies are taken
        levels = np.stack([spec.levels_at(points)[m] for m in moving], axis=1)
        distinct, which = np.unique(levels, axis=0, return_inverse=True)
        followed = {name: np.empty((len(points), *promised.shape(name))) for name in promised.following}
        for number, level in enumerate(distinct.tolist()):
            pairs = zip(moving, level, strict=True)
            changes = [spec.factors[m].change_promise(x) for m, x in pairs if not math.isnan(x)]
            mine = which.reshape(-1) == number
            drawn = _drawn(spec, apply_promise_changes(promised, changes), start, stop).take(taken[mine])
            for name, values in followed.items():
                values[mine] = np.asarray(getattr(drawn.fields, name))
        base = replace(base, fields=base.fields._replace(**followed))
    return _moved(spec, base, points)


def apply_spec_promises(catalog: Catalog, spec: SweepSpec) -> Catalog:
    """``catalog`` with the promises that the spec's own changes make."""
    return apply_promise_changes(catalog, split_changes(spec.changes)[0])


def _drawn(spec: SweepSpec, catalog: Catalog, start: int, stop: int) -> Instances:
    """Samples ``start`` to ``stop - 1`` before any factor moves."""
    from rodiu_jax.catalog.sampling import sample

    drawn = sample(catalog, n=stop - start, seed=spec.seed, uncertainty=spec.uncertainty, start=start)
    return apply_spec_changes(drawn, spec)


def _moved(spec: SweepSpec, base: Instances, points: np.ndarray) -> Instances:
    """``base`` with the factors of scenario b set to their levels at ``points[b]``."""
    values: dict[str, np.ndarray] = {}
    for factor, levels in zip(spec.factors, spec.levels_at(points), strict=True):
        if factor.field == PROMISE:  # its rates are in ``base``
            continue
        field = FIELD_SPECS[factor.field]
        held = values.get(factor.field, getattr(base.fields, factor.field))
        old = changeable(factor.field, np.asarray(held), base)
        axes = len(axes_of(factor.field, old.ndim))
        level = levels.reshape(-1, *(1,) * axes)
        old = np.broadcast_to(old, (len(levels), *old.shape[old.ndim - axes :]))
        meant = chosen_cells(factor.field, factor.names, base) & ~np.isnan(level)
        changed = np.where(meant, change_values(old, factor.kind, level), old)
        values[factor.field] = changed.astype(np.int64) if field.integer else changed
    if "gpu_quota" in values:
        values["gpu_device"] = number_devices(base.gpu_devices)
    # Not validated again: `check_spec` did it on the extremes of what can be drawn.
    return replace(base, fields=base.fields._replace(**values))


def apply_spec_changes(instances: Instances, spec: SweepSpec) -> Instances:
    """``instances`` with the spec's own changes."""
    return apply_changes(instances, split_changes(spec.changes)[1])


def extreme_scenarios(catalog: Catalog) -> Instances:
    """Two scenarios that no draw leaves: every field at its smallest, every field at its largest."""
    values: dict[str, Any] = {n: np.stack(catalog.ranges[n]) for n in FIELD_SPECS if n in catalog.quantities}
    values["tp_degree"] = np.array([int(n) for n in catalog.sets["tp"]])
    sets = catalog.sets
    return make_instances(
        sets["query"],
        sets["model"],
        sets["gpu"],
        "ddu",
        values,
        gpu_devices=catalog.gpu_devices,
        source=catalog.name,
    )
