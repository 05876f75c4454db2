"""Rows through a compiled program, block by block, on all devices of this machine.

Devices take blocks in turn, and each runs the program that a single one would run, so a row's numbers do not depend
on how many there are. A device compiles it when its first block comes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from rodiu_jax.model.fields import Array, Fields
from rodiu_jax.model.instance import Instances
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.runtime.devices import by_device, devices

_RESIDENT = 4 * 2**30
"""Bytes of scenarios that one accelerator keeps."""


def resident(batch: Instances) -> Instances:
    """The scenarios where programs run, for `in_blocks` to take rows there in place of sending them each time.

    In an accelerator's memory there may be more scenarios than in ``batch``, so that few sizes are compiled for.
    CPUs' programs find them where they are; several accelerators, or more than `_RESIDENT` bytes, are sent rows.
    """
    size = 1 << max(batch.size - 1, 0).bit_length()
    bytes_in_all = size // batch.size * sum(np.asarray(v).nbytes for v in batch.fields)
    if by_device(cpu=True, accelerator=False) or len(devices()) > 1 or bytes_in_all > _RESIDENT:
        return batch
    filled = batch.take(np.minimum(np.arange(size), batch.size - 1))
    return replace(batch, fields=jax.device_put(filled.fields))


@partial(jax.jit, static_argnames="batched")
def _rows_there(fields: Fields, rows: Array, *, batched: frozenset[str]) -> Fields:
    return Fields(**{n: v[rows] if n in batched else v for n, v in fields._asdict().items()})


_halvings: dict[Any, int] = {}
"""How often each program's blocks were halved because a device had too little memory for them."""


_SMALLEST = 64
"""Rows of a block that is not made smaller for few rows: no device gains by less."""


def _fitting(chunk: int, rows: int) -> int:
    """The smallest of chunk, chunk / 8, chunk / 64, ... that holds ``rows`` and is whole and large enough."""
    while chunk % 8 == 0 and chunk // 8 >= max(rows, _SMALLEST):
        chunk //= 8
    return chunk


def in_blocks(
    program: Any, batch: Instances, scenario: np.ndarray, arrays: tuple, chunk: int, **options: Any
) -> Any:
    """Run a jitted program over rows: row r is ``scenario[r]`` with ``arrays[...][r]``.

    A block always has ``chunk`` rows (the last is filled up with its first), so nothing recompiles; where there are
    far fewer rows, an eighth or a 64th of it, but `_SMALLEST` at least. Where a device has too little memory for so
    many, blocks are halved, from then on. These are other programs, so last bits may differ.

    On a CPU blocks run side by side in threads. Of JAX's settings that are a thread's own they have the caller's
    ``jax_enable_x64`` and ``jax_default_device``, no others.

    Args:
      program: takes ``(fields, *arrays, uncertainty=, batched=, **options)``; its results have a row each too.
    """
    while True:
        size = max(1, _fitting(chunk, len(scenario)) >> _halvings.get(program, 0))
        try:
            return _blocks(program, batch, scenario, arrays, size, options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or size == 1:
                raise
            _halvings[program] = _halvings.get(program, 0) + 1


def _blocks(
    program: Any,
    batch: Instances,
    scenario: np.ndarray,
    arrays: tuple,
    chunk: int,
    options: dict[str, Any],
) -> Any:
    taking = devices()
    double, default = jax.config.jax_enable_x64, jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

    def taken(rows: np.ndarray) -> Fields:
        if any(isinstance(values, jax.Array) for values in batch.fields):
            return _rows_there(batch.fields, rows, batched=batch.batched)
        return batch.take(rows).fields

    def begun(number: int) -> tuple[int, Any]:
        """Rows of a block, and its results, which need not be there yet."""
        first = number * chunk
        at = np.arange(first, min(first + chunk, len(scenario)))
        padded = np.concatenate([at, np.full(chunk - len(at), first)])
        given = (taken(scenario[padded]), jax.tree.map(lambda a: a[padded], arrays))
        # A single device is JAX's default: the program takes its arguments there itself, and sooner.
        fields, rows = given if len(taking) == 1 else jax.device_put(given, taking[number % len(taking)])
        return len(at), program(
            fields, *rows, uncertainty=batch.uncertainty, batched=batch.batched, **options
        )

    def ended(rows: int, block: Any) -> Any:
        return jax.tree.map(lambda a: np.asarray(a)[:rows], block)

    def whole(number: int) -> Any:
        with jax.enable_x64(double), jax.default_device(default):  # JAX's settings are each thread's own
            return ended(*begun(number))

    count = -(-len(scenario) // chunk)
    if taking[0].platform == "cpu":
        # One program leaves cores idle, so as many run side by side; one that may have to be compiled first runs alone.
        known = _known(program, batch, arrays, chunk, options)
        alone = 0 if known in _compiled else 1
        _compiled.add(known)
        parts = [whole(number) for number in range(min(alone, count))]
        parts += _threads().map(whole, range(alone, count)) if count > 1 else map(whole, range(alone, count))
    else:
        # A device has the next block waiting when it ends one.
        running: deque[tuple[int, Any]] = deque()
        parts = []
        for number in range(count):
            if len(running) == 2 * len(taking):
                parts.append(ended(*running.popleft()))
            running.append(begun(number))
        parts += [ended(*block) for block in running]
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


_compiled: set[Any] = set()
"""What has run in this process, as `_known` has it."""


def _known(program: Any, batch: Instances, arrays: tuple, chunk: int, options: dict[str, Any]) -> Any:
    """What a program is compiled for, as far as it matters here."""
    shapes = tuple(np.shape(a)[1:] for a in jax.tree.leaves(arrays))
    static = tuple((name, value) for name, value in options.items() if isinstance(value, Hashable))
    return program, batch.shape[1:], batch.batched, batch.uncertainty, shapes, chunk, static


@cache
def _threads() -> ThreadPoolExecutor:
    """A thread for each core that this process may use, or has a share of (``NPROC``, as XLA reads it)."""
    cores = usable_cores()
    return ThreadPoolExecutor(min(cores, int(os.environ.get("NPROC", cores))), "rodiu-block")
