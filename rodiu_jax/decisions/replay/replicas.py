"""What a replica of a deployed pair does, read off the catalogue's curves.

Each query type on its own has latencies over the requests at once (`rodiu_jax.catalog.service_times`). The **fill** of
a replica is ``sum of requests / c`` over the types in it, where ``c`` is the requests at once at the point that the
type's rate is read from: at fill 1 each type alone is just at its promise, and the plan counts the replica as full. A
mix of types slows each of them as if it alone filled the replica so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rodiu_jax.catalog import Catalog
from rodiu_jax.catalog.promises import Curve, best_point
from rodiu_jax.catalog.service_times import ServicePoint, find_batch, find_service_points
from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import has_rates
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import DeployedPair, Plan

_LEAST_SECONDS = 1e-9
"""Of a phase that takes no time, so that its speed is finite."""


@dataclass(frozen=True)
class TypeService:
    """How a replica serves one query type.

    Attributes:
      weight: fill of one request, 1/c.
      fills: increasing fills at which latencies are known; one of them is 1.
      first, rest: seconds to the first token, and from there to the last, of a request of mean lengths at each fill.
      token: seconds per later output token, over ``rest``.
      rate: requests/s that a replica sustains of this type alone, its shortfall taken off.
      kv_per_token: GB.
    """

    query: str
    weight: float
    fills: tuple[float, ...]
    first: tuple[float, ...]
    rest: tuple[float, ...]
    token: float
    rate: float
    kv_per_token: float

    def work(self, first: float, rest: float) -> float:
        """Return the share of a mean request, at fill 1, that lengths of ``first`` and ``rest`` times the means are."""
        at = self.fills.index(1.0)
        whole = self.first[at] + self.rest[at]
        return (first * self.first[at] + rest * self.rest[at]) / whole


@dataclass(frozen=True)
class PoolService:
    """How the replicas of one deployed pair serve.

    Attributes:
      largest_fill: most fill of a replica: where the curve of some type ends.
      kv_room: GB of a replica beside the weights.
    """

    pair: DeployedPair
    types: tuple[TypeService, ...]
    largest_fill: float
    kv_room: float


def describe_pool(
    pair: DeployedPair, plan: Plan, instances: Instances, catalog: Catalog, shortfalls: Mapping[str, float]
) -> PoolService:
    """Describe the replicas of one pair of a plan, for the scenario 0.

    Args:
      shortfalls: how much lower than on the curves the rates at equal numbers of requests at once are, in [0, 1), as
        `find_shortfall` looks them up.

    Raises:
      InputError: a query type is routed to the pair, and the catalogue has no curve of it there, or one that tells too
        little, or keeps the promise nowhere.
    """
    fields = instances.one(0)
    j, k = instances.model_names.index(pair.model), instances.gpu_names.index(pair.gpu)
    routed = [r.query for r in plan.routes if (r.model, r.gpu) == (pair.model, pair.gpu) and r.share > 0]
    curves = {c.cell: c for c in catalog.curves}
    types, most = [], math.inf
    for query in instances.query_names:
        if query not in routed:
            continue
        points, best = _find_points(
            query, pair, curves.get((query, pair.model, pair.gpu, str(pair.tp))), instances, catalog
        )
        i, n = instances.query_names.index(query), instances.names.degrees.index(pair.tp)
        at_best = points[best]
        stated = float(fields.throughput[i, j, k, n]) if has_rates(fields) else math.inf
        # What a scenario states below or above the curve, all latencies share.
        speed = stated / at_best.rate if 0 < stated < math.inf else 1.0
        speed *= 1.0 - find_shortfall(query, pair, shortfalls)
        types.append(
            TypeService(
                query=query,
                weight=1.0 / at_best.concurrency,
                fills=tuple(p.concurrency / at_best.concurrency for p in points),
                first=tuple(max(p.first / 1000.0 / speed, _LEAST_SECONDS) for p in points),
                rest=tuple(max(p.rest / 1000.0 / speed, _LEAST_SECONDS) for p in points),
                token=at_best.token / at_best.rest if at_best.rest > 0 else 0.0,
                rate=at_best.rate / 3600.0 * speed,
                kv_per_token=float(fields.kv_per_token[j]),
            )
        )
        most = min(most, find_batch(points[-1].concurrency) / at_best.concurrency)
    room = pair.tp * float(fields.gpu_memory[k]) - float(fields.weight_memory[j])
    return PoolService(pair, tuple(types), most, room)


def _find_points(
    query: str, pair: DeployedPair, curve: Curve | None, instances: Instances, catalog: Catalog
) -> tuple[Sequence[ServicePoint], int]:
    """Return the points over requests at once, and which of them the sustained rate is read from."""
    where = f"{query} on {pair.model}@{pair.gpu} x{pair.tp}"
    if curve is None:
        expected = (
            f"a curve of {where}, which the plan routes there (rodiu import benchmark or aiconfigurator)"
        )
        raise InputError(catalog.path, "curve", expected)
    points = find_service_points(
        curve, float(instances.one(0).output_tokens[instances.query_names.index(query)])
    )
    if points is None:
        raise InputError(catalog.path, f"curve of {where}", "points with e2e, or with both ttft and tpot")
    promise = catalog.promises.get(query)
    best = best_point(curve.points, promise)
    if best is None:
        raise InputError(catalog.path, f"curve of {where}", f"a point at which {promise} holds")
    rate = curve.points[best].rate
    position = next(n for n, point in enumerate(points) if point.rate == rate)
    if not points[position].concurrency > 0:
        raise InputError(
            catalog.path, f"curve of {where}", f"an end-to-end latency above 0 at {rate:g} queries/h"
        )
    return points, position


def find_shortfall(query: str, pair: DeployedPair, shortfalls: Mapping[str, float]) -> float:
    """Return the shortfall of a query type on a pair: the most special of those that were stated, 0 without one.

    Args:
      shortfalls: by ``QUERY:MODEL@GPU``, ``MODEL@GPU``, ``QUERY``, or ``*`` for all.
    """
    place = f"{pair.model}@{pair.gpu}"
    names = (f"{query}:{place}", place, query, "*")
    return next((shortfalls[name] for name in names if name in shortfalls), 0.0)


def name_shortfalls(query_names: Sequence[str], pairs: Sequence[DeployedPair]) -> list[str]:
    """List the names under which `find_shortfall` looks, but ``*``."""
    places = list(dict.fromkeys(f"{pair.model}@{pair.gpu}" for pair in pairs))
    return [*places, *query_names, *(f"{query}:{place}" for query in query_names for place in places)]
