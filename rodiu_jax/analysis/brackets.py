"""What brackets leave of a statistic: its range while every number moves in its own interval [low, high].

A range is *exact* when both ends are attained inside the box of intervals, *outer* when it holds every value that
is attained and perhaps more. Rounding (about 1e-15 relative) is not allowed for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_HALVINGS = 200


def linear_range(weights: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact range of ``weights @ y`` over low <= y <= high.

    Args:
      weights: shape (..., n).
      low, high: shape (n,) or (n, m); infinities where nothing is known.

    Returns:
      Smallest and largest value, shape (...) or (..., m).
    """
    up, down = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    return _dot(up, low) + _dot(down, high), _dot(up, high) + _dot(down, low)


def variance_range(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Range of the population variance of y over low <= y <= high; the small end exact, the large end outer.

    As ``var y = min_c mean (y - c)^2``, the smallest variance is ``min_c mean dist(c, [low, high])^2``, and for any
    c no variance exceeds ``mean max((low - c)^2, (high - c)^2)``; both are convex in c, which is found by halving.

    Args:
      low, high: shape (n,).
    """
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return 0.0, np.inf
    middle, half = (low + high) / 2, (high - low) / 2

    def near(c: float) -> np.ndarray:
        return np.maximum(c - high, 0.0) - np.maximum(low - c, 0.0)

    def far(c: float) -> np.ndarray:
        return np.where(c >= middle, 1.0, -1.0) * (np.abs(c - middle) + half)

    return tuple(float(np.mean(f(_root(f, low.min(), high.max())) ** 2)) for f in (near, far))  # type: ignore[return-value]


def product_range(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Exact range of ``a * b`` where a and b move independently in their intervals (given as low, high)."""
    with np.errstate(invalid="ignore"):
        corners = np.nan_to_num(
            np.stack([x * y for x in a for y in b]), nan=0.0, posinf=np.inf, neginf=-np.inf
        )
    return corners.min(axis=0), corners.max(axis=0)


def square_range(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact range of ``a^2`` for a in [low, high]."""
    return magnitude_range(low, high)[0] ** 2, magnitude_range(low, high)[1] ** 2


def magnitude_range(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact range of ``|a|`` for a in [low, high]."""
    return np.maximum(np.maximum(low, -high), 0.0), np.maximum(np.abs(low), np.abs(high))


def quotient_range(numerator: tuple[float, float], positive: tuple[float, float]) -> tuple[float, float]:
    """Range of a / b, a and b moving independently and b >= 0; infinite on a side that b = 0 leaves open."""
    low, high = numerator
    small, large = positive
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.float64(low) / (large if low >= 0 else small)
        most = np.float64(high) / (small if high >= 0 else large)
    return (0.0 if np.isnan(least) else float(least)), (0.0 if np.isnan(most) else float(most))


def rank_range(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best and worst rank (1 = largest) that magnitudes in [low, high] may take among each other, shape (n,)."""
    surely_above = (low[None, :] > high[:, None]).sum(axis=1)
    surely_below = (high[None, :] < low[:, None]).sum(axis=1)
    return 1 + surely_above, len(low) - surely_below


def _dot(weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    if np.isfinite(numbers).all():
        return weights @ numbers
    with np.errstate(invalid="ignore"):  # a weight of 0 takes no notice of what is unknown
        terms = np.where(weights == 0, 0.0, weights * numbers)
    return terms.sum(axis=-1)


def _root(increasing: Callable[[float], np.ndarray], low: float, high: float) -> float:
    for _ in range(_HALVINGS):
        c = (low + high) / 2
        if not low < c < high:
            break
        low, high = (low, c) if increasing(c).sum() > 0 else (c, high)
    return (low + high) / 2
