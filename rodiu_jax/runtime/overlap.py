"""Pieces of work of which the next begins before one ends, so that the host works on one and a device on another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import jax

T = TypeVar("T")
R = TypeVar("R")

_thread = threading.local()


class Unwanted(Exception):
    """Nobody will fetch the result of this work."""


def stop_if_unwanted() -> None:
    """End the work of this thread where `map_ahead` has dropped its result; long work asks now and then.

    Raises:
      Unwanted: it has.
    """
    if any(event.is_set() for event in _wishes()):
        raise Unwanted


def _wishes() -> tuple[threading.Event, ...]:
    """Return what says that the work of this thread, or what it is a part of, is unwanted."""
    return getattr(_thread, "wishes", ())


@contextmanager
def _threads(count: int, name: str) -> Iterator[Callable[[Callable[[], R]], Future[R]]]:
    """Give what begins work in one of so many threads; when the body ends, nobody wants any of it any more.

    Nobody waits for it but the end of the process: a thread that is stopped within a library may abort that.
    """
    stopped, wishes = threading.Event(), _wishes()
    double, default = jax.config.jax_enable_x64, jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

    def do(work: Callable[[], R]) -> R:
        _thread.wishes = (*wishes, stopped)
        stop_if_unwanted()
        with jax.enable_x64(double), jax.default_device(default):
            return work()

    pool = ThreadPoolExecutor(count, name)
    try:
        yield partial(pool.submit, do)
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do work in a thread while the body runs; when that ends nobody wants it any more. Its errors are dropped."""
    with _threads(1, "rodiu-beside") as begin:
        begin(work)
        yield


def map_ahead(work: Callable[[T], R], items: Iterable[T], *, at_once: int) -> Generator[R]:
    """Yield ``work(item)`` of every item, in order, while the next are worked on in threads.

    Work has the caller's ``jax_enable_x64`` and ``jax_default_device``, which are a thread's own. What it raises is
    raised in its turn. Where that happens, or the caller stops (as by Ctrl-C), nothing else begins, and nobody waits
    for what had begun: it ends in its thread, at the next `stop_if_unwanted`, and its result is dropped.

    Args:
      at_once: pieces that are worked on or wait to be fetched; 1 works in the caller's thread, when asked.
    """
    if at_once == 1:
        yield from map(work, items)
        return
    begun: deque[Future[R]] = deque()
    with _threads(at_once, "rodiu-ahead") as begin:
        for item in items:
            begun.append(begin(partial(work, item)))
            if len(begun) == at_once:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
