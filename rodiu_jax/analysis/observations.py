"""Reads the rows of a table for every analysis: checks columns, adds brackets to outputs, decides signs and ranks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.analysis.brackets import bound_magnitude, bound_ranks
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import read_bytes
from rodiu_jax.io.parquet import read_frame
from rodiu_jax.model.tolerances import ROUNDED_TABLE

MOST_LEVELS = 12
"""A factor with more distinct levels than this is cut into `BINS` bins of equal counts."""

BINS = 5

NUMBERS = ["_value", "_low", "_high"]
"""The output of `read_observations` and its brackets."""

_LARGEST = 1e140
"""Of a number in a table: sums of squares of a billion such are still numbers."""


_MOST_CSV = 2**32

CONFIDENCE = 0.95
"""Of every interval that is not about brackets."""

RESAMPLES = 200
"""Of SALib's bootstraps."""

INTERVALS = ("ci_low", "ci_high", "bracket_low", "bracket_high")


def read_table(source: str | Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the rows of a sweep's folder and the names of its factors, or a Parquet or CSV file, which names none.

    Raises:
      InputError: nothing there that can be read as a table.
    """
    source = Path(source)
    if source.is_dir():
        from rodiu_jax.sweeps.store import read_rows, read_spec

        return read_rows(source), read_spec(source).columns
    if source.suffix == ".parquet":
        return read_frame(source), ()
    if source.suffix != ".csv":
        raise InputError(source, "", "the folder of a sweep, or a file *.parquet or *.csv")
    content = read_bytes(source, most=_MOST_CSV)
    try:
        return pd.read_csv(io.BytesIO(content)), ()
    except ValueError as error:  # pandas' own errors are ValueErrors
        raise InputError(source, "", f"a readable table ({str(error).splitlines()[0]})") from None


def check_factors(frame: pd.DataFrame, factors: Sequence[str], source: str = "table") -> None:
    """Check that every factor is a numeric column with a level in every row.

    Raises:
      InputError: naming the column.
    """
    if not len(factors):
        raise InputError(source, "factors", "the name of one column at least")
    if twice := [f for m, f in enumerate(factors) if f in factors[:m]]:
        raise InputError(source, "factors", "each column once", twice[0])
    for factor in factors:
        if factor in ("sample", "point"):
            raise InputError(source, "factors", "a column that is varied, not the number of a row", factor)
        values = read_numbers(frame, factor, source)
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise InputError(
                source, f"{factor}[{bad[0]}]", "a finite level in every row", float(values[bad[0]])
            )


def read_numbers(frame: pd.DataFrame, column: str, source: str = "table") -> np.ndarray:
    """Read a column as float64, NaN where it is missing.

    Raises:
      InputError: no such column, two of that name, or it holds texts or numbers whose squares no float64 holds.
    """
    names = [str(n) for n in frame.columns]
    if names.count(column) != 1:
        known = ", ".join(names[:30]) or "none"
        raise InputError(
            source, column, f"one column of this name{nearest(column, names)}; there are {known}"
        )
    series: Any = frame[column]
    if not (pd.api.types.is_numeric_dtype(series) or series.isna().all()):
        raise InputError(source, column, "a column of numbers", str(series.dtype))
    values = series.to_numpy(dtype=float, na_value=np.nan)
    huge = np.flatnonzero(np.isfinite(values) & (np.abs(values) > _LARGEST))
    if len(huge):
        raise InputError(
            source, f"{column}[{huge[0]}]", f"a size of at most {_LARGEST:g}", float(values[huge[0]])
        )
    return values


def read_observations(frame: pd.DataFrame, factors: Sequence[str], output: str, source: str) -> pd.DataFrame:
    """Read the factor columns, ``_sample``, and the output with its brackets: ``_value``, ``_low``, ``_high``."""
    check_factors(frame, factors, source)
    if output in factors:
        raise InputError(source, "factors", f"columns other than the output {output}", output)
    value = read_numbers(frame, output, source)
    value = np.where(np.isfinite(value), value, np.nan)
    if not np.isfinite(value).any():
        raise InputError(source, output, f"a number in one row at least (all of {len(value)} are missing)")
    low = high = value
    if output == "total_cost" and "lower_bound" in frame:
        low = read_numbers(frame, "lower_bound", source)
        low = np.where(np.isnan(low), -np.inf, low)
        if "upper_bound" in frame:
            high = read_numbers(frame, "upper_bound", source)
            high = np.where(np.isnan(high), value, high)
        slack = ROUNDED_TABLE * np.maximum(1.0, np.abs(value))
        if len(bad := np.flatnonzero((low > value + slack) | (high < value - slack))):
            expected = f"a total cost inside its brackets [{low[bad[0]]:.10g}, {high[bad[0]]:.10g}]"
            raise InputError(source, f"{output}[{bad[0]}]", expected, float(value[bad[0]]))
        low, high = np.minimum(low, value), np.maximum(high, value)
    columns = {f: read_numbers(frame, f, source) for f in factors}
    sample = read_numbers(frame, "sample", source) if "sample" in frame else np.zeros(len(frame))
    return pd.DataFrame({**columns, "_sample": sample, "_value": value, "_low": low, "_high": high})


def find_levels(values: Any) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Find the position of each row's level, and the levels, sorted: distinct values, or bins of equal counts."""
    numbers = values.to_numpy(dtype=float)
    distinct, codes = np.unique(numbers, return_inverse=True)
    if len(distinct) > MOST_LEVELS:
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1]))
        codes = np.searchsorted(edges, numbers, side="right")
        codes = np.unique(codes, return_inverse=True)[1]
    groups = [numbers[codes == code] for code in range(int(codes.max()) + 1)]
    levels = [
        {"level": float(g[0] if g.min() == g.max() else g.mean()), "level_low": float(g.min())}
        | {"level_high": float(g.max())}
        for g in groups
    ]
    return codes, levels


def decide_signs(low: Any, high: Any) -> list[str | None]:
    """Decide the sign of a number known to lie in [low, high]: ``+``, ``-``, ``0``, ``undecided``; None if unknown."""

    def one(low: float, high: float) -> str | None:
        if np.isnan(low) or np.isnan(high):
            return None
        if low == high == 0:
            return "0"
        return "+" if low > 0 else "-" if high < 0 else "undecided"

    return [one(*pair) for pair in zip(np.atleast_1d(low), np.atleast_1d(high), strict=True)]


def add_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Add the ranks by size that the brackets allow to ``table``; missing where a value is."""
    best, worst = np.full(len(table), np.nan), np.full(len(table), np.nan)
    known = table["value"].notna().to_numpy()
    low, high = bound_magnitude(
        *(table[n].to_numpy(dtype=float)[known] for n in ("bracket_low", "bracket_high"))
    )
    best[known], worst[known] = bound_ranks(low, high)
    return table.assign(rank_best=pd.array(best, dtype="Int64"), rank_worst=pd.array(worst, dtype="Int64"))
