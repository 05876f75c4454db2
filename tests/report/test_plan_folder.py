"""The folder of a planned fleet: what other commands read from it, and a page that needs nothing and escapes all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rodiu_jax as rj
from rodiu_jax.decisions.planning.plan import FleetAnswer, plan_fleet
from rodiu_jax.errors import InputError
from rodiu_jax.model.check import check_plan
from rodiu_jax.report.plan_folder import FILES, check_folder, write_plan
from rodiu_jax.report.text.plan_sentences import name_fleet, write_sentences
from rodiu_jax.report.text.plan_tables import make_tables
from tests.golden import numbers
from tests.oracles.planning import SMALL, write_trace
from tests.page_structure import Structure
from tests.report.browser import open_page

TABLES = (
    *("fleet", "routing", "traffic", "promises", "quotas", "hours", "what_if", "protections", "limits"),
    "rests_on",
)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> FleetAnswer:
    folder = tmp_path_factory.mktemp("given")
    (folder / "small.toml").write_text(SMALL)
    trace = write_trace(folder / "docs.csv", lambda hour: 200 * (hour + 1), hours=3, tokens=(4096, 512))
    return plan_fleet(
        folder / "small.toml",
        traces={"Document_QA": trace},
        rates={"Chat": 60},
        by_hour=True,
        workers=1,
    )


@pytest.fixture(scope="module")
def folder(answer: FleetAnswer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "fleet"
    written = write_plan(answer, folder)
    assert written[0] == folder / "report.html"
    assert {p.name for p in folder.iterdir()} == {p.name for p in written}
    return folder


def test_other_commands_read_the_folder(answer: FleetAnswer, folder: Path):
    scenario = rj.load_instances(folder / "scenario.npz")
    assert scenario.size == 1
    (plan,) = rj.load_plans(folder / "plan.json", scenario)
    assert plan.instance == 0
    verdict = check_plan(plan, scenario, 0)
    assert verdict.feasible
    assert verdict.costs["total_cost"] / 24 == pytest.approx(answer.costs["total_cost"])
    catalog = rj.load_catalog(folder / "catalog.toml")
    assert catalog.sets["query"] == scenario.query_names
    again = rj.sample(catalog.at_means(), n=1).one(0)
    for name in ("throughput", "gpu_price", "gpu_quota", "unmet_penalty"):
        assert np.array_equal(
            np.asarray(getattr(again, name)).ravel(), np.ravel(getattr(scenario.one(0), name))
        )
    others = json.loads((folder / "alternatives.json").read_text())
    assert {"nominal", "headroom 1.1", "headroom 1.2", "headroom 1.5", "fixed all day"} <= set(others)
    for entry in others.values():
        assert set(entry) == {"plan", "what"}
        assert entry["what"].endswith(".")
    (folder / "some.json").write_text(json.dumps([entry["plan"] for entry in others.values()]))
    plans = rj.load_plans(folder / "some.json", scenario)
    (folder / "some.json").unlink()
    nominal = scenario.with_fields(gamma_throughput=np.zeros(1))
    assert all(p.instance == 0 and check_plan(p, nominal, 0).feasible for p in plans)


def test_the_hours_are_read_too(answer: FleetAnswer, folder: Path):
    hours = rj.load_instances(folder / "hours.npz")
    assert answer.day is not None
    assert hours.size == len(answer.day.hours) == 3
    costs = {}
    for name in ("fixed", "cheapest", "schedule"):
        plans = rj.load_plans(folder / f"hours_{name}.json", hours)
        assert [p.instance for p in plans] == [0, 1, 2]
        verdicts = [check_plan(p, hours, b) for b, p in enumerate(plans)]
        assert all(v.feasible for v in verdicts)
        costs[name] = sum(v.costs["total_cost"] for v in verdicts) / 3 / 24
    assert costs["fixed"] == pytest.approx(answer.day.fixed_upper)
    assert costs["cheapest"] == pytest.approx(answer.day.hourly_upper)


def test_numbers_and_tables_are_those_of_the_answer(answer: FleetAnswer, folder: Path):
    told = json.loads((folder / "answer.json").read_text())
    assert told == json.loads(json.dumps(answer.to_json()))
    assert told["answer"]["upper_bound"] == answer.found.upper
    names = {t.name for t in make_tables(answer)}
    assert names == set(TABLES)
    for name in TABLES:
        assert len(pd.read_csv(folder / f"{name}.csv")) > 0
    fleet = pd.read_csv(folder / "fleet.csv")
    assert fleet["rent_per_hour"].sum() == pytest.approx(answer.costs["rental_cost"])
    routing = pd.read_csv(folder / "routing.csv")
    assert routing.groupby("query")["share"].sum().tolist() == pytest.approx([1.0, 1.0])
    promised = pd.read_csv(folder / "promises.csv").set_index("query")
    assert promised["mean_end_to_end_ms"].to_dict() == {"Chat": 13_300, "Document_QA": 40_000}
    assert promised["promise"].to_dict() == {
        query: str(promise) for query, promise in answer.inputs.catalog.promises.items()
    }
    assert set(promised["basis"]) == {"assumed"}
    protected = pd.read_csv(folder / "protections.csv").set_index("protection")
    assert protected["cost"].tolist() == pytest.approx([p.cost for p in answer.protections])
    asked = pd.read_csv(folder / "what_if.csv")
    assert asked["question"].tolist()[1:] == [w.name for w in answer.what_ifs]
    hours = pd.read_csv(folder / "hours.csv")
    assert hours["Document_QA_per_second"].tolist() == pytest.approx([n * 10 / 3600 for n in (200, 400, 600)])


def test_sentences_hold_the_numbers(answer: FleetAnswer):
    text = write_sentences(answer)
    total = sum(d.tp * d.replicas for d in answer.plan.deployments)
    assert text[0] == f"Run {name_fleet(answer.plan.deployments)}: {total} GPUs in all."
    assert numbers(text[1])[0] == pytest.approx(answer.costs["total_cost"], abs=0.005)
    assert numbers(text[2])[0] == pytest.approx(answer.found.lower, abs=0.005)
    anew = next(line for line in text if line.startswith("Chosen anew"))
    costs = {w.name: w.upper for w in answer.what_ifs}
    assert numbers(anew)[0] == pytest.approx(costs["traffic x 2"], abs=0.005)
    assert "with promises 20% tighter" in anew
    assert answer.day is not None
    day = next(line for line in text if line.startswith("Over the 3 hours"))
    assert numbers(day)[1:3] == pytest.approx([answer.day.fixed_upper, answer.day.fixed_lower], abs=0.005)


def test_an_earlier_answer_leaves_nothing_behind(answer: FleetAnswer, tmp_path: Path):
    write_plan(answer, tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    written = write_plan(replace(answer, day=None), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in written} | {"mine.txt"}
    assert not (tmp_path / "hours.csv").exists()
    assert not (tmp_path / "hours.npz").exists()


def test_the_catalogue_asked_about_is_not_overwritten(answer: FleetAnswer, tmp_path: Path):
    (tmp_path / "catalog.toml").write_text(SMALL)
    request = replace(answer.inputs.request, catalog=tmp_path / "catalog.toml")
    mine = replace(answer, inputs=replace(answer.inputs, request=request))
    with pytest.raises(InputError, match="overwritten"):
        write_plan(mine, tmp_path)
    assert (tmp_path / "catalog.toml").read_text() == SMALL


def test_the_page_needs_no_script_and_escapes_names(answer: FleetAnswer, tmp_path: Path):
    hostile = "</title><script>alert(1)</script>\"'&"
    inputs = replace(answer.inputs, notes=(hostile,))
    asked = (replace(answer.what_ifs[0], name=hostile, what=hostile), *answer.what_ifs[1:])
    write_plan(replace(answer, inputs=inputs, what_ifs=asked), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Structure(text)
    assert "script" not in page.tags
    assert hostile in page.text
    policy = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not [value for _, name, value in page.attributes if name in ("src", "onclick")]
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    for link in links:
        assert link.startswith("#") or (tmp_path / link).is_file(), link
    assert {name for name, _ in FILES} <= set(links)


def test_the_switch_holds_every_question(answer: FleetAnswer, folder: Path):
    text = (folder / "report.html").read_text()
    page = Structure(text)
    radios = [value for tag, name, value in page.attributes if (tag, name) == ("input", "id")]
    panels = [value for tag, name, value in page.attributes if (tag, name) == ("div", "id")]
    count = 1 + len(answer.what_ifs)
    assert radios == [f"level-{n}" for n in range(count)]
    assert panels == [f"panel-{n}" for n in range(count)]
    for n in range(count):
        assert f"#level-{n}:checked ~ #panel-{n} {{ display: block; }}" in text
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("label", "for")]
    assert labels == radios
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["traffic.csv", "hours.csv", "fleet.csv"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, name: str) -> None:
    """A trace that is called as a table of ours is refused before the work, and stays as it is."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: .*a folder without a file of this name"):
        check_folder(tmp_path, [])
    (tmp_path / "answer.json").write_text("{}")  # an earlier answer's folder, in which the trace is
    check_folder(tmp_path, [])
    with pytest.raises(InputError, match=f"{name}: .*which would be overwritten"):
        check_folder(tmp_path, [tmp_path / name])
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("scripts", [True, False])
def test_the_switch_works_in_a_browser_without_scripts(
    browser: Any, answer: FleetAnswer, folder: Path, scripts: bool
):
    """One panel is shown at a time, the one whose label was pressed or reached by an arrow key; all is text."""
    report = folder / "report.html"
    with open_page(browser, report, scripts=scripts) as page:
        panels = page.tab.locator(".panel")
        labels = page.tab.locator(".levels > label")
        count = 1 + len(answer.what_ifs)
        assert panels.count() == labels.count() == count

        def shown() -> list[int]:
            return [n for n in range(count) if panels.nth(n).is_visible()]

        assert shown() == [0]
        for n, asked in enumerate(answer.what_ifs, start=1):
            assert labels.nth(n).inner_text() == asked.name
            labels.nth(n).click()
            assert shown() == [n]
            assert asked.what in panels.nth(n).inner_text()
        page.tab.keyboard.press("ArrowLeft")
        assert shown() == [count - 2]
        words = page.tab.locator("main").inner_text()
        assert all(sentence in words for sentence in write_sentences(answer))
        assert [a for a in page.requests if not a.startswith("data:")] == [report.resolve().as_uri()]
        assert page.complaints == []


@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_of_a_plan_fits_its_window(browser: Any, folder: Path, width: int):
    with open_page(browser, folder / "report.html", width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
