"""Which constraints limit the plans: the margins of the plans in the rows, on a bounded number of rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rodiu_jax.model.verdict import FAMILIES
from rodiu_jax.report.data.digest import Digest, Levels
from rodiu_jax.report.figures import style

MOST_ROWS = 1024
"""Rows whose plans are evaluated: whole samples spread over the sweep, or points spread over one sample."""

TIGHT = 1e-3
"""A constraint with less than this share of its limit left binds."""

_MOST_SAMPLES = 16
_MOST_NAMED = 8  # constraints by name
_FAMILIES = tuple(f for f in FAMILIES if f != "demand")  # an equality: it binds only when broken


@dataclass(frozen=True)
class Margins:
    """The evaluated plans of a sweep.

    Attributes:
      rows: ``sample``, ``point``, ``feasible``, ``margin_<family>`` and ``binding`` of every plan evaluated.
      looked: rows looked at, with a plan or without.
      unmet: mean unmet share per query type, over the plans evaluated.
    """

    rows: pd.DataFrame
    looked: int
    unmet: dict[str, float]


def read_margins(folder: str | Path, digest: Digest) -> Margins:
    """Evaluate the stored plans of at most `MOST_ROWS` rows on their scenarios, drawn again.

    Raises:
      InputError: the catalogue cannot be read, or is not that of the sweep any more; a damaged part or plan.
    """
    from rodiu_jax.model.evaluation import evaluate
    from rodiu_jax.model.plan_json import plan_from_json
    from rodiu_jax.sweeps.scenarios import scenarios_of
    from rodiu_jax.sweeps.store import catalog_of, iterate_rows

    folder, spec = Path(folder), digest.spec
    catalog = catalog_of(folder, spec)
    numbers = choose_rows(spec.points, spec.samples, MOST_ROWS)
    wanted = np.zeros(0, np.int64)
    plans: dict[int, list[tuple[int, str]]] = {}
    looked = 0
    for part in iterate_rows(folder, columns=["sample", "point", "plan"], rows=numbers.tolist()):
        wanted = part["sample"].to_numpy() * spec.points + part["point"].to_numpy()
        mine: Any = part[np.isin(wanted, numbers)]
        looked += len(mine)
        for sample, point, text in mine.dropna(subset="plan").itertuples(index=False):
            plans.setdefault(int(sample), []).append((int(point), text))
    tables, shares = [], []
    for sample, held in plans.items():
        points = np.array([point for point, _ in held])
        instances = scenarios_of(spec, catalog, sample, points)
        read = [
            plan_from_json(json.loads(text) | {"instance": b}, instances, source=folder, path="plan")
            for b, (_, text) in enumerate(held)
        ]
        table = evaluate(read, instances)
        keep = ["feasible", *(f"margin_{f}" for f in FAMILIES), "binding"]
        tables.append(table[keep].assign(sample=sample, point=points))
        shares += [[plan.unmet.get(name, 0.0) for name in instances.query_names] for plan in read]
    names = list(catalog.sets["query"])
    means = np.mean(shares, axis=0) if shares else np.full(len(names), np.nan)
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Margins(rows, looked, dict(zip(names, means.tolist(), strict=True)))


def choose_rows(points: int, samples: int, most: int) -> np.ndarray:
    """Choose the rows to look at, by number, sorted: a fixed choice that covers samples and points evenly."""
    if points * samples <= most:
        return np.arange(points * samples)
    count = min(samples, max(1, most // points), _MOST_SAMPLES)
    chosen = np.linspace(0, samples - 1, count).round().astype(np.int64)
    if points <= most:
        at = np.arange(points)
    else:
        at = np.unique(np.random.default_rng(0).choice(points, most, replace=False))
    return (chosen[:, None] * points + at[None, :]).ravel()


def summarise_binding(margins: Margins) -> pd.DataFrame:
    """Summarise how often each family of constraints binds, and how far it usually is from binding.

    Returns:
      Per family: ``constraint``, ``plans`` (that meet such a constraint), ``binds`` (share of them with a margin
      below `TIGHT`), ``tightest`` (share in which it is the closest of all), ``median_margin``, ``smallest_margin``.
    """
    found = []
    families = margins.rows["binding"].str.replace(r"\[.*", "", regex=True)
    for family in _FAMILIES:
        margin = margins.rows[f"margin_{family}"].to_numpy(dtype=float)
        margin = margin[np.isfinite(margin)]
        if not len(margin):
            continue
        found.append(
            {
                "constraint": family,
                "plans": len(margin),
                "binds": float(np.mean(margin < TIGHT)),
                "tightest": float(np.mean(families == family)),
                "median_margin": float(np.median(margin)),
                "smallest_margin": float(margin.min()),
            }
        )
    return pd.DataFrame(found)


def rank_tightest(margins: Margins) -> pd.DataFrame:
    """Rank the constraints that are most often the closest of all: ``constraint``, ``plans``, ``share``."""
    counts: Any = margins.rows["binding"].value_counts()
    counts = counts.sort_index().sort_values(ascending=False, kind="stable")[:_MOST_NAMED]
    shares = counts.to_numpy() / len(margins.rows)
    return pd.DataFrame({"constraint": counts.index, "plans": counts.to_numpy(), "share": shares})


def draw_binding(digest: Digest, margins: Margins) -> tuple[pd.DataFrame, Figure]:
    """Draw, in a panel per factor, the share of the evaluated plans at a level in which each family binds.

    Returns:
      Factor, level, constraint, ``plans`` and ``binds`` (as in `binding`), and the figure.
    """
    shown = summarise_binding(margins)["constraint"].tolist()
    high = 1.6 + 0.34 * len(shown)
    figure, panels = style.make_panels(len(digest.levels), high=high)
    tables = []
    for position, (axes, levels) in enumerate(zip(panels, digest.levels, strict=True)):
        table = _by_level(margins, levels, shown)
        tables.append(table.drop(columns="y"))
        values = np.full((len(shown), len(levels.values)), np.nan)
        row = {name: r for r, name in enumerate(shown)}
        for name, y, share in zip(table["constraint"], table["y"], table["binds"], strict=True):
            values[row[name], y] = 100 * share
        mesh = style.draw_cells(axes, values, cmap=style.SCALE, vmin=0, vmax=100)
        texts = [[f"{v:.0f}" if np.isfinite(v) else "" for v in line] for line in values]
        style.write_in_cells(axes, mesh.to_rgba(values), texts)
        style.set_ticks(axes, levels.ticks, along="x", every=-(-len(levels.values) // 8))
        style.set_ticks(
            axes, shown if position % style.ACROSS == 0 else [""] * len(shown), along="y", every=1
        )
        axes.invert_yaxis()
        style.set_labels(axes, x=levels.axis.label, width=40)
    text = f"% of {len(margins.rows)} plans in which a constraint has less than {TIGHT:.1%} of its limit left"
    style.set_figure_heading(figure, text)
    return pd.concat(tables, ignore_index=True), figure


def _by_level(margins: Margins, levels: Levels, families: list[str]) -> pd.DataFrame:
    at = levels.at[margins.rows["point"].to_numpy()]
    found = []
    for y in np.unique(at[at >= 0]).tolist():
        here: Any = margins.rows[at == y]
        for family in families:
            margin = here[f"margin_{family}"].to_numpy(dtype=float)
            margin = margin[np.isfinite(margin)]
            if len(margin):
                found.append(
                    {"y": y, "factor": levels.axis.column, "level": levels.values[y], "constraint": family}
                    | {"plans": len(margin), "binds": float(np.mean(margin < TIGHT))}
                )
    return pd.DataFrame(found, columns=["y", "factor", "level", "constraint", "plans", "binds"])
