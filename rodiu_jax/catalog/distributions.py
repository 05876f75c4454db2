"""The distribution from which one number of a catalogue is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Distribution:
    """The distribution of one number.

    ``numbers`` by kind: fixed (value), uniform and log_uniform (low, high), normal (mean, sd, low, high; cut
    to [low, high]), choice (the values, equally likely).
    """

    KINDS: ClassVar[tuple[str, ...]] = ("fixed", "uniform", "log_uniform", "normal", "choice")

    kind: str
    numbers: tuple[float, ...]

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        if self.kind in ("fixed", "choice"):
            return min(self.numbers), max(self.numbers)
        return self.numbers[-2], self.numbers[-1]

    @property
    def mean(self) -> float:
        """The mean of the draws."""
        match self.kind:
            case "uniform":
                return sum(self.numbers) / 2.0
            case "log_uniform":
                low, high = self.numbers
                return (high - low) / math.log(high / low) if high > low else low
            case "normal":
                mean, sd, low, high = self.numbers
                _, _, inside = self.tail_masses()
                below, above = (math.exp(-0.5 * ((x - mean) / sd) ** 2) for x in (low, high))
                value = mean + sd * (below - above) / (math.sqrt(2.0 * math.pi) * inside)
                return min(max(value, low), high)
        return math.fsum(self.numbers) / len(self.numbers)

    def scaled(self, factor: float) -> Distribution:
        """Return the distribution of so many times the number, for a factor above 0."""
        return Distribution(self.kind, tuple(number * factor for number in self.numbers))

    @property
    def varies(self) -> bool:
        """True if more than one value is possible."""
        return self.range[0] < self.range[1]

    def fault(self) -> str:
        """Say what the numbers should have been; empty where they are right."""
        if not self.numbers:
            return "at least one value"
        low, high = self.range
        if not low <= high:
            return "low <= high"
        if self.kind == "fixed":
            return ""
        if not math.isfinite(high - low):
            return "a finite high - low"
        if self.kind == "log_uniform" and not low > 0:
            return "low > 0"
        if self.kind == "normal":
            if not self.numbers[1] > 0:
                return "sd > 0"
            if not low < high:
                return "low < high"
            if not self.tail_masses()[2] > 0:
                return "a range within about 37 sd of the mean"
        return ""

    def tail_masses(self) -> tuple[float, float, float]:
        """Return, of a normal, the signed sd and the standard normal's mass below the range and inside it.

        A range above the mean is mirrored (negative sd), so that the masses are small numbers computed
        exactly instead of differences from 1.
        """
        mean, sd, low, high = self.numbers
        a, b = (low - mean) / sd, (high - mean) / sd
        if a > 0:
            a, b, sd = -b, -a, -sd
        below, up_to = (0.5 * math.erfc(-x / math.sqrt(2.0)) for x in (a, b))
        return sd, below, up_to - below

    def __str__(self) -> str:
        """Write the distribution in words, for tables."""
        n = [f"{x:.12g}" for x in self.numbers]
        if self.kind == "fixed":
            return n[0]
        if self.kind == "normal":
            return f"normal, mean {n[0]}, sd {n[1]}, cut to {n[2]} to {n[3]}"
        if self.kind == "choice":
            low, high = self.range
            few = ", ".join(n)
            return (
                f"choice of {few}" if len(n) <= 6 else f"choice of {len(n)} values, {low:.12g} to {high:.12g}"
            )
        return f"{self.kind.replace('_', '-')} {n[0]} to {n[1]}"
