"""How a benchmark is described and timed fairly: warm-up, interleaved repeats; and what machine it runs on."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.records import BenchmarkResult, CaseResult, Machine, Rent, SideResult
from rodiu_jax.runtime.cores import usable_cores

T = TypeVar("T")

SLOW_PEER_ITEMS = 400
"""Items that a peer does per repeat where it does them one by one; its rate is per item."""


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

    ``judge`` gets the result of each side's warm-up, in order; it says whether they are right, and how far.
    ``counted`` tells bytes and operations of our compiled program; empty where nothing is compiled.
    """

    name: str
    sides: tuple[Side, ...]
    judge: Callable[[Sequence[Any]], tuple[bool, str]]
    counted: str = ""


@dataclass(frozen=True)
class Spec:
    """A registered benchmark.

    Attributes:
      sizes: argument of ``build``, smallest first; a smoke run takes the first alone.
      build: a context that yields the cases of one size, one after the other, and holds what they share.
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
    build: Callable[[int], AbstractContextManager[Iterator[Case]]]
    repeats: int = 5
    large: tuple[int, ...] = ()


def time_case(case: Case, repeats: int) -> CaseResult:
    """Run every side once to warm up, then all of them in turn, ``repeats`` times; our side is the first.

    Without repeats the warm-up is what is timed, compilation and start of processes included.
    """
    first = [_time_side(side) for side in case.sides]
    right, quality = case.judge([result for _, result in first])
    rounds = [[_time_side(side)[0] for side in case.sides] for _ in range(repeats)]
    rounds = rounds or [[seconds for seconds, _ in first]]
    items = [side.items for side in case.sides]
    sides = []
    for s, side in enumerate(case.sides):
        ratios = [(items[0] / seconds[0]) / (items[s] / seconds[s]) for seconds in rounds] if s else []
        seconds = [seconds[s] for seconds in rounds]
        sides.append(
            SideResult(name=side.name, items=side.items, seconds=seconds, ratios=ratios, wanted=side.target)
        )
    return CaseResult(name=case.name, sides=sides, right=right, quality=quality, counted=case.counted)


def _time_side(side: Side) -> tuple[float, Any]:
    began = time.perf_counter()
    result = side.run()
    return time.perf_counter() - began, result


def run_spec(spec: Spec, *, smoke: bool = False) -> BenchmarkResult:
    """Time every case of every size; a smoke run takes the smallest size and times its warm-up."""
    results = []
    for size in spec.sizes[: 1 if smoke else None]:
        with spec.build(size) as cases:
            results += [time_case(case, 0 if smoke else spec.repeats) for case in cases]
    described = ("name", "measures", "item", "peers", "quality", "precision", "by_hand")
    return BenchmarkResult(**{name: getattr(spec, name) for name in described}, cases=results)


def count_by_xla(program: Any, /, *args: Any, **options: Any) -> np.ndarray:
    """Return bytes accessed and operations that XLA counts in a jitted program; NaN where it does not tell."""
    counts = program.lower(*args, **options).compile().cost_analysis() or {}
    none = 0.0 if counts else math.nan  # a program that only copies has no operations
    return np.array([float(counts.get("bytes accessed", math.nan)), float(counts.get("flops", none))])


def describe_counts(function: Any, items: int, what: str, *args: Any, **static: Any) -> str:
    """Say how many bytes and operations per item XLA counts in the compiled program for these arguments."""
    import jax

    with jax.enable_x64(True):
        bytes_, operations = count_by_xla(function, *args, **static) / items
    return f"{bytes_:,.0f} bytes read and written, {operations:,.0f} operations per {what}"


def read_load() -> float | None:
    """Return the load average over the last minute; None where the system keeps none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def find_rent(kind: str, count: int) -> Rent | None:
    """Return the rent of ``count`` devices of a kind by the corrected catalogue's mean prices; None where it has none.

    A GPU is listed once per precision; the dearest counts.
    """
    from rodiu_jax.catalog import load_catalog

    catalog = load_catalog("corrected")
    least, most = (np.broadcast_to(bound, len(catalog.sets["gpu"])) for bound in catalog.ranges["gpu_price"])
    listed = {name: float(a + b) / 2 for name, a, b in zip(catalog.sets["gpu"], least, most, strict=True)}
    words = kind.upper().replace("-", " ").split()
    prices = {name: price for name, price in listed.items() if all(w in words for w in name.split("_")[:-1])}
    if not prices:
        return None
    name = max(prices, key=lambda name: prices[name])
    source = f"{count} x {name} at the corrected catalogue's mean price"
    return Rent(hourly=count * prices[name], source=source)


def time_call(work: Callable[[], T]) -> tuple[T, float]:
    """Return what ``work`` returns, and the seconds that it took by the clock."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def describe_this_machine() -> Machine:
    """Return processor, cores, devices and their rent, versions, date and load."""
    import jax

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kinds = [device.device_kind for device in jax.local_devices()]
    packages = {name: version(name) for name in ("jax", "jaxlib", "numpy", "highspy")}
    return Machine(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        processor=models[0] if models else platform.processor() or platform.machine(),
        cores=usable_cores(),
        device=kinds[0],
        devices=len(kinds),
        rent=find_rent(kinds[0], len(kinds)),
        versions={"Python": platform.python_version(), **packages},
        load=read_load(),
    )
