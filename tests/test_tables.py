"""Benchmark tables read again and compared."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.measure import Case, Side, Spec, Timed, section
from bench.page import page
from bench.tables import compared, newest, read


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
    assert newest(tmp_path)["toy"][0].name == "2026-01-02.md"
    text = page(tmp_path, tmp_path)
    assert "| 1,000 rows | peer | 1,000 rows | 4 (3.6 to 4.4) |  |" in text
    assert (tmp_path / "toy.png").stat().st_size > 1_000


def test_the_committed_page_is_that_of_the_committed_tables(tmp_path):
    bench = Path(__file__).parent.parent / "bench"
    assert (bench / "RESULTS.md").read_text() == page(bench / "results", tmp_path)


def test_a_comparison_with_no_table_is_refused(tmp_path):
    from bench.__main__ import main

    missing = CliRunner().invoke(main, ["sampling", "--smoke", "--compare", str(tmp_path / "none.md")])
    assert missing.exit_code == 2
