"""What an engine of sweeps is given and what it promises: the contract that every engine keeps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rodiu_jax.catalog import Catalog
from rodiu_jax.runtime.progress import Bar
from rodiu_jax.sweeps.store import Store

if TYPE_CHECKING:
    from solvers.pool import Pool


@dataclass(frozen=True)
class Work:
    """What an engine is given: answer the rows of ``gaps`` and write them to ``store``, telling ``bar``.

    Attributes:
      gaps: ranges of rows, (first, end), that are not on disk.
      pool: processes of an exact solver on this machine; they start when they are first used.
      chunk: scenarios made at a time; the engine's own choice by default.
    """

    store: Store
    catalog: Catalog
    gaps: Sequence[tuple[int, int]]
    pool: Pool
    bar: Bar
    chunk: int | None = None

    def chunks(self, own: int, opening: int) -> list[tuple[int, int]]:
        """The gaps cut into ranges of ``chunk`` rows, or of ``own`` where nothing else was asked for.

        The very first has at most ``opening`` rows, so that something is on disk soon. None goes on beyond the rows
        that the spec gives to HiGHS.
        """
        size, exact = self.chunk or own, self.store.spec.opening
        ranges, most = [], min(opening, size)
        for start, end in self.gaps:
            while start < end:
                stop = min(start + most, exact if start < exact else end, end)
                ranges.append((start, stop))
                start, most = stop, size
        return ranges


class Run(Protocol):
    """Does a sweep's work to its end; rows that are finished when something ends it early are on disk.

    Raises:
      WorkFailed: an audit found a contradiction, or the work cannot go on.
      OSError: the rows cannot be written.
    """

    def __call__(self, work: Work) -> None: ...


class Engine(Protocol):
    """Makes ready what runs a sweep, before anything is written, and puts it away in the end.

    Args:
      workers: processes that answer chunks side by side; the engine's own choice by default.
      address: of a cluster.

    Raises:
      InputError: there is no such cluster.
    """

    def __call__(self, workers: int | None, address: str | None) -> AbstractContextManager[Run]: ...
