"""Answers kept beside a sweep: what `rodiu choose`, `stress`, `robustness` and `diagnose` found, for its page.

An answer is a folder: ``<name>.json`` for programs, ``section.json`` for the page (what was said, word for word), a CSV
per table and picture, pictures as PNG and SVG, and the plans that it advises. The page of a sweep shows the answers in
``DIR/decisions/*``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError

from rodiu_jax.io.files import make_folder, read_json, write_csv, write_text
from rodiu_jax.io.strict_table import StrictTable, input_error
from rodiu_jax.model.plan import Plan
from rodiu_jax.model.plan_json import save_plans
from rodiu_jax.report.figures import style
from rodiu_jax.report.parts.section import PageTable, Picture, Section, Shown

FOLDER = "decisions"
_SECTION = "section.json"
_PLAIN = r"^[\w-]+$"


class _Table(StrictTable):
    name: str = Field(pattern=_PLAIN)
    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: list[int]


class _Picture(StrictTable):
    name: str = Field(pattern=_PLAIN)
    description: str


class _Kept(StrictTable):
    title: str
    made: str
    text: str
    points: list[str]
    pictures: list[_Picture]
    tables: list[_Table]


def write_decision(
    section: Section,
    values: dict[str, Any],
    folder: str | Path,
    *,
    made: str = "",
    plans: Sequence[Plan] = (),
) -> list[Path]:
    """Write an answer into a folder, made if need be.

    Args:
      values: JSON values, written as ``<name>.json``.
      made: the command that found it.
      plans: what it advises, written as ``plans.json``.

    Returns:
      The files written.

    Raises:
      InputError: the folder cannot be written.
    """
    folder = make_folder(folder)
    written = [folder / f"{section.name}.json"]
    write_text(written[0], json.dumps(values, indent=1, allow_nan=False) + "\n")
    if plans:
        written.append(folder / "plans.json")
        save_plans(plans, written[-1])
    data: dict[str, pd.DataFrame] = {}
    for picture in section.pictures:
        assert isinstance(picture, Picture), "drawn just now"
        written += style.save(picture.figure, folder, picture.name)
        data[picture.name] = picture.table
    for table in section.tables:
        shown = pd.DataFrame(list(table.rows), columns=list(table.heads))
        data[table.name] = shown if table.data is None else table.data
    for name, frame in data.items():
        written.append(folder / f"{name}.csv")
        write_csv(written[-1], frame)
    kept = _Kept(
        title=section.title,
        made=made,
        text=section.text,
        points=list(section.points),
        pictures=[_Picture(name=p.name, description=p.description) for p in section.pictures],
        tables=[
            _Table(
                name=t.name,
                caption=t.caption,
                heads=list(t.heads),
                rows=[list(row) for row in t.rows],
                numbers=list(t.numbers),
            )
            for t in section.tables
        ],
    )
    written.append(folder / _SECTION)  # last: what a page shows is complete
    write_text(written[-1], json.dumps(kept.model_dump(), indent=1, ensure_ascii=False) + "\n")
    return written


def read_decisions(folder: Path) -> list[Section]:
    """The answers kept in ``folder/decisions/*``, by name of their folders.

    Raises:
      InputError: one of them is damaged.
    """
    found = []
    for number, path in enumerate(sorted(folder.glob(f"{FOLDER}/*/{_SECTION}")), 1):
        try:
            kept = _Kept.model_validate(read_json(path))
        except ValidationError as error:
            raise input_error(error, path) from None
        made = [f"Found by {kept.made}."] if kept.made else []
        found.append(
            Section(
                f"decision-{number}",
                kept.title,
                " ".join([*made, kept.text]),
                kept.points,
                [Shown(p.name, p.description) for p in kept.pictures],
                [PageTable(t.name, t.caption, t.heads, t.rows, t.numbers) for t in kept.tables],
                f"{FOLDER}/{path.parent.name}",
            )
        )
    return found
