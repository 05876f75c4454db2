"""Replicas for the batched solvers: every degree of a pair becomes several options, each a range of replicas.

The axis of degrees of a scenario with replicas turns into one of options o = (degree n, lo, hi): one replica, two,
three, four, 5 to 8, 9 to 16, 17 to 64, 65 or more. With one option for each small number the dual function is
that of whole numbers, where a fleet is small and its relaxation is far off; in a wide range, where a replica more or
less is a small part, replicas count as real numbers. A pair has at most one option, as it has at most one degree, so
that nothing else of `solvers.dual`, `solvers.tree` or the search need know of replicas.

How many replicas a plan has is read off its routing: as many as its load needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int32, Int64

from rodiu_jax.model.fields import (
    extra_load,
    has_rates,
    has_replicas,
    replica_load,
)
from rodiu_jax.model.instance import Instances
from rodiu_jax.model.tolerances import REPLICA_ROUNDING
from rodiu_jax.model.uncertainty import worst_vertex

RANGES = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (9, 16), (17, 64), (65, 2**31 - 1))
"""Fewest and most replicas of the options of a degree."""


@dataclass(frozen=True)
class Options:
    """What the options of an axis are.

    Attributes:
      degree: position of the degree of each option.
      fewest, largest: replicas of each option.
      degrees: number of degrees.
    """

    degree: Int64[np.ndarray, " O"]
    fewest: Int64[np.ndarray, " O"]
    largest: Int64[np.ndarray, " O"]
    degrees: int

    def expand(self, instances: Instances) -> Instances:
        """Return the scenarios with options in the place of degrees."""
        fields = instances.fields
        last = {
            "tp_degree": fields.tp_degree[..., self.degree],
            "tp_speedup": fields.tp_speedup[..., self.degree],
        }
        if has_rates(fields):
            last["throughput"] = fields.throughput[..., self.degree]
        options = {"fewest_replicas": self.fewest, "largest_replicas": self.largest}
        return replace(instances, fields=fields._replace(**last, **options))

    @property
    def ranges(self) -> tuple[tuple[int, int, int], ...]:
        """What each option is, as certificates list it: (degree, fewest, largest)."""
        columns = (self.degree.tolist(), self.fewest.tolist(), self.largest.tolist())
        return tuple(zip(*columns, strict=True))

    def triples(self, slots: Int32[np.ndarray, "B D"]) -> Int32[np.ndarray, "B D"]:
        """Turn slots of options into slots of triples."""
        pair, option = np.divmod(np.maximum(slots, 0), len(self.degree))
        return np.where(slots < 0, slots, pair * self.degrees + self.degree[option]).astype(np.int32)

    def of_degrees(self, promising: np.ndarray) -> np.ndarray:
        """Say of each triple whether any of its options is marked; the last axis is that of options."""
        parts = [promising[..., self.degree == n].any(axis=-1) for n in range(self.degrees)]
        return np.stack(parts, axis=-1)


def list_options(instances: Instances) -> Options | None:
    """List the options of scenarios, those of few GPUs first; None where no field says that pairs may have replicas."""
    if not has_replicas(instances.fields):
        return None
    sizes = np.asarray(instances.fields.tp_degree).reshape(-1, instances.shape[3])[0].tolist()
    options = sorted(
        (size * fewest, size, n, fewest, largest)
        for n, size in enumerate(sizes)
        for fewest, largest in RANGES
    )
    columns = np.array(options, np.int64).T
    return Options(columns[2], columns[3], columns[4], len(sizes))


def count_replicas(
    batch: Instances, slots: Int32[np.ndarray, "B D"], shares: Float64[np.ndarray, "B I D"]
) -> Int32[np.ndarray, "B D"]:
    """Count the replicas that each slot's load needs, at least one; slots are of triples."""
    size, (_, _, gpus, degrees) = batch.size, batch.shape
    used = slots >= 0
    pair, degree = np.divmod(np.maximum(slots, 0), degrees)
    model, gpu = np.divmod(pair, gpus)
    fields = batch.fields
    row = np.arange(size)[:, None]  # B,1

    def of(name: str) -> np.ndarray:
        values = np.asarray(getattr(fields, name))
        return values if name in batch.batched else values[None]

    def at(name: str, *places: np.ndarray) -> np.ndarray:
        values = of(name)
        return values[(row if len(values) > 1 else 0, *places)]

    tokens = of("input_tokens") + of("output_tokens")  # B,I
    traffic = np.broadcast_to(tokens * of("arrival_rate"), (size, shares.shape[1]))[..., None]
    gpu_count = at("tp_degree", degree).astype(np.float64)  # B,D
    types = np.arange(shares.shape[1])[None, :, None]
    row3 = np.arange(size)[:, None, None]

    def at_types(name: str, *places: np.ndarray) -> np.ndarray:
        values = of(name)
        return values[(row3 if len(values) > 1 else 0, types, *(p[:, None] for p in places))]

    stays = of("residency_hours")
    stays = at_types("residency_hours", model, gpu) if stays.ndim == 4 else stays[:, None, None]
    room = at("gpu_memory", gpu) * gpu_count - at("weight_memory", model)
    kv = (traffic * stays * at("kv_per_token", model)[:, None] * shares).sum(1)
    work = (np.broadcast_to(of("compute_per_token") * tokens, traffic.shape[:2])[..., None] * shares).sum(1)
    power = at("gpu_compute", gpu) * gpu_count
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = [np.where(kv > 0, kv / room, 0.0), np.where(work > 0, work / power, 0.0)]
        if has_rates(fields):
            rate = np.broadcast_to(of("arrival_rate"), traffic.shape[:2])[..., None]
            load = replica_load(rate, at_types("throughput", model, gpu, degree))
            short = of("throughput_shortfall")
            short = at_types("throughput_shortfall", model, gpu) if short.ndim == 4 else np.zeros(1)
            gamma = 0.0 if batch.uncertainty == "none" else fields.gamma_throughput
            extra = extra_load(load, short) * shares
            served = np.where(shares > 0, load * shares, 0.0).sum(1)
            budget = np.broadcast_to(np.asarray(gamma), (size,))[:, None]
            extra = np.moveaxis(np.where(shares > 0, extra, 0.0), 1, 2)
            at_worst = served + (extra * worst_vertex(extra, budget)).sum(2)
            needed.append(at_worst / np.broadcast_to(of("max_utilization"), (size,))[:, None])
    count = np.ceil(np.nan_to_num(np.max(needed, axis=0), posinf=1.0) * (1.0 - REPLICA_ROUNDING))
    if has_replicas(fields):
        count = np.minimum(count, at("max_replicas", model, gpu))
    return np.where(used, np.maximum(count, 1.0), 1.0).astype(np.int32)
