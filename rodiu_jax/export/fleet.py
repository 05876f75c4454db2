"""A plan as what is started: pools of equal replicas, and which part of each kind of traffic each pool gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rodiu_jax.catalog import Catalog
from rodiu_jax.catalog.labels import ACCELERATOR, PRODUCT, REPOSITORY, Label
from rodiu_jax.catalog.service_times import find_batch, find_service_points
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.export.names import make_labels
from rodiu_jax.export.shares import split_whole
from rodiu_jax.model.plan import DeployedPair, Plan

UNMET = "unmet"
ELSEWHERE = "elsewhere"
RESERVED = (UNMET, ELSEWHERE, "healthz")
"""Labels that the router uses itself."""

_SUM_TOLERANCE = 1e-6
"""Of the shares of a query type, which the solvers keep to 1e-9."""


@dataclass(frozen=True)
class Pool:
    """The replicas of one deployed pair.

    Attributes:
      label: its name everywhere, such as ``qwen3-8b-h100-tp2``.
      queries: labels of the query types that are routed to it.
      largest_batch: requests at once at the fastest point of its curves; None where the catalogue has no curve.
    """

    pair: DeployedPair
    label: str
    queries: tuple[str, ...]
    largest_batch: int | None


@dataclass(frozen=True)
class Split:
    """Where the traffic of one query type goes.

    Attributes:
      parts: labels of pools and `UNMET`, each with its hundredths of a percent; they add up to the whole, none is 0.
      dropped: pools whose share is too small for a hundredth of a percent, with that share.
    """

    query: str
    label: str
    parts: tuple[tuple[str, int], ...]
    dropped: tuple[tuple[str, float], ...]

    @property
    def buys_elsewhere(self) -> bool:
        """True if a part of the traffic goes to no pool."""
        return any(label == UNMET for label, _ in self.parts)


@dataclass(frozen=True)
class Fleet:
    """All pools of a plan and how traffic is split over them."""

    pools: tuple[Pool, ...]
    splits: tuple[Split, ...]
    catalog: Catalog

    def find_pool(self, label: str) -> Pool:
        """Return the pool of a label."""
        return next(pool for pool in self.pools if pool.label == label)


def arrange_fleet(plan: Plan, catalog: Catalog) -> Fleet:
    """Arrange a plan whose names the catalogue has.

    Raises:
      InputError: the plan deploys nothing, or the shares of a query type do not add up to 1.
    """
    if not plan.deployments:
        raise InputError("plan", "deployments", "at least one deployed pair: there is nothing to start")
    labels = make_labels([f"{d.model}-{d.gpu}-tp{d.tp}" for d in plan.deployments], reserved=RESERVED)
    named = dict.fromkeys([*(r.query for r in plan.routes), *plan.unmet])
    queries = [q for q in catalog.sets["query"] if q in named]
    query_labels = dict(zip(queries, make_labels(queries, reserved=RESERVED), strict=True))
    where = {(d.model, d.gpu): label for d, label in zip(plan.deployments, labels, strict=True)}
    pools = []
    for pair, label in zip(plan.deployments, labels, strict=True):
        mine = [r.query for r in plan.routes if (r.model, r.gpu) == (pair.model, pair.gpu) and r.share > 0]
        routed = tuple(query_labels[q] for q in queries if q in mine)
        pools.append(Pool(pair, label, routed, _find_largest_batch(pair, mine, catalog)))
    splits = tuple(_split_query(plan, q, query_labels[q], where) for q in queries)
    return Fleet(tuple(pools), splits, catalog)


def _split_query(plan: Plan, query: str, label: str, where: Mapping[tuple[str, str], str]) -> Split:
    shares = {where[r.model, r.gpu]: r.share for r in plan.routes if r.query == query and r.share > 0}
    if plan.unmet.get(query, 0.0) > 0:
        shares[UNMET] = plan.unmet[query]
    total = math.fsum(shares.values())
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise InputError("plan", f"routes of {query}", "shares that add up to 1 with what is unmet", total)
    parts = dict(zip(shares, split_whole(list(shares.values())), strict=True))
    kept = tuple((name, part) for name, part in parts.items() if part)
    return Split(query, label, kept, tuple((name, shares[name]) for name, part in parts.items() if not part))


def _find_largest_batch(pair: DeployedPair, queries: list[str], catalog: Catalog) -> int | None:
    """Return the most requests at once that a curve of the pair was kept for."""
    cells = {(q, pair.model, pair.gpu, str(pair.tp)) for q in queries}
    points = [
        point
        for curve in catalog.curves
        if curve.cell in cells
        for point in find_service_points(curve, _mean_output(catalog, curve.query)) or ()
    ]
    return max((find_batch(p.concurrency) for p in points), default=None)


def _mean_output(catalog: Catalog, query: str) -> float:
    """Return the middle of the range of output tokens; curves that state ``e2e`` do not need it."""
    at = catalog.names("output_tokens").index((query,))
    low, high = catalog.ranges["output_tokens"]
    return (float(low.flat[at]) + float(high.flat[at])) / 2


def find_word(fleet: Fleet, label: Label, name: str, given: Mapping[str, str], option: str) -> str:
    """Return what a model or GPU is called elsewhere: what was given, or else what the catalogue says.

    Args:
      option: that gives it, for the error.

    Raises:
      InputError: nobody says it, or an unknown name or a word that cannot be one was given.
    """
    names = fleet.catalog.sets[label.axis]
    for known, word in given.items():
        if known not in names:
            raise InputError(option, "", f"one of {', '.join(names)}{nearest(known, names)}, then =", known)
        label.check(word, option, known)
    word = given.get(name) or fleet.catalog.label(label.axis, name, label.attribute)
    if word is None:
        expected = (
            f"{option} {name}=..., {label.expected}: the catalogue {fleet.catalog.name} has no "
            f"attributes.{label.axis}.{name}.{label.attribute}"
        )
        raise InputError("export", option, expected)
    return word


def find_repository(fleet: Fleet, pool: Pool, given: Mapping[str, str]) -> str:
    """Return where the engine finds the weights of a pool's model."""
    return find_word(fleet, REPOSITORY, pool.pair.model, given, "--model-id")


def find_product(fleet: Fleet, pool: Pool, given: Mapping[str, str]) -> str:
    """Return the label that nodes with a pool's GPU have in Kubernetes."""
    return find_word(fleet, PRODUCT, pool.pair.gpu, given, "--gpu-name")


def find_accelerator(fleet: Fleet, pool: Pool, given: Mapping[str, str]) -> str:
    """Return what SkyPilot calls a pool's GPU."""
    return find_word(fleet, ACCELERATOR, pool.pair.gpu, given, "--gpu-name")
