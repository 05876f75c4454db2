"""What an answer rests on: which share of it is measured, predicted or assumed, by kind of input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rodiu_jax.catalog import Catalog
from rodiu_jax.decisions.planning.robustness_price import load_pairs
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan

KINDS: tuple[str, ...] = ("measured", "predicted", "assumed", "unstated")
"""What values rest on; ``unstated`` where a catalogue does not say."""


@dataclass(frozen=True)
class Footing:
    """What one kind of input rests on.

    Attributes:
      inputs: which values; ``weight``: what they are weighted by.
      shares: of each of `KINDS`; they sum to 1.
    """

    inputs: str
    weight: str
    shares: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"inputs": self.inputs, "weight": self.weight} | self.shares


def find_footing(plan: Plan, scenario: Instances, catalog: Catalog) -> list[Footing]:
    """Say what the inputs that an answer uses rest on, each weighted by what hangs on it.

    Args:
      catalog: the catalogue that the scenario is drawn from, which states what each value rests on.
    """
    f = scenario.one(0)
    tokens = f.arrival_rate * (f.input_tokens + f.output_tokens)
    by_tokens = [((q,), float(t)) for q, t in zip(scenario.query_names, tokens, strict=True)]
    load, _, _ = load_pairs(plan, scenario)
    rent: dict[str, float] = {}
    count: dict[str, float] = {}
    slot = {(d.model, d.gpu): n for n, d in enumerate(plan.deployments)}
    for d in plan.deployments:
        price = float(f.gpu_price[scenario.gpu_names.index(d.gpu)])
        rent[d.gpu] = rent.get(d.gpu, 0.0) + price * d.tp * d.replicas
        count[d.gpu] = count.get(d.gpu, 0.0) + d.tp * d.replicas
    routes, served = [], []
    for r in plan.routes:
        i, d = scenario.query_names.index(r.query), slot[r.model, r.gpu]
        tp = str(plan.deployments[d].tp)
        routes.append(((r.query, r.model, r.gpu, tp), float(load[i, d])))
        served.append(((r.query, r.model, r.gpu), float(f.arrival_rate[i]) * r.share))
    bought = [
        ((q,), float(f.arrival_rate[i] * f.unmet_penalty[i]) * plan.unmet.get(q, 0.0))
        for i, q in enumerate(scenario.query_names)
    ]
    by_load = [(names[:3], weight) for names, weight in routes]
    asked: list[tuple[str, str, str, Iterable[tuple[tuple[str, ...], float]]]] = [
        ("traffic", "tokens", "arrival_rate", by_tokens),
        ("token lengths", "tokens", "input_tokens", by_tokens),
        ("rates of replicas", "load", "throughput", routes),
        ("shortfalls of rates", "load", "throughput_shortfall", by_load),
        ("prices of GPUs", "rent", "gpu_price", [((g,), w) for g, w in rent.items()]),
        ("quotas", "GPUs", "gpu_quota", [((g,), w) for g, w in count.items()]),
        ("accuracies", "queries", "error_nominal", served),
        ("prices elsewhere", "$ spent there", "unmet_penalty", bought),
    ]
    found = []
    for inputs, weight, quantity, weights in asked:
        shares = _share_out(catalog, quantity, weights)
        if shares is not None:
            found.append(Footing(inputs, weight, shares))
    return found


def _share_out(
    catalog: Catalog, quantity: str, weights: Iterable[tuple[tuple[str, ...], float]]
) -> dict[str, float] | None:
    """Share weights out by what the values at their names rest on; None where nothing has any weight."""
    held = catalog.quantities.get(quantity)
    if held is None:
        return None
    total: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for names, weight in weights:
        entry = catalog.find_entry(quantity, names)
        basis = (entry.basis if entry is not None else held.basis) or "unstated"
        total[basis] += weight
    whole = math.fsum(total.values())
    return {kind: weight / whole for kind, weight in total.items()} if whole > 0 else None
