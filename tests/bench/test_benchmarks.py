"""Benchmarks: what they claim about results is checked here, and that they run; times are not."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import Bounds, LinearConstraint, milp

from bench import device, lp_peers, specs, tables
from bench.__main__ import NAMES, main
from bench.measure import Case, Side, Spec, machine, rent, run_spec, section, time_case
from bench.specs import SPECS
from rodiu_jax.catalog import load_catalog
from rodiu_jax.catalog.sampling import sample
from solvers.highs import run_highs
from solvers.result import Result
from tests.oracles.numpy_batch_sampler import sample_batch
from tests.oracles.numpy_sampler import sample_one
from tests.oracles.published import Outcome

ROOT = Path(__file__).parents[2]


def test_registry_is_complete():
    assert tuple(SPECS) == NAMES
    for spec in SPECS.values():
        for text in (spec.measures, spec.peers, spec.quality, spec.precision, spec.by_hand):
            assert text
        assert list(spec.sizes + spec.large) == sorted(spec.sizes + spec.large)
        assert spec.repeats >= 3 or not spec.repeats


def test_stress_is_that_of_its_peer():
    run = run_spec(SPECS["stress"], smoke=True)
    assert [row.ok for row in run] == [True, True], run[0].quality


@pytest.mark.parametrize("name", ["sampling", "evaluation"])
def test_smoke_run_writes_its_table(name: str, tmp_path: Path):
    out = tmp_path / "table.md"
    ran = CliRunner().invoke(main, [name, "--smoke", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    text = out.read_text()
    for word in ("Date", "Machine", "cores", "jax", "numpy", "highspy", "Python", "Load average", "float64"):
        assert word in text
    assert "bytes read and written" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    width = table[0].count("|")
    assert len(table) > 3
    assert all(line.count("|") == width for line in table)
    columns = [cell.strip() for cell in table[0].split("|")[1:-1]]
    rows = [dict(zip(columns, map(str.strip, line.split("|")[1:-1]), strict=True)) for line in table[2:]]
    ours = [row for row in rows if row["ours / this"] == "-"]
    assert all(row["right"] == "yes" and row["quality"] for row in ours)
    assert any(float(row["wanted"]) >= 5 for row in rows if row["wanted"] != "-")


@pytest.mark.parametrize(
    "args", [["speed"], ["--smok"], ["sampling", "--smoke", "--out", "nowhere/else/table.md"]]
)
def test_bad_usage(args: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.measure.run_spec", lambda spec, smoke: [])
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


def test_repeats_are_interleaved_after_a_warm_up():
    order: list[str] = []
    own, other = time_case(toy(order), 3)
    assert order == ["ours", "peer"] * 4
    assert len(own.seconds) == len(other.seconds) == 3
    assert own.ratios == (1.0,) * 3
    assert min(other.seconds) >= 0.02
    for ratio, mine, its in zip(other.ratios, own.seconds, other.seconds, strict=True):
        assert ratio == pytest.approx((10 / mine) / (5 / its))  # a rate per item, whoever did fewer
    assert other.rate == pytest.approx(5 / sorted(other.seconds)[1])


def test_smoke_runs_each_side_once():
    order: list[str] = []
    assert len(time_case(toy(order), 0)) == 2
    assert order == ["ours", "peer"]


def test_a_wrong_result_shows_and_fails(monkeypatch: pytest.MonkeyPatch):
    rows = time_case(toy([], right=False), 0)
    assert "| NO | as told |" in section(SPECS["sampling"], rows)
    monkeypatch.setattr("bench.measure.run_spec", lambda spec, smoke: rows)
    ran = CliRunner().invoke(main, ["sampling"])
    assert ran.exit_code == 1
    assert "wrong: sampling, toy: as told" in ran.output


def test_sizes_and_repeats(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    class Cases:
        def __init__(self, size: int) -> None:
            seen.append(size)

        def __enter__(self):
            return iter([toy([])])

        def __exit__(self, *error: object) -> None:
            return None

    spec: Spec = replace(SPECS["sampling"], sizes=(1, 7), cases=Cases, repeats=3)
    assert [len(row.seconds) for row in run_spec(spec, smoke=True)] == [1, 1]
    assert seen == [1]
    assert [len(row.seconds) for row in run_spec(spec)] == [3] * 4
    assert seen == [1, 1, 7]


def test_a_gpu_has_the_rent_of_the_catalogue():
    line = rent("NVIDIA H100 80GB HBM3", 4)
    assert "$10.00 per hour (4 x H100_" in line  # 2.50, 0.65 and 0.35 as MODEL section 7 has them
    assert tables.rent(f"# x\n{line}\n") == pytest.approx(10.0)
    assert "$0.35 per hour (1 x RTX_4090_" in rent("NVIDIA GeForce RTX 4090", 1)
    assert "$0.65 per hour (1 x A6000_" in rent("NVIDIA RTX A6000", 1)
    for kind in ("cpu", "NVIDIA H200", "NVIDIA RTX 4000"):
        assert rent(kind, 1) == ""
    assert tables.rent("# x\n") is None


def test_sizes_grow_on_a_gpu_and_can_be_given(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr("bench.measure.run_spec", lambda spec, smoke: seen.append(spec.sizes) or [])
    monkeypatch.setattr("bench.measure.section", lambda spec, rows: "")
    own = SPECS["bound"]
    CliRunner().invoke(main, ["bound"])
    monkeypatch.setattr("rodiu_jax.runtime.devices.by_device", lambda *, cpu, accelerator: accelerator)
    CliRunner().invoke(main, ["bound"])
    CliRunner().invoke(main, ["bound", "--size", "5", "--size", "7"])
    assert seen == [own.sizes, own.sizes + own.large, (5, 7)]


def test_machine_is_described():
    text = machine()
    assert "cores" in text
    assert "jax" in text


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
        assert specs._deviations(values, np.stack([s[name] for s in single])).max() < 5.0, name


def test_quality_of_sampling_sees_a_shifted_draw():
    rng = np.random.default_rng(10)
    same, other = rng.random((400, 7)), rng.random((400, 7))
    assert specs._deviations(same, other).max() < 5.0
    assert specs._deviations(same, other + 0.2).max() > 6.0


def outcome(objective: float, *, optimal: bool = True) -> Outcome:
    return Outcome(optimal, objective, objective, 0.0)


@pytest.mark.parametrize(
    ("ours", "peer", "right"),
    [
        (Result(0, "optimal", 100.0, 100.0), outcome(100.0), True),
        (Result(0, "optimal", 100.0, 100.0), outcome(100.01), False),
        (Result(0, "time_limit", 100.0, 90.0), outcome(100.0), False),
        (Result(0, "optimal", 100.0, 100.0), outcome(100.0, optimal=False), False),
    ],
)
def test_quality_of_exact(ours: Result, peer: Outcome, right: bool):
    assert specs._same_optimum([[ours], [peer]])[0] is right


@pytest.mark.parametrize(
    ("lower", "right"), [([99.0, 50.0], True), ([100.1, 50.0], False), ([-np.inf, 50.0], False)]
)
def test_quality_of_bounds(lower: list[float], right: bool):
    from solvers.dual import Bounds

    bounds = Bounds(np.array(lower), None)  # pyright: ignore[reportArgumentType]
    ok, text = specs._bound_quality([bounds, [100.0, 50.0]])
    assert ok is right
    if right:
        assert "0.500 % on average" in text
    assert f"{int(100.1 in lower)} above it, {int(-np.inf in lower)} not proven" in text


def stand_in(found: list[Any]) -> ModuleType:
    """A module with the interface of cuPDLPx 0.3, whose models HiGHS solves."""

    class Model:
        def __init__(self, cost, rows, row_lower, row_upper, lower, upper) -> None:
            self.given = cost, rows.tocsr(), row_lower, row_upper, lower, upper
            self.params: dict[str, Any] = {}
            self.X = None
            found.append(self)

        def setParams(self, **params: Any) -> None:
            self.params |= params

        def optimize(self) -> None:
            cost, rows, row_lower, row_upper, lower, upper = self.given
            bounds = LinearConstraint(rows, row_lower, row_upper)
            self.X = milp(cost, constraints=bounds, bounds=Bounds(lower, upper)).x

    module = ModuleType("cupdlpx")
    module.Model = Model  # pyright: ignore[reportAttributeAccessIssue]
    return module


def test_a_solver_of_one_sparse_program_answers_each_scenario(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    monkeypatch.setitem(sys.modules, "cupdlpx", stand_in(made))
    programs = lp_peers.formulations(sample("seed", n=3, seed=8))
    optima = [run_highs(f, relax=True).objective for f in programs]
    np.testing.assert_allclose(lp_peers.peer("cupdlpx", programs, 1000)(), optima, rtol=1e-6)
    assert made[0].params["IterationLimit"] == 1000
    assert made[0].params["OptimalityTol"] == lp_peers.TOLERANCE


def test_first_order_solver_of_highs_nears_the_optima():
    programs = lp_peers.formulations(sample("seed", n=2, seed=8))
    optima = np.array([run_highs(f, relax=True).objective for f in programs])
    near = lp_peers.peer("pdlp", programs, 20_000)()
    assert (np.abs(near / optima - 1.0) < 0.05).all()
    far = lp_peers.peer("pdlp", programs, 10)()
    assert (np.abs(far / optima - 1.0) > 0.05).any(), "the limit counts"


@pytest.mark.parametrize("solver", ["mpax", "cupdlpx"])
def test_a_peer_that_is_not_installed_is_named(solver: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, solver, None)
    result = CliRunner().invoke(lp_peers.main, [solver, "--scenarios", "1"])
    assert result.exit_code == 2
    assert f"pip install {solver}" in result.output


def test_one_call_measures_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command[2:])
        return subprocess.CompletedProcess(command, int("bench.roofline" in command))

    monkeypatch.setattr(device.subprocess, "run", run)
    result = CliRunner().invoke(device.main, [str(tmp_path / "out"), "--smoke"])
    assert result.exit_code == 1, "a step failed"
    assert [command[0] for command in ran][:3] == ["pytest", "bench.roofline", "bench"], "the others ran"
    for command in ran[1:]:
        assert Path(command[command.index("--out") + 1]).parent == tmp_path / "out"
    ran.clear()
    assert CliRunner().invoke(device.main, [str(tmp_path), "--only", "tests"]).exit_code == 0
    assert len(ran) == 1
    refused = CliRunner().invoke(device.main, [str(tmp_path), "--only", "nothing"])
    assert refused.exit_code == 2
    assert "expected one of tests, roofline" in refused.output


def test_steps_of_a_machine_are_commands_that_exist(tmp_path: Path):
    assert set(device.BENCHMARKS) <= set(NAMES)
    for arguments in device.steps(tmp_path, smoke=True).values():
        module = arguments[1]
        if module != "pytest":
            command = import_module(f"{module}.__main__" if module == "bench" else module).main
            command.make_context(module, [*arguments[2:]])
