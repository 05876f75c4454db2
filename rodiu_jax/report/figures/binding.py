"""Which constraints limit the plans: the margins of the plans in the rows, on a bounded number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rodiu_jax.model.verdict import FAMILIES, SERVING_FAMILIES
from rodiu_jax.report.data.digest import Digest, Levels
from rodiu_jax.report.data.stored_plans import read_stored_plans
from rodiu_jax.report.figures import style

MOST_ROWS = 1024
"""Rows whose plans are evaluated: whole samples spread over the sweep, or points spread over one sample."""

TIGHT = 1e-3
"""A constraint with less than this share of its limit left binds."""

_MOST_NAMED = 8  # constraints by name
_FAMILIES = tuple(
    f for f in (*FAMILIES, *SERVING_FAMILIES) if f != "demand"
)  # an equality: it binds only when broken


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
    from rodiu_jax.sweeps.store import catalog_of

    folder = Path(folder)
    names = list(catalog_of(folder, digest.spec).sets["query"])
    stored, looked = read_stored_plans(folder, digest, MOST_ROWS)
    tables, shares = [], []
    for held in stored:
        table = evaluate(held.plans, held.instances)
        keep = ["feasible", *(f"margin_{f}" for f in held.instances.families), "binding"]
        tables.append(table[keep].assign(sample=held.sample, point=held.points))
        shares += [[plan.unmet.get(name, 0.0) for name in names] for plan in held.plans]
    means = np.mean(shares, axis=0) if shares else np.full(len(names), np.nan)
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Margins(rows, looked, dict(zip(names, means.tolist(), strict=True)))


def summarise_binding(margins: Margins) -> pd.DataFrame:
    """Summarise how often each family of constraints binds, and how far it usually is from binding.

    Returns:
      Per family: ``constraint``, ``plans`` (that meet such a constraint), ``binds`` (share of them with a margin
      below `TIGHT`), ``tightest`` (share in which it is the closest of all), ``median_margin``, ``smallest_margin``.
    """
    found = []
    families = margins.rows["binding"].str.replace(r"\[.*", "", regex=True)
    for family in _FAMILIES:
        if f"margin_{family}" not in margins.rows:  # scenarios without replicas, rates and quotas
            continue
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
