"""Deployments worth considering: those found scenario by scenario, and their neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Deployment
from rodiu_jax.model.plan_columns import deployments_from_slots
from solvers.answers import Answers

_EVERYTHING = 64
"""Up to so many (model, GPU, degree) a catalogue is small: all of them are tried as neighbours."""


def sort_pairs(pairs: Iterable[DeployedPair]) -> Deployment:
    """The deployment as it is written here, whatever the order of ``pairs``."""
    return tuple(sorted(pairs, key=lambda d: (d.model, d.gpu, d.tp)))


def deployments_of(answers: Answers, most: int) -> list[Deployment]:
    """Return the distinct deployments of the plans, the most frequent first (at most ``most``), then the empty one."""
    plans = answers.take(answers.has_plan)
    counts = Counter(
        sort_pairs(d) for d in deployments_from_slots(answers.names, plans.slots, plans.replicas)
    )
    ranked = sorted(counts, key=lambda d: (-counts[d], [(p.model, p.gpu, p.tp) for p in d]))
    return [*(d for d in ranked[:most] if d), ()]


def triples_near(instances: Instances, deployments: Sequence[Deployment]) -> list[DeployedPair]:
    """Every degree of the pairs that ``deployments`` use; of all pairs where the catalogue is small."""
    degrees = [int(n) for n in instances.axis_names("N")]
    models, gpus = instances.model_names, instances.gpu_names
    if len(models) * len(gpus) * len(degrees) <= _EVERYTHING:
        pairs = {(m, g) for m in models for g in gpus}
    else:
        pairs = {(d.model, d.gpu) for deployment in deployments for d in deployment}
    return [DeployedPair(m, g, n) for m, g in sorted(pairs) for n in degrees]


def neighbours(deployment: Deployment, pool: Sequence[DeployedPair]) -> list[Deployment]:
    """Deployments one move away: a pair dropped, added, or put (at any degree) in the place of another."""
    held = {(d.model, d.gpu) for d in deployment}
    found: dict[Deployment, None] = {}
    for at in range(len(deployment)):
        rest = deployment[:at] + deployment[at + 1 :]
        found[sort_pairs(rest)] = None
        others = held - {(deployment[at].model, deployment[at].gpu)}
        for new in pool:
            if (new.model, new.gpu) not in others:
                found[sort_pairs((*rest, new))] = None
    for new in pool:
        if (new.model, new.gpu) not in held:
            found[sort_pairs((*deployment, new))] = None
    found.pop(deployment, None)
    return list(found)
