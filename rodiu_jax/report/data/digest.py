"""Sums up the rows of a sweep by point, part by part, so that a report needs no memory for all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from rodiu_jax.analysis.observations import find_levels
from rodiu_jax.errors import WorkFailed
from rodiu_jax.report.data.outputs import OUTPUTS, SETTLED, Axis, axes_of
from rodiu_jax.sweeps.spec import SweepSpec

MOST_ROWS = 500_000
"""Rows whose costs are kept one by one, for the sensitivity and the trends; whole samples, the first ones."""

_COMPACT = 1 << 20
_DEGREE = re.compile(r" x\d+(?=; |$)")


@dataclass(frozen=True)
class Levels:
    """One factor cut into levels: the distinct ones of a listed design, bins of equal counts of a drawn one.

    Attributes:
      axis: the factor.
      at: position of every point's level; -1 where the point says nothing about this factor (a design one at a time
        moves another one there).
      values: the mean level of each position, ascending.
      ticks: the levels as text.
    """

    axis: Axis
    at: Int64[np.ndarray, " points"]
    values: Float64[np.ndarray, " levels"]
    ticks: tuple[str, ...]


@dataclass(frozen=True)
class Digest:
    """The rows of a sweep, summed up for a report.

    Attributes:
      spec: of the sweep.
      levels: one per factor.
      points: a row per point of the design: ``rows``, ``unproven`` (rows that are neither proven to the gap nor
        proven infeasible), ``widest_gap``, and of every output ``<output>_count``, ``_sum``, ``_min``, ``_max``
        over the rows that have it.
      chosen: ``point``, ``deployment`` and the ``rows`` that choose it.
      statuses, methods: rows of each.
      samples: distinct samples seen.
      seconds: that the method spent, summed over the rows.
      costs: of the first `MOST_ROWS` rows by whole samples: ``sample``, ``point``, the factors, ``output`` and,
        where there are any, its brackets.
      output: the column that ``costs`` holds.
    """

    spec: SweepSpec
    levels: tuple[Levels, ...]
    points: pd.DataFrame
    chosen: pd.DataFrame
    statuses: dict[str, int]
    methods: dict[str, int]
    samples: int
    seconds: float
    costs: pd.DataFrame
    output: str = "total_cost"

    @property
    def rows(self) -> int:
        """Number of rows read."""
        return sum(self.statuses.values())

    @property
    def crossed(self) -> bool:
        """True if two factors move together somewhere, so that maps over two of them make sense."""
        return len(self.levels) > 1 and self.spec.design.kind != "one-at-a-time"

    @cached_property
    def over(self) -> str:
        """What a mean is taken over: ``4 samples``."""
        return f"{self.samples} sample" + ("s" if self.samples != 1 else "")

    def total(self, column: str) -> float:
        """Return the sum of a column of ``points``."""
        return float(self.points[column].to_numpy(dtype=float).sum())

    def most(self, column: str) -> float:
        """Return the largest value of a column of ``points``; NaN where there is none."""
        values = self.points[column].to_numpy(dtype=float)
        return float(np.nanmax(values)) if np.isfinite(values).any() else float("nan")

    def level(self, column: str) -> Levels:
        """Find the factor of a column."""
        return next(n for n in self.levels if n.axis.column == column)


def read_digest(folder: str | Path, *, output: str = "total_cost") -> Digest:
    """Read the rows in a sweep's folder, part by part.

    Args:
      output: the column to keep row by row, beside the sums of every one.

    Raises:
      InputError: no sweep in the folder, or a damaged part.
      WorkFailed: the sweep has no rows yet.
    """
    from rodiu_jax.sweeps.store import iterate_rows, read_spec

    folder = Path(folder)
    digest = sum_up_rows(iterate_rows(folder), read_spec(folder), output=output)
    if not digest.rows:
        raise WorkFailed(f"{folder}: no rows yet; go on with `rodiu sweep --resume`")
    return digest


def sum_up_rows(parts: Iterable[pd.DataFrame], spec: SweepSpec, *, output: str = "total_cost") -> Digest:
    """Sum up rows that come in parts; each part has the columns of a sweep (``plan`` is not needed)."""
    count = spec.points
    names = [o.column for o in OUTPUTS]
    seen, unproven = np.zeros(count, np.int64), np.zeros(count, np.int64)
    widest = np.full(count, -np.inf)
    sums = {n: np.zeros(count) for n in names}
    counts = {n: np.zeros(count, np.int64) for n in names}
    least, most = ({n: np.full(count, end) for n in names} for end in (np.inf, -np.inf))
    statuses: Counter[str] = Counter()
    methods: Counter[str] = Counter()
    samples: set[int] = set()
    seconds = 0.0
    kept: list[pd.DataFrame] = []
    last = max(1, MOST_ROWS // count)
    choices = _Choices()
    for part in parts:
        at = part["point"].to_numpy()
        np.add.at(seen, at, 1)
        np.add.at(unproven, at, (~part["status"].isin(SETTLED)).to_numpy(dtype=np.int64))
        for name in names:
            values = part[name].to_numpy(dtype=float, na_value=np.nan)
            known = np.isfinite(values)
            where, values = at[known], values[known]
            np.add.at(sums[name], where, values)
            np.add.at(counts[name], where, 1)
            np.minimum.at(least[name], where, values)
            np.maximum.at(most[name], where, values)
            if name == "gap":
                np.maximum.at(widest, where, values)
        choices.add(at, part["deployments"])
        statuses.update(part["status"].value_counts().to_dict())
        if "method" in part:
            methods.update(part["method"].value_counts().to_dict())
        samples.update(np.unique(part["sample"].to_numpy()).tolist())
        if "seconds" in part:
            seconds += float(np.nansum(part["seconds"].to_numpy(dtype=float, na_value=np.nan)))
        wanted = ["sample", "point", *spec.columns, output]
        if output == "total_cost":
            wanted += [n for n in ("lower_bound", "upper_bound", "status") if n in part]
        kept.append(part.loc[(part["sample"] < last).to_numpy(), wanted])
    table = pd.DataFrame({"point": np.arange(count), "rows": seen, "unproven": unproven})
    table["widest_gap"] = np.where(np.isfinite(widest), widest, np.nan)
    for name in names:
        known = counts[name] > 0
        table[f"{name}_count"], table[f"{name}_sum"] = counts[name], sums[name]
        table[f"{name}_min"] = np.where(known, least[name], np.nan)
        table[f"{name}_max"] = np.where(known, most[name], np.nan)
    costs: Any = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()
    if len(costs):
        costs = costs.sort_values(["sample", "point"], ignore_index=True)
    ordered = {s: int(n) for s, n in sorted(statuses.items(), key=lambda item: (-item[1], item[0]))}
    return Digest(
        spec,
        _make_levels(spec),
        table,
        choices.table(),
        ordered,
        {m: int(n) for m, n in methods.most_common()},
        len(samples),
        seconds,
        costs,
        output,
    )


def summarise_cells(digest: Digest, output: str, y: Levels, x: Levels | None = None) -> pd.DataFrame:
    """Average an output by level of ``y``, or by the levels of ``y`` and ``x``.

    Returns:
      Per level, or pair: ``y`` and ``x`` (positions), ``rows``, ``known`` (rows that have the output), ``unproven``,
      ``widest_gap``, ``mean``, ``min`` and ``max``; missing where no row has it.
    """
    table: Any = digest.points.assign(y=y.at, x=0 if x is None else x.at)
    table = table[(table["y"] >= 0) & (table["x"] >= 0) & (table["rows"] > 0)]
    groups = table.groupby(["y", "x"])
    result = groups[["rows", "unproven", f"{output}_count", f"{output}_sum"]].sum()
    result["widest_gap"] = groups["widest_gap"].max()
    known = result.pop(f"{output}_count")
    result["known"] = known
    result["mean"] = (result.pop(f"{output}_sum") / known).where(known > 0)
    result["min"], result["max"] = groups[f"{output}_min"].min(), groups[f"{output}_max"].max()
    return result.reset_index()


def to_grid(table: pd.DataFrame, column: str, y: Levels, x: Levels) -> Float64[np.ndarray, "y x"]:
    """Arrange a column of a table with positions ``y`` and ``x`` as an array, shape (y, x); NaN where missing."""
    values = np.full((len(y.values), len(x.values)), np.nan)
    values[table["y"].to_numpy(), table["x"].to_numpy()] = table[column].to_numpy(dtype=float)
    return values


def count_deployments(
    digest: Digest, y: Levels, x: Levels | None = None, *, pairs: bool = False
) -> pd.DataFrame:
    """Count how often each deployment is chosen, by level of ``y``, or by the levels of ``y`` and ``x``.

    Args:
      pairs: count deployments of the same pairs of model and GPU together, whatever their degrees.

    Returns:
      Per cell and deployment: ``y`` and ``x`` (positions), ``deployment``, ``rows`` that choose it and ``share`` of
      the cell's rows; the commonest first, the first by name among equals.
    """
    table: Any = _without_degrees(digest.chosen) if pairs else digest.chosen
    at = table["point"].to_numpy()
    table = table.assign(y=y.at[at], x=0 if x is None else x.at[at])
    table = table[(table["y"] >= 0) & (table["x"] >= 0)]
    counts = table.groupby(["y", "x", "deployment"], as_index=False)["rows"].sum()
    everything: Any = summarise_cells(digest, "gap", y, x)[["y", "x", "rows"]]
    everything = everything.rename(columns={"rows": "all"})
    counts = counts.merge(everything, on=["y", "x"])
    counts["share"] = counts["rows"] / counts.pop("all")
    return counts.sort_values(
        ["y", "x", "rows", "deployment"], ascending=[True, True, False, True], ignore_index=True
    )


def rank_deployments(digest: Digest, *, pairs: bool = False) -> pd.DataFrame:
    """Rank the deployments chosen anywhere, the commonest first, with their ``rows`` and ``share`` of all rows."""
    table: Any = _without_degrees(digest.chosen) if pairs else digest.chosen
    counts: Any = table.groupby("deployment", as_index=False)["rows"].sum()
    counts["share"] = counts["rows"] / max(digest.rows, 1)
    return counts.sort_values(["rows", "deployment"], ascending=[False, True], ignore_index=True)


def _without_degrees(chosen: pd.DataFrame) -> pd.DataFrame:
    """Leave the degrees out of ``model@gpu x4; ...`` (as `Plan.summary` writes it)."""
    names = chosen["deployment"].astype(object)
    short = {n: _DEGREE.sub("", n) for n in names.unique()}
    return chosen.assign(deployment=[short[n] for n in names])


class _Choices:
    """Counts (point, deployment): deployments are numbered, and counts are summed whenever there are many."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._parts: list[pd.Series] = []
        self._held = 0

    def add(self, points: np.ndarray, names: Any) -> None:
        own, distinct = pd.factorize(names)  # -1 where there is none
        known = own >= 0
        numbers = np.array([self._codes.setdefault(n, len(self._codes)) for n in distinct], np.int64)
        pairs = {"point": points[known], "code": numbers[own[known]]}
        counts: Any = pd.DataFrame(pairs).groupby(["point", "code"]).size()
        self._parts.append(counts)
        self._held += len(counts)
        if self._held > _COMPACT:
            self._parts = [self._sum()]
            self._held = -len(self._parts[0])  # what cannot be summed further must not be summed each time

    def _sum(self) -> Any:
        return pd.concat(self._parts).groupby(level=[0, 1]).sum()

    def table(self) -> pd.DataFrame:
        names = list(self._codes)
        if not self._parts:
            return pd.DataFrame({"point": [], "deployment": [], "rows": []})
        counts = self._sum()
        codes = counts.index.get_level_values(1).to_numpy()
        return pd.DataFrame(
            {
                "point": counts.index.get_level_values(0).to_numpy(),
                "deployment": np.array(names, dtype=object)[codes] if names else [],
                "rows": counts.to_numpy(),
            }
        )


def _make_levels(spec: SweepSpec) -> tuple[Levels, ...]:
    points = np.arange(spec.points)
    columns = spec.levels_at(points)
    alone = spec.design.kind == "one-at-a-time"
    found = []
    for m, (axis, column) in enumerate(zip(axes_of(spec), columns, strict=True)):
        numbers = np.asarray(column, dtype=float)
        mine = np.isfinite(numbers)
        if alone:
            first = 1 + sum(len(f.levels) for f in spec.factors[:m])
            own = np.arange(first, first + len(spec.factors[m].levels))
            mine &= (points == 0) | np.isin(points, own)
        at = np.full(spec.points, -1)
        if spec.is_grid or alone:
            values, at[mine] = np.unique(numbers[mine], return_inverse=True)
            ticks = axis.ticks(values)
        else:
            at[mine], bins = find_levels(pd.Series(numbers[mine]))
            values = np.array([b["level"] for b in bins])
            ticks = _write_bins(axis, bins)
        found.append(Levels(axis, at, values, tuple(ticks)))
    return tuple(found)


def _write_bins(axis: Axis, bins: Sequence[dict[str, float]]) -> list[str]:
    if all(b["level_low"] == b["level_high"] for b in bins):
        return axis.ticks(b["level"] for b in bins)
    mark = "x" if axis.multiplier else ""
    return [f"{mark}{b['level_low']:.3g} to {b['level_high']:.3g}" for b in bins]
