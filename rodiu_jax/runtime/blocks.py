"""Rows through a compiled program, block by block, on all devices and all cores of this machine.

Every batched program of the package runs here. A block has a fixed number of rows, so that a program is compiled once;
devices take blocks in turn, and each runs the program that a single one would run. A row's numbers therefore depend on
the program and on the size of its blocks, never on how many devices there are or on their order. They depend on other
rows only through that size: where a caller's `BlockSize` shrinks for few rows, or a device's memory was too small.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int64

from rodiu_jax.runtime.block_sizes import BlockSize
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.runtime.devices import devices
from rodiu_jax.runtime.overlap import stop_if_unwanted

Take = Callable[[Int64[np.ndarray, " R"]], tuple[Any, ...]]
"""Positions of R rows to the arguments of a program, arrays of the host or of a device."""

_ALIGNED = 64
"""Bytes, at a multiple of which from the first array of results each further one begins."""

_ONE_PIECE = 32 * 2**20
"""Most bytes of results in one piece: of more, the system gets all back anyway. Who keeps one array keeps the piece."""

_IN_FLIGHT = 2
"""Blocks that an accelerator has at a time: the next is there when one ends."""


class BlockRunner:
    """Runs programs block by block; it remembers what is compiled and what a device had too little memory for.

    On a CPU blocks run side by side in threads, as one program leaves cores idle; an accelerator has `_IN_FLIGHT`.

    Args:
      threads: most threads on a CPU; by default the cores this process may use.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or usable_cores()
        self._pool: ThreadPoolExecutor | None = None
        self._compiled: dict[Hashable, _Shapes] = {}
        self._compiling: dict[Hashable, Lock] = {}
        self._halvings: dict[Any, int] = {}
        self._halving = Lock()

    @property
    def lanes(self) -> int:
        """How many blocks run at the same time."""
        taking = devices()
        return self._threads if taking[0].platform == "cpu" else _IN_FLIGHT * len(taking)

    def run(
        self, program: Callable[..., Any], take: Take, count: int, size: BlockSize, /, **options: Any
    ) -> Any:
        """Run a program over ``count`` rows; return its results (NumPy), row by row in the order of the rows.

        The last block is filled up with its first row. Where a device has too little memory for a block, blocks of
        this program are halved, from then on; these are other programs, so last bits may differ. Of JAX's settings
        that are a thread's own, blocks have the caller's ``jax_enable_x64`` and ``jax_default_device``, no others.

        Args:
          program: called as ``program(*take(rows), **options)`` with as many rows as a block has; every array of its
            result has them as leading axis. It must not wait for its results.
          take: the arguments of the rows at some positions.
          options: the same for all blocks.

        Raises:
          Unwanted: `rodiu_jax.runtime.overlap.map_ahead` asked for the rows and has dropped them.
        """
        assert count > 0, "no rows, no shapes of results"
        while True:
            stop_if_unwanted()
            halvings = self._halvings.get(program, 0)
            rows = max(1, size.fit(count) >> halvings)
            try:
                return self._run(_Call(program, take, count, rows, options))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or rows == 1:
                    raise
                with self._halving:  # another thread may have failed at the same size, and halved it
                    self._halvings[program] = max(self._halvings.get(program, 0), halvings + 1)

    def _run(self, call: _Call) -> Any:
        results = _Results(call.count)
        taking = devices()
        if taking[0].platform == "cpu":
            self._run_in_threads(call, results)
            return results.whole()
        running: deque[tuple[int, Any]] = deque()
        for first in range(0, call.count, call.rows):
            if len(running) == self.lanes:
                results.put(*running.popleft())
            block = call.begin(first, taking)
            for leaf in jax.tree.leaves(block):
                leaf.copy_to_host_async()  # all results at once, while the next block is computed
            running.append((first, block))
        for first, block in running:
            results.put(first, block)
        return results.whole()

    def _run_in_threads(self, call: _Call, results: _Results) -> None:
        taking = devices()
        double, default = jax.config.jax_enable_x64, jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]

        opening = call.arguments(0)  # what the first block runs on also says what is compiled
        kind = double, call.kind(opening)

        def finish(first: int) -> None:
            with jax.enable_x64(double), jax.default_device(default):  # JAX's settings are each thread's own
                results.put(first, call.begin(first, taking, opening if first == 0 else None))

        firsts = range(0, call.count, call.rows)
        if kind not in self._compiled:
            # What may have to be compiled runs alone first: threads would compile it side by side.
            with self._compiling.setdefault(kind, Lock()):
                finish(0)
                self._compiled[kind] = results.shapes()
            firsts = firsts[1:]
        else:
            results.allocate(self._compiled[kind])
        if len(firsts) == 1:
            finish(firsts[0])
        elif firsts:
            self._pool = self._pool or ThreadPoolExecutor(self._threads, "rodiu-block")
            for _ in self._pool.map(finish, firsts):  # an error of a block, or Ctrl-C, cancels the others
                pass


class _Call:
    """One call of `BlockRunner.run`, cut into blocks of ``rows`` rows."""

    def __init__(
        self, program: Callable[..., Any], take: Take, count: int, rows: int, options: dict[str, Any]
    ) -> None:
        self.program, self.take, self.count, self.rows, self.options = program, take, count, rows, options

    def arguments(self, first: int) -> tuple[Any, ...]:
        """Return the arguments of the block of row ``first``, filled up with that row."""
        rows = np.arange(first, first + self.rows)
        return self.take(np.where(rows < self.count, rows, first))

    def begin(self, first: int, taking: list[Any], arguments: tuple[Any, ...] | None = None) -> Any:
        """Start the block of row ``first``; its results need not be there yet."""
        block: Any = self.arguments(first) if arguments is None else arguments
        # A single device is JAX's default: the program takes its arguments there itself, sooner.
        if len(taking) > 1:
            block = jax.device_put(block, taking[first // self.rows % len(taking)])
        return self.program(*block, **self.options)

    def kind(self, arguments: tuple[Any, ...]) -> Hashable:
        """Return what the program is compiled for, as far as it matters here."""
        static = {name: value for name, value in self.options.items() if _is_hashable(value)}
        arrays = {name: value for name, value in self.options.items() if name not in static}
        leaves, tree = jax.tree.flatten((arguments, arrays))
        shapes = tuple((getattr(a, "shape", ()), getattr(a, "dtype", type(a))) for a in leaves)
        return self.program, tree, shapes, tuple(static.items())


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class _Shapes(NamedTuple):
    """The structure of a program's results, and of each array the shape of a row and the type."""

    tree: Any
    rows: list[tuple[tuple[int, ...], np.dtype[Any]]]


class _Results:
    """Results of all rows, which blocks write into as they end."""

    def __init__(self, count: int) -> None:
        self._count, self._lock = count, Lock()
        self._arrays: list[np.ndarray] = []
        self._tree: Any = None

    def shapes(self) -> _Shapes:
        """Return the shapes of what was written."""
        return _Shapes(self._tree, [(a.shape[1:], a.dtype) for a in self._arrays])

    def allocate(self, shapes: _Shapes) -> None:
        """Take memory for all arrays, in one piece and in the caller's thread, unless they are large (`_ONE_PIECE`).

        An allocator then has at hand what an earlier run's results gave back. It returns several pieces, or those of
        other threads, to the system, and a small run may spend half its time on new pages.
        """
        sizes = [self._count * math.prod(row) * dtype.itemsize for row, dtype in shapes.rows]
        *starts, end = accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0)
        if end > _ONE_PIECE:
            return  # each is taken when the first block writes
        memory = np.empty(end, np.uint8)
        self._arrays = [
            memory[start : start + size].view(dtype).reshape(self._count, *row)
            for start, size, (row, dtype) in zip(starts, sizes, shapes.rows, strict=True)
        ]
        self._tree = shapes.tree

    def put(self, first: int, block: Any) -> None:
        """Wait for the results of a block and write them down, from row ``first`` on."""
        leaves, tree = jax.tree.flatten(block)
        values = [np.asarray(leaf) for leaf in leaves]
        with self._lock:
            if self._tree is None:
                self._arrays = [np.empty((self._count, *v.shape[1:]), v.dtype) for v in values]
                self._tree = tree
        for array, value in zip(self._arrays, values, strict=True):
            array[first : first + len(value)] = value[: self._count - first]

    def whole(self) -> Any:
        """Return the results in the structure of a block's."""
        return jax.tree.unflatten(self._tree, self._arrays)


RUNNER = BlockRunner()
"""The runner of this process."""
