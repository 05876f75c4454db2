"""The folder of a planned fleet: the plan, its scenario and catalogue for other commands, tables, and a page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rodiu_jax.errors import InputError

if TYPE_CHECKING:
    from rodiu_jax.decisions.planning.plan import FleetAnswer

FILES = (
    ("plan.json", "the recommended plan, for `rodiu evaluate` and `rodiu export`"),
    ("scenario.npz", "the scenario that was planned, for every command that reads scenarios"),
    ("catalog.toml", "the catalogue with this traffic, these prices, quotas and promises in it"),
    (
        "alternatives.json",
        "other plans for the same traffic, by name: trusting every rate, with plain headroom, ...",
    ),
    ("answer.json", "everything that this page says, as numbers"),
)
"""The files that every answer has, besides its tables, and what they hold."""

_DAY_FILES = (
    ("hours.npz", "the scenarios of the hours, in order"),
    ("hours_fixed.json", "the fixed fleet, routed in each hour"),
    ("hours_cheapest.json", "the cheapest fleet of each hour"),
    ("hours_schedule.json", "the schedule's fleet in each hour"),
)
"""The files of an answer hour by hour."""

_PAGE = "report.html"
_TABLES = (
    *("fleet", "routing", "traffic", "promises", "quotas", "what_if", "protections", "limits", "rests_on"),
    *("hours",),
)
"""Tables that an answer may have; one that it lacks is removed where an earlier answer left it."""


def check_folder(folder: str | Path, given: Iterable[str | Path]) -> Path:
    """Make the folder of an answer, before the work.

    Args:
      given: files that are asked about: catalogue, traces, prices.

    Raises:
      InputError: it cannot be made or written, one of the files given would be overwritten in it, or it holds files of
        these names that no earlier answer wrote.
    """
    from rodiu_jax.io.files import make_folder

    place = Path(folder)
    names = [name for name, _ in (*FILES, *_DAY_FILES)] + [f"{name}.csv" for name in _TABLES] + [_PAGE]
    ours = [place / name for name in names if (place / name).exists()]
    for target in ours:
        if any(Path(file).exists() and Path(file).samefile(target) for file in given):
            raise InputError(
                target, "", "another folder than that of a file asked about, which would be overwritten"
            )
    if ours and not (place / "answer.json").exists():
        raise InputError(
            ours[0], "", "a folder without a file of this name, or one that holds an earlier plan"
        )
    return make_folder(folder)


def write_plan(answer: FleetAnswer, folder: str | Path) -> list[Path]:
    """Write the folder of an answer: plan, scenario, catalogue, alternatives, numbers, tables and ``report.html``.

    ``plan.json`` is a list with the one recommended plan, of scenario 0 of ``scenario.npz``; ``alternatives.json`` an
    object of names with ``plan`` and ``what``, a sentence. The catalogue extends the one that was asked about, by name
    or by a path relative to the folder.

    Returns:
      The files written, ``report.html`` first.

    Raises:
      InputError: as `check_folder`.
    """
    from rodiu_jax.catalog.readers.imported import write_checked
    from rodiu_jax.io.files import remove_leftovers, write_csv, write_text
    from rodiu_jax.model.plan_json import save_plans
    from rodiu_jax.report.page.plan_page import render_plan_page
    from rodiu_jax.report.text.plan_tables import make_tables

    place = check_folder(folder, answer.inputs.request.files)
    remove_leftovers(place)
    tables = [t for t in make_tables(answer) if t.data is not None]
    save_plans([answer.plan], place / "plan.json")
    answer.scenario.save(place / "scenario.npz")
    write_checked(place / "catalog.toml", answer.inputs.catalog_text(place))
    others = {
        name: {"plan": plan.to_json(), "what": what} for name, (plan, what) in answer.alternatives().items()
    }
    _write_json(place / "alternatives.json", others)
    _write_json(place / "answer.json", answer.to_json())
    files = [*FILES, *(_DAY_FILES if answer.day is not None else ())]
    for name in {name for name, _ in _DAY_FILES} - {name for name, _ in files}:
        (place / name).unlink(missing_ok=True)
    if answer.day is not None:
        answer.day.scenarios.save(place / "hours.npz")
        save_plans(answer.day.fixed_plans, place / "hours_fixed.json")
        save_plans(answer.day.hourly_plans, place / "hours_cheapest.json")
        save_plans(answer.day.schedule.plans, place / "hours_schedule.json")
    written = [place / name for name, _ in files]
    for table in tables:
        assert table.data is not None
        write_csv(place / f"{table.name}.csv", table.data)
        written.append(place / f"{table.name}.csv")
    for name in set(_TABLES) - {t.name for t in tables}:
        (place / f"{name}.csv").unlink(missing_ok=True)
    write_text(place / _PAGE, render_plan_page(answer, files))
    return [place / _PAGE, *written]


def _write_json(path: Path, value: object) -> None:
    from rodiu_jax.io.files import write_text

    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
