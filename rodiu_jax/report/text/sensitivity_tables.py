"""Sensitivity as tables for terminals and pages, and as files in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rodiu_jax.io.files import make_folder, write_csv
from rodiu_jax.io.number_text import interval, is_missing, percent, significant
from rodiu_jax.report.parts.section import PageTable

_COLUMNS = {
    "tornado": {
        "factor": "factor",
        "from": "low_level",
        "to": "high_level",
        "mean there": "at_low",
        "and there": "at_high",
    },
    "main_effects": {"factor": "factor", "level": "level", "rows": "rows", "left out": "left_out"},
    "sobol": {"index": "index", "factor": "factor"},
    "morris": {"index": "index", "factor": "factor"},
}
"""The columns that say what a row of each table is about: their heads, and their names in the data."""

_VALUE = {"tornado": "change", "main_effects": "mean", "sobol": "value", "morris": "value"}
_CAPTIONS = {
    "tornado": "Change of {} from the lowest to the highest level",
    "main_effects": "Mean of {} by level",
    "sobol": "Sobol indices of {}",
    "morris": "Morris screening of {}",
}
_WORDS = ("factor", "index", "sign", "rank")


def tabulate_sensitivity(tables: Mapping[str, pd.DataFrame], output: str = "total_cost") -> list[PageTable]:
    """Show the tables of `rodiu_jax.analysis.effects.analyse`; those of pairs are summed up by `tabulate_pairs`."""
    return [tabulate_effects(name, tables[name], output) for name in _COLUMNS if name in tables]


def tabulate_effects(name: str, data: pd.DataFrame, output: str = "total_cost") -> PageTable:
    """Show one table of `rodiu_jax.analysis.effects.analyse` by its name, but ``two_way``."""
    columns = _COLUMNS[name]
    by_level = name == "main_effects"
    heads = [*columns, _VALUE[name], "95% confidence", "brackets leave"]
    heads += ["change", "brackets leave", "sign"] if by_level else ["sign", "rank"]
    rows = []
    for record in data.to_dict("records"):
        cells = [_cell(record[c]) for c in columns.values()]
        cells += [_cell(record["value"]), _ends(record, "ci"), _ends(record, "bracket")]
        if by_level:
            cells += [_cell(record["change"]), _ends(record, "change_bracket"), _cell(record["sign"])]
        else:
            cells += [_cell(record["sign"]), _rank(record)]
        rows.append(cells)
    numbers = [position for position, head in enumerate(heads) if head not in _WORDS]
    return PageTable(name, _CAPTIONS[name].format(output), heads, rows, numbers, data)


def tabulate_pairs(data: pd.DataFrame) -> PageTable:
    """Show for each pair of factors the cell that is furthest from the sum of the factors' own effects.

    Args:
      data: the table ``two_way`` of `rodiu_jax.analysis.effects.analyse`.
    """
    rows = []
    groups: Any = data.groupby(["factor_a", "factor_b"], sort=False)
    for (a, b), cells in groups:
        known = cells.dropna(subset="interaction")
        if known.empty:
            rows.append([str(a), str(b), "-", "-", "-", "-"])
            continue
        far = known.loc[known["interaction"].abs().idxmax()]
        rows.append([str(a), str(b), *(_cell(far[n]) for n in ("level_a", "level_b", "interaction", "sign"))])
    caption = "Where two factors together differ most from the sum of their own effects"
    heads = ["factor", "factor", "level", "level", "difference", "sign"]
    return PageTable("two_way", caption, heads, rows, (2, 3, 4), data)


def tabulate_boxes(data: pd.DataFrame) -> PageTable:
    """Show the boxes of `rodiu_jax.analysis.boxes.discover`."""
    rows = [
        [
            *(str(box[n]) for n in ("outcome", "text", "rows")),
            *(_bracketed_share(box, n) for n in ("coverage", "density")),
            *(percent(box[n]) for n in ("base", "cv_coverage", "cv_density")),
        ]
        for box in data.to_dict("records")
    ]
    heads = ["outcome", "box", "rows", "coverage", "density", "over all", "held out: coverage", "density"]
    return PageTable("boxes", "Boxes in which outcomes gather", heads, rows, tuple(range(2, 8)), data)


def write_sensitivity(
    tables: Mapping[str, pd.DataFrame], folder: str | Path, output: str = "total_cost"
) -> list[Path]:
    """Write every table as CSV and the figures as PNG and SVG into a folder, made if need be.

    Returns:
      The files written.

    Raises:
      InputError: the folder cannot be written.
    """
    from rodiu_jax.report.figures import style
    from rodiu_jax.report.figures.effect_bars import FIGURES

    folder = make_folder(folder)
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_csv(written[-1], table)
        if name in FIGURES:
            written += style.save_figure(FIGURES[name](table, output), folder, name)
    return written


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else significant(value)


def _ends(record: Mapping[Any, Any], name: str) -> str:
    return interval(record[f"{name}_low"], record[f"{name}_high"], significant)


def _rank(record: Mapping[Any, Any]) -> str:
    best, worst = record["rank_best"], record["rank_worst"]
    if is_missing(best):
        return "-"
    return f"{best}" if best == worst else f"{best} to {worst}: undecided"


def _bracketed_share(box: Mapping[Any, Any], name: str) -> str:
    """Write a share, and in parentheses the range that the brackets leave of it."""
    low, high = box[f"{name}_low"], box[f"{name}_high"]
    open_range = not (is_missing(low) or is_missing(high) or low == high)
    return percent(box[name]) + (f" ({interval(low, high, percent)})" if open_range else "")
