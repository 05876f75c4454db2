"""Numbers as people read them, against the decimal module, which rounds by other code."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.io.number_text import dollars, percent


@given(st.floats(1e-5, 50.0), st.integers(1, 6))
def test_shares_keep_their_digits_and_never_get_an_exponent(share: float, digits: int):
    text = percent(share, digits)
    assert text.endswith("%")
    assert "e" not in text
    exact = Decimal(100 * share)
    rounded = Context(prec=digits, rounding=ROUND_HALF_EVEN).create_decimal(exact)
    whole = exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    if float(rounded) != 100 or share == 1:
        assert float(text[:-1]) == pytest.approx(float(whole if abs(rounded) >= 10**digits else rounded))


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(1.0, 2, "100%"), (0.9999, 2, "99.99%"), (0.996, 2, "99.6%"), (12.34, 3, "1234%"), (1.2, 2, "120%")],
)
def test_shares_near_whole_ones(share: float, digits: int, text: str):
    assert percent(share, digits) == text


def test_what_nobody_proved_is_no_amount():
    assert dollars(-math.inf) == "no bound"
    assert dollars(math.inf) == "no bound"
    assert dollars(-3.0) == "$-3.00"
