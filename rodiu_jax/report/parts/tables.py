"""Tables that a person reads in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from solvers.answers import Answer

_PIPED_WIDTH = 140


def show(parts: Iterable[RenderableType]) -> None:
    """Print tables and text on standard output; as wide as the terminal, or 140 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    for part in parts:
        console.print(part)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> Table:
    """A plain table; the columns at the positions ``numbers`` are right-aligned. Text is shown as it is."""
    from rich.text import Text

    result = Table(title=title, title_justify="left", header_style="bold")
    for position, name in enumerate(columns):
        result.add_column(name, justify="right" if position in numbers else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))  # Text: a name may hold what rich reads as markup
    return result


def number(value: float, digits: int = 2) -> str:
    """A number with thousands separated; a dash for what is not known."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "-"


def interval(low: float, high: float, text: Callable[[float], str] = number) -> str:
    """A range in words, or the one number that both of its ends read as."""
    ends = text(low), text(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def answers_table(answers: Iterable[tuple[int, Answer]]) -> Table:
    """Return a row per scenario: number, status, cost, bound, gap, the parts of the cost and what is deployed."""
    rows = []
    for instance, answer in answers:
        plan = answer.plan
        rows.append(
            [
                str(instance),
                answer.status.word,
                number(answer.upper),
                number(answer.lower),
                f"{answer.gap:.1e}" if math.isfinite(answer.gap) else "-",
                *(number(cost) for cost in answer.costs[1:].tolist()),
                plan.summary() if plan else "-",
                number(answer.seconds),
            ]
        )
    return table(
        "Cheapest robust plans, $ per rental period",
        [
            "scenario",
            "status",
            "total",
            "lower bound",
            "gap",
            "rental",
            "storage",
            "delay",
            "unmet",
            "deployed",
            "s",
        ],
        rows,
        numbers=(0, 2, 3, 4, 5, 6, 7, 8, 10),
    )
