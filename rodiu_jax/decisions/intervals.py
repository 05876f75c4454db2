"""Exact intervals and bounds of probabilities."""

from __future__ import annotations

import numpy as np


def clopper_pearson(
    hits: np.ndarray, trials: int | np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The exact two-sided interval of a probability of which ``hits`` of ``trials`` independent trials came true.

    With alpha = 1 - confidence, lower = Beta^-1(alpha/2; k, n - k + 1), 0 where k = 0, and upper =
    Beta^-1(1 - alpha/2; k + 1, n - k), 1 where k = n: it covers the truth at least as often as it says.

    Source: Clopper and Pearson, The use of confidence or fiducial limits (Biometrika, 1934).
    """
    from scipy.special import betaincinv

    k, n = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(trials, np.float64))
    tail = (1.0 - confidence) / 2.0
    lower = np.where(k > 0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, tail), 0.0)
    upper = np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - tail), 1.0)
    return lower, upper
