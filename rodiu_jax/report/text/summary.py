"""A sweep in numbers and words: the answer in sentences, a row per point, a table of mean costs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from rodiu_jax.io.number_text import dollars, number, percent
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import SAME_COST
from rodiu_jax.report.data.digest import Digest, Levels, rank_deployments, summarise_cells, to_grid
from rodiu_jax.report.data.outputs import OUTPUTS, SETTLED, decimals
from rodiu_jax.report.parts.section import PageTable

Trend = Literal["unknown", "none", "within the gap", "rises", "falls", "mixed"]
"""How a mean cost moves along a factor; a move within the proven gap may be none."""


def summarise_points(digest: Digest) -> pd.DataFrame:
    """Make a row per point: its factors, ``rows``, ``unproven`` rows, mean, min and max of every output, and the
    deployment that most rows choose (``commonest_deployment``) with the share of rows that do.
    """
    points: Any = digest.points[digest.points["rows"] > 0]
    at = points["point"].to_numpy()
    result: Any = points[["point"]].reset_index(drop=True)
    for column, levels in zip(digest.spec.columns, digest.spec.levels_at(at), strict=True):
        result[column] = levels
    for name in ("rows", "unproven", "widest_gap"):
        result[name] = points[name].to_numpy()
    for output in OUTPUTS:
        counts = points[f"{output.column}_count"].to_numpy()
        sums = points[f"{output.column}_sum"].to_numpy()
        result[f"{output.column}_mean"] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        for end in ("min", "max"):
            result[f"{output.column}_{end}"] = points[f"{output.column}_{end}"].to_numpy()
    first: Any = digest.chosen.sort_values(["point", "rows", "deployment"], ascending=[True, False, True])
    first = first.drop_duplicates("point").set_index("point").reindex(at)
    result["commonest_deployment"] = first["deployment"].to_numpy()
    result["commonest_share"] = np.nan_to_num(first["rows"].to_numpy(dtype=float)) / result["rows"]
    return result


def write_answer(digest: Digest) -> list[str]:
    """Write the answer in three sentences: what it costs from where to where, what moves it, what to deploy."""
    planned = int(digest.total("total_cost_count"))
    if not planned:
        return [f"None of the {digest.rows:,} scenarios has a plan, so there is no cost to compare."]
    return [_compare_points(digest), _compare_factors(digest), _describe_deployment(digest, planned)]


def describe_proofs(digest: Digest) -> str:
    """Say how much of the sweep is there and what is proven of it."""
    settled = sum(digest.statuses.get(s, 0) for s in SETTLED)
    planned = int(digest.total("total_cost_count"))
    points = np.count_nonzero(digest.points["rows"])
    of_all = "" if digest.rows == digest.spec.rows else f" of {digest.spec.rows:,}"
    text = f"{digest.rows:,}{of_all} scenarios ({points:,} points x {digest.over}). "
    text += f"{percent(settled / max(digest.rows, 1))} are settled: "
    text += f"proven to within {percent(digest.spec.wanted_gap)} of the optimum"
    text += ", or proven to have no plan." if digest.statuses.get(Status.INFEASIBLE.word) else "."
    return text + (f" {digest.rows - planned:,} have no plan." if planned < digest.rows else "")


def describe_movements(digest: Digest) -> list[str]:
    """Write a sentence per factor: how the mean cost moves with it."""
    return [
        f"As {n.axis.column} grows, the mean cost {_describe_movement(digest, n)}." for n in digest.levels
    ]


def tabulate_costs(digest: Digest) -> PageTable:
    """Show the mean total cost over the first two factors, averaged over the others and the samples."""
    caption = f"Total cost, $ per period, mean over {digest.over}"
    if digest.crossed:
        y, x = digest.levels[:2]
        values = to_grid(summarise_cells(digest, "total_cost", y, x), "mean", y, x)
        digits = decimals(values)
        rows = [
            [tick, *(number(v, digits) for v in line)] for tick, line in zip(y.ticks, values, strict=True)
        ]
        corner = f"{y.axis.column} \\ {x.axis.column}"
        return PageTable("costs", caption, [corner, *x.ticks], rows, tuple(range(1, len(x.ticks) + 1)))
    lines = []
    for levels in digest.levels:
        known = summarise_cells(digest, "total_cost", levels)
        for at, mean in zip(known["y"], known["mean"], strict=True):
            lines.append((levels.axis.column, levels.ticks[at], mean))
    digits = decimals(np.array([mean for *_, mean in lines], dtype=float))
    rows = [[column, tick, number(mean, digits)] for column, tick, mean in lines]
    return PageTable("costs", caption, ["factor", "level", "mean"], rows, (1, 2))


def classify_movement(costs: Float64[np.ndarray, " levels"], gap: float) -> Trend:
    """Say how mean costs move from level to level; steps within ``gap`` (relative) are not called movements."""
    if len(costs) < 2:
        return "unknown"
    steps, small = _steps(costs, gap)
    if small.all():
        return "within the gap" if gap > SAME_COST else "none"
    if (small | (steps > 0)).all():
        return "rises"
    return "falls" if (small | (steps < 0)).all() else "mixed"


def _compare_points(digest: Digest) -> str:
    points = summarise_points(digest).dropna(subset="total_cost_mean")
    low, high = (points.loc[getattr(points["total_cost_mean"], f"idx{end}")()] for end in ("min", "max"))
    least, most = float(low["total_cost_mean"]), float(high["total_cost_mean"])
    if len(points) == 1:
        place = _place(digest, low)
        return f"The plans cost {dollars(least)} per period on average at {place}, the only point with plans."
    if most - least <= SAME_COST * abs(least):
        return f"The plans cost {dollars(least)} per period on average, at every point."
    gap = digest.spec.wanted_gap
    near = np.count_nonzero(points["total_cost_mean"] <= least * (1 + gap)) - 1
    alike = ""
    if near and gap > SAME_COST:
        alike = f" ({near:,} other point{'s are' if near > 1 else ' is'} within the proven {percent(gap)})"
    return (
        f"The plans cost least at {_place(digest, low)}: {dollars(least)} per period on average{alike}. "
        f"They cost most at {_place(digest, high)}: {dollars(most)}."
    )


def _place(digest: Digest, row: Any) -> str:
    """Name a point by its levels; the base point of a design one at a time has none."""
    values = [(n.axis, row[n.axis.column]) for n in digest.levels]
    known = [f"{axis.column} {axis.ticks([value])[0]}" for axis, value in values if np.isfinite(value)]
    return ", ".join(known) if known else "the base point"


def _compare_factors(digest: Digest) -> str:
    swings = [(swing, n) for n in digest.levels if (swing := _swing(digest, n)) is not None]
    if not swings:
        return "No factor has two levels with plans, so nothing can be compared."
    ordered = [n for _, n in sorted(swings, key=lambda pair: -pair[0])]
    proven = f"by more than the proven {percent(digest.spec.wanted_gap)}"
    if not _moves(digest, ordered[0]):
        return f"No step of any factor changes the mean cost {proven}."
    first = ordered[0]
    text = f"The cost depends most on {first.axis.column}: as it grows, the mean cost "
    text += f"{_describe_movement(digest, first)}."
    if len(ordered) > 1 and _moves(digest, ordered[1]):
        text += f" Next is {ordered[1].axis.column}: the mean cost {_describe_movement(digest, ordered[1])}."
    elif len(ordered) > 1:
        other = "any other factor" if len(ordered) > 2 else ordered[1].axis.column
        text += f" No step of {other} changes it {proven}."
    return text


def _describe_deployment(digest: Digest, planned: int) -> str:
    names = rank_deployments(digest)
    served = "Every query is served."
    if digest.most("unmet_share_max") > SAME_COST:
        unmet = digest.total("unmet_share_sum") / max(digest.total("unmet_share_count"), 1)
        served = f"On average {percent(unmet)} of the queries are not served."
    if names.empty:
        return served
    share = percent(int(names["rows"].iloc[0]) / max(planned, 1))
    text = (
        f"The commonest deployment, in {share} of the scenarios with a plan, is {names['deployment'].iloc[0]}"
    )
    text += f" (one of {len(names):,})" if len(names) > 1 else ""
    return f"{text}. {served}"


def _describe_movement(digest: Digest, levels: Levels) -> str:
    costs, ticks = _path(digest, levels)
    gap = digest.spec.wanted_gap
    trend = classify_movement(costs, gap)
    if trend == "unknown":
        return "cannot be compared: only one level has plans"
    if trend == "none":
        return f"does not change between {ticks[0]} and {ticks[-1]}"
    change = f" ({costs[-1] / costs[0] - 1:+.1%})" if costs[0] > 0 else ""
    span = f"from {dollars(costs[0])} at {ticks[0]} to {dollars(costs[-1])} at {ticks[-1]}{change}"
    if trend == "within the gap":
        return f"changes at no step by more than the proven {percent(gap)}, {span}"
    return f"goes up and down, {span}" if trend == "mixed" else f"{trend} {span}"


def _swing(digest: Digest, levels: Levels) -> float | None:
    costs, _ = _path(digest, levels)
    return float(costs.max() - costs.min()) if len(costs) > 1 else None


def _moves(digest: Digest, levels: Levels) -> bool:
    trend = classify_movement(_path(digest, levels)[0], digest.spec.wanted_gap)
    return trend in ("rises", "falls", "mixed")


def _path(digest: Digest, levels: Levels) -> tuple[Float64[np.ndarray, " levels"], list[str]]:
    """Return the mean costs along a factor, and its levels in words."""
    known = summarise_cells(digest, "total_cost", levels).dropna(subset="mean")
    return known["mean"].to_numpy(dtype=float), [levels.ticks[y] for y in known["y"]]


def _steps(
    costs: Float64[np.ndarray, " levels"], gap: float
) -> tuple[Float64[np.ndarray, " steps"], Bool[np.ndarray, " steps"]]:
    """Return the steps, and which of them are too small to be called a movement."""
    steps = np.diff(costs)
    return steps, np.abs(steps) <= max(SAME_COST, gap) * np.abs(costs[:-1])
