"""The page of a sweep in a real browser: silent, offline, safe from names, fit for a phone and for paper."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

import rodiu_jax.catalog
from rodiu_jax.io.files import toml_value
from rodiu_jax.report import write_report
from rodiu_jax.report.figures import style
from rodiu_jax.report.page.kept_answers import FOLDER as DECISIONS
from rodiu_jax.report.page.kept_answers import write_decision
from rodiu_jax.report.parts.section import PageTable, Picture, Section
from rodiu_jax.sweeps import sweep
from rodiu_jax.sweeps.spec import make_spec
from tests.page_structure import Structure
from tests.report.browser import open_page

HOSTILE = {
    "Llama-3.2-1B": "<script>alert('model')</script>",
    "H100_INT8": '"><img src=http://h.invalid/x onerror=alert(1)>',
    "Code_Gen": "../../etc/passwd & ]]> --> &lt;b&gt;",
}
TITLE = "</title><script>alert('title')</script> \"quoted\" & 'single' {{ 7 * 7 }} ü 模型 שלום \u202egnp.exe"
FACTORS = [
    {"field": "gpu_price", "names": "*", "scale": [0.5, 1.0]},
    {"field": "error_threshold", "scale": [0.4, 1.0]},
]


def hostile_catalog(folder: Path) -> Path:
    """A few rows of the catalogue `seed`, with names that a page must escape."""
    text = (Path(rodiu_jax.catalog.__file__).parent / "seed.toml").read_text()
    for plain, name in HOSTILE.items():
        text = re.sub(rf'"{re.escape(plain)}"|\b{plain}\b(?= =)', lambda _, n=name: toml_value(n), text)
    (folder / "whole.toml").write_text(text)
    query, model, gpu = (
        [name] for name in (HOSTILE["Code_Gen"], HOSTILE["Llama-3.2-1B"], HOSTILE["H100_INT8"])
    )
    path = folder / "hostile.toml"
    path.write_text(
        f"""
[catalog]
name = "hostile"
extends = "whole.toml"
[sets]
query = {toml_value(["Summarization", *query])}
model = {toml_value(["Llama-3.2-3B", *model])}
gpu = {toml_value(["A100_INT8", *gpu])}
tp = [1, 2]
"""
    )
    return path


def decide(folder: Path) -> None:
    """A decision whose words, table and picture hold hostile names."""
    figure, axes = style.make_canvas(4, 4)
    style.set_heading(axes, TITLE)
    rows = pd.DataFrame({"plan": HOSTILE.values(), "cost": [1.0, 2.0, 3.0]})
    tables = [PageTable("plans", TITLE, ["plan", "cost"], [[n, "1"] for n in HOSTILE.values()], (1,))]
    section = Section(
        "choose", TITLE, "", list(HOSTILE.values()), [Picture("costs", TITLE, rows, figure)], tables
    )
    write_decision(section, {"title": TITLE}, folder, made="rodiu choose '<b>'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep of the hostile catalogue, reported."""
    folder = tmp_path_factory.mktemp("sweep")
    values = {
        "name": "hostile",
        "title": TITLE,
        "question": "What if <b>H100</b> prices halve?",
        "catalog": str(hostile_catalog(folder)),
        "samples": 2,
        "method": "exact",
        "factors": FACTORS,
    }
    sweep(make_spec(values), folder / "out", quiet=True)
    decide(folder / "out" / DECISIONS / "rent #1 & <b>")
    write_report(folder / "out", page=folder / "alone.html")
    return folder / "out"


def test_a_page_holds_no_script_and_no_address(folder: Path):
    page = Structure((folder / "report.html").read_text())
    assert not {"script", "img", "iframe", "object", "embed", "base", "form", "b"} & set(page.tags)
    assert not [a for a in page.attributes if a[1].startswith("on")]
    for tag, name, value in page.attributes:
        if name in ("href", "src", "xlink:href") and not value.startswith(("#", "data:")):
            assert tag == "a", (tag, name, value)
            assert (folder / unquote(value)).is_file(), value
    for name in (*HOSTILE.values(), TITLE, "What if <b>H100</b> prices halve?"):
        assert name in page.text, name


def test_the_page_alone_says_the_same_and_points_nowhere(folder: Path):
    pages = [Structure(p.read_text()) for p in (folder / "report.html", folder.parent / "alone.html")]
    jumps = [v for tag, name, v in pages[1].attributes if tag == "a" and name == "href"]
    assert jumps
    assert all(v.startswith("#") for v in jumps)
    whole, alone = ([t for t in p.tags if t != "a"] for p in pages)
    assert whole.count("svg") == alone.count("svg") > 3
    assert whole.count("tr") == alone.count("tr")


def test_ids_are_distinct_and_sections_are_found(folder: Path):
    attributes = Structure((folder / "report.html").read_text()).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    jumps = {
        value[1:] for tag, name, value in attributes if tag == "a" and name == "href" and value[0] == "#"
    }
    assert jumps <= set(ids)
    assert {
        "cost",
        "deployments",
        "composition",
        "unmet",
        "constraints",
        "sensitivity",
        "trends",
        "proofs",
        "decision-1",
    } <= jumps


def test_files_have_harmless_names_and_tables_the_true_ones(folder: Path):
    names = [
        p.relative_to(folder).as_posix() for kind in ("figures", "tables") for p in (folder / kind).iterdir()
    ]
    assert names
    assert all(re.fullmatch(r"(figures|tables)/[\w-]+\.(png|svg|csv)", n, re.ASCII) for n in names), names
    chosen = pd.read_csv(folder / "tables" / "commonest.csv")
    assert chosen["deployment"].str.contains(HOSTILE["Llama-3.2-1B"], regex=False).any()
    np.testing.assert_allclose(chosen["share"].sum(), 1.0)


def test_a_decision_is_a_section_with_its_picture_and_table(folder: Path):
    text = (folder / "report.html").read_text()
    part = Structure(text[text.index('<section id="decision-1">') : text.index('<section id="method">')])
    assert part.tags.count("svg") == 1
    assert part.tags.count("tr") == 1 + len(HOSTILE)
    assert "Found by rodiu choose '<b>'." in part.text
    links = [unquote(v) for _, name, v in part.attributes if name == "href" and v[0] != "#"]
    assert {Path(v).name for v in links} == {"costs.png", "costs.svg", "costs.csv", "plans.csv"}


@pytest.mark.slow
def test_a_second_report_is_the_same_page(folder: Path):
    before = (folder / "report.html").read_bytes()
    write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_the_browser_tells_what_a_bad_page_does(browser: Any, tmp_path: Path):
    """The tests below assert that nothing was told: here something is, so that they cannot pass deaf."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"style-src 'none'\"><p style='color: red'>text</p>"
        "<img src='missing.png'><script>console.log('a word'); alert('a window'); throw Error('a fault')</script>"
    )
    with open_page(browser, bad) as page:
        assert page.requests == [bad.as_uri(), (tmp_path / "missing.png").as_uri()]
        told = "\n".join(page.complaints)
    for word in ("a word", "dialog: a window", "a fault", "missing.png", "Content Security Policy"):
        assert word in told


@pytest.mark.parametrize("scripts", [True, False])
def test_a_browser_asks_for_nothing_and_complains_of_nothing(browser: Any, folder: Path, scripts: bool):
    report = folder / "report.html"
    with open_page(browser, report, scripts=scripts) as page:
        asked = [address for address in page.requests if not address.startswith("data:")]
        assert asked == [report.resolve().as_uri()]
        assert page.complaints == []


def test_names_are_text_in_the_browser(browser: Any, folder: Path):
    with open_page(browser, folder / "report.html") as page:
        assert page.evaluate("document.title") == TITLE
        assert page.evaluate("document.querySelector('h1').textContent") == TITLE
        assert page.evaluate("document.querySelectorAll('script, img').length") == 0
        shown = page.evaluate("[...document.querySelectorAll('svg text')].map(t => t.textContent).join(' ')")
    assert "<script>" in re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_runs_over_the_side(browser: Any, folder: Path, width: int):
    with open_page(browser, folder / "report.html", width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        over = page.evaluate(
            """[...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.scroll, pre') &&
            e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)"""
        )
        assert over == []
        assert page.evaluate(
            "[...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().height > 100)"
        )


def test_text_stands_out_from_what_is_behind_it(browser: Any, folder: Path):
    """Contrast of 4.5 at least (WCAG 2 AA), between each text's colour and the nearest background behind it."""
    with open_page(browser, folder / "report.html") as page:
        worst = page.evaluate(
            """(() => {
              const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 :
                ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
              const parse = s => (s.match(/[\\d.]+/g) || []).map(Number);
              const behind = e => { for (; e; e = e.parentElement) {
                const c = parse(getComputedStyle(e).backgroundColor);
                if (c.length == 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
              const texts = [...document.querySelectorAll('body *:not(svg *)')].filter(e =>
                [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()));
              return Math.min(...texts.map(e => { const a = light(parse(getComputedStyle(e).color).slice(0, 3)),
                b = light(behind(e)); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
            })()"""
        )
    assert worst >= 4.5


def test_the_page_prints(browser: Any, folder: Path):
    with open_page(browser, folder / "report.html") as page:
        data = page.tab.pdf(print_background=False)
    assert data.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", data)) <= 20
