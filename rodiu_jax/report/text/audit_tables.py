"""The report of `rodiu_jax.catalog.audit` as tables."""

from __future__ import annotations

from typing import cast

import pandas as pd
from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from rodiu_jax.catalog.audit import PACKAGED, Report, percent
from rodiu_jax.report.parts.tables import table
from rodiu_jax.report.text.catalog_tables import SplitTable, exact, span


def render(report: Report, *, everything: bool = False) -> list[RenderableType]:
    """The report as tables; with ``everything``, memory for each (model, GPU, degree) too."""
    parts: list[RenderableType] = [
        Text(f"{report.catalog}: {report.n:,} scenarios drawn with seed {report.seed}", style="bold")
    ]
    if len(report.comparisons):
        parts.append(_comparison_table(report.comparisons))
    if len(report.examples):
        parts.append(_example_table(report.examples))
    parts += _memory_tables(report.memory, everything)
    parts.append(_compute_table(report.compute))
    if len(report.contradictions):
        parts.append(_contradiction_table(report.contradictions, report.catalog))
    if report.ok:
        parts.append(
            Text(f"Every draw of {len(report.draws)} quantities is in the range that is declared for it.")
        )
    parts += [Text(f"FAILED: {failure}", style="bold red") for failure in report.failures]
    return [part for pair in zip(parts, [Text("")] * len(parts), strict=True) for part in pair][:-1]


def _comparison_table(frame: pd.DataFrame) -> RenderableType:
    rows = [
        [
            f"{r['name']}, {r['unit']}",
            span(r["low"], r["high"]),
            span(r["stated_low"], r["stated_high"]),
            span(r["observed_low"], r["observed_high"]),
            r["verdict"],
            r["source"],
        ]
        for r in frame.to_dict("records")
    ]
    columns = ["", "simulated", "source says", "observed", "verdict", "source"]
    return table("Our draws against observed data", columns, rows)


def _example_table(frame: pd.DataFrame) -> RenderableType:
    rows = [
        [
            r["name"],
            f"{span(r['low'], r['high'])} {r['unit']}",
            exact(r["stated"]),
            "as expected" if r["ok"] else f"WRONG, expected {r['expected']:.5g}",
            r["note"],
        ]
        for r in frame.to_dict("records")
    ]
    return table(
        "Worked examples, through the sampler", ["example", "sampled", "source says", "", "note"], rows
    )


def _memory_tables(frame: pd.DataFrame, everything: bool) -> list[RenderableType]:
    models, gpus = list(dict.fromkeys(frame["model"])), list(dict.fromkeys(frame["gpu"]))
    by_pair = _groups(frame, "model", "gpu")
    columns = []
    for model in models:
        weights = by_pair[model, gpus[0]]["weights_gb"].iloc[0]
        cells = []
        for gpu in gpus:
            group = by_pair[model, gpu]
            first = [_smallest(group, column) for column in ("weights_fit", "fits")]
            cells.append("none" if first[0] == "none" else " / ".join(first))
        columns.append((f"{model}\n{weights:.5g} GB", cells))
    title = (
        "Memory: smallest degree for the weights / with the KV cache of any one query type, in every scenario"
    )
    parts: list[RenderableType] = [SplitTable(title, "gpu", gpus, columns)]
    reasons: dict[tuple[str, str], list[str]] = {}
    for (model, gpu), group in by_pair.items():
        last = group.iloc[-1]
        if not any(group["fits"]):
            reasons.setdefault((model, f"{last['tp']} GPUs: {last['reason']}"), []).append(gpu)
    if reasons:
        rows = [[model, ", ".join(on), reason] for (model, reason), on in reasons.items()]
        parts.append(table("Why no degree is enough", ["model", "gpu", "the largest degree"], rows))
    if everything:
        rows = [
            [r["model"], r["gpu"], str(r["tp"]), "fits" if r["fits"] else r["reason"]]
            for r in frame.to_dict("records")
        ]
        parts.append(table("Memory in full", ["model", "gpu", "degree", ""], rows, numbers=[2]))
    return parts


def _groups(frame: pd.DataFrame, first: str, second: str) -> dict[tuple[str, str], pd.DataFrame]:
    return {cast(tuple[str, str], pair): group for pair, group in frame.groupby([first, second], sort=False)}


def _smallest(group: pd.DataFrame, column: str) -> str:
    enough = group["tp"][group[column].astype(bool)]
    return str(enough.min()) if len(enough) else "none"


def _compute_table(frame: pd.DataFrame) -> RenderableType:
    queries, gpus = list(dict.fromkeys(frame["query"])), list(dict.fromkeys(frame["gpu"]))
    by_pair = _groups(frame, "query", "gpu")
    columns = []
    for query in queries:
        cells = []
        for gpu in gpus:
            group = by_pair[query, gpu]
            last = group.iloc[-1]
            enough = _smallest(group, "fits")
            cells.append(f"{last['tp']}: {percent(last['share'])}" if enough == "none" else enough)
        columns.append((f"{query}\n{by_pair[query, gpus[0]]['demand_mean'].iloc[0]:.4g} TFLOPs", cells))
    title = "Compute: smallest degree for a whole query type in every scenario, or what the largest serves"
    return SplitTable(title, "gpu", gpus, columns)


def _contradiction_table(frame: pd.DataFrame, catalog: str) -> RenderableType:
    rows = []
    for where, group in frame.groupby("where", sort=False):
        choices = [
            {"both alike": "as both", "neither": f"own: {this}"}.get(follows, f"as {follows}")
            for follows, this in zip(group["follows"], group["this"], strict=True)
        ]
        here = choices[0] if len(set(choices)) == 1 else "\n".join(choices)
        first = group.iloc[0]
        values = ["\n".join(group[column]) for column in ("name", *PACKAGED)]
        rows.append([f"{where}: {first['why']}", f"{first['quantity']}\n{first['unit']}", *values, here])
    columns = ["contradiction", "quantity", "name", *PACKAGED, "here"]
    result = table(f"Where the seed disagrees with itself, and what {escape(catalog)} does", columns, rows)
    for column in result.columns[2:]:
        column.no_wrap = True
    result.show_lines = True
    return result
