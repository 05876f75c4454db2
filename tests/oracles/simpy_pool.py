"""A pool of replicas in SimPy: every request of a replica is moved at every event, no clocks, no heaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import simpy

from rodiu_jax.decisions.replay.event_loop import PoolRequests
from rodiu_jax.decisions.replay.replicas import PoolService


class _Replica:
    def __init__(self, env: simpy.Environment, pool: PoolService, requests: PoolRequests) -> None:
        self.env, self.pool, self.requests = env, pool, requests
        self.left: dict[int, list[float]] = {}  # of each request in the batch: phase, work left in it
        self.queue: list[int] = []
        self.changed = env.event()
        self.times = np.full((3, len(requests.time)), np.nan)
        env.process(self.serve())

    def need(self, request: int) -> float:
        return float(self.requests.tokens[request]) * self.service(request).kv_per_token

    def service(self, request: int) -> Any:
        return self.pool.types[int(self.requests.kind[request])]

    def fill(self) -> float:
        return sum(self.service(r).weight for r in self.left)

    def admit(self) -> None:
        while self.queue:
            request = self.queue[0]
            fits = self.fill() + self.service(request).weight <= self.pool.largest_fill + 1e-9
            fits &= sum(map(self.need, [*self.left, request])) <= self.pool.kv_room + 1e-9
            if self.left and not fits:
                return
            self.queue.pop(0)
            self.left[request] = [0, float(self.requests.first[request])]
            self.times[0, request] = self.env.now

    def send(self, request: int) -> None:
        self.queue.append(request)
        self.admit()
        if not self.changed.triggered:
            self.changed.succeed()

    def speed(self, request: int, fill: float) -> float:
        service = self.service(request)
        seconds = service.first if self.left[request][0] == 0 else service.rest
        longer = max(fill / max(service.fills[-1], service.weight), 1.0)
        return 1.0 / (float(np.interp(fill, service.fills, seconds)) * longer)

    def serve(self) -> Any:
        while True:
            self.changed = self.env.event()
            fill, began = self.fill(), self.env.now
            speeds = {r: self.speed(r, fill) for r in self.left}
            waits = {r: self.left[r][1] / speeds[r] for r in self.left}
            soonest = min(waits, key=lambda r: waits[r], default=None)
            if soonest is None:
                yield self.changed
                continue
            through = self.env.timeout(waits[soonest])
            yield through | self.changed
            for request in speeds:
                self.left[request][1] -= speeds[request] * (self.env.now - began)
            if through.processed:
                phase = int(self.left[soonest][0])
                self.times[phase + 1, soonest] = self.env.now
                if phase == 0:
                    self.left[soonest] = [1, float(self.requests.rest[soonest])]
                else:
                    del self.left[soonest]
                    self.admit()


def simulate_pool(pool: PoolService, requests: PoolRequests) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start, first token and end of every request, NaN of those that no replica has the memory for."""
    env = simpy.Environment()
    replicas = [_Replica(env, pool, requests) for _ in range(pool.pair.replicas)]

    def arrive() -> Any:
        for request, time in enumerate(requests.time.tolist()):
            yield env.timeout(time - env.now)
            if replicas[0].need(request) <= pool.kv_room + 1e-9:
                min(replicas, key=lambda r: len(r.left) + len(r.queue)).send(request)

    env.process(arrive())
    env.run()
    times = np.array([r.times for r in replicas])
    served = ~np.isnan(times).all(0)
    merged = np.full(times.shape[1:], np.nan)
    merged[served] = np.nanmax(np.where(np.isnan(times), -np.inf, times), axis=0)[served]
    return merged[0], merged[1], merged[2]
