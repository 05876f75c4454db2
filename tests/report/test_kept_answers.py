"""Decisions kept as folders: what is written is what a page reads; damage is one clear line."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rodiu_jax.cli import cli
from rodiu_jax.errors import InputError
from rodiu_jax.model.npz import load_instances
from rodiu_jax.model.plan_json import load_plans, save_plans
from rodiu_jax.report.figures import style
from rodiu_jax.report.page.kept_answers import read_decisions, write_decision
from rodiu_jax.report.parts.section import PageTable, Section
from solvers.exact import solve_instance
from tests.golden import Golden, section_words
from tests.oracles.instances import random_instances


def kept(folder: Path, name: str, **changes: object) -> Path:
    """A small decision in ``folder``, with some keys of its section changed."""
    table = PageTable("plans", "Plans", ["plan", "cost"], [["a", "1.00"]], (1,))
    made = "rodiu choose x.npz"
    write_decision(
        Section("choose", name, "", ["Rent a."], [], [table]), {"value": 1}, folder / name, made=made
    )
    path = folder / name / "section.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_what_is_written_is_what_a_page_reads(tmp_path):
    folder = tmp_path / "decisions"
    kept(folder, "second")
    kept(folder, "first")
    (folder / "notes.txt").write_text("not a decision")
    first, second = read_decisions(tmp_path)
    assert (first.name, first.title, first.place) == ("decision-1", "first", "decisions/first")
    assert (second.name, second.title) == ("decision-2", "second")
    assert first.text.strip() == "Found by rodiu choose x.npz."
    assert list(first.points) == ["Rent a."]
    assert list(first.tables) == [PageTable("plans", "Plans", ["plan", "cost"], [["a", "1.00"]], [1])]
    assert (folder / "first" / "plans.csv").read_text() == "plan,cost\na,1.00\n"
    assert json.loads((folder / "first" / "choose.json").read_text()) == {"value": 1}
    assert read_decisions(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"title": 3},
        {"more": ""},
        {"pictures": [{"name": "../x", "description": ""}]},
        {"tables": [{"name": "x"}]},
    ],
)
def test_damage_names_the_file_and_the_place(tmp_path, changes):
    path = kept(tmp_path / "decisions", "one", **changes)
    with pytest.raises(InputError) as error:
        read_decisions(tmp_path)
    assert str(path) in str(error.value)
    assert next(iter(changes)) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "svg",
    [
        "<svg",
        "<html/>",
        '<svg xmlns="http://www.w3.org/2000/svg" width="1"><script>alert(1)</script></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" width="1"><g onload="alert(1)"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="1">'
        '<image xlink:href="http://h.invalid/x"/></svg>',
    ],
)
def test_pictures_that_act_or_ask_are_refused(svg):
    with pytest.raises(InputError, match=r"x\.svg: expected an SVG picture"):
        style.to_inline_svg(svg, "x", "x", source="x.svg")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    instances = random_instances(5, (2, 2, 2, 2), batch=1, budget=np.full(1, 400.0))
    instances.save(folder / "one.npz")
    plan = solve_instance(instances, 0).plan_for(0)
    assert plan is not None
    save_plans([plan], folder / "plans.json")
    return folder


def run(*arguments: object) -> str:
    found = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.slow
def test_commands_keep_what_they_say(files, tmp_path, golden: Golden):
    one, plans = files / "one.npz", files / "plans.json"
    where = tmp_path / "decisions"
    commands = {
        "stress": (one, plans, "--draws", 1000, "--scales", "0.5,2", "--no-peers"),
        "diagnose": (one, "--index", 0, "--workers", 1),
        "robustness": (one, "--gammas", "0,1", "--draws", 1000, "--workers", 1),
    }
    for number, (name, arguments) in enumerate(commands.items()):
        printed = run(name, *arguments, "--quiet", "--json", "-o", where / f"{number} {name}")
        assert json.loads(printed) == json.loads((where / f"{number} {name}" / f"{name}.json").read_text())
    found = read_decisions(tmp_path)
    assert [s.place for s in found] == [f"decisions/{n} {name}" for n, name in enumerate(commands)]
    asked = f"Found by rodiu stress {one} {plans} --draws 1000 --scales 0.5,2 --no-peers."
    assert found[0].text.strip() == asked
    for name, section in zip(commands, found, strict=True):
        words = section_words(section).replace(str(files), "FOLDER")
        golden(f"decisions/{name}", words, numbers=False)
    said = " ".join(run("stress", *commands["stress"], "--quiet").split())
    assert found[0].points
    assert all(point in said for point in found[0].points)
    assert load_plans(where / "1 diagnose" / "plans.json", load_instances(one))[0].instance == 0
    assert [p.name for s in found for p in s.pictures] == ["curve"]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(files, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ["diagnose", str(files / "one.npz"), "--index", "0", "-o", str(tmp_path / "file" / "x")]
    found = CliRunner().invoke(cli, arguments)
    assert isinstance(found.exception, InputError)
    assert "a folder that can be written" in str(found.exception)
