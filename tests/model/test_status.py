"""Statuses and provers: codes, words, and what each claims."""

import numpy as np
import pytest

from rodiu_jax.model.status import Prover, Status


def test_codes_and_words_are_inverse():
    for kind in (Status, Prover):
        assert [int(m) for m in kind] == list(range(len(kind)))  # codes are positions in tables of words
        assert [kind.of(m.word) for m in kind] == list(kind)
        words = kind.words(np.arange(len(kind), dtype=np.int8))
        np.testing.assert_array_equal(kind.codes(words), list(kind))
    with pytest.raises(ValueError, match="optimal"):
        Status.of("solved")


def test_what_statuses_claim():
    claims = {
        "optimal": {"closed", "has_plan", "two_sided"},
        "gap_limit": {"closed", "has_plan", "two_sided"},
        "time_limit": set(),
        "bracket": {"has_plan", "two_sided"},
        "feasible": {"has_plan"},
        "infeasible": {"closed"},
        "unknown": set(),
        "error": set(),
    }
    assert claims == {
        s.word: {n for n in ("closed", "has_plan", "two_sided") if getattr(s, n)} for s in Status
    }
    assert {p.word for p in Prover if p.uses_highs} == {"exact", "bracket+exact"}
