"""Progress of long work on standard error: a live line in a terminal, a plain one now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_PLAIN_SECONDS = 30.0
"""Where nobody watches, a line at most this often."""


class Bar:
    """What the work tells: one `advance` per finished scenario."""

    def __init__(self, console: Console, title: str, total: int, done: int) -> None:
        self._console, self._title, self._total, self._done = console, title, total, done
        self._started = self._said = time.perf_counter()
        self._live: tuple[Progress, TaskID] | None = None
        self.statuses: Counter[str] = Counter()
        self.widest = math.nan

    def advance(self, status: str = "", gap: float = math.nan) -> None:
        """Count one scenario; ``gap`` is its relative gap, nan where it has none."""
        self.statuses[status] += 1
        self.widest = gap if math.isnan(self.widest) else max(self.widest, gap)
        if self._live is not None:
            progress, task = self._live
            gap_text = "" if math.isnan(self.widest) else f"widest gap {self.widest:.2g}"
            progress.update(task, advance=1, gap=gap_text)
        elif time.perf_counter() - self._said >= _PLAIN_SECONDS:
            self._said = time.perf_counter()
            new = self.statuses.total()
            done, rate = self._done + new, new / (self._said - self._started)
            left = str(timedelta(seconds=round((self._total - done) / rate)))
            self.say(f"{self._title}: {done} of {self._total}, {rate:.3g}/s, {left} left")

    def say(self, message: str) -> None:
        """Print a line without disturbing the live one."""
        self._console.print(escape(message), soft_wrap=True, highlight=False)


@contextmanager
def progress(title: str, total: int, *, done: int = 0, where: str = "", quiet: bool = False) -> Iterator[Bar]:
    """Show how far the work is, its rate, the time left, the widest gap and where the rows are.

    Args:
      total: scenarios in all, of which ``done`` were there before.
      where: folder the rows go to.
      quiet: print nothing.
    """
    console = Console(stderr=True, quiet=quiet)
    bar = Bar(console, title, total, done)
    started = time.perf_counter()
    if console.is_terminal and not quiet:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[gap]}"),
            TextColumn(escape(where)),
        )
        live = Progress(*columns, console=console, transient=True, refresh_per_second=4)
        with live:
            bar._live = live, live.add_task(escape(title), total=total, completed=done, gap="")
            try:
                yield bar
            finally:
                bar._live = None
    else:
        yield bar
    if where:
        bar.say(f"{title}: {_ending(bar, total, done, time.perf_counter() - started)} in {where}")


class _Rate(ProgressColumn):
    """Scenarios per second over the last of them."""

    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text(f"{speed:.2g}/s" if speed else "", style="progress.data.speed")


def _ending(bar: Bar, total: int, done: int, seconds: float) -> str:
    new = bar.statuses.total()
    counts = ", ".join(f"{n} {status}" for status, n in bar.statuses.most_common())
    before = f", {done} from before" if done else ""
    rate = f" in {seconds:.1f} s ({new / seconds:.3g}/s): {counts}" if new else ""
    return f"{new} scenarios{rate}{before}; {done + new} of {total} rows"
