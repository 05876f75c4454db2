"""What makes one row of costs better than another: expectation, tail, worst case, regret.

Scenario b counts with the weight p[b] > 0, its probability; by default all N count alike. Every criterion is the
largest mean of the costs under probabilities of a set (a coherent measure of risk): for the expectation that set is p
alone, for CVaR all up to p / (1 - level), for the worst case all. It is therefore monotone in the costs, and the
probabilities that are largest at one row of costs give a plane below it everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from rodiu_jax.analysis.intervals import bootstrap_interval, weighted_mean_interval

_PLANES = 4
"""Planes below a worst case: those of the worst scenario and of the next worst."""

_ROUNDING = 1e-9
"""Part of a scenario's weight that is none: what rounding leaves of the share that CVaR counts."""

Costs = Float64[np.ndarray, " N"]
Weights = Float64[np.ndarray, " N"] | None
Interval = tuple[float, float]


@dataclass(frozen=True)
class Criterion(ABC):
    """A number for a row of costs of N scenarios; smaller is better.

    Weights are positive, in any unit; None: all scenarios count alike.

    Attributes:
      level: of CVaR, in (0, 1); the others do not read it.
      of_regrets: it is taken of regrets, each scenario's cost less its own optimum, not of costs.
    """

    level: float = 0.95
    of_regrets: ClassVar[bool] = False

    @abstractmethod
    def value(
        self, costs: Float64[np.ndarray, "*Q N"], weights: Weights = None
    ) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the criterion of each row of costs; inf is allowed."""

    @abstractmethod
    def planes(self, costs: Costs, weights: Weights = None) -> Float64[np.ndarray, "M N"]:
        """Return planes below the criterion: it is ``planes[0] @ costs`` here, and nowhere below any of them."""

    def sampling_interval(self, costs: Costs, weights: Weights = None, *, seed: int) -> Interval:
        """Return the 95 % interval of the criterion of all scenarios, judged from a sample not used for choosing.

        It is nan where a sample cannot tell: the worst case, fewer than two scenarios, costs that are not finite.
        """
        return math.nan, math.nan

    def screening_rows(
        self, costs: Costs, most: int, draw: np.random.Generator, weights: Weights = None
    ) -> Int64[np.ndarray, " S"]:
        """Return the scenarios on which a rival of the option with these costs is tried first: the worst ones."""
        return np.sort(np.argsort(-costs, kind="stable")[:most])

    def screening_value(
        self, costs: Float64[np.ndarray, "Q S"], weights: Weights = None
    ) -> Float64[np.ndarray, " Q"]:
        """Return what rivals are compared by on the screened scenarios; all costs are finite."""
        return costs.max(1)


class Expected(Criterion):
    """The mean of the costs."""

    def value(
        self, costs: Float64[np.ndarray, "*Q N"], weights: Weights = None
    ) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the mean of each row of costs."""
        return np.average(costs, axis=-1, weights=weights)

    def planes(self, costs: Costs, weights: Weights = None) -> Float64[np.ndarray, "M N"]:
        """Return the one plane of the mean, which is linear."""
        return normalize(weights, len(costs))[None]

    def sampling_interval(self, costs: Costs, weights: Weights = None, *, seed: int) -> Interval:
        """Return Student's interval of the mean."""
        if not np.isfinite(costs).all():
            return math.nan, math.nan
        return weighted_mean_interval(costs, normalize(weights, len(costs)))

    def screening_rows(
        self, costs: Costs, most: int, draw: np.random.Generator, weights: Weights = None
    ) -> Int64[np.ndarray, " S"]:
        """Return scenarios drawn at random: what counts more is no harder to guess from a few."""
        return np.sort(draw.choice(len(costs), min(most, len(costs)), replace=False))

    def screening_value(
        self, costs: Float64[np.ndarray, "Q S"], weights: Weights = None
    ) -> Float64[np.ndarray, " Q"]:
        """Return the mean of each row."""
        return np.average(costs, axis=1, weights=weights)


class Cvar(Criterion):
    """The mean of the dearest scenarios whose weights sum to the share 1 - level, the last one counted in part.

    CVaR = sum of min(p[b], what is left of 1 - level) cost[b] / (1 - level), the dearest first; the largest cost where
    its own weight is more than 1 - level.

    Source: Rockafellar and Uryasev, Optimization of conditional value-at-risk (Journal of Risk, 2000).
    """

    def value(
        self, costs: Float64[np.ndarray, "*Q N"], weights: Weights = None
    ) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the mean of the dearest share of each row of costs."""
        costs = np.asarray(costs, np.float64)
        counted = self._count_dearest(costs, weights)
        return np.where(counted > 0, np.where(counted > 0, costs, 0.0) * counted, 0.0).sum(-1)

    def planes(self, costs: Costs, weights: Weights = None) -> Float64[np.ndarray, "M N"]:
        """Return the plane of the dearest scenarios."""
        return self._count_dearest(costs, weights)[None]

    def _count_dearest(
        self, costs: Float64[np.ndarray, "*Q N"], weights: Weights
    ) -> Float64[np.ndarray, "*Q N"]:
        """Return the part of CVaR that each cost is; those of a row sum to 1."""
        order = np.argsort(-costs, axis=-1, kind="stable")
        weight = normalize(weights, costs.shape[-1])[order]  # of the dearest first
        before = np.cumsum(weight, axis=-1) - weight
        part = np.clip(1.0 - self.level - before, 0.0, weight)
        counts = part > _ROUNDING * weight
        counts[..., 0] = True  # the dearest, however near the level is to 1
        part = np.where(counts, part, 0.0)
        counted = np.zeros(costs.shape)
        np.put_along_axis(counted, order, part / part.sum(-1, keepdims=True), -1)
        return counted

    def sampling_interval(self, costs: Costs, weights: Weights = None, *, seed: int) -> Interval:
        """Return the bootstrap percentiles of the mean of the dearest share."""
        if len(costs) < 2 or not np.isfinite(costs).all():
            return math.nan, math.nan
        both = np.stack([costs, normalize(weights, len(costs))], axis=1)
        return bootstrap_interval(both, lambda drawn: float(self.value(drawn[:, 0], drawn[:, 1])), seed=seed)

    def screening_rows(
        self, costs: Costs, most: int, draw: np.random.Generator, weights: Weights = None
    ) -> Int64[np.ndarray, " S"]:
        """Return the scenarios of the dearest share, which alone decide."""
        tail = int((self._count_dearest(costs, weights) > 0).sum())
        return super().screening_rows(costs, min(most, tail), draw)

    def screening_value(
        self, costs: Float64[np.ndarray, "Q S"], weights: Weights = None
    ) -> Float64[np.ndarray, " Q"]:
        """Return the mean of each row: all of them are of the dearest share."""
        return np.average(costs, axis=1, weights=weights)


class Worst(Criterion):
    """The largest of the costs."""

    def value(
        self, costs: Float64[np.ndarray, "*Q N"], weights: Weights = None
    ) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the largest cost of each row."""
        return np.max(costs, axis=-1)

    def planes(self, costs: Costs, weights: Weights = None) -> Float64[np.ndarray, "M N"]:
        """Return the planes of the worst scenario and of the next worst."""
        return np.eye(len(costs))[np.argsort(-costs, kind="stable")[:_PLANES]]


class Regret(Worst):
    """The largest regret: the largest excess of a cost over the scenario's own optimum."""

    of_regrets = True


def normalize(weights: Weights, count: int) -> Costs:
    """Return weights that sum to 1; equal ones for None."""
    return np.full(count, 1.0 / count) if weights is None else weights / weights.sum()
