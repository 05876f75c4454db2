"""Pools and requests made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rodiu_jax.decisions.replay.event_loop import PoolRequests
from rodiu_jax.decisions.replay.replicas import PoolService, TypeService
from rodiu_jax.model.plan import DeployedPair


def make_type(
    fills: Sequence[float],
    rest: Sequence[float],
    *,
    first: Sequence[float] | None = None,
    weight: float = 1.0,
    kv_per_token: float = 0.0,
    query: str = "q",
) -> TypeService:
    """A type whose answers take ``rest`` seconds at each fill, and whose prompts by default no time."""
    start = tuple(first) if first is not None else (1e-9,) * len(fills)
    return TypeService(query, weight, tuple(fills), start, tuple(rest), 0.0, 1.0, kv_per_token)


def make_pool(
    *types: TypeService, largest_fill: float = 1e9, replicas: int = 1, kv_room: float = 1e9
) -> PoolService:
    return PoolService(DeployedPair("m", "g", 1, replicas), types, largest_fill, kv_room)


def make_requests(
    time: np.ndarray,
    rest: np.ndarray,
    *,
    first: np.ndarray | None = None,
    kind: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
) -> PoolRequests:
    count = len(time)
    return PoolRequests(
        np.asarray(time, np.float64),
        np.zeros(count, np.int64) if kind is None else kind.astype(np.int64),
        np.zeros(count) if first is None else first,
        np.asarray(rest, np.float64),
        np.zeros(count) if tokens is None else tokens,
    )


def draw_poisson(rate: float, count: int, seed: int) -> np.ndarray:
    """Times of a Poisson process."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
