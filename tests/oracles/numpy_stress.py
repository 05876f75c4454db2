"""The peer of stress tests: NumPy draws of a plan's deviations in float64, block by block, and the same statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 2**14


@dataclass
class Counts:
    """What the draws of one plan come to; S scales, 2I promises.

    ``first`` counts who breaks first as the deviations grow; ``histogram`` and the sums are of the share of the
    cost's swing.
    """

    violations: np.ndarray  # S,2I
    any_violation: np.ndarray  # S
    first: np.ndarray  # 2I
    histogram: np.ndarray
    total: float = 0.0
    square: float = 0.0
    least: float = np.inf
    most: float = -np.inf
    breaks_at: float = np.inf


def stress_one(
    rng: np.random.Generator,
    delay: np.ndarray,
    error: np.ndarray,
    money: np.ndarray,
    room: np.ndarray,
    *,
    draws: int,
    scales: np.ndarray,
    bins: int,
) -> Counts:
    """Draw uniform deviations for one plan.

    Args:
      delay, error, money: (I,R) what a route's xi adds to its type's delay, error and to the share of the swing.
      room: (2I,) what each promise bears.
    """
    promises = len(room)
    found = Counts(
        np.zeros((len(scales), promises), np.int64),
        np.zeros(len(scales), np.int64),
        np.zeros(promises, np.int64),
        np.zeros(bins, np.int64),
    )
    for start in range(0, draws, _BLOCK):
        count = min(_BLOCK, draws - start)
        deviation, share = np.zeros((promises, count)), np.zeros(count)
        for i, used in enumerate((delay > 0) | (error > 0) | (money != 0)):
            if used.any():
                xi, psi = rng.random((2, int(used.sum()), count))
                deviation[i] = delay[i, used] @ xi
                deviation[len(delay) + i] = error[i, used] @ psi
                share += money[i, used] @ xi
        for s, scale in enumerate(scales):
            broken = scale * deviation > room[:, None]
            found.violations[s] += broken.sum(1)
            found.any_violation[s] += broken.any(0).sum()
        with np.errstate(divide="ignore"):
            level = np.where(deviation > 0, room[:, None] / deviation, np.inf)
        level[room < 0] = -1.0
        earliest = level.min(0)
        can = earliest < np.inf
        found.first += np.bincount(level.argmin(0)[can], minlength=promises)
        found.histogram += np.bincount(np.minimum((share * bins).astype(np.int64), bins - 1), minlength=bins)
        found.total += float(share.sum())
        found.square += float((share**2).sum())
        found.least = min(found.least, float(share.min()))
        found.most = max(found.most, float(share.max()))
        found.breaks_at = min(found.breaks_at, max(float(earliest.min()), 0.0))
    return found
