"""The sections of a sweep's page: words, pictures and tables, in the order of reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.io.number_text import percent
from rodiu_jax.model.status import Status
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.report.data.digest import MOST_ROWS, Digest, rank_deployments
from rodiu_jax.report.data.outputs import SETTLED
from rodiu_jax.report.figures import pictures
from rodiu_jax.report.figures.binding import TIGHT, Margins, rank_tightest, read_margins, summarise_binding
from rodiu_jax.report.page.basis_section import make_basis_sections
from rodiu_jax.report.page.fleet_section import make_fleet_sections
from rodiu_jax.report.parts.section import PageTable, Section
from rodiu_jax.report.text.sensitivity_tables import tabulate_boxes, tabulate_effects, tabulate_pairs
from rodiu_jax.report.text.summary import describe_movements, describe_proofs
from rodiu_jax.sweeps.store import iterate_rows

_MOST_DEPLOYMENTS = 10
_ROUNDING = 1e-6
_MOST_BOXED = 10_000
"""Rows in which boxes are looked for, whole samples."""

_FEW = 1e-3
"""Shares of unserved queries of which no picture is drawn."""


def make_sections(folder: Path, digest: Digest) -> list[Section]:
    """Make all sections of a sweep's page but the answer and the method."""
    margins, lack = _read_margins(folder, digest)
    tables = pictures.compute_effects(digest)
    return [
        _make_cost(digest, tables),
        _make_deployments(digest),
        _make_composition(digest),
        *make_fleet_sections(folder, digest),
        *make_basis_sections(folder, digest),
        _make_unmet(digest, margins),
        _make_constraints(digest, margins, lack),
        *_make_sensitivity(digest, tables),
        _make_boxes(folder, digest),
        *_make_trends(digest),
        _make_proofs(digest),
    ]


def _read_margins(folder: Path, digest: Digest) -> tuple[Margins | None, str]:
    try:
        margins = read_margins(folder, digest)
    except InputError as error:
        return None, f"The plans could not be evaluated again: {error}."
    if margins.rows.empty:
        return None, f"None of the {margins.looked:,} rows looked at has a plan."
    return margins, ""


def _make_cost(digest: Digest, tables: dict[str, pd.DataFrame]) -> Section:
    pairs = pictures.choose_pairs(digest)
    if pairs:
        drawn = pictures.draw_maps(digest, "total_cost", pairs)
        text = "Mean total cost in every cell, over the samples and all other factors."
        text += _describe_omitted(digest, pairs)
    else:
        drawn = [pictures.draw_effects(digest, n, tables[n]) for n in ("main_effects",) if n in tables]
        text = "Mean total cost by level; the band is what the brackets leave of it." if drawn else ""
    return Section("cost", "What it costs", text, describe_movements(digest), drawn)


def _describe_omitted(digest: Digest, pairs: Sequence[object]) -> str:
    count = len(digest.levels)
    if count * (count - 1) // 2 == len(pairs):
        return ""
    return (
        " Only pairs of the three factors that move the cost most are shown; "
        "`rodiu plot --figure map --factors A,B` draws any other."
    )


def _make_deployments(digest: Digest) -> Section:
    names = rank_deployments(digest)
    if names.empty:
        return Section("deployments", "What to deploy", "No scenario has a plan.")
    rows = [
        [name, f"{count:,}", percent(count / max(digest.rows, 1))]
        for name, count in zip(names["deployment"], names["rows"], strict=True)
    ]
    caption = "The commonest deployments (model@GPU x number of GPUs)"
    if len(rows) > _MOST_DEPLOYMENTS:
        caption += f", {_MOST_DEPLOYMENTS} of {len(rows):,}"
    table = PageTable(
        "commonest", caption, ["deployment", "scenarios", "share"], rows[:_MOST_DEPLOYMENTS], (1, 2), names
    )
    text = (
        "Which models are placed on which GPUs, whatever the number of GPUs. Plans within the proven gap of "
        "each other may deploy differently: a change of colour need not mean that the other plan is worse."
    )
    drawn = pictures.draw_regimes(digest, pictures.choose_pairs(digest))
    return Section("deployments", "What to deploy", text, (), drawn, [table])


def _make_composition(digest: Digest) -> Section:
    if not digest.total("total_cost_count"):
        return Section("composition", "What the cost consists of", "No scenario has a plan.")
    text = "Mean parts of the cost, $ per period, over the scenarios that have a plan."
    return Section("composition", "What the cost consists of", text, (), [pictures.draw_costs(digest)])


def _make_unmet(digest: Digest, margins: Margins | None) -> Section:
    title = "What is not served"
    known = int(digest.total("unmet_share_count"))
    most = digest.most("unmet_share_max")
    if not known or not most > _ROUNDING:
        text = "No scenario has a plan." if not known else "Every plan serves every query."
        return Section("unmet", title, text)
    mean = digest.total("unmet_share_sum") / known
    text = f"On average {percent(mean)} of the queries are not served, in the worst scenario {percent(most)}."
    if most < _FEW:
        return Section("unmet", title, text)
    pairs = pictures.choose_pairs(digest)
    drawn = pictures.draw_maps(digest, "unmet_share", pairs)
    tables = []
    if margins is not None:
        data = pd.DataFrame({"query": margins.unmet.keys(), "unmet_share": margins.unmet.values()})
        rows = [[q, percent(u)] for q, u in margins.unmet.items()]
        caption = f"Mean unserved share by query type, over the {len(margins.rows):,} plans evaluated again"
        tables.append(PageTable("unmet", caption, ["query type", "not served"], rows, (1,), data))
    return Section("unmet", title, text, (), drawn, tables)


def _make_constraints(digest: Digest, margins: Margins | None, lack: str) -> Section:
    title = "What holds the plans back"
    if margins is None:
        return Section("constraints", title, lack)
    sampled = percent(margins.looked / max(digest.rows, 1))
    text = (
        f"The plans of {margins.looked:,} of the {digest.rows:,} scenarios ({sampled}) were evaluated again. "
        f"A constraint binds where less than {percent(TIGHT)} of its limit is left; relaxing one that rarely "
        "binds saves little."
    )
    if bad := np.count_nonzero(~margins.rows["feasible"].to_numpy(dtype=bool)):
        text += f" {bad} of them break a constraint: the last column shows by how much."
    data = summarise_binding(margins)
    rows = [
        [
            r.constraint,
            f"{r.plans:,}",
            *map(percent, (r.binds, r.median_margin, _round_margin(r.smallest_margin))),
        ]
        for r in _rows_of(data)
    ]
    heads = ["constraint", "plans", "binds in", "median left", "least left"]
    families = PageTable("binding", "Constraint families", heads, rows, (1, 2, 3, 4), data)
    named = rank_tightest(margins)
    closest = PageTable(
        "tightest",
        "The closest constraint of each plan, the commonest ones",
        ["constraint", "plans", "share"],
        [[r.constraint, f"{r.plans:,}", percent(r.share)] for r in _rows_of(named)],
        (1, 2),
        named,
    )
    return Section(
        "constraints", title, text, (), [pictures.draw_constraints(digest, margins)], [families, closest]
    )


def _rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """Iterate over the rows, with the columns as attributes."""
    return iter(table.itertuples())


def _round_margin(margin: float) -> float:
    """Return 0 for a margin that the checker calls kept exactly."""
    return 0.0 if abs(margin) <= MARGIN_TOLERANCE else margin


def _make_sensitivity(digest: Digest, tables: dict[str, pd.DataFrame]) -> list[Section]:
    if not tables:
        return []
    drawn = [pictures.draw_effects(digest, "tornado", tables["tornado"])]
    if digest.crossed:
        drawn.append(pictures.draw_effects(digest, "main_effects", tables["main_effects"]))
    text = (
        "Rows that differ in one factor alone are compared with each other where there are such rows. The thin line "
        "is a 95% interval over the samples; the frame or band is what the brackets leave. Where the brackets do not "
        "decide a sign, it is called undecided."
    )
    used = len(digest.costs)
    if used < digest.rows:
        text += f" From the first {used:,} rows (at most {MOST_ROWS:,}, whole samples)."
    try:
        drawn += [pictures.draw_effects(digest, n, t) for n, t in pictures.compute_indices(digest).items()]
    except InputError as lack:
        text += f" No indices: {lack}."
    shown = [tabulate_effects("tornado", tables["tornado"])]
    if "two_way" in tables:
        shown.append(tabulate_pairs(tables["two_way"]))
    return [Section("sensitivity", "What moves the cost", text, (), drawn, shown)]


def _make_boxes(folder: Path, digest: Digest) -> Section:
    from rodiu_jax.analysis.boxes import discover_all

    name, title = "boxes", "Where it cannot be served, is dear, or takes other GPUs"
    spec = digest.spec
    used = min(digest.rows, max(1, _MOST_BOXED // spec.points) * spec.points)
    columns = ["sample", *spec.columns, "status", "total_cost", "lower_bound", "upper_bound", "unmet_share"]
    parts = iterate_rows(folder, columns=[*columns, "deployments"], rows=range(used))
    rows = pd.concat(parts, ignore_index=True).head(used)
    try:
        boxes = discover_all(rows, list(spec.columns), source=str(folder))
    except (WorkFailed, InputError) as lack:  # no scikit-learn, or a factor that some points leave as it is
        return Section(name, title, f"Not looked for: {lack}.")
    text = (
        "Boxes of inputs in which an outcome is commoner than elsewhere, found by decision trees. Coverage is the "
        "share of the cases that lie in the box; density is the share of the box that are cases, to compare with their "
        "share over all rows. Parentheses give the range that the brackets leave. Held out: all boxes of an outcome "
        "together, at points that the tree did not see."
    )
    if used < digest.rows:
        text += f" From the first {used:,} rows."
    if boxes.empty:
        return Section(name, title, f"{text} No box gathers any outcome.")
    return Section(name, title, text, (), (), [tabulate_boxes(boxes)])


def _make_trends(digest: Digest) -> list[Section]:
    from rodiu_jax.analysis.trends import check_trends, select_trends

    spec = digest.spec
    fields = {c: f.field for c, f in zip(spec.columns, spec.factors, strict=True)}
    trends = select_trends(fields)
    if not trends or not {"lower_bound", "upper_bound"} <= set(digest.costs.columns):
        return []
    data = check_trends(digest.costs, list(spec.columns), trends, source=spec.name)
    if not data["pairs"].to_numpy().any():
        return []
    broken = int(data["broken"].to_numpy().sum())
    verdict = "None is broken." if not broken else f"{broken:,} are broken: one of the two brackets is wrong."
    text = (
        "Some factors can move the least cost in one direction only: cheaper GPUs, looser promises or more memory "
        "never cost more. Every two scenarios that differ in one factor alone were compared. A trend is kept where the "
        f"brackets prove it, broken where they contradict it, and open where they overlap. {verdict} The plans found "
        "may still move in the wrong direction inside open brackets: the last columns count such pairs and give the "
        "largest move."
    )
    must = {"rises": "rise", "falls": "fall"}
    rows = [
        [r.factor, must[r.expected]]
        + [f"{n:,}" for n in (r.lines, r.pairs, r.kept, r.broken, r.open, r.against)]
        + [percent(r.worst_against)]
        for r in _rows_of(data)
    ]
    heads = ["factor", "cost must", "lines", "pairs", "kept", "broken", "open", "plans against", "worst"]
    table = PageTable("trends", "Trends that must hold", heads, rows, tuple(range(2, 9)), data)
    return [Section("trends", "Does the cost move in the right direction?", text, (), (), [table])]


def _make_proofs(digest: Digest) -> Section:
    rows = [
        [status, Status.of(status).sentence, f"{count:,}", percent(count / digest.rows)]
        for status, count in digest.statuses.items()
    ]
    data = pd.DataFrame({"status": digest.statuses.keys(), "rows": digest.statuses.values()})
    heads = ["status", "meaning", "scenarios", "share"]
    table = PageTable("statuses", "Scenarios by status", heads, rows, (2, 3), data)
    text = describe_proofs(digest)
    worst = digest.most("widest_gap")
    if np.isfinite(worst):
        text += f" The widest bracket leaves {percent(worst)} of its cost."
    open_rows = digest.rows - sum(digest.statuses.get(s, 0) for s in SETTLED)
    if open_rows:
        text += f" {open_rows:,} scenarios are open: cells with one of them are hatched in the maps."
    ways = ", ".join(f"{m} {percent(n / digest.rows)}" for m, n in digest.methods.items())
    return Section("proofs", "What is proven", text, [f"Proven by: {ways}."] if ways else [], (), [table])
