"""Results of benchmarks and studies as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from bench.records import BenchmarkResult, Machine, Record, SideResult, Study


def render_table(columns: Sequence[str], rows: Iterable[Sequence[object]], texts: Iterable[int] = ()) -> str:
    """Return a Markdown table.

    Args:
      texts: positions of columns that hold texts, aligned left like the first; the others are numbers.
    """
    left = {0, *texts}
    marks = ["---" if m in left else "--:" for m in range(len(columns))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(marks) + "|"]
    lines += ["| " + " | ".join(map(_show, row)) + " |" for row in rows]
    return "\n".join(lines)


def _show(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_rate(rate: float) -> str:
    """Return a rate in as many digits as it deserves."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def show_ratio(side: SideResult) -> str:
    """Return the median ratio with the least and the largest; a dash for our own side."""
    if side.ratio is None:
        return "-"
    return f"{side.ratio:.3g} ({min(side.ratios):.3g} to {max(side.ratios):.3g})"


def describe_machine(machine: Machine) -> str:
    """Return the machine's processor, cores and devices in one line."""
    return (
        f"{machine.processor}, {machine.cores} cores used; JAX runs on {machine.devices} x {machine.device}"
    )


def render_machine(machine: Machine) -> str:
    """Return machine, versions, date and load as a Markdown list."""
    lines = [f"- Date: {machine.date} UTC", f"- Machine: {describe_machine(machine)}"]
    if machine.rent is not None:
        lines.append(f"- Rent: ${machine.rent.hourly:.2f} per hour ({machine.rent.source})")
    lines.append(
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    )
    if machine.load is not None:
        lines.append(f"- Load average of the machine at the start: {machine.load:.1f} (idle: below 0.3)")
    if machine.load_at_end is not None:
        lines.append(f"- Load average at the end, our own work included: {machine.load_at_end:.1f}")
    return "\n".join(lines)


def render_benchmark(result: BenchmarkResult) -> str:
    """Return a benchmark as Markdown: what it is, and its table."""
    about = [
        f"- Peers: {result.peers}",
        f"- Quality: {result.quality}",
        f"- Precision: {result.precision}",
        f"- Bytes and operations by hand: {result.by_hand}",
        *(f"- Counted by XLA, {case.name}: {case.counted}" for case in result.cases if case.counted),
    ]
    rows = []
    for case in result.cases:
        for place, side in enumerate(case.sides):
            low, high = 1e3 * min(side.seconds), 1e3 * max(side.seconds)
            rows.append(
                [
                    case.name,
                    side.name,
                    side.items,
                    f"{1e3 * statistics.median(side.seconds):,.4g} ({low:,.4g} to {high:,.4g})",
                    show_rate(side.rate),
                    show_ratio(side),
                    None if side.wanted is None else f"{side.wanted:g}",
                    "" if place else "yes" if case.right else "NO",
                    "" if place else case.quality,
                ]
            )
    columns = ["case", "side", f"{result.item}s timed", "ms: median (least to most)", f"{result.item}s/s"]
    table = render_table([*columns, "ours / this", "wanted", "right", "quality"], rows, texts=(1, 7, 8))
    return "\n\n".join([f"## {result.name}", result.measures, "\n".join(about), table])


def render_study(study: Study) -> str:
    """Return a study as Markdown: what it is about, its facts, its table and its notes."""
    facts = [f"- {name}: {_show(value)}" for name, value in study.facts.items()]
    texts = [m for m, _ in enumerate(study.columns) if any(isinstance(row[m], str) for row in study.rows)]
    table = render_table(study.columns, study.rows, texts) if study.columns else ""
    notes = [f"- {note}" for note in study.notes]
    parts = [f"## {study.title}", study.words, "\n".join(facts), table, "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def render_record(record: Record) -> str:
    """Return a whole file of results as Markdown."""
    parts = ["# Benchmarks", render_machine(record.machine), record.note]
    parts += [render_benchmark(result) for result in record.benchmarks]
    parts += [render_study(study) for study in record.studies]
    return "\n\n".join(part for part in parts if part)
