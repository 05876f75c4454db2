"""What a replay of one plan comes to: rows of query types and of pools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rodiu_jax.catalog.promises import Limit, Promise
from rodiu_jax.decisions.replay.event_loop import PoolRecord, PoolRequests
from rodiu_jax.decisions.replay.replicas import PoolService

WAITS = (0.5, 0.9, 0.99)
"""Quantiles of waiting times that are reported."""


def measure_pool(
    pool: PoolService, requests: PoolRequests, record: PoolRecord, until: float
) -> dict[str, Any]:
    """Return the row of a pool.

    ``load`` is what was routed there, in replicas that are full at the rates of the curves (shortfalls taken off),
    over the replicas; beyond the end of the curves the queue grows as long as requests come. ``batch`` is how full the
    batches were.
    """
    offered = 0.0
    for kind, service in enumerate(pool.types):
        mine = requests.kind == kind
        work = service.work(1.0, 0.0) * requests.first[mine] + service.work(0.0, 1.0) * requests.rest[mine]
        offered += float(work.sum()) / service.rate
    rejected = int(np.isnan(record.start).sum())
    return {
        "model": pool.pair.model,
        "gpu": pool.pair.gpu,
        "tp": pool.pair.tp,
        "replicas": pool.pair.replicas,
        "requests": len(requests.time),
        "rejected": rejected,
        "load": offered / (until * pool.pair.replicas),
        "batch": record.batch,
        "queue_mean": record.queue_mean,
        "queue_max": record.queue_max,
    }


class QueryTally:
    """Collects what the requests of one query type lived through, pool by pool."""

    def __init__(self, query: str, promise: Promise | None) -> None:
        self.query, self.promise = query, promise
        self.requests = self.elsewhere = self.rejected = 0
        self.parts: list[dict[str, np.ndarray]] = []

    def add(self, pool: PoolService, requests: PoolRequests, record: PoolRecord) -> None:
        """Add the requests of this type that a pool was sent."""
        for kind, service in enumerate(pool.types):
            if service.query != self.query:
                continue
            mine = requests.kind == kind
            served = mine & ~np.isnan(record.start)
            self.rejected += int((mine & ~served).sum())
            first = record.first[served] - requests.time[served]
            whole = record.finish[served] - requests.time[served]
            length = np.maximum(requests.rest[served], 1e-12)
            self.parts.append(
                {
                    "wait": 1000.0 * (record.start[served] - requests.time[served]),
                    "ttft": 1000.0 * first,
                    # A curve's mean answer has 1/token later tokens; a request has ``length`` times as many.
                    "tpot": 1000.0 * (whole - first) * service.token / length,
                    "e2e": 1000.0 * whole,
                }
            )

    def row(self) -> dict[str, Any]:
        """Return the row of the query type; latencies in ms, NaN where nothing was served."""
        names = ("wait", "ttft", "tpot", "e2e")
        found = {n: np.concatenate([p[n] for p in self.parts]) if self.parts else np.zeros(0) for n in names}
        served = len(found["wait"])
        row: dict[str, Any] = {
            "query": self.query,
            "requests": self.requests,
            "elsewhere": self.elsewhere,
            "rejected": self.rejected,
            "served": served,
        }
        row |= self._judge(found, served)
        for q in WAITS:
            row[f"wait_p{100 * q:g}"] = _quantile(found["wait"], q)
        row["wait_max"] = float(found["wait"].max()) if served else math.nan
        for name in ("ttft", "tpot", "e2e"):
            row[f"{name}_mean"] = float(found[name].mean()) if served else math.nan
            row[f"{name}_p99"] = _quantile(found[name], 0.99)
        return row

    def _judge(self, found: dict[str, np.ndarray], served: int) -> dict[str, Any]:
        """Hold the requests against the promise: each on its own, and all by the statistic that the promise names."""
        here = served + self.rejected
        if self.promise is None or not here:
            return {"within": math.nan, "kept": None, "limit": "", "ratio": math.nan}
        within = np.ones(served, bool)
        worst, ratio = "", -math.inf
        for limit in self.promise.limits:
            left = sum(weight * found[name.split("_")[0]] for weight, name in limit.terms)
            within &= np.asarray(left <= limit.most)
            now = _measure(limit, found) / limit.most if served else math.inf
            if now > ratio:
                worst, ratio = str(limit), now
        kept = bool(ratio <= 1.0) and not self.rejected
        return {"within": float(within.sum()) / here, "kept": kept, "limit": worst, "ratio": ratio}


def _measure(limit: Limit, found: dict[str, np.ndarray]) -> float:
    """Compute the left side of a limit from the requests: means, or percentiles that a request had."""
    values = {}
    for _, name in limit.terms:
        latency, statistic = name.split("_")
        if statistic == "mean":
            values[name] = float(found[latency].mean())
        else:
            values[name] = _quantile(found[latency], float(statistic.removeprefix("p")) / 100.0)
    return limit.value(values)


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q, method="inverted_cdf")) if len(values) else math.nan
