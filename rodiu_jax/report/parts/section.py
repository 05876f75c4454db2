"""A section of a page: words, pictures and tables, in the order of reading; the terminal shows it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rodiu_jax.report.parts.tables import table as text_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class Shown:
    """A picture by its name, and in words for who cannot see it."""

    name: str
    description: str


@dataclass(frozen=True)
class Picture(Shown):
    """A figure and the table it is drawn from; no other of its folder has its name."""

    table: pd.DataFrame
    figure: Figure


@dataclass(frozen=True)
class PageTable:
    """A table as people see it; ``data`` is the whole of it, kept as ``<name>.csv``."""

    name: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    data: pd.DataFrame | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page; ``points`` are short sentences listed below the ``text``.

    ``place`` is the folder that holds its files already, relative to the page; empty where they go to ``figures`` and
    ``tables``.
    """

    name: str
    title: str
    text: str
    points: Sequence[str] = ()
    pictures: Sequence[Shown] = ()
    tables: Sequence[PageTable] = ()
    place: str = ""


def terminal(section: Section) -> list[RenderableType]:
    """Its sentences, then its tables."""
    from rich.text import Text

    said = [*([section.text] if section.text else []), *section.points]
    return [
        *(Text(line) for line in said),
        *(text_table(t.caption, t.heads, t.rows, numbers=t.numbers) for t in section.tables),
    ]
