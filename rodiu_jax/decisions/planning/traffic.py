"""Traffic of each query type: from a trace, from a rate, from users by Little's law, or as the catalogue states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rodiu_jax.catalog import Catalog, Draws
from rodiu_jax.catalog.promises import Basis
from rodiu_jax.catalog.readers.imported import Value, fixed
from rodiu_jax.decisions.planning.request import SOURCE, PlanRequest, require_known
from rodiu_jax.errors import InputError

if TYPE_CHECKING:
    from rodiu_jax.catalog.readers.trace import QueryStatistics

SECONDS = 3600.0
"""In an hour: rates are stated per second and planned per hour."""


@dataclass(frozen=True)
class Traffic:
    """The traffic of one query type.

    Attributes:
      rate: queries/h that are planned for.
      input_tokens, output_tokens: mean of a query.
      source: where the rate comes from, in words.
      statistics: what its trace says; None where it has none.
    """

    query: str
    rate: float
    input_tokens: float
    output_tokens: float
    source: str
    basis: Basis
    statistics: QueryStatistics | None = None

    @property
    def tokens(self) -> float:
        """Input and output tokens of a query."""
        return self.input_tokens + self.output_tokens


def read_traffic(request: PlanRequest, catalog: Catalog) -> tuple[list[Traffic], list[Value]]:
    """Read the traffic of the query types that carry any, in the order of the catalogue.

    Where a request names a type (by a trace, a rate or users) only the named ones carry traffic; where it names none,
    all do, at the catalogue's means.

    Returns:
      the traffic, and the values of the catalogue that state it.

    Raises:
      InputError: an unknown query type, a trace that cannot be read, no traffic at all.
    """
    known = catalog.sets["query"]
    for argument in ("traces", "rates", "users"):
        for name in getattr(request, argument):
            require_known(name, known, argument, "query type")
    means = {
        name: dict(zip(known, catalog.ranges[name][0].tolist(), strict=True))
        for name in ("arrival_rate", "input_tokens", "output_tokens")
    }
    found: list[Traffic] = []
    values: list[Value] = []
    for query in known:
        lengths = means["input_tokens"][query], means["output_tokens"][query]
        if query in request.traces:
            traffic, read = _read_trace(request, query)
            found.append(traffic)
            values += read
            continue
        if query in request.rates:
            rate, said = request.rates[query] * SECONDS, f"--rate {request.rates[query]:.6g} queries/s"
        elif query in request.users:
            rate = request.users[query] / request.think_seconds * SECONDS
            said = (
                f"--users {request.users[query]:.6g}: each asks again {request.think_seconds:g} s after an answer, "
                "so that they ask at most users / seconds queries/s (Little's law)"
            )
        elif not request.named:
            if means["arrival_rate"][query] > 0:
                entry = catalog.find_entry("arrival_rate", (query,))
                basis: Basis = "assumed"
                if entry is not None and entry.basis in ("measured", "predicted"):
                    basis = "measured" if entry.basis == "measured" else "predicted"
                rate = means["arrival_rate"][query]
                found.append(Traffic(query, rate, *lengths, f"mean of the catalogue {catalog.name}", basis))
            continue
        else:
            continue
        require_values(catalog, "arrival_rate", "queries/h")
        found.append(Traffic(query, rate, *lengths, said, "assumed"))
        values.append(Value("arrival_rate", (query,), fixed(rate), said, basis="assumed"))
    if not found:
        expected = f"traffic of a query type, by --trace, --rate or --users: {catalog.name} states none"
        raise InputError(SOURCE, "rates", expected)
    return found, values


def _read_trace(request: PlanRequest, query: str) -> tuple[Traffic, list[Value]]:
    """Read the trace of a query type: its rate at the level asked for, and the mean lengths of its requests."""
    from rodiu_jax.catalog.readers.trace import import_trace

    try:
        read = import_trace(
            request.traces[query],
            query=query,
            columns=request.columns,
            unit=request.unit,
            timezone=request.timezone,
            base=request.catalog,
        )
    except InputError as error:
        if error.source in ("columns", "unit", "timezone", "query"):
            raise error.move_to(SOURCE, error.source) from None
        raise
    (statistics,) = read.statistics
    record = statistics.record()
    rate = pick_level(statistics.rates, request.traffic_at, record["arrival_rate_mean"], statistics.peak)
    if rate <= 0:
        expected = (
            f"a trace that has requests at {request.traffic_at} of its windows, or another --traffic-at"
        )
        raise InputError(request.traces[query], "", expected)
    lengths = record["input_tokens_mean"], record["output_tokens_mean"]
    name = f"{request.traces[query]}".rpartition("/")[2]
    windows = f"{len(statistics.rates):,} windows of {statistics.windows:g} h of {name}"
    what = "mean of the whole trace" if request.traffic_at == "mean" else f"{request.traffic_at} of the"
    said = f"{name}, {what}" if request.traffic_at == "mean" else f"{what} {windows}"
    return Traffic(query, rate, *lengths, said, "measured", statistics), list(read.values)


def pick_level(rates: np.ndarray, level: str, mean: float, peak: float) -> float:
    """Return a level of the rates of windows: their mean or peak as stated, or a quantile that one of them has."""
    if level in ("mean", "peak"):
        return mean if level == "mean" else peak
    share = float(level.removeprefix("p")) / 100.0
    return float(np.quantile(rates, share, method="inverted_cdf")) if len(rates) else mean


def require_values(catalog: Catalog, quantity: str, unit: str) -> None:
    """Refuse a catalogue that derives what is to be stated instead of holding values of it."""
    held = catalog.quantities.get(quantity)
    if held is not None and not (isinstance(held.recipe, Draws) and held.recipe.by is None):
        expected = f"values by name ({unit}), which a plan can replace, instead of a rule"
        raise InputError(catalog.path, f"quantity.{quantity}", expected)
