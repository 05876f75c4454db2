"""Sensitivity for people: tables for the terminal and for JSON, files in a folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rodiu_jax.io.files import make_folder, write_csv
from rodiu_jax.report.parts.tables import table as text_table

if TYPE_CHECKING:
    from rich.table import Table

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


def sensitivity_tables(tables: Mapping[str, pd.DataFrame], output: str = "total_cost") -> list[Table]:
    """The tables of `rodiu_jax.analysis.effects.analyse` for the terminal; two-way tables are left to files."""
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
    """The boxes of `rodiu_jax.analysis.boxes.discover` for the terminal."""
    return text_table("Where outcomes gather", BOX_HEADS, box_rows(boxes), numbers=BOX_NUMBERS)


BOX_HEADS = ("outcome", "box", "rows", "coverage", "density", "over all", "held out: coverage", "density")
BOX_NUMBERS = tuple(range(2, 8))


def box_rows(boxes: pd.DataFrame) -> list[list[str]]:
    """Boxes as text, a cell for each of `BOX_HEADS`."""
    return [
        [
            *(str(b[n]) for n in ("outcome", "text", "rows")),
            *(_share(b, n) for n in ("coverage", "density")),
            *(_percent(b[n]) for n in ("base", "cv_coverage", "cv_density")),
        ]
        for b in boxes.to_dict("records")
    ]


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
    from rodiu_jax.report.figures import style
    from rodiu_jax.report.figures.effect_bars import FIGURES

    folder = make_folder(folder)
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_csv(written[-1], table)
        if name in FIGURES:
            written += style.save(FIGURES[name](table, output, title=title), folder, name)
    return written
