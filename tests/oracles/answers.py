"""Comparing answers: every column, to the last bit."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from solvers.answers import Answers

ARRAYS = tuple(f.name for f in fields(Answers) if f.name not in ("names", "leaves", "promising", "seconds"))


def assert_same(found: Answers, expected: Answers) -> None:
    """Fail unless both claim the same of the same number of scenarios, with the same plans."""
    width = max(found.slots.shape[1], expected.slots.shape[1])
    for name in ARRAYS:
        a, b = (getattr(part, name) for part in (found, expected))
        if name in ("slots", "shares"):
            fill = -1 if name == "slots" else 0.0
            a, b = (
                np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])], constant_values=fill)
                for x in (a, b)
            )
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert (found.promising is None) == (expected.promising is None)
    if found.promising is not None and expected.promising is not None:
        np.testing.assert_array_equal(found.promising, expected.promising)
