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
from rodiu_jax.model.fields import FIELD_SPECS, NAME_FIELDS, UNCERTAINTY_MODES, Fields, select_scenarios
from rodiu_jax.model.slots import Names


@dataclass(frozen=True)
class Instances:
    """A batch of B scenarios over the same names; a field without a leading axis is shared by all of them.

    Construct through `make_instances` (or `load`), which validate.
    """

    query_names: tuple[str, ...]
    model_names: tuple[str, ...]
    gpu_names: tuple[str, ...]
    uncertainty: str
    fields: Fields
    batched: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        varying = {n for n, v in self.fields._asdict().items() if np.ndim(v) > len(FIELD_SPECS[n].axes)}
        object.__setattr__(self, "batched", frozenset(varying))

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
            source=source,
        )

    def with_uncertainty(self, uncertainty: str) -> Instances:
        """The same instances under another uncertainty mode."""
        return replace(self, uncertainty=check_uncertainty(uncertainty, "uncertainty"))

    def save(self, path: str | Path) -> None:
        """Write the ``.npz`` of MODEL section 8, whole or not at all."""
        arrays: dict[str, Any] = dict(self.fields._asdict())
        arrays |= {n: np.array(getattr(self, n), dtype=np.str_) for n in NAME_FIELDS}
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
    result = tuple(str(n) for n in names)
    if not result:
        raise InputError(source, what, "at least one name")
    for n in result:
        if not n.strip() or not n.isprintable():
            raise InputError(source, what, "printable names that are not blank", n)
    doubled = (
        next((n for n in result if result.count(n) > 1), None) if len(set(result)) < len(result) else None
    )
    if doubled is not None:
        raise InputError(source, what, "distinct names", doubled)
    return result


def _check_field(
    name: str, value: Any, sizes: dict[str, int], source: str | Path
) -> Shaped[np.ndarray, "*_"]:
    spec = FIELD_SPECS[name]
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise InputError(source, name, "an array of real numbers", str(array.dtype))
    array = array.astype(np.float64)
    shape = tuple(sizes[a] for a in spec.axes)
    if array.shape != shape and (array.ndim != len(shape) + 1 or array.shape[1:] != shape):
        axes = ",".join(spec.axes) or "scalar"
        raise InputError(
            source, name, f"shape {shape} ({axes}) or the same with a leading batch axis", array.shape
        )
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
    source: str | Path = "instances",
) -> Instances:
    """Validate and assemble instances.

    Args:
      values: every field of `FIELD_SPECS`, in the shape of its axes or with a leading batch axis.
      source: what errors name as the origin.

    Raises:
      InputError: a field is missing, unknown, of the wrong shape or type, not finite or out of range; batch
        sizes differ; names are not distinct; the mode is unknown.
    """
    names = (
        check_names(query_names, "query_names", source),
        check_names(model_names, "model_names", source),
        check_names(gpu_names, "gpu_names", source),
    )
    if unknown := sorted(set(values) - set(FIELD_SPECS)):
        hint = nearest(unknown[0], FIELD_SPECS)
        raise InputError(source, unknown[0], f"only the fields {', '.join(FIELD_SPECS)}{hint}")
    if missing := [n for n in FIELD_SPECS if n not in values]:
        raise InputError(source, missing[0], "this field, which is missing")
    degrees = np.asarray(values["tp_degree"])
    if degrees.ndim not in (1, 2) or degrees.shape[-1] == 0:
        raise InputError(source, "tp_degree", "shape (N,) with at least one degree", degrees.shape)
    sizes = {"I": len(names[0]), "J": len(names[1]), "K": len(names[2]), "N": degrees.shape[-1]}
    arrays = {n: _check_field(n, values[n], sizes, source) for n in FIELD_SPECS}
    if (np.diff(arrays["tp_degree"], axis=-1) <= 0).any():
        raise InputError(source, "tp_degree", "increasing degrees", arrays["tp_degree"].tolist())
    if arrays["tp_degree"].ndim > 1 and (arrays["tp_degree"] != arrays["tp_degree"][:1]).any():
        # a plan names degrees, and may be meant for all scenarios
        raise InputError(
            source, "tp_degree", "the same degrees in every scenario", arrays["tp_degree"].tolist()
        )
    result = Instances(*names, check_uncertainty(uncertainty, source), Fields(**arrays))
    counts = {n: arrays[n].shape[0] for n in sorted(result.batched)}
    if 0 in counts.values():
        raise InputError(source, min(counts, key=lambda n: counts[n]), "at least one scenario", 0)
    if len(set(counts.values())) > 1:
        usual, _ = Counter(counts.values()).most_common(1)[0]
        odd = [n for n, count in counts.items() if count != usual]
        like = next(n for n, count in counts.items() if count == usual)
        raise InputError(source, ", ".join(odd), f"{usual} scenarios as in {like}", counts[odd[0]])
    return result
