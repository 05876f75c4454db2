"""The requests of a trace one by one, in the order of their arrival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rodiu_jax.catalog.readers.imported import read_pairs
from rodiu_jax.catalog.readers.requests import Block, RetryByRow, Trace
from rodiu_jax.catalog.readers.trace_formats import Unit
from rodiu_jax.errors import InputError, nearest

MOST_REQUESTS = 10_000_000
"""Requests that are held at once: up to 3 GB while they are replayed."""


@dataclass(frozen=True)
class Arrivals:
    """Requests of a trace that got an answer, in the order of their arrival; arrays of shape N.

    Attributes:
      time: seconds since the first request of the trace.
      query: position in ``queries`` of each request's type.
      input_tokens, output_tokens: tokens of each request.
      span: seconds from the first request to the last.
      failed: requests without an output token, which are not among them.
    """

    queries: tuple[str, ...]
    time: np.ndarray
    query: np.ndarray
    input_tokens: np.ndarray
    output_tokens: np.ndarray
    span: float
    failed: int


def read_arrivals(
    trace: str | Path,
    *,
    known: tuple[str, ...],
    query: str | None = None,
    query_column: str | None = None,
    names: str | Mapping[str, str] | None = None,
    columns: str | Mapping[str, str] | None = None,
    unit: Unit | None = None,
) -> Arrivals:
    """Read the requests of a trace in any format of `rodiu_jax.import_trace`.

    Args:
      known: the query types there are.
      query, query_column, names, columns, unit: as `rodiu_jax.import_trace` takes them.

    Raises:
      InputError: an unknown query type, a trace that cannot be read, no request with an answer, or all requests at one
        time.
    """
    if (query is None) == (query_column is None):
        raise InputError("query", "", "--query NAME, or --query-column COLUMN with a query type per value")
    if query is not None:
        _check_query(query, known, "query")
    read = Trace(
        trace,
        columns=read_pairs(columns, "columns") if columns is not None else None,
        unit=unit,
        query_column=query_column,
    )
    try:
        blocks = _collect(read, slow=False)
    except RetryByRow:
        blocks = _collect(read, slow=True)
    time, inputs, outputs, code = (
        np.concatenate([getattr(b, name) for b in blocks]) if blocks else np.zeros(0, np.int64)
        for name in ("time", "input", "output", "code")
    )
    good = outputs > 0
    if not good.any():
        raise InputError(trace, "", "at least one request with an output token")
    span = float(time.max() - time.min()) / 1e6
    if span == 0:
        raise InputError(trace, read.layout.time, "requests at more than one time")
    renamed = read_pairs(names, "map")
    values = read.values if query_column is not None else [query or ""]
    queries = [renamed.get(value, value) for value in values]
    for name in queries:
        _check_query(name, known, f"{trace}: {query_column}" if query_column else "query")
    distinct = tuple(dict.fromkeys(queries))
    places = np.array([distinct.index(name) for name in queries])[code] if queries else code
    order = np.argsort(time[good], kind="stable")
    since = (time - time.min()) / 1e6
    return Arrivals(
        queries=distinct,
        time=since[good][order],
        query=places[good][order],
        input_tokens=inputs[good][order],
        output_tokens=outputs[good][order],
        span=span,
        failed=int((~good).sum()),
    )


def _collect(read: Trace, *, slow: bool) -> list[Block]:
    blocks, count = [], 0
    for block in read.slow_blocks() if slow else read.blocks():
        count += len(block.time)
        if count > MOST_REQUESTS:
            raise InputError(read.path, "", f"at most {MOST_REQUESTS:,} requests; cut the trace")
        blocks.append(block)
    return blocks


def _check_query(name: str, known: tuple[str, ...], source: str) -> None:
    if name not in known:
        raise InputError(source, "", f"one of {', '.join(known)}{nearest(name, known)}", name)
