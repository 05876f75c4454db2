"""The first rows of a sweep that HiGHS answers while programs compile: always the same ones, whatever the chunks."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import METHODS, sweep
from rodiu_jax.sweeps.method_choice import OPENING, Pace, settle_method
from tests.sweeps.small import fake, spec, toy

PREPARED = threading.Event()


def prepare(instances) -> None:
    assert instances.size
    PREPARED.set()


def solve_at_once(instances, **options):
    """Stands for HiGHS, and says so."""
    for answers in fake(instances, **options):
        yield replace(answers, message=np.full(len(answers), f"solved to {options['gap']:g}", object))


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METHODS, "exact", replace(METHODS["exact"], call=solve_at_once))
    bracketing = replace(toy(fake), name="cascade", gap=0.01, prepare="tests.sweeps.test_opening:prepare")
    monkeypatch.setitem(METHODS, "cascade", bracketing)
    PREPARED.clear()


def solved(rows) -> list[int]:
    """The numbers of the rows that HiGHS answered."""
    points = rows.point.max() + 1
    row = rows["sample"] * points + rows.point
    return row[rows.message == "solved to 0.01"].tolist()


@pytest.mark.parametrize("chunk", [None, 1, 3, 1000])
def test_the_same_rows_are_solved_whatever_the_chunks(tmp_path, methods, chunk: int | None):
    small = spec(method="cascade", opening=5)
    rows = sweep(small, tmp_path / "out", quiet=True, workers=1, chunk=chunk)
    assert len(rows) == small.rows > 5
    assert solved(rows) == [0, 1, 2, 3, 4]
    assert PREPARED.wait(60), "programs compile meanwhile"


def test_a_sweep_goes_on_as_it_was_begun(tmp_path, methods):
    small = spec(method="cascade", opening=5)
    whole = sweep(small, tmp_path / "out", quiet=True, workers=1, chunk=2)
    for part in sorted((tmp_path / "out" / "scenarios").iterdir())[1:3]:
        part.unlink()
    again = sweep(spec(method="cascade"), tmp_path / "out", quiet=True, workers=1, resume=True)
    assert solved(again) == solved(whole) == [0, 1, 2, 3, 4]
    assert again.drop(columns="seconds").equals(whole.drop(columns="seconds"))


def test_nothing_is_prepared_for_a_sweep_that_ends_with_its_opening(tmp_path, methods):
    small = spec(method="cascade", opening=1000)
    rows = sweep(small, tmp_path / "out", quiet=True, workers=1)
    assert len(solved(rows)) == small.rows
    assert not PREPARED.is_set()


def test_auto_gives_the_cascade_an_opening_where_highs_may_answer_rows(methods, monkeypatch):
    monkeypatch.setattr(
        "rodiu_jax.sweeps.method_choice._estimate_pace",
        lambda method, *_: Pace(float(method == "exact"), 0.0),
    )
    for keys, opening in (({}, OPENING), ({"certificates": True}, 0), ({"exact": "none"}, 0)):
        found, choice = settle_method(spec(method="auto", **keys), load_catalog("seed"), 1)
        assert choice is not None
        assert (found.method, found.opening) == ("cascade", opening)


@pytest.mark.parametrize("keys", [{"method": "exact"}, {"certificates": True}, {"exact": "none"}])
def test_an_opening_where_highs_may_not_answer_is_refused(tmp_path, keys):
    with pytest.raises(InputError, match="opening"):
        sweep(spec(**{"method": "cascade", "opening": 3} | keys), tmp_path / "out", quiet=True)


def test_failing_preparation_fails_nothing(tmp_path, methods, monkeypatch):
    def fail(instances) -> None:
        PREPARED.set()
        raise RuntimeError("no memory")

    monkeypatch.setattr("tests.sweeps.test_opening.prepare", fail)
    rows = sweep(spec(method="cascade", opening=5), tmp_path / "out", quiet=True, workers=1)
    assert PREPARED.wait(60)
    assert solved(rows) == [0, 1, 2, 3, 4]
