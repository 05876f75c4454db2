"""Checks row by row, within the brackets, that costs move in the direction in which they must.

Some fields can move the least cost one way only: whatever makes a plan dearer or forbids plans never lowers it. The
rows of a table that differ in one factor alone (same sample, same other factors) say whether that shows. Two rows with
brackets [L, U] contradict a rising cost where L of the lower level exceeds U of the higher one, confirm it where U of
the lower level is at most L of the higher one, and leave it open otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from rodiu_jax.analysis.observations import check_factors, read_numbers
from rodiu_jax.errors import InputError
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import RECOMPUTED, SAME_COST

Trend = Literal["rises", "falls"]

EXPECTED: dict[str, Trend] = {
    "arrival_rate": "rises",
    "input_tokens": "rises",
    "output_tokens": "rises",
    "weight_memory": "rises",
    "kv_per_token": "rises",
    "gpu_memory": "falls",
    "gpu_compute": "falls",
    "gpu_price": "rises",
    "compute_per_token": "rises",
    "token_size": "rises",
    "storage_price": "rises",
    "delay_penalty": "rises",
    "unmet_penalty": "rises",
    "delay_nominal": "rises",
    "delay_deviation": "rises",
    "error_nominal": "rises",
    "error_deviation": "rises",
    "delay_impact": "falls",
    "error_impact": "falls",
    "delay_threshold": "falls",
    "error_threshold": "falls",
    "gamma_delay": "rises",
    "gamma_error": "rises",
    "budget": "falls",
    "rental_hours": "rises",
    "storage_capacity": "falls",
    "residency_hours": "rises",
    "unmet_cap": "falls",
    "tp_speedup": "falls",
    "max_replicas": "falls",
    "throughput": "falls",
    "throughput_shortfall": "rises",
    "gamma_throughput": "rises",
    "max_utilization": "falls",
    "gpu_quota": "falls",
}
"""How the least cost moves with a field, never the other way: at a lower level of a field that rises, every plan stays
allowed and costs no more (MODEL sections 4, 5 and 9); the converse where it falls. ``max_routes``, where 0 means no
limit, has no such trend.
"""


def select_trends(fields: Mapping[str, str]) -> dict[str, Trend]:
    """Select the factor columns that have a trend; ``fields`` gives the field that a column moves."""
    return {column: EXPECTED[field] for column, field in fields.items() if field in EXPECTED}


def check_trends(
    frame: pd.DataFrame,
    factors: Sequence[str],
    trends: Mapping[str, Trend],
    *,
    source: str = "table",
) -> pd.DataFrame:
    """Compare every two rows that differ in one factor alone, within the brackets of the total cost.

    With levels a < b of a factor expected to rise, the pair is ``kept`` where ``U_a <= L_b``, ``broken`` where
    ``L_a > U_b``, else ``open``; a factor expected to fall is read from the other end. A row of status ``infeasible``
    has L = U = inf, so it costs at least as much as any other; two of them keep every trend. A row without a bound
    has L = -inf, one without a plan U = inf.

    Args:
      frame: rows of a sweep, or of any table with ``sample``, the factors, ``lower_bound`` and ``upper_bound`` in one
        unit; ``status`` where there are infeasible rows.
      factors: every column that varies; levels may be missing where a factor is not set.
      trends: the expected trend of the factors to check.

    Returns:
      Per factor of ``trends``: ``factor``, ``expected``, ``lines`` (rows that differ in it alone, at least two),
      ``pairs``, ``kept``, ``broken``, ``open``; ``against`` (pairs whose plans, not brackets, move the wrong way by
      more than 1e-6) and ``worst_against`` (the largest such move relative to the cheaper plan, 0 where there is none).

    Raises:
      InputError: a column that is absent or not numeric, or a trend of a column that is no factor.
    """
    if strange := [f for f in trends if f not in factors]:
        raise InputError(source, "trends", f"factors among {', '.join(factors)}", strange[0])
    check_factors(frame.dropna(subset=[f for f in factors if f in frame]), factors, source)
    low, high = (read_numbers(frame, n, source) for n in ("lower_bound", "upper_bound"))
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    impossible = (
        (frame["status"] == Status.INFEASIBLE.word).to_numpy()
        if "status" in frame
        else np.zeros(len(frame), bool)
    )
    low[impossible] = high[impossible] = np.inf
    sample = read_numbers(frame, "sample", source) if "sample" in frame else np.zeros(len(frame))
    levels = {f: read_numbers(frame, f, source) for f in factors}
    found = []
    for factor, trend in trends.items():
        there = np.isfinite(levels[factor])
        rows: Any = pd.DataFrame({"sample": sample, **levels, "L": low, "U": high})[there]
        others = ["sample", *(f for f in factors if f != factor)]
        line = rows.groupby(others, dropna=False, sort=False).ngroup().to_numpy()
        at = rows[factor].to_numpy() if trend == "rises" else -rows[factor].to_numpy()
        found.append(
            {"factor": factor, "expected": trend}
            | _count_pairs(line, at, *(rows[n].to_numpy() for n in "LU"))
        )
    return pd.DataFrame(found, columns=_COLUMNS)


_COLUMNS = ["factor", "expected", "lines", "pairs", "kept", "broken", "open", "against", "worst_against"]


def _count_pairs(
    line: Int64[np.ndarray, " R"],
    at: Float64[np.ndarray, " R"],
    low: Float64[np.ndarray, " R"],
    high: Float64[np.ndarray, " R"],
) -> dict[str, Any]:
    """Count the pairs of one line, the cost expected to rise with ``at``."""
    order = np.lexsort((at, line))
    line, at, low, high = line[order], at[order], low[order], high[order]
    counts = dict.fromkeys(("pairs", "kept", "broken", "open", "against"), 0)
    worst = 0.0
    inside: set[int] = set()
    step = 1
    while step < len(line):  # rows `step` apart in a line: every pair is met once
        pair = (line[:-step] == line[step:]) & (at[:-step] < at[step:])
        if not (line[:-step] == line[step:]).any():
            break
        first, second = np.flatnonzero(pair), np.flatnonzero(pair) + step
        slack = RECOMPUTED * np.where(np.isfinite(high[second]), np.abs(high[second]), 0.0)
        broken = low[first] > high[second] + slack
        kept = ~broken & (high[first] <= low[second] + slack)
        with np.errstate(invalid="ignore"):
            fall = np.where(np.isfinite(high[first]), high[first] - high[second], 0.0)
            relative = fall / np.where(high[second] > 0, high[second], 1.0)
        against = relative > SAME_COST
        counts["pairs"] += len(first)
        counts["kept"] += int(kept.sum())
        counts["broken"] += int(broken.sum())
        counts["against"] += int(against.sum())
        worst = max(worst, float(relative[against].max(initial=0.0)))
        if step == 1:
            inside.update(np.unique(line[first]).tolist())
        step += 1
    counts["open"] = counts["pairs"] - counts["kept"] - counts["broken"]
    return {"lines": len(inside), **counts, "worst_against": worst}
