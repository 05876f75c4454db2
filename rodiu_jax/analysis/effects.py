"""How an output of a table moves with its factors: effects, differences, variance-based indices, Morris screening.

Any data frame will do that has numeric factor columns and a numeric output; `rodiu sweep` writes such tables. Three
columns are used where they exist: ``sample`` (rows with the same number share their random draws), ``point`` (the
row number of the design) and, for the output ``total_cost``, the brackets ``lower_bound`` and ``upper_bound``.

Each figure comes with two intervals. ``ci_low`` and ``ci_high`` say what drawing other samples (or other points of
the design) could change. ``bracket_low`` and ``bracket_high`` hold the figure for every output inside the brackets;
``sign`` is ``+``, ``-`` or ``0`` where they decide it and ``undecided`` where they do not. Rows without an output are
left out and counted, never taken as 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.analysis.brackets import bound_linear
from rodiu_jax.analysis.design_points import recognise_design
from rodiu_jax.analysis.intervals import mean_interval, student
from rodiu_jax.analysis.morris import estimate_morris
from rodiu_jax.analysis.observations import (
    CONFIDENCE,
    INTERVALS,
    NUMBERS,
    add_ranks,
    decide_signs,
    find_levels,
    read_observations,
)
from rodiu_jax.analysis.sobol import estimate_sobol


def measure_main_effects(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    source: str = "table",
) -> pd.DataFrame:
    """Average the output at every level of every factor, and its change from the level before.

    A change is the mean over pairs of rows that differ in this factor alone (same sample, same other factors) where
    at least half of the rows have such a partner; else the mean over samples of the difference of their means; else
    the difference of the two means (``pairing`` says which: rows, samples, none). Intervals treat samples as the
    units drawn, or rows where there is one sample.

    Args:
      frame: one row per scenario.
      factors: numeric columns; one of more than 12 levels is cut into 5 bins of equal counts, whose mean is ``level``.
      output: numeric column.
      source: what an error calls the table.

    Returns:
      Per factor and level: ``factor``, ``level``, ``level_low``, ``level_high``, ``rows``, ``left_out``, ``value``
      with its intervals, ``change`` with ``change_ci_*``, ``change_bracket_*``, ``sign`` of the change, ``pairs``,
      ``pairing``; missing where there is none.

    Raises:
      InputError: a column that is absent or not numeric, a factor without a level in some row, a total cost
        outside its brackets, or no row with an output.
    """
    rows: Any = read_observations(frame, factors, output, source)
    found = []
    for factor in factors:
        codes, levels = find_levels(rows[factor])
        others = [f for f in factors if f != factor]
        before = None
        for code, level in enumerate(levels):
            here = rows[codes == code]
            kept = _select_known(here)
            change = _unknown_change() if before is None else _compare(before, kept, others)
            before = kept
            found.append(
                {"factor": factor, **level}
                | _count_rows(here, kept)
                | _average(kept)
                | {"change": change["value"]}
                | {f"change_{n}": change[n] for n in INTERVALS}
                | {n: change[n] for n in ("sign", "pairs", "pairing")}
            )
    return pd.DataFrame(found)


def measure_interactions(
    frame: pd.DataFrame,
    a: str,
    b: str,
    output: str = "total_cost",
    *,
    source: str = "table",
) -> pd.DataFrame:
    """Average the output in every cell of two factors, and measure how far it is from the sum of their main effects.

    The interaction of cell (k, l) is ``m_kl - mean_l m_kl - mean_k m_kl + mean m``, cells weighted equally; it is
    linear in the cells, so its bracket interval is exact. It is missing where some cell has no output, and its
    confidence interval where fewer than two samples fill every cell.

    Returns:
      Per cell: ``factor_a``, ``level_a``, ``factor_b``, ``level_b``, ``rows``, ``left_out``, ``value`` with its
      intervals, ``interaction`` with ``interaction_ci_*``, ``interaction_bracket_*`` and its ``sign``.

    Raises:
      InputError: as `measure_main_effects`.
    """
    rows: Any = read_observations(frame, [a, b], output, source)
    (codes_a, levels_a), (codes_b, levels_b) = find_levels(rows[a]), find_levels(rows[b])
    rows = rows.assign(_cell=codes_a * len(levels_b) + codes_b)
    cells = []
    for k, level_a in enumerate(levels_a):
        for m, level_b in enumerate(levels_b):
            here = rows[rows["_cell"] == k * len(levels_b) + m]
            kept = _select_known(here)
            place = {"factor_a": a, "level_a": level_a["level"], "factor_b": b, "level_b": level_b["level"]}
            cells.append(place | _count_rows(here, kept) | _average(kept))
    table = pd.DataFrame(cells)
    weights = np.kron(*(np.eye(n) - 1 / n for n in (len(levels_a), len(levels_b))))
    value = weights @ table["value"].to_numpy()
    low, high = bound_linear(weights, table["bracket_low"].to_numpy(), table["bracket_high"].to_numpy())
    samples: Any = rows.pivot_table(index="_sample", columns="_cell", values="_value", aggfunc="mean")
    per_sample = samples.reindex(columns=range(len(table))).dropna().to_numpy() @ weights.T
    ci = [mean_interval(column, np.arange(len(column)), CONFIDENCE) for column in per_sample.T]
    return table.assign(
        interaction=value,
        interaction_ci_low=[c[0] for c in ci],
        interaction_ci_high=[c[1] for c in ci],
        interaction_bracket_low=low,
        interaction_bracket_high=high,
        sign=decide_signs(low, high),
    )


def measure_swings(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    source: str = "table",
) -> pd.DataFrame:
    """Measure the swing of the output from each factor's lowest to its highest level (or bin), the widest first.

    Levels where no row has an output are passed over. Swings are paired as the changes of `measure_main_effects`.

    Returns:
      Per factor: ``factor``, ``low_level``, ``high_level``, ``at_low``, ``at_high`` (means over the rows compared),
      ``value`` (the swing) with its intervals and ``sign``, ``rank_best`` and ``rank_worst`` (the ranks by size that
      the brackets allow), ``pairs``, ``pairing``, ``rows``, ``left_out``.

    Raises:
      InputError: as `measure_main_effects`.
    """
    rows: Any = read_observations(frame, factors, output, source)
    found = []
    for factor in factors:
        codes, levels = find_levels(rows[factor])
        numbered = rows["_value"].notna().to_numpy()
        first, last = int(codes[numbered].min()), int(codes[numbered].max())
        ends = [rows[(codes == code) & numbered] for code in (first, last)]
        others = [f for f in factors if f != factor]
        here = rows[np.isin(codes, (first, last))]
        found.append(
            {"factor": factor, "low_level": levels[first]["level"], "high_level": levels[last]["level"]}
            | _compare(ends[0], ends[1], others)
            | _count_rows(here, _select_known(here))
        )
    table = add_ranks(pd.DataFrame(found))
    return table.sort_values("value", key=lambda s: -s.abs(), kind="stable", ignore_index=True)


def analyse(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    levels: int = 4,
    seed: int = 0,
    source: str = "table",
) -> dict[str, pd.DataFrame]:
    """Compute the tables that the rows allow: ``tornado``, ``main_effects``, ``two_way``, ``sobol`` or ``morris``.

    Args:
      levels: of a Morris design.
      seed: of the bootstraps.

    Raises:
      InputError: as the functions of those names.
    """
    return measure_effects(frame, factors, output, source=source) | estimate_indices(
        frame, factors, output, levels=levels, seed=seed, source=source
    )


def measure_effects(
    frame: pd.DataFrame, factors: Sequence[str], output: str = "total_cost", *, source: str = "table"
) -> dict[str, pd.DataFrame]:
    """Compute the tables of `analyse` that any rows allow: ``tornado``, ``main_effects``, ``two_way`` of all pairs."""
    found = {
        "tornado": measure_swings(frame, factors, output, source=source),
        "main_effects": measure_main_effects(frame, factors, output, source=source),
    }
    pairs = [measure_interactions(frame, a, b, output, source=source) for a, b in combinations(factors, 2)]
    if pairs:
        found["two_way"] = pd.concat(pairs, ignore_index=True)
    return found


def estimate_indices(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    levels: int = 4,
    seed: int = 0,
    source: str = "table",
) -> dict[str, pd.DataFrame]:
    """Compute the table of `analyse` that the design of the rows allows: ``sobol``, ``morris`` or none.

    Raises:
      InputError: as the functions of those names; too few rows of the design have an output.
    """
    kind = recognise_design(frame, factors, source=source)
    if kind == "saltelli":
        return {"sobol": estimate_sobol(frame, factors, output, seed=seed, source=source)}
    if kind == "morris":
        return {"morris": estimate_morris(frame, factors, output, levels=levels, seed=seed, source=source)}
    return {}


# ---- means and differences ----


def _select_known(rows: Any) -> Any:
    return rows[rows["_value"].notna()]


def _count_rows(here: Any, kept: Any) -> dict[str, int]:
    return {"rows": len(kept), "left_out": len(here) - len(kept)}


def _average(kept: pd.DataFrame) -> dict[str, float]:
    if kept.empty:
        return dict.fromkeys(("value", *INTERVALS), np.nan)
    value, low, high = (kept[n].to_numpy() for n in NUMBERS)
    ci = mean_interval(value, kept["_sample"].to_numpy(), CONFIDENCE)
    return dict(zip(("value", *INTERVALS), (value.mean(), *ci, low.mean(), high.mean()), strict=True))


def _unknown_change() -> dict[str, Any]:
    numbers = dict.fromkeys(("at_low", "at_high", "value", *INTERVALS), np.nan)
    return numbers | {"sign": None, "pairs": 0, "pairing": None}


def _compare(before: Any, after: Any, others: Sequence[str]) -> dict[str, Any]:
    """Measure how the mean output differs between two sets of rows, compared as closely as the rows allow."""
    if before.empty or after.empty:
        return _unknown_change()
    for pairing, by in (("rows", ["_sample", *others]), ("samples", ["_sample"])):
        if pairing == "rows" and not others:
            continue
        sides: list[Any] = [side.groupby(by, as_index=False)[NUMBERS].mean() for side in (before, after)]
        both: Any = sides[0].merge(sides[1], on=by, suffixes=("_before", "_after"))
        partnered = 2 * len(both) >= min(len(before), len(after))  # else rows that share a key differ by luck
        if len(both) and (partnered if pairing == "rows" else both["_sample"].nunique() > 1):
            change = (both["_value_after"] - both["_value_before"]).to_numpy()
            ci = mean_interval(change, both["_sample"].to_numpy(), CONFIDENCE)
            means = {n: float(both[n].mean()) for side in ("before", "after") for n in _suffixed(side)}
            return _make_change(means, ci, len(both), pairing)
    sides = [before, after]
    means = {
        f"{n}_{name}": float(x[n].mean())
        for name, x in zip(("before", "after"), sides, strict=True)
        for n in NUMBERS
    }
    errors = [float(x["_value"].var(ddof=1)) / len(x) if len(x) > 1 else np.nan for x in sides]
    half = np.nan
    if (total := sum(errors)) > 0:  # Welch's degrees of freedom; false where an error is not known
        freedom = total**2 / sum(e**2 / (len(x) - 1) for e, x in zip(errors, sides, strict=True))
        half = student(CONFIDENCE, freedom) * math.sqrt(total)
    middle = means["_value_after"] - means["_value_before"]
    return _make_change(means, (middle - half, middle + half), 0, "none")


def _suffixed(side: str) -> list[str]:
    return [f"{n}_{side}" for n in NUMBERS]


def _make_change(
    means: dict[str, float], ci: tuple[float, float], pairs: int, pairing: str
) -> dict[str, Any]:
    low = means["_low_after"] - means["_high_before"]
    high = means["_high_after"] - means["_low_before"]
    return {
        "at_low": means["_value_before"],
        "at_high": means["_value_after"],
        "value": means["_value_after"] - means["_value_before"],
        "ci_low": ci[0],
        "ci_high": ci[1],
        "bracket_low": low,
        "bracket_high": high,
        "sign": decide_signs(low, high)[0],
        "pairs": pairs,
        "pairing": pairing,
    }
