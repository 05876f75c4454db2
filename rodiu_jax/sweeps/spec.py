"""What a sweep varies: a validated TOML spec, the presets, and the grid of points it stands for."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rodiu_jax.changes import Change, apply_changes, check_field, parse_change
from rodiu_jax.errors import InputError, nearest
from rodiu_jax.files import read_toml, toml_value
from rodiu_jax.instance import AXES, FIELD_SPECS, Instances, check_uncertainty
from rodiu_jax.sweeps.methods import GAPS, METHODS, RANKED

AUDIT_SHARE = 1e-3
"""Share of a sweep's scenarios whose brackets are audited by default."""

_PRESETS = Path(__file__).parent / "presets"
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Levels = Annotated[tuple[_Number, ...], Field(strict=False, min_length=1)]  # TOML knows lists, not tuples
_Text = Annotated[str, Field(min_length=1)]


class Factor(BaseModel):
    """One varied field: its levels are multipliers (``scale``) or values in the field's unit (``value``).

    Attributes:
      field: a field of `FIELD_SPECS`.
      names: shell-like pattern on the names of the field's last axis (``H100_*``); all of them by default.
    """

    model_config = _STRICT

    field: str
    names: str | None = None
    scale: _Levels | None = None
    value: _Levels | None = None

    @property
    def key(self) -> str:
        """``scale`` or ``value``, whichever the factor has."""
        return "value" if self.scale is None else "scale"

    @property
    def levels(self) -> tuple[float, ...]:
        """The multipliers or values, in the order written."""
        return self.scale or self.value or ()

    def change(self, level: float) -> Change:
        """The change that puts this factor at ``level``."""
        return Change(self.field, "scale" if self.key == "scale" else "set", level, self.names)


class SweepSpec(BaseModel):
    """A full grid over ``factors``, each point with the same ``samples`` scenarios.

    Point p of the grid is row-major over the factors in the order written: the last factor moves fastest.

    Attributes:
      catalog: ``seed``, ``corrected``, or the path of a catalogue file.
      samples: scenarios drawn, keyed by ``seed`` and their number; every point sees the same ones.
      method: a name of `METHODS`.
      gap: relative gap at which a scenario may stop (1e-6 counts as optimal); the method's own by default.
      time_limit: seconds per scenario; none by default.
      exact: whom the cascade solves exactly beside the audited: ``gap`` (the default: brackets wider than the gap),
        ``top`` (the ``top`` rows with the largest value in column ``by``, or ``gap``, of the whole sweep), ``all`` or
        ``none``.
      audit: share of the scenarios whose brackets the cascade audits, at least one of them; 0 audits none.
      certificates: store what proves the lower bounds, for ``rodiu verify``.
      changes: (``set`` in the file) changes of every scenario, such as ``budget=3000``, before the factors.
    """

    model_config = _STRICT

    name: _Text
    title: _Text
    question: str = ""
    catalog: _Text = "seed"
    uncertainty: str = "ddu"
    samples: Annotated[int, Field(ge=1, lt=2**32)] = 4
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    method: str = "cascade"
    gap: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    exact: Literal["gap", "top", "all", "none"] | None = None
    top: Annotated[int, Field(ge=1)] | None = None
    by: str | None = None
    audit: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    certificates: bool = False
    changes: Annotated[tuple[str, ...], Field(strict=False, alias="set")] = ()
    factors: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Levels per factor."""
        return tuple(len(f.levels) for f in self.factors)

    @property
    def wanted_gap(self) -> float:
        """The gap asked for, or the method's own."""
        return GAPS.get(self.method, 1e-6) if self.gap is None else self.gap

    @property
    def points(self) -> int:
        """Points of the grid."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def rows(self) -> int:
        """Scenarios of the whole sweep; row r is sample r // points at point r % points."""
        return self.samples * self.points

    @property
    def columns(self) -> tuple[str, ...]:
        """One column name per factor: the field, with its pattern where two factors share the field."""
        fields = [f.field for f in self.factors]
        return tuple(f"{f.field}[{f.names}]" if fields.count(f.field) > 1 else f.field for f in self.factors)

    def audited_rows(self) -> np.ndarray:
        """The rows whose brackets are audited, sorted: a choice seeded by the design, at least 1 where any."""
        share = AUDIT_SHARE if self.audit is None else self.audit
        count = math.ceil(share * self.rows)
        chosen = np.random.default_rng([self.seed, self.rows]).choice(
            self.rows, count, replace=False, shuffle=False
        )
        return np.sort(chosen)

    def levels_at(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """The level of each factor at ``points`` (shape P, integers): one array of P numbers per factor."""
        positions = np.unravel_index(points, self.shape)
        return tuple(np.array(f.levels)[at] for f, at in zip(self.factors, positions, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The spec as the TOML file holds it, every default written out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_toml(self) -> str:
        """The spec as TOML text that `load_spec` reads back to the same spec."""
        values = self.to_dict()
        factors = values.pop("factors")
        tables = [values, *factors]
        text = ["\n".join(f"{k} = {toml_value(v)}" for k, v in t.items()) for t in tables]
        return "\n\n[[factors]]\n".join(text) + "\n"


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in _PRESETS.glob("*.toml"))


def load_spec(name_or_path: str | Path) -> SweepSpec:
    """Read a preset by name, or a TOML file; a catalogue path in a file is relative to that file.

    Raises:
      InputError: no such preset or file; not TOML; a key that is missing, unknown, of the wrong type or out
        of range; a field that does not exist; no levels; a level that no scenario could have.
    """
    if str(name_or_path) in preset_names():
        path = _PRESETS / f"{name_or_path}.toml"
        return make_spec(read_toml(path), f"preset {name_or_path}")
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        known = preset_names()
        expected = f"a preset ({', '.join(known)}) or a TOML file{nearest(name_or_path, known)}"
        raise InputError("sweep", "", expected, str(name_or_path))
    values = read_toml(path)
    if isinstance(values.get("catalog"), str) and _is_file_name(values["catalog"]):
        values["catalog"] = str(path.resolve().parent / values["catalog"])
    return make_spec(values, str(path))


def make_spec(values: dict[str, Any], source: str = "sweep") -> SweepSpec:
    """Validate the keys of a spec, named as in its TOML file; raises as `load_spec`."""
    try:
        spec = SweepSpec.model_validate(values)
    except ValidationError as error:
        raise _input_error(error, source) from None
    check_uncertainty(spec.uncertainty, source)
    if spec.method not in METHODS:
        raise InputError(source, "method", f"one of {', '.join(METHODS)}", spec.method)
    _check_proofs(spec, source)
    for m, text in enumerate(spec.changes):
        parse_change(text, f"{source}: set[{m}]")
    for m, factor in enumerate(spec.factors):
        _check_factor(factor, source, f"factors[{m}]")
    return spec


def override(spec: SweepSpec, **options: Any) -> SweepSpec:
    """``spec`` with some keys replaced; ``None`` keeps the spec's own, ``set`` adds to the spec's changes.

    Raises:
      InputError: naming the option (``--samples``) at fault.
    """
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        try:
            SweepSpec.model_validate(spec.to_dict() | {key: value})
        except ValidationError as error:
            raise _input_error(error, f"--{key.replace('_', '-')}", at_key=False) from None
    for text in given.get("set", ()):
        parse_change(text)
    if _is_file_name(catalog := given.get("catalog", "")):
        given["catalog"] = str(Path(catalog).resolve())
    given["set"] = [*spec.changes, *given.get("set", ())]
    return make_spec(spec.to_dict() | given, spec.name)


def check_spec(spec: SweepSpec, extremes: Instances, source: str) -> None:
    """Check that every level of every factor gives admissible scenarios, whatever is drawn.

    Args:
      extremes: the smallest and the largest values that can be drawn, with the spec's own changes applied.

    Raises:
      InputError: a pattern that fits no name, two factors that change the same cell, or a level that leaves
        the field's physical range.
    """
    for m, factor in enumerate(spec.factors):
        cells = chosen_names(factor, extremes, f"{source}: factors[{m}]")
        for at, level in enumerate(factor.levels):
            try:
                apply_changes(extremes, [factor.change(level)])
            except InputError as error:
                expected = f"a level that leaves {error.field} {error.expected}"
                raise InputError(source, f"factors[{m}].{factor.key}[{at}]", expected, level) from None
        for other in range(m):
            same = spec.factors[other].field == factor.field
            if same and (cells & chosen_names(spec.factors[other], extremes, source)).any():
                expected = f"cells of {factor.field} that no other factor changes, as factors[{other}] does"
                raise InputError(source, f"factors[{m}].names", expected, factor.names or "*")


def chosen_names(factor: Factor, instances: Instances, source: str = "sweep") -> np.ndarray:
    """Mask over the field's last axis of what the factor changes; shape () where the field is one number.

    Raises:
      InputError: the pattern fits no name, or the field has no names.
    """
    axis = FIELD_SPECS[factor.field].axes[-1:]
    if not axis and factor.names is None:
        return np.array(True)
    names = instances.axis_names(axis) if axis else ()
    chosen = np.array([factor.names is None or fnmatchcase(n, factor.names) for n in names], bool)
    if not chosen.any():
        fitting = f"a pattern that fits a {AXES[axis]} among {', '.join(names)}" if axis else ""
        raise InputError(source, "names", fitting or f"no names: {factor.field} is one number", factor.names)
    return chosen


def _check_proofs(spec: SweepSpec, source: str) -> None:
    """Keys about who is solved exactly mean something with the cascade only, certificates where there are brackets."""
    for key in ("exact", "top", "by", "audit"):
        if (value := getattr(spec, key)) is not None and spec.method in ("bracket", "exact"):
            raise InputError(source, key, f"no such key with method {spec.method}", value)
    for key in ("top", "by"):
        if (value := getattr(spec, key)) is not None and spec.exact != "top":
            raise InputError(source, key, "exact = top beside it", value)
    if spec.exact == "top" and spec.top is None:
        raise InputError(source, "top", "how many rows to solve exactly")
    if spec.by is not None and spec.by not in RANKED:
        raise InputError(source, "by", f"one of {', '.join(RANKED)}{nearest(spec.by, RANKED)}", spec.by)
    if spec.certificates and spec.method == "exact":
        raise InputError(source, "certificates", "method cascade or bracket: HiGHS leaves no certificate")


def _check_factor(factor: Factor, source: str, path: str) -> None:
    """What can be said of a factor before any scenario is drawn."""
    try:
        check_field(factor.field, source)
    except InputError as error:
        raise InputError(source, f"{path}.field", error.expected, factor.field) from None
    if factor.field == "tp_degree":
        expected = "another field: the degrees are the same at every point (`set` changes them for all)"
        raise InputError(source, f"{path}.field", expected, factor.field)
    if (factor.scale is None) == (factor.value is None):
        raise InputError(source, path, "either scale = [...] or value = [...]", factor.field)
    spec = FIELD_SPECS[factor.field]
    levels = np.array(factor.levels)
    bad = (levels < 0) if factor.key == "scale" else spec.bad(levels)
    if factor.key == "scale" and spec.above_low:
        bad = levels <= 0
    if bad.any():
        at = int(np.argmax(bad))
        multiplier = f"multipliers {'>' if spec.above_low else '>='} 0"
        expected = multiplier if factor.key == "scale" else f"{spec.expected} ({spec.unit})"
        raise InputError(source, f"{path}.{factor.key}[{at}]", expected, float(levels[at]))
    if len(set(factor.levels)) < len(factor.levels):
        raise InputError(source, f"{path}.{factor.key}", "distinct levels", list(factor.levels))


def _is_file_name(catalog: str) -> bool:
    return catalog.endswith(".toml") or os.sep in catalog


def _input_error(error: ValidationError, source: str, *, at_key: bool = True) -> InputError:
    """The first of pydantic's findings as one line."""
    first = error.errors(include_url=False)[0]
    location: list[int | str] = list(first["loc"])
    path = _path(location) if at_key else ""
    if first["type"] == "missing":
        return InputError(source, path, "this key, which is missing")
    if first["type"] == "extra_forbidden":
        model = Factor if len(location) > 1 else SweepSpec
        names = [f.alias or name for name, f in model.model_fields.items()]
        expected = f"only the keys {', '.join(names)}{nearest(location[-1], names)}"
        return InputError(source, path, expected)
    if first["type"] == "too_short":
        return InputError(source, path, "at least one", first["input"])
    return InputError(source, path, first["msg"].removeprefix("Input should be "), first["input"])


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
