"""The command `rodiu plan`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from rodiu_jax.model.check import check_plan
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan_json import load_plans
from tests.cli.calls import Run, answered, refused
from tests.oracles.planning import SMALL

QUICK = ("plan", "--catalog", "small.toml", "--workers", "1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    Path("made").mkdir()  # refusals leave no file, and the folder is made first
    return tmp_path


def test_a_plan_is_printed_and_written(rodiu: Run, place: Path):
    options = ("--rate", "Chat=2400/min", "--quota", "H100=3", "--quota", "B200=2")
    ran = answered(rodiu(*QUICK, *options, "--api-price", "Chat=$3/Mtok", "-o", "made"))
    lines = ran.out.splitlines()
    assert lines[0].startswith("Run ")
    assert "made/report.html" in lines[-1]
    assert "Document_QA" in ran.out  # is said to carry no traffic
    told = json.loads(
        answered(rodiu(*QUICK, *options, "--api-price", "Chat=$3/Mtok", "--json", "-o", "made")).out
    )
    kept = json.loads(Path("made/answer.json").read_text())
    assert {k: v for k, v in told.items() if k != "seconds"} == {
        k: v for k, v in kept.items() if k != "seconds"
    }
    assert told["traffic"][0]["queries_per_second"] == pytest.approx(40.0)
    assert {q["device"]: q["quota"] for q in told["fleet"]["quota"]}.items() <= {
        "H100 80GB": 3.0,
        "B200 180GB": 2.0,
    }.items()
    scenario = load_instances("made/scenario.npz")
    (plan,) = load_plans("made/plan.json", scenario)
    cost = check_plan(plan, scenario, 0).costs["total_cost"] / 24
    assert told["costs_per_hour"]["total_cost"] == pytest.approx(cost)


REFUSED = {
    "no name": (("--rate", "20"), ("--rate", "NAME=QPS")),
    "twice": (("--rate", "Chat=1", "--rate", "Chat=2"), ("--rate", "once")),
    "unknown type": (("--rate", "Chta=1"), ("--rate", "did you mean Chat?")),
    "unknown GPU": (("--quota", "H10=1"), ("--quota", "did you mean H100?")),
    "promise": (("--promise", "Chat=ttft_p99<=500ms"), ("--promise", "ttft_mean")),
    "kept by nobody": (("--promise", "Chat=ttft_mean<=1ms"), ("--promise", "at best")),
    "no unit": (("--api-price", "3"), ("--api-price", "$3/Mtok")),
    "no file": (("--trace", "Chat=nowhere.csv"), ("nowhere.csv",)),
    "not a trace": (("--trace", "Chat=small.toml"), ("small.toml",)),
    "zone": (("--trace", "Chat=small.toml", "--timezone", "Mars"), ("--timezone", "Mars")),
    "headroom and gamma": (("--headroom", "1.2", "--gamma", "1"), ("--gamma", "--headroom")),
    "headroom": (("--headroom", "0.2"), ("--headroom", "0.2")),
    "by day": (("--by", "day"), ("--by", "hour")),
    "by hour without a trace": (("--by", "hour"), ("--by", "--trace")),
    "start": (("--start-minutes", "61"), ("--start-minutes",)),
    "think": (("--users", "Chat=3", "--think", "0"), ("--think",)),
    "prices": (("--prices", "nowhere.csv"), ("nowhere.csv",)),
    "price map": (("--prices", "prices.csv", "--price-map", "X=Y"), ("--price-map",)),
    "catalogue": (("--catalog", "servin"), ("--catalog", "did you mean serving?")),
    "catalogue without rates": (("--catalog", "seed"), ("--catalog", "rates")),
    "folder": (("-o", "small.toml"), ("small.toml", "folder")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_usage(rodiu: Run, place: Path, what: str):
    Path("prices.csv").write_text("gpu,price\nH100,2\n")
    args, needles = REFUSED[what]
    refused(rodiu, *QUICK, "-o", "made", *args, needles=needles)


def test_the_catalogue_of_a_folder_is_not_overwritten(rodiu: Run, place: Path):
    Path("made/catalog.toml").write_text(SMALL)
    args = ("plan", "--catalog", "made/catalog.toml", "--rate", "Chat=1", "-o", "made")
    refused(rodiu, *args, needles=("made/catalog.toml", "another folder"))
