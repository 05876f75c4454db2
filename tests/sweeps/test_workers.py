"""Chunks in several processes: the same rows, workers that die or raise, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.errors import AuditFailed, InputError, WorkFailed
from rodiu_jax.runtime.cores import usable_cores
from rodiu_jax.runtime.progress import progress
from rodiu_jax.sweeps import METHODS, read_rows, sweep
from rodiu_jax.sweeps.engines import chunks, local
from rodiu_jax.sweeps.engines.chunks import Done, Rows, WorkerLost, answer_chunks
from rodiu_jax.sweeps.engines.local import count_processes
from rodiu_jax.sweeps.store import open_store
from rodiu_jax.sweeps.work import Work
from solvers.pool import Pool
from tests.processes import list_running, runs
from tests.sweeps.small import parts, run, spec
from tests.sweeps.test_cluster import given
from tests.sweeps.test_opening import solve_at_once, solved
from tests.sweeps.toy_workers import MARKS, beside

ROOT = Path(__file__).parents[2]


@pytest.fixture
def marks(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv(MARKS, str(folder))
    for name in ("leave_mark", "die_once", "complain", "answer_slowly"):
        monkeypatch.setitem(METHODS, name, beside(name))
    return folder


@pytest.mark.parametrize(
    ("method", "workers", "cores", "processes"),
    [
        ("cascade", None, 2, 1),
        ("cascade", None, 11, 2),
        ("cascade", 3, 2, 3),
        ("bracket", 1, 8, 1),
        ("exact", None, 8, 1),
        ("exact", 3, 8, 1),
        ("evaluate", 3, 8, 1),
    ],
)
def test_workers_are_processes_that_answer(monkeypatch, method, workers, cores, processes):
    """Chunks, where Python would hold a core; scenarios, by HiGHS, elsewhere."""
    monkeypatch.setattr(local, "usable_cores", lambda: cores)
    monkeypatch.setattr(local, "_CORES_EACH", 4)
    assert count_processes(method, workers) == processes


def test_one_process_has_an_accelerator(monkeypatch):
    monkeypatch.setattr("rodiu_jax.runtime.devices.by_device", lambda *, cpu, accelerator: accelerator)
    assert count_processes("cascade", 4) == 1


def test_plans_are_evaluated_by_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "Processes", lambda *_: pytest.fail("a process"))
    assert len(sweep(given(), tmp_path / "out", samples=3, workers=2, chunk=8, quiet=True)) == 30


def test_rows_do_not_depend_on_the_workers_nor_on_one_that_dies(tmp_path, marks):
    alone = run(tmp_path / "alone", method="leave_mark", workers=1)
    assert [mark.name for mark in marks.iterdir()] == [str(os.getpid())]
    (marks / str(os.getpid())).unlink()
    log = tmp_path / "log.jsonl"
    rows = run(tmp_path / "beside", method="die_once", workers=2, chunk=5, log=log)
    pd.testing.assert_frame_equal(rows, alone, check_exact=True)
    plans = [read_rows(tmp_path / name, plans=True)["plan"].tolist() for name in ("alone", "beside")]
    assert plans[0] == plans[1]
    victim = (marks / "victim").read_text()
    workers = {mark.name: mark.read_text() for mark in marks.iterdir() if mark.name != "victim"}
    assert workers.keys().isdisjoint({str(os.getpid()), victim})
    share = max(usable_cores() // 2, 1)
    assert set(workers.values()) == {f"{share} {share}"}, "cores and HiGHS of each"
    assert len(workers) <= 2
    faults = [e["message"] for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "fault"]
    assert len(faults) == 1
    assert faults[0].endswith("died; they are done again")
    assert not any(map(runs, [*workers, victim]))
    assert json.loads((tmp_path / "beside" / "manifest.json").read_text())["runs"][-1]["devices"] == ["cpu"]


@pytest.mark.slow
def test_an_error_in_a_worker_is_that_of_the_command(tmp_path, marks):
    with pytest.raises(InputError, match=r"^a file: a field: got 'a word', expected a number$"):
        run(tmp_path / "out", method="complain", workers=2, chunk=9)


class Scripted:
    """A crew whose chunks are answered in this process; those in ``fates`` meet with what stands there, in turn."""

    room = 2

    def __init__(self, work: Work, fates: dict[Rows, list[Exception]]) -> None:
        self.orders, self.fates = chunks.give_orders(work), fates
        self.submitted: list[Rows] = []

    def submit(self, rows: Rows) -> int:
        self.submitted.append(rows)
        return len(self.submitted) - 1

    def wait(self, tickets: Sequence[int]) -> int:
        assert len(tickets) <= self.room
        return tickets[-1]

    def fetch(self, ticket: int) -> Done:
        rows = self.submitted[ticket]
        if left := self.fates.get(rows):
            raise left.pop()
        return chunks.answer_chunk(self.orders, rows)


def answer(folder: Path, fates: dict[Rows, list[Exception]]) -> tuple[Scripted, list[Rows]]:
    """Answer eighteen rows in chunks of five."""
    small, catalog = spec(), load_catalog("seed")
    noted: list[Rows] = []
    with open_store(folder, small, catalog, resume=False) as store, Pool(1) as pool, progress("", 18) as bar:
        work = Work(store, catalog, [(0, 18)], pool, bar, chunk=5)
        crew = Scripted(work, fates)
        answer_chunks(crew, work, chunks.cut(work, 2), noted.append)
    return crew, noted


def test_a_lost_chunk_is_done_again_next(tmp_path, capsys):
    crew, noted = answer(tmp_path / "out", {(5, 10): [WorkerLost("x")] * 3})
    assert crew.submitted == [(0, 5), (5, 10), (5, 10), (5, 10), (5, 10), (10, 15), (15, 18)]
    assert sorted(noted) == [(0, 5), (5, 10), (10, 15), (15, 18)]
    pd.testing.assert_frame_equal(read_rows(tmp_path / "out"), run(tmp_path / "here"), check_exact=True)
    assert capsys.readouterr().err.count("the worker of rows 5 to 9 died; they are done again") == 3


def test_a_chunk_that_is_lost_four_times_ends_the_work(tmp_path):
    with pytest.raises(WorkFailed, match=r"^rows 10 to 14 lost their worker 4 times \(no memory\)$"):
        answer(tmp_path / "out", {(10, 15): [WorkerLost("no memory")] * 4})
    assert parts(tmp_path / "out") == ["part-000000000005-5.parquet"], "what is finished is kept"


def test_the_evidence_of_an_audit_that_fails_in_a_worker_is_kept(tmp_path):
    with pytest.raises(WorkFailed, match=r"they differ; the scenario \(row 8\) and both proofs are in"):
        answer(tmp_path / "out", {(5, 10): [AuditFailed("they differ", 3, {"bound": 2.0})]})
    assert json.loads((tmp_path / "out" / "audit-failed-row-8.json").read_text()) == {"bound": 2.0}


def test_the_opening_is_answered_here_while_workers_compile(tmp_path, marks, monkeypatch):
    monkeypatch.setitem(METHODS, "exact", replace(METHODS["exact"], call=solve_at_once))
    method = replace(
        beside("leave_mark"),
        name="cascade",
        gap=0.01,
        audits=True,
        prepare="tests.sweeps.toy_workers:prepare",
    )
    monkeypatch.setitem(METHODS, "cascade", method)
    small = spec(method="cascade", opening=5)
    alone = sweep(small, tmp_path / "alone", workers=1, quiet=True)
    for mark in marks.iterdir():
        mark.unlink()
    rows = sweep(small, tmp_path / "beside", workers=2, chunk=4, quiet=True)
    pd.testing.assert_frame_equal(rows, alone, check_exact=True)
    assert solved(rows) == [0, 1, 2, 3, 4]
    answered = {mark.name for mark in marks.iterdir() if not mark.name.startswith("prepared")}
    assert answered
    assert {f"prepared {worker}" for worker in answered} <= {mark.name for mark in marks.iterdir()}
    assert str(os.getpid()) not in answered


INTERRUPTED = """
import signal
from rodiu_jax.sweeps import sweep
from tests.sweeps.small import spec
from tests.sweeps.toy_workers import add_methods
signal.signal(signal.SIGINT, signal.default_int_handler)
add_methods()
sweep(spec(method="answer_slowly", samples=400), {out!r}, workers=2, chunk=10, quiet=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_a_sweep_no_process_is_left(tmp_path, marks, number: signal.Signals):
    """Ctrl-C reaches the whole process group; what is finished is kept."""
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(out=str(out))],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    while child.poll() is None and len(list(out.glob("scenarios/part-*"))) < 2:
        time.sleep(0.02)
    assert len(list_running(child.pid)) >= 1 + 2 + 2, "with the HiGHS of each worker"
    if number == signal.SIGINT:
        os.killpg(child.pid, number)
    else:
        os.kill(child.pid, number)
    _, told = child.communicate(timeout=60)
    kept = len(read_rows(out))
    assert 0 < kept < 2400
    if number == signal.SIGINT:
        assert told.rstrip().endswith(
            f"WorkFailed: interrupted: {kept} of 2400 rows are kept in {out}/scenarios; go on with --resume"
        )
    deadline = time.monotonic() + 10
    while list_running(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list_running(child.pid) == []
