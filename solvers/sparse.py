"""Collecting a linear or integer program column by column and row by row, in sparse form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32

from rodiu_jax.model.tolerances import NEGLIGIBLE_SHARE

RANGE = 1e6
"""Largest ratio of two coefficients of a MILP; its rows are scaled to a largest coefficient of 1."""

_LEAST_COST = 1e-100
"""Costs below this count as 0: HiGHS 1.16 answers wrongly to costs near the smallest float."""


@dataclass(frozen=True)
class SparseArrays:
    """min cost @ v, row_lower <= A v <= row_upper, lower <= v <= upper, v[integer] whole; C columns, R rows.

    A is stored by rows: row r has columns ``index[start[r]:start[r+1]]`` and coefficients ``value[...]``. Column c
    counts in units of ``unit[c]``, and row r is divided by ``row_unit[r]``.
    """

    cost: Float64[np.ndarray, " C"]
    lower: Float64[np.ndarray, " C"]
    upper: Float64[np.ndarray, " C"]
    integer: Bool[np.ndarray, " C"]
    unit: Float64[np.ndarray, " C"]
    start: Int32[np.ndarray, " _"]
    index: Int32[np.ndarray, " E"]
    value: Float64[np.ndarray, " E"]
    row_lower: Float64[np.ndarray, " R"]
    row_upper: Float64[np.ndarray, " R"]
    row_unit: Float64[np.ndarray, " R"]


def _spread(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Broadcast as NumPy does; thousands of small programs a second spend their time here."""
    if array.shape == shape:
        return array
    return np.full(shape, array) if array.ndim == 0 else np.broadcast_to(array, shape)


class SparseProgram:
    """Collects columns, rows and coefficients in their own units; `arrays` scales and sorts them."""

    def __init__(self) -> None:
        self.columns = 0
        self.rows = 0
        self._columns: dict[str, list[np.ndarray]] = {
            n: [] for n in ("cost", "lower", "upper", "integer", "unit")
        }
        self._rows: dict[str, list[np.ndarray]] = {n: [] for n in ("lower", "upper", "unit")}
        self._entries: dict[str, list[np.ndarray]] = {n: [] for n in ("row", "column", "value")}

    def add_columns(
        self,
        cost: np.ndarray,
        upper: float | np.ndarray = np.inf,
        *,
        lower: float | np.ndarray = 0.0,
        integer: bool = False,
        unit: float | np.ndarray = 1.0,
    ) -> Int[np.ndarray, " M"]:
        """Open a column for each cost and return their numbers; ``unit`` is what a column counts in."""
        count = len(cost)
        for name, value in (
            ("cost", cost),
            ("lower", lower),
            ("upper", upper),
            ("integer", integer),
            ("unit", unit),
        ):
            self._columns[name].append(_spread(np.asarray(value), (count,)))
        self.columns += count
        return np.arange(self.columns - count, self.columns)

    def drop_costs(self) -> None:
        """Let every column opened so far cost nothing."""
        self._columns["cost"] = [np.zeros_like(c) for c in self._columns["cost"]]

    def add_rows(
        self, count: int, lower: float | np.ndarray, upper: float | np.ndarray, unit: float | np.ndarray = 1.0
    ) -> Int[np.ndarray, " M"]:
        """Open ``count`` rows and return their numbers; ``unit`` is their natural scale, 1 where that is 0."""
        unit = np.abs(np.asarray(unit, dtype=np.float64))
        unit = np.where(unit > 0, unit, 1.0)
        for name, value in (("lower", lower), ("upper", upper), ("unit", unit)):
            self._rows[name].append(_spread(np.asarray(value, dtype=np.float64), (count,)))
        self.rows += count
        return np.arange(self.rows - count, self.rows)

    def put(self, row: np.ndarray, column: np.ndarray, value: float | np.ndarray) -> None:
        """Add coefficients; the three arrays broadcast."""
        value = np.asarray(value, dtype=np.float64)
        shape = row.shape if row.shape == column.shape else np.broadcast_shapes(row.shape, column.shape)
        shape = shape if value.ndim == 0 else np.broadcast_shapes(shape, value.shape)
        for name, array in (("row", row), ("column", column), ("value", value)):
            self._entries[name].append(_spread(array, shape))

    def arrays(self, *, bounded: bool) -> SparseArrays:
        """Sort the rows and bring everything to its unit; coefficients of a row within `RANGE` where ``bounded``.

        What is out of range is left out, or enlarged where leaving it out would exclude points: the optimum is
        then a bound all the same.
        """
        cost, lower, upper, integer, unit = (np.concatenate(a) for a in self._columns.values())
        row, column, value = (np.concatenate(a) for a in self._entries.values())
        row_lower, row_upper, row_unit = (np.concatenate(a) for a in self._rows.values())
        unit = unit.astype(np.float64)
        value = value * unit[column] / row_unit[row]
        if bounded:
            largest = np.zeros(self.rows)
            np.maximum.at(largest, row, np.abs(value))
            largest = np.where(largest > 0, largest, 1.0)
            value, row_unit = value / largest[row], row_unit * largest
            small = np.abs(value) < 1.0 / RANGE
            # Columns are >= 0: less on the left of <=, or more on the left of >=, only admits more.
            admits = np.where(np.isinf(row_lower)[row], value < 0, value > 0)
            value = np.where(small, np.where(admits, np.sign(value) / RANGE, 0.0), value)
        present = np.abs(value) > NEGLIGIBLE_SHARE
        row, column, value = row[present], column[present], value[present]
        order = np.argsort(row, kind="stable")
        start = np.zeros(self.rows + 1, dtype=np.int32)
        np.cumsum(np.bincount(row, minlength=self.rows), out=start[1:])
        cost = cost * unit
        cost[np.abs(cost) < _LEAST_COST] = 0.0
        return SparseArrays(
            cost=cost,
            lower=lower / unit,
            upper=upper / unit,
            integer=integer,
            unit=unit,
            start=start,
            index=column[order].astype(np.int32),
            value=value[order],
            row_lower=row_lower / row_unit,
            row_upper=row_upper / row_unit,
            row_unit=row_unit,
        )
