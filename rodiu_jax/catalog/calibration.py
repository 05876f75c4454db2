"""Turns a trace of real requests into a catalogue: arrival rates and token lengths of one query type."""

from __future__ import annotations

import hashlib
import io
import math
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from rodiu_jax.catalog import Catalog, Draws, catalog_names, load_catalog
from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_bytes, toml_value, write_text
from rodiu_jax.io.number_text import significant

Tokens = Literal["request", "mean"]
_QUANTILES = 101
_TIME, _INPUT, _OUTPUT = "TIMESTAMP", "ContextTokens", "GeneratedTokens"
_MICROSECONDS_PER_HOUR = 3_600_000_000
_MOST_TRACE = 2**32
"""Bytes: a week of requests to a large service is 2 GB."""

_MOST_WINDOWS = 100_000
"""Each window is a number in the catalogue; more come from a wrong date or a window that is too short."""


@dataclass(frozen=True)
class Measured:
    """Equally likely values of one quantity, with their source and their statistics in words."""

    quantity: str
    values: tuple[float, ...]
    source: str
    note: str


@dataclass(frozen=True)
class Calibration:
    """What a trace says about one query type of a catalogue.

    Attributes:
      base: catalogue that is extended, a name or a path.
      summary: one paragraph for people.
    """

    name: str
    description: str
    base: str | Path
    query: str
    measured: tuple[Measured, ...]
    summary: str

    def text(self, folder: str | Path = ".") -> str:
        """Write the catalogue as TOML; a base that is a file is named relative to ``folder``, its place."""
        lines = ["# Written by `rodiu calibrate`.", "", "[catalog]", f"name = {toml_value(self.name)}"]
        lines += [
            f"description = {toml_value(self.description)}",
            f"extends = {toml_value(_refer_to(self.base, folder))}",
        ]
        for m in self.measured:
            numbers = textwrap.wrap(", ".join(f"{value:.10g}" for value in m.values), width=100)
            lines += [
                "",
                f"[quantity.{m.quantity}.values.{toml_value(self.query)}]",
                f"source = {toml_value(m.source)}",
                f"note = {toml_value(m.note)}",
                "choice = [",
                *(f"  {part}" for part in numbers),
                "]",
            ]
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the catalogue, whole or not at all.

        Raises:
          InputError: the file cannot be written there, or is the base itself.
        """
        if not _is_packaged(self.base) and Path(path).resolve() == Path(self.base).resolve():
            raise InputError(path, "", "another file than the catalogue that is extended")
        write_text(path, self.text(Path(path).parent))


def calibrate(
    trace: str | Path,
    *,
    query: str,
    window: float = 0.1,
    windows: int | None = None,
    base: str | Path = "seed",
    tokens: Tokens = "request",
) -> Calibration:
    """Read arrival rates and token lengths of one query type from a trace in the Azure 2023 LLM format.

    Arrival rates: the requests of each whole window ``[t0 + w H, t0 + (w + 1) H)`` divided by its length H,
    from the first request t0; a rest shorter than H is left out. Every window is equally likely.

    Token lengths: the model takes T of a query type as the mean over its requests.
    ``tokens="mean"`` keeps to that: the equally likely values are the means of the windows that have
    requests. Right for costs, capacity and anything linear in T.
    ``tokens="request"``: the equally likely values are 101 quantiles of all the requests (or all of them,
    where they are fewer): each scenario is as if every request had that length. Right for asking whether long
    requests would still meet memory and delay limits; it overstates how much costs vary.

    Rate, input and output lengths are drawn independently: how they go together in the trace is lost.

    Args:
      trace: CSV with the columns TIMESTAMP (ISO 8601, UTC where it has no time zone), ContextTokens and
        GeneratedTokens; rows in any order.
      query: the query type of ``base`` that the requests are.
      window: H, hours.
      windows: take rates and means from the first so many windows only; by default from all of them.
      base: catalogue to extend, by name or path.

    Raises:
      InputError: no such query type or catalogue; a missing column; an unreadable date or a token count that
        is not a whole number >= 0 (with the line); no request; a window longer than the trace.

    Source: Patel et al., Splitwise, ISCA 2024 (Azure Public Dataset, CC-BY 4.0), for the format.
    """
    if tokens not in get_args(Tokens):
        raise InputError("tokens", "", " or ".join(get_args(Tokens)), tokens)
    catalog = load_catalog(base)
    _check_query(catalog, query)
    trace = Path(trace)
    content = read_bytes(trace, most=_MOST_TRACE)
    requests = _read_requests(content, trace)
    since = requests[_TIME].to_numpy() - requests[_TIME].iloc[0]
    length, count = _cut_windows(since[-1], window, windows, trace)
    which = since // length
    inside = which < count
    per_window = np.bincount(which[inside], minlength=count)

    first, last = (
        pd.Timestamp(t, unit="us").strftime("%Y-%m-%d %H:%M:%S") for t in requests[_TIME].iloc[[0, -1]]
    )
    digest = hashlib.sha256(content).hexdigest()[:12]
    origin = f"{trace.name} (SHA-256 {digest}...), {len(requests):,} requests from {first} to {last} UTC"
    spans = f"{count} window{'s' if count > 1 else ''} of {window:g} h"
    rates = per_window / (length / _MICROSECONDS_PER_HOUR)
    note = _describe_values(rates, "queries/h")
    if rest := int((~inside).sum()):
        note += f"; {rest:,} requests after the last window are not counted"
    measured = [Measured("arrival_rate", tuple(rates), f"{origin}; requests per hour in {spans}", note)]
    for quantity, column in (("input_tokens", _INPUT), ("output_tokens", _OUTPUT)):
        counts = requests[column].to_numpy()
        if tokens == "mean":
            sums = np.bincount(which[inside], weights=counts[inside], minlength=count)
            values = sums[per_window > 0] / per_window[per_window > 0]
            how = f"mean {column} of each of {spans}"
        else:
            values = _take_quantiles(counts)
            how = f"{len(values)} equally likely quantiles of {column}"
        note = f"{_describe_values(values, 'tokens')}; over all requests {_describe_values(counts, 'tokens')}"
        measured.append(Measured(quantity, tuple(values), f"{origin}; {how}", note))
    by = "means of windows" if tokens == "mean" else "quantiles of requests"
    return Calibration(
        name=f"{catalog.name}, {query} from {trace.stem}",
        description=f"{catalog.name} with the arrival rate and token lengths of {query} as in {trace.name}",
        base=base,
        query=query,
        measured=tuple(measured),
        summary=(
            f"{query} from {origin}. Arrival rate from {spans}: {_describe_values(rates, 'queries/h')}"
            f" ({catalog.name}: {catalog.entry('arrival_rate', (query,)).distribution})."
            + "".join(
                f" {m.quantity}, {by}: {_describe_values(np.array(m.values), 'tokens')}"
                f" ({catalog.name}: {catalog.entry(m.quantity, (query,)).distribution})."
                for m in measured[1:]
            )
        ),
    )


def _check_query(catalog: Catalog, query: str) -> None:
    names = catalog.sets["query"]
    if query not in names:
        raise InputError("query", "", f"a query type of {catalog.name}: {', '.join(names)}", query)
    for name in ("arrival_rate", "input_tokens", "output_tokens"):
        recipe = catalog.quantities[name].recipe
        if not isinstance(recipe, Draws) or recipe.by is not None:
            expected = "values per query type, which a calibration can replace, instead of a rule"
            raise InputError(catalog.path, f"quantity.{name}", expected)


def _cut_windows(span: int, window: float, windows: int | None, trace: Path) -> tuple[int, int]:
    """Return the length of a window in microseconds, and the number of windows to use."""
    if isinstance(window, bool) or not 1 <= window * _MICROSECONDS_PER_HOUR < math.inf:
        raise InputError("window", "", "hours > 0", window)
    if span == 0:
        raise InputError(trace, _TIME, "requests at more than one time")
    length = round(window * _MICROSECONDS_PER_HOUR)
    held = int(span // length)
    if held == 0:
        hours = span / _MICROSECONDS_PER_HOUR
        raise InputError("window", "", f"at most the {hours:.6g} hours that {trace} spans", window)
    if held > _MOST_WINDOWS:
        expected = f"a longer one: {trace} holds {held:,} of these, and at most {_MOST_WINDOWS:,} are kept"
        raise InputError("window", "", expected, window)
    if windows is None:
        return length, held
    if isinstance(windows, bool) or not 1 <= windows <= held:
        expected = f"a whole number from 1 to {held}, as many as {trace} holds of {window:g} h"
        raise InputError("windows", "", expected, windows)
    return length, windows


def _take_quantiles(counts: np.ndarray) -> np.ndarray:
    """Return the quantiles (q + 1/2) / Q for q = 0 ... Q - 1; each is a value of the data."""
    size = min(_QUANTILES, len(counts))
    return np.quantile(counts, (np.arange(size) + 0.5) / size, method="inverted_cdf")


def _describe_values(values: np.ndarray, unit: str) -> str:
    mean, low, high = (significant(float(x), 4) for x in (values.mean(), values.min(), values.max()))
    return f"mean {mean}, {low} to {high} {unit}"


def _read_requests(content: bytes, trace: Path) -> pd.DataFrame:
    """Read the three columns in order of time: microseconds since 1970 and whole numbers, all int64."""
    wanted = (_TIME, _INPUT, _OUTPUT)
    try:
        table = pd.read_csv(
            io.BytesIO(content),
            header=None,  # pandas would rename the second of two columns of the same name
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,  # so that line numbers are right
            encoding="utf-8-sig",
        ).fillna("")
    except UnicodeDecodeError:
        raise InputError(trace, "", "UTF-8 text") from None
    except pd.errors.EmptyDataError:
        raise InputError(trace, "", f"a CSV with the columns {', '.join(wanted)}; it is empty") from None
    except (pd.errors.ParserError, ValueError) as error:
        raise InputError(trace, "", f"a CSV with as many values per line as columns ({error})") from None
    table.columns = [str(name).strip() for name in table.iloc[0]]
    for name in wanted:
        if list(table.columns).count(name) != 1:
            raise InputError(trace, name, "this column, once", list(table.columns))
    table = table.loc[1:, list(wanted)]
    table = table[(table != "").any(axis="columns")]
    if table.empty:
        raise InputError(trace, "", "at least one request below the heading")
    when = pd.to_datetime(table[_TIME], format="ISO8601", utc=True, errors="coerce")
    _refuse(
        table, _TIME, when.isna().to_numpy(), trace, "a date and time such as 2023-11-16 18:17:03.9799600"
    )
    read = {_TIME: when.dt.as_unit("us").astype("int64").to_numpy()}
    for name in (_INPUT, _OUTPUT):
        count = np.asarray(pd.to_numeric(table[name], errors="coerce"), dtype=np.float64)
        good = (count >= 0) & (count < 2**53) & (count == np.floor(count))
        _refuse(table, name, ~good, trace, "a whole number >= 0")
        read[name] = count.astype(np.int64)
    return pd.DataFrame(read).sort_values(_TIME, kind="stable", ignore_index=True)


def _refuse(table: pd.DataFrame, column: str, bad: np.ndarray, trace: Path, expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        line = int(table.index.to_numpy()[row]) + 1
        raise InputError(trace, f"line {line}: {column}", expected, str(table[column].iloc[row]))


def _is_packaged(base: str | Path) -> bool:
    return str(base) in catalog_names()


def _refer_to(base: str | Path, folder: str | Path) -> str:
    """Return the name by which a catalogue in ``folder`` refers to ``base``."""
    if _is_packaged(base):
        return str(base)
    relative = Path(os.path.relpath(base, folder)).as_posix()
    return f"./{relative}" if _is_packaged(relative) else relative
