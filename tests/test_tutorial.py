"""The pages are true: their files are written, their commands run, and what these print is what is shown."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.calls import Run
from tests.decisions.plan_folders import make_plan_folder
from tests.fuzzing import run as guarded

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```", re.S)


def steps(text: str) -> list[tuple[str, str]]:
    """Files as (name, content) and commands as ("$ ...", what is shown below), in order."""
    found = []
    for block in _BLOCK.finditer(text):
        if block["file"]:
            found.append((block["file"], block["body"]))
        elif block["kind"] == "console":
            for part in re.split(r"^(?=\$ )", block["body"], flags=re.M):
                if part:
                    command, _, shown = part.partition("\n")
                    found.append((command, shown))
    return found


def matches(shown: str, said: str) -> bool:
    """Whether ``said`` is what is ``shown``, however it is spaced; ``...`` stands for anything."""
    tight = ["".join(part.split()) for part in shown.split("...")]
    return re.fullmatch(".*?".join(map(re.escape, tight)), "".join(said.split()), re.S) is not None


def test_what_counts_as_the_same():
    assert matches("a  b\nc", "a b c\n")
    assert matches("a ... c", "a\nxyz c")
    assert not matches("a ... c", "a b d")
    assert not matches("1,830", "1,831")


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        pytest.param("tutorial.md", 10, marks=pytest.mark.slow),
        ("own-data.md", 5),
        ("export.md", 4),
        pytest.param("plan.md", 1, marks=pytest.mark.slow),  # ten seconds
    ],
)
def test_pages_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, commands: int):
    monkeypatch.chdir(tmp_path)
    if page == "export.md":
        make_plan_folder(Path("plan"))
    todo = steps((DOCS / page).read_text(encoding="utf-8"))
    assert len([name for name, _ in todo if name.startswith("$ ")]) == commands
    for name, body in todo:
        if not name.startswith("$ "):
            Path(name).write_text(body, encoding="utf-8")
            continue
        words = shlex.split(name.removeprefix("$ "))
        assert words[0] == "rodiu"
        ran = guarded.rodiu(*words[1:])
        assert ran.code == (2 if body.startswith("rodiu: ") else 0), (name, ran)
        said = ran.err if ran.code else ran.out
        assert matches(body, said), f"{name}\nshown:\n{body}\nsaid:\n{said}"


README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
NOT_HERE = "AzureLLMInferenceTrace_code.csv"  # a trace of 8,819 requests that is not in the repository


def readme_steps() -> list[tuple[str, str]]:
    """The commands of the README with what is shown below, but those about a trace that is not here."""
    found = [(name, shown) for name, shown in steps(README) if name.startswith("$ ")]
    about_it = {n + m for n, (name, _) in enumerate(found) if NOT_HERE in name for m in (0, 1)}
    return [step for n, step in enumerate(found) if n not in about_it]


@pytest.mark.shipped  # users read what their programs print
@pytest.mark.timeout(1800)
def test_the_readme_prints_what_it_shows(rodiu: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    todo = readme_steps()
    assert [name.split()[2] for name, _ in todo] == [
        "plan",
        "replay",
        "export",
        "sample",
        "stress",
        "diagnose",
        "sample",
        "choose",
        "robustness",
    ]
    wrong = []
    for name, shown in todo:
        said = ""
        for command in name.removeprefix("$ ").split(" && "):
            ran = rodiu(*shlex.split(command)[1:])
            assert ran.code == 0, (command, ran)
            said = ran.out
        if shown and not matches(shown + "...", said):
            wrong.append(f"{name}\nshown:\n{shown}\nsaid:\n{said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_first_command_of_the_readme_ends_as_it_shows(
    rodiu: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    command = README.split("<!-- the sweep -->\n```sh\n")[1].split("\n")[0].split(".venv/bin/rodiu ")[1]
    shown = README.split("It ends with\n\n```text\n")[1].split("```")[0]
    ran = rodiu(*shlex.split(command))
    assert ran.code == 0, ran
    assert matches(shown, ran.out), ran.out
