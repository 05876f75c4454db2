"""From samples to a sweep, its page and its figures; what a sweep lists, estimates and tells; bad sweep files."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rodiu_jax.model.fields import REQUIRED_FIELDS
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.verdict import COSTS, FAMILIES
from tests.cli.calls import SWEEP, Run, answered, nothing, refused
from tests.golden import Golden, numbers


@pytest.mark.slow
def test_walk_from_samples_to_a_sweep(rodiu: Run, here: Path, golden: Golden):
    answered(rodiu("sample", "--catalog", "tiny.toml", "--n", 3, "--seed", 7, "-o", "three.npz"))
    batch = load_instances("three.npz")
    assert (batch.size, batch.shape, batch.uncertainty) == (3, (2, 2, 2, 2), "ddu")
    with np.load("three.npz") as archive:
        names = {"query_names", "model_names", "gpu_names", "uncertainty"}
        assert set(archive.files) == set(REQUIRED_FIELDS) | names

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
    assert numbers(ran.out) == [3, 3, 0]
    said = [ran.out]

    Path("plans.json").write_text(json.dumps([row["plan"] for row in found] + [nothing(None)]))
    ran = answered(rodiu("evaluate", "three.npz", "plans.json", "-o", "table.parquet"))
    assert numbers(ran.out) == [6, 6, 0]
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
    said += [ran.out, answered(rodiu("solve", "three.npz")).out]
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
    before = sorted(path for path in Path("out").rglob("*") if path.is_file())
    for path in before:
        if path.parent.name in ("figures", "tables") or path.name in ("report.html", "summary.csv"):
            path.unlink()
    said.append(answered(rodiu("report", "out")).out)
    assert "out/report.html" in said[-1]
    golden("cli/walk", "\n".join(said), numbers=False)
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


def test_a_sweep_and_its_verification(rodiu: Run, here: Path, golden: Golden):
    Path("two.toml").write_text(SWEEP)
    options = ("--certificates", "--exact", "top", "--top", 1, "--by", "total_cost", "--audit", 0, "--quiet")
    answered(rodiu("sweep", "two.toml", "-o", "out", *options))
    said = answered(rodiu("verify", "out")).out
    assert numbers(said)[:2] == [4, 4]
    assert numbers(said)[-1] == 4
    (part,) = Path("out/certificates").iterdir()
    part.write_bytes(part.read_bytes()[:-5])
    ran = rodiu("verify", "out")
    assert ran.code == 1
    assert numbers(ran.err)[:3] == [4, 0, 0]
    golden("cli/verify", said + ran.err, numbers=False)
    refused(rodiu, "verify", "out", "c.parquet", needles=("nothing after the folder",))
    refused(rodiu, "verify", "b.parquet", needles=("CERTS.parquet or PLANS.json",))
    refused(rodiu, "verify", "b.parquet", "c.parquet", needles=("FILE.npz",))


def test_the_report_of_a_damaged_sweep_says_once_what_is_wrong(rodiu: Run, here: Path):
    Path("two.toml").write_text(SWEEP)
    answered(rodiu("sweep", "two.toml", "-o", "out", "--method", "bracket", "--quiet"))
    part = min(Path("out/scenarios").iterdir())
    part.write_bytes(part.read_bytes()[:-5])
    ran = rodiu("report", "out")
    assert ran.code == 2
    expected = "a whole Parquet part; sweep again with --resume (Parquet magic bytes not found in footer"
    assert ran.err.startswith(f"rodiu: {part}: expected {expected}")
    assert ran.err.count(part.name) == ran.err.count("whole") == 1


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
    told = answered(rodiu("sweep", "spec.toml", "--dry-run", "--samples", 3, "--workers", 1)).out
    assert numbers(told.splitlines()[1]) == [6, 2, 3]
    assert [line.split(":")[0] for line in told.splitlines()[4:7]] == ["Time", "Memory", "Disk"]
    assert set(here.rglob("*")) == before
    said = answered(rodiu("sweep", "spec.toml", "-o", "out", "--log-json", "-", "--workers", 1)).out
    events = [json.loads(line) for line in said.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"][0::2] == ["start", "end"]
    assert events[-1]["ok"]


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
