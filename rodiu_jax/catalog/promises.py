"""Promises of latency, and the measured curves that they are held against.

A promise is a list of limits on latencies of one query type, such as ``ttft_p99<=500ms`` or
``ttft_p50+16*tpot_p50<=500ms``. A curve is what was measured of one replica: rates, and latencies at each. The rate
that a replica sustains is the highest measured one at which every limit holds, so that a tighter promise can only
lower it (`find_sustained`): nothing is read between two points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rodiu_jax.errors import InputError

Basis = Literal["measured", "predicted", "assumed"]
"""What a value rests on: a measurement or a quoted price; a model or formula; somebody's word."""

METRICS = {
    "ttft": "time to the first token",
    "tpot": "time per output token after the first",
    "e2e": "time to the last token",
}
"""Latencies that promises may speak of, in ms."""

GRAMMAR = (
    "limits with commas between, such as ttft_p99<=500ms,tpot_p50<=30ms,e2e_mean<=5s or "
    "ttft_p50+16*tpot_p50<=500ms: ttft, tpot or e2e, each with its percentile (p50, p99, p99.9) or mean, and ms or s"
)
_LATENCY = re.compile(r"(ttft|tpot|e2e)_(mean|p(\d{1,2}(?:\.\d{1,3})?))")
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+"
_TERM = re.compile(rf"(?:({_NUMBER})\*)?((?:ttft|tpot|e2e)_(?:mean|p\d{{1,2}}(?:\.\d{{1,3}})?))")
_TIME = re.compile(rf"({_NUMBER})\s*(ms|s)?")
_LIMIT = re.compile(rf"([^<>=]+)<=({_NUMBER})(ms|s)")


def is_latency(name: str) -> bool:
    """Tell whether ``name`` is a latency as promises write it: ``ttft_p99``, ``tpot_p50``, ``e2e_mean``."""
    found = _LATENCY.fullmatch(name)
    return found is not None and (found[3] is None or float(found[3]) > 0)


@dataclass(frozen=True)
class Limit:
    """One limit: the sum of weight x latency over ``terms`` is at most ``most`` ms."""

    terms: tuple[tuple[float, str], ...]
    most: float

    @property
    def latency(self) -> str:
        """The one latency that is limited; empty where it is a sum of several."""
        return self.terms[0][1] if len(self.terms) == 1 else ""

    def value(self, latencies: Mapping[str, float]) -> float:
        """Compute the left side, in ms; raises KeyError for a latency that was not measured."""
        return math.fsum(weight * latencies[name] for weight, name in self.terms)

    def __str__(self) -> str:
        """Write the limit as `parse_promise` reads it."""
        left = "+".join(name if weight == 1 else f"{weight:.12g}*{name}" for weight, name in self.terms)
        return f"{left}<={self.most:.12g}ms"


@dataclass(frozen=True)
class Promise:
    """Limits on the latencies of one query type, all of which must hold."""

    limits: tuple[Limit, ...]

    @property
    def latencies(self) -> tuple[str, ...]:
        """The latencies that the limits read, each once."""
        return tuple(dict.fromkeys(name for limit in self.limits for _, name in limit.terms))

    def holds(self, latencies: Mapping[str, float]) -> bool:
        """Tell whether every limit holds; raises KeyError for a latency that was not measured."""
        return all(limit.value(latencies) <= limit.most for limit in self.limits)

    def scaled(self, factor: float, latency: str = "") -> Promise:
        """Multiply the right side of every limit, or of that on ``latency`` alone: below 1 the promise is tighter."""
        meant = [not latency or limit.latency == latency for limit in self.limits]
        pairs = zip(self.limits, meant, strict=True)
        return Promise(tuple(replace(limit, most=limit.most * factor) if m else limit for limit, m in pairs))

    def limited(self, latency: str, most: float) -> Promise:
        """Put the limit ``most``, ms, on one latency, in place of the limits on it alone that were there."""
        others = tuple(limit for limit in self.limits if limit.latency != latency)
        return Promise((*others, Limit(((1.0, latency),), most)))

    def __str__(self) -> str:
        """Write the promise as `parse_promise` reads it."""
        return ",".join(str(limit) for limit in self.limits)


def parse_time(text: str) -> float | None:
    """Read ``500``, ``500ms`` or ``0.5s`` as ms; None where it is no time above 0."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    time = float(found[1]) * (1000.0 if found[2] == "s" else 1.0)
    return time if 0 < time < math.inf else None


def parse_promise(text: str, source: str | Path = "promise", field: str = "") -> Promise:
    """Read a promise such as ``ttft_p99<=500ms,tpot_p50<=30ms``; blanks do not matter.

    Args:
      source, field: what errors name.

    Raises:
      InputError: no promise, an unknown latency, no unit, or a limit that is not above 0.
    """

    def refuse() -> InputError:
        return InputError(source, field, GRAMMAR, text)

    if len(text) > 10_000:
        raise refuse()
    limits = []
    for part in "".join(text.split()).split(","):
        found = _LIMIT.fullmatch(part)
        if found is None:
            raise refuse()
        terms = []
        for term in found[1].split("+"):
            read = _TERM.fullmatch(term)
            if read is None or not is_latency(read[2]):
                raise refuse()
            terms.append((float(read[1] or 1), read[2]))
        limit = Limit(tuple(terms), float(found[2]) * (1000.0 if found[3] == "s" else 1.0))
        if not all(0 < x < math.inf for x in (limit.most, *(weight for weight, _ in terms))):
            raise refuse()
        limits.append(limit)
    return Promise(tuple(limits))


@dataclass(frozen=True)
class Point:
    """What was measured at one rate of one replica.

    Attributes:
      rate: queries/h.
      latencies: ms, by names such as ``ttft_p99``.
      tokens: mean input and output tokens of a request; None where nobody says.
    """

    rate: float
    latencies: Mapping[str, float]
    tokens: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """The points measured for one query type on one replica, in the order of their rates.

    Attributes:
      catalog: name of the catalogue that holds the curve.
    """

    query: str
    model: str
    gpu: str
    tp: str
    points: tuple[Point, ...]
    source: str
    note: str
    basis: Basis
    catalog: str

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """The names along the axes of ``throughput``."""
        return self.query, self.model, self.gpu, self.tp


def best_point(points: tuple[Point, ...], promise: Promise | None) -> int | None:
    """Find the position of the highest rate at which the promise holds (any, where there is none); None if nowhere.

    Raises:
      KeyError: a latency of the promise was not measured at some point.
    """
    good = [n for n, p in enumerate(points) if promise is None or promise.holds(p.latencies)]
    return max(good, key=lambda n: points[n].rate, default=None)


def find_sustained(curve: Curve, promise: Promise | None, source: str | Path) -> Point | None:
    """Return the point with the highest measured rate at which the promise holds; None where it holds at none.

    Raises:
      InputError: the promise reads a latency that was not measured.
    """
    try:
        best = best_point(curve.points, promise)
    except KeyError as error:
        at = ".".join(("promise", curve.query))
        measured = sorted(set.intersection(*(set(p.latencies) for p in curve.points)))
        expected = f"latencies that the curve of {curve.model} on {curve.tp} x {curve.gpu} has: {', '.join(measured)}"
        raise InputError(source, at, expected, str(error.args[0])) from None
    return None if best is None else curve.points[best]


def explain_rate(curve: Curve, promise: Promise | None, point: Point | None) -> str:
    """Say in words why the rate of ``point`` is the one that the curve sustains."""
    said = f"{promise} holds" if promise is not None else "nothing is promised"
    count = len(curve.points)
    if point is None:
        return f"at none of {count} measured points {said}"
    where = f"the highest of {count} measured points" if count > 1 else "the one measured point"
    return f"{where} at which {said}"
