"""The first rows of a sweep that HiGHS answers while programs compile: always the same ones, whatever the chunks."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.errors import InputError
from rodiu_jax.sweeps import METHODS, load_spec, sweep
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


def test_an_audit_that_falls_into_the_opening_is_of_a_row_behind_it():
    plain = spec(method="cascade", samples=400)
    first = int(np.flatnonzero(plain.audited(0, plain.rows))[0])
    assert first < plain.points
    opened = plain.model_copy(update={"opening": first + 1})
    expected = np.flatnonzero(plain.audited(0, plain.rows))
    expected[0] += first + 1
    rows = np.flatnonzero(opened.audited(0, plain.rows))
    np.testing.assert_array_equal(rows, np.unique(expected))
    cuts = [0, 3, first + 1, 2 * first + 2, 500, plain.rows]
    parts = [opened.audited(a, b) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.flatnonzero(np.concatenate(parts)), rows)


def test_all_rows_of_exact_all_are_solved_to_optimality(tmp_path, methods):
    rows = sweep(spec(method="cascade", opening=5, exact="all"), tmp_path / "out", quiet=True, workers=1)
    assert (rows.message == "solved to 1e-06").sum() == 5


@pytest.mark.parametrize("keys", [{"certificates": True}, {"method": "exact"}])
def test_a_resumed_sweep_is_refused_by_the_key_that_was_given(tmp_path, methods, keys):
    sweep(spec(method="cascade", opening=5), tmp_path / "out", quiet=True, workers=1)
    with pytest.raises(InputError) as caught:
        sweep(spec(method="cascade"), tmp_path / "out", quiet=True, workers=1, resume=True, **keys)
    assert "opening" not in str(caught.value)


def interrupt(command: list[str], out: Path) -> tuple[int, str]:
    """Run a sweep into a folder, send Ctrl-C while its programs compile; return its exit status and what it told."""
    started = subprocess.Popen(
        [*command, "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "spec.toml").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3.0)
    os.killpg(started.pid, signal.SIGINT)
    _, told = started.communicate(timeout=120)
    return started.returncode, told


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_while_programs_compile_is_no_abort(tmp_path):
    """Cold: a thread that is ended within the compiler would abort the process."""
    program = "import sys; from rodiu_jax.cli import main; sys.argv[0] = 'rodiu'; main()"
    file = tmp_path / "sweep.toml"
    text = load_spec("cost-budget").model_copy(update={"method": "cascade", "opening": 8})
    file.write_text(text.to_toml())
    # Python ignores a Ctrl-C that meets it within a callback of its garbage collector: the sweep then goes on.
    for attempt in range(3):
        code, told = interrupt(
            [sys.executable, "-c", program, "--no-cache", "sweep", str(file)], tmp_path / str(attempt)
        )
        if "Exception ignored" not in told:
            break
    assert code == 1, told
    assert "interrupted: " in told
    assert "terminate" not in told
