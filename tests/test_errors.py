"""Errors are one line that names the file, the field, the value and what was expected."""

import pickle
from pathlib import Path

import pytest

from rodiu_jax.errors import AuditFailed, InputError, WorkFailed


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


@pytest.mark.parametrize(
    "error",
    [
        InputError("f", "x", "this field, which is missing"),
        InputError("f", "x", "a name", 3),
        AuditFailed("they differ", 4, {"bound": 2.0}),
    ],
)
def test_a_worker_can_hand_them_on(error: Exception):
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))
    if isinstance(there, InputError):
        at, before = there.move_to("g", "y"), str(error)
        assert str(at) == before.replace("f: x", "g: y")


def test_long_values_are_cut():
    text = str(InputError("f", "x", "less", "y" * 5000))
    assert len(text) < 150
    assert "..." in text


@pytest.mark.parametrize(
    ("error", "status"),
    [(InputError("f", "x", "less", 3), 2), (WorkFailed("no plan"), 1), (AuditFailed("two proofs", 0, {}), 1)],
)
def test_kinds_end_a_command_with_a_status_and_one_line(rodiu, monkeypatch, error: Exception, status: int):
    """Bad input is 2, and what Python callers may catch as a ValueError; work that failed is 1, and is none."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("rodiu_jax.catalog.sampling.sample", fail)
    ran = rodiu("sample", "--n", 1, "-o", "never.npz")
    assert (ran.code, ran.out, ran.err) == (status, "", f"rodiu: {error}\n")
    assert isinstance(error, ValueError) == (status == 2)


def test_signs_that_do_not_print_are_written_out():
    text = str(InputError("f", "a\x0cb", "one\r\x1b[2J\u2028two \u202e", "x"))
    assert text == "f: a\\x0cb: got 'x', expected one\\x0d\\x1b[2J\\x2028two \\x202e"
    assert len(text.splitlines()) == 1


def test_a_long_place_and_long_expectations_are_cut():
    text = str(InputError("f", "y" * 5000, "one of " + "z" * 5000, "x"))
    assert len(text) < 1500
    assert text.startswith("f: yyy")


@pytest.mark.parametrize("value", [int("9" * 4000) ** 2, "deep"], ids=["number", "lists"])
def test_values_that_cannot_be_shown(value):
    if value == "deep":
        value = []
        for _ in range(100_000):
            value = [value]
    assert "too large to show, expected less" in str(InputError("f", "x", "less", value))
