"""Running a sweep: scenarios made in chunks, given to a method, and every result kept as a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.errors import InputError, WorkFailed, device_failure
from rodiu_jax.runtime.events import EventLog, event_log
from rodiu_jax.runtime.progress import progress
from rodiu_jax.sweeps.engines import ENGINES, EngineInfo
from rodiu_jax.sweeps.method_choice import MethodChoice, settle_method
from rodiu_jax.sweeps.method_table import AUTO, METHODS
from rodiu_jax.sweeps.scenarios import apply_spec_changes, apply_spec_promises, extreme_scenarios
from rodiu_jax.sweeps.spec import SweepSpec, load_spec, override
from rodiu_jax.sweeps.spec_checks import check_spec
from rodiu_jax.sweeps.store import Store, open_store, read_rows, read_spec

if TYPE_CHECKING:
    import pandas as pd

    from solvers.pool import Pool


@dataclass(frozen=True)
class RunOptions:
    """How a sweep is run; none of it changes a row.

    Attributes:
      workers: processes that answer scenarios side by side and share the cores of the machine, or of the cluster.
      resume: go on with the sweep in the folder, with more samples too; without it, a folder that holds one is refused.
      quiet: no progress on standard error; damaged parts are named all the same.
      log: file for events (``start``, ``progress``, ``part``, ``fault``, ``end``), one JSON object a line, added to
        what is there; ``-`` for standard output.
      engine: a name of `rodiu_jax.sweeps.engines.ENGINES`.
      address: of a running cluster; by default one is started on this machine.
      chunk: scenarios made at a time; it changes memory.
    """

    workers: int | None = None
    resume: bool = False
    quiet: bool = False
    log: str | Path | None = None
    engine: str = next(iter(ENGINES))
    address: str | None = None
    chunk: int | None = None

    def engine_info(self) -> EngineInfo:
        """Return the engine's entry in the table.

        Raises:
          InputError: there is none, or it takes no address.
        """
        if self.engine not in ENGINES:
            raise InputError("sweep", "engine", f"one of {', '.join(ENGINES)}", self.engine)
        info = ENGINES[self.engine]
        if self.address is not None and not info.has_address:
            able = " or ".join(name for name, other in ENGINES.items() if other.has_address)
            raise InputError("sweep", "address", f"engine {able} beside it", self.address)
        return info


def sweep(
    spec: SweepSpec | str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    resume: bool = False,
    quiet: bool = False,
    log: str | Path | None = None,
    engine: str = RunOptions.engine,
    address: str | None = None,
    chunk: int | None = None,
    **keys: Any,
) -> pd.DataFrame:
    """Solve the same sampled scenarios at every point of a grid and keep a row per scenario in a folder.

    Args:
      spec: a spec, the name of a preset, or the path of a TOML file.
      out: folder for ``spec.toml``, ``manifest.json``, ``parts.jsonl`` and ``scenarios/*.parquet``; made if need be.
      workers, resume, quiet, log, engine, address, chunk: as in `RunOptions`.
      keys: of the spec (``samples``, ``seed``, ``catalog``, ``method``, ...; see `SweepSpec`), in place of its own;
        ``changes``, such as ``["budget=3000"]``, are added to the spec's. A sweep begun with certificates, or with
        plans, keeps them when it is resumed.

    Returns:
      All rows sorted by (sample, point), without the plans (`read_rows` has them).

    Raises:
      InputError: bad spec, option or folder.
      WorkFailed: interrupted, or the rows cannot be written; what is finished is kept for ``resume``.
    """
    run_sweep(spec, out, RunOptions(workers, resume, quiet, log, engine, address, chunk), keys)
    return read_rows(out)


def run_sweep(
    spec: SweepSpec | str | Path,
    out: str | Path,
    options: RunOptions | None = None,
    keys: Mapping[str, Any] | None = None,
) -> None:
    """Run a sweep as `sweep` does, but leave the rows on disk: memory does not grow with them."""
    out, options, keys = Path(out), options or RunOptions(), dict(keys or {})
    before = read_spec(out) if options.resume and (out / "spec.toml").exists() else None
    if before is not None:
        keys |= _keep_from(before, keys)
    spec, catalog = prepare(spec, keys)
    engine = options.engine_info()
    from solvers.pool import Pool

    with Pool(options.workers if engine.own_processes else None) as pool:
        wanted = METHODS[spec.method].begins_with_highs and spec.exact != "none" and not options.resume
        if engine.own_processes and wanted:
            pool.begin()  # it imports what it needs while this process does
        spec, choice = _settle_method(spec, catalog, options.workers, before)
        _answer_rows(spec, catalog, out, options, engine, choice, pool)


def _answer_rows(
    spec: SweepSpec,
    catalog: Catalog,
    out: Path,
    options: RunOptions,
    engine: EngineInfo,
    choice: MethodChoice | None,
    pool: Pool,
) -> None:
    """Answer what is missing of a sweep whose method is settled."""
    from rodiu_jax.sweeps.work import Work

    with (
        event_log(options.log) as events,
        engine.load()(options.workers, options.address) as run,
        open_store(out, spec, catalog, resume=options.resume) as store,
        _log_start_and_end(events, store),
        _say_what_is_kept(store),
    ):
        if choice is not None:
            store.note_method(choice.method, choice.reason)
        faults, rows = [], store.count_rows()
        with progress(f"{spec.name}, checking rows", rows, quiet=options.quiet) as checking:
            gaps = store.find_missing(faults.append, lambda rows: checking.advance(count=rows))
        done, where = spec.rows - sum(end - start for start, end in gaps), str(store.rows_folder)
        with progress(spec.name, spec.rows, done=done, where=where, quiet=options.quiet, log=events) as bar:
            for fault in faults:
                bar.fault(fault)
            run(Work(store, catalog, gaps, pool, bar, options.chunk))
        if spec.exact == "top":
            from rodiu_jax.sweeps.top import solve_top

            solve_top(store, catalog, pool, quiet=options.quiet, log=events)


def _settle_method(
    spec: SweepSpec, catalog: Catalog, workers: int | None, before: SweepSpec | None
) -> tuple[SweepSpec, MethodChoice | None]:
    """Choose the method where the spec says ``auto``: that of the sweep ``before`` if it is resumed."""
    if spec.method == AUTO and before is not None:
        gap = before.gap if spec.gap is None else spec.gap
        same = {"method": before.method, "gap": gap, "opening": before.opening}
        spec = spec.model_copy(update=same)
        return spec, MethodChoice(before.method, "the sweep was begun so")
    return settle_method(spec, catalog, workers)


def _keep_from(before: SweepSpec, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that a resumed sweep takes from the one in the folder, where ``keys`` do not give them."""
    keep: dict[str, Any] = {}
    if before.certificates and keys.get("certificates") is None:
        keep["certificates"] = True
    same = all(
        keys.get(name) in (None, False, getattr(before, name)) for name in ("method", "certificates", "exact")
    )
    if before.opening and same and keys.get("opening") is None:  # other keys are refused by their own names
        keep["opening"] = before.opening
    if before.plans and keys.get("plans") is None and keys.get("method") == before.method:
        keep["plans"] = before.plans
    return keep


def prepare(spec: SweepSpec | str | Path, keys: Mapping[str, Any]) -> tuple[SweepSpec, Catalog]:
    """Return the spec with ``keys`` in place of its own and its catalogue, both found to fit.

    Raises:
      InputError: bad spec or key.
    """
    source = spec.name if isinstance(spec, SweepSpec) else str(spec)
    spec = override(spec if isinstance(spec, SweepSpec) else load_spec(spec), keys)
    at = (source, "catalog") if keys.get("catalog") is None else ("catalog", "")
    catalog = load_catalog(spec.catalog, source=at[0], key=at[1])
    promised = apply_spec_promises(catalog, spec)
    check_spec(spec, apply_spec_changes(extreme_scenarios(promised), spec), source, promised)
    return spec, catalog


@contextmanager
def _say_what_is_kept(store: Store) -> Iterator[None]:
    """Turn what may end a run early into a `WorkFailed` that says how many rows are on disk and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise WorkFailed(f"interrupted: {_kept_rows(store)}") from None
    except OSError as error:
        what = f"{error.filename or store.rows_folder}: {error.strerror or error}"
        raise WorkFailed(f"{what}; {_kept_rows(store)}") from None
    except RuntimeError as error:
        if (what := device_failure(error)) is None:
            raise
        raise WorkFailed(f"{what}; {_kept_rows(store)}") from None


def _kept_rows(store: Store) -> str:
    """Count rows by the names of their parts: every part was checked on resuming, or written whole since."""
    return (
        f"{store.count_rows()} of {store.spec.rows} rows are kept in {store.rows_folder}; go on with --resume"
    )


@contextmanager
def _log_start_and_end(log: EventLog | None, store: Store) -> Iterator[None]:
    """Write the events of the start and of the end, however it comes."""
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
