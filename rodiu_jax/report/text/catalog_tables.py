"""A catalogue as tables: values side by side, distributions, rules in words, and where numbers came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rodiu_jax.catalog import (
    Catalog,
    Classes,
    Distribution,
    Draws,
    Entry,
    Level,
    Product,
    Quantity,
    WeightedSum,
)
from rodiu_jax.catalog.file_format import AXES, Axis
from rodiu_jax.report.parts.tables import interval, table

_PLURALS: dict[Axis, str] = {
    "query": "Query types",
    "model": "Models",
    "gpu": "GPU configurations",
    "tp": "Tensor-parallel degrees",
}
_FEW = 4


def describe_catalog(catalog: Catalog) -> list[RenderableType]:
    """A catalogue as tables: one per axis, what is the same for all names, rules, provenance."""
    parts: list[RenderableType] = [_heading(catalog)]
    for axis in AXES:
        if columns := _axis_columns(catalog, axis):
            parts.append(SplitTable(_PLURALS[axis], axis, catalog.sets[axis], columns))
        else:
            parts.append(Text(f"{_PLURALS[axis]}: {', '.join(catalog.sets[axis])}"))
    parts += [_block(catalog, q) for q in catalog.quantities.values() if len(q.over) > 1 and _has_names(q)]
    parts += [_same_for_all(catalog), _rules(catalog), _provenance(catalog)]
    return [part for pair in zip(parts, [Text("")] * len(parts), strict=True) for part in pair][:-1]


def short(distribution: Distribution) -> str:
    """A distribution as in formulas: ``512``, ``U(80, 120)``, ``N(1, 0.1) in [0, 2]``, ``one of 2, 4``."""
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


def exact(value: float) -> str:
    """A number as a catalogue states it."""
    return f"{value:.12g}"


def span(low: float, high: float) -> str:
    """A derived range, or the one number that it is."""
    return interval(low, high, "{:.5g}".format)


@dataclass(frozen=True)
class SplitTable:
    """A table with a row per name, cut into groups of columns where the console is too narrow for all.

    ``columns`` are (heading, cells); a heading may have two lines.
    """

    title: str
    corner: str
    names: Sequence[str]
    columns: Sequence[tuple[str, Sequence[str]]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def width(heading: str, cells: Sequence[str]) -> int:
            return max(cell_len(line) for text in (heading, *cells) for line in text.split("\n")) + 3

        first = width(self.corner, self.names) + 1
        groups: list[list[tuple[str, Sequence[str]]]] = [[]]
        room = options.max_width - first
        for heading, cells in self.columns:
            need = width(heading, cells)
            if groups[-1] and need > room:
                groups.append([])
                room = options.max_width - first
            groups[-1].append((heading, cells))
            room -= need
        for number, group in enumerate(groups):
            yield table(
                escape(self.title) + (" (continued)" if number else ""),
                [self.corner, *(escape(heading) for heading, _ in group)],
                zip(self.names, *(cells for _, cells in group), strict=True),
                numbers=[
                    c + 1 for c, (_, cells) in enumerate(group) if all(_is_number(cell) for cell in cells)
                ],
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _heading(catalog: Catalog) -> Text:
    heading = Text(catalog.name, style="bold")
    if catalog.description:
        heading.append(f": {catalog.description}", style="not bold")
    if len(catalog.layers) > 1:
        heading.append(
            f"\nextends {', which extends '.join(reversed(catalog.layers[:-1]))}", style="not bold"
        )
    heading.append(
        "\nU(a, b): drawn uniformly, anew for each name and scenario (N: normal, LogU: log-uniform)."
        " a to b: range of what is derived.",
        style="not bold",
    )
    return heading


def _has_names(q: Quantity) -> bool:
    return isinstance(q.recipe, Draws) and bool(q.recipe.values) and bool(q.over)


def _headed(q: Quantity) -> str:
    return q.name if q.unit == "-" else f"{q.name}\n{q.unit}"


def _axis_columns(catalog: Catalog, axis: Axis) -> list[tuple[str, Sequence[str]]]:
    """Labels, then every quantity over this axis alone that differs by name."""
    labels = catalog.attributes.get(axis, {})
    keys = dict.fromkeys(key for name in catalog.sets[axis] for key in labels.get(name, {}))
    columns: list[tuple[str, Sequence[str]]] = [
        (key, [labels.get(name, {}).get(key, "-") for name in catalog.sets[axis]]) for key in keys
    ]
    for q in catalog.quantities.values():
        if q.over != (axis,):
            continue
        if _has_names(q):
            columns.append((_headed(q), [short(e.distribution) for e in catalog.entries(q.name)]))
        elif not isinstance(q.recipe, Draws):
            low, high = catalog.ranges[q.name]
            columns.append((_headed(q), [span(a, b) for a, b in zip(low, high, strict=True)]))
    return columns


def _block(catalog: Catalog, q: Quantity) -> SplitTable:
    """A quantity given by name along several axes: the last axis across, the others down."""
    across = catalog.sets[q.over[-1]]
    cells = [short(e.distribution) for e in catalog.entries(q.name)]
    down = [" / ".join(names[:-1]) for names in catalog.names(q.name)[:: len(across)]]
    columns = [(name, cells[c :: len(across)]) for c, name in enumerate(across)]
    return SplitTable(f"{q.name}, {q.unit}", " / ".join(q.over[:-1]), down, columns)


def _same_for_all(catalog: Catalog) -> Table:
    rows = []
    for q in catalog.quantities.values():
        if isinstance(q.recipe, Draws) and not _has_names(q):
            value = short(catalog.entries(q.name)[0].distribution)
            drawn = f"drawn per {', '.join(q.over) or 'scenario'}" if q.name in catalog.varying else ""
            rows.append([q.name, value, q.unit, drawn])
    return table("The same for every name", ["quantity", "value", "unit", ""], rows)


def _rules(catalog: Catalog) -> Table:
    rows = []
    for q in catalog.quantities.values():
        if not isinstance(q.recipe, Draws):
            low, high = catalog.ranges[q.name]
            rows.append([q.name, ", ".join(q.over) or "-", rule(q), span(low.min(), high.max()), q.unit])
    return _first_whole(table("Derived", ["quantity", "per", "rule", "range", "unit"], rows))


def rule(q: Quantity) -> str:
    """How a derived quantity follows from others, in words."""
    match q.recipe:
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
                f"{short(e.distribution)} {end}{f' ({e.note})' if e.note else ''}"
                for e, end in zip(entries, ends, strict=True)
            ]
            return f"by {of}: " + "; ".join(parts)
    return "given"


def _provenance(catalog: Catalog) -> Table:
    """A row per quantity, and below it what differs for some of its names."""
    layered = len(catalog.layers) > 1
    rows = []
    for q in catalog.quantities.values():
        for label, said in [(q.name, q), *_exceptions(catalog, q)]:
            own = said is q
            parts = [said.source] if own or said.source != q.source else []
            parts += [said.note] if said.note and (own or said.note != q.note) else []
            stars = "*" * (said.reliability or 0) or "-"
            row = [
                label,
                q.unit if own else "",
                stars,
                *([said.catalog] if layered else []),
                "; ".join(parts),
            ]
            rows.append(row)
    columns = ["quantity", "unit", "stars", *(["catalogue"] if layered else []), "source; note"]
    result = table("Provenance; reliability from * to *****", columns, rows)
    result.columns[0].max_width = max(len(name) for name in catalog.quantities)
    for column in result.columns[1:-1]:
        column.no_wrap = True
    return result


def _exceptions(catalog: Catalog, q: Quantity) -> Iterable[tuple[str, Entry]]:
    """The names whose source, reliability or note is not the quantity's, those alike together."""
    groups: dict[tuple[str, int | None, str, str], list[tuple[str, Entry]]] = {}
    if _has_names(q):
        for names, entry in zip(catalog.names(q.name), catalog.entries(q.name), strict=True):
            said = (entry.source, entry.reliability, entry.note, entry.catalog)
            if said[:3] != (q.source, q.reliability, q.note):
                groups.setdefault(said, []).append((" / ".join(names), entry))
    for members in groups.values():
        shown = "".join(f"\n  {name}" for name, _ in members[:_FEW]).removeprefix("\n")
        yield shown + (f"\n  and {len(members) - _FEW} more" if len(members) > _FEW else ""), members[0][1]


def _first_whole(result: Table) -> Table:
    result.columns[0].no_wrap = True
    return result
