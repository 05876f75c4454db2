"""Intervals of means and of probabilities, and bounds of probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64

RESAMPLES = 400
"""Samples of a bootstrap."""


def mean_interval(
    values: Float64[np.ndarray, " N"], clusters: Any = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Compute Student's interval of the mean of ``values``; nan for fewer than two.

    Args:
      clusters: values drawn together have equal entries here; by default, and where there is but one cluster, each
        value was drawn on its own.
    """
    if len(values) < 2:
        return math.nan, math.nan
    mean = float(values.mean())
    codes = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sums = np.bincount(codes, weights=values - mean) if codes.any() else values - mean
    error = np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(values)
    half = student(confidence, len(sums) - 1) * float(error)
    return mean - half, mean + half


def count_effective(weights: Float64[np.ndarray, " N"]) -> float:
    """Count the equally weighted values that tell as much as those of these weights, which sum to 1.

    Source: Kish, Survey sampling (1965), section 11.7.
    """
    return float(1.0 / (weights @ weights))


def weighted_mean_interval(
    values: Float64[np.ndarray, " N"], weights: Float64[np.ndarray, " N"], confidence: float = 0.95
) -> tuple[float, float]:
    """Compute Student's interval of the weighted mean of ``values``, each drawn on its own; nan for fewer than two.

    The weights, which sum to 1, count as so many equal ones (`count_effective`); with equal ones it is `mean_interval`.
    """
    count = count_effective(weights)
    if count < 1.0 + 1e-9:
        return math.nan, math.nan
    mean = float(weights @ values)
    variance = float(weights @ (values - mean) ** 2) * count / (count - 1.0)
    half = student(confidence, count - 1.0) * math.sqrt(variance / count)
    return mean - half, mean + half


def student(confidence: float, freedom: int | float) -> float:
    """Return Student's quantile that leaves (1 - confidence) / 2 above it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def bootstrap_interval(
    values: Float64[np.ndarray, " N *C"],
    statistic: Callable[[Float64[np.ndarray, " N *C"]], float],
    *,
    seed: int,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Compute the bootstrap percentiles of a statistic of ``values``, whose rows are drawn with replacement."""
    rng, count = np.random.default_rng(seed), len(values)
    statistics = [statistic(values[rng.integers(0, count, count)]) for _ in range(RESAMPLES)]
    low, high = np.quantile(statistics, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def clopper_pearson(
    hits: float | np.ndarray, trials: int | np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the exact two-sided interval of a probability of which ``hits`` of ``trials`` trials came true.

    With alpha = 1 - confidence, lower = Beta^-1(alpha/2; k, n - k + 1), 0 where k = 0, and upper =
    Beta^-1(1 - alpha/2; k + 1, n - k), 1 where k = n: it covers the truth at least as often as it says. Counts may be
    effective ones (`count_effective`), which are not whole.

    Source: Clopper and Pearson, The use of confidence or fiducial limits (Biometrika, 1934).
    """
    from scipy.special import betaincinv

    k, n = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(trials, np.float64))
    tail = (1.0 - confidence) / 2.0
    lower = np.where(k > 0, betaincinv(np.where(k > 0, k, 1.0), n - k + 1.0, tail), 0.0)
    upper = np.where(k < n, betaincinv(k + 1.0, np.where(k < n, n - k, 1.0), 1.0 - tail), 1.0)
    return lower, upper


def bertsimas_sim(entries: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Compute the bound B(n, Gamma) of the probability that a constraint protected with budget Gamma is broken.

    For n independent deviations eta, each symmetric about 0 on [-1, 1], with nu = (Gamma + n) / 2, l = floor(nu) and
    mu = nu - l:

        P(broken) <= B(n, Gamma) = 2^-n ((1 - mu) C(n, l) + sum_{m > l} C(n, m)),  and 0 where Gamma >= n

    Where deviations xi are on [0, 1] and symmetric about 1/2 (or smaller in distribution), xi = (1 + eta) / 2 and the
    protection W(a, Gamma) - sum(a) / 2 is at least W(a / 2, 2 Gamma - n), so B(n, 2 Gamma - n) holds for them.

    Args:
      entries: n, how many entries of the constraint deviate; gamma: any real number, below 0 nothing is bounded (1).

    Source: Bertsimas and Sim, The price of robustness (Operations Research, 2004), theorem 3.
    """
    from scipy.stats import binom

    n, g = np.broadcast_arrays(np.asarray(entries, np.int64), np.asarray(gamma, np.float64))
    nu = (np.maximum(g, 0.0) + n) / 2.0
    whole = np.floor(nu)
    bound = (1.0 - (nu - whole)) * binom.pmf(whole, n, 0.5) + binom.sf(whole, n, 0.5)
    return np.where(g >= n, 0.0, np.where(g < 0, 1.0, np.minimum(bound, 1.0)))
