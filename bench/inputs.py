"""Plans and deployments that several benchmarks evaluate."""

from __future__ import annotations

import numpy as np

from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan, Route

RENTED = (
    DeployedPair("Llama-3.2-1B", "H100_INT8", 8),
    DeployedPair("Llama-3.2-3B", "H100_FP16", 4),
    DeployedPair("Llama-3.2-3B", "H100_INT8", 1),
)
"""Good for the seed catalogue's scenarios on average; its neighbours are what a search would cross."""


def make_random_plans(instances: Instances, count: int, *, everywhere: bool) -> list[Plan]:
    """Make plans like optimal ones in size: 2 to 4 deployed pairs, serving all down to 0.1 %: some fit."""
    rng = np.random.default_rng(3)
    models, gpus = instances.model_names, instances.gpu_names
    degrees = [int(n) for n in instances.axis_names("N")]
    plans = []
    for p in range(count):
        cells = rng.choice(len(models) * len(gpus), size=rng.integers(2, 5), replace=False)
        pairs = [(models[c // len(gpus)], gpus[c % len(gpus)]) for c in cells]
        routes, unmet, served = [], {}, 10.0 ** -rng.uniform(0.0, 3.0)
        for query in instances.query_names:
            shares = (served * rng.dirichlet(np.ones(len(pairs)))).tolist()
            unmet[query] = 1.0 - sum(shares)
            routes += [Route(query, *pair, share) for pair, share in zip(pairs, shares, strict=True)]
        deployments = tuple(DeployedPair(*pair, int(rng.choice(degrees))) for pair in pairs)
        plans.append(Plan(None if everywhere else p % instances.size, deployments, tuple(routes), unmet))
    return plans
