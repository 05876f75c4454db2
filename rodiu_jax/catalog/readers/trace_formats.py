"""The formats of traces: which columns they have, and how their clocks, counts and prefix blocks are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rodiu_jax.errors import InputError

Unit = Literal["s", "ms"]
MICROSECONDS = {"s": 1_000_000, "ms": 1_000}
EPOCH = 10**9
"""Seconds. Larger numbers on a clock are counted from 1970, as no trace is 31 years long."""

PLAIN = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
DATE = re.compile(
    r"\s*(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?\s*(Z|[+-]\d{2}:?\d{2}|[+-]\d{2})?)?\s*",
    re.ASCII,
)
EXPECTED_DATE = "a date and time such as 2023-11-16 18:17:03.9799600"
EXPECTED_COUNT = "a whole number >= 0"


@dataclass(frozen=True)
class Layout:
    """Which columns of a trace hold what.

    Attributes:
      unit: of a clock that counts; None where the format has dates.
      prefix: column of ids of prefix blocks, where there is one.
    """

    name: str
    time: str
    input: str
    output: str
    unit: Unit | None = None
    prefix: str | None = None

    @property
    def columns(self) -> tuple[str, str, str]:
        """The three columns that every request has."""
        return self.time, self.input, self.output


LAYOUTS = (
    Layout("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    Layout("BurstGPT", "Timestamp", "Request tokens", "Response tokens", "s"),
    Layout("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens", "s"),
    Layout("Mooncake", "timestamp", "input_length", "output_length", "ms", "hash_ids"),
    Layout("fleet-sim", "timestamp", "prompt_tokens", "generated_tokens", "s"),
)
"""Public formats, told by their columns; the unit of each clock is that of the format's own documentation."""


class Prefix:
    """Counts the tokens of prompts whose blocks an earlier request already had, from the start of the prompt.

    The ids of Mooncake's traces stand for 512 tokens each, the last one perhaps for fewer, and an id names its block
    together with all blocks before it. The count is that of a cache that never forgets: what sharing could save.
    """

    BLOCK = 512

    def __init__(self, column: str | None) -> None:
        self.column, self.seen, self.total, self.prompts = column, set[int](), 0, 0
        self.found, self.odd = False, 0

    @property
    def saved(self) -> int | None:
        return self.total if self.found and not self.odd else None

    @property
    def note(self) -> str:
        if not self.found:
            return ""
        if self.odd:
            said = f"in {self.odd:,} requests {self.column} are not the blocks of {self.BLOCK} tokens of the prompt"
            return f"{said}: shared prefixes are not counted"
        share = self.total / max(self.prompts, 1)
        return (
            f"{self.total:,} of {self.prompts:,} prompt tokens ({share:.3g} of them) are blocks of {self.BLOCK} that "
            "an earlier request had: a prefix cache that forgets nothing would save them; lengths count them"
        )

    def add(self, row: Mapping[str, Any], tokens: int, path: Path, line: int) -> None:
        if self.column is None or self.column not in row:
            return
        ids = row[self.column]
        if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise InputError(path, f"line {line}: {self.column}", "a list of whole numbers", ids)
        self.found = True
        self.odd += len(ids) not in (-(-tokens // self.BLOCK), tokens // self.BLOCK)
        known = 0
        while known < len(ids) and ids[known] in self.seen:
            known += 1
        self.total += min(known * self.BLOCK, tokens)
        self.prompts += tokens
        self.seen.update(ids)


def columns_wanted(columns: Mapping[str, str] | None) -> Sequence[str]:
    """List the columns of a trace: those that were named, or Azure's."""
    return tuple(columns.values()) if columns else LAYOUTS[0].columns


def parse_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, str) and len(value) < 400 and PLAIN.fullmatch(value):
        return float(value)
    return None


def parse_date(value: Any) -> int | None:
    """Microseconds since 1970 of an ISO 8601 date; UTC where it names no zone; None where it is none."""
    found = DATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    zone = found[4] or "Z"
    zone = "+00:00" if zone == "Z" else zone
    try:
        when = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}{zone}")
    except ValueError:
        return None
    whole = (when - datetime(1970, 1, 1, tzinfo=UTC)) // _SECOND
    return whole * 1_000_000 + int((found[3] or "0").ljust(6, "0")[:6])


_SECOND = datetime(1970, 1, 1, 0, 0, 1) - datetime(1970, 1, 1)
