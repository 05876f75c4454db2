"""Parquet files: written whole; read whole, checked, and never more than memory should hold, whoever wrote them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import MOST_BYTES, open_file, size_text, write_whole

if TYPE_CHECKING:
    import pandas as pd

_MOST_TIMES = 200
"""A file may unpack to this many times its length, or to `MOST_BYTES`, whichever is more."""

_ROWS = 4096
"""Rows unpacked between two looks at how much it is."""


def read_parquet(
    path: str | Path, *, columns: Sequence[str] | None = None, what: str = "a whole, readable Parquet file"
) -> pa.Table:
    """The rows of a file, every page held against its checksum where it has one.

    Equal values are stored once, so that a few kilobytes may stand for terabytes: what the file says it holds is
    looked at before it is read, and what it unpacks to while it is.

    Args:
      columns: only these; names that the file lacks are left out.
      what: the file is expected to be, in errors.

    Raises:
      InputError: missing, damaged, not Parquet, or too large when unpacked.
    """
    try:
        with open_file(path) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
            most = max(MOST_BYTES, _MOST_TIMES * stream.seek(0, 2))
            batches, held = [], _values(file)  # a byte a value at least
            if held <= most:
                held = 0
                for batch in file.iter_batches(_ROWS, columns=columns):
                    batches.append(batch)
                    held += batch.nbytes
                    if held > most:
                        break
            if held > most:
                raise InputError(path, "", f"a file that unpacks to at most {size_text(most)}")
            schema = file.schema_arrow
            if columns is not None:
                schema = pa.schema([schema.field(n) for n in columns if n in schema.names], schema.metadata)
            table = pa.Table.from_batches(batches, schema)
            table.validate(full=True)  # such as texts that are not UTF-8
            return table
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or str(error).splitlines()[0] or "damaged"
        raise InputError(path, "", f"{what} ({said})") from None


def write_parquet(path: str | Path, table: pa.Table, *, compression: str = "snappy") -> str:
    """Write a table, whole or not at all, each page with its checksum.

    Returns:
      the SHA-256 of the bytes that were to be written, so that what a disk makes of them can be told from them.

    Raises:
      InputError, OSError: as `rodiu_jax.io.files.write_whole`.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=compression, write_page_checksum=True)
    content = sink.getvalue()
    with write_whole(path) as temporary:
        temporary.write_bytes(memoryview(content))
    return hashlib.sha256(memoryview(content)).hexdigest()


def _values(file: pq.ParquetFile) -> int:
    """How many values a file says it holds.

    Columns are asked only where a row may hold many (certificates): pyarrow 26 ends the process when it looks at a
    column whose statistics do not suit its type, as a damaged footer may have it.
    """
    about, schema = file.metadata, file.schema
    lists = [c for c in range(about.num_columns) if schema.column(c).max_repetition_level > 0]
    groups = [about.row_group(g) for g in range(about.num_row_groups)]
    flat = about.num_columns - len(lists)
    return sum(group.num_rows * flat + sum(group.column(c).num_values for c in lists) for group in groups)


def read_frame(path: str | Path) -> pd.DataFrame:
    """Read a Parquet file as a table; raises as `read_parquet`, and where a column is there twice."""
    table = read_parquet(path, what="a readable table")
    if len(set(table.column_names)) < len(table.column_names):
        names = table.column_names
        raise InputError(path, next(n for n in names if names.count(n) > 1), "each column once")
    try:
        return table.to_pandas()
    except (ValueError, TypeError, KeyError, OverflowError) as error:  # such as a date out of range
        raise InputError(path, "", f"a table of numbers and texts ({str(error).splitlines()[0]})") from None
