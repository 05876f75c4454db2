"""The command line in this process, under an alarm: what it ends with and says, and whether that is fit for a user."""

import contextlib
import io
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from rodiu_jax.cli import main

LONGEST = 120.0
"""Seconds after which a command counts as hanging; a shared machine is slow, a hang is for ever."""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Hangs(Exception):
    """The command did not end."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def rodiu(*args: object) -> Ran:
    """Call the entry point; any exception but its own way of ending comes out, as a user would see it."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace") for _ in range(2))
    kept, sys.argv = sys.argv, ["rodiu", *map(str, args)]
    code = 0
    try:
        with (
            _alarm(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error")
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 99
    finally:
        sys.argv = kept
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.buffer.read().decode("utf-8"))
    return Ran(code, *texts)


def fit(ran: Ran, *names: object) -> Ran:
    """Check the promise of every command: status 0, 1 or 2; bad input is one line that names what it is about.

    Args:
      names: one of these stands in the line of status 2.
    """
    assert ran.code in (0, 1, 2), ran
    assert "Traceback" not in ran.err, ran.err
    if ran.code == 2:
        *before, last = ran.err.splitlines()
        assert all(line.endswith("; its rows are done again") for line in before), ran.err
        assert last.startswith("rodiu: "), ran.err
        assert len(ran.err) < 2000, ran.err
        assert not names or any(str(name) in ran.err for name in names), (ran.err, names)
    elif ran.code == 1:
        assert ran.err.splitlines()[-1].startswith("rodiu: "), ran.err
    return ran
