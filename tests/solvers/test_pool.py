"""The pool: results do not depend on it, lost workers are replaced, nothing outlives the caller, no JAX.

Functions at module level run inside the spawned workers: keep this module free of JAX.
"""

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.spawned import Processes
from solvers import pool
from solvers.answers import Answer, Answers
from solvers.exact import solve_instance
from solvers.pool import solve, solve_iter
from tests.oracles.instances import default_instances, random_instances
from tests.processes import list_running

ROOT = Path(__file__).parents[2]


def timeless(results):
    """What answers claim, without the time that they took."""
    return [r.to_json(0) | {"seconds": 0.0} for r in results]


def number(task):
    """Which scenario of `batch` a task is about: its price of storage says so."""
    return round((float(task.one.fields.storage_price[0]) - 1e-3) * 1e6)


def worker_ids():
    return {child.pid for child in multiprocessing.active_children()}


def assert_no_workers():
    """Within a moment: the executor's own thread may still be reaping what was killed."""
    deadline = time.monotonic() + 3
    while worker_ids() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker_ids() == set()


@pytest.fixture(scope="module")
def batch():
    """Ten scenarios, one of them infeasible, and their answers without a pool."""
    instances = random_instances(11, (2, 2, 3, 2), batch=10)
    instances = instances.with_fields(
        unmet_cap=[1.0] * 6 + [0.5] + [1.0] * 3,
        budget=[1e3] * 6 + [0.0] + [1e3] * 3,
        storage_price=1e-3 + 1e-6 * np.arange(10),
    )
    return instances, timeless(solve_instance(instances, b) for b in range(10))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_do_not_depend_on_the_workers(batch, workers):
    instances, expected = batch
    results = solve(instances, workers=workers)
    assert timeless(results) == expected
    assert [r.status for r in results].count(Status.INFEASIBLE) == 1
    assert_no_workers()


def test_results_are_in_the_order_asked_for(batch):
    instances, expected = batch
    indices = [7, 0, 6, 3, 3, 9]
    results = solve(instances, indices, workers=2)
    assert timeless(results) == [expected[b] for b in indices]
    for b, result in zip(indices, results, strict=True):
        if result.plan is not None:
            assert result.plan_for(b).instance == b
            assert check_plan(result.plan, instances, b).costs == result.cost_by_name


def test_gap_and_time_limit_reach_the_workers():
    instances = default_instances(1, seed=3)
    (loose,) = solve(instances, gap=0.2, workers=1)
    assert loose.status == Status.GAP_LIMIT
    (hurried,) = solve(instances, time_limit=0.001, workers=1)
    assert hurried.status == Status.TIME_LIMIT


def test_nothing_to_do_and_no_such_scenario(batch):
    instances, _ = batch
    assert len(solve(instances, [])) == 0
    with pytest.raises(InputError, match="got 10, expected a whole number from 0 to 9"):
        solve(instances, [0, 10])
    assert_no_workers()


def test_killed_worker_is_replaced_and_its_scenario_done_again(batch):
    instances, expected = batch
    results = solve_iter(instances, workers=2)
    first = next(results)
    victim = worker_ids().pop()
    os.kill(victim, signal.SIGKILL)
    rest = list(results)
    assert timeless([first, *rest]) == expected
    assert_no_workers()


def _fatal_for_scenario_1(task):
    """In a worker: scenario 1 takes its process down while its neighbours are still busy."""
    if number(task) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    return Answer.of(task.one.names, Status.INFEASIBLE)


def test_scenario_that_kills_its_worker_loses_no_neighbour(batch, monkeypatch):
    monkeypatch.setattr(pool, "_solve_one", _fatal_for_scenario_1)
    results = solve(batch[0], range(4), workers=2)
    assert [r.status for r in results] == [
        Status.INFEASIBLE,
        Status.ERROR,
        Status.INFEASIBLE,
        Status.INFEASIBLE,
    ]
    assert "died" in results[1].message


def _without_memory(task):
    """In a worker: scenario 1 finds no memory, scenario 2 finds none the first time."""
    once = Path(os.environ["RODIU_TEST_ONCE"])
    if number(task) == 1 or (number(task) == 2 and not once.exists()):
        once.touch()
        raise MemoryError
    return Answer.of(task.one.names, Status.INFEASIBLE)


def test_scenario_without_memory_is_tried_once_more(batch, monkeypatch, tmp_path):
    monkeypatch.setenv("RODIU_TEST_ONCE", str(tmp_path / "once"))
    monkeypatch.setattr(pool, "solve_instance", None)  # nobody gets that far
    monkeypatch.setattr(pool, "_solve_one", _without_memory)
    results = solve(batch[0], [0, 2, 1, 3], workers=1)
    assert [r.status for r in results] == [
        Status.INFEASIBLE,
        Status.INFEASIBLE,
        Status.ERROR,
        Status.INFEASIBLE,
    ]
    assert "memory" in results[2].message


def test_memory_errors_of_the_solver_reach_the_pool(batch, monkeypatch):
    def greedy(*_, **__):
        raise MemoryError

    monkeypatch.setattr(pool, "solve_instance", greedy)
    with pytest.raises(MemoryError):
        pool._solve_one(pool.Task(batch[0].take([0]), 0.1, 1.0))


def test_scenarios_that_fail_are_saved_for_a_report(batch, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "_solve_one", _fatal_for_scenario_1)
    folder = tmp_path / "failed" / "here"
    results = solve(batch[0], range(3), workers=2, failures=folder)
    assert [r.status for r in results] == [Status.INFEASIBLE, Status.ERROR, Status.INFEASIBLE]
    assert [file.name for file in folder.iterdir()] == ["instance-1.npz"]
    saved = load_instances(folder / "instance-1.npz")
    assert saved.size == 1
    for name, value in saved.one(0)._asdict().items():
        assert np.array_equal(value, getattr(batch[0].one(1), name)), name
    (tmp_path / "blocked").touch()
    with pytest.raises(InputError, match="blocked"):
        solve(batch[0], [1], workers=1, failures=tmp_path / "blocked")


def _busy_after_the_first(task):
    """In a worker: every scenario but the first takes longer than a test may."""
    time.sleep(60.0 * (number(task) > 0))
    return Answer.of(task.one.names, Status.INFEASIBLE)


@pytest.fixture
def busy(batch, monkeypatch):
    """Scenarios that keep their workers busy for a minute, all but the first; no test may wait for them."""
    monkeypatch.setattr(pool, "_solve_one", _busy_after_the_first)
    began = time.monotonic()
    yield batch[0]
    assert time.monotonic() - began < 30


def test_closing_the_iterator_ends_the_workers(busy):
    results = solve_iter(busy, workers=2)
    next(results)
    assert len(worker_ids()) == 2
    results.close()
    assert_no_workers()


def test_interrupt_in_the_consumer_ends_the_workers(busy):
    def interrupted():
        for _ in solve_iter(busy, workers=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert_no_workers()


def test_interrupt_while_waiting_ends_the_workers(busy):
    timer = threading.Timer(1.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        solve(busy, workers=2)
    timer.join()
    assert_no_workers()


_ENDLESS = """
import sys
from solvers.pool import solve_iter
from tests.oracles.instances import default_instances
for result in solve_iter(default_instances(200), workers=2):
    print(result.status.word, flush=True)
"""


@pytest.fixture
def endless(tmp_path):
    """A program that solves many scenarios, with its first result out, in a process group of its own."""
    script = tmp_path / "endless.py"
    script.write_text(_ENDLESS)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "optimal\n"
        assert len(list_running(process.pid)) >= 3
        yield process
        deadline = time.monotonic() + 10
        while list_running(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list_running(process.pid) == []
    finally:
        if list_running(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@needs_proc
def test_ctrl_c_leaves_no_process(endless):
    os.killpg(endless.pid, signal.SIGINT)
    _, errors = endless.communicate(timeout=20)
    assert endless.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_do_not_outlive_a_parent_that_is_killed(endless, number):
    os.kill(endless.pid, number)
    assert endless.wait(timeout=20) == -number


def _solve_then_look_for_jax():
    solve_instance(random_instances(0, (1, 1, 1, 1)), 0)
    return "jax" in sys.modules


def test_workers_do_not_import_jax():
    assert "jax" in sys.modules, "the parent runs it"
    workers = Processes(1)
    try:
        assert not workers.submit(_solve_then_look_for_jax).result()
    finally:
        workers.end()


_UNGUARDED = """
import sys
print("run", flush=True)
from rodiu_jax.sweeps import sweep
from rodiu_jax.sweeps.spec import make_spec
factor = {"field": "budget", "scale": [0.5, 1.0]}
spec = {"name": "s", "title": "S", "samples": 1, "method": "exact", "gap": 0.5, "factors": [factor]}
rows = sweep(make_spec(spec), sys.argv[1], workers=2, quiet=True)
print(len(rows), __name__)
"""


def test_a_script_needs_no_guard(tmp_path):
    """The workers do not run it again."""
    script = tmp_path / "script.py"
    script.write_text(_UNGUARDED)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "run\n2 __main__\n", "")


def test_module_of_the_workers_is_light():
    heavy = ("jax", "pandas", "scipy", "matplotlib")
    code = f"import sys, solvers.pool; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_workers_print_nothing(batch, capfd):
    solve(batch[0], range(3), workers=2)
    assert capfd.readouterr() == ("", "")


def test_more_workers_than_scenarios(batch):
    instances, expected = batch
    results = solve_iter(instances, [2], workers=8)
    assert timeless(itertools.islice(results, 1)) == [expected[2]]
    assert len(worker_ids()) <= 1
    results.close()


def test_scenarios_of_a_large_catalogue_are_bracketed_before(batch, monkeypatch):
    instances, _ = batch
    plain = list(solve_iter(instances, [2, 0]))
    asked = []

    def bracket(some, *, gap):
        asked.append((some.size, gap))
        return Answers.stack([solve_instance(some, b, gap=gap) for b in range(some.size)], names=some.names)

    monkeypatch.setattr(pool, "is_large", lambda _: True)
    monkeypatch.setattr("solvers.bracket.brackets", bracket)
    known = list(solve_iter(instances, [2, 0]))
    assert asked == [(2, 0.01)], "together, to what a bracket is good for"
    for one, other in zip(known, plain, strict=True):
        assert one.upper == pytest.approx(other.upper, rel=1e-6)
        assert one.seconds > 0
    list(solve_iter(instances, [0], starts=[None]))
    assert len(asked) == 1, "what is given counts"


def test_workers_that_began_early_are_those_that_solve(batch):
    with pool.Pool(2) as workers:
        workers.begin()
        begun = worker_ids()
        assert len(begun) == 2
        workers.begin()
        answer = workers.result(workers.submit(pool.Task(batch[0].take([0]), 0.01, 60.0)))
        assert answer.plan is not None
        assert worker_ids() == begun
