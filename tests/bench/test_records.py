"""Results of benchmarks as JSON: written, read, refused, compared, and shown on the page."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.page import main as page_main
from bench.page import render_page
from bench.records import (
    BenchmarkResult,
    CaseResult,
    Machine,
    Record,
    Rent,
    SideResult,
    Study,
    compare_records,
    read_record,
    write_record,
)
from bench.render import render_record, render_study
from bench.roofline import Peaks, Shares, Stage, tabulate
from rodiu_jax.errors import InputError

BENCH = Path(__file__).parents[2] / "bench"


def machine(date: str = "2026-01-01 00:00", **values: Any) -> Machine:
    values = {"processor": "Some CPU", "cores": 2, "device": "cpu", "devices": 1} | values
    return Machine(date=date, versions={"Python": "3.11.7"}, **values)


def toy(ratio: float, seconds: float = 0.5, **values: Any) -> Record:
    """A benchmark of two sides whose peer is ``ratio`` times slower, give or take a tenth."""
    sides = [
        SideResult(name="ours", items=1_000, seconds=[0.9 * seconds, seconds, 1.1 * seconds]),
        SideResult(
            name="peer",
            items=100,
            seconds=[0.1] * 3,
            ratios=[0.9 * ratio, ratio, 1.1 * ratio],
            wanted=2.0,
        ),
    ]
    case = CaseResult(name="1,000 rows", sides=sides, right=True, quality="all the same")
    words = dict.fromkeys(("measures", "peers", "quality", "precision", "by_hand"), "told")
    benchmark = BenchmarkResult(name="toy", item="row", cases=[case], **words)
    return Record(version=1, machine=machine(**values), benchmarks=[benchmark])


def test_results_are_read_as_they_were_written(tmp_path):
    record = toy(3.0, rent=Rent(hourly=2.5, source="1 x A"), load=0.5)
    record.studies.append(
        Study(
            name="s",
            title="S",
            words="w",
            facts={"x": 1.0},
            columns=["a", "b"],
            rows=[["t", 1], [None, 0.5]],
            notes=["n"],
        )
    )
    write_record(record, tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == record


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Benchmarks", "line 1 column 1: expected JSON"),
        ("[]", r"got \[\], expected an object with version, machine"),
        ('{"version": 2, "machine": {}}', "version: got 2, expected 1"),
        ('{"version": 1, "bench": []}', "got 'bench', expected only the keys .*did you mean benchmarks"),
    ],
)
def test_what_is_no_file_of_results_is_refused(tmp_path, text, message):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_record(path)
    from bench.__main__ import main

    for command, arguments in ((main, ["sampling", "--smoke", "--compare"]), (page_main, [])):
        ran = CliRunner().invoke(command, [*arguments, str(path)])
        assert ran.exit_code == 2
        assert "old.json" in ran.output


def test_a_comparison_with_no_file_is_refused(tmp_path):
    from bench.__main__ import main

    missing = CliRunner().invoke(main, ["sampling", "--smoke", "--compare", str(tmp_path / "none.json")])
    assert missing.exit_code == 2


@pytest.mark.parametrize(("now", "verdict"), [(3.0, "as before"), (2.0, "slower"), (5.0, "faster")])
def test_a_change_counts_beyond_the_spread_of_both(now, verdict):
    own, peer = compare_records(toy(3.0), toy(now))
    assert peer == f"toy, 1,000 rows, beside peer: 3x -> {now:g}x ({now / 3:.3f} of it), {verdict}"
    assert own.startswith("toy, 1,000 rows, ours: 2000 rows/s -> 2000 rows/s (1.000 of it), as before")


@pytest.mark.parametrize(("seconds", "verdict"), [(0.45, "as before"), (0.25, "faster"), (1.0, "slower")])
def test_our_own_rates_are_compared_on_one_kind_of_machine(seconds, verdict):
    own, _ = compare_records(toy(3.0), toy(3.0, seconds))
    assert own.endswith(verdict)
    assert f"({0.5 / seconds:.3f} of it)" in own
    lines = compare_records(toy(3.0), toy(3.0, seconds, processor="Another CPU"))
    assert len(lines) == 1
    assert "beside peer" in lines[0]


def test_what_only_one_side_holds_is_not_compared():
    other = toy(3.0)
    other.benchmarks[0].cases[0].name = "1 row"
    assert compare_records(toy(3.0), other) == []


def test_the_page_shows_the_newest_results(tmp_path):
    write_record(toy(3.0), tmp_path / "b.json")
    write_record(toy(4.0, date="2026-01-02 00:00"), tmp_path / "a.json")
    text = render_page(tmp_path, tmp_path)
    assert "| 1,000 rows | peer | 1,000 | 4 (3.6 to 4.4) |  |" in text
    assert "3 (2.7 to 3.3)" not in text
    assert (tmp_path / "toy.png").stat().st_size > 1_000


def test_one_file_is_shown_whole(tmp_path):
    write_record(toy(3.0), tmp_path / "a.json")
    ran = CliRunner().invoke(page_main, [str(tmp_path / "a.json")])
    assert ran.exit_code == 0
    assert ran.output.strip() == render_record(toy(3.0)).strip()
    assert (
        "| 1,000 rows | ours | 1,000 | 500 (450 to 550) | 2,000 | - | - | yes | all the same |" in ran.output
    )
    assert "| 1,000 rows | peer | 100 | 100 (100 to 100) | 1,000 | 3 (2.7 to 3.3) | 2 |  |  |" in ran.output


def test_a_roofline_is_a_study_with_a_picture(tmp_path):
    peaks = Peaks(2e10, {"float32": 1e11, "float64": 5e10})
    stages = [
        Stage("draw", "float64", 100, seconds=0.01, bytes_accessed=1e8, operations=2e8),
        Stage("ascent, 150 steps", "float32", 100, seconds=0.02, bytes_accessed=8e8, operations=4e8),
        Stage(
            "not counted", "float32", 100, seconds=0.02, bytes_accessed=float("nan"), operations=float("nan")
        ),
    ]
    study = tabulate(peaks, stages, Shares(1e-5, 1e-3, 1e-2, 9e-4))
    assert study.rows[0][:3] == ["draw", "float64", 100]
    assert study.rows[0][3:] == pytest.approx([100, 1000, 2000, 2, 50, 40])
    assert study.rows[2][4:] == [None] * 5
    assert study.facts["memory, GB/s"] == pytest.approx(20)
    assert study.facts["bracket to 1 %, whole call, us per scenario"] == pytest.approx(1e4)
    assert "| draw | float64 | 100 | 100 | 1,000 | 2,000 | 2 | 50 | 40 |" in render_study(study)
    write_record(Record(version=1, machine=machine(), studies=[study]), tmp_path / "roofline.json")
    shown = render_page(tmp_path, tmp_path)
    assert "| draw | float64 |" in shown
    assert "results/roofline.png" in shown
    assert (tmp_path / "roofline.png").stat().st_size > 1_000


def test_a_gpu_has_its_own_sections(tmp_path):
    write_record(toy(3.0, date="2026-01-02 00:00"), tmp_path / "a.json")
    assert "No GPU has been measured" in render_page(tmp_path, tmp_path)
    gpu = toy(50.0, processor="Other", cores=16, device="NVIDIA H100 80GB", devices=2)
    write_record(gpu, tmp_path / "b.json")
    text = render_page(tmp_path, tmp_path)
    assert "No GPU has been measured" not in text
    from_cpu = "2026-01-02 00:00 UTC: Some CPU, 2 cores used; JAX runs on 1 x cpu."
    assert f"## toy\n\nFrom [a.json](results/a.json), {from_cpu}" in text
    from_gpu = "2026-01-01 00:00 UTC: Other, 16 cores used; JAX runs on 2 x NVIDIA H100 80GB."
    assert f"## toy on NVIDIA H100 80GB\n\nFrom [b.json](results/b.json), {from_gpu}" in text
    assert (tmp_path / "toy-nvidia-h100-80gb.png").stat().st_size > 1_000
    assert text.index("3 (2.7 to 3.3)") < text.index("50 (45 to 55)")


def test_rented_machines_have_costs(tmp_path):
    write_record(toy(4.0, rent=Rent(hourly=3.6, source="1 x A")), tmp_path / "a.json")
    text = render_page(tmp_path, tmp_path)
    assert "| case | side | rows per second | ours / this | $ per million rows | quality |" in text
    assert "| 1,000 rows | ours | 2,000 | - | 0.5 | all the same |" in text


def test_the_committed_page_is_that_of_the_committed_results(tmp_path):
    """Its pictures, drawn to ``tmp_path``, need not be the same bytes."""
    assert (BENCH / "RESULTS.md").read_text() == render_page(BENCH / "results", tmp_path)
