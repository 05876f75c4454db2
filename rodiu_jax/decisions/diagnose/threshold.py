"""Where a condition begins to hold along one number, when every question about it is a solve: bisection in rounds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Proof = TypeVar("Proof")
Answer = TypeVar("Answer")


@dataclass
class Threshold(Generic[Proof]):
    """The interval in which a condition begins to hold, and the value to try next.

    Attributes:
      low: the condition is proven not to hold up to here.
      ask: the next value to try; None where nothing is left to ask.
      high, proof: the condition holds here, as ``proof`` shows; None where it was never seen to hold.
    """

    low: float
    ask: float | None
    high: float | None = None
    proof: Proof | None = None

    def hold(self, at: float, proof: Proof) -> None:
        """Learn that the condition holds at ``at``."""
        self.high, self.proof = at, proof

    def fail(self, at: float) -> None:
        """Learn that the condition is proven not to hold at ``at``."""
        self.low = max(self.low, at)


def narrow(
    thresholds: dict[Key, Threshold[Proof]],
    rounds: int,
    solve: Callable[[Sequence[tuple[Key, float]]], Iterable[Answer]],
    learn: Callable[[Key, Threshold[Proof], float, Answer], float | None],
) -> None:
    """Narrow many thresholds side by side, in at most ``rounds`` rounds.

    Args:
      solve: answers the questions (key, value) of a round, in order.
      learn: takes an answer in (`Threshold.hold`, `Threshold.fail`) and returns the value to ask next, or None.
    """
    for _ in range(rounds):
        questions = [(key, t.ask) for key, t in thresholds.items() if t.ask is not None]
        if not questions:
            return
        for (key, value), answer in zip(questions, solve(questions), strict=True):
            threshold = thresholds[key]
            threshold.ask = learn(key, threshold, value, answer)


def last_false(condition: Callable[[float], bool], low: float, high: float, rounds: int) -> float:
    """Bisect towards the largest value at which a condition is false, which it is at ``low`` and not at ``high``."""
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return low
