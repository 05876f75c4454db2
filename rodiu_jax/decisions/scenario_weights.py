"""Weights of scenarios: how much each counts, such as the hours of a day that it stands for."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from rodiu_jax.errors import InputError
from rodiu_jax.io.files import read_text

HEADER = ("instance", "weight")


def check_weights(
    weights: Sequence[float] | np.ndarray, size: int, source: str | Path = "choose"
) -> Float64[np.ndarray, " B"]:
    """Return the weights of ``size`` scenarios as an array, as they were given.

    Raises:
      InputError: not one finite number >= 0 for each scenario, or none above 0.
    """
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise InputError(source, "weights", "numbers", str(weights)[:60]) from None
    if values.shape != (size,):
        raise InputError(source, "weights", f"{size} of them, one for each scenario", values.shape)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise InputError(source, f"weights[{bad[0]}]", "a finite number >= 0", float(values[bad[0]]))
    if not float(values.max()) > 0.0:
        raise InputError(source, "weights", "at least one above 0", 0.0)
    return values / values.max()  # so that no sum of them overflows


def read_weights(path: str | Path, size: int) -> Float64[np.ndarray, " B"]:
    """Read the weights of ``size`` scenarios from a CSV with the columns ``instance`` and ``weight``, in any order.

    Raises:
      InputError: no such file, other columns, a scenario that is missing, doubled or not there, or as `check_weights`.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [[cell.strip() for cell in row] for row in lines if row]
    except csv.Error as error:
        raise InputError(path, "", f"a CSV ({error})") from None
    if not rows or tuple(rows[0]) != HEADER:
        raise InputError(path, "header", ",".join(HEADER), ",".join(rows[0]) if rows else "")
    weights = np.full(size, math.nan)
    for number, row in enumerate(rows[1:], 2):
        at = f"line {number}"
        if len(row) != len(HEADER):
            raise InputError(path, at, f"{len(HEADER)} cells", len(row))
        known = row[0].isascii() and row[0].isdigit() and len(row[0]) < 19
        if not known or int(row[0]) >= size:
            raise InputError(path, f"{at}: instance", f"a whole number from 0 to {size - 1}", row[0])
        if not math.isnan(weights[int(row[0])]):
            raise InputError(path, f"{at}: instance", "each scenario once", row[0])
        weights[int(row[0])] = _read_number(row[1], path, f"{at}: weight")
    missing = np.flatnonzero(np.isnan(weights))
    if len(missing):
        raise InputError(
            path, "instance", f"a row for each of {size} scenarios; there is none for", int(missing[0])
        )
    return check_weights(weights, size, path)


def _read_number(text: str, path: str | Path, at: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(path, at, "a finite number >= 0", text)
    return value
