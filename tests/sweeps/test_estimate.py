"""The probe behind `--dry-run`, by a clock of its own: how many rows it asks, and what it makes of their times."""

from types import SimpleNamespace
from typing import Any

import pytest

from rodiu_jax.sweeps import estimate as module

BEGAN = 100.0


class Machine:
    """It takes a second to start, ``compiling`` seconds for rows of a size it has not had, then ``fixed`` and ``each``.

    On a CPU all sizes are one program.
    """

    def __init__(self, *, gpu: bool, compiling: float, fixed: float, each: float) -> None:
        self.gpu, self.compiling, self.fixed, self.each = gpu, compiling, fixed, each
        self.now, self.compiled, self.sizes = BEGAN + 1.0, set[int](), list[int]()

    def answer(self, _spec: Any, made: Any, size: int, _pool: Any) -> module._Round:
        program = size if self.gpu else 0
        seconds = self.fixed + self.each * size + (program not in self.compiled) * self.compiling
        self.compiled.add(program)
        self.sizes.append(size)
        self.now += seconds
        return module._Round(SimpleNamespace(size=size), seconds, self.now, None)  # type: ignore[arg-type]


def probe(monkeypatch: pytest.MonkeyPatch, machine: Machine, rows: int) -> tuple[float, float]:
    """Seconds to start and rows per second, as told of a sweep of so many rows."""
    choose = lambda *, cpu, accelerator: accelerator if machine.gpu else cpu  # noqa: E731
    monkeypatch.setattr("rodiu_jax.runtime.devices.by_device", choose)
    monkeypatch.setattr(module, "_round", machine.answer)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    made: Any = SimpleNamespace(size=min(rows, module._most_probed()))
    nobody: Any = None
    return module._pace(module._probe(nobody, made, nobody, BEGAN), BEGAN)


def test_a_gpu_is_asked_for_as_many_rows_as_keep_it_busy(monkeypatch: pytest.MonkeyPatch):
    """A batch takes it a second, whatever its size: from 256 rows it would seem to do 250 a second."""
    machine = Machine(gpu=True, compiling=5.0, fixed=1.0, each=1e-4)
    start, rate = probe(monkeypatch, machine, 10**6)
    assert machine.sizes == [64, 64, 512, 512, 4096, 4096, 16_384, 16_384]
    assert rate == pytest.approx(16_384 / (1.0 + 1.6384))
    # Before the first rows a second, then four sizes compile; what else their rounds took is told by the rate.
    small = 3 * 1.0 + 1e-4 * (64 + 512 + 4096 + 16_384) + 1.0 - (64 + 512 + 4096 + 16_384) / rate
    assert start == pytest.approx(1.0 + 4 * 5.0 + small)


def test_a_cpu_is_asked_as_before(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(gpu=False, compiling=5.0, fixed=0.0, each=0.01)
    start, rate = probe(monkeypatch, machine, 10**6)
    assert machine.sizes == [32, 32, 64, 128, 256]
    assert (start, rate) == (pytest.approx(1.0 + 5.0), pytest.approx(100.0))


@pytest.mark.parametrize(("rows", "sizes"), [(20, [20, 20]), (32, [32, 32]), (50, [32, 32, 50])])
def test_few_rows_are_all_probed(monkeypatch: pytest.MonkeyPatch, rows: int, sizes: list[int]):
    machine = Machine(gpu=False, compiling=5.0, fixed=0.0, each=0.01)
    probe(monkeypatch, machine, rows)
    assert machine.sizes == sizes


@pytest.mark.parametrize(
    ("gpu", "each", "sizes"),
    [(False, 0.5, [32, 32]), (True, 0.02, [64, 64, 512, 512]), (True, 0.1, [64, 64])],
)
def test_no_larger_round_begins_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, each: float, sizes: list[int]
):
    machine = Machine(gpu=gpu, compiling=0.0, fixed=0.0, each=each)
    assert probe(monkeypatch, machine, 10**6)[1] == pytest.approx(1 / each)
    assert machine.sizes == sizes
