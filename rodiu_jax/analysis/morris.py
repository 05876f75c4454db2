"""Morris screening of a trajectory design: mean and spread of each factor's elementary effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.analysis.brackets import bound_magnitude, bound_variance
from rodiu_jax.analysis.design_points import are_trajectories, check_morris_levels, read_points
from rodiu_jax.analysis.intervals import student
from rodiu_jax.analysis.observations import CONFIDENCE, RESAMPLES, add_ranks, decide_signs
from rodiu_jax.errors import InputError


def estimate_morris(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    levels: int = 4,
    seed: int = 0,
    source: str = "table",
) -> pd.DataFrame:
    """Estimate Morris's mu, mu* and sigma of a trajectory design, by `SALib.analyze.morris`.

    The effect of a factor in a trajectory is the change of the output over the factor's step ``delta = p / (2 (p -
    1))``, a share of its range, where p is ``levels``; mu is the effects' mean, mu* the mean of their sizes, sigma
    their standard deviation. As no two effects of a factor share a point, the bracket intervals of mu and mu* are
    exact; sigma's is exact below and outer above (`bound_variance`). The output at a point is its mean over the
    samples, and a trajectory is used whole or not at all. The interval of mu is Student's over the trajectories, that
    of mu* SALib's bootstrap over them; sigma has none.

    Args:
      levels: grid levels per factor with which the design was made.

    Returns:
      As `rodiu_jax.analysis.sobol.estimate_sobol`, with ``index`` in ``mu``, ``mu_star``, ``sigma``.

    Raises:
      InputError: as `measure_main_effects`; or the rows are no trajectories of these factors on ``levels`` levels.

    Source: Campolongo et al. 2007, doi:10.1016/j.envsoft.2006.10.004.
    """
    from SALib.analyze import morris as salib

    points = read_points(frame, factors, output, source)
    d = len(factors)
    if not are_trajectories(points.levels):
        expected = f"trajectories of {d + 1} points that each move every one of {', '.join(factors)} once"
        raise InputError(source, "point", expected)
    check_morris_levels(points.levels, factors, levels, source)
    paths = points.blocks(d + 1)
    if len(paths.value) < 2:
        raise InputError(source, output, "two whole trajectories with an output in every row")
    problem = {"num_vars": d, "names": list(factors), "bounds": [[0.0, 1.0]] * d, "groups": None}
    indices = salib.analyze(
        problem,
        paths.levels.reshape(-1, d).astype(float),
        paths.value.ravel(),
        num_resamples=RESAMPLES,
        conf_level=CONFIDENCE,
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
        sizes = bound_magnitude(low, high)
        spread = np.sqrt(np.array(bound_variance(low, high)) * count / (count - 1))
        value = {n: float(np.asarray(indices[n])[j]) for n in found}
        half = student(CONFIDENCE, count - 1) * value["sigma"] / np.sqrt(count)
        size_half = float(np.asarray(indices["mu_star_conf"])[j])
        for name, margin, bounds in (
            ("mu", half, (low.mean(), high.mean())),
            ("mu_star", size_half, (sizes[0].mean(), sizes[1].mean())),
            ("sigma", np.nan, spread),
        ):
            found[name].append(
                {"index": name, "factor": factor, "value": value[name]}
                | {"ci_low": value[name] - margin, "ci_high": value[name] + margin}
                | {"bracket_low": bounds[0], "bracket_high": bounds[1], "sign": decide_signs(*bounds)[0]}
            )
    tables = [add_ranks(pd.DataFrame(part)) for part in found.values()]
    return pd.concat(tables, ignore_index=True).assign(rows=paths.rows, left_out=points.rows - paths.rows)
