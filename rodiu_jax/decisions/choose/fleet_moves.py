"""The neighbours of a fleet: deployments one move away, where a pair may have several replicas.

The cheap moves come first: a replica more or fewer. The wide ones put a pair at another degree or another pair in its
place, with the replicas that sustain about as much, move one replica from a pair to another, and drop or add a pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int

from rodiu_jax.decisions.choose.candidates import sort_pairs
from rodiu_jax.decisions.sources import mean_scenario
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment
from solvers.terms import ScenarioTerms

Triple = tuple[str, str, int]
"""Model, GPU configuration and degree."""


class FleetMoves:
    """Proposes the neighbours of fleets for some scenarios.

    Attributes:
      pool: the triples that may be deployed, of one replica each.
    """

    def __init__(self, instances: Instances, pool: Sequence[DeployedPair]) -> None:
        """Prepare the moves; of ``pool`` those triples are kept that fit and serve some type in the mean scenario."""
        _, models, gpus, _ = instances.shape
        scenario = ScenarioTerms.derive(mean_scenario(instances), 0)
        assert scenario.serving is not None, "scenarios without fleets have no such moves"
        most = np.asarray(instances.fields.max_replicas)  # one number where no scenario has several
        most = np.broadcast_to(most, (1, models, gpus)) if most.ndim == 0 else most.reshape(-1, models, gpus)
        self._most: Int[np.ndarray, "J K"] = most.min(0)
        self._load: Float64[np.ndarray, "I P N"] = np.asarray(scenario.serving.load)
        self._names = instances.names
        fits, serves = np.asarray(scenario.dense.fits), np.isfinite(self._load).any(0)
        self.pool = [
            d for d in pool if self._limit(d) > 0 and fits[self._place(d)] and serves[self._place(d)]
        ]

    def resize(self, deployment: Deployment) -> list[Deployment]:
        """Give each pair a replica more, or fewer: with none it is dropped."""
        found: dict[Deployment, None] = {}
        for at, pair in enumerate(deployment):
            rest = deployment[:at] + deployment[at + 1 :]
            if pair.replicas < self._limit(pair):
                found[sort_pairs((*rest, replace(pair, replicas=pair.replicas + 1)))] = None
            found[sort_pairs(self._without_one(deployment, at))] = None
        return list(found)

    def exchange(self, deployment: Deployment) -> list[Deployment]:
        """Drop pairs, add others, put others in their place, and move single replicas between them."""
        found: dict[Deployment, None] = {}
        for at, pair in enumerate(deployment):
            rest = deployment[:at] + deployment[at + 1 :]
            found[sort_pairs(rest)] = None
            held = {(d.model, d.gpu) for d in rest}
            fewer = self._without_one(deployment, at)
            for new in self.pool:
                if (new.model, new.gpu) in held:
                    continue
                as_much = self._count_as_much(pair, new)
                for count in {as_much, max(as_much - 1, 1)}:
                    found[sort_pairs((*rest, replace(new, replicas=count)))] = None
                if (new.model, new.gpu) != (pair.model, pair.gpu):
                    found[sort_pairs((*fewer, new))] = None
            for other in rest:
                if other.replicas < self._limit(other):
                    one_more = replace(other, replicas=other.replicas + 1)
                    found[sort_pairs(one_more if d == other else d for d in fewer)] = None
        held = {(d.model, d.gpu) for d in deployment}
        for new in self.pool:
            if (new.model, new.gpu) not in held:
                found[sort_pairs((*deployment, new))] = None
        found.pop(deployment, None)
        return list(found)

    def _without_one(self, deployment: Deployment, at: int) -> Deployment:
        pair = deployment[at]
        left = () if pair.replicas == 1 else (replace(pair, replicas=pair.replicas - 1),)
        return deployment[:at] + left + deployment[at + 1 :]

    def _count_as_much(self, old: DeployedPair, new: DeployedPair) -> int:
        """Return the replicas of ``new`` that sustain what those of ``old`` do, over the types that both serve."""
        before, after = (self._load[:, *self._place(d)] for d in (old, new))
        both = np.isfinite(before) & np.isfinite(after) & (before > 0)
        if not both.any():
            return 1
        ratio = float(after[both].sum() / before[both].sum())
        return max(min(math.ceil(old.replicas * ratio - 1e-9), self._limit(new)), 1)

    def _limit(self, pair: DeployedPair) -> int:
        return int(self._most[self._names.models.index(pair.model), self._names.gpus.index(pair.gpu)])

    def _place(self, pair: DeployedPair) -> tuple[int, int]:
        """Return the position of a triple's pair and of its degree."""
        names = self._names
        place = names.models.index(pair.model) * len(names.gpus) + names.gpus.index(pair.gpu)
        return place, names.degrees.index(pair.tp)
