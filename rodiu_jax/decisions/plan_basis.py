"""What plans rest on: which share of rent, load and traffic is of measured, predicted and assumed values.

A plan reads some values of a catalogue: those of the query types, of the models and GPUs that it deploys, and of its
routes. Each is measured, predicted or assumed (`rodiu_jax.catalog.describe.find_basis`). Weights say how much hangs on
it: a price counts by the rent that is paid at it, a rate by the load of the replicas, the others as `WEIGHTS` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from rodiu_jax.catalog import Catalog, load_catalog
from rodiu_jax.catalog.describe import find_basis
from rodiu_jax.decisions.pair_load import measure_load
from rodiu_jax.errors import InputError
from rodiu_jax.io.number_text import percent
from rodiu_jax.model.fields import FILE_FIELDS
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

BASES = ("measured", "predicted", "assumed")


@dataclass(frozen=True)
class Weighed:
    """A field that is weighed: what its values are called in a sentence, and by what they are weighed."""

    words: str
    by: str


WEIGHTS = {
    "gpu_price": Weighed("prices of GPUs", "rent"),
    "throughput": Weighed("rates of replicas", "load of the replicas"),
    "throughput_shortfall": Weighed("shortfalls of rates", "load of the replicas"),
    "arrival_rate": Weighed("traffic", "queries"),
    "input_tokens": Weighed("lengths of prompts", "tokens"),
    "output_tokens": Weighed("lengths of answers", "tokens"),
    "gpu_quota": Weighed("quotas", "GPUs"),
    "error_nominal": Weighed("accuracies", "served queries"),
    "delay_nominal": Weighed("delays", "served queries"),
    "unmet_penalty": Weighed("prices elsewhere", "$ spent there"),
}
"""The fields that are weighed."""

_ALL = "all values"


@dataclass
class PlanBasis:
    """What some plans rest on.

    Attributes:
      catalog: what their scenarios were drawn from; its sets are the scenarios' names.
      weights: by field of `WEIGHTS` and basis, summed over the plans.
      read: the values that they read, by field and names.
    """

    catalog: Catalog
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    read: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Remember the basis of each value that was asked for."""
        self._known: dict[tuple[str, tuple[str, ...]], str] = {}

    def find(self, name: str, names: tuple[str, ...]) -> str:
        """Tell what a value rests on."""
        if (name, names) not in self._known:
            self._known[name, names] = find_basis(self.catalog, name, names)
        return self._known[name, names]

    def add(self, plan: Plan, instances: Instances, index: int) -> None:
        """Weigh a plan of one scenario.

        Raises:
          InputError: the scenarios have other names than the catalogue.
        """
        check_names(self.catalog, instances, "catalog")
        for name, names, weight in _weigh(plan, instances, index):
            quantity = self.catalog.quantities.get(name)
            if quantity is None:
                continue
            at = tuple(n for axis, n in names.items() if axis in quantity.over)
            held = self.weights.setdefault(name, dict.fromkeys(BASES, 0.0))
            held[self.find(name, at)] += weight
        self.read |= set(_list_read(plan, self.catalog))

    def find_shares(self, name: str) -> dict[str, float]:
        """Return the share that each basis has in the weight of a field; empty where nothing hangs on it."""
        found = self.weights.get(name, {})
        total = sum(found.values())
        return {b: found[b] / total for b in BASES} if total > 0 else {}

    def tabulate(self) -> pd.DataFrame:
        """Tabulate shares: columns ``field``, ``by``, ``measured``, ``predicted``, ``assumed``; the last row is of all.

        The last row counts values, each once, as `rodiu validate` does for the whole catalogue.
        """
        rows = [
            (name, weighed.by, *shares.values())
            for name, weighed in WEIGHTS.items()
            if (shares := self.find_shares(name))
        ]
        if self.read:
            known = [self.find(*value) for value in self.read]
            rows.append((_ALL, "number", *(known.count(b) / len(known) for b in BASES)))
        return pd.DataFrame(rows, columns=pd.Index(["field", "by", *BASES]))

    def describe(self) -> str:
        """Say in a sentence what rent and load rest on, and all values together; empty without plans."""
        table = self.tabulate()
        if table.empty:
            return ""
        parts = []
        for row in table.to_dict("records"):
            what = {
                "gpu_price": "rent at prices",
                "throughput": "load at rates",
                _ALL: f"the {len(self.read):,} values read",
            }
            if row["field"] in what:
                shares = [f"{percent(row[b])} {b}" for b in BASES if row[b] > 0]
                parts.append(f"{what[row['field']]}: {', '.join(shares)}")
        return f"What the plans rest on: {'; '.join(parts)}."


def find_plan_basis(catalog: Catalog | str | Path, plans: Iterable[tuple[Plan, Instances, int]]) -> PlanBasis:
    """Weigh plans, each with its scenarios and its number among them, by what their values rest on.

    Args:
      catalog: what the scenarios were drawn from: a catalogue, its name, or its file.

    Raises:
      InputError: no such catalogue, or the scenarios have other names.
    """
    found = PlanBasis(catalog if isinstance(catalog, Catalog) else load_catalog(catalog))
    for plan, instances, index in plans:
        found.add(plan, instances, index)
    return found


def check_names(catalog: Catalog, instances: Instances, source: str) -> None:
    """Refuse a catalogue with other names than the scenarios have.

    Raises:
      InputError: with ``source`` as what named the catalogue.
    """
    for axis, names in zip(catalog.sets, instances.names[:3], strict=False):
        if tuple(names) != catalog.sets[axis]:
            expected = f"the catalogue of the scenarios, whose {axis} names are {', '.join(names)}"
            raise InputError(source, f"sets.{axis}", expected, ", ".join(catalog.sets[axis]))


def _weigh(plan: Plan, instances: Instances, index: int) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield field, names by axis and weight of what a plan hangs on."""
    one = instances.one(index)
    query_at = {name: i for i, name in enumerate(instances.query_names)}
    gpu_at = {name: k for k, name in enumerate(instances.gpu_names)}
    quota = np.broadcast_to(one.gpu_quota, len(gpu_at))
    load = measure_load(plan, instances, index).load
    slot = {(d.model, d.gpu): (at, d.tp) for at, d in enumerate(plan.deployments)}
    for d in plan.deployments:
        count = d.tp * d.replicas
        yield "gpu_price", {"gpu": d.gpu}, float(one.gpu_price[gpu_at[d.gpu]]) * count
        if math.isfinite(quota[gpu_at[d.gpu]]):
            yield "gpu_quota", {"gpu": d.gpu}, count
    for query, i in query_at.items():
        queries = float(one.arrival_rate[i])
        yield "arrival_rate", {"query": query}, queries
        yield "input_tokens", {"query": query}, queries * float(one.input_tokens[i])
        yield "output_tokens", {"query": query}, queries * float(one.output_tokens[i])
        spent = queries * float(one.unmet_penalty[i]) * plan.unmet.get(query, 0.0)
        yield "unmet_penalty", {"query": query}, spent
    for route in plan.routes:
        i, (at, tp) = query_at[route.query], slot[route.model, route.gpu]
        queries = float(one.arrival_rate[i]) * route.share
        names = {"query": route.query, "model": route.model, "gpu": route.gpu, "tp": str(tp)}
        yield "error_nominal", names, queries
        yield "delay_nominal", names, queries
        if math.isfinite(load[i, at]):
            yield "throughput", names, float(load[i, at])
            yield "throughput_shortfall", names, float(load[i, at])


def _list_read(plan: Plan, catalog: Catalog) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the values that a plan reads: of all query types, of what is deployed, and of its routes."""
    tp = {(d.model, d.gpu): str(d.tp) for d in plan.deployments}
    queries = [{"query": q} for q in catalog.sets["query"]]
    pairs = [{"model": d.model, "gpu": d.gpu, "tp": str(d.tp)} for d in plan.deployments]
    routes = [
        {"query": r.query, "model": r.model, "gpu": r.gpu, "tp": tp[r.model, r.gpu]} for r in plan.routes
    ]
    for name in FILE_FIELDS:
        quantity = catalog.quantities.get(name)
        if quantity is None:
            continue
        over = quantity.over
        within = queries if set(over) <= {"query"} else routes if "query" in over else pairs
        for names in within if over else [{}]:
            yield name, tuple(names[axis] for axis in over)
