"""The method ``evaluate``: what given plans cost in every scenario, and whether they keep their promises there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from rodiu_jax.model.check import check_everywhere
from rodiu_jax.model.fields import Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import parse_plans
from rodiu_jax.model.verdict import COSTS
from rodiu_jax.sweeps.rows import Block, plan_constants, unmet_shares

_BLOCK = 1024
"""Scenarios at a time: arrays that stay in the caches."""


def evaluated(instances: Instances, texts: Sequence[str]) -> Iterator[Block]:
    """The cheapest of the plans that the checker accepts in each scenario: its cost is an upper bound.

    Status ``feasible``, with an upper bound alone, or ``unknown`` where every plan breaks something.
    """
    plans = parse_plans(texts, instances)
    constants = [plan_constants(plan) for plan in plans]
    for first in range(0, instances.size, _BLOCK):
        yield _block(first, _slice(instances, first, min(first + _BLOCK, instances.size)), plans, constants)


def _slice(instances: Instances, first: int, stop: int) -> Instances:
    """Neighbouring scenarios, as views."""
    if not instances.batched:
        return instances
    values = instances.fields._asdict()
    return replace(
        instances,
        fields=Fields(**{n: v[first:stop] if n in instances.batched else v for n, v in values.items()}),
    )


def _block(first: int, block: Instances, plans: list[Plan], constants: list[dict]) -> Block:
    began = time.perf_counter()
    size = block.size
    chosen, broken = np.full(size, -1), np.full(size, "", dtype=object)
    costs = {name: np.full(size, math.nan) for name in COSTS}
    unmet = np.full(size, math.nan)
    rates = np.asarray(block.fields.arrival_rate)
    for p, plan in enumerate(plans):
        found = check_everywhere(plan, block)
        better = found.feasible & ~(found.costs["total_cost"] >= costs["total_cost"])
        chosen[better] = p
        for name in COSTS:
            costs[name][better] = found.costs[name][better]
        shares = np.broadcast_to(unmet_shares(plan, rates, block.query_names), (size,))
        unmet[better] = shares[better]
        if p == 0:
            broken = np.array(found.names, dtype=object)[found.binding]
    none = chosen < 0
    which = "the plan breaks " if len(plans) == 1 else "no plan fits; the first breaks "
    positions = pa.array(chosen, pa.int64(), mask=none)
    columns = {name: pa.array([c[name] for c in constants]).take(positions) for name in constants[0]}
    columns |= {
        "upper_bound": costs["total_cost"],
        **costs,
        "unmet_share": unmet,
        "status": np.where(none, "unknown", "feasible"),
        "method": "evaluate",
        "message": pa.array((which + broken).tolist(), mask=~none),
    }
    return Block(first, size, columns | {"seconds": (time.perf_counter() - began) / size})
