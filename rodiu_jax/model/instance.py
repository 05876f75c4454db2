"""A batch of scenarios over the same names: assembled, validated, taken apart.

No JAX here: solver processes load this module and must start fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from rodiu_jax.errors import InputError, nearest
from rodiu_jax.io.files import write_whole
from rodiu_jax.model.fields import (
    FIELD_SPECS,
    FILE_FIELDS,
    NAME_FIELDS,
    REQUIRED_FIELDS,
    UNCERTAINTY_MODES,
    Fields,
    absent_fields,
    axes_of,
    has_quotas,
    is_absent,
    select_scenarios,
    uses_serving,
)
from rodiu_jax.model.slots import Names
from rodiu_jax.model.verdict import FAMILIES, SERVING_FAMILIES


@dataclass(frozen=True)
class Instances:
    """A batch of B scenarios over the same names; a field without a leading axis is shared by all of them.

    Construct through `make_instances` (or `load`), which validate.

    Attributes:
      gpu_devices: the device of each GPU configuration: those of one device share its quota. By default each
        configuration is a device of its own.
    """

    query_names: tuple[str, ...]
    model_names: tuple[str, ...]
    gpu_names: tuple[str, ...]
    uncertainty: str
    fields: Fields
    gpu_devices: tuple[str, ...] = ()
    batched: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        dimensions = {n: np.ndim(v) for n, v in self.fields._asdict().items()}
        varying = {n for n, count in dimensions.items() if count > len(axes_of(n, count))}
        object.__setattr__(self, "batched", frozenset(varying))
        if not self.gpu_devices:
            object.__setattr__(self, "gpu_devices", self.gpu_names)

    @property
    def size(self) -> int:
        """B, the number of scenarios (1 where every field is shared)."""
        return next((getattr(self.fields, n).shape[0] for n in sorted(self.batched)), 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(I, J, K, N)."""
        degrees = self.fields.tp_degree.shape[-1]
        return len(self.query_names), len(self.model_names), len(self.gpu_names), degrees

    @property
    def names(self) -> Names:
        """The names along the axes, which give positions and slots their meaning."""
        degrees = tuple(int(n) for n in self.axis_names("N"))
        return Names(self.query_names, self.model_names, self.gpu_names, degrees)

    @property
    def families(self) -> tuple[str, ...]:
        """The constraint families that these scenarios have, in the order of margins."""
        return (*FAMILIES, *SERVING_FAMILIES) if uses_serving(self.fields) else FAMILIES

    def axis_names(self, axis: str) -> tuple[str, ...]:
        """Names along axis ``I``, ``J``, ``K`` or ``N`` (degrees as text)."""
        if axis == "N":
            degrees = np.asarray(self.fields.tp_degree)  # the same in every scenario
            return tuple(str(n) for n in degrees.reshape(-1, degrees.shape[-1])[0].tolist())
        return {"I": self.query_names, "J": self.model_names, "K": self.gpu_names}[axis]

    def one(self, b: int) -> Fields:
        """The fields of scenario ``b``, without batch axis."""
        self.check_index(b)
        return Fields(
            **{n: np.asarray(v[b] if n in self.batched else v) for n, v in self.fields._asdict().items()}
        )

    def check_index(self, b: int, source: str = "instance") -> int:
        """Return ``b`` if there is such a scenario."""
        if not 0 <= b < self.size:
            raise InputError(source, "instance", f"a whole number from 0 to {self.size - 1}", b)
        return b

    def span(self, first: int, stop: int) -> Instances:
        """Return the scenarios ``first`` to ``stop - 1`` as `take` does, but as views of these ones."""
        if not self.batched:
            return self.take(range(first, stop))
        return replace(self, fields=select_scenarios(self.fields, slice(first, stop), self.batched))

    def take(self, indices: Sequence[int] | Int[np.ndarray, " B"]) -> Instances:
        """Return the scenarios ``indices``, in that order; at least one field is batched in the result."""
        index = np.asarray(indices, dtype=np.int64)
        taken = select_scenarios(self.fields, index, self.batched)
        if not self.batched:  # all scenarios are alike: keep the count in one field
            taken = taken._replace(budget=np.broadcast_to(taken.budget, index.shape).copy())
        return replace(self, fields=taken)

    def as_batch(self) -> Instances:
        """The same scenarios with a batch axis on at least one field, for `jax.vmap` to run over."""
        return self if self.batched else self.take([0])

    def with_fields(self, *, source: str = "instances", **values: Any) -> Instances:
        """The same instances with some fields replaced, validated anew."""
        return make_instances(
            self.query_names,
            self.model_names,
            self.gpu_names,
            self.uncertainty,
            {**self.fields._asdict(), **values},
            gpu_devices=self.gpu_devices,
            source=source,
        )

    def with_uncertainty(self, uncertainty: str) -> Instances:
        """The same instances under another uncertainty mode."""
        return replace(self, uncertainty=check_uncertainty(uncertainty, "uncertainty"))

    def save(self, path: str | Path) -> None:
        """Write the ``.npz`` of MODEL section 8, whole or not at all; what is absent is left out."""
        values = {n: getattr(self.fields, n) for n in FILE_FIELDS}
        arrays: dict[str, Any] = {n: v for n, v in values.items() if not is_absent(n, v)}
        names = (*NAME_FIELDS, "gpu_devices") if has_quotas(self.fields) else NAME_FIELDS
        arrays |= {n: np.array(getattr(self, n), dtype=np.str_) for n in names}
        arrays["uncertainty"] = np.array(self.uncertainty, dtype=np.str_)
        with write_whole(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)


def check_uncertainty(mode: object, source: str | Path) -> str:
    """Return ``mode`` if it is one of the three."""
    if mode not in UNCERTAINTY_MODES:
        raise InputError(source, "uncertainty", " or ".join(UNCERTAINTY_MODES), mode)
    return str(mode)


def check_names(names: Iterable[object], what: str, source: str | Path) -> tuple[str, ...]:
    """Return the names if they are distinct, printable and not empty."""
    result = _check_printable(names, what, source)
    if not result:
        raise InputError(source, what, "at least one name")
    doubled = (
        next((n for n in result if result.count(n) > 1), None) if len(set(result)) < len(result) else None
    )
    if doubled is not None:
        raise InputError(source, what, "distinct names", doubled)
    return result


def _check_printable(names: Iterable[object], what: str, source: str | Path) -> tuple[str, ...]:
    result = tuple(str(n) for n in names)
    for n in result:
        if not n.strip() or not n.isprintable():
            raise InputError(source, what, "printable names that are not blank", n)
    return result


def _check_devices(
    devices: Iterable[object] | None, gpus: tuple[str, ...], values: dict[str, Any], source: str | Path
) -> tuple[str, ...]:
    """Return the device of each GPU configuration: as named, or as the derived field of ``values`` numbers them."""
    number = np.asarray(values.get("gpu_device", 0))
    if devices is None:
        return tuple(gpus[int(k)] for k in number) if number.ndim else gpus
    result = _check_printable(devices, "gpu_devices", source)
    if len(result) != len(gpus):
        raise InputError(source, "gpu_devices", f"{len(gpus)} names, one per GPU configuration", len(result))
    return result


def number_devices(devices: Sequence[str]) -> Int[np.ndarray, " K"]:
    """Return, for each GPU configuration, the position of the first one of the same device."""
    return np.array([devices.index(name) for name in devices], np.int64)


def _check_quotas(
    quota: Shaped[np.ndarray, "*B K"], devices: tuple[str, ...], gpus: tuple[str, ...], source: str | Path
) -> None:
    """Check that the configurations of a device state the same quota."""
    for k, first in enumerate(number_devices(devices).tolist()):
        if (quota[..., k] != quota[..., first]).any():
            b = np.argmax(np.atleast_1d(quota[..., k] != quota[..., first]))
            mine, other = (float(np.atleast_1d(quota[..., m])[b]) for m in (k, first))
            raise InputError(
                source,
                f"gpu_quota[{gpus[k]}]",
                f"{other:g}, as {gpus[first]} says of the same device {devices[k]}",
                mine,
            )


def _check_field(
    name: str, value: Any, sizes: dict[str, int], source: str | Path
) -> Shaped[np.ndarray, "*_"]:
    spec = FIELD_SPECS[name]
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(source, name, "an array of real numbers", str(array.dtype))
    array = array.astype(np.float64)
    if not array.ndim and spec.axes and float(array) == spec.absent:  # as `absent_fields` holds it
        return array.astype(np.int64) if spec.integer else array
    layouts = [spec.axes] if spec.also is None else [spec.axes, spec.also]
    shapes = [tuple(sizes[a] for a in axes) for axes in layouts]
    if not any(array.shape in (shape, (*array.shape[:1], *shape)) for shape in shapes):
        known = " or ".join(
            f"{shape} ({','.join(axes) or 'scalar'})" for shape, axes in zip(shapes, layouts, strict=True)
        )
        raise InputError(source, name, f"shape {known} or the same with a leading batch axis", array.shape)
    bad = spec.bad(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        cell = f"{name}[{','.join(map(str, where))}]" if where else name
        raise InputError(source, cell, f"{spec.expected} ({spec.unit})", float(array[where]))
    return array.astype(np.int64) if spec.integer else array


def make_instances(
    query_names: Iterable[object],
    model_names: Iterable[object],
    gpu_names: Iterable[object],
    uncertainty: object,
    values: dict[str, Any],
    *,
    gpu_devices: Iterable[object] | None = None,
    source: str | Path = "instances",
) -> Instances:
    """Validate and assemble instances.

    Args:
      values: every field of `REQUIRED_FIELDS` and any other of `FIELD_SPECS`, in the shape of its axes or with a
        leading batch axis.
      gpu_devices: the device of each GPU configuration; by default each is one of its own.
      source: what errors name as the origin.

    Raises:
      InputError: a field is missing, unknown, of the wrong shape or type, not finite or out of range; batch
        sizes differ; names are not distinct; configurations of one device state different quotas; the mode is
        unknown.
    """
    names = (
        check_names(query_names, "query_names", source),
        check_names(model_names, "model_names", source),
        check_names(gpu_names, "gpu_names", source),
    )
    if unknown := sorted(set(values) - set(FIELD_SPECS)):
        hint = nearest(unknown[0], FIELD_SPECS)
        raise InputError(source, unknown[0], f"only the fields {', '.join(FILE_FIELDS)}{hint}")
    if missing := [n for n in REQUIRED_FIELDS if n not in values]:
        raise InputError(source, missing[0], "this field, which is missing")
    devices = _check_devices(gpu_devices, names[2], values, source)
    degrees = np.asarray(values["tp_degree"])
    if degrees.ndim not in (1, 2) or degrees.shape[-1] == 0:
        raise InputError(source, "tp_degree", "shape (N,) with at least one degree", degrees.shape)
    sizes = {"I": len(names[0]), "J": len(names[1]), "K": len(names[2]), "N": degrees.shape[-1]}
    arrays = absent_fields()
    arrays |= {n: _check_field(n, values[n], sizes, source) for n in FILE_FIELDS if n in values}
    if arrays["gpu_quota"].ndim:
        _check_quotas(arrays["gpu_quota"], devices, names[2], source)
        arrays["gpu_device"] = number_devices(devices)
    if (np.diff(arrays["tp_degree"], axis=-1) <= 0).any():
        raise InputError(source, "tp_degree", "increasing degrees", arrays["tp_degree"].tolist())
    if arrays["tp_degree"].ndim > 1 and (arrays["tp_degree"] != arrays["tp_degree"][:1]).any():
        # a plan names degrees, and may be meant for all scenarios
        raise InputError(
            source, "tp_degree", "the same degrees in every scenario", arrays["tp_degree"].tolist()
        )
    result = Instances(*names, check_uncertainty(uncertainty, source), Fields(**arrays), devices)
    counts = {n: arrays[n].shape[0] for n in sorted(result.batched)}
    if 0 in counts.values():
        raise InputError(source, min(counts, key=lambda n: counts[n]), "at least one scenario", 0)
    if len(set(counts.values())) > 1:
        usual, _ = Counter(counts.values()).most_common(1)[0]
        odd = [n for n, count in counts.items() if count != usual]
        like = next(n for n, count in counts.items() if count == usual)
        raise InputError(source, ", ".join(odd), f"{usual} scenarios as in {like}", counts[odd[0]])
    return result
