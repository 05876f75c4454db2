"""What an answer claims about a scenario, and who proved it: two enumerations with a small code and a word each.

Arrays hold the codes (int8), files hold the words, pages show the sentences.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TypeVar

import numpy as np
from jaxtyping import Int8

E = TypeVar("E", bound="_Coded")


class _Coded(IntEnum):
    """An enumeration whose members have a code for arrays, a word for files and a sentence for people."""

    word: str
    sentence: str

    def __new__(cls, code: int, word: str, sentence: str) -> _Coded:
        member = int.__new__(cls, code)
        member._value_ = code
        member.word, member.sentence = word, sentence
        return member

    @classmethod
    def of(cls: type[E], word: str) -> E:
        """Return the member that files call ``word``.

        Raises:
          ValueError: there is none.
        """
        for member in cls:
            if member.word == word:
                return member
        raise ValueError(f"{word!r} is none of {', '.join(m.word for m in cls)}")

    @classmethod
    def words(cls, codes: Int8[np.ndarray, "*B"]) -> np.ndarray:
        """Return the word of each code."""
        return np.array([member.word for member in cls], object)[codes]

    @classmethod
    def codes(cls, words: Iterable[str]) -> Int8[np.ndarray, " B"]:
        """Return the code of each word.

        Raises:
          ValueError: a word is none of theirs.
        """
        return np.array([cls.of(word) for word in words], np.int8)


class Status(_Coded):
    """What is proven about the optimum of one scenario. Never optimistic: ``TIME_LIMIT`` is not ``OPTIMAL``."""

    OPTIMAL = 0, "optimal", "proven optimal, to a gap of one millionth"
    GAP_LIMIT = 1, "gap_limit", "proven to within the gap asked for"
    TIME_LIMIT = 2, "time_limit", "stopped by the time limit, bracket valid"
    BRACKET = 3, "bracket", "bracket valid, but wider than the gap asked for"
    FEASIBLE = 4, "feasible", "a plan that keeps every promise, no lower bound asked for"
    INFEASIBLE = 5, "infeasible", "proven to have no plan"
    UNKNOWN = 6, "unknown", "no plan found, none excluded"
    ERROR = 7, "error", "failed; its message says why"

    @property
    def closed(self) -> bool:
        """True if the proof is complete to the gap asked for: nothing is left to solve."""
        return self in (Status.OPTIMAL, Status.GAP_LIMIT, Status.INFEASIBLE)

    @property
    def has_plan(self) -> bool:
        """True if an answer of this status always holds a checked plan."""
        return self in (Status.OPTIMAL, Status.GAP_LIMIT, Status.BRACKET, Status.FEASIBLE)

    @property
    def two_sided(self) -> bool:
        """True if both bounds of an answer of this status are always finite."""
        return self.has_plan and self is not Status.FEASIBLE


class Prover(_Coded):
    """Who proved an answer; the table's column ``method``."""

    EXACT = 0, "exact", "HiGHS"
    BRACKET = 1, "bracket", "dual ascent and branching on the device"
    BRACKET_EXACT = 2, "bracket+exact", "a bracket on the device, then HiGHS"
    EVALUATE = 3, "evaluate", "given plans, evaluated and checked; nothing is proven from below"
    OTHER = 4, "other", "a method that is not part of this package"

    @property
    def uses_highs(self) -> bool:
        """True if HiGHS took part, so that a lower bound may rest on it."""
        return self in (Prover.EXACT, Prover.BRACKET_EXACT)

    def closes(self, status: Status) -> str:
        """Return who is told to have closed an answer of ``status``: ``exact``, ``bracket``, or nobody (empty)."""
        if not status.closed:
            return ""
        return Prover.EXACT.word if self.uses_highs else self.word
