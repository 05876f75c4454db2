"""How a benchmark is described, timed fairly and shown: warm-up, interleaved repeats, medians and spread."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rodiu_jax.runtime.cores import usable_cores


@dataclass(frozen=True)
class Side:
    """One way of doing the work: ``run`` does ``items`` of them and returns once the results are there.

    ``target`` is the least ratio of our rate to this side's that is wanted; None where there is none.
    """

    name: str
    run: Callable[[], Any]
    items: int
    target: float | None = None


@dataclass(frozen=True)
class Case:
    """One size: our side first, then the peers.

    ``quality`` gets the result of each side's warm-up, in order; it says whether they are right, and how far.
    ``counted`` tells bytes and operations of our compiled program; empty where nothing is compiled.
    """

    size: str
    sides: tuple[Side, ...]
    quality: Callable[[Sequence[Any]], tuple[bool, str]]
    counted: str = ""


@dataclass(frozen=True)
class Spec:
    """A registered benchmark.

    Attributes:
      sizes: argument of ``cases``, smallest first; a smoke run takes the first alone.
      cases: a context that yields the cases of one size, one after the other, and holds what they share.
      by_hand: bytes and operations per item, from the formulas.
      large: further sizes, where there is a GPU; some hundreds of them for peers that solve one by one.
      repeats: after a warm-up; 0 where the first call is what counts.
    """

    name: str
    measures: str
    item: str
    peers: str
    quality: str
    precision: str
    by_hand: str
    sizes: tuple[int, ...]
    cases: Callable[[int], AbstractContextManager[Iterator[Case]]]
    repeats: int = 5
    large: tuple[int, ...] = ()


@dataclass(frozen=True)
class Timed:
    """One side of a case: seconds per repeat, and our rate divided by this one's, repeat by repeat."""

    case: Case
    side: Side
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    ok: bool
    quality: str

    @property
    def rate(self) -> float:
        """Items per second at the median time."""
        return self.side.items / statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        """Median of our rate over this side's, each taken within one repeat."""
        return statistics.median(self.ratios)


def time_case(case: Case, repeats: int) -> list[Timed]:
    """Run every side once to warm up, then all of them in turn, ``repeats`` times; our side is the first.

    Without repeats the warm-up is what is timed, compilation and start of processes included.
    """
    first = [_clock(side) for side in case.sides]
    ok, quality = case.quality([result for _, result in first])
    rounds = [[_clock(side)[0] for side in case.sides] for _ in range(repeats)]
    rounds = rounds or [[seconds for seconds, _ in first]]
    items = [side.items for side in case.sides]
    rows = []
    for s, side in enumerate(case.sides):
        ratios = tuple((items[0] / times[0]) / (items[s] / times[s]) for times in rounds)
        rows.append(Timed(case, side, tuple(times[s] for times in rounds), ratios, ok, quality))
    return rows


def _clock(side: Side) -> tuple[float, Any]:
    began = time.perf_counter()
    result = side.run()
    return time.perf_counter() - began, result


def run_spec(spec: Spec, *, smoke: bool = False) -> list[Timed]:
    """Time every case of every size; a smoke run takes the smallest size and times its warm-up."""
    rows = []
    for size in spec.sizes[: 1 if smoke else None]:
        with spec.cases(size) as cases:
            for case in cases:
                rows += time_case(case, 0 if smoke else spec.repeats)
    return rows


def section(spec: Spec, rows: Sequence[Timed]) -> str:
    """A benchmark as Markdown: what it is, and its table."""
    lines = [
        f"## {spec.name}",
        "",
        f"{spec.measures}",
        "",
        f"- Peers: {spec.peers}",
        f"- Quality: {spec.quality}",
        f"- Precision: {spec.precision}",
        f"- Bytes and operations by hand: {spec.by_hand}",
    ]
    counted = {row.case.size: row.case.counted for row in rows if row.case.counted}
    lines += [f"- Counted by XLA, {size}: {text}" for size, text in counted.items()]
    lines += [
        "",
        f"| size | side | {spec.item}s timed | ms: median (least to most) | {spec.item}s/s | ours / this |"
        " wanted | right | quality |",
        "|---|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        own = row.side is row.case.sides[0]
        low, high = 1e3 * min(row.seconds), 1e3 * max(row.seconds)
        wanted = "-" if row.side.target is None else f"{row.side.target:g}"
        ratio = "-" if own else f"{row.ratio:.3g} ({min(row.ratios):.3g} to {max(row.ratios):.3g})"
        cells = [
            row.case.size,
            row.side.name,
            f"{row.side.items:,}",
            f"{1e3 * statistics.median(row.seconds):,.4g} ({low:,.4g} to {high:,.4g})",
            f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.3g}",
            ratio,
            wanted,
            ("yes" if row.ok else "NO") if own else "",
            row.quality if own else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def xla_counts(program: Any, /, *args: Any, **options: Any) -> np.ndarray:
    """Bytes accessed and operations that XLA counts in a jitted program; NaN where it does not tell."""
    counts = program.lower(*args, **options).compile().cost_analysis() or {}
    none = 0.0 if counts else math.nan  # a program that only copies has no operations
    return np.array([float(counts.get("bytes accessed", math.nan)), float(counts.get("flops", none))])


def told(doc: str | None) -> str:
    """What a module's docstring says after its first line, as one paragraph for the head of its table."""
    return " ".join((doc or "").split("\n\n", 1)[1].split())


def load() -> str:
    """Load average over the last minute: above the cores in use, other work slows what is timed."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def rent(kind: str, count: int) -> str:
    """What ``count`` devices of a kind cost per hour by the corrected catalogue's mean prices; empty where it has none.

    A GPU is listed once per precision; the dearest counts.
    """
    from rodiu_jax.catalog import load_catalog

    catalog = load_catalog("corrected")
    least, most = (np.broadcast_to(bound, len(catalog.sets["gpu"])) for bound in catalog.ranges["gpu_price"])
    listed = {name: float(a + b) / 2 for name, a, b in zip(catalog.sets["gpu"], least, most, strict=True)}
    words = kind.upper().replace("-", " ").split()
    prices = {name: price for name, price in listed.items() if all(w in words for w in name.split("_")[:-1])}
    if not prices:
        return ""
    name = max(prices, key=lambda name: prices[name])
    return f"- Rent: ${count * prices[name]:.2f} per hour ({count} x {name} at the corrected catalogue's mean price)"


def machine() -> str:
    """Processor, cores, devices and their rent, versions, date and load, as a Markdown list."""
    import jax

    info = Path("/proc/cpuinfo")
    found = [
        line.split(":", 1)[1].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    model = found[0] if found else platform.processor() or platform.machine()
    kinds = [device.device_kind for device in jax.local_devices()]
    rented = rent(kinds[0], len(kinds))
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy", "highspy"))
    return "\n".join(
        [
            f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {model}, {usable_cores()} cores used; JAX runs on {len(kinds)} x {kinds[0]}",
            *([rented] if rented else []),
            f"- Versions: Python {platform.python_version()}, {packages}",
            f"- Load average of the machine at the start: {load()} (idle: below 0.3)",
        ]
    )
