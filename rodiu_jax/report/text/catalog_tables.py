"""A catalogue as tables: values side by side, distributions, rules in words, and where numbers came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rodiu_jax.catalog import (
    Catalog,
    Classes,
    Distribution,
    Draws,
    Entry,
    Level,
    Patched,
    Product,
    Quantity,
    Rule,
    WeightedSum,
)
from rodiu_jax.catalog.file_format import AXES, Axis
from rodiu_jax.io.number_text import exact, interval
from rodiu_jax.report.parts.section import PageTable
from rodiu_jax.report.parts.terminal import Line, Part, spaced

_PLURALS: dict[Axis, str] = {
    "query": "Query types",
    "model": "Models",
    "gpu": "GPU configurations",
    "tp": "Tensor-parallel degrees",
}
_FEW = 4

Columns = Sequence[tuple[str, Sequence[str]]]
"""Columns of a table: heading (perhaps of two lines) and cells."""


def describe_catalog(catalog: Catalog) -> list[Part]:
    """Show a catalogue as tables: one per axis, what is the same for all names, rules, provenance."""
    parts: list[Part] = _write_heading(catalog)
    for axis in AXES:
        if columns := _axis_columns(catalog, axis):
            parts.append(tabulate_columns(_PLURALS[axis], axis, catalog.sets[axis], columns))
        else:
            parts.append(f"{_PLURALS[axis]}: {', '.join(catalog.sets[axis])}")
    several = [q for q in catalog.quantities.values() if len(q.over) > 1 and _has_names(q)]
    parts += [_tabulate_block(catalog, q) for q in several]
    parts += [_tabulate_common(catalog), _tabulate_rules(catalog), _tabulate_provenance(catalog)]
    return spaced(parts)


def tabulate_columns(caption: str, corner: str, names: Sequence[str], columns: Columns) -> PageTable:
    """Make a table with a row per name, which a narrow terminal may split between columns."""
    numbers = [c for c, (_, cells) in enumerate(columns, 1) if all(_is_number(cell) for cell in cells)]
    heads = [corner, *(heading for heading, _ in columns)]
    rows = [list(row) for row in zip(names, *(cells for _, cells in columns), strict=True)]
    return PageTable(corner, caption, heads, rows, numbers, splits=True)


def write_distribution(distribution: Distribution) -> str:
    """Write a distribution as in formulas: ``512``, ``U(80, 120)``, ``N(1, 0.1) in [0, 2]``, ``one of 2, 4``."""
    n = [exact(x) for x in distribution.numbers]
    match distribution.kind:
        case "fixed":
            return n[0]
        case "uniform":
            return f"U({n[0]}, {n[1]})"
        case "log_uniform":
            return f"LogU({n[0]}, {n[1]})"
        case "normal":
            return f"N({n[0]}, {n[1]}) in [{n[2]}, {n[3]}]"
    if len(n) <= _FEW:
        return f"one of {', '.join(n)}"
    low, high = distribution.range
    return f"one of {len(n)}: {exact(low)} to {exact(high)}"


def write_range(low: float, high: float) -> str:
    """Write the range of a derived number, or the one number that it is."""
    return interval(low, high, "{:.5g}".format)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _write_heading(catalog: Catalog) -> list[Part]:
    about = f": {catalog.description}" if catalog.description else ""
    extends = ", which extends ".join(reversed(catalog.layers[:-1]))
    lines = [Line(f"{catalog.name}{about}", "bold"), *([f"It extends {extends}."] if extends else [])]
    legend = (
        "U(a, b): drawn uniformly, independently for each name and scenario (N: normal, LogU: log-uniform). "
        "a to b: the range of a derived quantity."
    )
    return [*lines, legend]


def _has_names(q: Quantity) -> bool:
    return isinstance(q.recipe, Draws) and bool(q.recipe.values) and bool(q.over)


def _write_head(q: Quantity) -> str:
    return q.name if q.unit == "-" else f"{q.name}\n{q.unit}"


def _axis_columns(catalog: Catalog, axis: Axis) -> list[tuple[str, Sequence[str]]]:
    """Collect the labels, then every quantity over this axis alone that differs by name."""
    labels = catalog.attributes.get(axis, {})
    keys = dict.fromkeys(key for name in catalog.sets[axis] for key in labels.get(name, {}))
    columns: list[tuple[str, Sequence[str]]] = [
        (key, [labels.get(name, {}).get(key, "-") for name in catalog.sets[axis]]) for key in keys
    ]
    for q in catalog.quantities.values():
        if q.over != (axis,):
            continue
        if _has_names(q):
            columns.append(
                (_write_head(q), [write_distribution(e.distribution) for e in catalog.entries(q.name)])
            )
        elif not isinstance(q.recipe, Draws):
            low, high = catalog.ranges[q.name]
            columns.append((_write_head(q), [write_range(a, b) for a, b in zip(low, high, strict=True)]))
    return columns


def _tabulate_block(catalog: Catalog, q: Quantity) -> PageTable:
    """Show a quantity given by name along several axes: the last axis across, the others down."""
    across = catalog.sets[q.over[-1]]
    cells = [write_distribution(e.distribution) for e in catalog.entries(q.name)]
    down = [" / ".join(names[:-1]) for names in catalog.names(q.name)[:: len(across)]]
    columns = [(name, cells[c :: len(across)]) for c, name in enumerate(across)]
    return tabulate_columns(f"{q.name}, {q.unit}", " / ".join(q.over[:-1]), down, columns)


def _tabulate_common(catalog: Catalog) -> PageTable:
    rows = []
    for q in catalog.quantities.values():
        if isinstance(q.recipe, Draws) and not _has_names(q):
            value = write_distribution(catalog.entries(q.name)[0].distribution)
            drawn = f"drawn per {', '.join(q.over) or 'scenario'}" if q.name in catalog.varying else ""
            rows.append([q.name, value, q.unit, drawn])
    return PageTable("common", "The same for every name", ["quantity", "value", "unit", ""], rows)


def _tabulate_rules(catalog: Catalog) -> PageTable:
    rows = []
    for q in catalog.quantities.values():
        if not isinstance(q.recipe, Draws):
            low, high = catalog.ranges[q.name]
            derived = write_rule(q), write_range(low.min(), high.max())
            rows.append([q.name, ", ".join(q.over) or "-", *derived, q.unit])
    return PageTable("rules", "Derived", ["quantity", "per", "rule", "range", "unit"], rows, unwrapped=[0])


def write_rule(q: Quantity) -> str:
    """Write how a derived quantity follows from others."""
    if isinstance(q.recipe, Patched):
        count = len(q.recipe.values)
        return f"{_write_formula(q.recipe.rule)}; {count} value{'s' if count > 1 else ''} given instead"
    return "given" if isinstance(q.recipe, Draws) else _write_formula(q.recipe)


def _write_formula(rule: Rule) -> str:
    match rule:
        case Product(multiply, divide):
            return " / ".join([" x ".join(multiply) or "1", *divide])
        case Level(of, cuts):
            return f"how many of {', '.join(map(exact, cuts))} {of} reaches"
        case WeightedSum(terms, divisor, clip):
            text = ""
            for name, weight in terms:
                sign = (" - " if text else "-") if weight < 0 else (" + " if text else "")
                text += sign + (name if abs(weight) == 1 else f"{exact(abs(weight))} x {name}")
            if divisor != 1:
                text = f"({text}) / {exact(divisor)}" if len(terms) > 1 else f"{text} / {exact(divisor)}"
            return text if clip[0] == -clip[1] else f"{text}, cut to {exact(clip[0])} to {exact(clip[1])}"
        case Classes(of, bounds, entries):
            ends = [f"below {exact(b)}" for b in bounds] + ["otherwise"]
            parts = [
                f"{write_distribution(e.distribution)} {end}{f' ({e.note})' if e.note else ''}"
                for e, end in zip(entries, ends, strict=True)
            ]
            return f"by {of}: " + "; ".join(parts)


def _tabulate_provenance(catalog: Catalog) -> PageTable:
    """Make a row per quantity, and below it one for each group of names whose provenance differs."""
    layered = len(catalog.layers) > 1
    rows = []
    for q in catalog.quantities.values():
        for label, entry in [(q.name, q), *_exceptions(catalog, q)]:
            own = entry is q
            parts = [entry.source] if own or entry.source != q.source else []
            parts += [entry.note] if entry.note and (own or entry.note != q.note) else []
            unit, stars = q.unit if own else "", "*" * (entry.reliability or 0) or "-"
            rows.append([label, unit, stars, *([entry.catalog] if layered else []), "; ".join(parts)])
    heads = ["quantity", "unit", "stars", *(["catalogue"] if layered else []), "source; note"]
    table = PageTable("provenance", "Provenance; reliability from * to *****", heads, rows)
    widest = max(len(name) for name in catalog.quantities)
    return replace(table, unwrapped=range(1, len(heads) - 1), widths={0: widest})


def _exceptions(catalog: Catalog, q: Quantity) -> Iterable[tuple[str, Entry]]:
    """Group the names whose source, reliability or note is not the quantity's; label each group by its names."""
    groups: dict[tuple[str, int | None, str, str], list[tuple[str, Entry]]] = {}
    if _has_names(q) or isinstance(q.recipe, Patched):
        for names in catalog.names(q.name):
            entry = catalog.find_entry(q.name, names)
            if entry is None:  # the rule gives it
                continue
            provenance = (entry.source, entry.reliability, entry.note, entry.catalog)
            if provenance[:3] != (q.source, q.reliability, q.note):
                groups.setdefault(provenance, []).append((" / ".join(names), entry))
    for members in groups.values():
        shown = "".join(f"\n  {name}" for name, _ in members[:_FEW]).removeprefix("\n")
        yield shown + (f"\n  and {len(members) - _FEW} more" if len(members) > _FEW else ""), members[0][1]
