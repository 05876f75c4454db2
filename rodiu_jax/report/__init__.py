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
    ``figures/*.png``, ``*.svg`` and ``tables/*.csv``, beside the rows of a sweep. Decisions kept in ``decisions/*``
    (`rodiu_jax.report.decisions.write_decision`) are on the page too.

    Works on an unfinished sweep too: the page says how many rows it shows.

    Args:
      folder: of the sweep.
      page: another file for the page alone, to send or to publish: it does not point at the files beside it.
      digest: of its rows, where they are read already.

    Returns:
      The files written, ``report.html`` first and ``page`` last.

    Raises:
      InputError: no sweep in the folder, a damaged part or decision, or the folder cannot be written.
      WorkFailed: the sweep has no rows yet.
    """
    from rodiu_jax.files import make_folder, read_text, write_csv, write_text
    from rodiu_jax.report import style
    from rodiu_jax.report.decisions import read_decisions
    from rodiu_jax.report.digest import read_digest
    from rodiu_jax.report.page import render
    from rodiu_jax.report.section import Picture
    from rodiu_jax.report.sections import sections
    from rodiu_jax.report.summary import by_point

    folder = Path(folder)
    found = read_digest(folder) if digest is None else digest
    parts = [*sections(folder, found), *read_decisions(folder)]
    pictures, tables = make_folder(folder / "figures"), make_folder(folder / "tables")
    report, summary = folder / "report.html", folder / "summary.csv"
    written = [report, summary]
    write_csv(summary, by_point(found))
    drawings: dict[str, dict[str, str]] = {}
    for section in parts:
        drawn = drawings[section.name] = {}
        for picture in section.pictures:
            file = folder / section.place / f"{picture.name}.svg"
            if isinstance(picture, Picture):
                written += style.save(picture.figure, pictures, picture.name)
                file = written[-1]
                written.append(tables / f"{picture.name}.csv")
                write_csv(written[-1], picture.table)
            name = f"{section.name}-{picture.name}"
            drawn[picture.name] = style.inline(read_text(file), name, picture.description, source=file)
        for table in section.tables:
            if table.data is not None:
                written.append(tables / f"{table.name}.csv")
                write_csv(written[-1], table.data)
    write_text(report, render(folder, found, parts, drawings))
    if page is not None:
        written.append(Path(page))
        write_text(page, render(folder, found, parts, drawings, alone=True))
    return written
