"""Labels that clusters take, and shares in hundredths of a percent."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rodiu_jax.export.names import LONGEST, is_label, make_labels
from rodiu_jax.export.shares import WHOLE, percent_text, split_whole
from tests.export.fleets import HOSTILE


@given(st.lists(st.text(max_size=60), max_size=12), st.sets(st.sampled_from(["x", "a", "unmet"])))
@example(list(HOSTILE), {"unmet"})
@example(["a"] * 12, {"a"})
@example(["y" * 200] * 11, set())
@example(["a-2", "a", "a"], set())
def test_labels_are_of_rfc_1035_and_differ(names: list[str], reserved: set[str]):
    labels = make_labels(names, reserved=reserved)
    assert len(labels) == len(names)
    assert len({*labels, *reserved}) == len(labels) + len(reserved)
    for label in labels:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label)
        assert len(label) <= LONGEST


def test_labels_say_what_they_stand_for():
    names = ["Llama-3.1-8B-H100-tp1", "llama 3.1 8b h100 TP1", "1.5B", "模型"]
    assert make_labels(names) == ("llama-3-1-8b-h100-tp1", "llama-3-1-8b-h100-tp1-2", "x-1-5b", "x")


@pytest.mark.parametrize(
    ("text", "good"), [("default", True), ("-a", False), ("A", False), ("a" * 64, False)]
)
def test_namespaces(text: str, good: bool):
    assert is_label(text) is good


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda x: sum(x) > 1e-9))
@example([0.6382122658983529, 0.3617877341016471])
@example([1.0])
@example([1 / 3] * 3)
def test_parts_add_up_and_are_within_one(shares: list[float]):
    parts = split_whole(shares)
    assert sum(parts) == WHOLE
    total = math.fsum(shares)
    for share, part in zip(shares, parts, strict=True):
        assert abs(part - WHOLE * share / total) < 1
        assert part >= 0


def test_parts_by_hand():
    assert split_whole([1 / 3] * 3) == (3334, 3333, 3333)
    assert split_whole([0.99999, 0.00001]) == (10_000, 0)
    assert (percent_text(6382), percent_text(5), percent_text(WHOLE)) == ("63.82%", "0.05%", "100.00%")
    with pytest.raises(ValueError, match="no share"):
        split_whole([0.0])
