"""Every picture of a sweep by name: its table, its figure, and the words for who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.analysis.observations import ranked
from rodiu_jax.errors import InputError, WorkFailed, nearest
from rodiu_jax.report.data.digest import Digest, Levels, cells, read_digest
from rodiu_jax.report.data.outputs import FIGURES, output_of
from rodiu_jax.report.figures.binding import Margins, binding_map, read_margins
from rodiu_jax.report.figures.cost_parts import composition
from rodiu_jax.report.figures.effect_bars import FIGURES as EFFECTS
from rodiu_jax.report.figures.maps import heat_map, regime_map, regime_shares
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
    found = read_digest(folder, output=column)
    if figure in _OF_PAIRS:
        if not found.crossed:
            if figure == "map" or factors is not None:
                expected = "a sweep whose design moves two factors together; try `effects`"
                raise InputError("plot", "figure", expected, figure)
            return regimes(found)[0]
        pair = _pair(found, factors) if factors is not None else pairs(found)[0]
        return maps(found, column, [pair])[0] if figure == "map" else regimes(found, [pair])[0]
    if figure == "costs":
        return costs(found)
    if figure == "constraints":
        margins = read_margins(folder, found)
        if margins.rows.empty:
            raise WorkFailed(f"{folder}: no plan to evaluate")
        return constraints(found, margins)
    if figure == "indices":
        for name, table in indices(found).items():
            return of_effects(found, name, table)
        expected = "a figure that the design allows: indices are of designs saltelli and morris"
        raise InputError("plot", "figure", expected, figure)
    name = {"tornado": "tornado", "effects": "main_effects"}[figure]
    tables = effects(found)
    if not tables:
        raise WorkFailed(f"{folder}: no row has a number in {column}")
    return of_effects(found, name, tables[name])


def pairs(found: Digest) -> list[tuple[Levels, Levels]]:
    """The pairs of factors whose maps a page shows: every one of up to three factors, else of the three that
    move the mean cost most.
    """
    if not found.crossed:
        return []
    shown = list(found.levels)
    if len(shown) > _MAIN_PAIR:
        widest = sorted(shown, key=lambda n: -_swing(found, n))[:_MAIN_PAIR]
        shown = [n for n in shown if n in widest]
    return sorted(combinations(shown, 2), key=lambda p: -_swing(found, p[0]) - _swing(found, p[1]))


def maps(found: Digest, output: str, chosen: Sequence[tuple[Levels, Levels]]) -> list[Picture]:
    """A heat map of an output for each pair of factors."""
    kind = output_of(output)
    drawn = []
    for y, x in chosen:
        table, figure = heat_map(found, y, x, kind)
        text = f"Heat map: mean {kind.label.lower()} ({kind.unit}) by {y.axis.column} and {x.axis.column}"
        drawn.append(Picture(_stem(found, output, (y, x)), text, table, figure))
    return drawn


def regimes(found: Digest, chosen: Sequence[tuple[Levels, Levels]] = ()) -> list[Picture]:
    """A map of the deployments chosen for each pair of factors, or one picture by level where there is no pair."""
    if not chosen:
        table, figure = regime_shares(found)
        text = "Stacked bars: share of the scenarios that choose each deployment, by level of each factor"
        return [Picture("deployments", text, table, figure)]
    drawn = []
    for y, x in chosen:
        table, figure = regime_map(found, y, x)
        text = f"Map: the deployment chosen most often, by {y.axis.column} and {x.axis.column}"
        drawn.append(Picture(_stem(found, "deployments", (y, x)), text, table, figure))
    return drawn


def costs(found: Digest) -> Picture:
    """The parts of the cost by level of each factor."""
    return Picture(
        "costs", "Stacked bars: mean parts of the cost by level of each factor", *composition(found)
    )


def constraints(found: Digest, margins: Margins) -> Picture:
    """Which constraints bind, by level of each factor."""
    text = "Table in colours: share of the plans in which each constraint binds, by level of each factor"
    return Picture("constraints", text, *binding_map(found, margins))


def of_effects(found: Digest, name: str, table: pd.DataFrame) -> Picture:
    """The figure of a table of `effects`."""
    kind = output_of(found.output)
    what = {
        "tornado": f"Bars: change of the mean {kind.label.lower()} from the lowest to the highest level",
        "main_effects": f"Lines: mean {kind.label.lower()} by level of each factor, with what brackets leave",
        "sobol": f"Bars: Sobol indices of {kind.label.lower()}",
        "morris": f"Bars: Morris indices of {kind.label.lower()}",
    }
    stem = name if found.output == "total_cost" else f"{name}-{found.output}"
    figure = EFFECTS[name](table, found.output, title=found.spec.title)
    return Picture(stem, what[name], table, figure)


def effects(found: Digest) -> dict[str, pd.DataFrame]:
    """The tables of `rodiu_jax.analysis.effects.effects` for the digest's output; empty where no row has a number.

    In a design one at a time each factor is compared on its own points and the base, all other factors unmoved.
    """
    from rodiu_jax.analysis.effects import effects as all_effects
    from rodiu_jax.analysis.effects import main_effects, tornado

    frame: Any = found.costs
    spec = found.spec
    if frame[found.output].isna().all():
        return {}
    columns = list(spec.columns)
    if spec.design.kind != "one-at-a-time":
        return all_effects(frame, columns, found.output, source=spec.name)
    swings, means = [], []
    for levels in found.levels:
        here: Any = frame[levels.at[frame["point"].to_numpy()] >= 0]
        if not here[found.output].isna().all():
            column = levels.axis.column
            swings.append(tornado(here, [column], found.output, source=spec.name))
            means.append(main_effects(here, [column], found.output, source=spec.name))
    if not swings:
        return {}
    table = ranked(pd.concat(swings, ignore_index=True))
    table = table.sort_values("value", key=lambda s: -s.abs(), kind="stable", ignore_index=True)
    return {"tornado": table, "main_effects": pd.concat(means, ignore_index=True)}


def indices(found: Digest) -> dict[str, pd.DataFrame]:
    """The table of `rodiu_jax.analysis.effects.indices` for the digest's output.

    Raises:
      InputError: too few rows of the design have the output.
    """
    from rodiu_jax.analysis.effects import indices as designed

    spec = found.spec
    if spec.design.kind not in ("saltelli", "morris"):
        return {}
    levels = spec.design.levels or 4
    return designed(
        found.costs, list(spec.columns), found.output, levels=levels, seed=spec.seed, source=spec.name
    )


def _swing(found: Digest, levels: Levels) -> float:
    means = cells(found, "total_cost", levels)["mean"].dropna().to_numpy()
    return float(np.ptp(means)) if len(means) else 0.0


def _pair(found: Digest, factors: Sequence[str]) -> tuple[Levels, Levels]:
    known = [n.axis.column for n in found.levels]
    if len(factors) != 2 or factors[0] == factors[1]:
        raise InputError("plot", "factors", f"two of {', '.join(known)}", ",".join(factors))
    for name in factors:
        if name not in known:
            raise InputError("plot", "factors", f"two of {', '.join(known)}{nearest(name, known)}", name)
    return found.level(factors[0]), found.level(factors[1])


def _stem(found: Digest, start: str, pair: tuple[Levels, Levels]) -> str:
    if len(found.levels) == 2:
        return start
    names = dict(zip(found.spec.columns, _file_names(found.spec.columns), strict=True))
    return "-".join([start, *(names[n.axis.column] for n in pair)])


def _file_names(columns: Sequence[str]) -> Iterator[str]:
    """Names for files, distinct as the columns are."""
    used: set[str] = set()
    for column in columns:
        name = stem = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_")
        count = 1
        while name in used:
            count += 1
            name = f"{stem}_{count}"
        used.add(name)
        yield name
