"""A store that survives every kind of end: interruption, damage, a kill, a full disk; and what may be resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.io.files import write_text
from rodiu_jax.sweeps import METHODS, load_spec, read_rows, store, sweep
from rodiu_jax.sweeps.part_index import INDEX
from solvers.answers import Answers
from tests.sweeps.small import GOOD, Stopping, damage, fake, parts, run, spec, toy


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 13, 17])
@pytest.mark.parametrize("chunk", [4, 100])
def test_an_interrupted_sweep_keeps_its_rows_and_goes_on(tmp_path, monkeypatch, stop, chunk):
    whole = run(tmp_path / "whole")
    method = Stopping(stop, KeyboardInterrupt())
    monkeypatch.setitem(METHODS, "fake", toy(method))
    with pytest.raises(
        WorkFailed, match=f"^interrupted: {stop} of 18 rows are kept in .*scenarios.*--resume"
    ):
        run(tmp_path / "cut", chunk=chunk)
    assert method.closed == stop // chunk + 1
    pd.testing.assert_frame_equal(read_rows(tmp_path / "cut"), whole.iloc[:stop], check_dtype=False)
    counting = Stopping(18 - stop, AssertionError("did more than was missing"))
    monkeypatch.setitem(METHODS, "fake", toy(counting))
    pd.testing.assert_frame_equal(run(tmp_path / "cut", chunk=chunk, resume=True), whole)
    assert counting.left == 0


def test_rows_are_counted_without_reading_any(tmp_path, monkeypatch):
    """What is kept is told by the names of the parts; resuming reads those that the index lacks, each once."""
    read, real = [], store.read_parquet

    def reading(path, **options):
        read.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(store, "read_parquet", reading)
    monkeypatch.setitem(METHODS, "fake", toy(Stopping(10, KeyboardInterrupt())))
    with pytest.raises(WorkFailed, match="interrupted: 10 of 18 rows are kept"):
        run(tmp_path, chunk=4)
    monkeypatch.setitem(METHODS, "fake", toy(Stopping(0, KeyboardInterrupt())))
    for lost in (False, True):
        if lost:
            (tmp_path / INDEX).unlink()
        with pytest.raises(WorkFailed, match="interrupted: 10 of 18 rows are kept"):
            run(tmp_path, chunk=4, resume=True)
        assert sorted(read) == (parts(tmp_path) if lost else [])


def test_resuming_a_finished_sweep_does_nothing(tmp_path, monkeypatch):
    whole = run(tmp_path)
    monkeypatch.setitem(METHODS, "fake", toy(Stopping(0, AssertionError("nothing to do"))))
    pd.testing.assert_frame_equal(run(tmp_path, resume=True), whole)


def test_resuming_nothing_starts(tmp_path):
    assert len(run(tmp_path / "new" / "folder", resume=True)) == 18


def test_a_method_that_breaks_keeps_the_rows_before(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "fake", toy(Stopping(8, ZeroDivisionError("bug"))))
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
    assert len(read_rows(tmp_path)) == 8


@pytest.mark.parametrize(("wrong", "count"), [(slice(-1), 17), ([0, *range(18)], 19)])
def test_a_method_that_miscounts_is_found_out(tmp_path, monkeypatch, wrong, count):
    def method(instances, **options):
        parts = list(fake(instances, **options))
        yield Answers.concatenate(parts, names=instances.names).take(wrong)

    monkeypatch.setitem(METHODS, "fake", toy(method))
    with pytest.raises(WorkFailed, match=f"answered {count} of 18 scenarios"):
        run(tmp_path)


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "other rows", "overlap"])
def test_a_damaged_part_is_named_and_done_again(tmp_path, capsys, how):
    whole = run(tmp_path, chunk=4)
    victim = tmp_path / "scenarios" / "part-000000000004-4.parquet"
    damage(victim, how)
    named = sorted(set(parts(tmp_path)) & {victim.name, "part-000000000002-4.parquet"})[0]
    if how in ("truncated", "empty", "flipped"):
        with pytest.raises(InputError, match=rf"{named}: .*--resume"):
            read_rows(tmp_path)
    rows = sweep(spec(), tmp_path, resume=True)
    pd.testing.assert_frame_equal(rows, whole)
    assert re.search(rf"{named}: .*done again", capsys.readouterr().err.replace("\n", ""))


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    run(tmp_path)
    leftovers = [
        tmp_path / "scenarios" / ".part-000000000000-18.parquet.abcdef_1.parquet",
        tmp_path / ".manifest.json.abcdef_1.json",
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    run(tmp_path, resume=True)
    assert not any(leftover.exists() for leftover in leftovers)


def test_an_existing_sweep_is_never_overwritten(tmp_path):
    run(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    for again in (spec(), spec(samples=9)):
        with pytest.raises(InputError, match=r"spec\.toml: expected a folder without a sweep, or --resume"):
            run(tmp_path, again)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"samples": 2}, "samples: got 2, expected 3, or more, as in the sweep to resume"),
        ({"seed": 1}, "seed: got 1, expected 0"),
        ({"gap": 0.5}, "gap: got 0.5"),
        ({"time_limit": 1.0}, "time_limit: got 1.0, expected None"),
        ({"uncertainty": "none"}, "uncertainty: got 'none', expected 'ddu'"),
        ({"method": "exact"}, "method: got 'exact'"),
        ({"changes": ["budget=3"]}, "set: got"),
        ({"catalog": "corrected"}, "catalog_sha256: got"),
    ],
)
def test_another_sweep_is_not_resumed(tmp_path, options, key):
    run(tmp_path)
    with pytest.raises(InputError, match=re.escape(key)):
        run(tmp_path, resume=True, **options)
    with pytest.raises(InputError, match="factors: got"):
        run(tmp_path, spec(factors=[GOOD]), resume=True)
    assert len(run(tmp_path, spec(title="Other words"), resume=True)) == 18


def test_more_samples_go_on_with_the_same_sweep(tmp_path):
    for audit in (None, 0.3):
        out = tmp_path / str(audit)
        run(out / "grown", audit=audit, samples=2)
        before = {p.name: p.stat().st_mtime_ns for p in (out / "grown" / "scenarios").iterdir()}
        grown = run(out / "grown", audit=audit, samples=5, resume=True)
        pd.testing.assert_frame_equal(grown, run(out / "whole", audit=audit, samples=5))
        after = {p.name: p.stat().st_mtime_ns for p in (out / "grown" / "scenarios").iterdir()}
        assert before.items() <= after.items()
        assert load_spec(out / "grown" / "spec.toml").samples == 5


def test_more_samples_would_change_who_is_on_top(tmp_path):
    top = spec(exact="top", top=2)
    write_text(tmp_path / "spec.toml", top.to_toml())
    with pytest.raises(InputError, match="samples: got 9, expected 3 as in the sweep to resume"):
        run(tmp_path, top, samples=9, resume=True)


def test_rows_without_their_spec_are_not_resumed(tmp_path):
    run(tmp_path)
    (tmp_path / "spec.toml").unlink()
    with pytest.raises(InputError, match=r"spec\.toml: expected this file"):
        run(tmp_path, resume=True)


def test_a_stranger_among_the_parts_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / "scenarios" / "part-mine.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"part-mine\.parquet"):
        run(tmp_path, resume=True)


def test_a_part_without_a_column_is_named(tmp_path):
    run(tmp_path)
    (name,) = parts(tmp_path)
    path = tmp_path / "scenarios" / name
    pd.read_parquet(path).drop(columns="gap").to_parquet(path, index=False)
    with pytest.raises(InputError, match=rf"{name}: expected a part of this sweep; .*no column gap"):
        read_rows(tmp_path)


def test_other_words_in_the_catalogue_and_a_manifest_without_runs_still_resume(tmp_path):
    catalog = tmp_path / "mine.toml"
    text = '[catalog]\nname = "mine"\nextends = "seed"\n[quantity.budget]\nnote = "{}"\n{}'
    catalog.write_text(text.format("before", ""))
    out = tmp_path / "out"
    first = run(out, catalog=str(catalog))
    catalog.write_text(text.format("after", ""))
    (out / "manifest.json").write_text(
        json.dumps({"catalog_sha256": json.loads((out / "manifest.json").read_text())["catalog_sha256"]})
    )
    pd.testing.assert_frame_equal(run(out, catalog=str(catalog), resume=True), first)
    assert len(json.loads((out / "manifest.json").read_text())["runs"]) == 1
    catalog.write_text(text.format("after", "each = 1\n"))
    with pytest.raises(InputError, match="catalog_sha256"):
        run(out, catalog=str(catalog), resume=True)


def test_two_writers_are_refused(tmp_path, monkeypatch):
    def nested(instances, **options):
        with pytest.raises(InputError, match="no other sweep is writing now"):
            run(tmp_path, resume=True)
        return fake(instances, **options)

    monkeypatch.setitem(METHODS, "fake", toy(nested))
    assert len(run(tmp_path)) == 18


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file.*a folder that can be written"):
        run(tmp_path / place)


def test_a_full_disk_keeps_the_finished_parts(tmp_path, monkeypatch):
    real, calls = pq.write_table, []

    def full(*args, **options):
        calls.append(args)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(WorkFailed, match="No space left on device; 8 of 18 rows are kept"):
        run(tmp_path, chunk=4)
    assert parts(tmp_path) == ["part-000000000000-4.parquet", "part-000000000004-4.parquet"]


def test_the_manifest_says_how_it_was_made(tmp_path, monkeypatch):

    import jax

    monkeypatch.setitem(METHODS, "fake", toy(Stopping(3, KeyboardInterrupt())))
    with pytest.raises(WorkFailed):
        run(tmp_path)
    monkeypatch.setitem(METHODS, "fake", toy(fake))
    run(tmp_path, resume=True)
    made = json.loads((tmp_path / "manifest.json").read_text())
    assert made["catalog"] == "seed"
    assert re.fullmatch("[0-9a-f]{64}", made["catalog_sha256"])
    assert len(made["runs"]) == 2
    for each in made["runs"]:
        assert each["versions"]["jax"] == jax.__version__
        assert each["devices"] == sorted({d.device_kind for d in jax.devices()})
        assert each["started"].endswith("+00:00")


KILLED = """
import sys, time
sys.path.insert(0, {root!r})
from rodiu_jax.sweeps.engines import local
from rodiu_jax.sweeps import METHODS, sweep
from tests.sweeps.small import fake, spec, toy

def slow(instances, **options):
    for result in fake(instances, **options):
        time.sleep(0.05)
        yield result

METHODS["fake"] = toy(slow)
local.FLUSH_SECONDS = 0.2
sweep(spec(samples=40), {out!r}, chunk=50, quiet=True)
"""


def test_a_killed_sweep_is_resumed_to_the_same_table(tmp_path):
    out = tmp_path / "killed"
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen([sys.executable, "-c", KILLED.format(root=root, out=str(out))])
    deadline = time.monotonic() + 60
    while (
        len(list(out.glob("scenarios/part-*"))) < 2 and child.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = read_rows(out)
    assert 0 < len(kept) < 240
    resumed = run(out, spec(samples=40), resume=True)
    whole = run(tmp_path / "whole", spec(samples=40))
    pd.testing.assert_frame_equal(resumed, whole)
    pd.testing.assert_frame_equal(kept, whole.iloc[: len(kept)], check_dtype=False)
