"""The engines that can run a sweep, by name: where its chunks of rows are answered. None changes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rodiu_jax.catalog import Catalog
from rodiu_jax.sweeps.progress import Bar
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
      workers, address: of a cluster.
    """

    store: Store
    catalog: Catalog
    gaps: Sequence[tuple[int, int]]
    pool: Pool
    bar: Bar
    chunk: int | None = None
    workers: int | None = None
    address: str | None = None

    def chunks(self, own: int, opening: int) -> list[tuple[int, int]]:
        """The gaps cut into ranges of ``chunk`` rows, or of ``own`` where nothing else was asked for.

        The very first has at most ``opening`` rows, so that something is on disk soon.
        """
        size = self.chunk or own
        ranges, most = [], min(opening, size)
        for start, end in self.gaps:
            while start < end:
                stop = min(start + most, end)
                ranges.append((start, stop))
                start, most = stop, size
        return ranges


class Engine(Protocol):
    """Runs a sweep's work to its end; rows that are finished when something ends it early are on disk.

    Raises:
      WorkFailed: an audit found a contradiction, or the work cannot go on.
      OSError: the rows cannot be written.
    """

    def __call__(self, work: Work) -> None: ...


def _local(work: Work) -> None:
    from rodiu_jax.sweeps.local import run

    run(work)


def _ray(work: Work) -> None:
    from rodiu_jax.sweeps.cluster import run

    run(work)


ENGINES: dict[str, Engine] = {"local": _local, "ray": _ray}
