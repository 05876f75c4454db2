"""What people look at: tables in the terminal, figures, and the page of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rodiu_jax.report.digest import Digest


def write_report(
    folder: str | Path, *, page: str | Path | None = None, digest: Digest | None = None
) -> list[Path]:
    """Write ``report.html``, one page that needs nothing else, and what it shows: ``summary.csv`` (a row per point),
    ``figures/*.png``, ``*.svg`` and ``tables/*.csv``, beside the rows of a sweep.

    Works on an unfinished sweep too: the page says how many rows it shows.

    Args:
      folder: of the sweep.
      page: another file for the page alone, to send or to publish: it does not point at the files beside it.
      digest: of its rows, where they are read already.

    Returns:
      The files written, ``report.html`` first and ``page`` last.

    Raises:
      InputError: no sweep in the folder, a damaged part, or the folder cannot be written.
      WorkFailed: the sweep has no rows yet.
    """
    from rodiu_jax.files import make_folder, write_csv, write_text
    from rodiu_jax.report import style
    from rodiu_jax.report.digest import read_digest
    from rodiu_jax.report.page import render
    from rodiu_jax.report.sections import sections
    from rodiu_jax.report.summary import by_point

    folder = Path(folder)
    found = read_digest(folder) if digest is None else digest
    parts = sections(folder, found)
    pictures, tables = make_folder(folder / "figures"), make_folder(folder / "tables")
    report, summary = folder / "report.html", folder / "summary.csv"
    written = [report, summary]
    write_csv(summary, by_point(found))
    drawings = {}
    for section in parts:
        for picture in section.pictures:
            written += style.save(picture.figure, pictures, picture.name)
            text = written[-1].read_text(encoding="utf-8")
            drawings[picture.name] = style.inline(text, picture.name, picture.description)
            written.append(tables / f"{picture.name}.csv")
            write_csv(written[-1], picture.table)
        for table in section.tables:
            if table.data is not None:
                written.append(tables / f"{table.name}.csv")
                write_csv(written[-1], table.data)
    write_text(report, render(folder, found, parts, drawings))
    if page is not None:
        written.append(Path(page))
        write_text(page, render(folder, found, parts, drawings, alone=True))
    return written
