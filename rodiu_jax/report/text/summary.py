"""A sweep in numbers and words: the answer in sentences, a row per point, a grid for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rodiu_jax.model.tolerances import SAME_COST
from rodiu_jax.report.data.digest import Digest, Levels, cells, commonest, grid
from rodiu_jax.report.data.outputs import OUTPUTS, SETTLED, decimals
from rodiu_jax.report.parts.tables import number, table

if TYPE_CHECKING:
    from rich.table import Table


def by_point(found: Digest) -> pd.DataFrame:
    """A row per point: its factors, rows, rows that lack a proof, mean, min and max of every output, and the
    deployment that most rows choose with the share that do.
    """
    points: Any = found.points[found.points["rows"] > 0]
    at = points["point"].to_numpy()
    result: Any = points[["point"]].reset_index(drop=True)
    for column, levels in zip(found.spec.columns, found.spec.levels_at(at), strict=True):
        result[column] = levels
    for name in ("rows", "unproven", "widest_gap"):
        result[name] = points[name].to_numpy()
    for output in OUTPUTS:
        counts = points[f"{output.column}_count"].to_numpy()
        sums = points[f"{output.column}_sum"].to_numpy()
        result[f"{output.column}_mean"] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        for end in ("min", "max"):
            result[f"{output.column}_{end}"] = points[f"{output.column}_{end}"].to_numpy()
    first: Any = found.chosen.sort_values(["point", "rows", "deployment"], ascending=[True, False, True])
    first = first.drop_duplicates("point").set_index("point").reindex(at)
    result["commonest_deployment"] = first["deployment"].to_numpy()
    result["commonest_share"] = np.nan_to_num(first["rows"].to_numpy(dtype=float)) / result["rows"]
    return result


def answer(found: Digest) -> list[str]:
    """The answer in three sentences: what it costs from where to where, what moves it, what to deploy."""
    planned = int(found.total("total_cost_count"))
    if not planned:
        return [f"None of the {found.rows:,} scenarios has a plan, so there is no cost to compare."]
    return [_span(found), _moves(found), _choice(found, planned)]


def proofs(found: Digest) -> str:
    """How much of the sweep is there and what is proven of it, in a sentence."""
    settled = sum(found.statuses.get(s, 0) for s in SETTLED)
    planned = int(found.total("total_cost_count"))
    points = np.count_nonzero(found.points["rows"])
    part = "" if found.rows == found.spec.rows else f" of {found.spec.rows:,}"
    text = f"{found.rows:,}{part} scenarios ({points:,} points x {found.over})"
    text += f", {percent(settled, found.rows)} settled: proven to within {_gap(found.spec.wanted_gap)} of the optimum"
    text += ", or to have no plan" if found.statuses.get("infeasible") else ""
    return text + (f"; {found.rows - planned:,} without a plan." if planned < found.rows else ".")


def movements(found: Digest) -> list[str]:
    """A sentence per factor: how the mean cost moves with it."""
    return [f"As {n.axis.column} grows, the mean cost {_movement(found, n)}." for n in found.levels]


def cost_grid(found: Digest) -> Table:
    """Mean total cost over the first two factors (over the others and the samples), for the terminal."""
    title = f"Total cost, $ per period, mean over {found.over}"
    if found.crossed:
        y, x = found.levels[:2]
        values = grid(cells(found, "total_cost", y, x), "mean", y, x)
        digits = decimals(values)
        rows = [
            [name, *(number(v, digits) for v in line)] for name, line in zip(y.ticks, values, strict=True)
        ]
        corner = f"{y.axis.column} \\ {x.axis.column}"
        return table(title, [corner, *x.ticks], rows, numbers=range(1, len(x.ticks) + 1))
    lines = []
    for levels in found.levels:
        known = cells(found, "total_cost", levels)
        for at, mean in zip(known["y"], known["mean"], strict=True):
            lines.append((levels.axis.column, levels.ticks[at], mean))
    digits = decimals(np.array([mean for *_, mean in lines]))
    rows = [[column, tick, number(mean, digits)] for column, tick, mean in lines]
    return table(title, ["factor", "level", "mean"], rows, numbers=(1, 2))


def _span(found: Digest) -> str:
    points = by_point(found).dropna(subset="total_cost_mean")
    low, high = (points.loc[getattr(points["total_cost_mean"], f"idx{end}")()] for end in ("min", "max"))
    cheap, dear = _money(low["total_cost_mean"]), _money(high["total_cost_mean"])
    if len(points) == 1:
        return f"The plans cost {cheap} per period on average at {_place(found, low)}, the only point with plans."
    if high["total_cost_mean"] - low["total_cost_mean"] <= SAME_COST * abs(low["total_cost_mean"]):
        return f"The plans cost {cheap} per period on average, at every point."
    gap = found.spec.wanted_gap
    near = np.count_nonzero(points["total_cost_mean"] <= low["total_cost_mean"] * (1 + gap)) - 1
    alike = ""
    if near and gap > SAME_COST:
        are = "points are" if near > 1 else "point is"
        alike = f" ({near:,} other {are} within the {_gap(gap)} that is proven)"
    return (
        f"The plans cost least at {_place(found, low)}, {cheap} per period on average{alike}, "
        f"and most at {_place(found, high)}, {dear}."
    )


def _place(found: Digest, row: Any) -> str:
    values = [(n.axis, row[n.axis.column]) for n in found.levels]
    known = [f"{axis.column} {axis.ticks([value])[0]}" for axis, value in values if np.isfinite(value)]
    return ", ".join(known) if known else "the base point"


def _moves(found: Digest) -> str:
    swings = [(abs(swing), n) for n in found.levels if (swing := _swing(found, n)) is not None]
    if not swings:
        return "No factor has two levels with plans, so nothing can be compared."
    ordered = [n for _, n in sorted(swings, key=lambda pair: -pair[0])]
    still = f"by more than the {_gap(found.spec.wanted_gap)} that is proven"
    if not _moving(found, ordered[0]):
        return f"No step of any factor moves the mean cost {still}."
    text = f"{ordered[0].axis.column} moves the cost most: as it grows, the mean cost {_movement(found, ordered[0])}"
    if len(ordered) > 1 and _moving(found, ordered[1]):
        text += f"; next comes {ordered[1].axis.column}, with which it {_movement(found, ordered[1])}"
    elif len(ordered) > 1:
        text += f"; no step of {'any other factor' if len(ordered) > 2 else ordered[1].axis.column} moves it {still}"
    return text + "."


def _choice(found: Digest, planned: int) -> str:
    names = commonest(found)
    unmet = found.total("unmet_share_sum") / max(found.total("unmet_share_count"), 1)
    served = "every query is served"
    if found.most("unmet_share_max") > SAME_COST:
        served = f"{little(unmet)} of the queries stay unserved on average"
    if names.empty:
        return served[0].upper() + served[1:] + "."
    name, share = names["deployment"].iloc[0], percent(int(names["rows"].iloc[0]), planned)
    best = f"Deployed most often, in {share} of the scenarios, is {name}"
    best += f" (there are {len(names):,} different deployments)" if len(names) > 1 else ""
    return f"{best}; {served}."


def _swing(found: Digest, levels: Levels) -> float | None:
    means, _ = _path(found, levels)
    return float(means.max() - means.min()) if len(means) > 1 else None


def _movement(found: Digest, levels: Levels) -> str:
    """How the mean cost moves along a factor; what is within the brackets' gap is not called a movement."""
    costs, ticks = _path(found, levels)
    if len(costs) < 2:
        return "cannot be compared: one level only has plans"
    gap = found.spec.wanted_gap
    steps, still = _steps(costs, gap)
    first, last = costs[0], costs[-1]
    change = f" ({last / first - 1:+.1%})" if first > 0 else ""
    span = f"from {_money(first)} at {ticks[0]} to {_money(last)} at {ticks[-1]}{change}"
    if still.all() and gap > SAME_COST:
        return f"moves at no step by more than the {_gap(gap)} that is proven, {span}"
    if still.all():
        return f"does not move between {ticks[0]} and {ticks[-1]}"
    if (still | (steps > 0)).all():
        return f"rises {span}"
    if (still | (steps < 0)).all():
        return f"falls {span}"
    return f"goes up and down, {span}"


def _moving(found: Digest, levels: Levels) -> bool:
    costs, _ = _path(found, levels)
    return len(costs) > 1 and not _steps(costs, found.spec.wanted_gap)[1].all()


def _path(found: Digest, levels: Levels) -> tuple[np.ndarray, list[str]]:
    """The mean costs along a factor and their levels in words."""
    known = cells(found, "total_cost", levels).dropna(subset="mean")
    return known["mean"].to_numpy(), [levels.ticks[y] for y in known["y"]]


def _steps(costs: np.ndarray, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """The steps, and which of them are too small to be called a movement."""
    steps = np.diff(costs)
    return steps, np.abs(steps) <= max(SAME_COST, gap) * np.abs(costs[:-1])


def _gap(share: float) -> str:
    return f"{100 * share:.3g}%"


def _money(dollars: float) -> str:
    return f"${number(dollars, 0 if abs(dollars) >= 1000 else 2)}"


def little(share: float) -> str:
    """A percentage to two decimals; what would round to nothing is said to be less than something."""
    return f"{share:.2%}" if share >= 5e-5 or share <= 0 else "less than 0.01%"


def percent(part: int, whole: int) -> str:
    """A percentage that says 100 % of everything only, and 0 % of nothing only."""
    share = part / max(whole, 1)
    written = [f"{share:.{digits}%}" for digits in range(7)]
    clear = (text for text in written if part in (0, whole) or float(text[:-1]) not in (0, 100))
    return next(clear, written[-1])
