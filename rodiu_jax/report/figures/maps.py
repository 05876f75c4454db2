"""Draws maps over two factors: a mean per cell, and the deployment that most scenarios of a cell choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from rodiu_jax.report.data.digest import (
    Digest,
    Levels,
    count_deployments,
    rank_deployments,
    summarise_cells,
    to_grid,
)
from rodiu_jax.report.data.outputs import Output, decimals
from rodiu_jax.report.figures import style

_WIDE_RANGE = 20.0
"""Costs further apart than this are coloured by their logarithm, else one cliff hides all the rest."""


def draw_heat_map(digest: Digest, y: Levels, x: Levels, output: Output) -> tuple[pd.DataFrame, Figure]:
    """Draw the mean of ``output`` in every cell of two factors, over the samples and the levels of all other factors.

    Cells with a row whose bracket is wider than the gap asked for are hatched, cells where only some rows have a
    plan are dotted, cells without any plan are grey.

    Returns:
      The cells, with the levels by their values (`rodiu_jax.report.data.digest.summarise_cells`), and the figure.
    """
    table = summarise_cells(digest, output.column, y, x)
    values = to_grid(table, "mean", y, x) * output.factor
    figure, axes = style.make_canvas(values.shape[1], values.shape[0])
    low, high = _colour_limits(values, output)
    spread = LogNorm if not output.from_zero and high > _WIDE_RANGE * low > 0 else Normalize
    mesh = style.draw_cells(axes, values, cmap=style.SCALE, norm=spread(low, high))
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    if spread is LogNorm:
        marks = [float(f"{v:.1g}") for v in np.geomspace(low, high, 6)]
        bar.set_ticks(sorted({v for v in marks if low <= v <= high}), minor=False)
        bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    style.set_labels(bar.ax, y=f"{output.label}, {output.unit}")
    wide = to_grid(table, "unproven", y, x) > 0
    partial = (to_grid(table, "known", y, x) < to_grid(table, "rows", y, x)) & np.isfinite(values)
    style.hatch_cells(axes, wide, style.WIDE)
    style.hatch_cells(axes, partial, style.PARTIAL)
    if values.size <= style.MOST_NOTES:
        places = decimals(values)
        texts = [[f"{v:,.{places}f}" if np.isfinite(v) else "" for v in row] for row in values]
        style.write_in_cells(axes, mesh.to_rgba(values), texts)
    _finish_axes(axes, y, x, f"{output.label}, mean over {digest.over}", digest.spec.title)
    keys = []
    if wide.any():
        label = f"some scenario not proven to {100 * digest.spec.wanted_gap:.3g}%"
        keys.append(style.legend_key(label, facecolor="white", edgecolor="black", hatch=style.WIDE))
    if partial.any():
        label = "some scenario without a plan: the mean is of the others"
        keys.append(style.legend_key(label, facecolor="white", edgecolor="black", hatch=style.PARTIAL))
    if not np.isfinite(values).all():
        keys.append(style.legend_key("no plan", facecolor=style.MISSING))
    style.add_legend(figure, keys, columns=2)
    return _name_levels(table, y, x), figure


def draw_regime_map(digest: Digest, y: Levels, x: Levels) -> tuple[pd.DataFrame, Figure]:
    """Draw the pairs of model and GPU that most rows of a cell deploy, whatever their degrees, and how many rows do.

    The eight that are commonest in most cells have a colour each, the rest share one.

    Returns:
      Every deployment of every cell with its rows and share, and the figure.
    """
    table = count_deployments(digest, y, x, pairs=True)
    first = table.drop_duplicates(["y", "x"])
    shown, code = _rank_names(first["deployment"].value_counts())
    codes = to_grid(first.assign(code=[code[n] for n in first["deployment"]]), "code", y, x)
    colours = _pick_colours(shown)
    keys = [style.legend_key(n, facecolor=c) for n, c in zip(shown, colours, strict=False)]
    if not np.isfinite(codes).all():
        keys.append(style.legend_key("no plan", facecolor=style.MISSING))
    figure, axes = style.make_canvas(codes.shape[1], codes.shape[0], keys)
    mesh = style.draw_cells(
        axes,
        codes,
        cmap=ListedColormap(colours),
        norm=BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours)),
    )
    if codes.size <= style.MOST_NOTES:
        share = to_grid(first, "share", y, x)
        split = np.isfinite(codes) & (share < 1)
        texts = [
            [f"{100 * share[r, c]:.0f}%" if split[r, c] else "" for c in range(codes.shape[1])]
            for r in range(codes.shape[0])
        ]
        style.write_in_cells(axes, mesh.to_rgba(codes), texts)
    _finish_axes(
        axes,
        y,
        x,
        f"Models on GPUs most often deployed, % of the scenarios that do ({digest.over})",
        digest.spec.title,
    )
    style.add_legend(figure, keys, columns=1)
    return _name_levels(table, y, x), figure


def draw_regime_shares(digest: Digest) -> tuple[pd.DataFrame, Figure]:
    """Draw, in a panel per factor, which share of the rows at a level deploys which pairs of model and GPU.

    Returns:
      Factor, level, deployment, rows and share, and the figure.
    """
    shown, code = _rank_names(rank_deployments(digest, pairs=True).set_index("deployment")["rows"])
    colours = _pick_colours(shown)
    keys = [style.legend_key(n, facecolor=c) for n, c in zip(shown, colours, strict=False)]
    figure, panels = style.make_panels(len(digest.levels), high=3.4, sharey=True, keys=keys)
    tables = []
    for axes, levels in zip(panels, digest.levels, strict=True):
        table = count_deployments(digest, levels, pairs=True)
        tables.append(_name_levels(table, levels))
        shares = np.zeros((len(shown), len(levels.values)))
        for y, name, share in zip(table["y"], table["deployment"], table["share"], strict=True):
            shares[code[name], y] += share
        bottom = np.zeros(len(levels.values))
        at = np.arange(len(levels.values))
        for colour, share in zip(colours, shares, strict=True):
            axes.bar(at, 100 * share, 0.8, bottom=bottom, color=colour, edgecolor="white", linewidth=0.6)
            bottom += 100 * share
        axes.set_ylim(0, 100)
        style.set_ticks(axes, levels.ticks, along="x", every=-(-len(at) // 8))
        style.set_labels(
            axes, x=levels.axis.label, y="% of the scenarios" if axes is panels[0] else "", width=40
        )
    style.set_figure_heading(figure, f"Models on GPUs deployed, {digest.over}", digest.spec.title)
    style.add_legend(figure, keys, columns=1)
    return pd.concat(tables, ignore_index=True), figure


def _rank_names(counts: Any) -> tuple[list[str], dict[str, int]]:
    """Return the names for the legend, the commonest first, and the position of every name in it."""
    ordered = counts.sort_index().sort_values(ascending=False, kind="stable")
    names = [str(n) for n in ordered.index]
    most = len(style.COLOURS)
    shown = names[:most]
    if len(names) > most:
        shown.append(f"{len(names) - most} other deployments")
    return shown, {name: min(position, most) for position, name in enumerate(names)}


def _pick_colours(shown: list[str]) -> list[str]:
    """Return a colour per name of `_rank_names`; at least one, which a colour map needs."""
    return [*style.COLOURS, style.OTHER][: max(len(shown), 1)]


def _colour_limits(values: np.ndarray, output: Output) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (0.0 if output.from_zero else float(finite.min())), float(finite.max())
    if high - low > 1e-9 * max(1.0, abs(high)):
        return low, high
    room = 0.05 * abs(high) if abs(high) > 1e-9 else 1.0
    return low if output.from_zero else low - room, high + room


def _finish_axes(axes: style.Axes, y: Levels, x: Levels, heading: str, title: str) -> None:
    style.set_ticks(axes, x.ticks, along="x")
    style.set_ticks(axes, y.ticks, along="y")
    style.set_heading(axes, heading, title)
    style.set_labels(axes, x=x.axis.label, y=y.axis.label)


def _name_levels(table: pd.DataFrame, y: Levels, x: Levels | None = None) -> pd.DataFrame:
    """Replace positions by the levels' values, under the factors' own names."""
    if x is None:
        levels = y.values[table["y"].to_numpy()]
        rest = table.drop(columns=["y", "x"])
        rest.insert(0, "factor", y.axis.column)
        rest.insert(1, "level", levels)
        return rest
    result = table.assign(y=y.values[table["y"].to_numpy()], x=x.values[table["x"].to_numpy()])
    return result.rename(columns={"y": y.axis.column, "x": x.axis.column})
