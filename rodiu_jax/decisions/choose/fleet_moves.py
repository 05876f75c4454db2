"""The neighbours of a fleet: deployments one move away, where a pair may have several replicas.

The cheap moves come first: a replica more or fewer. The wide ones put a pair at another degree or another pair in its
place, with the replicas that sustain about as much, move one replica from a pair to another, and drop or add a pair.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int

from rodiu_jax.decisions.choose.candidates import sort_pairs
from rodiu_jax.decisions.sources import mean_scenario
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment
from solvers.fleet_prices import price_triples
from solvers.terms import ScenarioTerms

_POOL = 24
"""Triples that may come into a deployment: those that good plans deploy, by the relaxations of some scenarios."""


class FleetMoves:
    """Proposes the neighbours of fleets for some scenarios."""

    def __init__(self, instances: Instances, priced: Instances) -> None:
        """Prepare the moves.

        Args:
          priced: those of the scenarios whose relaxations say which triples may come into a deployment.
        """
        _, models, gpus, _ = instances.shape
        most = np.asarray(instances.fields.max_replicas)  # one number where no scenario has several
        most = np.broadcast_to(most, (1, models, gpus)) if most.ndim == 0 else most.reshape(-1, models, gpus)
        self._most: Int[np.ndarray, "J K"] = most.min(0)
        serving = ScenarioTerms.derive(mean_scenario(instances), 0).serving
        assert serving is not None, "scenarios without fleets have no such moves"
        self._load: Float64[np.ndarray, "I P N"] = np.asarray(serving.load)
        self._names = instances.names
        self._price = np.where(self._most[..., None] > 0, price_triples(priced), np.inf)  # J,K,N
        self._best = np.argsort(self._price, axis=None, kind="stable")[:_POOL]

    def resize(self, deployment: Deployment) -> list[Deployment]:
        """Give each pair a replica more, or fewer: with none it is dropped."""
        found: dict[Deployment, None] = {}
        for at, pair in enumerate(deployment):
            rest = deployment[:at] + deployment[at + 1 :]
            if pair.replicas < self._limit(pair):
                found[sort_pairs((*rest, *_with_replicas(pair, pair.replicas + 1)))] = None
            found[sort_pairs((*rest, *_with_replicas(pair, pair.replicas - 1)))] = None
        return list(found)

    def exchange(self, deployment: Deployment) -> list[Deployment]:
        """Drop pairs, add others, and put others in the place of one, or of some of its replicas."""
        found: dict[Deployment, None] = {}
        pool = self._pool(deployment)
        for at, pair in enumerate(deployment):
            rest = deployment[:at] + deployment[at + 1 :]
            found[sort_pairs(rest)] = None
            for gone in _parts(pair.replicas):
                kept = _with_replicas(pair, pair.replicas - gone)
                for other in rest:
                    for count in self._counts(pair, gone, other):
                        if other.replicas + count <= self._limit(other):
                            grown = replace(other, replicas=other.replicas + count)
                            changed = (grown if d == other else d for d in rest)
                            found[sort_pairs((*changed, *kept))] = None
                held = {(d.model, d.gpu) for d in (*rest, *kept)}
                for new in pool:
                    if (new.model, new.gpu) not in held:
                        for count in self._counts(pair, gone, new):
                            found[sort_pairs((*rest, *kept, *_with_replicas(new, count)))] = None
        held = {(d.model, d.gpu) for d in deployment}
        for new in pool:
            if (new.model, new.gpu) not in held:
                found[sort_pairs((*deployment, new))] = None
        found.pop(deployment, None)
        return list(found)

    def _pool(self, deployment: Deployment) -> list[DeployedPair]:
        """Return the triples that may come in: those of good plans, and all degrees of the pairs that are there."""
        names, known = self._names, np.zeros(self._price.shape, bool)
        known[np.unravel_index(self._best, known.shape)] = True
        for pair in deployment:
            known[names.models.index(pair.model), names.gpus.index(pair.gpu)] = True
        found = np.argwhere(known & np.isfinite(self._price)).tolist()
        return [DeployedPair(names.models[j], names.gpus[k], names.degrees[n]) for j, k, n in found]

    def _counts(self, old: DeployedPair, gone: int, new: DeployedPair) -> set[int]:
        """Return the replicas of ``new`` that sustain what ``gone`` replicas of ``old`` do, or just not."""
        as_much = self._count_as_much(replace(old, replicas=gone), new)
        return {as_much, max(as_much - 1, 1)}

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


def _with_replicas(pair: DeployedPair, count: int) -> Deployment:
    """Return the pair with so many replicas; nothing for none."""
    return (replace(pair, replicas=count),) if count > 0 else ()


def _parts(replicas: int) -> list[int]:
    """Return how many of some replicas are put elsewhere: a few, half of them, all."""
    return sorted({min(count, replicas) for count in (1, 2, 3, (replicas + 1) // 2, replicas)})
