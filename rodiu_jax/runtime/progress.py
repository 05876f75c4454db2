"""Progress of long work: a live line on standard error where that is a terminal, events for machines where asked."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from rodiu_jax.runtime.events import EventLog

_WINDOW_SECONDS = 60.0
"""The rate is that of the last minute: compiling at the start soon counts no more."""

_EVENT_SECONDS = 1.0
"""An event of progress at most this often."""


class Bar:
    """What the work tells: `advance` as scenarios are done, `part` as rows are on disk, `fault`."""

    def __init__(self, console: Console, stage: str, total: int, done: int, log: EventLog | None) -> None:
        self._console, self._stage, self._total, self._done, self._log = console, stage, total, done, log
        self._started = time.perf_counter()
        self._marks = deque([(self._started, 0)])
        self._said = self._started
        self._live: tuple[Progress, TaskID] | None = None
        self.new = 0
        self.statuses: Counter[str] = Counter()
        self.by_bracket = self.by_exact = 0
        self.widest = math.nan

    def advance(self, status: str = "", gap: float = math.nan, closed_by: str = "", count: int = 1) -> None:
        """Count ``count`` scenarios of one status.

        Args:
          gap: the widest of theirs, nan for none.
          closed_by: who proved them to the gap asked for, ``bracket`` or ``exact``; empty where nobody did.
        """
        self.new += count
        self.statuses[status] += count
        self.by_bracket += count if closed_by == "bracket" else 0
        self.by_exact += count if closed_by == "exact" else 0
        if not math.isnan(gap):
            self.widest = gap if math.isnan(self.widest) else max(self.widest, gap)
        now = time.perf_counter()
        if now - self._marks[-1][0] >= _EVENT_SECONDS:
            self._marks.append((now, self.new))
            while now - self._marks[0][0] > _WINDOW_SECONDS and len(self._marks) > 2:
                self._marks.popleft()
        if self._live is not None:
            progress, task = self._live
            progress.update(task, advance=count, rate=self._rate_text(), proof=self._proof())
        if self._log is not None and now - self._said >= _EVENT_SECONDS:
            self._said = now
            self._log.write("progress", stage=self._stage, **self.numbers())

    def rate(self) -> float:
        """Scenarios per second over the last minute; nan before there is any."""
        since, before = self._marks[0]
        seconds = time.perf_counter() - since
        return (self.new - before) / seconds if seconds > 0 and self.new > before else math.nan

    def numbers(self) -> dict[str, int | float | dict[str, int]]:
        """Where the work is: rows in all and done, rate, seconds left, and of the scenarios of this run the shares
        closed by bracket and by exact solution, the widest gap and the statuses.
        """
        rate, shown = self.rate(), max(self.new, 1)
        return {
            "rows": self._total,
            "done": self._done + self.new,
            "rate": rate,
            "seconds_left": (self._total - self._done - self.new) / rate,
            "closed_by_bracket": self.by_bracket / shown,
            "closed_by_exact": self.by_exact / shown,
            "widest_gap": self.widest,
            "statuses": dict(self.statuses),
        }

    def part(self, path: Path, first: int, rows: int) -> None:
        """Rows ``first``, ``first + 1``, ... are on disk."""
        if self._log is not None:
            self._log.write("part", path=str(path), first=first, rows=rows)

    def fault(self, message: str) -> None:
        """Something was lost and is done again: printed wherever standard error leads, quiet or not."""
        self._console.print(escape(message), soft_wrap=True, highlight=False)
        if self._log is not None:
            self._log.write("fault", message=message)

    def _rate_text(self) -> str:
        rate = self.rate()
        return "" if math.isnan(rate) else f"{rate:.3g}/s"

    def _proof(self) -> str:
        """How far the scenarios of this run are proven, in words; empty where none has a method."""
        parts = []
        if self.by_bracket or self.by_exact:
            shares = (self.by_bracket / self.new, self.by_exact / self.new)
            parts.append("closed {:.0%} by bracket, {:.0%} exactly".format(*shares))
        if not math.isnan(self.widest):
            parts.append(f"widest gap {self.widest:.2g}")
        return ", ".join(parts)

    def ending(self) -> str:
        """One line about what was done."""
        seconds = max(time.perf_counter() - self._started, 1e-6)
        counts = ", ".join(f"{n} {status}" for status, n in self.statuses.most_common())
        before = f", {self._done} from before" if self._done else ""
        done = f" in {seconds:.1f} s ({self.new / seconds:.3g}/s): {counts}" if self.new else ""
        proof = f"; {self._proof()}" if self._proof() else ""
        return f"{self.new} scenarios{done}{before}{proof}; {self._done + self.new} of {self._total} rows"


@contextmanager
def progress(
    title: str,
    total: int,
    *,
    done: int = 0,
    where: str = "",
    quiet: bool = False,
    stage: str = "rows",
    log: EventLog | None = None,
) -> Iterator[Bar]:
    """Show how far the work is: rate, time left, share proven and how, the widest gap, where the rows are.

    Where standard error is no terminal nothing but faults is printed.

    Args:
      total: scenarios in all, of which ``done`` were there before.
      where: folder the rows go to.
      quiet: show nothing in a terminal either.
      stage: what the events of ``log`` call this work.
    """
    console = Console(stderr=True)
    bar = Bar(console, stage, total, done, log)
    if not console.is_terminal or quiet:
        yield bar
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[proof]}"),
        TextColumn(escape(where)),
    )
    live = Progress(*columns, console=console, transient=True, refresh_per_second=4)
    with live:
        bar._live = live, live.add_task(escape(title), total=total, completed=done, rate="", proof="")
        try:
            yield bar
        finally:
            bar._live = None
    if where:
        console.print(escape(f"{title}: {bar.ending()} in {where}"), soft_wrap=True, highlight=False)
