"""Sensitivity for people: figures, tables for the terminal and for JSON, files in a folder."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rodiu_jax.errors import InputError
from rodiu_jax.files import write_text, write_whole
from rodiu_jax.report.outputs import OUTPUTS
from rodiu_jax.report.tables import table as text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

_BAR, _BRACKET, _INK = "#0072B2", "#E69F00", "#222222"  # Okabe and Ito's, told apart by the colour-blind too
_FRAME: dict[str, Any] = {"facecolor": "none", "edgecolor": _BRACKET, "linewidth": 1.8}
_BAND: dict[str, Any] = {"facecolor": _BRACKET, "alpha": 0.5, "linewidth": 0}
_UNDECIDED: dict[str, Any] = {"alpha": 0.45, "hatch": "////", "edgecolor": "white"}
_ACROSS = 3
_INDEX = {
    "first": "First order: share of the variance by the factor alone",
    "total": "Total: share of the variance with its interactions",
    "mu": "mu: mean effect over the whole range",
    "mu_star": "mu*: mean size of the effect",
    "sigma": "sigma: spread of the effect",
}
_COLUMNS = {
    "tornado": ["factor", "low_level", "high_level", "at_low", "at_high"],
    "main_effects": ["factor", "level", "rows", "left_out"],
    "sobol": ["index", "factor"],
    "morris": ["index", "factor"],
}
_TITLES = {
    "tornado": "Change of {} from the lowest to the highest level",
    "main_effects": "Mean of {} by level",
    "sobol": "Sobol indices of {}",
    "morris": "Morris screening of {}",
}


# ---- figures ----


def tornado_figure(table: pd.DataFrame, output: str = "total_cost", *, title: str = "") -> Figure:
    """A bar per factor: how the output changes from its lowest to its highest level.

    The thin line is the confidence interval, the wide frame what the brackets leave; bars whose sign the
    brackets do not decide are pale and hatched.

    Args:
      table: of `rodiu_jax.sensitivity.tornado`.
    """
    figure, (axes,) = _panels(1, len(table), wide=9.0)
    ends = zip(table["factor"], table["low_level"], table["high_level"], strict=True)
    names = [f"{factor} ({low:.4g} to {high:.4g})" for factor, low, high in ends]
    _bars(axes, table, names)
    axes.set_xlabel(f"Change of {_label(output)}", parse_math=False)
    _title(axes, "Change from the lowest to the highest level", title)
    _legend(figure, _FRAME, undecided="undecided" in set(table["sign"]))
    return figure


def indices_figure(table: pd.DataFrame, output: str = "total_cost", *, title: str = "") -> Figure:
    """A panel per kind of index, a bar per factor, drawn as in `tornado_figure`.

    Args:
      table: of `rodiu_jax.sensitivity.sobol_indices` or `rodiu_jax.sensitivity.morris`.
    """
    kinds: list[str] = list(dict.fromkeys(table["index"]))
    figure, panels = _panels(len(kinds), len(set(table["factor"])))
    for position, (axes, kind) in enumerate(zip(panels, kinds, strict=True)):
        part: Any = table[table["index"] == kind]
        _bars(axes, part, part["factor"].tolist() if position == 0 else [""] * len(part))
        _title(axes, "\n".join(textwrap.wrap(_INDEX[kind], 34)), "")
    figure.suptitle(f"{_label(output)}. {title}" if title else _label(output), fontsize=11, parse_math=False)
    _legend(figure, _FRAME, undecided="undecided" in set(table["sign"]))
    return figure


def effects_figure(table: pd.DataFrame, output: str = "total_cost", *, title: str = "") -> Figure:
    """A panel per factor: mean output by level with its confidence interval; the band is what the brackets leave.

    Args:
      table: of `rodiu_jax.sensitivity.main_effects`.
    """
    factors = list(dict.fromkeys(table["factor"]))
    figure, panels = _panels(len(factors), 6, across=_ACROSS, sharey=True)
    for position, (axes, factor) in enumerate(zip(panels, factors, strict=True)):
        part: Any = table[table["factor"] == factor]
        level, value = part["level"].to_numpy(), part["value"].to_numpy()
        low, high = _drawable(part)
        axes.fill_between(level, low, high, **_BAND)
        whisker = np.nan_to_num([value - part["ci_low"].to_numpy(), part["ci_high"].to_numpy() - value])
        axes.errorbar(
            level,
            value,
            yerr=np.maximum(whisker, 0),
            color=_BAR,
            ecolor=_INK,
            marker="o",
            markersize=4,
            capsize=3,
        )
        axes.set_xlabel(factor, parse_math=False)
        if position % _ACROSS == 0:
            axes.set_ylabel(_label(output), parse_math=False)
        axes.ticklabel_format(axis="y", useOffset=False)
    figure.suptitle(f"Mean by level. {title}" if title else "Mean by level", fontsize=11, parse_math=False)
    _legend(figure, _BAND)
    return figure


def _panels(
    count: int, bars: int, *, wide: float = 4.6, across: int = 3, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(count, across)
    rows = -(-count // columns)
    size = max(6.4, wide * columns), max(2.8, (1.3 + 0.4 * bars) * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for spare in grid[count:]:
        spare.remove()
    for axes in grid[:count]:
        axes.grid(color="#e5e5e5")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid[:count])


def _bars(axes: Axes, table: pd.DataFrame, names: Sequence[str]) -> None:
    """Horizontal bars from 0, the first on top, with confidence lines and bracket frames."""
    at = np.arange(len(table))
    value = table["value"].to_numpy(dtype=float)
    open_sign = (table["sign"] == "undecided").to_numpy()
    for chosen, style in ((~open_sign, {}), (open_sign, _UNDECIDED)):
        if chosen.any():
            axes.barh(at[chosen], value[chosen], 0.5, color=_BAR, linewidth=0, **style)
    low, high = _drawable(table)
    axes.barh(at, high - low, 0.74, left=low, **_FRAME)
    axes.hlines(at, table["ci_low"], table["ci_high"], color=_INK, linewidth=1.2)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(at, names, parse_math=False)
    axes.set_ylim(len(table) - 0.4, -0.6)


def _drawable(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The bracket interval, an end at infinity put a little beyond all that is finite."""
    ends = table[["bracket_low", "bracket_high", "value", "ci_low", "ci_high"]].to_numpy(dtype=float)
    finite = ends[np.isfinite(ends)]
    if not finite.size:
        return ends[:, 0], ends[:, 1]
    room = 0.2 * (float(np.ptp(finite)) or 1.0)
    shown = np.clip(ends, finite.min() - room, finite.max() + room)
    return shown[:, 0], shown[:, 1]


def _legend(figure: Figure, bracket: Mapping[str, Any], *, undecided: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    keys: list[Any] = [
        Line2D([], [], color=_INK, label="confidence interval (samples or design)"),
        Patch(**bracket, label="what the brackets leave"),
    ]
    if undecided:
        keys.append(Patch(facecolor=_BAR, **_UNDECIDED, label="sign undecided"))
    figure.legend(handles=keys, loc="outside lower left", ncols=len(keys), fontsize=8, frameon=False)


def _title(axes: Axes, heading: str, title: str) -> None:
    lines = [heading, *textwrap.wrap(title, 70)[:2]]
    axes.set_title("\n".join(lines), loc="left", fontsize=11, parse_math=False)


def _label(output: str) -> str:
    known = {o.column: f"{o.label.lower()}, {o.unit if o.factor == 1 else 'share'}" for o in OUTPUTS}
    return known.get(output, output)


# ---- text ----


def sensitivity_tables(tables: Mapping[str, pd.DataFrame], output: str = "total_cost") -> list[Table]:
    """The tables of `rodiu_jax.sensitivity.analyse` for the terminal; two-way tables are left to files."""
    shown = []
    for name, columns in _COLUMNS.items():
        if name not in tables:
            continue
        frame = tables[name]
        effects = name == "main_effects"
        heads = [*columns, "value", "95 % confidence", "brackets leave"]
        heads += ["change", "brackets leave", "sign"] if effects else ["sign", "rank"]
        rows = []
        for record in frame.to_dict("records"):
            cells = [_text(record[c]) for c in [*columns, "value"]]
            cells += [_span(record, "ci"), _span(record, "bracket")]
            cells += [_text(record["change"]), _span(record, "change_bracket")] if effects else []
            rows.append([*cells, _text(record["sign"]), *([] if effects else [_rank(record)])])
        numbers = [m for m, c in enumerate(heads) if c not in ("factor", "index", "sign", "rank")]
        shown.append(text_table(_TITLES[name].format(output), heads, rows, numbers=numbers))
    return shown


def boxes_table(boxes: pd.DataFrame) -> Table:
    """The boxes of `rodiu_jax.discovery.discover` for the terminal."""
    heads = ["outcome", "box", "rows", "coverage", "density", "over all", "held out: coverage", "density"]
    rows = [
        [
            *(str(b[n]) for n in ("outcome", "text", "rows")),
            *(_share(b, n) for n in ("coverage", "density")),
            *(_percent(b[n]) for n in ("base", "cv_coverage", "cv_density")),
        ]
        for b in boxes.to_dict("records")
    ]
    return text_table("Where outcomes gather", heads, rows, numbers=range(2, 8))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON values; null for what is missing or infinite."""

    def plain(value: Any) -> Any:
        if _absent(value) or (isinstance(value, float) and not math.isfinite(value)):
            return None
        return value.item() if isinstance(value, np.generic) else value

    return [{str(k): plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "-" if _absent(value) else f"{value:,.6g}"


def _span(record: Mapping[Any, Any], name: str) -> str:
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    return "-" if _absent(low) or _absent(high) else f"{_text(low)} to {_text(high)}"


def _rank(record: Mapping[Any, Any]) -> str:
    best, worst = record["rank_best"], record["rank_worst"]
    if _absent(best):
        return "-"
    return f"{best}" if best == worst else f"{best} to {worst}: undecided"


def _share(record: Mapping[Any, Any], name: str) -> str:
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    open_end = not (_absent(low) or _absent(high) or low == high)
    return _percent(record[name]) + (f" ({_percent(low)} to {_percent(high)})" if open_end else "")


def _percent(value: Any) -> str:
    return "-" if _absent(value) else f"{value:.1%}"


# ---- files ----


def write_sensitivity(
    tables: Mapping[str, pd.DataFrame], folder: str | Path, output: str = "total_cost", *, title: str = ""
) -> list[Path]:
    """Write every table as CSV and the figures as PNG and SVG into a folder, made if need be.

    Returns:
      The files written.

    Raises:
      InputError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, "", f"a folder that can be written ({error.strerror})") from None
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_text(written[-1], table.to_csv(index=False))
    for name, figure in _figures(tables, output, title):
        for kind in ("png", "svg"):
            written.append(folder / f"{name}.{kind}")
            metadata = {"Date": None} if kind == "svg" else None
            with write_whole(written[-1]) as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
    return written


def _figures(tables: Mapping[str, pd.DataFrame], output: str, title: str) -> Iterable[tuple[str, Figure]]:
    drawn = {"tornado": tornado_figure, "main_effects": effects_figure}
    drawn |= {"sobol": indices_figure, "morris": indices_figure}
    for name, draw in drawn.items():
        if name in tables:
            yield name, draw(tables[name], output, title=title)
