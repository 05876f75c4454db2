"""`rodiu replay`: its words, its JSON, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.calls import TRACE, Run, answered, refused
from tests.decisions.plan_folders import make_plan_folder
from tests.golden import Golden


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plan_folder(tmp_path_factory.mktemp("plan") / "out")


def test_words(rodiu: Run, plan: Path, golden: Golden):
    text = answered(rodiu("replay", plan, "--hours", 0.01, "--seed", 1, "--shortfall", 0.1)).out
    golden("cli/replay", text, numbers=False)


def test_every_option_is_heard(rodiu: Run, plan: Path, tmp_path: Path):
    common = (
        "--rate-scale",
        "plan",
        "--hours",
        0.001,
        "--against",
        "all",
        "--others",
        "--seed",
        5,
        "--json",
        "--quiet",
    )
    shortfalls = ("--shortfall", "0.1", "--shortfall", "Chat:Llama-3.1-8B@H100=0.2")
    values = json.loads(answered(rodiu("replay", plan, TRACE, "--query", "Chat", *common, *shortfalls)).out)
    assert values["shortfall"] == {"*": 0.1, "Chat:Llama-3.1-8B@H100": 0.2}
    assert (values["seconds"], values["rate_scale"], values["seed"]) == (pytest.approx(3.6), "plan", 5)
    assert values["sources"]["Chat"] == "trace"
    assert {*values["sources"].values()} == {"trace", "poisson"}
    assert len(values["queries"]) == 3 * 5
    path = tmp_path / "t.csv"
    path.write_text("at,in,out,kind\n0,100,10,chat\n1000,100,10,code\n2000,100,0,code\n")
    own = ("--columns", "time=at,input=in,output=out", "--unit", "ms")
    column = ("--query-column", "kind", "--map", "chat=Chat,code=Code_Generation")
    values = json.loads(answered(rodiu("replay", plan, path, *own, *column, "--json")).out)
    assert (values["failed"], values["seconds"]) == (1, 2.0)
    counts = {row["query"]: row["requests"] for row in values["queries"] if row["plan"] == "the plan"}
    assert counts == {
        "Chat": 1,
        "Code_Completion": 0,
        "Code_Generation": 1,
        "Document_QA": 0,
        "Long_Summaries": 0,
    }


BAD = {
    "no query": ((TRACE,), ("--query",)),
    "unknown query": ((TRACE, "--query", "Chta"), ("--query", "'Chta'", "did you mean Chat")),
    "no trace": (("nowhere.csv", "--query", "Chat"), ("nowhere.csv", "readable file")),
    "scale": (("--rate-scale", "fast"), ("--rate-scale", "'fast'", "plan")),
    "hours": (("--hours", "-1"), ("--hours", "-1")),
    "query without a trace": (("--query", "Chat"), ("--query", "trace")),
    "shortfall": (("--shortfall", "much"), ("--shortfall", "'much'")),
    "shortfall twice": (("--shortfall", "0.1", "--shortfall", "0.2"), ("--shortfall", "once")),
    "shortfall of nobody": (("--shortfall", "Chatt=0.1"), ("--shortfall", "'Chatt'", "did you mean Chat")),
    "another plan": (("--against", "nominel"), ("--against", "'nominel'", "did you mean nominal")),
    "seed": (("--seed", "-1"), ("--seed", "-1")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_usage(rodiu: Run, here: Path, plan: Path, case: str):
    arguments, needles = BAD[case]
    refused(rodiu, "replay", plan, *arguments, needles=needles)


def test_no_folder(rodiu: Run, here: Path):
    refused(rodiu, "replay", ".", needles=("plan.json", "folder of `rodiu plan`"))
