"""Figures of a sweep: a data frame in, a matplotlib figure out; nothing global of matplotlib is touched."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from rodiu_jax.report.outputs import OUTPUTS, PROVEN, Axis, Output, decimals
from rodiu_jax.report.summary import commonest, mean_grid

_MISSING = "#d9d9d9"
_OTHER = "#8c8c8c"
# Okabe and Ito's colours, distinct with every common kind of colour blindness.
_REGIMES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#332288")
_MOST_TICKS = 20
_MOST_NOTES = 400
_LEGEND_WIDTH = 88


def figures(frame: pd.DataFrame, axes: Sequence[Axis], *, title: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure of a sweep with a name for its file.

    One factor: a line per output. Two: a heat map per output and a map of the deployments chosen. More: the
    same for every pair of factors, each cell over the samples and the levels of the other factors.
    """
    if len(axes) == 1:
        for output in OUTPUTS:
            yield output.column, line(frame, axes[0], output, title=title)
        return
    for y, x in combinations(axes, 2):
        suffix = "" if len(axes) == 2 else f"-{_file_name(y.column)}-{_file_name(x.column)}"
        for output in OUTPUTS:
            yield output.column + suffix, heat_map(frame, x, y, output, title=title)
        yield "deployments" + suffix, regime_map(frame, x, y, title=title)


def heat_map(frame: pd.DataFrame, x: Axis, y: Axis, output: Output, *, title: str = "") -> Figure:
    """Mean of ``output`` in every cell of two factors, annotated.

    Cells where some sample lacks a proof (status not optimal or gap_limit) are hatched; cells without any
    number are grey.

    Args:
      frame: rows of a sweep: the columns of ``x``, ``y`` and ``output``, ``sample`` and ``status``.
    """
    grid = mean_grid(frame, output.column, y, x) * output.factor
    values = grid.to_numpy(dtype=float)
    figure, axes = _canvas(grid.shape[1], grid.shape[0])
    low, high = _limits(values, output)
    mesh = axes.pcolormesh(
        *_edges(grid),
        np.ma.masked_invalid(values),
        cmap="cividis",
        vmin=low,
        vmax=high,
        edgecolors="white",
        linewidth=0.6,
    )
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    _plain(bar.ax, ylabel=f"{output.label}, {output.unit}")
    unproven = _unproven(frame, y, x).reindex(index=grid.index, columns=grid.columns).to_numpy(dtype=float)
    _hatch(axes, unproven > 0)
    if values.size <= _MOST_NOTES:
        places = decimals(values)
        _notes(axes, mesh.to_rgba(values), [[_short(v, places) for v in row] for row in values])
    _dress(axes, grid, x, y, f"{output.label}, mean over {_samples(frame)}", title)
    keys = []
    if np.nansum(unproven) > 0:
        keys.append(
            Patch(facecolor="white", edgecolor="black", hatch="////", label="some sample lacks a proof")
        )
    if not np.isfinite(values).all():
        keys.append(Patch(facecolor=_MISSING, label="no plan"))
    if keys:
        figure.legend(handles=keys, loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    return figure


def line(frame: pd.DataFrame, x: Axis, output: Output, *, title: str = "") -> Figure:
    """Mean of ``output`` over one factor and its range over the samples; open marks where a proof lacks."""
    groups: Any = frame.groupby(x.column)[output.column]
    levels = np.array(sorted(frame[x.column].unique()), dtype=float)
    mean, low, high = (
        getattr(groups, how)().to_numpy(dtype=float) * output.factor for how in ("mean", "min", "max")
    )
    unproven = (
        frame.assign(lacking=~frame["status"].isin(PROVEN)).groupby(x.column)["lacking"].any().to_numpy()
    )
    figure, axes = _canvas(9, 7)
    axes.fill_between(
        levels, low, high, color=_REGIMES[0], alpha=0.2, linewidth=0, label="range over the samples"
    )
    axes.plot(levels, mean, color=_REGIMES[0], label="mean")
    for lacking, face, label in ((False, _REGIMES[0], None), (True, "white", "some sample lacks a proof")):
        if (chosen := unproven == lacking).any():
            axes.plot(levels[chosen], mean[chosen], "o", color=_REGIMES[0], markerfacecolor=face, label=label)
    shown = levels[:: -(-len(levels) // _MOST_TICKS)]
    axes.set_xticks(shown, x.ticks(shown), parse_math=False)
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="y", useOffset=False)
    if output.from_zero or not np.isfinite(mean).any():
        axes.set_ylim(bottom=0.0)
    _titles(axes, f"{output.label}, mean and range over {_samples(frame)}", title)
    _plain(axes, xlabel=x.label, ylabel=f"{output.label}, {output.unit}")
    axes.legend(fontsize=8, frameon=False)
    return figure


def regime_map(frame: pd.DataFrame, x: Axis, y: Axis, *, title: str = "") -> Figure:
    """The deployment that most samples choose in each cell; noted where others choose differently.

    The eight commonest deployments have a colour each, the rest share one.

    Args:
      frame: rows of a sweep: the columns of ``x`` and ``y``, ``sample`` and ``deployments``.
    """
    groups: Any = frame.groupby([y.column, x.column])["deployments"]
    chosen = groups.agg(commonest).unstack()
    agreeing = groups.agg(lambda s: int((s == commonest(s)).sum())).unstack().to_numpy()
    counts = groups.size().unstack().to_numpy()
    names = (
        pd.Series(chosen.to_numpy().ravel())
        .value_counts()
        .sort_index()
        .sort_values(ascending=False, kind="stable")
    )
    shown = list(names.index[: len(_REGIMES)])
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} other deployments")
    code = {name: position for position, name in enumerate(shown)}
    codes = np.array(
        [
            [code.get(n, len(shown) - 1) if isinstance(n, str) else np.nan for n in row]
            for row in chosen.to_numpy()
        ]
    ).astype(float)
    colours = [*_REGIMES[: len(shown)], _OTHER][: max(len(shown), 1)]
    figure, axes = _canvas(codes.shape[1], codes.shape[0] + 1 + len(shown) // 2)
    mesh = axes.pcolormesh(
        *_edges(chosen),
        np.ma.masked_invalid(codes),
        cmap=ListedColormap(colours),
        norm=BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours)),
        edgecolors="white",
        linewidth=0.6,
    )
    if codes.size <= _MOST_NOTES:
        split = np.isfinite(codes) & (agreeing < counts)
        notes = [
            [f"{agreeing[r, c]:.0f}/{counts[r, c]:.0f}" if split[r, c] else "" for c in range(codes.shape[1])]
            for r in range(codes.shape[0])
        ]
        _notes(axes, mesh.to_rgba(codes), notes)
    _dress(axes, chosen, x, y, f"Commonest deployment among {_samples(frame)}", title)
    keys = [
        Patch(facecolor=c, label="\n".join(textwrap.wrap(n, _LEGEND_WIDTH, subsequent_indent="   ")))
        for c, n in zip(colours, shown, strict=False)
    ]
    if not np.isfinite(codes).all():
        keys.append(Patch(facecolor=_MISSING, label="no plan"))
    legend = figure.legend(handles=keys, loc="outside lower left", fontsize=7, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _canvas(across: int, up: int) -> tuple[Figure, Axes]:
    """A figure sized for a grid of cells that hold a number each."""
    size = (min(16.0, max(6.4, 2.4 + 0.62 * across)), min(12.0, max(4.2, 1.7 + 0.44 * up)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _edges(grid: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(grid.shape[1] + 1) - 0.5, np.arange(grid.shape[0] + 1) - 0.5


def _limits(values: np.ndarray, output: Output) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (0.0 if output.from_zero else float(finite.min())), float(finite.max())
    if high - low > 1e-9 * max(1.0, abs(high)):
        return low, high
    room = 0.05 * abs(high) if abs(high) > 1e-9 else 1.0
    return low if output.from_zero else low - room, high + room


def _unproven(frame: pd.DataFrame, y: Axis, x: Axis) -> pd.DataFrame:
    lacking: Any = (~frame["status"].isin(PROVEN)).groupby([frame[y.column], frame[x.column]]).sum()
    return lacking.unstack()


def _hatch(axes: Axes, cells: np.ndarray) -> None:
    for row, column in np.argwhere(cells):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="white", linewidth=0, alpha=0.5)
        )


def _notes(axes: Axes, colours: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """Text in each cell, black or white, whichever stands out from the cell's colour."""
    size = 8 if len(texts[0]) <= 14 else 6
    for r, row in enumerate(texts):
        for c, text in enumerate(row):
            if text:
                bright = colours[r, c, :3] @ (0.299, 0.587, 0.114) > 0.5
                ink = "black" if bright else "white"
                note = axes.text(
                    c, r, text, ha="center", va="center", fontsize=size, color=ink, parse_math=False
                )
                note.set_bbox(
                    {"facecolor": colours[r, c], "linewidth": 0, "pad": 1}
                )  # keeps hatching off the text


def _short(value: float, places: int) -> str:
    return f"{value:,.{places}f}" if np.isfinite(value) else ""


def _dress(axes: Axes, grid: pd.DataFrame, x: Axis, y: Axis, heading: str, title: str) -> None:
    axes.set_facecolor(_MISSING)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for place, axis, levels in ((axes.set_xticks, x, grid.columns), (axes.set_yticks, y, grid.index)):
        every = -(-len(levels) // _MOST_TICKS)
        place(np.arange(len(levels))[::every], axis.ticks(levels)[::every], parse_math=False)
    _titles(axes, heading, title)
    _plain(axes, xlabel=x.label, ylabel=y.label)


def _titles(axes: Axes, heading: str, title: str) -> None:
    text = "\n".join(textwrap.wrap(title, 70)[:2])
    axes.set_title(f"{heading}\n{text}" if text else heading, loc="left", fontsize=11, parse_math=False)


def _plain(axes: Axes, *, xlabel: str = "", ylabel: str = "") -> None:
    """Axis labels as they are: names and units may hold the signs that matplotlib reads as formulas."""
    if xlabel:
        axes.set_xlabel(xlabel, parse_math=False)
    if ylabel:
        axes.set_ylabel(ylabel, parse_math=False)


def _samples(frame: pd.DataFrame) -> str:
    count = np.unique(frame["sample"]).size
    return f"{count} sample" + ("s" if count != 1 else "")


def _file_name(column: str) -> str:
    return re.sub(r"\W+", "_", column).strip("_")
