"""``python -m bench.page``: one page, ``bench/RESULTS.md``, with pictures, of the newest committed tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from matplotlib.axes import Axes

from bench.tables import CPU, Roofline, Row, by_age, device, machine_of, newest, read_roofline, rent
from rodiu_jax.report.figures import style

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"

_WORDS = {
    "2026-11-25-cpu-exact.md": "the exact solver on ten families of scenarios, each accelerator alone, what was tried",
    "2026-11-25-cpu-regret.md": "regret intervals against exact regrets",
    "2026-11-25-cpu-shadow-prices.md": "shadow prices against solving again",
    "2026-11-26-cpu-truth.md": "a million scenarios bracketed and audited",
    "2026-11-26-cpu-before-after.md": "every benchmark before and after the work on speed",
    "2026-11-26-cpu-before-after-routings.md": "before and after routings were solved by their structure",
    "2026-11-26-cpu-mpax.md": "bounds beside MPAX",
}


def _largest(rows: list[Row]) -> list[Row]:
    """The rows of the largest size of each kind of case: kinds differ in the words around their numbers."""

    def kind(row: Row) -> tuple[str, str]:
        return re.sub(r"[\d.,]+", "", row.size), row.side

    most: dict[tuple[str, str], int] = {}
    for row in rows:
        most[kind(row)] = max(row.items, most.get(kind(row), 0))
    return [row for row in rows if row.items == most[kind(row)]]


_GAP = re.compile(r"to (\S+) %, ")
_MEMORY = re.compile(r"peak memory ([\d,]+) MB")


class _Panel(NamedTuple):
    """Points (x, y, colour's name) and what the axes say."""

    points: list[tuple[float, float, str]]
    x: str
    y: str


def _panels(rows: list[Row]) -> list[_Panel]:
    """What a benchmark's rows are about: rates over gaps or over the size of the work, and memory where it is told."""
    item = rows[0].item
    gaps = [(float(m[1]), r.rate, r.side) for r in _largest(rows) if (m := _GAP.match(r.size))]
    if gaps:
        return [_Panel(gaps, "gap to close, %", f"{item} per second")]
    found = []
    if len({r.items for r in rows}) > 1:
        rates = [(float(r.items), r.rate, r.side) for r in rows]
        found.append(_Panel(rates, f"{item} at a time", f"{item} per second"))
    memory = [
        (float(r.items), float(m[1].replace(",", "")), r.side)
        for r in rows
        if (m := _MEMORY.search(r.quality))
    ]
    if memory:
        found.append(_Panel(memory, f"{item} at a time", "peak memory, MB"))
    return found


def _logarithmic(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    style.labels(axes, x=x, y=y)
    axes.legend(frameon=False, fontsize=8)


def _draw(axes: Axes, panel: _Panel) -> None:
    for colour, name in zip(style.COLOURS, dict.fromkeys(p[2] for p in panel.points), strict=False):
        mine = sorted((x, y) for x, y, whose in panel.points if whose == name)
        axes.plot(*zip(*mine, strict=True), "o", color=colour, label=name, markersize=5)
    _logarithmic(axes, panel.x, panel.y)


def _roofs(axes: Axes, found: Roofline) -> None:
    """Operations per second over operations per byte, below the machine's roofs."""
    for colour, stage in zip(style.COLOURS * 2, found.stages, strict=False):
        filled = colour if stage.precision == "float32" else "none"
        axes.plot(stage.intensity, stage.rate / 1e9, "o", color=colour, mfc=filled, label=stage.name)
    across = np.geomspace(0.05, 100.0, 50)
    for kind, peak in found.arithmetic.items():
        roof = np.minimum(across * found.bandwidth, peak)
        axes.plot(across, roof / 1e9, "-" if kind == "float32" else "--", color="0.4", label=f"roof, {kind}")
    _logarithmic(axes, "operations per byte", "G operations per second")


def _source(path: Path, text: str) -> str:
    """Where a section is from, and the machine."""
    told = machine_of(text)
    return f"From [{path.name}](results/{path.name})" + (f": {told}." if told else ".")


def _title(name: str, kind: str) -> tuple[str, str]:
    """A section's heading and its picture's file: those of a CPU have the benchmark's own name."""
    if kind in CPU:
        return name, f"{name}.png"
    return f"{name} on {kind}", f"{name}-{re.sub(r'[^a-z0-9]+', '-', kind.lower()).strip('-')}.png"


def _roofline(path: Path, text: str, pictures: Path) -> str:
    """The section of a table of `bench.roofline`, with its picture."""
    title, picture = _title("roofline", device(text))
    figure, (axes,) = style.panels(1, high=4.6)
    _roofs(axes, read_roofline(text))
    style.heading(axes, f"{title}: filled float32, open float64; above the slope the caches hold the state")
    style.save_as(figure, pictures / picture)
    table = text[text.index("## roofline") :].removeprefix("## roofline").strip()
    shown = f"![operations per second over operations per byte](results/{picture})"
    return f"## {title}\n\n{_source(path, text)}\n\n{table}\n\n{shown}"


def _section(spec: str, kind: str, path: Path, text: str, rows: list[Row], pictures: Path) -> str:
    """The section of a benchmark on a kind of device, with its picture."""
    title, picture = _title(spec, kind)
    hourly = rent(text)
    lines = [f"## {title}", "", _source(path, text), ""]
    money = "" if hourly is None else f" $ per million {rows[0].item} |"
    lines += [f"| case | side | per second | ours / this |{money} quality |"]
    lines += ["|---|---|--:|--:|" + ("--:|" if money else "") + "---|"]
    for row in _largest(rows):
        rate = f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.3g}"
        ratio = "-" if row.ratio is None else f"{row.ratio:.3g} ({row.low:.3g} to {row.high:.3g})"
        cost = "" if hourly is None else f" {hourly / 3600 * 1e6 / row.rate:.3g} |"
        lines.append(f"| {row.size} | {row.side} | {rate} {row.item} | {ratio} |{cost} {row.quality} |")
    if panels := _panels(rows):
        figure, grid = style.panels(len(panels), high=3.4)
        for axes, panel in zip(grid, panels, strict=True):
            _draw(axes, panel)
        style.over_all(figure, title)
        style.save_as(figure, pictures / picture)
        shown = "; ".join(f"{panel.y} over {panel.x}" for panel in panels)
        lines += ["", f"![{title}: {shown}](results/{picture})"]
    return "\n".join(lines)


def page(folder: Path, pictures: Path) -> str:
    """The page as Markdown; its pictures are written to a folder beside it."""
    found = newest(folder)
    rooflines = {
        device(text): (path, text) for path, text in by_age(folder) if path.stem.endswith("roofline")
    }
    measured = {kind for _, kind in found} | set(rooflines)
    none = "" if measured - set(CPU) else " No GPU has been measured yet: [how to](../docs/machines.md)."
    parts = [
        "# What was measured",
        "Made by `python -m bench.page` from the tables in [results/](results/), the newest of each benchmark and kind"
        " of device. A ratio is our rate over the peer's in the same run, the median of interleaved repeats with the"
        " least and the largest; each table names machine, versions, date, load and precision." + none,
    ]
    parts += [_section(spec, kind, *entry, pictures) for (spec, kind), entry in found.items()]
    parts += [_roofline(path, text, pictures) for path, text in rooflines.values()]
    others = [
        f"- [{name}](results/{name}): {words}" for name, words in _WORDS.items() if (folder / name).exists()
    ]
    parts.append("\n".join(["## Other tables", "", *others]))
    return "\n\n".join(parts) + "\n"


@click.command()
def main() -> None:
    """Write bench/RESULTS.md and its pictures."""
    PAGE.write_text(page(FOLDER, FOLDER), encoding="utf-8")
    click.echo(f"written: {PAGE}")


if __name__ == "__main__":
    main()
