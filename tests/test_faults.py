"""Faults of the machine: devices, disks and clocks that fail leave what is done, and one clear line."""

import math
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rodiu_jax.errors import WorkFailed
from rodiu_jax.model.status import Status
from rodiu_jax.runtime import progress as progress_module
from rodiu_jax.runtime.block_sizes import BlockSize
from rodiu_jax.runtime.blocks import BlockRunner
from rodiu_jax.sweeps import read_rows, sweep
from rodiu_jax.sweeps.method_table import METHODS
from rodiu_jax.sweeps.spec import SweepSpec, make_spec
from solvers.answers import Answer, Answers
from tests.fuzzing.run import rodiu

pytestmark = pytest.mark.faults

LOST = "INTERNAL: the device is gone\nand more lines"
FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes."


def spec() -> SweepSpec:
    factors = [{"field": "budget", "scale": [0.5, 0.75, 1.0]}]
    return make_spec({"name": "s", "title": "S", "samples": 2, "method": "exact", "factors": factors})


def failing_after(count: int, message: str) -> Any:
    """A method that answers so many scenarios and then meets an error of the device."""

    def method(instances: Any, **_: Any) -> Any:
        for b in range(instances.size):
            if b == count:
                raise jax.errors.JaxRuntimeError(message)
            yield Answers.stack(
                [Answer.of(instances.names, Status.ERROR, message="answered")], names=instances.names
            )

    return method


@pytest.mark.parametrize(("message", "said"), [(LOST, "the device failed"), (FULL, "not enough memory")])
def test_a_device_that_fails_keeps_the_finished_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, said: str
):
    monkeypatch.setitem(METHODS, "exact", replace(METHODS["exact"], call=failing_after(4, message)))
    with pytest.raises(WorkFailed, match=rf"{said}.*; 4 of 6 rows are kept .* --resume") as caught:
        sweep(spec(), tmp_path / "out", quiet=True)
    assert "\n" not in str(caught.value)
    assert len(read_rows(tmp_path / "out")) == 4
    monkeypatch.setitem(METHODS, "exact", replace(METHODS["exact"], call=failing_after(9, "")))
    assert len(sweep(spec(), tmp_path / "out", resume=True, quiet=True)) == 6


@pytest.mark.parametrize("message", [LOST, FULL])
def test_a_device_that_fails_elsewhere_is_one_line(monkeypatch: pytest.MonkeyPatch, message: str):
    def fail(*_: Any, **__: Any) -> None:
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr("rodiu_jax.catalog.sampling.sample", fail)
    ran = rodiu("sample", "--n", 2, "-o", "never.npz")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("rodiu: the device ")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("room", [64, 5, 1])
def test_blocks_are_halved_until_the_device_has_room(room: int):
    sizes = []

    def program(row: Any) -> Any:
        sizes.append(len(row))
        if len(row) > room:
            raise jax.errors.JaxRuntimeError(FULL)
        return row * 2

    runner, rows = BlockRunner(), np.arange(20.0)
    for _ in range(2):
        doubled = runner.run(program, lambda at: (rows[at],), 20, BlockSize(8))
        np.testing.assert_array_equal(doubled, rows * 2)
    assert sum(size > room for size in sizes) == {64: 0, 5: 1, 1: 3}[room], "learned once, not at every call"


def test_other_errors_and_single_rows_are_not_tried_again():
    calls = []
    for message, tries in ((LOST, 1), (FULL, 4)):

        def program(*_: Any, said: str = message) -> Any:
            calls.append(1)
            raise jax.errors.JaxRuntimeError(said)

        calls.clear()
        with pytest.raises(jax.errors.JaxRuntimeError):
            BlockRunner().run(program, lambda at: (at,), 4, BlockSize(8))
        assert len(calls) == tries


@pytest.mark.parametrize("step", [0.0, -3600.0])
def test_a_clock_that_stands_still_or_goes_back(monkeypatch: pytest.MonkeyPatch, step: float):
    times = iter(1e6 + step * n for n in range(1000))
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(times))
    with progress_module.progress("p", 10) as bar:
        for _ in range(5):
            bar.advance("optimal", 0.0, "exact")
            left = bar.numbers()["seconds_left"]
            assert isinstance(left, float)
            assert math.isnan(left) or left >= 0
        assert "5 scenarios" in bar.ending()


def test_a_file_that_may_grow_no_further(tmp_path: Path):
    """As on a full disk: exit 1, a line, and neither half a file nor a temporary one."""
    command = [Path(sys.executable).with_name("rodiu"), "sample", "--n", "50", "-o", tmp_path / "a.npz"]
    limited = f"ulimit -f 50; exec {shlex.join(map(str, command))}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_events_that_cannot_be_written_end_the_sweep_with_a_line(tmp_path: Path):
    (tmp_path / "s.toml").write_text(spec().to_toml())
    ran = rodiu("sweep", tmp_path / "s.toml", "-o", tmp_path / "out", "--log-json", "/dev/full", "--quiet")
    assert ran.code == 1
    assert "No space left on device" in ran.err
    assert len(ran.err.splitlines()) == 1
