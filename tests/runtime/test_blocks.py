"""Blocks of rows on all devices of a machine: each works, and the rows are those of one device, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rodiu_jax.catalog.sampling import sample
from solvers import blocks

DEVICES = 4

ROWS = """
import json, sys
from collections import Counter
import jax
import numpy as np
from rodiu_jax.catalog.sampling import sample
from solvers import blocks, bracket, deployments
from solvers.primal import Search

worked = Counter()

def watched(program):
    def run(fields, *rest, **options):
        found = program(fields, *rest, **options)
        worked.update(str(d) for d in jax.tree.leaves(found)[0].devices())
        return found
    return run

def rows(batch, chunk):
    everyone = np.arange(batch.size)
    start = blocks.in_blocks(watched(bracket._cold_starts), batch, everyone, (), chunk)
    slot = np.random.default_rng(1).integers(0, 240, (batch.size, 2)).astype(np.int32)
    price = blocks.in_blocks(watched(deployments._route_plans), batch, everyone, (slot,), chunk, how=Search(),
                             iterations=np.int32(12))
    return [np.asarray(a) for a in jax.tree.leaves((start, price))]

batch = sample("seed", n=35, seed=3)
with jax.enable_x64(True):
    here = rows(batch, 8)
    many = dict(worked)
    worked.clear()
    with jax.default_device(jax.devices()[0]):
        alone = rows(batch, 8)
print(json.dumps({
    "many": many, "one": dict(worked), "rows": [len(a) for a in here],
    "same": [a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(here, alone, strict=True)],
    "priced": bool(np.isfinite(here[-3]).any()),
}))
"""


def test_all_devices_work_and_the_rows_are_those_of_one():
    """35 rows in blocks of 8, so two programs have five blocks each and the last is not full."""
    root = Path(__file__).parents[2]
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    told = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", ROWS], env=told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found["many"].values()) == [2, 2, 2, 4]
    assert list(found["one"].values()) == [10]
    assert set(found["rows"]) == {35}
    assert all(found["same"])
    assert found["priced"]


@pytest.mark.parametrize(
    ("chunk", "rows", "size"),
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
def test_few_rows_make_smaller_blocks_of_few_kinds(chunk: int, rows: int, size: int):
    assert blocks._fitting(chunk, rows) == size


def test_a_block_that_fails_in_a_thread_fails_the_call():
    batch = sample("seed", n=35, seed=3)

    def program(fields, rows, *, uncertainty, batched):
        if failing in rows:
            raise ValueError(f"row {failing}")
        return rows

    everyone = np.arange(35)
    failing = 17
    for _ in range(2):  # at first a block runs alone
        with pytest.raises(ValueError, match="row 17"):
            blocks.in_blocks(program, batch, everyone, (everyone,), 8)
    failing = -1
    np.testing.assert_array_equal(blocks.in_blocks(program, batch, everyone, (everyone,), 8), everyone)


def test_threads_are_those_of_a_process_share(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NPROC", "1")
    blocks._threads.cache_clear()
    assert blocks._threads()._max_workers == 1
    blocks._threads.cache_clear()
