"""On a GPU: the numbers of the CPU, as far as is promised. Without one these tests are skipped.

Draws are the same bit for bit; float64 results agree to rounding; bounds come from another order of float32 sums, so
both are proven and near each other, no more.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from rodiu_jax.catalog.sampling import sample
from rodiu_jax.decisions.stress.draws import stress
from rodiu_jax.model.check import check_plan
from rodiu_jax.model.evaluation import evaluate
from rodiu_jax.model.scenario_blocks import keep_on_device
from rodiu_jax.model.status import Status
from rodiu_jax.runtime.devices import by_device, devices
from rodiu_jax.sweeps import read_rows
from solvers.bracket import brackets
from solvers.cascade import cascade
from solvers.dual import lower_bound_values, lower_bounds
from solvers.exact import solve_instance

pytestmark = pytest.mark.skipif(
    all(device.platform == "cpu" for device in jax.devices()),
    reason="no GPU here: pip install -e '.[cuda,dev]' on a machine with one",
)

CPU = {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def batch():
    return sample("seed", n=24, seed=31)


def on_cpu():
    """The same process on its CPU."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def test_all_gpus_are_used():
    assert devices() == jax.local_devices()
    assert by_device(cpu=1, accelerator=2) == 2
    with on_cpu():
        assert by_device(cpu=1, accelerator=2) == 1


def test_scenarios_are_the_same_bit_for_bit(batch):
    with on_cpu():
        there = sample("seed", n=24, seed=31)
    for name, value in batch.fields._asdict().items():
        np.testing.assert_array_equal(value, getattr(there.fields, name), err_msg=name)


def test_costs_agree_to_rounding(batch):
    plan = solve_instance(batch, 0).plan_for(0)
    here = evaluate([plan], batch)
    with on_cpu():
        there = evaluate([plan], batch)
    for column in here.columns:
        if here[column].dtype == float:
            np.testing.assert_allclose(here[column], there[column], rtol=1e-12, err_msg=column)
        else:
            assert here[column].equals(there[column]), column


def test_deviations_are_the_same_draws(batch):
    plan = solve_instance(batch, 0).plan_for(0)
    here = stress([plan], batch.take([0]), draws=4096, peers=False)
    with on_cpu():
        there = stress([plan], batch.take([0]), draws=4096, peers=False)
    pd.testing.assert_frame_equal(here.promises, there.promises)
    pd.testing.assert_frame_equal(here.results, there.results, rtol=1e-9)


def test_bounds_are_proven_and_near_those_of_the_cpu(batch):
    here = lower_bounds(batch).lower
    with on_cpu():
        there = lower_bounds(batch).lower
    np.testing.assert_allclose(here, there, rtol=5e-3)
    np.testing.assert_allclose(lower_bound_values(keep_on_device(batch)), here, rtol=1e-5)
    for b in range(4):
        assert here[b] <= solve_instance(batch, b).upper * (1 + 1e-9)


def test_brackets_of_both_hold_the_optimum(batch):
    here = brackets(batch, gap=0.01)
    with on_cpu():
        there = brackets(batch, gap=0.01)
    for b, (ours, other) in enumerate(zip(here, there, strict=True)):
        assert max(ours.lower, other.lower) <= min(ours.upper, other.upper) * (1 + 1e-9)
        verdict = check_plan(ours.plan, batch, b)
        assert verdict.feasible
        assert verdict.costs["total_cost"] == pytest.approx(ours.upper, rel=1e-12)


def test_audits_pass(batch):
    audited = np.ones(batch.size, bool)
    for part in cascade(batch, gap=0.01, audited=audited, workers=2):
        assert part.is_any(Status.OPTIMAL).all()


def test_tables_of_a_gpu_and_of_a_cpu_agree(tmp_path: Path):
    """Two processes, so that the second sees no GPU at all."""
    tables = []
    for name, environment in (("gpu", {}), ("cpu", CPU)):
        out = tmp_path / name
        command = [sys.executable, "-c", "from rodiu_jax.cli import main; main()", "sweep", "cost-budget"]
        options = ["--samples", "2", "--method", "bracket", "--quiet", "-o", str(out)]
        root = str(Path(__file__).parents[1])
        done = subprocess.run([*command, *options], env=os.environ | environment | {"PYTHONPATH": root},
                              capture_output=True, text=True, timeout=900)  # fmt: skip
        assert done.returncode == 0, done.stderr
        tables.append(read_rows(out))
    here, there = tables
    assert here[["sample", "point"]].equals(there[["sample", "point"]])
    assert (here["status"] != Status.ERROR).all()
    assert (here["lower_bound"] <= there["upper_bound"] * (1 + 1e-9)).all()
    assert (there["lower_bound"] <= here["upper_bound"] * (1 + 1e-9)).all()
