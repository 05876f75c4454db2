"""The command line as a user meets it: help, the whole walk on a tiny catalogue, every kind of bad input."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pandas as pd
import pytest

from rodiu_jax.catalog import load_catalog
from rodiu_jax.cli import cli, main
from rodiu_jax.instance import FIELD_SPECS, load_instances
from rodiu_jax.verdict import COSTS, FAMILIES
from solvers.result import Result
from tests.oracles.tiny import TINY

TRACE = Path(__file__).parent / "data" / "azure_code_excerpt.csv"

SWEEP = """
name = "two budgets"
title = "Cost by budget"
catalog = "tiny.toml"
samples = 2
[[factors]]
field = "budget"
scale = [0.1, 1.0]
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def rodiu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the entry point in this process."""

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["rodiu", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else int(stop.code)
        return Ran(code, *capsys.readouterr())

    return run


def shell(*args: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The installed command in a process of its own."""
    command = Path(sys.executable).with_name("rodiu")
    return subprocess.run([command, *map(str, args)], capture_output=True, text=True, timeout=60, **options)


def answered(ran: Ran) -> Ran:
    assert (ran.code, ran.err) == (0, ""), ran
    return ran


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the tiny catalogue in it."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    return tmp_path


# ---- help ----


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_lists_every_option(rodiu: Run, name: str):
    text = answered(rodiu(name, "--help")).out
    command = cli.commands[name]
    assert command.help is not None
    assert command.help.splitlines()[0].strip() in " ".join(text.split())
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} explains itself"
            assert all(spelling in text for spelling in parameter.opts)
    assert answered(rodiu(name, "-h")).out == text


@pytest.mark.parametrize("name", ["sample", "sweep"])
def test_help_lists_every_field_that_set_knows(rodiu: Run, name: str):
    lines = answered(rodiu(name, "--help")).out.splitlines()
    for field, spec in FIELD_SPECS.items():
        assert any(field in line and spec.unit in line for line in lines), field


def test_first_page_names_every_command(rodiu: Run):
    text = answered(rodiu("--help")).out
    assert all(name in text for name in cli.commands)
    assert "--version" in text


def test_heavy_modules_are_not_loaded_for_help():
    code = (
        "import sys, rodiu_jax, rodiu_jax.cli;"
        "heavy = {'jax', 'numpy', 'pandas', 'matplotlib', 'scipy', 'pydantic', 'highspy', 'pyarrow'};"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_exit_codes_of_the_installed_command(tmp_path: Path):
    good = shell("--version")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("rodiu")
    usage = shell("sample", "--n", "-4", "-o", tmp_path / "out.npz")
    assert (usage.returncode, usage.stdout) == (2, "")
    assert_one_line(usage.stderr, "--n", "-4", "1<=x<=")
    unknown = shell("smple")
    assert unknown.returncode == 2
    assert_one_line(unknown.stderr, "smple")
    assert list(tmp_path.iterdir()) == []


def test_no_arguments_shows_help(rodiu: Run):
    assert answered(rodiu()).out == answered(rodiu("--help")).out


def test_help_shows_the_formats_of_files(rodiu: Run):
    plans = answered(rodiu("evaluate", "--help")).out
    keys = ("instance", "deployments", "model", "gpu", "tp", "routes", "query", "share", "unmet")
    assert all(f'"{key}"' in plans for key in keys)
    solved = answered(rodiu("solve", "--help")).out
    assert all(key in solved.split("--json: ")[1] for key in (*Result(0, "unknown").to_json(), *COSTS))
    sampled = " ".join(answered(rodiu("sample", "--help")).out.split())
    assert all(
        key in sampled for key in ("query_names", "model_names", "gpu_names", "uncertainty", "last axis")
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes of a POSIX shell")
def test_a_reader_that_goes_away_is_no_traceback():
    command = Path(sys.executable).with_name("rodiu")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [command, "describe"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


# ---- the walk ----


def test_walk_from_samples_to_a_sweep(rodiu: Run, here: Path):
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 3, "--seed", 7, "-o", "three.npz"))
    batch = load_instances("three.npz")
    assert (batch.size, batch.shape, batch.uncertainty) == (3, (2, 2, 2, 2), "ddu")
    with np.load("three.npz") as archive:
        names = {"query_names", "model_names", "gpu_names", "uncertainty"}
        assert set(archive.files) == set(FIELD_SPECS) | names

    found = json.loads(answered(rodiu("solve", "three.npz", "--workers", 2, "--json")).out)
    keys = ["instance", "status", "objective", "bound", "gap", "costs", "plan", "seconds"]
    for b, row in enumerate(found):
        assert list(row) == keys
        assert (row["instance"], row["status"]) == (b, "optimal")
        assert row["bound"] <= row["objective"]
        assert 0 <= row["gap"] <= 1e-6
        assert list(row["costs"]) == list(COSTS)
        assert row["costs"]["total_cost"] == row["objective"]
        plan = row["plan"]
        assert list(plan) == ["instance", "deployments", "routes", "unmet"]
        assert plan["instance"] == b
        assert all(list(d) == ["model", "gpu", "tp"] for d in plan["deployments"])
        assert all(list(r) == ["query", "model", "gpu", "share"] for r in plan["routes"])
        assert plan["deployments"], "something worth deploying, else this test shows little"

    answered(rodiu("solve", "three.npz", "--workers", 2, "--plans", "found.json"))
    written = json.loads(Path("found.json").read_text())
    assert [plan["instance"] for plan in written] == [0, 1, 2]
    ran = answered(rodiu("evaluate", "three.npz", "found.json", "-o", "found.parquet"))
    assert ran.out == "3 rows in found.parquet: 3 feasible, 0 not\n"

    Path("plans.json").write_text(json.dumps([row["plan"] for row in found] + [nothing(None)]))
    ran = answered(rodiu("evaluate", "three.npz", "plans.json", "-o", "table.parquet"))
    assert ran.out == "6 rows in table.parquet: 6 feasible, 0 not\n"
    table = pd.read_parquet("table.parquet")
    assert list(table) == [
        *("plan", "instance", "feasible"),
        *COSTS,
        *(f"margin_{name}" for name in FAMILIES),
        "binding",
    ]
    assert table["plan"].tolist() == [0, 1, 2, 3, 3, 3]
    assert table["instance"].tolist() == [0, 1, 2, 0, 1, 2]
    assert table["feasible"].dtype == bool
    assert table.loc[:2, "total_cost"].tolist() == pytest.approx([r["objective"] for r in found], rel=1e-9)
    assert (table.loc[3:, "total_cost"] == table.loc[3:, "unmet_cost"]).all()

    Path("spec.toml").write_text(SWEEP)
    ran = rodiu("sweep", "spec.toml", "-o", "out", "--seed", 7, "--workers", 2, "--quiet")
    assert (ran.code, ran.err) == (0, "")
    parts = sorted(Path("out/scenarios").glob("*.parquet"))
    rows = pd.concat([pd.read_parquet(part) for part in parts]).sort_values(["sample", "point"])
    assert rows[["sample", "point"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert rows[["sample", "point"]].dtypes.map(lambda kind: kind.kind).tolist() == ["i", "i"]
    assert {"budget", "lower_bound", "upper_bound", *COSTS, "status"} <= set(rows)
    assert rows["budget"].tolist() == [0.1, 1.0] * 2
    assert rows["status"].tolist() == ["optimal"] * 4
    assert (rows["lower_bound"] <= rows["upper_bound"]).all()
    at_full_budget = rows[rows["point"] == 1]["upper_bound"].tolist()
    assert at_full_budget == pytest.approx([r["objective"] for r in found[:2]], rel=1e-6)
    page = Path("out/report.html").read_text()
    assert "Cost by budget" in page
    assert "per period on average, at every point." in page
    before = sorted(path for path in Path("out").rglob("*") if path.is_file())
    for path in before:
        if path.parent.name in ("figures", "tables") or path.name in ("report.html", "summary.csv"):
            path.unlink()
    assert "Report: out/report.html" in answered(rodiu("report", "out")).out
    assert sorted(path for path in Path("out").rglob("*") if path.is_file()) == before
    assert Path("out/report.html").read_text() == page
    for figure, made, start in (
        ("effects", "effects.png", b"\x89PNG"),
        ("regimes", "regimes.svg", b"<?xml"),
        ("costs", "costs.pdf", b"%PDF"),
        ("constraints", "constraints.svg", b"<?xml"),
    ):
        assert answered(rodiu("plot", "out", "--figure", figure, "-o", made)).out == ""
        assert Path(made).read_bytes().startswith(start)
    answered(rodiu("plot", "out", "--figure", "tornado", "--output", "gpus_rented", "-o", "swing.svg"))
    assert "GPUs" in Path("swing.svg").read_text()
    for args, *words in (
        (("--figure", "map"), "two factors together", "'map'"),
        (("--figure", "indices"), "saltelli", "'indices'"),
        (("--figure", "tornado", "--output", "cost"), "output", "total_cost"),
    ):
        refused(rodiu, "plot", "out", *args, "-o", "made.png", needles=tuple(words))
    assert [path.name for path in here.rglob(".*")] == [".lock"], "no temporary file is left"


def nothing(instance: int | None) -> dict[str, Any]:
    """The plan that serves nobody."""
    unmet = {"Code_Gen": 1.0, "Translation": 1.0}
    return {"instance": instance, "deployments": [], "routes": [], "unmet": unmet}


def test_solve_refuses_a_place_for_failures_that_cannot_be(rodiu: Run, here: Path):
    drawn(here, n=1)
    refused(rodiu, "solve", "in.npz", "--failures", "in.npz", needles=("in.npz", "folder"))


def test_solve_prints_a_table_without_json(rodiu: Run, here: Path):
    drawn(here, n=1)
    text = answered(rodiu("solve", "in.npz", "--workers", 1)).out
    assert "optimal" in text
    assert "Llama" in text


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Records what `solve` asks of the pool, which answers at once."""
    calls: list[dict[str, Any]] = []

    def solve_iter(instances, indices, **options):
        calls.append({"indices": indices, **options})
        return iter([Result(b, "time_limit") for b in indices])

    monkeypatch.setattr("solvers.pool.solve_iter", solve_iter)
    return calls


@pytest.mark.parametrize(
    ("args", "indices"),
    [
        ([], [0, 1, 2, 3]),
        (["--index", "2"], [2]),
        (["--index", "0", "2"], [0, 2]),
        (["--index", "3", "--index", "1"], [3, 1]),
        (["--index", "0", "2", "--index", "3", "--json"], [0, 2, 3]),
        (["--index=1", "--json"], [1]),
        (["--index=0", "1", "3", "--json"], [0, 1, 3]),
        (["--index=0", "1", "--index=2", "3"], [0, 1, 2, 3]),
    ],
)
def test_solve_reads_indices(rodiu: Run, here: Path, asked, args: list[str], indices: list[int]):
    drawn(here, n=4)
    answered(rodiu("solve", "in.npz", *args))
    answered(rodiu("solve", *args, *([] if args[-1:] == [] else ["--json"]), "in.npz"))
    assert [call["indices"] for call in asked] == [indices, indices]


def test_solve_passes_its_limits_on(rodiu: Run, here: Path, asked):
    drawn(here, n=1)
    answered(
        rodiu("solve", "in.npz", "--gap", 0.01, "--time-limit", 2.5, "--workers", 3, "--failures", "failed")
    )
    answered(rodiu("solve", "in.npz", "--gap", 0))
    limits = {"gap": 0.01, "time_limit": 2.5, "workers": 3, "failures": Path("failed")}
    assert asked[0] == {"indices": [0], **limits}
    limits = {"gap": 0.0, "time_limit": float("inf"), "workers": None, "failures": None}
    assert asked[1] == {"indices": [0], **limits}


def test_solve_refuses_a_place_for_its_plans_before_the_work(rodiu: Run, here: Path, asked):
    drawn(here, n=1)
    refused(rodiu, "solve", "in.npz", "--plans", "no/p.json", needles=("no/p.json", "folder"))
    assert asked == []
    answered(rodiu("solve", "in.npz", "--plans", "none.json"))
    assert json.loads(Path("none.json").read_text()) == []  # no scenario has a plan


def test_what_solve_does_not_know_is_null(rodiu: Run, here: Path, asked):
    drawn(here, n=1)
    (row,) = json.loads(answered(rodiu("solve", "in.npz", "--json")).out)
    assert row["status"] == "time_limit"
    assert [row[k] for k in ("objective", "bound", "gap", "costs", "plan", "seconds")] == [None] * 6


def test_a_failed_scenario_is_exit_1_and_loses_no_other(
    rodiu: Run, here: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn(here, n=2)
    results = [Result(0, "error", message="out of luck"), Result(1, "time_limit", bound=5.0)]
    monkeypatch.setattr("solvers.pool.solve_iter", lambda *args, **options: iter(results))
    ran = rodiu("solve", "in.npz", "--json")
    assert ran.code == 1
    assert_one_line(ran.err, "1 of 2", "out of luck")
    assert [row["status"] for row in json.loads(ran.out)] == ["error", "time_limit"]
    assert json.loads(ran.out)[1]["bound"] == 5.0


@pytest.mark.parametrize(
    ("raised", "word"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "memory"),
        (OSError(28, "No space left on device", "rows"), "No space"),
    ],
)
def test_work_that_fails_is_one_line(
    rodiu: Run, here: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, word: str
):
    drawn(here, n=1)

    def fail(*args, **options):
        raise raised

    monkeypatch.setattr("solvers.pool.solve_iter", fail)
    ran = rodiu("solve", "in.npz")
    assert (ran.code, ran.out) == (1, "")
    assert_one_line(ran.err.removeprefix("\n"), word)  # click ends the line that shows ^C


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        (["budget=3000"], "budget", 3000.0),
        (["budget*=0.5"], "budget", 2500.0),
        (["budget=3000", "budget*=2"], "budget", 6000.0),
        (["gpu_memory=11"], "gpu_memory", [11.0, 11.0]),
        (["gpu_memory=11,12"], "gpu_memory", [11.0, 12.0]),
        (["gpu_memory[H100_*]*=0.5"], "gpu_memory", [48.0, 40.0]),
        ([" max_routes = 2 "], "max_routes", 2),
    ],
)
def test_set_changes_every_scenario(rodiu: Run, here: Path, changes: list[str], field: str, expected: Any):
    options = [part for change in changes for part in ("--set", change)]
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 2, *options, "-o", "out.npz"))
    batch = load_instances("out.npz")
    for b in range(2):
        np.testing.assert_array_equal(getattr(batch.one(b), field), expected)


@pytest.mark.parametrize("mode", ["none", "diu", "ddu"])
def test_sample_writes_the_mode(rodiu: Run, here: Path, mode: str):
    args = ("--catalog", "tiny.toml", "--n", 1, "--uncertainty", mode)
    answered(rodiu("sample", *args, "-o", "out.npz"))
    assert load_instances("out.npz").uncertainty == mode


def test_first_scenarios_of_a_longer_run_are_the_same(rodiu: Run, here: Path):
    for n in (1, 3):
        answered(rodiu("sample", "--catalog", "tiny.toml", "--n", n, "--seed", 5, "-o", f"{n}.npz"))
    one, three = load_instances("1.npz"), load_instances("3.npz")
    for a, b in zip(one.one(0), three.one(0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_describe_and_validate(rodiu: Run, here: Path):
    text = answered(rodiu("describe", "--catalog", "tiny.toml")).out
    assert all(name in text for name in ("Code_Gen", "Llama-3.1-8B", "H100_FP16", "queries/h"))
    text = answered(rodiu("validate", "--catalog", "tiny.toml", "--n", 50)).out
    assert "Llama-3.1-8B" in text


def test_calibrated_catalogue_can_be_sampled(rodiu: Run, here: Path):
    text = answered(
        rodiu("calibrate", TRACE, "--query", "Code_Gen", "--catalog", "tiny.toml", "-o", "c.toml")
    ).out
    assert "c.toml" in text
    answered(rodiu("sample", "--catalog", "c.toml", "--n", 5, "-o", "c.npz"))
    fields = load_instances("c.npz").fields
    assert len(set(fields.input_tokens[:, 0])) > 1
    assert load_catalog("c.toml").sets["query"] == ("Code_Gen", "Translation")


def test_sweep_lists_its_presets(rodiu: Run):
    lines = answered(rodiu("sweep", "--list")).out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "cost-budget",
        "delay-error",
        "gpu-cost-error",
        "memory-error",
    ]
    assert re.fullmatch(r"cost-budget +GPU prices against the budget +grid 6 x 5, 30 points", lines[0])


def test_a_dry_run_and_the_events_of_a_sweep(rodiu: Run, here: Path):
    Path("spec.toml").write_text(SWEEP)
    before = set(here.rglob("*"))
    lines = answered(
        rodiu("sweep", "spec.toml", "--dry-run", "--samples", 3, "--workers", 1)
    ).out.splitlines()
    assert lines[1] == "Rows: 6 (2 points x 3 samples)"
    assert lines[2] == "Design: grid, 2 points; factors: budget"
    for line, word in zip(lines[4:7], ("Time: about", "Memory: ", "Disk: about"), strict=True):
        assert line.startswith(word)
    assert set(here.rglob("*")) == before
    said = answered(rodiu("sweep", "spec.toml", "-o", "out", "--log-json", "-", "--workers", 1)).out
    events = [json.loads(line) for line in said.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"][0::2] == ["start", "end"]
    assert events[-1]["ok"]


# ---- bad input ----


def assert_one_line(err: str, *needles: str) -> None:
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("rodiu: ")
    assert "Traceback" not in err
    for needle in needles:
        assert needle in err, (needle, err)


def drawn(folder: Path, n: int = 2) -> None:
    """Scenarios of the tiny catalogue in ``in.npz`` and two plans for them in ``plans.json``."""
    from rodiu_jax.sampling import sample

    sample(folder / "tiny.toml", n=n, seed=1).save(folder / "in.npz")
    (folder / "plans.json").write_text(json.dumps([nothing(0), nothing(None)]))


def rewritten(**changes: Any) -> Callable[[], None]:
    """Replaces arrays of ``in.npz``; None takes one out, a function gets the old one."""

    def change() -> None:
        with np.load("in.npz") as archive:
            arrays = {name: archive[name] for name in archive.files}
        for name, value in changes.items():
            if value is None:
                del arrays[name]
            else:
                arrays[name] = value(arrays[name].copy()) if callable(value) else value
        np.savez("in.npz", **arrays)

    return change


def first_is(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def one_array() -> None:
    with Path("in.npz").open("wb") as stream:
        np.save(stream, np.ones(3))


BAD_INSTANCES = {
    "missing field": (rewritten(budget=None), "budget", "missing"),
    "missing names": (rewritten(gpu_names=None), "gpu_names", "missing"),
    "missing mode": (rewritten(uncertainty=None), "uncertainty", "missing"),
    "unknown field": (rewritten(bugdet=np.ones(2)), "bugdet", "only the fields", "did you mean budget"),
    "wrong shape": (rewritten(gpu_memory=np.ones(3)), "gpu_memory", "(3,)", "(2,)"),
    "batch sizes that differ": (rewritten(budget=np.ones(5)), "budget", "5"),
    "text for numbers": (rewritten(budget=np.array("much")), "budget", "numbers"),
    "complex numbers": (rewritten(budget=np.array(1j)), "budget", "complex"),
    "NaN": (rewritten(gpu_price=first_is(np.nan)), "gpu_price[0,0]", "nan"),
    "infinity": (rewritten(arrival_rate=first_is(np.inf)), "arrival_rate[0,0]", "inf"),
    "negative rate": (rewritten(arrival_rate=first_is(-3.0)), "arrival_rate[0,0]", "-3.0", "queries/h"),
    "negative Gamma": (rewritten(gamma_delay=np.array(-1.0)), "gamma_delay", "-1.0"),
    "share above 1": (rewritten(unmet_cap=np.array(1.5)), "unmet_cap", "1.5"),
    "half a degree": (rewritten(tp_degree=np.array([1.0, 1.5])), "tp_degree", "1.5"),
    "unknown mode": (rewritten(uncertainty=np.array("dddu")), "uncertainty", "'dddu'", "ddu"),
    "doubled name": (rewritten(gpu_names=np.array(["a", "a"])), "gpu_names", "'a'", "distinct"),
    "pickled names": (rewritten(gpu_names=np.array(["a", "b"], dtype=object)), "pickle"),
    "no scenario": (rewritten(arrival_rate=np.ones((0, 2))), "arrival_rate"),
    "truncated file": (lambda: os.truncate("in.npz", os.path.getsize("in.npz") // 2), ".npz"),
    "nearly whole file": (lambda: os.truncate("in.npz", os.path.getsize("in.npz") - 1), ".npz"),
    "empty file": (lambda: os.truncate("in.npz", 0), ".npz"),
    "not an archive": (lambda: Path("in.npz").write_text("[]"), ".npz"),
    "one array": (one_array, "an .npz archive, not a single array"),
    "no such file": (lambda: Path("in.npz").unlink(), "No such file"),
    "a folder": (lambda: (Path("in.npz").unlink(), Path("in.npz").mkdir()), "directory"),
}


@pytest.mark.parametrize("what", BAD_INSTANCES)
def test_bad_instances(rodiu: Run, here: Path, what: str):
    change, *needles = BAD_INSTANCES[what]
    drawn(here)
    change()
    refused(rodiu, "evaluate", "in.npz", "plans.json", "-o", "made", needles=("in.npz", *needles))
    refused(rodiu, "solve", "in.npz", "--json", needles=("in.npz", *needles))


def refused(rodiu: Run, *args: object, needles: tuple[str, ...]) -> None:
    """Exit 2, one line with these words, nothing printed, and no file that was not there."""
    before = sorted(Path().rglob("*"))
    ran = rodiu(*args)
    assert (ran.code, ran.out) == (2, ""), ran
    assert_one_line(ran.err, *needles)
    assert sorted(Path().rglob("*")) == before


PAIR = {"model": "Llama-3.1-8B", "gpu": "H100_FP16"}
DEPLOYED = nothing(0) | {"deployments": [PAIR | {"tp": 2}]}


def route(**changes: Any) -> dict[str, Any]:
    return {"query": "Code_Gen", **PAIR, "share": 0.5} | changes


BAD_PLANS = {
    "not JSON": ("[{", "line 1 column 3", "JSON"),
    "NaN": (json.dumps([nothing(0) | {"unmet": {"Code_Gen": float("nan")}}]), "NaN", "finite"),
    "infinity": ('[{"instance": 1e999}]', "finite"),
    "not a list": (nothing(0), "list of plans"),
    "output of solve": ([{"status": "optimal", "plan": nothing(0)}], "[0]", "rodiu solve --plans"),
    "missing field": ([{k: v for k, v in nothing(0).items() if k != "routes"}], "[0].routes", "missing"),
    "unknown field": ([nothing(0) | {"rutes": []}], "[0].rutes", "only the fields"),
    "in the second plan": ([nothing(0), nothing(7)], "[1].instance", "7", "from 0 to 1"),
    "instance of another type": ([nothing(0) | {"instance": "0"}], "[0].instance", "'0'"),
    "unknown model": (
        [nothing(0) | {"deployments": [{"model": "Lama", "gpu": "H100_FP16", "tp": 1}]}],
        *("[0].deployments[0].model", "'Lama'", "Llama-3.1-8B"),
    ),
    "unknown query": ([nothing(0) | {"unmet": {"Chat": 1.0}}], "[0].unmet", "'Chat'", "Code_Gen"),
    "degree that is not offered": (
        [nothing(0) | {"deployments": [PAIR | {"tp": 3}]}],
        *("[0].deployments[0].tp", "got 3", "1, 2"),
    ),
    "share on a pair not deployed": (
        [nothing(0) | {"routes": [route()]}],
        *("[0].routes[0]", "Llama-3.1-8B on H100_FP16", "deploys"),
    ),
    "negative share": (
        [DEPLOYED | {"routes": [route(share=-0.1)]}],
        "[0].routes[0].share",
        "-0.1",
        "(a share)",
    ),
    "share of another type": ([DEPLOYED | {"routes": [route(share="1")]}], "[0].routes[0].share", "'1'"),
    "share of 400 digits": (
        json.dumps([DEPLOYED | {"routes": [route(share=7)]}]).replace("7}", "9" * 400 + "}"),
        *("999", "finite"),
    ),
    "instance of 5,000 digits": ('[{"instance": ' + "9" * 5000 + "}]", "999", "finite"),
    "query twice": ('[{"unmet": {"Code_Gen": 1.0, "Code_Gen": 0.5}}]', "Code_Gen", "once"),
    "route twice": ([DEPLOYED | {"routes": [route(), route()]}], "[0].routes[1]", "once"),
    "pair twice": (
        [nothing(0) | {"deployments": [PAIR | {"tp": 1}, PAIR | {"tp": 2}]}],
        *("[0].deployments[1]", "once"),
    ),
    "not text": (b"\xff\xfe[]", "UTF-8"),
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_bad_plans(rodiu: Run, here: Path, what: str):
    content, *needles = BAD_PLANS[what]
    drawn(here)
    if isinstance(content, bytes):
        Path("plans.json").write_bytes(content)
    else:
        Path("plans.json").write_text(content if isinstance(content, str) else json.dumps(content))
    refused(rodiu, "evaluate", "in.npz", "plans.json", "-o", "made", needles=("plans.json", *needles))


SAMPLE = ("sample", "--catalog", "tiny.toml", "--n", "2", "-o", "made.npz")
BAD_USAGE = {
    "negative count": ((*SAMPLE, "--n", "-4"), "--n", "-4"),
    "count of nothing": ((*SAMPLE, "--n", "0"), "--n", "0"),
    "half a count": ((*SAMPLE, "--n", "2.5"), "--n", "2.5", "integer"),
    "no count": (("sample", "-o", "made.npz"), "--n", "Missing"),
    "no output": (("sample", "--n", "2"), "--output", "Missing"),
    "negative seed": ((*SAMPLE, "--seed", "-1"), "--seed", "-1"),
    "huge seed": ((*SAMPLE, "--seed", str(2**63)), "seed", str(2**63)),
    "unknown mode": ((*SAMPLE, "--uncertainty", "dd"), "--uncertainty", "dd", "ddu"),
    "unknown catalogue": ((*SAMPLE, "--catalog", "sead"), "sead", "seed"),
    "unknown option": ((*SAMPLE, "--sed", "1"), "--sed", "--seed"),
    "misspelt field": ((*SAMPLE, "--set", "bugdet=3"), "--set", "'bugdet'", "did you mean budget"),
    "set without a value": ((*SAMPLE, "--set", "budget"), "--set", "'budget'", "FIELD=VALUE"),
    "set to nothing": ((*SAMPLE, "--set", "budget="), "--set", "'budget='"),
    "set to a word": ((*SAMPLE, "--set", "budget=much"), "--set", "budget", "'much'", "number"),
    "set to NaN": ((*SAMPLE, "--set", "budget=nan"), "--set", "budget", "nan", "finite"),
    "set out of range": ((*SAMPLE, "--set", "gamma_delay=-1"), "--set", "gamma_delay", "-1.0"),
    "factor out of range": ((*SAMPLE, "--set", "arrival_rate*=-1"), "--set", "arrival_rate"),
    "set to no 64-bit number": ((*SAMPLE, "--set", "max_routes=1e300"), "--set", "max_routes", "1e+300"),
    "factor too large": ((*SAMPLE, "--set", "budget*=1e308"), "--set", "budget", "inf", "finite"),
    "set too many": ((*SAMPLE, "--set", "gpu_memory=1,2,3"), "--set", "gpu_memory", "2 number"),
    "set no such name": ((*SAMPLE, "--set", "gpu_price[B200*]=1"), "--set", "'B200*'", "H100_FP16"),
    "unwritable folder": ((*SAMPLE, "-o", "tiny.toml/made.npz"), "tiny.toml/made.npz", "folder"),
    "missing folder": ((*SAMPLE, "-o", "nowhere/made.npz"), "nowhere/made.npz", "folder"),
    "output is a folder": ((*SAMPLE, "-o", "."), "folder"),
    "index too large": (("solve", "in.npz", "--index", "0", "2"), "--index", "got 2", "from 0 to 1"),
    "negative index": (("solve", "in.npz", "--index", "-1"), "--index", "-1"),
    "index that is a word": (("solve", "in.npz", "--index", "one"), "--index", "one"),
    "gap above 1": (("solve", "in.npz", "--gap", "2"), "--gap", "2"),
    "gap not a number": (("solve", "in.npz", "--gap", "nan"), "--gap", "nan"),
    "no time": (("solve", "in.npz", "--time-limit", "0"), "--time-limit", "0"),
    "time not a number": (("solve", "in.npz", "--time-limit", "nan"), "--time-limit", "nan"),
    "sweep gap not a number": (("sweep", "cost-budget", "-o", "made", "--gap", "nan"), "--gap", "nan"),
    "window not a number": (
        ("calibrate", TRACE, "--query", "Code_Gen", "--window", "nan", "-o", "made"),
        *("window", "nan"),
    ),
    "no workers": (("solve", "in.npz", "--workers", "0"), "--workers", "0"),
    "table in no folder": (
        ("evaluate", "in.npz", "plans.json", "-o", "no/t.parquet"),
        "no/t.parquet",
        "folder",
    ),
    "describe nothing": (("describe", "--catalog", "sead"), "sead", "did you mean seed"),
    "validate nothing": (("validate", "--catalog", "none.toml"), "none.toml"),
    "unknown preset": (("sweep", "cost-buget", "-o", "made"), "'cost-buget'", "did you mean cost-budget"),
    "no preset": (("sweep",), "PRESET", "cost-budget"),
    "sweep to nowhere": (("sweep", "cost-budget"), "-o DIR"),
    "report of nothing": (("report", "made"), "made", "folder of a sweep"),
    "plot of nothing": (("plot", "made", "--figure", "map", "-o", "made.png"), "made", "folder of a sweep"),
    "plot of what": (("plot", "made", "--figure", "mapp", "-o", "made.png"), "'mapp'", "did you mean map"),
    "plot to what": (("plot", "made", "--figure", "map", "-o", "made.gif"), "made.gif", ".png, .svg, .pdf"),
    "plot of costs by another name": (
        ("plot", "made", "--figure", "costs", "--output", "gap", "-o", "made.png"),
        *("output", "'gap'"),
    ),
    "plot of all factors": (
        ("plot", "made", "--figure", "tornado", "--factors", "a,b", "-o", "made.png"),
        *("factors", "'a,b'"),
    ),
    "sweep of no samples": (("sweep", "cost-budget", "-o", "made", "--samples", "0"), "--samples", "0"),
    "sweep with another method": (
        ("sweep", "cost-budget", "-o", "made", "--method", "luck"),
        "luck",
        "exact",
    ),
    "sweep into a file": (("sweep", "cost-budget", "-o", "tiny.toml"), "tiny.toml", "folder"),
    "sweep below a file": (("sweep", "cost-budget", "-o", "tiny.toml/made"), "tiny.toml/made", "folder"),
    "sweep misspelt set": (("sweep", "cost-budget", "-o", "made", "--set", "bugdet=1"), "--set", "'bugdet'"),
    "resume of nothing": (("sweep", "no.toml", "-o", "made", "--resume"), "no.toml"),
}


@pytest.mark.parametrize("what", BAD_USAGE)
def test_bad_usage(rodiu: Run, here: Path, what: str):
    args, *needles = BAD_USAGE[what]
    drawn(here)
    refused(rodiu, *args, needles=tuple(needles))


BAD_CATALOGS = {
    "not TOML": ("[catalog", "TOML"),
    "text for a number": (TINY + '[quantity.budget]\neach = "much"\n', "quantity.budget.each", "'much'"),
    "reversed range": (
        TINY + "[quantity.budget]\neach = { uniform = [2, 1] }\n",
        "quantity.budget",
        "[2.0, 1.0]",
    ),
    "unknown key": (TINY + "[quantity.budget]\neech = 1\n", "quantity.budget", "'eech'", "did you mean each"),
    "negative value": (TINY + "[quantity.budget]\neach = -1\n", "budget", "-1"),
    "NaN": (TINY + "[quantity.budget]\neach = nan\n", "quantity.budget.each", "nan"),
    "no name": ('[catalog]\nextends = "seed"\n', "catalog.name", "missing"),
    "unknown base": ('[catalog]\nname = "x"\nextends = "sead"\n', "sead", "did you mean seed"),
    "values for no such name": (TINY + "[quantity.gpu_memory.values]\nB200 = 1\n", "B200"),
}


@pytest.mark.parametrize("what", BAD_CATALOGS)
def test_bad_catalogues(rodiu: Run, here: Path, what: str):
    text, *needles = BAD_CATALOGS[what]
    Path("tiny.toml").write_text(text)
    refused(rodiu, *SAMPLE, needles=("tiny.toml", *needles))


BAD_SPECS = {
    "not TOML": ("name = ", "TOML"),
    "text for a number": (SWEEP.replace("samples = 2", 'samples = "2"'), "samples", "'2'"),
    "unknown catalogue": (SWEEP.replace("tiny.toml", "sead"), "catalog", "'sead'", "did you mean seed"),
    "missing catalogue": (SWEEP.replace("tiny.toml", "no.toml"), "spec.toml: catalog", "no.toml"),
    "integer without end": (SWEEP.replace("samples = 2", "samples = " + "9" * 5000), "TOML", "digits"),
    "degrees by point": (
        SWEEP.replace('"budget"', '"tp_degree"'),
        "factors[0].field",
        "'tp_degree'",
        "`set`",
    ),
    "missing key": (SWEEP.replace('title = "Cost by budget"', ""), "title", "missing"),
    "unknown key": (SWEEP.replace("samples", "sampels"), "sampels", "samples"),
    "unknown field": (SWEEP.replace('field = "budget"', 'field = "bugdet"'), "factors[0].field", "'bugdet'"),
    "word among levels": (SWEEP.replace("0.1,", '"low",'), "factors[0].scale", "'low'"),
    "level out of range": (SWEEP.replace("0.1,", "-0.1,"), "factors[0]", "-"),
    "no levels": (SWEEP.replace("[0.1, 1.0]", "[]"), "factors[0].scale", "[]"),
}


@pytest.mark.parametrize("what", BAD_SPECS)
def test_bad_sweep_files(rodiu: Run, here: Path, what: str):
    text, *needles = BAD_SPECS[what]
    Path("spec.toml").write_text(text)
    refused(rodiu, "sweep", "spec.toml", "-o", "made", needles=("spec.toml", *needles))


HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROWS = "2023-11-16 18:00:00,100,10\n2023-11-16 19:00:00,200,20\n"
BAD_TRACES = {
    "no such column": (HEAD.replace("GeneratedTokens", "Output") + ROWS, (), "GeneratedTokens", "Output"),
    "unreadable date": (HEAD + ROWS + "yesterday,1,1\n", (), "line 4", "TIMESTAMP", "'yesterday'", "date"),
    "negative tokens": (HEAD + ROWS + "2023-11-16 19:01:00,-5,1\n", (), "line 4", "ContextTokens", "'-5'"),
    "no tokens": (HEAD + ROWS + "2023-11-16 19:01:00,5,\n", (), "line 4", "GeneratedTokens", "''"),
    "empty file": ("", (), "empty"),
    "no requests": (HEAD, (), "at least one request"),
    "too many values": (HEAD + ROWS + "2023-11-16 19:01:00,5,5,5\n", (), "CSV"),
    "unknown query": (HEAD + ROWS, ("--query", "Chat"), "query", "'Chat'", "Code_Gen"),
    "negative window": (HEAD + ROWS, ("--window", "-1"), "window", "-1", "> 0"),
    "window too long": (HEAD + ROWS, ("--window", "9"), "window", "9", "at most"),
    "endless window": (HEAD + ROWS, ("--window", "1e300"), "window", "1e+300"),
    "a date of another age": (HEAD + ROWS + "2036-01-01 00:00:00,1,1\n", (), "window", "0.1"),
    "too many windows": (HEAD + ROWS, ("--windows", "99"), "windows", "99"),
    "unwritable output": (HEAD + ROWS, ("-o", "trace.csv/made.toml"), "trace.csv/made.toml", "folder"),
}


@pytest.mark.parametrize("what", BAD_TRACES)
def test_bad_traces(rodiu: Run, here: Path, what: str):
    text, options, *needles = BAD_TRACES[what]
    Path("trace.csv").write_text(text)
    args = ("calibrate", "trace.csv", "--query", "Code_Gen", "--catalog", "tiny.toml", "-o", "made.toml")
    refused(rodiu, *args, *options, needles=tuple(needles))


# ---- bound and verify ----


def test_bound_its_plans_and_its_certificates_hold(rodiu: Run, here: Path):
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 5, "--seed", 7, "-o", "five.npz"))
    files = ("-o", "b.parquet", "--plans", "p.json", "--certificates", "c.parquet")
    answered(rodiu("bound", "five.npz", *files, "--quiet"))
    table = pd.read_parquet("b.parquet")
    assert list(table)[:5] == ["instance", "lower_bound", "upper_bound", "gap", "status"]
    assert table["instance"].tolist() == list(range(5))
    assert (table["lower_bound"] <= table["upper_bound"]).all()
    best = json.loads(answered(rodiu("solve", "five.npz", "--json")).out)
    for row, exact in zip(table.to_dict("records"), best, strict=True):
        assert row["lower_bound"] <= exact["objective"] * (1 + 1e-9)
        assert row["upper_bound"] >= exact["bound"] * (1 - 1e-9)
    answered(rodiu("evaluate", "five.npz", "p.json", "-o", "e.parquet"))
    evaluated = pd.read_parquet("e.parquet")
    assert evaluated["feasible"].all()
    assert evaluated["total_cost"].to_numpy() == pytest.approx(table["upper_bound"].to_numpy(), rel=1e-12)
    assert "5 of 5 rows hold" in answered(rodiu("verify", "b.parquet", "c.parquet", "five.npz")).out
    table.loc[3, "lower_bound"] *= 1.001
    table.to_parquet("lie.parquet")
    ran = rodiu("verify", "lie.parquet", "c.parquet", "five.npz")
    assert ran.code == 1
    assert "instance 3: the lower bound is above" in ran.err
    assert "5 of 5 rows hold" in answered(rodiu("verify", "e.parquet", "p.json", "five.npz")).out
    for column, lie in (("delay_cost", 1.0), ("margin_memory", 1e-6), ("feasible", True)):
        false = evaluated.copy()
        false[column] = false[column].where(
            false["instance"] != 2, false[column] != lie if lie is True else lie
        )
        false.to_parquet("lie.parquet")
        ran = rodiu("verify", "lie.parquet", "p.json", "five.npz")
        assert ran.code == 1
        assert "the first, instance 2: " in ran.err
        assert column in ran.err


def test_a_sweep_and_its_verification(rodiu: Run, here: Path):
    Path("two.toml").write_text(SWEEP)
    options = ("--certificates", "--exact", "top", "--top", 1, "--by", "total_cost", "--audit", 0, "--quiet")
    answered(rodiu("sweep", "two.toml", "-o", "out", *options))
    said = answered(rodiu("verify", "out")).out
    assert said.startswith("4 of 4 rows hold. Lower bounds: ")
    assert "Upper bounds: 4 hold by plan." in said
    (part,) = Path("out/certificates").iterdir()
    part.write_bytes(part.read_bytes()[:-5])
    ran = rodiu("verify", "out")
    assert ran.code == 1
    assert "4 rows do not hold; the first, sample 0 point 0: its certificate cannot be read" in ran.err
    refused(rodiu, "verify", "out", "c.parquet", needles=("nothing after the folder",))
    refused(rodiu, "verify", "b.parquet", needles=("CERTS.parquet or PLANS.json",))
    refused(rodiu, "verify", "b.parquet", "c.parquet", needles=("FILE.npz",))


def test_verify_refuses_what_it_cannot_read(rodiu: Run, here: Path):
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 1, "-o", "one.npz"))
    Path("b.parquet").write_bytes(b"not a table")
    ran = rodiu("verify", "b.parquet", "c.parquet", "one.npz")
    assert ran.code == 2
    assert "b.parquet" in ran.err
