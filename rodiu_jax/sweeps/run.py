"""Running a sweep: scenarios made in chunks, given to a method, and every result kept as a row."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.changes import apply_changes, chosen_cells, moved, parse_change
from rodiu_jax.errors import AuditFailed, InputError, WorkFailed
from rodiu_jax.files import write_text
from rodiu_jax.instance import FIELD_SPECS, Fields, Instances, make_instances
from rodiu_jax.sweeps.methods import METHODS
from rodiu_jax.sweeps.progress import Bar, progress
from rodiu_jax.sweeps.spec import SweepSpec, check_spec, load_spec, override
from rodiu_jax.sweeps.store import Store, open_store, read_rows

if TYPE_CHECKING:
    import pandas as pd

    from solvers.result import Result

CHUNK = 1024
"""Scenarios made at a time; about 15 MB of the default catalogue's."""

_FLUSH_SECONDS = 10.0
"""Rows wait at most this long before they are on disk, and a result longer."""


def sweep(
    spec: SweepSpec | str | Path,
    out: str | Path,
    *,
    samples: int | None = None,
    seed: int | None = None,
    catalog: str | None = None,
    uncertainty: str | None = None,
    changes: Iterable[str] = (),
    method: str | None = None,
    gap: float | None = None,
    time_limit: float | None = None,
    workers: int | None = None,
    resume: bool = False,
    quiet: bool = False,
    chunk: int = CHUNK,
) -> pd.DataFrame:
    """Solve the same sampled scenarios at every point of a grid and keep a row per scenario in a folder.

    Args:
      spec: a spec, the name of a preset, or the path of a TOML file.
      out: folder for ``spec.toml``, ``manifest.json`` and ``scenarios/*.parquet``; made if need be.
      samples, seed, catalog, uncertainty, method, gap, time_limit: replace the spec's own.
      changes: further changes of every scenario, such as ``budget=3000``; added to the spec's.
      workers: processes of the method; it changes no number.
      resume: go on with the sweep in ``out``; without it, a folder that holds a sweep is refused.
      quiet: no progress on standard error.
      chunk: scenarios made at a time; it changes memory, not rows.

    Returns:
      All rows sorted by (sample, point), without the plans (`read_rows` has them).

    Raises:
      InputError: bad spec, option or folder.
      WorkFailed: interrupted, or the rows cannot be written; what is finished is kept for ``resume``.
    """
    source = spec.name if isinstance(spec, SweepSpec) else str(spec)
    spec = override(
        spec if isinstance(spec, SweepSpec) else load_spec(spec),
        samples=samples,
        seed=seed,
        catalog=catalog,
        uncertainty=uncertainty,
        set=list(changes),
        method=method,
        gap=gap,
        time_limit=time_limit,
    )
    try:
        loaded = load_catalog(spec.catalog)
    except InputError as error:
        if catalog is not None or error.source != "catalog":  # the option's, or inside a catalogue file
            raise
        raise InputError(source, "catalog", error.expected, spec.catalog) from None
    check_spec(spec, _changed(_extremes(loaded), spec), source)
    out = Path(out)
    with open_store(out, spec, loaded, resume=resume) as store:
        faults: list[str] = []
        audited = spec.audited_rows()
        gaps = store.missing(faults.append)
        done = spec.rows - sum(end - start for start, end in gaps)
        try:
            with progress(spec.name, spec.rows, done=done, where=str(store.rows_folder), quiet=quiet) as bar:
                for fault in faults:
                    bar.say(fault)
                for start, end in gaps:
                    for first in range(start, end, chunk):
                        _run_chunk(store, loaded, first, min(first + chunk, end), workers, audited, bar)
        except KeyboardInterrupt:
            raise WorkFailed(f"interrupted: {_kept(store)}") from None
        except OSError as error:
            raise WorkFailed(
                f"{error.filename or store.rows_folder}: {error.strerror or error}; {_kept(store)}"
            ) from None
    return read_rows(out)


def scenarios(spec: SweepSpec, catalog: Catalog, first: int, stop: int) -> Instances:
    """The scenarios of rows ``first`` to ``stop - 1``: drawn by sample number, factors set by point."""
    from rodiu_jax.sampling import sample

    samples, points = np.divmod(np.arange(first, stop), spec.points)
    start = int(samples[0])
    count = int(samples[-1]) + 1 - start
    drawn = sample(catalog, n=count, seed=spec.seed, uncertainty=spec.uncertainty, start=start)
    base = _changed(drawn, spec).take(samples - start)
    values: dict[str, np.ndarray] = {}
    for factor, levels in zip(spec.factors, spec.levels_at(points), strict=True):
        field = FIELD_SPECS[factor.field]
        old = np.asarray(values.get(factor.field, getattr(base.fields, factor.field)))
        axes = len(field.axes)
        level = levels.reshape(-1, *(1,) * axes)
        old = np.broadcast_to(old, (len(levels), *old.shape[old.ndim - axes :]))
        meant = chosen_cells(factor.field, factor.names, base) & ~np.isnan(level)
        changed = np.where(meant, moved(old, factor.kind, level), old)
        values[factor.field] = changed.astype(np.int64) if field.integer else changed
    # Not validated again: `check_spec` did it on the extremes of what can be drawn.
    return replace(base, fields=base.fields._replace(**values))


def _changed(instances: Instances, spec: SweepSpec) -> Instances:
    """``instances`` with the spec's own changes."""
    return apply_changes(instances, [parse_change(text) for text in spec.changes])


def _extremes(catalog: Catalog) -> Instances:
    """Two scenarios that no draw leaves: every field at its smallest, every field at its largest."""
    values: dict[str, Any] = {n: np.stack(catalog.ranges[n]) for n in FIELD_SPECS if n != "tp_degree"}
    values["tp_degree"] = np.array([int(n) for n in catalog.sets["tp"]])
    sets = catalog.sets
    return make_instances(sets["query"], sets["model"], sets["gpu"], "ddu", values, source=catalog.name)


def _run_chunk(
    store: Store,
    catalog: Catalog,
    first: int,
    stop: int,
    workers: int | None,
    audited: np.ndarray,
    bar: Bar,
) -> None:
    """Answer rows ``first`` to ``stop - 1``; whatever ends the work, the rows finished so far are written."""
    spec = store.spec
    instances = scenarios(spec, catalog, first, stop)
    limit = math.inf if spec.time_limit is None else spec.time_limit
    answers = METHODS[spec.method](
        instances,
        gap=spec.wanted_gap,
        time_limit=limit,
        workers=workers,
        audited=np.isin(np.arange(first, stop), audited),
    )
    rows: list[dict[str, Any]] = []
    written, due = 0, time.monotonic() + _FLUSH_SECONDS
    try:
        for row in _rows(spec, instances, first, answers):
            rows.append(row)
            bar.advance(row["status"], math.nan if row["gap"] is None else row["gap"])
            if time.monotonic() > due:
                store.write(first + written, rows[written:])
                written, due = len(rows), time.monotonic() + _FLUSH_SECONDS
        if len(rows) < stop - first:
            raise WorkFailed(f"method {spec.method} answered {len(rows)} of {stop - first} scenarios")
    except AuditFailed as failure:
        row = first + failure.instance
        evidence = store.folder / f"audit-failed-row-{row}"
        instances.take([failure.instance]).save(evidence.with_suffix(".npz"))
        write_text(evidence.with_suffix(".json"), json.dumps(failure.evidence, indent=1) + "\n")
        raise WorkFailed(f"{failure}; the scenario (row {row}) and both proofs are in {evidence}.*") from None
    finally:
        if written < len(rows):
            store.write(first + written, rows[written:])
        if isinstance(answers, Generator):
            answers.close()


def _rows(
    spec: SweepSpec, instances: Instances, first: int, answers: Iterator[Result]
) -> Iterator[dict[str, Any]]:
    """A row per answer; what it does not know is None, never 0 or an infinity."""
    fields: Fields = instances.fields
    rates = np.broadcast_to(np.asarray(fields.arrival_rate), (instances.size, len(instances.query_names)))
    levels = spec.levels_at(np.arange(first, first + instances.size) % spec.points)
    for b, answer in enumerate(answers):
        if answer.instance != b:
            raise WorkFailed(f"method {spec.method}: answered scenario {answer.instance} in place of {b}")
        sample_number, point = divmod(first + b, spec.points)
        yield {
            "sample": sample_number,
            "point": point,
            **{name: float(level[b]) for name, level in zip(spec.columns, levels, strict=True)},
            "lower_bound": _known(answer.bound),
            "upper_bound": _known(answer.objective),
            "gap": _known(answer.gap),
            **(answer.costs or {}),
            **_plan_columns(answer, instances.query_names, rates[b]),
            "status": answer.status,
            "method": answer.method,
            "nodes": answer.nodes,
            "steps": answer.steps,
            "seconds": _known(answer.seconds),
            "message": answer.message or None,
        }


def _plan_columns(answer: Result, queries: tuple[str, ...], rates: np.ndarray) -> dict[str, Any]:
    """What is deployed and the share of arriving queries not served; nothing where there is no plan."""
    plan = answer.plan
    if plan is None:
        return {}
    unmet = np.array([plan.unmet.get(name, 0.0) for name in queries])
    return {
        "unmet_share": _known(float(unmet @ rates) / float(rates.sum())) if rates.sum() > 0 else None,
        "gpus_rented": sum(d.tp for d in plan.deployments),
        "pairs_deployed": len(plan.deployments),
        "deployments": plan.summary(),
        "plan": json.dumps(plan.to_json() | {"instance": None}, allow_nan=False),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _kept(store: Store) -> str:
    """How many rows are on disk and how to go on."""
    rows = sum(stop - first for _, first, stop, fault in store.kept() if not fault)
    return f"{rows} of {store.spec.rows} rows are kept in {store.rows_folder}; go on with --resume"
