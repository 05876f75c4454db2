"""Blocks of rows on all devices of a machine: each works, and the rows are those of one device, bit for bit."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import pytest

from rodiu_jax.runtime.block_sizes import BlockSize, block_size
from rodiu_jax.runtime.blocks import BlockRunner

DEVICES = 4

PREAMBLE = """
import json
from collections import Counter
import jax
import numpy as np
from rodiu_jax.catalog.sampling import sample

worked = Counter()

def watched(program):
    def run(*args, **options):
        result = program(*args, **options)
        worked.update(str(d) for d in jax.tree.leaves(result)[0].devices())
        return result
    return run

def compare(rows):
    many = rows()
    used = dict(worked)
    worked.clear()
    with jax.default_device(jax.devices()[0]):
        one = rows()
    many, one = jax.tree.leaves(many), jax.tree.leaves(one)
    same = [a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(many, one, strict=True)]
    finite = [bool(np.isfinite(a.astype(float)).any()) for a in many]
    print(json.dumps({"many": used, "one": dict(worked), "rows": [len(a) for a in many], "same": same,
                      "finite": finite}))
"""

BRACKETS = """
from rodiu_jax.model.scenario_blocks import run_scenarios
from rodiu_jax.runtime.block_sizes import BlockSize
from solvers import deployments, node_programs

batch = sample("seed", n=35, seed=3)
everyone, size = np.arange(batch.size), BlockSize(8)
slot = np.random.default_rng(1).integers(0, 240, (batch.size, 2)).astype(np.int32)
starts, routes = watched(node_programs.cold_starts), watched(deployments._route_plans)

def rows():
    start = run_scenarios(starts, batch, everyone, (), size, far=False)
    price = run_scenarios(routes, batch, everyone, (slot,), size, limited=False, iterations=np.int32(12))
    return start, price

with jax.enable_x64(True):
    compare(rows)
"""


EVALUATION = """
from rodiu_jax.model import evaluation
from rodiu_jax.model.plan import plan_arrays
from rodiu_jax.runtime import block_sizes
from tests.oracles.instances import random_instances, random_plan

block_sizes._SIZES["evaluate"] = block_sizes._Entry(256, 256, 2**30, 2**30, fixed=True)
block_sizes._SIZES["evaluate pairs"] = block_sizes._Entry(256, 256, fixed=True)
evaluation._score_pair_block = watched(evaluation._score_pair_block)
evaluation._score_crossed_block = watched(evaluation._score_crossed_block)
rng = np.random.default_rng(5)
batch = random_instances(4, (3, 3, 4, 3), batch=40)
plans = plan_arrays([random_plan(rng, batch, instance=None) for _ in range(70)], batch)
at = rng.integers(0, 70, 1100), rng.integers(0, 40, 1100)
compare(lambda: (*evaluation.score_pairs(batch, plans, *at), *(
    np.swapaxes(a, 0, 1) for a in evaluation.score_crossed(batch, plans))))
"""
"""1,100 pairs are 5 blocks of 256; 40 scenarios with 70 plans are 10 blocks of 4, each with 2 blocks of 64 plans."""

DRAWS = """
from rodiu_jax.catalog import sampling
from rodiu_jax.runtime import block_sizes

sampling.block_size = lambda *_, **__: block_sizes.BlockSize(8, 8)
sampling._draw = watched(sampling._draw)

def rows():
    batch = sample("seed", n=35, seed=3)
    return [getattr(batch.fields, name) for name in sorted(batch.batched)]

compare(rows)
"""

STRESS = """
from rodiu_jax.decisions.stress import tally
from rodiu_jax.decisions.stress.linear_forms import expose
from rodiu_jax.model.plan import plan_arrays
from tests.oracles.instances import random_instances, random_plan

tally._tally_draws = watched(tally._tally_draws)
rng = np.random.default_rng(5)
batch = random_instances(4, (3, 3, 4, 3), batch=70)
plans = plan_arrays([random_plan(rng, batch, instance=None) for _ in range(70)], batch)
forms = expose(batch, plans, np.arange(70), np.arange(70), reality="ddu", seed=1).forms
compare(lambda: tally.draw_tally(forms, draws=5000, scales=np.array([0.5, 1.5]), table=None))
"""
"""Each of 70 pairs is a block."""


def run_on_devices(code: str) -> dict:
    """What a program prints where the CPU plays `DEVICES` devices."""
    root = Path(__file__).parents[2]
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", PREAMBLE + code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("code", "blocks"),
    [
        pytest.param(BRACKETS, [2, 2, 2, 4], id="brackets", marks=pytest.mark.slow),
        pytest.param(EVALUATION, [5, 5, 7, 8], id="evaluation", marks=pytest.mark.slow),
        pytest.param(DRAWS, [1, 1, 1, 2], id="draws"),
        pytest.param(STRESS, [17, 17, 18, 18], id="stress", marks=pytest.mark.slow),
    ],
)
def test_all_devices_work_and_the_rows_are_those_of_one(code: str, blocks: list[int]):
    """35 rows in blocks of 8 are five blocks of a program, and the last is not full."""
    found = run_on_devices(code)
    assert sorted(found["many"].values()) == blocks
    assert list(found["one"].values()) == [sum(blocks)]
    assert all(found["same"])
    assert all(found["finite"])
    assert set(found["rows"]) <= {35, 40, 70, 1100}


@pytest.mark.parametrize(
    ("rows", "count", "fitting"),
    [
        (32, 1, 32),
        (256, 1, 256),
        (4096, 1, 64),
        (4096, 65, 512),
        (4096, 513, 4096),
        (16384, 100, 256),
        (100, 1, 100),
    ],
)
def test_few_rows_make_smaller_blocks_of_few_kinds(rows: int, count: int, fitting: int):
    assert BlockSize(rows).fit(count) == fitting
    assert BlockSize(rows, smallest=rows).fit(count) == rows


def test_bytes_bound_a_block():
    whole = block_size("evaluate", bytes_per_row=1)
    assert block_size("evaluate", bytes_per_row=2**15).rows == min(2**10, whole.rows)
    assert block_size("evaluate", bytes_per_row=2**40) == BlockSize(16, 16)
    assert block_size("evaluate", bytes_per_row=1, rows_per_scenario=64).rows == whole.rows // 64
    assert block_size("bracket", bytes_per_row=2**40).rows == 1 < block_size("bracket").rows
    assert all(block_size(name, bytes_per_row=24).rows.bit_count() == 1 for name in ("bracket", "evaluate"))


def test_blocks_of_draws_are_no_power_of_two_and_halved_where_one_would_do():
    many, few = (block_size("draw", bytes_per_row=2**14, count=count).rows for count in (257, 256))
    assert (many, few) == (256 + 16, 128 + 8)


def test_a_block_that_fails_in_a_thread_fails_the_call():
    def program(rows: np.ndarray) -> np.ndarray:
        if failing in rows:
            raise ValueError(f"row {failing}")
        return rows

    runner, failing = BlockRunner(), 17
    for _ in range(2):  # at first a block runs alone
        with pytest.raises(ValueError, match="row 17"):
            runner.run(program, lambda at: (at,), 35, BlockSize(8))
    failing = -1
    np.testing.assert_array_equal(runner.run(program, lambda at: (at,), 35, BlockSize(8)), np.arange(35))


class Device:
    """An accelerator that is not there."""

    platform = "gpu"


class Result:
    """An array of a device that says when it was asked for and when it was fetched."""

    def __init__(self, rows: np.ndarray, log: list[tuple[str, int]]) -> None:
        self.rows, self.log = rows, log

    def copy_to_host_async(self) -> None:
        self.log.append(("asked", int(self.rows[0])))

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.log.append(("fetched", int(self.rows[0])))
        return self.rows


def test_an_accelerator_sends_results_while_it_is_at_the_next_block(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rodiu_jax.runtime.blocks.devices", lambda: [Device()])
    log: list[tuple[str, int]] = []

    def program(rows: np.ndarray) -> Result:
        log.append(("begun", int(rows[0])))
        return Result(rows, log)

    rows = BlockRunner().run(program, lambda at: (at,), 6, BlockSize(2))
    np.testing.assert_array_equal(rows, np.arange(6))
    first_two = [("begun", 0), ("asked", 0), ("begun", 2), ("asked", 2)]
    assert log == [*first_two, ("fetched", 0), ("begun", 4), ("asked", 4), ("fetched", 2), ("fetched", 4)]


def test_two_callers_that_fail_at_the_same_size_halve_it_once():
    import jax

    both, sizes, full = Barrier(2, timeout=60), [], False

    def program(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        if full and len(rows) > 4:
            both.wait()  # neither has halved when the other fails
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return rows

    runner = BlockRunner(1)
    runner.run(
        program, lambda at: (at,), 8, BlockSize(8, 8)
    )  # the first caller alone has a program's first block
    full = True
    with ThreadPoolExecutor(2) as callers:
        asked = [callers.submit(runner.run, program, lambda at: (at,), 8, BlockSize(8, 8)) for _ in "ab"]
        for one in asked:
            np.testing.assert_array_equal(one.result(), np.arange(8))
    assert sorted(sizes) == [4, 4, 4, 4, 8, 8, 8]


def test_a_block_has_the_settings_of_the_caller():
    import jax
    import jax.numpy as jnp

    def program(rows: np.ndarray) -> jax.Array:
        return jnp.asarray(rows, dtype=float)

    for wide in (False, True):
        with jax.enable_x64(wide):
            assert BlockRunner(2).run(program, lambda at: (at,), 9, BlockSize(2)).dtype == (
                np.float64 if wide else np.float32
            )


def test_results_of_each_call_have_its_shapes_and_types():
    """One runner; what an earlier call's results were like says nothing of a call with other arrays or settings."""
    import jax
    import jax.numpy as jnp

    def program(rows: np.ndarray, *, scales: np.ndarray) -> dict[str, jax.Array | None]:
        return {
            "scaled": jnp.asarray(rows[:, None] * scales, dtype=float),
            "rows": jnp.asarray(rows),
            "no": None,
        }

    runner = BlockRunner(2)
    for scales in ([1.0, 0.5], [1.0, 0.5], [2.0], [2.0]):
        for wide in (False, True):
            with jax.enable_x64(wide):
                found = runner.run(program, lambda at: (at,), 9, BlockSize(2), scales=np.array(scales))
            assert found["scaled"].dtype == (np.float64 if wide else np.float32)
            np.testing.assert_array_equal(found["scaled"], np.arange(9)[:, None] * np.array(scales))
            np.testing.assert_array_equal(found["rows"], np.arange(9))
            assert found["no"] is None
            assert all(
                found[name].flags.c_contiguous and found[name].flags.writeable for name in ("scaled", "rows")
            )


def test_results_of_a_call_like_an_earlier_one_are_one_piece_of_memory():
    def program(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows, np.ones((len(rows), 3))

    runner = BlockRunner(2)
    for _ in range(2):
        first, second = runner.run(program, lambda at: (at,), 9, BlockSize(2))
    np.testing.assert_array_equal(first, np.arange(9))
    np.testing.assert_array_equal(second, np.ones((9, 3)))
    start = first.__array_interface__["data"][0]
    assert second.__array_interface__["data"][0] - start == 128  # 72 bytes, and the next multiple of 64


def test_threads_are_those_of_a_process_share(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NPROC", "1")
    assert BlockRunner().lanes == 1
    assert BlockRunner(3).lanes == 3


def test_a_program_is_first_run_by_one_caller_alone():
    inside, most, lock = 0, 0, Lock()

    def program(rows: np.ndarray) -> np.ndarray:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)  # while it is compiled
        with lock:
            inside -= 1
        return rows

    runner = BlockRunner(2)
    with ThreadPoolExecutor(2) as callers:
        asked = [callers.submit(runner.run, program, lambda at: (at,), 2, BlockSize(2, 2)) for _ in "ab"]
        for one in asked:
            np.testing.assert_array_equal(one.result(), np.arange(2))
    assert most == 1
