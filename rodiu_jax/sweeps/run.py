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
from rodiu_jax.instance import FIELD_SPECS, Instances, make_instances
from rodiu_jax.plan import Plan
from rodiu_jax.sweeps.methods import METHODS
from rodiu_jax.sweeps.progress import Bar, progress
from rodiu_jax.sweeps.spec import SweepSpec, check_spec, load_spec, override
from rodiu_jax.sweeps.store import Store, open_store, read_rows, read_spec

if TYPE_CHECKING:
    import pandas as pd

    from solvers.pool import Pool
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
    exact: str | None = None,
    top: int | None = None,
    by: str | None = None,
    audit: float | None = None,
    certificates: bool | None = None,
    resume: bool = False,
    quiet: bool = False,
    chunk: int = CHUNK,
) -> pd.DataFrame:
    """Solve the same sampled scenarios at every point of a grid and keep a row per scenario in a folder.

    Args:
      spec: a spec, the name of a preset, or the path of a TOML file.
      out: folder for ``spec.toml``, ``manifest.json`` and ``scenarios/*.parquet``; made if need be.
      samples, seed, catalog, uncertainty, method, gap, time_limit, exact, top, by, audit, certificates: replace the
        spec's own; a sweep begun with certificates keeps them when it is resumed.
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
    out = Path(out)
    if resume and certificates is None and (out / "spec.toml").exists():
        certificates = read_spec(out).certificates or None
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
        exact=exact,
        top=top,
        by=by,
        audit=audit,
        certificates=certificates,
    )
    try:
        loaded = load_catalog(spec.catalog)
    except InputError as error:
        if catalog is not None or error.source != "catalog":  # the option's, or inside a catalogue file
            raise
        raise InputError(source, "catalog", error.expected, spec.catalog) from None
    check_spec(spec, _changed(_extremes(loaded), spec), source)
    from solvers.pool import Pool

    with open_store(out, spec, loaded, resume=resume) as store, Pool(workers) as pool:
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
                        _run_chunk(store, loaded, first, min(first + chunk, end), pool, audited, bar)
            if spec.exact == "top":
                from rodiu_jax.sweeps.top import solve_top  # it writes rows as this module does

                solve_top(store, loaded, pool, quiet=quiet)
        except KeyboardInterrupt:
            raise WorkFailed(f"interrupted: {_kept(store)}") from None
        except OSError as error:
            raise WorkFailed(
                f"{error.filename or store.rows_folder}: {error.strerror or error}; {_kept(store)}"
            ) from None
    return read_rows(out)


def scenarios(spec: SweepSpec, catalog: Catalog, first: int, stop: int) -> Instances:
    """The scenarios of rows ``first`` to ``stop - 1``: drawn by sample number, factors set by point."""
    samples, points = np.divmod(np.arange(first, stop), spec.points)
    start = int(samples[0])
    return _moved(spec, _drawn(spec, catalog, start, int(samples[-1]) + 1).take(samples - start), points)


def scenarios_of(spec: SweepSpec, catalog: Catalog, sample: int, points: np.ndarray) -> Instances:
    """The scenarios of one sample at any ``points`` (shape P, integers)."""
    return _moved(spec, _drawn(spec, catalog, sample, sample + 1).take(np.zeros_like(points)), points)


def _drawn(spec: SweepSpec, catalog: Catalog, start: int, stop: int) -> Instances:
    """Samples ``start`` to ``stop - 1`` before any factor moves."""
    from rodiu_jax.sampling import sample

    drawn = sample(catalog, n=stop - start, seed=spec.seed, uncertainty=spec.uncertainty, start=start)
    return _changed(drawn, spec)


def _moved(spec: SweepSpec, base: Instances, points: np.ndarray) -> Instances:
    """``base`` with the factors of scenario b set to their levels at ``points[b]``."""
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
    pool: Pool,
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
        workers=pool,
        audited=np.isin(np.arange(first, stop), audited),
        exact="none" if spec.exact == "top" else spec.exact or "gap",
        certificates=spec.certificates,
    )
    rows: list[dict[str, Any]] = []
    kept: list[Result] = []
    written, due = 0, time.monotonic() + _FLUSH_SECONDS
    try:
        for answer, row in _rows(spec, instances, first, answers):
            rows.append(row)
            kept.append(answer)
            bar.advance(row["status"], math.nan if row["gap"] is None else row["gap"])
            if time.monotonic() > due:
                store.write(first + written, rows[written:], kept[written:], instances)
                written, due = len(rows), time.monotonic() + _FLUSH_SECONDS
        if len(rows) < stop - first:
            raise WorkFailed(f"method {spec.method} answered {len(rows)} of {stop - first} scenarios")
    except AuditFailed as failure:
        raise keep_evidence(store, instances, first + failure.instance, failure) from None
    finally:
        if written < len(rows):
            store.write(first + written, rows[written:], kept[written:], instances)
        if isinstance(answers, Generator):
            answers.close()


def keep_evidence(store: Store, instances: Instances, row: int, failure: AuditFailed) -> WorkFailed:
    """Write the scenario and both proofs beside the rows; the error that says where."""
    evidence = store.folder / f"audit-failed-row-{row}"
    instances.take([failure.instance]).save(evidence.with_suffix(".npz"))
    write_text(evidence.with_suffix(".json"), json.dumps(failure.evidence, indent=1) + "\n")
    return WorkFailed(f"{failure}; the scenario (row {row}) and both proofs are in {evidence}.*")


def _rows(
    spec: SweepSpec, instances: Instances, first: int, answers: Iterator[Result]
) -> Iterator[tuple[Result, dict[str, Any]]]:
    """Each answer with its row."""
    for b, answer in enumerate(answers):
        if answer.instance != b:
            raise WorkFailed(f"method {spec.method}: answered scenario {answer.instance} in place of {b}")
        yield answer, row_of(spec, first + b, answer, instances)


def row_of(spec: SweepSpec, row: int, answer: Result, instances: Instances) -> dict[str, Any]:
    """Row ``row`` of a sweep, scenario ``answer.instance``; what is not known is None, never 0 or an infinity."""
    sample_number, point = divmod(row, spec.points)
    levels = spec.levels_at(np.array([point]))
    return {
        "sample": sample_number,
        "point": point,
        **{name: float(level[0]) for name, level in zip(spec.columns, levels, strict=True)},
        "lower_bound": _known(answer.bound),
        "upper_bound": _known(answer.objective),
        "certified_lower_bound": _known(answer.certified),
        "gap": _known(answer.gap),
        **(answer.costs or {}),
        **plan_columns(answer.plan, instances, answer.instance),
        "status": answer.status,
        "method": answer.method,
        "nodes": answer.nodes,
        "steps": answer.steps,
        "seconds": _known(answer.seconds),
        "message": answer.message or None,
    }


def plan_columns(plan: Plan | None, instances: Instances, b: int) -> dict[str, Any]:
    """What is deployed and the share of arriving queries not served; nothing where there is no plan."""
    if plan is None:
        return {}
    rates = np.asarray(instances.fields.arrival_rate)
    rates = rates[b] if "arrival_rate" in instances.batched else rates
    unmet = np.array([plan.unmet.get(name, 0.0) for name in instances.query_names])
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
