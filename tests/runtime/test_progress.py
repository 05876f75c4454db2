"""What a sweep tells meanwhile and beforehand: progress, events, estimates."""

import json
import math
import re
from pathlib import Path

import pytest

from rodiu_jax.errors import InputError, WorkFailed
from rodiu_jax.runtime import progress as progress_module
from rodiu_jax.runtime.progress import progress
from rodiu_jax.sweeps import METHODS, sweep
from rodiu_jax.sweeps.estimate import estimate
from tests.sweeps.small import Stopping, damage, fake, run, spec, toy


@pytest.fixture(autouse=True)
def _fake_method(monkeypatch):
    monkeypatch.setitem(METHODS, "fake", toy(fake))


def test_progress_is_quiet_where_nobody_watches(tmp_path, capsys):
    sweep(spec(), tmp_path)
    sweep(spec(), tmp_path, resume=True, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_events_are_lines_of_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "_EVENT_SECONDS", 0.0)
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    monkeypatch.setitem(METHODS, "fake", toy(Stopping(6, KeyboardInterrupt())))
    with pytest.raises(WorkFailed):
        run(out, log=log, chunk=4)
    monkeypatch.setitem(METHODS, "fake", toy(fake))
    damage(out / "scenarios" / "part-000000000000-4.parquet", "truncated")
    capsys.readouterr()
    run(out, log="-", resume=True)
    lines = [log.read_text(), capsys.readouterr().out]
    first, second = ([json.loads(line) for line in text.splitlines()] for text in lines)
    assert [e["event"] for e in first] == [
        "start",
        *["progress"] * 4,
        "part",
        *["progress"] * 2,
        "part",
        "end",
    ]
    assert first[0]["rows"] == 18
    assert (first[0]["sweep"], first[0]["method"], first[0]["folder"]) == ("small", "fake", str(out))
    assert [(e["first"], e["rows"]) for e in first if e["event"] == "part"] == [(0, 4), (4, 2)]
    assert not first[-1]["ok"]
    assert first[-1]["message"].startswith("interrupted: 6 of 18 rows are kept")
    assert [e["event"] for e in second if e["event"] != "progress"] == [
        "start",
        "fault",
        "part",
        "part",
        "end",
    ]
    assert "part-000000000000-4.parquet: damaged" in second[1]["message"]
    assert all(Path(e["path"]).exists() for e in second if e["event"] == "part")
    told = [e for e in second if e["event"] == "progress"]
    assert [e["done"] for e in told] == list(range(3, 19))
    assert told[-1]["widest_gap"] == pytest.approx(0.01)
    assert told[-1]["closed_by_exact"] == told[-1]["statuses"]["gap_limit"] / 16
    assert told[-1]["seconds_left"] == 0.0
    assert second[-1]["ok"]
    for event in first + second:
        assert event["time"].endswith("+00:00")


def test_a_log_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"log: got .*none/log.*, expected a file that can be written"):
        run(tmp_path / "out", log=tmp_path / "none" / "log")
    assert not (tmp_path / "out").exists()


def test_the_rate_is_that_of_the_last_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with progress("long", 1000, done=10) as bar:
        now[0] = 100.0  # compiling
        for _ in range(30):
            now[0] += 5.0
            bar.advance("gap_limit", 0.01, "bracket", 2)
        bar.advance("optimal", 0.0, "exact")
        bar.advance("unknown", math.inf)
    numbers = bar.numbers()
    assert numbers["rate"] == pytest.approx(26 / 60)
    assert numbers["seconds_left"] == pytest.approx((1000 - 10 - 62) / (26 / 60))
    assert numbers["closed_by_bracket"] == 60 / 62
    assert numbers["closed_by_exact"] == 1 / 62
    assert (numbers["rows"], numbers["done"], numbers["widest_gap"]) == (1000, 72, math.inf)


def test_an_estimate_answers_rows_and_writes_nothing(tmp_path, monkeypatch):
    """By a clock that only the work moves: 2 ms a row, and half a second for the first call."""
    calls: list[int] = []
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def paced(instances, **options):
        assert not options["audited"].any()
        now[0] += 0.002 * instances.size + (0.5 if not calls else 0.0)
        calls.append(instances.size)
        return fake(instances)

    monkeypatch.setitem(METHODS, "fake", toy(paced))
    monkeypatch.chdir(tmp_path)
    found = estimate(spec(), samples=2000, changes=["budget*=2"])
    assert calls == [32, 32, 64, 128, 256]
    assert found.spec.rows == 12_000
    assert found.spec.changes == ("budget*=2",)
    assert found.start_seconds == pytest.approx(0.5)
    assert found.rate == pytest.approx(500.0)
    assert found.seconds == pytest.approx(0.5 + 12_000 / 500)
    assert found.memory is None or 5e7 < found.memory < 2e10
    assert list(tmp_path.iterdir()) == []
    lines = found.lines()
    assert lines[1] == "Rows: 12000 (6 points x 2000 samples)"
    assert lines[2] == "Design: grid 3 x 2, 6 points; factors: gpu_price, budget"


def test_an_estimate_ends_its_probe_when_the_time_for_it_is_spent(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    calls: list[int] = []

    def slow(instances, **_):
        now[0] += 60.0 * instances.size
        calls.append(instances.size)
        return fake(instances)

    monkeypatch.setitem(METHODS, "fake", toy(slow))
    found = estimate(spec(), samples=2000)
    assert calls == [32, 32]
    assert found.rate == pytest.approx(1 / 60)


def test_the_disk_estimated_is_that_of_the_sweep(tmp_path):
    run(tmp_path / "out", samples=200)
    disk = sum(p.stat().st_size for p in (tmp_path / "out" / "scenarios").iterdir())
    assert disk / 3 < estimate(spec(), samples=200).disk < disk * 3
    assert len(estimate(spec(samples=1)).lines()) == 8


def test_progress_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with progress("a [title]", 4, done=1, where="some/[folder]") as bar:
        bar.advance("optimal", 1e-7, "exact")
        bar.advance("gap_limit", 0.25, "bracket")
        bar.advance("time_limit")
    err = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "a [title]" in err
    assert "4/4" in err
    assert "closed 33% by bracket, 33% exactly, widest gap 0.25" in err
    assert "4 of 4 rows in some/[folder]" in err
