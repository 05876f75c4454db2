"""The two ways the program stops: input that a person must mend, and work that failed."""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

_LONGEST_VALUE = 80
_LONGEST_PART = 600
"""Of a place or of what was expected, such as all names of a catalogue."""


def one_line(text: str) -> str:
    """``text`` without line breaks, and with signs that do not print (such as a terminal's commands) written out."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text.replace("\n", " "))


def shortened(text: str, most: int) -> str:
    """``text`` or both of its ends: a path is told apart by its last part."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


class _Absent(Enum):
    """That no value was found: the same one in every process."""

    VALUE = 0


class InputError(ValueError):
    """Bad usage or bad input: one line that names file, field, value and what was expected (exit status 2).

    Args:
      source: file or option the value came from.
      field: path of the value inside it, such as ``deployments[0].tp``; empty for the file as a whole.
      value: the value found, shortened when long; omit it where there is none (a missing field).
      expected: what would have been accepted.
    """

    def __init__(self, source: str | Path, field: str, expected: str, value: object = _Absent.VALUE) -> None:
        self.source, self.field, self.expected, self.value = str(source), field, expected, value
        parts = [str(source)] + ([field] if field else [])
        if value is not _Absent.VALUE:
            expected = f"got {shortened(_repr(value), _LONGEST_VALUE)}, expected {shortened(expected, _LONGEST_PART)}"
        else:
            expected = f"expected {shortened(expected, _LONGEST_PART)}"
        super().__init__(one_line(": ".join([*(shortened(p, _LONGEST_PART) for p in parts), expected])))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)

    def move_to(self, source: str, field: str) -> InputError:
        """Return the same complaint about another place, such as the option that gave an argument its value."""
        return InputError(source, field, self.expected, self.value)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} too large to show"


def _reduce(error: BaseException) -> tuple[Any, ...]:
    """Return how to carry an error to another process: as it is, where Python would make it anew from its text."""
    return copyreg.__newobj__, (type(error), *error.args), error.__dict__  # pyright: ignore[reportAttributeAccessIssue]


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint with the known name that looks most like ``name``; empty where none does."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class WorkFailed(RuntimeError):
    """The input was right but the work could not be done (exit status 1)."""


def device_failure(error: RuntimeError) -> str | None:
    """What an error of the device that JAX computes on comes to, in words; None where it is another error.

    Told by its class's name, so that JAX need not be imported.
    """
    if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
        return None
    said = str(error).split("\n")[0]
    if "RESOURCE_EXHAUSTED" in said:
        return (
            f"the device has not enough memory: another program may hold it, or use fewer scenarios ({said})"
        )
    return f"the device failed ({said})"


class AuditFailed(WorkFailed):
    """Two proofs about one scenario contradict each other: one of them is wrong, so the work stops.

    Attributes:
      instance: the scenario's position in the batch.
      evidence: what both said, as JSON values.
    """

    def __init__(self, message: str, instance: int, evidence: dict[str, object]) -> None:
        super().__init__(message)
        self.instance, self.evidence = instance, evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)
