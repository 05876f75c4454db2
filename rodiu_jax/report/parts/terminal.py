"""Shows sections, tables and sentences in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from rodiu_jax.report.parts.section import PageTable, Section

_PIPED_WIDTH = 140


@dataclass(frozen=True)
class Line:
    """A line of text in a style of rich, such as ``bold``."""

    text: str
    style: str = ""


Part = str | Line | PageTable


def show(parts: Iterable[Part]) -> None:
    """Print tables and text on standard output; as wide as the terminal, or 140 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    print_parts(parts, console)


def print_parts(parts: Iterable[Part], console: Console) -> None:
    """Print tables and text on a console of rich. Names and sentences are never read as markup."""
    for part in parts:
        for piece in _render(part, console.width):
            console.print(piece)


def section_parts(section: Section) -> list[Part]:
    """Take a section apart for `show`: its sentences, then its tables."""
    return [*([section.text] if section.text else []), *section.points, *section.tables]


def spaced(parts: Sequence[Part]) -> list[Part]:
    """Put an empty line between the parts."""
    return [piece for part in parts for piece in (part, "")][:-1]


def _render(part: Part, width: int) -> Iterator[RenderableType]:
    if isinstance(part, PageTable):
        groups = _split_columns(part, width) if part.splits else [range(1, len(part.heads))]
        for number, columns in enumerate(groups):
            yield _render_table(part, [0, *columns], " (continued)" if number else "")
    elif isinstance(part, Line):
        yield Text(part.text, style=part.style)
    else:
        yield Text(part)


def _render_table(table: PageTable, columns: Sequence[int], after: str) -> Table:
    """Render some columns of a table, by their positions."""
    title = Text(table.caption + after, style="italic")
    result = Table(title=title, title_justify="left", header_style="bold", show_lines=table.lines)
    for position in columns:
        result.add_column(
            Text(table.heads[position]),
            justify="right" if position in table.numbers else "left",
            overflow="fold",
            no_wrap=position in table.unwrapped,
            max_width=table.widths.get(position),
        )
    for row in table.rows:
        result.add_row(*(Text(row[position]) for position in columns))
    return result


def _split_columns(table: PageTable, width: int) -> list[list[int]]:
    """Group the columns after the first so that each group, beside the first column, fits in ``width``."""

    def needed(position: int) -> int:
        texts = (table.heads[position], *(row[position] for row in table.rows))
        return max(cell_len(line) for text in texts for line in text.split("\n")) + 3

    room = width - needed(0) - 1
    groups: list[list[int]] = [[]]
    left = room
    for position in range(1, len(table.heads)):
        if groups[-1] and needed(position) > left:
            groups.append([])
            left = room
        groups[-1].append(position)
        left -= needed(position)
    return groups
