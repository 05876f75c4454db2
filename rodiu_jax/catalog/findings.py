"""What a careful reader asks about the values of a catalogue: odd prices, odd curves, unsure accuracies, their basis.

Findings are about data, and no failure: the catalogue keeps what it claims all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.curve_values import describe_other_lengths
from rodiu_jax.catalog.describe import find_basis
from rodiu_jax.catalog.promises import Curve, Promise
from rodiu_jax.io.number_text import significant
from rodiu_jax.model.fields import FILE_FIELDS

ODD_PRICE = 3.0
"""A price under a third of its device's others, or over three times them, is one that a list got wrong."""

_NOISE = 0.05
"""Two measurements of one thing differ by so much, relative; less is no finding."""

_CONFIDENCE = 1.96
"""Standard errors in ``error_deviation`` (`rodiu_jax.catalog.readers.quality`)."""

_MOST_LINES = 3
"""Curves of one basis that are told one by one."""

_STATISTICS = ("p50", "mean", "p99")
_BASES = ("measured", "predicted", "assumed")
_MOST_PAIRS = 4000
"""Pairs of query types that are compared; a profile's buckets are tens of types."""

_REFERENCES = ("corrected", "serving")


def find_findings(catalog: Catalog) -> pd.DataFrame:
    """List what is odd about a catalogue's values.

    Returns:
      columns ``kind`` (``price``, ``rate``, ``curve``, ``lengths``, ``accuracy``), ``at`` (the names concerned) and
      ``text``.
    """
    rows = [
        *(("price", *row) for row in _find_odd_prices(catalog)),
        *(("rate", *row) for row in _find_growing_rates(catalog)),
        *(("curve", *row) for row in _find_falling_latencies(catalog)),
        *(("lengths", *row) for row in _find_other_lengths(catalog)),
        *(("accuracy", *row) for row in _find_unsure_accuracies(catalog)),
    ]
    return pd.DataFrame(rows, columns=pd.Index(["kind", "at", "text"]))


def count_bases(catalog: Catalog) -> pd.DataFrame:
    """Count what the values of each field rest on: columns ``field``, ``measured``, ``predicted``, ``assumed``.

    A value of a rule is predicted; one of which nobody says what it rests on is assumed.
    """
    rows = []
    for name in FILE_FIELDS:
        if name in catalog.quantities:
            found = [find_basis(catalog, name, names) for names in catalog.names(name)]
            rows.append((name, *(found.count(basis) for basis in _BASES)))
    return pd.DataFrame(rows, columns=pd.Index(["field", *_BASES]))


def _find_odd_prices(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Prices far from those of the device's other configurations, or from those of the package's own catalogues."""
    low, high = catalog.ranges["gpu_price"]
    names, devices = catalog.sets["gpu"], catalog.gpu_devices
    listed = _list_references(catalog)
    for k, name in enumerate(names):
        others = [m for m in range(len(names)) if devices[m] == devices[k] and m != k]
        usual: list[tuple[float, ...]] = []
        if others:
            usual.append((float(np.median((low[others] + high[others]) / 2)),))
        whose = [f"{', '.join(names[m] for m in others)}, of the same device"] if others else []
        if known := listed.get(devices[k], {}) | listed.get(name, {}):
            usual.append(tuple(known.values()))
            whose.append(f"{name if name in listed else devices[k]} of {' and '.join(known)}")
        for prices, said in zip(usual, whose, strict=True):
            if low[k] * ODD_PRICE < min(prices) or high[k] > ODD_PRICE * max(prices):
                price, other = _write_range(low[k], high[k]), _write_range(min(prices), max(prices))
                yield name, f"{name} costs ${price} per GPU and hour, {said} ${other}"
                break


def _list_references(catalog: Catalog) -> dict[str, dict[str, float]]:
    """The middle prices in the package's other catalogues, by name of a configuration or device, and catalogue."""
    found: dict[str, dict[str, float]] = {}
    for reference in _REFERENCES:
        if catalog.name == reference:
            continue
        known = load_catalog(reference)
        low, high = known.ranges["gpu_price"]
        for k, names in enumerate(zip(known.sets["gpu"], known.gpu_devices, strict=True)):
            for name in names:
                found.setdefault(name, {}).setdefault(reference, float(low[k] + high[k]) / 2)
    return found


def _find_growing_rates(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """A replica that sustains more of a type whose promise is tighter, and whose queries are no shorter."""
    if "throughput" not in catalog.quantities or "throughput" in catalog.varying:
        return
    rates = catalog.fixed("throughput")
    queries = catalog.sets["query"]
    middle: dict[str, np.ndarray] = {}
    for name in ("input_tokens", "output_tokens", "delay_threshold"):
        low, high = catalog.ranges[name]
        middle[name] = (low + high) / 2
    asked = [i for i in range(len(queries)) if (rates[i][np.isfinite(rates[i])] > 0).any()]
    for a, b in [(a, b) for a in asked for b in asked if a != b][:_MOST_PAIRS]:
        if any(middle[n][a] < middle[n][b] for n in ("input_tokens", "output_tokens")):
            continue
        mine, other = catalog.promises.get(queries[a]), catalog.promises.get(queries[b])
        if mine is not None and other is not None:
            tighter, said = _is_tighter(mine, other), f"{mine}, against {other}"
        elif mine is None and other is None:
            tighter = bool(middle["delay_threshold"][a] < middle["delay_threshold"][b])
            said = f"delay within {middle['delay_threshold'][a]:g} ms, against {middle['delay_threshold'][b]:g} ms"
        else:
            continue
        grows = np.isfinite(rates[a]) & (rates[a] > (1 + _NOISE) * rates[b]) & (rates[b] > 0)
        if tighter and grows.any():
            j, k, n = np.unravel_index(int(np.argmax(grows)), grows.shape)
            where = f"{catalog.sets['tp'][n]} x {catalog.sets['gpu'][k]}"
            more = f" (and {int(grows.sum()) - 1} more)" if grows.sum() > 1 else ""
            yield (
                f"{queries[a]}, {queries[b]}",
                f"{catalog.sets['model'][j]} on {where} sustains {significant(rates[a][j, k, n], 4)} queries/h of "
                f"{queries[a]} and only {significant(rates[b][j, k, n], 4)} of {queries[b]}{more}, although the "
                f"promise of {queries[a]} is tighter and its queries are no shorter: {said}",
            )


def _is_tighter(one: Promise, other: Promise) -> bool:
    """Tell whether a promise has the same limits as another, none of them looser and one of them tighter."""
    mine, its = ({limit.terms: limit.most for limit in p.limits} for p in (one, other))
    same = mine.keys() == its.keys() and all(mine[terms] <= its[terms] for terms in mine)
    return same and mine != its


@dataclass(frozen=True)
class _Fall:
    """A latency that falls where the rate grows, on one curve.

    Attributes:
      ratio: the latency at the faster point over that at the slower one.
      latencies: the latencies of the curve that fall somewhere.
    """

    ratio: float
    where: str
    said: str
    latencies: int


def _find_falling_latencies(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Curves on which a latency falls where the rate grows: the points were not measured alike, or by chance.

    Predictions are of whatever setting of the engine is the fastest within a limit, so there one latency may well fall
    as another grows; only a point that a faster one beats in every latency is odd. Many curves make one line.
    """
    for basis in _BASES:
        found = [f for f in (_find_fall(c) for c in catalog.curves if c.basis == basis) if f is not None]
        if len(found) > _MOST_LINES:
            worst = min(found, key=lambda f: f.ratio)
            count = sum(c.basis == basis for c in catalog.curves)
            many = f"{len(found)} of {count} {basis} curves are not monotone"
            yield f"{len(found)} {basis} curves", f"{many}, the most that of {worst.where}: {worst.said}"
            continue
        for fall in found:
            more = f"; so do {fall.latencies - 1} other latencies" if fall.latencies > 1 else ""
            yield fall.where, f"the curve of {fall.where} is not monotone: {fall.said}{more}"


def _find_fall(curve: Curve) -> _Fall | None:
    """Find the latency of a curve that falls most."""
    falls = []
    for name in sorted({n for p in curve.points for n in p.latencies}):
        if name.partition("_")[2] not in _STATISTICS:
            continue
        points = [p for p in curve.points if name in p.latencies]
        for slow, fast in pairwise(points):
            before, after = slow.latencies[name], fast.latencies[name]
            odd = curve.basis != "predicted" or all(
                fast.latencies.get(n, v) <= v for n, v in slow.latencies.items()
            )
            if fast.rate > slow.rate and after < (1 - _NOISE) * before and odd:
                falls.append((after / before, name, slow.rate, before, fast.rate, after))
    if not falls:
        return None
    ratio, name, slow_rate, before, fast_rate, after = min(falls)
    said = (
        f"{name} falls from {significant(before, 4)} ms at {significant(slow_rate, 4)} queries/h to "
        f"{significant(after, 4)} ms at {significant(fast_rate, 4)}"
    )
    where = f"{curve.query} on {curve.model}, {curve.tp} x {curve.gpu}"
    return _Fall(ratio, where, said, len({fall[1] for fall in falls}))


def _find_other_lengths(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Query types whose requests have other lengths than those of their curves."""
    for i, query in enumerate(catalog.sets["query"]):
        given, made = (
            (float(catalog.ranges[name][0][i]), float(catalog.ranges[name][1][i]))
            for name in ("input_tokens", "output_tokens")
        )
        if text := describe_other_lengths(catalog.curves, query, (given, made)):
            yield query, text


def _find_unsure_accuracies(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Error rates whose standard error exceeds their distance to what is promised: a coin decides."""
    low, high = catalog.ranges["error_threshold"]
    groups: dict[tuple[str, str, float, float, float], list[str]] = {}
    for names in catalog.names("error_nominal"):
        entries = [catalog.find_entry(q, names) for q in ("error_nominal", "error_deviation")]
        drawn = [e.distribution for e in entries if e is not None and e.distribution.kind == "fixed"]
        if len(drawn) < 2:
            continue
        i = catalog.sets["query"].index(names[0])
        promised = float(low[i] + high[i]) / 2
        error, stderr = drawn[0].numbers[0], drawn[1].numbers[0] / _CONFIDENCE
        if abs(promised - error) < stderr:
            groups.setdefault((names[0], names[1], error, stderr, promised), []).append(names[2])
    for (query, model, error, stderr, promised), gpus in groups.items():
        yield (
            f"{query}, {model}",
            f"the error of {model} at {query} ({', '.join(gpus[:3])}{' ...' if len(gpus) > 3 else ''}) is {error:.4g}, "
            f"with a standard error of {stderr:.2g}, which exceeds its distance to the promise of {promised:.4g}",
        )


def _write_range(low: float, high: float) -> str:
    ends = significant(low, 4), significant(high, 4)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
