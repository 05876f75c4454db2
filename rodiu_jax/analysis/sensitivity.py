"""All that can be said about what moves an output of a table: effects, indices and boxes, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rodiu_jax.analysis.boxes import discover_all
from rodiu_jax.analysis.effects import analyse
from rodiu_jax.analysis.observations import read_numbers, read_table
from rodiu_jax.errors import InputError, WorkFailed


@dataclass(frozen=True)
class Sensitivity:
    """Which factors move an output of a table.

    Attributes:
      output: the column explained; ``factors``: the columns that vary.
      rows: rows of the table, of which ``left_out`` have no output and count nowhere.
      tables: ``tornado``, ``main_effects``, ``two_way``; ``sobol`` or ``morris`` where the rows are such a design; and
        ``boxes``, in which serving is infeasible, dear, incomplete or done by other GPUs (`rodiu_jax.analysis`). Each
        figure has a 95 % interval and the interval that the brackets leave.
      note: why there are no boxes; empty where there are.
    """

    output: str
    factors: tuple[str, ...]
    rows: int
    left_out: int
    tables: dict[str, pd.DataFrame]
    note: str = ""


def sensitivity(
    source: str | Path | pd.DataFrame,
    output: str = "total_cost",
    factors: Sequence[str] | None = None,
    *,
    levels: int = 4,
    seed: int = 0,
) -> Sensitivity:
    """Say which factors move an output of a sweep, or of any table, and where something happens.

    Args:
      source: the folder of a sweep, a file (Parquet, CSV), or a table.
      output: the numeric column to explain; rows where it is missing are left out.
      factors: the numeric columns that vary, in the design's order; by default those of the sweep in ``source``.
      levels: grid levels of a Morris design (even).
      seed: of the bootstraps and of the folds.

    Raises:
      InputError: nothing there that can be read, a column that is missing or not numeric, no factors.
    """
    frame, own = (source, ()) if isinstance(source, pd.DataFrame) else read_table(source)
    where = "table" if isinstance(source, pd.DataFrame) else str(source)
    chosen = tuple(own if factors is None else factors)
    if not chosen:
        names = ", ".join(map(str, frame.columns))
        raise InputError("sensitivity", "factors", f"names among {names}, which are the columns of {where}")
    tables = analyse(frame, chosen, output, levels=levels, seed=seed, source=where)
    note = ""
    try:
        tables["boxes"] = discover_all(frame, chosen, seed=seed, source=where)
    except WorkFailed as lack:  # the extra `discovery` is not installed
        note = f"No boxes: {lack}."
    missing = int((~np.isfinite(read_numbers(frame, output, where))).sum())
    return Sensitivity(output, chosen, len(frame), missing, tables, note)
