"""Answers of `rodiu choose`, `stress`, `robustness` and `diagnose`, kept beside a sweep for its page.

An answer is a folder: ``<name>.json`` for programs, ``section.json`` with the words for the page, a CSV file per table
and picture, pictures as PNG and SVG, and the plans that it advises. The page of a sweep shows the answers in
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


class _TableObject(StrictTable):
    name: str = Field(pattern=_PLAIN)
    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: list[int]


class _PictureObject(StrictTable):
    name: str = Field(pattern=_PLAIN)
    description: str


class _AnswerObject(StrictTable):
    title: str
    made: str
    text: str
    points: list[str]
    pictures: list[_PictureObject]
    tables: list[_TableObject]


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
      made: the command that computed it.
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
        written += style.save_figure(picture.figure, folder, picture.name)
        data[picture.name] = picture.table
    for table in section.tables:
        shown = pd.DataFrame(list(table.rows), columns=list(table.heads))
        data[table.name] = shown if table.data is None else table.data
    for name, frame in data.items():
        written.append(folder / f"{name}.csv")
        write_csv(written[-1], frame)
    answer = _AnswerObject(
        title=section.title,
        made=made,
        text=section.text,
        points=list(section.points),
        pictures=[_PictureObject(name=p.name, description=p.description) for p in section.pictures],
        tables=[
            _TableObject(
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
    write_text(written[-1], json.dumps(answer.model_dump(), indent=1, ensure_ascii=False) + "\n")
    return written


def read_decisions(folder: Path) -> list[Section]:
    """Read the answers kept in ``folder/decisions/*``, in the order of their folders' names.

    Raises:
      InputError: one of them is damaged.
    """
    sections = []
    for number, path in enumerate(sorted(folder.glob(f"{FOLDER}/*/{_SECTION}")), 1):
        try:
            answer = _AnswerObject.model_validate(read_json(path))
        except ValidationError as error:
            raise input_error(error, path) from None
        made = [f"Found by {answer.made}."] if answer.made else []
        sections.append(
            Section(
                f"decision-{number}",
                answer.title,
                " ".join([*made, answer.text]),
                answer.points,
                [Shown(p.name, p.description) for p in answer.pictures],
                [PageTable(t.name, t.caption, t.heads, t.rows, t.numbers) for t in answer.tables],
                f"{FOLDER}/{path.parent.name}",
            )
        )
    return sections
