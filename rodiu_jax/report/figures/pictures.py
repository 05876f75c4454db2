"""Every picture of a sweep by name: its table, its figure, and a description for readers who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.analysis.observations import add_ranks
from rodiu_jax.errors import InputError, WorkFailed, nearest
from rodiu_jax.report.data.digest import Digest, Levels, read_digest, summarise_cells
from rodiu_jax.report.data.outputs import FIGURES, output_of
from rodiu_jax.report.figures.binding import Margins, draw_binding, read_margins
from rodiu_jax.report.figures.cost_parts import draw_composition
from rodiu_jax.report.figures.effect_bars import FIGURES as EFFECTS
from rodiu_jax.report.figures.maps import draw_heat_map, draw_regime_map, draw_regime_shares
from rodiu_jax.report.parts.section import Picture

_OF_OUTPUT = ("map", "tornado", "effects", "indices")
_OF_PAIRS = ("map", "regimes")
_MAIN_PAIR = 3


def plot(
    folder: str | Path, figure: str, *, output: str | None = None, factors: Sequence[str] | None = None
) -> Picture:
    """Draw one figure of a sweep.

    Args:
      folder: of the sweep.
      figure: a name of `FIGURES`.
      output: a numeric column that `rodiu sweep` writes (total_cost by default), for the figures that show one.
      factors: the two factors of a map (rows, columns); by default the two that move the cost most.

    Returns:
      The picture: its matplotlib ``figure`` and the ``table`` it is drawn from.

    Raises:
      InputError: no such sweep, figure, output or factor, or one that the figure does not have.
      WorkFailed: the sweep has no rows yet, or no row that the figure could show.
    """
    if figure not in FIGURES:
        raise InputError("plot", "figure", f"one of {', '.join(FIGURES)}{nearest(figure, FIGURES)}", figure)
    if output is not None and figure not in _OF_OUTPUT:
        raise InputError("plot", "output", f"no output: {figure} shows what it shows", output)
    if factors is not None and figure not in _OF_PAIRS:
        raise InputError("plot", "factors", f"no factors: {figure} shows all of them", ",".join(factors))
    column = output_of(output or "total_cost").column
    digest = read_digest(folder, output=column)
    if figure in _OF_PAIRS:
        if not digest.crossed:
            if figure == "map" or factors is not None:
                expected = "a sweep whose design moves two factors together; try `effects`"
                raise InputError("plot", "figure", expected, figure)
            return draw_regimes(digest)[0]
        pair = _find_pair(digest, factors) if factors is not None else choose_pairs(digest)[0]
        return draw_maps(digest, column, [pair])[0] if figure == "map" else draw_regimes(digest, [pair])[0]
    if figure == "costs":
        return draw_costs(digest)
    if figure == "constraints":
        margins = read_margins(folder, digest)
        if margins.rows.empty:
            raise WorkFailed(f"{folder}: no plan to evaluate")
        return draw_constraints(digest, margins)
    if figure == "indices":
        for name, table in compute_indices(digest).items():
            return draw_effects(digest, name, table)
        expected = "a figure that the design allows: indices are of designs saltelli and morris"
        raise InputError("plot", "figure", expected, figure)
    name = {"tornado": "tornado", "effects": "main_effects"}[figure]
    tables = compute_effects(digest)
    if not tables:
        raise WorkFailed(f"{folder}: no row has a number in {column}")
    return draw_effects(digest, name, tables[name])


def choose_pairs(digest: Digest) -> list[tuple[Levels, Levels]]:
    """Choose the pairs of factors whose maps a page shows: all pairs of up to three factors, else of the three that
    move the mean cost most.
    """
    if not digest.crossed:
        return []
    shown = list(digest.levels)
    if len(shown) > _MAIN_PAIR:
        widest = sorted(shown, key=lambda n: -_swing(digest, n))[:_MAIN_PAIR]
        shown = [n for n in shown if n in widest]
    return sorted(combinations(shown, 2), key=lambda p: -_swing(digest, p[0]) - _swing(digest, p[1]))


def draw_maps(digest: Digest, output: str, chosen: Sequence[tuple[Levels, Levels]]) -> list[Picture]:
    """Draw a heat map of an output for each pair of factors."""
    kind = output_of(output)
    drawn = []
    for y, x in chosen:
        table, figure = draw_heat_map(digest, y, x, kind)
        text = f"Heat map: mean {kind.label.lower()} ({kind.unit}) by {y.axis.column} and {x.axis.column}"
        drawn.append(Picture(_stem(digest, output, (y, x)), text, table, figure))
    return drawn


def draw_regimes(digest: Digest, chosen: Sequence[tuple[Levels, Levels]] = ()) -> list[Picture]:
    """Draw a map of the deployments chosen for each pair of factors, or one picture by level where there is no pair."""
    if not chosen:
        table, figure = draw_regime_shares(digest)
        text = "Stacked bars: share of the scenarios that choose each deployment, by level of each factor"
        return [Picture("deployments", text, table, figure)]
    drawn = []
    for y, x in chosen:
        table, figure = draw_regime_map(digest, y, x)
        text = f"Map: the deployment chosen most often, by {y.axis.column} and {x.axis.column}"
        drawn.append(Picture(_stem(digest, "deployments", (y, x)), text, table, figure))
    return drawn


def draw_costs(digest: Digest) -> Picture:
    """Draw the parts of the cost by level of each factor."""
    return Picture(
        "costs", "Stacked bars: mean parts of the cost by level of each factor", *draw_composition(digest)
    )


def draw_constraints(digest: Digest, margins: Margins) -> Picture:
    """Draw which constraints bind, by level of each factor."""
    text = "Table in colours: share of the plans in which each constraint binds, by level of each factor"
    return Picture("constraints", text, *draw_binding(digest, margins))


def draw_effects(digest: Digest, name: str, table: pd.DataFrame) -> Picture:
    """Draw a table of `compute_effects` or `compute_indices` by its name."""
    kind = output_of(digest.output)
    what = {
        "tornado": f"Bars: change of the mean {kind.label.lower()} from the lowest to the highest level",
        "main_effects": f"Lines: mean {kind.label.lower()} by level of each factor, with what brackets leave",
        "sobol": f"Bars: Sobol indices of {kind.label.lower()}",
        "morris": f"Bars: Morris indices of {kind.label.lower()}",
    }
    stem = name if digest.output == "total_cost" else f"{name}-{digest.output}"
    figure = EFFECTS[name](table, digest.output, title=digest.spec.title)
    return Picture(stem, what[name], table, figure)


def compute_effects(digest: Digest) -> dict[str, pd.DataFrame]:
    """Compute the tables of `rodiu_jax.analysis.effects.measure_effects`; none where no row has the digest's output.

    In a design one at a time each factor is compared on its own points and the base, all other factors unmoved.
    """
    from rodiu_jax.analysis.effects import measure_effects, measure_main_effects, measure_swings

    frame: Any = digest.costs
    spec = digest.spec
    if frame[digest.output].isna().all():
        return {}
    columns = list(spec.columns)
    if spec.design.kind != "one-at-a-time":
        return measure_effects(frame, columns, digest.output, source=spec.name)
    swings, means = [], []
    for levels in digest.levels:
        here: Any = frame[levels.at[frame["point"].to_numpy()] >= 0]
        if not here[digest.output].isna().all():
            column = levels.axis.column
            swings.append(measure_swings(here, [column], digest.output, source=spec.name))
            means.append(measure_main_effects(here, [column], digest.output, source=spec.name))
    if not swings:
        return {}
    table = add_ranks(pd.concat(swings, ignore_index=True))
    table = table.sort_values("value", key=lambda s: -s.abs(), kind="stable", ignore_index=True)
    return {"tornado": table, "main_effects": pd.concat(means, ignore_index=True)}


def compute_indices(digest: Digest) -> dict[str, pd.DataFrame]:
    """Compute the table of `rodiu_jax.analysis.effects.estimate_indices` for the digest's output.

    Raises:
      InputError: too few rows of the design have the output.
    """
    from rodiu_jax.analysis.effects import estimate_indices

    spec = digest.spec
    if spec.design.kind not in ("saltelli", "morris"):
        return {}
    levels = spec.design.levels or 4
    return estimate_indices(
        digest.costs, list(spec.columns), digest.output, levels=levels, seed=spec.seed, source=spec.name
    )


def _swing(digest: Digest, levels: Levels) -> float:
    means = summarise_cells(digest, "total_cost", levels)["mean"].dropna().to_numpy()
    return float(np.ptp(means)) if len(means) else 0.0


def _find_pair(digest: Digest, factors: Sequence[str]) -> tuple[Levels, Levels]:
    known = [n.axis.column for n in digest.levels]
    if len(factors) != 2 or factors[0] == factors[1]:
        raise InputError("plot", "factors", f"two of {', '.join(known)}", ",".join(factors))
    for name in factors:
        if name not in known:
            raise InputError("plot", "factors", f"two of {', '.join(known)}{nearest(name, known)}", name)
    return digest.level(factors[0]), digest.level(factors[1])


def _stem(digest: Digest, start: str, pair: tuple[Levels, Levels]) -> str:
    if len(digest.levels) == 2:
        return start
    names = dict(zip(digest.spec.columns, name_files(digest.spec.columns), strict=True))
    return "-".join([start, *(names[n.axis.column] for n in pair)])


def name_files(columns: Sequence[str]) -> Iterator[str]:
    """Give each column a name for files: harmless, and distinct as the columns are."""
    used: set[str] = set()
    for column in columns:
        name = stem = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_")
        count = 1
        while name in used:
            count += 1
            name = f"{stem}_{count}"
        used.add(name)
        yield name
