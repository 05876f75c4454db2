"""What the page of a sweep says, section by section: words, pictures and tables, in the order of reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.model.tolerances import MARGIN_TOLERANCE
from rodiu_jax.report.data.digest import MOST_ROWS, Digest, commonest
from rodiu_jax.report.data.outputs import SETTLED
from rodiu_jax.report.figures import pictures
from rodiu_jax.report.figures.binding import TIGHT, Margins, binding, read_margins, tightest
from rodiu_jax.report.parts.section import PageTable, Section
from rodiu_jax.report.parts.tables import number
from rodiu_jax.report.text.sensitivity_tables import BOX_HEADS, BOX_NUMBERS, box_rows
from rodiu_jax.report.text.summary import little, movements, percent, proofs
from rodiu_jax.sweeps.store import iterate_rows

_STATUSES = {
    "optimal": "proven optimal (to 0.0001 %)",
    "gap_limit": "proven to within the gap asked for",
    "infeasible": "proven to have no plan",
    "bracket": "valid bracket, wider than the gap asked for",
    "feasible": "a given plan that keeps every promise; nothing is proven about a better one",
    "time_limit": "stopped by the time limit, bracket valid",
    "unknown": "no plan found, none excluded",
    "error": "ended with an error",
}
_MOST_DEPLOYMENTS = 10
_ROUNDING = 1e-6
_MOST_BOXED = 10_000
"""Rows in which boxes are looked for, whole samples."""

_FEW = 1e-3
"""Shares of unserved queries of which no picture is drawn."""


def sections(folder: Path, found: Digest) -> list[Section]:
    """All sections of a sweep's page but the answer and the method."""
    margins, lack = _margins(folder, found)
    tables = pictures.effects(found)
    return [
        _cost(found, tables),
        _deployments(found),
        _composition(found),
        _unmet(found, margins),
        _constraints(found, margins, lack),
        *_sensitivity(found, tables),
        _boxes(folder, found),
        *_trends(found),
        _proofs(found),
    ]


def _margins(folder: Path, found: Digest) -> tuple[Margins | None, str]:
    try:
        margins = read_margins(folder, found)
    except InputError as error:
        return None, f"The plans could not be evaluated again: {error}."
    if margins.rows.empty:
        return None, f"None of the {margins.looked:,} rows looked at has a plan."
    return margins, ""


def _cost(found: Digest, tables: dict[str, pd.DataFrame]) -> Section:
    pairs = pictures.pairs(found)
    if pairs:
        drawn = pictures.maps(found, "total_cost", pairs)
        text = "Mean total cost in every cell, over the samples and all other factors."
        text += _only(found, pairs)
    else:
        drawn = [pictures.of_effects(found, n, tables[n]) for n in ("main_effects",) if n in tables]
        text = "Mean total cost by level; the band is what the brackets leave of it." if drawn else ""
    return Section("cost", "What it costs", text, movements(found), drawn)


def _only(found: Digest, pairs: Sequence[object]) -> str:
    count = len(found.levels)
    if count * (count - 1) // 2 == len(pairs):
        return ""
    return (
        " Only pairs of the three factors that move the cost most are shown; "
        "`rodiu plot --figure map --factors A,B` draws any other."
    )


def _deployments(found: Digest) -> Section:
    names = commonest(found)
    if names.empty:
        return Section("deployments", "What to deploy", "No scenario has a plan.")
    rows = [
        [name, f"{count:,}", percent(count, found.rows)]
        for name, count in zip(names["deployment"], names["rows"], strict=True)
    ]
    caption = "The commonest deployments (model@GPU x number of GPUs)"
    if len(rows) > _MOST_DEPLOYMENTS:
        caption += f", {_MOST_DEPLOYMENTS} of {len(rows):,}"
    table = PageTable(
        "commonest", caption, ["Deployment", "Scenarios", "Share"], rows[:_MOST_DEPLOYMENTS], (1, 2), names
    )
    text = (
        "Which models on which GPUs are chosen where, whatever the number of GPUs. Plans within the gap of the one "
        "found may deploy otherwise: a neighbouring colour need not mean that the other plan is worse."
    )
    drawn = pictures.regimes(found, pictures.pairs(found))
    return Section("deployments", "What to deploy", text, (), drawn, [table])


def _composition(found: Digest) -> Section:
    if not found.total("total_cost_count"):
        return Section("composition", "What the cost consists of", "No scenario has a plan.")
    text = "Mean parts of the cost, $ per period, over the scenarios that have a plan."
    return Section("composition", "What the cost consists of", text, (), [pictures.costs(found)])


def _unmet(found: Digest, margins: Margins | None) -> Section:
    title = "What is not served"
    known = int(found.total("unmet_share_count"))
    most = found.most("unmet_share_max")
    if not known or not most > _ROUNDING:
        text = "No scenario has a plan." if not known else "Every query is served, in every scenario's plan."
        return Section("unmet", title, text)
    mean = found.total("unmet_share_sum") / known
    text = f"On average {little(mean)} of the queries stay unserved, {little(most)} in the worst scenario."
    if most < _FEW:
        return Section("unmet", title, text)
    pairs = pictures.pairs(found)
    drawn = pictures.maps(found, "unmet_share", pairs)
    tables = []
    if margins is not None:
        data = pd.DataFrame({"query": margins.unmet.keys(), "unmet_share": margins.unmet.values()})
        rows = [[q, f"{u:.2%}"] for q, u in margins.unmet.items()]
        caption = f"Mean unserved share by query type, over the {len(margins.rows):,} plans evaluated again"
        tables.append(PageTable("unmet", caption, ["Query type", "Not served"], rows, (1,), data))
    return Section("unmet", title, text, (), drawn, tables)


def _constraints(found: Digest, margins: Margins | None, lack: str) -> Section:
    title = "What holds the plans back"
    if margins is None:
        return Section("constraints", title, lack)
    sampled = percent(margins.looked, found.rows)
    text = (
        f"The plans of {margins.looked:,} of the {found.rows:,} scenarios ({sampled}) were evaluated again. "
        f"A constraint binds where less than {TIGHT:.1%} of its limit is left; what rarely binds could be "
        "relaxed at no gain."
    )
    if bad := np.count_nonzero(~margins.rows["feasible"].to_numpy(dtype=bool)):
        text += f" {bad} of them break a constraint: see the least left."
    data = binding(margins)
    rows = [
        [r.constraint, f"{r.plans:,}", f"{r.binds:.0%}", f"{r.median_margin:.1%}", _margin(r.smallest_margin)]
        for r in _records(data)
    ]
    heads = ["Constraint", "Plans", "Binds in", "Median left", "Least left"]
    families = PageTable("binding", "Constraint families", heads, rows, (1, 2, 3, 4), data)
    named = tightest(margins)
    closest = PageTable(
        "tightest",
        "The closest constraint of each plan, the commonest ones",
        ["Constraint", "Plans", "Share"],
        [[r.constraint, f"{r.plans:,}", f"{r.share:.0%}"] for r in _records(named)],
        (1, 2),
        named,
    )
    return Section(
        "constraints", title, text, (), [pictures.constraints(found, margins)], [families, closest]
    )


def _records(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, with the columns as attributes."""
    return iter(table.itertuples())


def _margin(value: float) -> str:
    return (
        "0.0%" if abs(value) <= MARGIN_TOLERANCE else f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.1%}"
    )


def _sensitivity(found: Digest, tables: dict[str, pd.DataFrame]) -> list[Section]:
    if not tables:
        return []
    drawn = [pictures.of_effects(found, "tornado", tables["tornado"])]
    if found.crossed:
        drawn.append(pictures.of_effects(found, "main_effects", tables["main_effects"]))
    text = (
        "Rows that differ in one factor alone are compared with each other where there are such rows. The thin line "
        "is a 95 % interval over the samples; the frame or band is what the brackets leave; a sign that they do "
        "not decide is shown as undecided."
    )
    used = len(found.costs)
    if used < found.rows:
        text += f" From the first {used:,} rows (at most {MOST_ROWS:,}, whole samples)."
    try:
        drawn += [pictures.of_effects(found, n, t) for n, t in pictures.indices(found).items()]
    except InputError as lack:
        text += f" No indices: {lack}."
    table = tables["tornado"]
    rows = [
        [
            r.factor,
            f"{r.low_level:.4g}",
            f"{r.high_level:.4g}",
            number(r.value),
            *(_span(r, n) for n in _SPANS),
            str(r.sign),
        ]
        for r in _records(table)
    ]
    heads = ["Factor", "From", "To", "Change, $ per period", "95 % interval", "Brackets leave", "Sign"]
    shown = [PageTable("swings", "Change of the mean cost", heads, rows, (1, 2, 3))]
    if "two_way" in tables:
        shown.append(_interactions(tables["two_way"]))
    return [Section("sensitivity", "What moves the cost", text, (), drawn, shown)]


_SPANS = ("ci", "bracket")


def _span(row: object, name: str) -> str:
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    return "-" if np.isnan(low) or np.isnan(high) else f"{number(low)} to {number(high)}"


def _interactions(table: pd.DataFrame) -> PageTable:
    """Per pair of factors, the cell that is furthest from the sum of the factors' own effects."""
    rows = []
    groups: Any = table.groupby(["factor_a", "factor_b"], sort=False)
    for (a, b), part in groups:
        known = part.dropna(subset="interaction")
        if known.empty:
            rows.append([str(a), str(b), "-", "-", "-", "-"])
            continue
        worst = known.loc[known["interaction"].abs().idxmax()]
        levels = [f"{worst['level_a']:.4g}", f"{worst['level_b']:.4g}"]
        rows.append([str(a), str(b), *levels, number(worst["interaction"]), str(worst["sign"])])
    caption = "Where two factors together differ most from the sum of their own effects"
    heads = ["Factor", "Factor", "Level", "Level", "Difference, $ per period", "Sign"]
    return PageTable("two_way", caption, heads, rows, (2, 3, 4), table)


def _boxes(folder: Path, found: Digest) -> Section:
    from rodiu_jax.analysis.boxes import discover_all

    name, title = "boxes", "Where it cannot be served, is dear, or takes other GPUs"
    spec = found.spec
    used = min(found.rows, max(1, _MOST_BOXED // spec.points) * spec.points)
    columns = ["sample", *spec.columns, "status", "total_cost", "lower_bound", "upper_bound", "unmet_share"]
    parts = iterate_rows(folder, columns=[*columns, "deployments"], rows=range(used))
    rows = pd.concat(parts, ignore_index=True).head(used)
    try:
        boxes = discover_all(rows, list(spec.columns), source=str(folder))
    except (WorkFailed, InputError) as lack:  # no scikit-learn, or a factor that some points leave as it is
        return Section(name, title, f"Not looked for: {lack}.")
    text = (
        "Boxes of inputs in which an outcome is commoner than elsewhere, found by trees. Coverage is the share of the "
        "cases that lie in the box, density the share of the box that are cases, to compare with their share over all "
        "rows; in parentheses what the brackets leave of them. Held out: all boxes of an outcome together, at points "
        "that the tree did not see."
    )
    if used < found.rows:
        text += f" From the first {used:,} rows."
    if boxes.empty:
        return Section(name, title, f"{text} No box gathers any outcome.")
    table = PageTable(name, "Boxes in which outcomes gather", BOX_HEADS, box_rows(boxes), BOX_NUMBERS, boxes)
    return Section(name, title, text, (), (), [table])


def _trends(found: Digest) -> list[Section]:
    from rodiu_jax.analysis.trends import check_trends, expected_trends

    spec = found.spec
    fields = {c: f.field for c, f in zip(spec.columns, spec.factors, strict=True)}
    trends = expected_trends(fields)
    if not trends or not {"lower_bound", "upper_bound"} <= set(found.costs.columns):
        return []
    data = check_trends(found.costs, list(spec.columns), trends, source=spec.name)
    if not data["pairs"].to_numpy().any():
        return []
    broken = int(data["broken"].to_numpy().sum())
    verdict = "None is broken." if not broken else f"{broken:,} are broken: one of the two brackets is wrong."
    text = (
        "Some factors can move the least cost one way only: cheaper GPUs, looser promises or more memory never cost "
        "more. Every two scenarios that differ in one factor alone were compared: a trend is kept where the brackets "
        f"prove it, broken where they contradict it, open where they overlap. {verdict} The plans found may still "
        "move the wrong way inside open brackets: the last columns count them and give the largest such move."
    )
    rows = [
        [r.factor, r.expected]
        + [f"{n:,}" for n in (r.lines, r.pairs, r.kept, r.broken, r.open, r.against)]
        + [f"{r.worst_against:.2%}"]
        for r in _records(data)
    ]
    heads = ["Factor", "Cost must", "Lines", "Pairs", "Kept", "Broken", "Open", "Plans against", "Worst"]
    words = {"rises": "rise", "falls": "fall"}
    rows = [[r[0], words[r[1]], *r[2:]] for r in rows]
    table = PageTable("trends", "Trends that must hold", heads, rows, tuple(range(2, 9)), data)
    return [Section("trends", "Does it move the way it must?", text, (), (), [table])]


def _proofs(found: Digest) -> Section:
    rows = [
        [status, _STATUSES.get(status, ""), f"{count:,}", percent(count, found.rows)]
        for status, count in found.statuses.items()
    ]
    data = pd.DataFrame({"status": found.statuses.keys(), "rows": found.statuses.values()})
    table = PageTable(
        "statuses", "Scenarios by status", ["Status", "Means", "Scenarios", "Share"], rows, (2, 3), data
    )
    text = proofs(found)
    worst = found.most("widest_gap")
    if np.isfinite(worst):
        text += f" The widest bracket leaves {worst:.2%} of its cost."
    open_rows = found.rows - sum(found.statuses.get(s, 0) for s in SETTLED)
    if open_rows:
        text += f" {open_rows:,} scenarios are open: cells with one of them are hatched in the maps."
    ways = ", ".join(f"{m} {percent(n, found.rows)}" for m, n in found.methods.items())
    return Section("proofs", "What is proven", text, [f"Proven by: {ways}."] if ways else [], (), [table])
