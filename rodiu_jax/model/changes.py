"""Changes to the fields of instances: ``FIELD=VALUE``, ``FIELD*=FACTOR``, ``FIELD+=SHIFT``, whole or for some names."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.model.fields import AXES, FIELD_SPECS, FILE_FIELDS, axes_of, is_absent
from rodiu_jax.model.instance import Instances

_PATTERN = re.compile(
    r"^\s*(?P<field>\w+)\s*(?:\[(?P<names>[^\]]*)\])?\s*(?P<op>[*+]?=)\s*(?P<value>.+?)\s*$"
)


Kind = Literal["set", "scale", "shift"]

_KINDS: dict[str, Kind] = {"=": "set", "*=": "scale", "+=": "shift"}


@dataclass(frozen=True)
class Change:
    """Set a field, multiply it by a factor, or shift it by a number in its unit.

    ``value`` is one number, or one per name along the field's only axis; ``names`` are the cells meant, as
    `chosen_cells` reads them, ``None`` for all.
    """

    field: str
    kind: Kind
    value: float | tuple[float, ...]
    names: str | None = None


def parse_change(text: str, source: str = "changes") -> Change:
    """Read ``FIELD=VALUE``, ``FIELD*=FACTOR`` or ``FIELD+=SHIFT``, each also as ``FIELD[NAMES]``.

    The number may be a list such as ``1,1.7,2.9``.
    """
    match = _PATTERN.match(text)
    if match is None:
        raise InputError(source, "", "FIELD=VALUE, FIELD*=FACTOR or FIELD+=SHIFT", text)
    check_field(match["field"], source)
    try:
        numbers = tuple(float(part) for part in match["value"].split(","))
    except ValueError:
        raise InputError(source, match["field"], "a number, or numbers with commas", match["value"]) from None
    if not np.isfinite(numbers).all():
        raise InputError(source, match["field"], "finite numbers", match["value"])
    value = numbers[0] if len(numbers) == 1 else numbers
    return Change(match["field"], _KINDS[match["op"]], value, match["names"])


def split_change(text: str) -> tuple[str, str | None, Kind, str] | None:
    """Return field, names, kind and value of a change as they are written; None where it is none."""
    match = _PATTERN.match(text)
    return None if match is None else (match["field"], match["names"], _KINDS[match["op"]], match["value"])


def check_field(name: str, source: str) -> str:
    """Return ``name`` if it is a field of an instance; the error suggests the nearest one."""
    if name not in FILE_FIELDS:
        raise InputError(
            source, "field", f"one of {', '.join(FILE_FIELDS)}{nearest(name, FILE_FIELDS)}", name
        )
    return name


def changeable(name: str, values: Shaped[np.ndarray, "*n"], instances: Instances) -> Shaped[np.ndarray, "*m"]:
    """Return the values of a field for cells of it to be changed; one that is absent gets its axes."""
    if not is_absent(name, values):
        return values
    return np.broadcast_to(values, [len(instances.axis_names(axis)) for axis in FIELD_SPECS[name].axes])


def apply_changes(instances: Instances, changes: Iterable[Change]) -> Instances:
    """Apply changes in order and validate the result.

    Raises:
      InputError: unknown field, no such name, a list of the wrong length, or a result out of range.
    """
    source = "changes"  # what errors name as the origin
    values: dict[str, np.ndarray] = {}
    for change in changes:
        held = values.get(check_field(change.field, source), getattr(instances.fields, change.field))
        new = np.array(changeable(change.field, np.asarray(held), instances), dtype=np.float64)
        axes = axes_of(change.field, new.ndim)
        number = np.asarray(change.value, dtype=np.float64)
        if number.ndim and (len(axes) != 1 or number.shape[0] != new.shape[-1]):
            length = new.shape[-1] if len(axes) == 1 else 1
            raise InputError(source, change.field, f"{length} number(s)", change.value)
        chosen = chosen_cells(change.field, change.names, instances, source, change.field, axes=axes)
        with np.errstate(over="ignore"):  # what overflows is refused below
            changed = change_values(new, change.kind, number)
        values[change.field] = np.where(chosen, changed, new)
    return instances.with_fields(source=source, **values) if values else instances


def change_values(
    old: Shaped[np.ndarray, "*n"], kind: Kind, number: Float64[np.ndarray, "*_"]
) -> Float64[np.ndarray, "*n"]:
    """Set ``old`` to, multiply it by, or shift it by ``number``, which broadcasts against it.

    ``old`` is of whole numbers where its field is.
    """
    if kind == "set":
        return np.broadcast_to(number, old.shape)
    return np.asarray(old * number if kind == "scale" else old + number)


def chosen_cells(
    field: str,
    names: str | None,
    instances: Instances,
    source: str = "names",
    key: str = "names",
    *,
    axes: str | None = None,
) -> Bool[np.ndarray, "*_"]:
    """Return the mask over the field's axes of the cells that ``names`` chooses; shape () for a single number.

    Args:
      names: shell-like pattern (``H100_*``) on the names of the field's last axis; or, for a field with
        several axes, one per axis with commas between (``Code_Gen, *, H100_*``); ``None`` for all cells.
      source, key: what errors name.
      axes: of the field's array where it may have several; by default those that ``instances`` hold.

    Raises:
      InputError: a pattern fits no name, their number is wrong, or the field has no names.
    """
    if axes is None:
        held = np.asarray(getattr(instances.fields, field))
        axes = axes_of(field, changeable(field, held, instances).ndim)
    lists = [instances.axis_names(axis) for axis in axes]
    if names is None:
        return np.ones([len(found) for found in lists], bool)
    if not axes:
        raise InputError(source, key, f"no names: {field} is one number", names)
    patterns = [p.strip() for p in names.split(",")] if len(axes) > 1 else [names]
    if len(patterns) == 1:
        patterns = ["*"] * (len(axes) - 1) + patterns
    if len(patterns) != len(axes):
        expected = f"one pattern ({AXES[axes[-1]]}) or {len(axes)} ({', '.join(AXES[a] for a in axes)})"
        raise InputError(source, key, expected, names)
    masks = []
    for axis, found, pattern in zip(axes, lists, patterns, strict=True):
        masks.append(np.array([fnmatch.fnmatchcase(n, pattern) for n in found], bool))
        if not masks[-1].any():
            expected = f"a pattern that fits a {AXES[axis]} among {', '.join(found)}"
            raise InputError(source, key, expected, pattern)
    return functools.reduce(np.logical_and.outer, masks)
