"""Events of long work, for machines: one JSON object a line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rodiu_jax.errors import InputError


@runtime_checkable
class Writable(Protocol):
    """A stream of text: a file, standard output, or what stands in its place."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> None: ...


class EventLog:
    """Lines of JSON, each written through at once, so that a reader sees them as they happen."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def write(self, event: str, **values: Any) -> None:
        """Write one event: its name, the time (UTC), and values; a number that is not finite becomes null."""
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._stream.write(json.dumps(line | finite, allow_nan=False) + "\n")
        self._stream.flush()


@contextmanager
def event_log(target: str | Path | None) -> Iterator[EventLog | None]:
    """Open a log: a file, which is added to, ``-`` for standard output, or None for no log.

    Raises:
      InputError: the file cannot be written.
    """
    if target is None:
        yield None
    elif str(target) == "-":
        yield EventLog(sys.stdout)
    else:
        try:
            stream = Path(target).open("a", encoding="utf-8")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise InputError(
                "log", "", f"a file that can be written ({error.strerror})", str(target)
            ) from None
        with stream:
            yield EventLog(stream)
