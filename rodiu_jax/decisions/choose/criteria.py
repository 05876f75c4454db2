"""What makes one row of costs better than another: expectation, tail, worst case, regret.

Every criterion is the largest mean of the costs under weights of a set (a coherent measure of risk): for the
expectation that set is the equal ones, for CVaR all up to 1 / ((1 - level) N), for the worst case all. It is therefore
monotone in the costs, and the weights that are largest at one row of costs give a plane below it everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from rodiu_jax.analysis.intervals import bootstrap_interval, mean_interval

_PLANES = 4
"""Planes below a worst case: those of the worst scenario and of the next worst."""

Costs = Float64[np.ndarray, " N"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Criterion(ABC):
    """A number for a row of costs of N equally likely scenarios; smaller is better.

    Attributes:
      level: of CVaR, in (0, 1); the others do not read it.
      of_regrets: it is taken of regrets, each scenario's cost less its own optimum, not of costs.
    """

    level: float = 0.95
    of_regrets: ClassVar[bool] = False

    @abstractmethod
    def value(self, costs: Float64[np.ndarray, "*Q N"]) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the criterion of each row of costs; inf is allowed."""

    @abstractmethod
    def weights(self, costs: Costs) -> Float64[np.ndarray, "M N"]:
        """Return planes below the criterion: it is ``weights[0] @ costs`` here, and nowhere below any of them."""

    def sampling_interval(self, costs: Costs, *, seed: int) -> Interval:
        """Return the 95 % interval of the criterion of all scenarios, judged from a sample not used for choosing.

        It is nan where a sample cannot tell: the worst case, fewer than two scenarios, costs that are not finite.
        """
        return math.nan, math.nan

    def screening_rows(self, costs: Costs, most: int, draw: np.random.Generator) -> Int64[np.ndarray, " S"]:
        """Return the scenarios on which a rival of the option with these costs is tried first: the worst ones."""
        return np.sort(np.argsort(-costs, kind="stable")[:most])

    def screening_value(self, costs: Float64[np.ndarray, "Q S"]) -> Float64[np.ndarray, " Q"]:
        """Return what rivals are compared by on the screened scenarios; all costs are finite."""
        return costs.max(1)


class Expected(Criterion):
    """The mean of the costs."""

    def value(self, costs: Float64[np.ndarray, "*Q N"]) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the mean of each row of costs."""
        return np.mean(costs, axis=-1)

    def weights(self, costs: Costs) -> Float64[np.ndarray, "M N"]:
        """Return the one plane of the mean, which is linear."""
        return np.full((1, len(costs)), 1.0 / len(costs))

    def sampling_interval(self, costs: Costs, *, seed: int) -> Interval:
        """Return Student's interval of the mean."""
        return mean_interval(costs) if np.isfinite(costs).all() else (math.nan, math.nan)

    def screening_rows(self, costs: Costs, most: int, draw: np.random.Generator) -> Int64[np.ndarray, " S"]:
        """Return scenarios drawn at random: every one counts alike."""
        return np.sort(draw.choice(len(costs), most, replace=False))

    def screening_value(self, costs: Float64[np.ndarray, "Q S"]) -> Float64[np.ndarray, " Q"]:
        """Return the mean of each row."""
        return costs.mean(1)


class Cvar(Criterion):
    """The mean of the dearest share 1 - level of the scenarios, the last one counted in part.

    CVaR = (sum of the floor(m) largest + frac(m) times the next) / m with m = (1 - level) N; the largest where m < 1.

    Source: Rockafellar and Uryasev, Optimization of conditional value-at-risk (Journal of Risk, 2000).
    """

    def value(self, costs: Float64[np.ndarray, "*Q N"]) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the mean of the dearest share of each row of costs."""
        ordered = -np.sort(-np.asarray(costs, np.float64), axis=-1)
        mass = max((1.0 - self.level) * ordered.shape[-1], 1.0)
        whole = min(math.floor(mass + 1e-9), ordered.shape[-1])
        total = ordered[..., :whole].sum(-1)
        rest = mass - whole
        if rest > 1e-9 and whole < ordered.shape[-1]:
            total = total + rest * ordered[..., whole]
        return total / mass

    def weights(self, costs: Costs) -> Float64[np.ndarray, "M N"]:
        """Return the plane of the dearest scenarios."""
        count = len(costs)
        order = np.argsort(-costs, kind="stable")
        mass = max((1.0 - self.level) * count, 1.0)
        weights = np.zeros((1, count))
        weights[0, order] = np.clip(mass - np.arange(count), 0.0, 1.0) / mass
        return weights

    def sampling_interval(self, costs: Costs, *, seed: int) -> Interval:
        """Return the bootstrap percentiles of the mean of the dearest share."""
        if len(costs) < 2 or not np.isfinite(costs).all():
            return math.nan, math.nan
        return bootstrap_interval(costs, lambda sample: float(self.value(sample)), seed=seed)

    def screening_rows(self, costs: Costs, most: int, draw: np.random.Generator) -> Int64[np.ndarray, " S"]:
        """Return the scenarios of the dearest share, which alone decide."""
        tail = max(math.ceil((1.0 - self.level) * len(costs)), 1)
        return super().screening_rows(costs, min(most, tail), draw)

    def screening_value(self, costs: Float64[np.ndarray, "Q S"]) -> Float64[np.ndarray, " Q"]:
        """Return the mean of each row: all of them are of the dearest share."""
        return costs.mean(1)


class Worst(Criterion):
    """The largest of the costs."""

    def value(self, costs: Float64[np.ndarray, "*Q N"]) -> Float64[np.ndarray, "*Q"] | np.floating:
        """Return the largest cost of each row."""
        return np.max(costs, axis=-1)

    def weights(self, costs: Costs) -> Float64[np.ndarray, "M N"]:
        """Return the planes of the worst scenario and of the next worst."""
        return np.eye(len(costs))[np.argsort(-costs, kind="stable")[:_PLANES]]


class Regret(Worst):
    """The largest regret: the largest excess of a cost over the scenario's own optimum."""

    of_regrets = True
