"""How full a plan makes each deployed pair: the load of every query type, what shortfalls add, and the worst case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from rodiu_jax.model.fields import has_rates
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan, deployed_triples


@dataclass(frozen=True)
class PairLoad:
    """The load of the D deployed pairs of a plan, in replicas (MODEL section 9).

    Attributes:
      load: of each query type on each pair; inf where it is sent to a pair that cannot serve it.
      extra: what the type's shortfall adds at most.
      worst: of each pair, where the rates of `gamma_throughput` of its types fall short at once.
      replicas: of each pair.
    """

    load: Float64[np.ndarray, "I D"]
    extra: Float64[np.ndarray, "I D"]
    worst: Float64[np.ndarray, " D"]
    replicas: Float64[np.ndarray, " D"]


def measure_load(plan: Plan, instances: Instances, b: int) -> PairLoad:
    """Measure the load of a plan in scenario ``b``; nothing loads a pair where scenarios state no rates."""
    from solvers.terms import collect

    counts = np.array([d.replicas for d in plan.deployments], np.int64)
    shares = np.zeros((len(instances.query_names), len(counts)))
    slot = {(d.model, d.gpu): at for at, d in enumerate(plan.deployments)}
    for route in plan.routes:
        shares[instances.query_names.index(route.query), slot[route.model, route.gpu]] = route.share
    replicas = counts.astype(np.float64)
    if not len(counts) or not has_rates(instances.one(b)):
        return PairLoad(np.zeros_like(shares), np.zeros_like(shares), np.zeros(len(counts)), replicas)
    fleet = collect(instances, b, deployed_triples(instances, plan.deployments), counts).fleet
    assert fleet is not None, "a scenario with rates has a fleet"
    load, extra = (
        np.multiply(shares, whole, out=np.zeros_like(shares), where=shares > 0)
        for whole in (fleet.load, fleet.load_excess)
    )
    return PairLoad(load, extra, fleet.worst_load(shares), replicas)
