"""A sweep in numbers and words: a row per point, a few sentences, a grid for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rodiu_jax.report.outputs import OUTPUTS, PROVEN, Axis, axes_of, decimals
from rodiu_jax.report.tables import number, table

if TYPE_CHECKING:
    from rich.table import Table

    from rodiu_jax.sweeps.spec import SweepSpec

_SAME = 1e-6
"""Relative differences of means below this are no movement: optima are proven to 1e-6."""


def by_point(frame: pd.DataFrame, axes: Sequence[Axis]) -> pd.DataFrame:
    """A row per point: its factors, samples, samples per status, mean, min and max of every output, and the
    deployment that most samples choose with the share of the samples that do.
    """
    keys = ["point", *(a.column for a in axes)]
    groups: Any = frame.groupby(keys, sort=True)
    parts = [groups.size().rename("samples")]
    parts += [groups["status"].value_counts().unstack(fill_value=0).add_prefix("status_")]
    for output in OUTPUTS:
        parts += [
            groups[output.column].agg(how).rename(f"{output.column}_{how}") for how in ("mean", "min", "max")
        ]
    chosen = groups["deployments"].agg(commonest)
    share = groups["deployments"].agg(lambda s: float((s == commonest(s)).sum()) / len(s))
    parts += [chosen.rename("commonest_deployment"), share.rename("commonest_share")]
    return pd.concat(parts, axis=1).reset_index()


def commonest(values: pd.Series) -> str | None:
    """The value that occurs most, the first by name among equals; None where every one is missing."""
    counts = values.value_counts()
    return min(counts.index[counts == counts.max()]) if len(counts) else None


def summarise(frame: pd.DataFrame, spec: SweepSpec) -> str:
    """A few sentences: what is proven, the cheapest and the dearest point, how each factor moves the cost."""
    axes = axes_of(spec)
    count = len(frame)
    proven = np.count_nonzero(frame["status"].isin(PROVEN))
    points, samples = frame["point"].nunique(), frame["sample"].nunique()
    planned = np.count_nonzero(frame["total_cost"].notna())
    lines = [
        f"{spec.title}: {count} of {spec.rows} scenarios ({points} points x {samples} sample(s)), "
        f"{proven / max(count, 1):.0%} proven to within {spec.wanted_gap:.2g} of the optimum"
        + (f", {count - planned} without a plan." if planned < count else ".")
    ]
    if not planned:
        return "\n".join([*lines, "No scenario has a plan, so there is no cost to compare."])
    levels = {a: sorted(frame[a.column].unique()) for a in axes}
    ticks = {a.column: dict(zip(at, a.ticks(at), strict=True)) for a, at in levels.items()}
    costs = by_point(frame, axes).dropna(subset="total_cost_mean")
    for word, row in (
        ("Cheapest", costs.loc[costs["total_cost_mean"].idxmin()]),
        ("Dearest", costs.loc[costs["total_cost_mean"].idxmax()]),
    ):
        where = ", ".join(f"{a.column} {ticks[a.column][row[a.column]]}" for a in axes)
        lines.append(
            f"{word} on average: ${number(row['total_cost_mean'])} per period at {where} "
            f"(GPUs {row['gpus_rented_mean']:.3g}, unserved {row['unmet_share_mean']:.2%})."
        )
    return "\n".join([*lines, *(_movement(frame, a, spec.wanted_gap) for a in axes)])


def cost_grid(frame: pd.DataFrame, spec: SweepSpec) -> Table:
    """Mean total cost over the first two factors (over the others and the samples), for the terminal."""
    axes = axes_of(spec)
    title = f"Total cost, $ per period, mean over {frame['sample'].nunique()} sample(s)"
    grid = mean_grid(frame, "total_cost", *axes[:2])
    down = axes[0].ticks(grid.index)
    across = axes[1].ticks(grid.columns) if len(axes) > 1 else ["mean"]
    digits = decimals(grid.to_numpy())
    rows = [
        [name, *(number(v, digits) for v in line)] for name, line in zip(down, grid.to_numpy(), strict=True)
    ]
    corner = " \\ ".join(a.column for a in axes[:2])
    return table(title, [corner, *across], rows, numbers=range(1, len(across) + 1))


def mean_grid(frame: pd.DataFrame, column: str, y: Axis, x: Axis | None = None) -> pd.DataFrame:
    """Mean of a column by level of ``y`` (rows) and ``x`` (columns), sorted; NaN where there is no number."""
    by = [frame[y.column]] if x is None else [frame[y.column], frame[x.column]]
    means: Any = frame.groupby(by)[column].mean()
    return means.to_frame() if x is None else means.unstack()


def _movement(frame: pd.DataFrame, axis: Axis, gap: float) -> str:
    """How the mean cost moves along an axis; what is within the brackets' gap is not called a movement."""
    means = mean_grid(frame, "total_cost", axis).iloc[:, 0].dropna()
    ticks, costs = axis.ticks(means.index), means.to_numpy()
    if len(costs) < 2:
        return f"{axis.column}: one level only."
    steps = np.diff(costs)
    still = np.abs(steps) <= max(_SAME, gap) * np.abs(costs[:-1])
    first, last = costs[0], costs[-1]
    change = f" ({last / first - 1:+.1%})" if first > 0 else ""
    span = f"from ${number(first)} at {ticks[0]} to ${number(last)} at {ticks[-1]}{change}"
    if still.all() and gap > _SAME:
        return (
            f"{axis.column}: each step moves the mean cost by less than the {gap:.2g} that is proven, {span}."
        )
    if still.all():
        return f"{axis.column}: makes no difference to the mean cost between {ticks[0]} and {ticks[-1]}."
    if (still | (steps > 0)).all():
        return f"{axis.column}: the mean cost rises with it, {span}."
    if (still | (steps < 0)).all():
        return f"{axis.column}: the mean cost falls with it, {span}."
    return f"{axis.column}: the mean cost goes up and down, {span}."
