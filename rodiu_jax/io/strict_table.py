"""Tables of TOML and objects of JSON as pydantic models: no unknown key, no silent conversion, one line per fault."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rodiu_jax.errors import InputError, nearest

_EXPECTED = {
    "list_type": "a list",
    "dict_type": "a value by name",
    "string_type": "a text (string)",
    "too_short": "at least one",
    "string_too_short": "at least one character",
}
"""What pydantic's kinds of fault expect, where its own words would puzzle: a user knows no dictionary."""


class StrictTable(BaseModel):
    """A table of TOML, or an object of JSON: no unknown key, no silent conversion of types.

    Attributes:
      noun: what the file's format calls such a thing.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    noun: ClassVar[str] = "a table"

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        known = _list_keys(cls)
        if isinstance(value, dict):
            for key in value:
                if key not in known:
                    raise wrong(f"only the keys {', '.join(known)}{nearest(key, known)}", key)
        elif not isinstance(value, cls):
            raise wrong(f"{cls.noun} with {', '.join(known)}", value)
        return value


@cache  # a plan asks once for each of its routes
def _list_keys(table: type[StrictTable]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in table.model_fields.items())


def wrong(expected: str, value: object) -> PydanticCustomError:
    """Return what a validator raises: `input_error` shows ``value`` and ``expected`` at the place it stands."""
    return PydanticCustomError("wrong", "{text}", {"text": expected, "value": value})


def tag(name: str) -> str:
    """Return the tag of one member of a union, in a form that `input_error` leaves out of paths."""
    return f"({name})"


def input_error(error: ValidationError, source: str | Path, *, inside: str = "") -> InputError:
    """Turn pydantic's findings into one line: the first with its path, and the number of the others.

    Args:
      inside: path, inside ``source``, of the value that was validated.
    """
    faults = error.errors(include_url=False)
    first = faults[0]
    path = inside
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("("):
            path += f".{part}" if path else part
    more = f" ({len(faults) - 1} more like this)" if len(faults) > 1 else ""
    kind, context = first["type"], first.get("ctx", {})
    if kind == "missing":
        return InputError(source, path, f"this key, which is missing{more}")
    text = first["msg"].removeprefix("Input should be ")
    if kind in _EXPECTED and context.get("min_length", 1) == 1:
        text = _EXPECTED[kind]
    return InputError(source, path, text + more, context.get("value", first["input"]))
