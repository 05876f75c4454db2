"""Method ``auto``: whichever of ``exact`` and ``cascade`` is expected to end first.

A method takes ``start`` seconds until its first rows (processes that start, programs that compile) and ``row`` seconds
for each row after that. Both are what this machine took in earlier sweeps of the same size, kept beside its compiled
programs; before the first one they are estimates. The choice never changes what is proven: both methods prove the gap
that is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.runtime.compile_cache import kept_folder
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.sweeps.method_table import AUTO, METHODS
from rodiu_jax.sweeps.scenarios import apply_spec_changes, extreme_scenarios

if TYPE_CHECKING:
    from rodiu_jax.catalog import Catalog
    from rodiu_jax.model.instance import Instances
    from rodiu_jax.sweeps.spec import SweepSpec


@dataclass(frozen=True)
class Pace:
    """What a method takes: seconds until the first rows, and seconds for each row after that."""

    start: float
    row: float

    def seconds(self, rows: int) -> float:
        """Return the seconds that so many rows take."""
        return self.start + rows * self.row


@dataclass(frozen=True)
class MethodChoice:
    """The method chosen, and why in one sentence."""

    method: str
    reason: str


_CHOICES = tuple(name for name, info in METHODS.items() if info.chosen_by_auto)

_CELLS = 6 * 6 * 10 * 4
"""Cells (types x models x GPUs x degrees) of the size that the estimates were measured at."""

OPENING = 8
"""Rows that HiGHS answers first where the cascade is chosen: it has them in the time in which programs compile."""

_SOON = 10.0
"""Seconds within which HiGHS must be expected to answer them."""

_CLOSED_BY_BRACKETS = 1e-3
"""At smaller gaps brackets leave most rows to HiGHS."""

_KEPT = 200
"""Most paces that are kept; the oldest go first."""


def choose_method(
    instances: Instances, rows: int, *, gap: float, workers: int | None, needs_brackets: str = ""
) -> MethodChoice:
    """Choose the method of ``rows`` scenarios of the size and kind of ``instances``.

    Args:
      gap: relative gap to prove.
      workers: processes of HiGHS; None: the cores of this machine.
      needs_brackets: what only brackets can do and is asked for, in words; empty without.
    """
    from rodiu_jax.model.fields import has_pair_values, uses_serving
    from solvers.terms import is_large

    if needs_brackets:
        return MethodChoice("cascade", f"{needs_brackets} needs brackets")
    if is_large(instances):
        return MethodChoice("cascade", "of so large a catalogue HiGHS alone would take minutes a row")
    if uses_serving(instances.fields) or has_pair_values(instances.fields):
        return MethodChoice("exact", "HiGHS closes small fleets sooner than brackets")
    expected = _expect_seconds(instances, rows, workers, gap)
    first, second = sorted(expected, key=lambda method: expected[method])
    reason = f"{rows} rows take about {expected[first]:.2g} s so, and {expected[second]:.2g} s by {second}"
    return MethodChoice(first, reason)


def _expect_seconds(instances: Instances, rows: int, workers: int | None, gap: float) -> dict[str, float]:
    """Return the seconds that each method is expected to take.

    Where this machine took longer with one method than was estimated, it is slower than the machine of the estimates
    or busy, and the estimate of a method that it has not run yet grows as much.
    """
    kept = _read_paces()
    estimates = {method: _estimate_pace(method, instances, workers, gap).seconds(rows) for method in _CHOICES}
    measured = {
        method: kept[key].seconds(rows)
        for method in _CHOICES
        if (key := _key(method, instances, workers, gap)) in kept
    }
    slower = max((seconds / estimates[method] for method, seconds in measured.items()), default=1.0)
    return {method: measured.get(method, max(slower, 1.0) * estimates[method]) for method in _CHOICES}


def settle_method(
    spec: SweepSpec, catalog: Catalog, workers: int | None
) -> tuple[SweepSpec, MethodChoice | None]:
    """Put the method that ends first in the place of ``auto``; None where the spec names its method."""
    if spec.method != AUTO:
        return spec, None
    # Paces are kept of each mode of uncertainty.
    instances = apply_spec_changes(extreme_scenarios(catalog).with_uncertainty(spec.uncertainty), spec)
    asked = {key: getattr(spec, key) for key in ("exact", "top", "by", "audit")}
    needs = "certificates" if spec.certificates else next((k for k, v in asked.items() if v is not None), "")
    choice = choose_method(instances, spec.rows, gap=spec.wanted_gap, workers=workers, needs_brackets=needs)
    from solvers.terms import is_large

    found = {"method": choice.method, "gap": spec.wanted_gap}
    may_open = (
        METHODS[choice.method].prepare and not needs and spec.time_limit is None and not is_large(instances)
    )
    if may_open and find_pace("exact", instances, workers, spec.wanted_gap).seconds(OPENING) < _SOON:
        found["opening"] = OPENING
    return spec.model_copy(update=found), choice


def find_pace(method: str, instances: Instances, workers: int | None, gap: float) -> Pace:
    """Return what this machine took in earlier sweeps of the size, or else an estimate."""
    kept = _read_paces().get(_key(method, instances, workers, gap))
    return kept or _estimate_pace(method, instances, workers, gap)


def keep_pace(
    method: str,
    instances: Instances,
    workers: int | None,
    gap: float,
    *,
    first: tuple[int, float],
    whole: tuple[int, float],
) -> None:
    """Keep what a sweep took, where compiled programs are kept too.

    Args:
      gap: what was asked for.
      first, whole: rows and seconds, of the first part and of the whole.
    """
    if _file() is None or method not in _CHOICES or not whole[0]:
        return
    before, key = find_pace(method, instances, workers, gap), _key(method, instances, workers, gap)
    more = whole[0] - first[0]
    row = max((whole[1] - first[1]) / more, 1e-9) if more >= first[0] else before.row
    pace = Pace(max(first[1] - first[0] * row, 0.0), row)
    paces = _read_paces()
    paces.pop(key, None)
    paces[key] = pace
    _write_paces(dict(list(paces.items())[-_KEPT:]))


def _estimate_pace(method: str, instances: Instances, workers: int | None, gap: float) -> Pace:
    """Return an estimate from this project's own measurements, in seconds."""
    from rodiu_jax.runtime.devices import by_device

    size = math.prod(instances.shape) / _CELLS
    exact = Pace(2.0, 0.06 * size**1.3 / (workers or usable_cores()))
    if method == "exact":
        return exact
    pace = by_device(cpu=Pace(9.0, 0.012 * size), accelerator=Pace(20.0, 0.0005 * size))
    if gap < _CLOSED_BY_BRACKETS:
        return Pace(pace.start + exact.start, pace.row + exact.row)
    return pace


def _key(method: str, instances: Instances, workers: int | None, gap: float) -> str:
    from rodiu_jax.runtime.devices import by_device

    size = "x".join(map(str, instances.shape))
    device = by_device(cpu="cpu", accelerator="gpu")
    tight = " to a small gap" if gap < _CLOSED_BY_BRACKETS else ""
    return f"{method} {size} {instances.uncertainty} {device} {workers or usable_cores()}{tight}"


def _file() -> Path | None:
    """Return where paces are kept: beside compiled programs; None where nothing is kept."""
    folder = kept_folder()
    return None if folder is None else folder / "paces.json"


def _read_paces() -> dict[str, Pace]:
    """Return what was kept, the oldest first; nothing where the file is missing or damaged."""
    path = _file()
    if path is None or not path.exists():
        return {}
    try:
        values = read_json(path)
    except (InputError, OSError):
        return {}
    items = values.items() if isinstance(values, dict) else ()
    return {key: Pace(**value) for key, value in items if _is_pace(value)}


def _is_pace(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"start", "row"}
        and all(type(v) in (int, float) and 0 <= v < math.inf for v in value.values())
    )


def _write_paces(paces: Mapping[str, Pace]) -> None:
    path = _file()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({key: asdict(pace) for key, pace in paces.items()}, indent=1) + "\n")
    except OSError:
        return  # nothing depends on it
