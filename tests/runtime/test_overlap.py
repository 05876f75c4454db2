"""Work ahead: results in order, as many pieces at once as asked, the caller's settings, errors in their turn."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rodiu_jax.runtime.overlap import Unwanted, beside, map_ahead, stop_if_unwanted


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_results_are_in_order(at_once: int):
    assert list(map_ahead(lambda n: n * n, range(7), at_once=at_once)) == [n * n for n in range(7)]
    assert list(map_ahead(lambda n: n, [], at_once=at_once)) == []


def test_two_pieces_are_worked_on_together_and_no_more():
    both, lock = threading.Barrier(2, timeout=60), threading.Lock()
    running = most = 0

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # each needs another beside it
        with lock:
            running -= 1
        return number

    assert list(map_ahead(work, range(6), at_once=2)) == list(range(6))
    assert most == 2


def test_one_at_a_time_stays_in_the_callers_thread_and_waits_to_be_asked():
    done: list[threading.Thread] = []
    ahead = map_ahead(lambda _: done.append(threading.current_thread()), range(3), at_once=1)
    next(ahead)
    assert done == [threading.current_thread()]


def test_work_has_the_settings_of_the_caller():
    for wide in (False, True):
        with jax.enable_x64(wide):
            kinds = {a.dtype for a in map_ahead(lambda n: jnp.asarray(float(n)), range(3), at_once=2)}
        assert kinds == {np.dtype(np.float64 if wide else np.float32)}


def test_an_error_comes_in_its_turn_and_nothing_else_begins():
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("piece 1")
        return number

    results = map_ahead(work, range(100), at_once=2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="piece 1"):
        list(results)
    assert len(begun) <= 3


@pytest.mark.parametrize("how", ["error", "close"])
def test_nobody_waits_for_a_slow_piece_once_the_caller_has_stopped(how: str):
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number == 2:
            begun.set()
            assert go.wait(60)
            ended.set()
        elif number == 1:
            assert begun.wait(60)
            raise ValueError("piece 1")
        return number

    results = map_ahead(work, [0, 2, 3] if how == "close" else [0, 1, 2, 3], at_once=3)
    if how == "close":
        assert next(results) == 0
        assert begun.wait(60)
        results.close()
    else:
        with pytest.raises(ValueError, match="piece 1"):
            list(results)
    assert not ended.is_set()  # the caller goes on while it is worked on
    go.set()
    assert ended.wait(60)


def test_who_stops_early_begins_nothing_more():
    begun: list[int] = []
    results = map_ahead(begun.append, range(100), at_once=2)
    next(results)
    results.close()
    assert len(begun) <= 3


def test_long_work_ends_where_nobody_wants_it_any_more():
    begun, told = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if not number:
            return
        begun.set()
        try:
            while True:
                stop_if_unwanted()
                time.sleep(0.001)
        except Unwanted:
            told.set()
            raise

    results = map_ahead(work, range(3), at_once=2)
    next(results)
    assert begun.wait(60)
    results.close()
    assert told.wait(60)
    stop_if_unwanted()  # the caller's own thread is not meant


def test_work_beside_ends_with_what_it_is_beside_and_so_do_its_parts():
    begun, told = threading.Barrier(3, timeout=60), threading.Semaphore(0)

    def part(_: int) -> None:
        begun.wait()
        try:
            while True:
                stop_if_unwanted()
                time.sleep(0.001)
        except Unwanted:
            told.release()
            raise

    with beside(lambda: list(map_ahead(part, range(2), at_once=2))):
        begun.wait()
    assert told.acquire(timeout=60)
    assert told.acquire(timeout=60)
    stop_if_unwanted()


def test_an_error_of_work_beside_is_dropped():
    done = threading.Event()

    def fail() -> None:
        done.set()
        raise ValueError("beside")

    with beside(fail):
        assert done.wait(60)
