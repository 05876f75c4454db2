"""Draws sensitivity tables: swings, effects by level, indices, each with the range that the brackets leave."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rodiu_jax.report.data.outputs import OUTPUTS
from rodiu_jax.report.figures import style

_UNDECIDED: dict[str, Any] = {"alpha": 0.45, "hatch": "////", "edgecolor": "white"}
_INDEX = {
    "first": "First order: share of the variance by the factor alone",
    "total": "Total: share of the variance with its interactions",
    "mu": "mu: mean effect over the whole range",
    "mu_star": "mu*: mean size of the effect",
    "sigma": "sigma: spread of the effect",
}


def draw_swings(table: pd.DataFrame, output: str = "total_cost", *, title: str = "") -> Figure:
    """Draw a bar per factor: how the output changes from its lowest to its highest level.

    The thin line is the confidence interval, the wide frame what the brackets leave; bars whose sign the
    brackets do not decide are pale and hatched.

    Args:
      table: of `rodiu_jax.analysis.effects.measure_swings`.
    """
    figure, (axes,) = style.make_panels(1, wide=9.0, high=1.3 + 0.4 * len(table))
    ends = zip(table["factor"], table["low_level"], table["high_level"], strict=True)
    names = [f"{factor} ({low:.4g} to {high:.4g})" for factor, low, high in ends]
    _draw_bars(axes, table, names)
    style.set_labels(axes, x=f"Change of {_write_label(output)}")
    style.set_heading(axes, "Change from the lowest to the highest level", title)
    _explain(figure, style.FRAME, undecided="undecided" in set(table["sign"]))
    return figure


def draw_indices(table: pd.DataFrame, output: str = "total_cost", *, title: str = "") -> Figure:
    """Draw a panel per kind of index, with a bar per factor as in `draw_swings`.

    Args:
      table: of `rodiu_jax.analysis.sobol.estimate_sobol` or `rodiu_jax.analysis.morris.estimate_morris`.
    """
    kinds: list[str] = list(dict.fromkeys(table["index"]))
    figure, panels = style.make_panels(len(kinds), high=1.3 + 0.4 * len(set(table["factor"])))
    for position, (axes, kind) in enumerate(zip(panels, kinds, strict=True)):
        part: Any = table[table["index"] == kind]
        _draw_bars(axes, part, part["factor"].tolist() if position == 0 else [""] * len(part))
        axes.set_title(textwrap.fill(_INDEX[kind], 34), loc="left", fontsize=10)
    style.set_figure_heading(figure, _write_label(output), title)
    _explain(figure, style.FRAME, undecided="undecided" in set(table["sign"]))
    return figure


def draw_main_effects(table: pd.DataFrame, output: str = "total_cost", *, title: str = "") -> Figure:
    """Draw a panel per factor: mean output by level with its confidence interval, and a band that the brackets leave.

    Args:
      table: of `rodiu_jax.analysis.effects.measure_main_effects`.
    """
    factors = list(dict.fromkeys(table["factor"]))
    figure, panels = style.make_panels(len(factors), high=3.7, sharey=True)
    for position, (axes, factor) in enumerate(zip(panels, factors, strict=True)):
        part: Any = table[table["factor"] == factor]
        level, value = part["level"].to_numpy(), part["value"].to_numpy()
        low, high = _finite_ends(part)
        axes.fill_between(level, low, high, **style.BAND)
        whisker = np.nan_to_num([value - part["ci_low"].to_numpy(), part["ci_high"].to_numpy() - value])
        axes.errorbar(
            level,
            value,
            yerr=np.maximum(whisker, 0),
            color=style.BLUE,
            ecolor=style.INK,
            marker="o",
            markersize=4,
            capsize=3,
        )
        axes.grid(color=style.GRID)
        style.set_labels(axes, x=factor)
        if position % style.ACROSS == 0:
            style.set_labels(axes, y=_write_label(output), width=40)
        axes.ticklabel_format(axis="y", useOffset=False)
    style.set_figure_heading(figure, f"Mean of {_write_label(output)} by level", title)
    _explain(figure, style.BAND)
    return figure


def _draw_bars(axes: Axes, table: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw horizontal bars from 0, the first on top, with confidence lines and bracket frames."""
    at = np.arange(len(table))
    value = table["value"].to_numpy(dtype=float)
    open_sign = (table["sign"] == "undecided").to_numpy()
    axes.grid(color=style.GRID)
    for chosen, look in ((~open_sign, {}), (open_sign, _UNDECIDED)):
        if chosen.any():
            axes.barh(at[chosen], value[chosen], 0.5, color=style.BLUE, linewidth=0, **look)
    low, high = _finite_ends(table)
    axes.barh(at, high - low, 0.74, left=low, **style.FRAME)
    axes.hlines(at, table["ci_low"], table["ci_high"], color=style.INK, linewidth=1.2)
    axes.axvline(0, color=style.INK, linewidth=0.8)
    style.set_ticks(axes, names, along="y", every=1)
    axes.set_ylim(len(table) - 0.4, -0.6)


def _finite_ends(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the bracket interval, with an infinite end put a little beyond all that is finite."""
    ends = table[["bracket_low", "bracket_high", "value", "ci_low", "ci_high"]].to_numpy(dtype=float)
    finite = ends[np.isfinite(ends)]
    if not finite.size:
        return ends[:, 0], ends[:, 1]
    room = 0.2 * (float(np.ptp(finite)) or 1.0)
    shown = np.clip(ends, finite.min() - room, finite.max() + room)
    return shown[:, 0], shown[:, 1]


def _explain(figure: Figure, bracket: Mapping[str, Any], *, undecided: bool = False) -> None:
    keys: list[Any] = [
        Line2D([], [], color=style.INK, label="confidence interval (samples or design)"),
        style.legend_key("what the brackets leave", **bracket),
    ]
    if undecided:
        keys.append(style.legend_key("sign undecided", facecolor=style.BLUE, **_UNDECIDED))
    style.add_legend(figure, keys)


def _write_label(output: str) -> str:
    known = {o.column: f"{o.label.lower()}, {o.unit if o.factor == 1 else 'share'}" for o in OUTPUTS}
    return known.get(output, output)


FIGURES: dict[str, Callable[..., Figure]] = {
    "tornado": draw_swings,
    "main_effects": draw_main_effects,
    "sobol": draw_indices,
    "morris": draw_indices,
}
"""How each table of `rodiu_jax.analysis.effects.analyse` is drawn; two-way tables are not."""
