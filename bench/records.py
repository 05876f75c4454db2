"""What benchmarks and studies found, as JSON: one schema, read and written here and nowhere else.

Markdown is rendered from it (`bench.render`), never read.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from rodiu_jax.io.files import read_json, write_text
from rodiu_jax.io.strict_table import StrictTable, input_error


class _Object(StrictTable):
    noun = "an object"


class SideResult(_Object):
    """One way of doing the work of a case.

    Attributes:
      items: done in each repeat.
      seconds: of each repeat; of a table that was converted from Markdown the least, the median and the most.
      ratios: our rate over this side's, repeat by repeat; empty for our own side.
      wanted: the least ratio that is wanted; None where there is none.
    """

    name: str
    items: int
    seconds: list[float] = Field(min_length=1)
    ratios: list[float] = Field(default_factory=list)
    wanted: float | None = None

    @property
    def rate(self) -> float:
        """Items per second at the median time."""
        return self.items / statistics.median(self.seconds)

    @property
    def ratio(self) -> float | None:
        """Median of our rate over this side's, each taken within one repeat."""
        return statistics.median(self.ratios) if self.ratios else None


class CaseResult(_Object):
    """One size of a benchmark, our side first, and whether the results were right.

    Attributes:
      quality: how right they were, in words.
      counted: bytes and operations that XLA counts in our program.
    """

    name: str
    sides: list[SideResult] = Field(min_length=1)
    right: bool
    quality: str
    counted: str = ""


class BenchmarkResult(_Object):
    """A benchmark's description, as in `bench.measure.Spec`, and its cases."""

    name: str
    measures: str
    item: str
    peers: str
    quality: str
    precision: str
    by_hand: str
    cases: list[CaseResult]


class Study(_Object):
    """A table that is no race between sides.

    Attributes:
      words: what it is about.
      facts: numbers beside the table, by name and unit.
      columns: heads of the table.
      notes: lines below it.
    """

    name: str
    title: str
    words: str
    facts: dict[str, float] = Field(default_factory=dict)
    columns: list[str] = Field(default_factory=list)
    rows: list[list[str | int | float | None]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class Rent(_Object):
    """What the devices cost, $ per hour, and by which price."""

    hourly: float
    source: str


class Machine(_Object):
    """Where and when something was measured.

    Attributes:
      date: UTC, as ``2026-11-28 12:00``.
      load: average over a minute, at the start; above the cores in use, other work slows what is timed.
    """

    date: str
    processor: str
    cores: int
    device: str
    devices: int
    rent: Rent | None = None
    versions: dict[str, str]
    load: float | None = None
    load_at_end: float | None = None

    def is_like(self, other: Machine) -> bool:
        """Return True if times measured on both can be compared."""
        return all(getattr(self, n) == getattr(other, n) for n in ("processor", "cores", "device", "devices"))


class Record(_Object):
    """A file of results: the machine, and the benchmarks and studies that ran on it.

    Attributes:
      note: how it came about, where that is not one run of the program.
    """

    version: Literal[1]
    machine: Machine
    note: str = ""
    benchmarks: list[BenchmarkResult] = Field(default_factory=list)
    studies: list[Study] = Field(default_factory=list)


def read_record(path: str | Path) -> Record:
    """Read a file of results.

    Raises:
      InputError: it is none.
    """
    try:
        return Record.model_validate(read_json(path))
    except ValidationError as error:
        raise input_error(error, path) from None


def write_record(record: Record, path: str | Path) -> None:
    """Write a file of results.

    Raises:
      InputError: it cannot be written there.
    """
    write_text(path, record.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def iterate_records(folder: Path) -> Iterator[tuple[Path, Record]]:
    """Yield the files of results of a folder, oldest first by the date they tell, then by name."""
    read = [(path, read_record(path)) for path in folder.glob("*.json")]
    yield from sorted(read, key=lambda entry: (entry[1].machine.date, entry[0].name))


def compare_records(old: Record, new: Record) -> list[str]:
    """Return a line for every side of a case that both hold: how it moved.

    Of peers the ratio counts, which depends little on the machine; of our own side the rate, where both ran on one
    kind of machine. A move is one beyond what the repeats of both spread over.
    """
    before = {(b.name, c.name, s.name): s for b in old.benchmarks for c in b.cases for s in c.sides}
    lines = []
    for benchmark in new.benchmarks:
        for case in benchmark.cases:
            for side in case.sides:
                past = before.get((benchmark.name, case.name, side.name))
                if past is None or bool(past.ratios) != bool(side.ratios):
                    continue
                if side.ratios:
                    place, unit = f"beside {side.name}", "x"
                    was, now = past.ratios, side.ratios
                elif old.machine.is_like(new.machine):
                    place, unit = side.name, f" {benchmark.item}s/s"
                    was, now = ([s.items / t for t in s.seconds] for s in (past, side))
                else:
                    continue
                verdict = (
                    "slower" if max(now) < min(was) else "faster" if min(now) > max(was) else "as before"
                )
                middle, change = statistics.median(now), statistics.median(now) / statistics.median(was)
                moved = f"{statistics.median(was):.4g}{unit} -> {middle:.4g}{unit} ({change:.3f} of it)"
                lines.append(f"{benchmark.name}, {case.name}, {place}: {moved}, {verdict}")
    return lines
