"""Benchmarks: what they claim about results is checked here, and that they run; times are not."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.measure import Case, Side, Spec, describe_this_machine, find_rent, run_spec, time_case
from bench.records import BenchmarkResult, CaseResult, read_record
from bench.render import render_benchmark, render_machine
from bench.specs import NAMES, load_benchmark
from bench.specs.time_bound import _judge_bounds
from bench.specs.time_exact import _judge_optima
from bench.specs.time_sampling import measure_distances
from rodiu_jax.catalog import load_catalog
from rodiu_jax.model.slots import Names
from rodiu_jax.model.status import Status
from solvers.answers import Answer, Answers
from tests.oracles.numpy_batch_sampler import sample_batch
from tests.oracles.numpy_sampler import sample_one
from tests.oracles.published import Outcome

ROOT = Path(__file__).parents[2]


def test_registry_is_complete():
    files = {path.stem for path in (ROOT / "bench" / "specs").glob("time_*.py")}
    assert files == {f"time_{name}" for name in NAMES}
    for name in NAMES:
        spec = load_benchmark(name)
        assert spec.name == name
        for text in (spec.measures, spec.peers, spec.quality, spec.precision, spec.by_hand):
            assert text
        assert list(spec.sizes + spec.large) == sorted(spec.sizes + spec.large)
        assert spec.repeats >= 3 or not spec.repeats


def test_stress_is_that_of_its_peer():
    result = run_spec(load_benchmark("stress"), smoke=True)
    assert [case.right for case in result.cases] == [True], result.cases[0].quality


@pytest.mark.parametrize("name", ["sampling", "evaluation"])
@pytest.mark.slow
def test_smoke_run_keeps_its_results(name: str, tmp_path: Path):
    out = tmp_path / "found.json"
    ran = CliRunner().invoke(main, [name, "--smoke", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    record = read_record(out)
    assert "Smoke run" in record.note
    assert {"Python", "jax", "numpy", "highspy"} <= set(record.machine.versions)
    assert record.machine.cores >= 1
    (result,) = record.benchmarks
    assert result.name == name
    assert "float64" in result.precision
    assert all(case.right and case.quality for case in result.cases)
    assert "bytes read and written" in result.cases[0].counted
    sides = [side for case in result.cases for side in case.sides]
    assert all(len(side.seconds) == 1 and side.seconds[0] > 0 for side in sides)
    assert any(side.wanted is not None and side.wanted >= 5 for side in sides)
    table = [line for line in ran.output.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(sides)
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("sampling", "evaluation", "stress")])
def test_every_benchmark_is_right_at_its_smallest_size(name: str):
    ran = CliRunner().invoke(main, [name, "--smoke"])
    assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize(
    "args", [["speed"], ["--smok"], ["sampling", "--smoke", "--out", "nowhere/else/found.json"]]
)
def test_bad_usage(args: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.measure.run_spec", lambda spec, smoke: describe([]))
    ran = CliRunner().invoke(main, args)
    assert ran.exit_code == 2
    assert "Error" in ran.output


def test_help_needs_no_jax():
    code = "import sys, bench.__main__; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_workers_of_the_peers_need_no_jax():
    code = "import sys, bench.peers; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---- timing ----


def toy(order: list[str], *, right: bool = True) -> Case:
    def ours() -> str:
        order.append("ours")
        return "a"

    def peer() -> str:
        order.append("peer")
        time.sleep(0.02)
        return "b"

    def quality(results: Sequence[Any]) -> tuple[bool, str]:
        assert results == ["a", "b"], "in the order of the sides"
        return right, "as told"

    return Case("toy", (Side("ours", ours, 10), Side("peer", peer, 5, target=2)), quality)


def describe(cases: list[CaseResult]) -> BenchmarkResult:
    """A benchmark's result with these cases."""
    words = ("name", "measures", "item", "peers", "quality", "precision", "by_hand")
    return BenchmarkResult(**dict.fromkeys(words, "sampling"), cases=cases)


def test_repeats_are_interleaved_after_a_warm_up():
    order: list[str] = []
    own, other = time_case(toy(order), 3).sides
    assert order == ["ours", "peer"] * 4
    assert len(own.seconds) == len(other.seconds) == len(other.ratios) == 3
    assert own.ratios == []
    assert min(other.seconds) >= 0.02
    for ratio, ours, its in zip(other.ratios, own.seconds, other.seconds, strict=True):
        assert ratio == pytest.approx((10 / ours) / (5 / its))  # a rate per item, whoever did fewer
    assert other.rate == pytest.approx(5 / sorted(other.seconds)[1])
    assert other.ratio == sorted(other.ratios)[1]


def test_smoke_runs_each_side_once():
    order: list[str] = []
    assert len(time_case(toy(order), 0).sides) == 2
    assert order == ["ours", "peer"]


def test_a_wrong_result_shows_and_fails(monkeypatch: pytest.MonkeyPatch):
    result = describe([time_case(toy([], right=False), 0)])
    assert "| NO | as told |" in render_benchmark(result)
    monkeypatch.setattr("bench.measure.run_spec", lambda spec, smoke: result)
    ran = CliRunner().invoke(main, ["sampling"])
    assert ran.exit_code == 1
    assert "wrong: sampling, toy: as told" in ran.output


def count_seconds(result: BenchmarkResult) -> list[int]:
    """How often each side was timed."""
    return [len(side.seconds) for case in result.cases for side in case.sides]


def test_sizes_and_repeats(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    class Cases:
        def __init__(self, size: int) -> None:
            seen.append(size)

        def __enter__(self):
            return iter([toy([])])

        def __exit__(self, *error: object) -> None:
            return None

    spec: Spec = replace(load_benchmark("sampling"), sizes=(1, 7), build=Cases, repeats=3)
    assert count_seconds(run_spec(spec, smoke=True)) == [1, 1]
    assert seen == [1]
    assert count_seconds(run_spec(spec)) == [3] * 4
    assert seen == [1, 1, 7]


def test_a_gpu_has_the_rent_of_the_catalogue():
    found = find_rent("NVIDIA H100 80GB HBM3", 4)
    assert found is not None
    assert found.hourly == pytest.approx(10.0)  # 2.50, 0.65 and 0.35 as MODEL section 7 has them
    assert found.source.startswith("4 x H100_")
    for kind, price in (("NVIDIA GeForce RTX 4090", 0.35), ("NVIDIA RTX A6000", 0.65)):
        rent = find_rent(kind, 1)
        assert rent is not None
        assert rent.hourly == pytest.approx(price)
    for kind in ("cpu", "NVIDIA H200", "NVIDIA RTX 4000"):
        assert find_rent(kind, 1) is None


def test_sizes_grow_on_a_gpu_and_can_be_given(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr("bench.measure.run_spec", lambda spec, smoke: seen.append(spec.sizes) or describe([]))
    own = load_benchmark("bound")
    CliRunner().invoke(main, ["bound"])
    monkeypatch.setattr("rodiu_jax.runtime.devices.by_device", lambda *, cpu, accelerator: accelerator)
    CliRunner().invoke(main, ["bound"])
    CliRunner().invoke(main, ["bound", "--size", "5", "--size", "7"])
    assert seen == [own.sizes, own.sizes + own.large, (5, 7)]


def test_machine_is_described():
    machine = describe_this_machine()
    assert machine.is_like(machine)
    assert not machine.is_like(machine.model_copy(update={"cores": machine.cores + 1}))
    text = render_machine(machine)
    for word in (machine.date, f"{machine.cores} cores used", f"jax {machine.versions['jax']}"):
        assert word in text


# ---- the peers and the measures of quality ----


def test_batch_sampler_draws_what_the_catalogue_declares():
    catalog = load_catalog("seed")
    drawn = sample_batch(np.random.default_rng(8), 3000)
    varying = {name for name in catalog.varying if name in drawn}
    assert varying == set(drawn)
    for name, values in drawn.items():
        low, high = (np.broadcast_to(bound, values.shape[1:]) for bound in catalog.ranges[name])
        width = high - low
        assert (values >= low - 1e-12 * high).all(), name
        assert (values <= high + 1e-12 * high).all(), name
        if name.endswith(("nominal", "deviation")):
            continue  # products of draws: their ends are rarely reached
        assert (values.min(0) - low < 0.01 * width).all(), name
        assert (high - values.max(0) < 0.01 * width).all(), name


def test_batch_sampler_agrees_with_the_one_by_one_sampler():
    rng = np.random.default_rng(9)
    single = [sample_one(rng) for _ in range(600)]
    for name, values in sample_batch(rng, 600).items():
        assert measure_distances(values, np.stack([s[name] for s in single])).max() < 5.0, name


def test_quality_of_sampling_sees_a_shifted_draw():
    rng = np.random.default_rng(10)
    same, other = rng.random((400, 7)), rng.random((400, 7))
    assert measure_distances(same, other).max() < 5.0
    assert measure_distances(same, other + 0.2).max() > 6.0


def outcome(objective: float, *, optimal: bool = True) -> Outcome:
    return Outcome(optimal, objective, objective, 0.0)


@pytest.mark.parametrize(
    ("status", "peer", "right"),
    [
        (Status.OPTIMAL, outcome(100.0), True),
        (Status.OPTIMAL, outcome(100.01), False),
        (Status.TIME_LIMIT, outcome(100.0), False),
        (Status.OPTIMAL, outcome(100.0, optimal=False), False),
    ],
)
def test_quality_of_exact(status: Status, peer: Outcome, right: bool):
    names = Names(("q",), ("m",), ("g",), (1,))
    ours = Answers.stack([Answer.of(names, status, lower=100.0, upper=100.0)], names=names)
    assert _judge_optima([ours, [peer]])[0] is right


@pytest.mark.parametrize(
    ("lower", "right"), [([99.0, 50.0], True), ([100.1, 50.0], False), ([-np.inf, 50.0], False)]
)
def test_quality_of_bounds(lower: list[float], right: bool):
    from solvers.dual import Bounds

    bounds = Bounds(np.array(lower), None)  # pyright: ignore[reportArgumentType]
    ok, text = _judge_bounds([bounds, [100.0, 50.0]])
    assert ok is right
    if right:
        assert "0.500 % on average" in text
    assert f"{int(100.1 in lower)} above it, {int(-np.inf in lower)} not proven" in text
