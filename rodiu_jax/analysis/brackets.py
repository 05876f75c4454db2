"""Interval arithmetic: the range of a statistic when each number is only known to lie in its interval [low, high].

A range is *exact* when the statistic attains both of its ends for numbers inside their intervals, and *outer* when it
contains every value that is attained and perhaps more. Rounding (about 1e-15 relative) is not allowed for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

Vector = Float64[np.ndarray, " N"]
Range = tuple[np.ndarray, np.ndarray]
"""The lowest and the highest value, arrays of one shape."""

_HALVINGS = 200


def bound_linear(weights: Float64[np.ndarray, "*M N"], low: Vector, high: Vector) -> Range:
    """Compute the exact range of ``weights @ y`` over low <= y <= high.

    Args:
      low, high: infinite where nothing is known.

    Returns:
      The smallest and the largest value, shape (*M,).
    """
    up, down = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    return np.asarray(_dot(up, low) + _dot(down, high)), np.asarray(_dot(up, high) + _dot(down, low))


def bound_variance(low: Vector, high: Vector) -> tuple[float, float]:
    """Compute a range of the population variance of y over low <= y <= high; the small end is exact, the large outer.

    As ``var y = min_c mean (y - c)^2``, the smallest variance is ``min_c mean dist(c, [low, high])^2``, and for any
    c no variance exceeds ``mean max((low - c)^2, (high - c)^2)``; both are convex in c, which is found by halving.
    """
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return 0.0, np.inf
    middle, half = (low + high) / 2, (high - low) / 2

    def near(c: float) -> np.ndarray:
        return np.maximum(c - high, 0.0) - np.maximum(low - c, 0.0)

    def far(c: float) -> np.ndarray:
        return np.where(c >= middle, 1.0, -1.0) * (np.abs(c - middle) + half)

    return tuple(float(np.mean(f(_find_root(f, low.min(), high.max())) ** 2)) for f in (near, far))  # type: ignore[return-value]


def bound_product(a: Range, b: Range) -> Range:
    """Compute the exact range of ``a * b`` where a and b move independently in their ranges."""
    with np.errstate(invalid="ignore"):
        corners = np.nan_to_num(
            np.stack([x * y for x in a for y in b]), nan=0.0, posinf=np.inf, neginf=-np.inf
        )
    return np.asarray(corners.min(axis=0)), np.asarray(corners.max(axis=0))


def bound_square(low: Vector, high: Vector) -> Range:
    """Compute the exact range of ``a^2`` for a in [low, high]."""
    return bound_magnitude(low, high)[0] ** 2, bound_magnitude(low, high)[1] ** 2


def bound_magnitude(low: Vector, high: Vector) -> Range:
    """Compute the exact range of ``|a|`` for a in [low, high]."""
    return np.maximum(np.maximum(low, -high), 0.0), np.maximum(np.abs(low), np.abs(high))


def bound_quotient(numerator: tuple[float, float], positive: tuple[float, float]) -> tuple[float, float]:
    """Compute the range of a / b where a and b >= 0 move independently; infinite on a side that b = 0 leaves open."""
    low, high = numerator
    small, large = positive
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.float64(low) / (large if low >= 0 else small)
        most = np.float64(high) / (small if high >= 0 else large)
    return (0.0 if np.isnan(least) else float(least)), (0.0 if np.isnan(most) else float(most))


def bound_ranks(low: Vector, high: Vector) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Compute the best and the worst rank (1 = largest) that magnitudes in [low, high] may take among each other."""
    surely_above = (low[None, :] > high[:, None]).sum(axis=1)
    surely_below = (high[None, :] < low[:, None]).sum(axis=1)
    return 1 + surely_above, len(low) - surely_below


def _dot(weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    if np.isfinite(numbers).all():
        return np.asarray(weights @ numbers)
    with np.errstate(invalid="ignore"):  # with a weight of 0 it does not matter that the number is unknown
        terms = np.where(weights == 0, 0.0, weights * numbers)
    return np.asarray(terms.sum(axis=-1))


def _find_root(increasing: Callable[[float], np.ndarray], low: float, high: float) -> float:
    for _ in range(_HALVINGS):
        c = (low + high) / 2
        if not low < c < high:
            break
        low, high = (low, c) if increasing(c).sum() > 0 else (c, high)
    return (low + high) / 2
