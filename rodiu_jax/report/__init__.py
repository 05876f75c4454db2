"""What people read: tables in the terminal, figures, and the page of a sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rodiu_jax.report.data.digest import Digest


def write_report(
    folder: str | Path, *, page: str | Path | None = None, digest: Digest | None = None
) -> list[Path]:
    """Write the page of a sweep, ``report.html``, and what it shows, beside the rows of the sweep.

    The page needs no other file. Beside it stand ``summary.csv`` (a row per point), ``figures/*.png``, ``*.svg`` and
    ``tables/*.csv``. Decisions kept in ``decisions/*`` (`rodiu_jax.report.page.kept_answers.write_decision`) become
    sections of the page. Figures and tables that an earlier report wrote (``report-files.json`` lists them) and this
    one does not are removed. An unfinished sweep has a page too, which says how many rows it shows.

    Args:
      folder: the folder of the sweep.
      page: another file for the page alone, to send or to publish: it has no links to the files beside it.
      digest: the sweep's rows, summed up, where the caller has read them already.

    Returns:
      The files written, ``report.html`` first and ``page`` last.

    Raises:
      InputError: no sweep in the folder, a damaged part or decision, or the folder cannot be written.
      WorkFailed: the sweep has no rows yet.
    """
    from rodiu_jax.io.files import make_folder, read_text, remove_leftovers, write_csv, write_text
    from rodiu_jax.report.data.digest import read_digest
    from rodiu_jax.report.figures import style
    from rodiu_jax.report.page.html import render_page
    from rodiu_jax.report.page.kept_answers import read_decisions
    from rodiu_jax.report.page.sweep_sections import make_sections
    from rodiu_jax.report.parts.section import Picture
    from rodiu_jax.report.text.summary import summarise_points

    folder = Path(folder)
    digest = read_digest(folder) if digest is None else digest
    parts = [*make_sections(folder, digest), *read_decisions(folder)]
    pictures, tables = make_folder(folder / "figures"), make_folder(folder / "tables")
    report, summary, listing = (folder / n for n in ("report.html", "summary.csv", "report-files.json"))
    for place, names in (
        (pictures, "*"),
        (tables, "*"),
        *((folder, p.name) for p in (report, summary, listing)),
    ):
        remove_leftovers(place, names)
    written = [report, summary]
    write_csv(summary, summarise_points(digest))
    drawings: dict[str, dict[str, str]] = {}
    for section in parts:
        drawn = drawings[section.name] = {}
        for picture in section.pictures:
            file = folder / section.place / f"{picture.name}.svg"
            if isinstance(picture, Picture):
                written += style.save_figure(picture.figure, pictures, picture.name)
                file = written[-1]
                written.append(tables / f"{picture.name}.csv")
                write_csv(written[-1], picture.table)
            name = f"{section.name}-{picture.name}"
            drawn[picture.name] = style.to_inline_svg(read_text(file), name, picture.description, source=file)
        for table in section.tables:
            file = tables / f"{table.name}.csv"
            # A picture of the same numbers has written its own.
            if table.data is not None and file not in written:
                written.append(file)
                write_csv(file, table.data)
    write_text(report, render_page(folder, digest, parts, drawings))
    listed = sorted(p.relative_to(folder).as_posix() for p in written if p.parent in (pictures, tables))
    _remove_others(folder, listing, listed)
    write_text(listing, json.dumps(listed, indent=1) + "\n")
    if page is not None:
        written.append(Path(page))
        write_text(page, render_page(folder, digest, parts, drawings, alone=True))
    return written


def _remove_others(folder: Path, listing: Path, ours: Sequence[str]) -> None:
    """Remove the figures and tables that the listing of an earlier report names, but those in ``ours``."""
    from rodiu_jax.io.files import read_json

    before = read_json(listing) if listing.exists() else []
    for name in before if isinstance(before, list) else []:
        path = folder / str(name)
        if name not in ours and path.parent in (folder / "figures", folder / "tables"):
            path.unlink(missing_ok=True)
