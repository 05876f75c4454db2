"""The folder of a sweep: its spec, how it was made, and its rows as Parquet parts, each whole or not there.

Row r of a sweep is sample r // points at point r % points. A part holds consecutive rows and says so in its
name, ``part-<first row>-<rows>.parquet``, so what is missing can be told after any kind of end. Where the sweep keeps
certificates, a part of the same name in ``certificates/`` holds the multipliers of its rows, numbered as in the sweep
(the plans are in the rows); it is written first, and rows without it are done again.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.certificates import certified_rows, write_certificates
from rodiu_jax.errors import AuditFailed, InputError, WorkFailed
from rodiu_jax.io.files import make_folder, read_json, read_toml, remove_leftovers, write_text, write_whole
from rodiu_jax.io.parquet import read_parquet
from rodiu_jax.model.instance import Instances
from rodiu_jax.sweeps.rows import schema_of
from rodiu_jax.sweeps.spec import SweepSpec, make_spec

if TYPE_CHECKING:
    import pandas as pd

_PART = re.compile(r"part-(\d{12})-(\d+)\.parquet")
_OURS = ("spec.toml", "manifest.json", "scenarios", "certificates", "top.json")
_OURS += ("figures", "tables", "summary.csv", "report.html", "report-files.json")
_WORDS = ("name", "title", "question")
"""Keys of a spec that change no number: they may differ on resuming."""

_PACKAGES = ("rodiu-jax", "jax", "numpy", "highspy", "pyarrow")


class Store:
    """One sweep's folder, open for writing. Construct through `open_store`."""

    def __init__(self, folder: Path, spec: SweepSpec) -> None:
        self.folder, self.spec = folder, spec
        self.rows_folder = folder / "scenarios"
        self.certificates_folder = folder / "certificates"
        self.schema = schema_of(spec)

    def write(self, first: int, table: pa.Table, proofs: pa.Table | None = None) -> Path:
        """Write rows ``first``, ``first + 1``, ... as one part: whole, or not at all.

        Args:
          proofs: the rows' certificates, where the sweep keeps them.
        """
        path = self.rows_folder / f"part-{first:012d}-{len(table)}.parquet"
        if self.spec.certificates:
            assert proofs is not None, "a certificate for every row"
            write_certificates(self.certificates_folder / path.name, proofs)
        self.put(path, table)
        return path

    def note_devices(self, kinds: list[str]) -> None:
        """Say in the manifest which devices this run computes on."""
        path = self.folder / "manifest.json"
        made = read_manifest(self.folder)
        made["runs"][-1]["devices"] = kinds
        write_text(path, json.dumps(made, indent=1) + "\n")

    def put(self, path: Path, table: pa.Table) -> None:
        """Write the rows of a part, or others in their place: whole, or not at all."""
        with write_whole(path) as temporary:
            pq.write_table(table.cast(self.schema), temporary, write_page_checksum=True)

    def keep_evidence(self, instances: Instances, row: int, failure: AuditFailed) -> WorkFailed:
        """Write the scenario of a failed audit and both proofs beside the rows; return the error that says where."""
        evidence = self.folder / f"audit-failed-row-{row}"
        instances.take([failure.instance]).save(evidence.with_suffix(".npz"))
        write_text(evidence.with_suffix(".json"), json.dumps(failure.evidence, indent=1) + "\n")
        return WorkFailed(f"{failure}; the scenario (row {row}) and both proofs are in {evidence}.*")

    def read(self, path: Path) -> pa.Table:
        """The rows of a whole part."""
        return read_parquet(path)

    def kept(self, *, certified: bool = True) -> Iterator[tuple[Path, int, int, str]]:
        """The parts as (path, first row, end row, fault), in order; the fault of a whole part is empty.

        Args:
          certified: where the sweep keeps certificates, a part without those of its rows is at fault.
        """
        end = 0
        for path in sorted(self.rows_folder.glob("part-*.parquet")):
            named = _PART.fullmatch(path.name)
            if named is None:
                raise InputError(path, "", "a name such as part-000000000000-30.parquet")
            first, count = int(named[1]), int(named[2])
            fault = self._fault(path, first, count)
            if not fault and certified and self.spec.certificates:
                proven = certified_rows(self.certificates_folder / path.name)
                fault = "" if np.array_equal(proven, np.arange(first, first + count)) else "not certified"
            if not fault and first < end:
                fault = "rows that another part holds too"
            end = end if fault else first + count
            yield path, first, first + count, fault

    def missing(self, say: Callable[[str], None]) -> list[tuple[int, int]]:
        """Remove damaged parts, naming each through ``say``; return the ranges of rows that are not there."""
        for folder in (self.rows_folder, self.certificates_folder):
            remove_leftovers(folder, "part-*")
        for name in ("spec.toml", "manifest.json", "top.json"):
            remove_leftovers(self.folder, name)
        for path in self.certificates_folder.glob("part-*"):  # written whole, its rows not
            if not (self.rows_folder / path.name).exists():
                path.unlink()
        gaps, end = [], 0
        for path, first, stop, fault in self.kept():
            if fault:
                say(f"{path}: {fault}; its rows are done again")
                path.unlink()
                continue
            if first > end:
                gaps.append((end, first))
            end = stop
        return gaps + ([(end, self.spec.rows)] if end < self.spec.rows else [])

    def _fault(self, path: Path, first: int, count: int) -> str:
        """Why a part cannot be used; empty where it can. Every page is read, so its checksum is compared."""
        try:
            table = self.read(path)
        except InputError:
            return "damaged"
        if not table.schema.equals(self.schema) or table.num_rows != count or first + count > self.spec.rows:
            return "not a part of this sweep"
        rows = table["sample"].to_numpy() * self.spec.points + table["point"].to_numpy()
        if not np.array_equal(rows, np.arange(first, first + count)):
            return "not the rows that its name says"
        return ""


@contextmanager
def open_store(folder: Path, spec: SweepSpec, catalog: Catalog, *, resume: bool) -> Iterator[Store]:
    """Start the folder of a sweep, or go on with it, and hold it against a second writer until the end.

    Raises:
      InputError: the folder cannot be written, holds a sweep and ``resume`` is false, holds another sweep
        (another spec, seed or catalogue; the key that differs is named), or is being written now.
    """
    store = Store(folder, spec)
    make_folder(folder)
    if not resume and (held := [n for n in _OURS if (folder / n).exists()]):
        raise InputError(folder, held[0], "a folder without a sweep, or --resume to go on with the one in it")
    with _held(folder):
        if resume and (folder / "spec.toml").exists():
            _check_same(folder, spec, catalog.digest)
        elif any(store.rows_folder.glob("part-*")):
            raise InputError(folder, "spec.toml", "this file, without which its rows cannot be resumed")
        _write_manifest(folder, spec, catalog.digest)
        store.rows_folder.mkdir(exist_ok=True)
        if spec.certificates:
            store.certificates_folder.mkdir(exist_ok=True)
        write_text(folder / "spec.toml", spec.to_toml())  # last: the folder holds a sweep from here on
        yield store


def read_spec(folder: Path) -> SweepSpec:
    """The spec of the sweep in ``folder``."""
    path = folder / "spec.toml"
    if not path.is_file():
        raise InputError(folder, "", "the folder of a sweep (it holds no spec.toml)")
    return make_spec(read_toml(path), str(path))


def read_manifest(folder: Path) -> dict[str, Any]:
    """How the sweep in ``folder`` was made: the catalogue and its digest, and a record per run.

    Raises:
      InputError: no such file, or it is not of this form.
    """
    path = folder / "manifest.json"
    made = read_json(path)
    if not isinstance(made, dict):
        raise InputError(path, "", "an object", made)
    runs = made.get("runs", [])
    if not isinstance(runs, list):
        raise InputError(path, "runs", "a list of objects", runs)
    for m, run in enumerate(runs):
        if not isinstance(run, dict):
            raise InputError(path, f"runs[{m}]", "an object", run)
        for key, kind in (("versions", dict), ("devices", list)):
            if not isinstance(run.get(key, kind()), kind):
                what = "an object" if kind is dict else "a list"
                raise InputError(path, f"runs[{m}].{key}", what, run[key])
    return made


def catalog_of(folder: Path, spec: SweepSpec) -> Catalog:
    """The catalogue that the sweep in ``folder`` was made from.

    Raises:
      InputError: it is not there, or is another by now.
    """
    catalog = load_catalog(spec.catalog, source=folder / "spec.toml", key="catalog")
    if read_manifest(folder).get("catalog_sha256") != catalog.digest:
        raise InputError(folder, "catalog", "the catalogue that the sweep was made from", spec.catalog)
    return catalog


def read_rows(folder: str | Path, *, plans: bool = False) -> pd.DataFrame:
    """The rows that are there, sorted by (sample, point); numbers that a scenario lacks are NaN.

    Args:
      folder: of the sweep.
      plans: also the column ``plan``, each row's plan as JSON (large).

    Raises:
      InputError: no sweep in the folder, or a part that is damaged or of another sweep.
    """
    store = Store(Path(folder), read_spec(Path(folder)))
    columns = [n for n in store.schema.names if plans or n != "plan"]
    tables = [store.schema.empty_table().select(columns), *_parts(store, columns)]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame.sort_values(["sample", "point"], ignore_index=True)


def iterate_rows(
    folder: str | Path, *, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None
) -> Iterator[pd.DataFrame]:
    """The rows part by part, in order: memory is that of one part.

    Args:
      columns: of the table; all but ``plan`` by default.
      rows: only parts that hold one of these rows (numbers as in `SweepSpec.rows`).

    Raises:
      InputError: as `read_rows`.
    """
    store = Store(Path(folder), read_spec(Path(folder)))
    chosen = [n for n in store.schema.names if n != "plan"] if columns is None else list(columns)
    for table in _parts(store, chosen, rows):
        yield table.to_pandas()


def _parts(store: Store, columns: list[str], rows: Sequence[int] | None = None) -> Iterator[pa.Table]:
    wanted = None if rows is None else np.sort(np.asarray(rows, dtype=np.int64))
    for path in sorted(store.rows_folder.glob("part-*.parquet")):
        named = _PART.fullmatch(path.name)
        if wanted is not None and named is not None:
            first, stop = int(named[1]), int(named[1]) + int(named[2])
            if np.searchsorted(wanted, first) == np.searchsorted(wanted, stop):
                continue
        table = read_parquet(path, columns=columns, what="a whole Parquet part; sweep again with --resume")
        expected = store.schema.empty_table().select(columns).schema
        if not table.schema.equals(expected):
            absent = [n for n in columns if n not in table.schema.names]
            lack = f"no column {absent[0]}" if absent else "columns of other types"
            raise InputError(path, "", f"a part of this sweep; sweep again with --resume ({lack})")
        yield table


def first_error(folder: str | Path) -> str:
    """The message of the first row with status ``error``; empty where there is none."""
    for rows in iterate_rows(folder, columns=("status", "message")):
        failed = rows.loc[rows["status"] == "error", "message"].tolist()
        if failed:
            return failed[0]
    return ""


def _check_same(folder: Path, spec: SweepSpec, digest: str) -> None:
    old, new = read_spec(folder).to_dict(), spec.to_dict()
    if old["samples"] != new["samples"] and (spec.exact == "top" or new["samples"] < old["samples"]):
        least = "" if spec.exact == "top" else ", or more,"
        expected = f"{old['samples']}{least} as in the sweep to resume, or another folder"
        raise InputError(folder / "spec.toml", "samples", expected, new["samples"])
    for key in (k for k in {**old, **new} if k not in (*_WORDS, "catalog", "samples")):
        if old.get(key) != new.get(key):
            expected = f"{old.get(key)!r} as in the sweep to resume, or another folder"
            raise InputError(folder / "spec.toml", key, expected, new.get(key))
    if read_manifest(folder).get("catalog_sha256") != digest:
        expected = "the catalogue of the sweep to resume, or another folder"
        raise InputError(folder / "manifest.json", "catalog_sha256", expected, digest[:12])


def _write_manifest(folder: Path, spec: SweepSpec, digest: str) -> None:
    """Record how each run of the sweep was made; a resumed sweep has several."""
    path = folder / "manifest.json"
    runs = read_manifest(folder).get("runs", []) if path.exists() else []
    run = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {n: version(n) for n in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "precision": "float64; ascent of lower bounds float32, their certificates float64",
        "devices": [],
    }
    made = {"catalog": spec.catalog, "catalog_sha256": digest, "runs": [*runs, run]}
    write_text(path, json.dumps(made, indent=1) + "\n")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock that ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        yield
        return
    try:
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(folder, "", f"a folder that can be written ({error.strerror})") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(folder, "", "a folder that no other sweep is writing now") from None
        yield
