"""Requests of a trace in blocks of rows: by their columns, whatever the clock, in memory that does not grow.

CSV is read by Arrow. A file that Arrow refuses is read again row by row, which knows the line of what is wrong (and
takes what Arrow does not: clocks of several zones in one column, whole numbers written as 2.0).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from rodiu_jax.catalog.readers.imported import Origin
from rodiu_jax.catalog.readers.trace_formats import (
    DATE,
    EPOCH,
    EXPECTED_COUNT,
    EXPECTED_DATE,
    LAYOUTS,
    MICROSECONDS,
    PLAIN,
    Layout,
    Prefix,
    Unit,
    columns_wanted,
    parse_date,
    parse_number,
)
from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_bytes, size_text

MOST_BYTES = 2**32
"""A week of requests to a large service is 2 GB."""

_BLOCK = 2**22
"""Bytes that Arrow reads at a time; it reads some blocks ahead."""

_ROWS = 65_536
"""Rows that are held at a time where Python reads them."""

_MOST_LINE = 2**24
"""A line of JSON; the longest prompts have some thousand blocks of prefix."""


@dataclass(frozen=True)
class Block:
    """Some requests, shape N each: microseconds, whole numbers of tokens, and values of the query column by code."""

    time: np.ndarray
    input: np.ndarray
    output: np.ndarray
    code: np.ndarray


class Trace:
    """A trace that can be read several times, in blocks.

    Attributes:
      values: what the query column held so far; a code is a position in it.
      absolute: the clock is a date, or counts from 1970.
      saved_tokens: tokens of prompts whose blocks an earlier request had, from the start of the prompt; None where
        the trace has no ids of blocks.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        columns: Mapping[str, str] | None = None,
        unit: Unit | None = None,
        query_column: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.query_column = query_column
        self._given = columns
        self._unit: Unit | None = unit
        self._content = self._read_pipe()
        self.values: list[str] = []
        self._codes: dict[str, int] = {}
        with self._open() as stream:
            start = stream.read(_MOST_LINE)
        if not start.strip():
            expected = f"a CSV with the columns {', '.join(columns_wanted(columns))}; it is empty"
            raise InputError(self.path, "", expected)
        self.is_json = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
        self.layout, self._heads = self._find_layout(start)
        self.unit: Unit | None = None
        self.absolute = True
        self._zoned = False
        self._look_at_clock(start)
        self.saved_tokens: int | None = None
        self.prefix_note = ""

    def digest(self) -> Origin:
        """Read the whole file for its SHA-256."""
        import hashlib

        with self._open() as stream:
            return Origin(self.path.name, hashlib.file_digest(stream, "sha256").hexdigest())

    def blocks(self) -> Iterator[Block]:
        """Yield the requests in the order of the file.

        Raises:
          InputError: a clock that cannot be read, or a token count that is not a whole number >= 0, with the line.
        """
        if self.is_json:
            yield from self._read_json()
            return
        try:
            yield from self._read_arrow()
        except (pa.ArrowException, _NotPlain):
            raise RetryByRow from None

    def slow_blocks(self) -> Iterator[Block]:
        """Yield the requests as `blocks` does, read row by row."""
        yield from self._read_json() if self.is_json else self._read_rows()

    # ---- opening ----

    def _read_pipe(self) -> bytes | None:
        """What a pipe holds, which can be read once only; None for a file."""
        try:
            if self.path.is_file():
                size = self.path.stat().st_size
                if size > MOST_BYTES:
                    expected = f"a file of at most {size_text(MOST_BYTES)}; this one is longer"
                    raise InputError(self.path, "", expected)
                return None
        except (OSError, ValueError):
            pass  # `read_bytes` says why
        return read_bytes(self.path, most=MOST_BYTES)

    def _open(self) -> Any:
        if self._content is not None:
            return io.BytesIO(self._content)
        try:
            return self.path.open("rb")
        except OSError as error:
            raise InputError(self.path, "", f"a readable file ({error.strerror})") from None

    # ---- columns ----

    def _find_layout(self, start: bytes) -> tuple[Layout, list[str]]:
        if self.is_json:
            first = self._parse_line(start.lstrip(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0], 1)
            heads = list(first)
        else:
            text = _decode(start.split(b"\n", 1)[0].removeprefix(b"\xef\xbb\xbf"), self.path, "line 1")
            try:
                heads = [h.strip() for h in next(csv.reader([text.rstrip("\r")], strict=True), [])]
            except csv.Error as error:
                expected = f"the names of columns, such as {', '.join(LAYOUTS[0].columns)} ({error})"
                raise InputError(self.path, "line 1", expected) from None
        layout = self._choose_layout(heads)
        for name in (*layout.columns, *([self.query_column] if self.query_column else [])):
            if heads.count(name) != 1:
                raise InputError(self.path, name, "this column, once", heads)
        if len(set(layout.columns)) < 3:
            raise InputError("columns", "", "three different columns", ",".join(layout.columns))
        return layout, heads

    def _choose_layout(self, heads: list[str]) -> Layout:
        if self._given is not None:
            given = dict(self._given)
            if set(given) != {"time", "input", "output"}:
                raise InputError("columns", "", "time=COLUMN,input=COLUMN,output=COLUMN", sorted(given))
            prefix = "hash_ids" if "hash_ids" in heads else None
            return Layout("given columns", given["time"], given["input"], given["output"], None, prefix)
        for layout in LAYOUTS:
            if all(name in heads for name in layout.columns):
                return layout
        # The nearest format says what is missing; a stranger learns of the option.
        scores = {layout: sum(name in heads for name in layout.columns) for layout in LAYOUTS}
        best = max(scores, key=lambda layout: scores[layout])
        option = "or --columns time=..,input=..,output=.."
        if scores[best] > 1:
            missing = next(name for name in best.columns if name not in heads)
            raise InputError(
                self.path, missing, f"this column, once (as {best.name} traces have), {option}", heads
            )
        known = "; ".join(f"{layout.name}: {', '.join(layout.columns)}" for layout in LAYOUTS)
        raise InputError(self.path, "", f"the columns of a known trace ({known}), {option}", heads)

    def _look_at_clock(self, start: bytes) -> None:
        """Tell from the first request whether the clock counts or has dates."""
        first = self._first_time(start)
        if isinstance(first, str) and not PLAIN.fullmatch(first):
            found = DATE.fullmatch(first)
            self._zoned = found is not None and bool(found[4])
            if found is not None and self._unit is not None:
                raise InputError(
                    "unit", "", f"no unit: {self.path} has dates, such as {first.strip()}", self._unit
                )
            return
        unit: Unit | None = self._unit or self.layout.unit
        self.unit = unit
        if unit is None:
            expected = "--unit s or --unit ms: the clock counts, and nothing says what"
            raise InputError(self.path, self.layout.time, expected, first)
        number = parse_number(first)
        if number is None:
            raise InputError(self.path, f"line 1: {self.layout.time}", f"a number of {unit}", first)
        other, power = ("ms", 1000) if unit == "s" else ("s", 1)
        if self._unit is None and power * EPOCH <= number < 10 * power * EPOCH:
            expected = (
                f"--unit s or --unit ms: {self.layout.name} traces count {unit}, and as {other} since 1970 this would "
                "be a date of our time"
            )
            raise InputError(self.path, self.layout.time, expected, first)
        self.absolute = abs(number) / (1000 if unit == "ms" else 1) >= EPOCH

    def _first_time(self, start: bytes) -> Any:
        lines = start.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        if self.is_json:
            row = self._parse_line(next(line for line in lines if line.strip()), 1)
            return row[self.layout.time]
        at = self._heads.index(self.layout.time)
        for number, line in enumerate(lines[1:], 2):
            text = _decode(line, self.path, f"line {number}").rstrip("\r")
            cells = next(csv.reader([text]), [])
            if any(cell.strip() for cell in cells):
                return cells[at] if at < len(cells) else ""
        raise InputError(self.path, "", "at least one request below the heading")

    # ---- Arrow ----

    def _read_arrow(self) -> Iterator[Block]:
        names = [f"c{n}" for n in range(len(self._heads))]
        wanted = [names[self._heads.index(c)] for c in self.layout.columns]
        time_type = pa.float64() if self.unit else pa.timestamp("ns", "UTC" if self._zoned else None)
        types: dict[str, Any] = {wanted[0]: time_type, wanted[1]: pa.int64(), wanted[2]: pa.int64()}
        if self.query_column:
            wanted.append(names[self._heads.index(self.query_column)])
            types.setdefault(wanted[-1], pa.string())
        with self._open() as stream:
            reader = pa_csv.open_csv(
                stream,
                read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1, block_size=_BLOCK),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(dict.fromkeys(wanted)),
                    column_types=types,
                    null_values=[],
                    strings_can_be_null=False,
                    check_utf8=True,
                ),
            )
            for batch in reader:
                yield self._make_block(batch, wanted)

    def _make_block(self, batch: pa.RecordBatch, wanted: Sequence[str]) -> Block:
        time = batch.column(wanted[0])
        clock = self._scale(np.asarray(time)) if self.unit else np.asarray(time.cast(pa.int64())) // 1000
        tokens = [np.asarray(batch.column(name)) for name in wanted[1:3]]
        if any((count < 0).any() or (count >= 2**53).any() for count in tokens):
            raise _NotPlain
        code = np.zeros(len(clock), np.int32)
        if self.query_column:
            coded = pa.array(batch.column(wanted[3]).cast(pa.string())).dictionary_encode()
            codes = np.array([self._code(v) for v in coded.dictionary.to_pylist()], np.int32)
            code = codes[np.asarray(coded.indices)] if len(codes) else code
        return Block(clock, tokens[0], tokens[1], code)

    def _scale(self, number: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what overflows is refused with its line
            micro = np.rint(number * MICROSECONDS[self.unit or "s"])
        if not (np.isfinite(micro).all() and (np.abs(micro) < 2**62).all()):
            raise _NotPlain
        return micro.astype(np.int64)

    def _code(self, value: str) -> int:
        value = value.strip()
        if value not in self._codes:
            if len(self._codes) >= 1000:
                expected = "a column of at most 1,000 different values, each a query type"
                raise InputError(self.path, self.query_column or "", expected)
            self._codes[value] = len(self._codes)
            self.values.append(value)
        return self._codes[value]

    # ---- row by row ----

    def _read_rows(self) -> Iterator[Block]:
        at = [self._heads.index(c) for c in self.layout.columns]
        code_at = self._heads.index(self.query_column) if self.query_column else None
        rows: list[tuple[int, int, int, int]] = []
        with self._open() as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
            lines = csv.reader(text, strict=True)
            try:
                for cells in lines:
                    line = lines.line_num
                    if line == 1 or not any(cell for cell in cells):
                        continue
                    if len(cells) > len(self._heads):
                        expected = (
                            f"a CSV with as many values per line as columns (line {line} has {len(cells)})"
                        )
                        raise InputError(self.path, "", expected)
                    cells += [""] * (len(self._heads) - len(cells))
                    code = self._code(cells[code_at]) if code_at is not None else 0
                    rows.append((*self._parse_row([cells[n] for n in at], f"line {line}"), code))
                    if len(rows) == _ROWS:
                        yield _stack(rows)
                        rows = []
            except UnicodeDecodeError:
                raise InputError(self.path, "", "UTF-8 text") from None
            except csv.Error as error:
                raise InputError(self.path, f"line {lines.line_num}", f"a line of CSV ({error})") from None
        yield _stack(rows)

    def _parse_row(self, cells: Sequence[Any], line: str) -> tuple[int, int, int]:
        time, *tokens = cells
        if self.unit is None:
            clock = parse_date(time)
            expected = EXPECTED_DATE
        else:
            number = parse_number(time)
            micro = math.inf if number is None else number * MICROSECONDS[self.unit]
            clock = round(micro) if math.isfinite(micro) else None
            expected = f"a number of {self.unit}"
        if clock is None or abs(clock) >= 2**62:
            raise InputError(self.path, f"{line}: {self.layout.time}", expected, time)
        counts = []
        for name, text in zip(self.layout.columns[1:], tokens, strict=True):
            count = parse_number(text)
            if count is None or not 0 <= count < 2**53 or count != math.floor(count):
                raise InputError(self.path, f"{line}: {name}", EXPECTED_COUNT, text)
            counts.append(int(count))
        return clock, counts[0], counts[1]

    def _read_json(self) -> Iterator[Block]:
        rows: list[tuple[int, int, int, int]] = []
        prefix = Prefix(self.layout.prefix)
        with self._open() as stream:
            for number, line in enumerate(_lines(stream, self.path), 1):
                if not line.strip(b" \t\r\n\xef\xbb\xbf"):
                    continue
                row = self._parse_line(line, number)
                for name in self.layout.columns:
                    if name not in row:
                        raise InputError(self.path, f"line {number}: {name}", "this key, which is missing")
                read = self._parse_row([row[n] for n in self.layout.columns], f"line {number}")
                code = 0
                if self.query_column:
                    value = row.get(self.query_column)
                    if not isinstance(value, str | int) or isinstance(value, bool):
                        raise InputError(self.path, f"line {number}: {self.query_column}", "a text", value)
                    code = self._code(str(value))
                prefix.add(row, read[1], self.path, number)
                rows.append((*read, code))
                if len(rows) == _ROWS:
                    yield _stack(rows)
                    rows = []
        yield _stack(rows)
        self.saved_tokens, self.prefix_note = prefix.saved, prefix.note

    def _parse_line(self, line: bytes, number: int) -> dict[str, Any]:
        def refuse(constant: str) -> float:
            raise InputError(self.path, f"line {number}", "finite numbers only", constant)

        def finite(text: str) -> float:
            value = float(text)
            return value if math.isfinite(value) else refuse(text)

        def whole(text: str) -> int:
            return int(text) if len(text) < 400 else int(refuse(text[:40]))

        text = _decode(line.strip().removeprefix(b"\xef\xbb\xbf"), self.path, f"line {number}")
        try:
            row = json.loads(text, parse_constant=refuse, parse_float=finite, parse_int=whole)
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            said = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            expected = f"one request as a JSON object in a line ({said})"
            raise InputError(self.path, f"line {number}", expected) from None
        if not isinstance(row, dict):
            raise InputError(self.path, f"line {number}", "one request as a JSON object in a line", row)
        return row


class RetryByRow(Exception):
    """Arrow cannot read the file: what it yielded so far counts for nothing, and `Trace.slow_blocks` begins anew."""


class _NotPlain(ValueError):
    """A number that is not what a column should hold."""


def _lines(stream: BinaryIO, path: Path) -> Iterator[bytes]:
    while line := stream.readline(_MOST_LINE):
        if len(line) == _MOST_LINE:
            raise InputError(path, "", f"lines of at most {size_text(_MOST_LINE)}")
        yield line


def _decode(line: bytes, path: Path, at: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(path, at, "UTF-8 text") from None


def _stack(rows: list[tuple[int, int, int, int]]) -> Block:
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Block(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.int32))
