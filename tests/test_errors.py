"""Errors are one line that names the file, the field, the value and what was expected."""

from pathlib import Path

import pytest

from rodiu_jax.errors import InputError, WorkFailed


def test_names_everything():
    error = InputError(Path("a.npz"), "budget", "finite numbers >= 0", -3.0)
    assert str(error) == "a.npz: budget: got -3.0, expected finite numbers >= 0"
    assert (error.source, error.field, error.expected) == ("a.npz", "budget", "finite numbers >= 0")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("f", "x", "this field, which is missing"), "f: x: expected this field, which is missing"),
        (InputError("f", "", "a list", {}), "f: got {}, expected a list"),
        (InputError("f", "x", "a name", None), "f: x: got None, expected a name"),
        (InputError("f", "x", "a name", "two\nlines"), "f: x: got 'two\\nlines', expected a name"),
        (InputError("f\ng", "x", "one\ntwo"), "f g: x: expected one two"),
    ],
)
def test_stays_on_one_line(error, text):
    assert str(error) == text


def test_long_values_are_cut():
    text = str(InputError("f", "x", "less", "y" * 5000))
    assert len(text) < 150
    assert "..." in text


def test_kinds():
    assert issubclass(InputError, ValueError)
    assert not issubclass(WorkFailed, InputError)
