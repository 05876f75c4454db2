"""Changes to the fields of instances: ``FIELD=VALUE``, ``FIELD*=FACTOR``, whole or for some names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.instance import AXES, FIELD_SPECS, Instances

_PATTERN = re.compile(r"^\s*(?P<field>\w+)\s*(?:\[(?P<names>[^\]]*)\])?\s*(?P<op>\*?=)\s*(?P<value>.+?)\s*$")


@dataclass(frozen=True)
class Change:
    """Set a field, or multiply it by a factor.

    ``value`` is one number, or one per name along the field's only axis; ``names`` is a shell-like pattern
    (``H100_*``) on the names of the field's last axis, ``None`` for all of them.
    """

    field: str
    kind: Literal["set", "scale"]
    value: float | tuple[float, ...]
    names: str | None = None


def parse_change(text: str, source: str = "--set") -> Change:
    """Read ``FIELD=VALUE``, ``FIELD*=FACTOR`` or ``FIELD[NAMES]*=FACTOR``; VALUE may be a list ``1,1.7,2.9``."""
    match = _PATTERN.match(text)
    if match is None:
        raise InputError(source, "", "FIELD=VALUE or FIELD*=FACTOR", text)
    check_field(match["field"], source)
    try:
        numbers = tuple(float(part) for part in match["value"].split(","))
    except ValueError:
        raise InputError(source, match["field"], "a number, or numbers with commas", match["value"]) from None
    if not np.isfinite(numbers).all():
        raise InputError(source, match["field"], "finite numbers", match["value"])
    value = numbers[0] if len(numbers) == 1 else numbers
    return Change(match["field"], "scale" if match["op"] == "*=" else "set", value, match["names"])


def check_field(name: str, source: str) -> str:
    """Return ``name`` if it is a field of an instance; the error suggests the nearest one."""
    if name not in FIELD_SPECS:
        raise InputError(
            source, "field", f"one of {', '.join(FIELD_SPECS)}{nearest(name, FIELD_SPECS)}", name
        )
    return name


def apply_changes(instances: Instances, changes: Iterable[Change], source: str = "--set") -> Instances:
    """Apply changes in order and validate the result.

    Raises:
      InputError: unknown field, no such name, a list of the wrong length, or a result out of range.
    """
    values: dict[str, np.ndarray] = {}
    for change in changes:
        spec = FIELD_SPECS[check_field(change.field, source)]
        old = values.get(change.field, getattr(instances.fields, change.field))
        new = np.array(old, dtype=np.float64)
        number = np.asarray(change.value, dtype=np.float64)
        if number.ndim and (len(spec.axes) != 1 or number.shape[0] != new.shape[-1]):
            length = new.shape[-1] if len(spec.axes) == 1 else 1
            raise InputError(source, change.field, f"{length} number(s)", change.value)
        chosen = np.ones(new.shape[-1:] if spec.axes else (), dtype=bool)
        if change.names is not None:
            if not spec.axes:
                raise InputError(source, change.field, "no names: this field is one number", change.names)
            names = instances.axis_names(spec.axes[-1])
            chosen = np.array([fnmatch.fnmatchcase(n, change.names) for n in names])
            if not chosen.any():
                expected = f"a pattern that fits a {AXES[spec.axes[-1]]} among {', '.join(names)}"
                raise InputError(source, change.field, expected, change.names)
        with np.errstate(over="ignore"):  # what overflows is refused below
            changed = new * number if change.kind == "scale" else np.broadcast_to(number, new.shape)
        values[change.field] = np.where(chosen, changed, new)
    return instances.with_fields(source=source, **values) if values else instances
