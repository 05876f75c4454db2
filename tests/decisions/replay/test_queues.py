"""Replicas against what queueing theory knows, against SimPy, and against what may never happen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.catalog.service_times import find_batch
from rodiu_jax.decisions.replay.event_loop import PoolRequests, read_latencies, run_pool
from rodiu_jax.decisions.replay.replicas import PoolService
from tests.decisions.replay.pools import draw_poisson, make_pool, make_requests, make_type

COUNT = 25_000


def lengths(law: str, count: int = COUNT) -> np.ndarray:
    """Works of mean 1: equal ones, or exponential ones."""
    return np.ones(count) if law == "equal" else np.random.default_rng(7).exponential(1.0, count)


@pytest.mark.parametrize("law", ["equal", "exponential"])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_shared_server_of_constant_rate(law: str, load: float):
    """M/G/1 with processor sharing: the mean time is 1 / (mu - lambda), whatever the law of the lengths.

    n requests at once take n times as long each, so that the rate is 1 at any n.
    """
    pool = make_pool(make_type((1.0, 1e6), (1.0, 1e6)))
    requests = make_requests(draw_poisson(load, COUNT, 1), lengths(law))
    record = run_pool(pool, requests, float(requests.time[-1]))
    assert (record.finish - requests.time).mean() == pytest.approx(1 / (1 - load), rel=0.05)
    assert (record.start == requests.time).all()
    assert (record.queue_mean, record.queue_max) == (0.0, 0)


@pytest.mark.parametrize("servers", [3, 10])
def test_a_bounded_batch_of_constant_speed(servers: int):
    """M/M/c: each of at most c requests takes its own time; Erlang C says who waits, and how long on average."""
    offered = 0.8 * servers
    pool = make_pool(make_type((float(servers),), (1.0,)), largest_fill=servers)
    requests = make_requests(draw_poisson(offered, COUNT, 3), lengths("exponential"))
    until = float(requests.time[-1])
    record = run_pool(pool, requests, until)
    lost = (offered**servers / math.factorial(servers)) / sum(
        offered**n / math.factorial(n) for n in range(servers + 1)
    )
    waits = lost / (1 - 0.8 * (1 - lost))
    waited = record.start - requests.time
    assert (waited > 1e-12).mean() == pytest.approx(waits, rel=0.05)
    assert waited.mean() == pytest.approx(waits / (servers - offered), rel=0.1)
    # Little's law of the queue, and of those who are served.
    assert record.queue_mean == pytest.approx(waited.sum() / until, rel=1e-3)
    assert record.batch == pytest.approx(0.8, rel=0.02)


def test_one_at_a_time_with_equal_lengths():
    """M/D/1: the mean wait is rho / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    pool = make_pool(make_type((1.0,), (1.0,)), largest_fill=1.0)
    requests = make_requests(draw_poisson(0.7, COUNT, 5), lengths("equal"))
    record = run_pool(pool, requests, float(requests.time[-1]))
    waited = record.start - requests.time
    assert waited.mean() == pytest.approx(0.7 / (2 * 0.3), rel=0.1)
    # Each begins when it came, or when the one before it ended (Lindley's recursion).
    begun = np.maximum(requests.time, np.concatenate([[0.0], record.finish[:-1]]))
    np.testing.assert_allclose(record.start, begun, rtol=0, atol=1e-6)


def test_a_mix_takes_as_long_as_the_plan_counts():
    """All at once: a batch that is always full serves N_i requests of rate q_i in sum N_i / q_i seconds."""
    types = (
        make_type((1.0,), (4.0,), first=(1.0,), weight=1 / 20),  # 20 at once, 5 s each: 4 a second
        make_type((0.5, 1.0), (1.0, 2.0), first=(0.5, 0.5), weight=1 / 10),  # 10 at once, 2.5 s: 4 a second
    )
    pool = make_pool(*types, largest_fill=1.0, replicas=2)
    kind = np.tile([0, 1], 2_000)
    ones = np.ones(len(kind))
    record = run_pool(pool, make_requests(np.zeros(len(kind)), ones, first=ones, kind=kind), 400.0)
    assert np.nanmax(record.finish) == pytest.approx((2_000 / 4 + 2_000 / 4) / 2, rel=0.03)
    assert record.queue_max == len(kind) - (record.start == 0).sum()


def test_requests_go_to_the_replica_with_the_fewest():
    """Four at once on two replicas of two places: none waits; the fifth waits for the first to end."""
    pool = make_pool(make_type((2.0,), (1.0,)), largest_fill=2.0, replicas=2)
    record = run_pool(pool, make_requests(np.arange(5) * 0.1, np.array([1.0, 3, 3, 3, 1])), 10.0)
    np.testing.assert_allclose(record.start, [0.0, 0.1, 0.2, 0.3, 1.0])
    np.testing.assert_allclose(record.finish, [1.0, 3.1, 3.2, 3.3, 2.0])
    assert (record.queue_max, record.queue_mean) == (1, pytest.approx(0.06))


def test_memory_bounds_the_batch_and_rejects_what_never_fits():
    pool = make_pool(make_type((9.0,), (1.0,), kv_per_token=1.0), kv_room=10.0)
    tokens = np.array([6.0, 5.0, 4.0, 11.0, 10.0])
    record = run_pool(pool, make_requests(np.arange(5) * 0.01, np.ones(5), tokens=tokens), 10.0)
    assert np.isnan(record.start[3])
    # The 5 waits for the 6, the 4 behind it in the line waits too, and the 10 needs an empty replica.
    np.testing.assert_allclose(record.start[[0, 1, 2, 4]], [0.0, 1.0, 1.0, 2.0])


def test_latencies_between_points():
    service = make_type((0.5, 1.0, 2.0), (1.0, 3.0, 4.0), first=(0.1, 0.2, 0.4))
    for fill, expected in ((0.0, (0.1, 1.0)), (0.75, (0.15, 2.0)), (1.5, (0.3, 3.5)), (2.5, (0.5, 5.0))):
        assert read_latencies(service, fill) == pytest.approx(expected)


def test_a_request_alone_takes_what_was_measured():
    """A curve whose best point has 0.3 requests at once on average: one request fills its replica 3.3 times."""
    service = make_type((0.5, 1.0), (1.0, 1.0), first=(0.1, 0.1), weight=1 / 0.3)
    assert read_latencies(service, 1 / 0.3) == pytest.approx((0.1, 1.0))
    assert read_latencies(service, 2 / 0.3) == pytest.approx((0.2, 2.0))


@pytest.mark.parametrize(
    ("mean", "batch"), [(0.3, 1), (1.5, 2), (12.3, 13), (512.3, 512), (511.7, 512), (7.0, 7)]
)
def test_a_batch_is_the_next_whole_number(mean: float, batch: int):
    assert find_batch(mean) == batch


@st.composite
def cases(draw: st.DrawFn) -> tuple[PoolService, PoolRequests]:
    """Small pools of up to three types, with batches and memory that are often full."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    types = []
    for n in range(draw(st.integers(1, 3))):
        points = draw(st.integers(1, 3))
        fills = np.cumsum(rng.uniform(0.2, 0.8, points))
        first, rest = (np.cumsum(rng.uniform(0.1, 1.0, points)) for _ in range(2))
        kv = float(rng.uniform(0.5, 1.5))
        types.append(
            make_type(
                fills, rest, first=first, weight=float(rng.uniform(0.1, 0.6)), kv_per_token=kv, query=f"q{n}"
            )
        )
    pool = make_pool(
        *types,
        largest_fill=float(rng.uniform(0.5, 2.0)),
        replicas=draw(st.integers(1, 3)),
        kv_room=float(rng.uniform(2.0, 12.0)),
    )
    count = draw(st.integers(1, 40))
    time = np.cumsum(rng.exponential(0.2, count))
    kind = rng.integers(0, len(types), count)
    works = (rng.exponential(1.0, count) for _ in range(2))
    requests = make_requests(
        time, next(works), first=next(works), kind=kind, tokens=rng.uniform(0.1, 4.0, count)
    )
    return pool, requests


@given(cases())
def test_nothing_is_lost_and_no_bound_is_broken(case: tuple[PoolService, PoolRequests]):
    pool, requests = case
    record = run_pool(pool, requests, float(requests.time[-1]))
    weight = np.array([t.weight for t in pool.types])[requests.kind]
    need = requests.tokens * np.array([t.kv_per_token for t in pool.types])[requests.kind]
    served = ~np.isnan(record.start)
    np.testing.assert_array_equal(served, need <= pool.kv_room + 1e-9)
    assert not np.isnan(record.finish[served]).any()
    assert (requests.time[served] <= record.start[served]).all()
    assert (record.start[served] <= record.first[served]).all()
    assert (record.first[served] <= record.finish[served]).all()
    if pool.pair.replicas > 1:
        return
    assert (np.diff(record.start[served]) >= 0).all(), "in the order of arrival"
    for now in record.start[served]:
        inside = served & (record.start <= now) & (record.finish > now)
        if inside.sum() > 1:
            assert weight[inside].sum() <= pool.largest_fill + 1e-6
            assert need[inside].sum() <= pool.kv_room + 1e-6


@given(cases())
def test_simpy_says_the_same(case: tuple[PoolService, PoolRequests]):
    pytest.importorskip("simpy", reason="needs SimPy of the extra `test`")
    from tests.oracles.simpy_pool import simulate_pool

    pool, requests = case
    record = run_pool(pool, requests, float(requests.time[-1]))
    for ours, theirs in zip(
        (record.start, record.first, record.finish), simulate_pool(pool, requests), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)
