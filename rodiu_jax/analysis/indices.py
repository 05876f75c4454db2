"""Indices of designed samples: Sobol's from Saltelli designs, Morris's from trajectories; levels tell the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.analysis.brackets import (
    magnitude_range,
    product_range,
    quotient_range,
    square_range,
    variance_range,
)
from rodiu_jax.analysis.intervals import student
from rodiu_jax.analysis.observations import (
    NUMBERS,
    check_factors,
    numeric,
    observations,
    ranked,
    signs,
)
from rodiu_jax.errors import InputError
from rodiu_jax.model.tolerances import ROUNDED_TABLE

_RESAMPLES = 200


def sobol_indices(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    source: str = "table",
) -> pd.DataFrame:
    """First-order and total Sobol indices of a Saltelli design, by `SALib.analyze.sobol`.

    The output at a point is its mean over the samples, the same ones everywhere: an index is of that mean. A block
    of the design (A, AB_1 ... AB_D, with or without BA_1 ... BA_D, B) is used whole or not at all.

    With the values of A, B and AB_j, n blocks, the mean m of all values and V the variance of A and B together, the
    estimates are ``S_j = mean((B - m)(AB_j - A)) / V`` and ``T_j = mean((A - AB_j)^2) / 2V``. The bracket intervals are
    outer bounds by interval arithmetic: for any c, ``mean((B - m)(AB_j - A)) = mean((B - c)(AB_j - A)) - (m - c)
    mean(AB_j - A)``, whose products are bounded one by one; V by `variance_range`; then the quotient as though its
    two parts moved independently. They hold every index that outputs inside the brackets give, and some that none does.

    Args:
      frame: rows of the design: ``point`` is the row number in SALib's order (without it the order of the rows is).
      factors: the factors in the design's order.
      confidence: of the interval by SALib's bootstrap over blocks (normal, ``resamples`` of them).
      seed: of the bootstrap.

    Returns:
      Per index (``first``, ``total``) and factor: ``index``, ``factor``, ``value`` with its intervals and ``sign``,
      ``rank_best``, ``rank_worst``, ``rows``, ``left_out``; missing values where the output does not vary.

    Raises:
      InputError: as `main_effects`; or the rows are no Saltelli design of these factors.

    Source: Saltelli et al. 2010, doi:10.1016/j.cpc.2009.09.018.
    """
    from SALib.analyze import sobol

    points = _points(frame, factors, output, source)
    d = len(factors)
    step = _saltelli_step(points.levels)
    if not step:
        expected = (
            f"the rows of a Saltelli design of {', '.join(factors)} in SALib's order, a whole block at least"
        )
        raise InputError(source, "point", expected)
    blocks = points.blocks(step)
    if len(blocks.value) < 2:
        raise InputError(
            source, output, "two whole blocks of the Saltelli design with an output in every row"
        )
    y, low, high = blocks.value, blocks.low, blocks.high
    ends = [0, step - 1]
    found = []
    if float(np.ptp(y)) > 0 and float(np.ptp(y[:, ends])) > 0:
        problem = {
            "num_vars": d,
            "names": list(factors),
            "bounds": [[0.0, 1.0]] * d,
        }  # names are all it reads
        indices = sobol.analyze(
            problem,
            y.ravel(),
            calc_second_order=step == 2 * d + 2,
            num_resamples=resamples,
            conf_level=confidence,
            seed=np.random.default_rng(seed),
        )
        values = {"first": (indices["S1"], indices["S1_conf"]), "total": (indices["ST"], indices["ST_conf"])}
    else:
        values = {n: (np.full(d, np.nan), np.full(d, np.nan)) for n in ("first", "total")}
    variance = variance_range(low[:, ends].ravel(), high[:, ends].ravel())
    c = float(y.mean())
    offset = (np.asarray(low.mean() - c), np.asarray(high.mean() - c))
    for name, (value, half) in values.items():
        part = []
        for j, factor in enumerate(factors):
            step_low, step_high = low[:, j + 1] - high[:, 0], high[:, j + 1] - low[:, 0]
            if name == "total":
                terms = square_range(step_low, step_high)
                numerator = float(terms[0].mean()) / 2, float(terms[1].mean()) / 2
            else:
                terms = product_range((low[:, -1] - c, high[:, -1] - c), (step_low, step_high))
                shift = product_range(offset, (step_low.mean(), step_high.mean()))
                numerator = float(terms[0].mean() - shift[1]), float(terms[1].mean() - shift[0])
            bounds = quotient_range(numerator, variance) if np.isfinite(value[j]) else (np.nan, np.nan)
            part.append(
                {"index": name, "factor": factor, "value": value[j]}
                | {"ci_low": value[j] - half[j], "ci_high": value[j] + half[j]}
                | {"bracket_low": bounds[0], "bracket_high": bounds[1], "sign": signs(*bounds)[0]}
            )
        found.append(ranked(pd.DataFrame(part)))
    return pd.concat(found, ignore_index=True).assign(rows=blocks.rows, left_out=points.rows - blocks.rows)


def morris(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    levels: int = 4,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    source: str = "table",
) -> pd.DataFrame:
    """Morris's mu, mu* and sigma of the elementary effects of a trajectory design, by `SALib.analyze.morris`.

    The effect of a factor in a trajectory is the change of the output over the factor's step ``delta = p / (2 (p -
    1))``, a share of its range, where p is ``levels``; mu is the effects' mean, mu* the mean of their sizes, sigma
    their standard deviation. As no two effects of a factor share a point, the bracket intervals of mu and mu* are
    exact; sigma's is exact below and outer above (`variance_range`). The output at a point is its mean over the
    samples, and a trajectory is used whole or not at all. The interval of mu is Student's over the trajectories, that
    of mu* SALib's bootstrap over them; sigma has none.

    Args:
      levels: grid levels per factor with which the design was made.

    Returns:
      As `sobol_indices`, with ``index`` in ``mu``, ``mu_star``, ``sigma``.

    Raises:
      InputError: as `main_effects`; or the rows are no trajectories of these factors on ``levels`` levels.

    Source: Campolongo et al. 2007, doi:10.1016/j.envsoft.2006.10.004.
    """
    from SALib.analyze import morris as salib

    points = _points(frame, factors, output, source)
    d = len(factors)
    if not _is_trajectories(points.levels):
        expected = f"trajectories of {d + 1} points that each move every one of {', '.join(factors)} once"
        raise InputError(source, "point", expected)
    _check_grid(points.levels, factors, levels, source)
    paths = points.blocks(d + 1)
    if len(paths.value) < 2:
        raise InputError(source, output, "two whole trajectories with an output in every row")
    problem = {"num_vars": d, "names": list(factors), "bounds": [[0.0, 1.0]] * d, "groups": None}
    indices = salib.analyze(
        problem,
        paths.levels.reshape(-1, d).astype(float),
        paths.value.ravel(),
        num_resamples=resamples,
        conf_level=confidence,
        num_levels=levels,
        seed=seed,
    )
    delta = levels / (2 * (levels - 1))
    count = len(paths.value)
    moves = np.diff(paths.levels, axis=1)
    found: dict[str, list[dict[str, Any]]] = {"mu": [], "mu_star": [], "sigma": []}
    for j, factor in enumerate(factors):
        at = np.argmax(moves[:, :, j] != 0, axis=1)
        path = np.arange(count)
        rising = moves[path, at, j] > 0
        top, bottom = np.where(rising, at + 1, at), np.where(rising, at, at + 1)
        low = (paths.low[path, top] - paths.high[path, bottom]) / delta
        high = (paths.high[path, top] - paths.low[path, bottom]) / delta
        sizes = magnitude_range(low, high)
        spread = np.sqrt(np.array(variance_range(low, high)) * count / (count - 1))
        value = {n: float(np.asarray(indices[n])[j]) for n in found}
        half = student(confidence, count - 1) * value["sigma"] / np.sqrt(count)
        size_half = float(np.asarray(indices["mu_star_conf"])[j])
        for name, margin, bounds in (
            ("mu", half, (low.mean(), high.mean())),
            ("mu_star", size_half, (sizes[0].mean(), sizes[1].mean())),
            ("sigma", np.nan, spread),
        ):
            found[name].append(
                {"index": name, "factor": factor, "value": value[name]}
                | {"ci_low": value[name] - margin, "ci_high": value[name] + margin}
                | {"bracket_low": bounds[0], "bracket_high": bounds[1], "sign": signs(*bounds)[0]}
            )
    tables = [ranked(pd.DataFrame(part)) for part in found.values()]
    return pd.concat(tables, ignore_index=True).assign(rows=paths.rows, left_out=points.rows - paths.rows)


def design_of(frame: pd.DataFrame, factors: Sequence[str], *, source: str = "table") -> str:
    """``saltelli`` or ``morris`` where the rows are such a design of these factors, in SALib's order; else empty.

    The levels themselves are compared, so it works on tables that others wrote; trajectories of a single factor
    cannot be told from a list of its levels and are not looked for.
    """
    try:
        levels = _points(frame, factors, None, source).levels
    except InputError:
        return ""
    if _saltelli_step(levels):
        return "saltelli"
    return "morris" if len(factors) > 1 and _is_trajectories(levels) else ""


@dataclass(frozen=True)
class _Points:
    """Rows by point of a design.

    Attributes:
      levels: shape (P, D); NaN where a point is absent.
      value, low, high: shape (P, S) per sample; NaN where there is no output.
      rows: rows of the table.
    """

    levels: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rows: int

    def blocks(self, size: int) -> _Blocks:
        """Blocks of ``size`` points with every output, averaged over the same samples in each.

        A missing output costs its block or its sample, whichever keeps more rows in all: blocks averaged over
        different samples would differ by the samples alone.
        """
        count = len(self.levels) // size
        cube = [a[: count * size].reshape(count, size, -1) for a in (self.value, self.low, self.high)]
        whole: Any = np.isfinite(cube[0]).all(axis=1)
        used = whole.any(axis=1)
        by_block, by_sample = whole.all(axis=1), whole[used].all(axis=0)
        samples = np.ones(whole.shape[1], bool)
        if by_sample.sum() * used.sum() > by_block.sum() * len(samples):
            kept, samples = used, by_sample
        else:
            kept = by_block
        value, low, high = (a[kept][:, :, samples].mean(axis=2) for a in cube)
        levels = self.levels[: count * size].reshape(count, size, -1)[kept]
        return _Blocks(levels, value, low, high, int(kept.sum() * size * samples.sum()))


@dataclass(frozen=True)
class _Blocks:
    """G blocks of g points: levels (G, g, D), means over the samples (G, g), and the rows that went into them."""

    levels: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rows: int


def _points(frame: pd.DataFrame, factors: Sequence[str], output: str | None, source: str) -> _Points:
    """The rows by point; without an output, the levels alone."""
    check_factors(frame, factors, source)
    levels = np.stack([numeric(frame, f, source) for f in factors], axis=1)
    sample = np.zeros(len(frame)) if "sample" not in frame else numeric(frame, "sample", source)
    samples, s = np.unique(sample, return_inverse=True)
    if "point" in frame:
        point = numeric(frame, "point", source)
        sparse = len(point) and not point.max() < 4 * max(16, len(np.unique(point)))
        if sparse or (point < 0).any() or (point != np.floor(point)).any():
            raise InputError(source, "point", "the row number of the design, 0, 1, 2, ...")
        p = point.astype(np.int64)
    else:
        p = pd.Series(s).groupby(s).cumcount().to_numpy()
    count = int(p.max()) + 1 if len(p) else 0
    if len(np.unique(p * len(samples) + s)) < len(p):
        raise InputError(source, "sample", "a column that tells the rows of one point apart")
    at = np.full((count, len(factors)), np.nan)
    at[p] = levels
    if len(bad := np.argwhere(at[p] != levels)):
        expected = f"the same level in every row of point {p[bad[0][0]]}"
        raise InputError(source, f"{factors[bad[0][1]]}[{bad[0][0]}]", expected, float(levels[tuple(bad[0])]))
    numbers = [np.full((count, len(samples)), np.nan) for _ in NUMBERS]
    if output is not None:
        rows = observations(frame, factors, output, source)
        for grid, name in zip(numbers, NUMBERS, strict=True):
            grid[p, s] = rows[name].to_numpy()
    return _Points(at, *numbers, rows=len(frame))


def _saltelli_step(levels: np.ndarray) -> int:
    """Points per block (D + 2, or 2 D + 2 with second order) where the levels are a Saltelli design; else 0."""
    d = levels.shape[1]
    for step in (2 * d + 2, d + 2):
        blocks = levels[: len(levels) // step * step].reshape(-1, step, d)
        blocks = blocks[np.isfinite(blocks).all(axis=(1, 2))]
        a, b = blocks[:, :1], blocks[:, -1:]
        own = np.eye(d, dtype=bool)
        expected = [np.where(own, b, a), np.where(own, a, b)][: (step - 2) // d]
        moving = len(blocks) and (a != b).any(axis=(0, 1)).all()
        if moving and np.allclose(blocks[:, 1:-1], np.concatenate(expected, axis=1), rtol=1e-9, atol=0):
            return step
    return 0


def _is_trajectories(levels: np.ndarray) -> bool:
    """Are the points trajectories of D + 1 in which each step moves one factor and each factor moves once?"""
    d = levels.shape[1]
    paths = levels[: len(levels) // (d + 1) * (d + 1)].reshape(-1, d + 1, d)
    paths = paths[np.isfinite(paths).all(axis=(1, 2))]
    moved = np.diff(paths, axis=1) != 0
    return bool(len(paths) and (moved.sum(axis=1) == 1).all() and (moved.sum(axis=2) == 1).all())


def _check_grid(levels: np.ndarray, factors: Sequence[str], count: int, source: str) -> None:
    """Do the levels lie on ``count`` grid levels, half of which a step spans?"""
    if count < 2 or count % 2:
        raise InputError(source, "levels", "an even number of grid levels", count)
    d = levels.shape[1]
    paths = levels[: len(levels) // (d + 1) * (d + 1)].reshape(-1, d + 1, d)
    paths = paths[np.isfinite(paths).all(axis=(1, 2))]
    for j, factor in enumerate(factors):
        sizes = np.abs(np.diff(paths[:, :, j], axis=1)).max(axis=1)
        at = (paths[:, :, j] - paths[:, :, j].min()) / (sizes.min() / (count // 2))
        if (
            np.ptp(sizes) > ROUNDED_TABLE * sizes.max()
            or np.abs(at - np.round(at)).max() > 1e-3
            or at.max() > count - 0.5
        ):
            expected = f"equal steps over half of {count} evenly spaced levels (another number of levels?)"
            raise InputError(source, factor, expected)
