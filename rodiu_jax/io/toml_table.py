"""TOML tables as pydantic models: no unknown key, no silent conversion, and the first fault as one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rodiu_jax.errors import InputError, nearest


class TomlTable(BaseModel):
    """A TOML table: no unknown key, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in value:
                if key not in known:
                    raise wrong(f"only the keys {', '.join(known)}{nearest(key, known)}", key)
        return value


def wrong(expected: str, value: object) -> PydanticCustomError:
    """What a validator raises: `input_error` shows ``value`` and ``expected`` at the place it stands."""
    return PydanticCustomError("wrong", "{text}", {"text": expected, "value": value})


def tag(name: str) -> str:
    """The tag of one member of a union, in a form that `input_error` leaves out of paths."""
    return f"({name})"


def input_error(error: ValidationError, source: str | Path) -> InputError:
    """Return the first of pydantic's findings with its path, and the number of the others."""
    faults = error.errors(include_url=False)
    first = faults[0]
    path = ""
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("("):
            path += f".{part}" if path else part
    more = f" ({len(faults) - 1} more like this)" if len(faults) > 1 else ""
    if first["type"] == "missing":
        return InputError(source, path, f"this key, which is missing{more}")
    context = first.get("ctx", {})
    text = first["msg"].removeprefix("Input should be ")
    if first["type"] in ("too_short", "string_too_short") and context["min_length"] == 1:
        text = "at least one" + (" character" if first["type"] == "string_too_short" else "")
    return InputError(source, path, text + more, context.get("value", first["input"]))
