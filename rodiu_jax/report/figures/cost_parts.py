"""Draws what the cost consists of: mean parts by level of each factor."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rodiu_jax.report.data.digest import Digest, summarise_cells
from rodiu_jax.report.data.outputs import output_of
from rodiu_jax.report.figures import style

PARTS = ("delay_cost", "rental_cost", "unmet_cost", "storage_cost")


def draw_composition(digest: Digest) -> tuple[pd.DataFrame, Figure]:
    """Draw mean parts of the cost, stacked, in a panel per factor; rows without a plan are left out and counted.

    Returns:
      Factor, level, ``rows``, ``known`` (rows with a plan) and the mean parts in $ per period, and the figure.
    """
    figure, panels = style.make_panels(len(digest.levels), high=3.4, sharey=True)
    colours = dict(zip(PARTS, style.COLOURS, strict=False))
    tables = []
    for axes, levels in zip(panels, digest.levels, strict=True):
        means = {part: summarise_cells(digest, part, levels) for part in PARTS}
        first = means[PARTS[0]]
        table = first[["rows", "known"]].copy()
        table.insert(0, "factor", levels.axis.column)
        table.insert(1, "level", levels.values[first["y"].to_numpy()])
        bottom = np.zeros(len(first))
        for part in PARTS:
            mean = means[part]["mean"].to_numpy()
            table[part] = mean
            height = np.nan_to_num(mean)
            axes.bar(
                first["y"], height, 0.8, bottom=bottom, color=colours[part], edgecolor="white", linewidth=0.6
            )
            bottom += height
        tables.append(table)
        axes.set_xlim(-0.6, len(levels.values) - 0.4)
        axes.grid(axis="y", color=style.GRID)
        style.set_ticks(axes, levels.ticks, along="x", every=-(-len(levels.values) // 8))
        style.set_labels(axes, x=levels.axis.label, y="$ per period" if axes is panels[0] else "", width=40)
    style.set_figure_heading(figure, f"Parts of the cost, mean over {digest.over}", digest.spec.title)
    style.add_legend(figure, [style.legend_key(output_of(p).label, facecolor=c) for p, c in colours.items()])
    return pd.concat(tables, ignore_index=True), figure
