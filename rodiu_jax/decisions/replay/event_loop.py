"""One pool of replicas, replayed event by event.

A request goes to the replica with the fewest requests, waits there in the order of arrival until the batch and the KV
memory have room, is read (to its first token) and answered (to its last). Requests of one type in one phase progress
equally fast, so that a replica keeps a clock for each type and phase: how much of a mean request it has done since the
start. A request is through when that clock has moved by its own length, whatever happened to speeds in between, so that
an event moves a few clocks and one entry of a heap: O(log n) for n requests at once.

The heap of events is Python's own: with SimPy 4.1.2 in its place the same pool took 2.0 (callbacks) to 2.6 times
(processes) as long, 20 to 27 us a request against 10. The tests hold both against each other.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from jaxtyping import Float64, Int64

from rodiu_jax.decisions.replay.replicas import PoolService, TypeService

_ROUNDING = 1e-9
"""Of sums of fills and gigabytes."""


@dataclass(frozen=True)
class PoolRequests:
    """Requests that are routed to a pool, in the order of arrival; arrays of shape N.

    Attributes:
      time: seconds.
      kind: position of the type in `PoolService.types`.
      first, rest: length of prompt and answer, relative to the means of the type.
      tokens: of prompt and answer.
    """

    time: Float64[np.ndarray, " N"]
    kind: Int64[np.ndarray, " N"]
    first: Float64[np.ndarray, " N"]
    rest: Float64[np.ndarray, " N"]
    tokens: Float64[np.ndarray, " N"]


@dataclass(frozen=True)
class PoolRecord:
    """What happened in a pool.

    Attributes:
      start, first, finish: seconds at which each request began, had its first token, had its last; NaN of those that
        were rejected, as they need more memory than a replica has.
      queue_mean, queue_max: requests that wait, in all replicas together; the mean is over the time until ``until``.
      batch: fill of a replica relative to the largest it may have, mean over replicas and the same time.
    """

    start: Float64[np.ndarray, " N"]
    first: Float64[np.ndarray, " N"]
    finish: Float64[np.ndarray, " N"]
    queue_mean: float
    queue_max: int
    batch: float


class _Replica:
    """The state of one replica. ``clocks``, ``speeds`` and ``heaps`` have an entry per type and phase."""

    __slots__ = (
        "clocks",
        "count",
        "fill",
        "fill_time",
        "heaps",
        "kv",
        "now",
        "queue",
        "speeds",
        "upcoming",
        "version",
    )

    def __init__(self, classes: int) -> None:
        self.now = 0.0
        self.count = 0
        self.fill = 0.0
        self.kv = 0.0
        self.clocks = [0.0] * classes
        self.speeds = [1.0] * classes
        self.heaps: list[list[tuple[float, int]]] = [[] for _ in range(classes)]
        self.queue: deque[int] = deque()
        self.upcoming = 0
        self.version = 0
        self.fill_time = 0.0


def run_pool(pool: PoolService, requests: PoolRequests, until: float) -> PoolRecord:
    """Replay the requests of a pool until the last of them is served.

    Args:
      until: seconds; means over time are of the time before it.
    """
    return _PoolRun(pool, requests, until).run()


class _PoolRun:
    def __init__(self, pool: PoolService, requests: PoolRequests, until: float) -> None:
        self.pool, self.until = pool, until
        count = len(requests.time)
        self.time, self.kind = requests.time.tolist(), requests.kind.tolist()
        self.first_work, self.rest_work = requests.first.tolist(), requests.rest.tolist()
        rate = np.array([t.kv_per_token for t in pool.types])
        self.need = (requests.tokens * rate[requests.kind]).tolist()  # GB
        self.start, self.first, self.finish = ([math.nan] * count for _ in range(3))
        self.weight = [t.weight for t in pool.types]
        self.replicas = [_Replica(2 * len(pool.types)) for _ in range(pool.pair.replicas)]
        self.outstanding = [0] * len(self.replicas)
        self.events: list[tuple[float, int, int]] = []
        self.waiting, self.most_waiting = 0, 0

    def run(self) -> PoolRecord:
        events, replicas, time = self.events, self.replicas, self.time
        arrived, count = 0, len(time)
        while True:
            while events and events[0][2] != replicas[events[0][1]].version:
                heappop(events)
            if arrived < count and (not events or time[arrived] <= events[0][0]):
                self._arrive(arrived)
                arrived += 1
            elif events:
                now, at, _ = heappop(events)
                self._complete(at, now)
            else:
                break
        return self._record()

    def _arrive(self, request: int) -> None:
        now, outstanding = self.time[request], self.outstanding
        if self.need[request] > self.pool.kv_room + _ROUNDING:
            return
        at = outstanding.index(min(outstanding))
        replica = self.replicas[at]
        outstanding[at] += 1
        if not replica.queue and self._fits(replica, request):
            self._advance(replica, now)
            self._begin(replica, request, now)
            self._set_speeds(replica)
            self._schedule(replica, at)
        else:
            replica.queue.append(request)
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)

    def _fits(self, replica: _Replica, request: int) -> bool:
        if not replica.count:
            return True
        fill = replica.fill + self.weight[self.kind[request]]
        if fill > self.pool.largest_fill + _ROUNDING:
            return False
        return replica.kv + self.need[request] <= self.pool.kv_room + _ROUNDING

    def _begin(self, replica: _Replica, request: int, now: float) -> None:
        kind = self.kind[request]
        self.start[request] = now
        replica.count += 1
        replica.fill += self.weight[kind]
        replica.kv += self.need[request]
        heappush(replica.heaps[2 * kind], (replica.clocks[2 * kind] + self.first_work[request], request))

    def _complete(self, at: int, now: float) -> None:
        replica = self.replicas[at]
        self._advance(replica, now)
        which = replica.upcoming
        goal, request = heappop(replica.heaps[which])
        replica.clocks[which] = goal  # what rounding left
        if which % 2 == 0:
            self.first[request] = now
            later = which + 1
            heappush(replica.heaps[later], (replica.clocks[later] + self.rest_work[request], request))
        else:
            self.finish[request] = now
            self.outstanding[at] -= 1
            replica.count -= 1
            replica.fill -= self.weight[self.kind[request]]
            replica.kv -= self.need[request]
            if not replica.count:
                replica.fill = replica.kv = 0.0
            queue = replica.queue
            while queue and self._fits(replica, queue[0]):
                self._begin(replica, queue.popleft(), now)
                self.waiting -= 1
            self._set_speeds(replica)
        self._schedule(replica, at)

    def _advance(self, replica: _Replica, now: float) -> None:
        """Move the clocks of a replica to ``now``."""
        passed = now - replica.now
        if passed > 0 and replica.count:
            clocks, speeds = replica.clocks, replica.speeds
            for which, heap in enumerate(replica.heaps):
                if heap:
                    clocks[which] += passed * speeds[which]
            if replica.now < self.until:
                replica.fill_time += (min(now, self.until) - replica.now) * replica.fill
        replica.now = now

    def _set_speeds(self, replica: _Replica) -> None:
        fill, speeds = replica.fill, replica.speeds
        for kind, service in enumerate(self.pool.types):
            if replica.heaps[2 * kind] or replica.heaps[2 * kind + 1]:
                first, rest = read_latencies(service, fill)
                speeds[2 * kind] = 1.0 / first
                speeds[2 * kind + 1] = 1.0 / rest

    def _schedule(self, replica: _Replica, at: int) -> None:
        """Enter the next completion of a replica; the one entered before is void."""
        soonest, clocks, speeds = math.inf, replica.clocks, replica.speeds
        for which, heap in enumerate(replica.heaps):
            if heap:
                left = (heap[0][0] - clocks[which]) / speeds[which]
                if left < soonest:
                    soonest, replica.upcoming = left, which
        replica.version += 1
        if soonest < math.inf:
            heappush(self.events, (replica.now + max(soonest, 0.0), at, replica.version))

    def _record(self) -> PoolRecord:
        start, first, finish = (np.array(x, np.float64) for x in (self.start, self.first, self.finish))
        arrived = np.array(self.time, np.float64)
        served = ~np.isnan(start)
        waited = np.clip(start[served], None, self.until) - np.clip(arrived[served], None, self.until)
        span = max(self.until, 1e-9)
        largest = self.pool.largest_fill if math.isfinite(self.pool.largest_fill) else 1.0
        busy = sum(r.fill_time for r in self.replicas) / (span * len(self.replicas) * largest)
        return PoolRecord(start, first, finish, float(waited.sum()) / span, self.most_waiting, busy)


def read_latencies(service: TypeService, fill: float) -> tuple[float, float]:
    """Return the seconds to the first token and from there to the last at a fill, linear between known points.

    Below the first point it counts as that point. Above the last, where a batch is rounded up to whole requests, all of
    them take longer, so that no more are completed in a second than at the last; a request alone never does.
    """
    fills = service.fills
    if fill <= fills[0]:
        return service.first[0], service.rest[0]
    if fill >= fills[-1]:
        longer = max(fill / max(fills[-1], service.weight), 1.0)
        return service.first[-1] * longer, service.rest[-1] * longer
    at = bisect_right(fills, fill)
    part = (fill - fills[at - 1]) / (fills[at] - fills[at - 1])
    first, rest = service.first, service.rest
    return (
        first[at - 1] + part * (first[at] - first[at - 1]),
        rest[at - 1] + part * (rest[at] - rest[at - 1]),
    )
