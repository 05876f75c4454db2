"""``python -m bench.page``: one page, ``bench/RESULTS.md``, with pictures, of the newest committed tables."""

from __future__ import annotations

import re
from pathlib import Path

import click
from matplotlib.axes import Axes

from bench.tables import Row, newest, rent
from rodiu_jax.report import style

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "RESULTS.md"

_WORDS = {
    "2026-11-25-cpu-exact.md": "the exact solver on ten families of scenarios, each accelerator alone, what was tried",
    "2026-11-25-cpu-regret.md": "regret intervals against exact regrets",
    "2026-11-25-cpu-shadow-prices.md": "shadow prices against solving again",
}


def _largest(rows: list[Row]) -> list[Row]:
    """The rows of the largest size of each kind of case: kinds differ in the words around their numbers."""

    def kind(row: Row) -> tuple[str, str]:
        return re.sub(r"[\d.,]+", "", row.size), row.side

    most: dict[tuple[str, str], int] = {}
    for row in rows:
        most[kind(row)] = max(row.items, most.get(kind(row), 0))
    return [row for row in rows if row.items == most[kind(row)]]


def _picture(axes: Axes, rows: list[Row]) -> None:
    """Items per second over items timed, a line per side."""
    sides = dict.fromkeys(r.side for r in rows)
    for colour, side in zip(style.COLOURS, sides, strict=False):
        mine = sorted((r.items, r.rate) for r in rows if r.side == side)
        axes.plot(*zip(*mine, strict=True), "o", color=colour, label=side, markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    style.labels(axes, x=f"{rows[0].item} at a time", y=f"{rows[0].item} per second")
    axes.legend(frameon=False, fontsize=8)


def page(folder: Path, pictures: Path) -> str:
    """The page as Markdown; its pictures are written to a folder beside it."""
    found = newest(folder)
    parts = [
        "# What was measured",
        "Made by `python -m bench.page` from the tables in [results/](results/), the newest of each benchmark. A ratio"
        " is our rate over the peer's in the same run, the median of interleaved repeats with the least and the"
        " largest; each table names machine, versions, date, load and precision. No GPU has been measured yet:"
        " `python -m bench` on one says the same there.",
    ]
    for spec, (path, rows) in found.items():
        hourly = rent(path.read_text(encoding="utf-8"))
        lines = [f"## {spec}", "", f"From [{path.name}](results/{path.name}).", ""]
        money = "" if hourly is None else f" $ per million {rows[0].item}s |"
        lines += [f"| case | side | per second | ours / this |{money} quality |"]
        lines += ["|---|---|--:|--:|" + ("--:|" if money else "") + "---|"]
        for row in _largest(rows):
            rate = f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.3g}"
            ratio = "-" if row.ratio is None else f"{row.ratio:.3g} ({row.low:.3g} to {row.high:.3g})"
            cost = "" if hourly is None else f" {hourly / 3600 * 1e6 / row.rate:.3g} |"
            lines.append(f"| {row.size} | {row.side} | {rate} {row.item} | {ratio} |{cost} {row.quality} |")
        if len({r.items for r in rows}) > 1:
            figure, axes = style.canvas(1, 1)
            _picture(axes, rows)
            style.heading(axes, f"{spec}: {rows[0].item} per second")
            style.save_as(figure, pictures / f"{spec}.png")
            lines += [
                "",
                f"![{spec}: {rows[0].item} per second over {rows[0].item} at a time](results/{spec}.png)",
            ]
        parts.append("\n".join(lines))
    others = [
        f"- [{name}](results/{name}): {words}" for name, words in _WORDS.items() if (folder / name).exists()
    ]
    parts.append("\n".join(["## Other tables", "", *others]))
    return "\n\n".join(parts) + "\n"


@click.command()
def main() -> None:
    """Write bench/RESULTS.md and its pictures."""
    PAGE.write_text(page(FOLDER, FOLDER), encoding="utf-8")
    click.echo(f"written: {PAGE}")


if __name__ == "__main__":
    main()
