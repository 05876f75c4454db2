"""Requests counted by window and by length, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from rodiu_jax.catalog.readers.requests import Block, RetryByRow, Trace
from rodiu_jax.errors import InputError

HOUR = 3_600_000_000
"""Microseconds."""

_USUAL_WINDOW = 0.1
MOST_WINDOWS = 100_000
"""Each window is a number in the catalogue; more come from a wrong date or a window that is too short."""

_DENSE = 2**20
"""Token counts below this are counted in an array, longer ones in a dictionary."""


class Tally:
    """Counts over windows from an anchor, by query type; memory grows with windows and distinct lengths alone."""

    def __init__(self, anchor: int | None, length: int) -> None:
        self.anchor, self.length = anchor, length
        self.first, self.last = 2**62, -(2**62)
        self.requests = self.failures = 0
        self.windows = 0
        self.counts: list[
            np.ndarray
        ] = []  # by query type: rows requests, input and output tokens, a window a column
        self.failed: list[int] = []
        self.lengths: list[tuple[Counts, Counts]] = []
        self.too_long = False

    def add(self, block: Block) -> None:
        """Add requests; failed ones count for the span of the trace and nothing else."""
        if not len(block.time):
            return
        if self.anchor is None:
            self.anchor = int(block.time.min())
        self.first = min(self.first, int(block.time.min()))
        self.last = max(self.last, int(block.time.max()))
        self.requests += len(block.time)
        if self.first < self.anchor:  # the windows are counted again, from where the trace begins
            return
        good = block.output > 0
        for code in np.unique(block.code).tolist():
            while len(self.counts) <= code:
                self.counts.append(np.zeros((3, 0)))
                self.failed.append(0)
                self.lengths.append((Counts(), Counts()))
            mine = block.code == code
            self.failed[code] += int((mine & ~good).sum())
            mine &= good
            if mine.any():
                self._count(code, block.time[mine], block.input[mine], block.output[mine])

    def _count(self, code: int, time: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> None:
        for counts, tokens in zip(self.lengths[code], (inputs, outputs), strict=True):
            counts.add(tokens)
        which = (time - (self.anchor or 0)) // self.length
        inside = which <= MOST_WINDOWS
        if not inside.all():
            self.too_long = True
            which, inputs, outputs = which[inside], inputs[inside], outputs[inside]
        size = int(which.max(initial=-1)) + 1
        held = self.counts[code]
        if held.shape[1] < size:
            held = np.pad(held, ((0, 0), (0, max(size, 2 * held.shape[1]) - held.shape[1])))
            self.counts[code] = held
        for row, weights in enumerate((None, inputs, outputs)):
            held[row, :size] += np.bincount(which, weights=weights, minlength=size)


class Counts:
    """How often each whole number was seen."""

    def __init__(self) -> None:
        self.dense = np.zeros(0, np.int64)
        self.sparse: dict[int, int] = {}

    def add(self, tokens: np.ndarray) -> None:
        """Count the numbers of an array."""
        small = tokens[tokens < _DENSE]
        counted = np.bincount(small)
        if len(counted) > len(self.dense):
            counted[: len(self.dense)] += self.dense
            self.dense = counted
        else:
            self.dense[: len(counted)] += counted
        if len(small) < len(tokens):
            for value, count in zip(*np.unique(tokens[tokens >= _DENSE], return_counts=True), strict=True):
                self.sparse[int(value)] = self.sparse.get(int(value), 0) + int(count)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct numbers in increasing order, and how often each was seen."""
        small = np.flatnonzero(self.dense)
        large = np.array(sorted(self.sparse), dtype=np.int64)
        counts = np.array([self.sparse[int(v)] for v in large], dtype=np.int64)
        return np.concatenate([small, large]), np.concatenate([self.dense[small], counts])


def tally_windows(read: Trace, window: float | None) -> Tally:
    """Read the trace once, and once more where its first row is not its first request."""
    hours = _USUAL_WINDOW if window is None else window
    if isinstance(hours, bool) or not 1 <= hours * HOUR < math.inf:
        raise InputError("window", "", "hours > 0", window)
    length = round(hours * HOUR)
    source: Callable[[], Iterator[Block]] = read.blocks
    anchor: int | None = None
    while True:
        tally = Tally(anchor, length)
        try:
            for block in source():
                tally.add(block)
        except RetryByRow:
            source = read.slow_blocks
            continue
        if tally.requests and tally.first < (tally.anchor or 0):
            anchor = tally.first
            continue
        span = tally.last - tally.first
        if window is None and 0 < span < length:  # a short trace is one window
            length = span
            continue
        return tally
