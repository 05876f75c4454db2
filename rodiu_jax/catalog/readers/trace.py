"""Traces of requests as catalogues: arrival rates by window, token lengths, and how they go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

import numpy as np

from rodiu_jax.catalog import Catalog, Draws, load_catalog
from rodiu_jax.catalog.curve_values import describe_other_lengths
from rodiu_jax.catalog.readers.imported import (
    Imported,
    Origin,
    Value,
    choice,
    find_likes,
    read_pairs,
    settle_name,
)
from rodiu_jax.catalog.readers.requests import Trace
from rodiu_jax.catalog.readers.trace_formats import Unit
from rodiu_jax.catalog.readers.windows import HOUR, MOST_WINDOWS, Counts, Tally, tally_windows
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import significant

Tokens = Literal["window", "request", "mean"]
QUANTILES = 101
_PEAKS = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class QueryStatistics:
    """What a trace says of one query type.

    Attributes:
      failed: requests without an output token; nothing else counts them.
      rates: requests/h in each window of ``windows`` hours.
      rest: requests after the last whole window, which ``rates`` does not count.
      inputs, outputs: mean tokens in each window, NaN where it has no request.
      by_hour: mean requests/h in each hour of the day; None where the clock has none, or the trace is too short.
      hour_of_window: the hour of the day in which the middle of each window lies, or the hour since the first request,
        from 0 to 23, where the clock has no dates; None where windows are longer than an hour.
      dated: the clock has dates, so that hours are of the day.
    """

    query: str
    requests: int
    failed: int
    hours: float
    windows: float
    rates: np.ndarray
    rest: int
    peak: float
    inputs: np.ndarray
    outputs: np.ndarray
    input_counts: tuple[np.ndarray, np.ndarray] = field(repr=False)
    output_counts: tuple[np.ndarray, np.ndarray] = field(repr=False)
    by_hour: tuple[float | None, ...] | None
    hour_of_window: np.ndarray | None = field(default=None, repr=False)
    dated: bool = True

    @property
    def rate_mean(self) -> float:
        """Requests/h over the whole span of the trace."""
        return self.requests / self.hours

    def record(self) -> dict[str, Any]:
        """Return the statistics as JSON values."""
        quantiles = np.quantile(self.rates, _PEAKS, method="inverted_cdf") if len(self.rates) else []
        return {
            "query": self.query,
            "requests": self.requests,
            "failed": self.failed,
            "hours": self.hours,
            "arrival_rate_mean": self.rate_mean,
            "arrival_rate_peak": self.peak,
            "arrival_rate_quantiles": {
                f"p{round(100 * q)}": float(rate) for q, rate in zip(_PEAKS, quantiles, strict=True)
            },
            "arrival_rate_by_hour": None if self.by_hour is None else list(self.by_hour),
            "window_hours": self.windows,
            "windows": len(self.rates),
            "after_last_window": self.rest,
            "input_tokens_mean": _mean_of(self.input_counts),
            "output_tokens_mean": _mean_of(self.output_counts),
            "unit": "queries/h, tokens",
        }


def import_trace(
    trace: str | Path,
    *,
    query: str | None = None,
    query_column: str | None = None,
    names: str | Mapping[str, str] | None = None,
    columns: str | Mapping[str, str] | None = None,
    unit: Unit | None = None,
    window: float | None = None,
    windows: int | None = None,
    tokens: Tokens = "window",
    timezone: str = "UTC",
    base: str | Path = "seed",
    like: str | Mapping[str, str] | None = None,
    write: bool = True,
) -> Imported:
    """Read arrival rates and token lengths of query types from a trace, CSV or JSON lines.

    Arrival rates: the requests of each whole window ``[t0 + w H, t0 + (w + 1) H)`` divided by its length H, from the
    first request t0; a rest shorter than H is left out and counted, except in the peak. Every window is equally
    likely. Requests with 0 output tokens failed: they are counted apart and in nothing else.

    Token lengths: the model takes the tokens T of a query type as the mean over its requests.

    - ``tokens="window"``: a window is one draw. Its rate and its mean lengths are drawn together, those of all query
      types of the trace too, so that a night stays a night. A window without requests of a type has the rate 0 and
      the mean lengths of the type.
    - ``tokens="mean"``: the equally likely values are the means of the windows that have requests, drawn
      independently of the rate.
    - ``tokens="request"``: the equally likely values are 101 quantiles of all the requests (or all of them, where they
      are fewer), drawn independently of the rate: each scenario is as if every request had that length. Right for
      asking whether long requests would still meet limits; it overstates how much costs vary.

    Args:
      trace: Azure 2023 or 2024, BurstGPT, Mooncake, Vidur and fleet-sim are told by their columns; rows in any order.
      query: the query type that all requests are of; or
      query_column: the column whose values are query types, called so or as ``names`` says (``VALUE=NAME,...``).
      columns: of another format: ``time=COLUMN,input=COLUMN,output=COLUMN``.
      unit: of a clock that counts, ``s`` or ``ms``; the formats above bring their own.
      window: H, hours; 0.1, or the whole trace where it is shorter.
      windows: take rates and means from the first so many windows only; by default from all of them.
      timezone: in which the hours of the day are counted. A date without a zone is UTC.
      base: catalogue to extend, by name or path.
      like: query type of ``base`` that a type which it lacks is like (``query=NAME``). With ``query_column`` the first
        of ``base`` if none is named, and the catalogue says that this is assumed.
      write: False to read alone: the names need not be in ``base``, and nothing can be saved.

    Raises:
      InputError: no such query type or catalogue; a column that is missing; a clock whose unit nobody says; an
        unreadable date or a token count that is not a whole number >= 0 (with the line); no request; a window longer
        than the trace.

    Source: Patel et al., Splitwise, ISCA 2024 (Azure Public Dataset, CC-BY 4.0); Wang et al., BurstGPT, KDD 2025; Qin
    et al., Mooncake, FAST 2025; Agrawal et al., Vidur, MLSys 2024, for the formats.
    """
    if tokens not in get_args(Tokens):
        raise InputError("tokens", "", " or ".join(get_args(Tokens)), tokens)
    if (query is None) == (query_column is None):
        raise InputError("query", "", "--query NAME, or --query-column COLUMN with a query type per value")
    if unit not in (None, *get_args(Unit)):
        raise InputError("unit", "", "s or ms", unit)
    zone = _find_zone(timezone)
    catalog = load_catalog(base)
    renamed = read_pairs(names, "map")
    given = read_pairs(columns, "columns") if columns is not None else None
    likes = find_likes(like)
    if query is not None and write:
        settle_name(catalog, "query", query, likes.get("query"), "query")
        _check_rules(catalog)
    read = Trace(trace, columns=given, unit=unit, query_column=query_column)
    tally = tally_windows(read, window)
    if not tally.requests:
        raise InputError(trace, "", "at least one request below the heading")
    found = _summarise(read, tally, query, renamed, window, windows, zone)
    origin = read.digest()
    added = {}
    for s in found if write else ():
        default = catalog.sets["query"][0] if query_column is not None else None
        if new := settle_name(catalog, "query", s.query, likes.get("query", default), "query"):
            added[new[0]] = new[1]
    if write:
        _check_rules(catalog)
    values, about = _make_values(found, read, origin, tokens, tally)
    about["warnings"] = list(_list_warnings(catalog, found)) if write else []
    what = ", ".join(s.query for s in found)
    return Imported(
        kind="trace",
        name=f"{catalog.name}, {what} from {read.path.stem}",
        description=f"{catalog.name} with the arrival rate and token lengths of {what} as in {read.path.name}",
        base=base,
        values=values,
        record=[s.record() | about for s in found],
        summary="\n".join(
            [
                _write_summary(catalog, found, values, read, origin, tally, tokens, added),
                *(f"Warning: {text}." for text in about["warnings"]),
            ]
        ),
        likes={"query": added},
        statistics=tuple(found),
    )


def _summarise(
    read: Trace,
    tally: Tally,
    query: str | None,
    renamed: Mapping[str, str],
    window: float | None,
    windows: int | None,
    zone: ZoneInfo,
) -> list[QueryStatistics]:
    span = tally.last - tally.first
    if span == 0:
        raise InputError(read.path, read.layout.time, "requests at more than one time")
    held = int(span // tally.length)
    hours = tally.length / HOUR
    if held == 0:
        longest = f"at most the {span / HOUR:.6g} hours that {read.path} spans"
        raise InputError("window", "", longest, hours)
    if held > MOST_WINDOWS or tally.too_long:
        expected = f"a longer one: {read.path} holds {held:,} of these, and at most {MOST_WINDOWS:,} are kept"
        raise InputError("window", "", expected, hours)
    if windows is not None and (isinstance(windows, bool) or not 1 <= windows <= held):
        expected = f"a whole number from 1 to {held}, as many as {read.path} holds of {hours:g} h"
        raise InputError("windows", "", expected, windows)
    count = windows or held
    groups: dict[str, list[int]] = {}
    if query is not None:
        groups[query] = list(range(len(tally.counts)))
    else:
        for code, value in enumerate(read.values[: len(tally.counts)]):
            groups.setdefault(renamed.get(value, value), []).append(code)
        unknown = [value for value in renamed if value not in read.values]
        if unknown:
            expected = f"values of {read.query_column}: {', '.join(read.values)}"
            raise InputError("map", "", expected, unknown[0])
        if "" in groups:
            expected = "a value in every row, or --map with a name for the empty one"
            raise InputError(read.path, str(read.query_column), expected, "")
    found = [_summarise_type(name, codes, tally, count, read, zone) for name, codes in groups.items()]
    empty = [s.query for s in found if not s.requests]
    if empty:
        expected = "at least one request with an output token of each query type"
        raise InputError(read.path, read.layout.output, expected, empty[0])
    return found


def _summarise_type(
    name: str, codes: list[int], tally: Tally, count: int, read: Trace, zone: ZoneInfo
) -> QueryStatistics:
    hours = tally.length / HOUR
    span = tally.last - tally.first
    whole = span == tally.length  # one window that ends with the last request
    width = max([tally.counts[c].shape[1] for c in codes] + [count])
    table = np.zeros((3, width))
    for c in codes:
        table[:, : tally.counts[c].shape[1]] += tally.counts[c]
    if whole and width > 1:
        table[:, 0] += table[:, 1:].sum(axis=1)
        table[:, 1:] = 0
    inside = table[:, :count]
    with np.errstate(invalid="ignore", divide="ignore"):
        inputs, outputs = inside[1] / inside[0], inside[2] / inside[0]
    merged = []
    for side in (0, 1):
        both = Counts()
        for c in codes:
            values, counts = tally.lengths[c][side].table()
            both.sparse |= {
                int(v): both.sparse.get(int(v), 0) + int(n) for v, n in zip(values, counts, strict=True)
            }
        merged.append(both.table())
    requests = int(table[0].sum())
    hour = _find_hours(count, tally, read, zone)
    return QueryStatistics(
        query=name,
        requests=requests,
        failed=sum(tally.failed[c] for c in codes),
        hours=span / HOUR,
        windows=hours,
        rates=inside[0] / hours,
        rest=requests - int(inside[0].sum()),
        peak=float(table[0].max(initial=0.0)) / hours,
        inputs=inputs,
        outputs=outputs,
        input_counts=merged[0],
        output_counts=merged[1],
        by_hour=_average_hours(inside[0] / hours, hour) if read.absolute and hour is not None else None,
        hour_of_window=hour,
        dated=read.absolute,
    )


def _average_hours(rates: np.ndarray, hour: np.ndarray) -> tuple[float | None, ...]:
    """The mean rate in each hour of the day; None where no window is in it."""
    return tuple(float(rates[hour == h].mean()) if (hour == h).any() else None for h in range(24))


def _find_hours(count: int, tally: Tally, read: Trace, zone: ZoneInfo) -> np.ndarray | None:
    """The hour of the day of the middle of each window; None where windows are longer than an hour.

    Where the clock has no dates, hours are counted from the first request.
    """
    import pandas as pd

    if tally.length > HOUR:
        return None
    middles = tally.length * (np.arange(count) + 0.5)
    if not read.absolute:
        return (middles // HOUR).astype(np.int64) % 24
    try:
        middles = (tally.first + middles).astype(np.int64)
        when = pd.to_datetime(middles, unit="us", utc=True).tz_convert(zone)
    except (pd.errors.OutOfBoundsDatetime, OverflowError, ValueError):
        return None
    return np.asarray(when.hour, np.int64)


def _find_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputError("timezone", "", "a time zone such as UTC or Europe/Berlin", name) from None


def _check_rules(catalog: Catalog) -> None:
    for name in ("arrival_rate", "input_tokens", "output_tokens"):
        recipe = catalog.quantities[name].recipe
        if not isinstance(recipe, Draws) or recipe.by is not None:
            expected = "values per query type, which a trace can replace, instead of a rule"
            raise InputError(catalog.path, f"quantity.{name}", expected)


def _list_warnings(catalog: Catalog, found: list[QueryStatistics]) -> Iterator[str]:
    """Query types whose curves in the base are of other lengths than the trace's requests."""
    for s in found:
        given, made = _mean_of(s.input_counts), _mean_of(s.output_counts)
        if text := describe_other_lengths(catalog.curves, s.query, ((given, given), (made, made))):
            yield text


# ---- values ----


def _make_values(
    found: list[QueryStatistics], read: Trace, origin: Origin, tokens: Tokens, tally: Tally
) -> tuple[tuple[Value, ...], dict[str, Any]]:
    group = f"{origin.name} {origin.digest[:12]}" if tokens == "window" else ""
    values = []
    for s in found:
        spans = f"{len(s.rates)} window{'s' if len(s.rates) > 1 else ''} of {s.windows:g} h"
        about = f"{origin}, {s.requests:,} requests{_write_span(read, tally)}"
        note = _describe(s.rates, "queries/h")
        if s.rest:
            note += f"; {s.rest:,} requests after the last window are not counted"
        if s.failed:
            note += f"; {s.failed:,} requests without an output token failed and are not counted"
        rate = Value(
            "arrival_rate",
            (s.query,),
            choice(s.rates.tolist()),
            f"{about}; requests per hour in {spans}",
            note,
        )
        values.append(rate if not group else _together(rate, group))
        for quantity, column, means, counts in (
            ("input_tokens", read.layout.input, s.inputs, s.input_counts),
            ("output_tokens", read.layout.output, s.outputs, s.output_counts),
        ):
            empty = np.isnan(means)
            if tokens == "request":
                numbers = take_quantiles(counts)
                how = f"{len(numbers)} equally likely quantiles of {column}"
            elif tokens == "mean":
                numbers, how = means[~empty], f"mean {column} of each of {spans}"
            else:
                numbers = np.where(empty, _mean_of(counts), means)
                how = f"mean {column} of each of {spans}, drawn together with the rate"
            if not len(numbers):
                raise InputError("windows", "", "windows with a request of each query type", s.query)
            note = f"{_describe(numbers, 'tokens')}; over all requests {_describe_counts(counts, 'tokens')}"
            if tokens == "window" and empty.any():
                note += f"; {int(empty.sum())} windows without requests have the mean"
            if quantity == "input_tokens" and read.prefix_note:
                note += f"; {read.prefix_note}"
            value = Value(quantity, (s.query,), choice(numbers.tolist()), f"{about}; {how}", note)
            values.append(value if not group else _together(value, group))
    prefix = {} if read.saved_tokens is None else {"shared_prefix_tokens": read.saved_tokens}
    return tuple(values), prefix


def _together(value: Value, group: str) -> Value:
    return replace(value, together=group)


def take_quantiles(counts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the quantiles (q + 1/2) / Q for q = 0 ... Q - 1 of counted numbers; each is a value of the data.

    Quantile p is the smallest number that at least a share p of the data does not exceed, worked out in whole numbers.
    """
    values, times = counts
    size = int(times.sum())
    quantiles = min(QUANTILES, size)
    ranks = [-(-(2 * q + 1) * size // (2 * quantiles)) for q in range(quantiles)]
    return values[np.searchsorted(np.cumsum(times), ranks)]


def _mean_of(counts: tuple[np.ndarray, np.ndarray]) -> float:
    values, times = counts
    return float(np.dot(values.astype(np.float64), times) / times.sum())


def _describe(values: np.ndarray, unit: str) -> str:
    mean, low, high = (significant(float(x), 4) for x in (values.mean(), values.min(), values.max()))
    return f"mean {mean}, {low} to {high} {unit}"


def _describe_counts(counts: tuple[np.ndarray, np.ndarray], unit: str) -> str:
    values = counts[0]
    mean, low, high = (significant(float(x), 4) for x in (_mean_of(counts), values.min(), values.max()))
    return f"mean {mean}, {low} to {high} {unit}"


def _write_span(read: Trace, tally: Tally) -> str:
    import pandas as pd

    if read.absolute:
        try:
            first, last = (
                pd.Timestamp(t, unit="us").strftime("%Y-%m-%d %H:%M:%S") for t in (tally.first, tally.last)
            )
            return f" from {first} to {last} UTC"
        except (ValueError, OverflowError):
            pass
    return f" over {(tally.last - tally.first) / HOUR:.4g} h ({read.layout.time} read as {read.unit})"


def _write_summary(
    catalog: Catalog,
    found: list[QueryStatistics],
    values: tuple[Value, ...],
    read: Trace,
    origin: Origin,
    tally: Tally,
    tokens: Tokens,
    added: Mapping[str, str],
) -> str:
    by = {"window": "means of windows, drawn with the rate", "mean": "means of windows"}.get(
        tokens, "quantiles of requests"
    )
    lines = []
    for s in found:
        mine = [v for v in values if v.names == (s.query,)]
        failed = f", {s.failed:,} failed" if s.failed else ""
        text = (
            f"{s.query} from {origin.short}, {s.requests:,} requests{failed}{_write_span(read, tally)}. "
            f"Arrival rate from {len(s.rates)} window{'s' if len(s.rates) > 1 else ''} of {s.windows:g} h: "
            f"{_describe(s.rates, 'queries/h')}, peak {significant(s.peak, 4)}{_compare(catalog, mine[0])}."
        )
        if s.rest:
            text += f" {s.rest:,} requests after the last window are counted in the peak alone."
        for v in mine[1:]:
            text += f" {v.quantity}, {by}: {_describe(np.array(v.values), 'tokens')}{_compare(catalog, v)}."
        if s.query in added:
            text += f" {catalog.name} has no {s.query}: all else is assumed as {added[s.query]}'s."
        lines.append(text)
    if read.prefix_note:
        lines.append(f"{read.prefix_note[0].upper()}{read.prefix_note[1:]}.")
    return "\n".join(lines)


def _compare(catalog: Catalog, value: Value) -> str:
    entry = (
        catalog.find_entry(value.quantity, value.names) if value.names[0] in catalog.sets["query"] else None
    )
    return f" ({catalog.name}: {entry.distribution})" if entry is not None else ""
