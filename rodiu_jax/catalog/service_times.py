"""Points of a curve as what a replica does: how many requests it serves at once, and how long each of them takes.

By Little's law a replica that completes ``rate`` requests an hour, each of which takes ``e2e`` ms, serves
``rate x e2e`` of them at once on average. A curve of rates so becomes one over the number of requests at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rodiu_jax.catalog.promises import Curve, Point

_HOUR = 3_600_000.0
"""Milliseconds."""


@dataclass(frozen=True)
class ServicePoint:
    """One point of a curve.

    Attributes:
      rate: requests/h.
      concurrency: requests at once.
      first: ms to the first token.
      rest: ms from the first token to the last.
      token: ms per output token after the first; 0 where the curve does not tell.
    """

    rate: float
    concurrency: float
    first: float
    rest: float
    token: float


def find_service_points(curve: Curve, output_tokens: float) -> tuple[ServicePoint, ...] | None:
    """Turn the points of a curve into points over the requests at once, in the order of concurrency.

    Means of latencies are read where the curve has them, else the percentile nearest to the median. Where ``e2e`` is
    missing it is ``ttft + tpot x (output_tokens - 1)``; where ``tpot`` is missing the same formula gives it.

    Args:
      output_tokens: of a request, tokens.

    Returns:
      None where some point tells neither ``e2e`` nor both ``ttft`` and ``tpot``.
    """
    found = [_read_point(point, max(output_tokens - 1.0, 1.0)) for point in curve.points]
    if any(point is None for point in found):
        return None
    return tuple(sorted((p for p in found if p is not None), key=lambda p: p.concurrency))


def find_batch(concurrency: float) -> int:
    """Return the size of a batch that holds so many requests on average, at least 1.

    A batch is not always full, so that its size is the next whole number; rounding of the rates and latencies that
    Little's law multiplies, up to 1 %, makes no larger batch.
    """
    nearest = round(concurrency)
    return max(nearest if abs(concurrency - nearest) <= 0.01 * concurrency else math.ceil(concurrency), 1)


def _read_point(point: Point, later_tokens: float) -> ServicePoint | None:
    first, token, whole = (read_latency(point.latencies, name) for name in ("ttft", "tpot", "e2e"))
    if whole is None:
        if first is None or token is None:
            return None
        whole = first + token * later_tokens
    first = min(first or 0.0, whole)
    if token is None:
        token = (whole - first) / later_tokens
    return ServicePoint(point.rate, point.rate * whole / _HOUR, first, whole - first, token)


def read_latency(latencies: Mapping[str, float], name: str) -> float | None:
    """Return the mean of a latency, or else its percentile nearest to 50; None where there is neither."""
    if f"{name}_mean" in latencies:
        return latencies[f"{name}_mean"]
    start = f"{name}_p"
    percentiles = [key for key in latencies if key.startswith(start)]
    if not percentiles:
        return None
    return latencies[min(percentiles, key=lambda key: abs(float(key.removeprefix(start)) - 50.0))]
