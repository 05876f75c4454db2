"""Options of `rodiu sweep` made from the keys of a sweep's file: `SweepSpec` holds their types, limits and help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click

from rodiu_jax.cli.options import PATH, FloatRange, WithFields, summaries
from rodiu_jax.sweeps.method_table import METHODS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_ELSEWHERE = ("catalog", "uncertainty", "seed", "set")
"""Keys whose options several commands share (`rodiu_jax.cli.options.catalog_options`)."""

_METAVARS = {"plans": "PLANS.json", "top": "K", "by": "COLUMN", "audit": "SHARE"}
_AFTER = "dry_run"  # the option behind which those of the spec stand in the help


class SpecCommand(WithFields):
    """A command with an option for each key of `SweepSpec` that has a description.

    The options are made when they are first asked for: pydantic must not be loaded for ``rodiu --help``.
    """

    _made = False

    @property
    def params(self) -> list[click.Parameter]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The command's arguments and options, with those of the spec among them."""
        if not self._made:
            self._made = True
            place = [p.name for p in self._params].index(_AFTER) + 1
            self._params[place:place] = _make_options()
        return self._params

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._params = params


def _make_options() -> list[click.Parameter]:
    from rodiu_jax.sweeps.spec import SweepSpec

    return [
        _make_option(name, field)
        for name, field in SweepSpec.model_fields.items()
        if field.description and (field.alias or name) not in _ELSEWHERE
    ]


def _make_option(name: str, field: FieldInfo) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return click.Option([flag], is_flag=True, default=None, help=field.description)
    text = f"{field.description} {summaries(METHODS)}" if name == "method" else field.description
    return click.Option([flag], type=_click_type(name, field), metavar=_METAVARS.get(name), help=text)


def _click_type(name: str, field: FieldInfo) -> click.ParamType:
    """Find the type of an option: a choice, a number in a range, a path or a text."""
    if name == "method":
        return click.Choice(list(METHODS))
    if name == "plans":
        return PATH
    kind, limits = _unwrap(field.annotation, field.metadata)
    if get_origin(kind) is Literal:
        return click.Choice(list(get_args(kind)))
    low, high = _limit(limits, "ge", "gt"), _limit(limits, "le", "lt")
    ends = {"min": low[0], "max": high[0], "min_open": low[1], "max_open": high[1]}
    if kind is int:
        return click.IntRange(**ends)
    return FloatRange(**ends) if kind is float else click.STRING


def _unwrap(annotation: Any, metadata: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Take ``Annotated[float, Field(ge=0)] | None`` apart into ``float`` and its limits."""
    if get_origin(annotation) is Annotated:
        kind, *fields = get_args(annotation)
        return kind, [limit for f in fields for limit in getattr(f, "metadata", [])]
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is not Literal and len(kinds) == 1:
        return _unwrap(kinds[0], metadata)
    return annotation, list(metadata)


def _limit(limits: Sequence[Any], closed: str, open_: str) -> tuple[Any, bool]:
    """Find a limit by its name in pydantic, and tell whether the limit itself is excluded."""
    for limit in limits:
        for name in (closed, open_):
            if (value := getattr(limit, name, None)) is not None:
                return value, name == open_
    return None, False
