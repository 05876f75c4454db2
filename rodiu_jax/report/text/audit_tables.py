"""The report of `rodiu_jax.catalog.audit` as tables."""

from __future__ import annotations

from typing import cast

import pandas as pd

from rodiu_jax.catalog.audit import PACKAGED, Report
from rodiu_jax.io.number_text import exact, percent
from rodiu_jax.report.parts.section import PageTable
from rodiu_jax.report.parts.terminal import Line, Part, spaced
from rodiu_jax.report.text.catalog_tables import tabulate_columns, write_range


def describe_audit(report: Report, *, everything: bool = False) -> list[Part]:
    """Show the report as tables; with ``everything``, memory for each (model, GPU, degree) too."""
    parts: list[Part] = [
        Line(f"{report.catalog}: {report.n:,} scenarios drawn with seed {report.seed}", "bold")
    ]
    if len(report.comparisons):
        parts.append(_tabulate_comparisons(report.comparisons))
    if len(report.examples):
        parts.append(_tabulate_examples(report.examples))
    parts += _tabulate_memory(report.memory, everything)
    parts.append(_tabulate_compute(report.compute))
    if len(report.contradictions):
        parts.append(_tabulate_contradictions(report.contradictions, report.catalog))
    parts += [
        Line(
            f"Nobody can serve {r['query']} in {percent(r['share'])} of the scenarios: no model fits, or its "
            "throughput is 0, on every GPU.",
            "bold",
        )
        for r in report.unservable.to_dict("records")
    ]
    parts.append(_tabulate_bases(report.bases))
    parts += [Line(f"WARNING: {r['text']}.", "bold yellow") for r in report.findings.to_dict("records")]
    if report.ok:
        parts.append(f"Every draw of the {len(report.draws)} quantities lies in its declared range.")
    parts += [Line(f"FAILED: {failure}", "bold red") for failure in report.failures]
    return spaced(parts)


def _tabulate_comparisons(frame: pd.DataFrame) -> PageTable:
    rows = [
        [
            f"{r['name']}, {r['unit']}",
            write_range(r["low"], r["high"]),
            write_range(r["stated_low"], r["stated_high"]),
            write_range(r["observed_low"], r["observed_high"]),
            r["verdict"],
            r["source"],
        ]
        for r in frame.to_dict("records")
    ]
    heads = ["", "simulated", "source says", "observed", "verdict", "source"]
    return PageTable("comparisons", "Our draws against observed data", heads, rows)


def _tabulate_bases(frame: pd.DataFrame) -> PageTable:
    kinds = ("measured", "predicted", "assumed")
    counts = {kind: sum(frame[kind].tolist()) for kind in kinds}
    total = max(sum(counts.values()), 1)
    shares = ", ".join(f"{percent(count / total)} {kind}" for kind, count in counts.items())
    rows = [[r["field"], *(str(r[kind]) for kind in kinds)] for r in frame.to_dict("records")]
    caption = (
        f"What the {total:,} values of fields rest on: {shares} (by a rule: predicted; nobody says: assumed)"
    )
    return PageTable("bases", caption, ["field", *kinds], rows, [1, 2, 3])


def _tabulate_examples(frame: pd.DataFrame) -> PageTable:
    rows = [
        [
            r["name"],
            f"{write_range(r['low'], r['high'])} {r['unit']}",
            exact(r["stated"]),
            "as expected" if r["ok"] else f"WRONG, expected {r['expected']:.5g}",
            r["note"],
        ]
        for r in frame.to_dict("records")
    ]
    heads = ["example", "sampled", "source says", "", "note"]
    return PageTable("examples", "Worked examples, computed by the sampler", heads, rows)


def _tabulate_memory(frame: pd.DataFrame, everything: bool) -> list[PageTable]:
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
    tables = [tabulate_columns(title, "gpu", gpus, columns)]
    reasons: dict[tuple[str, str], list[str]] = {}
    for (model, gpu), group in by_pair.items():
        last = group.iloc[-1]
        if not any(group["fits"]):
            reasons.setdefault((model, f"{last['tp']} GPUs: {last['reason']}"), []).append(gpu)
    if reasons:
        rows = [[model, ", ".join(on), reason] for (model, reason), on in reasons.items()]
        heads = ["model", "gpu", "the largest degree"]
        tables.append(PageTable("reasons", "Why no degree is enough", heads, rows))
    if everything:
        rows = [
            [r["model"], r["gpu"], str(r["tp"]), "fits" if r["fits"] else r["reason"]]
            for r in frame.to_dict("records")
        ]
        tables.append(PageTable("memory", "Memory in full", ["model", "gpu", "degree", ""], rows, [2]))
    return tables


def _groups(frame: pd.DataFrame, first: str, second: str) -> dict[tuple[str, str], pd.DataFrame]:
    return {cast(tuple[str, str], pair): group for pair, group in frame.groupby([first, second], sort=False)}


def _smallest(group: pd.DataFrame, column: str) -> str:
    enough = group["tp"][group[column].astype(bool)]
    return str(enough.min()) if len(enough) else "none"


def _tabulate_compute(frame: pd.DataFrame) -> PageTable:
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
    return tabulate_columns(title, "gpu", gpus, columns)


def _tabulate_contradictions(frame: pd.DataFrame, catalog: str) -> PageTable:
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
    heads = ["contradiction", "quantity", "name", *PACKAGED, "here"]
    caption = f"Where the seed disagrees with itself, and what {catalog} does"
    unwrapped = range(2, len(heads))
    return PageTable("contradictions", caption, heads, rows, lines=True, unwrapped=unwrapped)
