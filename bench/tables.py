"""Committed tables read again: `bench.measure.section` backwards, and what changed between two of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of a table: which benchmark, size and side; items timed; items/s, and ours over this one's.

    ``ratio`` is None for our own side; ``low`` and ``high`` are the least and the largest of the repeats.
    """

    spec: str
    item: str
    size: str
    side: str
    items: int
    rate: float
    ratio: float | None
    low: float
    high: float
    quality: str


_RATIO = re.compile(r"(\S+) \((\S+) to (\S+)\)")


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def read(text: str) -> list[Row]:
    """The rows of the benchmark tables in a Markdown text; other tables are passed over.

    Raises:
      ValueError: a line of such a table that is none.
    """
    rows: list[Row] = []
    spec, item = "", ""
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if line.startswith("## "):
            spec, item = line[3:].strip(), ""
        elif line.startswith("| size | side |"):
            item = cells[2].removesuffix(" timed")
        elif item and line.startswith("|---"):
            continue
        elif item and line.startswith("|"):
            size, side, items, _, rate, ratio, _, _, quality = cells
            found = _RATIO.fullmatch(ratio)
            middle, low, high = (_number(x) for x in found.groups()) if found else (None, 0.0, 0.0)
            rows.append(
                Row(spec, item, size, side, int(_number(items)), _number(rate), middle, low, high, quality)
            )
        else:
            item = ""
    return rows


def rent(text: str) -> float | None:
    """What the machine of a table costs, $ per hour, where it says so."""
    found = re.search(r"^- Rent: \$([\d.]+) per hour", text, re.MULTILINE)
    return float(found[1]) if found else None


@dataclass(frozen=True)
class Point:
    """A stage of `bench.roofline`: operations per byte, operations per second."""

    name: str
    precision: str
    intensity: float
    rate: float


@dataclass(frozen=True)
class Roofline:
    """Peaks, bytes per second and operations per second by precision; and the stages below them."""

    bandwidth: float
    arithmetic: dict[str, float]
    stages: tuple[Point, ...]


def read_roofline(text: str) -> Roofline:
    """A table of `bench.roofline` read again.

    Raises:
      ValueError: it is none.
    """
    peaks = re.search(r"^- Peaks: (\S+) GB/s of memory; (.*)$", text, re.MULTILINE)
    if peaks is None:
        raise ValueError("no peaks")
    told = re.findall(r"(\S+) G operations/s in (\w+)", peaks[2])
    arithmetic = {kind: 1e9 * float(peak) for peak, kind in told}
    stages = []
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("|") and cells[1] in arithmetic:
            share = float(cells[8].removesuffix("%")) / 100
            stages.append(Point(cells[0], cells[1], _number(cells[6]), share * arithmetic[cells[1]]))
    return Roofline(1e9 * float(peaks[1]), arithmetic, tuple(stages))


def compared(old: Sequence[Row], new: Sequence[Row]) -> list[str]:
    """A line for every ratio that both hold: how it moved, and whether beyond what the repeats of both spread over.

    Ratios, as times depend on the machine and on what else it does.
    """
    before = {(r.spec, r.size, r.side): r for r in old if r.ratio is not None}
    lines = []
    for row in new:
        past = before.get((row.spec, row.size, row.side))
        if past is None or row.ratio is None or past.ratio is None:
            continue
        verdict = "slower" if row.high < past.low else "faster" if row.low > past.high else "as before"
        lines.append(
            f"{row.spec}, {row.size}, beside {row.side}: {past.ratio:.3g}x -> {row.ratio:.3g}x, {verdict}"
        )
    return lines


CPU = "", "cpu"
"""The kinds of device that stand for a CPU."""


def machine_of(text: str) -> str:
    """What a table says of its machine; empty where it says nothing."""
    found = re.search(r"^- Machine: (.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def device(text: str) -> str:
    """The kind of device that a table's machine line names; empty where it names none."""
    found = re.search(r"JAX runs on (?:\d+ x )?(.+)$", machine_of(text))
    return found[1].strip() if found else ""


def by_age(folder: Path) -> list[tuple[Path, str]]:
    """The tables of a folder with their texts, oldest first by the date they tell, then by name."""

    def made(entry: tuple[Path, str]) -> tuple[str, str]:
        dated = re.search(r"^- Date: (.*) UTC$", entry[1], re.MULTILINE)
        return dated[1] if dated else "", entry[0].name

    return sorted(((path, path.read_text(encoding="utf-8")) for path in folder.glob("*.md")), key=made)


def newest(folder: Path) -> dict[tuple[str, str], tuple[Path, str, list[Row]]]:
    """The file that was made last, its text and its rows, of each (benchmark, kind of device), CPU first."""
    found: dict[tuple[str, str], tuple[Path, str, list[Row]]] = {}
    for path, text in by_age(folder):
        rows = read(text)
        for spec in dict.fromkeys(r.spec for r in rows):
            found[spec, device(text)] = path, text, [r for r in rows if r.spec == spec]
    order = list(dict.fromkeys(spec for spec, _ in found))
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1] not in CPU)))
