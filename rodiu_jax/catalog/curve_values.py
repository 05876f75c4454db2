"""Numbers of a catalogue that follow its curves: what latency a replica has at the rate that its promise allows.

``throughput`` is the rate of a curve's best point. Delays, residencies and measured speed-ups are of the same point, so
that a tighter promise means a smaller rate and a shorter delay. An entry says with ``at_curve`` that it follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rodiu_jax.catalog.promises import Curve, Point

FOLLOWING = ("delay_nominal", "residency_hours", "tp_speedup")
"""The quantities whose entries may follow curves, over query type, model and GPU (and degree)."""

SAME_LENGTHS = 1.25
"""Mean lengths of requests may differ by this, as draws of one distribution do."""

_MS_PER_HOUR = 3_600_000.0


def find_end_to_end(point: Point) -> tuple[str, float] | None:
    """Return the name and the value, ms, of a point's mean end-to-end latency; the median where it has no mean."""
    name = next((n for n in ("e2e_mean", "e2e_p50") if n in point.latencies), None)
    return None if name is None else (name, point.latencies[name])


def choose_degree(points: Mapping[str, Point | None]) -> str | None:
    """Choose the degree that serves most queries per GPU; None where no degree sustains any rate."""
    able = {tp: p for tp, p in points.items() if p is not None}
    return max(able, key=lambda tp: able[tp].rate / int(tp), default=None)


def read_curve_value(
    quantity: str,
    points: Mapping[str, Point | None],
    slowest: Mapping[str, Point],
    speedups: Mapping[str, float | None],
    tp: str = "",
) -> tuple[float, str] | None:
    """Read a number off the curves of one query type on one model and GPU.

    With L the end-to-end latency at the degree that serves most queries per GPU, T the tokens of a request there and s
    the speed-up of that degree: ``delay_nominal = s L / T`` (ms/token, which the model divides by s again),
    ``residency_hours = L`` in hours, ``tp_speedup = L / L(tp)``. Where no degree sustains a rate, the slowest point of
    the first degree counts.

    Args:
      points: by degree the point at the sustained rate; None where that is 0.
      slowest: by degree the point with the smallest rate.
      speedups: by degree; None where it is no certain number.
      tp: the degree of ``tp_speedup``.

    Returns:
      The number and how it came about; None where the curves do not say it.
    """
    if not slowest:
        return None
    main = choose_degree(points)
    chosen = points[main] if main is not None else None
    note = ""
    if main is None or chosen is None:
        main = min(slowest, key=int)
        chosen, note = slowest[main], ", the lowest rate, as none keeps the promise"
    if (found := find_end_to_end(chosen)) is None:
        return None
    name, latency = found
    at = f"{name} {latency:.6g} ms at {chosen.rate:.6g} queries/h on {main} GPU{'s' if main != '1' else ''}{note}"
    if quantity == "residency_hours":
        return latency / _MS_PER_HOUR, f"{at}: a query's KV cache stays as long as the query"
    if quantity == "tp_speedup":
        own = points.get(tp)
        other = find_end_to_end(own) if own is not None else None
        if other is None or other[1] <= 0:
            return None
        return latency / other[1], f"{at}, over {other[1]:.6g} ms on {tp}"
    total, speedup = sum(chosen.tokens or ()), speedups.get(main)
    if total <= 0 or speedup is None:
        return None
    said = (
        f", times the speed-up {speedup:g} of that degree, by which it is divided again"
        if speedup != 1
        else ""
    )
    return latency / total * speedup, f"{at}, over {total:.6g} tokens a request{said}"


def describe_other_lengths(
    curves: Sequence[Curve],
    query: str,
    ranges: tuple[tuple[float, float], tuple[float, float]],
    *,
    same: float = SAME_LENGTHS,
) -> str:
    """Say which of a query type's curves were taken at other token lengths; empty where none was.

    Args:
      ranges: the least and the largest mean input tokens of the type, and of its output tokens.
      same: the largest factor between lengths that count as the same.
    """
    mine = [c for c in curves if c.query == query and c.points[0].tokens]
    other: dict[tuple[float, float], int] = {}
    for curve in mine:
        tokens = curve.points[0].tokens or (0.0, 0.0)
        sides = zip(tokens, ranges, strict=True)
        if not all(low / same <= given <= same * high for given, (low, high) in sides):
            other[tokens] = other.get(tokens, 0) + 1
    if not other:
        return ""
    (given, made), count = max(other.items(), key=lambda item: item[1])
    has = " and ".join(
        f"{low:.6g}{f' to {high:.6g}' if high > low else ''} {side} tokens"
        for side, (low, high) in zip(("input", "output"), ranges, strict=True)
    )
    return (
        f"{sum(other.values())} of {len(mine)} curves of {query} are of other lengths (most of {given:.6g} input and "
        f"{made:.6g} output tokens a request, {count}) than its {has}: their rates and latencies are of those lengths"
    )
