"""Plans as columns over many scenarios, and the way from columns to names: one plan, or many as text.

A batch of B plans is ``slots`` (B,D), the deployed triples of `rodiu_jax.model.slots`; ``shares`` (B,I,D), the share of
each query type that each slot serves; ``unmet`` (B,I), the share that nobody serves; and ``replicas`` (B,D) of each
slot, None where every one has a single replica. A route is a share above 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Integer

from rodiu_jax.model.plan import DeployedPair, Deployment, Plan, Route
from rodiu_jax.model.slots import EMPTY, Names, join_slots, split_slots


def deployment_from_slots(
    names: Names, slots: Integer[np.ndarray, " D"], replicas: Integer[np.ndarray, " D"] | None = None
) -> Deployment:
    """Return the deployment by name of a row of slots, in their order."""
    used = slots >= 0
    parts = split_slots(slots[used], names)
    counts = np.ones(len(slots), np.int64) if replicas is None else replicas
    return tuple(
        DeployedPair(names.models[j], names.gpus[k], names.degrees[n], r)
        for j, k, n, r in zip(*(part.tolist() for part in (*parts, counts[used])), strict=True)
    )


def plan_from_shares(
    names: Names,
    slots: Integer[np.ndarray, " D"],
    shares: Float64[np.ndarray, "I D"],
    unmet: Float64[np.ndarray, " I"],
    *,
    replicas: Integer[np.ndarray, " D"] | None = None,
    instance: int | None = None,
) -> Plan:
    """Return the plan by name; the one maker of plans from arrays.

    Args:
      slots: what is deployed; a slot without routes is deployed all the same.
      instance: the scenario that the plan is for; None for all of them.
    """
    used = np.flatnonzero(slots >= 0)
    deployment = deployment_from_slots(names, slots, replicas)
    routes = [
        Route(query, pair.model, pair.gpu, share)
        for query, row in zip(names.queries, shares[:, used].tolist(), strict=True)
        for pair, share in zip(deployment, row, strict=True)
        if share > 0
    ]
    return Plan(instance, deployment, tuple(routes), dict(zip(names.queries, unmet.tolist(), strict=True)))


class PlanColumns(NamedTuple):
    """One plan as columns."""

    slots: Int32[np.ndarray, " D"]
    shares: Float64[np.ndarray, "I D"]
    unmet: Float64[np.ndarray, " I"]
    replicas: Int32[np.ndarray, " D"]


def columns_from_plan(names: Names, plan: Plan) -> PlanColumns:
    """Return the columns of a plan, whose names must be those of ``names``.

    The inverse of `plan_from_shares`, but that a share of 0 is no route.
    """
    place = {(d.model, d.gpu): s for s, d in enumerate(plan.deployments)}
    triples = np.array(
        [
            (names.models.index(d.model), names.gpus.index(d.gpu), names.degrees.index(d.tp))
            for d in plan.deployments
        ],
        np.int32,
    ).reshape(-1, 3)
    shares = np.zeros((len(names.queries), len(place)))
    for r in plan.routes:
        shares[names.queries.index(r.query), place[r.model, r.gpu]] = r.share
    unmet = np.array([plan.unmet.get(query, 0.0) for query in names.queries], np.float64)
    model, gpu, degree = triples.T
    replicas = np.array([d.replicas for d in plan.deployments], np.int32)
    return PlanColumns(join_slots(model, gpu, degree, names), shares, unmet, replicas)


def drop_idle_slots(
    slots: Int32[np.ndarray, "B D"], shares: Float64[np.ndarray, "B I D"]
) -> tuple[Int32[np.ndarray, "B E"], Float64[np.ndarray, "B I E"]]:
    """Return the deployments without the slots that serve nothing, the others moved to the front in their order."""
    used = (slots >= 0) & (shares > 0).any(1)  # B,D
    width = int(used.sum(1).max(initial=0))
    order = np.argsort(~used, axis=1, kind="stable")[:, :width]  # B,E
    slots = np.where(np.take_along_axis(used, order, 1), np.take_along_axis(slots, order, 1), EMPTY)
    shares = np.take_along_axis(shares, order[:, None, :], 2) * (slots >= 0)[:, None, :]
    return slots.astype(np.int32), shares


def distinct_plans(
    slots: Int32[np.ndarray, "B D"],
    shares: Float64[np.ndarray, "B I D"],
    unmet: Float64[np.ndarray, "B I"],
    replicas: Int32[np.ndarray, "B D"] | None = None,
) -> tuple[Int64[np.ndarray, " U"], Int64[np.ndarray, " B"]]:
    """Return one plan of each kind (positions), and the kind of each plan; plans of a kind are equal bit for bit."""
    size = len(slots)
    if not size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    numbers = np.concatenate([shares.reshape(size, -1), unmet], axis=1)
    columns = (slots, numbers) if replicas is None else (slots, replicas, numbers)
    parts = [np.ascontiguousarray(a).view(np.uint8) for a in columns]
    rows = np.concatenate([part.reshape(size, -1) for part in parts], axis=1)
    _, first, kind = np.unique(rows.view(f"V{rows.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    return first, kind


def deployments_from_slots(
    names: Names, slots: Integer[np.ndarray, "B D"], replicas: Integer[np.ndarray, "B D"] | None = None
) -> list[Deployment]:
    """Return each deployment by name; each distinct one is made once."""
    if not len(slots):
        return []
    counts = np.ones_like(slots) if replicas is None else replicas
    kinds, kind_of = np.unique(np.stack([slots, counts], axis=1), axis=0, return_inverse=True)
    deployments = [deployment_from_slots(names, *kind) for kind in kinds]
    return [deployments[k] for k in kind_of.reshape(-1).tolist()]


def deployment_texts(
    names: Names, slots: Int32[np.ndarray, "B D"], replicas: Int32[np.ndarray, "B D"] | None = None
) -> list[str]:
    """Return one line per deployment, as `Plan.summary` has it; each distinct one is written once."""
    texts: dict[Deployment, str] = {}
    return [
        texts.get(d) or texts.setdefault(d, Plan(None, d, (), {}).summary())
        for d in deployments_from_slots(names, slots, replicas)
    ]


def plan_texts(
    names: Names,
    slots: Int32[np.ndarray, "B D"],
    shares: Float64[np.ndarray, "B I D"],
    unmet: Float64[np.ndarray, "B I"],
    replicas: Int32[np.ndarray, "B D"] | None = None,
) -> list[str]:
    """Return each plan's JSON (MODEL section 8) for no particular scenario.

    Plans with the same deployment and the same routes differ in numbers alone: their text is written once, with a place
    for each number.
    """
    if not len(slots):
        return []
    size = len(slots)
    routed = (shares > 0) & (slots >= 0)[:, None, :]  # B,I,D
    texts = np.empty(size, object)
    counts = np.ones_like(slots) if replicas is None else replicas
    keys = np.concatenate([slots, counts, routed.reshape(size, -1)], axis=1, dtype=np.int32)
    for rows, first in _groups(keys):
        text = _template(names, slots[first], counts[first], routed[first])
        numbers = np.concatenate([shares[rows][:, routed[first]], unmet[rows]], axis=1)
        texts[rows] = [text % tuple(row) for row in numbers.tolist()]
    return texts.tolist()


def _groups(keys: Int32[np.ndarray, "B C"]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the rows that have the same key, and the first of them."""
    _, kind_of, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(kind_of.reshape(-1), kind="stable")
    for rows in np.split(order, np.cumsum(counts)[:-1]):
        yield rows, int(rows[0])


def _template(
    names: Names,
    slots: Int32[np.ndarray, " D"],
    replicas: Int32[np.ndarray, " D"],
    routed: Bool[np.ndarray, "I D"],
) -> str:
    """Return a plan's JSON with ``%r`` in the place of every share: routes first, then the unmet shares."""
    mark = "\0"  # no name holds it: names are printable
    plan = plan_from_shares(
        names, slots, routed.astype(np.float64), np.zeros(len(names.queries)), replicas=replicas
    )
    item = plan.to_json()
    for route in item["routes"]:
        route["share"] = mark
    item["unmet"] = dict.fromkeys(item["unmet"], mark)
    return json.dumps(item, allow_nan=False).replace("%", "%%").replace(json.dumps(mark), "%r")
