"""What makes one row of costs better than another: expectation, tail, worst case; and how sure a sample makes us."""

from __future__ import annotations

import math

import numpy as np

CRITERIA = ("expected", "cvar", "worst", "regret")
"""Names of the criteria; ``regret`` is the worst case of costs less each scenario's own optimum."""


_NEXT_WORST = 4


def cvar(costs: np.ndarray, level: float) -> np.ndarray:
    """Mean of the dearest share 1 - level of N equally likely scenarios, the last one counted in part.

    CVaR = (sum of the floor(m) largest + frac(m) times the next) / m with m = (1 - level) N; the largest where m < 1.

    Args:
      costs: (..., N); inf allowed.

    Source: Rockafellar and Uryasev, Optimization of conditional value-at-risk (Journal of Risk, 2000).
    """
    ordered = -np.sort(-np.asarray(costs, np.float64), axis=-1)
    mass = max((1.0 - level) * ordered.shape[-1], 1.0)
    whole = min(math.floor(mass + 1e-9), ordered.shape[-1])
    total = ordered[..., :whole].sum(-1)
    rest = mass - whole
    if rest > 1e-9 and whole < ordered.shape[-1]:
        total = total + rest * ordered[..., whole]
    return total / mass


def value_of(costs: np.ndarray, criterion: str, level: float) -> np.ndarray:
    """The criterion of rows of costs (for ``regret``: of regrets), (..., N): smaller is better."""
    if criterion == "expected":
        return np.mean(costs, axis=-1)
    return cvar(costs, level) if criterion == "cvar" else np.max(costs, axis=-1)


def weights_of(costs: np.ndarray, criterion: str, level: float) -> np.ndarray:
    """Weights (M,N), the criterion's value as planes: it is ``weights[0] @ costs`` here, and nowhere below any of them.

    The criterion is the largest mean of the costs under weights of a set (a coherent measure of risk): for the
    expectation that set is the equal ones, for CVaR all up to 1 / ((1 - level) N), else all. Beside the worst
    scenario stand the next worst.
    """
    count = len(costs)
    if criterion == "expected":
        return np.full((1, count), 1.0 / count)
    order = np.argsort(-costs, kind="stable")
    if criterion != "cvar":
        return np.eye(count)[order[:_NEXT_WORST]]
    mass = max((1.0 - level) * count, 1.0)
    weights = np.zeros((1, count))
    weights[0, order] = np.clip(mass - np.arange(count), 0.0, 1.0) / mass
    return weights


def sampling_interval(
    costs: np.ndarray, criterion: str, level: float, *, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Where the criterion of all scenarios lies, judged from a sample that was not used for choosing.

    Student's t for the mean and bootstrap percentiles (400 resamples) for CVaR; nan where a sample cannot tell: the
    worst case, fewer than two scenarios, or costs that are not finite.
    """
    count = len(costs)
    if count < 2 or not np.isfinite(costs).all() or criterion not in ("expected", "cvar"):
        return math.nan, math.nan
    if criterion == "expected":
        from scipy.special import stdtrit

        half = (
            float(stdtrit(count - 1, 0.5 + confidence / 2)) * float(np.std(costs, ddof=1)) / math.sqrt(count)
        )
        return float(np.mean(costs)) - half, float(np.mean(costs)) + half
    rng = np.random.default_rng(seed)
    found = [float(cvar(costs[rng.integers(0, count, count)], level)) for _ in range(400)]
    low, high = np.quantile(found, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
