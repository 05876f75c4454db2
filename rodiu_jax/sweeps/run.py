"""Running a sweep: scenarios made in chunks, given to a method, and every result kept as a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.errors import InputError, WorkFailed, device_failure
from rodiu_jax.runtime.events import EventLog, event_log
from rodiu_jax.runtime.progress import progress
from rodiu_jax.sweeps.scenarios import apply_spec_changes, extreme_scenarios
from rodiu_jax.sweeps.spec import SweepSpec, check_spec, load_spec, override
from rodiu_jax.sweeps.store import Store, open_store, read_rows, read_spec

if TYPE_CHECKING:
    import pandas as pd


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
    plans: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    log: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    chunk: int | None = None,
) -> pd.DataFrame:
    """Solve the same sampled scenarios at every point of a grid and keep a row per scenario in a folder.

    Args:
      spec: a spec, the name of a preset, or the path of a TOML file.
      out: folder for ``spec.toml``, ``manifest.json`` and ``scenarios/*.parquet``; made if need be.
      samples, seed, catalog, uncertainty, method, gap, time_limit, exact, top, by, audit, certificates, plans: replace
        the spec's own; a sweep begun with certificates, or with plans, keeps them when it is resumed.
      changes: further changes of every scenario, such as ``budget=3000``; added to the spec's.
      workers: processes of an exact solver, or workers of the engine ``ray``; it changes no number.
      resume: go on with the sweep in ``out``, with more samples too; without it, a folder that holds
        one is refused.
      quiet: no progress on standard error; damaged parts are named all the same.
      log: file for events (``start``, ``progress``, ``part``, ``fault``, ``end``), one JSON object a line, added to
        what is there; ``-`` for standard output.
      engine: ``local``: this machine; ``ray``: a Ray cluster (`rodiu_jax.sweeps.engines.ray_cluster`). It
        changes no row.
      address: of a running cluster, for ``ray``; by default one is started on this machine.
      chunk: scenarios made at a time; it changes memory, not rows.

    Returns:
      All rows sorted by (sample, point), without the plans (`read_rows` has them).

    Raises:
      InputError: bad spec, option or folder.
      WorkFailed: interrupted, or the rows cannot be written; what is finished is kept for ``resume``.
    """
    run_sweep(
        spec,
        out,
        samples=samples,
        seed=seed,
        catalog=catalog,
        uncertainty=uncertainty,
        changes=changes,
        method=method,
        gap=gap,
        time_limit=time_limit,
        workers=workers,
        exact=exact,
        top=top,
        by=by,
        audit=audit,
        certificates=certificates,
        plans=plans,
        resume=resume,
        quiet=quiet,
        log=log,
        engine=engine,
        address=address,
        chunk=chunk,
    )
    return read_rows(out)


def run_sweep(
    spec: SweepSpec | str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    certificates: bool | None = None,
    resume: bool = False,
    quiet: bool = False,
    log: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    chunk: int | None = None,
    **options: Any,
) -> None:
    """As `sweep`, with the same arguments, but the rows stay on disk: memory does not grow with them."""
    out = Path(out)
    if resume and (out / "spec.toml").exists():
        before = read_spec(out)
        certificates = before.certificates or None if certificates is None else certificates
        if before.plans and options.get("method") == before.method and options.get("plans") is None:
            options["plans"] = before.plans
    spec, loaded = prepare(spec, certificates=certificates, **options)
    from rodiu_jax.sweeps.engines import ENGINES
    from rodiu_jax.sweeps.work import Work

    if engine not in ENGINES:
        raise InputError("sweep", "engine", f"one of {', '.join(ENGINES)}", engine)
    chosen = ENGINES[engine]
    if address is not None and not chosen.has_address:
        able = " or ".join(name for name, info in ENGINES.items() if info.has_address)
        raise InputError("sweep", "address", f"engine {able} beside it", address)
    from solvers.pool import Pool

    with (
        event_log(log) as events,
        chosen.load()(workers, address) as run,
        open_store(out, spec, loaded, resume=resume) as store,
        Pool(workers if chosen.own_processes else None) as pool,
        _told(events, store),
    ):
        faults: list[str] = []
        gaps = store.missing(faults.append)
        done = spec.rows - sum(end - start for start, end in gaps)
        where = str(store.rows_folder)
        try:
            with progress(spec.name, spec.rows, done=done, where=where, quiet=quiet, log=events) as bar:
                for fault in faults:
                    bar.fault(fault)
                run(Work(store, loaded, gaps, pool, bar, chunk))
            if spec.exact == "top":
                from rodiu_jax.sweeps.top import solve_top  # it writes rows as this module does

                solve_top(store, loaded, pool, quiet=quiet, log=events)
        except KeyboardInterrupt:
            raise WorkFailed(f"interrupted: {_kept(store)}") from None
        except OSError as error:
            raise WorkFailed(
                f"{error.filename or store.rows_folder}: {error.strerror or error}; {_kept(store)}"
            ) from None
        except RuntimeError as error:
            if (said := device_failure(error)) is None:
                raise
            raise WorkFailed(f"{said}; {_kept(store)}") from None


def prepare(
    spec: SweepSpec | str | Path, *, changes: Iterable[str] = (), catalog: str | None = None, **options: Any
) -> tuple[SweepSpec, Catalog]:
    """The spec with the options of `sweep` in place of its own keys, its catalogue, and both found to fit.

    Raises:
      InputError: bad spec or option.
    """
    source = spec.name if isinstance(spec, SweepSpec) else str(spec)
    spec = spec if isinstance(spec, SweepSpec) else load_spec(spec)
    if isinstance(options.get("plans"), Path):
        options["plans"] = str(options["plans"])
    spec = override(spec, catalog=catalog, set=list(changes), **options)
    at = ("catalog", "") if catalog is not None else (source, "catalog")
    loaded = load_catalog(spec.catalog, source=at[0], key=at[1])
    check_spec(spec, apply_spec_changes(extreme_scenarios(loaded), spec), source)
    return spec, loaded


@contextmanager
def _told(log: EventLog | None, store: Store) -> Iterator[None]:
    """Events of the start and of the end, however it comes."""
    if log is None:
        yield
        return
    spec = store.spec
    log.write("start", sweep=spec.name, rows=spec.rows, points=spec.points, samples=spec.samples,
              method=spec.method, folder=str(store.folder))  # fmt: skip
    try:
        yield
    except BaseException as error:
        log.write("end", ok=False, message=str(error) or type(error).__name__)
        raise
    log.write("end", ok=True, message="", rows=spec.rows)


def _kept(store: Store) -> str:
    """How many rows are on disk and how to go on."""
    rows = sum(stop - first for _, first, stop, fault in store.kept() if not fault)
    return f"{rows} of {store.spec.rows} rows are kept in {store.rows_folder}; go on with --resume"
