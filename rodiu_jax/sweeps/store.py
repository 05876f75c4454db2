"""The folder of a sweep: its spec, how it was made, and its rows as Parquet parts, each whole or not there.

Row r of a sweep is sample r // points at point r % points. A part holds consecutive rows and says so in its
name, ``part-<first row>-<rows>.parquet``, and it comes to be in one step, when it is whole. So the names tell which
rows are there, and none is read for that. A disk may damage what was whole: when a sweep is resumed, parts are held
against the checksums of the index (`rodiu_jax.sweeps.part_index`), and the pages of others are read.
Where the sweep keeps certificates, a part of the same name in ``certificates/`` holds the multipliers of its rows,
numbered as in the sweep (the plans are in the rows); it is written first, and rows without it are done again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.certificates import certified_rows, write_certificates
from rodiu_jax.errors import AuditFailed, InputError, WorkFailed
from rodiu_jax.io.files import make_folder, read_toml, remove_leftovers, write_text
from rodiu_jax.io.parquet import read_parquet, write_parquet
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.status import Status
from rodiu_jax.sweeps.manifest import begin_run, note_devices, note_method, read_manifest
from rodiu_jax.sweeps.part_index import INDEX, PartIndex, compute_checksum
from rodiu_jax.sweeps.rows import schema_of
from rodiu_jax.sweeps.spec import SweepSpec, make_spec

if TYPE_CHECKING:
    import pandas as pd

_PART = re.compile(r"part-(\d{12})-(\d+)\.parquet")
_OURS = ("spec.toml", "manifest.json", "scenarios", "certificates", "top.json", INDEX)
_OURS += ("figures", "tables", "summary.csv", "report.html", "report-files.json")
_WORDS = ("name", "title", "question")
"""Keys of a spec that change no number: they may differ on resuming."""

_ROWS_AT_ONCE = 16_384
"""Rows that are read before they are handed on; a frame costs the same however few it has, and exact parts have few."""


class Part(NamedTuple):
    """A file of rows ``first`` to ``stop - 1``, as its name says."""

    path: Path
    first: int
    stop: int


class CheckedPart(NamedTuple):
    """A part that was checked: its rows if they were read, the fault for which it cannot be used (empty if it can)."""

    part: Part
    table: pa.Table | None
    fault: str


Check = Callable[[Part], tuple[pa.Table | None, str]]
"""Returns the rows of a part, if it reads them, and the fault for which it cannot be used (empty where it can)."""


class Store:
    """One sweep's folder, open for writing. Construct through `open_store`."""

    def __init__(self, folder: Path, spec: SweepSpec) -> None:
        self.folder, self.spec = folder, spec
        self.rows_folder = folder / "scenarios"
        self.certificates_folder = folder / "certificates"
        self.schema = schema_of(spec)
        self._index = PartIndex(folder, f"{spec.points} points\n{self.schema}")

    def write(self, first: int, table: pa.Table, proofs: pa.Table | None = None) -> Path:
        """Write rows ``first``, ``first + 1``, ... as one part: whole, or not at all.

        Args:
          proofs: the rows' certificates, where the sweep keeps them.
        """
        path = self.rows_folder / f"part-{first:012d}-{len(table)}.parquet"
        if self.spec.certificates:
            assert proofs is not None, "a certificate for every row"
            certificates = self.certificates_folder / path.name
            self._index.add(self._name(certificates), write_certificates(certificates, proofs))
        self.put(path, table)
        return path

    def put(self, path: Path, table: pa.Table) -> None:
        """Write the rows of a part, or others in their place: whole, or not at all."""
        self._index.add(self._name(path), write_parquet(path, table.cast(self.schema)))

    def note_method(self, method: str, reason: str) -> None:
        """Say in the manifest which method ``auto`` is in the present run, and why."""
        note_method(self.folder, method, reason)

    def note_devices(self, kinds: list[str]) -> None:
        """Say in the manifest which devices this run computes on."""
        note_devices(self.folder, kinds)

    def keep_evidence(self, instances: Instances, row: int, failure: AuditFailed) -> WorkFailed:
        """Write the scenario of a failed audit and both proofs beside the rows; return the error that says where."""
        evidence = self.folder / f"audit-failed-row-{row}"
        instances.take([failure.instance]).save(evidence.with_suffix(".npz"))
        write_text(evidence.with_suffix(".json"), json.dumps(failure.evidence, indent=1) + "\n")
        return WorkFailed(f"{failure}; the scenario (row {row}) and both proofs are in {evidence}.*")

    def read(self, path: Path) -> pa.Table:
        """Read the rows of a whole part."""
        return read_parquet(path)

    def parts(self) -> list[Part]:
        """List the parts in order, by their names alone.

        Raises:
          InputError: a file among them has another name.
        """
        return [self._part_of(path) for path in sorted(self.rows_folder.glob("part-*.parquet"))]

    def count_rows(self) -> int:
        """Count the rows that are on disk, by the names of their parts."""
        return sum(part.stop - part.first for part in self.parts())

    def check_parts(self, check: Check | None = None) -> Iterator[CheckedPart]:
        """Check the parts one by one, in order; of two that hold the same rows, the second is at fault.

        Args:
          check: of one part; by default every page is read, so that its checksum is compared.
        """
        end = 0
        for part in self.parts():
            table, fault = (check or self._read_and_check)(part)
            if not fault and part.first < end:
                fault = "rows that another part holds too"
            end = end if fault else part.stop
            yield CheckedPart(part, table, fault)

    def find_missing(
        self, report_fault: Callable[[str], None], report_checked: Callable[[int], None] = lambda rows: None
    ) -> list[tuple[int, int]]:
        """Remove damaged parts and leftovers of killed runs; return the ranges of rows that are not there.

        A part is read only where the index does not know its bytes, or those of its certificates. Afterwards the index
        knows the parts that are there, and no others.

        Args:
          report_fault: called with what was removed, and why.
          report_checked: called with the number of rows just checked.

        Raises:
          InputError: a part is a folder.
        """
        for folder in (self.rows_folder, self.certificates_folder):
            remove_leftovers(folder, "part-*")
        for name in ("spec.toml", "manifest.json", "top.json", INDEX):
            remove_leftovers(self.folder, name)
        for path in self.certificates_folder.glob("part-*"):  # written whole, its rows not
            if not (self.rows_folder / path.name).exists():
                path.unlink()
        known = self._index.read()
        checksums: dict[str, str | None] = {}  # of the files of the part at hand
        whole: dict[str, str] = {}

        def check(part: Part) -> tuple[None, str]:
            nonlocal checksums
            checksums = {self._name(file): compute_checksum(file) for file in self._files_of(part)}
            if checksums.items() <= known.items() and part.stop <= self.spec.rows:
                return None, ""
            _, fault = self._read_and_check(part)
            return None, fault or self._check_certificates(part)

        gaps, end = [], 0
        for part, _, fault in self.check_parts(check):
            report_checked(part.stop - part.first)
            if fault and part.path.is_dir():  # what somebody put there is not removed
                raise InputError(part.path, "", "a file, not a folder")
            if fault:
                report_fault(f"{part.path}: {fault}; its rows are done again")
                part.path.unlink()
                continue
            whole |= {name: checksum for name, checksum in checksums.items() if checksum is not None}
            if part.first > end:
                gaps.append((end, part.first))
            end = part.stop
        self._index.replace(whole)
        return gaps + ([(end, self.spec.rows)] if end < self.spec.rows else [])

    def _part_of(self, path: Path) -> Part:
        named = _PART.fullmatch(path.name)
        if named is None:
            raise InputError(path, "", "a name such as part-000000000000-30.parquet")
        first, count = int(named[1]), int(named[2])
        return Part(path, first, first + count)

    def _name(self, path: Path) -> str:
        """Return the name of a file of the folder as the index has it."""
        return path.relative_to(self.folder).as_posix()

    def _files_of(self, part: Part) -> list[Path]:
        """Return the files that a part needs: its rows, and their certificates where the sweep keeps them."""
        certificates = [self.certificates_folder / part.path.name] if self.spec.certificates else []
        return [part.path, *certificates]

    def _check_certificates(self, part: Part) -> str:
        """Say that the certificates of a part are not those of its rows, where they are not."""
        for path in self._files_of(part)[1:]:
            if not np.array_equal(certified_rows(path), np.arange(part.first, part.stop)):
                return "not certified"
        return ""

    def _read_and_check(self, part: Part) -> tuple[pa.Table | None, str]:
        """Read the rows of a part; say why they cannot be used, or nothing where they can."""
        try:
            table = self.read(part.path)
        except InputError:
            return None, "damaged"
        count = part.stop - part.first
        if not table.schema.equals(self.schema) or table.num_rows != count or part.stop > self.spec.rows:
            return None, "not a part of this sweep"
        rows = table["sample"].to_numpy() * self.spec.points + table["point"].to_numpy()
        if not np.array_equal(rows, np.arange(part.first, part.stop)):
            return None, "not the rows that its name says"
        return table, ""


@contextmanager
def open_store(folder: Path, spec: SweepSpec, catalog: Catalog, *, resume: bool) -> Iterator[Store]:
    """Start the folder of a sweep, or go on with it, and lock it against a second writer until the end.

    Raises:
      InputError: the folder cannot be written, holds a sweep and ``resume`` is false, holds another sweep
        (another spec, seed or catalogue; the key that differs is named), or is being written now.
    """
    store = Store(folder, spec)
    make_folder(folder)
    if not resume and (present := [n for n in _OURS if (folder / n).exists()]):
        raise InputError(
            folder, present[0], "a folder without a sweep, or --resume to go on with the one in it"
        )
    with _lock(folder):
        if resume and (folder / "spec.toml").exists():
            _check_same(folder, spec, catalog.digest)
        elif any(store.rows_folder.glob("part-*")):
            raise InputError(folder, "spec.toml", "this file, without which its rows cannot be resumed")
        begin_run(folder, spec.catalog, catalog.digest)
        store.rows_folder.mkdir(exist_ok=True)
        if spec.certificates:
            store.certificates_folder.mkdir(exist_ok=True)
        write_text(folder / "spec.toml", spec.to_toml())  # last: the folder holds a sweep from here on
        yield store


def read_spec(folder: Path) -> SweepSpec:
    """Read the spec of the sweep in ``folder``."""
    path = folder / "spec.toml"
    if not path.is_file():
        raise InputError(folder, "", "the folder of a sweep (it holds no spec.toml)")
    return make_spec(read_toml(path), str(path))


def catalog_of(folder: Path, spec: SweepSpec) -> Catalog:
    """Load the catalogue that the sweep in ``folder`` was made from.

    Raises:
      InputError: it is not there, or is another by now.
    """
    catalog = load_catalog(spec.catalog, source=folder / "spec.toml", key="catalog")
    if read_manifest(folder).catalog_sha256 != catalog.digest:
        raise InputError(folder, "catalog", "the catalogue that the sweep was made from", spec.catalog)
    return catalog


def read_rows(folder: str | Path, *, plans: bool = False) -> pd.DataFrame:
    """Read the rows that are there, sorted by (sample, point); numbers that a scenario lacks are NaN.

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
    """Read the rows a few parts at a time, in order: memory does not grow with their number.

    Args:
      columns: of the table; all but ``plan`` by default.
      rows: only parts that hold one of these rows (numbers as in `SweepSpec.rows`).

    Raises:
      InputError: as `read_rows`.
    """
    store = Store(Path(folder), read_spec(Path(folder)))
    chosen = [n for n in store.schema.names if n != "plan"] if columns is None else list(columns)
    waiting: list[pa.Table] = []
    for table in _parts(store, chosen, rows):
        waiting.append(table)
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting).to_pandas()
            waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting).to_pandas()


def _parts(store: Store, columns: list[str], rows: Sequence[int] | None = None) -> Iterator[pa.Table]:
    wanted = None if rows is None else np.sort(np.asarray(rows, dtype=np.int64))
    expected = store.schema.empty_table().select(columns).schema
    for part in store.parts():
        if wanted is not None and np.searchsorted(wanted, part.first) == np.searchsorted(wanted, part.stop):
            continue
        table = read_parquet(
            part.path, columns=columns, what="a whole Parquet part; sweep again with --resume"
        )
        if not table.schema.equals(expected):
            absent = [n for n in columns if n not in table.schema.names]
            lack = f"no column {absent[0]}" if absent else "columns of other types"
            raise InputError(part.path, "", f"a part of this sweep; sweep again with --resume ({lack})")
        yield table


def first_error(folder: str | Path) -> str:
    """Return the message of the first row with status ``error``; empty where there is none."""
    for rows in iterate_rows(folder, columns=("status", "message")):
        failed = rows.loc[rows["status"] == Status.ERROR.word, "message"].tolist()
        if failed:
            return failed[0]
    return ""


def _check_same(folder: Path, spec: SweepSpec, digest: str) -> None:
    """Refuse to resume another sweep than the one in the folder."""
    old, new = read_spec(folder).to_dict(), spec.to_dict()
    if old["samples"] != new["samples"] and (spec.exact == "top" or new["samples"] < old["samples"]):
        least = "" if spec.exact == "top" else ", or more,"
        expected = f"{old['samples']}{least} as in the sweep to resume, or another folder"
        raise InputError(folder / "spec.toml", "samples", expected, new["samples"])
    for key in (k for k in {**old, **new} if k not in (*_WORDS, "catalog", "samples")):
        if old.get(key) != new.get(key):
            expected = f"{old.get(key)!r} as in the sweep to resume, or another folder"
            raise InputError(folder / "spec.toml", key, expected, new.get(key))
    if read_manifest(folder).catalog_sha256 != digest:
        expected = "the catalogue of the sweep to resume, or another folder"
        raise InputError(folder / "manifest.json", "catalog_sha256", expected, digest[:12])


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the folder until the end of the block; the system unlocks it when the process ends, however that ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(folder, "", "a folder that no other sweep is writing now") from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(folder, "", f"a folder that can be written and locked ({why})") from None
    try:
        yield
    finally:
        lock.release()
