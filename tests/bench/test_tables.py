"""Benchmark tables read again and compared."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.measure import Case, Side, Spec, Timed, section
from bench.page import page
from bench.roofline import Peaks, Shares, Stage
from bench.roofline import table as roofline
from bench.tables import compared, newest, read, read_roofline


def table(ratio: float) -> str:
    """A benchmark of two sides whose peer is ``ratio`` times slower, give or take a tenth."""
    sides = (Side("ours", dict, 1_000), Side("peer", dict, 100, target=2.0))
    case = Case("1,000 rows", sides, lambda _: (True, ""))
    rows = [
        Timed(case, sides[0], (0.5, 0.5), (1.0, 1.0), True, "right"),
        Timed(case, sides[1], (0.1, 0.1), (0.9 * ratio, 1.1 * ratio), True, "right"),
    ]
    spec = Spec("toy", "m", "row", "p", "q", "p", "b", (1,), None)  # pyright: ignore[reportArgumentType]
    return section(spec, rows)


def test_a_table_is_read_as_it_was_written():
    ours, peer = read(f"# Title\n\n{table(3.0)}\n\n| another | table |\n|---|---|\n| 1 | 2 |\n")
    assert (ours.spec, ours.item, ours.size, ours.side) == ("toy", "rows", "1,000 rows", "ours")
    assert (ours.items, ours.rate, ours.ratio, ours.quality) == (1_000, 2_000.0, None, "right")
    assert (peer.items, peer.ratio, peer.low, peer.high) == (100, 3.0, 2.7, 3.3)


@pytest.mark.parametrize(("now", "verdict"), [(3.0, "as before"), (2.0, "slower"), (5.0, "faster")])
def test_a_change_counts_beyond_the_spread_of_both(now, verdict):
    (line,) = compared(read(table(3.0)), read(table(now)))
    assert line == f"toy, 1,000 rows, beside peer: 3x -> {now:g}x, {verdict}"


def test_the_page_shows_the_newest_tables(tmp_path):
    (tmp_path / "2026-01-01.md").write_text(table(3.0))
    (tmp_path / "2026-01-02.md").write_text(table(4.0))
    assert newest(tmp_path)["toy", ""][0].name == "2026-01-02.md"
    text = page(tmp_path, tmp_path)
    assert "| 1,000 rows | peer | 1,000 rows | 4 (3.6 to 4.4) |  |" in text
    assert (tmp_path / "toy.png").stat().st_size > 1_000


def test_a_roofline_is_read_as_it_was_written(tmp_path):
    peaks = Peaks(2e10, {"float32": 1e11, "float64": 5e10})
    stages = [
        Stage("draw", "float64", 100, seconds=0.01, bytes_accessed=1e8, operations=2e8),
        Stage("ascent, 150 steps", "float32", 100, seconds=0.02, bytes_accessed=8e8, operations=4e8),
    ]
    text = roofline(peaks, stages, Shares(1e-5, 1e-3, 1e-2, 9e-4))
    assert "| draw | float64 | 100 | 100 | 1000 | 2000 | 2 | 50 % | 40 % |" in text
    assert "bracket to 1 % 1e+04" in text
    found = read_roofline(text)
    assert (found.bandwidth, found.arithmetic) == (peaks.bandwidth, peaks.arithmetic)
    for stage, point in zip(stages, found.stages, strict=True):
        assert (point.name, point.precision) == (stage.name, stage.precision)
        assert point.intensity == pytest.approx(stage.intensity, rel=5e-3)
        assert point.rate == pytest.approx(stage.operations / stage.seconds, rel=5e-3)
    with pytest.raises(ValueError, match="no peaks"):
        read_roofline(table(3.0))
    (tmp_path / "2026-01-01-roofline.md").write_text(f"# Roofline\n\n{text}\n")
    shown = page(tmp_path, tmp_path)
    assert "| draw | float64 |" in shown
    assert "results/roofline.png" in shown
    assert (tmp_path / "roofline.png").stat().st_size > 1_000


def test_a_gpu_has_its_own_sections(tmp_path):
    cpu = "- Date: 2026-01-02 00:00 UTC\n- Machine: Some CPU, 2 cores used; JAX runs on 1 x cpu\n"
    gpu = "- Date: 2026-01-01 00:00 UTC\n- Machine: Other, 16 cores used; JAX runs on 2 x NVIDIA H100 80GB\n"
    (tmp_path / "a.md").write_text(f"{cpu}\n{table(3.0)}")
    assert "No GPU has been measured" in page(tmp_path, tmp_path)
    (tmp_path / "b.md").write_text(f"{gpu}\n{table(50.0)}")
    text = page(tmp_path, tmp_path)
    assert "No GPU has been measured" not in text
    assert "## toy\n\nFrom [a.md](results/a.md): Some CPU, 2 cores used; JAX runs on 1 x cpu." in text
    assert "## toy on NVIDIA H100 80GB\n\nFrom [b.md](results/b.md): Other, 16 cores" in text
    assert (tmp_path / "toy-nvidia-h100-80gb.png").stat().st_size > 1_000
    assert text.index("3 (2.7 to 3.3)") < text.index("50 (45 to 55)")


def test_rented_machines_have_costs(tmp_path):
    (tmp_path / "2026-01-01.md").write_text(f"- Rent: $3.60 per hour (1 x A at ...)\n\n{table(4.0)}")
    text = page(tmp_path, tmp_path)
    assert "| case | side | per second | ours / this | $ per million rows | quality |" in text
    assert "| 1,000 rows | ours | 2,000 rows | - | 0.5 | right |" in text


def test_the_committed_page_is_that_of_the_committed_tables(tmp_path):
    bench = Path(__file__).parents[2] / "bench"
    assert (bench / "RESULTS.md").read_text() == page(bench / "results", tmp_path)


def test_a_comparison_with_no_table_is_refused(tmp_path):
    from bench.__main__ import main

    missing = CliRunner().invoke(main, ["sampling", "--smoke", "--compare", str(tmp_path / "none.md")])
    assert missing.exit_code == 2
