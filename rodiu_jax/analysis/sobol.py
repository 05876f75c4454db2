"""Sobol indices of a Saltelli design: which share of the output's variance each factor causes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rodiu_jax.analysis.brackets import bound_product, bound_quotient, bound_square, bound_variance
from rodiu_jax.analysis.design_points import read_points, saltelli_block_size
from rodiu_jax.analysis.observations import CONFIDENCE, RESAMPLES, add_ranks, decide_signs
from rodiu_jax.errors import InputError


def estimate_sobol(
    frame: pd.DataFrame,
    factors: Sequence[str],
    output: str = "total_cost",
    *,
    seed: int = 0,
    source: str = "table",
) -> pd.DataFrame:
    """Estimate the first-order and total Sobol indices of a Saltelli design, by `SALib.analyze.sobol`.

    The output at a point is its mean over the samples, which are the same everywhere. A block
    of the design (A, AB_1 ... AB_D, with or without BA_1 ... BA_D, B) is used whole or not at all.

    With the values of A, B and AB_j, n blocks, the mean m of all values and V the variance of A and B together, the
    estimates are ``S_j = mean((B - m)(AB_j - A)) / V`` and ``T_j = mean((A - AB_j)^2) / 2V``. The bracket intervals are
    outer bounds by interval arithmetic: for any c, ``mean((B - m)(AB_j - A)) = mean((B - c)(AB_j - A)) - (m - c)
    mean(AB_j - A)``, whose products are bounded one by one; V by `bound_variance`; then the quotient as though its
    two parts moved independently. They hold every index that outputs inside the brackets give, and some that none does.

    Args:
      frame: rows of the design: ``point`` is the row number in SALib's order (without it the order of the rows is).
      factors: the factors in the design's order.
      seed: of SALib's bootstrap over blocks, which gives the confidence interval.

    Returns:
      Per index (``first``, ``total``) and factor: ``index``, ``factor``, ``value`` with its intervals and ``sign``,
      ``rank_best``, ``rank_worst``, ``rows``, ``left_out``; missing values where the output does not vary.

    Raises:
      InputError: as `measure_main_effects`; or the rows are no Saltelli design of these factors.

    Source: Saltelli et al. 2010, doi:10.1016/j.cpc.2009.09.018.
    """
    from SALib.analyze import sobol

    points = read_points(frame, factors, output, source)
    d = len(factors)
    step = saltelli_block_size(points.levels)
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
            num_resamples=RESAMPLES,
            conf_level=CONFIDENCE,
            seed=np.random.default_rng(seed),
        )
        values = {"first": (indices["S1"], indices["S1_conf"]), "total": (indices["ST"], indices["ST_conf"])}
    else:
        values = {n: (np.full(d, np.nan), np.full(d, np.nan)) for n in ("first", "total")}
    variance = bound_variance(low[:, ends].ravel(), high[:, ends].ravel())
    c = float(y.mean())
    offset = (np.asarray(low.mean() - c), np.asarray(high.mean() - c))
    for name, (value, half) in values.items():
        part = []
        for j, factor in enumerate(factors):
            step_low, step_high = low[:, j + 1] - high[:, 0], high[:, j + 1] - low[:, 0]
            if name == "total":
                terms = bound_square(step_low, step_high)
                numerator = float(terms[0].mean()) / 2, float(terms[1].mean()) / 2
            else:
                terms = bound_product((low[:, -1] - c, high[:, -1] - c), (step_low, step_high))
                shift = bound_product(offset, (np.asarray(step_low.mean()), np.asarray(step_high.mean())))
                numerator = float(terms[0].mean() - shift[1]), float(terms[1].mean() - shift[0])
            bounds = bound_quotient(numerator, variance) if np.isfinite(value[j]) else (np.nan, np.nan)
            part.append(
                {"index": name, "factor": factor, "value": value[j]}
                | {"ci_low": value[j] - half[j], "ci_high": value[j] + half[j]}
                | {"bracket_low": bounds[0], "bracket_high": bounds[1], "sign": decide_signs(*bounds)[0]}
            )
        found.append(add_ranks(pd.DataFrame(part)))
    return pd.concat(found, ignore_index=True).assign(rows=blocks.rows, left_out=points.rows - blocks.rows)
