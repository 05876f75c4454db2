"""The book of a choice: every option crossed so far, its costs in every scenario, and how options compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from rodiu_jax.decisions.choose.criteria import Criterion
from rodiu_jax.decisions.choose.crossing import Costs, Option, cross, fix_routings, with_recourse
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Deployment
from solvers.answers import Answers


@dataclass(frozen=True)
class Task:
    """What is asked for: the scenarios, the criterion and its name, the kind of routing, and how to work.

    Attributes:
      answers: a bracket of each scenario's own optimum.
      weights: of the scenarios, positive, summing to 1.
      gap: relative gap to which scenarios that were held out are bracketed.
      seed: of the screening and of the bootstrap.
    """

    instances: Instances
    answers: Answers
    weights: Float64[np.ndarray, " B"]
    name: str
    criterion: Criterion
    recourse: bool
    gap: float
    seed: int
    quiet: bool


@dataclass
class Book:
    """The options crossed with all B scenarios so far, and what is known of each scenario's own optimum.

    Attributes:
      options: the Q options, in the order in which they were crossed.
      costs: theirs, (Q, B).
      optimum_lower, optimum_upper: of each scenario's own optimum, $ per period.
      tried: deployments that were looked at, with an option or without.
    """

    task: Task
    options: list[Option] = field(default_factory=list)
    tried: set[Deployment] = field(default_factory=set)
    costs: Costs = field(init=False)
    optimum_lower: Float64[np.ndarray, " B"] = field(init=False)
    optimum_upper: Float64[np.ndarray, " B"] = field(init=False)

    def __post_init__(self) -> None:
        answers = self.task.answers
        self.costs = Costs(np.zeros((0, len(answers))), np.zeros((0, len(answers))), [])
        self.optimum_lower, self.optimum_upper = answers.lower.copy(), answers.upper.copy()

    def new_options(self, deployments: Sequence[Deployment]) -> list[Option]:
        """Return options of the deployments that were not tried before, and count them as tried."""
        new = [d for d in deployments if d not in self.tried]
        self.tried.update(new)
        return with_recourse(new) if self.task.recourse else self.fixed_options(new)

    def fixed_options(self, deployments: Sequence[Deployment]) -> list[Option]:
        """Return deployments with their best fixed routings."""
        known = np.isfinite(self.optimum_lower)
        offset = np.where(known, self.optimum_lower, 0.0) if self.task.criterion.of_regrets else 0.0
        planes = partial(self.task.criterion.planes, weights=self.task.weights)
        return fix_routings(deployments, self.task.instances, planes, offset)

    def add(self, options: list[Option]) -> None:
        """Cross options with all scenarios."""
        from rodiu_jax.runtime.progress import progress

        if not options:
            return
        instances = self.task.instances
        with progress(f"cross {len(options)} plans", instances.size, quiet=self.task.quiet) as bar:
            new = cross(options, instances, report=lambda count: bar.advance("crossed", count=count))
        self.options += options
        self.costs = Costs(
            np.concatenate([self.costs.lower, new.lower]),
            np.concatenate([self.costs.upper, new.upper]),
            self.costs.broken + new.broken,
        )
        self.optimum_upper = np.minimum(self.optimum_upper, new.upper.min(0))

    def measure(
        self, costs: Float64[np.ndarray, "Q S"], rows: Any = slice(None)
    ) -> Float64[np.ndarray, "Q S"]:
        """Return what the criterion is taken of: costs, or regrets against the scenarios' certified lower bounds."""
        return subtract_optimum(costs, self.optimum_lower[rows]) if self.task.criterion.of_regrets else costs

    def values(self) -> Float64[np.ndarray, " Q"]:
        """Return the criterion of every option, from above; inf where a promise breaks somewhere."""
        return np.asarray(self.task.criterion.value(self.measure(self.costs.upper), self.task.weights))

    def feasible_shares(self) -> Float64[np.ndarray, " Q"]:
        """Return the share of the scenarios, by weight, in which each option keeps every promise."""
        return measure_share(np.isfinite(self.costs.upper), self.task.weights)

    def best(self) -> int:
        """Return the option with the least value; where none keeps all promises, the one that keeps them most often."""
        share, value = self.feasible_shares(), self.values()
        if (share < 1.0).all():
            value = self.values_where_feasible(self.costs.upper)
        return int(np.lexsort((np.arange(len(value)), value, -share))[0])

    def values_where_feasible(self, costs: Float64[np.ndarray, "Q B"]) -> Float64[np.ndarray, " Q"]:
        """Return the criterion of rows of costs over the scenarios that break nothing; inf where there is none."""
        values = []
        for row in self.measure(costs):
            known = np.isfinite(row)
            value = (
                self.task.criterion.value(row[known], self.task.weights[known]) if known.any() else math.inf
            )
            values.append(float(value))
        return np.array(values)

    def regret_floors(self) -> Float64[np.ndarray, " Q"]:
        """Return the least that each option's largest regret can be."""
        return np.maximum(subtract_optimum(self.costs.lower, self.optimum_upper), 0.0).max(1)

    def hopeless(self) -> Bool[np.ndarray, " B"]:
        """Return the scenarios in which no plan exists."""
        return self.optimum_lower == math.inf


def measure_share(
    flags: Bool[np.ndarray, "*Q B"], weights: Float64[np.ndarray, " B"]
) -> Float64[np.ndarray, "*Q"]:
    """Return the weight of the scenarios with a flag; exactly 1 where all have one."""
    if (weights == weights[0]).all():
        return np.asarray(flags.mean(-1))
    return np.where(flags.all(-1), 1.0, flags @ weights)


def subtract_optimum(
    costs: Float64[np.ndarray, "Q B"], optimum: Float64[np.ndarray, " B"]
) -> Float64[np.ndarray, "Q B"]:
    """Return costs - optimum; inf where the cost is, and where the optimum is not known."""
    known = np.isfinite(costs) & np.isfinite(optimum)
    return np.where(known, np.subtract(costs, optimum, where=known, out=np.full(costs.shape, np.inf)), np.inf)
