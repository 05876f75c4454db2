"""What pages and terminals are made of: sections with words, pictures and tables, in the order of reading.

`rodiu_jax.report.parts.terminal` prints them, `rodiu_jax.report.page.html` writes them as HTML; everything else that
shows a table makes a `PageTable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """A picture by its name, with a description for readers who cannot see it."""

    name: str
    description: str


@dataclass(frozen=True)
class Picture(Shown):
    """A figure and the table it is drawn from; no other picture of the same folder has its name."""

    table: pd.DataFrame
    figure: Figure


@dataclass(frozen=True)
class PageTable:
    """A table as people read it.

    Attributes:
      name: of its CSV file.
      caption: its title.
      heads: the column heads; one of several lines has line breaks.
      rows: the cells as text, a sequence per row.
      numbers: positions of the columns that hold numbers, which are aligned at the right.
      data: the whole of what ``rows`` may show in part, kept as ``<name>.csv``.
      splits: a terminal too narrow for all columns gets groups of them, one below the other, each with the first.
      lines: the terminal draws a line between rows, as cells have several lines.
      unwrapped: positions of the columns that the terminal never wraps.
      widths: most characters of a column in the terminal, by position.
    """

    name: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    data: pd.DataFrame | None = None
    splits: bool = False
    lines: bool = False
    unwrapped: Sequence[int] = ()
    widths: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      name: names its place in the page.
      title: its heading.
      text: its first paragraph.
      points: short sentences, listed below the text.
      pictures, tables: shown below, in this order.
      place: the folder that holds its files already, relative to the page; empty where a report writes them to
        ``figures`` and ``tables``.
    """

    name: str
    title: str
    text: str
    points: Sequence[str] = ()
    pictures: Sequence[Shown] = ()
    tables: Sequence[PageTable] = ()
    place: str = ""
