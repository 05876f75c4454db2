"""Scenario discovery: boxes of inputs in which an outcome of interest gathers, found by decision trees.

Needs scikit-learn, the optional extra ``discovery``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from rodiu_jax.analysis.observations import check_factors, read_numbers
from rodiu_jax.errors import InputError, WorkFailed, nearest
from rodiu_jax.io.number_text import percent
from rodiu_jax.model.status import Status

OUTCOMES = {
    "infeasible": "no plan exists (status infeasible)",
    "unmet": "more than a share of the queries is not served",
    "dear": "the total cost is among the dearest",
    "switch": "the deployments are not those that are commonest for the same sample",
}
"""Outcomes that `find_cases` knows for tables of a sweep."""

_NEEDED = {
    "infeasible": ("status", "total_cost"),
    "unmet": ("unmet_share",),
    "dear": ("total_cost",),
    "switch": ("deployments",),
}
_DEAR_SHARE = 0.1
"""The dearest share of the rows counts as dear."""

_UNMET_SHARE = 0.01
"""Rows with a larger unserved share count as unmet."""

_MOST_CONDITIONS = 3
"""Depth of a tree, so most conditions in a box: more cannot be read."""

_LEAST_SUPPORT = 0.02
"""Least share of the rows in a leaf."""

_FOLDS = 5
"""Of the cross-validation; fewer where there are fewer points of either kind."""

_COLUMNS = ("outcome", "text", "rows", "support", "coverage", "coverage_low", "coverage_high")
_COLUMNS += ("density", "density_low", "density_high", "base")
_INSTALL = "scenario discovery needs scikit-learn: pip install 'rodiu-jax[discovery]'"


class Cases(NamedTuple):
    """Which of R rows are cases of interest.

    Attributes:
      value: 1.0 a case, 0.0 not one, NaN not known (such rows are left out).
      surely, possibly: whether a row is a case for every, for some output inside its brackets.
      meaning: the outcome in words, with its thresholds.
    """

    value: Float64[np.ndarray, " R"]
    surely: Bool[np.ndarray, " R"]
    possibly: Bool[np.ndarray, " R"]
    meaning: str


def find_cases(frame: pd.DataFrame, outcome: str, *, source: str = "table") -> Cases:
    """Find the rows of interest.

    ``infeasible``: status infeasible; rows with a total cost are none, the others are not known. ``unmet``:
    ``unmet_share`` above 1% for the plan found. ``dear``: total cost among the dearest 10% of the known ones; where
    ``lower_bound`` and ``upper_bound`` lie on both sides of the threshold, the brackets leave the row open.
    ``switch``: ``deployments`` other than the commonest of the row's sample; plans within the gap of the one found
    may deploy otherwise. Any other name: a column of booleans, or of 0 and 1.

    Raises:
      InputError: no such outcome or column, or a column of other values.
    """
    if outcome == "infeasible":
        status = _column(frame, "status", source).to_numpy(dtype=object)
        value = np.where(status == Status.INFEASIBLE.word, 1.0, np.nan)
        value[np.isfinite(read_numbers(frame, "total_cost", source)) & (status != Status.INFEASIBLE.word)] = (
            0.0
        )
        return _certain(value, OUTCOMES[outcome])
    if outcome == "unmet":
        share = read_numbers(frame, "unmet_share", source)
        return _certain(
            _where(np.isfinite(share), share > _UNMET_SHARE),
            f"more than {percent(_UNMET_SHARE)} of the queries unmet",
        )
    if outcome == "dear":
        return _find_dear(frame, source)
    if outcome == "switch":
        chosen = _column(frame, "deployments", source)
        sample = frame["sample"] if "sample" in frame else pd.Series(0, index=frame.index)
        usual = chosen.groupby(sample.to_numpy()).transform(_find_commonest)
        value = _where(chosen.notna().to_numpy(), (chosen != usual).to_numpy(dtype=bool, na_value=False))
        return _certain(value, OUTCOMES[outcome])
    if outcome not in frame:
        known = [*OUTCOMES, *map(str, frame.columns)]
        expected = f"one of {', '.join(OUTCOMES)}, or a column of 0 and 1{nearest(outcome, known)}"
        raise InputError(source, "outcome", expected, outcome)
    value = read_numbers(frame, outcome, source)
    if len(bad := np.flatnonzero(~(np.isnan(value) | np.isin(value, (0.0, 1.0))))):
        raise InputError(source, f"{outcome}[{bad[0]}]", "0 or 1 (true or false)", float(value[bad[0]]))
    return _certain(value, outcome)


def discover(
    frame: pd.DataFrame,
    factors: Sequence[str],
    outcome: str,
    *,
    seed: int = 0,
    source: str = "table",
) -> pd.DataFrame:
    """Find boxes of factor levels in which ``outcome`` is commoner than elsewhere.

    A classification tree with balanced classes splits the rows; its depth, at most 3, is the least whose balanced
    accuracy under cross-validation is within one standard error of the best. A box is a largest branch all of
    whose leaves hold more than the overall share of cases. Rows of one point always stay in one fold.

    Args:
      frame, factors: as `rodiu_jax.analysis.effects.measure_main_effects`.
      outcome: as `find_cases`.
      seed: of the folds.

    Returns:
      Per box, the largest coverage first: ``outcome`` (in words), ``text`` (such as "gpu_price < 0.6 and
      error_threshold >= 0.8"), ``rows`` and ``support`` (how many rows and which share of them are in the box),
      ``coverage`` (share of the cases that are in it), ``density`` (share of its rows that are cases), both with
      ``_low`` and ``_high`` as the brackets leave them, ``base`` (density over all rows), ``<factor>_low``
      (included) and ``<factor>_high`` (excluded; infinite where the box is open), ``left_out`` (rows with an unknown
      outcome), and for all boxes together on points held out ``cv_coverage``, ``cv_density`` and
      ``cv_balanced_accuracy`` (0.5 is chance; missing where one kind has fewer than two
      points). Without a case no box, with cases only the box "everywhere".

    Raises:
      InputError: as `find_cases`; a factor that is absent or not numeric.
      WorkFailed: scikit-learn is not installed.

    Source: Bryant and Lempert 2010, doi:10.1016/j.techfore.2009.08.002 (coverage and density); Breiman et al.
    1984 (the rule of one standard error).
    """
    try:
        from sklearn.tree import DecisionTreeClassifier
    except ImportError:
        raise WorkFailed(_INSTALL) from None

    check_factors(frame, factors, source)
    found = find_cases(frame, outcome, source=source)
    known = np.isfinite(found.value)
    levels = np.stack([read_numbers(frame, f, source) for f in factors], axis=1)[known]
    case = found.value[known] == 1
    everywhere = [(-math.inf, math.inf)] * len(factors)
    quality: dict[str, float] = dict.fromkeys(("cv_coverage", "cv_density", "cv_balanced_accuracy"), math.nan)
    if not case.any() or case.all():
        boxes = [everywhere] if len(case) and case.all() else []
    else:
        groups = np.unique(levels, axis=0, return_inverse=True)[1].ravel()

        def tree(deep: int) -> Any:
            least = max(1, math.ceil(_LEAST_SUPPORT * len(case)))
            return DecisionTreeClassifier(
                max_depth=deep, min_samples_leaf=least, class_weight="balanced", random_state=seed
            )

        deep, quality = _cross_validate(tree, levels, case, groups, seed, quality)
        fitted = tree(deep).fit(levels, case).tree_
        boxes = _merge_boxes(fitted, 0, everywhere, levels)[1]
    lines = [
        {"outcome": found.meaning}
        | _describe_box(box, factors, levels, case, found, known)
        | {"left_out": int((~known).sum())}
        | quality
        for box in boxes
    ]
    limits = [f"{f}_{end}" for f in factors for end in ("low", "high")]
    table = pd.DataFrame(lines, columns=[*_COLUMNS, *limits, "left_out", *quality])
    return table.sort_values("coverage", ascending=False, kind="stable", ignore_index=True)


def discover_all(
    frame: pd.DataFrame, factors: Sequence[str], *, seed: int = 0, source: str = "table"
) -> pd.DataFrame:
    """Run `discover` for every outcome of `OUTCOMES` whose columns the table has, one table below the other.

    Raises:
      InputError, WorkFailed: as `discover`.
    """
    possible = [o for o, needed in _NEEDED.items() if set(needed) <= set(frame.columns)]
    found = [discover(frame, factors, outcome, seed=seed, source=source) for outcome in possible]
    filled = [table for table in found if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(_COLUMNS))


# ---- outcomes ----


def _find_dear(frame: pd.DataFrame, source: str) -> Cases:
    cost = read_numbers(frame, "total_cost", source)
    known = np.isfinite(cost)
    if not known.any():
        return _certain(np.full(len(cost), np.nan), OUTCOMES["dear"])
    threshold = float(np.quantile(cost[known], 1 - _DEAR_SHARE, method="higher"))
    value = _where(known, cost >= threshold)
    low, high = cost, cost
    if "lower_bound" in frame:
        low = read_numbers(frame, "lower_bound", source)
        high = read_numbers(frame, "upper_bound", source) if "upper_bound" in frame else cost
        low, high = np.where(np.isnan(low), -np.inf, np.fmin(low, cost)), np.fmax(high, cost)
    return Cases(value, low >= threshold, high >= threshold, f"total cost at or above {threshold:,.6g}")


def _certain(value: np.ndarray, meaning: str) -> Cases:
    return Cases(value, value == 1, value == 1, meaning)


def _where(known: np.ndarray, case: np.ndarray) -> np.ndarray:
    return np.where(known, case.astype(float), np.nan)


def _find_commonest(chosen: pd.Series) -> str | None:
    """Find the value that occurs most, the first by name among equals."""
    return chosen.mode().iat[0] if chosen.notna().any() else None


def _column(frame: pd.DataFrame, column: str, source: str) -> Any:
    if column not in frame:
        names = [str(n) for n in frame.columns]
        expected = f"a column of this name{nearest(column, names)}; there are {', '.join(names[:30])}"
        raise InputError(source, column, expected)
    return frame[column]


# ---- trees ----


def _cross_validate(
    tree: Any,
    levels: Float64[np.ndarray, "R D"],
    case: Bool[np.ndarray, " R"],
    groups: Int64[np.ndarray, " R"],
    seed: int,
    unknown: dict[str, float],
) -> tuple[int, dict[str, float]]:
    """Choose the depth, and measure how its boxes do on points that they were not fitted to.

    `sklearn.model_selection.GridSearchCV` would fit every tree twice, as it does not return the guesses for the points
    held out, and it warns of folds without a case, which are left out here.
    """
    depth = _MOST_CONDITIONS
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(_FOLDS, *(len(np.unique(groups[case == kind])) for kind in (True, False)))
    if folds < 2:
        return depth, unknown
    parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(levels, case, groups))
    guesses = np.zeros((depth, len(case)), bool)
    scores = np.full((depth, folds), np.nan)
    for fold, (learn, test) in enumerate(parts):
        if case[learn].all() or not case[learn].any():
            continue
        for deep in range(1, depth + 1):
            guess = tree(deep).fit(levels[learn], case[learn]).predict(levels[test]).astype(bool)
            guesses[deep - 1, test] = guess
            scores[deep - 1, fold] = _balanced(guess, case[test])
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    if scores.shape[1] < 2:
        return depth, unknown
    means = scores.mean(axis=1)
    best = int(np.argmax(means))
    error = scores[best].std(ddof=1) / math.sqrt(scores.shape[1])
    deep = int(np.flatnonzero(means >= means[best] - error)[0])
    guess = guesses[deep]
    return deep + 1, {
        "cv_coverage": float(guess[case].mean()),
        "cv_density": float(case[guess].mean()) if guess.any() else math.nan,
        "cv_balanced_accuracy": _balanced(guess, case),
    }


def _balanced(guess: np.ndarray, case: np.ndarray) -> float:
    """Average the shares of cases and of other rows that are guessed right; NaN without either."""
    if case.all() or not case.any():
        return math.nan
    return float(guess[case].mean() + (~guess[~case]).mean()) / 2


Box = list[tuple[float, float]]


def _merge_boxes(tree: Any, node: int, box: Box, levels: np.ndarray) -> tuple[bool, list[Box]]:
    """Tell whether every leaf under ``node``, which holds ``levels``, is rich in cases; find the largest boxes."""
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left == right:  # a leaf; with balanced classes the heavier one is commoner than overall
        other, cases_here = tree.value[node][0]
        rich = bool(cases_here > other)
        return rich, [box] if rich else []
    j = int(tree.feature[node])
    cut = _round_cut(levels[:, j], float(tree.threshold[node]))
    under = levels[:, j] < cut
    low, high = box[j]
    below, above = (
        [*box[:j], side, *box[j + 1 :]] for side in ((low, min(high, cut)), (max(low, cut), high))
    )
    (rich_below, boxes_below), (rich_above, boxes_above) = (
        _merge_boxes(tree, left, below, levels[under]),
        _merge_boxes(tree, right, above, levels[~under]),
    )
    if rich_below and rich_above:
        return True, [box]
    return False, boxes_below + boxes_above


def _round_cut(values: np.ndarray, threshold: float) -> float:
    """Find the number with the fewest digits that parts ``values`` as ``threshold`` does: x <= threshold is x < cut."""
    below, above = float(values[values <= threshold].max()), float(values[values > threshold].min())
    for digits in range(1, 17):
        cut = float(f"{(below + above) / 2:.{digits}g}")
        if below < cut <= above:
            return cut
    return above


def _describe_box(
    box: Box, factors: Sequence[str], levels: np.ndarray, case: np.ndarray, found: Cases, known: np.ndarray
) -> dict[str, Any]:
    low, high = np.array(box).T
    inside = ((levels >= low) & (levels < high)).all(axis=1)
    here, surely, possibly = int(inside.sum()), found.surely[known], found.possibly[known]

    def coverage(in_box: np.ndarray, outside: np.ndarray) -> float:
        total = in_box[inside].sum() + outside[~inside].sum()
        return float(in_box[inside].sum() / total) if total else math.nan

    return {
        "text": " and ".join(filter(None, map(_write_condition, factors, low, high))) or "everywhere",
        "rows": here,
        "support": here / len(case),
        "coverage": coverage(case, case),
        "coverage_low": coverage(surely, possibly),
        "coverage_high": coverage(possibly, surely),
        "density": float(case[inside].mean()),
        "density_low": float(surely[inside].mean()),
        "density_high": float(possibly[inside].mean()),
        "base": float(case.mean()),
        **{
            f"{f}_{end}": float(v)
            for m, f in enumerate(factors)
            for end, v in (("low", low[m]), ("high", high[m]))
        },
    }


def _write_condition(factor: str, low: float, high: float) -> str:
    if low > -math.inf and high < math.inf:
        return f"{low:.10g} <= {factor} < {high:.10g}"
    return (
        f"{factor} >= {low:.10g}" if low > -math.inf else f"{factor} < {high:.10g}" if high < math.inf else ""
    )
