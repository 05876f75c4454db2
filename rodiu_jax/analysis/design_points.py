"""Rows of a table as points of a design: Saltelli's blocks and Morris's trajectories, recognised by their levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from rodiu_jax.analysis.observations import NUMBERS, check_factors, read_numbers, read_observations
from rodiu_jax.errors import InputError
from rodiu_jax.model.tolerances import ROUNDED_TABLE


def recognise_design(frame: pd.DataFrame, factors: Sequence[str], *, source: str = "table") -> str:
    """Recognise a design of these factors in SALib's order: return ``saltelli``, ``morris`` or an empty text.

    The levels themselves are compared, so it works on tables that others wrote; trajectories of a single factor
    cannot be told from a list of its levels and are not looked for.
    """
    try:
        levels = read_points(frame, factors, None, source).levels
    except InputError:
        return ""
    if saltelli_block_size(levels):
        return "saltelli"
    return "morris" if len(factors) > 1 and are_trajectories(levels) else ""


@dataclass(frozen=True)
class DesignPoints:
    """The rows of a table by point of a design, P points of D factors, each with S samples.

    Attributes:
      levels: of the factors; NaN where a point is absent.
      value, low, high: the output and its bracket; NaN where there is no output.
      rows: number of rows of the table.
    """

    levels: Float64[np.ndarray, "P D"]
    value: Float64[np.ndarray, "P S"]
    low: Float64[np.ndarray, "P S"]
    high: Float64[np.ndarray, "P S"]
    rows: int

    def blocks(self, size: int) -> DesignBlocks:
        """Cut the design into blocks of ``size`` points, and average each over the same samples.

        A missing output removes its block or its sample, whichever keeps more rows in all: blocks averaged over
        different samples would differ because of the samples alone.
        """
        count = len(self.levels) // size
        cube = [a[: count * size].reshape(count, size, -1) for a in (self.value, self.low, self.high)]
        whole: Any = np.isfinite(cube[0]).all(axis=1)
        used = whole.any(axis=1)
        by_block, by_sample = whole.all(axis=1), whole[used].all(axis=0)
        samples = np.ones(whole.shape[1], bool)
        if by_sample.sum() * used.sum() > by_block.sum() * len(samples):
            kept, samples = used, by_sample
        else:
            kept = by_block
        value, low, high = (a[kept][:, :, samples].mean(axis=2) for a in cube)
        levels = self.levels[: count * size].reshape(count, size, -1)[kept]
        return DesignBlocks(levels, value, low, high, int(kept.sum() * size * samples.sum()))


@dataclass(frozen=True)
class DesignBlocks:
    """G blocks of g points of a design.

    Attributes:
      levels: of the D factors.
      value, low, high: the means over the samples, and their bracket.
      rows: number of rows that went into the means.
    """

    levels: Float64[np.ndarray, "G g D"]
    value: Float64[np.ndarray, "G g"]
    low: Float64[np.ndarray, "G g"]
    high: Float64[np.ndarray, "G g"]
    rows: int


def read_points(frame: pd.DataFrame, factors: Sequence[str], output: str | None, source: str) -> DesignPoints:
    """Sort the rows by point; without an output, only their levels are read."""
    check_factors(frame, factors, source)
    levels = np.stack([read_numbers(frame, f, source) for f in factors], axis=1)
    sample = np.zeros(len(frame)) if "sample" not in frame else read_numbers(frame, "sample", source)
    samples, s = np.unique(sample, return_inverse=True)
    if "point" in frame:
        point = read_numbers(frame, "point", source)
        sparse = len(point) and not point.max() < 4 * max(16, len(np.unique(point)))
        if sparse or (point < 0).any() or (point != np.floor(point)).any():
            raise InputError(source, "point", "the row number of the design, 0, 1, 2, ...")
        p = point.astype(np.int64)
    else:
        p = pd.Series(s).groupby(s).cumcount().to_numpy()
    count = int(p.max()) + 1 if len(p) else 0
    if len(np.unique(p * len(samples) + s)) < len(p):
        raise InputError(source, "sample", "a column that tells the rows of one point apart")
    at = np.full((count, len(factors)), np.nan)
    at[p] = levels
    if len(bad := np.argwhere(at[p] != levels)):
        expected = f"the same level in every row of point {p[bad[0][0]]}"
        raise InputError(source, f"{factors[bad[0][1]]}[{bad[0][0]}]", expected, float(levels[tuple(bad[0])]))
    numbers = [np.full((count, len(samples)), np.nan) for _ in NUMBERS]
    if output is not None:
        rows = read_observations(frame, factors, output, source)
        for grid, name in zip(numbers, NUMBERS, strict=True):
            grid[p, s] = rows[name].to_numpy()
    return DesignPoints(at, *numbers, rows=len(frame))


def saltelli_block_size(levels: Float64[np.ndarray, "P D"]) -> int:
    """Return the points per block (D + 2, or 2 D + 2 with second order) of a Saltelli design; 0 for other levels."""
    d = levels.shape[1]
    for step in (2 * d + 2, d + 2):
        blocks = levels[: len(levels) // step * step].reshape(-1, step, d)
        blocks = blocks[np.isfinite(blocks).all(axis=(1, 2))]
        a, b = blocks[:, :1], blocks[:, -1:]
        own = np.eye(d, dtype=bool)
        expected = [np.where(own, b, a), np.where(own, a, b)][: (step - 2) // d]
        moving = len(blocks) and (a != b).any(axis=(0, 1)).all()
        if moving and np.allclose(blocks[:, 1:-1], np.concatenate(expected, axis=1), rtol=1e-9, atol=0):
            return step
    return 0


def are_trajectories(levels: Float64[np.ndarray, "P D"]) -> bool:
    """Tell whether the points are trajectories of D + 1, in which each step moves one factor and each factor once."""
    d = levels.shape[1]
    paths = levels[: len(levels) // (d + 1) * (d + 1)].reshape(-1, d + 1, d)
    paths = paths[np.isfinite(paths).all(axis=(1, 2))]
    moved = np.diff(paths, axis=1) != 0
    return bool(len(paths) and (moved.sum(axis=1) == 1).all() and (moved.sum(axis=2) == 1).all())


def check_morris_levels(
    levels: Float64[np.ndarray, "P D"], factors: Sequence[str], count: int, source: str
) -> None:
    """Check that the levels lie on ``count`` grid levels, half of which a step spans."""
    if count < 2 or count % 2:
        raise InputError(source, "levels", "an even number of grid levels", count)
    d = levels.shape[1]
    paths = levels[: len(levels) // (d + 1) * (d + 1)].reshape(-1, d + 1, d)
    paths = paths[np.isfinite(paths).all(axis=(1, 2))]
    for j, factor in enumerate(factors):
        sizes = np.abs(np.diff(paths[:, :, j], axis=1)).max(axis=1)
        at = (paths[:, :, j] - paths[:, :, j].min()) / (sizes.min() / (count // 2))
        if (
            np.ptp(sizes) > ROUNDED_TABLE * sizes.max()
            or np.abs(at - np.round(at)).max() > 1e-3
            or at.max() > count - 0.5
        ):
            expected = f"equal steps over half of {count} evenly spaced levels (another number of levels?)"
            raise InputError(source, factor, expected)
