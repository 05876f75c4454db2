"""``python -m bench.page``: one page, ``bench/RESULTS.md``, with pictures, of the newest committed results.

``python -m bench.page FILE.json``: the Markdown of one file of results, on the terminal.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from matplotlib.axes import Axes

from bench.records import (
    BenchmarkResult,
    CaseResult,
    Machine,
    SideResult,
    Study,
    iterate_records,
    read_record,
)
from bench.render import (
    describe_machine,
    render_record,
    render_study,
    render_table,
    show_rate,
    show_ratio,
)
from rodiu_jax.errors import InputError
from rodiu_jax.report.figures import style

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"
CPU = "cpu"

_ARCHIVE = {
    "2026-11-25-cpu-exact.md": "the exact solver on ten families of scenarios, each accelerator alone, what was tried",
    "2026-11-25-cpu-brackets.md": "bounds and cascades beside the table of the same morning",
    "2026-11-25-cpu-sweep.md": "what the machinery of a sweep takes, and the first rows",
    "2026-11-26-cpu-before-after.md": "every benchmark before and after the work on speed",
    "2026-11-26-cpu-before-after-routings.md": "before and after routings were solved by their structure",
}
"""Tables of the time before results were JSON, which say more than a file of results holds."""


class _Measured(NamedTuple):
    """A benchmark or a study, with the file and the machine it is from."""

    path: Path
    machine: Machine
    what: BenchmarkResult | Study


class _Point(NamedTuple):
    """A side of a case: the benchmark's axes are case, items and rate."""

    case: CaseResult
    side: SideResult


def list_newest(folder: Path) -> list[_Measured]:
    """Return what was measured last of each benchmark and study on each kind of device, CPU first."""
    newest: dict[tuple[bool, str, str], _Measured] = {}
    for path, record in iterate_records(folder):
        for what in (*record.benchmarks, *record.studies):
            key = isinstance(what, Study), what.name, record.machine.device
            newest[key] = _Measured(path, record.machine, what)
    order = list(dict.fromkeys(key[:2] for key in newest))
    return [
        newest[key] for key in sorted(newest, key=lambda k: (k[0], order.index(k[:2]), k[2] != CPU, k[2]))
    ]


def _list_points(result: BenchmarkResult) -> list[_Point]:
    return [_Point(case, side) for case in result.cases for side in case.sides]


def _keep_largest(points: list[_Point]) -> list[_Point]:
    """Return the points of the largest size of each kind of case: kinds differ in the words around their numbers."""

    def kind(point: _Point) -> tuple[str, str]:
        return re.sub(r"[\d.,]+", "", point.case.name), point.side.name

    most: dict[tuple[str, str], int] = {}
    for point in points:
        most[kind(point)] = max(point.side.items, most.get(kind(point), 0))
    return [point for point in points if point.side.items == most[kind(point)]]


_GAP = re.compile(r"to (\S+) %, ")
_MEMORY = re.compile(r"peak memory ([\d,]+) MB")


class _Panel(NamedTuple):
    """Points (x, y, name of the side), and what the axes say."""

    points: list[tuple[float, float, str]]
    x: str
    y: str


def _list_panels(result: BenchmarkResult) -> list[_Panel]:
    """Return what a benchmark's picture shows: rates over gaps or over the size of the work, and memory if told."""
    item, points = f"{result.item}s", _list_points(result)
    gaps = [
        (float(m[1]), p.side.rate, p.side.name)
        for p in _keep_largest(points)
        if (m := _GAP.match(p.case.name))
    ]
    if gaps:
        return [_Panel(gaps, "gap to close, %", f"{item} per second")]
    panels = []
    if len({p.side.items for p in points}) > 1:
        rates = [(float(p.side.items), p.side.rate, p.side.name) for p in points]
        panels.append(_Panel(rates, f"{item} at a time", f"{item} per second"))
    memory = [
        (float(p.side.items), float(m[1].replace(",", "")), p.side.name)
        for p in points
        if (m := _MEMORY.search(p.case.quality))
    ]
    if memory:
        panels.append(_Panel(memory, f"{item} at a time", "peak memory, MB"))
    return panels


def _finish_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    style.set_labels(axes, x=x, y=y)
    axes.legend(frameon=False, fontsize=8)


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    for colour, name in zip(style.COLOURS, dict.fromkeys(p[2] for p in panel.points), strict=False):
        places = sorted((x, y) for x, y, side in panel.points if side == name)
        axes.plot(*zip(*places, strict=True), "o", color=colour, label=name, markersize=5)
    _finish_axes(axes, panel.x, panel.y)


def _draw_roofs(axes: Axes, roofline: Study) -> None:
    """Draw operations per second over operations per byte, below the machine's roofs."""
    peaks = {name.split(",")[0]: value for name, value in roofline.facts.items()}
    bandwidth = peaks.pop("memory")
    arithmetic = {kind: peaks[kind] for kind in ("float32", "float64")}
    for colour, row in zip(style.COLOURS * 2, roofline.rows, strict=False):
        cell = dict(zip(roofline.columns, row, strict=True))
        kind = str(cell["precision"])
        intensity, share = cell["operations per byte"], cell["of arithmetic's peak, %"]
        if isinstance(intensity, float) and isinstance(share, float):
            filled = colour if kind == "float32" else "none"
            rate = share / 100 * arithmetic[kind]
            axes.plot(intensity, rate, "o", color=colour, mfc=filled, label=str(cell["stage"]))
    across = np.geomspace(0.05, 100.0, 50)
    for kind, peak in arithmetic.items():
        roof = np.minimum(across * bandwidth, peak)
        axes.plot(across, roof, "-" if kind == "float32" else "--", color="0.4", label=f"roof, {kind}")
    _finish_axes(axes, "operations per byte", "G operations per second")


def _name_on(name: str, device: str) -> tuple[str, str]:
    """Return a section's heading and its picture's file: those of a CPU have the benchmark's own name."""
    if device == CPU:
        return name, f"{name}.png"
    return f"{name} on {device}", f"{name}-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.png"


def _render_source(measured: _Measured) -> str:
    name = measured.path.name
    return (
        f"From [{name}](results/{name}), {measured.machine.date} UTC: {describe_machine(measured.machine)}."
    )


def _render_study(measured: _Measured, study: Study, pictures: Path) -> str:
    title, picture = _name_on(study.title, measured.machine.device)
    parts = [render_study(study.model_copy(update={"title": title})), _render_source(measured)]
    if study.name == "roofline":
        figure, (axes,) = style.make_panels(1, high=4.6)
        _draw_roofs(axes, study)
        style.set_heading(
            axes, f"{title}: filled float32, open float64; above the slope the caches hold the state"
        )
        style.save_figure_as(figure, pictures / picture)
        parts.append(f"![operations per second over operations per byte](results/{picture})")
    return "\n\n".join(parts)


def _render_benchmark(measured: _Measured, result: BenchmarkResult, pictures: Path) -> str:
    title, picture = _name_on(result.name, measured.machine.device)
    rent = measured.machine.rent
    columns = ["case", "side", f"{result.item}s per second", "ours / this"]
    columns += [] if rent is None else [f"$ per million {result.item}s"]
    rows = []
    for case, side in _keep_largest(_list_points(result)):
        cost = [] if rent is None else [f"{rent.hourly / 3600 * 1e6 / side.rate:.3g}"]
        quality = case.quality if side is case.sides[0] else ""
        rows.append([case.name, side.name, show_rate(side.rate), show_ratio(side), *cost, quality])
    table = render_table([*columns, "quality"], rows, texts=(1, len(columns)))
    parts = [f"## {title}", _render_source(measured), table]
    if panels := _list_panels(result):
        figure, grid = style.make_panels(len(panels), high=3.4)
        for axes, panel in zip(grid, panels, strict=True):
            _draw_panel(axes, panel)
        style.set_figure_heading(figure, title)
        style.save_figure_as(figure, pictures / picture)
        shown = "; ".join(f"{panel.y} over {panel.x}" for panel in panels)
        parts.append(f"![{title}: {shown}](results/{picture})")
    return "\n\n".join(parts)


def render_page(folder: Path, pictures: Path) -> str:
    """Return the page as Markdown and write its pictures to a folder beside it."""
    newest = list_newest(folder)
    only_cpu = all(measured.machine.device == CPU for measured in newest)
    none = " No GPU has been measured yet: [how to](../docs/machines.md)." if only_cpu else ""
    parts = [
        "# What was measured",
        "Made by `python -m bench.page` from the files in [results/](results/), the newest of each benchmark and kind"
        " of device. A ratio is our rate over the peer's in the same run, the median of interleaved repeats with the"
        " least and the largest; each file names machine, versions, date, load and precision"
        " (`python -m bench.page FILE.json` shows all it holds)." + none,
    ]
    for measured in newest:
        if isinstance(measured.what, Study):
            parts.append(_render_study(measured, measured.what, pictures))
        else:
            parts.append(_render_benchmark(measured, measured.what, pictures))
    old = [
        f"- [{n}](results/archive/{n}): {words}"
        for n, words in _ARCHIVE.items()
        if (folder / "archive" / n).exists()
    ]
    if old:
        parts.append("\n".join(["## Archive", "", *old]))
    return "\n\n".join(parts) + "\n"


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(file: Path | None) -> None:
    """Write bench/RESULTS.md and its pictures, or print the Markdown of FILE."""
    try:
        if file is not None:
            click.echo(render_record(read_record(file)))
            return
        PAGE.write_text(render_page(FOLDER, FOLDER), encoding="utf-8")
    except InputError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"written: {PAGE}")


if __name__ == "__main__":
    main()
